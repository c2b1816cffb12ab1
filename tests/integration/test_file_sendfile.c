/* sendfile through a transport (docs/rules.md, F-1 to F-10, F-12, F-13). */
#include "support/faults.h"
#include "support/stream.h"
#include "support/support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/loop/loop.h"

#define BLOCK 16384u

/* ---- Helpers ---- */

/* A file of `size` bytes of the pattern, its position at 1. */
static int pattern_file(size_t size) {
    int file = memfd_create("tram-test", MFD_CLOEXEC);
    assert_true(file >= 0);
    char *bytes = malloc(size + 1);
    pattern(bytes, size, 0);
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(file, bytes + done, size - done);
        assert_true(wrote > 0);
        done += (size_t)wrote;
    }
    free(bytes);
    lseek(file, 1, SEEK_SET);
    return file;
}

static off_t position(int file) {
    return lseek(file, 0, SEEK_CUR);
}

static const tram_sendfile_options no_fallback = {.no_fallback = true};

static tram_future *send_file(struct stream *stream, int file, int64_t offset, int64_t count) {
    tram_future *future = NULL;
    assert_int_equal(tram_loop_sendfile(stream->world->loop, stream->transport, file, offset, count, NULL, &future), 0);
    return future;
}

static bool is_done(void *arg) {
    return tram_future_done(arg);
}

static void expect_sent(struct world *world, tram_future *future, size_t sent) {
    void *value = NULL;
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, &value), 0);
    assert_int_equal((uintptr_t)value, sent);
    tram_future_release(future);
}

static void expect_error(struct world *world, tram_future *future, int code) {
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, NULL), code);
    tram_future_release(future);
}

/* The kernel's buffers full of zeros, and some in the transport's. */
static size_t fill_up(struct stream *stream, size_t queued) {
    uint64_t before = stream->world->loop->stats.bytes_sent;
    fill(stream->transport, queued);
    return (size_t)(stream->world->loop->stats.bytes_sent - before) +
           tram_transport_get_write_buffer_size(stream->transport);
}

static void read_zeros(struct stream *stream, size_t size) {
    static char bytes[65536];
    static const char zeros[65536];
    while (size) {
        size_t part = size < sizeof bytes ? size : sizeof bytes;
        receive_exactly(stream->world, stream->peer, bytes, part);
        assert_memory_equal(bytes, zeros, part);
        size -= part;
    }
}

/* ---- The rules ---- */

static void test_F_1_F_2_F_4_sends_a_part_of_a_file_and_moves_its_position(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open_tcp(world);
    int file = pattern_file(3000000);
    tram_future *future = send_file(&stream, file, 1000, 2000000);
    read_pattern(&stream, 2000000, 1000);
    expect_sent(world, future, 2000000);
    assert_int_equal(position(file), 2001000);

    lseek(file, 5, SEEK_SET); /* the offset is absolute, 0 included */
    future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
    read_pattern(&stream, 3000000, 0);
    expect_sent(world, future, 3000000);
    assert_int_equal(position(file), 3000000);
    assert_int_equal(faults.sendfile.calls >= 2, 1);
    assert_null(world->loop->executor); /* all by the kernel */
    close(file);
    stream_close(&stream);
}

static void test_F_2_bad_arguments_are_refused(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    tram_loop *loop = world->loop;
    int file = pattern_file(10);
    tram_future *future = NULL;
    tram_sendfile_options reserved = {.reserved = {1}};
    assert_wrong(tram_loop_sendfile(loop, stream.transport, file, -1, 10, NULL, &future), "offset");
    assert_wrong(tram_loop_sendfile(loop, stream.transport, file, 0, 0, NULL, &future), "count");
    assert_wrong(tram_loop_sendfile(loop, stream.transport, file, 0, -1, NULL, &future), "count");
    assert_wrong(tram_loop_sendfile(loop, stream.transport, file, 0, 1, &reserved, &future), "reserved");
    assert_int_equal(tram_loop_sendfile(loop, stream.transport, -1, 0, 1, NULL, &future), -EBADF);
    assert_int_equal(tram_loop_sendfile(loop, stream.transport, 100000, 0, 1, NULL, &future), -EBADF);
    assert_null(future);
    close(file);
    stream_close(&stream);
}

static void test_F_3_the_end_of_the_file_ends_it(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int file = pattern_file(1000), empty = pattern_file(0);
    expect_sent(world, send_file(&stream, file, 0, 5000), 1000);
    read_pattern(&stream, 1000, 0);
    expect_sent(world, send_file(&stream, file, 990, INT64_MAX), 10);
    read_pattern(&stream, 10, 990);
    lseek(file, 7, SEEK_SET);
    expect_sent(world, send_file(&stream, file, 1000, 10), 0);
    expect_sent(world, send_file(&stream, file, INT64_MAX, INT64_MAX), 0);
    assert_int_equal(position(file), 7); /* nothing was sent */
    expect_sent(world, send_file(&stream, empty, 0, TRAM_SENDFILE_ALL), 0);
    close(file);
    close(empty);
    stream_close(&stream);
}

