/*
 * Where TLS meets everything else: the parts of the rules of group S that need a certain moment. What a connection does
 * in the ordinary way is in test_tls_transport.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/limits.h"
#include "support/stream.h"
#include "support/tls/ends.h"
#include "transports/limits/sources.h"
#include "transports/server/types.h"
#include <tram/custom.h>
#include <tram/pipe.h>
#include <tram/runtime.h>

static bool future_is_done(void *arg) {
    return tram_future_done(arg);
}

static int fd_of(tram_transport *transport) {
    const tram_socket *socket = tram_transport_get_extra_info(transport, "socket", NULL);
    assert_non_null(socket);
    return socket->fd;
}

/* The end of the peer's stream has come, behind whatever waits to be read. */
static bool has_ended(int fd) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLRDHUP};
    return poll(&poll_fd, 1, 0) > 0 && poll_fd.revents & POLLRDHUP;
}

static bool fd_has_ended(void *arg) {
    return has_ended(*(const int *)arg);
}

/* ---- Beginning ---- */

static int write_at_once(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") != 0)
        return 0;
    assert_non_null(tram_transport_get_extra_info(recorder->base.transport, "cipher", NULL)); /* S-1 */
    return tram_transport_write(recorder->base.transport, "first", 5);
}

/* The last flight of TLS 1.2 is the server's, and its first bytes are right behind it. */
static void test_S_1_S_2_S_10_the_creator_goes_on_before_data_of_the_same_packet(void **state) {
    struct world *world = *state;
    tram_tls_config *old =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .max_version = TRAM_TLS_1_2});
    struct ends ends;
    ends_prepare(world, &ends, servers);
    ends.client->on = ends.peer->on = write_at_once;
    ends_begin(world, &ends, &(tram_connection_options){.tls = old});
    run_until_received(ends.client, 5);
    run_until_received(ends.peer, 5);
    const char *made = strstr(world->trace, "c.made"), *connected = strstr(world->trace, "connected"),
               *data = strstr(world->trace, "c.data:5");
    assert_true(made && connected && data && made < connected && connected < data);
    assert_memory_equal(ends.client->bytes, "first", 5);
    ends_close(&ends);
    tram_tls_config_release(old);
}

/* A peer that answers a hello with this, and ends; what the creator of the client gets. */
static int answer_with(struct world *world, struct ends *ends, const char *answer) {
    uint16_t port;
    int listener = tcp_listener(1, &port);
    char text[8], hello[5];
    snprintf(text, sizeof text, "%u", port);
    const tram_connection_options options = {.tls = clients, .server_hostname = "localhost"};
    assert_int_equal(
        tram_loop_create_connection(world->loop, client_factory, NULL, "127.0.0.1", text, &options, &ends->connecting),
        0);
    run_to_rest(world);
    int accepted = accept(listener, NULL, NULL);
    assert_true(accepted >= 0);
    receive_exactly(world, accepted, hello, sizeof hello);
    send_exactly(world, accepted, answer, strlen(answer));
    assert_int_equal(shutdown(accepted, SHUT_WR), 0);
    int code = tram_loop_run_until_complete(world->loop, ends->connecting);
    run_until_traced(world, "c.released");
    assert_trace(world, "c.released");
    close(accepted);
    close(listener);
    return code;
}

static void test_S_4_an_end_in_order_is_a_reset_and_nonsense_is_named(void **state) {
    struct ends ends;
    ends_prepare(*state, &ends, servers);
    assert_int_equal(answer_with(*state, &ends, ""), -ECONNRESET);
    assert_non_null(strstr(tram_future_error(ends.connecting)->detail, "closed the connection"));
    ends_close(&ends);
    ends_prepare(*state, &ends, servers);
    assert_int_equal(answer_with(*state, &ends, "HTTP/1.1 400 Bad Request\r\n\r\n"), TRAM_ETLS);
    assert_non_null(strstr(tram_future_error(ends.connecting)->detail, "wrong version number"));
    ends_close(&ends);
}

/* A hello of any client, as it stands on the wire; its size. */
static size_t make_hello(void *memory, size_t size) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(context);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    assert_true(ssl && in && out);
    SSL_set_bio(ssl, in, out);
    assert_true(SSL_connect(ssl) < 0);
    int got = BIO_read(out, memory, (int)size);
    assert_true(got > 100);
    SSL_free(ssl);
    SSL_CTX_free(context);
    return (size_t)got;
}

static bool has_one(void *arg) {
    return tram_server_connection_count(arg) == 1;
}

/* A connection to the server that is in its handshake: half of the hello was read. */
static int connect_half(struct world *world, struct ends *ends) {
    char hello[4096];
    size_t size = make_hello(hello, sizeof hello);
    int fd = tcp_connect(server_port(ends->server));
    assert_true(fd >= 0);
    run_until_true(world, has_one, ends->server);
    send_exactly(world, fd, hello, size / 2);
    run_to_rest(world);
    assert_true(tram_server_connection_count(ends->server) == 1);
    return fd;
}

static void test_S_6_a_server_ends_who_is_in_the_handshake(void **state) {
    struct world *world = *state;
    int (*const calls[])(tram_server *) = {tram_server_close_clients, tram_server_abort_clients};
    for (size_t i = 0; i < 2; i++) {
        struct ends ends;
        ends_prepare(world, &ends, servers);
        int fd = connect_half(world, &ends);
        assert_int_equal(calls[i](ends.server), 0);
        run_until_traced(world, "s.released");
        assert_trace(world, "s.released");
        receive_eof(world, fd);
        assert_int_equal(tram_server_connection_count(ends.server), 0);
        assert_int_equal(world->exceptions, 0);
        close(fd);
        ends_close(&ends);
    }
}

static void test_S_6_G_2_a_drain_waits_but_a_moment_for_who_is_in_the_handshake(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_future *draining;
    tram_stats stats;
    ends_prepare(world, &ends, servers);
    int fd = connect_half(world, &ends);
    assert_int_equal(tram_server_drain(ends.server, 60000000000, &draining), 0);
    run_until_true(world, future_is_done, draining);
    run_until_traced(world, "s.released");
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.expired_grace, 0);
    assert_null(strstr(world->trace, "made"));
    tram_future_release(draining);
    close(fd);
    ends_close(&ends);
}

