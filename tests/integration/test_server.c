/* Servers of one loop: the rules of group V in docs/rules.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/system/sys.h"
#include "support/support.h"

/* ---- Helpers ---- */

static tram_server *server_with(struct world *world, tram_protocol_factory factory, const char *host,
                                const tram_server_options *options) {
    tram_future *future;
    void *server = NULL;
    const char *port = options && options->sock ? NULL : "0";
    assert_int_equal(tram_loop_create_server(world->loop, factory, world, host, port, options, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    assert_non_null(server);
    return server;
}

static tram_server *server_new(struct world *world, const tram_server_options *options) {
    return server_with(world, recorder_factory, options && (options->sock || options->hosts) ? NULL : "127.0.0.1",
                       options);
}

static uint16_t port_of(const tram_socket_address *address) {
    struct sockaddr_in6 inet; /* the port is at the same place in both */
    memcpy(&inet, &address->address, sizeof inet);
    return ntohs(inet.sin6_port);
}

static uint16_t server_port(tram_server *server, size_t index) {
    tram_socket_address address;
    assert_int_equal(tram_server_sockname(server, index, &address), 0);
    return port_of(&address);
}

static int connect_to(tram_server *server) {
    int fd = tcp_connect(server_port(server, 0));
    assert_true(fd >= 0);
    return fd;
}

static int connect6(uint16_t port) {
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    struct sockaddr_in6 address = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static bool have_ipv6(void) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool have = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return have;
}

struct count_wanted {
    tram_server *server;
    size_t count;
};

static bool count_reached(void *arg) {
    const struct count_wanted *wanted = arg;
    return tram_server_connection_count(wanted->server) == wanted->count;
}

static void run_until_count(struct world *world, tram_server *server, size_t count) {
    struct count_wanted wanted = {server, count};
    run_until_true(world, count_reached, &wanted);
}

static bool future_is_done(void *arg) {
    return tram_future_done(arg);
}

static void run_until_done(struct world *world, tram_future *future) {
    run_until_true(world, future_is_done, future);
}

static tram_future *wait_closed(tram_server *server) {
    tram_future *future;
    assert_int_equal(tram_server_wait_closed(server, &future), 0);
    return future;
}

struct words_wanted {
    struct world *world;
    const char *word;
    size_t count;
};

static size_t count_words(const struct world *world, const char *word) {
    size_t count = 0;
    for (const char *at = world->trace; (at = strstr(at, word)); at++)
        count++;
    return count;
}

static bool words_are_there(void *arg) {
    const struct words_wanted *wanted = arg;
    return count_words(wanted->world, wanted->word) >= wanted->count;
}

static void run_until_words(struct world *world, const char *word, size_t count) {
    struct words_wanted wanted = {world, word, count};
    run_until_true(world, words_are_there, &wanted);
}

/* Closes the server, ends its connections, and gives it back. */
static void server_end(struct world *world, tram_server *server) {
    assert_int_equal(tram_server_close(server), 0);
    assert_int_equal(tram_server_abort_clients(server), 0);
    tram_future *future = wait_closed(server);
    run_until_done(world, future);
    assert_int_equal(tram_future_result(future, NULL), 0);
    tram_future_release(future);
    tram_server_release(server);
}

static int int_option(int fd, int level, int name) {
    int value = -1;
    socklen_t size = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
    return value;
}

static int socket_fd(tram_server *server, size_t index) {
    tram_socket sockets[8];
    assert_true(tram_server_sockets(server, sockets, 8) > index);
    return sockets[index].fd;
}

/* Expects create_server to fail through its future; the error's detail must contain `text`, if given. */
static void assert_create_fails(struct world *world, const char *host, const char *port,
                                const tram_server_options *options, int code, const char *text) {
    tram_future *future;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, host, port, options, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), code);
    const tram_error *error = tram_future_error(future);
    assert_non_null(error);
    assert_int_equal(error->code, code);
    if (text) {
        assert_non_null(error->detail);
        assert_non_null(strstr(error->detail, text));
    }
    tram_future_release(future);
}

/* ---- A system that can be told to fail ---- */

static struct sys fake;
static int fail_accept;       /* errno of the next accepts, 0: none */
static int fail_accept_count; /* how many */
static unsigned accepts;      /* calls of accept4 */
static unsigned listens;      /* calls of listen, and the last backlog */
static int last_backlog;
static uint64_t clock_ahead;  /* nanoseconds added to the clock */
static int refuse_family;     /* socket() of this family fails with … */
static int refuse_error;      /* … this */
static int fail_bind_family;  /* bind() of this family fails … */
static int fail_bind_error;   /* … with this */
static int fail_option;       /* setsockopt() of this name, and … */
static int fail_level;        /* … level, fails with … */
static int fail_option_error; /* … this */

static int fake_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    accepts++;
    if (fail_accept && fail_accept_count > 0) {
        fail_accept_count--;
        errno = fail_accept;
        return -1;
    }
    return tram__sys.accept4(fd, address, size, flags);
}

static int fake_listen(int fd, int backlog) {
    listens++;
    last_backlog = backlog;
    return tram__sys.listen(fd, backlog);
}

static int fake_clock(clockid_t clock, struct timespec *ret_time) {
    int status = tram__sys.clock_gettime(clock, ret_time);
    uint64_t ns = (uint64_t)ret_time->tv_nsec + clock_ahead;
    ret_time->tv_sec += (time_t)(ns / 1000000000u);
    ret_time->tv_nsec = (long)(ns % 1000000000u);
    return status;
}

static int fake_socket(int family, int type, int protocol) {
    if (family == refuse_family) {
        errno = refuse_error;
        return -1;
    }
    return tram__sys.socket(family, type, protocol);
}

static int fake_bind(int fd, const struct sockaddr *address, socklen_t size) {
    if (address->sa_family == fail_bind_family) {
        errno = fail_bind_error;
        return -1;
    }
    return tram__sys.bind(fd, address, size);
}

static int fake_setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    if (level == fail_level && name == fail_option) {
        errno = fail_option_error;
        return -1;
    }
    return tram__sys.setsockopt(fd, level, name, value, size);
}

static bool no_arming;

static int fake_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    errno = ENOMEM;
    bool refused = no_arming && operation != EPOLL_CTL_DEL && event->events & EPOLLIN;
    return refused ? -1 : tram__sys.epoll_ctl(epoll, operation, fd, event);
}

static void use_fake(struct world *world) {
    fake = tram__sys;
    fake.epoll_ctl = fake_epoll_ctl;
    no_arming = false;
    fake.accept4 = fake_accept4;
    fake.listen = fake_listen;
    fake.clock_gettime = fake_clock;
    fake.socket = fake_socket;
    fake.bind = fake_bind;
    fake.setsockopt = fake_setsockopt;
    fail_accept = fail_accept_count = 0;
    accepts = listens = 0;
    clock_ahead = 0;
    refuse_family = fail_bind_family = fail_bind_error = fail_option = -1;
    refuse_error = EAFNOSUPPORT;
    fail_level = SOL_SOCKET;
    fail_option_error = ENOPROTOOPT;
    world_use_sys(world, &fake);
}

static void wait_readable(int fd) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 20000), 1);
}

/* ---- Where it listens ---- */

/* Where IPv6 is switched off, one may still listen at [::], where nobody comes. */
static bool may_listen_in_ipv6(void) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    bool may = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return may;
}

static void test_V_1_no_host_means_all_interfaces(void **state) {
    struct world *world = *state;
    const char *const hosts[] = {NULL, ""};
    for (size_t i = 0; i < 2; i++) {
        tram_server *server = server_with(world, recorder_factory, hosts[i], NULL);
        assert_int_equal(tram_server_sockets(server, NULL, 0), may_listen_in_ipv6() ? 2 : 1);
        int fd = connect_to(server);
        run_until_traced(world, "made");
        world->trace[0] = '\0';
        close(fd);
        if (have_ipv6()) {
            fd = connect6(server_port(server, 1));
            assert_true(fd >= 0);
            run_until_traced(world, "made");
            close(fd);
        }
        server_end(world, server);
        world->trace[0] = '\0';
    }
}

