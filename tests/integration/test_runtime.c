/* The runtime: workers, sharded servers, and the graceful end. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/support.h"

/* ---- An echo that counts ---- */

struct echo {
    tram_protocol base;
    _Atomic unsigned *made;
};

static _Atomic unsigned made_count;
static _Atomic unsigned released_count;

static int echo_made(tram_protocol *protocol, tram_transport *transport) {
    (void)protocol;
    (void)transport;
    made_count++;
    return 0;
}

static int echo_received(tram_protocol *protocol, const void *data, size_t size) {
    return tram_transport_write(protocol->transport, data, size);
}

static void echo_released(tram_protocol *protocol) {
    released_count++;
    free(protocol);
}

static const tram_protocol_ops echo_ops = {
    .connection_made = echo_made,
    .data_received = echo_received,
    .released = echo_released,
};

static int echo_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    struct echo *echo = calloc(1, sizeof *echo);
    echo->base.ops = &echo_ops;
    *ret_protocol = &echo->base;
    return 0;
}

/* Sends more than any kernel buffers take, to a peer that may not read. */
#define FLOOD (32u << 20)

static int flood_made(tram_protocol *protocol, tram_transport *transport) {
    static const char bytes[65536];
    (void)protocol;
    for (size_t sent = 0; sent < FLOOD; sent += sizeof bytes)
        if (tram_transport_write(transport, bytes, sizeof bytes))
            return TRAM_EUSER;
    made_count++;
    return 0;
}

static const tram_protocol_ops flood_ops = {.connection_made = flood_made, .released = echo_released};

static int flood_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    int status = echo_factory(loop, arg, ret_protocol);
    (*ret_protocol)->ops = &flood_ops;
    return status;
}

/* ---- Helpers ---- */

static tram_runtime_options options_for(struct world *world, unsigned workers) {
    made_count = released_count = 0;
    tram_runtime_options options = {.workers = workers, .loop = world->options};
    if (workers != 1)
        options.loop.log = NULL; /* the world's is for one thread */
    return options;
}

static tram_runtime *runtime_new(const tram_runtime_options *options) {
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(options, &runtime), 0);
    return runtime;
}

static tram_runtime_server *serve_with(tram_runtime *runtime, tram_protocol_factory factory,
                                       const tram_server_options *options) {
    tram_runtime_server *server;
    tram_error error = {0};
    int status = tram_runtime_create_server(runtime, factory, NULL, "127.0.0.1", "0", options, &server, &error);
    if (status)
        fail_msg("create_server: %s: %s", tram_error_name(status), error.detail ? error.detail : "");
    return server;
}

static tram_runtime_server *serve(tram_runtime *runtime, tram_protocol_factory factory) {
    return serve_with(runtime, factory, NULL);
}

static uint16_t port_of(const tram_runtime_server *server) {
    tram_socket_address address;
    struct sockaddr_in inet;
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    return ntohs(inet.sin_port);
}

static int connect_to(const tram_runtime_server *server) {
    int fd = tcp_connect(port_of(server));
    assert_true(fd >= 0);
    return fd;
}

static void assert_echoes(int fd) {
    char bytes[5];
    send_exactly(NULL, fd, "hello", 5);
    receive_exactly(NULL, fd, bytes, 5);
    assert_memory_equal(bytes, "hello", 5);
}

static void wait_for_count(const _Atomic unsigned *count, unsigned wanted) {
    for (int i = 0; *count < wanted; i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
    }
}

/* ---- Life ---- */

static void test_runs_and_stops(void **state) {
    tram_runtime_options options = options_for(*state, 3);
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_worker_count(runtime), 3);
    assert_int_equal(tram_runtime_join(runtime), TRAM_ESTATE); /* not started */
    for (unsigned i = 0; i < 3; i++)
        assert_non_null(tram_runtime_loop(runtime, i));
    assert_null(tram_runtime_loop(runtime, 3));
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_start(runtime), TRAM_ESTATE);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_true(tram_loop_is_closed(tram_runtime_loop(runtime, 0)));
    tram_stats stats;
    assert_int_equal(tram_runtime_stats(runtime, 2, &stats), 0);
    assert_true(stats.ticks > 0);
    assert_int_equal(tram_runtime_stats(runtime, 3, &stats), TRAM_EVALUE);
    assert_int_equal(tram_runtime_start(runtime), TRAM_ESTATE);
    tram_runtime_free(runtime);
    tram_runtime_free(NULL);
}

static void test_free_in_every_state(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    tram_runtime *runtime = runtime_new(&options);
    serve(runtime, echo_factory);
    tram_runtime_free(runtime); /* never started */
    runtime = runtime_new(&options);
    serve(runtime, echo_factory);
    assert_int_equal(tram_runtime_start(runtime), 0);
    tram_runtime_free(runtime); /* running */
    runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    tram_runtime_free(runtime); /* stopped and never started */
}

