/* Streams of connections: opened, served, drained, ended. */
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "public_calls.h"
#include "support/memory.h"
#include "support/stream.h"
#include "support/tasks.h"

static struct world *world;

static int faults_setup(void **state) {
    int status = world_setup_faults_debug(state);
    world = tasks_world = *state;
    return status;
}

static int plain_setup(void **state) {
    int status = world_setup(state);
    world = tasks_world = *state;
    return status;
}

static int debug_setup(void **state) {
    int status = world_setup_debug(state);
    world = tasks_world = *state;
    return status;
}

#define STREAM_TEST(name) cmocka_unit_test_setup_teardown(name, faults_setup, world_teardown)
#define PLAIN_TEST(name)  cmocka_unit_test_setup_teardown(name, plain_setup, world_teardown)
#define DEBUG_TEST(name)  cmocka_unit_test_setup_teardown(name, debug_setup, world_teardown)

/* ---- A stream over a socket, of which the test has the other end ---- */

struct end {
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    int peer;
};

static void end_open(struct end *end, size_t limit) {
    tram_protocol *protocol;
    tram_transport *transport;
    int fds[2];
    unix_pair(fds);
    assert_int_equal(tram_stream_new(world->loop, limit, &protocol, &end->reader, &end->writer), 0);
    assert_null(tram_stream_writer_transport(end->writer));
    assert_int_equal(tram_stream_writer_write(end->writer, "a", 1), TRAM_ESTATE);
    assert_int_equal(transport_try_new(world, fds[0], protocol, NULL, &transport), 0);
    end->peer = fds[1];
    run_to_rest(world);
    assert_ptr_equal(tram_stream_writer_transport(end->writer), transport);
}

static void end_close(struct end *end) {
    if (end->peer >= 0)
        close(end->peer);
    tram_stream_writer_close(end->writer);
    tram_stream_writer_release(end->writer);
    run_to_rest(world);
}

static int drain_task(void *arg) {
    const struct end *end = arg;
    int status = tram_stream_writer_drain(end->writer);
    trace(world, "drained:%s", status_name(status));
    return status;
}

static int closed_task(void *arg) {
    const struct end *end = arg;
    int status = tram_stream_writer_wait_closed(end->writer);
    trace(world, "closed:%s", status_name(status));
    return status;
}

static int exactly_task(void *arg) {
    const struct end *end = arg;
    char bytes[16];
    size_t partial;
    int status = tram_stream_reader_readexactly(end->reader, bytes, 10, &partial);
    trace(world, "read:%s:%zu", status_name(status), partial);
    return status;
}

/* More than the high-water mark is queued. */
static void stuff(struct end *end) {
    static char bytes[200000];
    faults.send_budget = 0;
    assert_int_equal(tram_stream_writer_write(end->writer, bytes, sizeof bytes), 0);
}

static void unstuff(struct end *end) {
    struct stream peer = {.world = world, .peer = end->peer};
    faults.send_budget = SIZE_MAX;
    for (int i = 0; i < 50; i++) {
        drain_peer(&peer);
        run_ticks(world, 1);
    }
}

static void test_K_24_the_writer_is_the_transport(void **state) {
    (void)state;
    struct end end;
    char bytes[8];
    end_open(&end, 0);
    const struct iovec pieces[] = {{"b", 1}, {"c", 1}};
    assert_int_equal(tram_stream_writer_write(end.writer, "a", 1), 0);
    assert_int_equal(tram_stream_writer_writelines(end.writer, pieces, 2), 0);
    receive_exactly(world, end.peer, bytes, 3);
    assert_memory_equal(bytes, "abc", 3);
    assert_non_null(tram_stream_writer_get_extra_info(end.writer, "socket", NULL));
    assert_ptr_equal(tram_stream_writer_get_extra_info(end.writer, "weather", &end), &end);
    assert_true(tram_stream_writer_can_write_eof(end.writer));
    assert_int_equal(tram_stream_writer_write_eof(end.writer), 0);
    assert_int_equal(tram_stream_writer_write(end.writer, "a", 1), TRAM_ESTATE);
    assert_true(receive_eof(world, end.peer));
    assert_false(tram_stream_writer_is_closing(end.writer));
    assert_int_equal(tram_stream_writer_close(end.writer), 0);
    assert_true(tram_stream_writer_is_closing(end.writer));
    run_to_rest(world);
    assert_true(tram_stream_writer_is_closing(end.writer));
    end_close(&end);
}

static void test_K_4_K_29_half_open_and_closed(void **state) {
    (void)state;
    struct end end;
    char bytes[8];
    end_open(&end, 0);
    send_exactly(world, end.peer, "abc", 3);
    shutdown(end.peer, SHUT_WR);
    run_to_rest(world);
    assert_false(tram_stream_writer_is_closing(end.writer));
    assert_false(tram_stream_reader_at_eof(end.reader));
    assert_int_equal(tram_stream_writer_write(end.writer, "late", 4), 0);
    receive_exactly(world, end.peer, bytes, 4);
    assert_int_equal(tram_stream_writer_close(end.writer), 0);
    run_to_rest(world);
    assert_int_equal(tram_stream_reader_read(end.reader, bytes, 8), 3); /* what was buffered, then the end */
    assert_int_equal(tram_stream_reader_read(end.reader, bytes, 8), 0);
    end_close(&end);
}

static void test_K_29_a_close_ends_the_read_that_waits(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    tram_task *task = spawn(exactly_task, &end);
    run_to_rest(world);
    tram_stream_writer_close(end.writer);
    run_task(task);
    assert_trace(world, "read:TRAM_EINCOMPLETE:0");
    end_close(&end);
}

