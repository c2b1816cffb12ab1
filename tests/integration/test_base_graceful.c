/* Graceful ends: a runtime that stops asks its connections to end, waits for their work, and cuts what is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "support/support.h"

#define MS            UINT64_C(1000000)
#define LONG_GRACE_NS (UINT64_C(60000) * MS)
#define FILE_SIZE     (8u << 20)

/* ---- A protocol of requests, one byte each ---- */

struct desk {
    tram_protocol base;
    tram_transport *transport; /* held while `pending` */
    unsigned pending;          /* requests without an answer */
    bool asked;
    tram_loop *other; /* of the request 'o' */
};

static _Atomic unsigned begun_when_told;
static _Atomic unsigned made, told, lost, released, begun, bridged;
static _Atomic uint64_t told_deadline_ns, told_at_ns;
static _Atomic int lost_code;
static const char *_Atomic lost_operation;
static _Atomic bool let_go; /* jobs wait for it */
static int shared_file = -1;
static char upstream_port[8];

static struct desk *desk_of(tram_protocol *protocol) {
    return (struct desk *)(void *)protocol;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void await(const _Atomic unsigned *count, unsigned wanted) {
    for (int i = 0; *count < wanted; i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
    }
}

static int desk_made(tram_protocol *protocol, tram_transport *transport) {
    desk_of(protocol)->transport = transport;
    made++;
    return 0;
}

static void begin(struct desk *desk) {
    tram_transport_hold(desk->transport);
    desk->pending++;
    begun++;
}

static void answer(struct desk *desk, char what) {
    tram_transport *transport = desk->transport;
    if (what)
        tram_transport_write(transport, &what, 1);
    desk->pending--;
    if (desk->asked && !desk->pending)
        tram_transport_close(transport);
    tram_transport_release(transport);
}

static int job(void *arg, void **ret_result) {
    (void)arg;
    (void)ret_result;
    while (!let_go)
        poll(NULL, 0, 1);
    return 0;
}

static int job_done(tram_future *future, void *arg) {
    (void)future;
    answer(arg, 'j');
    return 0;
}

static int file_sent(tram_future *future, void *arg) {
    (void)future;
    answer(arg, 0);
    return 0;
}

/* The same without `closing`: the library is told of the work. */
static int plain_job_done(tram_future *future, void *arg) {
    (void)future;
    tram_transport *transport = arg;
    tram_transport_write(transport, "j", 1);
    return tram_transport_end_work(transport);
}

static void on_done(tram_future *future, tram_future_callback callback, void *arg) {
    assert_int_equal(tram_future_add_done_callback(future, callback, arg), 0);
    tram_future_release(future);
}

static int upstream_made(tram_protocol *protocol, tram_transport *transport) {
    (void)protocol;
    (void)transport;
    return 0;
}

static void free_protocol(tram_protocol *protocol) {
    free(protocol);
}

static const tram_protocol_ops upstream_ops = {.connection_made = upstream_made, .released = free_protocol};

static int upstream_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = calloc(1, sizeof **ret_protocol);
    (*ret_protocol)->ops = &upstream_ops;
    return 0;
}

static int connected(tram_future *future, void *arg) {
    void *value = NULL;
    tram_transport *client = arg, *upstream;
    if (tram_future_result(future, &value) == 0) {
        upstream = value;
        assert_int_equal(tram_bridge(client, upstream, NULL, NULL), 0);
        bridged++;
    }
    return tram_transport_end_work(client);
}

static int answer_other(tram_loop *loop, void *arg) {
    (void)loop;
    answer(arg, 'o');
    return 0;
}

/* On another worker; the answer is written on the connection's own. */
static int ask_other(tram_loop *loop, void *arg) {
    (void)loop;
    struct desk *desk = arg;
    while (!let_go)
        poll(NULL, 0, 1);
    return tram_loop_call_soon_threadsafe(tram_transport_get_loop(desk->transport), answer_other, desk, NULL);
}

