/* A loop that ends, as a worker's does: what is under way hears of each step. */
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/loop/loop.h"
#include "support/support.h"

enum { OPERATIONS = 4 };

/* None of which has anything to go on with yet. */
static void begin_all(struct world *world, const int fds[2], tram_future *ret_futures[OPERATIONS]) {
    const tram_datagram_options datagrams = {.local_host = loopback_name(), .local_port = "0"};
    assert_int_equal(tram_loop_sock_recv(world->loop, fds[0], 10, &ret_futures[0]), 0);
    assert_int_equal(tram_loop_peek(world->loop, fds[1], 1, HOUR_NS, &ret_futures[1]), 0);
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, loopback_name(), "1", NULL, &ret_futures[2]),
        0);
    assert_int_equal(
        tram_loop_create_datagram_endpoint(world->loop, recorder_factory, world, &datagrams, &ret_futures[3]), 0);
}

/* What a connection that is served may need goes on until nobody needs it any more. */
static void test_L_8_operations_end_when_nobody_needs_them(void **state) {
    struct world *world = *state;
    tram_future *futures[OPERATIONS];
    int fds[2];
    unix_pair(fds);
    begin_all(world, fds, futures);
    tram__loop_end_all(world->loop, IO_SHUTDOWN_STOP);
    tram__loop_end_all(world->loop, IO_SHUTDOWN_DRAIN);
    for (size_t i = 0; i < OPERATIONS; i++)
        if (tram_future_done(futures[i]))
            fail_msg("%zu has ended", i);
    tram__loop_end_all(world->loop, IO_SHUTDOWN_CLOSE);
    for (size_t i = 0; i < OPERATIONS; i++) {
        if (!tram_future_done(futures[i]))
            fail_msg("%zu goes on", i);
        assert_int_equal(tram_future_result(futures[i], NULL), TRAM_ECANCELLED);
        tram_future_release(futures[i]);
    }
    run_to_rest(world);
    assert_trace(world, "");
    close(fds[0]);
    close(fds[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_L_8_operations_end_when_nobody_needs_them, world_setup, world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