/* One that goes on finishes it, and gets our close_notify. */
static void test_S_6_G_2_a_drain_lets_a_handshake_end_in_order(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_future *draining;
    ends_prepare(world, &ends, servers);
    ends_begin(world, &ends, &(tram_connection_options){0});
    run_until_true(world, has_one, ends.server);
    assert_int_equal(tram_server_drain(ends.server, 60000000000, &draining), 0);
    run_until_traced(world, "s.lost:0");
    run_until_traced(world, "c.lost:0");
    assert_non_null(strstr(world->trace, "s.made"));
    assert_non_null(strstr(world->trace, "connected"));
    run_until_true(world, future_is_done, draining);
    tram_future_release(draining);
    ends_close(&ends);
}

static void test_S_6_S_30_close_and_abort_end_a_start_tls(void **state) {
    struct world *world = *state;
    int (*const calls[])(tram_transport *) = {tram_transport_close, tram_transport_abort};
    for (size_t i = 0; i < 2; i++) {
        struct upgrade upgrade = {0};
        upgrade_open(world, &upgrade);
        struct recorder *fresh = recorder_new(world, "n");
        assert_int_equal(upgrade_start(&upgrade, 0, &fresh->base, NULL), 0);
        run_to_rest(world);
        assert_int_equal(calls[i](upgrade.ends[0]), 0);
        assert_true(tram_transport_is_closing(upgrade.ends[0]));
        assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[0]), -ECONNABORTED);
        run_until(world, &fresh->lost);
        assert_null(strstr(world->trace, "n.made"));
        upgrade_close(&upgrade);
        world->trace[0] = '\0';
    }
}

static void test_S_7_a_config_without_options_trusts_whom_the_system_does(void **state) {
    struct world *world = *state;
    tram_tls_config *plain = config_make(NULL);
    struct ends ends;
    ends_prepare(world, &ends, servers);
    ends_begin(world, &ends, &(tram_connection_options){.tls = plain});
    run_until(world, &ends.done);
    assert_int_equal(ends.code, TRAM_ETLS_CERTIFICATE);
    assert_non_null(strstr(tram_future_error(ends.connecting)->detail, "unable to get local issuer certificate"));
    run_until_traced(world, "s.released");
    ends_close(&ends);
    /* An empty name is checked by nobody, but the certificate is. */
    ends_open_with(world, &ends, servers, &(tram_connection_options){.server_hostname = ""});
    assert_null(tram_transport_get_extra_info(ends.peer->base.transport, "server_hostname", NULL));
    ends_close(&ends);
    const tram_server_options serving = {.tls = plain};
    assert_int_equal(tram_loop_create_server(world->loop, peer_factory, NULL, "127.0.0.1", "0", &serving, NULL),
                     TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "certificates");
    tram_tls_config_release(plain);
}

/* Even one that would be none. */
static void test_C_19_early_data_would_go_before_tls(void **state) {
    struct world *world = *state;
    const tram_connection_options options = {.tls = clients, .early_data = "plain", .early_size = 5};
    assert_wrong(tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", "1", &options, NULL),
                 "early_data");
}

/* The kernel takes none of the header at first: what is left of it goes before all of TLS. */
static void test_C_19_S_1_a_header_that_waits_goes_before_tls(void **state) {
    static const char text[] = "PROXY UNKNOWN\r\n";
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    char filler[4096] = "", bytes[sizeof text];
    size_t filled = 0;
    for (ssize_t sent; (sent = send(pair[0], filler, sizeof filler, 0)) > 0;)
        filled += (size_t)sent;
    const tram_proxy_header header = {.version = 1};
    const tram_connection_options options = {
        .tls = clients, .server_hostname = "localhost", .proxy_header = &header, .sock = &pair[0]};
    tram_future *connecting;
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, NULL, NULL, &options, &connecting), 0);
    run_ticks(world, 5);
    assert_false(tram_future_done(connecting)); /* it waits for the handshake */
    for (; filled; filled -= sizeof filler)
        receive_exactly(world, pair[1], filler, sizeof filler);
    receive_exactly(world, pair[1], bytes, sizeof bytes);
    assert_memory_equal(bytes, text, sizeof text - 1);
    assert_int_equal(bytes[sizeof text - 1], 22); /* a record of the handshake */
    tram_future_cancel(connecting);
    tram_future_release(connecting);
    run_until_traced(world, "released");
    close(pair[1]);
}

static void test_S_8_a_servers_side_has_no_server_hostname(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    upgrade_open(world, &upgrade);
    const tram_start_tls_options options = {.tls = servers, .server_side = true, .server_hostname = "no host"};
    assert_int_equal(tram_loop_start_tls(world->loop, upgrade.ends[1], NULL, &options, &upgrade.starting[1]), 0);
    assert_int_equal(upgrade_start(&upgrade, 0, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[1]), 0);
    assert_string_equal(tram_transport_get_extra_info(upgrade.ends[1], "server_hostname", NULL), "localhost");
    upgrade_close(&upgrade);
}

static void test_S_9_alpn_is_among_the_extra_info_or_refused(void **state) {
    struct world *world = *state;
    static const char *const ours[] = {"b/1", "a/1", NULL}, *const theirs[] = {"a/1", "b/1", NULL},
                             *const others[] = {"c/1", NULL};
    tram_tls_certificate identity = identity_of(authority.server);
    tram_tls_config *server =
        config_make(&(tram_tls_options){.certificates = &identity, .certificate_count = 1, .alpn = ours});
    tram_tls_config *good = config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .alpn = theirs});
    tram_tls_config *other = config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .alpn = others});
    struct ends ends;
    ends_open_with(world, &ends, server, &(tram_connection_options){.tls = good});
    assert_string_equal(tram_transport_get_extra_info(ends.client->base.transport, "alpn", NULL), "b/1");
    assert_string_equal(tram_transport_get_extra_info(ends.peer->base.transport, "alpn", NULL), "b/1");
    ends_close(&ends);
    ends_prepare(world, &ends, server);
    ends_begin(world, &ends, &(tram_connection_options){.tls = other});
    run_until(world, &ends.done);
    assert_int_equal(ends.code, TRAM_ETLS);
    assert_non_null(strstr(tram_future_error(ends.connecting)->detail, "no application protocol"));
    run_until_traced(world, "s.released");
    ends_close(&ends);
    tram_tls_config_release(server);
    tram_tls_config_release(good);
    tram_tls_config_release(other);
}