static void test_V_1_several_hosts_each_address_once_in_order(void **state) {
    struct world *world = *state;
    int held;
    uint16_t port = hold_port(&held);
    char text[TRAM_ADDRESS_TEXT_SIZE], expected[TRAM_ADDRESS_TEXT_SIZE], port_text[8];
    snprintf(port_text, sizeof port_text, "%u", port);
    const char *const hosts[] = {"127.0.0.2", "127.0.0.1", "127.0.0.2", loopback_name(), NULL};
    tram_server_options options = {.hosts = hosts, .family = AF_INET};
    tram_future *future;
    void *value;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, NULL, port_text, &options, &future),
                     0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &value), 0);
    tram_future_release(future);
    tram_server *server = value;
    assert_int_equal(tram_server_sockets(server, NULL, 0), 2);
    tram_socket_address address;
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    snprintf(expected, sizeof expected, "127.0.0.2:%u", port);
    assert_string_equal(tram_socket_address_text(&address, text, sizeof text), expected);
    assert_int_equal(tram_server_sockname(server, 1, &address), 0);
    snprintf(expected, sizeof expected, "127.0.0.1:%u", port);
    assert_string_equal(tram_socket_address_text(&address, text, sizeof text), expected);
    assert_int_equal(tram_server_sockname(server, 2, &address), TRAM_EVALUE);
    server_end(world, server);
    close(held);
}

static void test_V_2_port_0_gives_each_address_its_own_free_port(void **state) {
    struct world *world = *state;
    const char *const hosts[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3", NULL};
    tram_server_options options = {.hosts = hosts};
    tram_server *server = server_new(world, &options);
    assert_int_equal(tram_server_sockets(server, NULL, 0), 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_not_equal(server_port(server, i), 0);
    int fd = connect_to(server);
    run_until_count(world, server, 1);
    close(fd);
    server_end(world, server);
}

static void assert_one_port(tram_server *server, size_t count) {
    assert_int_equal(tram_server_sockets(server, NULL, 0), count);
    assert_int_not_equal(server_port(server, 0), 0);
    for (size_t i = 1; i < count; i++)
        assert_int_equal(server_port(server, i), server_port(server, 0));
}

static void test_V_2_same_port_is_one_for_all_addresses(void **state) {
    struct world *world = *state;
    const char *const hosts[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3", NULL};
    tram_server_options options = {.hosts = hosts, .same_port = true};
    tram_server *server = server_new(world, &options);
    assert_one_port(server, 3);
    server_end(world, server);

    /* Of both families, where there are two. */
    const char *const both[] = {"127.0.0.1", "::1", NULL};
    options.hosts = both;
    server = server_new(world, &options);
    assert_one_port(server, tram_server_sockets(server, NULL, 0));
    server_end(world, server);
}

static unsigned binds, busy_from, busy_to;

static int bind_busy(int fd, const struct sockaddr *address, socklen_t size) {
    binds++;
    if (binds < busy_from || binds >= busy_to)
        return tram__sys.bind(fd, address, size);
    errno = EADDRINUSE;
    return -1;
}

/* A port that is taken at another address: others are tried, but not for ever. */
static void test_V_2_same_port_tries_others(void **state) {
    struct world *world = *state;
    const char *const hosts[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3", NULL};
    tram_server_options options = {.hosts = hosts, .same_port = true};
    tram_future *future;
    use_fake(world);
    fake.bind = bind_busy;
    binds = 0, busy_from = 3, busy_to = 4;
    tram_server *server = server_new(world, &options);
    assert_one_port(server, 3);
    assert_int_equal(binds, 6);
    server_end(world, server);

    for (int kept = 0; kept < 2; kept++) { /* a port that was asked for is not another */
        options.same_port = kept == 0;
        binds = 0, busy_from = 1, busy_to = 1000000;
        assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, NULL, "0", &options, &future),
                         0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), -EADDRINUSE);
        tram_future_release(future);
        assert_int_equal(binds, 1);
    }
}

static void test_V_3_options_of_the_sockets(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    assert_int_equal(int_option(socket_fd(server, 0), SOL_SOCKET, SO_REUSEADDR), 1);
    assert_int_equal(int_option(socket_fd(server, 0), SOL_SOCKET, SO_REUSEPORT), 0);
    assert_int_equal(int_option(socket_fd(server, 0), SOL_SOCKET, SO_KEEPALIVE), 0);
    server_end(world, server);

    tram_server_options options = {.no_reuse_address = true, .reuse_port = true, .keep_alive = true};
    server = server_new(world, &options);
    assert_int_equal(int_option(socket_fd(server, 0), SOL_SOCKET, SO_REUSEADDR), 0);
    assert_int_equal(int_option(socket_fd(server, 0), SOL_SOCKET, SO_REUSEPORT), 1);
    /* Another one shares the port. */
    char port[8];
    snprintf(port, sizeof port, "%u", server_port(server, 0));
    tram_future *future;
    assert_int_equal(
        tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", port, &options, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    void *second;
    assert_int_equal(tram_future_result(future, &second), 0);
    tram_future_release(future);
    server_end(world, second);

    int fd = connect_to(server);
    run_until_traced(world, "made");
    tram_transport *transport = world_last_recorder(world)->base.transport;
    const tram_socket *socket = tram_transport_get_extra_info(transport, "socket", NULL);
    assert_int_equal(int_option(socket->fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    close(fd);
    server_end(world, server);
}

static void test_V_3_reuse_port_unsupported_is_a_bad_value(void **state) {
    struct world *world = *state;
    use_fake(world);
    fail_option = SO_REUSEPORT;
    tram_server_options options = {.reuse_port = true};
    assert_create_fails(world, "127.0.0.1", "0", &options, TRAM_EVALUE, "127.0.0.1");
}

/* rules: V-4 */
/* An address of IPv4, written as one of IPv6, takes IPv4. */
static void test_V_4_a_mapped_address_is_one_of_ipv4(void **state) {
    struct world *world = *state;
    if (!have_ipv6())
        skip();
    tram_future *future;
    void *server;
    assert_int_equal(
        tram_loop_create_server(world->loop, recorder_factory, world, "::ffff:127.0.0.1", "0", NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    struct sockaddr_in6 address;
    socklen_t size = sizeof address;
    assert_int_equal(getsockname(socket_fd(server, 0), (struct sockaddr *)&address, &size), 0);
    int fd = tcp_connect(ntohs(address.sin6_port));
    assert_true(fd >= 0);
    run_until_count(world, server, 1);
    close(fd);
    server_end(world, server);
}

static void test_V_4_ipv6_listeners_leave_ipv4_alone(void **state) {
    struct world *world = *state;
    if (!have_ipv6())
        skip();
    int held;
    uint16_t port = hold_port(&held);
    char text[8];
    void *server;
    tram_future *future;
    snprintf(text, sizeof text, "%u", port);
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "::", text, NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    assert_int_equal(int_option(socket_fd(server, 0), IPPROTO_IPV6, IPV6_V6ONLY), 1);
    assert_int_equal(tcp_connect(port), -1);
    assert_int_equal(errno, ECONNREFUSED);
    int fd = connect6(port);
    assert_true(fd >= 0);
    close(fd);
    server_end(world, server);
    close(held);
}

static void test_V_5_what_cannot_be_had_is_skipped(void **state) {
    struct world *world = *state;
    static const int errors[] = {EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPROTOTYPE, EINVAL};
    tram_server *server;
    use_fake(world);
    refuse_family = AF_INET6;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        refuse_error = errors[i];
        server = server_with(world, recorder_factory, NULL, NULL);
        assert_int_equal(tram_server_sockets(server, NULL, 0), 1);
        server_end(world, server);
    }
    refuse_error = EMFILE; /* this is no question of families */
    assert_create_fails(world, NULL, "0", NULL, -EMFILE, "[::]:0");
    refuse_family = -1;
    fail_bind_family = AF_INET6;
    fail_bind_error = EADDRNOTAVAIL;
    server = server_with(world, recorder_factory, NULL, NULL);
    assert_int_equal(tram_server_sockets(server, NULL, 0), 1);
    server_end(world, server);
}

static void test_what_may_not_be_transparent_fails(void **state) {
    static const struct {
        const char *host;
        int level, option;
    } list[] = {{"127.0.0.1", IPPROTO_IP, IP_TRANSPARENT}, {"::1", IPPROTO_IPV6, IPV6_TRANSPARENT}};
    struct world *world = *state;
    const tram_server_options options = {.transparent = true};
    int before = open_descriptors();
    for (size_t i = 0; i < 1u + have_ipv6(); i++) {
        use_fake(world);
        fail_level = list[i].level;
        fail_option = list[i].option;
        fail_option_error = EPERM;
        assert_create_fails(world, list[i].host, "0", &options, -EPERM, list[i].host);
        server_end(world, server_with(world, recorder_factory, "127.0.0.1", NULL)); /* who does not ask for it can */
    }
    assert_int_equal(open_descriptors(), before);
}

static void test_V_5_other_errors_of_bind_fail_with_the_address(void **state) {
    struct world *world = *state;
    uint16_t port;
    int taken = tcp_listener(1, &port);
    char port_text[8], address[32];
    snprintf(port_text, sizeof port_text, "%u", port);
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    int descriptors = open_descriptors();
    const char *const hosts[] = {"127.0.0.2", "127.0.0.1", NULL};
    tram_server_options options = {.hosts = hosts};
    assert_create_fails(world, NULL, port_text, &options, -EADDRINUSE, address);
    assert_int_equal(open_descriptors(), descriptors); /* that of the first address, too */
    assert_int_equal(world->exceptions, 0);
    close(taken);
}

static void test_V_5_no_address_left_is_an_error(void **state) {
    struct world *world = *state;
    use_fake(world);
    fail_bind_family = AF_INET;
    fail_bind_error = EADDRNOTAVAIL;
    assert_create_fails(world, "127.0.0.1", "0", NULL, -EADDRNOTAVAIL, "127.0.0.1:0");
    fail_bind_family = -1;
    refuse_family = AF_INET;
    assert_create_fails(world, "127.0.0.1", "0", NULL, -EAFNOSUPPORT, "127.0.0.1:0");
}

static void test_V_5_failure_nobody_waits_for_is_reported(void **state) {
    struct world *world = *state;
    use_fake(world);
    fail_bind_family = AF_INET;
    fail_bind_error = EACCES;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", NULL, NULL), 0);
    run_ticks(world, 2);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, -EACCES);
}

static void test_V_6_socket_of_the_user(void **state) {
    struct world *world = *state;
    uint16_t port;
    int sock = tcp_listener(1, &port);
    tram_server_options options = {.sock = &sock};
    tram_server *server = server_new(world, &options);
    assert_int_equal(socket_fd(server, 0), sock);
    assert_int_equal(server_port(server, 0), port);
    assert_true(fcntl(sock, F_GETFL) & O_NONBLOCK);
    int fd = connect_to(server);
    run_until_traced(world, "made");
    /* What a transport or another server has is not for taking. */
    tram_future *future;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, NULL, NULL, &options, &future),
                     TRAM_ESTATE);
    close(fd);
    server_end(world, server);
    assert_int_equal(fcntl(sock, F_GETFD), -1); /* it was the server's */
}

static void test_V_6_contradictions(void **state) {
    struct world *world = *state;
    tram_future *future = NULL;
    int sock = socket(AF_INET, SOCK_DGRAM, 0), pipes[2], negative = -1;
    assert_int_equal(pipe(pipes), 0);
    const char *const hosts[] = {"127.0.0.1", NULL}, *const none[] = {NULL};
    const struct {
        const char *host;
        const char *port;
        tram_server_options options;
        int code;
    } cases[] = {
        {"127.0.0.1", NULL, {.sock = &sock}, TRAM_EVALUE},
        {NULL, "1", {.sock = &sock}, TRAM_EVALUE},
        {NULL, NULL, {.sock = &sock, .hosts = hosts}, TRAM_EVALUE},
        {NULL, NULL, {.sock = &sock}, TRAM_EVALUE},
        {NULL, NULL, {.sock = &pipes[0]}, TRAM_EVALUE},
        {NULL, NULL, {.sock = &negative}, -EBADF},
        {"127.0.0.1", "0", {.hosts = hosts}, TRAM_EVALUE},
        {NULL, "0", {.hosts = none}, TRAM_EVALUE},
        {NULL, "0", {.family = AF_UNIX}, TRAM_EVALUE},
        {NULL, "0", {.backlog = -1}, TRAM_EVALUE},
        {NULL, "0", {.reserved = {1}}, TRAM_EVALUE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, cases[i].host, cases[i].port,
                                                 &cases[i].options, &future),
                         cases[i].code);
        assert_null(future);
    }
    assert_int_equal(tram_loop_create_server(world->loop, NULL, world, NULL, "0", NULL, &future), TRAM_EVALUE);
    close(sock);
    close(pipes[0]);
    close(pipes[1]);
}

static void test_V_6_backlog(void **state) {
    struct world *world = *state;
    use_fake(world);
    tram_server *server = server_new(world, NULL);
    assert_int_equal(last_backlog, 100);
    server_end(world, server);
    tram_server_options options = {.backlog = 7};
    server = server_new(world, &options);
    assert_int_equal(last_backlog, 7);
    server_end(world, server);
}

/* ---- Beginning ---- */

static void test_V_7_deferred_server_is_bound_and_does_not_listen(void **state) {
    struct world *world = *state;
    use_fake(world);
    tram_server_options options = {.defer_serving = true};
    tram_server *server = server_new(world, &options);
    assert_false(tram_server_is_serving(server));
    assert_int_equal(tram_server_sockets(server, NULL, 0), 1);
    uint16_t port = server_port(server, 0);
    assert_nobody_listens(port);

    tram_future *future;
    assert_int_equal(tram_server_start_serving(server, &future), 0);
    assert_true(tram_server_is_serving(server));
    assert_false(tram_future_done(future));
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    tram_future_release(future);
    assert_int_equal(tram_server_start_serving(server, NULL), 0); /* idempotent */
    assert_int_equal(listens, 1);
    int fd = connect_to(server);
    run_until_traced(world, "made");
    close(fd);
    server_end(world, server);
}

/* rules: V-8, X-2 */
static void test_V_8_done_one_tick_after_listening_began(void **state) {
    struct world *world = *state;
    use_fake(world);
    tram_future *future;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", NULL, &future), 0);
    assert_int_equal(listens, 1);
    assert_false(tram_future_done(future));
    run_ticks(world, 1);
    assert_true(tram_future_done(future));
    void *server;
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);

    assert_int_equal(tram_server_start_serving(server, &future), 0);
    assert_false(tram_future_done(future));
    run_ticks(world, 1);
    assert_true(tram_future_done(future));
    tram_future_release(future);
    server_end(world, server);
}

