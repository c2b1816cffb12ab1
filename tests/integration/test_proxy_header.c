/* Headers of the PROXY protocol in front of connections: of a server's, and of those that are made. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#include "support/stream.h"
#include "support/support.h"
#include <tram/unix.h>

#define V2_IN                                                                                                          \
    "\r\n\r\n\0\r\nQUIT\n"                                                                                             \
    "\x21\x11\0\x14"                                                                                                   \
    "\xc0\0\2\1"                                                                                                       \
    "\xc6\x33\x64\7"                                                                                                   \
    "\xff\xff"                                                                                                         \
    "\1\xbb"                                                                                                           \
    "\2\0\5"                                                                                                           \
    "a.org"

static bool is_done(void *arg) {
    return tram_future_done(arg);
}

static tram_server *serve(struct world *world, const tram_server_options *options, uint16_t *ret_port) {
    tram_future *future;
    void *value;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", options, &future),
                     0);
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, &value), 0);
    tram_future_release(future);
    tram_socket_address address;
    assert_int_equal(tram_server_sockname(value, 0, &address), 0);
    *ret_port = ntohs(((const struct sockaddr_in *)&address.address)->sin_port);
    return value;
}

static void stop(struct world *world, tram_server *server) {
    tram_server_close(server);
    tram_server_abort_clients(server);
    tram_server_release(server);
    run_to_rest(world);
    world->trace[0] = '\0';
}

static void assert_info(tram_transport *transport, const char *key, const char *expected) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    const tram_socket_address *address = tram_transport_get_extra_info(transport, key, NULL);
    assert_non_null(address);
    assert_string_equal(tram_socket_address_text(address, text, sizeof text), expected);
}

static void test_Y_6_the_addresses_are_those_of_the_header(void **state) {
    static const struct {
        const char *bytes;
        size_t size;
    } headers[] = {{"PROXY TCP4 192.0.2.1 198.51.100.7 65535 443\r\n", 45}, {V2_IN, sizeof V2_IN - 1}};
    struct world *world = *state;
    uint16_t port;
    tram_server *server = serve(world, &(tram_server_options){.proxy_protocol = true}, &port);
    for (int run = 0; run < 4; run++) {
        const char *bytes = headers[run & 1].bytes;
        size_t size = headers[run & 1].size, length = 0;
        int fd = tcp_connect(port);
        if (run & 2) { /* byte by byte, and data at once behind it */
            for (size_t i = 0; i + 1 < size; i++) {
                send_exactly(NULL, fd, bytes + i, 1);
                run_ticks(world, 1);
            }
            assert_trace(world, "");
            char rest[] = {bytes[size - 1], 'd', 'a', 't', 'a'};
            send_exactly(NULL, fd, rest, sizeof rest);
        } else {
            send_exactly(NULL, fd, bytes, size);
            send_exactly(NULL, fd, "data", 4);
        }
        run_until_traced(world, "made data:4");
        tram_transport *transport = world_last_recorder(world)->base.transport;
        assert_info(transport, "peername", "192.0.2.1:65535");
        assert_info(transport, "sockname", "198.51.100.7:443");
        const void *value = tram_proxy_value(transport, TRAM_PROXY_AUTHORITY, &length);
        assert_int_equal(value != NULL, run & 1);
        if (value)
            assert_memory_equal(value, "a.org", 5);
        assert_null(tram_proxy_value(transport, TRAM_PROXY_ALPN, &length));
        assert_int_equal(tram_transport_write(transport, "answer", 6), 0);
        char answer[6];
        receive_exactly(world, fd, answer, 6);
        close(fd);
        run_until_traced(world, "released");
        world->trace[0] = '\0';
    }
    stop(world, server);
}

static bool has_ended(int fd) {
    char byte;
    ssize_t size = recv(fd, &byte, 1, MSG_DONTWAIT);
    return size == 0 || (size < 0 && errno != EAGAIN);
}

