/* Pipe transports (docs/rules.md, group I; P-11, P-17, W-12 and B-7 as far as pipes go). */
#include "support/support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/system/sys.h"

#define RECEIVE_LIMIT ((size_t)256 * 1024)

/* ---- Making them ---- */

typedef int connect_function(tram_loop *loop, tram_protocol_factory factory, void *arg, int fd,
                             tram_future **ret_future);

static int give_recorder(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

static int created(tram_future *future, void *arg) {
    void *transport = NULL;
    int status = tram_future_result(future, &transport);
    trace(arg, "creator:%s", status ? tram_error_name(status) : "0");
    return 0;
}

/* Connects, and writes down when the creator goes on; connection_made has not run yet. */
static tram_future *begin(struct recorder *recorder, connect_function *connect_pipe, int fd) {
    tram_future *future;
    assert_int_equal(connect_pipe(recorder->world->loop, give_recorder, recorder, fd, &future), 0);
    assert_int_equal(tram_future_add_done_callback(future, created, recorder->world), 0);
    return future;
}

/* A transport whose connection_made has run; `trace` is empty. */
static tram_transport *connected(struct recorder *recorder, connect_function *connect_pipe, int fd) {
    tram_future *future = begin(recorder, connect_pipe, fd);
    void *transport;
    assert_int_equal(tram_loop_run_until_complete(recorder->world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &transport), 0);
    tram_future_release(future);
    recorder->world->trace[0] = '\0';
    return transport;
}

static void open_pipe(int fds[2]) {
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
}

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

static bool is_non_blocking(int fd) {
    return fcntl(fd, F_GETFL) & O_NONBLOCK;
}

/* Writes to the transport until more than `queued` bytes wait in it; how many were written in all. */
static size_t write_until_queued(tram_transport *transport, size_t queued) {
    static const char bytes[4096];
    size_t written = 0;
    while (tram_transport_get_write_buffer_size(transport) <= queued) {
        assert_int_equal(tram_transport_write(transport, bytes, sizeof bytes), 0);
        written += sizeof bytes;
    }
    return written;
}

/* Reads `size` bytes of a pipe while the loop runs. */
static void drain(struct world *world, int fd, size_t size) {
    static char bytes[65536];
    set_blocking(fd, false);
    while (size) {
        ssize_t taken = read(fd, bytes, size < sizeof bytes ? size : sizeof bytes);
        assert_true(taken > 0 || (taken < 0 && errno == EAGAIN));
        size -= taken > 0 ? (size_t)taken : 0;
        run_ticks(world, 1);
    }
}

/* ---- I-1 to I-3 ---- */

static void test_I_1_what_is_no_pipe_is_refused_and_left_alone(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    connect_function *both[] = {tram_loop_connect_read_pipe, tram_loop_connect_write_pipe};
    FILE *file = tmpfile();
    int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int not_pipes[] = {fileno(file), directory};
    for (size_t i = 0; i < 4; i++) {
        int fd = not_pipes[i % 2];
        tram_future *future = NULL;
        assert_int_equal(both[i / 2](world->loop, give_recorder, recorder, fd, &future), TRAM_EVALUE);
        assert_null(future);
        assert_true(is_open(fd));
        assert_false(is_non_blocking(fd));
    }
    fclose(file);
    close(directory);
    assert_int_equal(tram_loop_connect_read_pipe(world->loop, give_recorder, recorder, directory, NULL), -EBADF);
    assert_int_equal(tram_loop_connect_write_pipe(world->loop, give_recorder, recorder, -1, NULL), -EBADF);
    int fds[2];
    open_pipe(fds);
    assert_int_equal(tram_loop_connect_read_pipe(world->loop, NULL, NULL, fds[0], NULL), TRAM_EVALUE);
    run_ticks(world, 2);
    assert_trace(world, "");
    close(fds[0]);
    close(fds[1]);
}

static void test_I_1_pipes_fifos_sockets_and_character_devices_are_taken(void **state) {
    struct world *world = *state;
    char directory[] = "/tmp/tram-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/fifo", directory);
    assert_int_equal(mkfifo(path, 0600), 0);
    int fds[4] = {open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), open(path, O_WRONLY | O_CLOEXEC)};
    unix_pair(fds + 2);
    for (int i = 0; i < 4; i += 2) {
        struct recorder *reader = recorder_new(world, "r"), *writer = recorder_new(world, "w");
        connected(reader, tram_loop_connect_read_pipe, fds[i]);
        tram_transport *transport = connected(writer, tram_loop_connect_write_pipe, fds[i + 1]);
        assert_int_equal(tram_transport_write(transport, "hello", 5), 0);
        assert_int_equal(tram_transport_close(transport), 0);
        run_until(world, &reader->was_released);
        assert_trace(world, "w.lost:0 w.released r.data:5 r.eof r.lost:0 r.released");
    }
    unlink(path);
    rmdir(directory);
    struct recorder *writer = recorder_new(world, NULL);
    tram_transport *transport =
        connected(writer, tram_loop_connect_write_pipe, open("/dev/null", O_WRONLY | O_CLOEXEC));
    assert_int_equal(tram_transport_write(transport, "gone", 4), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    tram_transport_close(transport);
    run_until(world, &writer->was_released);
    assert_trace(world, "lost:0 released");
}