/* ---- A handshake's share of a loop ---- */

static int healthy_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = &((struct recorder *)arg)->base;
    return 0;
}

struct stranger {
    tram_protocol base;
};

static void stranger_released(tram_protocol *protocol) {
    free(protocol);
}

static const tram_protocol_ops stranger_ops = {.released = stranger_released};

static int stranger_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop, (void)arg;
    struct stranger *stranger = calloc(1, sizeof *stranger);
    stranger->base.ops = &stranger_ops;
    *ret_protocol = &stranger->base;
    return 0;
}

static int no_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop, (void)arg, (void)ret_protocol;
    return -EXDEV;
}

static tram_server *serve_strangers(struct world *world, const tram_server_limits *limits) {
    const tram_server_options options = {.tls = servers, .backlog = 200, .limits = limits};
    tram_future *future;
    void *server = NULL;
    assert_int_equal(tram_loop_create_server(world->loop, stranger_factory, NULL, "127.0.0.1", "0", &options, &future),
                     0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    return server;
}

static uint64_t steps_of(struct world *world) {
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    return stats.tls_steps;
}

static bool all_are_answered(const int *fds, int count) {
    for (int i = 0; i < count; i++) {
        struct pollfd poll_fd = {.fd = fds[i], .events = POLLIN};
        if (poll(&poll_fd, 1, 0) == 0)
            return false;
    }
    return true;
}

/* rules: S-1 */
static void test_handshakes_that_begin_together_leave_room_between_them(void **state) {
    enum { CROWD = 60 };
    struct world *world = *state;
    struct wire healthy = wire_new_made(world, recorder_new(world, NULL));
    healthy.recorder->quiet_data = true;
    tram_server *server = serve_strangers(world, NULL);
    char hello[4096];
    size_t size = make_hello(hello, sizeof hello);
    int fds[CROWD];
    for (int i = 0; i < CROWD; i++) {
        fds[i] = tcp_connect(server_port(server));
        assert_true(fds[i] >= 0);
        set_blocking(fds[i], false);
        assert_int_equal(send(fds[i], hello, size, MSG_NOSIGNAL), (ssize_t)size);
    }
    uint64_t before = steps_of(world), most = 0;
    tram_stats stats;
    for (int tick = 0; !all_are_answered(fds, CROWD); tick++) {
        assert_true(tick < 20000);
        size_t received = healthy.recorder->received;
        assert_int_equal(send(healthy.peer, "x", 1, MSG_NOSIGNAL), 1);
        await_events(healthy.fd, POLLIN);
        run_ticks(world, 1);
        assert_int_equal(healthy.recorder->received, received + 1); /* it has its turn in every tick */
        uint64_t now = steps_of(world);
        most = now - before > most ? now - before : most;
        before = now;
    }
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(most, TRAM_TLS_STEPS_PER_TICK);
    assert_true(stats.tls_postponed > 0);
    for (int i = 0; i < CROWD; i++)
        close_with_reset(fds[i]);
    while (tram_server_connection_count(server))
        run_ticks(world, 1);
    tram_server_close(server);
    tram_server_release(server);
    close_with_reset(healthy.peer);
    run_until(world, &healthy.recorder->was_released);
}

/* ---- A source's share of handshakes ---- */

/* -1 with errno: it was refused before connect() has returned. */
static int connect_from(const char *host, uint16_t port) {
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, host, &from.sin_addr);
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    close(fd);
    return -1;
}

struct presence {
    tram_server *server;
    size_t count;
};

static bool is_present(void *arg) {
    const struct presence *presence = arg;
    return tram_server_connection_count(presence->server) == presence->count;
}

static void await_presence(struct world *world, tram_server *server, size_t count) {
    run_until_true(world, is_present, &(struct presence){server, count});
}

/* Who has connected, and says nothing: the handshake is under way from the accept on. */
static int begin_from(struct world *world, tram_server *server, const char *host) {
    size_t before = tram_server_connection_count(server);
    int fd = connect_from(host, server_port(server));
    assert_true(fd >= 0);
    await_presence(world, server, before + 1);
    return fd;
}

static void assert_refused(struct world *world, uint16_t port) {
    int fd = connect_from("127.0.0.1", port);
    if (fd >= 0)
        assert_false(receive_eof(world, fd));
    assert_int_equal(errno, ECONNRESET);
    if (fd >= 0)
        close(fd);
}

static void test_V_33_handshakes_of_each_source(void **state) {
    struct world *world = *state;
    const tram_server_limits limits = {.max_handshakes_per_source = 2};
    tram_limit_counts counts;
    tram_server *server = serve_strangers(world, &limits);
    int fds[3] = {begin_from(world, server, "127.0.0.1"), begin_from(world, server, "127.0.0.1")};
    assert_refused(world, server_port(server));
    fds[2] = begin_from(world, server, "127.0.0.2"); /* others have their own */
    assert_int_equal(tram_server_limit_counts(server, &counts), 0);
    assert_int_equal(counts.refused_handshakes, 1);
    close_with_reset(fds[0]); /* whoever goes gives the place back */
    await_presence(world, server, 2);
    fds[0] = begin_from(world, server, "127.0.0.1");
    assert_refused(world, server_port(server));
    send_exactly(world, fds[0], "GET / HTTP/1.0\r\n\r\n", 18); /* also who fails */
    await_presence(world, server, 2);
    close(fds[0]);
    struct ends ends = {.world = world, .server = server}; /* and who has done it, and stays */
    ends.client = next_client = recorder_new(world, "c");
    ends_begin(world, &ends, &(tram_connection_options){0});
    run_until(world, &ends.done);
    assert_int_equal(ends.code, 0);
    await_presence(world, server, 3);
    run_to_rest(world);
    fds[0] = begin_from(world, server, "127.0.0.1");
    assert_refused(world, server_port(server));
    assert_int_equal(tram_server_limit_counts(server, &counts), 0);
    assert_int_equal(counts.refused_handshakes, 3);
    assert_int_equal(tram_server_abort_clients(server), 0);
    await_presence(world, server, 0);
    assert_int_equal(tram__sources_count(server->limits->handshakes), 0);
    run_until(world, &ends.client->was_released);
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
    tram_future_release(ends.connecting);
    tram_server_close(server);
    tram_server_release(server);
    run_to_rest(world);
}