static void test_X_3_cancelled_creation_leaves_nothing(void **state) {
    struct world *world = *state;
    tram_future *future;
    const char *const hosts[] = {"127.0.0.1", "localhost"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, hosts[i], "0", NULL, &future),
                         0);
        assert_int_equal(tram_future_cancel(future), 1);
        run_until_done(world, future);
        assert_true(tram_future_cancelled(future));
        tram_future_release(future);
    }
    run_ticks(world, 2);
}

static void test_X_3_who_comes_before_a_creation_is_cancelled_is_not_served(void **state) {
    struct world *world = *state;
    tram_future *future;
    int held;
    char port[8];
    snprintf(port, sizeof port, "%u", hold_port(&held));
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", port, NULL, &future),
                     0);
    int client = tcp_connect((uint16_t)atoi(port));
    assert_true(client >= 0); /* the kernel takes it */
    assert_int_equal(tram_future_cancel(future), 1);
    run_ticks(world, 3);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    assert_trace(world, "");
    char byte;
    assert_int_equal(recv(client, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(client);
    close(held);
}

/* rules: L-35, L-37 */
static void test_L_37_unknown_host_is_a_resolver_error(void **state) {
    struct world *world = *state;
    assert_create_fails(world, "127.0.0.1", "no-such-service-name", NULL, TRAM_ERESOLVE, NULL);
    assert_create_fails(world, "127.0.0.1", "65536", NULL, TRAM_ERESOLVE, NULL);
    assert_create_fails(world, NULL, "99999", NULL, TRAM_ERESOLVE, NULL);
    assert_create_fails(world, "127.0.0.1", "18446744073709551617", NULL, TRAM_ERESOLVE, NULL);
    assert_create_fails(world, "host.invalid", "0", &(tram_server_options){.flags = AI_NUMERICHOST}, TRAM_ERESOLVE,
                        NULL);
}

/* ---- Accepting ---- */

static void test_V_9_accepts_backlog_plus_one_per_tick(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    use_fake(world);
    tram_server_options options = {.backlog = 4};
    tram_server *server = server_new(world, &options);
    int fds[5];
    for (size_t i = 0; i < 5; i++)
        fds[i] = connect_to(server);
    wait_readable(socket_fd(server, 0));
    accepts = 0;
    run_ticks(world, 1);
    assert_int_equal(accepts, 5);
    assert_int_equal(tram_server_connection_count(server), 5);
    for (size_t i = 0; i < 5; i++)
        close(fds[i]);
    /* Fewer: until EAGAIN. */
    run_until_count(world, server, 0);
    int fd = connect_to(server);
    wait_readable(socket_fd(server, 0));
    accepts = 0;
    run_ticks(world, 1);
    assert_int_equal(accepts, 2);
    close(fd);
    server_end(world, server);
}

/* A peer that sends much and goes makes one line, which tells who it was. */
static int answer_each_line(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data"))
        return 0;
    tram_transport_abort(recorder->base.transport);
    for (int i = 0; i < 2000; i++)
        tram_transport_write(recorder->base.transport, "\n", 1);
    return 0;
}

static void test_W_6_dropped_answers_make_one_line_for_each_peer(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    for (unsigned i = 1; i <= 5; i++) {
        int fd = connect_to(server);
        run_until_count(world, server, 1);
        struct recorder *recorder = world_last_recorder(world);
        recorder->on = answer_each_line;
        struct sockaddr_in name;
        socklen_t size = sizeof name;
        char expected[64];
        assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &size), 0);
        send_exactly(world, fd, "\n", 1);
        run_until(world, &recorder->was_released);
        assert_int_equal(world->warnings, i);
        snprintf(expected, sizeof expected, " of 127.0.0.1:%u were dropped", ntohs(name.sin_port));
        assert_non_null(strstr(world->log, "2000 writes to connection"));
        assert_non_null(strstr(world->log, expected));
        close(fd);
    }
    server_end(world, server);
}