static int desk_received(tram_protocol *protocol, const void *data, size_t size) {
    struct desk *desk = desk_of(protocol);
    tram_transport *transport = desk->transport;
    tram_loop *loop = tram_transport_get_loop(transport);
    tram_future *future;
    for (size_t i = 0; i < size; i++) {
        switch (((const char *)data)[i]) {
        case 'e': /* echo */
            begin(desk);
            answer(desk, 'e');
            break;
        case 'j': /* job */
            begin(desk);
            assert_int_equal(tram_loop_run_in_executor(loop, NULL, job, NULL, NULL, &future), 0);
            on_done(future, job_done, desk);
            break;
        case 'w': /* a job that only the library knows of */
            assert_int_equal(tram_transport_begin_work(transport), 0);
            assert_int_equal(tram_loop_run_in_executor(loop, NULL, job, NULL, NULL, &future), 0);
            on_done(future, plain_job_done, transport);
            begun++;
            break;
        case 'f': /* file */
            begin(desk);
            assert_int_equal(tram_loop_sendfile(loop, transport, shared_file, 0, TRAM_SENDFILE_ALL, NULL, &future), 0);
            on_done(future, file_sent, desk);
            break;
        case 'g': /* a file that only the library knows of */
            assert_int_equal(tram_loop_sendfile(loop, transport, shared_file, 0, TRAM_SENDFILE_ALL, NULL, NULL), 0);
            begun++;
            break;
        case 'c': /* a file, and a close behind it */
            assert_int_equal(tram_loop_sendfile(loop, transport, shared_file, 0, TRAM_SENDFILE_ALL, NULL, NULL), 0);
            tram_transport_close(transport);
            begun++;
            break;
        case 'b': /* bridge */
            assert_int_equal(tram_transport_begin_work(transport), 0);
            assert_int_equal(
                tram_loop_create_connection(loop, upstream_factory, NULL, "127.0.0.1", upstream_port, NULL, &future),
                0);
            on_done(future, connected, transport);
            begun++;
            break;
        case 'o': /* other worker */
            begin(desk);
            assert_int_equal(tram_loop_call_soon_threadsafe(desk->other, ask_other, desk, NULL), 0);
            break;
        case 'h': /* hold: no answer */
            begin(desk);
            tram_transport_release(transport);
            break;
        default:
            return TRAM_EVALUE;
        }
    }
    return 0;
}

static int desk_closing(tram_protocol *protocol, uint64_t deadline_ns) {
    struct desk *desk = desk_of(protocol);
    told_deadline_ns = deadline_ns;
    told_at_ns = tram_loop_time(tram_transport_get_loop(desk->transport));
    desk->asked = true;
    begun_when_told = begun;
    told++;
    return desk->pending ? 0 : tram_transport_close(desk->transport);
}

static int desk_lost(tram_protocol *protocol, const tram_error *error) {
    (void)protocol;
    lost_code = error ? error->code : 0;
    lost_operation = error ? error->operation : "";
    lost++;
    return 0;
}

static void desk_released(tram_protocol *protocol) {
    released++;
    free(protocol);
}

static const tram_protocol_ops desk_ops = {
    .connection_made = desk_made,
    .data_received = desk_received,
    .connection_lost = desk_lost,
    .released = desk_released,
    .closing = desk_closing,
};

/* The same without `closing`. */
static const tram_protocol_ops plain_ops = {
    .connection_made = desk_made,
    .data_received = desk_received,
    .connection_lost = desk_lost,
    .released = desk_released,
};

static tram_runtime *house_runtime;

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct desk *desk = calloc(1, sizeof *desk);
    desk->base.ops = arg;
    unsigned last = tram_runtime_worker_count(house_runtime) - 1;
    tram_loop *first = tram_runtime_loop(house_runtime, 0);
    desk->other = loop == first ? tram_runtime_loop(house_runtime, last) : first;
    *ret_protocol = &desk->base;
    return 0;
}

/* ---- A server on several workers ---- */

struct house {
    tram_runtime *runtime;
    tram_runtime_server *server;
    uint16_t port;
};

static struct house open_house_with(struct world *world, const tram_runtime_options *wanted,
                                    const tram_protocol_ops *ops) {
    static const tram_server_options level = {.shard = TRAM_SHARD_HANDOFF};
    struct house house;
    tram_socket_address address;
    tram_runtime_options options = *wanted;
    options.loop.log = world->options.log;
    options.loop.log_arg = world->options.log_arg;
    made = told = lost = released = begun = bridged = 0;
    let_go = false;
    lost_code = 1;
    assert_int_equal(tram_runtime_new(&options, &house.runtime), 0);
    house_runtime = house.runtime;
    assert_int_equal(tram_runtime_create_server(house.runtime, factory, (void *)(uintptr_t)ops, "127.0.0.1", "0",
                                                &level, &house.server, NULL),
                     0);
    assert_int_equal(tram_runtime_server_sockname(house.server, 0, &address), 0);
    house.port = (uint16_t)tram_socket_address_port(&address);
    assert_int_equal(tram_runtime_start(house.runtime), 0);
    return house;
}

static struct house open_house(struct world *world, unsigned workers, uint64_t grace_ns, const tram_protocol_ops *ops) {
    const tram_runtime_options options = {.workers = workers, .grace_ns = grace_ns};
    return open_house_with(world, &options, ops);
}

static int visit(const struct house *house) {
    unsigned before = made;
    int fd = tcp_connect(house->port);
    assert_true(fd >= 0);
    await(&made, before + 1);
    return fd;
}

