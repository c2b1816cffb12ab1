/* Rules: errors, futures, ownership, threads. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tram/connection.h>
#include <tram/executor.h>
#include <tram/resolver.h>

#include "support/stream.h"

/* ---- X-1 ---- */

static void test_X_1_every_error_has_a_name_and_a_text(void **state) {
    (void)state;
    static const struct {
        int code;
        const char *name;
    } own[] = {
        {TRAM_ESTATE, "TRAM_ESTATE"},
        {TRAM_EVALUE, "TRAM_EVALUE"},
        {TRAM_ETYPE, "TRAM_ETYPE"},
        {TRAM_EUSER, "TRAM_EUSER"},
        {TRAM_ECANCELLED, "TRAM_ECANCELLED"},
        {TRAM_ETIMEOUT, "TRAM_ETIMEOUT"},
        {TRAM_EINCOMPLETE, "TRAM_EINCOMPLETE"},
        {TRAM_ELIMIT, "TRAM_ELIMIT"},
        {TRAM_ENOSENDFILE, "TRAM_ENOSENDFILE"},
        {TRAM_ETLS, "TRAM_ETLS"},
    };
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        assert_true(own[i].code < -4096); /* no errno is there */
        assert_string_equal(tram_error_name(own[i].code), own[i].name);
        assert_string_not_equal(tram_error_text(own[i].code), tram_error_text(-999999));
        for (size_t other = 0; other < i; other++)
            assert_int_not_equal(own[other].code, own[i].code);
    }
    assert_string_equal(tram_error_name(-ECONNRESET), "ECONNRESET");
    assert_string_equal(tram_error_text(-ECONNRESET), "Connection reset by peer");
    assert_string_equal(tram_error_name(-999999), "UNKNOWN");
    assert_non_null(tram_error_text(0));
}