/* And never more than 256, so that others have their turn. */
static void test_V_9_accepts_at_most_256_per_tick(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    use_fake(world);
    tram_server_options options = {.backlog = 1000};
    tram_server *server = server_new(world, &options);
    int fds[300];
    for (size_t i = 0; i < 300; i++)
        fds[i] = connect_to(server);
    wait_readable(socket_fd(server, 0));
    accepts = 0;
    run_ticks(world, 1);
    assert_int_equal(accepts, 256);
    run_ticks(world, 1);
    assert_int_equal(tram_server_connection_count(server), 300);
    for (size_t i = 0; i < 300; i++)
        close(fds[i]);
    run_until_count(world, server, 0);
    server_end(world, server);
}

/* rules: V-11 */
static void test_V_11_long_starvation_is_told_ever_more_seldom(void **state) {
    struct world *world = *state;
    use_fake(world);
    assert_int_equal(tram_loop_set_exception_handler(world->loop, NULL, NULL), 0); /* the log */
    tram_server *server = server_new(world, NULL);
    int fd = connect_to(server);
    wait_readable(socket_fd(server, 0));
    fail_accept = EMFILE;
    fail_accept_count = 1000;
    for (int i = 0; i < 64; i++) {
        run_ticks(world, 3);
        clock_ahead += 1100000000;
    }
    assert_in_range(world->errors, 6, 7); /* 1, 2, 4, 8, 16, 32, 64 */
    assert_non_null(strstr(world->log, "ulimit -n"));
    unsigned errors = world->errors;
    fail_accept_count = 0;
    run_until_count(world, server, 1);
    close(fd);
    run_until_count(world, server, 0);
    /* After a good minute it is news. */
    clock_ahead += 61000000000;
    fd = connect_to(server);
    wait_readable(socket_fd(server, 0));
    fail_accept_count = 1;
    run_ticks(world, 3);
    assert_int_equal(world->errors, errors + 1);
    clock_ahead += 1100000000;
    run_until_count(world, server, 1);
    close(fd);
    run_until_count(world, server, 0);
    server_end(world, server);
}

/* rules: V-8 */
static void test_V_8_an_unread_server_is_not_leaked(void **state) {
    struct world *world = *state;
    tram_future *future;
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    tram_future_release(future); /* the fixture counts what is left */
}

static void test_V_10_aborted_connections_are_skipped(void **state) {
    struct world *world = *state;
    use_fake(world);
    tram_server *server = server_new(world, NULL);
    int fd = connect_to(server);
    wait_readable(socket_fd(server, 0));
    fail_accept = ECONNABORTED;
    fail_accept_count = 3;
    run_ticks(world, 1);
    assert_int_equal(tram_server_connection_count(server), 1);
    assert_int_equal(world->exceptions, 0);

    int second = connect_to(server);
    wait_readable(socket_fd(server, 0));
    fail_accept = EINTR;
    fail_accept_count = 1;
    run_ticks(world, 1);
    assert_int_equal(tram_server_connection_count(server), 1); /* stopped */
    run_ticks(world, 1);
    assert_int_equal(tram_server_connection_count(server), 2);
    assert_int_equal(world->exceptions, 0);
    close(fd);
    close(second);
    server_end(world, server);
}

static void test_V_11_one_report_and_one_timer_per_incident(void **state) {
    struct world *world = *state;
    const int errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
    for (size_t i = 0; i < 4; i++) {
        use_fake(world);
        unsigned exceptions = world->exceptions;
        tram_server *server = server_new(world, NULL);
        int fds[] = {connect_to(server), connect_to(server)};
        wait_readable(socket_fd(server, 0));
        fail_accept = errors[i];
        fail_accept_count = 1000;
        accepts = 0;
        run_ticks(world, 5);
        assert_int_equal(accepts, 1); /* the listener is not watched any more */
        assert_int_equal(world->exceptions, exceptions + 1);
        assert_int_equal(world->exception_code, -errors[i]);
        assert_int_equal(world->exception_fd, socket_fd(server, 0));
        tram_stats stats;
        tram_loop_stats(world->loop, &stats);
        assert_int_equal(stats.accept_pauses, 1);
        assert_true(tram_server_is_serving(server));

        clock_ahead += 900000000; /* not yet */
        run_ticks(world, 3);
        assert_int_equal(accepts, 1);
        clock_ahead += 200000000; /* still starving: the next incident */
        run_ticks(world, 5);
        assert_int_equal(accepts, 2);
        assert_int_equal(world->exceptions, exceptions + 2);

        fail_accept_count = 0;
        clock_ahead += 1100000000;
        run_until_count(world, server, 2);
        assert_int_equal(world->exceptions, exceptions + 2);
        assert_int_equal(tram_server_connection_count(server), 2);
        close(fds[0]);
        close(fds[1]);
        server_end(world, server);
    }
}

/* The same without descriptors for real: the host's table is full. */
static void test_V_11_full_descriptor_table(void **state) {
    struct world *world = *state;
    use_fake(world); /* for its clock */
    tram_server *server = server_new(world, NULL);
    int clients[] = {connect_to(server), connect_to(server)};
    wait_readable(socket_fd(server, 0));
    struct rlimit before, now;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int highest = dup(clients[0]); /* the lowest number that is free */
    assert_true(highest >= 0);
    close(highest);
    now = (struct rlimit){.rlim_cur = (rlim_t)highest, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    run_ticks(world, 5);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, -EMFILE);
    assert_int_equal(tram_server_connection_count(server), 0);
    clock_ahead += 1100000000;
    run_until_traced(world, "made"); /* valgrind, which plays the full table itself, has lost the first of them */
    close(clients[0]);
    close(clients[1]);
    server_end(world, server);
}

static void test_V_11_closed_meanwhile(void **state) {
    struct world *world = *state;
    use_fake(world);
    tram_server *server = server_new(world, NULL);
    int fd = connect_to(server);
    wait_readable(socket_fd(server, 0));
    fail_accept = EMFILE;
    fail_accept_count = 1000;
    run_ticks(world, 2);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(tram_server_close(server), 0);
    accepts = 0;
    clock_ahead += 2000000000;
    run_ticks(world, 5);
    assert_int_equal(accepts, 0);
    assert_int_equal(world->exceptions, 1);
    close(fd);
    tram_server_release(server);
}

/* Not even when the pause is over has the kernel what it takes to wait for clients. */
static void test_V_11_a_listener_that_cannot_be_armed_again(void **state) {
    struct world *world = *state;
    for (int closed = 0; closed < 2; closed++) {
        use_fake(world);
        unsigned exceptions = world->exceptions;
        tram_server *server = server_new(world, NULL);
        int fd = connect_to(server);
        wait_readable(socket_fd(server, 0));
        fail_accept = EMFILE;
        fail_accept_count = 1;
        run_ticks(world, 3);
        assert_int_equal(world->exceptions, exceptions + 1);
        no_arming = true;
        for (int i = 0; i < 3; i++) {
            clock_ahead += 1100000000;
            run_ticks(world, 3);
            assert_int_equal(tram_server_connection_count(server), 0);
        }
        no_arming = false;
        if (closed) { /* what fails then was told */
            fail_accept_count = 1000;
            assert_int_equal(tram_server_close(server), 0);
            run_ticks(world, 3);
            assert_int_equal(world->exceptions, exceptions + 1);
            tram_server_release(server);
        } else {
            clock_ahead += 1100000000;
            run_until_count(world, server, 1);
            server_end(world, server);
        }
        close(fd);
        world->trace[0] = '\0';
    }
}

