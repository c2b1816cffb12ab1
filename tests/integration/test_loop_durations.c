/* tram/time.h: one rule for durations. What never comes does not come at once, however near to the clock's end. */
#include <sys/socket.h>
#include <unistd.h>

#include "support/stream.h"
#include "support/support.h"

/* As long as it takes, and sums that would wrap around to a time that has passed. */
static const uint64_t endless[] = {TRAM_FOREVER, TRAM_FOREVER - 1, TRAM_FOREVER - 1000000000};
#define ENDLESS_COUNT (sizeof endless / sizeof *endless)

static bool is_done(void *arg) {
    return tram_future_done(arg);
}

static void *result_of(struct world *world, tram_future *future) {
    void *value;
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, &value), 0);
    return value;
}

static void test_a_timer_that_never_comes(void **state) {
    struct world *world = *state;
    tram_handle handles[ENDLESS_COUNT];
    uint64_t timeout_ns, when_ns;
    for (size_t i = 0; i < ENDLESS_COUNT; i++)
        assert_int_equal(tram_loop_call_later(world->loop, endless[i], trace_callback, (void *)(uintptr_t) "never",
                                              NULL, &handles[i]),
                         0);
    assert_int_equal(tram_loop_call_later(world->loop, TRAM_NOW, trace_callback, (void *)(uintptr_t) "now", NULL, NULL),
                     0);
    run_until_traced(world, "now");
    run_ticks(world, 3);
    assert_trace(world, "now");
    for (size_t i = 0; i < ENDLESS_COUNT; i++) {
        assert_int_equal(tram_handle_when(world->loop, handles[i], &when_ns), 0);
        assert_true(when_ns == TRAM_FOREVER);
        assert_int_equal(tram_handle_cancel(world->loop, handles[i]), 1);
    }
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_true(timeout_ns == TRAM_FOREVER);
}

static struct tram_protocol *next_protocol;

static int take_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = next_protocol;
    return 0;
}

static void test_a_connection_may_take_for_ever(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = tcp_listener(5, &port);
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    for (size_t i = 0; i < ENDLESS_COUNT; i++) {
        struct recorder *recorder = recorder_new(world, NULL);
        tram_connection_options options = {.timeout_ns = endless[i], .happy_eyeballs_delay_ns = endless[i]};
        tram_future *future;
        next_protocol = &recorder->base;
        assert_int_equal(
            tram_loop_create_connection(world->loop, take_protocol, NULL, "127.0.0.1", text, &options, &future), 0);
        result_of(world, future);
        tram_future_release(future);
        tram_transport_abort(recorder->base.transport);
        run_until(world, &recorder->was_released);
    }
    close(listener);
}

static void test_a_unix_connection_may_take_for_ever(void **state) {
    struct world *world = *state;
    tram_socket_address address;
    char path[64] = "";
    size_t size = 1 + (size_t)snprintf(path + 1, sizeof path - 1, "tram-durations-%d", getpid());
    assert_int_equal(tram_socket_address_unix(path, size, &address), 0);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address.address, address.size), 0);
    assert_int_equal(listen(listener, 5), 0);
    for (size_t i = 0; i < ENDLESS_COUNT; i++) {
        struct recorder *recorder = recorder_new(world, NULL);
        tram_unix_connection_options options = {.timeout_ns = endless[i]};
        tram_future *future;
        next_protocol = &recorder->base;
        assert_int_equal(
            tram_loop_create_unix_connection(world->loop, take_protocol, NULL, path, size, &options, &future), 0);
        result_of(world, future);
        tram_future_release(future);
        tram_transport_abort(recorder->base.transport);
        run_until(world, &recorder->was_released);
    }
    close(listener);
}

static void test_a_peek_may_take_for_ever(void **state) {
    struct world *world = *state;
    for (size_t i = 0; i < ENDLESS_COUNT; i++) {
        int fds[2];
        tram_future *future;
        tcp_pair(fds);
        assert_int_equal(tram_loop_peek(world->loop, fds[0], 2, endless[i], &future), 0);
        run_ticks(world, 3);
        assert_false(tram_future_done(future));
        send_exactly(NULL, fds[1], "ab", 2);
        const tram_peeked *peeked = result_of(world, future);
        assert_int_equal(peeked->size, 2);
        assert_false(peeked->timed_out);
        tram_future_release(future);
        close(fds[0]);
        close(fds[1]);
    }
}

static void test_a_peek_may_take_no_time(void **state) {
    struct world *world = *state;
    int fds[2];
    tram_future *future;
    tcp_pair(fds);
    assert_int_equal(tram_loop_peek(world->loop, fds[0], 2, TRAM_NOW, &future), 0);
    const tram_peeked *peeked = result_of(world, future);
    assert_true(peeked->timed_out);
    tram_future_release(future);
    close(fds[0]);
    close(fds[1]);
}

static void test_a_bridge_may_be_idle_for_ever(void **state) {
    struct world *world = *state;
    for (size_t i = 0; i < ENDLESS_COUNT; i++) {
        tram_bridge_options options = {.idle_timeout_ns = endless[i]};
        tram_future *future;
        int left[2], right[2];
        tcp_pair(left);
        tcp_pair(right);
        tram_transport *a = transport_new(world, left[1], recorder_new(world, "a"));
        tram_transport *b = transport_new(world, right[1], recorder_new(world, "b"));
        run_to_rest(world);
        assert_int_equal(tram_bridge(a, b, &options, &future), 0);
        run_to_rest(world);
        run_ticks(world, 3);
        assert_false(tram_future_done(future));
        shutdown(left[0], SHUT_WR);
        shutdown(right[0], SHUT_WR);
        const tram_bridge_result *result = result_of(world, future);
        assert_int_equal(result->outcome, TRAM_BRIDGE_EOF);
        run_to_rest(world);
        tram_future_release(future);
        close(left[0]);
        close(right[0]);
    }
}

static int slow(tram_loop *loop, void *arg) {
    uint64_t until = tram_loop_time(loop) + 2000000;
    (void)arg;
    while (tram_loop_time(loop) < until)
        continue;
    return 0;
}

static uint64_t slow_callbacks(struct world *world, uint64_t duration_ns) {
    tram_stats before, after;
    tram_loop_stats(world->loop, &before);
    assert_int_equal(tram_loop_set_slow_callback_duration(world->loop, duration_ns), 0);
    tram_loop_call_soon(world->loop, slow, NULL, NULL, NULL);
    run_ticks(world, 1);
    tram_loop_stats(world->loop, &after);
    return after.slow_callbacks - before.slow_callbacks;
}

static void test_L_30_how_long_is_slow(void **state) {
    struct world *world = *state;
    assert_int_equal(slow_callbacks(world, TRAM_NOW), 1);
    assert_int_equal(slow_callbacks(world, 1000000), 1);
    assert_int_equal(slow_callbacks(world, 0), 0); /* 100 ms */
    assert_int_equal(slow_callbacks(world, TRAM_FOREVER), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_timer_that_never_comes, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_a_connection_may_take_for_ever, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_a_unix_connection_may_take_for_ever, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_a_peek_may_take_for_ever, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_a_peek_may_take_no_time, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_a_bridge_may_be_idle_for_ever, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_L_30_how_long_is_slow, world_setup_debug, world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
