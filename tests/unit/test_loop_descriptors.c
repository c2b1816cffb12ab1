/* The table of a loop's descriptors: what a high number costs, and that none is lost. */
#include "core/loop/loop.h"
#include "support/support.h"

static const struct io_kind plain_kind = {.name = "plain"};

static void add(struct world *world, struct io *io, int fd) {
    assert_int_equal(tram__io_add(io, world->loop, &plain_kind, fd), 0);
    assert_ptr_equal(tram__io_of_descriptor(world->loop, fd), io);
}

/* The numbers need not be open: nothing is asked of the kernel before an io waits. rules: L-18 */
static void test_a_high_descriptor_neither_moves_nor_clears_the_table(void **state) {
    struct world *world = *state;
    static const int numbers[] = {3, 1023, 1024, 70000, 1 << 20, (1 << 20) + 1, 3000000, 900};
    enum { COUNT = sizeof numbers / sizeof *numbers };
    struct io ios[COUNT], second;
    add(world, &ios[0], numbers[0]);
    for (int i = 1; i < COUNT; i++) {
        size_t before = world->peak_bytes = world->live_bytes;
        add(world, &ios[i], numbers[i]);
        assert_true(world->peak_bytes - before <= 65536); /* one array of them: 4 MiB, cleared and copied to */
    }
    for (int i = 0; i < COUNT; i++) {
        assert_ptr_equal(tram__io_of_descriptor(world->loop, numbers[i]), &ios[i]);
        assert_int_equal(tram__io_add(&second, world->loop, &plain_kind, numbers[i]), TRAM_ESTATE);
    }
    tram__io_remove(&ios[COUNT - 1]); /* whether or not a slot is free: the descriptor is not */
    assert_int_equal(tram__io_add(&second, world->loop, &plain_kind, numbers[0]), TRAM_ESTATE);
    assert_ptr_equal(tram__io_of_descriptor(world->loop, numbers[0]), &ios[0]);
    add(world, &ios[COUNT - 1], numbers[COUNT - 1]);
    assert_null(tram__io_of_descriptor(world->loop, 2000000));
    assert_null(tram__io_of_descriptor(world->loop, 1022));
    assert_null(tram__io_of_descriptor(world->loop, INT_MAX));
    assert_null(tram__io_of_descriptor(world->loop, -1));
    tram__loop_validate_ios(world->loop);
    for (int i = 0; i < COUNT; i++) {
        tram__io_remove(&ios[i]);
        assert_null(tram__io_of_descriptor(world->loop, numbers[i]));
    }
}

/* rules: X-1 */
static void test_without_memory_for_its_page_a_descriptor_is_refused(void **state) {
    struct world *world = *state;
    struct io io;
    for (size_t allowed = 0; allowed < 2; allowed++) {
        world->fail_after = allowed;
        assert_int_equal(tram__io_add(&io, world->loop, &plain_kind, 1 << 20), -ENOMEM);
        assert_null(tram__io_of_descriptor(world->loop, 1 << 20));
    }
    world->fail_after = SIZE_MAX;
    add(world, &io, 1 << 20);
    tram__io_remove(&io);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_high_descriptor_neither_moves_nor_clears_the_table, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_without_memory_for_its_page_a_descriptor_is_refused, world_setup,
                                        world_teardown),
    };
    return cmocka_run_group_tests_name("descriptors", tests, NULL, NULL);
}
