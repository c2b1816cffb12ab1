/* What the system refuses of what the servers and endpoints of a runtime ask for: told, and nothing is left behind. */
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/support.h"
#include <tram/fault.h>

static struct addrinfo alien = {.ai_family = AF_UNIX, .ai_socktype = SOCK_STREAM};
static unsigned answers;          /* of the system that were not given back */
static tram_runtime *to_be_ended; /* within the next look at known.test */

/* alien.test: what is no address of the internet; known.test: 127.0.0.1. */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret_result) {
    int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
    bool known = host && strcmp(host, "known.test") == 0;
    if (host && strcmp(host, "alien.test") == 0) {
        *ret_result = &alien;
        return 0;
    }
    answers += known;
    if (known && to_be_ended)
        assert_int_equal(tram_runtime_stop(to_be_ended), 0);
    to_be_ended = NULL;
    return next(known ? "127.0.0.1" : host, port, hints, ret_result);
}

void freeaddrinfo(struct addrinfo *list) {
    void (*next)(struct addrinfo *);
    *(void **)&next = dlsym(RTLD_NEXT, "freeaddrinfo");
    if (list == &alien)
        return;
    answers -= answers > 0;
    next(list);
}

static int no_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop, (void)arg, (void)ret_protocol;
    return -EIO;
}

struct site {
    tram_runtime *runtime;
    char path[64];
    tram_error error;
};

static int ask_server(struct site *site, const char *host, const tram_server_options *options) {
    return tram_runtime_create_server(site->runtime, no_protocol, NULL, host, "0", options, NULL, &site->error);
}

#define ASK(name) static int name(struct site *site)

ASK(ask_shared) {
    return ask_server(site, "127.0.0.1", &(tram_server_options){.shard = TRAM_SHARD_SHARED});
}

ASK(ask_reuseport) {
    return ask_server(site, "127.0.0.1", &(tram_server_options){.shard = TRAM_SHARD_REUSEPORT});
}

ASK(ask_unix) {
    return tram_runtime_create_unix_server(site->runtime, no_protocol, NULL, site->path, strlen(site->path), NULL, NULL,
                                           &site->error);
}

ASK(ask_alien) {
    return ask_server(site, "alien.test", NULL);
}

ASK(ask_known) {
    return ask_server(site, "known.test", NULL);
}

static int ask_datagrams_at(struct site *site, const char *host) {
    const tram_datagram_options options = {.local_host = host, .local_port = "0"};
    return tram_runtime_create_datagram_endpoint(site->runtime, no_protocol, NULL, &options, NULL, &site->error);
}

ASK(ask_datagrams) {
    return ask_datagrams_at(site, "127.0.0.1");
}

ASK(ask_alien_datagrams) {
    return ask_datagrams_at(site, "alien.test");
}

ASK(ask_known_datagrams) {
    return ask_datagrams_at(site, "known.test");
}

ASK(ask_given) {
    uint16_t port;
    int fd = tcp_listener(5, &port);
    int status = tram_runtime_create_server(
        site->runtime, no_protocol, NULL, NULL, NULL,
        &(tram_server_options){.shard = TRAM_SHARD_SHARED, .sockets = &fd, .socket_count = 1}, NULL, &site->error);
    if (status)
        assert_int_equal(close(fd), 0); /* it stays ours */
    return status;
}