static void test_K_19_K_20_K_21_reading_is_paused_above_twice_the_limit(void **state) {
    (void)state;
    struct end end;
    char bytes[64];
    end_open(&end, 10);
    const tram_transport *transport = tram_stream_writer_transport(end.writer);
    send_exactly(world, end.peer, "01234567890123456789", 20);
    run_to_rest(world);
    assert_true(tram_transport_is_reading(transport)); /* exactly twice */
    send_exactly(world, end.peer, "x", 1);
    run_to_rest(world);
    assert_false(tram_transport_is_reading(transport));
    send_exactly(world, end.peer, "yz", 2);
    assert_int_equal(tram_stream_reader_read(end.reader, bytes, 10), 10);
    assert_false(tram_transport_is_reading(transport));
    assert_int_equal(tram_stream_reader_read(end.reader, bytes, 1), 1);
    assert_true(tram_transport_is_reading(transport));
    send_exactly(world, end.peer, "01234567890123456789", 20);
    run_to_rest(world);
    assert_false(tram_transport_is_reading(transport));
    tram_task *task = spawn(exactly_task, &end);
    assert_int_equal(run_task(task), 0);
    assert_trace(world, "read:ok:10");
    assert_int_equal(tram_stream_reader_readexactly(end.reader, bytes, 22, NULL), 0);
    assert_memory_equal(bytes, "yz01234567890123456789", 22);
    end_close(&end);
}

static int read_much(void *arg) {
    const struct end *end = arg;
    char *bytes = malloc(100000);
    int status = tram_stream_reader_readexactly(end->reader, bytes, 100000, NULL);
    if (!status)
        assert_pattern(bytes, 100000, 0);
    free(bytes);
    return status;
}

static void test_K_20_more_than_twice_the_limit_can_be_read_exactly(void **state) {
    (void)state;
    struct end end;
    static char bytes[100000];
    end_open(&end, 10);
    send_exactly(world, end.peer, bytes, 0);
    pattern(bytes, sizeof bytes, 0);
    send_exactly(world, end.peer, bytes, 100);
    run_to_rest(world);
    assert_false(tram_transport_is_reading(tram_stream_writer_transport(end.writer)));
    tram_task *task = spawn(read_much, &end);
    send_exactly(world, end.peer, bytes + 100, sizeof bytes - 100);
    assert_int_equal(run_task(task), 0);
    end_close(&end);
}

/* ---- drain ---- */

static void test_K_25_K_27_drain_waits_above_the_high_mark(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    assert_int_equal(run_function(drain_task, &end), 0);
    stuff(&end);
    tram_task *task = spawn(drain_task, &end), *other = spawn(drain_task, &end);
    assert_int_equal(tram_stream_writer_drain(end.writer), TRAM_ESTATE); /* no task */
    run_ticks(world, 5);
    assert_trace(world, "drained:ok");
    unstuff(&end);
    assert_int_equal(run_task(task), 0);
    assert_int_equal(run_task(other), 0);
    assert_trace(world, "drained:ok drained:ok");
    assert_int_equal(tram_stream_writer_drain(end.writer), 0); /* there is room: also without a task */
    end_close(&end);
}

static void test_K_25_a_drain_that_is_cancelled(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    stuff(&end);
    tram_task *task = spawn(drain_task, &end), *other = spawn(drain_task, &end);
    run_ticks(world, 5);
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    unstuff(&end);
    assert_int_equal(run_task(other), 0);
    assert_trace(world, "drained:TRAM_ECANCELLED drained:ok");
    end_close(&end);
}

static void test_K_25_K_26_K_28_a_lost_connection_wakes_all(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    stuff(&end);
    tram_task *tasks[4] = {spawn(drain_task, &end), spawn(drain_task, &end), spawn(closed_task, &end),
                           spawn(exactly_task, &end)};
    run_ticks(world, 5);
    tram_transport_abort_with_error(tram_stream_writer_transport(end.writer), &(tram_error){.code = -ETIMEDOUT});
    for (int i = 0; i < 4; i++)
        assert_int_equal(run_task(tasks[i]), -ETIMEDOUT);
    assert_int_equal(run_function(closed_task, &end), -ETIMEDOUT); /* every time */
    assert_int_equal(run_function(drain_task, &end), -ETIMEDOUT);  /* the reader's error first */
    end_close(&end);
}

static void test_K_26_a_clean_end_is_no_error_for_who_drains(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    stuff(&end);
    tram_task *task = spawn(drain_task, &end), *closed = spawn(closed_task, &end);
    run_ticks(world, 5);
    tram_transport_abort(tram_stream_writer_transport(end.writer));
    assert_int_equal(run_task(task), 0);
    assert_int_equal(run_task(closed), 0);
    assert_int_equal(run_function(drain_task, &end), -ECONNRESET); /* afterwards it is one */
    assert_int_equal(run_function(closed_task, &end), 0);
    end_close(&end);
}

static void test_K_25_drain_lets_a_closing_connection_end(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    tram_stream_writer_close(end.writer);
    assert_int_equal(run_function(drain_task, &end), -ECONNRESET);
    end_close(&end);
}

static void test_K_18_a_peer_that_dies_within_readexactly(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    tram_task *task = spawn(exactly_task, &end);
    send_exactly(world, end.peer, "abc", 3);
    run_to_rest(world);
    close(end.peer);
    end.peer = -1;
    assert_int_equal(run_task(task), TRAM_EINCOMPLETE);
    assert_trace(world, "read:TRAM_EINCOMPLETE:3");
    fail_next(&faults.recv, ECONNRESET, 1);
    end_close(&end);
}

static void test_K_18_a_reset_within_readexactly(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    tram_task *task = spawn(exactly_task, &end);
    send_exactly(world, end.peer, "abc", 3);
    run_to_rest(world);
    fail_next(&faults.recv, ECONNRESET, 1);
    send_exactly(world, end.peer, "abc", 3);
    assert_int_equal(run_task(task), -ECONNRESET);
    assert_trace(world, "read:ECONNRESET:0");
    assert_int_equal(tram_stream_reader_exception(end.reader)->code, -ECONNRESET);
    end_close(&end);
}