static void ask(int fd, char what) {
    unsigned before = begun;
    send_exactly(NULL, fd, &what, 1);
    await(&begun, before + 1);
}

static void assert_answer(int fd, char what) {
    char answer;
    receive_exactly(NULL, fd, &answer, 1);
    assert_int_equal(answer, what);
}

static bool reset(int fd) {
    char byte;
    ssize_t size;
    while ((size = recv(fd, &byte, 1, 0)) > 0)
        continue;
    return size < 0 && errno == ECONNRESET;
}

/* How many bytes come until the end of the stream, which has to be one. */
static size_t receive_all(int fd) {
    static char bytes[65536];
    size_t all = 0;
    ssize_t size;
    while ((size = recv(fd, bytes, sizeof bytes, 0)) > 0)
        all += (size_t)size;
    assert_int_equal(size, 0);
    return all;
}

static int end_house(const struct house *house) {
    int cut = tram_runtime_join(house->runtime);
    assert_int_equal(made, released);
    tram_runtime_free(house->runtime);
    return cut;
}

/* ---- G-1 ---- */

static void test_G_1_closing_is_called_once_with_the_end_of_the_grace(void **state) {
    struct house house = open_house(*state, 2, LONG_GRACE_NS, &desk_ops);
    int fds[4];
    for (size_t i = 0; i < 4; i++) {
        fds[i] = visit(&house);
        ask(fds[i], 'j');
    }
    uint64_t before_ns = now_ns();
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    await(&told, 4);
    assert_in_range(told_deadline_ns, before_ns + LONG_GRACE_NS, told_at_ns + LONG_GRACE_NS);
    let_go = true;
    for (size_t i = 0; i < 4; i++) {
        assert_answer(fds[i], 'j');
        assert_true(receive_eof(NULL, fds[i]));
        close(fds[i]);
    }
    assert_int_equal(end_house(&house), 0);
    assert_int_equal(told, 4);
    assert_int_equal(lost_code, 0);
}

static _Atomic unsigned needed_made, lost_when_needed_was;

static int needed_made_it(tram_protocol *protocol, tram_transport *transport) {
    (void)protocol, (void)transport;
    needed_made++;
    return 0;
}

static int needed_lost(tram_protocol *protocol, const tram_error *error) {
    (void)protocol, (void)error;
    lost_when_needed_was = lost;
    return 0;
}

static const tram_protocol_ops needed_ops = {
    .connection_made = needed_made_it, .connection_lost = needed_lost, .released = free_protocol};

static int needed_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop, (void)arg;
    *ret_protocol = calloc(1, sizeof **ret_protocol);
    (*ret_protocol)->ops = &needed_ops;
    return 0;
}

static int connect_to_needed(tram_loop *loop, void *arg) {
    return tram_loop_create_connection(loop, needed_factory, NULL, "127.0.0.1", arg, NULL, NULL);
}

/* A connection to a database, say: those that are served may need it until they have ended. */
static void test_G_1_what_the_served_need_ends_behind_them(void **state) {
    struct house house = open_house(*state, 1, LONG_GRACE_NS, &desk_ops);
    uint16_t port;
    int listener = tcp_listener(5, &port), fd = visit(&house);
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    needed_made = 0;
    lost_when_needed_was = 77;
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(house.runtime, 0), connect_to_needed, text, NULL),
                     0);
    await(&needed_made, 1);
    ask(fd, 'j');
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    await(&told, 1);
    let_go = true;
    assert_answer(fd, 'j');
    assert_true(receive_eof(NULL, fd));
    close(fd);
    close(listener);
    assert_int_equal(end_house(&house), 0);
    assert_int_equal(lost_when_needed_was, 1);
}

struct late_request {
    tram_runtime *runtime;
    int fd;
};

static int ask_and_stop(tram_loop *loop, void *arg) {
    (void)loop;
    const struct late_request *late = arg;
    send_exactly(NULL, late->fd, "j", 1);
    return tram_runtime_stop(late->runtime);
}

/* What clients had sent when nobody was accepted any more comes before `closing`. */
static void test_G_1_who_is_asked_to_end_has_heard_all_before(void **state) {
    struct house house = open_house(*state, 1, LONG_GRACE_NS, &desk_ops);
    struct late_request late = {house.runtime, visit(&house)};
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(house.runtime, 0), ask_and_stop, &late, NULL), 0);
    await(&told, 1);
    assert_int_equal(begun_when_told, 1);
    let_go = true;
    assert_answer(late.fd, 'j');
    assert_true(receive_eof(NULL, late.fd));
    close(late.fd);
    assert_int_equal(end_house(&house), 0);
}

