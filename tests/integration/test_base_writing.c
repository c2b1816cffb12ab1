/* Rules W-1 to W-12 and W-24 to W-29: what a write does with its bytes, and how the sending side ends. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/stream.h"

/* ---- Sending ---- */

static void test_W_1_a_write_never_blocks_and_nothing_overtakes(void **state) {
    struct stream stream = stream_open(*state);
    /* Far beyond any kernel buffer, with a peer that reads nothing: a write that waited would wait for ever. */
    const size_t size = 4u << 20;
    assert_int_equal(write_pattern(stream.transport, size, 0), 0);
    assert_true(tram_transport_get_write_buffer_size(stream.transport) > 0);

    /* The kernel has room again before the loop knows: what is written now must still wait behind the rest. */
    size_t taken = 0;
    char bytes[65536];
    ssize_t received;
    while ((received = recv(stream.peer, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
        assert_pattern(bytes, (size_t)received, taken);
        taken += (size_t)received;
    }
    assert_int_equal(write_pattern(stream.transport, 1000, size), 0);
    struct iovec piece = {.iov_base = bytes, .iov_len = 1000};
    pattern(bytes, 1000, size + 1000);
    assert_int_equal(tram_transport_writelines(stream.transport, &piece, 1), 0);
    read_pattern(&stream, size + 2000 - taken, taken);
    stream_close(&stream);
}

static void test_W_1_a_descriptor_full_at_creation_does_not_block(void **state) {
    struct stream stream = stream_open_tcp(*state);
    for (size_t offset = 0; offset < 8u << 20; offset += 1u << 20)
        assert_int_equal(write_pattern(stream.transport, 1u << 20, offset), 0);
    read_pattern(&stream, 8u << 20, 0);
    stream_close(&stream);
}

static void test_W_2_sends_at_once_and_queues_only_the_rest(void **state) {
    struct stream stream = stream_open(*state);
    char bytes[64];
    assert_int_equal(write_pattern(stream.transport, 30, 0), 0);
    /* No tick has passed: the kernel has the bytes already. */
    assert_int_equal(peek_peer(&stream, bytes, sizeof bytes), 30);
    assert_int_equal(faults.send.calls, 1);
    assert_int_equal(faults.arm_write.calls, 0);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);

    faults.send_budget = 10;
    assert_int_equal(write_pattern(stream.transport, 30, 30), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 20);
    assert_int_equal(faults.arm_write.calls, 1);
    /* Something is buffered: no try, even if the kernel would take it. */
    faults.send_budget = SIZE_MAX;
    unsigned tries = faults.send.calls;
    assert_int_equal(write_pattern(stream.transport, 30, 60), 0);
    assert_int_equal(faults.send.calls, tries);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 50);
    run_ticks(stream.world, 1);
    assert_int_equal(faults.send.calls, tries + 1);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    read_pattern(&stream, 90, 0);

    /* With nothing left it does not wait for writability any more, which would never end. */
    run_ticks(stream.world, 3);
    assert_int_equal(faults.send.calls, tries + 1);
    stream_close(&stream);
}

static void test_W_3_writing_nothing_does_nothing(void **state) {
    struct stream stream = stream_open(*state);
    struct world *world = stream.world;
    struct iovec empty[2] = {{.iov_base = "x", .iov_len = 0}, {.iov_base = NULL, .iov_len = 0}};
    tram_transport *transport = tram_transport_hold(stream.transport);
    assert_int_equal(tram_transport_write(transport, "x", 0), 0);
    assert_int_equal(tram_transport_write(transport, NULL, 0), 0);
    assert_int_equal(tram_transport_writelines(transport, empty, 2), 0);
    assert_int_equal(faults.send.calls, 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);

    /* Nor does it count as a dropped write. */
    assert_int_equal(tram_transport_close(transport), 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(tram_transport_write(transport, "x", 0), 0);
    run_until(world, &stream.recorder->was_released);
    for (int i = 0; i < 20; i++)
        assert_int_equal(tram_transport_writelines(transport, empty, 2), 0);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.dropped_writes, 0);
    assert_int_equal(world->warnings, 0);
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.dropped_writes, 1);
    tram_transport_release(transport);
    stream_close(&stream);
}

