/* add_reader and add_writer (docs/rules.md, L-18 to L-22). */
#include "support/support.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/loop/loop.h"

/* Several pairs with a byte waiting in each: the events of all are collected by one poll. */
#define PAIRS 3

struct watched {
    struct world *world;
    int pair[PAIRS][2];
    int (*act)(struct watched *watched);
    bool acted;
};

static struct watched watched;

static void open_pairs(struct world *world, bool with_bytes) {
    watched = (struct watched){.world = world};
    for (int i = 0; i < PAIRS; i++) {
        unix_pair(watched.pair[i]);
        if (with_bytes)
            assert_int_equal(write(watched.pair[i][1], "x", 1), 1);
    }
}

static void close_pairs(void) {
    for (int i = 0; i < PAIRS; i++) {
        tram_loop_remove_reader(watched.world->loop, watched.pair[i][0]);
        tram_loop_remove_writer(watched.world->loop, watched.pair[i][0]);
        close(watched.pair[i][0]);
        close(watched.pair[i][1]);
    }
}

/* Whichever reader runs first does something to the two others. */
static int first_acts(tram_loop *loop, void *arg) {
    (void)loop;
    trace(watched.world, "%s", (const char *)arg);
    if (!watched.acted) {
        watched.acted = true;
        watched.act(&watched);
    }
    return 0;
}

static int replace_all(struct watched *all) {
    for (int i = 0; i < PAIRS; i++)
        assert_int_equal(tram_loop_add_reader(all->world->loop, all->pair[i][0], first_acts, (void *)(uintptr_t) "new"),
                         0);
    return 0;
}

static int remove_all(struct watched *all) {
    for (int i = 0; i < PAIRS; i++)
        assert_int_equal(tram_loop_remove_reader(all->world->loop, all->pair[i][0]), 1);
    return 0;
}

static int remove_and_register(struct watched *all) {
    remove_all(all);
    return replace_all(all);
}

static void watch_all(void) {
    for (int i = 0; i < PAIRS; i++)
        assert_int_equal(
            tram_loop_add_reader(watched.world->loop, watched.pair[i][0], first_acts, (void *)(uintptr_t) "old"), 0);
}

/* Both are registered, and each is called for its own. */
static void test_L_18_a_writer_is_not_called_for_what_can_be_read(void **state) {
    struct world *world = *state;
    open_pairs(world, true);
    int fd = watched.pair[0][0];
    char bytes[4096] = {0};
    while (write(fd, bytes, sizeof bytes) > 0)
        ;
    while (write(fd, bytes, 1) > 0)
        ;
    assert_int_equal(tram_loop_add_reader(world->loop, fd, trace_callback, (void *)(uintptr_t) "readable"), 0);
    assert_int_equal(tram_loop_add_writer(world->loop, fd, trace_callback, (void *)(uintptr_t) "writable"), 0);
    run_ticks(world, 2);
    assert_trace(world, "readable readable");
    assert_int_equal(read(fd, bytes, 1), 1);
    while (read(watched.pair[0][1], bytes, sizeof bytes) > 0)
        ;
    run_ticks(world, 2);
    assert_trace(world, "writable writable");
    close_pairs();
}

static void test_L_18_a_reader_is_called_in_every_tick_until_the_bytes_are_read(void **state) {
    struct world *world = *state;
    open_pairs(world, true);
    assert_int_equal(
        tram_loop_add_reader(world->loop, watched.pair[0][0], trace_callback, (void *)(uintptr_t) "readable"), 0);
    run_ticks(world, 3);
    assert_trace(world, "readable readable readable");
    char byte;
    assert_int_equal(read(watched.pair[0][0], &byte, 1), 1);
    run_ticks(world, 1);
    assert_trace(world, "");
    close_pairs();
}

static void test_L_18_a_replaced_reader_does_not_run_though_its_event_was_collected(void **state) {
    struct world *world = *state;
    open_pairs(world, true);
    watched.act = replace_all;
    watch_all();
    run_ticks(world, 1);
    assert_trace(world, "old");
    run_ticks(world, 1);
    assert_trace(world, "new new new");
    close_pairs();
}