static void test_G_1_idle_connections_end_at_once(void **state) {
    struct house house = open_house(*state, 2, TRAM_FOREVER, &desk_ops);
    int fds[200];
    for (size_t i = 0; i < 200; i++)
        fds[i] = visit(&house);
    ask(fds[0], 'e');
    assert_answer(fds[0], 'e');
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    for (size_t i = 0; i < 200; i++) {
        assert_true(receive_eof(NULL, fds[i]));
        close(fds[i]);
    }
    assert_int_equal(end_house(&house), 0);
    assert_int_equal(told, 200);
}

static void check_cut(struct world *world, uint64_t grace_ns, unsigned stops) {
    struct house house = open_house(world, 2, grace_ns, &desk_ops);
    char name[64];
    struct sockaddr_in inet;
    socklen_t size = sizeof inet;
    tram_stats stats[2];
    world->log[0] = '\0';
    int fd = visit(&house), idle = visit(&house);
    ask(fd, 'h');
    assert_int_equal(getsockname(fd, (struct sockaddr *)&inet, &size), 0);
    for (unsigned i = 0; i < stops; i++) {
        assert_int_equal(tram_runtime_stop(house.runtime), 0);
        await(&told, 2);
    }
    assert_true(reset(fd));
    assert_true(receive_eof(NULL, idle)); /* it had its time */
    await(&lost, 2);
    assert_int_equal(tram_runtime_join(house.runtime), 1);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(tram_runtime_stats(house.runtime, i, &stats[i]), 0);
    assert_int_equal(stats[0].expired_grace + stats[1].expired_grace, 1);
    assert_int_equal(end_house(&house), 1);
    assert_int_equal(lost_code, TRAM_ETIMEOUT);
    assert_string_equal(lost_operation, "grace");
    snprintf(name, sizeof name, "1 connections are aborted: 127.0.0.1:%u ", ntohs(inet.sin_port));
    assert_non_null(strstr(world->log, name));
    close(fd);
    close(idle);
}

static void test_G_1_what_is_left_at_the_end_of_the_grace_is_reset(void **state) {
    check_cut(*state, 100 * MS, 1);
}

static void test_G_5_a_second_stop_ends_the_grace(void **state) {
    check_cut(*state, LONG_GRACE_NS, 2);
}

/* ---- G-1: drains ---- */

struct draining {
    const struct house *house;
    uint64_t timeout_ns;
};

static void *drain_in_thread(void *arg) {
    const struct draining *draining = arg;
    return (void *)(intptr_t)tram_runtime_server_drain(draining->house->server, draining->timeout_ns);
}

static void test_G_1_a_drain_waits_for_what_connections_have_begun(void **state) {
    struct house house = open_house(*state, 2, LONG_GRACE_NS, &desk_ops);
    struct draining draining = {.house = &house, .timeout_ns = LONG_GRACE_NS};
    int fd = visit(&house), idle = visit(&house);
    ask(fd, 'j');
    uint64_t before_ns = now_ns();
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, drain_in_thread, &draining), 0);
    assert_true(receive_eof(NULL, idle));
    await(&told, 2);
    assert_in_range(told_deadline_ns, before_ns + LONG_GRACE_NS / 2, told_at_ns + LONG_GRACE_NS);
    assert_nobody_listens(house.port);
    ask(fd, 'e');
    assert_answer(fd, 'e');
    let_go = true;
    assert_answer(fd, 'j');
    assert_true(receive_eof(NULL, fd));
    void *left;
    pthread_join(thread, &left);
    assert_int_equal((intptr_t)left, 0);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_int_equal(end_house(&house), 0);
    assert_int_equal(told, 2);
    close(fd);
    close(idle);
}

static void test_G_1_a_drain_resets_what_is_left(void **state) {
    struct house house = open_house(*state, 2, LONG_GRACE_NS, &desk_ops);
    int fds[] = {visit(&house), visit(&house), visit(&house)};
    ask(fds[0], 'h');
    ask(fds[2], 'h');
    assert_int_equal(tram_runtime_server_drain(house.server, 100 * MS), 2);
    assert_true(reset(fds[0]));
    assert_true(receive_eof(NULL, fds[1]));
    assert_true(reset(fds[2]));
    await(&released, 3);
    assert_int_equal(lost_code, TRAM_ETIMEOUT);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    end_house(&house);
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
}

/* The runtime stops while a server drains: nobody is asked twice. */
static void test_G_1_a_stop_during_a_drain_asks_nobody_again(void **state) {
    struct house house = open_house(*state, 2, LONG_GRACE_NS, &desk_ops);
    struct draining draining = {.house = &house, .timeout_ns = LONG_GRACE_NS};
    int fd = visit(&house);
    ask(fd, 'j');
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, drain_in_thread, &draining), 0);
    await(&told, 1);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    poll(NULL, 0, 20);
    let_go = true;
    assert_answer(fd, 'j');
    assert_true(receive_eof(NULL, fd));
    void *left;
    pthread_join(thread, &left);
    assert_int_equal((intptr_t)left, 0);
    assert_int_equal(end_house(&house), 0);
    assert_int_equal(told, 1);
    close(fd);
}