/* ---- Forgotten ---- */

static void test_K_31_a_forgotten_stream_is_closed(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    unsigned warnings = world->warnings;
    tram_stream_writer_hold(end.writer);
    tram_stream_writer_release(end.writer);
    assert_int_equal(world->warnings, warnings);
    tram_stream_writer_release(end.writer);
    assert_int_equal(world->warnings, warnings + 1);
    assert_non_null(strstr(world->log, "unclosed stream"));
    assert_true(receive_eof(world, end.peer));
    tram_stream_writer_release(NULL);
    close(end.peer);
    run_to_rest(world);
}

static void test_K_31_the_loop_closes_with_open_streams(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    send_exactly(world, end.peer, "half", 4);
    run_to_rest(world);
    tram_task *task = spawn(exactly_task, &end);
    run_to_rest(world);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(world->exceptions, 1);
    tram_task_release(task);
    close(end.peer);
    /* Nobody gives back the hold of the task that will never run: world_teardown() counts memory. */
}

static void test_K_31_a_stream_that_no_transport_took(void **state) {
    (void)state;
    struct end end;
    tram_protocol *protocol;
    assert_int_equal(tram_stream_new(world->loop, 0, &protocol, &end.reader, &end.writer), 0);
    tram_task *task = spawn(closed_task, &end);
    run_to_rest(world);
    protocol->ops->released(protocol);
    assert_int_equal(run_task(task), TRAM_ESTATE);
    assert_true(tram_stream_reader_at_eof(end.reader));
    tram_stream_writer_release(end.writer);
    assert_true(tram_loop_close(world->loop) == 0);
}

/* ---- Servers and clients ---- */

static int echo(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)arg;
    char bytes[4096];
    ptrdiff_t count;
    while ((count = tram_stream_reader_read(reader, bytes, sizeof bytes)) > 0) {
        tram_stream_writer_write(writer, bytes, (size_t)count);
        int status = tram_stream_writer_drain(writer);
        if (status)
            return status;
    }
    tram_stream_writer_close(writer);
    return (int)count;
}

static int fails(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)writer;
    (void)arg;
    tram_bytes line;
    tram_stream_reader_readline(reader, &line);
    return tram_loop_raise(world->loop, TRAM_EUSER, arg, "no such line");
}

static int forgets(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)writer;
    (void)arg;
    tram_bytes line;
    tram_stream_reader_readline(reader, &line);
    return 0;
}

/* Once the line is read: a connection that is closed with bytes unread is reset. */
static int sleeps(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)writer;
    tram_bytes line;
    tram_stream_reader_readline(reader, &line);
    *(tram_task **)arg = tram_task_current();
    return tram_sleep(HOUR);
}

/* Ticks until the connection's end has been heard. */
static int ask(const char *port, const char *text, size_t answer) {
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    char bytes[64];
    size_t partial;
    int status = tram_open_connection("127.0.0.1", port, 0, NULL, &reader, &writer);
    if (status)
        return status;
    assert_int_equal(tram_stream_writer_write(writer, text, strlen(text)), 0);
    assert_int_equal(tram_stream_writer_drain(writer), 0);
    status = tram_stream_reader_readexactly(reader, bytes, answer, &partial);
    trace(world, "%s:%.*s", status_name(status), (int)partial, bytes);
    tram_stream_writer_close(writer);
    assert_int_equal(tram_stream_writer_wait_closed(writer), 0);
    tram_stream_writer_release(writer);
    return 0;
}

struct scene {
    tram_stream_service service;
    const char *ask;
    size_t answer;
    tram_discard discard;
};

static void port_of(tram_server *server, char port[8]) {
    tram_socket_address address;
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    snprintf(port, 8, "%d", tram_socket_address_port(&address));
}

static int play(void *arg) {
    const struct scene *scene = arg;
    tram_server *server;
    tram_future *closed;
    char port[8];
    tram_server_options options = {.discard = scene->discard};
    int status = tram_start_server(&scene->service, "127.0.0.1", NULL, &options, &server);
    if (status)
        return status;
    port_of(server, port);
    status = ask(port, scene->ask, scene->answer);
    assert_int_equal(tram_server_close(server), 0);
    assert_int_equal(tram_server_wait_closed(server, &closed), 0);
    assert_int_equal(tram_await(closed, NULL), 0);
    tram_future_release(closed);
    tram_server_release(server);
    return status;
}

static void count_discard(void *arg) {
    ++*(int *)arg;
}

static void test_K_1_K_2_a_server_and_a_client(void **state) {
    (void)state;
    int discarded = 0;
    struct scene scene = {
        .service = {.handler = echo, .arg = &discarded}, .ask = "hello", .answer = 5, .discard = count_discard};
    assert_int_equal(run_function(play, &scene), 0);
    assert_trace(world, "ok:hello");
    run_to_rest(world);
    assert_int_equal(discarded, 1);
    assert_int_equal(world->exceptions, 0);
}

static void test_K_2_a_failing_handler_is_reported_and_its_connection_closed(void **state) {
    (void)state;
    int context;
    struct scene scene = {.service = {.handler = fails, .arg = &context}, .ask = "hello\n", .answer = 5};
    assert_int_equal(run_function(play, &scene), 0);
    assert_trace(world, "TRAM_EINCOMPLETE:");
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, TRAM_EUSER);
    assert_string_equal(world->exception, "a stream handler failed");
    assert_ptr_equal(world->exception_user, &context);
    assert_non_null(world->exception_transport);
}