static void test_X_1_errors_of_the_system_are_negative_errnos(void **state) {
    struct world *world = *state;
    tram_future *future;
    char port[8];
    int held;
    snprintf(port, sizeof port, "%u", hold_port(&held));
    assert_int_equal(
        tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", port, NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), -ECONNREFUSED);
    assert_int_equal(tram_future_error(future)->code, -ECONNREFUSED);
    tram_future_release(future);
    close(held);
    assert_int_equal(tram_loop_add_reader(world->loop, -1, trace_callback, NULL), -EBADF);
    assert_int_equal(tram_loop_add_reader(world->loop, 0, NULL, NULL), TRAM_EVALUE);
}

/* ---- X-2, X-3 ---- */

static int done(tram_future *future, void *arg) {
    struct world *world = arg;
    int status = tram_future_result(future, NULL);
    trace(world, "done:%s", status ? tram_error_name(status) : "0");
    return 0;
}

static void test_X_2_a_done_callback_runs_once_from_the_loop(void **state) {
    struct world *world = *state;
    tram_future *future;
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    assert_int_equal(tram_future_add_done_callback(future, done, world), 0);
    assert_int_equal(tram_future_set_result(future, NULL), 0);
    assert_trace(world, ""); /* not inside the call that completes it */
    run_ticks(world, 1);
    assert_trace(world, "done:0");
    /* Known already: still not inside the call. */
    assert_int_equal(tram_future_add_done_callback(future, done, world), 0);
    assert_trace(world, "");
    run_ticks(world, 3);
    assert_trace(world, "done:0");
    tram_future_release(future);
}

static int make_nothing(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    (void)ret_protocol;
    return -EPERM;
}

static int answer_zero(void *arg, void **ret_result) {
    (void)arg;
    *ret_result = NULL;
    return 0;
}

/* Operations whose result is known at once, and others: none completes within its call. */
static void test_X_2_no_operation_completes_inside_its_call(void **state) {
    struct world *world = *state;
    struct sockaddr_in address = {.sin_family = AF_INET};
    for (int way = 0; way < 5; way++) {
        tram_future *future = NULL;
        int fds[2] = {-1, -1}, status = 0;
        const char *expected = "done:0";
        if (way < 2)
            unix_pair(fds);
        switch (way) {
        case 0: /* the factory fails within the call */
            status = tram_loop_connect_accepted_socket(world->loop, make_nothing, NULL, fds[0], &future);
            expected = "done:EPERM";
            break;
        case 1:
            status = tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, fds[0], &future);
            break;
        case 2:
            status = tram_loop_getaddrinfo(world->loop, "127.0.0.1", "80", NULL, &future);
            break;
        case 3:
            status = tram_loop_getnameinfo(world->loop, (struct sockaddr *)&address, sizeof address,
                                           NI_NUMERICHOST | NI_NUMERICSERV, &future);
            break;
        case 4:
            status = tram_loop_run_in_executor(world->loop, NULL, answer_zero, NULL, NULL, &future);
            break;
        }
        assert_int_equal(status, 0);
        assert_int_equal(tram_future_add_done_callback(future, done, world), 0);
        assert_trace(world, "");
        run_until_traced(world, "done:");
        run_ticks(world, 2);
        const char *at = strstr(world->trace, "done:");
        assert_null(strstr(at + 1, "done:")); /* once */
        assert_memory_equal(at, expected, strlen(expected));
        tram_future_release(future);
        world->trace[0] = '\0';
        if (fds[1] >= 0)
            close(fds[1]);
        if (way == 1)
            run_until(world, &world_last_recorder(world)->was_released);
        world->trace[0] = '\0';
    }
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static int wait_at_gate(void *arg, void **ret_result) {
    (void)arg;
    *ret_result = NULL;
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    return 0;
}

static void test_X_3_every_operation_can_be_cancelled(void **state) {
    struct world *world = *state;
    struct sockaddr_in address = {.sin_family = AF_INET};
    uint16_t number;
    int listener = tcp_listener(1, &number);
    char port[8];
    snprintf(port, sizeof port, "%u", number);
    tram_executor *executor;
    assert_int_equal(tram_executor_new(1, NULL, &executor), 0);
    pthread_mutex_lock(&gate);
    for (int way = 0; way < 6; way++) {
        tram_future *future = NULL;
        int fds[2] = {-1, -1}, status = -1;
        if (way == 1)
            unix_pair(fds);
        switch (way) {
        case 0:
            status =
                tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", port, NULL, &future);
            break;
        case 1:
            status = tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, fds[0], &future);
            break;
        case 2:
            status = tram_loop_getaddrinfo(world->loop, "127.0.0.1", "80", NULL, &future);
            break;
        case 3:
            status = tram_loop_getnameinfo(world->loop, (struct sockaddr *)&address, sizeof address,
                                           NI_NUMERICHOST | NI_NUMERICSERV, &future);
            break;
        case 4: /* runs, or waits to: the gate is closed */
            status = tram_loop_run_in_executor(world->loop, executor, wait_at_gate, NULL, NULL, &future);
            break;
        case 5:
            status = tram_loop_create_future(world->loop, &future);
            break;
        }
        assert_int_equal(status, 0);
        assert_int_equal(tram_future_add_done_callback(future, done, world), 0);
        assert_int_equal(tram_future_cancel(future), 1);
        assert_null(strstr(world->trace, "done"));
        run_until_traced(world, "done:TRAM_ECANCELLED");
        assert_true(tram_future_cancelled(future));
        assert_int_equal(tram_future_cancel(future), 0);
        run_ticks(world, 3);
        /* Once, and nothing of the operation is left: neither a connection nor a registration. */
        assert_null(strstr(strstr(world->trace, "done:") + 1, "done:"));
        assert_null(strstr(world->trace, "made"));
        tram_stats stats;
        tram_loop_stats(world->loop, &stats);
        assert_int_equal(stats.connections_now, 0);
        tram_future_release(future);
        world->trace[0] = '\0';
        if (fds[1] >= 0) {
            assert_true(receive_eof(world, fds[1])); /* the transport's end is closed */
            close(fds[1]);
        }
    }
    pthread_mutex_unlock(&gate);
    tram_executor_free(executor);
    close(listener);
    /* A cancelled look-up runs on (L-33), with files open: the count of descriptors must wait for its thread. */
    tram_future *ended;
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 0, &ended), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, ended), 0);
    tram_future_release(ended);
}

/* ---- X-4 ---- */