static _Atomic unsigned inside;

static int wait_at_gate(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    inside++;
    while (!let_go)
        poll(NULL, 0, 1);
    return 0;
}

/* rules: V-17 */
static void test_G_1_a_drain_serves_who_got_through(void **state) {
    struct house house = open_house(*state, 2, LONG_GRACE_NS, &desk_ops);
    struct draining draining = {.house = &house, .timeout_ns = LONG_GRACE_NS};
    inside = 0;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(house.runtime, i), wait_at_gate, NULL, NULL),
                         0);
    await(&inside, 2);
    int fds[8];
    for (size_t i = 0; i < 8; i++) {
        fds[i] = tcp_connect(house.port);
        send_exactly(NULL, fds[i], "e", 1);
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, drain_in_thread, &draining), 0);
    poll(NULL, 0, 10);
    let_go = true;
    for (size_t i = 0; i < 8; i++) {
        assert_answer(fds[i], 'e');
        assert_true(receive_eof(NULL, fds[i]));
        close(fds[i]);
    }
    void *left;
    pthread_join(thread, &left);
    assert_int_equal((intptr_t)left, 0);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_int_equal(end_house(&house), 0);
}

/* ---- G-2 ---- */

static void test_G_2_a_protocol_that_was_told_hears_as_before(void **state) {
    struct house house = open_house(*state, 1, LONG_GRACE_NS, &desk_ops);
    int fd = visit(&house);
    ask(fd, 'j');
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    await(&told, 1);
    ask(fd, 'e');
    assert_answer(fd, 'e');
    let_go = true;
    assert_answer(fd, 'j');
    assert_true(receive_eof(NULL, fd));
    assert_int_equal(end_house(&house), 0);
    close(fd);
}

static void test_G_2_without_closing_what_is_queued_is_sent(void **state) {
    struct house house = open_house(*state, 2, LONG_GRACE_NS, &plain_ops);
    int idle = visit(&house), fd = visit(&house);
    ask(fd, 'g');
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_true(receive_eof(NULL, idle));
    assert_int_equal(receive_all(fd), FILE_SIZE);
    assert_int_equal(end_house(&house), 0);
    assert_int_equal(told, 0);
    close(fd);
    close(idle);
}

static int closing_fails(tram_protocol *protocol, uint64_t deadline_ns) {
    (void)protocol;
    (void)deadline_ns;
    told++;
    return TRAM_EUSER;
}

static const tram_protocol_ops failing_ops = {.connection_made = desk_made,
                                              .data_received = desk_received,
                                              .connection_lost = desk_lost,
                                              .released = desk_released,
                                              .closing = closing_fails};

static void test_G_2_a_closing_that_fails_is_reported_and_closes(void **state) {
    struct world *world = *state;
    world->log[0] = '\0';
    struct house house = open_house(world, 1, LONG_GRACE_NS, &failing_ops);
    int fd = visit(&house);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_true(receive_eof(NULL, fd));
    assert_int_equal(end_house(&house), 0);
    assert_int_equal(told, 1);
    assert_non_null(strstr(world->log, "closing"));
    close(fd);
}

/* Another protocol takes over once the end was asked for: it is told, too. */
static int switch_protocol(tram_protocol *protocol, uint64_t deadline_ns) {
    struct desk *desk = desk_of(protocol), *next = calloc(1, sizeof *next);
    (void)deadline_ns;
    told++;
    next->base.ops = &desk_ops;
    next->transport = desk->transport;
    made++;
    assert_int_equal(tram_transport_set_protocol(desk->transport, &next->base), 0);
    return 0;
}

static const tram_protocol_ops switching_ops = {.connection_made = desk_made,
                                                .data_received = desk_received,
                                                .released = desk_released,
                                                .closing = switch_protocol};

static void test_G_2_a_protocol_that_comes_later_is_told(void **state) {
    struct house house = open_house(*state, 1, TRAM_FOREVER, &switching_ops);
    int fd = visit(&house);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_true(receive_eof(NULL, fd));
    assert_int_equal(end_house(&house), 0);
    assert_int_equal(told, 2);
    assert_true(told_deadline_ns == TRAM_FOREVER);
    close(fd);
}

/* ---- G-3 ---- */

