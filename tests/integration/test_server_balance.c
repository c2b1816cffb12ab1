/* Servers of a runtime, in every way in which their connections get to the workers. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/support.h"

#define WORKERS     4
#define CONNECTIONS 64

/* ---- A server that says which worker it is, and echoes ---- */

struct house {
    tram_runtime *runtime;
    tram_runtime_server *server;
    uint16_t port;
    int held; /* keeps the port, also when nobody listens any more */
    _Atomic unsigned made;
    _Atomic unsigned released;
    _Atomic unsigned refuse; /* how many times the factory is to fail */
    _Atomic unsigned reports;
    _Atomic int report_code;
    _Atomic unsigned wrong_peers;
};

struct visitor {
    tram_protocol base;
    struct house *house;
};

static int visitor_made(tram_protocol *protocol, tram_transport *transport) {
    struct house *house = ((struct visitor *)protocol)->house;
    const tram_socket_address *peer = tram_transport_get_extra_info(transport, "peername", NULL);
    const struct sockaddr_in *inet = peer ? (const struct sockaddr_in *)(const void *)&peer->address : NULL;
    if (!inet || inet->sin_family != AF_INET || inet->sin_addr.s_addr != htonl(INADDR_LOOPBACK) || !inet->sin_port)
        house->wrong_peers++;
    tram_loop *loop = tram_loop_running();
    for (unsigned i = 0; i < tram_runtime_worker_count(house->runtime); i++) {
        char name = (char)('0' + i);
        if (tram_runtime_loop(house->runtime, i) == loop)
            tram_transport_write(transport, &name, 1);
    }
    house->made++;
    return 0;
}

static int visitor_received(tram_protocol *protocol, const void *data, size_t size) {
    return tram_transport_write(protocol->transport, data, size);
}

static void visitor_released(tram_protocol *protocol) {
    ((struct visitor *)protocol)->house->released++;
    free(protocol);
}

static const tram_protocol_ops visitor_ops = {
    .connection_made = visitor_made,
    .data_received = visitor_received,
    .released = visitor_released,
};

static int visitor_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    struct house *house = arg;
    if (house->refuse) {
        house->refuse--;
        return -EXDEV;
    }
    struct visitor *visitor = calloc(1, sizeof *visitor);
    *visitor = (struct visitor){.base.ops = &visitor_ops, .house = house};
    *ret_protocol = &visitor->base;
    return 0;
}

static int count_report(tram_loop *loop, const tram_exception *exception, void *arg) {
    (void)loop;
    struct house *house = arg;
    house->report_code = exception->error ? exception->error->code : 0;
    house->reports++;
    return 0;
}

static int watch_reports(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)worker;
    (void)state;
    return tram_loop_set_exception_handler(loop, count_report, arg);
}

static uint64_t grace_ns; /* 0: the default */

static struct house *open_house(struct world *world, unsigned workers, const tram_server_options *server_options) {
    struct house *house = calloc(1, sizeof *house);
    tram_runtime_options options = {
        .workers = workers, .loop = world->options, .start = watch_reports, .arg = house, .grace_ns = grace_ns};
    options.loop.log = NULL; /* the world's is for one thread */
    assert_int_equal(tram_runtime_new(&options, &house->runtime), 0);
    tram_error error = {0};
    char port[8];
    house->port = hold_port(&house->held);
    snprintf(port, sizeof port, "%u", house->port);
    int status = tram_runtime_create_server(house->runtime, visitor_factory, house, "127.0.0.1", port, server_options,
                                            &house->server, &error);
    if (status)
        fail_msg("create_server: %s: %s", tram_error_name(status), error.detail ? error.detail : "");
    assert_int_equal(tram_runtime_start(house->runtime), 0);
    return house;
}

static void close_house(struct house *house) {
    tram_runtime_free(house->runtime);
    assert_int_equal(house->made, house->released);
    assert_int_equal(house->wrong_peers, 0);
    close(house->held);
    free(house);
}

static int visit(const struct house *house) {
    int fd = tcp_connect(house->port);
    assert_true(fd >= 0);
    return fd;
}

