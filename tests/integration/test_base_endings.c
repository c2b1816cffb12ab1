/* How servers end: their clients, waiting for them with a deadline, and who was still there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "support/memory.h"
#include "support/support.h"

/* ---- A server on several workers ---- */

static _Atomic unsigned made, released;

static int client_made(tram_protocol *protocol, tram_transport *transport) {
    (void)protocol;
    (void)transport;
    made++;
    return 0;
}

static int client_received(tram_protocol *protocol, const void *data, size_t size) {
    return tram_transport_write(protocol->transport, data, size);
}

static void client_released(tram_protocol *protocol) {
    released++;
    free(protocol);
}

static const tram_protocol_ops client_ops = {
    .connection_made = client_made,
    .data_received = client_received,
    .released = client_released,
};

static int deaf_made(tram_protocol *protocol, tram_transport *transport) {
    made++;
    (void)protocol;
    return tram_transport_pause_reading(transport);
}

/* Reads nothing of what comes. */
static const tram_protocol_ops deaf_ops = {.connection_made = deaf_made, .released = client_released};

/* More than any kernel buffers take. */
static int flood_made(tram_protocol *protocol, tram_transport *transport) {
    static const char bytes[65536];
    (void)protocol;
    for (size_t sent = 0; sent < (32u << 20); sent += sizeof bytes)
        if (tram_transport_write(transport, bytes, sizeof bytes))
            return TRAM_EUSER;
    made++;
    return 0;
}

static const tram_protocol_ops flood_ops = {.connection_made = flood_made, .released = client_released};

/* arg: the ops; NULL: it fails. */
static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    if (!arg)
        return -EXDEV;
    *ret_protocol = calloc(1, sizeof **ret_protocol);
    (*ret_protocol)->ops = arg;
    return 0;
}

struct house {
    tram_runtime *runtime;
    tram_runtime_server *server;
    uint16_t port;
};