/* One allocation fails: the connection is served with all that its header says, or it is none. */
static void test_Y_6_X_1_a_header_needs_memory(void **state) {
    struct world *world = *state;
    uint16_t port;
    tram_server *server = serve(world, &(tram_server_options){.proxy_protocol = true}, &port);
    unsigned served = 0, ended = 0;
    size_t length, allowed = 0;
    do {
        int fd = tcp_connect(port);
        send_exactly(NULL, fd, V2_IN "data", sizeof V2_IN - 1 + 4);
        world->failures = 0;
        world->fail_once = true;
        world->fail_after = allowed;
        for (int tries = 0; !strstr(world->trace, "data:4") && !has_ended(fd); tries++) {
            assert_true(tries < 20000);
            run_ticks(world, 1);
        }
        world->fail_after = SIZE_MAX;
        if (strstr(world->trace, "data:4")) {
            tram_transport *transport = world_last_recorder(world)->base.transport;
            served++;
            if (transport) { /* it may have ended since, for want of memory, too */
                assert_info(transport, "peername", "192.0.2.1:65535");
                assert_non_null(tram_proxy_value(transport, TRAM_PROXY_AUTHORITY, &length));
            }
        } else {
            ended++;
            assert_true(world->failures);
            assert_null(strstr(world->trace, "data"));
        }
        close(fd);
        run_to_rest(world);
        assert_int_equal(tram_server_connection_count(server), 0);
        world->trace[0] = '\0';
        allowed++;
    } while (world->failures && allowed < 100);
    assert_true(served && ended && !world->failures);
    world->exceptions = 0;
    stop(world, server);
}

