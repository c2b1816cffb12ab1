/* Connecting: the rules of group C in docs/rules.md, but for accepted sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/system/sys.h"
#include "support/support.h"

/* ---- A resolver of our own: this definition stands in front of the C library's ---- */

static const struct {
    const char *name;
    const char *addresses[6];
} names[] = {
    {"one.test", {"127.0.0.1"}},
    {"two.test", {"127.0.0.2", "127.0.0.1"}},
    {"twice.test", {"127.0.0.2", "127.0.0.2"}},
    {"three.test", {"127.0.0.3", "127.0.0.2", "127.0.0.1"}},
    {"mixed.test", {"127.0.0.1", "127.0.0.2", "127.0.0.3", "::1", "::2"}},
    {"locals.test", {"192.0.2.1", "127.0.0.6"}},
    {"foreign.test", {"192.0.2.1", "192.0.2.2"}},
};

static _Atomic unsigned resolutions;
static _Atomic unsigned nobodys;     /* of a name that nobody has */
static _Atomic unsigned unknown_for; /* so many lookups find nothing */

static struct addrinfo *answer(const char *address, uint16_t port) {
    struct addrinfo *info = calloc(1, sizeof *info + sizeof(struct sockaddr_storage));
    info->ai_addr = (struct sockaddr *)(info + 1);
    info->ai_socktype = SOCK_STREAM;
    info->ai_protocol = IPPROTO_TCP;
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 inet6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET, address, &inet.sin_addr) == 1) {
        memcpy(info->ai_addr, &inet, info->ai_addrlen = sizeof inet);
    } else {
        inet_pton(AF_INET6, address, &inet6.sin6_addr);
        memcpy(info->ai_addr, &inet6, info->ai_addrlen = sizeof inet6);
    }
    info->ai_family = info->ai_addr->sa_family;
    return info;
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret_answer) {
    resolutions++;
    *ret_answer = NULL;
    nobodys += host && strcmp(host, "nobody.test") == 0;
    /* Two threads may be here at once. */
    for (unsigned left = unknown_for; left;)
        if (atomic_compare_exchange_weak(&unknown_for, &left, left - 1))
            return EAI_NONAME;
    if (port && strcmp(port, "no-port") == 0)
        return EAI_SERVICE;
    for (size_t i = 0; host && i < sizeof names / sizeof *names; i++) {
        if (strcmp(host, names[i].name) != 0)
            continue;
        struct addrinfo **place = ret_answer;
        for (size_t j = 0; j < 6 && names[i].addresses[j]; j++) {
            struct addrinfo *info = answer(names[i].addresses[j], (uint16_t)(port ? atoi(port) : 0));
            if (hints && hints->ai_family && hints->ai_family != info->ai_family) {
                free(info);
                continue;
            }
            *place = info;
            place = &info->ai_next;
        }
        return 0;
    }
    return EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *info) {
    while (info) {
        struct addrinfo *next = info->ai_next;
        free(info);
        info = next;
    }
}

/* ---- A system that writes down where one connects to, and refuses if told ---- */

static struct sys fake;
static char connects[1024];
static int sockets[8]; /* their descriptors, in order */
static size_t socket_count;
static size_t connect_count;
static bool refuse_all;
static int refuse_with;
static uint64_t clock_ahead; /* nanoseconds added to the clock */

static int fake_clock(clockid_t clock, struct timespec *ret_time) {
    int status = tram__sys.clock_gettime(clock, ret_time);
    uint64_t ns = (uint64_t)ret_time->tv_nsec + clock_ahead;
    ret_time->tv_sec += (time_t)(ns / 1000000000u);
    ret_time->tv_nsec = (long)(ns % 1000000000u);
    return status;
}

static int fake_connect(int fd, const struct sockaddr *address, socklen_t size) {
    tram_socket_address to = {.size = size};
    memcpy(&to.address, address, size);
    char text[TRAM_ADDRESS_TEXT_SIZE];
    size_t length = strlen(connects);
    connect_count++;
    tram_socket_address_text(&to, text, sizeof text);
    *strrchr(text, ':') = '\0';
    snprintf(connects + length, sizeof connects - length, "%s%s", length ? " " : "", text);
    if (socket_count < sizeof sockets / sizeof *sockets)
        sockets[socket_count++] = fd;
    if (refuse_all) {
        errno = refuse_with;
        return -1;
    }
    return tram__sys.connect(fd, address, size);
}

/* No address of the net for examples can be had, whatever this machine is called. */
static int fake_bind(int fd, const struct sockaddr *address, socklen_t size) {
    struct sockaddr_in inet;
    memcpy(&inet, address, sizeof inet);
    if (inet.sin_family == AF_INET && ntohl(inet.sin_addr.s_addr) >> 24 == 192) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    return tram__sys.bind(fd, address, size);
}

static bool refuse_transparent;

static int fake_setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    if (refuse_transparent &&
        ((level == IPPROTO_IP && name == IP_TRANSPARENT) || (level == IPPROTO_IPV6 && name == IPV6_TRANSPARENT))) {
        errno = EPERM;
        return -1;
    }
    return tram__sys.setsockopt(fd, level, name, value, size);
}

/* What becomes of bytes that are to go with the packet that connects. */
static enum { EARLY_TAKEN, EARLY_NO_COOKIE, EARLY_NOT_ALLOWED } early;
static size_t early_limit;

static ssize_t fake_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                           socklen_t address_size) {
    assert_int_equal(flags, MSG_FASTOPEN | MSG_NOSIGNAL);
    if (early == EARLY_NOT_ALLOWED) {
        errno = EOPNOTSUPP;
        return -1;
    }
    int status = fake_connect(fd, address, address_size);
    if (early == EARLY_NO_COOKIE || (status < 0 && errno != EINPROGRESS))
        return status;
    await_events(fd, POLLOUT);
    return tram__sys.send(fd, data, size < early_limit ? size : early_limit, MSG_NOSIGNAL);
}

static unsigned no_watches; /* so many descriptors cannot be watched */

static int fake_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    if (operation == EPOLL_CTL_ADD && no_watches) {
        no_watches--;
        errno = ENOSPC;
        return -1;
    }
    return tram__sys.epoll_ctl(epoll, operation, fd, event);
}

static void use_fake(struct world *world) {
    fake = tram__sys;
    fake.sendto = fake_sendto;
    fake.epoll_ctl = fake_epoll_ctl;
    connect_count = 0;
    fake.setsockopt = fake_setsockopt;
    fake.bind = fake_bind;
    fake.clock_gettime = fake_clock;
    clock_ahead = 0;
    socket_count = 0;
    fake.connect = fake_connect;
    connects[0] = '\0';
    refuse_all = false;
    refuse_with = ECONNREFUSED;
    world_use_sys(world, &fake);
}

/* ---- Peers ---- */

/* One port is this program's own, at all addresses: where nobody listens, nobody else answers. */
static uint16_t own_port;
static int own_port_holder;

static int take_port(void **state) {
    (void)state;
    own_port = hold_port(&own_port_holder);
    return 0;
}

static int leave_port(void **state) {
    (void)state;
    return close(own_port_holder);
}

/* A listening socket on an address of the loopback net; port 0: the own one. */
static int listener_on(const char *host, uint16_t port, int backlog, uint16_t *ret_port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    assert_true(fd >= 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port ? port : own_port)};
    assert_int_equal(inet_pton(AF_INET, host, &address.sin_addr), 1);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, backlog), 0);
    socklen_t size = sizeof address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    if (ret_port)
        *ret_port = ntohs(address.sin_port);
    return fd;
}

/* An address where connecting takes for ever: its queue is full. */
struct black_hole {
    int listener;
    int filler;
};