static void test_I_1_a_device_that_cannot_be_polled_ends_with_that_error(void **state) {
    struct world *world = *state;
    struct recorder *reader = recorder_new(world, NULL);
    tram_future *future = begin(reader, tram_loop_connect_read_pipe, open("/dev/null", O_RDONLY | O_CLOEXEC));
    run_until(world, &reader->was_released);
    assert_trace(world, "made lost:EPERM released creator:0");
    tram_future_release(future);
}

static void test_I_2_the_descriptor_becomes_non_blocking_and_the_transports(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    int shared = dup(fds[0]);
    assert_false(is_non_blocking(shared));
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = connected(recorder, tram_loop_connect_read_pipe, fds[0]);
    assert_true(is_non_blocking(shared));
    assert_int_equal(tram_loop_connect_read_pipe(world->loop, give_recorder, recorder, fds[0], NULL), TRAM_ESTATE);
    assert_int_equal(tram_loop_add_reader(world->loop, fds[0], trace_callback, NULL), TRAM_ESTATE);
    tram_transport_close(transport);
    assert_true(is_open(fds[0]));
    run_until(world, &recorder->was_released);
    assert_false(is_open(fds[0]));
    close(shared);
    close(fds[1]);
}

/* rules: I-3, P-3, P-4, P-5 */
static void test_made_then_the_creator_then_data_that_waited(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    assert_int_equal(write(fds[1], "waiting", 7), 7);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future = begin(recorder, tram_loop_connect_read_pipe, fds[0]);
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "made");
    run_ticks(world, 1);
    assert_trace(world, "creator:0 data:7");
    tram_future_release(future);
    close(fds[1]);
    run_until(world, &recorder->was_released);
}

static void test_C_11_a_cancelled_creation_says_nothing_to_the_protocol(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future = begin(recorder, tram_loop_connect_write_pipe, fds[1]);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_false(is_open(fds[1]));
    assert_trace(world, ""); /* `released` comes from the loop */
    run_ticks(world, 2);
    assert_trace(world, "creator:TRAM_ECANCELLED released");
    tram_future_release(future);
    close(fds[0]);
}

static int cancel_when_made(struct recorder *recorder, const char *event) {
    if (strcmp(event, "made") == 0) {
        assert_int_equal(tram_future_cancel(recorder->arg), 1);
        assert_true(tram_future_cancelled(recorder->arg));
        assert_true(tram_transport_is_closing(recorder->base.transport));
    }
    return 0;
}

static void test_C_11_cancelled_in_connection_made(void **state) {
    struct world *world = *state;
    for (int side = 0; side < 2; side++) {
        int fds[2];
        open_pipe(fds);
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->on = cancel_when_made;
        tram_future *future = recorder->arg =
            begin(recorder, side ? tram_loop_connect_write_pipe : tram_loop_connect_read_pipe, fds[side]);
        run_to_rest(world);
        assert_trace(world, "made creator:TRAM_ECANCELLED lost:0 released");
        assert_false(is_open(fds[side]));
        tram_future_release(future);
        close(fds[!side]);
    }
}

static int refuse(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)ret_protocol;
    return tram_loop_raise(loop, TRAM_EUSER, arg, "no protocol today");
}

