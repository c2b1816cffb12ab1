/*
 * TLS while the system fails it: every system call and every allocation of ours fails in turn during a handshake, an
 * echo and an end. Whatever failed: nothing crashes, nothing is left behind, every connection_made has its
 * connection_lost, and nothing waits for what will never come. Connections without TLS: test_faults.c.
 */
#include <openssl/err.h>
#include <stdio.h>

#include "support/memory.h"
#include "support/tls/ends.h"
#include "support/tls/visit.h"

/* ---- What fails, and how ---- */

struct failure {
    int kind;  /* a tram_fault_kind, or MEMORY */
    int error; /* 0: the call moves `at_most` bytes */
    uint64_t count;
    size_t at_most;
};

#define MEMORY -1 /* every allocation of ours, also of what belongs to no loop */

#define ONCE(name, error)                                                                                              \
    { TRAM_FAULT_##name, error, 1, 0 }
/* What is over by itself: nobody notices. */
#define AWHILE(name, error)                                                                                            \
    { TRAM_FAULT_##name, error, 4, 0 }
#define EVER(name, error)                                                                                              \
    { TRAM_FAULT_##name, error, TRAM_FAULT_ALWAYS, 0 }
#define SHORT(name, size)                                                                                              \
    { TRAM_FAULT_##name, 0, 3, size }

static const struct failure failures[] = {
    {MEMORY, ENOMEM, 1, 0},   {MEMORY, ENOMEM, TRAM_FAULT_ALWAYS, 0},
    ONCE(RECV, EINTR),        ONCE(RECV, EAGAIN),
    ONCE(RECV, ECONNRESET),   ONCE(RECV, ENOMEM),
    EVER(RECV, ENOMEM),       SHORT(RECV, 1),
    SHORT(RECV, 100),         ONCE(SEND, EINTR),
    ONCE(SEND, EAGAIN),       ONCE(SEND, EPIPE),
    AWHILE(SEND, ENOBUFS),    SHORT(SEND, 1),
    SHORT(SEND, 100),         ONCE(SENDMSG, EINTR),
    ONCE(SENDMSG, EAGAIN),    ONCE(SENDMSG, EPIPE),
    AWHILE(SENDMSG, ENOBUFS), SHORT(SENDMSG, 1),
    SHORT(SENDMSG, 600),      ONCE(SHUTDOWN, ENOTCONN),
    ONCE(SETSOCKOPT, ENOMEM), ONCE(GETSOCKNAME, ENOBUFS),
    ONCE(CLOSE, EIO),         ONCE(EPOLL_CTL, ENOMEM),
    EVER(EPOLL_CTL, ENOMEM),  ONCE(EPOLL_WAIT, EINTR),
};

static void order(tram_faults *faults, const struct failure *failure, uint64_t n) {
    int status = 0;
    tram_faults_reset(faults);
    memory_fail(0, 0);
    if (!failure)
        return;
    if (failure->kind == MEMORY)
        memory_fail(n, failure->count);
    else if (failure->error)
        status = tram_faults_fail(faults, (tram_fault_kind)failure->kind, n, failure->count, failure->error);
    else
        status = tram_faults_shorten(faults, (tram_fault_kind)failure->kind, n, failure->count, failure->at_most);
    assert_int_equal(status, 0);
}

/* Nobody but the library may notice these: every byte still comes back. */
static bool unnoticed(const struct failure *failure) {
    return !failure || !failure->error || failure->error == EINTR || failure->error == EAGAIN ||
           failure->kind == TRAM_FAULT_CLOSE || failure->count == 4;
}

/* ---- Sweeping ---- */

struct scenario {
    const char *name;
    enum witness_end end;
    size_t size;
    unsigned step; /* each, or each so-manyth place */
};

static uint64_t play(tram_faults *faults, const struct scenario *scenario, const struct failure *failure, uint64_t n) {
    struct visit visit = {.tally = {.end = scenario->end, .size = scenario->size}};
    int descriptors = open_descriptors();
    size_t blocks, bytes;
    const char *kind = !failure                  ? "nothing"
                       : failure->kind == MEMORY ? "memory"
                                                 : tram_fault_kind_name((tram_fault_kind)failure->kind);
    snprintf(visit.where, sizeof visit.where, "%s: %s number %llu, %s", scenario->name, kind, (unsigned long long)n,
             failure && failure->error ? tram_error_name(-failure->error) : "short");
    tram_faults_reset(faults);
    visit_open(&visit, &(tram_loop_options){.faults = faults});
    order(faults, failure, n); /* what came before is in test_faults.c */
    visit_play(&visit);
    visit_close(&visit);
    uint64_t injected = tram_faults_injected(faults) + memory_failed();
    memory_fail(0, 0);
    tram_faults_memory(faults, &blocks, &bytes);
    if (!witness_paired(&visit.tally) || blocks || bytes || open_descriptors() != descriptors || ERR_peek_error() ||
        ((!injected || unnoticed(failure)) && !visit.tally.echoed))
        fail_msg("%s: %u protocols, %u released, %u made, %u lost, %u out of order, %u echoed, %zu blocks left, "
                 "%d descriptors",
                 visit.where, visit.tally.protocols, visit.tally.released, visit.tally.made, visit.tally.lost,
                 visit.tally.wrong, visit.tally.echoed, blocks, open_descriptors() - descriptors);
    return injected;
}

static void sweep(tram_faults *faults, const struct scenario *scenario) {
    unsigned step = getenv("TRAM_TEST_FULL") ? 1 : scenario->step;
    unsigned long long injected = 0, runs = 0;
    assert_int_equal(play(faults, scenario, NULL, 0), 0);
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        for (uint64_t n = 1 + i % step;; n += step) {
            assert_true(n < 100000);
            bool met = play(faults, scenario, &failures[i], n) != 0;
            injected += met;
            runs++;
            if (!met)
                break;
        }
    }
    print_message("%s: %llu faults in %llu runs\n", scenario->name, injected, runs);
    assert_true(injected > 50);
}

static int setup(void **state) {
    tram_faults *faults = NULL;
    int status = tram_faults_new(NULL, &faults);
    *state = faults;
    return status;
}

static int teardown(void **state) {
    tram_faults_free(*state);
    return 0;
}

static void test_X_1_tls_that_the_client_closes(void **state) {
    sweep(*state, &(struct scenario){"close", WITNESS_CLOSES, 100, 1});
}

static void test_X_1_tls_that_the_server_closes(void **state) {
    sweep(*state, &(struct scenario){"server stop", WITNESS_STAYS, 100, 3});
}

static void test_X_1_tls_that_the_client_aborts(void **state) {
    sweep(*state, &(struct scenario){"abort", WITNESS_ABORTS, 40000, 5});
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_X_1_tls_that_the_client_closes),
        TEST(test_X_1_tls_that_the_server_closes),
        TEST(test_X_1_tls_that_the_client_aborts),
    };
    return cmocka_run_group_tests(tests, tls_setup, tls_teardown);
}
