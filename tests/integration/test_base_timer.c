/* The timer of a transport: tram_transport_call_later(). */
#include "support/stream.h"
#include "support/support.h"

#define MS 1000000u

static int fired(tram_transport *transport, void *arg) {
    trace(arg, "fired");
    assert_false(tram_transport_is_closing(transport));
    return 0;
}

static int fired_again(tram_transport *transport, void *arg) {
    trace(arg, "again");
    return tram_transport_call_later(transport, TRAM_FOREVER, NULL, NULL);
}

static int refused(tram_transport *transport, void *arg) {
    (void)transport;
    (void)arg;
    return TRAM_EUSER;
}

static void sleep_until(tram_loop *loop, uint64_t when_ns) {
    while (tram_loop_time(loop) < when_ns)
        ;
}

static void test_it_fires_once_from_the_loop_and_not_early(void **state) {
    struct stream stream = stream_open(*state);
    uint64_t begin = tram_loop_time(stream.world->loop);
    assert_int_equal(tram_transport_call_later(stream.transport, 5 * MS, fired, stream.world), 0);
    run_until_traced(stream.world, "fired");
    assert_true(tram_loop_time(stream.world->loop) >= begin + 5 * MS);
    sleep_until(stream.world->loop, begin + 12 * MS);
    run_to_rest(stream.world);
    assert_trace(stream.world, "fired");
    stream_close(&stream);
}

static struct sys standing;
static uint64_t standing_ns;

static int standing_clock(clockid_t clock, struct timespec *ret_time) {
    (void)clock;
    *ret_time =
        (struct timespec){.tv_sec = (time_t)(standing_ns / 1000000000u), .tv_nsec = (long)(standing_ns % 1000000000u)};
    return 0;
}

/* To the nanosecond, by a clock that stands: set for the first time, and put off. */
static void test_it_is_due_when_its_time_has_come(void **state) {
    struct world *world = *state;
    standing = tram__sys;
    standing.clock_gettime = standing_clock;
    standing_ns = 1000000000000;
    world_use_sys(world, &standing);
    struct stream stream = stream_open(world);
    for (int put_off = 0; put_off < 2; put_off++) {
        if (put_off)
            assert_int_equal(tram_transport_call_later(stream.transport, 2 * MS, fired, world), 0);
        assert_int_equal(tram_transport_call_later(stream.transport, 5 * MS, fired, world), 0);
        standing_ns += 5 * MS - 1;
        run_ticks(world, 3);
        assert_trace(world, "");
        standing_ns++;
        run_ticks(world, 3);
        assert_trace(world, "fired");
        world->trace[0] = '\0';
    }
    stream_close(&stream);
}

static void test_zero_is_due_at_once_and_not_within(void **state) {
    struct stream stream = stream_open(*state);
    assert_int_equal(tram_transport_call_later(stream.transport, 0, fired, stream.world), 0);
    assert_trace(stream.world, "");
    run_ticks(stream.world, 2);
    assert_trace(stream.world, "fired");
    stream_close(&stream);
}

static void test_a_call_replaces_what_was_set_before_be_it_earlier_or_later(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport *transport = stream.transport;
    assert_int_equal(tram_transport_call_later(transport, 3600ull * 1000 * MS, fired, stream.world), 0);
    assert_int_equal(tram_transport_call_later(transport, 1, fired_again, stream.world), 0);
    run_until_traced(stream.world, "again");
    assert_int_equal(tram_transport_call_later(transport, 1 * MS, fired, stream.world), 0);
    assert_int_equal(tram_transport_call_later(transport, TRAM_FOREVER, fired, stream.world), 0);
    sleep_until(stream.world->loop, tram_loop_time(stream.world->loop) + 2 * MS);
    run_to_rest(stream.world);
    assert_trace(stream.world, "again");
    stream_close(&stream);
}

/* Sets the timer of arg's transport anew in each tick until it was left alone for long enough. */
struct busy {
    struct stream stream;
    uint64_t end_ns;
    unsigned times;
};

/* However slow the machine is: some times. */
static bool is_busy(const struct busy *busy, const tram_loop *loop) {
    return tram_loop_time(loop) < busy->end_ns || busy->times <= 3;
}

static int rearm(tram_loop *loop, void *arg) {
    struct busy *busy = arg;
    assert_int_equal(tram_transport_call_later(busy->stream.transport, 4 * MS, fired, busy->stream.world), 0);
    busy->times++;
    return is_busy(busy, loop) ? tram_loop_call_soon(loop, rearm, busy, NULL, NULL) : 0;
}

static void test_a_timer_that_is_set_anew_does_not_fire_meanwhile(void **state) {
    struct busy busy = {.stream = stream_open(*state)};
    struct world *world = busy.stream.world;
    busy.end_ns = tram_loop_time(world->loop) + 20 * MS;
    assert_int_equal(rearm(world->loop, &busy), 0);
    while (is_busy(&busy, world->loop)) {
        assert_trace(world, "");
        run_ticks(world, 1);
    }
    run_until_traced(world, "fired");
    assert_true(tram_loop_time(world->loop) >= busy.end_ns + 2 * MS);
    assert_true(busy.times > 3);
    stream_close(&busy.stream);
}

/* Many times in a tick with a timer running: checks/timer_cost counts the instructions, of which debug mode has more.
 */
static int rearm_often(tram_loop *loop, void *arg) {
    struct stream *stream = arg;
    size_t allocations = stream->world->allocations;
    for (int i = 0; i < (tram_loop_get_debug(loop) ? 10 : 100000); i++)
        tram_transport_call_later(stream->transport, 50 * MS, fired, stream->world);
    assert_int_equal(stream->world->allocations, allocations);
    trace(stream->world, "set");
    return 0;
}