static void test_stop_before_start(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_run(runtime), 0); /* ends by itself */
    tram_runtime_free(runtime);
}

/* A drain is the end without a stop: it may come first, and of a runtime that stops it changes nothing. */
static void test_a_drain_ends_it_as_well(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    for (int when = 0; when < 3; when++) {
        tram_runtime *runtime = runtime_new(&options);
        serve(runtime, echo_factory);
        if (when == 0)
            assert_int_equal(tram_runtime_drain(runtime), 0); /* before it starts */
        assert_int_equal(tram_runtime_start(runtime), 0);
        if (when == 2)
            assert_int_equal(tram_runtime_stop(runtime), 0);
        if (when)
            assert_int_equal(tram_runtime_drain(runtime), 0);
        assert_int_equal(tram_runtime_join(runtime), 0);
        tram_runtime_free(runtime);
    }
}

static void test_bad_options(void **state) {
    tram_runtime *runtime = NULL;
    tram_runtime_options options = options_for(*state, 2);
    options.workers = 100000;
    assert_int_equal(tram_runtime_new(&options, &runtime), TRAM_EVALUE);
    options = options_for(*state, 2);
    options.stack_size = 1;
    assert_int_equal(tram_runtime_new(&options, &runtime), TRAM_EVALUE);
    options.stack_size = (size_t)PTHREAD_STACK_MIN - 1;
    assert_int_equal(tram_runtime_new(&options, &runtime), TRAM_EVALUE);
    options.stack_size = (size_t)PTHREAD_STACK_MIN; /* the least that a thread may have */
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    tram_runtime_free(runtime);
    runtime = NULL;
    options = options_for(*state, 2);
    options.reserved[5] = 1;
    assert_int_equal(tram_runtime_new(&options, &runtime), TRAM_EVALUE);
    options = options_for(*state, 2);
    options.loop.backend = (tram_backend)99;
    assert_int_equal(tram_runtime_new(&options, &runtime), TRAM_EVALUE);
    assert_null(runtime);
}

static void test_default_workers_are_the_cpus(void **state) {
    tram_runtime_options options = options_for(*state, 0);
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_worker_count(runtime), tram_available_cpus().count);
    tram_runtime_free(runtime);
}

/* ---- Workers ---- */

struct seen {
    char name[16];
    int cpus;
    int cpu;
    sigset_t mask;
    tram_loop *loop;
    pthread_t thread;
    bool stopped;
    int create_status;
    int join_status;
};

static int look_around(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    struct seen *seen = (struct seen *)arg + worker;
    cpu_set_t cpus;
    pthread_getname_np(pthread_self(), seen->name, sizeof seen->name);
    sched_getaffinity(0, sizeof cpus, &cpus);
    seen->cpus = CPU_COUNT(&cpus);
    seen->cpu = sched_getcpu();
    pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
    seen->loop = loop;
    seen->thread = pthread_self();
    seen->create_status = tram_runtime_create_server(runtime, echo_factory, NULL, "127.0.0.1", "0", NULL, NULL, NULL);
    seen->join_status = tram_runtime_join(runtime);
    *state = seen;
    return 0;
}

static int note_the_end(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    struct seen *seen = *state;
    assert_ptr_equal(seen, (struct seen *)arg + worker);
    assert_false(tram_loop_is_closed(loop));
    assert_false(tram_loop_is_running(loop));
    assert_true(pthread_equal(seen->thread, pthread_self()));
    seen->stopped = true;
    return 0;
}

static void test_threads_of_the_workers(void **state) {
    struct seen seen[2] = {0};
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    tram_runtime_options options = options_for(*state, 2);
    options.name = "a-name-that-is-too-long";
    options.pin = true;
    options.stack_size = 512 * 1024;
    options.start = look_around;
    options.stop = note_the_end;
    options.arg = seen;
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_start(runtime), 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_string_equal(seen[i].name, i ? "a-name-that-i-1" : "a-name-that-i-0");
        assert_int_equal(seen[i].cpus, 1);
        assert_ptr_equal(seen[i].loop, tram_runtime_loop(runtime, i));
        assert_ptr_equal(tram_runtime_state(runtime, i), &seen[i]);
        assert_int_equal(sigismember(&seen[i].mask, SIGTERM), 1);
        assert_int_equal(sigismember(&seen[i].mask, SIGUSR1), 1);
        assert_int_equal(sigismember(&seen[i].mask, SIGSEGV), 0);
        assert_int_equal(seen[i].create_status, TRAM_ESTATE);
        assert_int_equal(seen[i].join_status, TRAM_ESTATE);
        assert_false(seen[i].stopped);
    }
    assert_null(tram_runtime_state(runtime, 2));
    if (tram_available_cpus().count > 1)
        assert_int_not_equal(seen[0].cpu, seen[1].cpu);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number < 32; number++)
        assert_int_equal(sigismember(&before, number), sigismember(&after, number));
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_true(seen[0].stopped && seen[1].stopped);
    tram_runtime_free(runtime);
}