static void test_X_4_a_protocol_without_any_callback_works(void **state) {
    struct world *world = *state;
    static const tram_protocol_ops nothing;
    tram_protocol protocol = {.ops = &nothing};
    struct recorder *unused = recorder_new(world, NULL);
    int fds[2];
    unix_pair(fds);
    tram_transport *transport = transport_new(world, fds[0], unused);
    run_ticks(world, 1);
    assert_int_equal(tram_transport_set_protocol(transport, &protocol), 0);
    run_ticks(world, 2);
    assert_trace(world, "made released");
    tram_transport_hold(transport);
    tram_transport_set_write_buffer_limits(transport, 0, 0);
    fill(transport, 1000); /* pause_writing */
    send_exactly(world, fds[1], "data", 4);
    run_ticks(world, 2);
    shutdown(fds[1], SHUT_WR);
    /* A missing eof_received returns 0: the transport flushes, resuming on the way, and ends. */
    assert_true(receive_eof(world, fds[1]));
    assert_true(tram_transport_is_closing(transport));
    assert_null(tram_transport_get_protocol(transport));
    assert_null(protocol.transport);
    assert_int_equal(world->exceptions, 0);
    tram_transport_release(transport);
    close(fds[1]);
}

static void test_X_4_a_buffered_protocol_without_buffer_updated_works(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new_buffered(world, NULL);
    tram_protocol_ops ops = *recorder->base.ops;
    ops.buffer_updated = NULL;
    recorder->base.ops = &ops;
    struct stream stream = stream_open_with(world, recorder, false);
    send_exactly(world, stream.peer, "data", 4);
    run_until_traced(world, "get_buffer");
    assert_false(tram_transport_is_closing(stream.transport));
    stream_close(&stream);
    assert_int_equal(world->exceptions, 0);
}

static void test_X_4_released_comes_once_and_last(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport_close(stream.transport);
    run_ticks(stream.world, 5);
    assert_trace(stream.world, "lost:0 released"); /* a second `released` would fail in the recorder */
    stream_close(&stream);
}

static int switch_on_data(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") == 0) {
        assert_int_equal(tram_transport_set_protocol(recorder->base.transport, recorder->arg), 0);
        trace(recorder->world, "switched");
    }
    return 0;
}

static void test_X_4_T_12_released_comes_after_set_protocol_outside_any_callback(void **state) {
    struct stream stream = stream_open(*state);
    struct recorder *second = recorder_new(stream.world, "second");
    stream.recorder->on = switch_on_data;
    stream.recorder->arg = second;
    send_exactly(stream.world, stream.peer, "x", 1);
    run_until_traced(stream.world, "switched");
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "data:1 switched released"); /* not within data_received */
    tram_transport_abort(stream.transport);
    run_until(stream.world, &second->was_released);
    assert_trace(stream.world, "second.lost:0 second.released");
    stream_close(&stream);
}

static void test_X_4_a_protocol_that_comes_back_is_not_released(void **state) {
    struct stream stream = stream_open(*state);
    struct recorder *second = recorder_new(stream.world, "second");
    struct recorder *third = recorder_new(stream.world, "third");
    tram_transport *transport = stream.transport;
    /* The last claim on the first one is not given up: it is back before anybody could have freed it. */
    assert_int_equal(tram_transport_set_protocol(transport, &second->base), 0);
    assert_int_equal(tram_transport_set_protocol(transport, &third->base), 0);
    assert_int_equal(tram_transport_set_protocol(transport, &stream.recorder->base), 0);
    assert_ptr_equal(stream.recorder->base.transport, transport);
    assert_int_equal(tram_transport_set_protocol(transport, &stream.recorder->base), 0);
    run_ticks(stream.world, 2);
    assert_trace(stream.world, "second.released third.released");
    assert_ptr_equal(stream.recorder->base.transport, transport);
    tram_transport_close(transport);
    run_ticks(stream.world, 2);
    assert_trace(stream.world, "lost:0 released");

    /* The same where the one that comes back is the last of those to be released, or the only one. */
    stream_close(&stream);
    stream = stream_open(*state);
    second = recorder_new(stream.world, "second");
    third = recorder_new(stream.world, "third");
    assert_int_equal(tram_transport_set_protocol(stream.transport, &second->base), 0);
    assert_int_equal(tram_transport_set_protocol(stream.transport, &third->base), 0);
    assert_int_equal(tram_transport_set_protocol(stream.transport, &second->base), 0);
    run_ticks(stream.world, 2);
    assert_trace(stream.world, "released third.released");
    third = recorder_new(stream.world, "third");
    assert_int_equal(tram_transport_set_protocol(stream.transport, &third->base), 0);
    assert_int_equal(tram_transport_set_protocol(stream.transport, &second->base), 0);
    run_ticks(stream.world, 2);
    assert_trace(stream.world, "third.released");
    tram_transport_close(stream.transport);
    run_ticks(stream.world, 2);
    assert_trace(stream.world, "second.lost:0 second.released");
    stream_close(&stream);
}