static void test_K_31_a_handler_that_forgets_its_stream(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = forgets}, .ask = "hello\n", .answer = 5};
    assert_int_equal(run_function(play, &scene), 0);
    assert_trace(world, "TRAM_EINCOMPLETE:");
    assert_int_equal(world->exceptions, 0);
    assert_non_null(strstr(world->log, "unclosed stream"));
}

static tram_task *sleeper;

static int cancel_sleeper(void *arg) {
    (void)arg;
    while (!sleeper)
        tram_yield();
    tram_task_cancel(sleeper);
    return 0;
}

static void test_K_2_a_cancelled_handler_has_its_connection_closed(void **state) {
    (void)state;
    sleeper = NULL;
    struct scene scene = {.service = {.handler = sleeps, .arg = &sleeper}, .ask = "hello\n", .answer = 5};
    tram_task *task = spawn(cancel_sleeper, NULL);
    assert_int_equal(run_function(play, &scene), 0);
    assert_int_equal(run_task(task), 0);
    assert_trace(world, "TRAM_EINCOMPLETE:");
    assert_int_equal(world->exceptions, 0);
}

/* ---- A plain callback, which keeps the stream ---- */

static struct end kept;

static int serve_kept(void *arg) {
    (void)arg;
    char bytes[5];
    int status = tram_stream_reader_readexactly(kept.reader, bytes, 5, NULL);
    tram_stream_writer_write(kept.writer, "plain", 5);
    tram_stream_writer_close(kept.writer);
    tram_stream_writer_release(kept.writer);
    return status;
}

static int keeps(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)arg;
    assert_null(tram_task_current());
    kept = (struct end){.reader = reader, .writer = writer};
    return tram_task_spawn(world->loop, serve_kept, NULL, NULL, NULL);
}

static void test_K_2_a_plain_callback_instead_of_a_task(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = keeps, .plain = true}, .ask = "hello", .answer = 5};
    assert_int_equal(run_function(play, &scene), 0);
    assert_trace(world, "ok:plain");
}

/* Connections as a stream of their own: a queue of writers. */
static int queue_connection(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    assert_ptr_equal(tram_stream_writer_reader(writer), reader);
    return tram_queue_put_nowait(arg, writer);
}

static int serve_from_queue(void *arg) {
    void *item;
    int status;
    while (!(status = tram_queue_get(arg, &item))) {
        char bytes[5];
        kept = (struct end){.reader = tram_stream_writer_reader(item), .writer = item};
        trace(world, "%s", status_name(tram_stream_reader_readexactly(kept.reader, bytes, 5, NULL)));
        tram_stream_writer_write(kept.writer, "plain", 5);
        tram_stream_writer_close(kept.writer);
        tram_stream_writer_release(kept.writer);
    }
    return status;
}

static void test_K_2_connections_are_taken_from_a_queue(void **state) {
    (void)state;
    tram_queue *queue;
    assert_int_equal(tram_queue_new(world->loop, NULL, &queue), 0);
    struct scene scene = {
        .service = {.handler = queue_connection, .arg = queue, .plain = true}, .ask = "hello", .answer = 5};
    tram_task *server = spawn(serve_from_queue, queue);
    assert_int_equal(run_function(play, &scene), 0);
    assert_int_equal(run_function(play, &scene), 0);
    assert_int_equal(tram_queue_shutdown(queue, false, NULL), 0);
    assert_int_equal(run_task(server), -ESHUTDOWN);
    assert_trace(world, "ok ok:plain ok ok:plain");
    tram_queue_free(queue);
}

/* ---- Unix, pairs, sharded ---- */

static int play_unix(void *arg) {
    const struct scene *scene = arg;
    static const char path[] = "\0tram-test-streams";
    tram_server *server;
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    char name[64], bytes[8];
    size_t size = (size_t)snprintf(name + 1, sizeof name - 1, "%s-%d", path + 1, (int)getpid()) + 1;
    name[0] = '\0';
    assert_int_equal(tram_open_unix_connection(name, size, 0, NULL, &reader, &writer), -ECONNREFUSED);
    assert_int_equal(tram_start_unix_server(&scene->service, name, size, NULL, &server), 0);
    assert_int_equal(tram_open_unix_connection(name, size, 0, NULL, &reader, &writer), 0);
    tram_stream_writer_write(writer, "unix", 4);
    assert_int_equal(tram_stream_reader_readexactly(reader, bytes, 4, NULL), 0);
    assert_memory_equal(bytes, "unix", 4);
    tram_stream_writer_close(writer);
    assert_int_equal(tram_stream_writer_wait_closed(writer), 0);
    tram_stream_writer_release(writer);
    tram_server_close(server);
    tram_server_release(server);
    return 0;
}

static void test_K_1_unix_sockets(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = echo}};
    assert_int_equal(run_function(play_unix, &scene), 0);
    run_to_rest(world);
}

static int play_pair(void *arg) {
    const struct scene *scene = arg;
    tram_protocol *server, *client;
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    char bytes[8];
    assert_int_equal(tram_stream_factory(world->loop, (void *)(uintptr_t)&scene->service, &server), 0);
    assert_int_equal(tram_stream_new(world->loop, 0, &client, &reader, &writer), 0);
    assert_int_equal(tram_loop_create_pair(world->loop, server, client, NULL, NULL), 0);
    tram_yield();
    assert_int_equal(tram_stream_writer_write(writer, "pair", 4), 0);
    assert_int_equal(tram_stream_reader_readexactly(reader, bytes, 4, NULL), 0);
    assert_memory_equal(bytes, "pair", 4);
    tram_stream_writer_close(writer);
    assert_int_equal(tram_stream_writer_wait_closed(writer), 0);
    tram_stream_writer_release(writer);
    return 0;
}

static void test_K_3_M_11_a_pair_without_descriptors(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = echo}};
    assert_int_equal(run_function(play_pair, &scene), 0);
    run_to_rest(world);
}

