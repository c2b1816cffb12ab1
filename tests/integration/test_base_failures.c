/*
 * What goes wrong around a connection: peers that never read, peers that reset in any state, callbacks that fail at
 * any place, system calls that fail, and memory that is out.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tram/connection.h>
#include <tram/executor.h>
#include <tram/resolver.h>
#include <tram/server.h>
#include <tram/signal.h>

#include "core/backend/backend.h"
#include "core/loop/loop.h"
#include "support/layers.h"
#include "support/stream.h"
#include "transports/base/state.h"
#include "transports/proxy/header_layer.h"
#include "transports/stream/stream.h"

/* One tick that blocks for at most so long; false if nothing happened. For where no timer can be had. */
static bool wait_tick(struct world *world, int timeout_ms) {
    uint64_t timeout_ns;
    struct pollfd poll_fd = {.fd = tram_loop_backend_fd(world->loop), .events = POLLIN};
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    int wait_ms = timeout_ns > timeout_ms * 1000000ull ? timeout_ms : (int)(timeout_ns / 1000000);
    int ready = poll(&poll_fd, 1, wait_ms);
    assert_true(tram_loop_dispatch(world->loop) >= 0);
    return ready > 0 || timeout_ns == 0;
}

/* The loop has nothing to do: it would sleep, and nothing wakes it. */
static void assert_idle(struct world *world) {
    run_ticks(world, 3); /* an event that nobody wants may be reported once */
    uint64_t timeout_ns;
    struct pollfd poll_fd = {.fd = tram_loop_backend_fd(world->loop), .events = POLLIN};
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_true(timeout_ns == TRAM_FOREVER);
    assert_int_equal(poll(&poll_fd, 1, 0), 0);
    assert_true(tram_loop_dispatch(world->loop) >= 0);
}

/* ---- A peer that never reads ---- */

#define MESSAGE 1000

struct producer {
    tram_transport *transport;
    bool paused;
    size_t written;
};

/* Writes whenever it may: all that heeds pause_writing is the flag. */
static int produce(struct recorder *recorder, const char *event) {
    struct producer *producer = recorder->arg;
    if (strcmp(event, "pause") == 0)
        producer->paused = true;
    if (strcmp(event, "resume") == 0)
        producer->paused = false;
    return 0;
}

static void produce_more(struct producer *producer) {
    static const char message[MESSAGE];
    for (int i = 0; i < 10000 && !producer->paused; i++) {
        assert_int_equal(tram_transport_write(producer->transport, message, sizeof message), 0);
        producer->written += sizeof message;
    }
}

static void never_read(struct world *world, bool tcp) {
    enum { CONNECTIONS = 20, HIGH = 65536, CHUNK = 16384 };
    struct stream streams[CONNECTIONS];
    struct producer producers[CONNECTIONS] = {0};
    for (int i = 0; i < CONNECTIONS; i++) {
        streams[i] = stream_open_with(world, recorder_new(world, NULL), tcp);
        producers[i].transport = streams[i].transport;
        streams[i].recorder->on = produce;
        streams[i].recorder->arg = &producers[i];
    }
    size_t before = world->live_bytes;
    world->peak_bytes = before;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < CONNECTIONS; i++)
            produce_more(&producers[i]);
        run_ticks(world, 2);
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        assert_true(producers[i].paused);
        assert_true(tram_transport_get_write_buffer_size(streams[i].transport) <= HIGH + MESSAGE);
        assert_false(tram_transport_is_closing(streams[i].transport));
    }
    assert_true(world->peak_bytes - before <= CONNECTIONS * (HIGH + MESSAGE + 2 * CHUNK));
    assert_idle(world); /* waiting for the peer costs nothing */
    for (int i = 0; i < CONNECTIONS; i++)
        stream_close(&streams[i]);
}

static void test_W_16_W_17_a_TCP_peer_that_never_reads_costs_no_more_than_the_high_mark(void **state) {
    never_read(*state, true);
}

static void test_W_16_W_17_a_Unix_peer_that_never_reads_costs_no_more_than_the_high_mark(void **state) {
    never_read(*state, false);
}

/* An echo that heeds its peer: it reads only while it may write. */
static int echo_politely(struct recorder *recorder, const char *event) {
    tram_transport *transport = recorder->base.transport;
    if (strcmp(event, "updated") == 0) {
        assert_int_equal(tram_transport_write(transport, recorder->buffer, recorder->kept), 0);
        recorder->kept = 0;
    }
    if (strcmp(event, "pause") == 0)
        tram_transport_pause_reading(transport);
    if (strcmp(event, "resume") == 0)
        tram_transport_resume_reading(transport);
    return 0;
}

static void test_W_16_R_4_an_echo_to_a_peer_that_only_sends_stays_bounded(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new_buffered(world, NULL);
    struct stream stream = stream_open_with(world, recorder, true);
    recorder->on = echo_politely;
    recorder->keep = true; /* `kept` is then the size of the last piece */
    size_t before = world->live_bytes, sent = 0, echoed = 0;
    world->peak_bytes = before;
    char bytes[32768];
    for (unsigned idle = 0; idle < 20 || tram_transport_is_reading(stream.transport);) {
        pattern(bytes, sizeof bytes, sent);
        ssize_t taken = send(stream.peer, bytes, sizeof bytes, MSG_NOSIGNAL);
        if (taken > 0)
            sent += (size_t)taken;
        idle = taken > 0 ? 0 : idle + 1;
        run_ticks(world, 1);
        world->trace[0] = '\0';
    }
    assert_false(tram_transport_is_reading(stream.transport));
    assert_true(tram_transport_get_write_buffer_size(stream.transport) <= 65536 + sizeof recorder->buffer);
    assert_true(world->peak_bytes - before < 65536 + 3 * 16384);
    /* And when the peer reads at last, nothing was lost. */
    while (echoed < sent) {
        ssize_t taken = recv(stream.peer, bytes, sizeof bytes, MSG_DONTWAIT);
        if (taken > 0) {
            assert_pattern(bytes, (size_t)taken, echoed);
            echoed += (size_t)taken;
        }
        run_ticks(world, 1);
        world->trace[0] = '\0';
    }
    stream_close(&stream);
}