static void test_F_3_a_file_may_shrink_or_grow_meanwhile(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int file = pattern_file(500000);
    tram_future *future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
    assert_false(tram_future_done(future));
    assert_int_equal(ftruncate(file, 400000), 0);
    read_pattern(&stream, 400000, 0);
    expect_sent(world, future, 400000);

    future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
    assert_false(tram_future_done(future));
    static char more[100000];
    pattern(more, sizeof more, 400000);
    assert_int_equal(pwrite(file, more, sizeof more, 400000), sizeof more);
    read_pattern(&stream, 500000, 0);
    expect_sent(world, future, 500000);
    close(file);
    stream_close(&stream);
}

static void test_F_4_F_8_a_failure_on_the_way_tells_by_the_position(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    struct stream stream = stream_open_tcp(world);
    int file = pattern_file(100000);
    faults.sendfile_at_most = 1000;
    faults.sendfile.skip = 3;
    faults.sendfile.fail = 1;
    faults.sendfile.error = EIO;
    tram_future *future = send_file(&stream, file, 50, TRAM_SENDFILE_ALL);
    expect_error(world, future, -EIO);
    assert_int_equal(position(file), 3050);
    read_pattern(&stream, 3000, 50);

    /* What would be a refusal before the first byte is an error after it. */
    faults.sendfile.skip = 1;
    faults.sendfile.fail = 1;
    faults.sendfile.error = EINVAL;
    expect_error(world, send_file(&stream, file, 0, TRAM_SENDFILE_ALL), -EINVAL);
    assert_int_equal(position(file), 1000);
    read_pattern(&stream, 1000, 0);

    /* The transport goes on. */
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    read_pattern(&stream, 100, 0);
    close(file);
    stream_close(&stream);
}

static void test_F_5_what_was_written_before_goes_first(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int file = pattern_file(100000);
    size_t before = fill_up(&stream, 200000);
    assert_trace(world, "pause");
    tram_future *future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
    while (tram_transport_get_write_buffer_size(stream.transport)) {
        assert_int_equal(faults.sendfile.calls, 0);
        char bytes[1000];
        receive_exactly(world, stream.peer, bytes, sizeof bytes);
        before -= sizeof bytes;
    }
    assert_trace(world, "resume"); /* the flush is the protocol's matter */
    read_zeros(&stream, before);
    read_pattern(&stream, 100000, 0);
    expect_sent(world, future, 100000);

    /* Corked writes count as written. */
    tram_transport_cork(stream.transport);
    assert_int_equal(write_pattern(stream.transport, 1000, 0), 0);
    future = send_file(&stream, file, 1000, 1000);
    assert_int_equal(tram_transport_uncork(stream.transport), 0);
    read_pattern(&stream, 2000, 0);
    expect_sent(world, future, 1000);
    close(file);
    stream_close(&stream);
}

static void test_F_6_nobody_else_writes_meanwhile(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int file = pattern_file(1000000);
    tram_future *future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL), *second = NULL;
    struct iovec piece = {.iov_base = (void *)(uintptr_t) "abc", .iov_len = 3};
    tram_buffer *buffer = tram_buffer_copy("abc", 3);
    assert_int_equal(tram_transport_write(stream.transport, "abc", 3), TRAM_ESTATE);
    assert_int_equal(tram_transport_write(stream.transport, "abc", 0), TRAM_ESTATE);
    assert_int_equal(tram_transport_writelines(stream.transport, &piece, 1), TRAM_ESTATE);
    assert_int_equal(tram_transport_write_buffer(stream.transport, buffer), TRAM_ESTATE);
    assert_int_equal(tram_transport_write_eof(stream.transport), TRAM_ESTATE);
    assert_int_equal(tram_loop_sendfile(world->loop, stream.transport, file, 0, 1, NULL, &second), TRAM_ESTATE);
    assert_null(second);
    read_pattern(&stream, 1000000, 0);
    expect_sent(world, future, 1000000);
    assert_int_equal(tram_transport_write_buffer(stream.transport, buffer), 0);
    char bytes[3];
    receive_exactly(world, stream.peer, bytes, 3);
    assert_memory_equal(bytes, "abc", 3);
    tram_buffer_release(buffer);
    close(file);
    stream_close(&stream);
}