static void test_V_33_V_34_a_failing_factory_leaves_no_handshake(void **state) {
    struct world *world = *state;
    const tram_server_limits limits = {.max_handshakes_per_source = 1};
    const tram_server_options options = {.tls = servers, .limits = &limits};
    tram_future *future;
    assert_int_equal(tram_loop_create_server(world->loop, no_factory, NULL, "127.0.0.1", "0", &options, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    tram_server *server = tram_future_server(future);
    for (int i = 0; i < 3; i++) {
        int fd = connect_from("127.0.0.1", server_port(server));
        assert_true(receive_eof(world, fd));
        close(fd);
    }
    tram_future_release(future);
    tram_server_close(server);
    tram_server_release(server);
}

static void test_V_33_V_39_handshakes_need_tls_and_sources(void **state) {
    struct world *world = *state;
    const tram_server_limits limits = {.max_handshakes_per_source = 1};
    const tram_unix_server_options local = {.tls = servers, .limits = &limits};
    assert_wrong(tram_loop_create_server(world->loop, peer_factory, NULL, "127.0.0.1", "0",
                                         &(tram_server_options){.limits = &limits}, NULL),
                 "max_handshakes_per_source");
    assert_wrong(tram_loop_create_unix_server(world->loop, peer_factory, NULL, "never", 5, &local, NULL),
                 "max_handshakes_per_source");
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_wrong(tram_loop_create_server(world->loop, peer_factory, NULL, NULL, NULL,
                                         &(tram_server_options){.sock = &sock, .tls = servers, .limits = &limits},
                                         NULL),
                 "max_handshakes_per_source");
    close(sock);
}

/* A handshake counts on whatever worker it is. */
static void test_V_32_V_33_handshakes_of_each_source_over_all_workers(void **state) {
    struct world *world = *state;
    const tram_server_limits limits = {.max_handshakes_per_source = 3};
    const tram_server_options options = {.tls = servers, .limits = &limits, .shard = TRAM_SHARD_HANDOFF};
    const tram_runtime_options house = {.workers = 2};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    assert_int_equal(tram_runtime_new(&house, &runtime), 0);
    assert_int_equal(
        tram_runtime_create_server(runtime, stranger_factory, NULL, "127.0.0.1", "0", &options, &server, NULL), 0);
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    uint16_t port = (uint16_t)tram_socket_address_port(&address);
    int fds[3];
    for (size_t i = 0; i < 3; i++)
        fds[i] = connect_from("127.0.0.1", port);
    for (int i = 0; i < 3; i++) /* they were accepted in the order in which they came */
        assert_refused(world, port);
    tram_runtime_free(runtime);
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
}

/* ---- Bytes ---- */

/* Writes until the kernel takes nothing more: at least one record lies in the queue. */
static size_t fill_with(struct world *world, tram_transport *transport) {
    static char block[65536];
    size_t sent = 0;
    while (tram_transport_get_write_buffer_size(transport) == 0) {
        assert_true(sent < 100000000);
        assert_int_equal(tram_transport_write(transport, block, sizeof block), 0);
        sent += sizeof block;
        run_to_rest(world);
    }
    return sent;
}

static void test_S_11_S_22_the_write_buffer_is_counted_as_it_goes_out(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    ends.peer->quiet_data = true;
    ends.peer->keep = false;
    assert_int_equal(tram_transport_write(ends.client->base.transport, "at once", 7), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(ends.client->base.transport), 0);
    assert_int_equal(tram_transport_pause_reading(ends.peer->base.transport), 0);
    size_t sent = 7 + fill_with(world, ends.client->base.transport);
    size_t before = tram_transport_get_write_buffer_size(ends.client->base.transport);
    static char bytes[1000];
    assert_int_equal(tram_transport_write(ends.client->base.transport, bytes, sizeof bytes), 0);
    /* The header of a record, its type and its tag. */
    assert_int_equal(tram_transport_get_write_buffer_size(ends.client->base.transport), before + sizeof bytes + 22);
    assert_int_equal(tram_transport_resume_reading(ends.peer->base.transport), 0);
    run_until_received(ends.peer, sent + sizeof bytes);
    assert_int_equal(tram_transport_get_write_buffer_size(ends.client->base.transport), 0);
    ends_close(&ends);
}

static int pause_at_data(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0 ? tram_transport_pause_reading(recorder->base.transport) : 0;
}

/* Paused before something comes, or by the first of it. */
static void test_S_21_a_paused_transport_holds_one_receive_at_most(void **state) {
    struct world *world = *state;
    for (int at_data = 0; at_data < 2; at_data++) {
        struct ends ends;
        tram_stats before, after;
        ends_open(world, &ends);
        ends.peer->quiet_data = true;
        ends.peer->keep = false;
        size_t blocks = world->live_bytes;
        tram_loop_stats(world->loop, &before);
        if (at_data)
            ends.peer->on = pause_at_data;
        else
            assert_int_equal(tram_transport_pause_reading(ends.peer->base.transport), 0);
        size_t sent = fill_with(world, ends.client->base.transport);
        tram_loop_stats(world->loop, &after);
        assert_true(sent > 300000);
        assert_true(after.bytes_received - before.bytes_received <= 262144);
        assert_true(world->live_bytes < blocks + 262144 + 2 * 65536 + 65536); /* a receive, and the writer's queue */
        ends.peer->on = NULL;
        assert_int_equal(tram_transport_resume_reading(ends.peer->base.transport), 0);
        run_until_received(ends.peer, sent);
        ends_close(&ends);
    }
}

enum { TINY = 1000 };

/* So many records of one byte in one send. */
static void send_tiny(tram_transport *transport) {
    assert_int_equal(tram_transport_cork(transport), 0);
    for (int i = 0; i < TINY; i++)
        assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    assert_int_equal(tram_transport_uncork(transport), 0);
}

/* Many records in one receive: others have their turn between, and nothing is lost. */
static void test_Y_3_S_10_tiny_records_leave_room_between_them(void **state) {
    struct world *world = *state;
    struct wire healthy = wire_new_made(world, recorder_new(world, NULL));
    healthy.recorder->quiet_data = true;
    struct ends ends;
    ends_open(world, &ends);
    ends.peer->quiet_data = true;
    send_tiny(ends.client->base.transport);
    assert_int_equal(tram_transport_close(ends.client->base.transport), 0);
    while (ends.peer->received < TINY) {
        size_t before = ends.peer->received, received = healthy.recorder->received;
        assert_int_equal(send(healthy.peer, "x", 1, MSG_NOSIGNAL), 1);
        await_events(healthy.fd, POLLIN);
        run_ticks(world, 1);
        assert_int_equal(healthy.recorder->received, received + 1);
        assert_true(ends.peer->received - before <= 2 * TRAM_LAYER_READS_PER_TICK);
        assert_true(ends.peer->received == TINY || !strstr(world->trace, "s.eof"));
    }
    assert_int_equal(ends.peer->received, TINY);
    run_until_traced(world, "s.eof");
    run_until_traced(world, "s.lost:0");
    run_until_traced(world, "c.lost:0");
    ends_close(&ends);
    close_with_reset(healthy.peer);
    run_until(world, &healthy.recorder->was_released);
}

static bool has_some(void *arg) {
    return ((struct recorder *)arg)->received > 0;
}

/* What a peer sends meanwhile stays in the kernel, where it is told to wait: nothing piles up here. */
static void test_Y_3_S_21_nothing_is_received_while_records_are_behind(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_stats before, after;
    ends_open(world, &ends);
    ends.peer->quiet_data = true;
    send_tiny(ends.client->base.transport);
    run_until_true(world, has_some, ends.peer);
    send_tiny(ends.client->base.transport);
    tram_loop_stats(world->loop, &before);
    for (int turn = 0; turn < 3; turn++) {
        run_ticks(world, 1);
        assert_true(ends.peer->received < TINY - TRAM_LAYER_READS_PER_TICK);
        tram_loop_stats(world->loop, &after);
        assert_int_equal(after.bytes_received, before.bytes_received);
    }
    run_until_received(ends.peer, 2 * TINY);
    ends_close(&ends);
}

/* What came before a server drains is delivered before the connection is closed for it. */
static void test_Y_3_G_1_a_drain_waits_for_what_is_behind(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_future *draining;
    ends_open(world, &ends);
    ends.peer->quiet_data = true;
    send_tiny(ends.client->base.transport);
    run_until_true(world, has_some, ends.peer);
    assert_true(ends.peer->received < TINY);
    assert_int_equal(tram_server_drain(ends.server, 60000000000, &draining), 0);
    run_until_true(world, future_is_done, draining);
    assert_int_equal(ends.peer->received, TINY);
    run_until_traced(world, "s.lost:0");
    run_until_traced(world, "c.lost:0");
    tram_future_release(draining);
    ends_close(&ends);
}

static int pause_at_seventieth(struct recorder *recorder, const char *event) {
    bool now = strcmp(event, "data") == 0 && recorder->received == 70;
    return now ? tram_transport_pause_reading(recorder->base.transport) : 0;
}

static int close_at_data(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0 ? tram_transport_close(recorder->base.transport) : 0;
}

/* A protocol that pauses meanwhile, or closes, hears no more. */
static void test_Y_3_S_19_pausing_and_closing_while_records_are_behind(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    ends.peer->quiet_data = true;
    ends.peer->on = pause_at_seventieth;
    send_tiny(ends.client->base.transport);
    run_until_received(ends.peer, 70);
    run_to_rest(world);
    assert_int_equal(ends.peer->received, 70);
    assert_int_equal(tram_transport_resume_reading(ends.peer->base.transport), 0);
    run_until_received(ends.peer, TINY);
    ends.peer->on = close_at_data;
    send_tiny(ends.client->base.transport);
    run_until_traced(world, "s.lost:0");
    assert_int_equal(ends.peer->received, TINY + 1);
    run_until_traced(world, "c.lost:0");
    ends_close(&ends);
}

/* Pausing between two records of one receive: the second waits where it was. */
static void test_S_19_S_21_pausing_between_records_of_one_receive(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    ends.peer->on = pause_at_data;
    assert_int_equal(tram_transport_cork(ends.client->base.transport), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_transport_write(ends.client->base.transport, "record", 6), 0);
    assert_int_equal(tram_transport_uncork(ends.client->base.transport), 0);
    assert_int_equal(tram_transport_close(ends.client->base.transport), 0);
    for (size_t i = 1; i <= 3; i++) {
        run_until_received(ends.peer, 6 * i);
        run_to_rest(world);
        assert_int_equal(ends.peer->received, 6 * i);
        assert_null(strstr(world->trace, "s.eof"));
        assert_int_equal(tram_transport_resume_reading(ends.peer->base.transport), 0);
        assert_int_equal(ends.peer->received, 6 * i); /* from a call_soon */
    }
    run_until_traced(world, "s.eof");
    run_until_traced(world, "s.lost:0");
    run_until_traced(world, "c.lost:0");
    ends_close(&ends);
}

static void test_S_25_tickets_and_new_keys_call_nobody(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_buffer *session = NULL;
    ends_open(world, &ends);
    assert_int_equal(tram_tls_session(ends.client->base.transport, &session), 0);
    assert_non_null(session); /* so the tickets have come */
    tram_buffer_release(session);
    SSL *ssl = (SSL *)(uintptr_t)tram_transport_get_extra_info(ends.client->base.transport, "ssl_object", NULL);
    for (int round = 0; round < 5; round++) {
        assert_int_equal(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(tram_transport_write(ends.client->base.transport, "behind new keys", 15), 0);
        run_until_received(ends.peer, 15 * (size_t)(round + 1));
        assert_int_equal(tram_transport_write(ends.peer->base.transport, "and back", 8), 0);
        run_until_received(ends.client, 8 * (size_t)(round + 1));
    }
    assert_null(strstr(world->trace, "lost"));
    assert_null(strstr(world->trace, "pause"));
    assert_null(strstr(world->trace, "eof"));
    assert_int_equal(world->warnings + world->errors, 0);
    ends_close(&ends);
}

static bool file_is_sent(void *arg) {
    return tram_future_done(arg);
}

static void test_S_32_F_9_a_file_goes_by_blocks_or_not_at_all(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_future *future;
    uint64_t sent = 0;
    ends_open(world, &ends);
    ends.peer->quiet_data = true;
    char bytes[50000], name[] = "/tmp/tram-tls-file-XXXXXX";
    pattern(bytes, sizeof bytes, 0);
    int file = mkstemp(name);
    unlink(name);
    assert_int_equal(write(file, bytes, sizeof bytes), (ssize_t)sizeof bytes);
    const tram_sendfile_options native = {.no_fallback = true};
    assert_int_equal(tram_loop_sendfile(world->loop, ends.client->base.transport, file, 0, 50000, &native, &future), 0);
    run_until_true(world, file_is_sent, future);
    assert_int_equal(tram_future_result(future, NULL), TRAM_ENOSENDFILE);
    tram_future_release(future);
    assert_int_equal(ends.peer->received, 0);
    assert_int_equal(tram_loop_sendfile(world->loop, ends.client->base.transport, file, 0, 50000, NULL, &future), 0);
    run_until_received(ends.peer, sizeof bytes);
    run_until_true(world, file_is_sent, future);
    assert_int_equal(tram_future_count(future, &sent), 0);
    assert_int_equal(sent, sizeof bytes);
    assert_pattern(ends.peer->bytes, sizeof bytes, 0);
    tram_future_release(future);
    close(file);
    ends_close(&ends);
}

/* ---- Ends ---- */

static void test_S_15_what_comes_after_close_is_read_and_dropped(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    static char block[40000];
    assert_int_equal(tram_transport_write(ends.peer->base.transport, block, sizeof block), 0);
    assert_int_equal(tram_transport_close(ends.client->base.transport), 0);
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, "s.lost:0");
    assert_int_equal(ends.client->received, 0);
    assert_null(strstr(world->trace, "c.eof"));
    ends_close(&ends);
}

/* The peer reads nothing meanwhile, so nothing of its comes back. */
static void ends_at_once(struct world *world, int (*end)(struct ends *ends, tram_future **ret_future)) {
    struct ends ends;
    tram_future *future = NULL;
    ends_open(world, &ends);
    tram_transport *client = tram_transport_hold(ends.client->base.transport);
    tram_transport *peer = tram_transport_hold(ends.peer->base.transport);
    int fd = fd_of(client);
    assert_int_equal(tram_transport_pause_reading(client), 0);
    run_to_rest(world);
    assert_int_equal(tram_transport_write(peer, "last words", 10), 0);
    assert_false(has_ended(fd));
    assert_int_equal(end(&ends, &future), 0);
    run_until_true(world, fd_has_ended, &fd);
    assert_null(strstr(world->trace, "s.lost")); /* it waits for the peer's close_notify */
    assert_int_equal(tram_transport_resume_reading(client), 0);
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, "s.lost:0");
    assert_int_equal(ends.client->received, 10);
    assert_false(flag_of(client, "tls_unclean"));
    assert_false(flag_of(peer, "tls_unclean"));
    if (future) {
        run_until_true(world, future_is_done, future);
        tram_future_release(future);
    }
    tram_transport_release(client);
    tram_transport_release(peer);
    ends_close(&ends);
    world->trace[0] = '\0';
}

static int by_close_clients(struct ends *ends, tram_future **ret_future) {
    (void)ret_future;
    return tram_server_close_clients(ends->server);
}

static int by_drain(struct ends *ends, tram_future **ret_future) {
    return tram_server_drain(ends->server, 15000000000, ret_future);
}

static void test_S_15_V_42_a_server_ends_the_stream_with_its_goodbye(void **state) {
    ends_at_once(*state, by_close_clients);
    ends_at_once(*state, by_drain);
}

/* What was written before goes first, however long it takes. */
static void test_S_15_V_42_the_end_of_the_stream_waits_for_what_is_queued(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    tram_transport *client = tram_transport_hold(ends.client->base.transport);
    int fd = fd_of(client);
    ends.client->quiet_data = true;
    ends.client->keep = false;
    assert_int_equal(tram_transport_pause_reading(client), 0);
    size_t sent = fill_with(world, ends.peer->base.transport);
    assert_int_equal(tram_server_close_clients(ends.server), 0);
    run_to_rest(world);
    assert_false(has_ended(fd));
    assert_int_equal(tram_transport_resume_reading(client), 0);
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, "s.lost:0");
    assert_int_equal(ends.client->received, sent);
    assert_false(flag_of(client, "tls_unclean"));
    tram_transport_release(client);
    ends_close(&ends);
}