static void test_G_3_work_of_a_connection_is_waited_for(void **state) {
    struct house house = open_house(*state, 2, LONG_GRACE_NS, &plain_ops);
    int fd = visit(&house), idle = visit(&house);
    ask(fd, 'w');
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_true(receive_eof(NULL, idle)); /* so the other one was asked, too, or will be soon */
    poll(NULL, 0, 20);
    assert_int_equal(lost, 1);
    let_go = true;
    assert_answer(fd, 'j');
    assert_true(receive_eof(NULL, fd));
    assert_int_equal(end_house(&house), 0);
    close(fd);
    close(idle);
}

static void test_G_3_work_that_outlives_its_connection(void **state) {
    struct house house = open_house(*state, 1, LONG_GRACE_NS, &plain_ops);
    int fd = visit(&house);
    ask(fd, 'w');
    close(fd);
    await(&lost, 1);
    let_go = true;
    await(&released, 1);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_int_equal(end_house(&house), 0);
}

static void test_G_3_work_that_was_not_begun_does_not_end(void **state) {
    struct world *world = *state;
    tram_protocol *a, *b;
    tram_transport *transport;
    assert_int_equal(upstream_factory(world->loop, NULL, &a), 0);
    assert_int_equal(upstream_factory(world->loop, NULL, &b), 0);
    assert_int_equal(tram_loop_create_pair(world->loop, a, b, &transport, NULL), 0);
    run_ticks(world, 2);
    assert_int_equal(tram_transport_end_work(transport), TRAM_ESTATE);
    assert_int_equal(tram_transport_begin_work(transport), 0);
    assert_int_equal(tram_transport_begin_work(transport), 0);
    assert_int_equal(tram_transport_work(transport), 2);
    assert_int_equal(tram_transport_abort(transport), 0);
    run_ticks(world, 3);
    assert_int_equal(tram_transport_begin_work(transport), TRAM_ESTATE); /* it is lost, and held */
    assert_int_equal(tram_transport_end_work(transport), 0);
    assert_int_equal(tram_transport_work(transport), 1);
    assert_int_equal(tram_transport_end_work(transport), 0);
}

static void test_G_3_a_file_is_sent_to_its_end(void **state) {
    struct house house = open_house(*state, 2, LONG_GRACE_NS, &desk_ops);
    int fd = visit(&house);
    ask(fd, 'f');
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    await(&told, 1);
    assert_int_equal(receive_all(fd), FILE_SIZE);
    assert_int_equal(end_house(&house), 0);
    close(fd);
}

static void test_G_3_T_1_a_file_that_a_close_waits_for_is_sent_to_its_end_or_counts_as_cut(void **state) {
    struct house house = open_house(*state, 2, LONG_GRACE_NS, &plain_ops);
    int fd = visit(&house);
    ask(fd, 'c');
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_int_equal(receive_all(fd), FILE_SIZE);
    assert_int_equal(end_house(&house), 0);
    close(fd);

    house = open_house(*state, 1, 100 * MS, &plain_ops);
    fd = visit(&house);
    ask(fd, 'c');
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_int_equal(end_house(&house), 1);
    assert_true(reset(fd));
    close(fd);
}

/* A connection is being made for one that is asked to end; the bridge lives as long as its sides. */
static void test_G_3_a_connection_that_is_being_made_and_the_bridge_that_follows(void **state) {
    uint16_t port;
    int listener = tcp_listener(1, &port);
    snprintf(upstream_port, sizeof upstream_port, "%u", port);
    struct house house = open_house(*state, 1, LONG_GRACE_NS, &plain_ops);
    int fd = visit(&house);
    ask(fd, 'b');
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    int upstream = accept(listener, NULL, NULL);
    assert_true(upstream >= 0);
    await(&bridged, 1); /* from then on it is the bridge that reads */
    send_exactly(NULL, fd, "there", 5);
    char bytes[5];
    receive_exactly(NULL, upstream, bytes, 5);
    poll(NULL, 0, 20);
    send_exactly(NULL, upstream, "back!", 5);
    receive_exactly(NULL, fd, bytes, 5);
    assert_memory_equal(bytes, "back!", 5);
    close(upstream);
    assert_true(receive_eof(NULL, fd));
    close(fd);
    assert_int_equal(end_house(&house), 0);
    close(listener);
}

static void test_G_3_a_bridge_past_the_grace_is_cut(void **state) {
    uint16_t port;
    int listener = tcp_listener(1, &port);
    snprintf(upstream_port, sizeof upstream_port, "%u", port);
    struct house house = open_house(*state, 1, 100 * MS, &plain_ops);
    int fd = visit(&house);
    ask(fd, 'b');
    int upstream = accept(listener, NULL, NULL);
    await(&released, 1);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_true(reset(fd));
    assert_true(reset(upstream));
    assert_in_range(end_house(&house), 1, 2); /* the first side takes the other one along */
    close(fd);
    close(upstream);
    close(listener);
}