/* What was prepared for a server that is none goes, and what the caller gave stays his. rules: X-1 */
static void test_K_1_a_server_of_a_runtime_that_cannot_be(void **state) {
    (void)state;
    char name[] = "/tram-test-no-such-folder/name";
    tram_runtime *runtime;
    tram_runtime_server *server = NULL;
    tram_runtime_options options = {.workers = 1};
    tram_stream_service service = {.handler = echo};
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    memory_fail(1, 1);
    assert_int_equal(tram_runtime_start_server(runtime, &service, "127.0.0.1", NULL, NULL, &server, NULL), -ENOMEM);
    memory_fail(1, 1);
    assert_int_equal(tram_runtime_start_unix_server(runtime, &service, name, sizeof name - 1, NULL, &server, NULL),
                     -ENOMEM);
    memory_fail(0, 0);
    assert_int_equal(tram_runtime_start_server(runtime, &service, "127.0.0.1", "no port", NULL, &server, NULL),
                     TRAM_ERESOLVE);
    assert_int_equal(tram_runtime_start_unix_server(runtime, &service, name, sizeof name - 1, NULL, &server, NULL),
                     -ENOENT);
    assert_null(server);
    tram_runtime_free(runtime);
    tram_server *own = NULL;
    assert_int_equal(tram_start_server(&service, "127.0.0.1", NULL, NULL, &own), TRAM_ESTATE); /* no task */
    assert_int_equal(tram_start_unix_server(&service, name, sizeof name - 1, NULL, &own), TRAM_ESTATE);
}

/* In a task, with options that have no sense: what was prepared goes. */
static int start_wrong_servers(void *arg) {
    (void)arg;
    tram_stream_service service = {.handler = echo}, wrong = {.handler = echo, .reserved = {1}};
    tram_server *server = NULL;
    const tram_server_options backlog = {.backlog = -1};
    const tram_unix_server_options unix_backlog = {.backlog = -1};
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    const tram_connection_options discards = {.discard = count_discard};
    const tram_unix_connection_options unix_discards = {.discard = count_discard};
    assert_wrong(tram_start_server(&wrong, "127.0.0.1", NULL, NULL, &server), "reserved");
    assert_wrong(tram_start_unix_server(&wrong, "/x", 2, NULL, &server), "reserved");
    assert_wrong(tram_start_server(&service, "127.0.0.1", NULL, &backlog, &server), "backlog");
    assert_wrong(tram_start_unix_server(&service, "/x", 2, &unix_backlog, &server), "backlog");
    assert_wrong(tram_open_connection("127.0.0.1", "1", 0, &discards, &reader, &writer), "discard");
    assert_wrong(tram_open_unix_connection("/x", 2, 0, &unix_discards, &reader, &writer), "discard");
    assert_null(server);
    return 0;
}

static void test_K_1_servers_with_wrong_options(void **state) {
    (void)state;
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    assert_int_equal(run_function(start_wrong_servers, NULL), 0);
    assert_int_equal(tram_open_connection("127.0.0.1", "1", 0, NULL, &reader, &writer), TRAM_ESTATE);
    assert_int_equal(tram_open_unix_connection("/x", 2, 0, NULL, &reader, &writer), TRAM_ESTATE);
}

static int ask_many(void *arg) {
    tram_runtime_server *server = arg;
    tram_socket_address address;
    char port[8];
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    snprintf(port, sizeof port, "%d", tram_socket_address_port(&address));
    for (int i = 0; i < 20; i++)
        assert_int_equal(ask(port, "shard", 5), 0);
    return 0;
}

static void test_K_1_sharded_over_a_runtime(void **state) {
    (void)state;
    tram_runtime *runtime;
    tram_runtime_server *server, *local;
    int discarded = 0;
    char name[64] = "";
    size_t size = (size_t)snprintf(name + 1, sizeof name - 1, "tram-test-sharded-%d", (int)getpid()) + 1;
    tram_runtime_options options = {.workers = 2};
    tram_stream_service service = {.handler = echo, .arg = &discarded};
    tram_server_options server_options = {.discard = count_discard};
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start_server(runtime, &service, "127.0.0.1", NULL, &server_options, &server, NULL),
                     0);
    assert_int_equal(tram_runtime_start_unix_server(runtime, &service, name, size, NULL, &local, NULL), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(run_function(ask_many, server), 0);
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 0);
    tram_runtime_free(runtime);
    assert_int_equal(discarded, 1);
}

/* ---- Graceful ends ---- */

/* A request is a letter, of which the test hears by the pipe, and a line. */
static int lines(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    char letter;
    tram_bytes line;
    while (tram_stream_reader_read(reader, &letter, 1) == 1) {
        assert_int_equal(write(*(int *)arg, &letter, 1), 1);
        if (tram_stream_reader_readline(reader, &line))
            return TRAM_ESTATE;
        tram_stream_writer_write(writer, line.data, line.size);
    }
    tram_stream_writer_close(writer);
    return 0;
}

static void test_G_2_handlers_finish_their_request(void **state) {
    (void)state;
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    char bytes[8];
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    tram_runtime_options options = {.workers = 2};
    tram_stream_service service = {.handler = lines, .arg = &pipes[1]};
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start_server(runtime, &service, "127.0.0.1", NULL, NULL, &server, NULL), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    uint16_t port = (uint16_t)tram_socket_address_port(&address);
    int idle = tcp_connect(port), busy = tcp_connect(port);
    send_exactly(NULL, idle, "aone\n", 5);
    receive_exactly(NULL, idle, bytes, 4);
    assert_int_equal(read(pipes[0], bytes, 1), 1);
    send_exactly(NULL, busy, "b", 1);
    assert_int_equal(read(pipes[0], bytes, 1), 1);
    tram_runtime_stop(runtime);
    assert_int_equal(recv(idle, bytes, 1, 0), 0); /* it waited for a new request */
    send_exactly(NULL, busy, "two\n", 4);
    receive_exactly(NULL, busy, bytes, 4);
    assert_memory_equal(bytes, "two\n", 4);
    assert_int_equal(recv(busy, bytes, 1, 0), 0);
    close(idle);
    close(busy);
    assert_int_equal(tram_runtime_join(runtime), 0); /* nobody had to be aborted */
    tram_runtime_free(runtime);
    close(pipes[0]);
    close(pipes[1]);
}