/* Which worker serves it; it echoes too. */
static unsigned host_of(int fd) {
    char bytes[5], worker;
    receive_exactly(NULL, fd, &worker, 1);
    send_exactly(NULL, fd, "hello", 5);
    receive_exactly(NULL, fd, bytes, 5);
    assert_memory_equal(bytes, "hello", 5);
    return (unsigned)(worker - '0');
}

static size_t connections_of(const struct house *house, unsigned worker) {
    return tram_runtime_server_connection_count(house->server, worker);
}

static void await_connections(const struct house *house, unsigned worker, size_t count) {
    for (int i = 0; connections_of(house, worker) != count; i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
    }
}

static void await_count(const _Atomic unsigned *count, unsigned wanted) {
    for (int i = 0; *count < wanted; i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
    }
}

static uint64_t total_of(const struct house *house, size_t offset) {
    uint64_t total = 0;
    for (unsigned i = 0; i < tram_runtime_worker_count(house->runtime); i++) {
        tram_stats stats;
        assert_int_equal(tram_runtime_stats(house->runtime, i, &stats), 0);
        total += *(const uint64_t *)(const void *)((const char *)&stats + offset);
    }
    return total;
}

#define TOTAL(house, counter) total_of(house, offsetof(tram_stats, counter))

static const tram_server_options every_way[] = {
    {.shard = TRAM_SHARD_REUSEPORT},
    {.shard = TRAM_SHARD_REUSEPORT, .keep_where_accepted = true},
    {.shard = TRAM_SHARD_REUSEPORT, .steer = TRAM_STEER_CPU},
    {.shard = TRAM_SHARD_REUSEPORT, .steer = TRAM_STEER_HASH},
    {.shard = TRAM_SHARD_HANDOFF, .shard_worker = 1},
    {.shard = TRAM_SHARD_SHARED},
    {.shard = TRAM_SHARD_SHARED, .keep_where_accepted = true},
    {.shard = TRAM_SHARD_FIXED, .shard_worker = 2},
};
#define WAYS (sizeof every_way / sizeof *every_way)

/* ---- Who has how many ---- */

/* One after another; returns the most that a worker has. */
static size_t fill_house(struct house *house, int *fds, bool wait) {
    size_t most = 0;
    for (size_t i = 0; i < CONNECTIONS; i++) {
        fds[i] = visit(house);
        if (wait)
            host_of(fds[i]);
    }
    for (size_t i = 0; i < CONNECTIONS && !wait; i++)
        host_of(fds[i]);
    for (unsigned i = 0; i < WORKERS; i++) {
        size_t count = connections_of(house, i);
        tram_stats stats;
        assert_int_equal(tram_runtime_stats(house->runtime, i, &stats), 0);
        assert_int_equal(stats.connections_now, count);
        most = count > most ? count : most;
    }
    assert_int_equal(connections_of(house, WORKERS), 0); /* there is no such worker */
    assert_int_equal(connections_of(house, UINT_MAX), 0);
    assert_int_equal(TOTAL(house, connections_now), CONNECTIONS);
    assert_int_equal(TOTAL(house, accepted), CONNECTIONS);
    assert_int_equal(TOTAL(house, handed_over), TOTAL(house, taken_over));
    return most;
}

