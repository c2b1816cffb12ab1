/* Limits of a runtime's server: over all its workers, in every way in which connections get to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/support.h"

#define WORKERS 4

/* ---- A server that says which worker serves, and knows how many it has ---- */

struct house {
    tram_runtime *runtime;
    tram_runtime_server *server;
    uint16_t port;
    _Atomic unsigned made;
    _Atomic unsigned inside;
    _Atomic unsigned most; /* inside at the same time */
    _Atomic unsigned inside_of[WORKERS];
    _Atomic unsigned most_of[WORKERS];
    _Atomic unsigned timed_out;
    _Atomic unsigned released;
};

struct visitor {
    tram_protocol base;
    struct house *house;
    unsigned worker;
};

static void count_in(_Atomic unsigned *inside, _Atomic unsigned *most) {
    unsigned now = ++*inside, seen = *most;
    while (now > seen && !atomic_compare_exchange_weak(most, &seen, now))
        ;
}

static int visitor_made(tram_protocol *protocol, tram_transport *transport) {
    struct visitor *visitor = (struct visitor *)protocol;
    struct house *house = visitor->house;
    for (unsigned i = 0; i < WORKERS; i++)
        if (tram_runtime_loop(house->runtime, i) == tram_loop_running())
            visitor->worker = i;
    count_in(&house->inside, &house->most);
    count_in(&house->inside_of[visitor->worker], &house->most_of[visitor->worker]);
    house->made++;
    char name = (char)('0' + visitor->worker);
    return tram_transport_write(transport, &name, 1);
}

static int visitor_lost(tram_protocol *protocol, const tram_error *error) {
    struct visitor *visitor = (struct visitor *)protocol;
    visitor->house->inside--;
    visitor->house->inside_of[visitor->worker]--;
    if (error && error->code == -ETIMEDOUT && strcmp(error->operation, "idle") == 0)
        visitor->house->timed_out++;
    return 0;
}

static void visitor_released(tram_protocol *protocol) {
    ((struct visitor *)protocol)->house->released++;
    free(protocol);
}

static const tram_protocol_ops visitor_ops = {
    .connection_made = visitor_made,
    .connection_lost = visitor_lost,
    .released = visitor_released,
};

static int visitor_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    struct visitor *visitor = calloc(1, sizeof *visitor);
    *visitor = (struct visitor){.base.ops = &visitor_ops, .house = arg};
    *ret_protocol = &visitor->base;
    return 0;
}

static const struct {
    tram_shard shard;
    bool keep;
} every_way[] = {
    {TRAM_SHARD_REUSEPORT, false}, {TRAM_SHARD_REUSEPORT, true}, {TRAM_SHARD_HANDOFF, false},
    {TRAM_SHARD_SHARED, false},    {TRAM_SHARD_SHARED, true},    {TRAM_SHARD_FIXED, false},
};
#define WAYS (sizeof every_way / sizeof *every_way)