static void test_C_13_the_error_of_a_factory_reaches_the_creator(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    tram_future *future;
    assert_int_equal(tram_loop_connect_read_pipe(world->loop, refuse, world, fds[0], &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_EUSER);
    assert_string_equal(tram_future_error(future)->detail, "no protocol today");
    assert_ptr_equal(tram_future_error(future)->user, world);
    assert_false(is_open(fds[0]));
    tram_future_release(future);
    close(fds[1]);
}

static bool factory_called;

static int note_and_give(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    factory_called = true;
    return give_recorder(loop, arg, ret_protocol);
}

/* rules: I-2, X-4 */
static void test_I_2_without_memory_the_descriptor_stays_the_callers(void **state) {
    struct world *world = *state;
    bool seen_both = false;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future;
    for (world->fail_after = 0;; world->fail_after++) {
        size_t allowed = world->fail_after;
        factory_called = false;
        int status = tram_loop_connect_read_pipe(world->loop, note_and_give, recorder, fds[0], &future);
        world->fail_after = allowed;
        seen_both |= factory_called && status;
        if (!status)
            break;
        assert_int_equal(status, -ENOMEM);
        assert_true(is_open(fds[0]));
        size_t kept = world->fail_after;
        world->fail_after = SIZE_MAX;
        run_ticks(world, 1); /* where the factory had been called: released */
        assert_true(recorder->was_released == factory_called);
        factory_called = recorder->was_released = false;
        world->fail_after = kept;
    }
    assert_true(world->fail_after > 0);
    assert_true(seen_both); /* a creation that failed behind the factory */
    world->fail_after = SIZE_MAX;
    tram_future_release(future);
    close(fds[1]);
    run_until(world, &recorder->was_released);
}

/* ---- Reading: I-4 to I-7 ---- */

static void test_I_4_one_read_takes_256_KiB_and_pausing_holds_the_rest(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    assert_true(fcntl(fds[1], F_SETPIPE_SZ, 1 << 20) >= 1 << 20);
    static char bytes[(1 << 19) + 1000];
    assert_int_equal(write(fds[1], bytes, sizeof bytes), sizeof bytes);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = connected(recorder, tram_loop_connect_read_pipe, fds[0]);
    recorder->world->trace[0] = '\0';
    recorder->received = 0;
    run_ticks(world, 1);
    assert_int_equal(recorder->received, RECEIVE_LIMIT);
    assert_int_equal(tram_transport_pause_reading(transport), 0);
    assert_false(tram_transport_is_reading(transport));
    close(fds[1]);
    run_ticks(world, 3);
    assert_int_equal(recorder->received, RECEIVE_LIMIT);
    assert_int_equal(tram_transport_resume_reading(transport), 0);
    assert_true(tram_transport_is_reading(transport));
    run_until(world, &recorder->was_released);
    assert_trace(world, "data:262144 data:1000 eof lost:0 released");
}

/* rules: I-5, P-11 */
static void test_the_end_is_queued_and_what_eof_received_says_is_ignored(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->eof_returns = 1;
    tram_transport *transport = connected(recorder, tram_loop_connect_read_pipe, fds[0]);
    close(fds[1]);
    run_ticks(world, 1);
    assert_trace(world, "");
    assert_true(tram_transport_is_closing(transport));
    assert_false(tram_transport_is_reading(transport));
    assert_int_equal(tram_transport_abort(transport), 0);
    run_ticks(world, 1);
    assert_trace(world, "eof lost:0 released");
}

static int eof_code;

static int fail_at_eof(struct recorder *recorder, const char *event) {
    return strcmp(event, "eof") == 0 ? tram_loop_raise(recorder->world->loop, eof_code, recorder, NULL) : 0;
}

/* rules: I-5, T-16 */
static void test_P_17_a_failing_eof_received_is_reported_and_the_end_stays_clean(void **state) {
    struct world *world = *state;
    const int codes[] = {TRAM_EUSER, -EIO}; /* what looks like an error of the system, too */
    for (unsigned i = 0; i < 2; i++) {
        int fds[2];
        open_pipe(fds);
        struct recorder *recorder = recorder_new(world, NULL);
        recorder->on = fail_at_eof;
        eof_code = codes[i];
        connected(recorder, tram_loop_connect_read_pipe, fds[0]);
        close(fds[1]);
        run_until(world, &recorder->was_released);
        assert_trace(world, "eof lost:0 released");
        assert_int_equal(world->exceptions, i + 1);
        assert_int_equal(world->exception_code, codes[i]);
        assert_ptr_equal(world->exception_protocol, recorder);
    }
}

static void test_I_5_a_loop_that_closes_before_the_end_was_told_tells_it(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    connected(recorder, tram_loop_connect_read_pipe, fds[0]);
    close(fds[1]);
    run_ticks(world, 1);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "lost:0 released");
}

