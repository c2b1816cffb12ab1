/* Limits of a server of one loop: how many connections, and how long each may take. Time passes when a test says so. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/faults.h"
#include "support/support.h"
#include "transports/base/transport.h"

#define SECOND 1000000000ull

/* ---- Time ---- */

static uint64_t time_ns;
static struct sys sys;

static int standing_clock(clockid_t clock, struct timespec *ret_time) {
    (void)clock;
    *ret_time = (struct timespec){.tv_sec = (time_t)(time_ns / SECOND), .tv_nsec = (long)(time_ns % SECOND)};
    return 0;
}

static unsigned splices;

static ssize_t counted_splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t size, unsigned flags) {
    ssize_t moved = tram__sys.splice(in, in_offset, out, out_offset, size, flags);
    splices += moved > 0;
    return moved;
}

static int setup(void **state) {
    world_setup(state);
    sys = *faults_sys();
    sys.clock_gettime = standing_clock;
    sys.splice = counted_splice;
    splices = 0;
    time_ns = 1000 * SECOND;
    world_use_sys(*state, &sys);
    return 0;
}

static void pass(struct world *world, uint64_t ns) {
    time_ns += ns;
    run_ticks(world, 3);
}

/* ---- A server of recorders, whose ends tell the operation too ---- */

static tram_protocol_ops metered_ops, metered_buffered_ops;
static int (*recorder_lost)(tram_protocol *protocol, const tram_error *error);
static bool refuse_all;
static bool buffered;

static int metered_lost(tram_protocol *protocol, const tram_error *error) {
    int status = recorder_lost(protocol, error);
    if (error)
        trace(((struct recorder *)(void *)protocol)->world, "(%s)", error->operation);
    return status;
}

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    if (refuse_all)
        return -EXDEV;
    struct recorder *recorder = buffered ? recorder_new_buffered(arg, NULL) : recorder_new(arg, NULL);
    tram_protocol_ops *ops = buffered ? &metered_buffered_ops : &metered_ops;
    *ops = *recorder->base.ops;
    recorder_lost = ops->connection_lost;
    ops->connection_lost = metered_lost;
    recorder->base.ops = ops;
    recorder->eof_returns = 1;
    *ret_protocol = &recorder->base;
    return 0;
}

struct shop {
    struct world *world;
    tram_server *server;
    uint16_t port;
};

static uint16_t port_of(const tram_server *server) {
    tram_socket_address address;
    struct sockaddr_in6 inet; /* the port is at the same place in both */
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    return ntohs(inet.sin6_port);
}

static tram_server *await_server(struct world *world, tram_future *future) {
    void *server = NULL;
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    return server;
}

static struct shop open_at(struct world *world, const char *host, const tram_server_limits *limits) {
    const tram_server_options options = {.limits = limits};
    struct shop shop = {.world = world};
    tram_future *future;
    refuse_all = buffered = false;
    assert_int_equal(tram_loop_create_server(world->loop, factory, world, host, "0", &options, &future), 0);
    shop.server = await_server(world, future);
    shop.port = port_of(shop.server);
    return shop;
}

static struct shop open_shop(struct world *world, const tram_server_limits *limits) {
    return open_at(world, "127.0.0.1", limits);
}

static bool is_empty(void *arg) {
    return tram_server_connection_count(arg) == 0;
}

static void close_shop(struct shop *shop) {
    assert_int_equal(tram_server_close(shop->server), 0);
    assert_int_equal(tram_server_abort_clients(shop->server), 0);
    run_until_true(shop->world, is_empty, shop->server);
    tram_server_release(shop->server);
    run_ticks(shop->world, 1);
}

/* A client, known to the server if it gets in. */
static int visit(struct shop *shop) {
    int fd = tcp_connect(shop->port);
    assert_true(fd >= 0);
    run_to_rest(shop->world);
    return fd;
}

static int visit_from(struct shop *shop, const char *host) {
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(shop->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, host, &from.sin_addr);
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    run_to_rest(shop->world);
    return fd;
}

/* The transport of the last one that got in. */
static tram_transport *transport_of_last(struct shop *shop) {
    return world_last_recorder(shop->world)->base.transport;
}

static void assert_reset(int fd) {
    assert_false(receive_eof(NULL, fd));
    assert_int_equal(errno, ECONNRESET);
    close(fd);
}

static void leave(struct shop *shop, int fd) {
    size_t before = tram_server_connection_count(shop->server);
    close_with_reset(fd);
    for (int i = 0; tram_server_connection_count(shop->server) == before; i++) {
        assert_true(i < 20000);
        run_ticks(shop->world, 1);
        poll(NULL, 0, i > 10);
    }
}

static tram_limit_counts counts_of(const struct shop *shop) {
    tram_limit_counts counts;
    assert_int_equal(tram_server_limit_counts(shop->server, &counts), 0);
    tram_stats stats;
    tram_loop_stats(shop->world->loop, &stats);
    const uint64_t *of_loop = &stats.refused_connections, *of_server = &counts.refused_connections;
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(of_loop[i], of_server[i]); /* the loop has this server alone */
    return counts;
}

