/* Rules W-13 to W-23: the water marks, pause_writing and resume_writing. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/stream.h"

/* A stream with these marks, over a kernel that takes nothing. */
static struct stream open_with_marks(struct world *world, size_t high, size_t low) {
    struct stream stream = stream_open(world);
    assert_int_equal(tram_transport_set_write_buffer_limits(stream.transport, high, low), 0);
    faults.send_budget = 0;
    return stream;
}

static void write_bytes(struct stream *stream, size_t size) {
    assert_int_equal(write_pattern(stream->transport, size, 0), 0);
}

/* The kernel takes exactly so many bytes, in one event. */
static void take(struct stream *stream, size_t size) {
    faults.send_budget = size;
    run_ticks(stream->world, 1);
    assert_int_equal(faults.send_budget, 0);
}

static void assert_limits(struct stream *stream, size_t low, size_t high) {
    size_t got_low, got_high;
    assert_int_equal(tram_transport_get_write_buffer_limits(stream->transport, &got_high, &got_low), 0);
    assert_int_equal(got_low, low);
    assert_int_equal(got_high, high);
}

/* ---- The marks ---- */

static void test_W_13_the_marks_are_64_and_16_KiB(void **state) {
    struct stream stream = stream_open(*state);
    assert_limits(&stream, 16384, 65536);
    faults.send_budget = 0;
    write_bytes(&stream, 65536);
    assert_trace(stream.world, "");
    write_bytes(&stream, 1);
    assert_trace(stream.world, "pause");
    take(&stream, 65537 - 16385);
    assert_trace(stream.world, "");
    take(&stream, 1);
    assert_trace(stream.world, "resume");
    stream_close(&stream);
}

static void test_W_14_marks_that_are_not_given_follow_from_the_other(void **state) {
    static const struct {
        size_t high, low, expected_low, expected_high;
        int status;
    } cases[] = {
        {1000, 100, 100, 1000, 0},
        {1000, TRAM_LIMIT_DEFAULT, 250, 1000, 0},
        {1003, TRAM_LIMIT_DEFAULT, 250, 1003, 0}, /* rounded down */
        {3, TRAM_LIMIT_DEFAULT, 0, 3, 0},
        {TRAM_LIMIT_DEFAULT, 300, 300, 1200, 0},
        {TRAM_LIMIT_DEFAULT, 0, 0, 0, 0},
        {TRAM_LIMIT_DEFAULT, TRAM_LIMIT_DEFAULT, 16384, 65536, 0},
        {500, 500, 500, 500, 0},
        {499, 500, 500, 500, TRAM_EVALUE}, /* nothing changes */
        {0, 1, 500, 500, TRAM_EVALUE},
        {TRAM_LIMIT_DEFAULT, SIZE_MAX / 2, 500, 500, TRAM_EVALUE}, /* four times that is no size */
        {TRAM_LIMIT_DEFAULT, SIZE_MAX / 4 + 1, 500, 500, TRAM_EVALUE},
        {TRAM_LIMIT_DEFAULT, SIZE_MAX / 4, SIZE_MAX / 4, SIZE_MAX / 4 * 4, 0},
        {0, 0, 0, 0, 0},
    };
    struct stream stream = stream_open(*state);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(tram_transport_set_write_buffer_limits(stream.transport, cases[i].high, cases[i].low),
                         cases[i].status);
        assert_limits(&stream, cases[i].expected_low, cases[i].expected_high);
    }
    assert_int_equal(tram_transport_get_write_buffer_limits(stream.transport, NULL, NULL), 0);
    stream_close(&stream);
}

static void test_W_14_refused_marks_leave_the_old_ones_at_work(void **state) {
    struct stream stream = open_with_marks(*state, 1000, 500);
    write_bytes(&stream, 900);
    assert_int_equal(tram_transport_set_write_buffer_limits(stream.transport, 10, 20), TRAM_EVALUE);
    assert_trace(stream.world, "");
    write_bytes(&stream, 101);
    assert_trace(stream.world, "pause");
    take(&stream, 501);
    assert_trace(stream.world, "resume");
    stream_close(&stream);
}

