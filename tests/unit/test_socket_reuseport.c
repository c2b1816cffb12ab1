/* What the kernel says of sockets that share a port. */
#include <fcntl.h>
#include <unistd.h>

#include "support/files.h"
#include "support/support.h"
#include "transports/socket/reuseport.h"

/* net.ipv4.tcp_migrate_req, which old kernels do not have. */
static void test_V_30_whether_connections_migrate_is_for_the_kernel_to_say(void **state) {
    (void)state;
    static const struct {
        const char *content; /* NULL: there is no such file */
        bool migrates;
    } cases[] = {{"0\n", false}, {"1\n", true}, {"", false}, {NULL, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[] = "/tmp/tram-reuseport-XXXXXX";
        int fd = mkstemp(name);
        assert_true(fd >= 0);
        if (cases[i].content)
            assert_int_equal(write(fd, cases[i].content, strlen(cases[i].content)), strlen(cases[i].content));
        else
            unlink(name);
        file_asked_for = "/proc/sys/net/ipv4/tcp_migrate_req";
        file_in_its_place = name;
        assert_int_equal(tram__reuseport_migrates(), cases[i].migrates);
        file_asked_for = NULL;
        close(fd);
        if (cases[i].content)
            unlink(name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_V_30_whether_connections_migrate_is_for_the_kernel_to_say, world_setup,
                                        world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
