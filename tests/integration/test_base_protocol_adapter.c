/* Which callback comes when, and what its answer does (docs/rules.md, group P and what it takes of group X). */
#include "support/support.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

static void say(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void soon(struct world *world, const char *word) {
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t)word, NULL, NULL), 0);
}

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

/* ---- The order ---- */

static void test_P_1_the_callbacks_of_a_connection_in_their_order(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new(world, recorder_new(world, NULL));
    run_ticks(world, 1);
    for (int i = 0; i < 3; i++) {
        say(wire.peer, "abc");
        await_events(wire.fd, POLLIN);
        run_ticks(world, 1);
    }
    shutdown(wire.peer, SHUT_WR);
    run_until_traced(world, "released");
    assert_trace(world, "made data:3 data:3 data:3 eof lost:0 released");
    run_to_rest(world);
    assert_trace(world, "");
    close(wire.peer);
}

static void test_P_1_a_protocol_without_callbacks_lives_and_dies(void **state) {
    struct world *world = *state;
    static const tram_protocol_ops none;
    tram_protocol protocol = {.ops = &none};
    int fds[2];
    tcp_pair(fds);
    tram_transport *transport;
    assert_int_equal(transport_try_new(world, fds[0], &protocol, NULL, &transport), 0);
    say(fds[1], "hello");
    run_ticks(world, 2);
    assert_ptr_equal(protocol.transport, transport);
    tram_transport_set_write_buffer_limits(transport, 0, 0);
    fill(transport, 65536);
    shutdown(fds[1], SHUT_WR);
    while (protocol.transport) { /* P-8: it closes itself, after what is buffered */
        char bytes[65536];
        recv(fds[1], bytes, sizeof bytes, MSG_DONTWAIT);
        run_ticks(world, 1);
    }
    assert_true(receive_eof(world, fds[1]));
    assert_int_equal(world->exceptions, 0);
    close(fds[1]);
}

static void test_P_2_no_made_without_lost_and_no_lost_without_made(void **state) {
    struct world *world = *state;
    struct wire made = wire_new(world, recorder_new(world, "a"));
    run_ticks(world, 1);
    struct wire queued = wire_new(world, recorder_new(world, "b"));
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_non_null(strstr(world->trace, "a.made"));
    assert_non_null(strstr(world->trace, "a.lost:0 a.released"));
    assert_null(strstr(world->trace, "b.made"));
    assert_null(strstr(world->trace, "b.lost"));
    assert_non_null(strstr(world->trace, "b.released"));
    assert_false(is_open(made.fd));
    assert_false(is_open(queued.fd));
    close(made.peer);
    close(queued.peer);
}

static int creator_goes_on(tram_future *future, void *arg) {
    struct world *world = arg;
    void *transport;
    assert_int_equal(tram_future_result(future, &transport), 0);
    trace(world, tram_transport_is_closing(transport) ? "creator:closing" : "creator:open");
    return 0;
}

/* A wire whose creator waits. */
static struct wire wire_with_creator(struct world *world, struct recorder *recorder) {
    tram_future *creator;
    assert_int_equal(tram_loop_create_future(world->loop, &creator), 0);
    assert_int_equal(tram_future_add_done_callback(creator, creator_goes_on, world), 0);
    int fds[2];
    tcp_pair(fds);
    struct wire wire = {.recorder = recorder, .fd = fds[0], .peer = fds[1]};
    assert_int_equal(transport_try_new(world, fds[0], &recorder->base, creator, &wire.transport), 0);
    tram_future_release(creator);
    return wire;
}

static void test_P_3_P_5_connection_made_is_queued_in_its_place(void **state) {
    struct world *world = *state;
    soon(world, "before");
    struct wire wire = wire_with_creator(world, recorder_new(world, NULL));
    soon(world, "after");
    assert_trace(world, ""); /* never inside the call */
    run_ticks(world, 1);
    assert_trace(world, "before made after");
    run_ticks(world, 1);
    assert_trace(world, "creator:open");
    close(wire.peer);
}

static void test_P_4_P_3_made_then_the_creator_then_the_first_data(void **state) {
    struct world *world = *state;
    struct recorder *recorders[] = {recorder_new(world, NULL), recorder_new_buffered(world, NULL)};
    for (int i = 0; i < 2; i++) {
        struct wire wire = wire_with_creator(world, recorders[i]);
        say(wire.peer, "hello");
        await_events(wire.fd, POLLIN);
        run_until_traced(world, i ? "updated" : "data");
        assert_trace(world, i ? "made creator:open get_buffer updated:5" : "made creator:open data:5");
        close(wire.peer);
        run_until(world, &recorders[i]->was_released);
        world->trace[0] = '\0';
    }
}

static int end_when_made(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") != 0)
        return 0;
    tram_transport *transport = recorder->base.transport;
    int status = recorder->arg ? tram_transport_abort(transport) : tram_transport_close(transport);
    assert_int_equal(status, 0);
    trace(recorder->world, "(ended)");
    return 0;
}