/* A request is a line; other tasks of the loop run between reading it and answering. */
static int count_lines(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    tram_bytes line;
    int status;
    while (!(status = tram_stream_reader_readline(reader, &line)) && line.size) {
        atomic_fetch_add((_Atomic unsigned *)arg, 1);
        if (tram_yield())
            return TRAM_ESTATE;
        tram_stream_writer_write(writer, line.data, line.size);
    }
    tram_stream_writer_close(writer);
    return status;
}

struct crowd {
    char port[8];
    unsigned connected, answers, present;
};

/* Asks until the server has ended, one line at a time, so that an answer is never behind a reset. */
static int ask_until_the_end(void *arg) {
    struct crowd *crowd = arg;
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    tram_bytes line;
    int status = tram_open_connection("127.0.0.1", crowd->port, 0, NULL, &reader, &writer);
    assert_int_equal(status, 0);
    crowd->connected++;
    for (;;) {
        tram_stream_writer_write(writer, "request\n", 8);
        status = tram_stream_reader_readline(reader, &line);
        if (status || line.size < 8)
            break;
        crowd->answers++;
    }
    assert_true(!status || status == -ECONNRESET || status == -EPIPE);
    tram_stream_writer_close(writer);
    tram_stream_writer_release(writer);
    crowd->present--;
    return 0;
}

static bool crowd_is_busy(void *arg) {
    const struct crowd *crowd = arg;
    return crowd->connected == 40 && crowd->answers > 500;
}

static bool crowd_is_gone(void *arg) {
    return !((struct crowd *)arg)->present;
}

static void test_G_2_under_load_no_request_that_was_read_is_lost(void **state) {
    (void)state;
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    struct crowd crowd = {.present = 40};
    _Atomic unsigned requests = 0;
    tram_runtime_options options = {.workers = 2, .handle_signals = true};
    tram_stream_service service = {.handler = count_lines, .arg = (void *)&requests};
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start_server(runtime, &service, "127.0.0.1", NULL, NULL, &server, NULL), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    snprintf(crowd.port, sizeof crowd.port, "%d", tram_socket_address_port(&address));
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(tram_task_spawn(world->loop, ask_until_the_end, &crowd, NULL, NULL), 0);
    run_until_true(world, crowd_is_busy, &crowd);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    run_until_true(world, crowd_is_gone, &crowd);
    assert_int_equal(tram_runtime_join(runtime), 0); /* nobody had to be aborted */
    tram_runtime_free(runtime);
    run_to_rest(world);
    assert_int_equal(crowd.answers, requests);
    assert_int_equal(world->exceptions, 0);
}

/* ---- What goes wrong on the way ---- */

static int open_refused(void *arg) {
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    return tram_open_connection("127.0.0.1", arg, 0, NULL, &reader, &writer);
}

static int start_wrongly(void *arg) {
    (void)arg;
    tram_server *server;
    tram_stream_service nothing = {0}, service = {.handler = echo};
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    tram_connection_options options = {.discard = count_discard};
    assert_int_equal(tram_start_server(NULL, NULL, NULL, NULL, &server), TRAM_EVALUE);
    assert_int_equal(tram_start_server(&nothing, NULL, NULL, NULL, &server), TRAM_EVALUE);
    service.reserved[0] = 1;
    assert_int_equal(tram_start_server(&service, NULL, NULL, NULL, &server), TRAM_EVALUE);
    service.reserved[0] = 0;
    assert_int_equal(tram_start_server(&service, NULL, "no port", NULL, &server), TRAM_ERESOLVE);
    assert_int_equal(tram_open_connection("127.0.0.1", "1", 0, &options, &reader, &writer), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "discard");
    assert_int_equal(tram_open_connection(NULL, NULL, 0, NULL, &reader, &writer), TRAM_EVALUE);
    return 0;
}

static void test_K_1_what_fails_leaves_nothing(void **state) {
    (void)state;
    int held;
    char port[8];
    snprintf(port, sizeof port, "%d", hold_port(&held));
    tram_task *task = spawn(open_refused, port);
    tram_task_hold(task);
    assert_int_equal(run_task(task), -ECONNREFUSED);
    assert_non_null(tram_future_error(tram_task_future(task))->detail); /* which address */
    tram_task_release(task);
    close(held);
    assert_int_equal(run_function(start_wrongly, NULL), 0);
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    tram_server *server;
    tram_stream_service service = {.handler = echo};
    assert_int_equal(tram_open_connection("127.0.0.1", port, 0, NULL, &reader, &writer), TRAM_ESTATE);
    assert_int_equal(tram_start_server(&service, NULL, NULL, NULL, &server), TRAM_ESTATE);
}

/* Nobody listens before the second try. */
static int open_late(void *arg) {
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    const tram_connection_options options = {.retry = {.limit = TRAM_RETRY_FOREVER, .delay_ns = 1}};
    int status = tram_open_connection("127.0.0.1", arg, 0, &options, &reader, &writer);
    if (!status)
        tram_stream_writer_release(writer);
    return status;
}

