/* Two transports coupled: tram_bridge() and tram_transport_reset(). */
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/system/sys.h"
#include "support/stream.h"
#include "support/support.h"

/* Left and right are descriptors of the test; between them are two transports and the bridge. */
struct coupling {
    struct world *world;
    int left, right;
    tram_transport *a, *b;
    tram_future *future;
};

static struct coupling sockets_between(struct world *world, void (*make)(int fds[2])) {
    struct coupling coupling = {.world = world};
    int left[2], right[2];
    make(left);
    make(right);
    coupling.left = left[0];
    coupling.right = right[0];
    coupling.a = transport_new(world, left[1], recorder_new(world, "a"));
    coupling.b = transport_new(world, right[1], recorder_new(world, "b"));
    run_to_rest(world);
    assert_trace(world, "a.made b.made");
    return coupling;
}

static void couple(struct coupling *coupling, uint64_t idle_ns) {
    tram_bridge_options options = {.idle_timeout_ns = idle_ns};
    assert_int_equal(tram_bridge(coupling->a, coupling->b, &options, &coupling->future), 0);
    run_to_rest(coupling->world);
    assert_trace(coupling->world, "a.released b.released");
}

static struct coupling coupled(struct world *world) {
    struct coupling coupling = sockets_between(world, tcp_pair);
    couple(&coupling, 0);
    return coupling;
}

static bool is_done(void *arg) {
    return tram_future_done(arg);
}

static const tram_bridge_result *ended(struct coupling *coupling) {
    void *result;
    run_until_true(coupling->world, is_done, coupling->future);
    assert_int_equal(tram_future_result(coupling->future, &result), 0);
    return result;
}

static void assert_ended(struct coupling *coupling, tram_bridge_outcome outcome, int side, int code, size_t from_a,
                         size_t from_b) {
    const tram_bridge_result *result = ended(coupling);
    assert_int_equal(result->outcome, outcome);
    assert_int_equal(result->side, side);
    assert_int_equal(result->code, code);
    assert_int_equal(result->bytes[0], from_a);
    assert_int_equal(result->bytes[1], from_b);
}

static void end(struct coupling *coupling) {
    run_until_true(coupling->world, is_done, coupling->future);
    run_to_rest(coupling->world);
    tram_future_release(coupling->future);
    close(coupling->left);
    close(coupling->right);
}

static void expect(struct coupling *coupling, int fd, const char *text) {
    char bytes[64];
    receive_exactly(coupling->world, fd, bytes, strlen(text));
    assert_memory_equal(bytes, text, strlen(text));
}

static void say(struct coupling *coupling, int fd, const char *text) {
    send_exactly(coupling->world, fd, text, strlen(text));
}

static void test_the_end_of_a_stream_goes_over_as_that(void **state) {
    struct coupling coupling = coupled(*state);
    say(&coupling, coupling.left, "question");
    shutdown(coupling.left, SHUT_WR);
    expect(&coupling, coupling.right, "question");
    assert_true(receive_eof(*state, coupling.right));
    say(&coupling, coupling.right, "the answer");
    expect(&coupling, coupling.left, "the answer");
    assert_false(tram_future_done(coupling.future));
    shutdown(coupling.right, SHUT_WR);
    assert_true(receive_eof(*state, coupling.left));
    assert_ended(&coupling, TRAM_BRIDGE_EOF, -1, 0, 8, 10);
    end(&coupling);
}

static void test_a_reset_goes_over_as_a_reset(void **state) {
    for (int side = 0; side < 2; side++) {
        struct coupling coupling = coupled(*state);
        int *from = side ? &coupling.right : &coupling.left, other = side ? coupling.left : coupling.right;
        say(&coupling, *from, "x");
        expect(&coupling, other, "x");
        close_with_reset(*from);
        *from = dup(other);
        assert_false(receive_eof(*state, other));
        assert_int_equal(errno, ECONNRESET);
        assert_ended(&coupling, TRAM_BRIDGE_FAILED, side, -ECONNRESET, !side, side);
        end(&coupling);
    }
}

static void test_reset_is_an_abort_that_the_peer_sees_as_one(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    assert_int_equal(tram_transport_reset(wire.transport), 0);
    assert_int_equal(tram_transport_reset(wire.transport), 0);
    assert_trace(world, "");
    assert_false(receive_eof(world, wire.peer));
    assert_int_equal(errno, ECONNRESET);
    assert_trace(world, "lost:0 released");
    close(wire.peer);
    struct recorder *a = recorder_new(world, "a"), *b = recorder_new(world, "b");
    assert_int_equal(tram_loop_create_pair(world->loop, &a->base, &b->base, NULL, NULL), 0);
    run_to_rest(world);
    assert_int_equal(tram_transport_reset(a->base.transport), 0);
    run_to_rest(world);
    assert_trace(world, "a.made b.made a.lost:0 a.released b.eof b.lost:0 b.released");
}