static void test_L_19_a_removed_reader_does_not_run_though_its_event_was_collected(void **state) {
    struct world *world = *state;
    open_pairs(world, true);
    watched.act = remove_all;
    watch_all();
    run_ticks(world, 2);
    assert_trace(world, "old");
    assert_int_equal(tram_loop_remove_reader(world->loop, watched.pair[0][0]), 0);
    assert_int_equal(tram_loop_remove_writer(world->loop, watched.pair[0][0]), 0);
    assert_int_equal(tram_loop_remove_reader(world->loop, 100000), 0);
    close_pairs();
}

static void test_L_19_a_collected_event_does_not_reach_a_new_registration(void **state) {
    struct world *world = *state;
    open_pairs(world, true);
    watched.act = remove_and_register;
    watch_all();
    run_ticks(world, 1);
    assert_trace(world, "old");
    run_ticks(world, 1);
    assert_trace(world, "new new new");
    close_pairs();
}

/* The same with the descriptor closed and its number in use again, for something that is not readable. */
static int reuse_numbers(struct watched *all) {
    remove_all(all);
    for (int i = 0; i < PAIRS; i++) {
        int fresh[2];
        unix_pair(fresh);
        close(all->pair[i][1]);
        assert_true(dup3(fresh[0], all->pair[i][0], O_CLOEXEC) >= 0);
        close(fresh[0]);
        all->pair[i][1] = fresh[1];
    }
    return replace_all(all);
}

static void test_L_19_a_stale_event_does_not_reach_a_descriptor_with_the_same_number(void **state) {
    struct world *world = *state;
    open_pairs(world, true);
    watched.act = reuse_numbers;
    watch_all();
    run_ticks(world, 3);
    assert_trace(world, "old");
    assert_int_equal(write(watched.pair[1][1], "x", 1), 1);
    run_ticks(world, 1);
    assert_trace(world, "new");
    close_pairs();
}

static void test_L_20_reader_and_writer_are_independent_and_the_reader_comes_first(void **state) {
    struct world *world = *state;
    open_pairs(world, true);
    int fd = watched.pair[0][0];
    assert_int_equal(tram_loop_add_writer(world->loop, fd, trace_callback, (void *)(uintptr_t) "writable"), 0);
    assert_int_equal(tram_loop_add_reader(world->loop, fd, trace_callback, (void *)(uintptr_t) "readable"), 0);
    run_ticks(world, 1);
    assert_trace(world, "readable writable");
    assert_int_equal(tram_loop_remove_reader(world->loop, fd), 1);
    run_ticks(world, 1);
    assert_trace(world, "writable");
    assert_int_equal(tram_loop_add_reader(world->loop, fd, trace_callback, (void *)(uintptr_t) "readable"), 0);
    assert_int_equal(tram_loop_remove_writer(world->loop, fd), 1);
    run_ticks(world, 1);
    assert_trace(world, "readable");
    close_pairs();
}

static int register_anew(tram_loop *loop, void *arg) {
    trace(world_of(loop), "readable");
    return tram_loop_add_reader(loop, watched.pair[0][0], register_anew, arg);
}

static void test_L_20_a_reader_that_registers_itself_again_does_not_starve_the_writer(void **state) {
    struct world *world = *state;
    open_pairs(world, true);
    int fd = watched.pair[0][0];
    assert_int_equal(tram_loop_add_writer(world->loop, fd, trace_callback, (void *)(uintptr_t) "writable"), 0);
    assert_int_equal(tram_loop_add_reader(world->loop, fd, register_anew, NULL), 0);
    run_ticks(world, 2);
    assert_trace(world, "readable writable readable writable");
    close_pairs();
}

static void test_L_21_T_18_a_descriptor_of_a_transport_cannot_be_watched(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    tram_transport *transport = transport_new(world, pair[0], recorder_new(world, NULL));
    assert_int_equal(tram_loop_add_reader(world->loop, pair[0], trace_callback, NULL), TRAM_ESTATE);
    assert_int_equal(tram_loop_add_writer(world->loop, pair[0], trace_callback, NULL), TRAM_ESTATE);
    assert_int_equal(tram_loop_remove_reader(world->loop, pair[0]), TRAM_ESTATE);
    assert_int_equal(tram_loop_remove_writer(world->loop, pair[0]), TRAM_ESTATE);
    run_ticks(world, 1);
    tram_transport_abort(transport);
    run_ticks(world, 2);
    assert_trace(world, "made lost:0 released");
    close(pair[1]);
}