static struct black_hole black_hole_on(const char *host, uint16_t port) {
    struct black_hole hole = {.listener = listener_on(host, port, 0, &port)};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    hole.filler = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(hole.filler, (struct sockaddr *)&address, sizeof address), 0);
    return hole;
}

static void black_hole_close(struct black_hole hole) {
    close(hole.filler);
    close(hole.listener);
}

static const char *text_of(uint16_t port) {
    static char text[8];
    snprintf(text, sizeof text, "%u", port);
    return text;
}

/* ---- Helpers ---- */

static tram_future *create(struct world *world, const char *host, uint16_t port,
                           const tram_connection_options *options) {
    tram_future *future = NULL;
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, host, text_of(port), options, &future), 0);
    assert_non_null(future);
    return future;
}

static bool future_is_done(void *arg) {
    return tram_future_done(arg);
}

static void run_until_done(struct world *world, tram_future *future) {
    run_until_true(world, future_is_done, future);
}

static tram_transport *connected(struct world *world, tram_future *future) {
    void *transport;
    run_until_done(world, future);
    assert_int_equal(tram_future_result(future, &transport), 0);
    tram_future_release(future);
    return transport;
}

static tram_transport *connect_with(struct world *world, const char *host, uint16_t port,
                                    const tram_connection_options *options) {
    return connected(world, create(world, host, port, options));
}

static void end(struct world *world, tram_transport *transport) {
    tram_transport_abort(transport);
    run_until_traced(world, "released");
    world->trace[0] = '\0';
}

/* Runs to the failure; the future is given back by the caller. */
static const tram_error *failure_of(struct world *world, tram_future *future, int code) {
    run_until_done(world, future);
    assert_int_equal(tram_future_result(future, NULL), code);
    const tram_error *error = tram_future_error(future);
    assert_non_null(error);
    assert_int_equal(error->code, code);
    return error;
}

static void assert_fails(struct world *world, tram_future *future, int code) {
    failure_of(world, future, code);
    tram_future_release(future);
    assert_trace(world, ""); /* no protocol heard of it */
}

static void assert_peer_is(tram_transport *transport, const char *host) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_socket_address_text(tram_transport_get_extra_info(transport, "peername", NULL), text, sizeof text);
    *strrchr(text, ':') = '\0';
    assert_string_equal(text, host);
}

/* ---- The way to a connection ---- */

static tram_future *made_by;

static int abort_when_made(struct recorder *recorder, const char *event) {
    return strcmp(event, "made") == 0 ? tram_transport_abort(recorder->base.transport) : 0;
}

static int abort_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    int status = recorder_factory(loop, arg, ret_protocol);
    world_last_recorder(arg)->on = abort_when_made;
    return status;
}

static int use_what_was_made(tram_future *future, void *arg) {
    struct world *world = arg;
    void *transport;
    assert_true(world_last_recorder(world)->was_released);
    assert_int_equal(tram_future_result(future, &transport), 0);
    assert_true(tram_transport_is_closing(transport));
    assert_null(tram_transport_get_protocol(transport));
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    trace(world, "used");
    return 0;
}

static void test_X_9_what_a_future_brings_is_inert_after_the_end_and_not_gone(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    assert_int_equal(
        tram_loop_create_connection(world->loop, abort_factory, world, "127.0.0.1", text_of(port), NULL, &made_by), 0);
    assert_int_equal(tram_future_add_done_callback(made_by, use_what_was_made, world), 0);
    run_until_traced(world, "used");
    use_what_was_made(made_by, world);
    tram_future_release(made_by);
    close(listener);
}

static int trace_done(tram_future *future, void *arg) {
    trace(arg, "done:%s", tram_future_cancelled(future) ? "cancelled" : "result");
    return 0;
}

/* rules: C-1, P-3, P-4, P-5, T-14 */
static void test_C_1_resolves_connects_and_completes_after_connection_made(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    tram_future *future = create(world, "one.test", port, NULL);
    run_until_done(world, future);
    void *transport;
    assert_int_equal(tram_future_result(future, &transport), 0);
    assert_ptr_equal(tram_transport_get_protocol(transport), &world_last_recorder(world)->base);
    assert_true(world_last_recorder(world)->made);
    assert_trace(world, "made");
    tram_future_release(future);
    const tram_socket *socket = tram_transport_get_extra_info(transport, "socket", NULL);
    int value = 0;
    socklen_t size = sizeof value;
    assert_int_equal(getsockopt(socket->fd, IPPROTO_TCP, TCP_NODELAY, &value, &size), 0);
    assert_int_equal(value, 1);
    assert_peer_is(transport, "127.0.0.1");
    end(world, transport);
    close(listener);
}

static void test_P_4_creator_goes_on_before_the_first_data(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    tram_future *future = create(world, "127.0.0.1", port, NULL);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, world), 0);
    assert_trace(world, "");
    int peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
    assert_int_equal(send(peer, "early", 5, 0), 5);
    run_until_traced(world, "data");
    assert_trace(world, "made done:result data:5");
    end(world, world_last_recorder(world)->base.transport);
    tram_future_release(future);
    close(peer);
    close(listener);
}

static void test_C_1_only_the_protocol_tells_without_a_future(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", text_of(port), NULL, NULL), 0);
    run_until_traced(world, "made");
    end(world, world_last_recorder(world)->base.transport);
    close(listener);
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", text_of(port), NULL, NULL), 0);
    run_ticks(world, 3);
    assert_trace(world, "");
}

static void test_L_36_numbers_need_no_resolver(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    resolutions = 0;
    end(world, connect_with(world, "127.0.0.1", port, NULL));
    tram_connection_options options = {.family = AF_INET, .local_host = "127.0.0.4"};
    end(world, connect_with(world, "127.0.0.1", port, &options));
    assert_int_equal(resolutions, 0);
    /* Another family, a scope and a name go to the resolver. */
    options = (tram_connection_options){.family = AF_INET6};
    assert_fails(world, create(world, "127.0.0.1", port, &options), TRAM_ERESOLVE);
    assert_int_equal(resolutions, 1);
    assert_fails(world, create(world, "fe80::1%lo", port, NULL), TRAM_ERESOLVE);
    assert_int_equal(resolutions, 2);
    tram_future *future;
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", "http", NULL, &future), 0);
    assert_fails(world, future, TRAM_ERESOLVE);
    assert_int_equal(resolutions, 3);
    /* Not port 34463. */
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", "99999", NULL, &future), 0);
    assert_fails(world, future, TRAM_ERESOLVE);
    close(listener);
}

/* rules: L-37 */
static void test_L_37_names_that_stand_for_nothing(void **state) {
    struct world *world = *state;
    tram_future *future = create(world, "nowhere.test", 80, NULL);
    const tram_error *error = failure_of(world, future, TRAM_ERESOLVE);
    assert_non_null(strstr(error->detail, "nowhere.test"));
    tram_future_release(future);
    tram_connection_options options = {.family = AF_INET6};
    assert_fails(world, create(world, "one.test", 80, &options), TRAM_ERESOLVE);
    options = (tram_connection_options){.local_host = "nowhere.test"};
    assert_fails(world, create(world, "127.0.0.1", 80, &options), TRAM_ERESOLVE);
}