static void test_V_12_other_errors_are_reported_and_serving_goes_on(void **state) {
    struct world *world = *state;
    use_fake(world);
    tram_server *server = server_new(world, NULL);
    int fd = connect_to(server);
    wait_readable(socket_fd(server, 0));
    fail_accept = EPERM;
    fail_accept_count = 1;
    run_ticks(world, 1);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, -EPERM);
    assert_int_equal(tram_server_connection_count(server), 0);
    run_ticks(world, 1);
    assert_int_equal(tram_server_connection_count(server), 1);
    close(fd);
    server_end(world, server);
}

/* Twice as long each time, up to a minute or so. */
static void test_V_12_what_keeps_failing_is_tried_ever_more_seldom(void **state) {
    static const unsigned pauses[] = {1, 2, 4, 8, 16, 32, 64, 64, 64, 64}; /* seconds */
    struct world *world = *state;
    use_fake(world);
    tram_server *server = server_new(world, NULL);
    int fd = connect_to(server);
    wait_readable(socket_fd(server, 0));
    fail_accept = EPERM;
    fail_accept_count = 1000;
    run_ticks(world, 4); /* one failure may pass by itself; the second begins the first pause */
    for (size_t i = 0; i < sizeof pauses / sizeof *pauses; i++) {
        accepts = 0;
        clock_ahead += pauses[i] * 1000000000ull - 500000000;
        run_ticks(world, 4);
        if (accepts)
            fail_msg("pause %zu is too short", i);
        clock_ahead += 500000000;
        run_ticks(world, 4);
        if (accepts != 1)
            fail_msg("pause %zu: %u", i, accepts);
    }
    fail_accept_count = 0;
    clock_ahead += 64000000000;
    run_until_count(world, server, 1);
    close(fd);
    server_end(world, server);
}

/* rules: V-13, P-3, T-10, T-14 */
static void test_V_13_accepted_connections(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    int fd = connect_to(server);
    assert_int_equal(send(fd, "early", 5, 0), 5);
    run_until_traced(world, "data");
    assert_trace(world, "made data:5");
    tram_transport *transport = world_last_recorder(world)->base.transport;
    const tram_socket *socket = tram_transport_get_extra_info(transport, "socket", NULL);
    assert_true(fcntl(socket->fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(socket->fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(int_option(socket->fd, IPPROTO_TCP, TCP_NODELAY), 1);
    const tram_socket_address *peer = tram_transport_get_extra_info(transport, "peername", NULL);
    struct sockaddr_in client;
    socklen_t size = sizeof client;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&client, &size), 0);
    assert_int_equal(port_of(peer), ntohs(client.sin_port));
    close(fd);
    run_until_traced(world, "released");
    assert_trace(world, "eof lost:0 released");
    server_end(world, server);
}

static int every_other_fails(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static unsigned calls;
    if (calls++ % 2 == 0)
        return tram_loop_raise(loop, TRAM_EUSER, arg, "not this one");
    return recorder_factory(loop, arg, ret_protocol);
}

static void check_failing_factory(struct world *world, unsigned reports) {
    tram_server *server = server_with(world, every_other_fails, "127.0.0.1", NULL);
    int refused = connect_to(server);
    char byte;
    while (recv(refused, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN)
        run_ticks(world, 1);
    assert_int_equal(world->exceptions, reports);
    if (reports) {
        assert_int_equal(world->exception_code, TRAM_EUSER);
        assert_ptr_equal(world->exception_user, world);
    }
    int served = connect_to(server);
    run_until_traced(world, "made");
    assert_trace(world, "made");
    assert_int_equal(tram_server_connection_count(server), 1);
    close(refused);
    close(served);
    server_end(world, server);
}

static void test_V_13_failing_factory_concerns_its_connection_only(void **state) {
    check_failing_factory(*state, 0);
}

static void test_V_13_failing_factory_is_reported_in_debug(void **state) {
    check_failing_factory(*state, 1);
}

static tram_server *closing_server;

static int close_in_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    if (closing_server) {
        tram_server *server = closing_server;
        closing_server = NULL;
        assert_int_equal(tram_server_close(server), 0);
        tram_server_release(server);
    }
    return recorder_factory(loop, arg, ret_protocol);
}

/* rules: V-13, V-16, V-17, P-18 */
static void test_V_16_factory_closes_its_server_and_lets_go_of_it(void **state) {
    struct world *world = *state;
    tram_server *server = server_with(world, close_in_factory, "127.0.0.1", NULL);
    closing_server = server;
    int fds[] = {connect_to(server), connect_to(server), connect_to(server)};
    run_until_words(world, "made", 3);
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
    run_until_words(world, "released", 3);
}

/* ---- Being there, and closing ---- */

static void test_V_14_serving_and_sockets(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    assert_true(tram_server_is_serving(server));
    assert_ptr_equal(tram_server_get_loop(server), world->loop);
    tram_socket socket;
    assert_int_equal(tram_server_sockets(server, &socket, 1), 1);
    assert_int_equal(socket.family, AF_INET);
    assert_int_equal(socket.type, SOCK_STREAM);
    assert_int_equal(tram_server_close(server), 0);
    assert_false(tram_server_is_serving(server));
    assert_int_equal(tram_server_sockets(server, &socket, 1), 0);
    tram_socket_address address;
    assert_int_equal(tram_server_sockname(server, 0, &address), TRAM_EVALUE);
    tram_server_release(server);
}

static tram_server *counted_server;
static size_t count_in_lost;

static int count_on_lost(struct recorder *recorder, const char *event) {
    (void)recorder;
    if (strcmp(event, "lost") == 0)
        count_in_lost = tram_server_connection_count(counted_server);
    return 0;
}

static void test_V_15_counted_from_creation_until_connection_lost_returned(void **state) {
    struct world *world = *state;
    tram_server *server = counted_server = server_new(world, NULL);
    assert_int_equal(tram_server_connection_count(server), 0);
    int fd = connect_to(server);
    wait_readable(socket_fd(server, 0));
    run_ticks(world, 1);
    assert_int_equal(tram_server_connection_count(server), 1); /* connection_made has not run */
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "made");
    world_last_recorder(world)->on = count_on_lost;
    count_in_lost = 99;
    close(fd);
    run_until_count(world, server, 0);
    assert_int_equal(count_in_lost, 1);
    server_end(world, server);
}

static void test_V_16_close_leaves_connections_alone(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    uint16_t port = server_port(server, 0);
    int fd = connect_to(server), listener = socket_fd(server, 0);
    run_until_traced(world, "made");
    assert_int_equal(tram_server_close(server), 0);
    assert_int_equal(fcntl(listener, F_GETFD), -1); /* at once */
    assert_int_equal(tram_server_close(server), 0);
    assert_nobody_listens(port);
    assert_int_equal(tram_server_connection_count(server), 1);
    send_exactly(world, fd, "hello", 5);
    run_until_traced(world, "data:5");
    close(fd);
    run_until_traced(world, "released");
    tram_server_release(server);
}

static void test_V_17_who_got_through_is_served(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    int fds[20];
    for (size_t i = 0; i < 20; i++) {
        fds[i] = connect_to(server);
        assert_int_equal(send(fds[i], "x", 1, 0), 1);
    }
    assert_int_equal(tram_server_close(server), 0); /* no tick has run since they came */
    assert_int_equal(tram_server_connection_count(server), 20);
    tram_server_release(server);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.accepted, 20);
    for (size_t i = 0; i < 20; i++)
        shutdown(fds[i], SHUT_WR);
    for (size_t i = 0; i < 20; i++) {
        assert_true(receive_eof(world, fds[i])); /* a FIN, no reset */
        close(fds[i]);
    }
    assert_int_equal(count_words(world, "data:1"), 20);
}