/* New keys that the peer asks for meanwhile have no answer any more. */
static void test_S_15_V_42_what_a_peer_asks_after_our_end_does_no_harm(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    tram_transport *client = tram_transport_hold(ends.client->base.transport);
    int fd = fd_of(client);
    SSL *ssl = (SSL *)(uintptr_t)tram_transport_get_extra_info(client, "ssl_object", NULL);
    assert_int_equal(tram_transport_pause_reading(client), 0);
    run_to_rest(world);
    assert_int_equal(tram_server_close_clients(ends.server), 0);
    run_until_true(world, fd_has_ended, &fd);
    assert_int_equal(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    assert_int_equal(tram_transport_write(client, "late", 4), 0);
    run_to_rest(world);
    assert_int_equal(tram_transport_resume_reading(client), 0);
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, "s.lost:0");
    assert_int_equal(ends.peer->received, 0);
    tram_transport_release(client);
    ends_close(&ends);
}

/* A peer that says nothing at all is waited for until the grace is over. */
static void test_S_15_V_41_the_grace_ends_the_wait_for_the_peers_goodbye(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_future *draining;
    ends_open(world, &ends);
    assert_int_equal(tram_transport_pause_reading(ends.client->base.transport), 0);
    assert_int_equal(tram_server_drain(ends.server, 20000000, &draining), 0);
    run_until_true(world, future_is_done, draining);
    run_until(world, &ends.peer->lost);
    assert_int_equal(ends.peer->lost_code, 0); /* nothing of ours was lost */
    tram_future_release(draining);
    ends_close(&ends);
}

