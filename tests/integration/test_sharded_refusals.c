/* What the system refuses of what the servers and endpoints of a runtime ask for: told, and nothing is left behind. */
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_X_1_what_the_system_refuses_is_told),
        TEST(test_X_1_no_memory_at_any_place),
        TEST(test_X_1_a_runtime_that_ended_takes_no_more),
        TEST(test_X_1_a_runtime_that_ends_meanwhile_takes_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