static void leave_all(struct house *house, int *fds) {
    for (size_t i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
    await_count(&house->released, CONNECTIONS);
    for (unsigned i = 0; i < WORKERS; i++)
        await_connections(house, i, 0); /* the count goes just after the protocol */
    close_house(house);
}

static void test_V_26_handoff_is_exactly_level(void **state) {
    const tram_server_options options = {.shard = TRAM_SHARD_HANDOFF};
    for (int i = 0; i < 10; i++) {
        struct house *house = open_house(*state, WORKERS, &options);
        int fds[CONNECTIONS];
        assert_int_equal(fill_house(house, fds, i % 2), CONNECTIONS / WORKERS);
        assert_int_equal(TOTAL(house, handed_over), CONNECTIONS - CONNECTIONS / WORKERS);
        leave_all(house, fds);
    }
}

static void test_V_26_handoff_fills_the_gaps(void **state) {
    const tram_server_options options = {.shard = TRAM_SHARD_HANDOFF, .shard_worker = 3};
    struct house *house = open_house(*state, WORKERS, &options);
    int fds[CONNECTIONS];
    for (size_t i = 0; i < CONNECTIONS; i++) {
        fds[i] = visit(house);
        unsigned host = host_of(fds[i]);
        if (host != 2)
            continue;
        close(fds[i]); /* worker 2 never keeps one: every fourth round begins with it */
        await_connections(house, 2, 0);
        fds[i] = -1;
    }
    assert_int_equal(connections_of(house, 2), 0);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_true(i == 2 || connections_of(house, i) <= 1);
    for (size_t i = 0; i < CONNECTIONS; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    close_house(house);
}

/* The most of 20 runs, by 100 of what would be level. */
static unsigned worst_of(struct world *world, const tram_server_options *options, uint64_t *ret_handed) {
    size_t worst = 0;
    *ret_handed = 0;
    for (int i = 0; i < 20; i++) {
        struct house *house = open_house(world, WORKERS, options);
        int fds[CONNECTIONS];
        size_t most = fill_house(house, fds, true);
        worst = most > worst ? most : worst;
        *ret_handed += TOTAL(house, handed_over);
        leave_all(house, fds);
    }
    return (unsigned)(worst * 100 * WORKERS / CONNECTIONS);
}

static void test_V_26_reuseport_and_shared_stay_nearly_level(void **state) {
    const tram_shard shards[] = {TRAM_SHARD_REUSEPORT, TRAM_SHARD_SHARED};
    for (size_t i = 0; i < 2; i++) {
        tram_server_options options = {.shard = shards[i]};
        uint64_t handed;
        unsigned worst = worst_of(*state, &options, &handed);
        print_message("%s: at worst %u%% of the mean in 20 runs, %llu of %u handed over\n",
                      shards[i] ? "shared" : "reuseport", worst, (unsigned long long)handed, 20 * CONNECTIONS);
        assert_true(worst <= 125);
        assert_true(handed > 0);
        options.keep_where_accepted = true;
        worst = worst_of(*state, &options, &handed);
        print_message("  without handing over: %u%%\n", worst);
        assert_int_equal(handed, 0);
        assert_true(worst > 100);
    }
}

static void test_V_25_fixed_is_one_worker(void **state) {
    const tram_server_options options = {.shard = TRAM_SHARD_FIXED, .shard_worker = 2};
    struct house *house = open_house(*state, WORKERS, &options);
    int fds[CONNECTIONS];
    assert_int_equal(fill_house(house, fds, true), CONNECTIONS);
    assert_int_equal(connections_of(house, 2), CONNECTIONS);
    assert_int_equal(connections_of(house, WORKERS), 0); /* there is none */
    leave_all(house, fds);
}

/* Exclusive interests that the epolls of this process have, by what the kernel tells of them. */
static unsigned exclusive_interests(void) {
    unsigned count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        char path[64], line[256];
        snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
        FILE *file = fopen(path, "re");
        while (file && fgets(line, sizeof line, file)) {
            unsigned events;
            if (sscanf(line, "tfd: %*d events: %x", &events) == 1 && events & EPOLLEXCLUSIVE)
                count++;
        }
        if (file)
            fclose(file);
    }
    return count;
}

static void test_V_25_shared_wakes_one(void **state) {
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, WORKERS, &every_way[i]);
        int fds[CONNECTIONS];
        fill_house(house, fds, true);
        assert_int_equal(exclusive_interests(), every_way[i].shard == TRAM_SHARD_SHARED ? WORKERS : 0);
        leave_all(house, fds);
    }
}