static void test_T_17_a_protocol_that_heeds_nothing_is_cut_off_at_the_hard_limit(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open_tcp(world);
    tram_transport *transport = tram_transport_hold(stream.transport);
    tram_transport_set_write_hard_limit(transport, 300000);
    size_t before = world->live_bytes;
    world->peak_bytes = before;
    static const char message[MESSAGE];
    for (int i = 0; i < 100000 && !tram_transport_is_closing(transport); i++)
        assert_int_equal(tram_transport_write(transport, message, sizeof message), 0);
    assert_true(tram_transport_is_closing(transport));
    assert_true(world->peak_bytes - before < 300000 + 3 * 16384);
    run_until(world, &stream.recorder->was_released);
    assert_trace(world, "pause lost:TRAM_ELIMIT released");
    tram_transport_release(transport);
    stream_close(&stream);
}

/* ---- A peer that resets ---- */

static struct stream tcp_stream(struct world *world, int eof_returns) {
    struct stream stream = stream_open_tcp(world);
    stream.recorder->eof_returns = eof_returns;
    return stream;
}

static void reset_peer(struct stream *stream) {
    close_with_reset(stream->peer);
    stream->peer = -1;
}

static void test_R_11_C_16_a_reset_before_connection_made(void **state) {
    struct world *world = *state;
    int fds[2];
    tcp_pair(fds);
    close_with_reset(fds[1]);
    struct recorder *recorder = recorder_new(world, NULL);
    transport_new(world, fds[0], recorder);
    run_until(world, &recorder->was_released);
    assert_trace(world, "made lost:ECONNRESET released");
}

static int write_on_made(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") == 0)
        assert_int_equal(tram_transport_write(recorder->base.transport, "hello", 5), 0);
    return 0;
}

static void test_W_5_C_16_a_write_in_connection_made_meets_the_reset(void **state) {
    struct world *world = *state;
    int fds[2];
    tcp_pair(fds);
    close_with_reset(fds[1]);
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = write_on_made;
    transport_new(world, fds[0], recorder);
    run_until(world, &recorder->was_released);
    assert_trace(world, "made lost:ECONNRESET released");
    assert_int_equal(world->exceptions, 0);
}

static void test_R_11_a_reset_while_idle_or_in_data(void **state) {
    struct stream stream = tcp_stream(*state, 0);
    reset_peer(&stream);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "lost:ECONNRESET released");

    for (int buffered = 0; buffered < 2; buffered++) {
        struct recorder *recorder = buffered ? recorder_new_buffered(*state, NULL) : recorder_new(*state, NULL);
        stream = stream_open_with(*state, recorder, true);
        send_exactly(stream.world, stream.peer, "x", 1);
        run_until_traced(stream.world, buffered ? "updated:1" : "data:1");
        reset_peer(&stream);
        run_until(stream.world, &recorder->was_released);
        assert_trace(stream.world, buffered ? "get_buffer updated:1 get_buffer lost:ECONNRESET released"
                                            : "data:1 lost:ECONNRESET released");
    }
    assert_int_equal(stream.world->exceptions, 0);
}

static void test_R_9_a_reset_while_paused_is_noticed_by_reading_or_writing(void **state) {
    for (int way = 0; way < 2; way++) {
        struct stream stream = tcp_stream(*state, 0);
        tram_transport_pause_reading(stream.transport);
        reset_peer(&stream);
        assert_idle(stream.world);
        assert_trace(stream.world, "");
        if (way)
            assert_int_equal(tram_transport_resume_reading(stream.transport), 0);
        else
            assert_int_equal(tram_transport_write(stream.transport, "x", 1), 0);
        run_until(stream.world, &stream.recorder->was_released);
        assert_trace(stream.world, "lost:ECONNRESET released");
    }
}

static void test_W_29_a_reset_with_data_queued(void **state) {
    for (int paused = 0; paused < 2; paused++) {
        struct stream stream = tcp_stream(*state, 0);
        fill(stream.transport, 100000);
        if (paused)
            tram_transport_pause_reading(stream.transport);
        reset_peer(&stream);
        run_until(stream.world, &stream.recorder->was_released);
        assert_trace(stream.world, "pause lost:ECONNRESET released");
    }
}

static void test_W_26_a_reset_around_write_eof(void **state) {
    /* While it flushes; when the end is out. */
    struct stream stream = tcp_stream(*state, 0);
    fill(stream.transport, 100000);
    tram_transport_write_eof(stream.transport);
    reset_peer(&stream);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "pause lost:ECONNRESET released");

    stream = tcp_stream(*state, 0);
    tram_transport_write_eof(stream.transport);
    reset_peer(&stream);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "lost:ECONNRESET released");
}

static void test_P_10_a_reset_while_half_open_is_noticed(void **state) {
    struct stream stream = tcp_stream(*state, 1);
    shutdown(stream.peer, SHUT_WR);
    run_until_traced(stream.world, "eof");
    stream.world->trace[0] = '\0';
    reset_peer(&stream);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "lost:EPIPE released");

    stream = tcp_stream(*state, 1);
    fill(stream.transport, 100000);
    shutdown(stream.peer, SHUT_WR);
    run_until_traced(stream.world, "eof");
    reset_peer(&stream);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "pause eof lost:EPIPE released");
}

static void test_T_3_a_reset_while_closing_or_corked(void **state) {
    struct stream stream = tcp_stream(*state, 0);
    fill(stream.transport, 100000);
    tram_transport_close(stream.transport);
    reset_peer(&stream);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "pause lost:ECONNRESET released");

    stream = tcp_stream(*state, 0);
    tram_transport_close(stream.transport);
    reset_peer(&stream);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "lost:0 released"); /* the end was certain already */

    stream = tcp_stream(*state, 0);
    tram_transport_cork(stream.transport);
    assert_int_equal(write_pattern(stream.transport, 1000, 0), 0);
    reset_peer(&stream);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "lost:ECONNRESET released");
}