static void test_W_15_with_a_high_mark_of_0_any_unsent_byte_pauses(void **state) {
    struct stream stream = open_with_marks(*state, 0, TRAM_LIMIT_DEFAULT);
    assert_limits(&stream, 0, 0);
    faults.send_budget = 1;
    write_bytes(&stream, 1);
    assert_trace(stream.world, ""); /* sent, not buffered */
    write_bytes(&stream, 1);
    assert_trace(stream.world, "pause");
    write_bytes(&stream, 1);
    take(&stream, 1);
    assert_trace(stream.world, "");
    take(&stream, 1);
    assert_trace(stream.world, "resume");
    stream_close(&stream);
}

/* ---- When they are called ---- */

static void test_W_16_pause_comes_only_above_the_high_mark(void **state) {
    /* In one write, in many small ones, in one that was sent in part. */
    struct stream stream = open_with_marks(*state, 100, 10);
    write_bytes(&stream, 100);
    assert_trace(stream.world, "");
    write_bytes(&stream, 1);
    assert_trace(stream.world, "pause");
    stream_close(&stream);

    stream = open_with_marks(*state, 100, 10);
    for (int i = 0; i < 100; i++)
        write_bytes(&stream, 1);
    assert_trace(stream.world, "");
    write_bytes(&stream, 1);
    assert_trace(stream.world, "pause");
    stream_close(&stream);

    stream = open_with_marks(*state, 100, 10);
    faults.send_budget = 900;
    write_bytes(&stream, 1000);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 100);
    assert_trace(stream.world, "");
    write_bytes(&stream, 1);
    assert_trace(stream.world, "pause");
    stream_close(&stream);
}

static void test_W_16_a_write_that_the_kernel_takes_whole_does_not_pause(void **state) {
    struct stream stream = stream_open(*state);
    tram_transport_set_write_buffer_limits(stream.transport, 10, 0);
    write_bytes(&stream, 5000);
    assert_trace(stream.world, "");
    stream_close(&stream);
}

static void test_W_16_lowering_the_high_mark_pauses_at_once(void **state) {
    struct stream stream = open_with_marks(*state, 1000, 10);
    write_bytes(&stream, 500);
    assert_int_equal(tram_transport_set_write_buffer_limits(stream.transport, 500, 10), 0);
    assert_trace(stream.world, "");
    assert_int_equal(tram_transport_set_write_buffer_limits(stream.transport, 499, 10), 0);
    assert_trace(stream.world, "pause");
    assert_int_equal(tram_transport_set_write_buffer_limits(stream.transport, 400, 10), 0);
    assert_trace(stream.world, ""); /* once is enough (W-17) */
    stream_close(&stream);
}

static void test_W_17_pause_comes_once_until_resume(void **state) {
    struct stream stream = open_with_marks(*state, 100, 50);
    write_bytes(&stream, 101);
    write_bytes(&stream, 200);
    assert_trace(stream.world, "pause");
    take(&stream, 210); /* below the high mark and above it again, with no resume between */
    write_bytes(&stream, 100);
    assert_trace(stream.world, "");
    take(&stream, 141);
    assert_trace(stream.world, "resume");
    take(&stream, 10); /* and no second resume */
    assert_trace(stream.world, "");
    write_bytes(&stream, 61);
    assert_trace(stream.world, "pause");
    stream_close(&stream);
}

static void test_W_18_resume_comes_at_the_low_mark(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    write_bytes(&stream, 101);
    take(&stream, 60); /* 41 left */
    assert_trace(stream.world, "pause");
    take(&stream, 1); /* 40 left */
    assert_trace(stream.world, "resume");
    stream_close(&stream);

    /* A low mark of 0: only when all is out. */
    stream = open_with_marks(*state, 100, 0);
    write_bytes(&stream, 101);
    take(&stream, 100);
    assert_trace(stream.world, "pause");
    take(&stream, 1);
    assert_trace(stream.world, "resume");
    stream_close(&stream);
}

static void test_W_18_raising_the_limits_does_not_resume(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    write_bytes(&stream, 200);
    assert_int_equal(tram_transport_set_write_buffer_limits(stream.transport, 1000, 500), 0);
    run_ticks(stream.world, 3); /* events come, but the kernel takes nothing */
    write_bytes(&stream, 10);
    assert_trace(stream.world, "pause");
    take(&stream, 1);
    assert_trace(stream.world, "resume");
    stream_close(&stream);
}

static int trace_answer(struct recorder *recorder, const char *event) {
    if (strcmp(event, "pause") == 0 || strcmp(event, "resume") == 0)
        trace(recorder->world, "(%zu)", tram_transport_get_write_buffer_size(recorder->base.transport));
    return 0;
}