static void test_V_25_the_server_tells_how_it_is_spread(void **state) {
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, WORKERS, &every_way[i]);
        tram_sharding info;
        assert_int_equal(tram_runtime_server_sharding(house->server, &info), 0);
        assert_int_equal(info.shard, every_way[i].shard);
        bool all = info.shard == TRAM_SHARD_REUSEPORT || info.shard == TRAM_SHARD_SHARED;
        assert_int_equal(info.listening, all ? WORKERS : 1);
        if (info.shard != TRAM_SHARD_REUSEPORT)
            assert_false(info.migrates);
        close_house(house);
    }
}

/* ---- The rules of servers hold in every way ---- */

static void test_V_13_V_15_V_25_V_29_served_and_counted_in_every_way(void **state) {
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, WORKERS, &every_way[i]);
        int fds[CONNECTIONS];
        fill_house(house, fds, false);
        assert_int_equal(house->reports, 0);
        leave_all(house, fds);
    }
}

static void test_V_13_failing_factory_costs_one_connection(void **state) {
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, WORKERS, &every_way[i]);
        house->refuse = 9;
        for (int j = 0; j < 9; j++) {
            int fd = visit(house);
            assert_true(receive_eof(NULL, fd));
            close(fd);
        }
        for (unsigned j = 0; j < WORKERS; j++)
            await_connections(house, j, 0);
        int fds[CONNECTIONS];
        for (size_t j = 0; j < CONNECTIONS; j++)
            host_of(fds[j] = visit(house));
        leave_all(house, fds);
    }
}

static void test_V_11_descriptors_run_out_in_every_way(void **state) {
    skip_where_emulated("valgrind keeps limits of descriptors in its own way");
    struct rlimit before, tight;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const tram_shard shards[] = {TRAM_SHARD_REUSEPORT, TRAM_SHARD_HANDOFF, TRAM_SHARD_SHARED, TRAM_SHARD_FIXED};
    for (size_t i = 0; i < sizeof shards / sizeof *shards; i++) {
        tram_server_options options = {.shard = shards[i]};
        struct house *house = open_house(*state, WORKERS, &options);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in inet = {
            .sin_family = AF_INET, .sin_port = htons(house->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int lowest = dup(1); /* every number below is taken */
        close(lowest);
        tight = before;
        tight.rlim_cur = (rlim_t)lowest;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
        int status = connect(fd, (struct sockaddr *)&inet, sizeof inet);
        if (status == 0)
            await_count(&house->reports, 1);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        assert_int_equal(status, 0);
        assert_int_equal(house->report_code, -EMFILE);
        for (int j = 0; TOTAL(house, accept_pauses) != house->reports; j++) { /* one for each worker that noticed */
            assert_true(j < 20000);
            poll(NULL, 0, 1);
        }
        host_of(fd); /* a second later */
        close(fd);
        close_house(house);
    }
}

static void test_V_16_close_ends_listening_and_nothing_else(void **state) {
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, WORKERS, &every_way[i]);
        int fds[8];
        for (size_t j = 0; j < 8; j++)
            host_of(fds[j] = visit(house));
        assert_int_equal(tram_runtime_server_close(house->server), 0);
        await_nobody_listens(house->port);
        for (size_t j = 0; j < 8; j++) {
            char bytes[5];
            send_exactly(NULL, fds[j], "still", 5);
            receive_exactly(NULL, fds[j], bytes, 5);
            assert_memory_equal(bytes, "still", 5);
            close(fds[j]);
        }
        close_house(house);
    }
}

/* Where workers wait until they are let go. */
struct gate {
    pthread_mutex_t mutex;
    _Atomic unsigned waiting;
};

static int wait_at_gate(tram_loop *loop, void *arg) {
    (void)loop;
    struct gate *gate = arg;
    gate->waiting++;
    pthread_mutex_lock(&gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
    return 0;
}

static int wait_at_gate_and_stop(tram_loop *loop, void *arg) {
    wait_at_gate(loop, arg);
    return tram_loop_stop(loop);
}

/* Returns when the workers from `first` to before `end` do nothing any more. */
static void hold_up(const struct house *house, unsigned first, unsigned end, tram_callback callback,
                    struct gate *gate) {
    *gate = (struct gate){.mutex = PTHREAD_MUTEX_INITIALIZER};
    pthread_mutex_lock(&gate->mutex);
    for (unsigned i = first; i < end; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(house->runtime, i), callback, gate, NULL), 0);
    await_count(&gate->waiting, end - first);
}