static const struct {
    tram_fault_kind kind;
    uint64_t nth; /* 0: none fails */
    int (*ask)(struct site *site);
    int answer;
    const char *operation; /* NULL: 0 is the answer */
} cases[] = {
    {TRAM_FAULT_FCNTL, 1, ask_shared, -ENOBUFS, "dup"},
    {TRAM_FAULT_LISTEN, 1, ask_shared, -ENOBUFS, "listen"},
    {TRAM_FAULT_LISTEN, 2, ask_reuseport, -ENOBUFS, "listen"},
    {TRAM_FAULT_SOCKET, 2, ask_reuseport, -ENOBUFS, "socket"},
    {TRAM_FAULT_GETSOCKNAME, 1, ask_shared, -ENOBUFS, "create_server"},
    {TRAM_FAULT_FCNTL, 1, ask_unix, -ENOBUFS, "dup"},
    {TRAM_FAULT_LISTEN, 1, ask_unix, -ENOBUFS, "listen"},
    {TRAM_FAULT_BIND, 1, ask_unix, -ENOBUFS, "bind"},
    {TRAM_FAULT_GETSOCKNAME, 1, ask_datagrams, -ENOBUFS, "create_datagram_endpoint"},
    {TRAM_FAULT_SETSOCKOPT, 1, ask_datagrams, TRAM_EVALUE, "setsockopt"},
    {TRAM_FAULT_SOCKET, 2, ask_datagrams, -ENOBUFS, "socket"},
    {TRAM_FAULT_BIND, 2, ask_datagrams, -ENOBUFS, "bind"},
    {TRAM_FAULT_GETSOCKOPT, 1, ask_given, -ENOBUFS, "create_server"},
    {TRAM_FAULT_FCNTL, 1, ask_given, -ENOBUFS, "create_server"}, /* its flags, … */
    {TRAM_FAULT_FCNTL, 2, ask_given, -ENOBUFS, "create_server"}, /* … which are changed, */
    {TRAM_FAULT_FCNTL, 3, ask_given, -ENOBUFS, "create_server"}, /* … and a copy for a worker, */
    {TRAM_FAULT_FCNTL, 4, ask_given, -ENOBUFS, "create_server"}, /* … and for another */
    {TRAM_FAULT_GETSOCKNAME, 1, ask_given, -ENOBUFS, "create_server"},
    {TRAM_FAULT_SOCKET, 0, ask_alien, TRAM_ERESOLVE, "create_server"},
    {TRAM_FAULT_SOCKET, 0, ask_alien_datagrams, TRAM_ERESOLVE, "create_datagram_endpoint"},
    {TRAM_FAULT_SOCKET, 0, ask_known, 0, NULL},
    {TRAM_FAULT_SOCKET, 0, ask_unix, 0, NULL},
};

static struct site site_new(struct world *world, tram_faults *faults) {
    tram_runtime_options options = {.workers = 2, .loop = world->options};
    struct site site = {.error = {.code = 1}};
    options.loop.allocator = NULL;
    options.loop.faults = faults;
    snprintf(site.path, sizeof site.path, "/tmp/tram-refusals-%d.sock", (int)getpid());
    assert_int_equal(tram_runtime_new(&options, &site.runtime), 0);
    return site;
}

static void test_X_1_what_the_system_refuses_is_told(void **state) {
    struct world *world = *state;
    tram_faults *faults;
    calls_uninterrupted();
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int descriptors = open_descriptors();
        struct site site = site_new(world, faults);
        int empty = open_descriptors();
        struct stat found;
        tram_faults_reset(faults);
        if (cases[i].nth)
            assert_int_equal(tram_faults_fail(faults, cases[i].kind, cases[i].nth, 1, ENOBUFS), 0);
        int status = cases[i].ask(&site);
        if (status != cases[i].answer || tram_faults_injected(faults) != (cases[i].nth > 0))
            fail_msg("case %zu: %s, %d refused", i, tram_error_name(status), (int)tram_faults_injected(faults));
        if (cases[i].operation) {
            assert_int_equal(site.error.code, cases[i].answer);
            if (strcmp(site.error.operation, cases[i].operation) != 0)
                fail_msg("case %zu: %s", i, site.error.operation);
            assert_int_equal(open_descriptors(), empty);
            assert_int_equal(stat(site.path, &found), -1);
        }
        assert_int_equal(answers, 0);
        tram_runtime_free(site.runtime);
        assert_int_equal(open_descriptors(), descriptors);
    }
    tram_faults_free(faults);
}