static void test_W_4_a_null_pointer_with_a_length_harms_nothing(void **state) {
    struct stream stream = stream_open(*state);
    struct iovec pieces[3] = {{.iov_base = "abc", .iov_len = 3}, {.iov_base = NULL, .iov_len = 0}, {NULL, 7}};
    assert_int_equal(tram_transport_write(stream.transport, NULL, 1), TRAM_EVALUE);
    assert_int_equal(tram_transport_writelines(stream.transport, pieces, 3), TRAM_EVALUE);
    assert_int_equal(tram_transport_writelines(stream.transport, NULL, 3), TRAM_EVALUE);
    assert_int_equal(tram_transport_writelines(stream.transport, NULL, 0), 0);
    assert_int_equal(tram_transport_write_buffer(stream.transport, NULL), TRAM_EVALUE);
    assert_int_equal(faults.send.calls, 0);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    assert_false(tram_transport_is_closing(stream.transport));
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    read_pattern(&stream, 100, 0);
    assert_trace(stream.world, "");
    stream_close(&stream);
}

static int trace_word(struct world *world, const char *word) {
    return tram_loop_call_soon(world->loop, trace_callback, (void *)(uintptr_t)word, NULL, NULL);
}

static void test_W_5_a_send_that_fails_for_good_ends_in_the_next_tick(void **state) {
    struct stream stream = stream_open(*state);
    close(stream.peer);
    stream.peer = -1;
    trace_word(stream.world, "before");
    assert_int_equal(write_pattern(stream.transport, 10, 0), 0);
    trace_word(stream.world, "after");
    assert_false(tram_transport_is_closing(stream.transport)); /* the sending side has failed, and no other */
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    assert_trace(stream.world, "");
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "before lost:EPIPE released after");
    assert_int_equal(stream.world->exceptions, 0);
}

static void test_W_5_what_the_peer_sent_before_is_delivered(void **state) {
    struct world *world = *state;
    for (int run = 0; run < 8; run++) {
        bool buffered = run & 1, in_flush = run & 2, byte_by_byte = run & 4;
        struct recorder *recorder = buffered ? recorder_new_buffered(world, NULL) : recorder_new(world, NULL);
        recorder->quiet_data = true;
        struct stream stream = stream_open_with(world, recorder, false);
        char answer[9000] = "answer";
        send_exactly(NULL, stream.peer, answer, sizeof answer);
        if (in_flush) {
            faults.send_budget = 0;
            tram_transport_pause_reading(stream.transport);
            write_pattern(stream.transport, 100, 0);
            tram_transport_resume_reading(stream.transport);
        }
        fail_next(&faults.send, EPIPE, 1);
        faults.recv_at_most = byte_by_byte ? 1 : SIZE_MAX;
        if (!in_flush)
            assert_int_equal(tram_transport_write(stream.transport, "x", 1), 0);
        assert_int_equal(recorder->received, 0);
        run_until(world, &recorder->was_released);
        assert_int_equal(recorder->received, sizeof answer);
        assert_int_equal(recorder->lost_code, -EPIPE);
        assert_null(strstr(world->trace, "eof"));
        world->trace[0] = '\0';
        stream_close(&stream);
        faults.send_budget = faults.recv_at_most = SIZE_MAX;
    }
}

/* The kernel's own errors: a peer that answers, and closes while it has bytes unread. */
static void test_W_5_an_answer_before_a_reset_is_not_lost(void **state) {
    struct stream stream = stream_open_tcp(*state);
    assert_int_equal(tram_transport_write(stream.transport, "request", 7), 0);
    await_events(stream.peer, POLLIN);
    send_exactly(NULL, stream.peer, "answer", 6);
    close(stream.peer);
    stream.peer = -1;
    const tram_socket *sock = tram_transport_get_extra_info(stream.transport, "socket", NULL);
    await_events(sock->fd, POLLHUP);
    assert_int_equal(tram_transport_write(stream.transport, "more", 4), 0);
    assert_int_equal(tram_transport_write(stream.transport, "dropped", 7), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "data:6 lost:ECONNRESET released");
}

static int close_on_data(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0 ? tram_transport_close(recorder->base.transport) : 0;
}

static int abort_on_data(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0 ? tram_transport_abort(recorder->base.transport) : 0;
}

static int pause_on_data(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0 ? tram_transport_pause_reading(recorder->base.transport) : 0;
}