static void let_go(struct gate *gate) {
    pthread_mutex_unlock(&gate->mutex);
}

/* They were connected and had sent before the server knew of them. */
static void assert_served_and_ended(int *fds, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char bytes[6];
        receive_exactly(NULL, fds[i], bytes, 6);
        assert_memory_equal(bytes + 1, "hello", 5);
        assert_true(receive_eof(NULL, fds[i]));
        close(fds[i]);
    }
}

static void visit_all(const struct house *house, int *fds, size_t count) {
    for (size_t i = 0; i < count; i++) {
        fds[i] = visit(house);
        assert_int_equal(send(fds[i], "hello", 5, 0), 5);
    }
}

static void test_V_17_V_30_who_got_through_is_served_in_every_way(void **state) {
    for (size_t i = 0; i < WAYS; i++) {
        struct house *house = open_house(*state, WORKERS, &every_way[i]);
        struct gate gate;
        hold_up(house, 0, WORKERS, wait_at_gate, &gate);
        int fds[16];
        visit_all(house, fds, 16);
        assert_int_equal(tram_runtime_stop(house->runtime), 0); /* while no worker has seen any of them */
        let_go(&gate);
        assert_served_and_ended(fds, 16);
        assert_int_equal(tram_runtime_join(house->runtime), 0);
        assert_int_equal(house->made, 16);
        close_house(house);
    }
}

static void test_V_26_V_27_those_on_their_way_count_and_are_served_at_the_end(void **state) {
    const tram_server_options options = {.shard = TRAM_SHARD_HANDOFF};
    struct house *house = open_house(*state, WORKERS, &options);
    struct gate gate;
    hold_up(house, 1, WORKERS, wait_at_gate, &gate);
    int fds[16];
    visit_all(house, fds, 16);
    for (unsigned i = 0; i < WORKERS; i++)
        await_connections(house, i, 4);
    await_count(&house->made, 4);
    assert_int_equal(TOTAL(house, taken_over), 0);
    assert_int_equal(tram_runtime_stop(house->runtime), 0);
    let_go(&gate);
    assert_served_and_ended(fds, 16);
    assert_int_equal(tram_runtime_join(house->runtime), 0);
    assert_int_equal(TOTAL(house, taken_over), 12);
    close_house(house);
}

static int nothing(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return 0;
}

static void test_V_27_workers_that_ended_get_nothing(void **state) {
    const tram_server_options options = {.shard = TRAM_SHARD_HANDOFF};
    grace_ns = 500000000; /* as long they wait for the one that is held up, and a second more */
    struct house *house = open_house(*state, WORKERS, &options);
    grace_ns = 0;
    struct gate gate;
    hold_up(house, 0, 1, wait_at_gate, &gate);
    int fds[16];
    visit_all(house, fds, 16);
    assert_int_equal(tram_runtime_stop(house->runtime), 0);
    for (unsigned i = 1; i < WORKERS; i++)
        for (int j = 0; tram_loop_call_soon_threadsafe(tram_runtime_loop(house->runtime, i), nothing, NULL, NULL) == 0;
             j++) {
            assert_true(j < 20000);
            poll(NULL, 0, 1);
        }
    let_go(&gate);
    assert_served_and_ended(fds, 16);
    assert_int_equal(tram_runtime_join(house->runtime), 0);
    assert_int_equal(TOTAL(house, handed_over), 0);
    close_house(house);
}

/*
 * A server that is closed while clients come: whoever was connected gets an answer, or was reset in its handshake. The
 * kernel may forget a handshake without a word; who sends something then hears of it.
 */
