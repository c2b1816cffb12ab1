/* Whether connecting is tried again, and after how long: rule C-18's arithmetic, without any connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <netdb.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/limits.h"
#include "transports/connect/retry.h"

/* Stands in for that of the system. */
static bool no_chance;

ssize_t getrandom(void *bytes, size_t size, unsigned flags) {
    errno = EAGAIN;
    return no_chance ? -1 : syscall(SYS_getrandom, bytes, size, flags);
}

static const tram_error refused = {.code = -ECONNREFUSED};

/* Its next wait before chance; the longest of many says it all but exactly. */
static void assert_waits(struct retry retry, uint64_t ns) {
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < 2000; i++) {
        struct retry copy = retry;
        uint64_t delay_ns = 0;
        assert_true(tram__retry_next(&copy, &refused, &delay_ns));
        assert_in_range(delay_ns, ns - ns / 2, ns);
        least = delay_ns < least ? delay_ns : least;
        most = delay_ns > most ? delay_ns : most;
    }
    assert_true(least < ns - ns / 2 + ns / 20 && most > ns - ns / 20);
}

static void test_C_18_waits_double_up_to_the_longest(void **state) {
    (void)state;
    static const struct {
        tram_retry_options options;
        uint64_t waits[5];
    } cases[] = {
        {{.limit = 9, .delay_ns = 1000, .delay_max_ns = 8000}, {1000, 2000, 4000, 8000, 8000}},
        {{.limit = 9, .delay_ns = 1000, .delay_max_ns = 7000}, {1000, 2000, 4000, 7000, 7000}},
        {{.limit = 9, .delay_ns = 1000, .delay_max_ns = 1000}, {1000, 1000, 1000, 1000, 1000}},
        {{.limit = 9, .delay_ns = UINT64_MAX / 3, .delay_max_ns = UINT64_MAX},
         {UINT64_MAX / 3, UINT64_MAX / 3 * 2, UINT64_MAX, UINT64_MAX, UINT64_MAX}},
        {{.limit = 9, .delay_ns = 2 * TRAM_CONNECT_AGAIN_MAX_NS},
         {2 * TRAM_CONNECT_AGAIN_MAX_NS, 2 * TRAM_CONNECT_AGAIN_MAX_NS, 2 * TRAM_CONNECT_AGAIN_MAX_NS,
          2 * TRAM_CONNECT_AGAIN_MAX_NS, 2 * TRAM_CONNECT_AGAIN_MAX_NS}},
        {{.limit = 9, .delay_ns = TRAM_CONNECT_AGAIN_MAX_NS},
         {TRAM_CONNECT_AGAIN_MAX_NS, TRAM_CONNECT_AGAIN_MAX_NS, TRAM_CONNECT_AGAIN_MAX_NS, TRAM_CONNECT_AGAIN_MAX_NS,
          TRAM_CONNECT_AGAIN_MAX_NS}},
        {{.limit = 9},
         {TRAM_CONNECT_AGAIN_NS, 2 * TRAM_CONNECT_AGAIN_NS, 4 * TRAM_CONNECT_AGAIN_NS, 8 * TRAM_CONNECT_AGAIN_NS,
          16 * TRAM_CONNECT_AGAIN_NS}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct retry retry;
        tram__retry_init(&retry, &cases[i].options);
        for (size_t j = 0; j < 5; j++) {
            uint64_t delay_ns;
            assert_waits(retry, cases[i].waits[j]);
            assert_true(tram__retry_next(&retry, &refused, &delay_ns));
        }
    }
}

static void test_C_18_so_many_tries_and_no_more(void **state) {
    (void)state;
    struct retry retry;
    uint64_t delay_ns = 7;
    tram__retry_init(&retry, &(tram_retry_options){.limit = 3, .delay_ns = 1});
    for (int i = 0; i < 3; i++)
        assert_true(tram__retry_next(&retry, &refused, &delay_ns));
    assert_false(tram__retry_next(&retry, &refused, &delay_ns));
    tram__retry_init(&retry, &(tram_retry_options){.limit = TRAM_RETRY_FOREVER, .delay_ns = 1});
    for (int i = 0; i < 3; i++)
        assert_true(tram__retry_next(&retry, &refused, &delay_ns));
    assert_int_equal(retry.left, TRAM_RETRY_FOREVER);
    tram__retry_init(&retry, &(tram_retry_options){0});
    assert_false(tram__retry_next(&retry, &refused, &delay_ns));
}

static void test_C_18_what_time_does_not_mend(void **state) {
    (void)state;
    static const tram_error for_good[] = {
        {.code = -ENOMEM},
        {.code = TRAM_ESTATE},
        {.code = TRAM_EVALUE},
        {.code = TRAM_ECANCELLED},
        {.code = TRAM_ERESOLVE, .resolver_code = EAI_BADFLAGS},
        {.code = TRAM_ERESOLVE, .resolver_code = EAI_FAMILY},
        {.code = TRAM_ERESOLVE, .resolver_code = EAI_SOCKTYPE},
        {.code = TRAM_ERESOLVE, .resolver_code = EAI_SERVICE},
    };
    static const tram_error passing[] = {
        {.code = -ECONNREFUSED},
        {.code = -ETIMEDOUT},
        {.code = TRAM_EMULTIPLE},
        {.code = TRAM_ERESOLVE, .resolver_code = EAI_AGAIN},
        {.code = TRAM_ERESOLVE, .resolver_code = EAI_NONAME},
    };
    struct retry retry;
    uint64_t delay_ns;
    tram__retry_init(&retry, &(tram_retry_options){.limit = 100, .delay_ns = 1});
    for (size_t i = 0; i < sizeof for_good / sizeof *for_good; i++)
        assert_false(tram__retry_next(&retry, &for_good[i], &delay_ns));
    assert_int_equal(retry.left, 100);
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++)
        assert_true(tram__retry_next(&retry, &passing[i], &delay_ns));
    assert_int_equal(retry.left, 95);
}

static void test_C_18_without_chance_it_waits_all_of_it(void **state) {
    (void)state;
    no_chance = true;
    for (int i = 0; i < 100; i++) {
        const tram_retry_options options = {.limit = 1, .delay_ns = 1000000};
        struct retry retry;
        uint64_t delay_ns = 0;
        tram__retry_init(&retry, &options);
        assert_true(tram__retry_next(&retry, &refused, &delay_ns));
        assert_int_equal(delay_ns, 1000000);
    }
    no_chance = false;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_C_18_without_chance_it_waits_all_of_it),
        cmocka_unit_test(test_C_18_waits_double_up_to_the_longest),
        cmocka_unit_test(test_C_18_so_many_tries_and_no_more),
        cmocka_unit_test(test_C_18_what_time_does_not_mend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