static void test_W_19_both_are_called_where_it_happens(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    struct world *world = stream.world;
    stream.recorder->on = trace_answer;
    trace(world, "write");
    write_bytes(&stream, 150);
    trace(world, "written");
    assert_trace(world, "write pause (150) written");
    /* In the write event itself: before what it wakes could be queued, hence in the very tick that sends, after the
     * callbacks that were queued before. */
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, "queued", NULL, NULL), 0);
    faults.send_budget = 120;
    run_ticks(world, 1);
    assert_trace(world, "queued resume (30)");
    stream_close(&stream);
}

/* Nor inside the call that sends what a cork held back, whichever that is; what waits for an empty queue comes next. */
static void test_W_19_resume_comes_from_the_loop_when_an_uncork_empties_the_queue(void **state) {
    static const char *const expected[] = {"resume", "resume eof", "resume lost:0 released", "resume file:1"};
    for (int way = 0; way < 4; way++) {
        struct stream stream = open_with_marks(*state, 100, 40);
        struct world *world = stream.world;
        tram_future *future = NULL;
        FILE *file = tmpfile();
        fputc('x', file);
        fflush(file);
        assert_int_equal(tram_transport_cork(stream.transport), 0);
        write_bytes(&stream, 150);
        faults.send_budget = SIZE_MAX;
        trace(world, "flush");
        if (way == 0)
            assert_int_equal(tram_transport_uncork(stream.transport), 0);
        else if (way == 1)
            assert_int_equal(tram_transport_write_eof(stream.transport), 0);
        else if (way == 2)
            assert_int_equal(tram_transport_close(stream.transport), 0);
        else
            assert_int_equal(tram_loop_sendfile(world->loop, stream.transport, fileno(file), 0, 1, NULL, &future), 0);
        assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
        trace(world, "flushed");
        assert_trace(world, "pause flush flushed");
        read_pattern(&stream, 150, 0);
        run_to_rest(world);
        char byte;
        if (way == 1 && recv(stream.peer, &byte, 1, 0) == 0)
            trace(world, "eof");
        if (way == 3 && recv(stream.peer, &byte, 1, 0) == 1) {
            assert_int_equal(tram_future_result(future, NULL), 0);
            trace(world, "file:1");
        }
        assert_trace(world, expected[way]);
        tram_future_release(future);
        fclose(file);
        stream_close(&stream);
        world->trace[0] = '\0';
    }
}

/* A sendfile that is cancelled before that does not take the resume with it. */
static void test_W_19_a_cancelled_sendfile_leaves_the_resume(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    tram_future *future;
    FILE *file = tmpfile();
    fputc('x', file);
    fflush(file);
    assert_int_equal(tram_transport_cork(stream.transport), 0);
    write_bytes(&stream, 150);
    faults.send_budget = SIZE_MAX;
    assert_int_equal(tram_loop_sendfile(stream.world->loop, stream.transport, fileno(file), 0, 1, NULL, &future), 0);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_trace(stream.world, "pause");
    run_to_rest(stream.world);
    assert_trace(stream.world, "resume");
    tram_future_release(future);
    fclose(file);
    stream_close(&stream);
}

static int write_eof_on_resume(struct recorder *recorder, const char *event) {
    return strcmp(event, "resume") == 0 ? tram_transport_write_eof(recorder->base.transport) : 0;
}

static void test_W_27_write_eof_inside_the_resume_of_the_last_byte_ends_writing_once(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    stream.recorder->on = write_eof_on_resume;
    write_bytes(&stream, 150);
    take(&stream, 150);
    assert_trace(stream.world, "pause resume");
    assert_int_equal(faults.shutdown.calls, 1);
    read_pattern(&stream, 150, 0);
    assert_true(receive_eof(stream.world, stream.peer));
    stream_close(&stream);
}

static void test_W_19_a_paused_writer_is_not_hindered(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    size_t written = 0;
    for (int i = 0; i < 50; i++) {
        assert_int_equal(write_pattern(stream.transport, 1000, written), 0);
        written += 1000;
    }
    assert_trace(stream.world, "pause");
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), written);
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, written, 0);
    stream_close(&stream);
}

/* ---- What they may do ---- */

static int write_more_on_resume(struct recorder *recorder, const char *event) {
    struct stream *stream = recorder->arg;
    if (strcmp(event, "resume") != 0 || !stream)
        return 0;
    recorder->arg = NULL; /* once */
    assert_int_equal(write_pattern(stream->transport, 300, 200), 0);
    trace(recorder->world, "resumed");
    return 0;
}