/* Any allocation. */
static void test_X_1_no_memory_at_any_place(void **state) {
    static int (*const asks[])(struct site * site) = {ask_shared, ask_reuseport, ask_unix, ask_datagrams, ask_known};
    struct world *world = *state;
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        int status = -ENOMEM;
        for (uint64_t n = 1; status; n++) {
            struct site site = site_new(world, faults);
            struct stat found;
            tram_faults_reset(faults);
            assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_ALLOCATE, n, TRAM_FAULT_ALWAYS, ENOMEM), 0);
            status = asks[i](&site);
            assert_true(n < 100 && (status == 0 || status == -ENOMEM));
            assert_int_equal(status ? site.error.code : status, status);
            tram_faults_reset(faults);
            assert_int_equal(stat(site.path, &found), asks[i] == ask_unix && !status ? 0 : -1);
            tram_runtime_free(site.runtime);
        }
    }
    tram_faults_free(faults);
}

static void test_X_1_a_runtime_that_ended_takes_no_more(void **state) {
    static int (*const asks[])(struct site * site) = {ask_shared, ask_reuseport, ask_unix, ask_datagrams};
    struct world *world = *state;
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    struct site site = site_new(world, faults);
    assert_int_equal(tram_runtime_start(site.runtime), 0);
    assert_int_equal(tram_runtime_stop(site.runtime), 0);
    assert_int_equal(tram_runtime_join(site.runtime), 0);
    int descriptors = open_descriptors();
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        struct stat found;
        site.error = (tram_error){0};
        assert_int_equal(asks[i](&site), TRAM_ESTATE);
        assert_int_equal(site.error.code, TRAM_ESTATE);
        assert_non_null(site.error.operation);
        assert_int_equal(open_descriptors(), descriptors);
        assert_int_equal(stat(site.path, &found), -1);
    }
    tram_runtime_free(site.runtime);
    tram_faults_free(faults);
}

/* Not even where the end comes amid the making. */
static void test_X_1_a_runtime_that_ends_meanwhile_takes_no_more(void **state) {
    static int (*const asks[])(struct site * site) = {ask_known, ask_known_datagrams};
    struct world *world = *state;
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        struct site site = site_new(world, faults);
        int descriptors = open_descriptors();
        to_be_ended = site.runtime;
        assert_int_equal(asks[i](&site), TRAM_ESTATE);
        assert_null(to_be_ended);
        assert_int_equal(site.error.code, TRAM_ESTATE);
        assert_string_equal(site.error.operation, i ? "create_datagram_endpoint" : "create_server");
        assert_int_equal(open_descriptors(), descriptors);
        tram_runtime_free(site.runtime);
    }
    tram_faults_free(faults);
}

/* ---- Servers that are there ---- */

static void nobody(const tram_client *client, void *arg) {
    (void)client, (void)arg;
}

static int call_drain(tram_runtime_server *server) {
    return tram_runtime_server_drain(server, TRAM_NOW);
}

static int call_each(tram_runtime_server *server) {
    return tram_runtime_server_each_client(server, nobody, NULL);
}

/* Any call that the workers are to hear of: one that cannot tell them says so, and can be made again. */
static void test_X_1_no_memory_to_tell_the_workers(void **state) {
    static int (*const calls[])(tram_runtime_server *
                                server) = {tram_runtime_server_close,         tram_runtime_server_close_clients,
                                           tram_runtime_server_abort_clients, call_drain,
                                           tram_runtime_server_release,       call_each};
    struct world *world = *state;
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        struct site site = site_new(world, faults);
        tram_runtime_server *server;
        assert_int_equal(
            tram_runtime_create_server(site.runtime, no_protocol, NULL, "127.0.0.1", "0", NULL, &server, NULL), 0);
        if (calls[i] == call_each)
            assert_int_equal(tram_runtime_start(site.runtime), 0);
        tram_faults_reset(faults);
        assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_ALLOCATE, 1, TRAM_FAULT_ALWAYS, ENOMEM), 0);
        int status = calls[i](server);
        if (status != -ENOMEM)
            fail_msg("call %zu: %s", i, tram_error_name(status));
        tram_faults_reset(faults);
        assert_int_equal(calls[i](server), 0);
        tram_runtime_free(site.runtime);
    }
    tram_faults_free(faults);
}