/* Connections go round: each worker has as many as the next. */
static struct house open_house(const tram_runtime_options *options, const tram_protocol_ops *ops) {
    static const tram_server_options level = {.shard = TRAM_SHARD_HANDOFF};
    struct house house;
    tram_socket_address address;
    struct sockaddr_in inet;
    made = released = 0;
    assert_int_equal(tram_runtime_new(options, &house.runtime), 0);
    assert_int_equal(tram_runtime_create_server(house.runtime, factory, (void *)(uintptr_t)ops, "127.0.0.1", "0",
                                                &level, &house.server, NULL),
                     0);
    assert_int_equal(tram_runtime_server_sockname(house.server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    house.port = ntohs(inet.sin_port);
    return house;
}

static struct house open_and_start(struct world *world, unsigned workers, const tram_protocol_ops *ops) {
    tram_runtime_options options = {.workers = workers, .loop = {.allocator = world->options.allocator}};
    struct house house = open_house(&options, ops);
    assert_int_equal(tram_runtime_start(house.runtime), 0);
    return house;
}

static void await(const _Atomic unsigned *count, unsigned wanted) {
    for (int i = 0; *count != wanted; i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
    }
}

static void visit(const struct house *house, int *fds, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        fds[i] = tcp_connect(house->port);
        assert_true(fds[i] >= 0);
    }
    await(&made, count);
}

static void close_all(int *fds, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

static void close_house(const struct house *house) {
    tram_runtime_free(house->runtime);
    assert_int_equal(made, released);
}

/* ---- Clients ---- */

static void test_V_40_clients_of_all_workers(void **state) {
    struct house house = open_and_start(*state, 3, &client_ops);
    int fds[9];
    visit(&house, fds, 9);
    assert_int_equal(tram_runtime_server_close_clients(house.server), 0);
    for (size_t i = 0; i < 9; i++)
        assert_true(receive_eof(NULL, fds[i]));
    close_all(fds, 9);
    await(&released, 9);
    made = released = 0;
    visit(&house, fds, 9); /* new ones still come */
    assert_int_equal(tram_runtime_server_abort_clients(house.server), 0);
    for (size_t i = 0; i < 9; i++)
        assert_true(receive_eof(NULL, fds[i]));
    close_all(fds, 9);
    close_house(&house);
}

static void test_V_40_what_is_queued_is_sent_or_dropped(void **state) {
    struct house house = open_and_start(*state, 2, &flood_ops);
    int fds[2];
    visit(&house, fds, 2);
    assert_int_equal(tram_runtime_server_close_clients(house.server), 0);
    static char bytes[32u << 20];
    receive_exactly(NULL, fds[0], bytes, sizeof bytes);
    assert_true(receive_eof(NULL, fds[0]));
    await(&released, 1);
    assert_int_equal(tram_runtime_server_abort_clients(house.server), 0);
    await(&released, 2);
    close_all(fds, 2);
    close_house(&house);
}

/* What came and was not read makes a reset of a close, unless the end of the stream goes first. */
static void test_V_42_unread_bytes_are_no_reset(void **state) {
    for (int way = 0; way < 2; way++) {
        struct house house = open_and_start(*state, 2, &deaf_ops);
        int fds[4];
        visit(&house, fds, 4);
        for (size_t i = 0; i < 4; i++)
            send_exactly(NULL, fds[i], "unread", 6);
        if (way)
            assert_int_equal(tram_runtime_stop(house.runtime), 0);
        else
            assert_int_equal(tram_runtime_server_close_clients(house.server), 0);
        for (size_t i = 0; i < 4; i++)
            assert_true(receive_eof(NULL, fds[i]));
        close_all(fds, 4);
        close_house(&house);
    }
}

/* ---- Waiting ---- */

static bool one_released(void *arg) {
    (void)arg;
    return released == 1;
}

static tram_server *loop_server(struct world *world, tram_protocol_factory make, void *arg, uint16_t *ret_port) {
    tram_future *future;
    void *server;
    tram_socket_address address;
    struct sockaddr_in inet;
    assert_int_equal(tram_loop_create_server(world->loop, make, arg, "127.0.0.1", "0", NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    *ret_port = ntohs(inet.sin_port);
    return server;
}

static tram_future *drain(tram_server *server, uint64_t timeout_ns) {
    tram_future *future;
    assert_int_equal(tram_server_drain(server, timeout_ns, &future), 0);
    return future;
}

static size_t left_of(struct world *world, tram_future *future) {
    void *value;
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &value), 0);
    tram_future_release(future);
    return (size_t)(uintptr_t)value;
}

/* Does not end when it is asked to. */
static int stay(tram_protocol *protocol, uint64_t deadline_ns) {
    (void)protocol;
    (void)deadline_ns;
    return 0;
}

static const tram_protocol_ops stubborn_ops = {
    .connection_made = client_made,
    .data_received = client_received,
    .released = client_released,
    .closing = stay,
};

static bool all_made(void *arg) {
    return made == *(unsigned *)arg;
}

static void test_V_41_drain_of_a_loop_has_a_deadline(void **state) {
    struct world *world = *state;
    uint16_t port;
    unsigned wanted = 2;
    made = released = 0;
    tram_server *server = loop_server(world, factory, (void *)(uintptr_t)&stubborn_ops, &port);
    int fds[] = {tcp_connect(port), tcp_connect(port)};
    run_until_true(world, all_made, &wanted);
    tram_future *all = drain(server, TRAM_FOREVER), *cancelled = drain(server, 3600000000000);
    assert_false(tram_server_is_serving(server));
    assert_nobody_listens(port);
    assert_int_equal(tram_future_cancel(cancelled), 1);
    assert_true(tram_future_cancelled(cancelled));
    tram_future_release(cancelled);
    close(fds[0]);
    run_until_true(world, one_released, NULL);
    assert_false(tram_future_done(all));
    world->log[0] = '\0';
    assert_int_equal(left_of(world, drain(server, 1000000)), 1);
    assert_non_null(strstr(world->log, "1 connections are aborted: 127.0.0.1:"));
    assert_int_equal(left_of(world, all), 0);
    assert_false(receive_eof(NULL, fds[1]));
    assert_int_equal(errno, ECONNRESET);
    close(fds[1]);
    all = drain(server, 0); /* nothing to wait for */
    assert_true(tram_future_done(all));
    assert_int_equal(left_of(world, all), 0);
    tram_server_release(server);
}

static tram_future *told_of;

static void cancel_when_told(void *arg, tram_log_level level, const char *line) {
    (void)arg, (void)level;
    if (!told_of || !strstr(line, "the time of a drain is over"))
        return;
    assert_int_equal(tram_future_cancel(told_of), 1);
    tram_future_release(told_of);
    told_of = NULL;
}

static bool was_told(void *arg) {
    (void)arg;
    return !told_of;
}

static void test_V_41_the_log_function_may_cancel_a_drain(void **state) {
    struct world *world = *state;
    uint16_t port;
    unsigned wanted = 1;
    world->options.log = cancel_when_told;
    world_reopen(world);
    made = released = 0;
    tram_server *server = loop_server(world, factory, (void *)(uintptr_t)&stubborn_ops, &port);
    int fd = tcp_connect(port);
    run_until_true(world, all_made, &wanted);
    told_of = drain(server, 1000000);
    tram_server_release(server);
    run_until_true(world, was_told, NULL);
    run_until_true(world, one_released, NULL);
    close(fd);
}

static int cancel_and_make(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    if (told_of)
        assert_int_equal(tram_future_cancel(told_of), 1);
    tram_future_release(told_of);
    told_of = NULL;
    return factory(loop, arg, ret_protocol);
}

/* Who got through is served within the call, which has given its future by then. */
static void test_V_41_V_17_a_factory_may_cancel_the_drain_that_calls_it(void **state) {
    struct world *world = *state;
    uint16_t port;
    made = released = 0;
    tram_server *server = loop_server(world, cancel_and_make, (void *)(uintptr_t)&stubborn_ops, &port);
    int fd = tcp_connect(port);
    assert_int_equal(tram_server_drain(server, TRAM_FOREVER, &told_of), 0);
    assert_null(told_of);
    assert_int_equal(tram_server_connection_count(server), 1);
    tram_server_release(server);
    close(fd);
    run_until_true(world, one_released, NULL);
}

static void test_V_41_drain_ends_with_its_loop(void **state) {
    struct world *world = *state;
    uint16_t port;
    tram_server *server = loop_server(world, recorder_factory, world, &port);
    tram_future *future = drain(server, 3600000000000);
    assert_int_equal(tram_loop_close(world->loop), 0); /* which closes it, and leaves nobody */
    void *left = server;
    assert_int_equal(tram_future_result(future, &left), 0);
    assert_null(left);
    tram_future_release(future);
    assert_int_equal(tram_server_drain(server, 0, &future), TRAM_ESTATE);
    tram_server_release(server);
}

static int drain_here(tram_loop *loop, void *arg) {
    (void)loop;
    struct house *house = arg;
    made += (unsigned)(tram_runtime_server_drain(house->server, 0) == TRAM_ESTATE);
    made += (unsigned)(tram_runtime_server_each_client(house->server, NULL, NULL) == TRAM_ESTATE);
    return 0;
}

static void *drain_in_thread(void *arg) {
    const struct house *house = arg;
    return (void *)(intptr_t)tram_runtime_server_drain(house->server, TRAM_FOREVER);
}

static void test_V_41_drain_of_all_workers(void **state) {
    struct house house = open_and_start(*state, 3, &stubborn_ops);
    int fds[6];
    visit(&house, fds, 6);
    pthread_t thread;
    void *left;
    assert_int_equal(pthread_create(&thread, NULL, drain_in_thread, &house), 0);
    close_all(fds, 6);
    pthread_join(thread, &left);
    assert_int_equal((intptr_t)left, 0);
    await(&released, 6); /* which comes a moment after connection_lost */
    close_house(&house);
    house = open_and_start(*state, 3, &stubborn_ops);
    visit(&house, fds, 6);
    assert_int_equal(tram_runtime_server_drain(house.server, 1000000), 6);
    for (size_t i = 0; i < 6; i++)
        assert_false(receive_eof(NULL, fds[i])); /* a reset */
    close_all(fds, 6);
    await(&released, 6);
    assert_int_equal(tram_runtime_server_drain(house.server, TRAM_FOREVER), 0);
    made = 0;
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(house.runtime, 1), drain_here, &house, NULL), 0);
    await(&made, 2);
    made = released;
    close_house(&house);
}