/* rules: C-18, K-1 */
static void test_C_18_a_task_waits_for_a_server(void **state) {
    (void)state;
    int held, on = 1;
    char port[8];
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(hold_port(&held)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    snprintf(port, sizeof port, "%d", ntohs(address.sin_port));
    tram_task *cancelled = tram_task_hold(spawn(open_late, port));
    tram_task *task = spawn(open_late, port);
    while (!world->warnings)
        run_ticks(world, 1);
    tram_task_cancel(cancelled);
    assert_int_equal(run_task(cancelled), TRAM_ECANCELLED);
    tram_task_release(cancelled);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 5), 0);
    assert_int_equal(run_task(task), 0);
    close(listener);
    close(held);
    run_to_rest(world);
}

static int open_cancelled(void *arg) {
    (void)arg;
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    uint16_t port;
    char text[8];
    int listener = tcp_listener(1, &port);
    snprintf(text, sizeof text, "%d", port);
    int status = tram_open_connection("127.0.0.1", text, 0, NULL, &reader, &writer);
    close(listener);
    if (!status)
        tram_stream_writer_release(writer);
    return status;
}

/* After any number of ticks: before the attempt, while it is made, when it has succeeded already. */
static void test_K_1_a_task_that_is_cancelled_while_it_connects(void **state) {
    (void)state;
    bool succeeded = false;
    for (int ticks = 0; ticks < 20 && !succeeded; ticks++) {
        tram_task *task = spawn(open_cancelled, NULL);
        run_ticks(world, ticks);
        tram_task_cancel(task);
        int status = run_task(task);
        succeeded = !status;
        assert_true(status == 0 || status == TRAM_ECANCELLED);
        run_to_rest(world);
    }
}

static void test_K_2_a_handler_that_finds_no_memory(void **state) {
    (void)state;
    bool succeeded = false;
    for (size_t allocations = 0; allocations < 40 && !succeeded; allocations++) {
        world_reopen(world);
        tram_stream_service service = {.handler = echo};
        int fds[2], status;
        unix_pair(fds);
        tram_future *future;
        world->fail_after = allocations;
        status = tram_loop_connect_accepted_socket(world->loop, tram_stream_factory, &service, fds[0], &future);
        if (!status) {
            run_to_rest(world);
            world->fail_after = SIZE_MAX;
            (void)send(fds[1], "abc", 3, MSG_NOSIGNAL); /* to nobody, perhaps */
            run_to_rest(world);
            char bytes[3];
            ssize_t count = recv(fds[1], bytes, 3, MSG_DONTWAIT);
            succeeded = count == 3;
            assert_true(succeeded || count == 0 || errno == ECONNRESET);
            tram_future_release(future);
        } else {
            world->fail_after = SIZE_MAX;
            close(fds[0]);
        }
        close(fds[1]);
        run_to_rest(world);
    }
    assert_true(succeeded);
}

/* ---- What is refused ---- */

static int open_without_memory(void *arg) {
    (void)arg;
    tram_stream_reader *reader = NULL;
    tram_stream_writer *writer = NULL;
    world->fail_after = 0;
    int plain = tram_open_connection("127.0.0.1", "1", 0, NULL, &reader, &writer);
    int local = tram_open_unix_connection("nowhere", 7, 0, NULL, &reader, &writer);
    world->fail_after = SIZE_MAX;
    assert_int_equal(plain, -ENOMEM);
    assert_int_equal(local, -ENOMEM);
    assert_true(!reader && !writer);
    return 0;
}

static void test_K_1_nothing_is_opened_without_memory(void **state) {
    (void)state;
    assert_int_equal(run_function(open_without_memory, NULL), 0);
}

static void test_K_2_a_service_of_a_later_version(void **state) {
    (void)state;
    tram_stream_service service = {.handler = echo, .reserved = {0, 0, 0, 1}};
    tram_protocol *protocol = NULL;
    assert_wrong(tram_stream_factory(world->loop, &service, &protocol), "reserved");
    service.handler = NULL;
    assert_wrong(tram_stream_factory(world->loop, &service, &protocol), "handler");
    assert_wrong(tram_stream_factory(world->loop, NULL, &protocol), "handler");
    assert_null(protocol);
}

static void test_K_28_who_is_no_task_does_not_wait_for_the_end(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    assert_int_equal(tram_stream_writer_wait_closed(end.writer), TRAM_ESTATE);
    tram_stream_writer_hold(end.writer);
    tram_stream_writer *writer = end.writer;
    end_close(&end);
    assert_int_equal(tram_stream_writer_wait_closed(writer), 0); /* it has ended */
    tram_stream_writer_release(writer);
}

static void *call_from_elsewhere(void *arg) {
    const struct end *end = arg;
    bool refused = all_answer(calls_of_tram_stream_writer, end->writer, TRAM_ESTATE, "");
    tram_stream_writer_release(end->writer);
    return refused ? arg : NULL;
}

static int let_a_stranger_call(tram_loop *loop, void *arg) {
    (void)loop;
    assert_ptr_equal(on_another_thread(call_from_elsewhere, arg), arg);
    return 0;
}

static void test_L_10_L_31_debug_mode_catches_every_call_on_a_writer_of_another_thread(void **state) {
    (void)state;
    struct end end;
    end_open(&end, 0);
    unsigned before = world->exceptions;
    assert_int_equal(tram_loop_call_soon(world->loop, let_a_stranger_call, &end, NULL, NULL), 0);
    run_to_rest(world);
    assert_true(world->exceptions > before + 5);
    assert_false(tram_stream_writer_is_closing(end.writer));
    end_close(&end);
}

static void cancel_handler(const tram_task_info *info, void *arg) {
    if (strcmp(info->name, "stream handler") == 0) {
        assert_int_equal(tram_task_cancel(info->task), 1);
        *(bool *)arg = true;
    }
}