static void test_a_proxy_that_speaks_for_itself_has_the_addresses_of_the_connection(void **state) {
    struct world *world = *state;
    uint16_t port;
    tram_server *server = serve(world, &(tram_server_options){.proxy_protocol = true}, &port);
    for (int run = 0; run < 2; run++) {
        int fd = tcp_connect(port);
        if (run)
            send_exactly(NULL, fd, "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 16);
        else
            send_exactly(NULL, fd, "PROXY UNKNOWN\r\n", 15);
        run_until_traced(world, "made");
        char expected[40];
        snprintf(expected, sizeof expected, "127.0.0.1:%u", port);
        assert_info(world_last_recorder(world)->base.transport, "sockname", expected);
        close(fd);
        run_until_traced(world, "released");
        world->trace[0] = '\0';
    }
    stop(world, server);
}

static void test_Y_6_who_sends_no_header_is_not_heard(void **state) {
    struct world *world = *state;
    uint16_t port;
    tram_server_options options = {.proxy_protocol = true};
    tram_server *server = serve(world, &options, &port);
    int fd = tcp_connect(port);
    send_exactly(NULL, fd, "GET / HTTP/1.1\r\n", 16);
    run_until_traced(world, "released");
    assert_trace(world, "released");
    (void)receive_eof(world, fd);
    close(fd);
    fd = tcp_connect(port);
    send_exactly(NULL, fd, "PROXY TCP4", 10);
    shutdown(fd, SHUT_WR);
    run_until_traced(world, "released");
    assert_trace(world, "released");
    close(fd);
    assert_int_equal(world->exceptions, 0);
    stop(world, server);

    options.proxy_timeout_ns = 20000000;
    server = serve(world, &options, &port);
    fd = tcp_connect(port);
    send_exactly(NULL, fd, "PROXY ", 6);
    run_until_traced(world, "released");
    assert_trace(world, "released");
    close(fd);
    stop(world, server);
}

static bool trusts_nobody(const tram_socket_address *peer) {
    assert_true(peer->address.ss_family == AF_INET || peer->address.ss_family == AF_UNIX);
    return false;
}

static void test_who_is_not_trusted_begins_without_a_header(void **state) {
    struct world *world = *state;
    uint16_t port;
    tram_server_options options = {.proxy_protocol = true, .proxy_trusts = trusts_nobody};
    tram_server *server = serve(world, &options, &port);
    int fd = tcp_connect(port);
    send_exactly(NULL, fd, "PROXY UNKNOWN\r\n", 15);
    run_until_traced(world, "made data:15");
    close(fd);
    run_until_traced(world, "released");
    stop(world, server);
}

static void test_limits_and_a_drain_count_those_that_wait_for_their_header(void **state) {
    struct world *world = *state;
    uint16_t port;
    tram_server_limits limits = {.max_connections = 1};
    tram_server *server = serve(world, &(tram_server_options){.proxy_protocol = true, .limits = &limits}, &port);
    int first = tcp_connect(port);
    send_exactly(NULL, first, "PROXY ", 6);
    run_to_rest(world);
    int second = tcp_connect(port);
    assert_false(receive_eof(world, second)); /* reset */
    close(second);
    send_exactly(NULL, first, "UNKNOWN\r\n", 9);
    run_until_traced(world, "made");
    world->trace[0] = '\0';
    tram_server_close(server);
    tram_server_close_clients(server);
    assert_true(receive_eof(world, first));
    close(first);
    tram_server_release(server);
    run_to_rest(world);
    world->trace[0] = '\0';
}

/* Two clients of one proxy, again and again: the proxy is the source, whomever it speaks for. */
static void test_V_33_limits_per_source_count_the_proxy_and_forget_it(void **state) {
    struct world *world = *state;
    const tram_server_limits limits = {.max_per_source = 2};
    uint16_t port;
    tram_server *server = serve(world, &(tram_server_options){.proxy_protocol = true, .limits = &limits}, &port);
    for (int run = 0; run < 3; run++) {
        int fds[2];
        for (int i = 0; i < 2; i++) {
            fds[i] = tcp_connect(port);
            send_exactly(NULL, fds[i], "PROXY TCP4 192.0.2.1 198.51.100.7 65535 443\r\nx", 46);
            run_until_traced(world, "made data:1");
            world->trace[0] = '\0';
        }
        int fd = tcp_connect(port);
        assert_false(receive_eof(world, fd)); /* one too many */
        close(fd);
        for (int i = 0; i < 2; i++) {
            close(fds[i]);
            run_until_traced(world, "released");
            world->trace[0] = '\0';
        }
    }
    stop(world, server);
}

static void test_the_header_of_a_connection_goes_before_its_first_byte(void **state) {
    struct world *world = *state;
    static const char text[] = "PROXY TCP4 127.0.0.1 127.0.0.1 1234 80\r\n";
    uint16_t port;
    int listener = tcp_listener(1, &port);
    char port_text[8], bytes[100];
    snprintf(port_text, sizeof port_text, "%u", port);
    tram_socket_address source = {0}, destination = {0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(1234)};
    memcpy(&source.address, &in, source.size = sizeof in);
    in.sin_port = htons(80);
    memcpy(&destination.address, &in, destination.size = sizeof in);
    for (int by_socket = 0; by_socket < 2; by_socket++) {
        tram_proxy_header header = {.version = 1, .source = &source, .destination = &destination};
        tram_connection_options options = {.proxy_header = &header};
        tram_future *future;
        void *value;
        int sock = by_socket ? tcp_connect(port) : -1;
        if (by_socket)
            options.sock = &sock;
        assert_int_equal(tram_loop_create_connection(world->loop, recorder_factory, world,
                                                     by_socket ? NULL : "127.0.0.1", by_socket ? NULL : port_text,
                                                     &options, &future),
                         0);
        header.version = 2; /* it was copied */
        run_until_true(world, is_done, future);
        assert_int_equal(tram_future_result(future, &value), 0);
        int fd = accept(listener, NULL, NULL);
        assert_int_equal(tram_transport_write(value, "first", 5), 0);
        receive_exactly(world, fd, bytes, sizeof text - 1 + 5);
        assert_memory_equal(bytes, text, sizeof text - 1);
        assert_memory_equal(bytes + sizeof text - 1, "first", 5);
        tram_future_release(future);
        close(fd);
        run_until_traced(world, "released");
        world->trace[0] = '\0';
    }
    close(listener);
}

/* The connection never was: the operation has the error, and nobody else. */
static void test_a_header_that_cannot_be_sent_fails_the_operation(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = tcp_listener(1, &port), sock = tcp_connect(port);
    const tram_proxy_header header = {.version = 2};
    const tram_connection_options options = {.proxy_header = &header, .sock = &sock};
    tram_future *future;
    fail_next(&faults.send, EPIPE, 1);
    assert_int_equal(tram_loop_create_connection(world->loop, recorder_factory, world, NULL, NULL, &options, &future),
                     0);
    run_until_true(world, is_done, future);
    const tram_error *error = tram_future_error(future);
    assert_int_equal(error->code, -EPIPE);
    assert_string_equal(error->operation, "proxy_header");
    tram_future_release(future);
    run_to_rest(world);
    assert_trace(world, "released");
    close(listener);
}

static int hand_out(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = &((struct recorder *)arg)->base;
    return 0;
}

static void test_Y_1_what_a_header_told_goes_with_the_connection(void **state) {
    struct world *world = *state;
    uint16_t port;
    size_t size = 0;
    tram_detached *detached;
    tram_server *server = serve(world, &(tram_server_options){.proxy_protocol = true}, &port);
    int fd = tcp_connect(port);
    send_exactly(NULL, fd, V2_IN, sizeof V2_IN - 1);
    run_until_traced(world, "made");
    assert_int_equal(tram_transport_detach(world_last_recorder(world)->base.transport, &detached), 0);
    struct recorder *next = recorder_new(world, "next");
    assert_int_equal(tram_loop_adopt_detached(world->loop, hand_out, next, detached, NULL), 0);
    tram_detached_free(detached);
    run_until(world, &next->made);
    assert_info(next->base.transport, "peername", "192.0.2.1:65535");
    assert_info(next->base.transport, "sockname", "198.51.100.7:443");
    const void *value = tram_proxy_value(next->base.transport, TRAM_PROXY_AUTHORITY, &size);
    assert_non_null(value);
    assert_memory_equal(value, "a.org", 5);
    close(fd);
    run_until(world, &next->was_released);
    stop(world, server);
}

/* The creator is told of what is missing, and nobody else. */
static void test_Y_1_X_1_without_memory_for_what_a_header_told(void **state) {
    struct world *world = *state;
    uint16_t port;
    bool failed = true;
    tram_server *server = serve(world, &(tram_server_options){.proxy_protocol = true}, &port);
    for (size_t left = 0; failed; left++) {
        tram_detached *detached;
        tram_future *future = NULL;
        int fd = tcp_connect(port);
        send_exactly(NULL, fd, V2_IN, sizeof V2_IN - 1);
        run_until_traced(world, "made");
        struct recorder *first = world_last_recorder(world), *next = recorder_new(world, "next");
        assert_int_equal(tram_transport_detach(first->base.transport, &detached), 0);
        run_until(world, &first->was_released);
        size_t before = world->failures;
        world->fail_after = left;
        int status = tram_loop_adopt_detached(world->loop, hand_out, next, detached, &future);
        bool refused = status;
        while (!refused && !tram_future_done(future))
            run_ticks(world, 1);
        world->fail_after = SIZE_MAX;
        failed = world->failures != before;
        if (!refused)
            status = tram_future_result(future, NULL);
        assert_true(status == 0 || (failed && status == -ENOMEM));
        tram_future_release(future);
        tram_detached_free(detached);
        close(fd);
        if (!refused)
            run_until(world, &next->was_released);
        assert_true(next->made == !status);
        world->trace[0] = '\0';
    }
    stop(world, server);
}

/* ---- Unix sockets ---- */

/* A name in the abstract space. */
static size_t unix_name(char name[40]) {
    name[0] = '\0';
    return 1 + (size_t)snprintf(name + 1, 39, "tram-proxy-%d", (int)getpid());
}

static int unix_connect(void) {
    char name[40];
    tram_socket_address address;
    assert_int_equal(tram_socket_address_unix(name, unix_name(name), &address), 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address.address, address.size), 0);
    return fd;
}