static void test_F_6_reading_rests_meanwhile(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int file = pattern_file(1000000);
    tram_future *future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
    assert_false(tram_transport_is_reading(stream.transport));
    assert_int_equal(write(stream.peer, "abc", 3), 3);
    read_pattern(&stream, 1000000, 0);
    assert_trace(world, "");
    expect_sent(world, future, 1000000);
    assert_true(tram_transport_is_reading(stream.transport));
    run_to_rest(world);
    assert_trace(world, "data:3");

    /* What the program pauses before or meanwhile stays paused, what it resumes meanwhile waits. */
    tram_transport_pause_reading(stream.transport);
    future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
    assert_int_equal(write(stream.peer, "abc", 3), 3);
    read_pattern(&stream, 1000000, 0);
    expect_sent(world, future, 1000000);
    run_to_rest(world);
    assert_trace(world, "");
    future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
    tram_transport_resume_reading(stream.transport);
    run_to_rest(world);
    assert_trace(world, "");
    tram_transport_pause_reading(stream.transport);
    read_pattern(&stream, 1000000, 0);
    expect_sent(world, future, 1000000);
    run_to_rest(world);
    assert_trace(world, "");
    tram_transport_resume_reading(stream.transport);
    run_to_rest(world);
    assert_trace(world, "data:3");
    close(file);
    stream_close(&stream);
}

static void test_F_7_a_closing_transport_refuses(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int file = pattern_file(10);
    tram_future *future = NULL;
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    assert_int_equal(tram_loop_sendfile(world->loop, stream.transport, file, 0, 1, NULL, &future), TRAM_ESTATE);
    tram_transport_hold(stream.transport);
    tram_transport_close(stream.transport);
    assert_int_equal(tram_loop_sendfile(world->loop, stream.transport, file, 0, 1, NULL, &future), TRAM_ESTATE);
    run_until_traced(world, "released");
    assert_int_equal(tram_loop_sendfile(world->loop, stream.transport, file, 0, 1, NULL, &future), TRAM_ESTATE);
    assert_null(future);
    tram_transport_release(stream.transport);
    close(file);
    stream_close(&stream);
}

static int take_all(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    (void)transport, (void)state, (void)pieces, (void)count;
    return 0;
}

/* Of a custom transport its maker knows before connection_made. */
static void test_F_7_not_before_connection_made(void **state) {
    static const tram_custom_ops ops = {.writelines = take_all, .sendfile_mode = TRAM_SENDFILE_FALLBACK};
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    int file = pattern_file(10);
    tram_transport *transport;
    tram_future *future = NULL;
    assert_int_equal(tram_loop_create_custom(world->loop, &ops, NULL, &recorder->base, &transport), 0);
    assert_int_equal(tram_loop_sendfile(world->loop, transport, file, 0, 1, NULL, &future), TRAM_ESTATE);
    assert_null(future);
    run_until_traced(world, "made");
    tram_transport_abort(transport);
    run_until_traced(world, "released");
    close(file);
}

static void test_F_7_pipes_cannot_do_it(void **state) {
    struct world *world = *state;
    int through[2], file = pattern_file(10);
    assert_int_equal(pipe2(through, O_CLOEXEC), 0);
    tram_future *making, *future = NULL;
    assert_int_equal(tram_loop_connect_write_pipe(world->loop, recorder_factory, world, through[1], &making), 0);
    run_until_true(world, is_done, making);
    void *transport;
    assert_int_equal(tram_future_result(making, &transport), 0);
    tram_future_release(making);
    assert_int_equal(tram_loop_sendfile(world->loop, transport, file, 0, 1, NULL, &future), TRAM_ESTATE);
    assert_null(future);
    tram_transport_close(transport);
    run_until_traced(world, "released");
    close(through[0]);
    close(file);
}

enum how { BY_KERNEL, BEHIND_BYTES, BY_BLOCKS, HOW_COUNT };

static tram_future *begin_and_close(struct stream *stream, int file, enum how how, size_t *ret_before) {
    *ret_before = how == BEHIND_BYTES ? fill_up(stream, 1000) : 0;
    if (how == BY_BLOCKS)
        fail_next(&faults.sendfile, EINVAL, 1);
    tram_future *future = send_file(stream, file, 0, TRAM_SENDFILE_ALL);
    assert_int_equal(tram_transport_close(stream->transport), 0);
    assert_true(tram_transport_is_closing(stream->transport));
    return future;
}

static void test_T_1_F_10_a_file_is_queued_output_of_a_close(void **state) {
    struct world *world = *state;
    int file = pattern_file(500000);
    for (enum how how = 0; how < HOW_COUNT; how++) {
        struct stream stream = stream_open(world);
        size_t before;
        tram_future *future = begin_and_close(&stream, file, how, &before);
        run_to_rest(world);
        assert_int_equal(tram_transport_write(stream.transport, "x", 1), TRAM_ESTATE);
        read_zeros(&stream, before);
        read_pattern(&stream, 500000, 0);
        expect_sent(world, future, 500000);
        assert_true(receive_eof(world, stream.peer));
        assert_non_null(strstr(world->trace, "lost:0 released"));
        world->trace[0] = '\0';
        stream_close(&stream);
    }
    close(file);
}