static void test_L_22_errors_and_hang_ups_wake_both_ways(void **state) {
    struct world *world = *state;
    int pair[2];
    tcp_pair(pair);
    close_with_reset(pair[1]);
    assert_int_equal(tram_loop_add_reader(world->loop, pair[0], trace_callback, (void *)(uintptr_t) "readable"), 0);
    assert_int_equal(tram_loop_add_writer(world->loop, pair[0], trace_callback, (void *)(uintptr_t) "writable"), 0);
    run_ticks(world, 1);
    assert_trace(world, "readable writable");
    tram_loop_remove_reader(world->loop, pair[0]);
    run_ticks(world, 1);
    assert_trace(world, "writable");
    tram_loop_remove_writer(world->loop, pair[0]);
    close(pair[0]);
}

static void test_bad_descriptors_are_refused(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_add_reader(world->loop, -1, trace_callback, NULL), -EBADF);
    assert_int_equal(tram_loop_add_reader(world->loop, 100000, trace_callback, NULL), -EBADF);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_int_equal(tram_loop_add_reader(world->loop, file, trace_callback, NULL), -EPERM);
    close(file);
    int pair[2];
    unix_pair(pair);
    assert_int_equal(tram_loop_add_reader(world->loop, pair[0], NULL, NULL), TRAM_EVALUE);
    close(pair[0]);
    close(pair[1]);
}

static int fail_reader(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    return TRAM_EUSER;
}

static void test_L_27_a_failing_reader_is_reported_and_stays(void **state) {
    struct world *world = *state;
    open_pairs(world, true);
    assert_int_equal(tram_loop_add_reader(world->loop, watched.pair[0][0], fail_reader, NULL), 0);
    run_ticks(world, 2);
    assert_int_equal(world->exceptions, 2);
    assert_int_equal(world->exception_code, TRAM_EUSER);
    close_pairs();
}

static void test_a_descriptor_closed_without_removal_may_come_back_as_a_connection(void **state) {
    struct world *world = *state;
    int pair[2], fresh[2];
    unix_pair(pair);
    assert_int_equal(tram_loop_add_reader(world->loop, pair[0], trace_callback, (void *)(uintptr_t) "stale"), 0);
    unix_pair(fresh);
    assert_true(dup3(fresh[0], pair[0], O_CLOEXEC) >= 0);
    close(fresh[0]);
    transport_new(world, pair[0], recorder_new(world, NULL));
    run_ticks(world, 1);
    assert_int_equal(write(fresh[1], "abc", 3), 3);
    run_ticks(world, 1);
    assert_trace(world, "made data:3");
    close(pair[1]);
    close(fresh[1]);
    run_until_traced(world, "released");
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
        CASE(test_L_18_a_writer_is_not_called_for_what_can_be_read),
        CASE(test_L_18_a_reader_is_called_in_every_tick_until_the_bytes_are_read),
        CASE(test_L_18_a_replaced_reader_does_not_run_though_its_event_was_collected),
        CASE(test_L_19_a_removed_reader_does_not_run_though_its_event_was_collected),
        CASE(test_L_19_a_collected_event_does_not_reach_a_new_registration),
        CASE(test_L_19_a_stale_event_does_not_reach_a_descriptor_with_the_same_number),
        CASE(test_L_20_reader_and_writer_are_independent_and_the_reader_comes_first),
        CASE(test_L_20_a_reader_that_registers_itself_again_does_not_starve_the_writer),
        CASE(test_L_21_T_18_a_descriptor_of_a_transport_cannot_be_watched),
        CASE(test_L_22_errors_and_hang_ups_wake_both_ways),
        CASE(test_bad_descriptors_are_refused),
        CASE(test_L_27_a_failing_reader_is_reported_and_stays),
        CASE(test_a_descriptor_closed_without_removal_may_come_back_as_a_connection),
    };
    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