static void test_P_6_after_an_end_in_connection_made_there_is_no_data(void **state) {
    struct world *world = *state;
    for (int abort = 0; abort < 2; abort++) {
        for (int buffered = 0; buffered < 2; buffered++) {
            struct recorder *recorder = buffered ? recorder_new_buffered(world, NULL) : recorder_new(world, NULL);
            recorder->on = end_when_made;
            recorder->arg = abort ? world : NULL;
            struct wire wire = wire_with_creator(world, recorder);
            say(wire.peer, "hello");
            shutdown(wire.peer, SHUT_WR);
            await_events(wire.fd, POLLRDHUP);
            run_ticks(world, 1);
            assert_trace(world, "made (ended)");
            run_to_rest(world);
            assert_trace(world, "lost:0 released creator:closing"); /* asyncio's order */
            close(wire.peer);
        }
    }
}

static int write_and_close_when_made(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") != 0)
        return 0;
    fill(recorder->base.transport, 0);
    return tram_transport_close(recorder->base.transport);
}

static void test_P_6_while_a_close_in_connection_made_flushes_there_is_no_data_either(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = write_and_close_when_made;
    struct wire wire = wire_with_creator(world, recorder);
    say(wire.peer, "hello");
    shutdown(wire.peer, SHUT_WR);
    await_events(wire.fd, POLLRDHUP);
    run_to_rest(world);
    assert_trace(world, "made creator:closing");
    while (!recorder->was_released) {
        char bytes[65536];
        recv(wire.peer, bytes, sizeof bytes, MSG_DONTWAIT);
        run_ticks(world, 1);
    }
    assert_trace(world, "lost:0 released");
    close(wire.peer);
}

static void test_C_16_P_2_a_connection_that_dies_before_made_gets_made_then_lost(void **state) {
    struct world *world = *state;
    struct wire wire = wire_with_creator(world, recorder_new(world, NULL));
    say(wire.peer, "hello");
    await_events(wire.fd, POLLIN);
    assert_int_equal(tram_transport_abort(wire.transport), 0);
    run_to_rest(world);
    assert_trace(world, "made creator:closing lost:0 released");
    close(wire.peer);

    wire = wire_with_creator(world, recorder_new(world, NULL));
    close_with_reset(wire.peer);
    await_events(wire.fd, POLLHUP);
    run_to_rest(world);
    assert_trace(world, "made creator:open lost:ECONNRESET released");
}

/* ---- The end of the stream ---- */

static void test_P_7_eof_received_comes_once_and_no_data_after_it(void **state) {
    struct world *world = *state;
    for (int buffered = 0; buffered < 2; buffered++) {
        struct recorder *recorder = buffered ? recorder_new_buffered(world, NULL) : recorder_new(world, NULL);
        recorder->eof_returns = 1;
        struct wire wire = wire_new_made(world, recorder);
        shutdown(wire.peer, SHUT_WR);
        await_events(wire.fd, POLLRDHUP);
        run_to_rest(world);
        assert_trace(world, buffered ? "get_buffer eof" : "eof");
        /* Neither does anything that follows bring it back. */
        assert_int_equal(tram_transport_write(wire.transport, "x", 1), 0);
        tram_transport_pause_reading(wire.transport);
        tram_transport_resume_reading(wire.transport);
        fill(wire.transport, 0);
        run_ticks(world, 3);
        char bytes[65536];
        while (tram_transport_get_write_buffer_size(wire.transport)) {
            recv(wire.peer, bytes, sizeof bytes, MSG_DONTWAIT);
            run_ticks(world, 1);
        }
        run_to_rest(world);
        assert_trace(world, "");
        close(wire.peer);
        assert_int_equal(tram_transport_abort(wire.transport), 0);
        run_to_rest(world);
        assert_trace(world, "lost:0 released");
    }
}

static void test_P_8_after_eof_received_returned_0_the_transport_closes_itself(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    shutdown(wire.peer, SHUT_WR);
    await_events(wire.fd, POLLRDHUP);
    run_ticks(world, 1);
    assert_trace(world, "eof");
    assert_true(tram_transport_is_closing(wire.transport));
    run_ticks(world, 1);
    assert_trace(world, "lost:0 released");
    assert_true(receive_eof(world, wire.peer));
    close(wire.peer);
}

static int answer_at_eof(struct recorder *recorder, const char *event) {
    if (strcmp(event, "eof") == 0)
        fill(recorder->base.transport, 0);
    return 0;
}

static void test_P_13_P_8_what_is_buffered_at_the_end_of_the_stream_is_sent_before_connection_lost(void **state) {
    struct world *world = *state;
    for (int inside = 0; inside < 2; inside++) {
        struct recorder *recorder = recorder_new(world, NULL);
        struct wire wire = wire_new_made(world, recorder);
        tram_stats before, after;
        tram_loop_stats(world->loop, &before);
        if (inside)
            recorder->on = answer_at_eof;
        else
            fill(wire.transport, 0);
        shutdown(wire.peer, SHUT_WR);
        await_events(wire.fd, POLLRDHUP);
        run_ticks(world, 4);
        assert_trace(world, "eof");
        tram_loop_stats(world->loop, &after);
        size_t total =
            (size_t)(after.bytes_sent - before.bytes_sent) + tram_transport_get_write_buffer_size(wire.transport);
        assert_true(tram_transport_get_write_buffer_size(wire.transport) > 0);
        char *bytes = malloc(total);
        receive_exactly(world, wire.peer, bytes, total);
        free(bytes);
        assert_true(receive_eof(world, wire.peer));
        assert_trace(world, "lost:0 released");
        close(wire.peer);
    }
}

