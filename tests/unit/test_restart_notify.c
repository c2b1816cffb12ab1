/* Where systemd is told, and how often, as the environment says. */
#include <stdlib.h>
#include <unistd.h>

#include "support/support.h"
#include "transports/restart/notify.h"

#define LONGEST (sizeof((struct sockaddr_un){0}).sun_path - 1)

/* A path that begins with `first`, of `size` characters in all. */
static struct notifier opened(char first, size_t size) {
    char path[200] = {0};
    memset(path, 'x', size);
    if (size)
        path[0] = first;
    setenv("NOTIFY_SOCKET", path, 1);
    struct notifier notifier;
    tram__notifier_open(&notifier, NULL);
    unsetenv("NOTIFY_SOCKET");
    return notifier;
}

static void test_a_path_is_absolute_or_abstract_and_fits_an_address(void **state) {
    (void)state;
    static const struct {
        char first;
        size_t size;
        bool good;
    } cases[] = {{'/', 0, false},          {'/', 1, false},      {'@', 1, false},      {'/', 2, true},
                 {'@', 2, true},           {'x', 2, false},      {'?', 20, false},     {'/', LONGEST - 1, true},
                 {'@', LONGEST - 1, true}, {'/', LONGEST, true}, {'@', LONGEST, true}, {'/', LONGEST + 1, false},
                 {'@', LONGEST + 1, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct notifier notifier = opened(cases[i].first, cases[i].size);
        if ((notifier.fd >= 0) != cases[i].good)
            fail_msg("case %zu", i);
        if (cases[i].good) {
            assert_int_equal(notifier.address.sun_family, AF_UNIX);
            assert_int_equal(notifier.address.sun_path[0], cases[i].first == '@' ? 0 : '/');
            assert_int_equal(notifier.address.sun_path[1], 'x');
            assert_int_equal(notifier.address_size, offsetof(struct sockaddr_un, sun_path) + cases[i].size);
        }
        tram__notifier_close(&notifier);
    }
    struct notifier notifier;
    tram__notifier_open(&notifier, NULL); /* nothing is said */
    assert_int_equal(notifier.fd, -1);
}

static void test_a_quarter_of_the_time_that_systemd_waits(void **state) {
    (void)state;
    static const struct {
        const char *time, *pid; /* NULL: not there; "own": of this process */
        uint64_t period_ns;
    } cases[] = {
        {NULL, NULL, 0},
        {"0", NULL, 0},
        {"8000", NULL, 2000000},
        {"8000", "own", 2000000},
        {"8000", "0", 2000000},
        {"8000", "1", 0}, /* another's */
        {"8000", "x", 2000000},
        {"8000", "18446744073709551616", 2000000},
        {"", NULL, 0},
        {"-1", NULL, 0},
        {"+1", NULL, 0},
        {" 1", NULL, 0},
        {"/1", NULL, 0},
        {":1", NULL, 0},
        {"8000x", NULL, 0},
        {"0010", NULL, 2500},
        {"9", NULL, 2250},
        {"18446744073709550", NULL, 4611686018427387500},
        {"18446744073709551", NULL, 4611686018427387750}, /* the last one that is a number of nanoseconds */
        {"18446744073709552", NULL, 0},
        {"18446744073709551615", NULL, 0},
        {"18446744073709551616", NULL, 0},
    };
    char own[20];
    snprintf(own, sizeof own, "%d", (int)getpid());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].time)
            setenv("WATCHDOG_USEC", cases[i].time, 1);
        if (cases[i].pid)
            setenv("WATCHDOG_PID", strcmp(cases[i].pid, "own") == 0 ? own : cases[i].pid, 1);
        struct notifier notifier = opened('@', 10);
        if (notifier.watchdog_ns != cases[i].period_ns)
            fail_msg("case %zu: %llu", i, (unsigned long long)notifier.watchdog_ns);
        tram__notifier_close(&notifier);
        unsetenv("WATCHDOG_USEC");
        unsetenv("WATCHDOG_PID");
    }
}

int main(void) {
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_path_is_absolute_or_abstract_and_fits_an_address),
        cmocka_unit_test(test_a_quarter_of_the_time_that_systemd_waits),
    };
    return cmocka_run_group_tests_name("restart_notify", tests, NULL, NULL);
}