/* rules: C-2, C-3 */
static void test_C_2_C_3_contradictions(void **state) {
    struct world *world = *state;
    tram_future *future = NULL;
    int datagram = socket(AF_INET, SOCK_DGRAM, 0), pipes[2], negative = -1;
    assert_int_equal(pipe(pipes), 0);
    const struct {
        const char *host;
        const char *port;
        tram_connection_options options;
        int code;
    } cases[] = {
        {"127.0.0.1", "80", {.sock = &datagram}, TRAM_EVALUE},
        {"127.0.0.1", NULL, {.sock = &datagram}, TRAM_EVALUE},
        {NULL, "80", {.sock = &datagram}, TRAM_EVALUE},
        {NULL, NULL, {0}, TRAM_EVALUE},
        {NULL, NULL, {.sock = &datagram}, TRAM_EVALUE},
        {NULL, NULL, {.sock = &pipes[0]}, TRAM_EVALUE},
        {NULL, NULL, {.sock = &negative}, -EBADF},
        {"127.0.0.1", "80", {.server_hostname = ""}, TRAM_EVALUE},
        {"127.0.0.1", "80", {.tls_handshake_timeout_ns = 1}, TRAM_EVALUE},
        {"127.0.0.1", "80", {.tls_shutdown_timeout_ns = 1}, TRAM_EVALUE},
        {"127.0.0.1", "80", {.family = AF_UNIX}, TRAM_EVALUE},
        {"127.0.0.1", "80", {.interleave = -1}, TRAM_EVALUE},
        {"127.0.0.1", "80", {.reserved = {0, 1}}, TRAM_EVALUE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tram_loop_create_connection(world->loop, recorder_factory, world, cases[i].host, cases[i].port,
                                                     &cases[i].options, &future),
                         cases[i].code);
        assert_null(future);
    }
    assert_int_equal(tram_loop_create_connection(world->loop, NULL, world, "127.0.0.1", "80", NULL, &future),
                     TRAM_EVALUE);
    close(datagram);
    close(pipes[0]);
    close(pipes[1]);
}

/* rules: C-2, T-15, T-18 */
static void test_C_2_connected_sockets_of_the_user(void **state) {
    struct world *world = *state;
    int pairs[2][2];
    tcp_pair(pairs[0]);
    unix_pair(pairs[1]);
    for (size_t i = 0; i < 2; i++) {
        int fd = pairs[i][0];
        set_blocking(fd, true);
        tram_connection_options options = {.sock = &fd, .keep_alive = true};
        tram_future *future, *second = NULL;
        assert_int_equal(
            tram_loop_create_connection(world->loop, recorder_factory, world, NULL, NULL, &options, &future), 0);
        assert_false(tram_future_done(future));
        tram_transport *transport = connected(world, future);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_int_equal(
            tram_loop_create_connection(world->loop, recorder_factory, world, NULL, NULL, &options, &second),
            TRAM_ESTATE);
        assert_null(second);
        end(world, transport);
        assert_int_equal(fcntl(fd, F_GETFD), -1); /* it was the transport's */
        close(pairs[i][1]);
    }
}

/* ---- Several addresses ---- */

static void test_C_5_addresses_are_tried_in_order(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    tram_transport *transport = connect_with(world, "three.test", port, NULL);
    assert_string_equal(connects, "127.0.0.3 127.0.0.2 127.0.0.1");
    assert_peer_is(transport, "127.0.0.1");
    end(world, transport);
    close(listener);
}

static void assert_accepted_from(int listener, const char *host, uint16_t port) {
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    int peer = accept(listener, (struct sockaddr *)&from, &size);
    assert_true(peer >= 0);
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &from.sin_addr, text, sizeof text);
    assert_string_equal(text, host);
    if (port)
        assert_int_equal(ntohs(from.sin_port), port);
    close(peer);
}

static size_t allocations_of_connecting(struct world *world, uint16_t port, const tram_connection_options *options) {
    size_t before = world->allocations;
    end(world, connect_with(world, "127.0.0.1", port, options));
    return world->allocations - before;
}

static void test_C_6_who_wants_no_local_address_looks_for_none(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    const tram_connection_options options = {.local_host = "127.0.0.5"};
    allocations_of_connecting(world, port, &options); /* the first one fills pools */
    size_t with = allocations_of_connecting(world, port, &options);
    assert_true(allocations_of_connecting(world, port, NULL) < with);
    close(listener);
}

static void test_C_6_local_addresses(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    tram_connection_options options = {.local_host = "127.0.0.5"};
    end(world, connect_with(world, "127.0.0.1", port, &options));
    assert_accepted_from(listener, "127.0.0.5", 0);
    /* A port alone. */
    uint16_t local = free_port();
    char local_text[8];
    snprintf(local_text, sizeof local_text, "%u", local);
    options = (tram_connection_options){.local_port = local_text};
    end(world, connect_with(world, "127.0.0.1", port, &options));
    assert_accepted_from(listener, "127.0.0.1", local);
    /* One that cannot be had, then one that can. */
    options = (tram_connection_options){.local_host = "locals.test"};
    end(world, connect_with(world, "one.test", port, &options));
    assert_accepted_from(listener, "127.0.0.6", 0);
    close(listener);
}

static void test_keep_alive_is_asked_for(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    for (int wanted = 0; wanted < 2; wanted++) {
        tram_connection_options options = {.keep_alive = wanted};
        tram_transport *transport = connect_with(world, "127.0.0.1", port, &options);
        const tram_socket *sock = tram_transport_get_extra_info(transport, "socket", NULL);
        int on = -1;
        socklen_t size = sizeof on;
        assert_int_equal(getsockopt(sock->fd, SOL_SOCKET, SO_KEEPALIVE, &on, &size), 0);
        assert_int_equal(on, wanted);
        end(world, transport);
    }
    close(listener);
}

static void test_C_6_failures_of_bind(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port = own_port;
    tram_connection_options options = {.local_host = "foreign.test"};
    tram_future *future = create(world, "127.0.0.1", port, &options);
    const tram_error *error = failure_of(world, future, TRAM_EMULTIPLE);
    assert_non_null(strstr(error->detail, "bind 192.0.2.1:0"));
    assert_non_null(strstr(error->detail, "bind 192.0.2.2:0"));
    tram_future_release(future);
    assert_string_equal(connects, "");
    /* A bind that failed counts also where the next succeeded and connecting failed then. */
    options.local_host = "locals.test";
    options.all_errors = true;
    future = create(world, "127.0.0.1", port, &options);
    error = failure_of(world, future, TRAM_EMULTIPLE);
    assert_int_equal(error->cause_count, 2);
    assert_int_equal(error->causes[0]->code, -EADDRNOTAVAIL);
    assert_string_equal(error->causes[0]->operation, "bind");
    assert_int_equal(error->causes[1]->code, -ECONNREFUSED);
    assert_string_equal(error->causes[1]->operation, "connect");
    tram_future_release(future);
    /* None of the family. */
    options = (tram_connection_options){.local_host = "::1"};
    future = create(world, "127.0.0.1", port, &options);
    error = failure_of(world, future, -EADDRNOTAVAIL);
    assert_string_equal(error->operation, "bind");
    tram_future_release(future);
}

/* rules: C-7 */
static void test_C_7_next_attempt_after_the_delay(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    struct black_hole hole = black_hole_on("127.0.0.2", port);
    int descriptors = open_descriptors();
    tram_connection_options options = {.happy_eyeballs_delay_ns = 20000000};
    uint64_t begin = tram_loop_time(world->loop);
    tram_transport *transport = connect_with(world, "two.test", port, &options);
    assert_true(tram_loop_time(world->loop) - begin >= 20000000);
    assert_string_equal(connects, "127.0.0.2 127.0.0.1");
    assert_peer_is(transport, "127.0.0.1");
    assert_int_equal(open_descriptors(), descriptors + 1); /* the loser's is closed */
    end(world, transport);
    black_hole_close(hole);
    close(listener);
}

static void test_C_7_next_attempt_when_the_previous_failed(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    tram_connection_options options = {.happy_eyeballs_delay_ns = 3600000000000};
    end(world, connect_with(world, "three.test", port, &options));
    assert_string_equal(connects, "127.0.0.3 127.0.0.2 127.0.0.1");
    close(listener);
}