static void test_setting_it_anew_takes_no_memory(void **state) {
    struct stream stream = stream_open(*state);
    assert_int_equal(tram_transport_call_later(stream.transport, 50 * MS, fired, stream.world), 0);
    assert_int_equal(tram_loop_call_soon(stream.world->loop, rearm_often, &stream, NULL, NULL), 0);
    run_until_traced(stream.world, "fired");
    assert_trace(stream.world, "set fired");
    stream_close(&stream);
}

/* The loop's timer is due in this tick already when the transport's is taken away. */
static int take_away(tram_loop *loop, void *arg) {
    (void)loop;
    return tram_transport_call_later(arg, TRAM_FOREVER, NULL, NULL);
}

static void test_a_timer_that_is_due_in_this_tick_can_be_taken_away(void **state) {
    struct stream stream = stream_open(*state);
    assert_int_equal(tram_transport_call_later(stream.transport, 1, fired, stream.world), 0);
    sleep_until(stream.world->loop, tram_loop_time(stream.world->loop) + 2 * MS);
    assert_int_equal(tram_loop_call_soon(stream.world->loop, take_away, stream.transport, NULL, NULL), 0);
    run_ticks(stream.world, 3);
    assert_trace(stream.world, "");
    stream_close(&stream);
}

static void test_the_end_of_the_connection_cancels_it(void **state) {
    struct stream stream = stream_open(*state);
    assert_int_equal(tram_transport_call_later(stream.transport, 1, fired, stream.world), 0);
    sleep_until(stream.world->loop, tram_loop_time(stream.world->loop) + 1 * MS);
    tram_transport_abort(stream.transport);
    assert_int_equal(tram_transport_call_later(stream.transport, 1, fired, stream.world), TRAM_ESTATE);
    run_until(stream.world, &stream.recorder->lost);
    run_to_rest(stream.world);
    assert_trace(stream.world, "lost:0 released");
    stream_close(&stream);
}

static void test_it_goes_on_while_a_close_waits_for_the_queue(void **state) {
    struct stream stream = stream_open(*state);
    fill(stream.transport, 1000);
    stream.world->trace[0] = '\0';
    tram_transport_close(stream.transport);
    assert_int_equal(tram_transport_call_later(stream.transport, 1 * MS, NULL, NULL), 0);
    run_until(stream.world, &stream.recorder->lost);
    assert_int_equal(stream.recorder->lost_code, -ETIMEDOUT);
    stream_close(&stream);
}

static void test_without_a_callback_the_connection_times_out(void **state) {
    struct stream stream = stream_open(*state);
    assert_int_equal(tram_transport_call_later(stream.transport, 1 * MS, NULL, NULL), 0);
    run_until(stream.world, &stream.recorder->lost);
    assert_int_equal(stream.recorder->lost_code, -ETIMEDOUT);
    assert_int_equal(stream.world->exceptions, 0);
    stream_close(&stream);
}

static void test_a_callback_that_fails_ends_the_connection(void **state) {
    struct stream stream = stream_open(*state);
    assert_int_equal(tram_transport_call_later(stream.transport, 1, refused, NULL), 0);
    run_until(stream.world, &stream.recorder->lost);
    assert_int_equal(stream.recorder->lost_code, TRAM_EUSER);
    assert_int_equal(stream.world->exceptions, 1);
    stream_close(&stream);
}

static void test_it_stays_with_the_transport_when_protocols_change(void **state) {
    struct stream stream = stream_open(*state);
    assert_int_equal(tram_transport_call_later(stream.transport, 1 * MS, fired, stream.world), 0);
    struct recorder *other = recorder_new(stream.world, "other");
    assert_int_equal(tram_transport_set_protocol(stream.transport, &other->base), 0);
    run_until_traced(stream.world, "fired");
    tram_transport_abort(stream.transport);
    run_until(stream.world, &other->was_released);
    close(stream.peer);
}

static void test_a_lack_of_memory_is_told_at_once(void **state) {
    struct stream stream = stream_open(*state);
    stream.world->fail_after = 0;
    assert_int_equal(tram_transport_call_later(stream.transport, 1, fired, stream.world), -ENOMEM);
    stream.world->fail_after = SIZE_MAX;
    run_ticks(stream.world, 2);
    assert_trace(stream.world, "");
    stream_close(&stream);
}

/* One argument: only the tests of this name. */
int main(int count, char **arguments) {
    if (count > 1)
        cmocka_set_test_filter(arguments[1]);
    const struct CMUnitTest tests[] = {
#define TEST(name)                                                                                                     \
    cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown),                                         \
        {#name " (debug)", name, world_setup_faults_debug, world_teardown, NULL}
        TEST(test_it_fires_once_from_the_loop_and_not_early),
        TEST(test_it_is_due_when_its_time_has_come),
        TEST(test_zero_is_due_at_once_and_not_within),
        TEST(test_a_call_replaces_what_was_set_before_be_it_earlier_or_later),
        TEST(test_a_timer_that_is_set_anew_does_not_fire_meanwhile),
        TEST(test_setting_it_anew_takes_no_memory),
        TEST(test_a_timer_that_is_due_in_this_tick_can_be_taken_away),
        TEST(test_the_end_of_the_connection_cancels_it),
        TEST(test_it_goes_on_while_a_close_waits_for_the_queue),
        TEST(test_without_a_callback_the_connection_times_out),
        TEST(test_a_callback_that_fails_ends_the_connection),
        TEST(test_it_stays_with_the_transport_when_protocols_change),
        TEST(test_a_lack_of_memory_is_told_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