static _Atomic unsigned starts, stops;

static int second_fails(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)loop;
    (void)state;
    (void)arg;
    starts++;
    return worker == 1 ? -EXDEV : 0;
}

static int count_stop(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)loop;
    (void)state;
    (void)arg;
    assert_int_not_equal(worker, 1); /* its start failed */
    stops++;
    return 0;
}

/* ---- One pool for all workers ---- */

struct pool_test {
    sem_t open;
    _Atomic unsigned begun, submitted, refused, released;
};

static int hang(void *arg, void **ret_result) {
    struct pool_test *test = arg;
    (void)ret_result;
    test->begun++;
    while (sem_wait(&test->open))
        continue;
    return 0;
}

static int submit_two(tram_loop *loop, void *arg) {
    struct pool_test *test = arg;
    for (int i = 0; i < 2; i++) {
        int status = tram_loop_run_in_executor(loop, NULL, hang, test, NULL, NULL);
        test->refused += status == TRAM_ELIMIT;
        test->submitted += status == 0;
    }
    return 0;
}

static void test_L_32_L_45_workers_share_one_pool(void **state) {
    struct world *world = *state;
    struct pool_test test = {.begun = 0};
    sem_init(&test.open, 0, 0);
    tram_runtime_options options = options_for(world, 2);
    options.executor_threads = 2;
    options.executor_limit = 1;
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 0), submit_two, &test, NULL), 0);
    wait_for_count(&test.begun, 2); /* both threads are one worker's … */
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 1), submit_two, &test, NULL), 0);
    wait_for_count(&test.refused, 1); /* … so that of the other's jobs one waits, and one is refused */
    assert_int_equal(test.submitted, 3);
    for (int i = 0; i < 3; i++)
        sem_post(&test.open);
    wait_for_count(&test.begun, 3);
    tram_runtime_free(runtime);
    sem_destroy(&test.open);
}

/* What a runtime's jobs still do at its end, they do; nobody waits for them. */
static void test_L_34_the_end_of_a_runtime_waits_for_no_job(void **state) {
    struct world *world = *state;
    static struct pool_test test;
    sem_init(&test.open, 0, 0);
    tram_runtime_options options = options_for(world, 1);
    options.executor_threads = 1;
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 0), submit_two, &test, NULL), 0);
    wait_for_count(&test.submitted, 2);
    wait_for_count(&test.begun, 1);
    tram_runtime_free(runtime);
    sem_post(&test.open);
    sem_post(&test.open);
}

static void test_failing_start_function(void **state) {
    starts = stops = 0;
    tram_runtime_options options = options_for(*state, 3);
    options.start = second_fails;
    options.stop = count_stop;
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server = serve(runtime, echo_factory);
    uint16_t port = port_of(server);
    assert_int_equal(tram_runtime_start(runtime), -EXDEV);
    assert_int_equal(starts, 3);
    assert_int_equal(stops, 2);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(tram_runtime_create_server(runtime, echo_factory, NULL, NULL, "0", NULL, NULL, NULL), TRAM_ESTATE);
    tram_runtime_free(runtime);
    assert_nobody_listens(port);
}

static int set_flag(tram_loop *loop, void *arg) {
    assert_ptr_equal(tram_loop_running(), loop);
    *(_Atomic unsigned *)arg += 1;
    return 0;
}

static int stop_loop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

static void test_posts_and_a_worker_that_ends_by_itself(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_start(runtime), 0);
    _Atomic unsigned flag = 0;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, i), set_flag, &flag, NULL), 0);
    wait_for_count(&flag, 2);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 0), stop_loop, NULL, NULL), 0);
    while (tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 0), set_flag, &flag, NULL) == 0)
        poll(NULL, 0, 1);
    /* Now there is a worker that cannot serve. */
    tram_error error;
    assert_int_equal(tram_runtime_create_server(runtime, echo_factory, NULL, "127.0.0.1", "0", NULL, NULL, &error),
                     TRAM_ESTATE);
    assert_int_equal(error.code, TRAM_ESTATE);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 1), set_flag, &flag, NULL), 0);
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 1), set_flag, &flag, NULL), TRAM_ESTATE);
    tram_runtime_free(runtime);
}

/* ---- Servers ---- */