static void test_C_7_first_success_wins(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port;
    int listener = listener_on("127.0.0.3", 0, 5, &port);
    tram_connection_options options = {.happy_eyeballs_delay_ns = 3600000000000};
    tram_transport *transport = connect_with(world, "three.test", port, &options);
    assert_string_equal(connects, "127.0.0.3"); /* the others are never begun */
    assert_peer_is(transport, "127.0.0.3");
    end(world, transport);
    close(listener);
}

static bool first_began(void *arg) {
    (void)arg;
    return connects[0] != '\0';
}

static bool second_began(void *arg) {
    (void)arg;
    return strcmp(connects, "127.0.0.3 127.0.0.2") == 0;
}

static bool only_began(void *arg) {
    (void)arg;
    return strcmp(connects, "127.0.0.2") == 0;
}

/* Nobody wakes for an attempt that there is not. */
static void test_C_7_no_delay_is_waited_for_behind_the_last(void **state) {
    struct world *world = *state;
    use_fake(world);
    struct black_hole hole = black_hole_on("127.0.0.2", own_port);
    tram_connection_options options = {.happy_eyeballs_delay_ns = HOUR_NS};
    tram_future *future = create(world, "127.0.0.2", own_port, &options);
    run_until_true(world, only_began, NULL);
    run_ticks(world, 2);
    uint64_t timeout_ns;
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_int_equal(timeout_ns, TRAM_FOREVER);
    run_ticks(world, 1);
    tram_future_cancel(future);
    tram_future_release(future);
    black_hole_close(hole);
}

/* The failure of an older attempt starts none: the latest has its own delay. */
static void test_C_7_only_the_failure_of_the_latest_starts_the_next(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    struct black_hole holes[] = {black_hole_on("127.0.0.3", port), black_hole_on("127.0.0.2", port)};
    tram_connection_options options = {.happy_eyeballs_delay_ns = 3600000000000};
    tram_future *future = create(world, "three.test", port, &options);
    run_until_true(world, first_began, NULL);
    clock_ahead += 3600000000001;
    run_until_true(world, second_began, NULL);
    shutdown(sockets[0], SHUT_RDWR); /* to the one who connects it is as if the peer had reset it */
    int descriptors = open_descriptors();
    while (open_descriptors() == descriptors)
        run_ticks(world, 1);
    run_ticks(world, 3);
    assert_true(second_began(NULL));
    shutdown(sockets[1], SHUT_RDWR);
    tram_transport *transport = connected(world, future);
    assert_string_equal(connects, "127.0.0.3 127.0.0.2 127.0.0.1");
    end(world, transport);
    black_hole_close(holes[0]);
    black_hole_close(holes[1]);
    close(listener);
}

/* Behind the last address nothing is timed any more. */
static void test_C_7_no_delay_after_the_last(void **state) {
    struct world *world = *state;
    use_fake(world);
    struct black_hole hole = black_hole_on("127.0.0.2", 0);
    tram_connection_options options = {.happy_eyeballs_delay_ns = 3600000000000};
    tram_future *future = create(world, "twice.test", own_port, &options);
    uint64_t timeout_ns;
    run_until_true(world, first_began, NULL);
    run_to_rest(world);
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_int_not_equal(timeout_ns, TRAM_FOREVER);
    clock_ahead += 3600000000001;
    run_ticks(world, 1);
    assert_string_equal(connects, "127.0.0.2 127.0.0.2");
    run_to_rest(world);
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_int_equal(timeout_ns, TRAM_FOREVER);
    tram_future_cancel(future);
    run_until_done(world, future);
    tram_future_release(future);
    black_hole_close(hole);
}

static void test_C_7_all_fail_in_a_race(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port = own_port;
    tram_connection_options options = {.happy_eyeballs_delay_ns = 1, .all_errors = true};
    tram_future *future = create(world, "three.test", port, &options);
    const tram_error *error = failure_of(world, future, TRAM_EMULTIPLE);
    assert_int_equal(error->cause_count, 3);
    assert_non_null(strstr(error->causes[0]->detail, "127.0.0.3"));
    assert_non_null(strstr(error->causes[1]->detail, "127.0.0.2"));
    assert_non_null(strstr(error->causes[2]->detail, "127.0.0.1"));
    tram_future_release(future);
    assert_trace(world, "");
}