static void test_V_27_nobody_is_lost_while_it_stops(void **state) {
    unsigned answered = 0, reset = 0;
    for (size_t i = 0; i < 5 * WAYS; i++) {
        struct house *house = open_house(*state, WORKERS, &every_way[i % WAYS]);
        int fds[200];
        size_t count = 0;
        for (; count < 200; count++) {
            if (count == 100)
                assert_int_equal(tram_runtime_stop(house->runtime), 0);
            int fd = tcp_connect(house->port);
            if (fd < 0)
                break;
            fds[count] = fd;
            send(fd, "x", 1, MSG_NOSIGNAL);
        }
        assert_true(count >= 100);
        for (size_t j = 0; j < count; j++) {
            char worker;
            if (recv(fds[j], &worker, 1, 0) == 1)
                answered++;
            else
                reset++;
            close(fds[j]);
        }
        assert_int_equal(tram_runtime_join(house->runtime), 0);
        assert_int_equal(TOTAL(house, handed_over), TOTAL(house, taken_over));
        assert_int_equal(TOTAL(house, accepted), house->made);
        close_house(house);
    }
    print_message("%u clients were answered, %u reset as the listeners closed\n", answered, reset);
    assert_true(reset * 10 < answered);
}

/* ---- A listener that goes while others stay ---- */

/* A network of this thread's own, and of those it begins, where the kernel moves connections. */
static bool enter_network_that_migrates(void) {
    if (unshare(CLONE_NEWNET) < 0)
        return false;
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    close(fd);
    fd = open("/proc/sys/net/ipv4/tcp_migrate_req", O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, "1", 1) == 1;
    close(fd);
    return good;
}

static void test_V_30_the_rest_of_a_listener_moves_to_the_others(void **state) {
    int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (home < 0 || !enter_network_that_migrates()) {
        if (home >= 0) {
            setns(home, CLONE_NEWNET);
            close(home);
        }
        skip();
    }
    const tram_server_options options = {.keep_where_accepted = true};
    struct house *house = open_house(*state, 2, &options);
    tram_sharding info;
    assert_int_equal(tram_runtime_server_sharding(house->server, &info), 0);
    assert_true(info.migrates);
    struct gate gate;
    hold_up(house, 0, 1, wait_at_gate_and_stop, &gate);
    int fds[32];
    for (size_t i = 0; i < 32; i++)
        fds[i] = visit(house);
    let_go(&gate); /* worker 0 ends without a look at its listener */
    for (size_t i = 0; i < 32; i++) {
        assert_int_equal(host_of(fds[i]), 1);
        close(fds[i]);
    }
    close_house(house);
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    close(home);
}

/* ---- How many at once ---- */

struct door {
    struct world *world;
    unsigned made;
};

static int door_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct door *door = arg;
    door->made++;
    return recorder_factory(loop, door->world, ret_protocol);
}

static void test_V_28_accept_budget(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    struct door door = {.world = world};
    tram_server_options options = {.accept_budget = 3, .family = AF_INET};
    tram_future *future;
    assert_int_equal(tram_loop_create_server(world->loop, door_factory, &door, "127.0.0.1", "0", &options, &future), 0);
    run_ticks(world, 3);
    assert_true(tram_future_done(future));
    void *result;
    assert_int_equal(tram_future_result(future, &result), 0);
    tram_server *server = result;
    tram_socket_address address;
    struct sockaddr_in inet;
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    int fds[8];
    for (size_t i = 0; i < 8; i++)
        fds[i] = tcp_connect(ntohs(inet.sin_port));
    const unsigned made[] = {3, 6, 8, 8};
    for (size_t i = 0; i < 4; i++) {
        run_ticks(world, 1);
        assert_int_equal(door.made, made[i]);
    }
    for (size_t i = 0; i < 8; i++)
        close(fds[i]);
    tram_future_release(future);
    tram_server_close(server);
    tram_server_release(server);
}