/* Its handler was never called, and nobody else has the stream. */
static void test_K_2_a_handler_that_is_cancelled_before_it_begins(void **state) {
    (void)state;
    tram_stream_service service = {.handler = echo};
    tram_future *future;
    bool cancelled = false;
    int fds[2];
    char byte;
    unix_pair(fds);
    set_blocking(fds[1], false);
    send_exactly(NULL, fds[1], "abc", 3);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, tram_stream_factory, &service, fds[0], &future), 0);
    for (int i = 0; i < 100 && !cancelled; i++) {
        run_ticks(world, 1);
        assert_int_equal(tram_loop_each_task(world->loop, cancel_handler, &cancelled), 0);
    }
    assert_true(cancelled);
    run_to_rest(world);
    ssize_t count = recv(fds[1], &byte, 1, MSG_DONTWAIT);
    assert_true(count == 0 || errno == ECONNRESET); /* no echo, and no connection */
    tram_future_release(future);
    close(fds[1]);
}

static void find_handler(const tram_task_info *info, void *arg) {
    if (strcmp(info->name, "stream handler") == 0)
        *(bool *)arg = true;
}

static void test_K_31_the_loop_closes_before_a_handler_begins(void **state) {
    (void)state;
    tram_stream_service service = {.handler = echo};
    tram_future *future;
    bool found = false;
    int fds[2];
    unix_pair(fds);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, tram_stream_factory, &service, fds[0], &future), 0);
    for (int i = 0; i < 100 && !found; i++) {
        run_ticks(world, 1);
        assert_int_equal(tram_loop_each_task(world->loop, find_handler, &found), 0);
    }
    assert_true(found);
    assert_int_equal(tram_loop_close(world->loop), 0);
    tram_future_release(future);
    close(fds[1]);
}

static int failing_handler(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)reader, (void)writer;
    *(bool *)arg = true;
    return tram_sleep(1000000000);
}

static void test_K_31_the_loop_closes_while_a_handler_has_no_connection_any_more(void **state) {
    (void)state;
    bool began = false;
    tram_stream_service service = {.handler = failing_handler, .arg = &began};
    tram_future *future;
    int fds[2];
    unix_pair(fds);
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, tram_stream_factory, &service, fds[0], &future), 0);
    run_until(world, &began);
    void *transport;
    assert_int_equal(tram_future_result(future, &transport), 0);
    assert_int_equal(tram_transport_abort(transport), 0);
    run_ticks(world, 3);
    assert_int_equal(tram_loop_close(world->loop), 0);
    tram_future_release(future);
    close(fds[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STREAM_TEST(test_K_24_the_writer_is_the_transport),
        STREAM_TEST(test_K_4_K_29_half_open_and_closed),
        STREAM_TEST(test_K_29_a_close_ends_the_read_that_waits),
        STREAM_TEST(test_K_19_K_20_K_21_reading_is_paused_above_twice_the_limit),
        STREAM_TEST(test_K_20_more_than_twice_the_limit_can_be_read_exactly),
        STREAM_TEST(test_K_25_K_27_drain_waits_above_the_high_mark),
        STREAM_TEST(test_K_25_a_drain_that_is_cancelled),
        STREAM_TEST(test_K_25_K_26_K_28_a_lost_connection_wakes_all),
        STREAM_TEST(test_K_26_a_clean_end_is_no_error_for_who_drains),
        STREAM_TEST(test_K_25_drain_lets_a_closing_connection_end),
        STREAM_TEST(test_K_18_a_peer_that_dies_within_readexactly),
        STREAM_TEST(test_K_18_a_reset_within_readexactly),
        STREAM_TEST(test_K_31_a_forgotten_stream_is_closed),
        STREAM_TEST(test_K_31_the_loop_closes_with_open_streams),
        STREAM_TEST(test_K_31_a_stream_that_no_transport_took),
        DEBUG_TEST(test_K_1_K_2_a_server_and_a_client),
        DEBUG_TEST(test_K_2_a_failing_handler_is_reported_and_its_connection_closed),
        DEBUG_TEST(test_K_31_a_handler_that_forgets_its_stream),
        DEBUG_TEST(test_K_2_a_cancelled_handler_has_its_connection_closed),
        DEBUG_TEST(test_K_2_a_plain_callback_instead_of_a_task),
        DEBUG_TEST(test_K_2_connections_are_taken_from_a_queue),
        DEBUG_TEST(test_K_1_unix_sockets),
        DEBUG_TEST(test_K_3_M_11_a_pair_without_descriptors),
        PLAIN_TEST(test_K_1_a_server_of_a_runtime_that_cannot_be),
        PLAIN_TEST(test_K_31_the_loop_closes_before_a_handler_begins),
        PLAIN_TEST(test_K_31_the_loop_closes_while_a_handler_has_no_connection_any_more),
        PLAIN_TEST(test_K_1_servers_with_wrong_options),
        DEBUG_TEST(test_K_1_sharded_over_a_runtime),
        DEBUG_TEST(test_G_2_handlers_finish_their_request),
        DEBUG_TEST(test_G_2_under_load_no_request_that_was_read_is_lost),
        DEBUG_TEST(test_K_1_what_fails_leaves_nothing),
        DEBUG_TEST(test_C_18_a_task_waits_for_a_server),
        DEBUG_TEST(test_K_1_a_task_that_is_cancelled_while_it_connects),
        PLAIN_TEST(test_K_1_nothing_is_opened_without_memory),
        PLAIN_TEST(test_K_2_a_service_of_a_later_version),
        PLAIN_TEST(test_K_28_who_is_no_task_does_not_wait_for_the_end),
        DEBUG_TEST(test_L_10_L_31_debug_mode_catches_every_call_on_a_writer_of_another_thread),
        PLAIN_TEST(test_K_2_a_handler_that_is_cancelled_before_it_begins),
        PLAIN_TEST(test_K_2_a_handler_that_finds_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