static void test_I_6_a_terminal_that_was_closed_ends_with_EIO_unreported(void **state) {
    struct world *world = *state;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(slave >= 0);
    struct recorder *recorder = recorder_new(world, NULL);
    connected(recorder, tram_loop_connect_read_pipe, master);
    assert_int_equal(write(slave, "last words\n", 11), 11);
    run_until_traced(world, "data");
    close(slave);
    run_until(world, &recorder->was_released);
    assert_trace(world, "data:12 lost:EIO released");
    assert_int_equal(world->exceptions, 0);
}

static void test_I_7_each_has_its_own_direction_only(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *one = recorder_new(world, NULL), *two = recorder_new(world, NULL);
    tram_transport *reader = connected(one, tram_loop_connect_read_pipe, fds[0]);
    tram_transport *writer = connected(two, tram_loop_connect_write_pipe, fds[1]);
    struct iovec piece = {.iov_base = "x", .iov_len = 1};
    size_t low, high;
    assert_int_equal(tram_transport_write(reader, "x", 1), -ENOTSUP);
    assert_int_equal(tram_transport_writelines(reader, &piece, 1), -ENOTSUP);
    assert_int_equal(tram_transport_write_eof(reader), -ENOTSUP);
    assert_int_equal(tram_transport_cork(reader), -ENOTSUP);
    assert_int_equal(tram_transport_set_write_buffer_limits(reader, 10, 1), -ENOTSUP);
    assert_int_equal(tram_transport_get_write_buffer_limits(reader, &high, &low), -ENOTSUP);
    assert_int_equal(tram_transport_set_write_hard_limit(reader, 1), -ENOTSUP);
    assert_int_equal(tram_transport_get_write_buffer_size(reader), 0);
    assert_false(tram_transport_can_write_eof(reader));
    assert_int_equal(tram_transport_pause_reading(writer), -ENOTSUP);
    assert_int_equal(tram_transport_resume_reading(writer), -ENOTSUP);
    assert_false(tram_transport_is_reading(writer));
    assert_true(tram_transport_is_reading(reader));
    assert_int_equal(tram_transport_close(reader), 0);
    assert_int_equal(tram_transport_close(writer), 0);
    run_until(world, &two->was_released);
}

static int fail_at_data(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") != 0 && strcmp(event, "updated") != 0)
        return 0;
    return tram_loop_raise(recorder->world->loop, recorder->arg ? -EPROTO : TRAM_EUSER, recorder, NULL);
}

static void test_P_17_a_failing_data_received_is_reported_and_reading_goes_on(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    recorder->on = fail_at_data;
    tram_transport *transport = connected(recorder, tram_loop_connect_read_pipe, fds[0]);
    for (int i = 0; i < 2; i++) {
        recorder->arg = i ? recorder : NULL; /* whatever the code */
        assert_int_equal(write(fds[1], "abc", 3), 3);
        run_ticks(world, 1);
        assert_trace(world, "data:3");
        assert_int_equal(world->exceptions, i + 1);
        assert_int_equal(world->exception_code, i ? -EPROTO : TRAM_EUSER);
        assert_ptr_equal(world->exception_transport, transport);
        assert_false(tram_transport_is_closing(transport));
    }
    close(fds[1]);
    run_until(world, &recorder->was_released);
    assert_trace(world, "eof lost:0 released");
}

static void test_B_7_a_buffered_protocol_reads_a_pipe(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new_buffered(world, NULL);
    recorder->buffer_size = 4;
    recorder->keep = true;
    connected(recorder, tram_loop_connect_read_pipe, fds[0]);
    assert_int_equal(write(fds[1], "abcdef", 6), 6);
    run_ticks(world, 2);
    assert_trace(world, "get_buffer updated:4 get_buffer updated:2");
    assert_memory_equal(recorder->bytes, "abcdef", 6);
    close(fds[1]);
    run_until(world, &recorder->was_released);
    assert_trace(world, "get_buffer eof lost:0 released");
}

/* ---- Writing: I-8 to I-11 ---- */