static void test_W_20_resume_may_write_until_it_is_paused_again(void **state) {
    struct stream stream = open_with_marks(*state, 100, 0);
    stream.recorder->on = write_more_on_resume;
    stream.recorder->arg = &stream;
    assert_int_equal(write_pattern(stream.transport, 200, 0), 0);
    take(&stream, 200); /* the last byte is gone when resume writes, and the kernel is full */
    assert_trace(stream.world, "pause resume pause resumed");
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 300);
    /* It still waits for writability, though all had been sent, and it knows that it is paused. */
    take(&stream, 100);
    assert_int_equal(write_pattern(stream.transport, 500, 500), 0);
    assert_trace(stream.world, "");
    take(&stream, 699);
    assert_trace(stream.world, "");
    take(&stream, 1);
    assert_trace(stream.world, "resume");
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 1000, 0);
    stream_close(&stream);
}

static void test_W_20_what_resume_writes_is_flushed_by_a_real_kernel(void **state) {
    struct stream stream = stream_open_tcp(*state);
    stream.recorder->on = write_more_on_resume;
    stream.recorder->arg = &stream;
    tram_transport_set_write_buffer_limits(stream.transport, 100, 0);
    faults.send_budget = 0;
    assert_int_equal(write_pattern(stream.transport, 200, 0), 0);
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 500, 0);
    assert_trace(stream.world, "pause resume resumed");
    /* Nothing is left, so no writability is waited for: the next blocking tick would spin. */
    unsigned sends = faults.send.calls;
    run_ticks(stream.world, 3);
    assert_int_equal(faults.send.calls, sends);
    stream_close(&stream);
}

static int close_on_resume(struct recorder *recorder, const char *event) {
    if (strcmp(event, "resume") == 0)
        tram_transport_close(recorder->base.transport);
    return 0;
}

static int abort_on_resume(struct recorder *recorder, const char *event) {
    if (strcmp(event, "resume") == 0)
        tram_transport_abort(recorder->base.transport);
    return 0;
}

static int eof_on_resume(struct recorder *recorder, const char *event) {
    if (strcmp(event, "resume") == 0)
        assert_int_equal(tram_transport_write_eof(recorder->base.transport), 0);
    return 0;
}

static void test_W_20_resume_may_close_abort_or_write_eof(void **state) {
    int (*const endings[])(struct recorder *, const char *) = {close_on_resume, abort_on_resume, eof_on_resume};
    for (size_t i = 0; i < 3; i++) {
        for (size_t low = 0; low <= 50; low += 50) { /* with nothing left, and with something */
            struct stream stream = open_with_marks(*state, 100, low);
            stream.recorder->on = endings[i];
            assert_int_equal(write_pattern(stream.transport, 200, 0), 0);
            take(&stream, 200 - low);
            faults.send_budget = SIZE_MAX;
            read_pattern(&stream, i == 1 ? 200 - low : 200, 0);
            assert_true(receive_eof(stream.world, stream.peer));
            assert_trace(stream.world, i < 2 ? "pause resume lost:0 released" : "pause resume");
            stream_close(&stream);
            stream.world->trace[0] = '\0';
        }
    }
}

static int close_on_pause(struct recorder *recorder, const char *event) {
    if (strcmp(event, "pause") == 0)
        tram_transport_close(recorder->base.transport);
    return 0;
}

static int abort_on_pause(struct recorder *recorder, const char *event) {
    if (strcmp(event, "pause") == 0)
        tram_transport_abort(recorder->base.transport);
    return 0;
}

static int switch_on_pause(struct recorder *recorder, const char *event) {
    if (strcmp(event, "pause") == 0)
        assert_int_equal(tram_transport_set_protocol(recorder->base.transport, recorder->arg), 0);
    return 0;
}

/* The three ways to write. */
static int write_by(tram_transport *transport, int way, size_t size) {
    if (way == 0)
        return write_pattern(transport, size, 0);
    char bytes[1000];
    pattern(bytes, size, 0);
    if (way == 1) {
        struct iovec pieces[2] = {{bytes, size / 2}, {bytes + size / 2, size - size / 2}};
        return tram_transport_writelines(transport, pieces, 2);
    }
    tram_buffer *buffer = tram_buffer_copy(bytes, size);
    int status = tram_transport_write_buffer(transport, buffer);
    tram_buffer_release(buffer);
    return status;
}