/* Closed before the workers begin: there is nothing to drain, but all are asked. */
static void test_V_41_a_server_that_never_began_is_drained(void **state) {
    struct world *world = *state;
    struct site site = site_new(world, NULL);
    tram_runtime_server *server;
    assert_int_equal(tram_runtime_create_server(site.runtime, no_protocol, NULL, "127.0.0.1", "0", NULL, &server, NULL),
                     0);
    assert_int_equal(tram_runtime_server_close(server), 0);
    assert_int_equal(tram_runtime_start(site.runtime), 0);
    assert_int_equal(tram_runtime_server_drain(server, TRAM_FOREVER), 0);
    assert_int_equal(tram_runtime_server_close_clients(server), 0);
    assert_int_equal(tram_runtime_server_abort_clients(server), 0);
    assert_int_equal(tram_runtime_server_release(server), 0);
    tram_runtime_free(site.runtime);
}

/* ---- Who waits for workers that end ---- */

struct gate {
    tram_runtime *runtime;
    pid_t waiting; /* a thread */
    int in[2], out[2];
};

static int wait_at_gate(tram_loop *loop, void *arg) {
    const struct gate *gate = arg;
    char byte;
    (void)loop;
    assert_int_equal(write(gate->in[1], "", 1), 1);
    assert_int_equal(read(gate->out[0], &byte, 1), 1);
    return 0;
}

static int nothing(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    return 0;
}

static bool sleeps(pid_t thread) {
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[2] == 'S';
}

/* Once the one who waits does so, all ends. */
static void *stop_and_open(void *arg) {
    const struct gate *gate = arg;
    while (!sleeps(gate->waiting))
        sched_yield();
    assert_int_equal(tram_runtime_stop(gate->runtime), 0);
    assert_int_equal(write(gate->out[1], "", 1), 1);
    return NULL;
}

/* The worker hears of the end first, or discards what it was asked: `posted` calls come before that. */
static void test_V_51_who_waits_for_a_worker_that_ends_goes_on(void **state) {
    static const struct {
        bool create; /* or look at each client */
        unsigned posted;
        int answer;
    } waits[] = {{false, 600, 0}, {true, 0, TRAM_ESTATE}, {true, 600, TRAM_ESTATE}};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        int before = open_descriptors();
        struct site site = site_new(world, NULL);
        struct gate gate = {.runtime = site.runtime, .waiting = gettid()};
        tram_loop *loop = tram_runtime_loop(site.runtime, 0);
        tram_runtime_server *server;
        pthread_t thread;
        char byte;
        assert_int_equal(
            tram_runtime_create_server(site.runtime, no_protocol, NULL, "127.0.0.1", "0", NULL, &server, NULL), 0);
        assert_int_equal(tram_runtime_start(site.runtime), 0);
        assert_int_equal(pipe2(gate.in, O_CLOEXEC), 0);
        assert_int_equal(pipe2(gate.out, O_CLOEXEC), 0);
        assert_int_equal(tram_loop_call_soon_threadsafe(loop, wait_at_gate, &gate, NULL), 0);
        assert_int_equal(read(gate.in[0], &byte, 1), 1);
        for (unsigned posted = 0; posted < waits[i].posted; posted++)
            assert_int_equal(tram_loop_call_soon_threadsafe(loop, nothing, NULL, NULL), 0);
        assert_int_equal(pthread_create(&thread, NULL, stop_and_open, &gate), 0);
        int status = waits[i].create ? ask_shared(&site) : call_each(server);
        pthread_join(thread, NULL);
        if (status != waits[i].answer)
            fail_msg("case %zu: %s", i, tram_error_name(status));
        if (status) {
            assert_int_equal(site.error.code, status);
            assert_string_equal(site.error.operation, "create_server");
        }
        tram_runtime_free(site.runtime);
        close(gate.in[0]), close(gate.in[1]);
        close(gate.out[0]), close(gate.out[1]);
        assert_int_equal(open_descriptors(), before);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_X_1_what_the_system_refuses_is_told),
        TEST(test_X_1_no_memory_at_any_place),
        TEST(test_X_1_no_memory_to_tell_the_workers),
        TEST(test_V_41_a_server_that_never_began_is_drained),
        TEST(test_V_51_who_waits_for_a_worker_that_ends_goes_on),
        TEST(test_X_1_a_runtime_that_ended_takes_no_more),
        TEST(test_X_1_a_runtime_that_ends_meanwhile_takes_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