static void test_I_8_writing_is_as_on_sockets_with_one_buffer(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = connected(recorder, tram_loop_connect_write_pipe, fds[1]);
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 8192, 4096), 0);
    assert_int_equal(tram_transport_write(transport, NULL, 1), TRAM_EVALUE);
    assert_int_equal(tram_transport_write(transport, NULL, 0), 0);
    size_t written = write_until_queued(transport, 8192);
    assert_trace(world, "pause");
    struct iovec pieces[] = {{.iov_base = "ab", .iov_len = 2}, {.iov_base = "c", .iov_len = 1}};
    assert_int_equal(tram_transport_writelines(transport, pieces, 2), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), written - 65536 + 3);
    drain(world, fds[0], written + 3);
    assert_trace(world, "resume");
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    tram_transport_close(transport);
    run_until(world, &recorder->was_released);
    close(fds[0]);
}

static void drop_one_of_each(tram_transport *transport) {
    struct iovec piece = {.iov_base = "x", .iov_len = 1};
    tram_buffer *buffer = tram_buffer_copy("x", 1);
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    assert_int_equal(tram_transport_writelines(transport, &piece, 1), 0);
    assert_int_equal(tram_transport_write_buffer(transport, buffer), 0);
    tram_buffer_release(buffer);
    assert_int_equal(tram_transport_write(transport, NULL, 1), TRAM_EVALUE);
    assert_int_equal(tram_transport_write_buffer(transport, NULL), TRAM_EVALUE);
}

static void test_I_8_I_10_W_25_after_write_eof_data_is_dropped_and_counted(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = connected(recorder, tram_loop_connect_write_pipe, fds[1]);
    assert_true(tram_transport_can_write_eof(transport));
    size_t written = write_until_queued(transport, 0);
    size_t queued = tram_transport_get_write_buffer_size(transport);
    assert_int_equal(tram_transport_write_eof(transport), 0);
    assert_true(tram_transport_is_closing(transport));
    assert_int_equal(tram_transport_write_eof(transport), 0);
    tram_stats stats;
    tram_loop_stats(world->loop, &stats);
    uint64_t before = stats.dropped_writes;
    drop_one_of_each(transport);
    tram_loop_stats(world->loop, &stats);
    assert_int_equal(stats.dropped_writes - before, 3);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), queued);
    assert_int_equal(world->warnings, 0);
    drop_one_of_each(transport);
    assert_int_equal(world->warnings, 0);
    drain(world, fds[0], written);
    run_until(world, &recorder->was_released);
    assert_int_equal(world->warnings, 1);
    assert_non_null(strstr(world->log, "6 writes to connection"));
    assert_trace(world, "lost:0 released");
    char byte;
    assert_int_equal(read(fds[0], &byte, 1), 0);
    close(fds[0]);
}

static void test_I_9_a_reader_that_goes_is_noticed_without_writing(void **state) {
    struct world *world = *state;
    for (int socket = 0; socket < 2; socket++) {
        int fds[2];
        if (socket)
            unix_pair(fds);
        else
            open_pipe(fds);
        struct recorder *recorder = recorder_new(world, NULL);
        tram_transport *transport = connected(recorder, tram_loop_connect_write_pipe, fds[1]);
        assert_int_equal(tram_transport_write(transport, "x", 1), 0);
        run_ticks(world, 2);
        assert_trace(world, "");
        close(fds[0]);
        run_until(world, &recorder->was_released);
        assert_trace(world, "lost:0 released");
    }
    assert_int_equal(world->exceptions, 0);
}

static void test_I_9_a_reader_that_goes_with_data_unsent_is_EPIPE(void **state) {
    struct world *world = *state;
    for (int close_first = 0; close_first < 2; close_first++) {
        int fds[2];
        open_pipe(fds);
        struct recorder *recorder = recorder_new(world, NULL);
        tram_transport *transport = connected(recorder, tram_loop_connect_write_pipe, fds[1]);
        write_until_queued(transport, 0);
        if (close_first)
            tram_transport_close(transport);
        close(fds[0]);
        run_until(world, &recorder->was_released);
        assert_trace(world, "lost:EPIPE released");
    }
    assert_int_equal(world->exceptions, 0);
}