static void test_P_9_after_a_positive_answer_writing_goes_on_until_the_protocol_closes(void **state) {
    struct world *world = *state;
    for (int answer = 1; answer < 1000; answer += 998) {
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->eof_returns = answer;
        struct wire wire = wire_new_made(world, recorder);
        shutdown(wire.peer, SHUT_WR);
        await_events(wire.fd, POLLRDHUP);
        run_to_rest(world);
        assert_trace(world, "eof");
        assert_false(tram_transport_is_closing(wire.transport));
        assert_false(tram_transport_is_reading(wire.transport));
        assert_int_equal(tram_transport_write(wire.transport, "answer", 6), 0);
        char bytes[6];
        receive_exactly(world, wire.peer, bytes, 6);
        assert_memory_equal(bytes, "answer", 6);
        run_to_rest(world);
        assert_trace(world, "");
        assert_int_equal(tram_transport_close(wire.transport), 0);
        run_ticks(world, 1);
        assert_trace(world, "lost:0 released");
        assert_true(receive_eof(world, wire.peer));
        close(wire.peer);
    }
}

static void test_P_10_while_half_open_a_reset_is_noticed_by_writing_only(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->eof_returns = 1;
    struct wire wire = wire_new_made(world, recorder);
    shutdown(wire.peer, SHUT_WR);
    run_until_traced(world, "eof");
    close_with_reset(wire.peer);
    await_events(wire.fd, POLLHUP);
    run_to_rest(world);
    assert_trace(world, "eof");
    assert_int_equal(tram_transport_write(wire.transport, "x", 1), 0);
    assert_true(tram_transport_is_closing(wire.transport));
    run_ticks(world, 1);
    assert_true(recorder->lost_code == -EPIPE || recorder->lost_code == -ECONNRESET);
    assert_true(recorder->was_released);
    assert_int_equal(world->exceptions, 0);
}

static void test_P_12_the_error_is_null_at_a_clean_end_else_it_is_what_ended_the_connection(void **state) {
    struct world *world = *state;
    enum { END, CLOSE, ABORT, RESET, WAYS };
    static const char *const expected[] = {"eof lost:0 released", "lost:0 released", "lost:0 released",
                                           "lost:ECONNRESET released"};
    for (int way = 0; way < WAYS; way++) {
        struct wire wire = wire_new_made(world, recorder_new(world, NULL));
        if (way == END)
            shutdown(wire.peer, SHUT_WR);
        else if (way == CLOSE)
            tram_transport_close(wire.transport);
        else if (way == ABORT)
            tram_transport_abort(wire.transport);
        else
            close_with_reset(wire.peer);
        run_until_traced(world, "released");
        assert_trace(world, expected[way]);
        if (way != RESET)
            close(wire.peer);
    }
}

/* ---- Callbacks that fail ---- */

struct failure {
    const char *event;
    int code;
    void *user;
};

static int fail_at(struct recorder *recorder, const char *event) {
    const struct failure *failure = recorder->arg;
    if (!failure->event || strcmp(event, failure->event) != 0)
        return 0;
    return failure->user ? tram_loop_raise(recorder->world->loop, failure->code, failure->user, "on purpose")
                         : failure->code;
}

static void test_P_14_a_failing_connection_made_is_reported_and_nothing_more(void **state) {
    struct world *world = *state;
    world->trace_reports = true;
    static const int codes[] = {TRAM_EUSER, -EPIPE, TRAM_ECANCELLED};
    for (size_t i = 0; i < 3; i++) {
        struct failure failure = {"made", codes[i], &failure};
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->on = fail_at;
        recorder->arg = &failure;
        struct wire wire = wire_with_creator(world, recorder);
        say(wire.peer, "hello");
        await_events(wire.fd, POLLIN);
        run_until_traced(world, "data");
        char expected[128];
        snprintf(expected, sizeof expected, "made reported:%s creator:open data:5", tram_error_name(codes[i]));
        assert_trace(world, expected);
        assert_ptr_equal(world->exception_transport, wire.transport);
        assert_ptr_equal(world->exception_protocol, &recorder->base);
        assert_ptr_equal(world->exception_user, &failure);
        close(wire.peer);
        run_until_traced(world, "released");
        assert_trace(world, "eof lost:0 released");
    }
}

