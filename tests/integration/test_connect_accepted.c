/* Transports for sockets that were accepted elsewhere: C-14. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "support/support.h"

static bool future_is_done(void *arg) {
    return tram_future_done(arg);
}

static void end(struct world *world, tram_transport *transport) {
    tram_transport_abort(transport);
    run_until_traced(world, "released");
    world->trace[0] = '\0';
}

/* rules: C-14, T-14, T-15, T-18 */
static void test_C_14_transport_of_an_accepted_socket(void **state) {
    struct world *world = *state;
    int fds[2];
    tcp_pair(fds);
    set_blocking(fds[0], true);
    assert_int_equal(send(fds[1], "early", 5, 0), 5);
    tram_future *future, *second = NULL;
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, fds[0], &future), 0);
    assert_false(tram_future_done(future));
    assert_trace(world, ""); /* P-5 */
    run_until_true(world, future_is_done, future);
    void *transport;
    assert_int_equal(tram_future_result(future, &transport), 0);
    tram_future_release(future);
    run_until_traced(world, "data");
    assert_trace(world, "made data:5");
    assert_ptr_equal(tram_transport_get_protocol(transport), &world_last_recorder(world)->base);
    assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
    int value = 0;
    socklen_t size = sizeof value;
    assert_int_equal(getsockopt(fds[0], IPPROTO_TCP, TCP_NODELAY, &value, &size), 0);
    assert_int_equal(value, 1);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, fds[0], &second),
                     TRAM_ESTATE);
    assert_int_equal(tram_transport_write(transport, "answer", 6), 0);
    char bytes[6];
    receive_exactly(world, fds[1], bytes, 6);
    assert_memory_equal(bytes, "answer", 6);
    end(world, transport);
    assert_int_equal(fcntl(fds[0], F_GETFD), -1);
    close(fds[1]);
}

static void test_C_14_unix_sockets_are_streams_too(void **state) {
    struct world *world = *state;
    int fds[2];
    unix_pair(fds);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, fds[0], NULL), 0);
    run_until_traced(world, "made");
    close(fds[1]);
    run_until_traced(world, "released");
    assert_trace(world, "made eof lost:0 released");
}

static void test_C_14_stream_sockets_only(void **state) {
    struct world *world = *state;
    int datagram = socket(AF_INET, SOCK_DGRAM, 0), pipes[2];
    assert_int_equal(pipe(pipes), 0);
    tram_future *future = NULL;
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, datagram, &future),
                     TRAM_EVALUE);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, pipes[0], &future),
                     TRAM_EVALUE);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, NULL, world, datagram, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, -1, &future), -EBADF);
    assert_null(future);
    close(datagram); /* still ours */
    close(pipes[0]);
    close(pipes[1]);
}

static int failing_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)ret_protocol;
    return tram_loop_raise(loop, TRAM_EUSER, arg, "no");
}

static int empty_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = NULL;
    return 0;
}

/* rules: C-13, X-6 */
static void test_C_13_failing_factory_closes_the_socket(void **state) {
    struct world *world = *state;
    const tram_protocol_factory factories[] = {failing_factory, empty_factory};
    const int codes[] = {TRAM_EUSER, TRAM_ETYPE};
    for (size_t i = 0; i < 2; i++) {
        int fds[2];
        tcp_pair(fds);
        tram_future *future;
        assert_int_equal(tram_loop_connect_accepted_socket(world->loop, factories[i], world, fds[0], &future), 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), codes[i]);
        tram_future_release(future);
        assert_true(receive_eof(world, fds[1]));
        close(fds[1]);
    }
}

static void test_C_11_cancelled_before_connection_made(void **state) {
    struct world *world = *state;
    int fds[2];
    tcp_pair(fds);
    tram_future *future;
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, fds[0], &future), 0);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    assert_true(receive_eof(world, fds[1]));
    run_ticks(world, 2);
    assert_trace(world, "released");
    close(fds[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(C_14_transport_of_an_accepted_socket),
        TEST(C_14_unix_sockets_are_streams_too),
        TEST(C_14_stream_sockets_only),
        TEST(C_13_failing_factory_closes_the_socket),
        TEST(C_11_cancelled_before_connection_made),
    };
    return cmocka_run_group_tests_name("connect_accepted", tests, NULL, NULL);
}