static void test_T_1_F_10_F_12_such_a_close_is_cut_short(void **state) {
    struct world *world = *state;
    int file = pattern_file(5000000);
    for (enum how how = 0; how < HOW_COUNT; how++) {
        for (int cancels = 0; cancels < 2; cancels++) {
            struct stream stream = stream_open(world);
            size_t before;
            tram_future *future = begin_and_close(&stream, file, how, &before);
            run_to_rest(world);
            if (cancels)
                tram_future_cancel(future);
            else
                tram_transport_abort(stream.transport);
            expect_error(world, future, cancels ? TRAM_ECANCELLED : -ECONNRESET);
            if (cancels)
                assert_true(receive_eof(world, stream.peer));
            run_until(world, &stream.recorder->was_released);
            assert_int_equal(stream.recorder->lost_code, 0);
            world->trace[0] = '\0';
            stream_close(&stream);
        }
    }
    close(file);
}

/* The connection has ended: it is not the sending alone that failed. */
static void test_F_8_each_error_of_a_connection_ends_it(void **state) {
    static const struct {
        int error;
        bool of_connection;
    } list[] = {{ECONNRESET, true},   {EPIPE, true},       {ENOTCONN, true}, {ECONNABORTED, true}, {ETIMEDOUT, true},
                {EHOSTUNREACH, true}, {ENETUNREACH, true}, {ENETDOWN, true}, {EIO, false}};
    struct world *world = *state;
    int file = pattern_file(1000);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct stream stream = stream_open(world);
        fail_next(&faults.sendfile, list[i].error, 1);
        tram_future *future = send_file(&stream, file, 0, 1000);
        run_until_true(world, is_done, future);
        assert_true(tram_future_result(future, NULL) < 0);
        tram_future_release(future);
        run_to_rest(world);
        assert_int_equal(stream.recorder->lost, list[i].of_connection);
        if (list[i].of_connection)
            assert_int_equal(stream.recorder->lost_code, -list[i].error);
        stream_close(&stream);
        world->trace[0] = '\0';
    }
    close(file);
}

static void test_W_5_a_file_waits_for_memory_of_the_kernel(void **state) {
    struct world *world = *state;
    int file = pattern_file(1000);
    struct stream stream = stream_open(world);
    fail_next(&faults.sendfile, ENOMEM, FAULT_ALWAYS);
    tram_future *future = send_file(&stream, file, 0, 1000);
    run_to_rest(world);
    assert_false(tram_future_done(future));
    faults.sendfile.fail = 2;
    run_until_true(world, is_done, future);
    read_pattern(&stream, 1000, 0);
    tram_future_release(future);
    stream_close(&stream);
    close(file);
}

/* The kernel takes no more, and does not tell when it will. */
static void test_T_16_F_8_a_loop_that_cannot_arm_writing_fails_a_file(void **state) {
    struct world *world = *state;
    int file = pattern_file(8000000);
    struct stream stream = stream_open(world);
    fail_next(&faults.arm_write, ENOSPC, FAULT_ALWAYS);
    expect_error(world, send_file(&stream, file, 0, 8000000), -ENOSPC);
    fail_next(&faults.arm_write, 0, 0);
    stream_close(&stream);
    close(file);
}

/* Reading would go on, for what the peer said before, but the poller refuses: the connection ends in the middle of it.
 */
static void test_W_5_a_file_fails_and_nothing_can_be_read(void **state) {
    struct world *world = *state;
    int file = pattern_file(8000000);
    struct stream stream = stream_open(world);
    char bytes[65536];
    tram_future *future = send_file(&stream, file, 0, 8000000);
    run_to_rest(world);
    assert_false(tram_future_done(future));
    fail_next(&faults.sendfile, EPIPE, 1);
    fail_next(&faults.arm_read, ENOMEM, FAULT_ALWAYS);
    while (recv(stream.peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, NULL), -ECONNRESET);
    run_until(world, &stream.recorder->was_released);
    assert_int_equal(stream.recorder->lost_code, -ENOMEM);
    faults.arm_read.fail = 0;
    tram_future_release(future);
    stream_close(&stream);
    close(file);
}