static void check_spread(tram_runtime *runtime, const tram_runtime_server *server) {
    enum { COUNT = 64 };
    int fds[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        fds[i] = connect_to(server);
    for (size_t i = 0; i < COUNT; i++)
        assert_echoes(fds[i]);
    uint64_t all = 0;
    for (unsigned i = 0; i < tram_runtime_worker_count(runtime); i++) {
        tram_stats stats;
        assert_int_equal(tram_runtime_stats(runtime, i, &stats), 0);
        assert_true(stats.connections_now > 0); /* 64 on one of two: 2 to the power of -63 */
        all += stats.connections_now;
    }
    assert_int_equal(all, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        close(fds[i]);
    wait_for_count(&released_count, COUNT);
    made_count = released_count = 0;
}

static void test_server_on_all_workers(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *before = serve(runtime, echo_factory); /* kept until the start */
    assert_int_equal(tram_runtime_start(runtime), 0);
    check_spread(runtime, before);
    tram_runtime_server *after = serve(runtime, echo_factory);
    check_spread(runtime, after);
    check_spread(runtime, before);
    tram_socket_address address;
    assert_int_equal(tram_runtime_server_sockname(after, 1, &address), TRAM_EVALUE);

    uint16_t port = port_of(before);
    int fd = connect_to(before);
    assert_echoes(fd);
    assert_int_equal(tram_runtime_server_close(before), 0);
    assert_int_equal(tram_runtime_server_close(before), 0);
    await_nobody_listens(port);
    assert_echoes(fd); /* connections go on */
    close(fd);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(tram_runtime_server_close(after), 0); /* also after the end */
    tram_runtime_free(runtime);
}

static void test_V_2_same_port_of_all_workers(void **state) {
    struct world *world = *state;
    const char *const hosts[] = {"127.0.0.1", "127.0.0.2", NULL};
    const tram_server_options same = {.hosts = hosts, .same_port = true};
    tram_runtime_options options = options_for(world, 3);
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server;
    tram_socket_address first, second;
    assert_int_equal(tram_runtime_create_server(runtime, echo_factory, NULL, NULL, "0", &same, &server, NULL), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_server_sockname(server, 0, &first), 0);
    assert_int_equal(tram_runtime_server_sockname(server, 1, &second), 0);
    assert_int_equal(tram_socket_address_port(&first), tram_socket_address_port(&second));
    int fd = connect_to(server);
    assert_echoes(fd);
    close(fd);
    tram_runtime_free(runtime);
}

static void test_closed_before_the_start(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server = serve(runtime, echo_factory);
    uint16_t port = port_of(server);
    assert_int_equal(tram_runtime_server_close(server), 0);
    assert_nobody_listens(port);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_nobody_listens(port);
    tram_runtime_free(runtime);
}

/* rules: V-5 */
static void test_V_5_occupied_port_is_an_error_with_the_address(void **state) {
    const unsigned workers[] = {1, 2};
    for (size_t i = 0; i < 2; i++) {
        tram_runtime_options options = options_for(*state, workers[i]);
        tram_runtime *runtime = runtime_new(&options), *other = runtime_new(&options);
        tram_runtime_server *server = serve(runtime, echo_factory);
        assert_int_equal(tram_runtime_start(runtime), 0);
        char port[8], text[32];
        snprintf(port, sizeof port, "%u", port_of(server));
        snprintf(text, sizeof text, "127.0.0.1:%s", port);
        tram_error error;
        int descriptors = open_descriptors();
        assert_int_equal(
            tram_runtime_create_server(other, echo_factory, NULL, "127.0.0.1", port, NULL, &server, &error),
            -EADDRINUSE);
        assert_int_equal(error.code, -EADDRINUSE);
        assert_string_equal(error.operation, "bind");
        assert_non_null(strstr(error.detail, text));
        assert_int_equal(open_descriptors(), descriptors);
        tram_runtime_free(other);
        tram_runtime_free(runtime);
    }
}

static void test_V_3_shared_with_other_runtimes_on_request(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    tram_server_options shared = {.reuse_port = true};
    tram_runtime *runtimes[2];
    tram_runtime_server *servers[2];
    char port[8] = "0";
    for (size_t i = 0; i < 2; i++) {
        runtimes[i] = runtime_new(&options);
        assert_int_equal(
            tram_runtime_create_server(runtimes[i], echo_factory, NULL, "127.0.0.1", port, &shared, &servers[i], NULL),
            0);
        snprintf(port, sizeof port, "%u", port_of(servers[i]));
        assert_int_equal(tram_runtime_start(runtimes[i]), 0);
    }
    int fd = connect_to(servers[0]);
    assert_echoes(fd);
    close(fd);
    tram_runtime_free(runtimes[0]);
    fd = connect_to(servers[1]); /* two runtimes live in one process, each its own life */
    assert_echoes(fd);
    close(fd);
    tram_runtime_free(runtimes[1]);
}

static void test_server_bad_input(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    tram_runtime *runtime = runtime_new(&options);
    tram_error error;
    int sock = 0;
    const struct {
        tram_protocol_factory factory;
        const char *host;
        const char *port;
        tram_server_options options;
        int code;
    } cases[] = {
        {NULL, NULL, "0", {0}, TRAM_EVALUE},
        {echo_factory, NULL, NULL, {.sock = &sock}, TRAM_EVALUE},
        {echo_factory, NULL, "0", {.defer_serving = true}, TRAM_EVALUE},
        {echo_factory, NULL, "0", {.backlog = -1}, TRAM_EVALUE},
        {echo_factory, "no.such.host.invalid", "0", {.flags = AI_NUMERICHOST}, TRAM_ERESOLVE},
        {echo_factory, "127.0.0.1", "65536", {0}, TRAM_ERESOLVE},
        {echo_factory, "192.0.2.77", "0", {0}, -EADDRNOTAVAIL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tram_runtime_create_server(runtime, cases[i].factory, NULL, cases[i].host, cases[i].port,
                                                    &cases[i].options, NULL, &error),
                         cases[i].code);
        assert_int_equal(error.code, cases[i].code);
        assert_non_null(error.operation);
    }
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_create_server(runtime, echo_factory, NULL, "127.0.0.1", "0", NULL, NULL, &error),
                     TRAM_ESTATE);
    tram_runtime_free(runtime);
}

/* ---- The end ---- */

static int late_made(tram_protocol *protocol, tram_transport *transport) {
    (void)protocol, (void)transport;
    made_count++;
    return 0;
}

static const tram_protocol_ops late_ops = {.connection_made = late_made};
static tram_protocol late[2] = {{.ops = &late_ops}, {.ops = &late_ops}};

static int lost_makes_a_pair(tram_protocol *protocol, const tram_error *error) {
    (void)error;
    return tram_loop_create_pair(tram_transport_get_loop(protocol->transport), &late[0], &late[1], NULL, NULL);
}

static const tram_protocol_ops pair_on_loss_ops = {
    .connection_made = flood_made, .connection_lost = lost_makes_a_pair, .released = echo_released};

static int pair_on_loss_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    int status = echo_factory(loop, arg, ret_protocol);
    (*ret_protocol)->ops = &pair_on_loss_ops;
    return status;
}