/* rules: C-8 */
static void test_C_8_interleave(void **state) {
    struct world *world = *state;
    use_fake(world);
    refuse_all = true;
    const struct {
        uint64_t delay_ns;
        int interleave;
        const char *order;
    } cases[] = {
        {0, 0, "127.0.0.1 127.0.0.2 127.0.0.3 [::1] [::2]"},
        {1000000000, 0, "127.0.0.1 [::1] 127.0.0.2 [::2] 127.0.0.3"},
        {0, 1, "127.0.0.1 [::1] 127.0.0.2 [::2] 127.0.0.3"},
        {0, 2, "127.0.0.1 127.0.0.2 [::1] 127.0.0.3 [::2]"},
        {1000000000, 3, "127.0.0.1 127.0.0.2 127.0.0.3 [::1] [::2]"},
        {0, 9, "127.0.0.1 127.0.0.2 127.0.0.3 [::1] [::2]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        connects[0] = '\0';
        tram_connection_options options = {.happy_eyeballs_delay_ns = cases[i].delay_ns,
                                           .interleave = cases[i].interleave};
        assert_fails(world, create(world, "mixed.test", 80, &options), TRAM_EMULTIPLE);
        assert_string_equal(connects, cases[i].order);
    }
}

/* ---- When all fail ---- */

static void test_C_9_one_error_or_all_the_same(void **state) {
    struct world *world = *state;
    uint16_t port = own_port;
    char expected[64];
    tram_future *future = create(world, "127.0.0.1", port, NULL);
    const tram_error *error = failure_of(world, future, -ECONNREFUSED);
    snprintf(expected, sizeof expected, "connect 127.0.0.1:%u: Connection refused", port);
    assert_string_equal(error->detail, expected);
    assert_string_equal(error->operation, "connect");
    tram_future_release(future);
    future = create(world, "twice.test", port, NULL);
    error = failure_of(world, future, -ECONNREFUSED);
    assert_int_equal(error->cause_count, 0);
    tram_future_release(future);
}

static void test_C_9_different_errors_are_combined(void **state) {
    struct world *world = *state;
    uint16_t port = own_port;
    char expected[192];
    tram_future *future = create(world, "two.test", port, NULL);
    const tram_error *error = failure_of(world, future, TRAM_EMULTIPLE);
    snprintf(expected, sizeof expected,
             "all attempts failed: connect 127.0.0.2:%u: Connection refused; "
             "connect 127.0.0.1:%u: Connection refused",
             port, port);
    assert_string_equal(error->detail, expected);
    assert_int_equal(error->cause_count, 0);
    tram_future_release(future);
}

static void test_C_10_all_errors_on_request(void **state) {
    struct world *world = *state;
    uint16_t port = own_port;
    tram_connection_options options = {.all_errors = true};
    tram_future *future = create(world, "two.test", port, &options);
    const tram_error *error = failure_of(world, future, TRAM_EMULTIPLE);
    assert_int_equal(error->cause_count, 2);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(error->causes[i]->code, -ECONNREFUSED);
    tram_future_release(future);
    /* A group also of one. */
    future = create(world, "127.0.0.1", port, &options);
    error = failure_of(world, future, TRAM_EMULTIPLE);
    assert_int_equal(error->cause_count, 1);
    tram_future_release(future);
}

/* rules: C-9, C-6 */
static void test_what_may_not_be_transparent_fails(void **state) {
    static const char *const hosts[] = {"127.0.0.1", "::1"};
    struct world *world = *state;
    use_fake(world);
    refuse_transparent = true;
    int before = open_descriptors();
    for (size_t i = 0; i < 2; i++) {
        int probe = socket(i ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (probe < 0)
            continue;
        close(probe);
        const tram_connection_options options = {.transparent = true};
        tram_future *future = create(world, hosts[i], own_port, &options);
        const tram_error *error = failure_of(world, future, -EPERM);
        assert_string_equal(error->operation, "IP_TRANSPARENT");
        assert_non_null(strstr(error->detail, hosts[i]));
        tram_future_release(future);
        assert_int_equal(open_descriptors(), before);
    }
    refuse_transparent = false;
    assert_string_equal(connects, ""); /* nobody was asked */
}

static void test_C_9_meeting_oneself_is_no_connection(void **state) {
    struct world *world = *state;
    uint16_t port = free_port();
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    tram_connection_options options = {.local_host = "127.0.0.1", .local_port = text};
    assert_fails(world, create(world, "127.0.0.1", port, &options), -ECONNREFUSED);
}

/* These mean this machine as well. */
static void test_C_9_meeting_oneself_at_all_interfaces(void **state) {
    static const struct {
        const char *local, *remote;
    } list[] = {{"127.0.0.1", "0.0.0.0"}, {"::1", "::"}, {"::ffff:127.0.0.1", "::ffff:0.0.0.0"}};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char text[8];
        tram_socket_address local;
        uint16_t port = free_port();
        snprintf(text, sizeof text, "%u", port);
        assert_int_equal(tram_socket_address_inet(list[i].local, NULL, &local), 0);
        int probe = socket(local.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool there = probe >= 0 && bind(probe, (struct sockaddr *)&local.address, local.size) == 0;
        if (probe >= 0)
            close(probe);
        if (!there)
            continue;
        tram_connection_options options = {.local_host = list[i].local, .local_port = text};
        assert_fails(world, create(world, list[i].remote, port, &options), -ECONNREFUSED);
    }
    /* Whoever listens there is met. */
    uint16_t port;
    int listener = tcp_listener(1, &port);
    tram_future *future = create(world, "0.0.0.0", port, NULL);
    void *transport;
    run_until_done(world, future);
    assert_int_equal(tram_future_result(future, &transport), 0);
    assert_peer_is(transport, "127.0.0.1");
    tram_transport_abort(transport);
    tram_future_release(future);
    run_until(world, &world_last_recorder(world)->was_released);
    close(listener);
}

/* Whoever closes first keeps the port in TIME_WAIT for a minute, which is no reason to wait for. */
static void test_C_6_a_local_port_can_be_had_again_at_once(void **state) {
    struct world *world = *state;
    char text[8];
    snprintf(text, sizeof text, "%u", free_port());
    tram_connection_options options = {.local_host = "127.0.0.1", .local_port = text};
    for (int i = 0; i < 3; i++) {
        uint16_t port;
        int listener = tcp_listener(1, &port); /* another peer each time */
        tram_future *future = create(world, "127.0.0.1", port, &options);
        void *transport;
        run_until_done(world, future);
        assert_int_equal(tram_future_result(future, &transport), 0);
        int peer = accept(listener, NULL, NULL);
        tram_transport_close(transport);
        tram_future_release(future);
        run_until(world, &world_last_recorder(world)->was_released);
        assert_true(receive_eof(world, peer));
        close(peer);
        close(listener);
    }
}

/* rules: X-1 */
static void test_X_1_time_runs_out(void **state) {
    struct world *world = *state;
    uint16_t port = own_port;
    struct black_hole hole = black_hole_on("127.0.0.2", port);
    tram_connection_options options = {.timeout_ns = 20000000};
    int descriptors = open_descriptors();
    tram_future *future = create(world, "127.0.0.2", port, &options);
    assert_int_equal(open_descriptors(), descriptors + 1);
    assert_fails(world, future, TRAM_ETIMEOUT);
    assert_int_equal(open_descriptors(), descriptors);
    black_hole_close(hole);
}

/* ---- Trying again ---- */

static int failing_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)ret_protocol;
    trace(arg, "factory");
    return tram_loop_raise(loop, TRAM_EUSER, arg, "no protocol today");
}

static bool connected_often(void *arg) {
    (void)arg;
    return connect_count > 12;
}

static void test_C_18_tries_until_somebody_listens(void **state) {
    struct world *world = *state;
    use_fake(world);
    const tram_connection_options options = {.retry = {.limit = TRAM_RETRY_FOREVER, .delay_ns = 1}};
    int descriptors = open_descriptors();
    tram_future *future = create(world, "127.0.0.1", own_port, &options);
    run_until_true(world, connected_often, NULL);
    assert_false(tram_future_done(future));
    assert_true(open_descriptors() <= descriptors + 1);
    int listener = listener_on("127.0.0.1", own_port, 5, NULL);
    tram_transport *transport = connected(world, future);
    assert_peer_is(transport, "127.0.0.1");
    assert_trace(world, "made"); /* by one factory call */
    end(world, transport);
    close(listener);
}

/* rules: C-18, L-42 */
static void test_C_18_each_wait_is_logged(void **state) {
    struct world *world = *state;
    use_fake(world);
    const tram_connection_options options = {.retry = {.limit = 2, .delay_ns = 1}};
    char expected[128];
    assert_fails(world, create(world, "127.0.0.1", own_port, &options), -ECONNREFUSED);
    assert_int_equal(world->warnings, 2);
    snprintf(expected, sizeof expected, "connecting is tried again in 0.00 s: connect 127.0.0.1:%u: Connection refused",
             own_port);
    assert_non_null(strstr(world->log, expected));
}

static void test_C_18_the_error_is_that_of_the_last_try(void **state) {
    struct world *world = *state;
    use_fake(world);
    refuse_all = true;
    const tram_connection_options options = {.all_errors = true, .retry = {.limit = 3, .delay_ns = 1}};
    tram_future *future = create(world, "two.test", 80, &options);
    const tram_error *error = failure_of(world, future, TRAM_EMULTIPLE);
    assert_int_equal(connect_count, 8);
    assert_int_equal(error->cause_count, 2);
    tram_future_release(future);
    /* In a race, too. */
    connect_count = 0;
    const tram_connection_options race = {.happy_eyeballs_delay_ns = HOUR_NS, .retry = {.limit = 1, .delay_ns = 1}};
    assert_fails(world, create(world, "three.test", 80, &race), TRAM_EMULTIPLE);
    assert_int_equal(connect_count, 6);
    assert_trace(world, "");
}

/* rules: C-18 */
static void test_C_18_names_are_looked_up_again(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    const tram_connection_options options = {.local_host = "locals.test", .retry = {.limit = 5, .delay_ns = 1}};
    char name[] = "one.test"; /* the caller's, for the call alone */
    resolutions = 0;
    unknown_for = 3;
    tram_future *future = create(world, name, port, &options);
    memset(name, 'x', sizeof name - 1);
    tram_transport *transport = connected(world, future);
    assert_true(resolutions >= 5);
    end(world, transport);
    close(listener);
    /* And in the end what the resolver says. A thread may still look up what the last try gave up. */
    nobodys = 0;
    const tram_connection_options twice = {.retry = {.limit = 2, .delay_ns = 1}};
    future = create(world, "nobody.test", port, &twice);
    assert_int_equal(failure_of(world, future, TRAM_ERESOLVE)->resolver_code, EAI_NONAME);
    tram_future_release(future);
    assert_int_equal(nobodys, 3);
}

/* One before half of the wait is over, it is not tried; when all of it is, it was. */
static void assert_waits(struct world *world, uint64_t wait_ns) {
    const uint64_t minute_ns = 60000000000;
    size_t before = connect_count;
    clock_ahead += wait_ns / 2 - minute_ns;
    run_ticks(world, 2);
    assert_int_equal(connect_count, before);
    clock_ahead += wait_ns / 2 + 2 * minute_ns;
    run_ticks(world, 2);
    assert_int_equal(connect_count, before + 1);
}