static _Atomic unsigned asked, returned;

static int ask(tram_protocol *protocol, uint64_t deadline_ns) {
    asked++;
    return stay(protocol, deadline_ns);
}

/* The connection is gone, its worker cannot go on before the drain has returned. */
static void released_late(tram_protocol *protocol) {
    for (int i = 0; !returned && i < 5000; i++)
        poll(NULL, 0, 1);
    client_released(protocol);
}

static const tram_protocol_ops late_ops = {
    .connection_made = client_made,
    .data_received = client_received,
    .released = released_late,
    .closing = ask,
};

static void *drain_and_say_so(void *arg) {
    void *left = drain_in_thread(arg);
    returned++;
    return left;
}

static void test_V_41_drain_counts_what_it_resets_before_it_is_gone(void **state) {
    struct house house = open_and_start(*state, 1, &late_ops);
    int fd;
    asked = returned = 0;
    visit(&house, &fd, 1);
    pthread_t thread;
    void *left;
    assert_int_equal(pthread_create(&thread, NULL, drain_and_say_so, &house), 0);
    await(&asked, 1); /* it waits */
    assert_int_equal(tram_runtime_server_drain(house.server, 0), 1);
    pthread_join(thread, &left);
    assert_int_equal((intptr_t)left, 1);
    close(fd);
    await(&released, 1);
    close_house(&house);
}