static void test_F_8_what_the_kernel_refuses_is_sent_in_blocks_if_allowed(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    tram_future *future;
    int file = pattern_file(100000), through[2];
    static const int errors[] = {EINVAL, ENOSYS, EOPNOTSUPP, ESPIPE};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        off_t before = position(file);
        fail_next(&faults.sendfile, errors[i], 1);
        assert_int_equal(tram_loop_sendfile(world->loop, stream.transport, file, 10, 50000, &no_fallback, &future), 0);
        expect_error(world, future, TRAM_ENOSENDFILE);
        assert_int_equal(position(file), before);
        fail_next(&faults.sendfile, errors[i], 1);
        future = send_file(&stream, file, 10, 50000);
        read_pattern(&stream, 50000, 10);
        expect_sent(world, future, 50000);
        assert_int_equal(position(file), 50010);
    }

    /* A pipe has no positions. */
    assert_int_equal(pipe2(through, O_CLOEXEC), 0);
    char bytes[1000];
    pattern(bytes, sizeof bytes, 0);
    assert_int_equal(write(through[1], bytes, sizeof bytes), sizeof bytes);
    assert_int_equal(tram_loop_sendfile(world->loop, stream.transport, through[0], 0, 1000, &no_fallback, &future), 0);
    expect_error(world, future, TRAM_ENOSENDFILE);
    future = send_file(&stream, through[0], 0, 600);
    expect_sent(world, future, 600);
    close(through[1]);
    future = send_file(&stream, through[0], 0, TRAM_SENDFILE_ALL);
    expect_sent(world, future, 400);
    read_pattern(&stream, 1000, 0);
    expect_error(world, send_file(&stream, through[0], 1, 1), -ESPIPE);
    close(through[0]);
    close(file);
    stream_close(&stream);
}

static void test_F_8_files_that_cannot_be_read(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), unreadable = open("/dev/null", O_WRONLY | O_CLOEXEC);
    expect_error(world, send_file(&stream, folder, 0, TRAM_SENDFILE_ALL), -EISDIR);
    expect_error(world, send_file(&stream, unreadable, 0, TRAM_SENDFILE_ALL), -EBADF);
    close(unreadable);
    char name[] = "/tmp/tram-test-XXXXXX";
    unreadable = mkostemp(name, O_CLOEXEC);
    assert_int_equal(write(unreadable, "abc", 3), 3);
    close(unreadable);
    unreadable = open(name, O_WRONLY | O_CLOEXEC);
    expect_error(world, send_file(&stream, unreadable, 0, TRAM_SENDFILE_ALL), -EBADF);
    close(unreadable);
    unlink(name);
    close(folder);
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    read_pattern(&stream, 100, 0);
    stream_close(&stream);
}

/* Reads one block after the other from a file for which the kernel's sendfile is refused. */
static tram_future *send_blocks(struct stream *stream, int file, int64_t count) {
    fail_next(&faults.sendfile, EINVAL, 1);
    return send_file(stream, file, 0, count);
}

static bool queue_is_above_high(void *arg) {
    size_t low, high;
    tram_transport_get_write_buffer_limits(arg, &high, &low);
    return tram_transport_get_write_buffer_size(arg) > high;
}

static int do_nothing(void *arg, void **ret_result) {
    (void)arg;
    *ret_result = NULL;
    return 0;
}

/* Whatever the executor was asked for before is done, or as good as done. */
static void go_through_executor(struct world *world) {
    tram_future *future;
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, do_nothing, NULL, NULL, &future), 0);
    run_until_true(world, is_done, future);
    tram_future_release(future);
}

static void test_F_9_blocks_heed_the_water_marks_and_the_protocol_rests(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int file = pattern_file(1000000);
    tram_transport_set_write_buffer_limits(stream.transport, 40000, 20000);
    tram_future *future = send_blocks(&stream, file, TRAM_SENDFILE_ALL);
    run_until_true(world, queue_is_above_high, stream.transport);
    for (int i = 0; i < 10; i++)
        go_through_executor(world);
    assert_true(tram_transport_get_write_buffer_size(stream.transport) <= 40000 + BLOCK); /* it reads no further */
    char bytes[10000];
    for (size_t done = 0; done < 1000000; done += sizeof bytes) {
        receive_exactly(world, stream.peer, bytes, sizeof bytes);
        assert_pattern(bytes, sizeof bytes, done);
        assert_true(tram_transport_get_write_buffer_size(stream.transport) <= 40000 + BLOCK);
    }
    expect_sent(world, future, 1000000);
    assert_int_equal(position(file), 1000000);
    assert_trace(world, "");

    /* At the end it has its callbacks again, and hears what it missed. */
    fill(stream.transport, 40000);
    assert_trace(world, "pause");
    drain_peer(&stream);
    while (tram_transport_get_write_buffer_size(stream.transport)) {
        run_ticks(world, 1);
        drain_peer(&stream);
    }
    assert_trace(world, "resume");
    tram_transport_set_write_buffer_limits(stream.transport, 0, 0);
    fail_next(&faults.send, EAGAIN, FAULT_ALWAYS);
    expect_sent(world, send_blocks(&stream, file, 100), 100);
    assert_trace(world, "pause");
    fail_next(&faults.send, 0, 0);
    read_pattern(&stream, 100, 0);
    assert_trace(world, "resume");
    close(file);
    stream_close(&stream);
}