static void test_W_21_pause_may_close(void **state) {
    for (int way = 0; way < 3; way++) {
        struct stream stream = open_with_marks(*state, 100, 0);
        stream.recorder->on = close_on_pause;
        assert_int_equal(write_by(stream.transport, way, 500), 0);
        assert_true(tram_transport_is_closing(stream.transport));
        assert_trace(stream.world, "pause");
        faults.send_budget = SIZE_MAX;
        read_pattern(&stream, 500, 0); /* a close flushes */
        assert_true(receive_eof(stream.world, stream.peer));
        assert_trace(stream.world, "resume lost:0 released");
        stream_close(&stream);
    }
}

static void test_W_21_pause_may_abort(void **state) {
    for (int way = 0; way < 3; way++) {
        struct stream stream = open_with_marks(*state, 100, 0);
        stream.recorder->on = abort_on_pause;
        assert_int_equal(write_by(stream.transport, way, 500), 0);
        assert_true(tram_transport_is_closing(stream.transport));
        assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
        assert_trace(stream.world, "pause");
        faults.send_budget = SIZE_MAX;
        unsigned sends = faults.send.calls;
        run_ticks(stream.world, 2);
        assert_trace(stream.world, "lost:0 released");
        assert_int_equal(faults.send.calls, sends);
        stream_close(&stream);
    }
}

static void test_W_21_pause_called_by_new_limits_may_abort(void **state) {
    struct stream stream = open_with_marks(*state, 1000, 0);
    stream.recorder->on = abort_on_pause;
    write_bytes(&stream, 500);
    assert_int_equal(tram_transport_set_write_buffer_limits(stream.transport, 100, 0), 0);
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "pause lost:0 released");
    stream_close(&stream);
}

static void test_W_21_pause_may_switch_the_protocol(void **state) {
    for (int way = 0; way < 3; way++) {
        struct stream stream = open_with_marks(*state, 100, 0);
        struct recorder *second = recorder_new(stream.world, "second");
        stream.recorder->on = switch_on_pause;
        stream.recorder->arg = second;
        assert_int_equal(write_by(stream.transport, way, 500), 0);
        assert_ptr_equal(tram_transport_get_protocol(stream.transport), second);
        faults.send_budget = SIZE_MAX;
        read_pattern(&stream, 500, 0);
        /* Writing stays paused over the switch: the new protocol is the one that hears of the resume. */
        assert_trace(stream.world, "pause released second.resume");
        tram_transport_abort(stream.transport);
        run_until(stream.world, &second->was_released);
        assert_trace(stream.world, "second.lost:0 second.released");
        close(stream.peer);
    }
}

static int fail_on_flow(struct recorder *recorder, const char *event) {
    if (strcmp(event, "pause") == 0)
        return -EPIPE; /* like an error of the system, yet reported */
    if (strcmp(event, "resume") == 0)
        return tram_loop_raise(recorder->world->loop, TRAM_EUSER, recorder, "no");
    return 0;
}

static void test_W_22_a_failing_pause_or_resume_is_reported_and_changes_nothing(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    struct world *world = stream.world;
    stream.recorder->on = fail_on_flow;
    assert_int_equal(write_pattern(stream.transport, 200, 0), 0);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, -EPIPE);
    assert_ptr_equal(world->exception_transport, stream.transport);
    assert_ptr_equal(world->exception_protocol, stream.recorder);
    assert_int_equal(write_pattern(stream.transport, 100, 200), 0);
    assert_trace(world, "pause"); /* it counts as paused */
    take(&stream, 270);
    assert_trace(world, "resume");
    assert_int_equal(world->exceptions, 2);
    assert_int_equal(world->exception_code, TRAM_EUSER);
    assert_ptr_equal(world->exception_user, stream.recorder);
    assert_ptr_equal(world->exception_transport, stream.transport);
    assert_ptr_equal(world->exception_protocol, stream.recorder);
    assert_false(tram_transport_is_closing(stream.transport));
    take(&stream, 10);
    assert_trace(world, ""); /* and as resumed */
    assert_int_equal(write_pattern(stream.transport, 100, 300), 0);
    assert_trace(world, "pause");
    faults.send_budget = SIZE_MAX;
    read_pattern(&stream, 400, 0);
    stream_close(&stream);
}

/* ---- At the end ---- */