/* Before the workers start, after they ended, and of a server whose only connection could not be made. */
static void test_V_41_drain_when_there_is_nothing_to_wait_for(void **state) {
    struct world *world = *state;
    tram_runtime_options options = {.workers = 2, .loop = {.allocator = world->options.allocator}};
    struct house house = open_house(&options, &client_ops);
    assert_int_equal(tram_runtime_server_drain(house.server, 0), 0);
    assert_int_equal(tram_runtime_server_close(house.server), 0);
    assert_int_equal(tram_runtime_server_drain(house.server, TRAM_FOREVER), 0);
    close_house(&house);

    house = open_and_start(world, 2, &client_ops);
    assert_int_equal(tram_runtime_stop(house.runtime), 0);
    assert_int_equal(tram_runtime_server_drain(house.server, TRAM_FOREVER), 0);
    assert_int_equal(tram_runtime_join(house.runtime), 0);
    assert_int_equal(tram_runtime_server_drain(house.server, TRAM_FOREVER), 0);
    assert_int_equal(tram_runtime_server_close_clients(house.server), 0);
    close_house(&house);

    house = open_and_start(world, 2, NULL);
    int fds[] = {tcp_connect(house.port), tcp_connect(house.port)};
    assert_int_equal(tram_runtime_server_close(house.server), 0);
    assert_int_equal(tram_runtime_server_drain(house.server, TRAM_FOREVER), 0);
    close_all(fds, 2);
    close_house(&house);
}

/* Where a worker waits until it is let go. */
struct gate {
    pthread_mutex_t mutex;
    _Atomic unsigned waiting;
};