static void test_X_4_P_2_released_comes_where_the_creation_fails(void **state) {
    struct world *world = *state;
    int fds[2];
    /* The factory was called, then the operation is cancelled: no made, no lost, but released. */
    unix_pair(fds);
    tram_future *future;
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, recorder_factory, world, fds[0], &future), 0);
    struct recorder *recorder = world_last_recorder(world);
    assert_int_equal(tram_future_cancel(future), 1);
    run_ticks(world, 3);
    assert_trace(world, "released");
    assert_false(recorder->made);
    tram_future_release(future);
    close(fds[1]);
}

static void test_X_4_loop_close_ends_with_lost_and_released(void **state) {
    struct stream made = stream_open(*state);
    struct world *world = made.world;
    struct recorder *unmade = recorder_new(world, "unmade");
    struct recorder *off = recorder_new(world, "off");
    int fds[2];
    unix_pair(fds);
    transport_new(world, fds[0], unmade);
    assert_int_equal(tram_transport_set_protocol(made.transport, &off->base), 0);
    made.recorder->name = "old"; /* its released is still to come */
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_true(off->lost && off->was_released);
    assert_true(made.recorder->was_released && !made.recorder->lost);
    assert_true(unmade->was_released && !unmade->made && !unmade->lost);
    close(made.peer);
    close(fds[1]);
}

/* ---- X-5 ---- */

static int user_object;

static int fail_with_user(struct recorder *recorder, const char *event) {
    if (strcmp(event, recorder->arg) != 0)
        return 0;
    return tram_loop_raise(recorder->world->loop, TRAM_EUSER - 7000, &user_object, "the user's own");
}

static void test_X_5_code_and_user_pointer_pass_unchanged(void **state) {
    static const char *const fatal[] = {"data", "eof", "get_buffer", "updated"};
    struct world *world = *state;
    for (size_t i = 0; i < 4; i++) {
        bool buffered = i >= 2;
        struct recorder *recorder = buffered ? recorder_new_buffered(world, NULL) : recorder_new(world, NULL);
        struct stream stream = stream_open_with(world, recorder, false);
        recorder->on = fail_with_user;
        recorder->arg = (void *)(uintptr_t)fatal[i];
        if (i == 1)
            shutdown(stream.peer, SHUT_WR);
        else
            send_exactly(world, stream.peer, "x", 1);
        run_until(world, &recorder->was_released);
        assert_int_equal(recorder->lost_code, TRAM_EUSER - 7000);
        assert_ptr_equal(recorder->lost_user, &user_object);
        assert_int_equal(world->exceptions, i + 1);
        assert_int_equal(world->exception_code, TRAM_EUSER - 7000);
        assert_ptr_equal(world->exception_user, &user_object);
        stream_close(&stream);
    }
}

static void test_X_5_failures_that_only_are_reported_pass_unchanged(void **state) {
    struct world *world = *state;
    static const char *const reported[] = {"made", "lost", "pause", "resume"};
    for (size_t i = 0; i < 4; i++) {
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->on = fail_with_user;
        recorder->arg = (void *)(uintptr_t)reported[i];
        struct stream stream = stream_open_with(world, recorder, false);
        tram_transport_set_write_buffer_limits(stream.transport, 0, 0);
        fill(stream.transport, 1000);
        while (tram_transport_get_write_buffer_size(stream.transport)) {
            drain_peer(&stream);
            run_ticks(world, 1);
        }
        assert_int_equal(recorder->lost, false);
        stream_close(&stream);
        run_ticks(world, 1);
        assert_int_equal(recorder->lost_code, 0);
        assert_int_equal(world->exceptions, i + 1);
        assert_int_equal(world->exception_code, TRAM_EUSER - 7000);
        assert_ptr_equal(world->exception_user, &user_object);
    }
}

static void test_X_5_what_was_raised_for_one_code_is_not_another_errors(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    tram_loop_raise(world->loop, TRAM_EUSER, &user_object, "never returned");
    fail_next(&faults.send, EPIPE, 1);
    assert_int_equal(write_pattern(stream.transport, 10, 0), 0);
    run_ticks(world, 1);
    assert_trace(world, "lost:EPIPE released");
    assert_null(stream.recorder->lost_user);
    stream_close(&stream);
}