static void say(struct shop *shop, int fd, const char *text) {
    size_t *received = &world_last_recorder(shop->world)->received, before = *received;
    send_exactly(NULL, fd, text, strlen(text));
    for (int i = 0; *received - before < strlen(text); i++) {
        assert_true(i < 20000);
        run_ticks(shop->world, 1);
        poll(NULL, 0, i > 10);
    }
}

/* ---- How many ---- */

static void test_V_31_one_more_is_reset_and_nothing_is_made_for_it(void **state) {
    const tram_server_limits limits = {.max_connections = 3};
    struct shop shop = open_shop(*state, &limits);
    int fds[3];
    for (size_t i = 0; i < 3; i++)
        fds[i] = visit(&shop);
    assert_trace(shop.world, "made made made");
    for (unsigned i = 1; i <= 5; i++) {
        assert_reset(visit(&shop));
        assert_int_equal(counts_of(&shop).refused_connections, i);
    }
    assert_trace(shop.world, "");
    assert_int_equal(tram_server_connection_count(shop.server), 3);
    leave(&shop, fds[1]);
    assert_trace(shop.world, "lost:ECONNRESET (recv) released");
    fds[1] = visit(&shop);
    assert_trace(shop.world, "made");
    assert_reset(visit(&shop));
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
    close_shop(&shop);
}

static void test_V_31_of_a_burst_the_first_get_in(void **state) {
    const tram_server_limits limits = {.max_per_worker = 2, .max_connections = 9};
    struct shop shop = open_shop(*state, &limits);
    int fds[10];
    for (size_t i = 0; i < 10; i++)
        assert_true((fds[i] = tcp_connect(shop.port)) >= 0);
    run_to_rest(shop.world);
    assert_trace(shop.world, "made made");
    assert_int_equal(counts_of(&shop).refused_worker, 8);
    for (size_t i = 2; i < 10; i++)
        assert_reset(fds[i]);
    close(fds[0]);
    close(fds[1]);
    close_shop(&shop);
}

static void test_V_31_V_17_also_of_those_that_wait_when_it_closes(void **state) {
    const tram_server_limits limits = {.max_connections = 2};
    struct shop shop = open_shop(*state, &limits);
    int fds[5];
    for (size_t i = 0; i < 5; i++)
        assert_true((fds[i] = tcp_connect(shop.port)) >= 0);
    assert_int_equal(tram_server_close(shop.server), 0);
    assert_int_equal(tram_server_connection_count(shop.server), 2);
    assert_int_equal(counts_of(&shop).refused_connections, 3);
    for (size_t i = 2; i < 5; i++)
        assert_reset(fds[i]);
    run_to_rest(shop.world);
    assert_trace(shop.world, "made made");
    close(fds[0]);
    close(fds[1]);
    close_shop(&shop);
}

static void test_V_33_of_each_source(void **state) {
    const tram_server_limits limits = {.max_per_source = 2};
    struct shop shop = open_shop(*state, &limits);
    int fds[4] = {visit_from(&shop, "127.0.0.1"), visit_from(&shop, "127.0.0.2"), visit_from(&shop, "127.0.0.1")};
    assert_reset(visit_from(&shop, "127.0.0.1"));
    fds[3] = visit_from(&shop, "127.0.0.2");
    assert_reset(visit_from(&shop, "127.0.0.2"));
    assert_trace(shop.world, "made made made made");
    assert_int_equal(counts_of(&shop).refused_source, 2);
    leave(&shop, fds[0]);
    assert_reset(visit_from(&shop, "127.0.0.2"));
    fds[0] = visit_from(&shop, "127.0.0.1");
    assert_trace(shop.world, "lost:ECONNRESET (recv) released made");
    for (size_t i = 0; i < 4; i++)
        close(fds[i]);
    close_shop(&shop);
}

static void test_V_33_a_source_may_be_a_network(void **state) {
    const tram_server_limits limits = {.max_per_source = 2, .source_bits_ipv4 = 24};
    struct shop shop = open_shop(*state, &limits);
    int fds[3] = {visit_from(&shop, "127.0.0.1"), visit_from(&shop, "127.0.0.2")};
    assert_reset(visit_from(&shop, "127.0.0.3"));
    fds[2] = visit_from(&shop, "127.0.1.3");
    assert_trace(shop.world, "made made made");
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
    close_shop(&shop);
}

static void test_V_33_who_is_refused_otherwise_counts_for_no_source(void **state) {
    const tram_server_limits limits = {.max_per_source = 2, .max_connections = 1};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    for (int i = 0; i < 5; i++)
        assert_reset(visit(&shop));
    assert_int_equal(counts_of(&shop).refused_connections, 5);
    assert_int_equal(counts_of(&shop).refused_source, 0);
    close(fd);
    close_shop(&shop);
}