static void test_P_15_X_5_a_failure_while_receiving_ends_the_connection_with_that_error(void **state) {
    struct world *world = *state;
    world->trace_reports = true;
    static const struct {
        const char *event;
        const char *before;
    } cases[] = {
        {"data", "data:5"},
        {"eof", "data:5 eof"},
        {"get_buffer", "get_buffer"},
        {"updated", "get_buffer updated:5"},
    };
    static const int codes[] = {TRAM_EUSER, -9999, -EPIPE};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t j = 0; j < 6; j++) {
            struct failure failure = {cases[i].event, codes[j % 3], j < 3 ? &failure : NULL};
            struct recorder *recorder = i < 2 ? recorder_new(world, NULL) : recorder_new_buffered(world, NULL);
            recorder->on = fail_at;
            recorder->arg = &failure;
            struct wire wire = wire_new_made(world, recorder);
            fill(wire.transport, 0); /* dropped, else connection_lost would wait for the peer */
            world->exception_transport = NULL;
            world->exception_protocol = NULL;
            world->exception_user = NULL;
            say(wire.peer, "hello");
            shutdown(wire.peer, SHUT_WR);
            run_until_traced(world, "released");

            bool reported = failure.code < -4096;
            char expected[160];
            snprintf(expected, sizeof expected, "%s%s%s lost:%s released", cases[i].before,
                     reported ? " reported:" : "", reported ? tram_error_name(failure.code) : "",
                     tram_error_name(failure.code));
            assert_trace(world, expected);
            assert_int_equal(recorder->lost_code, failure.code);
            assert_ptr_equal(recorder->lost_user, failure.user);
            if (reported)
                assert_int_equal(world->exception_code, failure.code);
            assert_ptr_equal(world->exception_user, reported ? failure.user : NULL);
            assert_ptr_equal(world->exception_transport, reported ? wire.transport : NULL);
            assert_ptr_equal(world->exception_protocol, reported ? &recorder->base : NULL);
            close(wire.peer);
        }
    }
}

static void test_X_5_a_positive_answer_means_something_from_eof_received_only(void **state) {
    struct world *world = *state;
    static const char *const events[] = {"made", "data", "lost", "pause", "resume", "get_buffer", "updated"};
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        struct failure failure = {events[i], 5, NULL};
        struct recorder *recorder = i < 5 ? recorder_new(world, NULL) : recorder_new_buffered(world, NULL);
        recorder->on = fail_at;
        recorder->arg = &failure;
        struct wire wire = wire_new(world, recorder);
        run_ticks(world, 1);
        fill(wire.transport, 65536);
        while (tram_transport_get_write_buffer_size(wire.transport)) {
            char bytes[65536];
            recv(wire.peer, bytes, sizeof bytes, MSG_DONTWAIT);
            run_ticks(world, 1);
        }
        say(wire.peer, "hello");
        run_until_traced(world, i < 5 ? "data:5" : "updated:5");
        shutdown(wire.peer, SHUT_WR);
        run_until_traced(world, "released");
        assert_trace(world, i < 5 ? "made pause resume data:5 eof lost:0 released"
                                  : "made pause resume get_buffer updated:5 get_buffer eof lost:0 released");
        assert_int_equal(world->exceptions, 0);
        close(wire.peer);
    }
}

static void test_P_16_a_failing_connection_lost_is_reported_and_the_socket_closed(void **state) {
    struct world *world = *state;
    world->trace_reports = true;
    static const int codes[] = {TRAM_EUSER, -EPIPE};
    for (size_t i = 0; i < 2; i++) {
        struct failure failure = {"lost", codes[i], &failure};
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->on = fail_at;
        recorder->arg = &failure;
        struct wire wire = wire_new_made(world, recorder);
        shutdown(wire.peer, SHUT_WR);
        run_until_traced(world, "released");
        char expected[128];
        snprintf(expected, sizeof expected, "eof lost:0 reported:%s released", tram_error_name(codes[i]));
        assert_trace(world, expected);
        assert_ptr_equal(world->exception_transport, wire.transport);
        assert_ptr_equal(world->exception_protocol, &recorder->base);
        assert_ptr_equal(world->exception_user, &failure);
        assert_false(is_open(wire.fd));
        assert_true(receive_eof(world, wire.peer));
        close(wire.peer);
    }
}

/* ---- Anything goes ---- */

enum deed {
    CLOSE,
    ABORT,
    ABORT_AND_GO_ON,
    PAUSE,
    PAUSE_AND_RESUME,
    WRITE,
    WRITE_MUCH,
    WRITE_AND_CLOSE,
    WRITE_EOF,
    CORK_AND_CLOSE,
    CORK_AND_ABORT,
    SWITCH,
    SWITCH_AND_ABORT,
    SWITCH_AND_FAIL,
    HARD_LIMIT,
    LIMITS,
    HOLD_AND_RELEASE,
    ABORT_ANOTHER,
    CLOSE_ANOTHER,
    SWITCH_ANOTHER,
    OPEN_ANOTHER,
    FAIL,
    FAIL_LIKE_THE_SYSTEM,
    ABORT_AND_FAIL,
    STOP_THE_LOOP,
    LOOK_AROUND,
    DEEDS
};

struct scene {
    const char *event;
    enum deed deed;
    struct wire another;
    struct recorder *spare;
    int more_peer; /* of a transport that OPEN_ANOTHER made; -1: none */
    bool done;
};