static void test_V_29_bad_options(void **state) {
    struct world *world = *state;
    tram_runtime_options runtime_options = {.workers = 2, .loop = world->options};
    runtime_options.loop.log = NULL;
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&runtime_options, &runtime), 0);
    const tram_server_options bad[] = {
        {.shard = (tram_shard)4}, {.shard = TRAM_SHARD_FIXED, .shard_worker = 2},        {.shard_worker = 2},
        {.steer = (tram_steer)3}, {.shard = TRAM_SHARD_SHARED, .steer = TRAM_STEER_CPU},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tram_error error = {0};
        assert_int_equal(
            tram_runtime_create_server(runtime, door_factory, NULL, "127.0.0.1", "0", &bad[i], NULL, &error),
            TRAM_EVALUE);
        assert_int_equal(error.code, TRAM_EVALUE);
    }
    tram_runtime_free(runtime);
    const tram_server_options of_runtimes[] = {
        {.shard = TRAM_SHARD_HANDOFF}, {.shard_worker = 1}, {.steer = TRAM_STEER_CPU}, {.keep_where_accepted = true}};
    for (size_t i = 0; i < sizeof of_runtimes / sizeof *of_runtimes; i++)
        assert_int_equal(
            tram_loop_create_server(world->loop, door_factory, NULL, "127.0.0.1", "0", &of_runtimes[i], NULL),
            TRAM_EVALUE);
}

static void test_V_5_an_occupied_port_in_every_way(void **state) {
    struct world *world = *state;
    uint16_t number;
    int listener = tcp_listener(1, &number);
    char port[8];
    snprintf(port, sizeof port, "%u", number);
    tram_runtime_options runtime_options = {.workers = WORKERS, .loop = world->options};
    runtime_options.loop.log = NULL;
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&runtime_options, &runtime), 0);
    for (size_t i = 0; i < WAYS; i++) {
        int descriptors = open_descriptors();
        tram_error error = {0};
        assert_int_equal(
            tram_runtime_create_server(runtime, door_factory, NULL, "127.0.0.1", port, &every_way[i], NULL, &error),
            -EADDRINUSE);
        assert_string_equal(error.operation, "bind");
        assert_int_equal(open_descriptors(), descriptors);
    }
    tram_runtime_free(runtime);
    close(listener);
}

static void test_X_1_out_of_memory_in_every_way(void **state) {
    struct world *world = *state;
    for (size_t i = 0; i < WAYS; i++) {
        int status = -ENOMEM;
        for (size_t n = 0; status && n < 200; n++) {
            tram_runtime_options options = {.workers = WORKERS, .loop = world->options};
            options.loop.log = NULL;
            tram_runtime *runtime;
            world->fail_after = SIZE_MAX;
            assert_int_equal(tram_runtime_new(&options, &runtime), 0);
            world->fail_after = n;
            status =
                tram_runtime_create_server(runtime, door_factory, NULL, "127.0.0.1", "0", &every_way[i], NULL, NULL);
            world->fail_after = SIZE_MAX;
            assert_true(status == 0 || status == -ENOMEM);
            tram_runtime_free(runtime);
        }
        assert_int_equal(status, 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(V_26_handoff_is_exactly_level),
        TEST(V_26_handoff_fills_the_gaps),
        TEST(V_26_reuseport_and_shared_stay_nearly_level),
        TEST(V_25_fixed_is_one_worker),
        TEST(V_25_shared_wakes_one),
        TEST(V_25_the_server_tells_how_it_is_spread),
        TEST(V_13_V_15_V_25_V_29_served_and_counted_in_every_way),
        TEST(V_13_failing_factory_costs_one_connection),
        TEST(V_11_descriptors_run_out_in_every_way),
        TEST(V_16_close_ends_listening_and_nothing_else),
        TEST(V_17_V_30_who_got_through_is_served_in_every_way),
        TEST(V_26_V_27_those_on_their_way_count_and_are_served_at_the_end),
        TEST(V_27_workers_that_ended_get_nothing),
        TEST(V_27_nobody_is_lost_while_it_stops),
        TEST(V_30_the_rest_of_a_listener_moves_to_the_others),
        TEST(V_28_accept_budget),
        TEST(V_29_bad_options),
        TEST(V_5_an_occupied_port_in_every_way),
        TEST(X_1_out_of_memory_in_every_way),
    };
    return cmocka_run_group_tests_name("balance", tests, NULL, NULL);
}
