/* Slots of handles that were used very often. */
#include "core/loop/handles.h"
#include "support/support.h"

static struct call *record_of(struct world *world, tram_handle handle) {
    return call_at(world->loop, handle.slot);
}

/* rules: L-16 */
static void test_L_16_a_slot_that_had_all_generations_retires(void **state) {
    struct world *world = *state;
    tram_handle first, last, other;
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t) "a", NULL, &first), 0);
    run_ticks(world, 1);
    assert_trace(world, "a");
    /* As after two thousand million calls: the next one is the last that the slot can name. */
    record_of(world, first)->slot.generation = UINT32_MAX - 2;
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

static tram_handle call(struct world *world) {
    tram_handle handle;
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t) "a", NULL, &handle), 0);
    return handle;
}

static void test_L_16_how_a_call_ended_is_known_until_the_next_in_its_slot_has_ended(void **state) {
    struct world *world = *state;
    for (int cancelled = 0; cancelled <= 1; cancelled++) {
        tram_handle first = call(world);
        assert_int_equal(tram_handle_cancelled(world->loop, first), 0);
        if (cancelled)
            assert_int_equal(tram_handle_cancel(world->loop, first), 1);
        run_ticks(world, 1);
        assert_int_equal(tram_handle_cancelled(world->loop, first), cancelled);
        tram_handle next = call(world);
        assert_int_equal(next.slot, first.slot);
        assert_int_equal(tram_handle_cancelled(world->loop, first), cancelled);
        assert_int_equal(tram_handle_cancelled(world->loop, next), 0);
        assert_int_equal(tram_handle_cancel(world->loop, first), 0);
        run_ticks(world, 1);
        assert_int_equal(tram_handle_cancelled(world->loop, first), -ESRCH);
    }
    assert_trace(world, "a a a");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_L_16_a_slot_that_had_all_generations_retires, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_L_16_how_a_call_ended_is_known_until_the_next_in_its_slot_has_ended,
                                        world_setup, world_teardown),
    };
    return cmocka_run_group_tests_name("handles", tests, NULL, NULL);
}