static int wait_at_gate(tram_loop *loop, void *arg) {
    (void)loop;
    struct gate *gate = arg;
    gate->waiting = 1;
    pthread_mutex_lock(&gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
    return 0;
}

/* Handed to a worker that has closed its shard by then, and lost there: nothing else ends. */
static void test_V_41_the_last_one_could_not_be_made(void **state) {
    struct house house = open_and_start(*state, 2, NULL);
    struct gate gates[2] = {{.mutex = PTHREAD_MUTEX_INITIALIZER}, {.mutex = PTHREAD_MUTEX_INITIALIZER}};
    for (unsigned i = 0; i < 2; i++) {
        pthread_mutex_lock(&gates[i].mutex);
        assert_int_equal(
            tram_loop_call_soon_threadsafe(tram_runtime_loop(house.runtime, i), wait_at_gate, &gates[i], NULL), 0);
        await(&gates[i].waiting, 1);
    }
    int fds[4];
    for (size_t i = 0; i < 4; i++)
        assert_true((fds[i] = tcp_connect(house.port)) >= 0);
    /* The first one collects them in its next tick, and waits again before it accepts. */
    struct gate again = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    pthread_mutex_lock(&again.mutex);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(house.runtime, 0), wait_at_gate, &again, NULL),
                     0);
    pthread_mutex_unlock(&gates[0].mutex);
    await(&again.waiting, 1);
    assert_int_equal(tram_runtime_server_close(house.server), 0);
    pthread_t thread;
    void *left;
    assert_int_equal(pthread_create(&thread, NULL, drain_in_thread, &house), 0);
    pthread_mutex_unlock(&again.mutex); /* it accepts, and hands over, before it hears of the close */
    tram_stats stats = {0};
    for (int i = 0; !stats.handed_over; i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
        assert_int_equal(tram_runtime_stats(house.runtime, 0, &stats), 0);
    }
    pthread_mutex_unlock(&gates[1].mutex);
    pthread_join(thread, &left);
    assert_int_equal((intptr_t)left, 0);
    close_all(fds, 4);
    close_house(&house);
}

/* ---- Who is there ---- */

struct seen {
    struct world *world;
    unsigned count;
    char text[4][200];
};

static void see(const tram_client *client, void *arg) {
    struct seen *seen = arg;
    assert_true(seen->count < 4);
    assert_ptr_equal(tram_transport_get_loop(client->transport), seen->world->loop);
    tram_client_text(client, seen->text[seen->count++], sizeof seen->text[0]);
}

static void abort_it(const tram_client *client, void *arg) {
    (void)arg;
    tram_transport_abort(client->transport);
}

static void expect(const struct seen *seen, int fd, const char *format, size_t unsent) {
    char expected[200], what[100];
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &size), 0);
    snprintf(what, sizeof what, "%s, %zu bytes unsent", format, unsent);
    snprintf(expected, sizeof expected, "127.0.0.1:%u (%s)", ntohs(name.sin_port), what);
    for (unsigned i = 0; i < seen->count; i++)
        if (strcmp(seen->text[i], expected) == 0)
            return;
    fail_msg("not there: %s", expected);
}

static void test_V_43_who_is_connected_to_a_loop(void **state) {
    struct world *world = *state;
    uint16_t port;
    tram_server *server = loop_server(world, recorder_factory, world, &port),
                *other = loop_server(world, recorder_factory, world, &port);
    tram_socket_address address;
    struct sockaddr_in inet;
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    int fds[4];
    tram_transport *transports[3];
    for (size_t i = 0; i < 3; i++) {
        fds[i] = tcp_connect(ntohs(inet.sin_port));
        run_until_traced(world, "made");
        transports[i] = world_last_recorder(world)->base.transport;
        world_last_recorder(world)->eof_returns = 1;
        world->trace[0] = '\0';
    }
    fds[3] = tcp_connect(port); /* of another server */
    run_until_traced(world, "made");
    shutdown(fds[1], SHUT_WR);
    run_until_traced(world, "eof");
    fill(transports[2], 100000);
    tram_transport_close(transports[2]);
    struct seen seen = {.world = world};
    assert_int_equal(tram_server_each_client(server, see, &seen), 0);
    assert_int_equal(seen.count, 3);
    expect(&seen, fds[0], "open", 0);
    expect(&seen, fds[1], "half closed", 0);
    expect(&seen, fds[2], "closing", tram_transport_get_write_buffer_size(transports[2]));
    assert_int_equal(tram_server_each_client(server, abort_it, NULL), 0);
    assert_int_equal(tram_server_close(server), 0);
    assert_int_equal(left_of(world, drain(server, TRAM_FOREVER)), 0);
    assert_int_equal(tram_server_connection_count(other), 1);
    close_all(fds, 4);
    tram_server_release(server);
    assert_int_equal(tram_server_close(other), 0);
    assert_int_equal(left_of(world, drain(other, TRAM_FOREVER)), 0);
    tram_server_release(other);
}