static void test_V_34_a_failing_factory_takes_no_place(void **state) {
    const tram_server_limits limits = {.max_connections = 2, .max_per_source = 2, .idle_timeout_ns = SECOND};
    struct shop shop = open_shop(*state, &limits);
    refuse_all = true;
    for (int i = 0; i < 5; i++) {
        int fd = visit(&shop);
        assert_true(receive_eof(NULL, fd));
        close(fd);
    }
    refuse_all = false;
    int fds[2] = {visit(&shop), visit(&shop)};
    assert_trace(shop.world, "made made");
    close(fds[0]);
    close(fds[1]);
    close_shop(&shop);
}

static void test_V_34_V_37_a_detached_connection_counts_no_more_and_has_no_deadline(void **state) {
    const tram_server_limits limits = {
        .max_connections = 1, .max_per_source = 1, .idle_timeout_ns = SECOND, .total_timeout_ns = 3 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int first = visit(&shop);
    struct detached detached;
    assert_int_equal(detach(transport_of_last(&shop), &detached), 0);
    run_ticks(shop.world, 1);
    int second = visit(&shop);
    assert_trace(shop.world, "made released made");
    struct recorder *adopter = recorder_new(shop.world, "adopter");
    tram_transport *adopted = transport_new(shop.world, detached.fd, adopter);
    pass(shop.world, 2 * SECOND);
    assert_trace(shop.world, "adopter.made lost:ETIMEDOUT (idle) released");
    assert_false(tram_transport_is_closing(adopted));
    tram_transport_abort(adopted);
    run_until(shop.world, &adopter->was_released);
    close(first);
    close(second);
    close_shop(&shop);
}

static void test_V_19_V_34_clients_with_deadlines_are_closed_and_aborted(void **state) {
    const tram_server_limits limits = {.idle_timeout_ns = SECOND};
    struct shop shop = open_shop(*state, &limits);
    int first = visit(&shop);
    assert_int_equal(tram_server_close_clients(shop.server), 0);
    run_to_rest(shop.world);
    int second = visit(&shop);
    assert_int_equal(tram_server_abort_clients(shop.server), 0);
    run_to_rest(shop.world);
    assert_trace(shop.world, "made lost:0 released made lost:0 released");
    close(first);
    close(second);
    close_shop(&shop);
}

/* ---- How long ---- */

static void test_V_35_first_byte(void **state) {
    const tram_server_limits limits = {.first_byte_timeout_ns = 10 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int silent = visit(&shop);
    pass(shop.world, SECOND);
    int speaker = visit(&shop);
    pass(shop.world, 9 * SECOND - 1);
    say(&shop, speaker, "x");
    assert_trace(shop.world, "made made data:1");
    pass(shop.world, 1);
    assert_trace(shop.world, "lost:ETIMEDOUT (first byte) released");
    assert_true(receive_eof(NULL, silent));
    pass(shop.world, 1000 * SECOND);
    assert_trace(shop.world, "");
    assert_int_equal(counts_of(&shop).expired_first_byte, 1);
    assert_int_equal(shop.world->exceptions, 0); /* T-17 */
    close(silent);
    close(speaker);
    close_shop(&shop);
}

static void test_V_35_V_36_idle(void **state) {
    const tram_server_limits limits = {.idle_timeout_ns = 10 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    for (int i = 0; i < 20; i++) {
        pass(shop.world, 10 * SECOND - 1); /* each byte of each direction counts from its own time on */
        if (i % 2)
            say(&shop, fd, "x");
        else
            assert_int_equal(tram_transport_write(transport_of_last(&shop), "y", 1), 0);
    }
    shop.world->trace[0] = '\0';
    pass(shop.world, 10 * SECOND - 1);
    assert_trace(shop.world, "");
    pass(shop.world, 1);
    assert_trace(shop.world, "lost:ETIMEDOUT (idle) released");
    assert_int_equal(counts_of(&shop).expired_idle, 1);
    assert_true(receive_eof(NULL, fd));
    close(fd);
    close_shop(&shop);
}

static void test_V_35_total(void **state) {
    const tram_server_limits limits = {.total_timeout_ns = 10 * SECOND, .idle_timeout_ns = 60 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    pass(shop.world, 10 * SECOND - 1);
    say(&shop, fd, "x");
    assert_trace(shop.world, "made data:1");
    pass(shop.world, 1);
    assert_trace(shop.world, "lost:ETIMEDOUT (total) released");
    assert_int_equal(counts_of(&shop).expired_total, 1);
    close(fd);
    close_shop(&shop);
}

/* A peer that sends a byte a second is never idle, and has sent its first. */
static void test_V_35_a_slow_loris_lives_as_long_as_the_total_and_no_longer(void **state) {
    const tram_server_limits limits = {
        .first_byte_timeout_ns = 2 * SECOND, .idle_timeout_ns = 2 * SECOND, .total_timeout_ns = 20 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop), bytes = 0;
    for (int i = 0; i < 40 && !world_last_recorder(shop.world)->lost; i++) {
        pass(shop.world, SECOND);
        if (!world_last_recorder(shop.world)->lost) {
            say(&shop, fd, "x");
            bytes++;
        }
    }
    assert_int_equal(bytes, 19);
    assert_non_null(strstr(shop.world->trace, "lost:ETIMEDOUT (total) released"));
    tram_limit_counts counts = counts_of(&shop);
    assert_int_equal(counts.expired_total, 1);
    assert_int_equal(counts.expired_idle + counts.expired_first_byte, 0);
    close(fd);
    close_shop(&shop);
}

static void test_V_35_the_reason_is_the_deadline_that_came_first(void **state) {
    const tram_server_limits limits = {
        .first_byte_timeout_ns = 5 * SECOND, .idle_timeout_ns = 5 * SECOND, .total_timeout_ns = 6 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    pass(shop.world, 100 * SECOND); /* all have passed when the loop comes to look */
    assert_trace(shop.world, "made lost:ETIMEDOUT (first byte) released");
    close(fd);
    close_shop(&shop);
}

/* All was sent, and it only waits for the peer: nothing is cut. */
static void test_V_35_W_31_the_total_ends_a_close_that_lingers(void **state) {
    const tram_server_limits limits = {.total_timeout_ns = 10 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    assert_int_equal(tram_transport_close_lingering(transport_of_last(&shop), HOUR_NS), 0);
    pass(shop.world, 10 * SECOND - 1);
    assert_trace(shop.world, "made");
    pass(shop.world, 1);
    assert_trace(shop.world, "lost:0 released");
    assert_int_equal(counts_of(&shop).expired_total, 0);
    close(fd);
    close_shop(&shop);
}

/* Of equals that which tells most: a connection that says nothing is idle, too, and its whole time is over. */
static void test_V_35_of_deadlines_at_one_time_the_first_byte_is_the_reason(void **state) {
    static const struct {
        tram_server_limits limits;
        const char *trace;
    } cases[] = {
        {{.first_byte_timeout_ns = 5 * SECOND, .total_timeout_ns = 5 * SECOND}, "first byte"},
        {{.first_byte_timeout_ns = 5 * SECOND, .idle_timeout_ns = 5 * SECOND}, "first byte"},
        {{.idle_timeout_ns = 5 * SECOND, .total_timeout_ns = 5 * SECOND}, "total"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct shop shop = open_shop(*state, &cases[i].limits);
        int fd = visit(&shop);
        char expected[80];
        snprintf(expected, sizeof expected, "made lost:ETIMEDOUT (%s) released", cases[i].trace);
        pass(shop.world, 100 * SECOND);
        assert_trace(shop.world, expected);
        close(fd);
        close_shop(&shop);
    }
}

static void test_V_35_buffered_protocols_too(void **state) {
    const tram_server_limits limits = {.first_byte_timeout_ns = 5 * SECOND, .idle_timeout_ns = 5 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    buffered = true;
    int fd = visit(&shop);
    pass(shop.world, 4 * SECOND);
    say(&shop, fd, "abc");
    pass(shop.world, 4 * SECOND);
    assert_trace(shop.world, "made get_buffer updated:3");
    pass(shop.world, SECOND);
    assert_trace(shop.world, "lost:ETIMEDOUT (idle) released");
    close(fd);
    close_shop(&shop);
}

static void test_V_35_before_connection_made(void **state) {
    const tram_server_limits limits = {.total_timeout_ns = 1};
    struct shop shop = open_shop(*state, &limits);
    int fd = tcp_connect(shop.port);
    for (int i = 0; !world_last_recorder(shop.world) || !world_last_recorder(shop.world)->was_released; i++) {
        assert_true(i < 20000);
        pass(shop.world, 1);
    }
    assert_trace(shop.world, "made lost:ETIMEDOUT (total) released");
    close(fd);
    close_shop(&shop);
}

static void test_V_36_who_does_not_read_is_idle(void **state) {
    const tram_server_limits limits = {.idle_timeout_ns = 5 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    tram_transport_pause_reading(transport_of_last(&shop));
    pass(shop.world, 4 * SECOND);
    send_exactly(NULL, fd, "x", 1); /* it stays in the kernel */
    pass(shop.world, SECOND);
    assert_trace(shop.world, "made lost:ETIMEDOUT (idle) released");
    close(fd);
    close_shop(&shop);
}

static void test_V_36_a_queue_that_moves_is_not_idle_and_one_that_stands_is(void **state) {
    const tram_server_limits limits = {.idle_timeout_ns = 5 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    tram_transport *transport = transport_of_last(&shop);
    static char bytes[100000];
    faults.send_budget = 0;
    assert_int_equal(tram_transport_write(transport, bytes, sizeof bytes), 0);
    for (int i = 0; i < 5; i++) {
        pass(shop.world, 4 * SECOND);
        faults.send_budget = 1;
        run_ticks(shop.world, 2);
        faults.send_budget = 0;
    }
    assert_int_equal(tram_transport_get_write_buffer_size(transport), sizeof bytes - 5);
    pass(shop.world, 4 * SECOND);
    assert_int_equal(tram_transport_write(transport, "x", 1), 0); /* it moves nothing */
    assert_trace(shop.world, "made pause");
    pass(shop.world, SECOND);
    assert_trace(shop.world, "lost:ETIMEDOUT (idle) released");
    faults.send_budget = SIZE_MAX;
    assert_reset(fd); /* the stream was cut short */
    close_shop(&shop);
}

static int transport_file(void) {
    char path[] = "/tmp/tram-limits-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(ftruncate(fd, 100000), 0);
    return fd;
}

static bool is_done(void *arg) {
    return tram_future_done(arg);
}

static void test_V_36_a_file_that_is_sent_is_no_idleness(void **state) {
    const tram_server_limits limits = {.idle_timeout_ns = 5 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop), file = transport_file();
    tram_future *future;
    pass(shop.world, 4 * SECOND);
    faults.sendfile_at_most = 10000;
    assert_int_equal(
        tram_loop_sendfile(shop.world->loop, transport_of_last(&shop), file, 0, TRAM_SENDFILE_ALL, NULL, &future), 0);
    pass(shop.world, 4 * SECOND);
    static char bytes[100000];
    receive_exactly(shop.world, fd, bytes, sizeof bytes);
    run_until_true(shop.world, is_done, future);
    tram_future_release(future);
    pass(shop.world, 4 * SECOND);
    faults.sendfile_at_most = SIZE_MAX; /* and one that goes at once */
    assert_int_equal(tram_loop_sendfile(shop.world->loop, transport_of_last(&shop), file, 0, 10, NULL, NULL), 0);
    pass(shop.world, 5 * SECOND - 1);
    assert_trace(shop.world, "made");
    pass(shop.world, 1);
    assert_trace(shop.world, "lost:ETIMEDOUT (idle) released");
    close(file);
    close(fd);
    close_shop(&shop);
}

static void test_V_36_every_way_of_writing_counts(void **state) {
    const tram_server_limits limits = {.idle_timeout_ns = 5 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    tram_transport *transport = transport_of_last(&shop);
    const struct iovec pieces[] = {{.iov_base = "ab", .iov_len = 2}, {.iov_base = "c", .iov_len = 1}};
    pass(shop.world, 4 * SECOND);
    assert_int_equal(tram_transport_writelines(transport, pieces, 2), 0);
    pass(shop.world, 4 * SECOND);
    tram_buffer *buffer = tram_buffer_copy("def", 3);
    assert_int_equal(tram_transport_write_buffer(transport, buffer), 0);
    tram_buffer_release(buffer);
    pass(shop.world, 4 * SECOND);
    assert_int_equal(tram_transport_cork(transport), 0);
    assert_int_equal(tram_transport_write(transport, "ghi", 3), 0);
    assert_int_equal(tram_transport_uncork(transport), 0);
    pass(shop.world, 4 * SECOND);
    assert_int_equal(tram_transport_cork(transport), 0);
    assert_int_equal(tram_transport_write(transport, "jkl", 3), 0);
    assert_int_equal(tram_transport_write_eof(transport), 0);
    pass(shop.world, 4 * SECOND);
    assert_trace(shop.world, "made");
    char bytes[12];
    receive_exactly(shop.world, fd, bytes, 12);
    assert_memory_equal(bytes, "abcdefghijkl", 12);
    pass(shop.world, SECOND);
    assert_trace(shop.world, "lost:ETIMEDOUT (idle) released");
    close(fd);
    close_shop(&shop);
}

static void test_V_37_a_close_that_cannot_flush_ends(void **state) {
    const tram_server_limits cases[] = {{.total_timeout_ns = 5 * SECOND}, {.idle_timeout_ns = 5 * SECOND}};
    for (size_t i = 0; i < 2; i++) {
        struct shop shop = open_shop(*state, &cases[i]);
        int fd = visit(&shop);
        faults.send_budget = 3;
        assert_int_equal(tram_transport_write(transport_of_last(&shop), "hello", 5), 0);
        assert_int_equal(tram_transport_close(transport_of_last(&shop)), 0);
        pass(shop.world, 5 * SECOND - 1);
        assert_trace(shop.world, "made");
        pass(shop.world, 1);
        assert_trace(shop.world, i ? "lost:ETIMEDOUT (idle) released" : "lost:ETIMEDOUT (total) released");
        faults.send_budget = SIZE_MAX;
        char bytes[3];
        receive_exactly(NULL, fd, bytes, 3);
        assert_reset(fd);
        close_shop(&shop);
    }
}

static void test_V_37_a_half_closed_connection_is_idle_in_time(void **state) {
    const tram_server_limits limits = {.idle_timeout_ns = 5 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    pass(shop.world, 4 * SECOND);
    shutdown(fd, SHUT_WR);
    run_until_traced(shop.world, "eof");
    assert_int_equal(tram_transport_write(transport_of_last(&shop), "x", 1), 0);
    pass(shop.world, 4 * SECOND);
    assert_trace(shop.world, "made eof");
    pass(shop.world, SECOND);
    assert_trace(shop.world, "lost:ETIMEDOUT (idle) released");
    close(fd);
    close_shop(&shop);
}

static void test_V_37_who_never_sends_a_byte_but_the_end(void **state) {
    const tram_server_limits limits = {.first_byte_timeout_ns = 5 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    shutdown(fd, SHUT_WR);
    run_until_traced(shop.world, "eof");
    pass(shop.world, 5 * SECOND);
    assert_trace(shop.world, "made eof lost:ETIMEDOUT (first byte) released");
    close(fd);
    close_shop(&shop);
}

static void test_V_37_another_protocol_has_the_same_time(void **state) {
    const tram_server_limits limits = {.idle_timeout_ns = 5 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    struct recorder *others[] = {recorder_new_buffered(*state, "buffered"), recorder_new(*state, "plain")};
    int fd = visit(&shop);
    tram_transport *transport = transport_of_last(&shop);
    for (size_t i = 0; i < 2; i++) {
        pass(shop.world, 4 * SECOND);
        assert_int_equal(tram_transport_set_protocol(transport, &others[i]->base), 0);
        send_exactly(NULL, fd, "x", 1);
        for (int j = 0; !others[i]->received; j++) {
            assert_true(j < 20000);
            run_ticks(shop.world, 1);
        }
    }
    pass(shop.world, 4 * SECOND);
    assert_trace(shop.world, "made released buffered.get_buffer buffered.updated:1 buffered.released plain.data:1");
    pass(shop.world, SECOND);
    assert_trace(shop.world, "plain.lost:ETIMEDOUT plain.released");
    close(fd);
    close_shop(&shop);
}

static void test_V_34_V_37_a_bridged_connection_counts_and_has_its_time(void **state) {
    const tram_server_limits limits = {.max_connections = 1, .idle_timeout_ns = 5 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int client = visit(&shop), pair[2];
    tram_transport *downstream = transport_of_last(&shop);
    tcp_pair(pair);
    tram_transport *upstream = transport_new(shop.world, pair[0], recorder_new(shop.world, "upstream"));
    run_to_rest(shop.world);
    tram_future *future;
    assert_int_equal(tram_bridge(downstream, upstream, NULL, &future), 0);
    run_to_rest(shop.world);
    assert_reset(visit(&shop));
    for (int i = 0; i < 4; i++) {
        char byte;
        pass(shop.world, 4 * SECOND);
        send_exactly(NULL, i % 2 ? pair[1] : client, "x", 1);
        receive_exactly(shop.world, i % 2 ? client : pair[1], &byte, 1);
    }
    assert_false(tram_future_done(future));
    pass(shop.world, 5 * SECOND);
    run_until_true(shop.world, is_done, future);
    void *result;
    assert_int_equal(tram_future_result(future, &result), 0);
    assert_int_equal(((const tram_bridge_result *)result)->outcome, TRAM_BRIDGE_FAILED);
    assert_int_equal(((const tram_bridge_result *)result)->side, 0);
    assert_int_equal(((const tram_bridge_result *)result)->code, -ETIMEDOUT);
    tram_future_release(future);
    assert_true(receive_eof(shop.world, client));
    assert_false(receive_eof(shop.world, pair[1])); /* the bridge hands the failure on */
    run_until_true(shop.world, is_empty, shop.server);
    int next = visit(&shop);
    assert_int_equal(tram_server_connection_count(shop.server), 1);
    close(client);
    close(next);
    close(pair[1]);
    close_shop(&shop);
}

/* Bytes that the kernel moves from socket to socket move, too. */
static void test_V_36_V_37_bulk_through_a_bridge_is_no_idleness(void **state) {
    enum { BLOCK = 1 << 20 };
    const tram_server_limits limits = {.idle_timeout_ns = 5 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int client = visit(&shop), pair[2], size = BLOCK;
    tram_transport *downstream = transport_of_last(&shop);
    setsockopt(downstream->io.fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    tcp_pair(pair);
    tram_transport *upstream = transport_new(shop.world, pair[0], recorder_new(shop.world, "upstream"));
    run_to_rest(shop.world);
    tram_future *future;
    assert_int_equal(tram_bridge(downstream, upstream, NULL, &future), 0);
    run_to_rest(shop.world);
    char *bytes = calloc(1, BLOCK);
    for (ssize_t got = 0, part; got < 64 * BLOCK; got += part) {
        unsigned before = splices;
        send(client, bytes, BLOCK, MSG_DONTWAIT);
        run_ticks(shop.world, 2);
        part = recv(pair[1], bytes, BLOCK, MSG_DONTWAIT);
        if (part < 0)
            part = 0;
        else if (splices > before) /* what came may have waited in the kernel, and nothing moved meanwhile */
            time_ns += SECOND;
        assert_false(tram_future_done(future));
    }
    free(bytes);
    assert_true(splices > 5);
    close(client);
    close(pair[1]);
    run_until_true(shop.world, is_done, future);
    tram_future_release(future);
    close_shop(&shop);
}

static void test_V_37_times_without_end_never_come(void **state) {
    const tram_server_limits limits = {.first_byte_timeout_ns = UINT64_MAX,
                                       .idle_timeout_ns = UINT64_MAX - 1,
                                       .total_timeout_ns = UINT64_MAX - 1000 * SECOND};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    for (int i = 0; i < 10; i++) {
        pass(shop.world, 1ull << 58);
        say(&shop, fd, "x");
    }
    assert_null(strstr(shop.world->trace, "lost"));
    close(fd);
    close_shop(&shop);
}

/* ---- Writing ---- */

static void assert_marks(struct shop *shop, size_t low, size_t high) {
    size_t of_low, of_high;
    assert_int_equal(tram_transport_get_write_buffer_limits(transport_of_last(shop), &of_high, &of_low), 0);
    assert_int_equal(of_low, low);
    assert_int_equal(of_high, high);
}

static void test_V_38_water_marks_of_every_connection(void **state) {
    const struct {
        tram_server_limits limits;
        size_t low, high;
    } cases[] = {
        {{0}, 16384, 65536},
        {{.write_high = 1000}, 250, 1000},
        {{.write_low = 1000}, 1000, 4000},
        {{.write_high = 1000, .write_low = 999, .total_timeout_ns = SECOND}, 999, 1000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct shop shop = open_shop(*state, &cases[i].limits);
        int fd = visit(&shop);
        assert_marks(&shop, cases[i].low, cases[i].high);
        close(fd);
        close_shop(&shop);
    }
}

static void test_V_38_the_hard_limit_of_writing(void **state) {
    const tram_server_limits limits = {.write_hard_limit = 1000};
    struct shop shop = open_shop(*state, &limits);
    int fd = visit(&shop);
    static char bytes[1001];
    faults.send_budget = 0;
    assert_int_equal(tram_transport_write(transport_of_last(&shop), bytes, 1000), 0);
    run_ticks(shop.world, 2);
    assert_trace(shop.world, "made");
    assert_int_equal(tram_transport_write(transport_of_last(&shop), bytes, 1), 0);
    run_ticks(shop.world, 2);
    assert_trace(shop.world, "lost:TRAM_ELIMIT (write) released");
    assert_int_equal(counts_of(&shop).over_write_limit, 1);
    faults.send_budget = SIZE_MAX;
    close(fd);
    close_shop(&shop);
}

/* ---- What may be asked ---- */

static void test_V_39_bad_values(void **state) {
    struct world *world = *state;
    const tram_server_limits bad[] = {
        {.source_bits_ipv4 = 33},
        {.source_bits_ipv6 = 65},
        {.write_high = 1, .write_low = 2},
        {.write_low = SIZE_MAX / 2},
        {.write_low = TRAM_LIMIT_DEFAULT - 1},
        {.reserved = {1}},
        {.reserved = {[7] = 1}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tram_server_options options = {.limits = &bad[i]};
        tram_unix_server_options unix_options = {.limits = &bad[i]};
        assert_int_equal(tram_loop_create_server(world->loop, factory, world, "127.0.0.1", "0", &options, NULL),
                         TRAM_EVALUE);
        assert_int_equal(tram_loop_create_unix_server(world->loop, factory, world, "\0x", 2, &unix_options, NULL),
                         TRAM_EVALUE);
    }
}

static void test_V_39_the_last_good_values(void **state) {
    static const tram_server_limits good[] = {
        {.max_per_source = 1, .source_bits_ipv4 = 32, .source_bits_ipv6 = 64},
        {.write_high = 1, .write_low = 1},
        {.write_low = SIZE_MAX / 4},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct shop shop = open_shop(*state, &good[i]);
        close_shop(&shop);
    }
}

static void test_V_39_a_server_without_limits_has_counts_of_nothing(void **state) {
    struct shop shop = open_shop(*state, NULL);
    tram_limit_counts counts = counts_of(&shop), none = {0};
    assert_memory_equal(&counts, &none, sizeof none);
    close_shop(&shop);
}

static void test_V_33_V_39_unix_servers_have_limits_but_no_sources(void **state) {
    struct world *world = *state;
    char name[64];
    size_t size = (size_t)snprintf(name, sizeof name, "%ctram-limits-%d", 0, (int)getpid());
    const tram_server_limits of_sources = {.max_per_source = 1};
    const tram_server_limits limits = {.max_connections = 1, .idle_timeout_ns = 5 * SECOND};
    tram_unix_server_options options = {.limits = &of_sources};
    tram_future *future;
    refuse_all = buffered = false;
    assert_int_equal(tram_loop_create_unix_server(world->loop, factory, world, name, size, &options, &future),
                     TRAM_EVALUE);
    options.limits = &limits;
    assert_int_equal(tram_loop_create_unix_server(world->loop, factory, world, name, size, &options, &future), 0);
    struct shop shop = {.world = world, .server = await_server(world, future)};
    tram_socket_address address;
    int fds[2];
    assert_int_equal(tram_socket_address_unix(name, size, &address), 0);
    for (size_t i = 0; i < 2; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&address.address, address.size), 0);
    }
    run_to_rest(world);
    char byte;
    assert_true(recv(fds[1], &byte, 1, 0) <= 0);
    assert_int_equal(counts_of(&shop).refused_connections, 1);
    pass(world, 4 * SECOND);
    assert_int_equal(tram_transport_send_fds(transport_of_last(&shop), "x", 1, &fds[1], 1), 0);
    pass(world, 4 * SECOND); /* what goes with descriptors moves, too */
    assert_trace(world, "made");
    pass(world, SECOND);
    assert_trace(world, "lost:ETIMEDOUT (idle) released");
    close(fds[0]);
    close(fds[1]);
    close_shop(&shop);
}

/* ---- Without memory ---- */

static void test_X_1_a_server_with_limits_is_made_or_not(void **state) {
    struct world *world = *state;
    const tram_server_limits limits = {.max_per_source = 1, .idle_timeout_ns = SECOND};
    const tram_server_options options = {.limits = &limits};
    for (size_t n = 0; n < 60; n++) {
        world_use_sys(world, &sys);
        world->fail_after = n;
        tram_future *future = NULL;
        int status = tram_loop_create_server(world->loop, factory, world, "127.0.0.1", "0", &options, &future);
        if (!status)
            run_ticks(world, 3);
        world->fail_after = SIZE_MAX;
        void *server = NULL;
        if (!status) {
            status = tram_future_result(future, &server);
            tram_future_release(future);
        }
        if (!status) {
            struct shop shop = {.world = world, .server = server};
            close_shop(&shop);
            return;
        }
        assert_int_equal(status, -ENOMEM);
    }
    fail_msg("never had enough memory");
}

/* One allocation after another fails while a client comes: it costs that client at most, and no count. */
static void test_X_1_V_34_a_client_without_memory_takes_no_place(void **state) {
    struct world *world = *state;
    const tram_server_limits limits = {.max_connections = 2, .max_per_source = 2, .idle_timeout_ns = SECOND};
    unsigned failed = 0;
    for (size_t n = 0; n < 12; n++) {
        world_use_sys(world, &sys);
        struct shop shop = open_shop(world, &limits);
        int fds[2];
        for (int i = 0; i < 2; i++) {
            world->fail_once = true;
            world->fail_after = i ? SIZE_MAX : n;
            size_t before = world->failures;
            fds[i] = visit(&shop);
            failed += world->failures > before;
        }
        world->fail_after = SIZE_MAX;
        if (tram_server_connection_count(shop.server) == 1) {
            close(fds[0]);
            fds[0] = visit(&shop);
        }
        assert_int_equal(tram_server_connection_count(shop.server), 2);
        assert_reset(visit(&shop));
        close(fds[0]);
        close(fds[1]);
        close_shop(&shop);
    }
    assert_true(failed >= 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(V_31_one_more_is_reset_and_nothing_is_made_for_it),
        TEST(V_31_of_a_burst_the_first_get_in),
        TEST(V_31_V_17_also_of_those_that_wait_when_it_closes),
        TEST(V_33_of_each_source),
        TEST(V_33_a_source_may_be_a_network),
        TEST(V_33_who_is_refused_otherwise_counts_for_no_source),
        TEST(V_34_a_failing_factory_takes_no_place),
        TEST(V_34_V_37_a_detached_connection_counts_no_more_and_has_no_deadline),
        TEST(V_19_V_34_clients_with_deadlines_are_closed_and_aborted),
        TEST(V_35_first_byte),
        TEST(V_35_V_36_idle),
        TEST(V_35_total),
        TEST(V_35_a_slow_loris_lives_as_long_as_the_total_and_no_longer),
        TEST(V_35_the_reason_is_the_deadline_that_came_first),
        TEST(V_35_W_31_the_total_ends_a_close_that_lingers),
        TEST(V_35_of_deadlines_at_one_time_the_first_byte_is_the_reason),
        TEST(V_35_buffered_protocols_too),
        TEST(V_35_before_connection_made),
        TEST(V_36_who_does_not_read_is_idle),
        TEST(V_36_a_queue_that_moves_is_not_idle_and_one_that_stands_is),
        TEST(V_36_a_file_that_is_sent_is_no_idleness),
        TEST(V_36_every_way_of_writing_counts),
        TEST(V_37_a_close_that_cannot_flush_ends),
        TEST(V_37_a_half_closed_connection_is_idle_in_time),
        TEST(V_37_who_never_sends_a_byte_but_the_end),
        TEST(V_37_another_protocol_has_the_same_time),
        TEST(V_34_V_37_a_bridged_connection_counts_and_has_its_time),
        TEST(V_36_V_37_bulk_through_a_bridge_is_no_idleness),
        TEST(V_37_times_without_end_never_come),
        TEST(V_38_water_marks_of_every_connection),
        TEST(V_38_the_hard_limit_of_writing),
        TEST(V_39_bad_values),
        TEST(V_39_the_last_good_values),
        TEST(V_39_a_server_without_limits_has_counts_of_nothing),
        TEST(V_33_V_39_unix_servers_have_limits_but_no_sources),
        TEST(X_1_a_server_with_limits_is_made_or_not),
        TEST(X_1_V_34_a_client_without_memory_takes_no_place),
    };
    return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