/* ---- Callbacks that fail ---- */

struct failure {
    const char *event;
    int code;
};

static int user_object;

static int fail_at(struct recorder *recorder, const char *event) {
    const struct failure *failure = recorder->arg;
    if (!failure || strcmp(event, failure->event) != 0)
        return strcmp(event, "eof") == 0 ? recorder->eof_returns : 0;
    return tram_loop_raise(recorder->world->loop, failure->code, &user_object, "on order");
}

static const int failing_codes[] = {-EPERM, -ECONNRESET, TRAM_EUSER, TRAM_ESTATE, -123456};

static void assert_reported(struct world *world, struct recorder *recorder, unsigned count, int code) {
    assert_int_equal(world->exceptions, count);
    assert_int_equal(world->exception_code, code);
    assert_ptr_equal(world->exception_user, &user_object);
    assert_ptr_equal(world->exception_protocol, recorder);
    assert_non_null(world->exception_transport);
}

static void test_P_14_a_failing_connection_made_is_reported_and_the_connection_lives(void **state) {
    struct world *world = *state;
    for (size_t i = 0; i < sizeof failing_codes / sizeof failing_codes[0]; i++) {
        struct failure failure = {"made", failing_codes[i]};
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->on = fail_at;
        recorder->arg = &failure;
        struct stream stream = stream_open_with(world, recorder, false);
        assert_reported(world, recorder, (unsigned)i + 1, failing_codes[i]);
        send_exactly(world, stream.peer, "x", 1);
        run_until_traced(world, "data:1");
        assert_int_equal(write_pattern(stream.transport, 10, 0), 0);
        read_pattern(&stream, 10, 0);
        shutdown(stream.peer, SHUT_WR);
        run_until(world, &recorder->was_released);
        assert_trace(world, "data:1 eof lost:0 released");
        stream_close(&stream);
    }
}

static void test_P_15_T_16_T_17_failing_receiving_callbacks_are_fatal(void **state) {
    static const struct {
        const char *event;
        bool buffered;
        const char *expected;
    } places[] = {
        {"data", false, "data:1 lost:%s released"},
        {"eof", false, "data:1 eof lost:%s released"},
        {"get_buffer", true, "get_buffer lost:%s released"},
        {"updated", true, "get_buffer updated:1 lost:%s released"},
        {"eof", true, "get_buffer updated:1 get_buffer eof lost:%s released"},
    };
    struct world *world = *state;
    unsigned exceptions = 0;
    for (size_t place = 0; place < sizeof places / sizeof places[0]; place++) {
        for (size_t i = 0; i < sizeof failing_codes / sizeof failing_codes[0]; i++) {
            int code = failing_codes[i];
            struct failure failure = {places[place].event, code};
            struct recorder *recorder =
                places[place].buffered ? recorder_new_buffered(world, NULL) : recorder_new(world, NULL);
            struct stream stream = stream_open_with(world, recorder, false);
            recorder->on = fail_at;
            recorder->arg = &failure;
            fill(stream.transport, 100); /* dropped with the error */
            send_exactly(world, stream.peer, "x", 1);
            if (strcmp(places[place].event, "eof") == 0) {
                run_until_traced(world, ":1");
                shutdown(stream.peer, SHUT_WR);
            }
            run_until(world, &recorder->was_released);
            char expected[100];
            snprintf(expected, sizeof expected, places[place].expected, tram_error_name(code));
            assert_trace(world, expected);
            assert_int_equal(recorder->lost_code, code);
            assert_ptr_equal(recorder->lost_user, &user_object);
            if (code < -4096)
                assert_reported(world, recorder, ++exceptions, code);
            assert_int_equal(world->exceptions, exceptions);
            stream_close(&stream);
        }
    }
}

static int close_and_fail(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") != 0)
        return 0;
    tram_transport_close(recorder->base.transport);
    return TRAM_EUSER;
}

static void test_P_15_a_failing_callback_after_its_own_close_changes_nothing(void **state) {
    struct stream stream = stream_open(*state);
    stream.recorder->on = close_and_fail;
    send_exactly(stream.world, stream.peer, "x", 1);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "data:1 lost:0 released");
    assert_int_equal(stream.world->exceptions, 1); /* but it is reported (T-16) */
    stream_close(&stream);
}

static void test_P_16_a_failing_connection_lost_is_reported_and_the_socket_closed(void **state) {
    struct world *world = *state;
    for (size_t i = 0; i < sizeof failing_codes / sizeof failing_codes[0]; i++) {
        struct failure failure = {"lost", failing_codes[i]};
        struct stream stream = stream_open(world);
        stream.recorder->on = fail_at;
        stream.recorder->arg = &failure;
        tram_transport_close(stream.transport);
        run_until(world, &stream.recorder->was_released);
        assert_reported(world, stream.recorder, (unsigned)i + 1, failing_codes[i]);
        assert_trace(world, "lost:0 released");
        assert_true(receive_eof(world, stream.peer));
        stream_close(&stream);
    }
}

static void test_W_22_failing_pause_and_resume_are_reported_whatever_the_code(void **state) {
    struct world *world = *state;
    unsigned exceptions = 0;
    static const char *const events[] = {"pause", "resume"};
    for (size_t event = 0; event < 2; event++) {
        for (size_t i = 0; i < sizeof failing_codes / sizeof failing_codes[0]; i++) {
            struct failure failure = {events[event], failing_codes[i]};
            struct stream stream = stream_open(world);
            stream.recorder->on = fail_at;
            stream.recorder->arg = &failure;
            tram_transport_set_write_buffer_limits(stream.transport, 100, 0);
            faults.send_budget = 0;
            assert_int_equal(write_pattern(stream.transport, 200, 0), 0);
            faults.send_budget = SIZE_MAX;
            read_pattern(&stream, 200, 0);
            assert_trace(world, "pause resume");
            assert_reported(world, stream.recorder, ++exceptions, failing_codes[i]);
            assert_false(tram_transport_is_closing(stream.transport));
            stream_close(&stream);
        }
    }
}