struct census {
    tram_runtime *runtime;
    _Atomic unsigned of_worker[3];
};

static void count_in(const tram_client *client, void *arg) {
    struct census *census = arg;
    for (unsigned i = 0; i < 3; i++)
        census->of_worker[i] += (unsigned)(tram_transport_get_loop(client->transport) == tram_loop_running() &&
                                           tram_loop_running() == tram_runtime_loop(census->runtime, i));
}

static void test_V_43_who_is_connected_to_all_workers(void **state) {
    struct world *world = *state;
    tram_runtime_options options = {.workers = 3, .loop = {.allocator = world->options.allocator}};
    struct house house = open_house(&options, &client_ops);
    struct census census = {.runtime = house.runtime};
    assert_int_equal(tram_runtime_server_each_client(house.server, count_in, &census), 0);
    assert_int_equal(tram_runtime_start(house.runtime), 0);
    int fds[12];
    visit(&house, fds, 12);
    assert_int_equal(tram_runtime_server_each_client(house.server, count_in, &census), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(census.of_worker[i], 4);
    close_all(fds, 12);
    tram_runtime_stop(house.runtime);
    assert_int_equal(tram_runtime_join(house.runtime), 0);
    assert_int_equal(tram_runtime_server_each_client(house.server, count_in, &census), 0);
    close_house(&house);
}

static _Atomic bool goes_on;

static int stand_still(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    while (!goes_on)
        poll(NULL, 0, 1);
    return 0;
}

static int nothing(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return 0;
}

/* One worker stands still, and what is posted to it uses up all that there is for posts. */
static void use_up_posts(tram_loop *loop) {
    int status;
    goes_on = false;
    assert_int_equal(tram_loop_call_soon_threadsafe(loop, stand_still, NULL, NULL), 0);
    memory_fail_others(1, UINT64_MAX);
    while ((status = tram_loop_call_soon_threadsafe(loop, nothing, NULL, NULL)) == 0) {
    }
    assert_int_equal(status, -ENOMEM);
}

/* It is not waited for, and the others are asked. */
static void test_V_43_X_1_a_worker_that_cannot_be_asked(void **state) {
    struct world *world = *state;
    tram_runtime_options options = {.workers = 3, .loop = {.allocator = world->options.allocator}};
    struct house house = open_house(&options, &client_ops);
    struct census census = {.runtime = house.runtime};
    assert_int_equal(tram_runtime_start(house.runtime), 0);
    int fds[6];
    visit(&house, fds, 6);
    use_up_posts(tram_runtime_loop(house.runtime, 0));
    memory_fail_others(1, 1); /* the first question is that for the first worker */
    int status = tram_runtime_server_each_client(house.server, count_in, &census);
    uint64_t failed = memory_failed();
    memory_fail_others(0, 0);
    goes_on = true;
    assert_int_equal(failed, 1);
    assert_int_equal(status, -ENOMEM);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(census.of_worker[i], i ? 2 : 0);
    close_all(fds, 6);
    tram_runtime_stop(house.runtime);
    assert_int_equal(tram_runtime_join(house.runtime), 0);
    close_house(&house);
}

static void test_V_43_the_log_names_who_was_aborted(void **state) {
    struct world *world = *state;
    static const unsigned counts[] = {1, 4, 6}; /* four are named */
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        unsigned clients = counts[i];
        tram_runtime_options options = {.workers = 1, .loop = world->options, .grace_ns = TRAM_NOW};
        world->log[0] = '\0';
        struct house house = open_house(&options, &flood_ops);
        assert_int_equal(tram_runtime_start(house.runtime), 0);
        int fds[6];
        visit(&house, fds, clients);
        tram_runtime_stop(house.runtime);
        assert_int_equal(tram_runtime_join(house.runtime), clients);
        char expected[100];
        struct sockaddr_in name;
        socklen_t size = sizeof name;
        assert_int_equal(getsockname(fds[0], (struct sockaddr *)&name, &size), 0);
        snprintf(expected, sizeof expected, "%u connections are aborted: 127.0.0.1:", clients);
        assert_non_null(strstr(world->log, expected));
        snprintf(expected, sizeof expected, "127.0.0.1:%u (closing, ", ntohs(name.sin_port));
        assert_non_null(strstr(world->log, expected));
        assert_true(!strstr(world->log, " more") == (clients <= 4));
        assert_true(!strstr(world->log, " and 2 more") == (clients <= 4));
        close_all(fds, clients);
        close_house(&house);
    }
}