/* A peer that talks is no reader that went. */
static void test_I_9_bytes_from_the_reader_of_a_socket_change_nothing(void **state) {
    struct world *world = *state;
    int fds[2];
    unix_pair(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = connected(recorder, tram_loop_connect_write_pipe, fds[1]);
    assert_int_equal(write(fds[0], "back", 4), 4);
    run_ticks(world, 3);
    assert_trace(world, "");
    assert_false(tram_transport_is_closing(transport));
    close(fds[0]);
    run_until(world, &recorder->was_released);
    assert_trace(world, "lost:0 released");
}

static void test_I_9_on_a_terminal_only_writing_tells(void **state) {
    struct world *world = *state;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = connected(recorder, tram_loop_connect_write_pipe, slave);
    close(master);
    run_ticks(world, 3);
    assert_trace(world, "");
    assert_int_equal(tram_transport_write(transport, "x", 1), 0);
    assert_true(tram_transport_is_closing(transport));
    run_until(world, &recorder->was_released);
    assert_trace(world, "lost:EIO released");
    assert_int_equal(world->exceptions, 0);
}

static void test_I_10_write_eof_with_nothing_queued_is_a_close(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = connected(recorder, tram_loop_connect_write_pipe, fds[1]);
    assert_int_equal(tram_transport_write_eof(transport), 0);
    assert_true(tram_transport_is_closing(transport));
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "lost:0 released");
    char byte;
    assert_int_equal(read(fds[0], &byte, 1), 0);
    close(fds[0]);
}

static void test_I_11_aborting_drops_what_is_unsent(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = connected(recorder, tram_loop_connect_write_pipe, fds[1]);
    write_until_queued(transport, 4096);
    assert_int_equal(tram_transport_close(transport), 0);
    run_ticks(world, 1);
    assert_trace(world, "");
    assert_int_equal(tram_transport_abort(transport), 0);
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    run_ticks(world, 1);
    assert_trace(world, "lost:0 released");
    close(fds[0]);
}

/* Of a socket as of any other: a close never waits for what the peer does not read. */
static void test_T_11_a_socket_as_a_pipe_loses_its_linger_time(void **state) {
    static connect_function *const ways[] = {tram_loop_connect_read_pipe, tram_loop_connect_write_pipe};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct linger linger = {.l_onoff = 1, .l_linger = 20};
        socklen_t size = sizeof linger;
        int fds[2];
        unix_pair(fds);
        int same = dup(fds[1]);
        assert_int_equal(setsockopt(same, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
        struct recorder *recorder = recorder_new(world, NULL);
        assert_int_equal(tram_transport_close(connected(recorder, ways[i], fds[1])), 0);
        run_until(world, &recorder->was_released);
        assert_int_equal(getsockopt(same, SOL_SOCKET, SO_LINGER, &linger, &size), 0);
        assert_int_equal(linger.l_onoff, 0);
        close(same);
        close(fds[0]);
        world->trace[0] = '\0';
    }
}

static void test_I_12_T_10_the_only_extra_info_is_pipe(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = connected(recorder, tram_loop_connect_read_pipe, fds[0]);
    const char *fallback = "none";
    const int *fd = tram_transport_get_extra_info(transport, "pipe", NULL);
    assert_non_null(fd);
    assert_int_equal(*fd, fds[0]);
    const char *others[] = {"socket", "sockname", "peername", "subprocess", ""};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_ptr_equal(tram_transport_get_extra_info(transport, others[i], fallback), fallback);
    tram_transport_hold(transport);
    close(fds[1]);
    run_until(world, &recorder->was_released);
    assert_int_equal(*(const int *)tram_transport_get_extra_info(transport, "pipe", NULL), -1);
    tram_transport_release(transport);
}

/* ---- W-12 ---- */

static int pwritev2_error;

/* A kernel that does not know how to write without the signal, or a device that does not. */
static ssize_t no_pwritev2(int fd, const struct iovec *pieces, int count, off_t offset, int flags) {
    (void)fd, (void)pieces, (void)count, (void)offset, (void)flags;
    errno = pwritev2_error;
    return -1;
}

static void write_to_nobody(struct world *world, int expected_pending) {
    int fds[2];
    open_pipe(fds);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_future *future = begin(recorder, tram_loop_connect_write_pipe, fds[1]);
    run_ticks(world, 1);
    close(fds[0]);
    /* Before the loop can notice. */
    assert_int_equal(tram_transport_write(recorder->base.transport, "x", 1), 0);
    assert_true(tram_transport_is_closing(recorder->base.transport));
    run_until(world, &recorder->was_released);
    assert_trace(world, "made creator:0 lost:EPIPE released");
    tram_future_release(future);
    sigset_t pending, blocked;
    sigpending(&pending);
    assert_int_equal(sigismember(&pending, SIGPIPE), expected_pending);
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    assert_int_equal(sigismember(&blocked, SIGPIPE), expected_pending);
}

static void test_W_12_a_write_to_nobody_is_EPIPE_and_no_signal(void **state) {
    struct world *world = *state;
    static struct sys old_kernel;
    old_kernel = tram__sys;
    old_kernel.pwritev2 = no_pwritev2;
    struct sigaction before, deadly = {.sa_handler = SIG_DFL};
    assert_int_equal(sigaction(SIGPIPE, &deadly, &before), 0);
    write_to_nobody(world, 0);
    static const int errors[] = {EOPNOTSUPP, ENOSYS, EINVAL};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        pwritev2_error = errors[i];
        world_use_sys(world, &old_kernel);
        write_to_nobody(world, 0);
    }

    /* One that the program had blocked and not yet taken stays its own. */
    sigset_t pipe_signal, mask;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &mask);
    raise(SIGPIPE);
    write_to_nobody(world, 1);
    int number;
    sigwait(&pipe_signal, &number);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    sigaction(SIGPIPE, &before, NULL);
}