/* That one of those who wait has gone already is no reason to forget the others. */
static void test_V_17_V_10_aborted_ones_do_not_keep_the_rest_out(void **state) {
    struct world *world = *state;
    static const int passing[] = {ECONNABORTED, EINTR}, others[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM};
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) {
        use_fake(world);
        tram_server *server = server_new(world, NULL);
        int fds[5];
        for (size_t j = 0; j < 5; j++)
            fds[j] = connect_to(server);
        wait_readable(socket_fd(server, 0));
        fail_accept = passing[i];
        fail_accept_count = 3;
        assert_int_equal(tram_server_close(server), 0);
        assert_int_equal(tram_server_connection_count(server), 5);
        assert_int_equal(world->exceptions, 0);
        for (size_t j = 0; j < 5; j++)
            close(fds[j]);
        server_end(world, server);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        use_fake(world);
        unsigned exceptions = world->exceptions;
        tram_server *server = server_new(world, NULL);
        int fd = connect_to(server);
        wait_readable(socket_fd(server, 0));
        fail_accept = others[i];
        fail_accept_count = 1000;
        assert_int_equal(tram_server_close(server), 0);
        assert_int_equal(accepts, 1);
        assert_int_equal(world->exceptions, exceptions + 1);
        assert_int_equal(world->exception_code, -others[i]);
        assert_string_equal(world->exception, "accept failed while the server closed");
        close(fd);
        server_end(world, server);
    }
}

static int trace_future(tram_future *future, void *arg) {
    int code = tram_future_result(future, NULL);
    trace(world_of(tram_future_get_loop(future)), "%s:%s", (const char *)arg, code ? tram_error_name(code) : "ok");
    return 0;
}

static void follow(tram_future *future, const char *name) {
    assert_int_equal(tram_future_add_done_callback(future, trace_future, (void *)(uintptr_t)name), 0);
    tram_future_release(future);
}

static void test_V_18_wait_closed_after_close_and_last_connection(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    int fd = connect_to(server);
    run_until_traced(world, "made");
    tram_future *future = wait_closed(server), *second = wait_closed(server);
    run_ticks(world, 3);
    assert_false(tram_future_done(future)); /* open */
    assert_int_equal(tram_server_close(server), 0);
    run_ticks(world, 3);
    assert_false(tram_future_done(future)); /* a connection is left */
    close(fd);
    run_until_traced(world, "lost");
    run_until_done(world, future);
    assert_true(tram_future_done(second));
    assert_int_equal(tram_future_result(future, NULL), 0);
    tram_future_release(future);
    tram_future_release(second);
    /* At once if it is so already, yet never inside the call. */
    future = wait_closed(server);
    assert_true(tram_future_done(future));
    world->trace[0] = '\0';
    follow(future, "closed");
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "closed:ok");
    tram_server_release(server);
}

static void test_V_18_wait_closed_the_other_way_round(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    int fd = connect_to(server);
    run_until_traced(world, "made");
    tram_future *future = wait_closed(server), *cancelled = wait_closed(server);
    close(fd);
    run_until_count(world, server, 0);
    run_ticks(world, 3);
    assert_false(tram_future_done(future)); /* no connection, but open */
    assert_int_equal(tram_future_cancel(cancelled), 1);
    assert_true(tram_future_cancelled(cancelled));
    tram_future_release(cancelled);
    assert_int_equal(tram_server_close(server), 0);
    assert_true(tram_future_done(future));
    tram_future_release(future);
    tram_server_release(server);
}

static unsigned refusals;

static int refuse_some(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    if (!refusals)
        return recorder_factory(loop, arg, ret_protocol);
    refusals--;
    return -EPERM;
}

/* Of two who got through the first one cannot be served: the server is not at its end while the other one is to come.
 */
static void test_V_18_V_17_the_first_of_the_rest_could_not_be_made(void **state) {
    struct world *world = *state;
    tram_server *server = server_with(world, refuse_some, "127.0.0.1", NULL);
    int fds[] = {connect_to(server), connect_to(server)};
    tram_future *future = wait_closed(server);
    refusals = 1;
    assert_int_equal(tram_server_close(server), 0);
    assert_int_equal(tram_server_connection_count(server), 1);
    assert_false(tram_future_done(future));
    close(fds[0]);
    close(fds[1]);
    run_until_done(world, future);
    assert_int_equal(tram_server_connection_count(server), 0);
    tram_future_release(future);
    tram_server_release(server);
}

static int try_to_close(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    assert_int_equal(tram_loop_close(loop), TRAM_ESTATE);
    assert_int_equal(tram_loop_free(loop), TRAM_ESTATE);
    return refuse_some(loop, arg, ret_protocol);
}

static int try_in_handler(tram_loop *loop, const tram_exception *exception, void *arg) {
    (void)exception;
    ++*(unsigned *)arg;
    assert_int_equal(tram_loop_close(loop), TRAM_ESTATE);
    return 0;
}

/* What calls them goes on with the loop, which does not run. */
static void test_L_8_V_17_no_loop_is_closed_in_a_factory_or_a_handler(void **state) {
    struct world *world = *state;
    unsigned reports = 0;
    world->options.debug = true;
    world_reopen(world);
    tram_server *server = server_with(world, try_to_close, "127.0.0.1", NULL);
    int fds[] = {connect_to(server), connect_to(server)};
    assert_int_equal(tram_loop_set_exception_handler(world->loop, try_in_handler, &reports), 0);
    refusals = 1;
    assert_int_equal(tram_server_close(server), 0);
    assert_int_equal(reports, 1);
    assert_int_equal(tram_server_connection_count(server), 1);
    tram_server_release(server);
    close(fds[0]);
    close(fds[1]);
    run_until_traced(world, "released");
    assert_int_equal(tram_loop_set_exception_handler(world->loop, NULL, NULL), 0);
}

static void test_V_19_close_and_abort_clients(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL), *other = server_new(world, NULL);
    int fds[] = {connect_to(server), connect_to(server), connect_to(other)};
    run_until_count(world, server, 2);
    run_until_count(world, other, 1);
    assert_int_equal(tram_server_close_clients(server), 0);
    run_until_count(world, server, 0);
    assert_int_equal(tram_server_connection_count(other), 1);
    assert_true(receive_eof(world, fds[0]));
    assert_true(receive_eof(world, fds[1]));
    int fresh = connect_to(server); /* still served */
    run_until_count(world, server, 1);
    run_until_words(world, "made", 4);
    /* Queued bytes are not waited for. */
    tram_transport *transport = world_last_recorder(world)->base.transport;
    shrink_buffers(fresh);
    fill(transport, 100000);
    assert_int_equal(tram_server_close_clients(server), 0);
    run_ticks(world, 3);
    assert_int_equal(tram_server_connection_count(server), 1);
    assert_int_equal(tram_server_abort_clients(server), 0);
    run_until_count(world, server, 0);
    close(fds[0]);
    close(fds[1]);
    close(fds[2]);
    close(fresh);
    server_end(world, server);
    server_end(world, other);
}

static tram_future *serve_forever(tram_server *server) {
    tram_future *future;
    assert_int_equal(tram_server_serve_forever(server, &future), 0);
    return future;
}

static void test_V_20_cancelled_serve_forever_waits_for_the_connections(void **state) {
    struct world *world = *state;
    tram_server_options options = {.defer_serving = true};
    tram_server *server = server_new(world, &options);
    assert_false(tram_server_is_serving(server));
    tram_future *future = serve_forever(server);
    assert_true(tram_server_is_serving(server));
    int fd = connect_to(server);
    run_until_traced(world, "made");
    assert_false(tram_future_done(future));
    assert_int_equal(tram_future_cancel(future), 1);
    assert_false(tram_server_is_serving(server));
    run_ticks(world, 3);
    assert_false(tram_future_done(future));
    close(fd);
    run_until_done(world, future);
    assert_true(tram_future_cancelled(future));
    assert_int_equal(tram_future_cancel(future), 0);
    tram_future_release(future);
    tram_server_release(server);
}

static void test_V_20_second_cancel_interrupts_the_wait(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    tram_future *future = serve_forever(server);
    int fd = connect_to(server);
    run_until_traced(world, "made");
    assert_int_equal(tram_future_cancel(future), 1);
    run_ticks(world, 2);
    assert_false(tram_future_done(future));
    assert_int_equal(tram_future_cancel(future), 1);
    assert_true(tram_future_cancelled(future));
    assert_int_equal(tram_server_connection_count(server), 1);
    tram_future_release(future);
    close(fd);
    server_end(world, server);
}

static void test_V_21_once_only_and_not_on_a_closed_server(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    tram_future *future = serve_forever(server), *second = NULL;
    assert_int_equal(tram_server_serve_forever(server, &second), TRAM_ESTATE);
    assert_int_equal(tram_server_close(server), 0);
    assert_true(tram_future_cancelled(future));
    assert_int_equal(tram_server_serve_forever(server, &second), TRAM_ESTATE);
    assert_int_equal(tram_server_start_serving(server, &second), TRAM_ESTATE);
    assert_null(second);
    tram_future_release(future);
    tram_server_release(server);
}