static void test_W_5_who_closes_meanwhile_gets_the_error_of_the_send(void **state) {
    static int (*const actions[])(struct recorder *, const char *) = {close_on_data, abort_on_data, pause_on_data};
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        struct stream stream = stream_open(*state);
        stream.recorder->on = actions[i];
        send_exactly(NULL, stream.peer, "answer", 6);
        fail_next(&faults.send, EPIPE, 1);
        assert_int_equal(tram_transport_write(stream.transport, "x", 1), 0);
        run_until(stream.world, &stream.recorder->was_released);
        assert_trace(stream.world, "data:6 lost:EPIPE released");
        stream_close(&stream);
    }
}

static void test_W_5_where_nothing_is_read_it_is_lost_at_once(void **state) {
    for (int way = 0; way < 3; way++) {
        struct stream stream = stream_open(*state);
        stream.recorder->eof_returns = 1;
        send_exactly(NULL, stream.peer, "answer", 6);
        if (way == 0) {
            tram_transport_pause_reading(stream.transport);
        } else if (way == 1) {
            shutdown(stream.peer, SHUT_WR);
            run_until_traced(stream.world, "eof");
            stream.world->trace[0] = '\0';
        } else {
            faults.send_budget = 0;
            write_pattern(stream.transport, 100, 0);
            tram_transport_close(stream.transport);
        }
        fail_next(&faults.send, EPIPE, 1);
        tram_transport_write(stream.transport, "x", 1);
        assert_true(way == 2 || tram_transport_is_closing(stream.transport));
        run_ticks(stream.world, 2);
        assert_trace(stream.world, "lost:EPIPE released");
        faults.send_budget = SIZE_MAX;
        stream_close(&stream);
    }
}

static void test_W_5_a_kernel_without_memory_is_asked_again_and_not_all_the_time(void **state) {
    static const int errors[] = {ENOBUFS, ENOMEM};
    for (int run = 0; run < 4; run++) {
        struct stream stream = stream_open(*state);
        if (run & 2)
            tram_transport_cork(stream.transport);
        fail_next(&faults.send, errors[run & 1], FAULT_ALWAYS);
        assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
        assert_int_equal(write_pattern(stream.transport, 900, 100), 0);
        tram_transport_uncork(stream.transport);
        assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 1000);
        run_to_rest(stream.world); /* which fails where the loop does not come to rest */
        assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 1000);
        assert_false(tram_transport_is_closing(stream.transport));
        faults.send.fail = 1;
        read_pattern(&stream, 1000, 0);
        assert_trace(stream.world, "");
        stream_close(&stream);
    }
}

/* ---- Writes that come too late ---- */

enum ending { CLOSED, ABORTED, FAILED, FLUSHED };

static void write_after(void **state, enum ending how, bool after_lost, bool lines) {
    struct stream stream = stream_open(*state);
    struct world *world = stream.world;
    tram_transport *transport = tram_transport_hold(stream.transport);
    switch (how) {
    case CLOSED:
        tram_transport_close(transport);
        break;
    case ABORTED:
        fill(transport, 1000);
        tram_transport_abort(transport);
        break;
    case FAILED:
        fail_next(&faults.send, EPIPE, 1);
        assert_int_equal(tram_transport_write(transport, "x", 1), 0);
        break;
    case FLUSHED:
        fill(transport, 1000);
        tram_transport_close(transport);
        drain_peer(&stream);
        break;
    }
    if (after_lost)
        run_until(world, &stream.recorder->was_released);
    unsigned tries = faults.send.calls;
    struct iovec pieces[2] = {{.iov_base = "xy", .iov_len = 2}, {.iov_base = "z", .iov_len = 1}};
    for (unsigned i = 1; i <= 8; i++) {
        assert_int_equal(
            lines ? tram_transport_writelines(transport, pieces, 2) : tram_transport_write(transport, "x", 1), 0);
        assert_int_equal(world->warnings, 0);
        tram_stats stats;
        tram_loop_stats(world->loop, &stats);
        assert_int_equal(stats.dropped_writes, i);
    }
    assert_int_equal(faults.send.calls, tries);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    run_until(world, &stream.recorder->was_released);
    tram_transport_release(transport);
    assert_int_equal(world->warnings, 1); /* at the end, with the count */
    assert_non_null(strstr(world->log, "8 writes to connection"));
    stream_close(&stream);
}

static void test_W_6_four_writes_after_a_close_are_dropped_silently(void **state) {
    write_after(state, CLOSED, false, false);
}