static struct house *open_house(struct world *world, size_t way, const tram_server_limits *limits) {
    struct house *house = calloc(1, sizeof *house);
    tram_runtime_options options = {.workers = WORKERS, .loop = world->options};
    options.loop.log = NULL; /* the world's is for one thread */
    assert_int_equal(tram_runtime_new(&options, &house->runtime), 0);
    const tram_server_options server_options = {
        .shard = every_way[way].shard, .keep_where_accepted = every_way[way].keep, .limits = limits};
    assert_int_equal(tram_runtime_create_server(house->runtime, visitor_factory, house, "127.0.0.1", "0",
                                                &server_options, &house->server, NULL),
                     0);
    tram_socket_address address;
    struct sockaddr_in inet;
    assert_int_equal(tram_runtime_server_sockname(house->server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    house->port = ntohs(inet.sin_port);
    assert_int_equal(tram_runtime_start(house->runtime), 0);
    return house;
}

static tram_limit_counts counts_of(const struct house *house) {
    tram_limit_counts total = {0};
    for (unsigned i = 0; i < WORKERS; i++) {
        tram_limit_counts counts;
        tram_stats stats;
        assert_int_equal(tram_runtime_server_limit_counts(house->server, i, &counts), 0);
        assert_int_equal(tram_runtime_stats(house->runtime, i, &stats), 0);
        total.refused_connections += counts.refused_connections;
        total.refused_worker += counts.refused_worker;
        total.refused_source += counts.refused_source;
        total.expired_idle += counts.expired_idle;
    }
    return total;
}

static void close_house(struct house *house) {
    tram_limit_counts ignored;
    assert_int_equal(tram_runtime_server_limit_counts(house->server, WORKERS, &ignored), TRAM_EVALUE);
    tram_runtime_free(house->runtime);
    assert_int_equal(house->made, house->released);
    assert_int_equal(house->inside, 0);
    free(house);
}

static void await_count(const _Atomic unsigned *count, unsigned wanted) {
    for (int i = 0; *count != wanted; i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
    }
}

static void await_empty(const struct house *house) {
    for (unsigned i = 0; i < WORKERS; i++)
        for (int j = 0; tram_runtime_server_connection_count(house->server, i); j++) {
            assert_true(j < 20000);
            poll(NULL, 0, 1);
        }
}

enum fate { REFUSED, ENTERED, ODD };

/* Of a client, which is connected as `ret_fd` if it got in. It may be reset before its connect() has returned. */
static enum fate visit(const struct house *house, int *ret_fd) {
    char worker;
    int fd = tcp_connect(house->port);
    ssize_t received = fd >= 0 ? recv(fd, &worker, 1, 0) : -1;
    *ret_fd = fd;
    if (received == 1)
        return ENTERED;
    bool reset = received < 0 && errno == ECONNRESET;
    if (fd >= 0)
        close(fd);
    return reset ? REFUSED : ODD;
}

/* One after another; how many got in. UINT_MAX: something else happened to one. */
static unsigned fill_house(const struct house *house, int *fds, unsigned clients) {
    unsigned entered = 0;
    for (unsigned i = 0; i < clients; i++) {
        enum fate fate = visit(house, &fds[entered]);
        if (fate == ODD)
            return UINT_MAX;
        entered += fate == ENTERED;
    }
    return entered;
}

static void leave_all(const int *fds, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

/* ---- How many ---- */

static void test_V_31_V_32_over_all_workers(void **state) {
    const tram_server_limits limits = {.max_connections = 10};
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, i, &limits);
        int fds[30];
        for (unsigned round = 1; round <= 3; round++) {
            assert_int_equal(fill_house(house, fds, 30), 10);
            assert_int_equal(house->most, 10);
            assert_int_equal(counts_of(house).refused_connections, 20 * round);
            leave_all(fds, 10);
            await_empty(house);
        }
        close_house(house);
    }
}

static void test_V_31_V_32_of_each_worker(void **state) {
    const tram_server_limits limits = {.max_per_worker = 5};
    const unsigned expected[WAYS] = {20, 0, 20, 20, 0, 5}; /* 0: as chance has it */
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, i, &limits);
        int fds[100];
        unsigned entered = fill_house(house, fds, 100);
        if (expected[i])
            assert_int_equal(entered, expected[i]); /* a full one gave to those with room */
        assert_in_range(entered, 5, 20);
        for (unsigned j = 0; j < WORKERS; j++)
            assert_true(house->most_of[j] <= 5);
        assert_int_equal(counts_of(house).refused_worker, 100 - entered);
        leave_all(fds, entered);
        close_house(house);
    }
}

static void test_V_32_V_33_of_each_source_over_all_workers(void **state) {
    const tram_server_limits limits = {.max_per_source = 7};
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, i, &limits);
        int fds[30];
        for (unsigned round = 1; round <= 3; round++) {
            assert_int_equal(fill_house(house, fds, 30), 7);
            assert_int_equal(counts_of(house).refused_source, 23 * round);
            leave_all(fds, 7);
            await_empty(house);
        }
        close_house(house);
    }
}