static int do_deed(struct recorder *recorder, const char *event) {
    struct scene *scene = recorder->arg;
    struct world *world = recorder->world;
    tram_transport *transport = recorder->base.transport;
    if (scene->done || strcmp(event, scene->event) != 0)
        return 0;
    scene->done = true;
    static const char much[300000];
    switch (scene->deed) {
    case CLOSE:
        assert_int_equal(tram_transport_close(transport), 0);
        break;
    case ABORT:
        assert_int_equal(tram_transport_abort(transport), 0);
        break;
    case ABORT_AND_GO_ON:
        assert_int_equal(tram_transport_abort(transport), 0);
        assert_int_equal(tram_transport_write(transport, "x", 1), 0);
        assert_int_equal(tram_transport_resume_reading(transport), 0);
        assert_int_equal(tram_transport_close(transport), 0);
        assert_int_equal(tram_transport_write_eof(transport), 0);
        break;
    case PAUSE:
        assert_int_equal(tram_transport_pause_reading(transport), 0);
        break;
    case PAUSE_AND_RESUME:
        assert_int_equal(tram_transport_pause_reading(transport), 0);
        assert_int_equal(tram_transport_resume_reading(transport), 0);
        break;
    case WRITE:
        assert_int_equal(tram_transport_write(transport, "x", 1), 0);
        break;
    case WRITE_MUCH:
        assert_int_equal(tram_transport_write(transport, much, sizeof much), 0);
        break;
    case WRITE_AND_CLOSE:
        assert_int_equal(tram_transport_write(transport, much, sizeof much), 0);
        assert_int_equal(tram_transport_close(transport), 0);
        break;
    case WRITE_EOF:
        assert_int_equal(tram_transport_write_eof(transport), 0);
        break;
    case CORK_AND_CLOSE:
    case CORK_AND_ABORT:
        assert_int_equal(tram_transport_cork(transport), 0);
        assert_int_equal(tram_transport_write(transport, much, sizeof much), 0);
        assert_int_equal(
            scene->deed == CORK_AND_CLOSE ? tram_transport_close(transport) : tram_transport_abort(transport), 0);
        assert_int_equal(tram_transport_uncork(transport), 0);
        break;
    case SWITCH:
    case SWITCH_AND_ABORT:
    case SWITCH_AND_FAIL:
        assert_int_equal(tram_transport_set_protocol(transport, &scene->spare->base), 0);
        if (scene->deed == SWITCH_AND_ABORT)
            assert_int_equal(tram_transport_abort(transport), 0);
        return scene->deed == SWITCH_AND_FAIL ? TRAM_EUSER : 0;
    case HARD_LIMIT:
        assert_int_equal(tram_transport_set_write_hard_limit(transport, 1), 0);
        assert_int_equal(tram_transport_write(transport, much, sizeof much), 0);
        break;
    case LIMITS:
        assert_int_equal(tram_transport_set_write_buffer_limits(transport, 0, 0), 0);
        break;
    case HOLD_AND_RELEASE:
        tram_transport_release(tram_transport_hold(transport));
        break;
    case ABORT_ANOTHER:
        assert_int_equal(tram_transport_abort(scene->another.transport), 0);
        break;
    case CLOSE_ANOTHER:
        assert_int_equal(tram_transport_close(scene->another.transport), 0);
        break;
    case SWITCH_ANOTHER:
        assert_int_equal(tram_transport_set_protocol(scene->another.transport, &scene->spare->base), 0);
        break;
    case OPEN_ANOTHER: {
        /* Many at once, so that the tables of the loop grow under the event that is being served. */
        for (int i = 0; i < 70; i++) {
            int fds[2];
            unix_pair(fds);
            transport_new(world, fds[0], recorder_new(world, "more"));
            if (scene->more_peer >= 0)
                close(scene->more_peer);
            scene->more_peer = fds[1];
        }
        break;
    }
    case FAIL:
        return tram_loop_raise(world->loop, TRAM_EUSER, recorder, "on purpose");
    case FAIL_LIKE_THE_SYSTEM:
        return -EIO;
    case ABORT_AND_FAIL:
        assert_int_equal(tram_transport_abort(transport), 0);
        return TRAM_EUSER;
    case STOP_THE_LOOP:
        assert_int_equal(tram_loop_stop(world->loop), 0);
        if (tram_loop_is_running(world->loop)) /* pause_writing comes inside a write of the test's own */
            assert_int_equal(tram_loop_close(world->loop), TRAM_ESTATE);
        break;
    case LOOK_AROUND:
        assert_non_null(tram_transport_get_extra_info(transport, "peername", NULL));
        assert_non_null(tram_transport_get_extra_info(transport, "sockname", NULL));
        assert_ptr_equal(tram_transport_get_protocol(transport), &recorder->base);
        break;
    case DEEDS:
        break;
    }
    return 0;
}

/* Over Unix sockets: hundreds of TCP pairs for each run would leave no port to who runs it again and again. */
static struct wire unix_wire(struct world *world, struct recorder *recorder) {
    int fds[2];
    unix_pair(fds);
    return (struct wire){
        .transport = transport_new(world, fds[0], recorder), .recorder = recorder, .fd = fds[0], .peer = fds[1]};
}