/* ---- What a close will cost ---- */

static _Atomic unsigned warnings;

static void count_warning(void *arg, tram_log_level level, const char *line) {
    (void)arg;
    warnings += (unsigned)(level == TRAM_LOG_WARNING && strstr(line, "tcp_migrate_req") != NULL);
}

static unsigned warnings_of(struct world *world, bool reuse_port, tram_shard shard, bool *ret_migrates) {
    tram_runtime_options options = {.workers = 3,
                                    .loop = {.allocator = world->options.allocator, .log = count_warning}};
    tram_server_options server_options = {.shard = shard, .reuse_port = reuse_port};
    tram_sharding info;
    tram_runtime *runtime;
    tram_runtime_server *server;
    warnings = 0;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_create_server(runtime, factory, (void *)(uintptr_t)&client_ops, "127.0.0.1", "0",
                                                &server_options, &server, NULL),
                     0);
    assert_int_equal(tram_runtime_server_sharding(server, &info), 0);
    *ret_migrates = info.migrates;
    assert_int_equal(tram_runtime_start(runtime), 0);
    tram_runtime_free(runtime);
    return warnings;
}

static void test_V_44_one_warning_where_handshakes_do_not_move(void **state) {
    bool migrates;
    unsigned count = warnings_of(*state, true, TRAM_SHARD_REUSEPORT, &migrates);
    assert_int_equal(count, migrates ? 0 : 1);
    /* Where no other process can listen on, nobody is to blame, and newcomers are not greeted with it. */
    assert_int_equal(warnings_of(*state, false, TRAM_SHARD_REUSEPORT, &migrates), 0);
    assert_int_equal(warnings_of(*state, true, TRAM_SHARD_SHARED, &migrates), 0);
    assert_int_equal(warnings_of(*state, true, TRAM_SHARD_HANDOFF, &migrates), 0);
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_V_40_clients_of_all_workers),
        CASE(test_V_40_what_is_queued_is_sent_or_dropped),
        CASE(test_V_42_unread_bytes_are_no_reset),
        CASE(test_V_41_drain_of_a_loop_has_a_deadline),
        CASE(test_V_41_the_log_function_may_cancel_a_drain),
        CASE(test_V_41_V_17_a_factory_may_cancel_the_drain_that_calls_it),
        CASE(test_V_41_drain_ends_with_its_loop),
        CASE(test_V_41_drain_of_all_workers),
        CASE(test_V_41_drain_counts_what_it_resets_before_it_is_gone),
        CASE(test_V_41_drain_when_there_is_nothing_to_wait_for),
        CASE(test_V_41_the_last_one_could_not_be_made),
        CASE(test_V_43_who_is_connected_to_a_loop),
        CASE(test_V_43_who_is_connected_to_all_workers),
        CASE(test_V_43_X_1_a_worker_that_cannot_be_asked),
        CASE(test_V_43_the_log_names_who_was_aborted),
        CASE(test_V_44_one_warning_where_handshakes_do_not_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