/* Sends as long as the other side takes some; how much that was. */
static size_t stuff(struct world *world, int fd) {
    static char bytes[10000];
    size_t size = 0;
    for (int idle = 0; idle < 20;) {
        pattern(bytes, sizeof bytes, size);
        ssize_t sent = send(fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        size += sent > 0 ? (size_t)sent : 0;
        idle = sent > 0 ? 0 : idle + 1;
        run_ticks(world, 1);
    }
    return size;
}

static void test_a_side_that_does_not_read_slows_the_other_down(void **state) {
    struct world *world = *state;
    for (int round = 0; round < 2; round++) {
        struct coupling coupling = sockets_between(world, round ? tcp_pair : unix_pair);
        couple(&coupling, 0);
        world->peak_bytes = world->live_bytes;
        size_t before = world->live_bytes, size = stuff(world, coupling.left);
        assert_true(world->peak_bytes - before <= (size_t)(64 + 256 + 32) * 1024);
        assert_true(tram_transport_get_write_buffer_size(coupling.b) > 65536);
        assert_false(tram_transport_is_reading(coupling.a));
        assert_true(tram_transport_is_reading(coupling.b));
        shutdown(coupling.left, SHUT_WR);
        char bytes[7000];
        for (size_t got = 0; got < size;) {
            size_t part = size - got < sizeof bytes ? size - got : sizeof bytes;
            receive_exactly(world, coupling.right, bytes, part);
            assert_pattern(bytes, part, got);
            got += part;
        }
        assert_true(receive_eof(world, coupling.right));
        shutdown(coupling.right, SHUT_WR);
        assert_ended(&coupling, TRAM_BRIDGE_EOF, -1, 0, size, 0);
        end(&coupling);
    }
}

static void test_what_was_queued_before_goes_first(void **state) {
    struct world *world = *state;
    struct coupling coupling = sockets_between(world, unix_pair);
    fill(coupling.b, 70000);
    world->trace[0] = '\0';
    size_t queued = tram_transport_get_write_buffer_size(coupling.b);
    say(&coupling, coupling.left, "behind it");
    tram_transport_pause_reading(coupling.a);
    couple(&coupling, 0);
    assert_int_equal(tram_transport_get_write_buffer_size(coupling.b), queued);
    assert_false(tram_transport_is_reading(coupling.a)); /* the old protocol had been told to pause */
    shutdown(coupling.left, SHUT_WR);
    static char bytes[1 << 20];
    size_t size = 0;
    for (;;) {
        ssize_t received = recv(coupling.right, bytes + size, sizeof bytes - size, MSG_DONTWAIT);
        if (received == 0)
            break;
        size += received > 0 ? (size_t)received : 0;
        run_ticks(world, 1);
    }
    assert_memory_equal(bytes + size - 9, "behind it", 9);
    shutdown(coupling.right, SHUT_WR);
    assert_ended(&coupling, TRAM_BRIDGE_EOF, -1, 0, 9, 0);
    end(&coupling);
}

static void test_an_end_that_was_seen_before_goes_over(void **state) {
    struct world *world = *state;
    struct coupling coupling = sockets_between(world, tcp_pair);
    struct recorder *half = (struct recorder *)tram_transport_get_protocol(coupling.a);
    half->eof_returns = 1;
    shutdown(coupling.left, SHUT_WR);
    run_until_traced(world, "a.eof");
    world->trace[0] = '\0';
    couple(&coupling, 0);
    assert_true(receive_eof(world, coupling.right));
    say(&coupling, coupling.right, "answer");
    expect(&coupling, coupling.left, "answer");
    shutdown(coupling.right, SHUT_WR);
    assert_ended(&coupling, TRAM_BRIDGE_EOF, -1, 0, 0, 6);
    end(&coupling);
}

static bool readable(void *arg) {
    struct pollfd poll_fd = {.fd = *(int *)arg, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

static void test_a_socket_and_a_memory_pair(void **state) {
    struct world *world = *state;
    int fds[2];
    tcp_pair(fds);
    struct recorder *a = recorder_new(world, "a"), *b = recorder_new(world, "b"), *far = recorder_new(world, "far");
    struct coupling coupling = {.world = world, .left = fds[0], .right = dup(fds[0])};
    coupling.a = transport_new(world, fds[1], a);
    assert_int_equal(tram_loop_create_pair(world->loop, &b->base, &far->base, &coupling.b, NULL), 0);
    far->keep = true;
    far->eof_returns = 1;
    run_to_rest(world);
    world->trace[0] = '\0';
    couple(&coupling, 0);
    say(&coupling, coupling.left, "hello");
    shutdown(coupling.left, SHUT_WR);
    run_until_traced(world, "far.eof");
    assert_memory_equal(far->bytes, "hello", 5);
    assert_int_equal(tram_transport_write(far->base.transport, "world", 5), 0);
    tram_transport_close(far->base.transport);
    expect(&coupling, coupling.left, "world");
    assert_true(receive_eof(world, coupling.left));
    assert_ended(&coupling, TRAM_BRIDGE_EOF, -1, 0, 5, 5);
    end(&coupling);
}

/* A socket at one side; at the other the reading end of a pipe, or the writing end of one. */
static void test_a_socket_and_one_end_of_a_pipe(void **state) {
    struct world *world = *state;
    for (int writing = 0; writing < 2; writing++) {
        int fds[2], pipes[2];
        void *transport;
        tram_future *future;
        tcp_pair(fds);
        assert_int_equal(pipe(pipes), 0);
        struct coupling coupling = {.world = world, .left = fds[0], .right = pipes[!writing]};
        coupling.a = transport_new(world, fds[1], recorder_new(world, "a"));
        assert_int_equal(writing ? tram_loop_connect_write_pipe(world->loop, recorder_factory, world, pipes[1], &future)
                                 : tram_loop_connect_read_pipe(world->loop, recorder_factory, world, pipes[0], &future),
                         0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
        assert_int_equal(tram_future_result(future, &transport), 0);
        tram_future_release(future);
        coupling.b = transport;
        if (!writing) {
            /* What the socket sends has nowhere to go: it must have ended before. */
            assert_int_equal(tram_bridge(coupling.a, coupling.b, NULL, &coupling.future), -ENOTSUP);
            assert_int_equal(tram_bridge(coupling.b, coupling.a, NULL, &coupling.future), -ENOTSUP);
            ((struct recorder *)tram_transport_get_protocol(coupling.a))->eof_returns = 1;
            shutdown(coupling.left, SHUT_WR);
            run_until_traced(world, "a.eof");
        }
        assert_int_equal(tram_bridge(coupling.a, coupling.b, NULL, &coupling.future), 0);
        if (writing) {
            assert_true(receive_eof(world, coupling.left)); /* nothing will come from there */
            say(&coupling, coupling.left, "to the pipe");
            char bytes[11];
            run_until_true(world, readable, &coupling.right);
            assert_int_equal(read(coupling.right, bytes, sizeof bytes), 11);
            assert_memory_equal(bytes, "to the pipe", 11);
            shutdown(coupling.left, SHUT_WR);
        } else {
            assert_int_equal(write(coupling.right, "from the pipe", 13), 13);
            expect(&coupling, coupling.left, "from the pipe");
            assert_int_equal(close(coupling.right), 0);
            coupling.right = dup(coupling.left);
            assert_true(receive_eof(world, coupling.left));
        }
        assert_ended(&coupling, TRAM_BRIDGE_EOF, -1, 0, writing ? 11 : 0, writing ? 0 : 13);
        end(&coupling);
        world->trace[0] = '\0';
    }
}

static int give_recorder(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

/* A transport over one end of a new pipe; the other end is the test's. */
static tram_transport *half_of_pipe(struct world *world, const char *name, bool reading, int *ret_far) {
    struct recorder *recorder = recorder_new(world, name);
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    *ret_far = fds[reading];
    int status = reading ? tram_loop_connect_read_pipe(world->loop, give_recorder, recorder, fds[0], NULL)
                         : tram_loop_connect_write_pipe(world->loop, give_recorder, recorder, fds[1], NULL);
    assert_int_equal(status, 0);
    run_to_rest(world);
    world->trace[0] = '\0';
    return recorder->base.transport;
}

static void assert_reads(struct world *world, int fd, const char *text) {
    char bytes[64];
    run_to_rest(world);
    assert_int_equal(read(fd, bytes, sizeof bytes), strlen(text));
    assert_memory_equal(bytes, text, strlen(text));
}

static void test_from_pipe_to_pipe(void **state) {
    for (int writer_first = 0; writer_first < 2; writer_first++) {
        struct coupling coupling = {.world = *state};
        coupling.a = half_of_pipe(*state, "a", true, &coupling.left);
        coupling.b = half_of_pipe(*state, "b", false, &coupling.right);
        tram_transport *first = writer_first ? coupling.b : coupling.a;
        tram_transport *second = writer_first ? coupling.a : coupling.b;
        assert_int_equal(tram_bridge(first, second, NULL, &coupling.future), 0);
        assert_int_equal(write(coupling.left, "down the pipe", 13), 13);
        assert_reads(*state, coupling.right, "down the pipe");
        assert_false(tram_future_done(coupling.future));
        assert_int_equal(write(coupling.left, "the rest", 8), 8);
        close(coupling.left);
        assert_reads(*state, coupling.right, "the rest");
        assert_reads(*state, coupling.right, "");
        coupling.left = dup(coupling.right);
        assert_ended(&coupling, TRAM_BRIDGE_EOF, -1, 0, writer_first ? 0 : 21, writer_first ? 21 : 0);
        end(&coupling);
    }
}

static void test_two_ends_of_the_same_direction_are_refused(void **state) {
    struct world *world = *state;
    for (int reading = 0; reading < 2; reading++) {
        int far[2];
        tram_transport *ends[2];
        tram_future *future = NULL;
        for (int i = 0; i < 2; i++)
            ends[i] = half_of_pipe(world, "pipe", reading, &far[i]);
        assert_int_equal(tram_bridge(ends[0], ends[1], NULL, &future), -ENOTSUP);
        assert_null(future);
        for (int i = 0; i < 2; i++) {
            tram_transport_abort(ends[i]);
            close(far[i]);
        }
        run_to_rest(world);
        assert_trace(world, "pipe.lost:0 pipe.released pipe.lost:0 pipe.released");
    }
}

/* rules: M-1 */
static void test_a_transport_that_only_reads_is_refused_as_a_target(void **state) {
    static const tram_custom_ops only_reads = {0};
    struct world *world = *state;
    struct coupling coupling = sockets_between(world, tcp_pair);
    struct recorder *c = recorder_new(world, "c");
    tram_transport *custom;
    tram_future *future = NULL;
    assert_int_equal(tram_loop_create_custom(world->loop, &only_reads, NULL, &c->base, &custom), 0);
    run_to_rest(world);
    assert_int_equal(tram_bridge(coupling.a, custom, NULL, &future), -ENOTSUP);
    assert_int_equal(tram_bridge(custom, coupling.a, NULL, &future), -ENOTSUP);
    assert_null(future);
    tram_transport_abort(custom);
    tram_transport_abort(coupling.a);
    tram_transport_abort(coupling.b);
    run_to_rest(world);
    close(coupling.left);
    close(coupling.right);
}

static void test_F_7_no_file_is_sent_where_a_bridge_writes(void **state) {
    struct world *world = *state;
    struct coupling coupling = coupled(world);
    tram_future *future = NULL;
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_int_equal(tram_loop_sendfile(world->loop, coupling.b, file, 0, 10, NULL, &future), TRAM_ESTATE);
    assert_null(future);
    say(&coupling, coupling.left, "still coupled");
    expect(&coupling, coupling.right, "still coupled");
    tram_future_cancel(coupling.future);
    end(&coupling);
    close(file);
}

/* Nobody has to read at the other side for that. */
static void test_P_10_a_reset_of_a_side_that_is_not_read_goes_over(void **state) {
    struct world *world = *state;
    struct coupling coupling = coupled(world);
    stuff(world, coupling.left);
    assert_false(tram_transport_is_reading(coupling.a));
    close_with_reset(coupling.left);
    coupling.left = dup(coupling.right);
    const tram_bridge_result *result = ended(&coupling);
    assert_int_equal(result->outcome, TRAM_BRIDGE_FAILED);
    assert_int_equal(result->side, 0);
    assert_int_equal(result->code, -ECONNRESET);
    run_to_rest(world);
    assert_false(receive_eof(world, coupling.right));
    assert_int_equal(errno, ECONNRESET);
    end(&coupling);
}

/* The direction that lives goes on: what a peer answered before it went away reaches the other. */
static void test_W_5_an_answer_before_a_reset_goes_over(void **state) {
    struct world *world = *state;
    struct coupling coupling = coupled(world);
    say(&coupling, coupling.left, "request");
    expect(&coupling, coupling.right, "req");
    send_exactly(NULL, coupling.right, "answer", 6);
    close(coupling.right); /* with bytes unread */
    coupling.right = dup(coupling.left);
    tram_transport_write(coupling.b, "x", 1);
    assert_false(tram_transport_is_closing(coupling.b));
    expect(&coupling, coupling.left, "answer");
    assert_true(receive_eof(world, coupling.left));
    assert_ended(&coupling, TRAM_BRIDGE_FAILED, 1, -ECONNRESET, 7, 6);
    end(&coupling);
}

/* The same where one side has finished already, and is not read for that. */
static void test_P_10_a_reset_after_the_end_of_a_stream_goes_over(void **state) {
    struct world *world = *state;
    struct coupling coupling = coupled(world);
    shutdown(coupling.left, SHUT_WR);
    assert_true(receive_eof(world, coupling.right));
    close_with_reset(coupling.left);
    coupling.left = dup(coupling.right);
    assert_ended(&coupling, TRAM_BRIDGE_FAILED, 0, -EPIPE, 0, 0);
    end(&coupling);
}

static void test_idle_bridges_end(void **state) {
    struct world *world = *state;
    struct coupling coupling = sockets_between(world, tcp_pair);
    uint64_t start = tram_loop_time(world->loop);
    couple(&coupling, 30000000);
    for (int i = 0; i < 3; i++) {
        say(&coupling, coupling.left, "x");
        expect(&coupling, coupling.right, "x");
    }
    assert_ended(&coupling, TRAM_BRIDGE_IDLE, -1, 0, 3, 0);
    assert_true(tram_loop_time(world->loop) - start >= 30000000);
    end(&coupling);
}

static struct sys shifted;
static uint64_t clock_ahead;
static bool clock_stands;

static int shifted_clock(clockid_t clock, struct timespec *ret_time) {
    int status = 0;
    if (clock_stands)
        *ret_time = (struct timespec){.tv_sec = 1000};
    else
        status = tram__sys.clock_gettime(clock, ret_time);
    uint64_t ns = (uint64_t)ret_time->tv_nsec + clock_ahead;
    ret_time->tv_sec += (time_t)(ns / 1000000000u);
    ret_time->tv_nsec = (long)(ns % 1000000000u);
    return status;
}

static void shift_clock(struct world *world) {
    shifted = tram__sys;
    shifted.clock_gettime = shifted_clock;
    clock_ahead = 0;
    clock_stands = false;
    world_use_sys(world, &shifted);
}

#define IDLE 1000000000000u /* far longer than the test takes by itself */

/* To the nanosecond, by a clock that stands. */
static void test_an_idle_time_is_over_when_it_is_over(void **state) {
    struct world *world = *state;
    shift_clock(world);
    clock_stands = true;
    struct coupling coupling = sockets_between(world, tcp_pair);
    couple(&coupling, IDLE);
    clock_ahead += IDLE - 1;
    run_ticks(world, 3);
    assert_false(tram_future_done(coupling.future));
    clock_ahead++;
    run_ticks(world, 3);
    assert_true(tram_future_done(coupling.future));
    assert_ended(&coupling, TRAM_BRIDGE_IDLE, -1, 0, 0, 0);
    end(&coupling);
}

/* What left the buffers at any time of it counts as if it had left at its end. */
static void test_what_was_taken_at_the_end_of_an_idle_time_begins_another(void **state) {
    struct world *world = *state;
    shift_clock(world);
    clock_stands = true;
    struct coupling coupling = sockets_between(world, unix_pair);
    tram_transport_set_write_buffer_limits(coupling.b, 1 << 25, 1 << 24);
    fill(coupling.b, 1000000);
    world->trace[0] = '\0';
    couple(&coupling, IDLE);
    static char bytes[65536];
    size_t before = tram_transport_get_write_buffer_size(coupling.b);
    while (tram_transport_get_write_buffer_size(coupling.b) == before) {
        recv(coupling.right, bytes, sizeof bytes, MSG_DONTWAIT);
        run_ticks(world, 1);
    }
    clock_ahead += IDLE;
    run_ticks(world, 3);
    assert_false(tram_future_done(coupling.future));
    clock_ahead += IDLE - 1;
    run_ticks(world, 3);
    assert_false(tram_future_done(coupling.future));
    clock_ahead++;
    assert_int_equal(ended(&coupling)->outcome, TRAM_BRIDGE_IDLE);
    end(&coupling);
}

/* For three idle times, in either direction alone. */
static void test_steady_traffic_is_no_idleness(void **state) {
    struct world *world = *state;
    shift_clock(world);
    for (int way = 0; way < 2; way++) {
        struct coupling coupling = sockets_between(world, tcp_pair);
        couple(&coupling, IDLE);
        for (int i = 0; i < 12; i++) {
            clock_ahead += IDLE / 4;
            say(&coupling, way ? coupling.right : coupling.left, "x");
            expect(&coupling, way ? coupling.left : coupling.right, "x");
            run_ticks(world, 1);
            assert_false(tram_future_done(coupling.future));
        }
        clock_ahead += IDLE - IDLE / 8;
        run_ticks(world, 3);
        assert_false(tram_future_done(coupling.future));
        clock_ahead += IDLE / 8;
        assert_ended(&coupling, TRAM_BRIDGE_IDLE, -1, 0, way ? 0 : 12, way ? 12 : 0);
        end(&coupling);
    }
}

/* Nobody says anything; one side takes what was queued, little by little. */
static void test_a_slow_reader_is_no_idleness(void **state) {
    struct world *world = *state;
    shift_clock(world);
    struct coupling coupling = sockets_between(world, unix_pair);
    tram_transport_set_write_buffer_limits(coupling.b, 1 << 25, 1 << 24);
    fill(coupling.b, 16000000);
    world->trace[0] = '\0';
    couple(&coupling, IDLE);
    static char bytes[65536];
    for (int i = 0; i < 12; i++) {
        clock_ahead += IDLE / 4;
        size_t before = tram_transport_get_write_buffer_size(coupling.b);
        while (tram_transport_get_write_buffer_size(coupling.b) == before) {
            recv(coupling.right, bytes, sizeof bytes, MSG_DONTWAIT);
            run_ticks(world, 1);
            assert_false(tram_future_done(coupling.future));
        }
        run_ticks(world, 2);
        assert_false(tram_future_done(coupling.future));
    }
    assert_true(tram_transport_get_write_buffer_size(coupling.b) > 0);
    clock_ahead += 2 * IDLE;
    run_ticks(world, 2);
    clock_ahead += 2 * IDLE;
    assert_int_equal(ended(&coupling)->outcome, TRAM_BRIDGE_IDLE);
    end(&coupling);
}

/* Both have ended their streams, and one does not take what the other sent. */
static void test_what_idleness_throws_away_was_not_handed_over(void **state) {
    struct world *world = *state;
    struct coupling coupling = sockets_between(world, unix_pair);
    tram_transport_set_write_buffer_limits(coupling.b, 1 << 20, 1 << 18); /* so that the end of `a` is seen */
    fill(coupling.b, 70000);
    world->trace[0] = '\0';
    couple(&coupling, 30000000);
    shutdown(coupling.left, SHUT_WR);
    shutdown(coupling.right, SHUT_WR);
    assert_ended(&coupling, TRAM_BRIDGE_IDLE, -1, 0, 0, 0);
    end(&coupling);
}

static void test_cancelling_aborts_both(void **state) {
    struct world *world = *state;
    struct coupling coupling = coupled(world);
    assert_int_equal(tram_future_cancel(coupling.future), 1);
    assert_true(tram_transport_is_closing(coupling.a) && tram_transport_is_closing(coupling.b));
    assert_true(receive_eof(world, coupling.left) && receive_eof(world, coupling.right));
    assert_true(tram_future_cancelled(coupling.future));
    end(&coupling);
}

static void test_who_closes_a_side_closes_both(void **state) {
    struct world *world = *state;
    struct coupling coupling = coupled(world);
    tram_transport_close(coupling.b);
    assert_true(receive_eof(world, coupling.left) && receive_eof(world, coupling.right));
    assert_ended(&coupling, TRAM_BRIDGE_CLOSED, 1, 0, 0, 0);
    end(&coupling);

    /* a side that another protocol takes is gone as well */
    coupling = coupled(world);
    struct recorder *thief = recorder_new(world, "thief");
    assert_int_equal(tram_transport_set_protocol(coupling.a, &thief->base), 0);
    assert_true(receive_eof(world, coupling.right));
    assert_ended(&coupling, TRAM_BRIDGE_CLOSED, 0, 0, 0, 0);
    tram_transport_abort(coupling.a);
    end(&coupling);
}

static void test_another_bridge_takes_over(void **state) {
    struct coupling coupling = coupled(*state);
    struct coupling old = coupling;
    say(&coupling, coupling.left, "before");
    expect(&coupling, coupling.right, "before");
    assert_int_equal(tram_bridge(coupling.b, coupling.a, NULL, &coupling.future), 0);
    say(&coupling, coupling.left, "after");
    expect(&coupling, coupling.right, "after");
    assert_ended(&old, TRAM_BRIDGE_CLOSED, 1, 0, 6, 0);
    tram_future_release(old.future);
    tram_future_cancel(coupling.future);
    end(&coupling);
}

static void test_a_bridge_without_a_future_ends_with_its_loop(void **state) {
    struct world *world = *state;
    struct coupling coupling = sockets_between(world, tcp_pair);
    assert_int_equal(tram_bridge(coupling.a, coupling.b, NULL, NULL), 0);
    world_reopen(world);
    close(coupling.left);
    close(coupling.right);
}

/* ---- A side whose other side is gone, or another's ---- */

static int keep_nothing(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    (void)state;
    for (size_t i = 0; i < count; i++)
        tram_custom_sent(transport, pieces[i].iov_len);
    return 0;
}

/* What is done to the one side, within a tick, before the other receives. */
struct parting {
    struct world *world;
    tram_transport *a;
    struct recorder *thief;
    enum { DETACHED, RESET_TO_ANOTHER, ABORTED, PARTINGS } how;
    struct detached detached;
};

static int part(tram_loop *loop, void *arg) {
    struct parting *parting = arg;
    (void)loop;
    if (parting->how == DETACHED)
        assert_int_equal(detach(parting->a, &parting->detached), 0);
    else if (parting->how == RESET_TO_ANOTHER)
        assert_int_equal(tram_transport_set_protocol(parting->a, &parting->thief->base), 0);
    if (parting->how != DETACHED)
        tram_transport_abort(parting->a);
    return 0;
}

/*
 * A transport that was detached is freed at the end of the tick; the bridge's protocol hears of it in the next one. In
 * between the place belongs to the next connection, which must not get what was meant for the old one.
 */
static void test_what_comes_for_a_side_that_is_gone_goes_to_nobody(void **state) {
    static const tram_custom_ops custom_ops = {.writelines = keep_nothing};
    struct world *world = *state;
    for (int how = 0; how < PARTINGS; how++) {
        struct recorder *c = recorder_new(world, "c");
        struct wire wire = wire_new_made(world, recorder_new(world, "a"));
        struct parting parting = {.world = world, .a = wire.transport, .how = how};
        struct coupling coupling = {.world = world, .a = wire.transport, .left = wire.peer};
        parting.thief = recorder_new(world, "thief");
        assert_int_equal(tram_loop_create_custom(world->loop, &custom_ops, NULL, &c->base, &coupling.b), 0);
        run_to_rest(world);
        assert_trace(world, "c.made");
        assert_int_equal(tram_bridge(coupling.a, coupling.b, NULL, &coupling.future), 0);
        run_to_rest(world);
        world->trace[0] = '\0';
        assert_int_equal(tram_custom_received(coupling.b, "to a", 4), 4);
        expect(&coupling, coupling.left, "to a");

        assert_int_equal(tram_loop_call_soon(world->loop, part, &parting, NULL, NULL), 0);
        run_ticks(world, 1);
        struct wire other = wire_new(world, recorder_new(world, "other"));
        tram_custom_received(coupling.b, "to a", 4);
        tram_custom_eof(coupling.b);
        run_ticks(world, 3);
        char byte;
        assert_int_equal(recv(other.peer, &byte, 1, MSG_DONTWAIT), -1);
        run_to_rest(world);
        const tram_bridge_result *result = ended(&coupling);
        assert_int_equal(result->outcome, TRAM_BRIDGE_CLOSED);
        assert_int_equal(result->side, 0);
        tram_future_release(coupling.future);
        tram_transport_abort(other.transport);
        run_to_rest(world);
        close(other.peer);
        close(coupling.left);
        if (parting.how == DETACHED)
            close(parting.detached.fd);
        world->trace[0] = '\0';
    }
}

/* The user's half of a custom transport that a bridge has begin to read takes the other side away. */
static tram_transport *taken;
static struct detached detached_there;

static int take_away(tram_transport *transport, void *state) {
    (void)transport;
    (void)state;
    if (taken)
        detach(taken, &detached_there);
    taken = NULL;
    return 0;
}

static void test_a_side_that_is_taken_while_the_bridge_begins(void **state) {
    static const tram_custom_ops custom_ops = {.writelines = keep_nothing, .resume_reading = take_away};
    struct world *world = *state;
    for (int second = 0; second < 2; second++) {
        struct recorder *c = recorder_new(world, "c");
        struct wire wire = wire_new_made(world, recorder_new(world, "a"));
        struct coupling coupling = {.world = world, .left = wire.peer};
        tram_transport *custom;
        assert_int_equal(tram_loop_create_custom(world->loop, &custom_ops, NULL, &c->base, &custom), 0);
        run_to_rest(world);
        tram_transport_pause_reading(custom);
        taken = wire.transport;
        assert_int_equal(
            tram_bridge(second ? wire.transport : custom, second ? custom : wire.transport, NULL, &coupling.future), 0);
        assert_null(taken);
        assert_ended(&coupling, TRAM_BRIDGE_CLOSED, !second, 0, 0, 0);
        tram_future_release(coupling.future);
        run_to_rest(world);
        close(detached_there.fd);
        close(wire.peer);
        world->trace[0] = '\0';
    }
}

static void test_what_cannot_be_coupled(void **state) {
    struct world *world = *state;
    struct coupling coupling = sockets_between(world, tcp_pair);
    tram_bridge_options newer = {.reserved = {1}};
    tram_future *future = NULL;
    assert_int_equal(tram_bridge(coupling.a, coupling.a, NULL, &future), TRAM_EVALUE);
    assert_int_equal(tram_bridge(coupling.a, coupling.b, &newer, &future), TRAM_EVALUE);
    for (size_t allowed = 0;; allowed++) {
        tram_bridge_options options = {.idle_timeout_ns = 1000000000};
        world->fail_after = allowed;
        int status = tram_bridge(coupling.a, coupling.b, &options, &coupling.future);
        world->fail_after = SIZE_MAX;
        if (!status)
            break;
        assert_int_equal(status, -ENOMEM);
        run_to_rest(world);
        assert_trace(world, "");
    }
    tram_future_cancel(coupling.future);
    assert_int_equal(tram_bridge(coupling.a, coupling.b, NULL, &future), TRAM_ESTATE);
    end(&coupling);

    world->trace[0] = '\0';
    coupling = sockets_between(world, tcp_pair);
    tram_transport_write_eof(coupling.b);
    assert_int_equal(tram_bridge(coupling.a, coupling.b, NULL, &future), TRAM_ESTATE);
    assert_null(future);

    /* no streams of bytes */
    struct recorder *c = recorder_new(world, "c");
    tram_datagram_options options = {.local_host = "127.0.0.1"};
    assert_int_equal(tram_loop_create_datagram_endpoint(world->loop, give_recorder, c, &options, NULL), 0);
    run_to_rest(world);
    assert_int_equal(tram_bridge(coupling.a, c->base.transport, NULL, &future), -ENOTSUP);
    assert_int_equal(tram_bridge(c->base.transport, coupling.a, NULL, &future), -ENOTSUP);
    tram_transport_close(c->base.transport);
    static const char *const argv[] = {"true", NULL};
    if (!is_emulated()) {
        c = recorder_new(world, "c");
        assert_int_equal(tram_loop_subprocess_exec(world->loop, give_recorder, c, argv, NULL, NULL), 0);
        for (int i = 0; !c->base.transport; i++) {
            assert_true(i < 1000);
            run_ticks(world, 1);
        }
        assert_int_equal(tram_bridge(coupling.a, c->base.transport, NULL, &future), -ENOTSUP);
        run_until(world, &c->was_released);
    }
    tram_transport_abort(coupling.a);
    tram_transport_abort(coupling.b);
    run_to_rest(world);
    close(coupling.left);
    close(coupling.right);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_end_of_a_stream_goes_over_as_that),
        TEST(a_reset_goes_over_as_a_reset),
        TEST(reset_is_an_abort_that_the_peer_sees_as_one),
        TEST(a_side_that_does_not_read_slows_the_other_down),
        TEST(what_was_queued_before_goes_first),
        TEST(an_end_that_was_seen_before_goes_over),
        TEST(a_socket_and_a_memory_pair),
        TEST(a_socket_and_one_end_of_a_pipe),
        TEST(from_pipe_to_pipe),
        TEST(two_ends_of_the_same_direction_are_refused),
        cmocka_unit_test_setup_teardown(test_a_transport_that_only_reads_is_refused_as_a_target, world_setup,
                                        world_teardown),
        TEST(F_7_no_file_is_sent_where_a_bridge_writes),
        TEST(P_10_a_reset_of_a_side_that_is_not_read_goes_over),
        TEST(W_5_an_answer_before_a_reset_goes_over),
        TEST(P_10_a_reset_after_the_end_of_a_stream_goes_over),
        TEST(idle_bridges_end),
        TEST(an_idle_time_is_over_when_it_is_over),
        TEST(what_was_taken_at_the_end_of_an_idle_time_begins_another),
        TEST(steady_traffic_is_no_idleness),
        TEST(a_slow_reader_is_no_idleness),
        TEST(what_idleness_throws_away_was_not_handed_over),
        TEST(cancelling_aborts_both),
        TEST(who_closes_a_side_closes_both),
        TEST(another_bridge_takes_over),
        TEST(a_bridge_without_a_future_ends_with_its_loop),
        TEST(what_comes_for_a_side_that_is_gone_goes_to_nobody),
        TEST(a_side_that_is_taken_while_the_bridge_begins),
        TEST(what_cannot_be_coupled),
    };
    return cmocka_run_group_tests_name("bridge", tests, NULL, NULL);
}
