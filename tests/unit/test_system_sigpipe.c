/* Calls that would send SIGPIPE: what they leave behind. */
#include "core/system/sigpipe.h"
#include "support/support.h"

static void assert_as_before(const struct sigpipe_guard *guard, bool may_have_come, int error) {
    errno = error;
    sigpipe_restore(guard, may_have_come);
    assert_int_equal(errno, error);
}

static void test_W_12_errno_is_that_of_the_call(void **state) {
    (void)state;
    struct sigpipe_guard guard;
    sigset_t pending;
    for (int came = 0; came < 2; came++)
        for (int may_have_come = came; may_have_come < 2; may_have_come++) {
            sigpipe_block(&guard);
            if (came)
                raise(SIGPIPE);
            assert_as_before(&guard, may_have_come, EPIPE);
            assert_int_equal(sigpending(&pending), 0);
            assert_false(sigismember(&pending, SIGPIPE));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_W_12_errno_is_that_of_the_call, world_setup, world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