static bool trusts_unix(const tram_socket_address *peer) {
    return peer->address.ss_family == AF_UNIX;
}

static void test_Y_6_a_unix_server_takes_the_header_off(void **state) {
    struct world *world = *state;
    char name[40];
    size_t size = unix_name(name);
    for (int trusting = 0; trusting < 3; trusting++) {
        bool (*const trusts[])(const tram_socket_address *peer) = {NULL, trusts_unix, trusts_nobody};
        const tram_unix_server_options options = {
            .proxy_protocol = true, .proxy_timeout_ns = TRAM_FOREVER, .proxy_trusts = trusts[trusting]};
        tram_future *future;
        void *server;
        assert_int_equal(
            tram_loop_create_unix_server(world->loop, recorder_factory, world, name, size, &options, &future), 0);
        run_until_true(world, is_done, future);
        assert_int_equal(tram_future_result(future, &server), 0);
        tram_future_release(future);
        int fd = unix_connect();
        send_exactly(NULL, fd, V2_IN, sizeof V2_IN - 1);
        if (trusting == 2) {
            run_until_traced(world, "data:36");
        } else {
            run_until_traced(world, "made");
            assert_info(world_last_recorder(world)->base.transport, "peername", "192.0.2.1:65535");
            assert_info(world_last_recorder(world)->base.transport, "sockname", "198.51.100.7:443");
        }
        close(fd);
        run_until_traced(world, "released");
        stop(world, server);
    }
}