static void test_V_22_close_ends_serve_forever(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    tram_future *future = serve_forever(server);
    int fd = connect_to(server);
    run_until_traced(world, "made");
    assert_int_equal(tram_server_close(server), 0);
    run_ticks(world, 3);
    assert_false(tram_future_done(future)); /* it waits for the connection here as well */
    close(fd);
    run_until_done(world, future);
    assert_int_equal(tram_future_result(future, NULL), TRAM_ECANCELLED);
    tram_future_release(future);
    tram_server_release(server);
}

/* rules: V-23 */
static void test_V_23_close_and_wait_is_a_scope(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    int fd = connect_to(server);
    run_until_traced(world, "made");
    assert_int_equal(tram_server_close(server), 0);
    assert_int_equal(tram_server_close_clients(server), 0);
    tram_future *future = wait_closed(server);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_true(world_last_recorder(world)->lost);
    assert_true(receive_eof(world, fd));
    close(fd);
    tram_future_release(future);
    tram_server_release(server);
}

static tram_transport *made_transport;

static int remember(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") == 0)
        made_transport = recorder->base.transport;
    return 0;
}

static int keep_transport(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    int status = recorder_factory(loop, arg, ret_protocol);
    world_last_recorder(arg)->on = remember;
    return status;
}

static void test_V_24_the_server_knows_transports_not_protocols(void **state) {
    struct world *world = *state;
    tram_server *server = server_with(world, keep_transport, "127.0.0.1", NULL);
    int fd = connect_to(server);
    run_until_traced(world, "made");
    struct recorder *second = recorder_new(world, "second");
    assert_int_equal(tram_transport_set_protocol(made_transport, &second->base), 0);
    assert_int_equal(tram_server_connection_count(server), 1);
    assert_int_equal(tram_server_close_clients(server), 0);
    run_until_count(world, server, 0);
    run_until_traced(world, "second.released");
    assert_trace(world, "made released second.lost:0 second.released");
    close(fd);
    server_end(world, server);
}

/* ---- Memory, and the end of the loop ---- */

static void test_X_9_server_nobody_holds_serves_until_the_loop_closes(void **state) {
    struct world *world = *state;
    uint16_t port;
    int sock = tcp_listener(10, &port);
    tram_server_options options = {.sock = &sock};
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, NULL, NULL, &options, NULL), 0);
    run_ticks(world, 2);
    int fd = tcp_connect(port);
    assert_true(fd >= 0);
    run_until_traced(world, "made");
    close(fd);
    run_until_traced(world, "released");
    world->trace[0] = '\0';
    fd = tcp_connect(port);
    run_until_traced(world, "made");
    world_reopen(world); /* the old loop closes with a connection open */
    assert_trace(world, "made lost:0 released");
    close(fd);
}

static void test_L_8_loop_closes_with_all_kinds_of_futures_pending(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    int fd = connect_to(server);
    run_until_traced(world, "made");
    tram_future *futures[5];
    futures[0] = wait_closed(server);
    futures[1] = serve_forever(server);
    assert_int_equal(tram_server_start_serving(server, &futures[2]), 0);
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", NULL, &futures[3]),
                     0);
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "localhost", "0", NULL, &futures[4]),
                     0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    for (size_t i = 0; i < 5; i++) {
        assert_true(tram_future_done(futures[i]));
        tram_future_release(futures[i]);
    }
    assert_false(tram_server_is_serving(server));
    assert_int_equal(tram_server_close(server), 0);
    assert_null(tram_server_get_loop(server));
    tram_future *future;
    assert_int_equal(tram_server_wait_closed(server, &future), TRAM_ESTATE);
    assert_int_equal(tram_server_start_serving(server, &future), TRAM_ESTATE);
    assert_int_equal(tram_server_abort_clients(server), TRAM_ESTATE);
    assert_int_equal(tram_loop_free(world->loop), 0);
    world->loop = NULL;
    tram_server_hold(server);
    tram_server_release(server); /* longer than its loop */
    tram_server_release(server);
    close(fd);
}