static void test_W_23_resume_comes_during_the_flush_of_a_close(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    write_bytes(&stream, 200);
    assert_int_equal(tram_transport_close(stream.transport), 0);
    take(&stream, 159);
    assert_trace(stream.world, "pause");
    take(&stream, 1);
    assert_trace(stream.world, "resume");
    take(&stream, 40);
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "lost:0 released");
    stream_close(&stream);
}

static void test_W_23_resume_comes_before_lost_when_a_close_flushes_in_one_event(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    write_bytes(&stream, 200);
    assert_int_equal(tram_transport_close(stream.transport), 0);
    take(&stream, 200);
    run_ticks(stream.world, 1);
    assert_trace(stream.world, "pause resume lost:0 released");
    stream_close(&stream);
}

static void test_W_23_no_resume_after_an_abort(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    write_bytes(&stream, 200);
    assert_int_equal(tram_transport_abort(stream.transport), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 0);
    faults.send_budget = SIZE_MAX;
    run_ticks(stream.world, 3);
    assert_trace(stream.world, "pause lost:0 released");
    stream_close(&stream);

    /* Not after one that cuts a flush short either. */
    stream = open_with_marks(*state, 100, 40);
    write_bytes(&stream, 200);
    tram_transport_close(stream.transport);
    tram_transport_abort(stream.transport);
    faults.send_budget = SIZE_MAX;
    run_ticks(stream.world, 3);
    assert_string_equal(stream.world->trace, "pause lost:0 released");
    stream_close(&stream);
}

static void test_W_23_no_resume_after_a_fatal_error(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    write_bytes(&stream, 200);
    fail_next(&faults.send, ECONNRESET, 1);
    run_ticks(stream.world, 3);
    assert_trace(stream.world, "pause lost:ECONNRESET released");
    stream_close(&stream);
}

static void test_W_16_W_23_limits_of_an_ended_transport_call_nothing(void **state) {
    struct stream stream = open_with_marks(*state, 100, 40);
    tram_transport *transport = tram_transport_hold(stream.transport);
    write_bytes(&stream, 50);
    assert_int_equal(tram_transport_abort(transport), 0);
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 0, 0), 0);
    run_until(stream.world, &stream.recorder->was_released);
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 0, 0), 0);
    assert_trace(stream.world, "lost:0 released");
    tram_transport_release(transport);
    stream_close(&stream);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_W_13_the_marks_are_64_and_16_KiB),
        TEST(test_W_14_marks_that_are_not_given_follow_from_the_other),
        TEST(test_W_14_refused_marks_leave_the_old_ones_at_work),
        TEST(test_W_15_with_a_high_mark_of_0_any_unsent_byte_pauses),
        TEST(test_W_16_pause_comes_only_above_the_high_mark),
        TEST(test_W_16_a_write_that_the_kernel_takes_whole_does_not_pause),
        TEST(test_W_16_lowering_the_high_mark_pauses_at_once),
        TEST(test_W_17_pause_comes_once_until_resume),
        TEST(test_W_18_resume_comes_at_the_low_mark),
        TEST(test_W_18_raising_the_limits_does_not_resume),
        TEST(test_W_19_both_are_called_where_it_happens),
        TEST(test_W_19_resume_comes_from_the_loop_when_an_uncork_empties_the_queue),
        TEST(test_W_19_a_cancelled_sendfile_leaves_the_resume),
        TEST(test_W_27_write_eof_inside_the_resume_of_the_last_byte_ends_writing_once),
        TEST(test_W_19_a_paused_writer_is_not_hindered),
        TEST(test_W_20_resume_may_write_until_it_is_paused_again),
        TEST(test_W_20_what_resume_writes_is_flushed_by_a_real_kernel),
        TEST(test_W_20_resume_may_close_abort_or_write_eof),
        TEST(test_W_21_pause_may_close),
        TEST(test_W_21_pause_may_abort),
        TEST(test_W_21_pause_called_by_new_limits_may_abort),
        TEST(test_W_21_pause_may_switch_the_protocol),
        TEST(test_W_22_a_failing_pause_or_resume_is_reported_and_changes_nothing),
        TEST(test_W_23_resume_comes_during_the_flush_of_a_close),
        TEST(test_W_23_resume_comes_before_lost_when_a_close_flushes_in_one_event),
        TEST(test_W_23_no_resume_after_an_abort),
        TEST(test_W_23_no_resume_after_a_fatal_error),
        TEST(test_W_16_W_23_limits_of_an_ended_transport_call_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