static void test_S_23_W_6_writes_after_close_are_counted_and_warned_of(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_stats before, after;
    ends_open(world, &ends);
    tram_loop_stats(world->loop, &before);
    assert_int_equal(tram_transport_close(ends.client->base.transport), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(tram_transport_write(ends.client->base.transport, "late", 4), 0);
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, "s.lost:0");
    tram_loop_stats(world->loop, &after);
    assert_int_equal(after.dropped_writes - before.dropped_writes, 10);
    assert_int_equal(world->warnings, 1);
    assert_non_null(strstr(world->log, "were dropped"));
    assert_int_equal(ends.peer->received, 0);
    ends_close(&ends);
}

static void test_S_24_the_carriers_extra_info_is_kept_after_the_end(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    tram_transport *client = tram_transport_hold(ends.client->base.transport);
    ends_close(&ends);
    assert_true(ends.client->lost);
    assert_non_null(tram_transport_get_extra_info(client, "peername", NULL));
    assert_non_null(tram_transport_get_extra_info(client, "sockname", NULL));
    assert_ptr_equal(tram_transport_get_extra_info(client, "sslcontext", NULL), clients);
    assert_non_null(tram_transport_get_extra_info(client, "peercert", NULL));
    assert_non_null(tram_transport_get_extra_info(client, "cipher", NULL));
    tram_transport_release(client);
    run_to_rest(world);
}