/* The grace period ended one connection; the two that it made in connection_lost are aborted as well. */
static void test_join_counts_what_was_made_in_connection_lost(void **state) {
    tram_runtime_options options = options_for(*state, 1);
    options.grace_ns = 1;
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server = serve(runtime, pair_on_loss_factory);
    assert_int_equal(tram_runtime_start(runtime), 0);
    int fd = connect_to(server);
    wait_for_count(&made_count, 1);
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 3);
    assert_int_equal(tram_runtime_join(runtime), 3);
    assert_int_equal(released_count, 1);
    tram_runtime_free(runtime);
    close(fd);
}

static bool reads_eof(int fd) {
    return receive_eof(NULL, fd);
}

static void test_stop_closes_what_is_idle(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    tram_runtime *runtime = runtime_new(&options);
    tram_server_options level = {.shard = TRAM_SHARD_HANDOFF}; /* so that each worker's share is known */
    tram_runtime_server *server = serve_with(runtime, echo_factory, &level);
    assert_int_equal(tram_runtime_start(runtime), 0);
    int fds[8];
    for (size_t i = 0; i < 8; i++) {
        fds[i] = connect_to(server);
        assert_echoes(fds[i]);
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(tram_runtime_server_connection_count(server, i), 4);
    uint16_t port = port_of(server);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0); /* none was aborted */
    for (size_t i = 0; i < 8; i++) {
        assert_true(reads_eof(fds[i]));
        close(fds[i]);
    }
    assert_nobody_listens(port);
    assert_int_equal(released_count, 8);
    tram_stats stats;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(tram_runtime_stats(runtime, i, &stats), 0);
        assert_int_equal(stats.connections_now, 0);
        assert_int_equal(stats.connections, 4); /* served by each, and closed by each */
        assert_int_equal(stats.accepted, i == 0 ? 8 : 0);
        assert_int_equal(stats.taken_over, i == 0 ? 0 : 4);
    }
    tram_runtime_free(runtime);
}

static int block_worker(tram_loop *loop, void *arg) {
    (void)loop;
    pthread_mutex_lock(arg);
    pthread_mutex_unlock(arg);
    return 0;
}

/* rules: V-17 */
static void test_V_17_stop_serves_who_got_through(void **state) {
    tram_runtime_options options = options_for(*state, 1);
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server = serve(runtime, echo_factory);
    assert_int_equal(tram_runtime_start(runtime), 0);
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&gate);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 0), block_worker, &gate, NULL), 0);
    int fds[16];
    for (size_t i = 0; i < 16; i++) {
        fds[i] = connect_to(server);
        assert_int_equal(send(fds[i], "hello", 5, 0), 5);
    }
    tram_runtime_stop(runtime); /* while the worker has seen none of them */
    pthread_mutex_unlock(&gate);
    for (size_t i = 0; i < 16; i++) {
        char bytes[5];
        receive_exactly(NULL, fds[i], bytes, 5);
        assert_memory_equal(bytes, "hello", 5);
        assert_true(reads_eof(fds[i]));
        close(fds[i]);
    }
    assert_int_equal(tram_runtime_join(runtime), 0);
    tram_runtime_free(runtime);
}

