/*
 * Every system call and every allocation fails in turn, in every way that the kernel knows, while connections are made,
 * echo, half close, close, and servers stop. Whatever failed: nothing crashes, nothing is left behind, every
 * connection_made has its connection_lost, and nothing waits for what will never come.
 */
#include <poll.h>
#include <stdio.h>
#include <time.h>

#include "support/support.h"
#include "support/witness.h"

/* ---- What fails, and how ---- */

struct failure {
    tram_fault_kind kind;
    int error;      /* 0: the call moves `at_most` bytes */
    uint64_t count; /* calls in a row, from the n-th on */
    size_t at_most;
};

#define ONCE(name, error)                                                                                              \
    { TRAM_FAULT_##name, error, 1, 0 }
#define TWICE(name, error)                                                                                             \
    { TRAM_FAULT_##name, error, 2, 0 }
#define EVER(name, error)                                                                                              \
    { TRAM_FAULT_##name, error, TRAM_FAULT_ALWAYS, 0 }
#define SHORT(name, size)                                                                                              \
    {TRAM_FAULT_##name, 0, 1, size}, {                                                                                 \
        TRAM_FAULT_##name, 0, 5, size                                                                                  \
    }

/* Errors that each call may give on Linux. Those of a table that is full, or memory that is out, also stay. */
static const struct failure failures[] = {
    ONCE(ALLOCATE, ENOMEM),
    TWICE(ALLOCATE, ENOMEM),
    EVER(ALLOCATE, ENOMEM),
    ONCE(SOCKET, EMFILE),
    ONCE(SOCKET, ENFILE),
    ONCE(SOCKET, ENOBUFS),
    ONCE(SOCKET, ENOMEM),
    ONCE(SOCKET, EACCES),
    ONCE(SOCKET, EAFNOSUPPORT),
    EVER(SOCKET, EMFILE),
    ONCE(BIND, EADDRINUSE),
    ONCE(BIND, EADDRNOTAVAIL),
    ONCE(BIND, EACCES),
    ONCE(BIND, ENOMEM),
    ONCE(BIND, EINVAL),
    ONCE(LISTEN, EADDRINUSE),
    ONCE(LISTEN, ENOMEM),
    ONCE(CONNECT, ECONNREFUSED),
    ONCE(CONNECT, ETIMEDOUT),
    ONCE(CONNECT, ENETUNREACH),
    ONCE(CONNECT, EHOSTUNREACH),
    ONCE(CONNECT, EADDRNOTAVAIL),
    ONCE(CONNECT, EAGAIN),
    ONCE(CONNECT, EACCES),
    ONCE(CONNECT, EPERM),
    ONCE(CONNECT, EINTR),
    ONCE(CONNECT, ENOBUFS),
    ONCE(ACCEPT4, EINTR),
    TWICE(ACCEPT4, EAGAIN),
    ONCE(ACCEPT4, ECONNABORTED),
    ONCE(ACCEPT4, EPROTO),
    ONCE(ACCEPT4, EPERM),
    ONCE(ACCEPT4, EMFILE),
    ONCE(ACCEPT4, ENFILE),
    ONCE(ACCEPT4, ENOBUFS),
    ONCE(ACCEPT4, ENOMEM),
    EVER(ACCEPT4, EMFILE),
    ONCE(RECV, EINTR),
    TWICE(RECV, EINTR),
    ONCE(RECV, EAGAIN),
    TWICE(RECV, EAGAIN),
    ONCE(RECV, ECONNRESET),
    ONCE(RECV, ETIMEDOUT),
    ONCE(RECV, EHOSTUNREACH),
    ONCE(RECV, ECONNREFUSED),
    ONCE(RECV, ENOMEM),
    EVER(RECV, ENOMEM),
    SHORT(RECV, 1),
    SHORT(RECV, 100),
    ONCE(SEND, EINTR),
    TWICE(SEND, EINTR),
    ONCE(SEND, EAGAIN),
    TWICE(SEND, EAGAIN),
    ONCE(SEND, EPIPE),
    ONCE(SEND, ECONNRESET),
    ONCE(SEND, ETIMEDOUT),
    ONCE(SEND, ENOBUFS),
    ONCE(SEND, ENOMEM),
    EVER(SEND, ENOBUFS),
    SHORT(SEND, 1),
    SHORT(SEND, 100),
    ONCE(SENDMSG, EINTR),
    TWICE(SENDMSG, EINTR),
    ONCE(SENDMSG, EAGAIN),
    TWICE(SENDMSG, EAGAIN),
    ONCE(SENDMSG, EPIPE),
    ONCE(SENDMSG, ECONNRESET),
    ONCE(SENDMSG, ETIMEDOUT),
    ONCE(SENDMSG, ENOBUFS),
    ONCE(SENDMSG, ENOMEM),
    EVER(SENDMSG, ENOBUFS),
    SHORT(SENDMSG, 1),
    SHORT(SENDMSG, 600),
    ONCE(SHUTDOWN, ENOTCONN),
    EVER(SHUTDOWN, ENOTCONN),
    ONCE(GETSOCKOPT, ENOBUFS),
    EVER(GETSOCKOPT, ENOBUFS),
    ONCE(SETSOCKOPT, ENOMEM),
    ONCE(SETSOCKOPT, EINVAL),
    ONCE(SETSOCKOPT, ENOPROTOOPT),
    EVER(SETSOCKOPT, ENOMEM),
    ONCE(GETSOCKNAME, ENOBUFS),
    EVER(GETSOCKNAME, ENOBUFS),
    ONCE(CLOSE, EINTR),
    ONCE(CLOSE, EIO),
    ONCE(CLOSE, ENOSPC),
    ONCE(CLOSE, EDQUOT),
    EVER(CLOSE, EIO),
    ONCE(READ, EINTR),
    TWICE(READ, EINTR),
    ONCE(READ, EAGAIN),
    ONCE(WRITE, EINTR),
    TWICE(WRITE, EINTR),
    ONCE(EPOLL_CREATE1, EMFILE),
    ONCE(EPOLL_CREATE1, ENFILE),
    ONCE(EPOLL_CREATE1, ENOMEM),
    ONCE(EPOLL_CTL, ENOMEM),
    ONCE(EPOLL_CTL, ENOSPC),
    EVER(EPOLL_CTL, ENOMEM),
    ONCE(EPOLL_WAIT, EINTR),
    TWICE(EPOLL_WAIT, EINTR),
    ONCE(EVENTFD, EMFILE),
    ONCE(EVENTFD, ENFILE),
    ONCE(EVENTFD, ENOMEM),
    ONCE(EVENTFD, ENODEV),
};

/* ---- Driving ---- */

struct run {
    tram_loop_options options;
    tram_loop *loop;
    tram_runtime *runtime; /* NULL: the server is on the loop */
    tram_server *server;
    struct witness_tally tally;
    bool may_stall;   /* the kernel would tell by more than this failure */
    bool never_sends; /* for want of memory, which is tried again for ever (W-29) */
};

static char where[128]; /* the run, for messages */

#define PATIENCE_MS 10000
#define TRIES_NS    20000000u /* as long as those that never send are watched, once they have tried */

/* Accepting is paused for a second: nobody waits for that here. */
static bool starved(const struct run *run) {
    tram_stats stats;
    uint64_t pauses = run->may_stall;
    if (run->loop) {
        tram_loop_stats(run->loop, &stats);
        pauses += stats.accept_pauses;
    }
    for (unsigned i = 0; run->runtime && i < tram_runtime_worker_count(run->runtime); i++) {
        tram_runtime_stats(run->runtime, i, &stats);
        pauses += stats.accept_pauses;
    }
    return pauses > 0;
}

static uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Turns the loop until the condition holds. False: it is starved, and nothing moves. */
static bool drive(struct run *run, bool (*condition)(struct run *run, void *arg), void *arg) {
    int idle_ms = 0;
    uint64_t start = monotonic_ns();
    while (!condition(run, arg)) {
        if (!tram_faults_injected(run->options.faults))
            start = monotonic_ns();
        if (run->never_sends && monotonic_ns() - start > TRIES_NS)
            return false;
        uint64_t timeout_ns;
        struct pollfd poll_fd = {.fd = tram_loop_backend_fd(run->loop), .events = POLLIN};
        assert_int_equal(tram_loop_prepare(run->loop, &timeout_ns), 0);
        idle_ms = timeout_ns == 0 || poll(&poll_fd, 1, 5) > 0 ? 0 : idle_ms + 5;
        if (idle_ms >= 20 && starved(run))
            return false;
        if (idle_ms > PATIENCE_MS)
            fail_msg("%s: something waits for ever: %u made, %u lost, %u protocols, %u released", where,
                     run->tally.made, run->tally.lost, run->tally.protocols, run->tally.released);
        assert_true(tram_loop_dispatch(run->loop) >= 0);
    }
    return true;
}

static bool future_done(struct run *run, void *arg) {
    (void)run;
    return tram_future_done(arg);
}

static bool client_gone(struct run *run, void *arg) {
    (void)arg;
    return !run->tally.client;
}

static bool client_served(struct run *run, void *arg) {
    (void)arg;
    return !run->tally.client || run->tally.echoed;
}

/* Futures cannot be lost either: done, or the run is starved. */
static int finish(struct run *run, int status, tram_future *future, void **ret_value) {
    if (status)
        return status;
    bool done = drive(run, future_done, future);
    if (!done)
        tram_future_cancel(future);
    status = done ? tram_future_result(future, ret_value) : TRAM_ECANCELLED;
    tram_future_release(future);
    return status;
}

/* ---- The scenario ---- */

static const char *loopback_host(void) {
    static char host[32];
    static unsigned runs;
    /* Another address for each: the ports of one are soon full of TIME_WAIT. */
    runs++;
    snprintf(host, sizeof host, "127.1.%u.%u", runs / 200 % 200, runs % 200 + 1);
    return host;
}

static void connect_and_echo(struct run *run, const char *host, const tram_socket_address *address) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_future *future;
    void *transport = NULL;
    tram_socket_address_text(address, text, sizeof text);
    tram_connection_options options = {.timeout_ns = 60000000000, .happy_eyeballs_delay_ns = 250000000};
    int status = tram_loop_create_connection(run->loop, witness_client, &run->tally, host, strrchr(text, ':') + 1,
                                             &options, &future);
    assert_true(status <= 0);
    if (finish(run, status, future, &transport))
        return;
    bool stays = run->tally.end == WITNESS_STAYS;
    if (!drive(run, stays ? client_served : client_gone, NULL) && run->tally.client)
        tram_transport_abort(run->tally.client);
}

static bool server_empty(struct run *run, void *arg) {
    (void)arg;
    return tram_server_connection_count(run->server) == 0 && !run->tally.client;
}

static void end_server(struct run *run) {
    tram_future *future;
    if (run->tally.end == WITNESS_STAYS)
        assert_int_equal(tram_server_close_clients(run->server), 0);
    assert_int_equal(tram_server_close(run->server), 0);
    int status = tram_server_wait_closed(run->server, &future);
    if (finish(run, status, future, NULL)) {
        tram_server_abort_clients(run->server);
        drive(run, server_empty, NULL);
    }
    if (run->tally.client)
        tram_transport_abort(run->tally.client);
    drive(run, client_gone, NULL);
    tram_server_release(run->server);
}

static void on_one_loop(struct run *run) {
    const char *host = loopback_host();
    tram_future *future;
    tram_socket_address address;
    void *server = NULL;
    if (tram_loop_new(&run->options, &run->loop))
        return;
    int status = tram_loop_create_server(run->loop, witness_server, &run->tally, host, "0", NULL, &future);
    if (finish(run, status, future, &server) == 0) {
        run->server = server;
        assert_int_equal(tram_server_sockname(run->server, 0, &address), 0);
        if (address.size)
            connect_and_echo(run, host, &address);
        end_server(run);
    }
    assert_int_equal(tram_loop_free(run->loop), 0);
}

static void on_a_runtime(struct run *run) {
    const char *host = loopback_host();
    tram_runtime_options options = {
        .workers = 2, .loop = run->options, .grace_ns = run->never_sends ? TRIES_NS : 5000000000};
    tram_runtime_server *server;
    tram_socket_address address;
    if (tram_runtime_new(&options, &run->runtime))
        return;
    if (tram_runtime_create_server(run->runtime, witness_server, &run->tally, host, "0", NULL, &server, NULL) == 0 &&
        tram_runtime_start(run->runtime) == 0) {
        assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
        bool has_loop = tram_loop_new(&run->options, &run->loop) == 0;
        if (has_loop)
            connect_and_echo(run, host, &address);
        tram_runtime_stop(run->runtime);
        if (has_loop && run->tally.client && !drive(run, client_gone, NULL))
            tram_transport_abort(run->tally.client);
        assert_true(tram_runtime_join(run->runtime) >= 0);
        tram_loop_free(run->loop);
        run->loop = NULL;
    }
    tram_runtime_free(run->runtime);
}

/* ---- Sweeping ---- */

struct scenario {
    const char *name;
    void (*play)(struct run *run);
    enum witness_end end;
    bool buffered;
    size_t size;
    size_t send_buffer;
};

static void order(tram_faults *faults, const struct failure *failure, uint64_t n) {
    int status = failure->error ? tram_faults_fail(faults, failure->kind, n, failure->count, failure->error)
                                : tram_faults_shorten(faults, failure->kind, n, failure->count, failure->at_most);
    assert_int_equal(status, 0);
}

/* Nobody but the library may notice these: every byte still comes back. */
static bool unnoticed(const struct failure *failure) {
    return !failure || !failure->error || failure->error == EINTR || failure->kind == TRAM_FAULT_CLOSE ||
           (failure->error == EAGAIN && failure->kind != TRAM_FAULT_CONNECT);
}

/* One run, and what must hold after it. How many faults it met. */
static uint64_t play(tram_faults *faults, const struct scenario *scenario, const struct failure *failure, uint64_t n) {
    struct run run = {.options = {.faults = faults}};
    int descriptors = open_descriptors();
    size_t blocks, bytes;
    run.tally.end = scenario->end;
    run.tally.buffered = scenario->buffered;
    run.tally.size = scenario->size;
    run.tally.send_buffer = scenario->send_buffer;
    /* A socket that cannot be shut down is no longer connected, which receiving tells. */
    run.may_stall = failure && failure->kind == TRAM_FAULT_SHUTDOWN;
    run.never_sends = failure && failure->error == ENOBUFS && failure->count == TRAM_FAULT_ALWAYS &&
                      (failure->kind == TRAM_FAULT_SEND || failure->kind == TRAM_FAULT_SENDMSG);
    snprintf(where, sizeof where, "%s: %s number %llu, %s", scenario->name,
             failure ? tram_fault_kind_name(failure->kind) : "nothing", (unsigned long long)n,
             failure && failure->error ? tram_error_name(-failure->error) : "short");
    tram_faults_reset(faults);
    if (failure)
        order(faults, failure, n);
    scenario->play(&run);
    uint64_t injected = tram_faults_injected(faults);
    tram_faults_memory(faults, &blocks, &bytes);
    if (!witness_paired(&run.tally) || blocks || bytes || open_descriptors() != descriptors ||
        ((!injected || unnoticed(failure)) && !run.tally.echoed))
        fail_msg("%s: %u protocols, %u released, %u made, %u lost, %u out of order, %u echoed, %zu blocks left, "
                 "%d descriptors",
                 where, run.tally.protocols, run.tally.released, run.tally.made, run.tally.lost, run.tally.wrong,
                 run.tally.echoed, blocks, open_descriptors() - descriptors);
    return injected;
}

static uint64_t all_injected;
static bool met_failures[sizeof failures / sizeof *failures];

/* Every kind of failure at every place that the scenario has for it. */
static void sweep(tram_faults *faults, const struct scenario *scenario) {
    uint64_t injected = 0, runs = 0;
    assert_int_equal(play(faults, scenario, NULL, 0), 0);
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        for (uint64_t n = 1;; n++) {
            assert_true(n < 100000);
            uint64_t met = play(faults, scenario, &failures[i], n);
            injected += met != 0; /* calls in a row are one fault */
            met_failures[i] |= met != 0;
            runs++;
            if (!met)
                break;
        }
    }
    print_message("%s: %llu faults in %llu runs\n", scenario->name, (unsigned long long)injected,
                  (unsigned long long)runs);
    all_injected += injected;
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

static void test_X_1_a_connection_that_the_client_closes(void **state) {
    sweep(*state, &(struct scenario){"close", on_one_loop, WITNESS_CLOSES, false, 100, 0});
}

static void test_X_1_a_connection_that_the_client_half_closes(void **state) {
    sweep(*state, &(struct scenario){"half close", on_one_loop, WITNESS_HALF_CLOSES, false, 5000, 0});
}

static void test_X_1_a_connection_that_the_client_aborts(void **state) {
    sweep(*state, &(struct scenario){"abort, buffered", on_one_loop, WITNESS_ABORTS, true, 3000, 0});
}

static void test_X_1_a_connection_that_the_server_closes(void **state) {
    sweep(*state, &(struct scenario){"server stop", on_one_loop, WITNESS_STAYS, false, 100, 0});
}

static void test_X_1_a_connection_whose_bytes_wait(void **state) {
    sweep(*state, &(struct scenario){"queued bytes", on_one_loop, WITNESS_HALF_CLOSES, false, 30000, 1});
}

static void test_X_1_a_runtime_that_serves_and_stops(void **state) {
    sweep(*state, &(struct scenario){"runtime, close", on_a_runtime, WITNESS_CLOSES, false, 100, 0});
}

static void test_X_1_a_runtime_that_stops_with_a_client(void **state) {
    sweep(*state, &(struct scenario){"runtime, stop", on_a_runtime, WITNESS_STAYS, true, 3000, 0});
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_X_1_a_connection_that_the_client_closes), TEST(test_X_1_a_connection_that_the_client_half_closes),
        TEST(test_X_1_a_connection_that_the_client_aborts), TEST(test_X_1_a_connection_that_the_server_closes),
        TEST(test_X_1_a_connection_whose_bytes_wait),       TEST(test_X_1_a_runtime_that_serves_and_stops),
        TEST(test_X_1_a_runtime_that_stops_with_a_client),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("%llu faults injected in all\n", (unsigned long long)all_injected);
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
        if (!met_failures[i])
            printf("never met: %s %s\n", tram_fault_kind_name(failures[i].kind), tram_error_name(-failures[i].error));
    return failed || all_injected < 2000;
}