/* ---- start_tls ---- */

static void test_S_27_S_29_a_failure_is_told_to_the_new_protocol_once(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    upgrade_open(world, &upgrade);
    struct recorder *fresh = recorder_new(world, "n");
    assert_int_equal(upgrade_start(&upgrade, 0, &fresh->base, NULL), 0);
    assert_int_equal(tram_transport_write(upgrade.ends[1], "this is no TLS\r\n", 16), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[0]), TRAM_ETLS);
    run_until_traced(world, "n.released");
    assert_non_null(strstr(world->trace, "c.released"));
    const char *lost = strstr(world->trace, "n.lost:TRAM_ETLS");
    assert_non_null(lost);
    assert_null(strstr(lost + 1, "n.lost"));
    assert_null(strstr(world->trace, "c.lost"));
    upgrade_close(&upgrade);
}

/* Anybody could fill the log else. */
static void test_S_29_without_a_future_the_protocol_alone_is_told(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    const tram_start_tls_options options = {.tls = servers, .server_side = true};
    upgrade_open(world, &upgrade);
    struct recorder *fresh = recorder_new(world, "n");
    assert_int_equal(tram_loop_start_tls(world->loop, upgrade.ends[1], &fresh->base, &options, NULL), 0);
    assert_int_equal(tram_transport_write(upgrade.ends[0], "GET / HTTP/1.1\r\n\r\n", 18), 0);
    run_until_traced(world, "n.lost:TRAM_ETLS");
    run_until_traced(world, "n.released");
    run_to_rest(world);
    assert_int_equal(world->exceptions, 0);
    upgrade_close(&upgrade);
}

static void test_S_5_debug_mode_says_why_a_handshake_failed(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_prepare(world, &ends, servers);
    tram_loop_set_debug(world->loop, true);
    ends_begin(world, &ends, &(tram_connection_options){.server_hostname = "elsewhere"});
    run_until(world, &ends.done);
    run_until_traced(world, "s.released");
    assert_non_null(strstr(world->log, "tls_handshake failed: the server's certificate is not for \"elsewhere\""));
    assert_non_null(strstr(world->log, "tls_handshake failed: TLS handshake: the peer sent the alert"));
    ends_close(&ends);
}

static void test_S_28_what_cannot_be_upgraded_is_etype(void **state) {
    struct world *world = *state;
    const tram_start_tls_options options = {.tls = servers, .server_side = true};
    static const tram_custom_ops bare = {0};
    struct recorder *custom = recorder_new(world, "custom"), *reader = recorder_new(world, "pipe");
    tram_transport *transport;
    assert_int_equal(tram_loop_create_custom(world->loop, &bare, NULL, &custom->base, &transport), 0);
    run_until(world, &custom->made);
    assert_false(tram_transport_start_tls_compatible(transport));
    assert_int_equal(tram_loop_start_tls(world->loop, transport, NULL, &options, NULL), TRAM_ETYPE);
    tram_buffer *session = NULL;
    assert_int_equal(tram_tls_session(transport, &session), -ENOTSUP);
    tram_transport_abort(transport);

    int fds[2];
    tram_future *future;
    void *value;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(tram_loop_connect_read_pipe(world->loop, healthy_factory, reader, fds[0], &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &value), 0);
    assert_int_equal(tram_loop_start_tls(world->loop, value, NULL, &options, NULL), TRAM_ETYPE);
    tram_future_release(future);
    close(fds[1]);
    run_until(world, &reader->was_released);
    run_until(world, &custom->was_released);
    world->trace[0] = '\0';
}

static void test_S_30_meanwhile_nothing_but_its_end_can_be_asked_for(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    tram_future *future = NULL;
    upgrade_open(world, &upgrade);
    tram_transport *transport = upgrade.ends[0];
    struct recorder *other = recorder_new(world, "o");
    assert_int_equal(tram_transport_pause_reading(upgrade.ends[1]), 0); /* the hello waits for its side */
    assert_int_equal(upgrade_start(&upgrade, 0, NULL, NULL), 0);
    run_to_rest(world);
    struct iovec piece = {.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};
    tram_buffer *buffer = tram_buffer_copy("x", 1);
    struct detached detached;
    assert_int_equal(tram_transport_write(transport, "x", 1), TRAM_ESTATE);
    assert_int_equal(tram_transport_writelines(transport, &piece, 1), TRAM_ESTATE);
    assert_int_equal(tram_transport_write_buffer(transport, buffer), TRAM_ESTATE);
    assert_int_equal(tram_transport_write_eof(transport), TRAM_ESTATE);
    assert_int_equal(tram_transport_cork(transport), TRAM_ESTATE);
    assert_int_equal(tram_transport_pause_reading(transport), TRAM_ESTATE);
    assert_int_equal(tram_transport_resume_reading(transport), TRAM_ESTATE);
    assert_int_equal(tram_transport_set_protocol(transport, &other->base), TRAM_ESTATE);
    assert_true(detach(transport, &detached) < 0);
    assert_int_equal(tram_loop_sendfile(world->loop, transport, 1, 0, 1, NULL, &future), TRAM_ESTATE);
    const tram_start_tls_options again = {.tls = servers, .server_side = true};
    assert_int_equal(tram_loop_start_tls(world->loop, transport, NULL, &again, NULL), TRAM_ESTATE);
    assert_false(tram_transport_is_closing(transport));
    assert_false(tram_transport_is_reading(transport));
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    assert_non_null(tram_transport_get_extra_info(transport, "peername", NULL));
    assert_null(tram_transport_get_extra_info(transport, "cipher", NULL));
    tram_buffer_release(buffer);
    /* None of it did any harm. */
    assert_int_equal(upgrade_start(&upgrade, 1, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[0]), 0);
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[1]), 0);
    assert_int_equal(tram_transport_resume_reading(upgrade.ends[1]), 0);
    run_until_received(upgrade.server, 1);
    upgrade_close(&upgrade);
    other->base.ops->released(&other->base);
}