static void test_stop_sends_what_is_queued(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server = serve(runtime, flood_factory);
    assert_int_equal(tram_runtime_start(runtime), 0);
    int fd = connect_to(server);
    wait_for_count(&made_count, 1);
    tram_runtime_stop(runtime);
    static char bytes[FLOOD];
    receive_exactly(NULL, fd, bytes, sizeof bytes);
    assert_true(reads_eof(fd));
    close(fd);
    assert_int_equal(tram_runtime_join(runtime), 0);
    tram_runtime_free(runtime);
}

/* A peer that never reads: the grace period ends it. */
static void check_grace(struct world *world, uint64_t grace_ns, bool stop_twice) {
    tram_runtime_options options = options_for(world, 1);
    options.grace_ns = grace_ns;
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server = serve(runtime, flood_factory);
    assert_int_equal(tram_runtime_start(runtime), 0);
    int fds[] = {connect_to(server), connect_to(server)};
    wait_for_count(&made_count, 2);
    tram_runtime_stop(runtime);
    if (stop_twice)
        tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 2);
    assert_int_equal(released_count, 2);
    tram_runtime_free(runtime);
    assert_non_null(strstr(world->log, "2 connections are aborted"));
    assert_int_equal(world->warnings, 1);
    close(fds[0]);
    close(fds[1]);
}

static void test_grace_period(void **state) {
    check_grace(*state, 30000000, false);
}

static void test_no_grace_period(void **state) {
    check_grace(*state, TRAM_NOW, false);
}

static void test_second_stop_ends_the_grace_period(void **state) {
    check_grace(*state, 3600000000000, true);
}

/* Is busy for ever. */
static int busy_made(tram_protocol *protocol, tram_transport *transport) {
    (void)protocol;
    int status = tram_transport_begin_work(transport);
    made_count++;
    return status;
}

static int busy_lost(tram_protocol *protocol, const tram_error *error) {
    (void)error;
    return tram_transport_end_work(protocol->transport);
}

static const tram_protocol_ops busy_ops = {
    .connection_made = busy_made, .connection_lost = busy_lost, .released = echo_released};

static int busy_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    int status = echo_factory(loop, arg, ret_protocol);
    (*ret_protocol)->ops = &busy_ops;
    return status;
}

static uint16_t local_port(int fd) {
    struct sockaddr_in inet = {0};
    socklen_t size = sizeof inet;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&inet, &size), 0);
    return ntohs(inet.sin_port);
}

/* Names are a part of the runtime that has no clients. */
static int register_a_name(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    static const tram_actor_ops ops;
    static tram_actor actor;
    (void)worker;
    (void)state;
    (void)arg;
    actor = (tram_actor){.ops = &ops};
    int status = tram_loop_start_actor(loop, &actor);
    return status ? status : tram_actor_register(&actor, runtime, "name");
}

#define SERVERS_MOST 12

/* What is logged at the end of the grace where each server has so many clients, whose ports are in *ret_ports. */
static void log_the_end(struct world *world, const unsigned *clients, size_t count, uint16_t *ret_ports) {
    tram_runtime_options options = options_for(world, 1);
    options.grace_ns = TRAM_NOW;
    options.start = register_a_name;
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *servers[SERVERS_MOST];
    int fds[32], fd_count = 0;
    for (size_t i = 0; i < count; i++)
        servers[i] = serve(runtime, busy_factory);
    assert_int_equal(tram_runtime_start(runtime), 0);
    for (size_t i = 0; i < count; i++)
        for (unsigned k = 0; k < clients[i]; k++) {
            ret_ports[fd_count] = local_port(fds[fd_count] = connect_to(servers[i]));
            fd_count++;
        }
    wait_for_count(&made_count, (unsigned)fd_count);
    world->log[0] = '\0';
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), fd_count);
    tram_runtime_free(runtime);
    while (fd_count)
        close(fds[--fd_count]);
}

static void test_the_end_of_the_grace_names_who_is_left(void **state) {
    struct world *world = *state;
    uint16_t ports[32];
    char expected[1024];
    const unsigned one_by_one[SERVERS_MOST] = {0, 1, 0, 1, 1, 0};
    log_the_end(world, one_by_one, 6, ports);
    snprintf(expected, sizeof expected,
             "worker 0: the grace period is over, 3 connections are aborted: 127.0.0.1:%u (open, 0 bytes unsent), "
             "127.0.0.1:%u (open, 0 bytes unsent), 127.0.0.1:%u (open, 0 bytes unsent)",
             ports[0], ports[1], ports[2]);
    assert_string_equal(world->log, expected);
    /* As many as find a place, each of them whole. */
    unsigned many[SERVERS_MOST], whole = 0;
    for (size_t i = 0; i < SERVERS_MOST; i++)
        many[i] = 1;
    log_the_end(world, many, SERVERS_MOST, ports);
    const char *start = "worker 0: the grace period is over, 12 connections are aborted: ", *at = world->log;
    assert_memory_equal(at, start, strlen(start));
    at += strlen(start);
    for (;;) {
        snprintf(expected, sizeof expected, "127.0.0.1:%u (open, 0 bytes unsent)", ports[whole++]);
        assert_memory_equal(at, expected, strlen(expected));
        at += strlen(expected);
        if (!*at)
            break;
        assert_memory_equal(at, ", ", 2);
        at += 2;
    }
    size_t used = strlen(world->log) - strlen(start);
    assert_in_range(used, 512 - 100, 511);
}