/* Tells its client who that is. */
static int tell_peer(tram_protocol *self, tram_transport *transport) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_socket_address peer;
    (void)self;
    assert_int_equal(tram_transport_peername(transport, &peer), 0);
    tram_socket_address_text(&peer, text, sizeof text);
    return tram_transport_write(transport, text, strlen(text));
}

static void free_teller(tram_protocol *self) {
    free(self);
}

static int teller_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.connection_made = tell_peer, .released = free_teller};
    (void)loop;
    (void)arg;
    *ret_protocol = calloc(1, sizeof **ret_protocol);
    (*ret_protocol)->ops = &ops;
    return 0;
}

static void test_a_unix_server_of_a_runtime_takes_the_header_off(void **state) {
    (void)state;
    char name[40], told[15];
    size_t size = unix_name(name);
    const tram_runtime_options workers = {.workers = 2};
    const tram_unix_server_options options = {.proxy_protocol = true}, lonely = {.proxy_trusts = trusts_unix};
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&workers, &runtime), 0);
    assert_int_equal(tram_runtime_create_unix_server(runtime, teller_factory, NULL, name, size, &lonely, NULL, NULL),
                     TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "proxy_trusts");
    assert_int_equal(tram_runtime_create_unix_server(runtime, teller_factory, NULL, name, size, &options, NULL, NULL),
                     0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    for (int i = 0; i < 4; i++) {
        int fd = unix_connect();
        assert_int_equal(send(fd, V2_IN, sizeof V2_IN - 1, MSG_NOSIGNAL), sizeof V2_IN - 1);
        assert_int_equal(recv(fd, told, sizeof told, MSG_WAITALL), sizeof told);
        assert_memory_equal(told, "192.0.2.1:65535", sizeof told);
        close(fd);
    }
    tram_runtime_free(runtime);
}