static void test_W_6_four_writes_after_an_abort_are_dropped_silently(void **state) {
    write_after(state, ABORTED, false, false);
}

static void test_W_6_four_writes_after_an_error_are_dropped_silently(void **state) {
    write_after(state, FAILED, false, false);
}

static void test_W_6_W_10_writelines_is_dropped_and_counted_as_one_write(void **state) {
    write_after(state, CLOSED, false, true);
}

static void test_W_8_writes_after_connection_lost_are_dropped(void **state) {
    write_after(state, CLOSED, true, false);
}

static void test_W_8_writes_after_a_lost_error_are_dropped(void **state) {
    write_after(state, FAILED, true, false);
}

static void test_W_8_writes_after_a_close_that_flushed_are_dropped(void **state) {
    write_after(state, FLUSHED, true, false);
}

static void test_W_7_writes_during_the_flush_of_a_close_are_flushed_too(void **state) {
    struct stream stream = stream_open(*state);
    faults.send_budget = 100;
    assert_int_equal(write_pattern(stream.transport, 1000, 0), 0);
    assert_int_equal(tram_transport_close(stream.transport), 0);
    assert_int_equal(write_pattern(stream.transport, 1000, 1000), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 1900);
    faults.send_budget = 500;
    run_ticks(stream.world, 2);
    char bytes[1000];
    pattern(bytes, 1000, 2000);
    struct iovec pieces[2] = {{.iov_base = bytes, .iov_len = 400}, {.iov_base = bytes + 400, .iov_len = 600}};
    assert_int_equal(tram_transport_writelines(stream.transport, pieces, 2), 0);
    assert_trace(stream.world, "");
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 3000, 0);
    assert_true(receive_eof(stream.world, stream.peer));
    assert_trace(stream.world, "lost:0 released");
    assert_int_equal(stream.world->warnings, 0);
    stream_close(&stream);
}

static void assert_refused(tram_transport *transport, tram_buffer *buffer) {
    struct iovec piece = {.iov_base = "x", .iov_len = 1};
    assert_int_equal(tram_transport_write(transport, "x", 1), TRAM_ESTATE);
    assert_int_equal(tram_transport_write(transport, "", 0), TRAM_ESTATE);
    assert_int_equal(tram_transport_writelines(transport, &piece, 1), TRAM_ESTATE);
    assert_int_equal(tram_transport_writelines(transport, NULL, 0), TRAM_ESTATE);
    assert_int_equal(tram_transport_write_buffer(transport, buffer), TRAM_ESTATE);
}

static void test_W_9_W_3_after_write_eof_every_write_is_refused(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport *transport = tram_transport_hold(stream.transport);
    tram_buffer *buffer = tram_buffer_copy("x", 1);
    faults.send_budget = 100;
    assert_int_equal(write_pattern(transport, 300, 0), 0);
    assert_int_equal(tram_transport_write_eof(transport), 0);
    assert_refused(transport, buffer); /* while it flushes */
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 300, 0);
    assert_true(receive_eof(stream.world, stream.peer));
    assert_refused(transport, buffer); /* when the end is out */
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    assert_false(tram_transport_is_closing(transport));
    assert_trace(stream.world, "");
    assert_int_equal(tram_transport_close(transport), 0);
    assert_refused(transport, buffer);
    run_until(stream.world, &stream.recorder->was_released);
    assert_refused(transport, buffer); /* CPython refuses even now */
    assert_int_equal(stream.world->warnings, 0);
    tram_stats stats;
    tram_loop_stats(stream.world->loop, &stats);
    assert_int_equal(stats.dropped_writes, 0);
    tram_buffer_release(buffer);
    tram_transport_release(transport);
    stream_close(&stream);
}

/* ---- Many pieces ---- */

static void test_W_10_writelines_sends_its_pieces_in_one_call(void **state) {
    struct stream stream = stream_open(*state);
    char bytes[6000];
    struct iovec pieces[60];
    pattern(bytes, sizeof bytes, 0);
    size_t offset = 0;
    for (size_t i = 0; i < 60; i++) {
        size_t size = i % 7 * 30; /* some empty */
        pieces[i] = (struct iovec){.iov_base = size ? bytes + offset : NULL, .iov_len = size};
        offset += size;
    }
    assert_int_equal(tram_transport_writelines(stream.transport, pieces, 60), 0);
    assert_int_equal(faults.send.calls, 1);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    read_pattern(&stream, offset, 0);
    assert_int_equal(tram_transport_writelines(stream.transport, NULL, 0), 0);
    assert_int_equal(faults.send.calls, 1);
    stream_close(&stream);
}