static int broken_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)ret_protocol;
    return tram_loop_raise(loop, *(const int *)arg, &user_object, "no protocol today");
}

static void test_C_13_P_2_a_failing_factory_closes_the_socket(void **state) {
    struct world *world = *state;
    for (size_t i = 0; i < sizeof failing_codes / sizeof failing_codes[0]; i++) {
        int fds[2], code = failing_codes[i];
        unix_pair(fds);
        tram_future *future;
        assert_int_equal(tram_loop_connect_accepted_socket(world->loop, broken_factory, &code, fds[0], &future), 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), code);
        assert_ptr_equal(tram_future_error(future)->user, &user_object);
        tram_future_release(future);
        assert_true(receive_eof(world, fds[1]));
        close(fds[1]);
    }
    assert_int_equal(world->exceptions, 0);
}

/* ---- System calls that fail ---- */

static void test_L_38_interrupted_and_short_sends_are_not_seen(void **state) {
    struct stream stream = stream_open(*state);
    char bytes[2000];
    pattern(bytes, sizeof bytes, 0);
    fail_next(&faults.send, EINTR, 3);
    faults.send_at_most = 300;
    assert_int_equal(tram_transport_write(stream.transport, bytes, 1000), 0); /* at once */
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 700);
    fail_next(&faults.send, EINTR, 3);
    run_ticks(stream.world, 1); /* in the flush */
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 400);
    run_ticks(stream.world, 2);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    fail_next(&faults.send, EINTR, 3);
    faults.send_at_most = 150;
    struct iovec pieces[2] = {{bytes + 1000, 100}, {bytes + 1100, 900}};
    assert_int_equal(tram_transport_writelines(stream.transport, pieces, 2), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 850);
    read_pattern(&stream, 2000, 0);
    assert_trace(stream.world, "");
    stream_close(&stream);
}

static void test_W_5_W_29_every_error_of_send_ends_the_connection_with_it(void **state) {
    static const int errors[] = {EPIPE, ECONNRESET, ENETDOWN, ETIMEDOUT, EHOSTUNREACH};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        for (int way = 0; way < 4; way++) {
            struct stream stream = stream_open(world);
            struct iovec pieces[2] = {{"ab", 2}, {"cd", 2}};
            if (way == 2) {
                faults.send_budget = 0;
                assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
            }
            if (way == 3) {
                tram_transport_cork(stream.transport);
                assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
            }
            fail_next(&faults.send, errors[i], 1);
            if (way == 0)
                assert_int_equal(tram_transport_write(stream.transport, "x", 1), 0);
            else if (way == 1)
                assert_int_equal(tram_transport_writelines(stream.transport, pieces, 2), 0);
            else if (way == 2)
                run_ticks(world, 1);
            else
                assert_int_equal(tram_transport_uncork(stream.transport), 0);
            assert_false(tram_transport_is_closing(stream.transport));
            assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
            run_until(world, &stream.recorder->was_released);
            char expected[100];
            snprintf(expected, sizeof expected, "lost:%s released", tram_error_name(-errors[i]));
            assert_trace(world, expected);
            assert_int_equal(faults.send.fail, 0);
            faults.send_budget = SIZE_MAX;
            stream_close(&stream);
        }
    }
    assert_int_equal(world->exceptions, 0);
}

static void test_R_11_L_38_errors_of_recv(void **state) {
    static const int errors[] = {ECONNRESET, ETIMEDOUT, ENOMEM};
    struct world *world = *state;
    for (int buffered = 0; buffered < 2; buffered++) {
        for (size_t i = 0; i < 3; i++) {
            struct recorder *recorder = buffered ? recorder_new_buffered(world, NULL) : recorder_new(world, NULL);
            struct stream stream = stream_open_with(world, recorder, false);
            fail_next(&faults.recv, EINTR, 2);
            send_exactly(world, stream.peer, "x", 1);
            run_ticks(world, 1);
            assert_trace(world, buffered ? "get_buffer updated:1" : "data:1");
            fail_next(&faults.recv, EAGAIN, 1); /* a readiness that was none */
            send_exactly(world, stream.peer, "y", 1);
            run_ticks(world, 1);
            assert_trace(world, buffered ? "get_buffer" : "");
            run_ticks(world, 1);
            assert_trace(world, buffered ? "get_buffer updated:1" : "data:1");
            fill(stream.transport, 1000);
            fail_next(&faults.recv, errors[i], 1);
            send_exactly(world, stream.peer, "z", 1);
            run_until(world, &recorder->was_released);
            char expected[100];
            snprintf(expected, sizeof expected, "%slost:%s released", buffered ? "get_buffer " : "",
                     tram_error_name(-errors[i]));
            assert_trace(world, expected);
            stream_close(&stream);
        }
    }
    assert_int_equal(world->exceptions, 0);
}