static void test_I_13_writing_resumes_at_the_low_mark(void **state) {
    struct world *world = *state;
    int fds[2];
    open_pipe(fds);
    set_blocking(fds[0], false);
    struct recorder *recorder = recorder_new(world, NULL);
    tram_transport *transport = connected(recorder, tram_loop_connect_write_pipe, fds[1]);
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 400000, 300000), 0);
    write_until_queued(transport, 400000);
    assert_trace(world, "pause");
    static char bytes[4096];
    while (!strstr(world->trace, "resume")) {
        ssize_t taken = read(fds[0], bytes, sizeof bytes);
        assert_true(taken > 0 || errno == EAGAIN);
        run_ticks(world, 1);
    }
    assert_in_range(tram_transport_get_write_buffer_size(transport), 200000, 300000);
    close(fds[0]);
    tram_transport_abort(transport);
    run_until(world, &recorder->was_released);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_I_1_what_is_no_pipe_is_refused_and_left_alone),
        TEST(test_I_1_pipes_fifos_sockets_and_character_devices_are_taken),
        TEST(test_I_1_a_device_that_cannot_be_polled_ends_with_that_error),
        TEST(test_I_2_the_descriptor_becomes_non_blocking_and_the_transports),
        TEST(test_made_then_the_creator_then_data_that_waited),
        TEST(test_C_11_a_cancelled_creation_says_nothing_to_the_protocol),
        TEST(test_C_11_cancelled_in_connection_made),
        TEST(test_C_13_the_error_of_a_factory_reaches_the_creator),
        TEST(test_I_2_without_memory_the_descriptor_stays_the_callers),
        TEST(test_I_4_one_read_takes_256_KiB_and_pausing_holds_the_rest),
        TEST(test_the_end_is_queued_and_what_eof_received_says_is_ignored),
        TEST(test_I_13_writing_resumes_at_the_low_mark),
        TEST(test_P_17_a_failing_eof_received_is_reported_and_the_end_stays_clean),
        TEST(test_I_5_a_loop_that_closes_before_the_end_was_told_tells_it),
        TEST(test_I_6_a_terminal_that_was_closed_ends_with_EIO_unreported),
        TEST(test_I_7_each_has_its_own_direction_only),
        TEST(test_P_17_a_failing_data_received_is_reported_and_reading_goes_on),
        TEST(test_B_7_a_buffered_protocol_reads_a_pipe),
        TEST(test_I_8_writing_is_as_on_sockets_with_one_buffer),
        TEST(test_I_8_I_10_W_25_after_write_eof_data_is_dropped_and_counted),
        TEST(test_I_9_a_reader_that_goes_is_noticed_without_writing),
        TEST(test_I_9_a_reader_that_goes_with_data_unsent_is_EPIPE),
        TEST(test_I_9_bytes_from_the_reader_of_a_socket_change_nothing),
        TEST(test_I_9_on_a_terminal_only_writing_tells),
        TEST(test_I_10_write_eof_with_nothing_queued_is_a_close),
        TEST(test_I_11_aborting_drops_what_is_unsent),
        TEST(test_T_11_a_socket_as_a_pipe_loses_its_linger_time),
        TEST(test_I_12_T_10_the_only_extra_info_is_pipe),
        TEST(test_W_12_a_write_to_nobody_is_EPIPE_and_no_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