static void test_a_unix_connection_begins_with_its_header(void **state) {
    struct world *world = *state;
    char name[40], bytes[232 + 5], expected[232];
    size_t size = unix_name(name);
    tram_socket_address address, source;
    assert_int_equal(tram_socket_address_unix(name, size, &address), 0);
    assert_int_equal(tram_socket_address_unix("/run/client", 11, &source), 0);
    memset(expected, 0, sizeof expected);
    memcpy(expected, "\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8", 16);
    memcpy(expected + 16, "/run/client", 11);
    memcpy(expected + 16 + 108, name, size);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address.address, address.size), 0);
    assert_int_equal(listen(listener, 2), 0);
    for (int by_socket = 0; by_socket < 2; by_socket++) {
        tram_proxy_header header = {.version = 2, .source = &source, .destination = &address};
        tram_unix_connection_options options = {.proxy_header = &header};
        tram_future *future;
        void *value;
        int sock = by_socket ? unix_connect() : -1;
        if (by_socket)
            options.sock = &sock;
        assert_int_equal(tram_loop_create_unix_connection(world->loop, recorder_factory, world, by_socket ? NULL : name,
                                                          by_socket ? 0 : size, &options, &future),
                         0);
        header.version = 1; /* it was copied */
        run_until_true(world, is_done, future);
        assert_int_equal(tram_future_result(future, &value), 0);
        int fd = accept(listener, NULL, NULL);
        assert_int_equal(tram_transport_write(value, "first", 5), 0);
        receive_exactly(world, fd, bytes, sizeof bytes);
        assert_memory_equal(bytes, expected, sizeof expected);
        assert_memory_equal(bytes + sizeof expected, "first", 5);
        tram_future_release(future);
        close(fd);
        run_until_traced(world, "released");
        world->trace[0] = '\0';
    }
    close(listener);
}

static void test_options_that_make_no_sense(void **state) {
    struct world *world = *state;
    tram_proxy_header header = {.version = 3};
    tram_connection_options options = {.proxy_header = &header};
    tram_server_options lonely = {.proxy_timeout_ns = 1}, trusting = {.proxy_trusts = trusts_nobody};
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", "1", &options, NULL),
        TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "proxy_header");
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, NULL, "0", &lonely, NULL),
                     TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "proxy_timeout_ns");
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, NULL, "0", &trusting, NULL),
                     TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "proxy_trusts");
    const tram_unix_connection_options unix_options = {.proxy_header = &header};
    const tram_unix_server_options unix_lonely = {.proxy_timeout_ns = 1};
    assert_int_equal(
        tram_loop_create_unix_connection(world->loop, recorder_factory, world, "/x", 2, &unix_options, NULL),
        TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "proxy_header");
    assert_int_equal(tram_loop_create_unix_server(world->loop, recorder_factory, world, "/x", 2, &unix_lonely, NULL),
                     TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "proxy_timeout_ns");
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
        TEST(test_Y_6_the_addresses_are_those_of_the_header),
        TEST(test_Y_6_X_1_a_header_needs_memory),
        TEST(test_a_proxy_that_speaks_for_itself_has_the_addresses_of_the_connection),
        TEST(test_Y_6_who_sends_no_header_is_not_heard),
        TEST(test_who_is_not_trusted_begins_without_a_header),
        TEST(test_limits_and_a_drain_count_those_that_wait_for_their_header),
        TEST(test_V_33_limits_per_source_count_the_proxy_and_forget_it),
        TEST(test_the_header_of_a_connection_goes_before_its_first_byte),
        cmocka_unit_test_setup_teardown(test_a_header_that_cannot_be_sent_fails_the_operation, world_setup_faults,
                                        world_teardown),
        TEST(test_Y_1_what_a_header_told_goes_with_the_connection),
        TEST(test_Y_1_X_1_without_memory_for_what_a_header_told),
        TEST(test_Y_6_a_unix_server_takes_the_header_off),
        TEST(test_a_unix_server_of_a_runtime_takes_the_header_off),
        TEST(test_a_unix_connection_begins_with_its_header),
        TEST(test_options_that_make_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