static void test_C_18_waits_double_up_to_the_longest(void **state) {
    struct world *world = *state;
    use_fake(world);
    refuse_all = true;
    tram_connection_options options = {.retry = {.limit = 4, .delay_ns = HOUR_NS, .delay_max_ns = 3 * HOUR_NS}};
    tram_future *future = create(world, "127.0.0.1", 80, &options);
    assert_int_equal(connect_count, 1);
    assert_waits(world, HOUR_NS);
    assert_waits(world, 2 * HOUR_NS);
    assert_waits(world, 3 * HOUR_NS);
    assert_false(tram_future_done(future));
    assert_waits(world, 3 * HOUR_NS);
    assert_true(tram_future_done(future));
    assert_fails(world, future, -ECONNREFUSED);
    /* A first wait above the longest of the default is the longest itself. */
    options.retry = (tram_retry_options){.limit = 2, .delay_ns = HOUR_NS};
    future = create(world, "127.0.0.1", 80, &options);
    assert_waits(world, HOUR_NS);
    assert_waits(world, HOUR_NS);
    assert_fails(world, future, -ECONNREFUSED);
}

static void test_C_18_who_was_refused_together_does_not_come_together(void **state) {
    enum { CLIENTS = 64 };
    struct world *world = *state;
    use_fake(world);
    refuse_all = true;
    const tram_connection_options options = {.retry = {.limit = 1, .delay_ns = HOUR_NS}};
    tram_future *futures[CLIENTS];
    for (size_t i = 0; i < CLIENTS; i++)
        futures[i] = create(world, "127.0.0.1", 80, &options);
    clock_ahead += HOUR_NS / 4 * 3;
    run_ticks(world, 3);
    assert_true(connect_count > CLIENTS && connect_count < 2 * CLIENTS);
    clock_ahead += HOUR_NS;
    for (size_t i = 0; i < CLIENTS; i++)
        assert_fails(world, futures[i], -ECONNREFUSED);
    assert_int_equal(connect_count, 2 * CLIENTS);
}

/* rules: C-18, X-1 */
static void test_C_18_the_timeout_is_for_all_tries(void **state) {
    struct world *world = *state;
    use_fake(world);
    refuse_all = true;
    const tram_connection_options options = {.timeout_ns = 3 * HOUR_NS,
                                             .retry = {.limit = TRAM_RETRY_FOREVER, .delay_ns = 2 * HOUR_NS}};
    tram_future *future = create(world, "127.0.0.1", 80, &options);
    clock_ahead += 2 * HOUR_NS + HOUR_NS / 2;
    run_ticks(world, 2);
    assert_int_equal(connect_count, 2);
    assert_false(tram_future_done(future));
    clock_ahead += HOUR_NS;
    const tram_error *error = failure_of(world, future, TRAM_ETIMEOUT);
    assert_non_null(strstr(error->detail, "within the time that was given; connect 127.0.0.1:80: Connection refused"));
    tram_future_release(future);
    clock_ahead += 24 * HOUR_NS;
    run_ticks(world, 2);
    assert_int_equal(connect_count, 2);
}

/* rules: C-18, C-11, L-8 */
static void test_C_18_ends_while_it_waits(void **state) {
    struct world *world = *state;
    use_fake(world);
    refuse_all = true;
    const tram_connection_options options = {.local_host = "locals.test",
                                             .retry = {.limit = TRAM_RETRY_FOREVER, .delay_ns = HOUR_NS}};
    tram_future *future = create(world, "127.0.0.1", 80, &options);
    while (!connect_count)
        run_ticks(world, 1);
    run_ticks(world, 3);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    clock_ahead += 24 * HOUR_NS;
    run_ticks(world, 3);
    assert_int_equal(connect_count, 1);
    future = create(world, "127.0.0.1", 80, &options);
    while (connect_count == 1)
        run_ticks(world, 1);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    assert_trace(world, "");
}

static void test_C_18_what_time_does_not_mend(void **state) {
    struct world *world = *state;
    const tram_connection_options options = {.retry = {.limit = TRAM_RETRY_FOREVER, .delay_ns = 1}};
    tram_future *future;
    resolutions = 0;
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, "one.test", "no-port", &options, &future), 0);
    assert_fails(world, future, TRAM_ERESOLVE);
    assert_int_equal(resolutions, 1);
    /* Want of memory, the kernel's too. */
    use_fake(world);
    refuse_all = true;
    refuse_with = ENOMEM;
    assert_fails(world, create(world, "127.0.0.1", 80, &options), -ENOMEM);
    assert_int_equal(connect_count, 1);
    refuse_all = false;
    /* A loop that has no resolver any more, from the next try on or from the first. */
    unknown_for = ~0u;
    resolutions = 0;
    tram_future *waits = create(world, "one.test", 80, &options), *shut;
    while (!resolutions)
        run_ticks(world, 1);
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 0, &shut), 0);
    run_until_done(world, shut);
    tram_future_release(shut);
    assert_fails(world, waits, TRAM_ESTATE);
    unknown_for = 0;
    future = NULL;
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, "one.test", "80", &options, &future),
        TRAM_ESTATE);
    assert_null(future);
    /* A factory that fails comes after the connection. */
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    assert_int_equal(
        tram_loop_create_connection(world->loop, failing_factory, world, "127.0.0.1", text_of(port), &options, &future),
        0);
    run_until_done(world, future);
    assert_int_equal(tram_future_result(future, NULL), TRAM_EUSER);
    tram_future_release(future);
    assert_trace(world, "factory");
    close(listener);
}

/* The attempts of a try that fails at once are freed at the end of the tick in which the next one begins. */
static void test_C_18_a_try_that_fails_outside_of_a_tick(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    run_ticks(world, 1);
    no_watches = 2;
    const tram_connection_options options = {.retry = {.limit = 2, .delay_ns = 1}};
    tram_transport *transport = connect_with(world, "127.0.0.1", port, &options);
    assert_int_equal(no_watches, 0);
    end(world, transport);
    close(listener);
}