static void test_T_16_a_loop_that_cannot_arm_reading_ends_the_connection(void **state) {
    struct world *world = *state;
    int fds[2];
    unix_pair(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    transport_new(world, fds[0], recorder);
    fail_next(&faults.arm_read, ENOMEM, FAULT_ALWAYS);
    run_until(world, &recorder->was_released);
    assert_trace(world, "made lost:ENOMEM released");
    assert_true(receive_eof(NULL, fds[1]));
    close(fds[1]);
    fail_next(&faults.arm_read, 0, 0);

    /* The same when reading is resumed after the kernel was told to forget it. */
    struct stream stream = stream_open(world);
    tram_transport_pause_reading(stream.transport);
    send_exactly(world, stream.peer, "x", 1);
    run_ticks(world, 2);
    fail_next(&faults.arm_read, ENOSPC, FAULT_ALWAYS);
    assert_int_equal(tram_transport_resume_reading(stream.transport), 0);
    run_until(world, &stream.recorder->was_released);
    assert_trace(world, "lost:ENOSPC released");
    stream_close(&stream);
}

static void test_T_16_a_loop_that_cannot_arm_writing_ends_the_connection(void **state) {
    static const int errors[] = {ENOMEM, ENOSPC};
    struct world *world = *state;
    for (size_t i = 0; i < 2; i++) {
        for (int way = 0; way < 4; way++) {
            struct stream stream = stream_open(world);
            struct iovec piece = {"ab", 2};
            tram_buffer *buffer = tram_buffer_copy("ab", 2);
            faults.send_budget = 1;
            fail_next(&faults.arm_write, errors[i], FAULT_ALWAYS);
            if (way == 0) {
                assert_int_equal(tram_transport_write(stream.transport, "ab", 2), 0);
            } else if (way == 1) {
                assert_int_equal(tram_transport_writelines(stream.transport, &piece, 1), 0);
            } else if (way == 2) {
                assert_int_equal(tram_transport_write_buffer(stream.transport, buffer), 0);
            } else {
                tram_transport_cork(stream.transport);
                assert_int_equal(tram_transport_write(stream.transport, "ab", 2), 0);
                assert_int_equal(tram_transport_uncork(stream.transport), 0);
            }
            assert_true(tram_transport_is_closing(stream.transport));
            assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
            run_until(world, &stream.recorder->was_released);
            assert_trace(world, i ? "lost:ENOSPC released" : "lost:ENOMEM released");
            tram_buffer_release(buffer);
            fail_next(&faults.arm_write, 0, 0);
            faults.send_budget = SIZE_MAX;
            stream_close(&stream);
        }
    }
}

/* A kernel without memory is asked again after a while, if that can be. */
static void test_W_5_T_16_a_send_that_cannot_be_tried_again_ends_the_connection(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    fail_next(&faults.send, ENOBUFS, 2); /* within the write, and when the poller says that there is room */
    fail_next(&faults.arm_write, ENOSPC, FAULT_ALWAYS);
    faults.arm_write.skip = 1;
    assert_int_equal(tram_transport_write(stream.transport, "x", 1), 0);
    run_until(world, &stream.recorder->was_released);
    assert_trace(world, "lost:ENOSPC released");
    fail_next(&faults.arm_write, 0, 0);
    stream_close(&stream);

    stream = stream_open(world);
    world_lacks_timers(world);
    fail_next(&faults.send, ENOBUFS, 2);
    assert_int_equal(tram_transport_write(stream.transport, "x", 1), 0);
    run_ticks(world, 5);
    world_has_timers(world);
    assert_trace(world, "lost:ENOBUFS released");
    stream_close(&stream);
}

static void test_W_2_disarming_that_fails_is_made_good(void **state) {
    struct stream stream = stream_open(*state);
    faults.send_budget = 10;
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    faults.send_budget = SIZE_MAX;
    fail_next(&faults.arm_read, ENOMEM, 2); /* when all is out, EPOLLIN alone is asked for */
    read_pattern(&stream, 100, 0);
    assert_idle(stream.world);
    send_exactly(stream.world, stream.peer, "x", 1);
    run_until_traced(stream.world, "data:1");
    assert_int_equal(write_pattern(stream.transport, 10, 0), 0);
    read_pattern(&stream, 10, 0);
    stream_close(&stream);
}

static void test_W_26_a_failing_shutdown_is_told_or_left_to_the_peer(void **state) {
    struct stream stream = stream_open(*state);
    fail_next(&faults.shutdown, ENOTCONN, 1);
    assert_int_equal(tram_transport_write_eof(stream.transport), -ENOTCONN);
    assert_false(tram_transport_is_closing(stream.transport));
    assert_int_equal(tram_transport_write(stream.transport, "x", 1), TRAM_ESTATE); /* it counts as ended (W-9) */
    stream_close(&stream);

    stream = stream_open(*state);
    faults.send_budget = 0;
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    fail_next(&faults.shutdown, ENOTCONN, 1);
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 100, 0);
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "");
    assert_int_equal(faults.shutdown.calls, 2);
    stream_close(&stream);
}

static void test_T_9_T_14_calls_that_only_inform_may_fail(void **state) {
    fail_next(&faults.setsockopt, EINVAL, FAULT_ALWAYS);
    fail_next(&faults.getsockname, EBADF, FAULT_ALWAYS);
    struct stream stream = stream_open_tcp(*state);
    assert_ptr_equal(tram_transport_get_extra_info(stream.transport, "sockname", &stream), &stream);
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    read_pattern(&stream, 100, 0);
    tram_transport_hold(stream.transport);
    tram_transport_close(stream.transport);
    run_until(stream.world, &stream.recorder->was_released);
    assert_ptr_equal(tram_transport_get_extra_info(stream.transport, "sockname", NULL), NULL);
    tram_transport_release(stream.transport);
    stream_close(&stream);
}

/* ---- Memory is out ---- */

/* Runs until the operation is done: no timer is at hand to give up by. */
static void finish(struct world *world, int status, tram_future *future) {
    assert_true(ok_or_no_memory(status));
    if (status)
        return;
    for (int idle = 0; !tram_future_done(future); idle += !wait_tick(world, 50))
        assert_true(idle < 200);
    assert_true(ok_or_no_memory(tram_future_result(future, NULL)));
    tram_future_release(future);
}

static void use_callbacks(struct world *world) {
    tram_loop *loop = world->loop;
    unsigned expected = 0;
    world->trace[0] = '\0';
    for (int i = 0; i < 70; i++) { /* more than one chunk of each */
        tram_handle handle;
        int status = tram_loop_call_soon(loop, trace_callback, ".", NULL, &handle);
        assert_true(ok_or_no_memory(status));
        expected += status == 0;
        status = tram_loop_call_later(loop, 0, trace_callback, ".", NULL, &handle);
        assert_true(ok_or_no_memory(status));
        expected += status == 0;
        status = tram_loop_call_soon_threadsafe(loop, trace_callback, ".", NULL);
        assert_true(ok_or_no_memory(status));
        expected += status == 0;
        assert_true(
            ok_or_no_memory(tram_loop_call_later(loop, 3600 * 1000000000ll, trace_callback, "late", NULL, NULL)));
    }
    run_ticks(world, 5);
    unsigned ran = 0;
    for (const char *c = world->trace; *c; c++)
        ran += *c == '.';
    assert_int_equal(ran, expected); /* what was accepted runs, what was refused does not */
    world->trace[0] = '\0';
}