static void test_W_10_what_the_kernel_does_not_take_of_writelines_is_kept(void **state) {
    /* The kernel stops within a piece, at the edge of one, before all of them. */
    for (size_t budget = 0; budget <= 60; budget += 5) {
        struct stream stream = stream_open(*state);
        char bytes[60];
        pattern(bytes, sizeof bytes, 0);
        struct iovec pieces[5] = {{bytes, 10}, {NULL, 0}, {bytes + 10, 20}, {bytes + 30, 5}, {bytes + 35, 25}};
        faults.send_budget = budget;
        assert_int_equal(tram_transport_writelines(stream.transport, pieces, 5), 0);
        memset(bytes, 0xee, sizeof bytes);
        assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 60 - budget);
        assert_int_equal(write_pattern(stream.transport, 40, 60), 0);
        faults.send_budget = SIZE_MAX;
        read_pattern(&stream, 100, 0);
        stream_close(&stream);
    }
}

static void test_W_10_W_16_writelines_heeds_the_high_mark_once(void **state) {
    struct stream stream = stream_open(*state);
    char bytes[300];
    pattern(bytes, sizeof bytes, 0);
    struct iovec pieces[3] = {{bytes, 100}, {bytes + 100, 100}, {bytes + 200, 100}};
    tram_transport_set_write_buffer_limits(stream.transport, 300, 0);
    faults.send_budget = 0;
    assert_int_equal(tram_transport_writelines(stream.transport, pieces, 3), 0);
    assert_trace(stream.world, "");
    tram_transport_set_write_buffer_limits(stream.transport, 500, 0);
    assert_int_equal(tram_transport_writelines(stream.transport, pieces, 3), 0);
    assert_trace(stream.world, "pause");
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 600);
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 300, 0);
    read_pattern(&stream, 300, 0);
    assert_trace(stream.world, "resume");
    stream_close(&stream);
}

static void test_W_11_buffered_data_leaves_in_one_gathering_call_per_event(void **state) {
    calls_uninterrupted();
    struct stream stream = stream_open(*state);
    faults.send_budget = 0;
    /* Too much for one chunk of any size, in pieces that share chunks and pieces that do not. */
    size_t offset = 0;
    for (unsigned i = 0; i < 40; i++) {
        size_t size = i % 4 == 3 ? 5000 : 700;
        assert_int_equal(write_pattern(stream.transport, size, offset), 0);
        offset += size;
    }
    unsigned tries = faults.send.calls;
    run_ticks(stream.world, 1);
    assert_int_equal(faults.send.calls, tries + 1); /* refused: not tried again before the next event */
    faults.send_budget = SIZE_MAX;
    faults.send_at_most = offset / 2;
    run_ticks(stream.world, 1);
    assert_int_equal(faults.send.calls, tries + 2);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), offset - offset / 2);
    assert_true(faults.pieces_at_most > 1);
    faults.send_at_most = SIZE_MAX;
    run_ticks(stream.world, 1);
    assert_int_equal(faults.send.calls, tries + 3);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    read_pattern(&stream, offset, 0);
    stream_close(&stream);
}

/* ---- A broken connection ---- */

static volatile sig_atomic_t pipe_signals;

static void count_signal(int number) {
    (void)number;
    pipe_signals++;
}

static void test_W_12_a_broken_connection_is_an_error_and_no_signal(void **state) {
    struct sigaction old, action = {.sa_handler = count_signal};
    sigaction(SIGPIPE, &action, &old);
    pipe_signals = 0;
    /* By the immediate send of one piece, of many; by the flush of one, of many. */
    for (int way = 0; way < 4; way++) {
        struct stream stream = stream_open(*state);
        char bytes[30000];
        pattern(bytes, sizeof bytes, 0);
        struct iovec pieces[2] = {{bytes, 10}, {bytes + 10, 10}};
        tram_transport_pause_reading(stream.transport); /* so that sending is what finds out */
        if (way >= 2) {
            faults.send_budget = 0;
            assert_int_equal(tram_transport_write(stream.transport, bytes, way == 2 ? 10 : sizeof bytes), 0);
            faults.send_budget = SIZE_MAX;
        }
        close(stream.peer);
        stream.peer = -1;
        if (way == 0)
            assert_int_equal(tram_transport_write(stream.transport, bytes, 10), 0);
        else if (way == 1)
            assert_int_equal(tram_transport_writelines(stream.transport, pieces, 2), 0);
        run_until(stream.world, &stream.recorder->was_released);
        assert_trace(stream.world, "lost:EPIPE released");
        assert_int_equal(pipe_signals, 0);
    }
    sigaction(SIGPIPE, &old, NULL);
}