/* Held back plain bytes would have held back the handshake. */
static void test_S_30_what_was_corked_goes_out_plain(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    upgrade_open(world, &upgrade);
    assert_int_equal(tram_transport_cork(upgrade.ends[1]), 0);
    assert_int_equal(tram_transport_write(upgrade.ends[1], "220 go ahead\r\n", 14), 0);
    assert_int_equal(upgrade_start(&upgrade, 1, NULL, NULL), 0);
    run_until_received(upgrade.client, 14);
    assert_memory_equal(upgrade.client->bytes, "220 go ahead\r\n", 14);
    assert_int_equal(upgrade_start(&upgrade, 0, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[1]), 0);
    assert_int_equal(tram_transport_uncork(upgrade.ends[1]), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[0]), 0);
    upgrade_close(&upgrade);
}

/* Paused before, it is paused after. */
static void test_S_27_S_31_what_stayed_in_the_kernel_is_tls(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    upgrade_open(world, &upgrade);
    assert_int_equal(tram_transport_pause_reading(upgrade.ends[1]), 0);
    run_to_rest(world);
    assert_int_equal(upgrade_start(&upgrade, 0, NULL, NULL), 0);
    run_to_rest(world);
    await_events(fd_of(upgrade.ends[1]), POLLIN);
    run_to_rest(world);
    assert_int_equal(upgrade.server->received, 0); /* the hello waits in the kernel */
    assert_int_equal(upgrade_start(&upgrade, 1, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[1]), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[0]), 0);
    assert_int_equal(tram_transport_write(upgrade.ends[0], "secret", 6), 0);
    run_to_rest(world);
    assert_int_equal(upgrade.server->received, 0);
    assert_int_equal(tram_transport_resume_reading(upgrade.ends[1]), 0);
    run_until_received(upgrade.server, 6);
    assert_memory_equal(upgrade.server->bytes, "secret", 6);
    upgrade_close(&upgrade);
}

int main(void) {
#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_S_1_S_2_S_10_the_creator_goes_on_before_data_of_the_same_packet),
        IN_WORLD(test_S_4_an_end_in_order_is_a_reset_and_nonsense_is_named),
        IN_WORLD(test_S_6_a_server_ends_who_is_in_the_handshake),
        IN_WORLD(test_S_6_G_2_a_drain_waits_but_a_moment_for_who_is_in_the_handshake),
        IN_WORLD(test_S_6_G_2_a_drain_lets_a_handshake_end_in_order),
        IN_WORLD(test_S_6_S_30_close_and_abort_end_a_start_tls),
        IN_WORLD(test_S_7_a_config_without_options_trusts_whom_the_system_does),
        IN_WORLD(test_S_8_a_servers_side_has_no_server_hostname),
        IN_WORLD(test_C_19_early_data_would_go_before_tls),
        IN_WORLD(test_C_19_S_1_a_header_that_waits_goes_before_tls),
        IN_WORLD(test_S_9_alpn_is_among_the_extra_info_or_refused),
        IN_WORLD(test_handshakes_that_begin_together_leave_room_between_them),
        IN_WORLD(test_V_33_handshakes_of_each_source),
        IN_WORLD(test_V_33_V_34_a_failing_factory_leaves_no_handshake),
        IN_WORLD(test_V_33_V_39_handshakes_need_tls_and_sources),
        IN_WORLD(test_V_32_V_33_handshakes_of_each_source_over_all_workers),
        IN_WORLD(test_S_11_S_22_the_write_buffer_is_counted_as_it_goes_out),
        IN_WORLD(test_S_21_a_paused_transport_holds_one_receive_at_most),
        IN_WORLD(test_S_19_S_21_pausing_between_records_of_one_receive),
        IN_WORLD(test_Y_3_S_10_tiny_records_leave_room_between_them),
        IN_WORLD(test_Y_3_S_21_nothing_is_received_while_records_are_behind),
        IN_WORLD(test_Y_3_G_1_a_drain_waits_for_what_is_behind),
        IN_WORLD(test_Y_3_S_19_pausing_and_closing_while_records_are_behind),
        IN_WORLD(test_S_25_tickets_and_new_keys_call_nobody),
        IN_WORLD(test_S_32_F_9_a_file_goes_by_blocks_or_not_at_all),
        IN_WORLD(test_S_15_what_comes_after_close_is_read_and_dropped),
        IN_WORLD(test_S_15_V_42_a_server_ends_the_stream_with_its_goodbye),
        IN_WORLD(test_S_15_V_42_the_end_of_the_stream_waits_for_what_is_queued),
        IN_WORLD(test_S_15_V_42_what_a_peer_asks_after_our_end_does_no_harm),
        IN_WORLD(test_S_15_V_41_the_grace_ends_the_wait_for_the_peers_goodbye),
        IN_WORLD(test_S_23_W_6_writes_after_close_are_counted_and_warned_of),
        IN_WORLD(test_S_24_the_carriers_extra_info_is_kept_after_the_end),
        IN_WORLD(test_S_27_S_29_a_failure_is_told_to_the_new_protocol_once),
        IN_WORLD(test_S_29_without_a_future_the_protocol_alone_is_told),
        IN_WORLD(test_S_5_debug_mode_says_why_a_handshake_failed),
        IN_WORLD(test_S_28_what_cannot_be_upgraded_is_etype),
        IN_WORLD(test_S_30_meanwhile_nothing_but_its_end_can_be_asked_for),
        IN_WORLD(test_S_30_what_was_corked_goes_out_plain),
        IN_WORLD(test_S_27_S_31_what_stayed_in_the_kernel_is_tls),
    };
    return cmocka_run_group_tests(tests, tls_setup, tls_teardown);
}