static int always_positive(struct recorder *recorder, const char *event) {
    (void)recorder;
    return strcmp(event, "eof") == 0 ? 0 : 4711;
}

static void test_X_5_positive_values_mean_nothing_elsewhere(void **state) {
    struct world *world = *state;
    for (int buffered = 0; buffered < 2; buffered++) {
        struct recorder *recorder = buffered ? recorder_new_buffered(world, NULL) : recorder_new(world, NULL);
        recorder->on = always_positive;
        struct stream stream = stream_open_with(world, recorder, false);
        tram_transport_set_write_buffer_limits(stream.transport, 0, 0);
        fill(stream.transport, 1000);
        send_exactly(world, stream.peer, "x", 1);
        while (!recorder->received || tram_transport_get_write_buffer_size(stream.transport)) {
            drain_peer(&stream);
            run_ticks(world, 1);
        }
        assert_non_null(strstr(world->trace, "resume"));
        assert_false(tram_transport_is_closing(stream.transport));
        stream_close(&stream);
        run_ticks(world, 1);
        assert_int_equal(recorder->lost_code, 0);
        assert_int_equal(world->exceptions, 0);
    }
}

/* ---- X-6 ---- */

static unsigned made_protocols;

static int counting_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    made_protocols++;
    return recorder_factory(loop, arg, ret_protocol);
}

static int forgetful_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = NULL;
    return 0;
}

static void test_X_6_a_factory_is_called_once_per_connection(void **state) {
    struct world *world = *state;
    tram_transport *transports[3];
    int peers[3];
    made_protocols = 0;
    for (unsigned i = 0; i < 3; i++) {
        int fds[2];
        unix_pair(fds);
        tram_future *future;
        assert_int_equal(tram_loop_connect_accepted_socket(world->loop, counting_factory, world, fds[0], &future), 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
        void *value;
        assert_int_equal(tram_future_result(future, &value), 0);
        transports[i] = value;
        tram_future_release(future);
        peers[i] = fds[1];
        assert_int_equal(made_protocols, i + 1);
        assert_ptr_equal(tram_transport_get_protocol(transports[i]), world_last_recorder(world));
    }
    assert_ptr_not_equal(tram_transport_get_protocol(transports[0]), tram_transport_get_protocol(transports[1]));
    for (unsigned i = 0; i < 3; i++) {
        tram_transport_abort(transports[i]);
        close(peers[i]);
    }
    run_ticks(world, 2);
}

static void test_X_6_a_factory_may_fail(void **state) {
    struct world *world = *state;
    static const struct {
        tram_protocol_factory factory;
        int expected;
    } cases[] = {{make_nothing, -EPERM}, {forgetful_factory, TRAM_ETYPE}};
    for (size_t i = 0; i < 2; i++) {
        int fds[2];
        unix_pair(fds);
        tram_future *future;
        assert_int_equal(tram_loop_connect_accepted_socket(world->loop, cases[i].factory, NULL, fds[0], &future), 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), cases[i].expected);
        tram_future_release(future);
        assert_true(receive_eof(world, fds[1])); /* the socket is closed */
        close(fds[1]);
    }
    assert_trace(world, "");
}

/* ---- X-7 ---- */

static void test_X_7_written_memory_is_free_for_reuse(void **state) {
    struct stream stream = stream_open(*state);
    char bytes[3000];
    struct iovec pieces[2] = {{bytes, 1000}, {bytes + 1000, 2000}};
    faults.send_budget = 500;
    for (size_t offset = 0; offset < 12000; offset += 3000) {
        pattern(bytes, sizeof bytes, offset);
        if (offset % 2000)
            assert_int_equal(tram_transport_write(stream.transport, bytes, sizeof bytes), 0);
        else
            assert_int_equal(tram_transport_writelines(stream.transport, pieces, 2), 0);
        memset(bytes, 0xee, sizeof bytes);
        memset(pieces, 0, sizeof pieces);
        pieces[0] = (struct iovec){bytes, 1000};
        pieces[1] = (struct iovec){bytes + 1000, 2000};
    }
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 12000, 0);
    stream_close(&stream);
}

/* ---- X-8 ---- */

struct trespass {
    struct stream *stream;
    int statuses[6];
};