static void play(struct world *world, const char *event, enum deed deed, bool buffered) {
    struct recorder *recorder = buffered ? recorder_new_buffered(world, "one") : recorder_new(world, "one");
    struct scene scene = {.event = event, .deed = deed, .more_peer = -1};
    scene.spare = recorder_new(world, "spare");
    scene.another = unix_wire(world, recorder_new(world, "another"));
    run_ticks(world, 1);
    recorder->eof_returns = 1;
    recorder->arg = &scene;
    recorder->on = do_deed;
    struct wire wire = unix_wire(world, recorder);
    tram_transport *transport = tram_transport_hold(wire.transport);
    run_ticks(world, 1);

    /* Data, a paused and resumed buffer, both directions ready at once, the end; or as far as it gets. */
    say(wire.peer, "hello");
    (void)!send(scene.another.peer, "hello", 5, MSG_NOSIGNAL); /* it may be gone */
    await_events(wire.fd, POLLIN);
    run_ticks(world, 1);
    char bytes[65536] = {0};
    while (!tram_transport_is_closing(transport) && tram_transport_get_write_buffer_size(transport) <= 65536)
        if (tram_transport_write(transport, bytes, 4096) != 0)
            break; /* after write_eof */
    for (int idle = 0; idle < 4; idle++) {
        while (recv(wire.peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
            idle = 0;
        if (idle == 0)
            (void)!send(scene.another.peer, "hello", 5, MSG_NOSIGNAL); /* it may be gone */
        run_ticks(world, 1);
    }
    shutdown(wire.peer, SHUT_WR);
    run_to_rest(world);
    assert_int_equal(tram_transport_resume_reading(transport), 0);
    run_to_rest(world);
    assert_int_equal(tram_transport_close(transport), 0);
    while (recv(wire.peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0 || tram_transport_get_protocol(transport))
        run_ticks(world, 1);
    assert_true(scene.done);

    /* Whatever happened, each protocol that was set was released once (recorders check) and the pair came to its end.
     */
    run_to_rest(world);
    assert_true(recorder->made && recorder->was_released);
    /* SWITCH gives the spare the connection's end, but for a switch at the end itself. */
    assert_int_equal(recorder->lost + scene.spare->lost + scene.another.recorder->lost,
                     deed == ABORT_ANOTHER || deed == CLOSE_ANOTHER ? 2 : 1);
    assert_false(is_open(wire.fd));
    tram_transport_release(transport);
    close(wire.peer);
    close(scene.another.peer);
    if (scene.more_peer >= 0)
        close(scene.more_peer);
    scene.another.recorder->on = NULL;
    world_reopen(world);
    world->trace[0] = '\0';
}

static void test_P_18_any_callback_may_do_anything(void **state) {
    struct world *world = *state;
    static const char *const plain[] = {"made", "data", "pause", "resume", "eof", "lost"};
    static const char *const buffered[] = {"made", "get_buffer", "updated", "pause", "resume", "eof", "lost"};
    for (int deed = 0; deed < DEEDS; deed++) {
        for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
            play(world, plain[i], (enum deed)deed, false);
        for (size_t i = 0; i < sizeof buffered / sizeof buffered[0]; i++)
            play(world, buffered[i], (enum deed)deed, true);
    }
}

/* Both ends of one pair on one loop. */
static void test_P_19_two_transports_keep_their_own_order_each(void **state) {
    struct world *world = *state;
    int fds[2];
    tcp_pair(fds);
    struct recorder *a = recorder_new(world, "a"), *b = recorder_new(world, "b");
    tram_transport *first = transport_new(world, fds[0], a), *second = transport_new(world, fds[1], b);
    run_ticks(world, 1);
    assert_trace(world, "a.made b.made");
    assert_int_equal(tram_transport_write(second, "xyz", 3), 0);
    assert_int_equal(tram_transport_write(first, "xy", 2), 0);
    assert_int_equal(tram_transport_write_eof(first), 0);
    run_until(world, &b->was_released);
    run_until(world, &a->was_released);
    /* Each alone. */
    char of_a[256] = "", of_b[256] = "";
    for (char *save, *word = strtok_r(world->trace, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *to = word[0] == 'a' ? of_a : of_b;
        strcat(strcat(to, *to ? " " : ""), word);
    }
    assert_string_equal(of_a, "a.data:3 a.eof a.lost:0 a.released");
    assert_string_equal(of_b, "b.data:2 b.eof b.lost:0 b.released");
}

/* ---- Lives of protocols ---- */

/* On the heap, gone in `released`: whoever touches it later touches freed memory. */
struct mortal {
    tram_protocol base;
    struct world *world;
    int inside; /* callbacks that have not returned */
    unsigned *died;
};

static int mortal_made(tram_protocol *protocol, tram_transport *transport) {
    struct mortal *mortal = (struct mortal *)protocol;
    mortal->inside++;
    trace(mortal->world, "made");
    (void)transport;
    mortal->inside--;
    return 0;
}

static int mortal_lost(tram_protocol *protocol, const tram_error *error) {
    struct mortal *mortal = (struct mortal *)protocol;
    mortal->inside++;
    trace(mortal->world, error ? "lost:error" : "lost:0");
    mortal->inside--;
    return TRAM_EUSER;
}

static int mortal_data(tram_protocol *protocol, const void *data, size_t size) {
    struct mortal *mortal = (struct mortal *)protocol;
    struct recorder *next = recorder_new(mortal->world, "next");
    (void)data;
    mortal->inside++;
    trace(mortal->world, "data");
    int status = 0;
    if (size == 2) { /* taken off inside its own callback */
        assert_int_equal(tram_transport_set_protocol(protocol->transport, &next->base), 0);
    }
    if (size == 3)
        status = TRAM_EUSER;
    mortal->inside--;
    return status;
}

static void mortal_released(tram_protocol *protocol) {
    struct mortal *mortal = (struct mortal *)protocol;
    assert_int_equal(mortal->inside, 0);
    assert_null(protocol->transport);
    trace(mortal->world, "released");
    ++*mortal->died;
    free(mortal);
}

static const tram_protocol_ops mortal_ops = {
    .connection_made = mortal_made,
    .data_received = mortal_data,
    .connection_lost = mortal_lost,
    .released = mortal_released,
};

static void test_X_4_released_comes_once_and_last_and_outside(void **state) {
    struct world *world = *state;
    enum { CLOSE_IT, ABORT_IT, END_IT, SWITCH_IT, FAIL_IT, FLUSH_IT, WAYS };
    static const char *const expected[] = {
        "made lost:0 released",          "made lost:0 released",
        "made lost:0 released",          "made data released next.eof next.lost:0 next.released",
        "made data lost:error released", "made lost:0 released"};
    for (int way = 0; way < WAYS; way++) {
        unsigned died = 0;
        struct mortal *mortal = calloc(1, sizeof *mortal);
        *mortal = (struct mortal){.base.ops = &mortal_ops, .world = world, .died = &died};
        int fds[2];
        tcp_pair(fds);
        tram_transport *transport;
        assert_int_equal(transport_try_new(world, fds[0], &mortal->base, NULL, &transport), 0);
        run_ticks(world, 1);
        switch (way) {
        case FLUSH_IT:
            fill(transport, 0);
            __attribute__((fallthrough));
        case CLOSE_IT:
            tram_transport_close(transport);
            break;
        case ABORT_IT:
            tram_transport_abort(transport);
            break;
        case SWITCH_IT:
            say(fds[1], "xx");
            run_until(world, (const bool *)&died); /* any byte of it */
            shutdown(fds[1], SHUT_WR);
            break;
        case FAIL_IT:
            say(fds[1], "xxx");
            break;
        default:
            shutdown(fds[1], SHUT_WR);
        }
        receive_eof(world, fds[1]);
        run_to_rest(world);
        assert_trace(world, expected[way]);
        assert_int_equal(died, 1);
        close(fds[1]);
    }
}

static void test_X_4_released_comes_when_the_loop_closes_before_connection_made(void **state) {
    struct world *world = *state;
    unsigned died = 0;
    struct mortal *mortal = calloc(1, sizeof *mortal);
    *mortal = (struct mortal){.base.ops = &mortal_ops, .world = world, .died = &died};
    int fds[2];
    tcp_pair(fds);
    tram_transport *transport;
    assert_int_equal(transport_try_new(world, fds[0], &mortal->base, NULL, &transport), 0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "released");
    assert_int_equal(died, 1);
    close(fds[1]);
}

static void test_X_4_a_protocol_taken_off_is_released_though_the_loop_closes(void **state) {
    struct world *world = *state;
    unsigned died = 0;
    struct mortal *mortal = calloc(1, sizeof *mortal);
    *mortal = (struct mortal){.base.ops = &mortal_ops, .world = world, .died = &died};
    int fds[2];
    tcp_pair(fds);
    tram_transport *transport;
    assert_int_equal(transport_try_new(world, fds[0], &mortal->base, NULL, &transport), 0);
    run_ticks(world, 1);
    assert_int_equal(tram_transport_set_protocol(transport, &recorder_new(world, "next")->base), 0);
    assert_int_equal(died, 0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "made next.lost:0 next.released released");
    assert_int_equal(died, 1);
    close(fds[1]);
}

/* ---- Sockets that the user gives ---- */

struct factory {
    struct world *world;
    unsigned calls;
    int fails;
    struct recorder *made;
};

static int make_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct factory *factory = arg;
    (void)loop;
    factory->calls++;
    trace(factory->world, "factory");
    if (factory->fails)
        return factory->fails;
    factory->made = recorder_new(factory->world, NULL);
    *ret_protocol = &factory->made->base;
    return 0;
}

static void test_T_15_X_6_a_given_socket_is_made_non_blocking_and_belongs_to_the_transport(void **state) {
    struct world *world = *state;
    struct factory factory = {.world = world};
    int fds[2];
    tcp_pair(fds);
    set_blocking(fds[0], true);
    tram_future *future;
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, make_protocol, &factory, fds[0], &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
    assert_int_equal(factory.calls, 1);
    tram_future_release(future);
    close(fds[1]);
    run_until_traced(world, "released");
    assert_trace(world, "factory made eof lost:0 released");
    assert_false(is_open(fds[0]));
}

static void test_P_2_X_6_if_the_factory_fails_nobody_hears_of_a_connection(void **state) {
    struct world *world = *state;
    struct factory factory = {.world = world, .fails = TRAM_EUSER};
    int fds[2];
    tcp_pair(fds);
    tram_future *future;
    assert_int_equal(tram_loop_connect_accepted_socket(world->loop, make_protocol, &factory, fds[0], &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_EUSER);
    tram_future_release(future);
    run_to_rest(world);
    assert_trace(world, "factory");
    assert_int_equal(factory.calls, 1);
    assert_true(receive_eof(world, fds[1]));
    assert_false(is_open(fds[0]));
    close(fds[1]);
}

/* ---- Borrowed bytes, threads ---- */

static void test_X_7_write_copies_what_it_cannot_send_at_once(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    fill(wire.transport, 0);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    size_t ahead = (size_t)stats.bytes_sent + tram_transport_get_write_buffer_size(wire.transport);
    char *memory = malloc(3);
    memcpy(memory, "abc", 3);
    assert_int_equal(tram_transport_write(wire.transport, memory, 3), 0);
    memcpy(memory, "???", 3);
    free(memory);
    char *bytes = malloc(ahead + 3);
    receive_exactly(world, wire.peer, bytes, ahead + 3);
    assert_memory_equal(bytes + ahead, "abc", 3);
    free(bytes);
    close(wire.peer);
}

static void *close_from_elsewhere(void *arg) {
    struct wire *wire = arg;
    return (void *)(intptr_t)tram_transport_close(wire->transport);
}

static int call_from_another_thread(tram_loop *loop, void *arg) {
    (void)loop;
    pthread_t thread;
    void *status;
    assert_int_equal(pthread_create(&thread, NULL, close_from_elsewhere, arg), 0);
    assert_int_equal(pthread_join(thread, &status), 0);
    assert_int_equal((intptr_t)status, TRAM_ESTATE);
    return 0;
}

static void test_X_8_debug_mode_catches_a_transport_used_on_another_thread(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    assert_int_equal(tram_loop_call_soon(world->loop, call_from_another_thread, &wire, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(world->exceptions, 1);
    assert_false(tram_transport_is_closing(wire.transport));
    say(wire.peer, "x");
    run_until_traced(world, "data:1");
    close(wire.peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name)  cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
#define DEBUG(name) cmocka_unit_test_setup_teardown(name, world_setup_debug, world_teardown)
        CASE(test_P_1_the_callbacks_of_a_connection_in_their_order),
        CASE(test_P_1_a_protocol_without_callbacks_lives_and_dies),
        CASE(test_P_2_no_made_without_lost_and_no_lost_without_made),
        CASE(test_P_3_P_5_connection_made_is_queued_in_its_place),
        CASE(test_P_4_P_3_made_then_the_creator_then_the_first_data),
        CASE(test_P_6_after_an_end_in_connection_made_there_is_no_data),
        CASE(test_P_6_while_a_close_in_connection_made_flushes_there_is_no_data_either),
        CASE(test_C_16_P_2_a_connection_that_dies_before_made_gets_made_then_lost),
        CASE(test_P_7_eof_received_comes_once_and_no_data_after_it),
        CASE(test_P_8_after_eof_received_returned_0_the_transport_closes_itself),
        CASE(test_P_13_P_8_what_is_buffered_at_the_end_of_the_stream_is_sent_before_connection_lost),
        CASE(test_P_9_after_a_positive_answer_writing_goes_on_until_the_protocol_closes),
        CASE(test_P_10_while_half_open_a_reset_is_noticed_by_writing_only),
        CASE(test_P_12_the_error_is_null_at_a_clean_end_else_it_is_what_ended_the_connection),
        CASE(test_P_14_a_failing_connection_made_is_reported_and_nothing_more),
        CASE(test_P_15_X_5_a_failure_while_receiving_ends_the_connection_with_that_error),
        CASE(test_X_5_a_positive_answer_means_something_from_eof_received_only),
        CASE(test_P_16_a_failing_connection_lost_is_reported_and_the_socket_closed),
        CASE(test_P_18_any_callback_may_do_anything),
        CASE(test_P_19_two_transports_keep_their_own_order_each),
        CASE(test_X_4_released_comes_once_and_last_and_outside),
        CASE(test_X_4_released_comes_when_the_loop_closes_before_connection_made),
        CASE(test_X_4_a_protocol_taken_off_is_released_though_the_loop_closes),
        CASE(test_T_15_X_6_a_given_socket_is_made_non_blocking_and_belongs_to_the_transport),
        CASE(test_P_2_X_6_if_the_factory_fails_nobody_hears_of_a_connection),
        CASE(test_X_7_write_copies_what_it_cannot_send_at_once),
        DEBUG(test_X_8_debug_mode_catches_a_transport_used_on_another_thread),
    };
    return cmocka_run_group_tests_name("protocol", tests, NULL, NULL);
}