static tram_runtime *signalled_runtime;

static void stop_in_handler(int number) {
    (void)number;
    tram_runtime_stop(signalled_runtime);
}

static void test_stop_from_a_signal_handler(void **state) {
    struct sigaction action = {.sa_handler = stop_in_handler}, before;
    assert_int_equal(sigaction(SIGUSR2, &action, &before), 0);
    for (int i = 0; i < 20; i++) {
        tram_runtime_options options = options_for(*state, 2);
        tram_runtime *runtime = signalled_runtime = runtime_new(&options);
        assert_int_equal(tram_runtime_start(runtime), 0);
        assert_int_equal(raise(SIGUSR2), 0);
        assert_int_equal(tram_runtime_join(runtime), 0);
        tram_runtime_free(runtime);
    }
    assert_int_equal(sigaction(SIGUSR2, &before, NULL), 0);
}

/* rules: L-23, L-26 */
static void test_L_23_signals_stop_the_runtime(void **state) {
    const int numbers[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < 2; i++) {
        tram_runtime_options options = options_for(*state, 2);
        options.handle_signals = true;
        tram_runtime *runtime = runtime_new(&options);
        assert_int_equal(tram_runtime_start(runtime), 0);
        assert_int_equal(kill(getpid(), numbers[i]), 0);
        assert_int_equal(tram_runtime_join(runtime), 0);
        tram_runtime_free(runtime);
        struct sigaction action;
        assert_int_equal(sigaction(numbers[i], NULL, &action), 0);
        assert_ptr_equal(action.sa_handler, SIG_DFL);
    }
}

/* The worker that has the signals stays until the others have left: their grace is ended by a second signal. */
static void test_L_23_a_second_signal_ends_the_grace_of_another_worker(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    options.handle_signals = true;
    options.grace_ns = 3600000000000;
    tram_runtime *runtime = runtime_new(&options);
    tram_server_options elsewhere = {.shard = TRAM_SHARD_FIXED, .shard_worker = 1};
    tram_runtime_server *server;
    assert_int_equal(
        tram_runtime_create_server(runtime, flood_factory, NULL, "127.0.0.1", "0", &elsewhere, &server, NULL), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    int fd = connect_to(server);
    wait_for_count(&made_count, 1);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    for (int i = 0; i < 120; i++) { /* more than 100 ms: then it is another one */
        struct sigaction action;
        const struct timespec pause = {.tv_nsec = 1000000};
        assert_int_equal(sigaction(SIGTERM, NULL, &action), 0);
        assert_ptr_not_equal(action.sa_handler, SIG_DFL);
        nanosleep(&pause, NULL);
    }
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    assert_int_equal(tram_runtime_join(runtime), 1);
    tram_runtime_free(runtime);
    close(fd);
}

/* The worker's own connections end as well, and one that is being made is given up. */
static int connect_away(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)worker;
    (void)state;
    return tram_loop_create_connection(loop, echo_factory, NULL, "127.0.0.1", arg, NULL, NULL);
}

static void test_stop_ends_clients_too(void **state) {
    uint16_t port;
    int listener = tcp_listener(5, &port);
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    tram_runtime_options options = options_for(*state, 2);
    options.start = connect_away;
    options.arg = text;
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_start(runtime), 0);
    wait_for_count(&made_count, 2);
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(released_count, 2);
    tram_runtime_free(runtime);
    /* At once after the start: connected or not, it ends. */
    runtime = runtime_new(&options);
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_run(runtime), 0);
    tram_runtime_free(runtime);
    close(listener);
}

static const tram_protocol_ops replaced_ops = {
    .connection_made = echo_made, .connection_lost = lost_makes_a_pair, .released = echo_released};

static int replaced_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    int status = echo_factory(loop, arg, ret_protocol);
    (*ret_protocol)->ops = &replaced_ops;
    return status;
}

static int connect_replaced(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime, (void)worker, (void)state;
    return tram_loop_create_connection(loop, replaced_factory, NULL, "127.0.0.1", arg, NULL, NULL);
}