static void *trespass(void *arg) {
    struct trespass *there = arg;
    tram_transport *transport = there->stream->transport;
    int *statuses = there->statuses;
    statuses[0] = tram_transport_write(transport, "x", 1);
    statuses[1] = tram_transport_close(transport);
    statuses[2] = tram_transport_abort(transport);
    statuses[3] = tram_transport_pause_reading(transport);
    statuses[4] = tram_transport_write_eof(transport);
    statuses[5] = tram_transport_set_write_hard_limit(transport, 1);
    return NULL;
}

static void test_X_8_debug_mode_refuses_a_transport_on_another_thread(void **state) {
    struct stream stream = stream_open(*state);
    uint64_t timeout_ns;
    assert_int_equal(tram_loop_prepare(stream.world->loop, &timeout_ns), 0); /* this thread drives the loop */
    struct trespass there = {.stream = &stream};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, trespass, &there), 0);
    pthread_join(thread, NULL);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(there.statuses[i], TRAM_ESTATE);
    assert_int_equal(stream.world->exceptions, 6);
    assert_int_equal(stream.world->exception_code, TRAM_ESTATE);
    assert_false(tram_transport_is_closing(stream.transport));
    char bytes[1];
    assert_int_equal(peek_peer(&stream, bytes, 1), 0);
    stream_close(&stream);
}

static int write_from_mail(tram_loop *loop, void *arg) {
    (void)loop;
    return tram_transport_write(arg, "hello", 5);
}

static void *post_write(void *arg) {
    struct stream *stream = arg;
    assert_int_equal(tram_loop_call_soon_threadsafe(stream->world->loop, write_from_mail, stream->transport, NULL), 0);
    return NULL;
}

static void test_X_8_the_way_in_is_call_soon_threadsafe(void **state) {
    struct stream stream = stream_open(*state);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, post_write, &stream), 0);
    char bytes[5];
    receive_exactly(stream.world, stream.peer, bytes, 5);
    pthread_join(thread, NULL);
    assert_memory_equal(bytes, "hello", 5);
    assert_int_equal(stream.world->exceptions, 0);
    stream_close(&stream);
}

/* ---- X-9 ---- */

static int look_in_lost(struct recorder *recorder, const char *event) {
    if (strcmp(event, "lost") == 0) {
        tram_transport *transport = recorder->base.transport;
        assert_non_null(transport); /* valid until this returns */
        assert_ptr_equal(tram_transport_get_protocol(transport), recorder);
        const tram_socket *socket = tram_transport_get_extra_info(transport, "socket", NULL);
        assert_true(socket->fd >= 0);
        assert_int_equal(tram_transport_write(transport, "x", 1), 0);
        assert_int_equal(tram_transport_close(transport), 0);
    }
    if (strcmp(event, "released") == 0)
        assert_null(recorder->base.transport);
    return 0;
}

static void test_X_9_a_transport_is_valid_until_connection_lost_has_returned(void **state) {
    struct stream stream = stream_open_tcp(*state);
    stream.recorder->on = look_in_lost;
    assert_ptr_equal(stream.recorder->base.transport, stream.transport);
    shutdown(stream.peer, SHUT_WR);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "eof lost:0 released");
    stream_close(&stream);
}