static void use_descriptors(struct world *world) {
    int fds[2];
    unix_pair(fds);
    int reader = tram_loop_add_reader(world->loop, fds[0], trace_callback, "reader");
    int writer = tram_loop_add_writer(world->loop, fds[0], trace_callback, "writer");
    assert_true(ok_or_no_memory(reader) && ok_or_no_memory(writer));
    run_ticks(world, 1);
    assert_trace(world, writer == 0 ? "writer" : "");
    assert_int_equal(tram_loop_remove_writer(world->loop, fds[0]), writer == 0);
    assert_int_equal(tram_loop_remove_reader(world->loop, fds[0]), reader == 0);
    close(fds[0]);
    close(fds[1]);
}

static int count_done(tram_future *future, void *arg) {
    assert_true(tram_future_done(future));
    ++*(unsigned *)arg;
    return 0;
}

static void use_futures(struct world *world) {
    tram_future *future;
    int status = tram_loop_create_future(world->loop, &future);
    assert_true(ok_or_no_memory(status));
    if (status)
        return;
    unsigned done = 0, expected = 0;
    for (int i = 0; i < 3; i++) {
        status = tram_future_add_done_callback(future, count_done, &done);
        assert_true(ok_or_no_memory(status));
        expected += status == 0;
    }
    tram_error cause = {.code = -EPERM, .operation = "cause"};
    const tram_error *causes[] = {&cause};
    tram_error error = {.code = TRAM_EUSER, .operation = "test", .detail = "text", .causes = causes, .cause_count = 1};
    assert_int_equal(tram_future_set_error(future, &error), 0); /* without its texts, if need be */
    assert_int_equal(tram_future_result(future, NULL), TRAM_EUSER);
    assert_non_null(tram_future_error(future)->operation);
    status = tram_future_add_done_callback(future, count_done, &done);
    assert_true(ok_or_no_memory(status));
    expected += status == 0;
    run_ticks(world, 2);
    assert_int_equal(done, expected);
    tram_future_release(future);
}

/* A stream that writes much to a slow reader; it may end with -ENOMEM, and says so. */
static void use_stream(struct world *world, bool tcp) {
    enum { SIZE = 400000 };
    int fds[2];
    if (tcp)
        tcp_pair(fds);
    else
        unix_pair(fds);
    struct recorder *recorder = recorder_new(world, NULL), *second = recorder_new(world, NULL);
    struct stream_options options = {0};
    struct stream stream = {.world = world, .recorder = second, .peer = fds[1]};
    int status = transport_state_open(world->loop);
    if (!status)
        status = tram__stream_new(world->loop, fds[0], &recorder->base, &options, &stream.transport);
    assert_true(ok_or_no_memory(status));
    if (status) { /* both stay the caller's */
        close(fds[0]);
        close(fds[1]);
        run_ticks(world, 1);
        assert_false(recorder->made || recorder->was_released);
        return;
    }
    run_ticks(world, 1);
    assert_true(recorder->made);
    assert_int_equal(tram_transport_set_protocol(stream.transport, &second->base), 0);
    run_ticks(world, 1);
    assert_true(recorder->was_released);
    tram_transport_get_extra_info(stream.transport, "peername", NULL);
    tram_transport_get_extra_info(stream.transport, "sockname", NULL);
    static char bytes[SIZE];
    pattern(bytes, SIZE, 0);
    tram_buffer *buffer = tram_buffer_copy(bytes + SIZE - 100, 100);
    size_t written = 0;
    for (; written < SIZE - 100; written += 1000) {
        size_t part = written + 1000 < SIZE - 100 ? 1000 : SIZE - 100 - written;
        struct iovec pieces[2] = {{bytes + written, part / 2}, {bytes + written + part / 2, part - part / 2}};
        status = written / 1000 % 3 ? tram_transport_write(stream.transport, bytes + written, part)
                                    : tram_transport_writelines(stream.transport, pieces, 2);
        assert_true(ok_or_no_memory(status));
        if (status)
            break;
    }
    if (!status && buffer)
        status = tram_transport_write_buffer(stream.transport, buffer);
    else if (!status)
        status = tram_transport_write(stream.transport, bytes + SIZE - 100, 100);
    assert_true(ok_or_no_memory(status));
    tram_buffer_release(buffer);
    if (status) {
        assert_true(tram_transport_is_closing(stream.transport));
        assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
        assert_false(second->lost); /* not inside the write */
        run_ticks(world, 2);
        assert_int_equal(second->lost_code, -ENOMEM);
    } else {
        read_pattern(&stream, SIZE, 0);
        tram_transport_close(stream.transport);
        run_ticks(world, 2);
        assert_int_equal(second->lost_code, 0);
    }
    assert_true(second->lost && second->was_released);
    close_with_reset(fds[1]); /* a thousand of these would fill the ports with TIME_WAIT */
    world->trace[0] = '\0';
}

static int do_work(void *arg, void **ret_result) {
    *ret_result = arg;
    return 0;
}

static void use_operations(struct world *world) {
    tram_loop *loop = world->loop;
    tram_future *future = NULL;
    int status = tram_loop_getaddrinfo(loop, "127.0.0.1", "80", NULL, &future);
    finish(world, status, future);
    status = tram_loop_run_in_executor(loop, NULL, do_work, NULL, NULL, &future);
    finish(world, status, future);
}