/* ---- Many at once ---- */

struct crowd {
    const struct house *house;
    _Atomic unsigned entered;
    _Atomic unsigned refused;
    _Atomic bool odd;
};

static void *come_and_go(void *arg) {
    struct crowd *crowd = arg;
    for (int i = 0; i < 60; i++) {
        int fds[4];
        unsigned entered = fill_house(crowd->house, fds, 4);
        if (entered == UINT_MAX) {
            crowd->odd = true;
            return NULL;
        }
        crowd->entered += entered;
        crowd->refused += 4 - entered;
        leave_all(fds, entered);
    }
    return NULL;
}

static void test_V_32_never_more_however_many_come_at_once(void **state) {
    const tram_server_limits limits = {.max_connections = 6, .max_per_worker = 3, .max_per_source = 6};
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, i, &limits);
        struct crowd crowd = {.house = house};
        pthread_t threads[4];
        for (size_t j = 0; j < 4; j++)
            assert_int_equal(pthread_create(&threads[j], NULL, come_and_go, &crowd), 0);
        for (size_t j = 0; j < 4; j++)
            pthread_join(threads[j], NULL);
        assert_false(crowd.odd);
        assert_int_equal(crowd.entered + crowd.refused, 4 * 4 * 60);
        assert_int_equal(house->made, crowd.entered);
        assert_true(house->most <= 6);
        for (unsigned j = 0; j < WORKERS; j++)
            assert_true(house->most_of[j] <= 3);
        tram_limit_counts counts = counts_of(house);
        assert_int_equal(counts.refused_connections + counts.refused_worker + counts.refused_source, crowd.refused);
        await_empty(house);
        int fds[6]; /* and no place was lost */
        if (every_way[i].shard == TRAM_SHARD_HANDOFF)
            assert_int_equal(fill_house(house, fds, 6), 6);
        else
            assert_int_equal(visit(house, fds), ENTERED);
        leave_all(fds, every_way[i].shard == TRAM_SHARD_HANDOFF ? 6 : 1);
        close_house(house);
    }
}

/* Whoever waits when the runtime stops is served as far as the limits go, and counted. */
static void test_V_31_V_17_V_27_while_it_stops(void **state) {
    const tram_server_limits limits = {.max_connections = 5, .max_per_source = 8, .total_timeout_ns = UINT64_MAX};
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, i, &limits);
        int fds[20];
        unsigned answered = 0;
        for (size_t j = 0; j < 20; j++)
            fds[j] = tcp_connect(house->port); /* or it is reset already */
        assert_int_equal(tram_runtime_stop(house->runtime), 0);
        for (size_t j = 0; j < 20; j++) {
            char worker;
            answered += fds[j] >= 0 && recv(fds[j], &worker, 1, 0) == 1;
            if (fds[j] >= 0)
                close(fds[j]);
        }
        assert_int_equal(tram_runtime_join(house->runtime), 0);
        tram_limit_counts counts = counts_of(house);
        assert_int_equal(house->made, answered);
        /* The kernel resets who was in the middle of a handshake (V-30). */
        assert_true(counts.refused_connections + counts.refused_source <= 20 - answered);
        assert_in_range(house->most, 1, 5);
        close_house(house);
    }
}

/* ---- How long ---- */

static void test_V_35_idle_on_every_worker(void **state) {
    const tram_server_limits limits = {.idle_timeout_ns = 20000000};
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, i, &limits);
        int fds[16];
        for (size_t j = 0; j < 16; j++)
            assert_int_equal(visit(house, &fds[j]), ENTERED);
        await_count(&house->timed_out, 16);
        await_empty(house);
        assert_int_equal(counts_of(house).expired_idle, 16);
        for (size_t j = 0; j < 16; j++)
            assert_true(receive_eof(NULL, fds[j]));
        leave_all(fds, 16);
        tram_runtime_stop(house->runtime);
        tram_runtime_join(house->runtime);
        assert_int_equal(counts_of(house).expired_idle, 16); /* to be read at the end, too */
        close_house(house);
    }
}