static void test_F_9_F_6_nobody_writes_between_the_blocks(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int file = pattern_file(300000);
    tram_future *future = send_blocks(&stream, file, TRAM_SENDFILE_ALL);
    assert_int_equal(tram_transport_cork(stream.transport), 0); /* holds back nothing that is not the program's */
    for (size_t done = 0; done < 300000; done += 1000) {
        char bytes[1000];
        assert_int_equal(tram_transport_write(stream.transport, "abc", 3), TRAM_ESTATE);
        receive_exactly(world, stream.peer, bytes, sizeof bytes);
        assert_pattern(bytes, sizeof bytes, done);
    }
    expect_sent(world, future, 300000);
    assert_int_equal(write_pattern(stream.transport, 1000, 0), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 1000); /* still corked */
    assert_int_equal(tram_transport_uncork(stream.transport), 0);
    read_pattern(&stream, 1000, 0);
    close(file);
    stream_close(&stream);
}

static void test_F_10_W_12_a_lost_connection_fails_it(void **state) {
    struct world *world = *state;
    int file = pattern_file(8 << 20);
    for (int how = 0; how < 3; how++) {
        struct stream stream = stream_open_tcp(world);
        lseek(file, 0, SEEK_SET);
        tram_future *future =
            how == 1 ? send_blocks(&stream, file, TRAM_SENDFILE_ALL) : send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
        read_pattern(&stream, 500000, 0);
        assert_false(tram_future_done(future));
        if (how < 2) {
            close_with_reset(stream.peer);
            stream.peer = -1;
        } else {
            tram_transport_abort(stream.transport);
        }
        expect_error(world, future, -ECONNRESET);
        assert_true(position(file) >= 500000);
        assert_true(position(file) < 8 << 20);
        run_until_traced(world, "released");
        assert_trace(world, how < 2 ? "lost:ECONNRESET released" : "lost:0 released");
        stream_close(&stream);
    }
    close(file);
}

static void test_F_10_broken_pipes_become_a_connection_error(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    static const int codes[] = {EPIPE, ENOTCONN, ECONNRESET};
    int file = pattern_file(100000);
    for (size_t i = 0; i < 3; i++) {
        struct stream stream = stream_open(world);
        faults.sendfile_at_most = 1000;
        faults.sendfile.skip = i;
        faults.sendfile.fail = 1;
        faults.sendfile.error = codes[i];
        lseek(file, 0, SEEK_SET);
        expect_error(world, send_file(&stream, file, 0, TRAM_SENDFILE_ALL), -ECONNRESET);
        assert_int_equal(position(file), 1000 * i);
        run_until_traced(world, "released");
        char expected[64];
        snprintf(expected, sizeof expected, "lost:%s released", tram_error_name(-codes[i]));
        assert_trace(world, expected);
        stream_close(&stream);
    }
    close(file);
}

/* A real one, with SIGPIPE at its default. What the program has blocked, and what pends of it, stays its own. */
static void test_W_12_sendfile_to_nobody_is_EPIPE_and_no_signal(void **state) {
    struct world *world = *state;
    struct sigaction before, deadly = {.sa_handler = SIG_DFL};
    assert_int_equal(sigaction(SIGPIPE, &deadly, &before), 0);
    int file = pattern_file(100000);
    sigset_t only, mask, pending;
    sigemptyset(&only);
    sigaddset(&only, SIGPIPE);
    for (int pends = 0; pends < 2; pends++) {
        if (pends) {
            pthread_sigmask(SIG_BLOCK, &only, &mask);
            raise(SIGPIPE);
        }
        struct stream stream = stream_open(world);
        tram_transport_pause_reading(stream.transport);
        close(stream.peer);
        stream.peer = -1;
        expect_error(world, send_file(&stream, file, 0, TRAM_SENDFILE_ALL), -ECONNRESET);
        run_until_traced(world, "released");
        assert_trace(world, "lost:EPIPE released");
        stream_close(&stream);
        sigset_t blocked;
        pthread_sigmask(SIG_SETMASK, NULL, &blocked);
        sigpending(&pending);
        assert_int_equal(sigismember(&blocked, SIGPIPE), pends);
        assert_int_equal(sigismember(&pending, SIGPIPE), pends);
    }
    int number;
    sigwait(&only, &number);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    sigaction(SIGPIPE, &before, NULL);
    close(file);
}