static void test_W_24_the_write_buffer_size_is_exact(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport *transport = stream.transport;
    faults.send_budget = 7;
    assert_int_equal(write_pattern(transport, 20, 0), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 13);
    assert_int_equal(write_pattern(transport, 100000, 20), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 100013);
    read_pattern(&stream, 7, 0);
    size_t left = 100013;
    for (size_t part = 1; left; part = part * 3 + 1) {
        if (part > left)
            part = left;
        faults.send_budget = part;
        run_ticks(stream.world, 1);
        assert_int_equal(tram_transport_get_write_buffer_size(transport), left - part);
        read_pattern(&stream, part, 100020 - left); /* or the kernel would soon be full in earnest */
        left -= part;
    }
    faults.send_budget = SIZE_MAX;
    assert_int_equal(write_pattern(transport, 5, 0), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    stream_close(&stream);
}

/* ---- Ending the sending side ---- */

static void test_W_25_sockets_can_write_eof(void **state) {
    struct stream stream = stream_open(*state), tcp = stream_open_tcp(*state);
    assert_true(tram_transport_can_write_eof(stream.transport));
    assert_true(tram_transport_can_write_eof(tcp.transport));
    stream_close(&stream);
    stream_close(&tcp);
}

static void test_W_26_write_eof_flushes_then_ends_sending_only(void **state) {
    struct stream stream = stream_open_tcp(*state);
    faults.send_budget = 100;
    assert_int_equal(write_pattern(stream.transport, 5000, 0), 0);
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    assert_false(tram_transport_is_closing(stream.transport));
    run_ticks(stream.world, 2);
    assert_int_equal(faults.shutdown.calls, 0); /* not before the last byte */
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 5000, 0);
    assert_true(receive_eof(stream.world, stream.peer));
    assert_int_equal(faults.shutdown.calls, 1);

    assert_true(tram_transport_is_reading(stream.transport));
    send_exactly(stream.world, stream.peer, "hello", 5);
    run_until_traced(stream.world, "data:5");
    assert_false(tram_transport_is_closing(stream.transport));
    assert_trace(stream.world, "data:5");
    shutdown(stream.peer, SHUT_WR);
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "eof lost:0 released");
    stream_close(&stream);
}

static void test_W_26_write_eof_with_nothing_buffered_works_at_once(void **state) {
    struct stream stream = stream_open_tcp(*state);
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    assert_int_equal(faults.shutdown.calls, 1);
    /* No tick is needed: the peer sees the end. */
    set_blocking(stream.peer, true);
    char byte;
    assert_int_equal(recv(stream.peer, &byte, 1, 0), 0);
    assert_trace(stream.world, "");
    stream_close(&stream);
}

static void test_W_27_a_second_write_eof_or_one_after_a_close_does_nothing(void **state) {
    struct stream stream = stream_open(*state);
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    assert_int_equal(faults.shutdown.calls, 1);
    stream_close(&stream);

    stream = stream_open(*state);
    faults.send_budget = 10;
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    tram_transport_write_eof(stream.transport);
    tram_transport_write_eof(stream.transport);
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 100, 0);
    assert_true(receive_eof(stream.world, stream.peer));
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    assert_int_equal(faults.shutdown.calls, 2);
    stream_close(&stream);

    stream = stream_open(*state);
    faults.send_budget = 10;
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    assert_int_equal(tram_transport_close(stream.transport), 0);
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    /* Really nothing: writing goes on as W-7 says. */
    assert_int_equal(write_pattern(stream.transport, 100, 100), 0);
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 200, 0);
    assert_true(receive_eof(stream.world, stream.peer));
    assert_int_equal(faults.shutdown.calls, 2);
    stream_close(&stream);
}