/* ---- What may be asked ---- */

static void test_V_39_bad_values(void **state) {
    struct world *world = *state;
    tram_runtime_options runtime_options = {.workers = 2, .loop = world->options};
    runtime_options.loop.log = NULL;
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&runtime_options, &runtime), 0);
    const tram_server_limits bad = {.source_bits_ipv6 = 65}, of_sources = {.max_per_source = 1};
    const tram_server_options options = {.limits = &bad};
    const tram_unix_server_options unix_options = {.limits = &of_sources};
    assert_int_equal(tram_runtime_create_server(runtime, visitor_factory, NULL, "127.0.0.1", "0", &options, NULL, NULL),
                     TRAM_EVALUE);
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, visitor_factory, NULL, "\0x", 2, &unix_options, NULL, NULL),
        TRAM_EVALUE);
    tram_runtime_free(runtime);
}

/* By whatever call it comes. */
static void test_V_33_a_unix_socket_that_is_passed_has_no_sources_either(void **state) {
    struct world *world = *state;
    tram_runtime_options runtime_options = {.workers = 2, .loop = world->options};
    runtime_options.loop.log = NULL;
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&runtime_options, &runtime), 0);
    const struct sockaddr_un nameless = {.sun_family = AF_UNIX}; /* the kernel finds a name */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&nameless, sizeof nameless.sun_family), 0);
    tram_server_limits limits = {.max_per_source = 1};
    const tram_server_options of_runtime = {.sockets = &fd, .socket_count = 1, .limits = &limits};
    const tram_server_options of_loop = {.sock = &fd, .limits = &limits};
    tram_future *future;
    assert_int_equal(tram_runtime_create_server(runtime, visitor_factory, NULL, NULL, NULL, &of_runtime, NULL, NULL),
                     TRAM_EVALUE);
    assert_int_equal(tram_loop_create_server(world->loop, visitor_factory, NULL, NULL, NULL, &of_loop, &future),
                     TRAM_EVALUE);
    limits = (tram_server_limits){.max_connections = 1};
    assert_int_equal(tram_runtime_create_server(runtime, visitor_factory, NULL, NULL, NULL, &of_runtime, NULL, NULL),
                     0); /* and it has taken no harm */
    tram_runtime_free(runtime);
}

static void test_X_1_a_server_with_limits_is_made_or_not(void **state) {
    struct world *world = *state;
    const tram_server_limits limits = {.max_per_source = 1, .idle_timeout_ns = 1};
    const tram_server_options options = {.limits = &limits};
    int status = -ENOMEM;
    for (size_t n = 0; status && n < 200; n++) {
        tram_runtime_options runtime_options = {.workers = 2, .loop = world->options};
        runtime_options.loop.log = NULL;
        tram_runtime *runtime;
        world->fail_after = SIZE_MAX;
        assert_int_equal(tram_runtime_new(&runtime_options, &runtime), 0);
        world->fail_after = n;
        status = tram_runtime_create_server(runtime, visitor_factory, NULL, "127.0.0.1", "0", &options, NULL, NULL);
        world->fail_after = SIZE_MAX;
        assert_true(status == 0 || status == -ENOMEM);
        tram_runtime_free(runtime);
    }
    assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(V_31_V_32_over_all_workers),
        TEST(V_31_V_32_of_each_worker),
        TEST(V_32_V_33_of_each_source_over_all_workers),
        TEST(V_32_never_more_however_many_come_at_once),
        TEST(V_31_V_17_V_27_while_it_stops),
        TEST(V_35_idle_on_every_worker),
        TEST(V_39_bad_values),
        TEST(V_33_a_unix_socket_that_is_passed_has_no_sources_either),
        TEST(X_1_a_server_with_limits_is_made_or_not),
    };
    return cmocka_run_group_tests_name("limits_runtime", tests, NULL, NULL);
}