/* A server, and a connection to it from this loop. */
static void use_connection(struct world *world) {
    tram_loop *loop = world->loop;
    tram_future *future = NULL;
    int status = tram_loop_create_server(loop, recorder_factory, world, "127.0.0.1", "0", NULL, &future);
    assert_true(ok_or_no_memory(status));
    if (status)
        return;
    tram_future_hold(future);
    finish(world, status, future);
    void *value = NULL;
    status = tram_future_result(future, &value);
    tram_server *server = value;
    tram_future_release(future);
    if (status)
        return;
    tram_socket_address address;
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_socket_address_text(&address, text, sizeof text);
    status =
        tram_loop_create_connection(loop, recorder_factory, world, "127.0.0.1", strrchr(text, ':') + 1, NULL, &future);
    assert_true(ok_or_no_memory(status));
    if (!status) {
        tram_future_hold(future);
        finish(world, status, future);
        if (tram_future_result(future, &value) == 0) {
            struct linger linger = {.l_onoff = 1}; /* no TIME_WAIT here either */
            const tram_socket *socket = tram_transport_get_extra_info(value, "socket", NULL);
            if (socket)
                setsockopt(socket->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
            tram_transport_close(value);
        }
        tram_future_release(future);
    }
    assert_int_equal(tram_server_close(server), 0);
    for (int idle = 0; tram_server_connection_count(server); idle += !wait_tick(world, 50))
        assert_true(idle < 200);
    tram_server_release(server);
    run_ticks(world, 2);
    world->trace[0] = '\0';
}

/* ---- The same of what only some programs use ---- */

static int nothing(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    return 0;
}

static void use_signals(struct world *world) {
    if (had_memory(tram_loop_add_signal_handler(world->loop, SIGUSR2, nothing, NULL)))
        assert_int_equal(tram_loop_remove_signal_handler(world->loop, SIGUSR2), 1);
}

/* Without any task. */
static void use_combined_futures(struct world *world) {
    tram_future *inner, *outer;
    if (!had_memory(tram_loop_create_future(world->loop, &inner)))
        return;
    if (had_memory(tram_shield(inner, &outer)))
        tram_future_release(outer);
    if (had_memory(tram_gather(world->loop, &inner, 1, 0, &outer)))
        tram_future_release(outer);
    assert_int_equal(tram_future_set_result(inner, NULL), 0);
    tram_future_release(inner);
    run_ticks(world, 2);
}

static void use_a_reader(struct world *world) {
    tram_stream_reader *reader;
    if (!had_memory(tram_stream_reader_new(world->loop, 10, &reader)))
        return;
    if (had_memory(tram_stream_reader_feed_data(reader, "some", 4)))
        assert_int_equal(tram_stream_reader_feed_eof(reader), 0);
    assert_int_equal(tram_stream_reader_free(reader), 0);
    tram_stream_writer *writer;
    tram_protocol *protocol;
    if (!had_memory(tram_stream_new(world->loop, 0, &protocol, &reader, &writer)))
        return;
    protocol->ops->released(protocol); /* no transport took it */
    tram_stream_writer_release(writer);
}

/* A layer with bytes that came before it, and one for a header that never comes. */
static void use_layers(struct world *world) {
    unsigned live = 0;
    for (int header = 0; header < 2; header++) {
        int fds[2];
        unix_pair(fds);
        struct recorder *recorder = recorder_new(world, NULL);
        tram_transport *transport;
        if (had_memory(transport_try_new(world, fds[0], &recorder->base, NULL, &transport))) {
            struct codec *codec = header ? NULL : codec_new(world, &codec_kind, &live);
            int status = header ? tram__proxy_push(transport, 1000000000)
                                : tram__transport_push_layer(transport, &codec->layer, "bytes", 5);
            if (!had_memory(status) && codec)
                codec->layer.kind->free(&codec->layer);
            tram_transport_hold(transport);
            run_ticks(world, 2);
            tram_transport_abort(transport);
            tram_transport_release(transport);
            run_ticks(world, 2);
            assert_true(recorder->was_released);
        } else {
            close(fds[0]);
        }
        close(fds[1]);
    }
    assert_int_equal(live, 0);
    world->trace[0] = '\0';
}

static void use_early_data(struct world *world) {
    uint16_t port;
    int listener = tcp_listener(4, &port);
    char number[8];
    snprintf(number, sizeof number, "%u", port);
    const tram_proxy_header header = {.version = 2};
    const tram_connection_options options = {
        .proxy_header = &header, .early_data = "early", .early_size = 5, .interleave = 1, .local_host = "127.0.0.1"};
    tram_future *future = NULL;
    int status =
        tram_loop_create_connection(world->loop, recorder_factory, world, "127.0.0.1", number, &options, &future);
    if (had_memory(status)) {
        void *transport = NULL;
        tram_future_hold(future);
        finish(world, status, future);
        if (tram_future_result(future, &transport) == 0)
            tram_transport_reset(transport);
        tram_future_release(future);
        run_ticks(world, 2);
    }
    close(listener);
    world->trace[0] = '\0';
}

/* ---- No memory for a timer ---- */

static int wait_without_timers(void *arg) {
    tram_future *pending = arg;
    tram_completions *completions;
    tram_timeout *timeout;
    assert_int_equal(tram_sleep(HOUR_NS), -ENOMEM);
    assert_int_equal(tram_wait_for(pending, HOUR_NS, NULL), -ENOMEM);
    assert_int_equal(tram_wait(&pending, 1, HOUR_NS, TRAM_ALL_COMPLETED), -ENOMEM);
    assert_int_equal(tram_as_completed(&pending, 1, HOUR_NS, &completions), -ENOMEM);
    assert_int_equal(tram_timeout_begin(HOUR_NS, &timeout), -ENOMEM);
    return 7;
}

static int on_timeout(tram_transport *transport, void *arg) {
    (void)transport, (void)arg;
    fail();
    return 0;
}

static void test_X_1_without_memory_for_a_timer(void **state) {
    struct world *world = *state;
    tram_loop *loop = world->loop;
    struct stream stream = stream_open(world), other = stream_open(world);
    const tram_bridge_options idle = {.idle_timeout_ns = HOUR_NS};
    const tram_connection_options limited = {.timeout_ns = HOUR_NS};
    unsigned live = 0;
    struct codec *codec = codec_new(world, &codec_kind, &live);
    tram_future *pending, *future = NULL;
    tram_task *task;
    tram_handle handle;
    codec->layer.start_timeout_ns = HOUR_NS;
    assert_int_equal(tram_loop_create_future(loop, &pending), 0);
    assert_int_equal(tram_loop_create_server(loop, recorder_factory, world, "127.0.0.1", "0", NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(loop, future), 0);
    tram_server *server = tram_future_server(future);
    tram_future_release(future);
    assert_int_equal(tram_transport_begin_work(stream.transport), 0); /* so that it has what timers need besides */
    assert_int_equal(tram_transport_end_work(stream.transport), 0);
    world_lacks_timers(world);
    assert_int_equal(tram_task_spawn(loop, wait_without_timers, pending, NULL, &task), 0);
    assert_int_equal(tram_loop_call_later(loop, HOUR_NS, nothing, NULL, NULL, &handle), -ENOMEM);
    assert_int_equal(tram_transport_call_later(stream.transport, HOUR_NS, on_timeout, NULL), -ENOMEM);
    assert_int_equal(tram_bridge(stream.transport, other.transport, &idle, &future), -ENOMEM);
    assert_int_equal(tram_loop_peek(loop, stream.peer, 1, HOUR_NS, &future), -ENOMEM);
    assert_int_equal(tram_loop_create_connection(loop, recorder_factory, world, "127.0.0.1", "1", &limited, &future),
                     -ENOMEM);
    assert_int_equal(tram__transport_push_layer(stream.transport, &codec->layer, NULL, 0), -ENOMEM);
    assert_int_equal(tram__proxy_push(stream.transport, HOUR_NS), -ENOMEM);
    run_ticks(world, 3);
    assert_int_equal(tram_task_result(task), 7);
    assert_int_equal(tram_server_drain(server, HOUR_NS, &future), 0);
    run_ticks(world, 2);
    assert_int_equal(tram_future_result(future, NULL), -ENOMEM);
    tram_future_release(future);
    world_has_timers(world);
    assert_trace(world, ""); /* nobody has heard of it */
    codec->layer.kind->free(&codec->layer);
    assert_int_equal(live, 0);
    tram_task_release(task);
    tram_future_release(pending);
    tram_server_close(server);
    tram_server_release(server);
    assert_int_equal(write_pattern(stream.transport, 10, 0), 0); /* and it goes on */
    read_pattern(&stream, 10, 0);
    stream_close(&stream);
    stream_close(&other);
}

static void use_the_rest(struct world *world) {
    use_signals(world);
    use_combined_futures(world);
    use_a_reader(world);
    use_layers(world);
    use_early_data(world);
}

static void test_X_1_without_memory_for_what_some_use(void **state) {
    for (int once = 0; once < 2; once++) {
        run_out_of_other_memory(*state, once, use_the_rest);
        run_out_of_memory(*state, once, use_the_rest);
    }
}

static void use_everything(struct world *world) {
    use_callbacks(world);
    use_descriptors(world);
    use_futures(world);
    use_stream(world, false);
    use_stream(world, true);
    use_operations(world);
    use_connection(world);
}

static void test_X_1_when_memory_runs_out_every_call_says_so(void **state) {
    run_out_of_memory(*state, false, use_everything);
}

static void test_X_1_when_one_allocation_fails_the_rest_works(void **state) {
    run_out_of_memory(*state, true, use_everything);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_W_16_W_17_a_TCP_peer_that_never_reads_costs_no_more_than_the_high_mark),
        TEST(test_W_16_W_17_a_Unix_peer_that_never_reads_costs_no_more_than_the_high_mark),
        TEST(test_W_16_R_4_an_echo_to_a_peer_that_only_sends_stays_bounded),
        TEST(test_T_17_a_protocol_that_heeds_nothing_is_cut_off_at_the_hard_limit),
        TEST(test_R_11_C_16_a_reset_before_connection_made),
        TEST(test_W_5_C_16_a_write_in_connection_made_meets_the_reset),
        TEST(test_R_11_a_reset_while_idle_or_in_data),
        TEST(test_R_9_a_reset_while_paused_is_noticed_by_reading_or_writing),
        TEST(test_W_29_a_reset_with_data_queued),
        TEST(test_W_26_a_reset_around_write_eof),
        TEST(test_P_10_a_reset_while_half_open_is_noticed),
        TEST(test_T_3_a_reset_while_closing_or_corked),
        TEST(test_P_14_a_failing_connection_made_is_reported_and_the_connection_lives),
        TEST(test_P_15_T_16_T_17_failing_receiving_callbacks_are_fatal),
        TEST(test_P_15_a_failing_callback_after_its_own_close_changes_nothing),
        TEST(test_P_16_a_failing_connection_lost_is_reported_and_the_socket_closed),
        TEST(test_W_22_failing_pause_and_resume_are_reported_whatever_the_code),
        TEST(test_C_13_P_2_a_failing_factory_closes_the_socket),
        TEST(test_L_38_interrupted_and_short_sends_are_not_seen),
        TEST(test_W_5_W_29_every_error_of_send_ends_the_connection_with_it),
        TEST(test_R_11_L_38_errors_of_recv),
        TEST(test_T_16_a_loop_that_cannot_arm_reading_ends_the_connection),
        TEST(test_T_16_a_loop_that_cannot_arm_writing_ends_the_connection),
        TEST(test_W_5_T_16_a_send_that_cannot_be_tried_again_ends_the_connection),
        TEST(test_W_2_disarming_that_fails_is_made_good),
        TEST(test_W_26_a_failing_shutdown_is_told_or_left_to_the_peer),
        TEST(test_T_9_T_14_calls_that_only_inform_may_fail),
        TEST(test_X_1_without_memory_for_a_timer),
        TEST(test_X_1_without_memory_for_what_some_use),
        TEST(test_X_1_when_memory_runs_out_every_call_says_so),
        TEST(test_X_1_when_one_allocation_fails_the_rest_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