/* A client's end makes two more: theirs is asked for at once, and nobody waits for the grace to be over. */
static void test_stop_ends_what_clients_make_in_connection_lost(void **state) {
    uint16_t port;
    int listener = tcp_listener(5, &port);
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    tram_runtime_options options = options_for(*state, 1);
    options.grace_ns = HOUR_NS;
    options.start = connect_replaced;
    options.arg = text;
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_start(runtime), 0);
    wait_for_count(&made_count, 1);
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(made_count, 3);
    assert_int_equal(released_count, 1);
    tram_runtime_free(runtime);
    close(listener);
}

/* ---- Other guests and hosts ---- */

static void test_forked_child_only_forgets(void **state) {
    tram_runtime_options options = options_for(*state, 2);
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server = serve(runtime, echo_factory);
    assert_int_equal(tram_runtime_start(runtime), 0);
    int answer[2];
    assert_int_equal(pipe(answer), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char good = tram_runtime_stop(runtime) == -ECHILD && tram_runtime_join(runtime) == -ECHILD &&
                    tram_runtime_start(runtime) == -ECHILD && tram_runtime_server_close(server) == -ECHILD;
        tram_runtime_free(runtime);
        good = write(answer[1], &good, 1) == 1 && good;
        raise(SIGKILL); /* no tool shall count what the child forgot */
    }
    char good = 0;
    close(answer[1]);
    assert_int_equal(read(answer[0], &good, 1), 1);
    assert_int_equal(good, 1);
    close(answer[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    int fd = connect_to(server); /* the parent's goes on */
    assert_echoes(fd);
    close(fd);
    tram_runtime_free(runtime);
}

static int fail_on_report(tram_loop *loop, const tram_exception *exception, void *arg) {
    (void)loop;
    (void)exception;
    *(_Atomic unsigned *)arg += 1;
    return 0;
}

static _Atomic unsigned reports;

static int watch_reports(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)worker;
    (void)state;
    return tram_loop_set_exception_handler(loop, fail_on_report, arg);
}

/* Nothing that the library does itself happens on a wrong thread. */
static void test_debug_mode_has_nothing_to_report(void **state) {
    reports = 0;
    tram_runtime_options options = options_for(*state, 2);
    options.loop.debug = true;
    options.start = watch_reports;
    options.arg = &reports;
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *before = serve(runtime, echo_factory);
    assert_int_equal(tram_runtime_start(runtime), 0);
    check_spread(runtime, before);
    tram_runtime_server *after = serve(runtime, echo_factory);
    check_spread(runtime, after);
    assert_int_equal(tram_runtime_server_close(after), 0);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    tram_runtime_free(runtime);
    assert_int_equal(reports, 0);
}

static void test_X_1_out_of_memory_before_the_start(void **state) {
    struct world *world = *state;
    for (size_t n = 0; n < 200; n++) {
        tram_runtime_options options = options_for(world, 2);
        tram_runtime *runtime;
        world->fail_after = n;
        int status = tram_runtime_new(&options, &runtime);
        if (status) {
            assert_int_equal(status, -ENOMEM);
            continue;
        }
        tram_runtime_server *server = NULL;
        status = tram_runtime_create_server(runtime, echo_factory, NULL, NULL, "0", NULL, &server, NULL);
        world->fail_after = SIZE_MAX;
        tram_runtime_free(runtime);
        if (!status)
            return;
        assert_int_equal(status, -ENOMEM);
    }
    fail_msg("never had enough memory");
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(runs_and_stops),
        TEST(free_in_every_state),
        TEST(stop_before_start),
        TEST(a_drain_ends_it_as_well),
        TEST(bad_options),
        TEST(default_workers_are_the_cpus),
        TEST(threads_of_the_workers),
        TEST(L_32_L_45_workers_share_one_pool),
        TEST(L_34_the_end_of_a_runtime_waits_for_no_job),
        TEST(failing_start_function),
        TEST(posts_and_a_worker_that_ends_by_itself),
        TEST(server_on_all_workers),
        TEST(V_2_same_port_of_all_workers),
        TEST(closed_before_the_start),
        TEST(V_5_occupied_port_is_an_error_with_the_address),
        TEST(V_3_shared_with_other_runtimes_on_request),
        TEST(server_bad_input),
        TEST(stop_closes_what_is_idle),
        TEST(join_counts_what_was_made_in_connection_lost),
        TEST(V_17_stop_serves_who_got_through),
        TEST(stop_sends_what_is_queued),
        TEST(grace_period),
        TEST(no_grace_period),
        TEST(second_stop_ends_the_grace_period),
        TEST(the_end_of_the_grace_names_who_is_left),
        TEST(stop_from_a_signal_handler),
        TEST(L_23_signals_stop_the_runtime),
        TEST(L_23_a_second_signal_ends_the_grace_of_another_worker),
        TEST(stop_ends_clients_too),
        TEST(stop_ends_what_clients_make_in_connection_lost),
        TEST(forked_child_only_forgets),
        TEST(debug_mode_has_nothing_to_report),
        TEST(X_1_out_of_memory_before_the_start),
    };
    return cmocka_run_group_tests_name("runtime", tests, NULL, NULL);
}
