/* Slots of handles that were used very often. */
#include "core/loop/handles.h"
#include "support/support.h"

static struct call *record_of(struct world *world, tram_handle handle) {
    return call_at_slot(world->loop->calls, handle.slot);
}

/* rules: L-16 */
static void test_L_16_a_slot_that_had_all_generations_retires(void **state) {
    struct world *world = *state;
    tram_handle first, last, other;
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t) "a", NULL, &first), 0);
    run_ticks(world, 1);
    assert_trace(world, "a");
    /* As after four thousand million calls: the next one is the last that the slot can name. */
    record_of(world, first)->generation = UINT32_MAX - 1;
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t) "b", NULL, &last), 0);
    assert_int_equal(last.slot, first.slot);
    assert_int_equal(tram_handle_cancel(world->loop, last), 1);
    assert_int_equal(tram_handle_cancelled(world->loop, last), 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t) "c", NULL, &other), 0);
        assert_int_not_equal(other.slot, first.slot);
        /* Handles of old name nothing. */
        assert_int_equal(tram_handle_cancel(world->loop, first), 0);
        assert_int_equal(tram_handle_cancel(world->loop, last), 0);
        assert_int_equal(tram_handle_cancelled(world->loop, first), -ESRCH);
        assert_int_equal(tram_handle_cancelled(world->loop, last), 1);
        run_ticks(world, 1);
        assert_trace(world, "c");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_L_16_a_slot_that_had_all_generations_retires, world_setup, world_teardown),
    };
    return cmocka_run_group_tests_name("handles", tests, NULL, NULL);
}
