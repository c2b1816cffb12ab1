/* What is said of a socket that cannot listen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "transports/socket/listener.h"

static int no_listen(int fd, int backlog) {
    (void)fd;
    (void)backlog;
    errno = EADDRINUSE;
    return -1;
}

static int no_name(int fd, struct sockaddr *address, socklen_t *size) {
    (void)fd;
    (void)address;
    (void)size;
    errno = ENOBUFS;
    return -1;
}

static void test_a_socket_without_a_name_is_told_without_one(void **state) {
    (void)state;
    struct sys sys = tram__sys;
    struct kept_error error;
    sys.listen = no_listen;
    sys.getsockname = no_name;
    assert_int_equal(tram__listener_listen(&sys, -1, 1, &error), -EADDRINUSE);
    assert_int_equal(error.error.code, -EADDRINUSE);
    assert_string_equal(error.error.operation, "listen");
    assert_string_equal(error.error.detail, "listen : Address already in use");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_socket_without_a_name_is_told_without_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