static void test_C_18_contradictions(void **state) {
    struct world *world = *state;
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct {
        const char *wrong;
        tram_connection_options options;
    } cases[] = {
        {"retry.limit", {.retry = {.delay_ns = 1}}},
        {"retry.limit", {.retry = {.delay_max_ns = 1}}},
        {"retry.limit", {.sock = &sock, .retry = {.limit = 1}}},
        {"retry.delay_max_ns", {.retry = {.limit = 1, .delay_ns = 2, .delay_max_ns = 1}}},
        {"retry.reserved", {.retry = {.limit = 1, .reserved = {0, 1}}}},
        {"early_data", {.early_size = 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *host = cases[i].options.sock ? NULL : "127.0.0.1";
        assert_wrong(
            tram_loop_create_connection(world->loop, recorder_factory, world, host, host, &cases[i].options, NULL),
            cases[i].wrong);
    }
    close(sock);
}

/* ---- Early data ---- */

static int write_when_made(struct recorder *recorder, const char *event) {
    return strcmp(event, "made") == 0 ? tram_transport_write(recorder->base.transport, " last", 5) : 0;
}

static int writing_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    int status = recorder_factory(loop, arg, ret_protocol);
    world_last_recorder(arg)->on = write_when_made;
    return status;
}

static int accept_one(int listener) {
    await_events(listener, POLLIN);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(fd >= 0);
    return fd;
}

/* Connects, and the peer gets `expected`, and behind that what connection_made writes. */
static void assert_early(struct world *world, int listener, const char *host, const char *port,
                         const tram_connection_options *options, const char *expected) {
    tram_future *future;
    tram_stats before, after;
    char got[256] = "", all[256];
    tram_loop_stats(world->loop, &before);
    assert_int_equal(tram_loop_create_connection(world->loop, writing_factory, world, host, port, options, &future), 0);
    tram_transport *transport = connected(world, future);
    int peer = listener >= 0 ? accept_one(listener) : -listener;
    int size = snprintf(all, sizeof all, "%s last", expected);
    receive_exactly(world, peer, got, (size_t)size);
    assert_string_equal(got, all);
    tram_loop_stats(world->loop, &after);
    assert_int_equal(after.bytes_sent - before.bytes_sent, size);
    end(world, transport);
    close(peer);
}

static void test_C_19_goes_with_the_packet_that_connects_or_first(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    char data[] = "what is first,";
    const tram_connection_options options = {.early_data = data, .early_size = strlen(data)};
    const struct {
        int early;
        size_t limit;
    } cases[] = {{EARLY_TAKEN, SIZE_MAX}, {EARLY_TAKEN, 5}, {EARLY_NO_COOKIE, 0}, {EARLY_NOT_ALLOWED, 0}};
    for (size_t i = 0; i < 4; i++) {
        early = cases[i].early;
        early_limit = cases[i].limit;
        connect_count = 0;
        assert_early(world, listener, "127.0.0.1", text_of(port), &options, data);
        assert_int_equal(connect_count, 1);
    }
    /* Behind the header of a proxy. */
    tram_proxy_header header = {.version = 1};
    tram_connection_options proxy = options;
    proxy.proxy_header = &header;
    early = EARLY_TAKEN;
    early_limit = 11;
    assert_early(world, listener, "127.0.0.1", text_of(port), &proxy, "PROXY UNKNOWN\r\nwhat is first,");
    close(listener);
}

/* What an attempt that failed was given, the next one gets as well. */
static void test_C_19_each_attempt_has_all_of_it(void **state) {
    struct world *world = *state;
    use_fake(world);
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    const tram_connection_options options = {.early_data = "twice", .early_size = 5};
    early = EARLY_NO_COOKIE;
    assert_early(world, listener, "two.test", text_of(port), &options, "twice");
    assert_string_equal(connects, "127.0.0.2 127.0.0.1");
    close(listener);
}

static void test_C_19_a_given_socket_gets_it_first(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    const tram_connection_options options = {.sock = &pair[0], .early_data = "first", .early_size = 5};
    assert_early(world, -pair[1], NULL, NULL, &options, "first");
}

/* A network of this thread's own that allows it on both sides; where it came from, or -1. */
static int enter_network_with_fast_open(void) {
    int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (home < 0 || unshare(CLONE_NEWNET) < 0) {
        close(home);
        return -1;
    }
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    close(fd);
    fd = open("/proc/sys/net/ipv4/tcp_fastopen", O_WRONLY | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, "3", 1) == 1;
    close(fd);
    if (good)
        return home;
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    close(home);
    return -1;
}

/* What the kernel makes of it: the second connection brings its data with the SYN. */
static void test_C_19_by_the_kernel(void **state) {
    struct world *world = *state;
    int home = enter_network_with_fast_open();
    if (home < 0)
        skip();
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port), queue = 5;
    assert_int_equal(setsockopt(listener, IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof queue), 0);
    const tram_connection_options options = {.early_data = "early", .early_size = 5};
    for (int i = 0; i < 2; i++) {
        tram_transport *transport = connect_with(world, "127.0.0.1", port, &options);
        int peer = accept_one(listener);
        struct tcp_info info;
        socklen_t size = sizeof info;
        char got[5];
        assert_int_equal(getsockopt(peer, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
        assert_int_equal(!!(info.tcpi_options & TCPI_OPT_SYN_DATA), i);
        receive_exactly(world, peer, got, 5);
        assert_memory_equal(got, "early", 5);
        end(world, transport);
        close(peer);
    }
    close(listener);
    assert_int_equal(setns(home, CLONE_NEWNET), 0);
    close(home);
}

/* ---- Cancelling ---- */

static void test_C_11_cancelled_while_resolving(void **state) {
    struct world *world = *state;
    tram_connection_options options = {.local_host = "locals.test"};
    tram_future *future = create(world, "one.test", 80, &options);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    run_ticks(world, 3);
    assert_trace(world, "");
}

/* The resolver has answered, but the operation has not been told yet. */
static void test_C_11_cancelled_between_answer_and_callback(void **state) {
    struct world *world = *state;
    tram_future *future = create(world, "one.test", own_port, NULL);
    tram_stats stats = {0};
    for (int i = 0; stats.mails == 0; i++) { /* the answer comes by mail, the callback in the tick after */
        assert_true(i < 20000);
        poll(NULL, 0, 1);
        run_ticks(world, 1);
        tram_loop_stats(world->loop, &stats);
    }
    assert_false(tram_future_done(future));
    assert_int_equal(tram_future_cancel(future), 1);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    run_ticks(world, 3);
    assert_trace(world, "");
}

static void test_C_11_cancelled_while_connecting(void **state) {
    struct world *world = *state;
    uint16_t port = own_port;
    struct black_hole hole = black_hole_on("127.0.0.2", port);
    int descriptors = open_descriptors();
    tram_connection_options options = {.happy_eyeballs_delay_ns = 3600000000000};
    tram_future *future = create(world, "127.0.0.2", port, &options);
    run_ticks(world, 2);
    assert_int_equal(open_descriptors(), descriptors + 1);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_int_equal(open_descriptors(), descriptors);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    run_ticks(world, 2);
    assert_trace(world, "");
    black_hole_close(hole);
}

static tram_future *to_cancel;

static int cancel_callback(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    trace(world_of(loop), "cancel");
    assert_int_equal(tram_future_cancel(to_cancel), 1);
    return 0;
}

static int cancelling_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    assert_int_equal(tram_future_cancel(to_cancel), 1);
    return recorder_factory(loop, arg, ret_protocol);
}

static bool made_or_cancelled(void *arg) {
    struct world *world = arg;
    return world_last_recorder(world) != NULL;
}

/* The transport is there, connection_made is queued: neither it nor connection_lost is called. */
static void test_C_11_cancelled_before_connection_made(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    tram_future *future = to_cancel = create(world, "127.0.0.1", port, NULL);
    run_until_true(world, made_or_cancelled, world); /* the factory was called in this tick */
    assert_trace(world, "");
    cancel_callback(world->loop, NULL);
    assert_true(tram_future_cancelled(future));
    assert_trace(world, "cancel"); /* `released` comes from the loop */
    run_ticks(world, 3);
    assert_trace(world, "released");
    tram_future_release(future);
    /* In the factory: the protocol it makes is released. */
    assert_int_equal(tram_loop_create_connection(world->loop, cancelling_factory, world, "127.0.0.1", text_of(port),
                                                 NULL, &to_cancel),
                     0);
    run_until_traced(world, "released");
    assert_true(tram_future_cancelled(to_cancel));
    assert_trace(world, "released");
    tram_future_release(to_cancel);
    close(listener);
}

static int cancel_in_made(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") == 0)
        cancel_callback(recorder->world->loop, NULL);
    return 0;
}

static int cancelled_when_made(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    int status = recorder_factory(loop, arg, ret_protocol);
    world_last_recorder(arg)->on = cancel_in_made;
    return status;
}

static void test_C_11_cancelled_in_connection_made(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    assert_int_equal(tram_loop_create_connection(world->loop, cancelled_when_made, world, "127.0.0.1", text_of(port),
                                                 NULL, &to_cancel),
                     0);
    run_until_traced(world, "released");
    assert_trace(world, "made cancel lost:0 released");
    assert_true(tram_future_cancelled(to_cancel));
    tram_future_release(to_cancel);
    close(listener);
}

/* ---- The factory ---- */

static void test_C_12_factory_is_called_after_connecting(void **state) {
    struct world *world = *state;
    tram_future *future;
    assert_int_equal(
        tram_loop_create_connection(world->loop, failing_factory, world, "127.0.0.1", text_of(own_port), NULL, &future),
        0);
    assert_fails(world, future, -ECONNREFUSED); /* and the trace is empty */
}

static void test_C_13_failing_factory(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    tram_future *future;
    assert_int_equal(
        tram_loop_create_connection(world->loop, failing_factory, world, "127.0.0.1", text_of(port), NULL, &future), 0);
    const tram_error *error = failure_of(world, future, TRAM_EUSER);
    assert_string_equal(error->detail, "no protocol today");
    assert_ptr_equal(error->user, world);
    tram_future_release(future);
    assert_trace(world, "factory");
    int peer = accept(listener, NULL, NULL);
    assert_true(receive_eof(world, peer));
    assert_int_equal(world->exceptions, 0);
    close(peer);
    close(listener);
}

static void test_C_16_dead_before_connection_made(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    tram_future *future = create(world, "127.0.0.1", port, NULL);
    int peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
    while (!world_last_recorder(world))
        run_ticks(world, 1);
    close_with_reset(peer);
    assert_trace(world, "");
    tram_transport *transport = connected(world, future);
    assert_non_null(transport);
    run_until_traced(world, "released");
    assert_trace(world, "made lost:ECONNRESET released");
    close(listener);
}

/* ---- Memory, and the end of the loop ---- */

static void test_L_8_loop_closes_meanwhile(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.1", 0, 5, &port);
    struct black_hole hole = black_hole_on("127.0.0.2", port);
    tram_connection_options options = {.timeout_ns = 3600000000000, .happy_eyeballs_delay_ns = 3600000000000};
    tram_future *futures[4];
    futures[0] = create(world, "one.test", port, &options);
    futures[1] = create(world, "127.0.0.2", port, &options);
    futures[2] = create(world, "127.0.0.1", port, NULL);
    run_until_true(world, made_or_cancelled, world);
    futures[3] = create(world, "two.test", port, NULL);
    assert_int_equal(tram_loop_close(world->loop), 0);
    for (size_t i = 0; i < 4; i++) {
        assert_true(tram_future_done(futures[i]));
        tram_future_release(futures[i]);
    }
    black_hole_close(hole);
    close(listener);
}

static void test_X_1_out_of_memory_at_every_place(void **state) {
    struct world *world = *state;
    uint16_t port;
    int listener = listener_on("127.0.0.2", 0, 64, &port);
    char local_port[8];
    snprintf(local_port, sizeof local_port, "%u", free_port());
    for (size_t n = 0; n < 60; n++) {
        world->fail_after = SIZE_MAX;
        world_reopen(world);
        tram_connection_options options = {.local_host = "127.0.0.9",
                                           .local_port = local_port,
                                           .timeout_ns = 3600000000000,
                                           .interleave = 1,
                                           .early_data = "early",
                                           .early_size = 5,
                                           .retry = {.limit = 1}};
        world->fail_after = n;
        tram_future *future = NULL;
        int status = tram_loop_create_connection(world->loop, recorder_factory, world, "twice.test", text_of(port),
                                                 &options, &future);
        if (status) {
            assert_int_equal(status, -ENOMEM);
            assert_null(future);
            continue;
        }
        while (!tram_future_done(future))
            run_ticks(world, 1);
        world->fail_after = SIZE_MAX;
        void *transport;
        status = tram_future_result(future, &transport);
        tram_future_release(future);
        if (!status) {
            world->trace[0] = '\0';
            end(world, transport);
            close(listener);
            return;
        }
        assert_int_equal(status, -ENOMEM);
    }
    fail_msg("never had enough memory");
}

/* Without memory for the records of failures the operation still ends, and says so. */
static void test_X_1_out_of_memory_for_the_failures(void **state) {
    struct world *world = *state;
    use_fake(world);
    for (size_t n = 0; n < 60; n++) {
        world->fail_after = SIZE_MAX;
        refuse_all = true;
        const char *const hosts[] = {"127.0.0.1"};
        world->fail_after = n;
        tram_future *future = NULL;
        int status = tram_loop_create_connection(world->loop, recorder_factory, world, hosts[0], "9", NULL, &future);
        world->fail_after = SIZE_MAX;
        if (status) {
            assert_int_equal(status, -ENOMEM);
            continue;
        }
        run_until_done(world, future);
        status = tram_future_result(future, NULL);
        bool told = tram_future_error(future)->detail != NULL;
        tram_future_release(future);
        if (status == -ECONNREFUSED && told)
            return;
        assert_true(status == -ENOMEM || status == -ECONNREFUSED);
    }
    fail_msg("never had enough memory");
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(C_1_resolves_connects_and_completes_after_connection_made),
        TEST(X_9_what_a_future_brings_is_inert_after_the_end_and_not_gone),
        TEST(P_4_creator_goes_on_before_the_first_data),
        TEST(C_1_only_the_protocol_tells_without_a_future),
        TEST(L_36_numbers_need_no_resolver),
        TEST(L_37_names_that_stand_for_nothing),
        TEST(C_2_C_3_contradictions),
        TEST(C_2_connected_sockets_of_the_user),
        TEST(C_5_addresses_are_tried_in_order),
        TEST(C_6_who_wants_no_local_address_looks_for_none),
        TEST(C_6_local_addresses),
        TEST(keep_alive_is_asked_for),
        TEST(C_6_failures_of_bind),
        TEST(C_7_next_attempt_after_the_delay),
        TEST(C_7_next_attempt_when_the_previous_failed),
        TEST(C_7_first_success_wins),
        TEST(C_7_no_delay_is_waited_for_behind_the_last),
        TEST(C_7_only_the_failure_of_the_latest_starts_the_next),
        TEST(C_7_no_delay_after_the_last),
        TEST(C_7_all_fail_in_a_race),
        TEST(C_8_interleave),
        TEST(C_9_one_error_or_all_the_same),
        TEST(C_9_different_errors_are_combined),
        TEST(what_may_not_be_transparent_fails),
        TEST(C_9_meeting_oneself_is_no_connection),
        TEST(C_9_meeting_oneself_at_all_interfaces),
        TEST(C_6_a_local_port_can_be_had_again_at_once),
        TEST(C_10_all_errors_on_request),
        TEST(X_1_time_runs_out),
        TEST(C_18_tries_until_somebody_listens),
        TEST(C_18_each_wait_is_logged),
        TEST(C_18_the_error_is_that_of_the_last_try),
        TEST(C_18_names_are_looked_up_again),
        TEST(C_18_waits_double_up_to_the_longest),
        TEST(C_18_who_was_refused_together_does_not_come_together),
        TEST(C_18_the_timeout_is_for_all_tries),
        TEST(C_18_ends_while_it_waits),
        TEST(C_18_what_time_does_not_mend),
        TEST(C_18_a_try_that_fails_outside_of_a_tick),
        TEST(C_18_contradictions),
        TEST(C_19_goes_with_the_packet_that_connects_or_first),
        TEST(C_19_each_attempt_has_all_of_it),
        TEST(C_19_a_given_socket_gets_it_first),
        TEST(C_19_by_the_kernel),
        TEST(C_11_cancelled_while_resolving),
        TEST(C_11_cancelled_between_answer_and_callback),
        TEST(C_11_cancelled_while_connecting),
        TEST(C_11_cancelled_before_connection_made),
        TEST(C_11_cancelled_in_connection_made),
        TEST(C_12_factory_is_called_after_connecting),
        TEST(C_13_failing_factory),
        TEST(C_16_dead_before_connection_made),
        TEST(L_8_loop_closes_meanwhile),
        TEST(X_1_out_of_memory_at_every_place),
        TEST(X_1_out_of_memory_for_the_failures),
    };
    return cmocka_run_group_tests_name("connector", tests, take_port, leave_port);
}