static void test_X_1_out_of_memory_at_every_place(void **state) {
    struct world *world = *state;
    for (size_t n = 0; n < 60; n++) {
        world->fail_after = SIZE_MAX;
        world_reopen(world);
        const char *const hosts[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", NULL};
        tram_server_options options = {.hosts = hosts};
        world->fail_after = n;
        tram_future *future = NULL;
        int status = tram_loop_create_server(world->loop, recorder_factory, world, NULL, "0", &options, &future);
        if (status) {
            assert_int_equal(status, -ENOMEM);
            assert_null(future);
            continue;
        }
        run_ticks(world, 3);
        world->fail_after = SIZE_MAX;
        assert_true(tram_future_done(future));
        void *server = NULL;
        status = tram_future_result(future, &server);
        tram_future_release(future);
        if (!status) {
            server_end(world, server);
            return;
        }
        assert_int_equal(status, -ENOMEM);
    }
    fail_msg("never had enough memory");
}

static void test_X_1_without_room_for_all_listeners(void **state) {
    static const char *const hosts[] = {"127.0.0.1", "127.0.0.2", "127.0.0.3", NULL};
    const tram_server_options options = {.hosts = hosts};
    struct world *world = *state;
    server_end(world, server_new(world, &options)); /* what the first one needs beside is there */
    for (size_t left = 0; left <= 3; left++) {
        tram_future *future = NULL;
        world_lacks_slots(world, left);
        int status = tram_loop_create_server(world->loop, recorder_factory, world, NULL, "0", &options, &future);
        if (!status)
            status = tram_loop_run_until_complete(world->loop, future);
        void *server = NULL;
        if (!status)
            assert_int_equal(tram_future_result(future, &server), 0);
        if (future)
            tram_future_release(future);
        run_ticks(world, 2);
        world_has_slots(world);
        assert_int_equal(status, left < 3 ? -ENOMEM : 0);
        if (server)
            server_end(world, server);
    }
}

static void test_X_1_no_memory_for_what_a_server_is_asked(void **state) {
    struct world *world = *state;
    tram_server *server = server_new(world, NULL);
    tram_future *future = NULL;
    world->fail_after = 0;
    assert_int_equal(tram_server_start_serving(server, &future), -ENOMEM);
    assert_int_equal(tram_server_drain(server, HOUR_NS, &future), -ENOMEM);
    world->fail_after = SIZE_MAX;
    assert_true(tram_server_is_serving(server));
    run_ticks(world, 3);
    assert_trace(world, "");
    server_end(world, server);
}

/* ---- Options of TCP ---- */

#define MS     UINT64_C(1000000)
#define SECOND (1000 * MS)

static const tram_tcp_options tcp_wishes = {.keep_alive_idle_ns = 90 * SECOND + 1,
                                            .keep_alive_interval_ns = 7 * SECOND,
                                            .keep_alive_probes = 3,
                                            .traffic_class = 0xb8,
                                            .user_timeout_ns = 20 * SECOND + 1};

static void assert_has_wishes(int fd, bool ipv6) {
    assert_int_equal(int_option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(int_option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 91);
    assert_int_equal(int_option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 7);
    assert_int_equal(int_option(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
    assert_int_equal(int_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 20001);
    assert_int_equal(ipv6 ? int_option(fd, IPPROTO_IPV6, IPV6_TCLASS) : int_option(fd, IPPROTO_IP, IP_TOS), 0xb8);
}

static int transport_fd(tram_transport *transport) {
    const tram_socket *socket = tram_transport_get_extra_info(transport, "socket", NULL);
    return socket->fd;
}

static void test_V_3_C_17_tcp_options_are_set_on_both_sides(void **state) {
    struct world *world = *state;
    const char *const hosts[] = {"127.0.0.1", "::1", NULL};
    tram_server_options options = {.hosts = hosts, .same_port = true, .tcp = tcp_wishes};
    options.tcp.fast_open = 5;
    tram_server *server = server_new(world, &options);
    size_t count = tram_server_sockets(server, NULL, 0); /* one where there is no IPv6 */
    char port[8];
    snprintf(port, sizeof port, "%u", server_port(server, 0));
    int fd = connect_to(server);
    run_until_traced(world, "made");
    assert_has_wishes(transport_fd(world_last_recorder(world)->base.transport), false);
    close(fd);
    for (size_t i = 0; i < count; i++) {
        assert_has_wishes(socket_fd(server, i), i);
        assert_int_equal(int_option(socket_fd(server, i), IPPROTO_TCP, TCP_FASTOPEN), 5);
        const tram_connection_options client = {.tcp = tcp_wishes};
        tram_future *future;
        assert_int_equal(
            tram_loop_create_connection(world->loop, recorder_factory, world, hosts[i], port, &client, &future), 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
        tram_transport *transport = tram_future_transport(future);
        assert_has_wishes(transport_fd(transport), i);
        tram_transport_abort(transport);
        tram_future_release(future);
    }
    server_end(world, server);
}

static void test_V_3_C_17_tcp_options_of_given_sockets(void **state) {
    struct world *world = *state;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), pair[2];
    tram_server_options options = {.sock = &fd, .tcp = tcp_wishes};
    tram_server *server = server_new(world, &options);
    assert_has_wishes(fd, false);
    server_end(world, server);

    /* They are of TCP only. */
    tram_future *future;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    const tram_connection_options client = {.sock = &pair[0], .tcp = {.user_timeout_ns = 1}};
    int status = tram_loop_create_connection(world->loop, recorder_factory, world, NULL, NULL, &client, &future);
    assert_true(status == -EOPNOTSUPP || status == -ENOPROTOOPT);
    options.sock = &pair[1];
    options.tcp = (tram_tcp_options){.keep_alive_probes = 1};
    status = tram_loop_create_server(world->loop, recorder_factory, world, NULL, NULL, &options, &future);
    assert_true(status == -EOPNOTSUPP || status == -ENOPROTOOPT);
    close(pair[0]); /* they stayed ours */
    close(pair[1]);
}

/* Each of the three asks for it by itself; the others, and 0, do not. */
static void test_V_3_C_17_what_switches_keep_alive_on(void **state) {
    struct world *world = *state;
    static const struct {
        tram_tcp_options tcp;
        bool keep_alive;
    } list[] = {{{.keep_alive_idle_ns = 1}, true},
                {{.keep_alive_interval_ns = 1}, true},
                {{.keep_alive_probes = 1}, true},
                {{.traffic_class = 0xb8, .user_timeout_ns = 1}, false},
                {{.traffic_class = 0, .fast_open = 1}, false}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const tram_server_options options = {.tcp = list[i].tcp};
        tram_server *server = server_new(world, &options);
        assert_int_equal(int_option(socket_fd(server, 0), SOL_SOCKET, SO_KEEPALIVE), list[i].keep_alive);
        server_end(world, server);
    }
}

static void test_V_3_C_17_what_no_system_has_is_a_bad_option(void **state) {
    static const tram_tcp_options list[] = {{.keep_alive_idle_ns = 32767 * SECOND + 1},
                                            {.keep_alive_interval_ns = UINT64_MAX},
                                            {.keep_alive_probes = 128},
                                            {.traffic_class = 256},
                                            {.user_timeout_ns = (UINT64_C(1) << 31) * MS},
                                            {.fast_open = 65536},
                                            {.reserved = {1}}};
    struct world *world = *state;
    tram_future *future;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const tram_server_options server = {.tcp = list[i]};
        const tram_connection_options client = {.tcp = list[i]};
        assert_int_equal(
            tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", &server, &future),
            TRAM_EVALUE);
        assert_int_equal(
            tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", "1", &client, &future),
            TRAM_EVALUE);
    }
    const tram_connection_options client = {.tcp = {.fast_open = 1}};
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", "1", &client, &future),
        TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "fast_open");
}

static void test_V_3_C_17_a_refused_tcp_option_is_an_error(void **state) {
    struct world *world = *state;
    use_fake(world);
    fail_level = IPPROTO_TCP;
    fail_option = TCP_USER_TIMEOUT;
    const tram_server_options server = {.tcp = tcp_wishes};
    const tram_connection_options client = {.tcp = tcp_wishes};
    for (int i = 0; i < 2; i++) {
        tram_future *future;
        int status =
            i ? tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", &server, &future)
              : tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", "1", &client, &future);
        assert_int_equal(status, 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), -ENOPROTOOPT);
        assert_string_equal(tram_future_error(future)->operation, "setsockopt");
        tram_future_release(future);
    }
}

#define TEST(name)  cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)
#define DEBUG(name) cmocka_unit_test_setup_teardown(test_##name, world_setup_debug, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(V_1_no_host_means_all_interfaces),
        TEST(V_1_several_hosts_each_address_once_in_order),
        TEST(V_2_port_0_gives_each_address_its_own_free_port),
        TEST(V_2_same_port_is_one_for_all_addresses),
        TEST(V_2_same_port_tries_others),
        TEST(V_3_C_17_tcp_options_are_set_on_both_sides),
        TEST(V_3_C_17_tcp_options_of_given_sockets),
        TEST(V_3_C_17_what_switches_keep_alive_on),
        TEST(V_3_C_17_what_no_system_has_is_a_bad_option),
        TEST(V_3_C_17_a_refused_tcp_option_is_an_error),
        TEST(V_3_options_of_the_sockets),
        TEST(V_3_reuse_port_unsupported_is_a_bad_value),
        TEST(V_4_ipv6_listeners_leave_ipv4_alone),
        TEST(V_4_a_mapped_address_is_one_of_ipv4),
        TEST(V_5_what_cannot_be_had_is_skipped),
        TEST(V_5_other_errors_of_bind_fail_with_the_address),
        TEST(what_may_not_be_transparent_fails),
        TEST(V_5_no_address_left_is_an_error),
        TEST(V_5_failure_nobody_waits_for_is_reported),
        TEST(V_6_socket_of_the_user),
        TEST(V_6_contradictions),
        TEST(V_6_backlog),
        TEST(V_7_deferred_server_is_bound_and_does_not_listen),
        TEST(V_8_done_one_tick_after_listening_began),
        TEST(X_3_cancelled_creation_leaves_nothing),
        TEST(X_3_who_comes_before_a_creation_is_cancelled_is_not_served),
        TEST(L_37_unknown_host_is_a_resolver_error),
        TEST(V_9_accepts_backlog_plus_one_per_tick),
        TEST(V_9_accepts_at_most_256_per_tick),
        TEST(W_6_dropped_answers_make_one_line_for_each_peer),
        TEST(V_11_long_starvation_is_told_ever_more_seldom),
        TEST(V_8_an_unread_server_is_not_leaked),
        TEST(V_10_aborted_connections_are_skipped),
        TEST(V_11_one_report_and_one_timer_per_incident),
        TEST(V_11_full_descriptor_table),
        TEST(V_11_closed_meanwhile),
        TEST(V_11_a_listener_that_cannot_be_armed_again),
        TEST(V_12_other_errors_are_reported_and_serving_goes_on),
        TEST(V_12_what_keeps_failing_is_tried_ever_more_seldom),
        TEST(V_13_accepted_connections),
        TEST(V_13_failing_factory_concerns_its_connection_only),
        DEBUG(V_13_failing_factory_is_reported_in_debug),
        TEST(V_16_factory_closes_its_server_and_lets_go_of_it),
        TEST(V_14_serving_and_sockets),
        TEST(V_15_counted_from_creation_until_connection_lost_returned),
        TEST(V_16_close_leaves_connections_alone),
        TEST(V_17_who_got_through_is_served),
        TEST(V_17_V_10_aborted_ones_do_not_keep_the_rest_out),
        TEST(V_18_wait_closed_after_close_and_last_connection),
        TEST(V_18_wait_closed_the_other_way_round),
        TEST(V_18_V_17_the_first_of_the_rest_could_not_be_made),
        TEST(L_8_V_17_no_loop_is_closed_in_a_factory_or_a_handler),
        TEST(V_19_close_and_abort_clients),
        TEST(V_20_cancelled_serve_forever_waits_for_the_connections),
        TEST(V_20_second_cancel_interrupts_the_wait),
        TEST(V_21_once_only_and_not_on_a_closed_server),
        TEST(V_22_close_ends_serve_forever),
        TEST(V_23_close_and_wait_is_a_scope),
        TEST(V_24_the_server_knows_transports_not_protocols),
        TEST(X_9_server_nobody_holds_serves_until_the_loop_closes),
        TEST(L_8_loop_closes_with_all_kinds_of_futures_pending),
        TEST(X_1_out_of_memory_at_every_place),
        TEST(X_1_without_room_for_all_listeners),
        TEST(X_1_no_memory_for_what_a_server_is_asked),
    };
    return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