static void test_F_12_X_3_cancelling_leaves_the_transport_open(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int file = pattern_file(1000000);
    /* While the kernel sends. */
    tram_future *future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
    run_to_rest(world);
    assert_int_equal(tram_future_cancel(future), 1);
    expect_error(world, future, TRAM_ECANCELLED);
    off_t sent = position(file);
    assert_true(sent > 1 && sent < 1000000);
    run_to_rest(world);
    assert_int_equal(write(stream.peer, "abc", 3), 3);
    run_to_rest(world);
    assert_trace(world, "data:3");
    read_pattern(&stream, (size_t)sent, 0);

    /* While bytes wait before it. */
    size_t before = fill_up(&stream, 100000);
    lseek(file, 3, SEEK_SET);
    future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
    tram_future_cancel(future);
    expect_error(world, future, TRAM_ECANCELLED);
    assert_int_equal(position(file), 3);
    read_zeros(&stream, before);
    assert_trace(world, "pause resume");

    /* While a block is read, and while the queue is full: what was written stays written. */
    future = send_blocks(&stream, file, TRAM_SENDFILE_ALL);
    tram_future_cancel(future);
    expect_error(world, future, TRAM_ECANCELLED);
    assert_int_equal(position(file), 3);
    future = send_blocks(&stream, file, TRAM_SENDFILE_ALL);
    run_until_true(world, queue_is_above_high, stream.transport);
    tram_future_cancel(future);
    expect_error(world, future, TRAM_ECANCELLED);
    assert_trace(world, "pause");
    sent = position(file);
    assert_true(sent > 65536 && sent % BLOCK == 0);
    read_pattern(&stream, (size_t)sent, 0);
    assert_trace(world, "resume");
    assert_int_equal(write_pattern(stream.transport, 100, 0), 0);
    read_pattern(&stream, 100, 0);
    close(file);
    stream_close(&stream);
}

static void test_F_13_one_system_call_per_event_and_others_go_on(void **state) {
    calls_uninterrupted();
    struct world *world = *state;
    struct stream stream = stream_open_tcp(world);
    int file = pattern_file(16 << 20), pair[2];
    unix_pair(pair);
    assert_int_equal(tram_loop_add_writer(world->loop, pair[0], trace_callback, (void *)(uintptr_t) "x"), 0);
    tram_future *future = send_file(&stream, file, 0, TRAM_SENDFILE_ALL);
    assert_true(faults.sendfile.calls <= 1);
    while (!tram_future_done(future)) {
        unsigned calls = faults.sendfile.calls;
        drain_peer(&stream);
        run_ticks(world, 1);
        assert_true(faults.sendfile.calls - calls <= 1);
        assert_trace(world, "x");
    }
    assert_true(faults.sendfile_most <= 1 << 20); /* one call is bounded, however much the socket would take */
    assert_int_equal(tram_loop_remove_writer(world->loop, pair[0]), 1);
    expect_sent(world, future, 16 << 20);
    close(pair[0]);
    close(pair[1]);
    close(file);
    stream_close(&stream);
}

/* ---- From within callbacks, and trouble ---- */

static int file_of_protocol;

static int send_when_made(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") == 0) {
        tram_future **future = recorder->arg;
        return tram_loop_sendfile(recorder->world->loop, recorder->base.transport, file_of_protocol, 0,
                                  TRAM_SENDFILE_ALL, NULL, future);
    }
    return 0;
}

static void test_F_6_sending_may_begin_in_connection_made(void **state) {
    struct world *world = *state;
    int pair[2];
    unix_pair(pair);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future = NULL;
    recorder->on = send_when_made;
    recorder->arg = &future;
    file_of_protocol = pattern_file(1000000);
    struct stream stream = {.world = world, .recorder = recorder, .peer = pair[1]};
    stream.transport = transport_new(world, pair[0], recorder);
    assert_int_equal(write(stream.peer, "abc", 3), 3);
    read_pattern(&stream, 1000000, 0);
    assert_trace(world, "made");
    expect_sent(world, future, 1000000);
    run_to_rest(world);
    assert_trace(world, "data:3");
    close(file_of_protocol);
    stream_close(&stream);
}

static int send_when_resumed(struct recorder *recorder, const char *event) {
    if (strcmp(event, "resume") == 0) {
        recorder->on = NULL;
        return tram_loop_sendfile(recorder->world->loop, recorder->base.transport, file_of_protocol, 0,
                                  TRAM_SENDFILE_ALL, NULL, recorder->arg);
    }
    return 0;
}