static void test_W_28_a_close_after_write_eof_flushes_and_closes(void **state) {
    struct stream stream = stream_open(*state);
    faults.send_budget = 10;
    assert_int_equal(write_pattern(stream.transport, 50000, 0), 0);
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    assert_int_equal(tram_transport_close(stream.transport), 0);
    run_ticks(stream.world, 3);
    assert_trace(stream.world, "");
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 50000, 0);
    assert_true(receive_eof(stream.world, stream.peer));
    assert_trace(stream.world, "lost:0 released");
    assert_int_equal(faults.shutdown.calls, 0);
    stream_close(&stream);
}

static void test_W_29_an_error_in_sending_buffered_data_drops_the_buffer(void **state) {
    struct stream stream = stream_open(*state);
    faults.send_budget = 0;
    assert_int_equal(write_pattern(stream.transport, 100000, 0), 0);
    fail_next(&faults.send, EHOSTUNREACH, 1);
    run_ticks(stream.world, 1);
    assert_false(tram_transport_is_closing(stream.transport));
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "pause lost:EHOSTUNREACH released");
    assert_int_equal(stream.world->exceptions, 0);
    assert_true(receive_eof(stream.world, stream.peer));
    stream_close(&stream);
}

static void test_W_29_a_reset_while_a_close_flushes_ends_in_its_error(void **state) {
    struct stream stream = stream_open_tcp(*state);
    fill(stream.transport, 100000);
    assert_int_equal(tram_transport_close(stream.transport), 0);
    close_with_reset(stream.peer);
    stream.peer = -1;
    run_until(stream.world, &stream.recorder->was_released);
    assert_trace(stream.world, "pause lost:ECONNRESET released");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_W_1_a_write_never_blocks_and_nothing_overtakes),
        TEST(test_W_1_a_descriptor_full_at_creation_does_not_block),
        TEST(test_W_2_sends_at_once_and_queues_only_the_rest),
        TEST(test_W_3_writing_nothing_does_nothing),
        TEST(test_W_4_a_null_pointer_with_a_length_harms_nothing),
        TEST(test_W_5_a_send_that_fails_for_good_ends_in_the_next_tick),
        TEST(test_W_5_what_the_peer_sent_before_is_delivered),
        TEST(test_W_5_an_answer_before_a_reset_is_not_lost),
        TEST(test_W_5_who_closes_meanwhile_gets_the_error_of_the_send),
        TEST(test_W_5_where_nothing_is_read_it_is_lost_at_once),
        TEST(test_W_5_a_kernel_without_memory_is_asked_again_and_not_all_the_time),
        TEST(test_W_6_four_writes_after_a_close_are_dropped_silently),
        TEST(test_W_6_four_writes_after_an_abort_are_dropped_silently),
        TEST(test_W_6_four_writes_after_an_error_are_dropped_silently),
        TEST(test_W_6_W_10_writelines_is_dropped_and_counted_as_one_write),
        TEST(test_W_7_writes_during_the_flush_of_a_close_are_flushed_too),
        TEST(test_W_8_writes_after_connection_lost_are_dropped),
        TEST(test_W_8_writes_after_a_lost_error_are_dropped),
        TEST(test_W_8_writes_after_a_close_that_flushed_are_dropped),
        TEST(test_W_9_W_3_after_write_eof_every_write_is_refused),
        TEST(test_W_10_writelines_sends_its_pieces_in_one_call),
        TEST(test_W_10_what_the_kernel_does_not_take_of_writelines_is_kept),
        TEST(test_W_10_W_16_writelines_heeds_the_high_mark_once),
        TEST(test_W_11_buffered_data_leaves_in_one_gathering_call_per_event),
        TEST(test_W_12_a_broken_connection_is_an_error_and_no_signal),
        TEST(test_W_24_the_write_buffer_size_is_exact),
        TEST(test_W_25_sockets_can_write_eof),
        TEST(test_W_26_write_eof_flushes_then_ends_sending_only),
        TEST(test_W_26_write_eof_with_nothing_buffered_works_at_once),
        TEST(test_W_27_a_second_write_eof_or_one_after_a_close_does_nothing),
        TEST(test_W_28_a_close_after_write_eof_flushes_and_closes),
        TEST(test_W_29_an_error_in_sending_buffered_data_drops_the_buffer),
        TEST(test_W_29_a_reset_while_a_close_flushes_ends_in_its_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