/* What one worker's connection wants of another worker is done, though that one has no connection. */
static void test_G_3_workers_serve_each_other_until_all_are_done(void **state) {
    for (int i = 0; i < 10; i++) {
        struct house house = open_house(*state, 2, LONG_GRACE_NS, &desk_ops);
        int fd = visit(&house);
        ask(fd, 'o');
        assert_int_equal(tram_runtime_stop(house.runtime), 0);
        let_go = true;
        assert_answer(fd, 'o');
        assert_true(receive_eof(NULL, fd));
        assert_int_equal(end_house(&house), 0);
        close(fd);
    }
}

/* … also where it is asked for long after that worker has nothing left of its own. */
static void test_G_3_a_worker_without_connections_waits_for_the_others(void **state) {
    struct house house = open_house(*state, 2, LONG_GRACE_NS, &desk_ops);
    int fd = visit(&house);
    ask(fd, 'j');
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    await(&told, 1);
    poll(NULL, 0, 50);
    ask(fd, 'o');
    let_go = true;
    char answers[2];
    receive_exactly(NULL, fd, answers, 2);
    assert_true(receive_eof(NULL, fd));
    assert_int_equal(end_house(&house), 0);
    close(fd);
}

/* ---- G-4 ---- */

static _Atomic unsigned starting, started, stopping, stops_done;
static _Atomic bool early, late;

static int slow_start(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)arg;
    tram_runtime *found;
    unsigned index;
    early = early || tram_loop_worker(loop, &found, &index) || found != runtime || index != worker;
    early = early || tram_loop_state(loop);
    starting++;
    if (worker == tram_runtime_worker_count(runtime) - 1)
        poll(NULL, 0, 30);
    *state = &started;
    early = early || made;
    started++;
    return 0;
}

static int nothing(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return 0;
}

static void test_a_loop_knows_its_worker(void **state) {
    struct world *world = *state;
    tram_runtime *found = NULL;
    unsigned index = 7;
    assert_int_equal(tram_loop_worker(world->loop, &found, &index), TRAM_ESTATE);
    assert_null(found);
    assert_int_equal(index, 7);
    assert_null(tram_loop_state(world->loop));
    struct house house = open_house(world, 2, LONG_GRACE_NS, &desk_ops);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(tram_loop_worker(tram_runtime_loop(house.runtime, i), &found, &index), 0);
        assert_ptr_equal(found, house.runtime);
        assert_int_equal(index, i);
        assert_int_equal(tram_loop_worker(tram_runtime_loop(house.runtime, i), NULL, NULL), 0);
    }
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_int_equal(end_house(&house), 0);
}

static int slow_stop(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)arg;
    tram_stats stats;
    stopping++;
    /* No loop has a connection, nor is any of them closed. */
    for (unsigned i = 0; i < tram_runtime_worker_count(runtime); i++) {
        tram_runtime_stats(runtime, i, &stats);
        late = late || stats.connections_now;
        int posted = tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, i), nothing, NULL, NULL);
        late = late || posted;
    }
    if (worker == 1)
        poll(NULL, 0, 30);
    (void)loop;
    (void)state;
    stops_done++;
    return 0;
}

static void test_G_4_the_order_of_start_and_end(void **state) {
    for (int i = 0; i < 5; i++) {
        tram_runtime_options options = {
            .workers = 3, .grace_ns = LONG_GRACE_NS, .start = slow_start, .stop = slow_stop};
        starting = started = stopping = stops_done = 0;
        early = late = false;
        struct house house = open_house_with(*state, &options, &desk_ops);
        int fd = visit(&house);
        ask(fd, 'j');
        assert_false(early);
        assert_int_equal(started, 3);
        assert_ptr_equal(tram_loop_state(tram_runtime_loop(house.runtime, 2)), &started);
        assert_int_equal(tram_runtime_stop(house.runtime), 0);
        await(&told, 1);
        poll(NULL, 0, 20);
        assert_int_equal(stopping, 0); /* a connection is still served */
        let_go = true;
        assert_answer(fd, 'j');
        assert_int_equal(end_house(&house), 0);
        assert_int_equal(stops_done, 3);
        assert_false(late);
        close(fd);
    }
}

/* Clients that come while a slow `start` runs are served when all have returned. */
static _Atomic uint16_t early_port;

static int start_and_connect(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    int *fd = arg;
    if (worker == 0)
        *fd = tcp_connect(early_port);
    return slow_start(runtime, worker, loop, state, NULL);
}