static void test_X_9_a_held_transport_is_inert_after_its_end(void **state) {
    struct stream stream = stream_open_tcp(*state);
    struct world *world = stream.world;
    tram_transport *transport = tram_transport_hold(stream.transport);
    assert_ptr_equal(transport, stream.transport);
    assert_ptr_equal(tram_transport_hold(transport), transport);
    int fd = ((const tram_socket *)tram_transport_get_extra_info(transport, "socket", NULL))->fd;
    tram_transport_close(transport);
    run_until(world, &stream.recorder->was_released);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* the descriptor was its own, and is closed */
    world->trace[0] = '\0';

    struct recorder *late = recorder_new(world, "late");
    assert_true(tram_transport_is_closing(transport));
    assert_false(tram_transport_is_reading(transport));
    assert_null(tram_transport_get_protocol(transport));
    assert_ptr_equal(tram_transport_get_loop(transport), world->loop);
    assert_int_equal(tram_transport_set_protocol(transport, &late->base), TRAM_ESTATE);
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    assert_int_equal(tram_transport_cork(transport), 0);
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    assert_int_equal(tram_transport_uncork(transport), 0);
    assert_int_equal(tram_transport_pause_reading(transport), 0);
    assert_int_equal(tram_transport_resume_reading(transport), 0);
    assert_int_equal(tram_transport_close(transport), 0);
    assert_int_equal(tram_transport_abort(transport), 0);
    assert_int_equal(tram_transport_write_eof(transport), 0);
    assert_int_equal(tram_transport_set_write_hard_limit(transport, 1), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    assert_non_null(tram_transport_get_extra_info(transport, "sockname", NULL));
    const tram_socket *socket = tram_transport_get_extra_info(transport, "socket", NULL);
    assert_int_equal(socket->fd, -1);
    run_ticks(world, 3);
    assert_trace(world, "");

    /* Its memory is nobody else's before the last release. */
    struct stream other = stream_open_tcp(world);
    assert_ptr_not_equal(other.transport, transport);
    tram_transport_release(transport);
    assert_true(tram_transport_is_closing(transport));
    tram_transport_release(transport);
    stream_close(&other);
    stream_close(&stream);
}

static void test_X_9_holds_do_not_keep_a_connection_open(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport_hold(stream.transport);
    tram_transport_close(stream.transport);
    assert_true(receive_eof(stream.world, stream.peer));
    assert_trace(stream.world, "lost:0 released");
    tram_transport_release(stream.transport);
    stream_close(&stream);
}

/* ---- X-10 ---- */

static void test_X_10_releasing_a_hold_leaves_an_open_connection_open(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport_hold(stream.transport);
    tram_transport_release(stream.transport);
    run_ticks(stream.world, 2);
    assert_false(tram_transport_is_closing(stream.transport));
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    read_pattern(&stream, 100, 0);
    stream_close(&stream);
}

static void test_X_10_a_loop_that_goes_closes_its_transports_and_says_so(void **state) {
    struct stream stream = stream_open(*state);
    struct world *world = stream.world;
    world->warnings = 0;
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "lost:0 released");
    assert_int_equal(world->warnings, 1);
    assert_non_null(strstr(world->log, "still open"));
    assert_true(receive_eof(NULL, stream.peer));
    close(stream.peer);
}

static void test_X_10_outside_debug_mode_it_closes_them_silently(void **state) {
    struct stream stream = stream_open(*state);
    assert_int_equal(tram_loop_close(stream.world->loop), 0);
    assert_trace(stream.world, "lost:0 released");
    assert_int_equal(stream.world->warnings, 0);
    close(stream.peer);
}

#define TEST(name)       cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)
#define DEBUG_TEST(name) cmocka_unit_test_setup_teardown(name, world_setup_faults_debug, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_X_1_every_error_has_a_name_and_a_text),
        TEST(test_X_1_errors_of_the_system_are_negative_errnos),
        TEST(test_X_2_a_done_callback_runs_once_from_the_loop),
        TEST(test_X_2_no_operation_completes_inside_its_call),
        TEST(test_X_3_every_operation_can_be_cancelled),
        TEST(test_X_4_a_protocol_without_any_callback_works),
        TEST(test_X_4_a_buffered_protocol_without_buffer_updated_works),
        TEST(test_X_4_released_comes_once_and_last),
        TEST(test_X_4_T_12_released_comes_after_set_protocol_outside_any_callback),
        TEST(test_X_4_a_protocol_that_comes_back_is_not_released),
        TEST(test_X_4_P_2_released_comes_where_the_creation_fails),
        TEST(test_X_4_loop_close_ends_with_lost_and_released),
        TEST(test_X_5_code_and_user_pointer_pass_unchanged),
        TEST(test_X_5_failures_that_only_are_reported_pass_unchanged),
        TEST(test_X_5_what_was_raised_for_one_code_is_not_another_errors),
        TEST(test_X_5_positive_values_mean_nothing_elsewhere),
        TEST(test_X_6_a_factory_is_called_once_per_connection),
        TEST(test_X_6_a_factory_may_fail),
        TEST(test_X_7_written_memory_is_free_for_reuse),
        DEBUG_TEST(test_X_8_debug_mode_refuses_a_transport_on_another_thread),
        TEST(test_X_8_the_way_in_is_call_soon_threadsafe),
        TEST(test_X_9_a_transport_is_valid_until_connection_lost_has_returned),
        TEST(test_X_9_a_held_transport_is_inert_after_its_end),
        TEST(test_X_9_holds_do_not_keep_a_connection_open),
        DEBUG_TEST(test_X_10_releasing_a_hold_leaves_an_open_connection_open),
        DEBUG_TEST(test_X_10_a_loop_that_goes_closes_its_transports_and_says_so),
        TEST(test_X_10_outside_debug_mode_it_closes_them_silently),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