static void test_F_5_sending_may_begin_in_resume_writing(void **state) {
    struct world *world = *state;
    for (int round = 0; round < 2; round++) {
        struct stream stream = stream_open(world);
        tram_future *future = NULL;
        size_t size = round ? 1000000 : 100;
        file_of_protocol = pattern_file(size);
        stream.recorder->on = send_when_resumed;
        stream.recorder->arg = &future;
        tram_transport_set_write_buffer_limits(stream.transport, 0, 0);
        size_t before = fill_up(&stream, 100);
        read_zeros(&stream, before);
        read_pattern(&stream, size, 0);
        assert_non_null(future);
        expect_sent(world, future, size);
        run_to_rest(world);
        close(file_of_protocol);
        stream_close(&stream);
        world->trace[0] = '\0';
    }
}

static void test_no_memory_at_any_point(void **state) {
    struct world *world = *state;
    int file = pattern_file(100000);
    bool enough = false;
    for (size_t allowed = 0; !enough; allowed++) {
        assert_true(allowed < 40);
        struct stream stream = stream_open(world);
        fail_next(&faults.sendfile, EINVAL, 1);
        tram_future *future = NULL;
        world->fail_after = allowed;
        int status = tram_loop_sendfile(world->loop, stream.transport, file, 0, 20000, NULL, &future);
        if (!status) {
            run_until_true(world, is_done, future);
            status = tram_future_result(future, NULL);
            tram_future_release(future);
        }
        world->fail_after = SIZE_MAX;
        assert_true(status == 0 || status == -ENOMEM);
        enough = status == 0;
        stream_close(&stream);
    }
    close(file);
}

static void test_L_8_closing_the_loop_ends_it(void **state) {
    struct world *world = *state;
    int file = pattern_file(1000000);
    struct stream first = stream_open(world), second = stream_open(world), third = stream_open(world);
    tram_future *kept = send_file(&first, file, 0, TRAM_SENDFILE_ALL);
    tram_future *blocks = send_blocks(&second, file, TRAM_SENDFILE_ALL);
    assert_int_equal(tram_loop_sendfile(world->loop, third.transport, file, 0, TRAM_SENDFILE_ALL, NULL, NULL), 0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(tram_future_result(kept, NULL), -ECONNRESET);
    assert_int_equal(tram_future_result(blocks, NULL), -ECONNRESET);
    tram_future_release(kept);
    tram_future_release(blocks);
    close(first.peer);
    close(second.peer);
    close(third.peer);
    close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)
        CASE(test_F_1_F_2_F_4_sends_a_part_of_a_file_and_moves_its_position),
        CASE(test_F_2_bad_arguments_are_refused),
        CASE(test_F_3_the_end_of_the_file_ends_it),
        CASE(test_F_3_a_file_may_shrink_or_grow_meanwhile),
        CASE(test_F_4_F_8_a_failure_on_the_way_tells_by_the_position),
        CASE(test_F_5_what_was_written_before_goes_first),
        CASE(test_F_6_nobody_else_writes_meanwhile),
        CASE(test_F_6_reading_rests_meanwhile),
        CASE(test_F_7_a_closing_transport_refuses),
        CASE(test_F_7_not_before_connection_made),
        CASE(test_F_7_pipes_cannot_do_it),
        CASE(test_F_8_what_the_kernel_refuses_is_sent_in_blocks_if_allowed),
        CASE(test_T_1_F_10_a_file_is_queued_output_of_a_close),
        CASE(test_T_1_F_10_F_12_such_a_close_is_cut_short),
        CASE(test_F_8_each_error_of_a_connection_ends_it),
        CASE(test_W_5_a_file_waits_for_memory_of_the_kernel),
        CASE(test_T_16_F_8_a_loop_that_cannot_arm_writing_fails_a_file),
        CASE(test_W_5_a_file_fails_and_nothing_can_be_read),
        CASE(test_F_8_files_that_cannot_be_read),
        CASE(test_F_9_blocks_heed_the_water_marks_and_the_protocol_rests),
        CASE(test_F_9_F_6_nobody_writes_between_the_blocks),
        CASE(test_F_10_W_12_a_lost_connection_fails_it),
        CASE(test_F_10_broken_pipes_become_a_connection_error),
        CASE(test_W_12_sendfile_to_nobody_is_EPIPE_and_no_signal),
        CASE(test_F_12_X_3_cancelling_leaves_the_transport_open),
        CASE(test_F_13_one_system_call_per_event_and_others_go_on),
        CASE(test_F_6_sending_may_begin_in_connection_made),
        CASE(test_F_5_sending_may_begin_in_resume_writing),
        CASE(test_no_memory_at_any_point),
        CASE(test_L_8_closing_the_loop_ends_it),
    };
    return cmocka_run_group_tests_name("sendfile", tests, NULL, NULL);
}
