/* How long an operation on a socket waits until it looks whether its descriptor is still there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "core/base/limits.h"
#include "support/support.h"
#include "transports/sock/op.h"

static void test_O_15_it_looks_ever_more_seldom_up_to_a_limit(void **state) {
    struct world *world = *state;
    const struct {
        uint64_t before, after;
    } cases[] = {
        {TRAM_SOCK_LOOK_NS, 2 * TRAM_SOCK_LOOK_NS},
        {TRAM_SOCK_LOOK_MAX_NS / 2, TRAM_SOCK_LOOK_MAX_NS},
        {TRAM_SOCK_LOOK_MAX_NS, TRAM_SOCK_LOOK_MAX_NS},
    };
    int fds[2];
    char byte;
    tram_future *future;
    unix_pair(fds);
    assert_int_equal(tram_loop_sock_recv_into(world->loop, fds[0], &byte, 1, &future), 0);
    run_ticks(world, 1);
    struct sock_op *op = (struct sock_op *)future;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        op->backoff_ns = cases[i].before;
        op->deadline.expire(world->loop, &op->deadline);
        assert_false(tram_future_done(future));
        assert_true(op->backoff_ns == cases[i].after);
    }
    assert_int_equal(tram_future_cancel(future), 1);
    tram_future_release(future);
    close(fds[0]);
    close(fds[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_O_15_it_looks_ever_more_seldom_up_to_a_limit, world_setup, world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