static void test_G_4_nobody_is_accepted_before_every_start_has_returned(void **state) {
    struct world *world = *state;
    tram_socket_address address;
    struct house house;
    int fd = -1;
    starting = started = 0;
    early = false;
    made = told = lost = released = begun = 0;
    tram_runtime_options options = {.workers = 3, .start = start_and_connect, .arg = &fd};
    options.loop.log = world->options.log;
    options.loop.log_arg = world->options.log_arg;
    assert_int_equal(tram_runtime_new(&options, &house.runtime), 0);
    house_runtime = house.runtime;
    /* The kernel completes connections to a socket that listens already. */
    int listener = tcp_listener(5, &(uint16_t){0});
    const tram_server_options given = {.sockets = &listener, .socket_count = 1};
    assert_int_equal(tram_runtime_create_server(house.runtime, factory, (void *)(uintptr_t)&desk_ops, NULL, NULL,
                                                &given, &house.server, NULL),
                     0);
    assert_int_equal(tram_runtime_server_sockname(house.server, 0, &address), 0);
    early_port = (uint16_t)tram_socket_address_port(&address);
    assert_int_equal(tram_runtime_start(house.runtime), 0);
    assert_true(fd >= 0);
    ask(fd, 'e');
    assert_answer(fd, 'e');
    assert_false(early);
    assert_int_equal(started, 3);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_int_equal(end_house(&house), 0);
    close(fd);
}

/* ---- G-5 ---- */

static int slow_closing(tram_protocol *protocol, uint64_t deadline_ns) {
    (void)protocol;
    (void)deadline_ns;
    told++;
    poll(NULL, 0, 2);
    return 0;
}

static const tram_protocol_ops slow_ops = {.connection_made = desk_made,
                                           .data_received = desk_received,
                                           .connection_lost = desk_lost,
                                           .released = desk_released,
                                           .closing = slow_closing};

static void test_G_5_a_second_stop_does_not_wait_behind_callbacks_of_others(void **state) {
    enum { CONNECTIONS = 400 };
    struct house house = open_house(*state, 1, LONG_GRACE_NS, &slow_ops);
    int fds[CONNECTIONS];
    for (size_t i = 0; i < CONNECTIONS; i++)
        fds[i] = visit(&house);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    await(&told, 1);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_int_equal(end_house(&house), CONNECTIONS);
    assert_in_range(told, 1, CONNECTIONS / 2);
    for (size_t i = 0; i < CONNECTIONS; i++)
        close(fds[i]);
}

/* ---- */

static int make_file(void **state) {
    (void)state;
    char path[] = "/tmp/tram-graceful-XXXXXX";
    shared_file = mkstemp(path);
    unlink(path);
    return shared_file >= 0 ? ftruncate(shared_file, FILE_SIZE) : -1;
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_G_1_closing_is_called_once_with_the_end_of_the_grace),
        CASE(test_G_1_what_the_served_need_ends_behind_them),
        CASE(test_G_1_who_is_asked_to_end_has_heard_all_before),
        CASE(test_G_1_idle_connections_end_at_once),
        CASE(test_G_1_what_is_left_at_the_end_of_the_grace_is_reset),
        CASE(test_G_1_a_drain_waits_for_what_connections_have_begun),
        CASE(test_G_1_a_drain_resets_what_is_left),
        CASE(test_G_1_a_stop_during_a_drain_asks_nobody_again),
        CASE(test_G_1_a_drain_serves_who_got_through),
        CASE(test_G_2_a_protocol_that_was_told_hears_as_before),
        CASE(test_G_2_without_closing_what_is_queued_is_sent),
        CASE(test_G_2_a_closing_that_fails_is_reported_and_closes),
        CASE(test_G_2_a_protocol_that_comes_later_is_told),
        CASE(test_G_3_work_of_a_connection_is_waited_for),
        CASE(test_G_3_work_that_outlives_its_connection),
        CASE(test_G_3_work_that_was_not_begun_does_not_end),
        CASE(test_G_3_a_file_is_sent_to_its_end),
        CASE(test_G_3_T_1_a_file_that_a_close_waits_for_is_sent_to_its_end_or_counts_as_cut),
        CASE(test_G_3_a_connection_that_is_being_made_and_the_bridge_that_follows),
        CASE(test_G_3_a_bridge_past_the_grace_is_cut),
        CASE(test_G_3_workers_serve_each_other_until_all_are_done),
        CASE(test_G_3_a_worker_without_connections_waits_for_the_others),
        CASE(test_a_loop_knows_its_worker),
        CASE(test_G_4_the_order_of_start_and_end),
        CASE(test_G_4_nobody_is_accepted_before_every_start_has_returned),
        CASE(test_G_5_a_second_stop_ends_the_grace),
        CASE(test_G_5_a_second_stop_does_not_wait_behind_callbacks_of_others),
    };
    return cmocka_run_group_tests(tests, make_file, NULL);
}
