/* Bulk through a bridge between TCP sockets, which the kernel moves from socket to socket by way of a pipe. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/limits.h"
#include "core/system/sys.h"
#include "support/layers.h"
#include "support/stream.h"
#include "support/support.h"

/* ---- System calls that count, and fail on order ---- */

static struct sys watched;
static unsigned ins, outs;                   /* into a pipe, and out of it */
static int in_error, out_error, interrupted; /* errno of the next one; how many are */
static ssize_t in_pipes;                     /* bytes, unless they were taken out otherwise */
static unsigned single_bytes;                /* so many calls take one byte out of a pipe */
static unsigned pipes_made, starved;         /* … so many calls out of a pipe find no memory */
static bool no_pipes, no_large_pipes, no_arming;

static bool fails(int *error) {
    if (interrupted) {
        interrupted--;
        errno = EINTR;
        return true;
    }
    if (!*error)
        return false;
    errno = *error;
    *error = 0;
    return true;
}

static ssize_t watched_splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t size, unsigned flags) {
    struct stat found;
    assert_int_equal(fstat(in, &found), 0);
    bool from_pipe = S_ISFIFO(found.st_mode);
    *(from_pipe ? &outs : &ins) += 1;
    if (fails(from_pipe ? &out_error : &in_error))
        return -1;
    if (from_pipe && starved) {
        starved--;
        errno = ENOBUFS;
        return -1;
    }
    bool single = from_pipe && single_bytes;
    single_bytes -= single;
    ssize_t moved = tram__sys.splice(in, in_offset, out, out_offset, single ? 1 : size, flags);
    in_pipes += moved < 0 ? 0 : from_pipe ? -moved : moved;
    return moved;
}

static size_t read_at_most; /* 0: as much as there is */
static bool read_end;       /* the next read says that there is nothing */

static ssize_t watched_read(int fd, void *data, size_t size) {
    if (fails(&in_error))
        return -1;
    if (read_end)
        return 0;
    return tram__sys.read(fd, data, read_at_most && size > read_at_most ? read_at_most : size);
}

static int watched_pipe2(int ret_fds[2], int flags) {
    errno = EMFILE;
    if (no_pipes)
        return -1;
    pipes_made++;
    return tram__sys.pipe2(ret_fds, flags);
}

static int watched_fcntl(int fd, int command, int value) {
    errno = EPERM;
    return no_large_pipes && command == F_SETPIPE_SZ ? -1 : tram__sys.fcntl(fd, command, value);
}

/* Once a pipe holds something. */
static int watched_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    errno = ENOSPC;
    bool refused = no_arming && in_pipes > 0 && operation != EPOLL_CTL_DEL && event->events & EPOLLOUT;
    return refused ? -1 : tram__sys.epoll_ctl(epoll, operation, fd, event);
}

/* An unprivileged user who has many pipes may have no large one. */
static bool large_pipes(void) {
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    bool large = fcntl(fds[0], F_SETPIPE_SZ, TRAM_SPLICE_SIZE) >= 0;
    close(fds[0]);
    close(fds[1]);
    return large;
}

static int setup(void **state) {
    world_setup(state);
    watched = tram__sys;
    watched.splice = watched_splice;
    watched.pipe2 = watched_pipe2;
    watched.read = watched_read;
    watched.epoll_ctl = watched_epoll_ctl;
    read_at_most = 0;
    read_end = false;
    watched.fcntl = watched_fcntl;
    ins = outs = 0;
    in_pipes = 0;
    pipes_made = 0;
    in_error = out_error = interrupted = 0;
    single_bytes = 0;
    no_pipes = no_large_pipes = no_arming = false;
    starved = 0;
    world_use_sys(*state, &watched);
    return 0;
}

/* ---- Two sockets of the test, and a bridge between ---- */

struct coupling {
    struct world *world;
    int left, right;
    size_t sent, got; /* from left, by right: bytes of the pattern */
    tram_transport *a, *b;
    tram_future *future;
};

static struct coupling coupled_with(struct world *world, void (*make)(int fds[2]), uint64_t idle_ns) {
    struct coupling coupling = {.world = world};
    tram_bridge_options options = {.idle_timeout_ns = idle_ns};
    int left[2], right[2], size = 1 << 20;
    make(left);
    make(right);
    /* One receive can find bulk. */
    setsockopt(left[1], SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    in_pipes = 0;
    coupling.left = left[0];
    coupling.right = right[0];
    coupling.a = transport_new(world, left[1], recorder_new(world, "a"));
    coupling.b = transport_new(world, right[1], recorder_new(world, "b"));
    run_to_rest(world);
    assert_int_equal(tram_bridge(coupling.a, coupling.b, &options, &coupling.future), 0);
    run_to_rest(world);
    world->trace[0] = '\0';
    return coupling;
}

static struct coupling coupled(struct world *world) {
    return coupled_with(world, tcp_pair, 0);
}

/* The pattern of a stream, which repeats: made once, since there is much of it. */
enum { PERIOD = 1 << 24, BLOCK = 1 << 20 };
static char stream_bytes[PERIOD + BLOCK], block[BLOCK];

static const char *bytes_at(size_t offset) {
    return stream_bytes + offset % PERIOD;
}

/* Left sends what goes. */
static size_t push(struct coupling *coupling) {
    ssize_t sent = send(coupling->left, bytes_at(coupling->sent), BLOCK, MSG_DONTWAIT | MSG_NOSIGNAL);
    coupling->sent += sent > 0 ? (size_t)sent : 0;
    return sent > 0 ? (size_t)sent : 0;
}

/* Right takes what is there, at most `most`: how much, 0 at the end, or -1. */
static ssize_t pull(struct coupling *coupling, size_t most) {
    ssize_t received = recv(coupling->right, block, most < sizeof block ? most : sizeof block, MSG_DONTWAIT);
    if (received <= 0)
        return received;
    if (memcmp(block, bytes_at(coupling->got), (size_t)received) != 0)
        assert_pattern(block, (size_t)received, coupling->got);
    coupling->got += (size_t)received;
    return received;
}

/* Sends in large pieces until the kernel moves them. */
static void warm_up(struct coupling *coupling) {
    unsigned before = outs;
    while (outs < before + 3) {
        push(coupling);
        run_ticks(coupling->world, 1);
        while (pull(coupling, SIZE_MAX) > 0)
            ;
        assert_true(coupling->got < (size_t)1 << 28);
    }
}

static size_t held(const struct coupling *coupling) {
    return tram_transport_get_write_buffer_size(coupling->b);
}

static void fill_up(struct coupling *coupling) {
    for (int idle = 0; idle < 20;) {
        idle = push(coupling) ? 0 : idle + 1;
        run_ticks(coupling->world, 1);
    }
    run_to_rest(coupling->world);
}

/*
 * Sends until nothing goes on any more, and a pipe holds bytes. It may be that the last ones were few enough to be
 * copied.
 */
static void choke(struct coupling *coupling) {
    for (int i = 0; in_pipes == 0; i++) {
        assert_true(i < 100);
        warm_up(coupling);
        fill_up(coupling);
    }
    assert_int_equal(held(coupling), in_pipes);
    assert_false(tram_transport_is_reading(coupling->a));
}

static struct coupling choked(struct world *world) {
    struct coupling coupling = coupled(world);
    choke(&coupling);
    return coupling;
}

static bool is_done(void *arg) {
    return tram_future_done(arg);
}

static void assert_ended(struct coupling *coupling, tram_bridge_outcome outcome, int side, int code) {
    void *value;
    run_until_true(coupling->world, is_done, coupling->future);
    assert_int_equal(tram_future_result(coupling->future, &value), 0);
    const tram_bridge_result *result = value;
    assert_int_equal(result->outcome, outcome);
    assert_int_equal(result->side, side);
    assert_int_equal(result->code, code);
}

static size_t bytes_from_left(const struct coupling *coupling) {
    void *value;
    assert_int_equal(tram_future_result(coupling->future, &value), 0);
    return (size_t)((const tram_bridge_result *)value)->bytes[0];
}

static void end(struct coupling *coupling) {
    tram_future_cancel(coupling->future);
    run_until_true(coupling->world, is_done, coupling->future);
    run_to_rest(coupling->world);
    tram_future_release(coupling->future);
    close(coupling->left);
    close(coupling->right);
}

/* Right takes all until the end of the stream. */
static void pull_to_the_end(struct coupling *coupling) {
    for (ssize_t received; (received = pull(coupling, SIZE_MAX)) != 0;) {
        if (received < 0 && errno != EAGAIN)
            fail_msg("the stream was cut: %s", strerror(errno));
        run_ticks(coupling->world, 1);
    }
}

/* ---- Moving ---- */

static void test_bulk_goes_through_a_pipe_and_arrives_whole(void **state) {
    struct coupling coupling = coupled(*state);
    static char back[] = "and something the other way", bytes[sizeof back];
    srand(1);
    while (coupling.got < (size_t)24 << 20) {
        if (coupling.sent < (size_t)24 << 20)
            push(&coupling);
        run_ticks(*state, rand() % 3);
        pull(&coupling, (size_t)rand() % 700000);
    }
    assert_true(outs > 5);
    send_exactly(*state, coupling.right, back, sizeof back);
    receive_exactly(*state, coupling.left, bytes, sizeof back);
    assert_memory_equal(bytes, back, sizeof back);
    shutdown(coupling.left, SHUT_WR);
    pull_to_the_end(&coupling);
    assert_int_equal(coupling.got, coupling.sent);
    shutdown(coupling.right, SHUT_WR);
    assert_ended(&coupling, TRAM_BRIDGE_EOF, -1, 0);
    assert_int_equal(bytes_from_left(&coupling), coupling.sent);
    end(&coupling);
}

/* Only a receive gets past an urgent byte, which is not part of the stream. */
static void test_L_43_urgent_data_does_not_stop_what_follows(void **state) {
    struct world *world = *state;
    for (int finished = 0; finished < 2; finished++) {
        struct coupling coupling = coupled(world);
        warm_up(&coupling);
        while (coupling.got < coupling.sent) {
            run_ticks(world, 1);
            pull(&coupling, SIZE_MAX);
        }
        assert_int_equal(send(coupling.left, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
        push(&coupling);
        if (finished)
            shutdown(coupling.left, SHUT_WR);
        while (coupling.got < coupling.sent) {
            run_ticks(world, 1);
            pull(&coupling, SIZE_MAX);
        }
        run_to_rest(world);
        shutdown(coupling.left, SHUT_WR);
        pull_to_the_end(&coupling);
        assert_int_equal(coupling.got, coupling.sent);
        shutdown(coupling.right, SHUT_WR);
        assert_ended(&coupling, TRAM_BRIDGE_EOF, -1, 0);
        end(&coupling);
    }
}

static void test_a_pipe_may_be_emptied_byte_by_byte(void **state) {
    struct coupling coupling = coupled(*state);
    warm_up(&coupling);
    unsigned before = outs;
    single_bytes = 20;
    while (single_bytes || coupling.got < coupling.sent) {
        if (single_bytes)
            push(&coupling);
        run_ticks(*state, 1);
        pull(&coupling, SIZE_MAX);
        assert_false(tram_future_done(coupling.future));
    }
    assert_true(outs > before + 20); /* and goes on so */
    warm_up(&coupling);
    end(&coupling);
}

static void test_both_ways_at_once(void **state) {
    struct coupling there = coupled(*state), back = there;
    back.left = there.right;
    back.right = there.left;
    while (there.got < (size_t)12 << 20 || back.got < (size_t)12 << 20) {
        push(&there);
        push(&back);
        run_ticks(*state, 1);
        pull(&there, 300000);
        pull(&back, 300000);
    }
    assert_true(ins > 10);
    shutdown(there.left, SHUT_WR);
    shutdown(back.left, SHUT_WR);
    pull_to_the_end(&there);
    pull_to_the_end(&back);
    assert_int_equal(there.got, there.sent);
    assert_int_equal(back.got, back.sent);
    assert_ended(&there, TRAM_BRIDGE_EOF, -1, 0);
    end(&there);
}

static void test_a_slow_reader_costs_a_pipe_and_no_memory(void **state) {
    struct world *world = *state;
    struct coupling coupling = coupled(world);
    warm_up(&coupling);
    size_t before = world->peak_bytes = world->live_bytes;
    choke(&coupling);
    assert_true(held(&coupling) <= TRAM_SPLICE_SIZE);
    assert_true(world->peak_bytes <= before + (size_t)(64 + 256 + 32) * 1024);
    shutdown(coupling.left, SHUT_WR);
    run_to_rest(world); /* the end waits for its turn */
    assert_false(tram_future_done(coupling.future));
    pull_to_the_end(&coupling);
    assert_int_equal(coupling.got, coupling.sent);
    end(&coupling);
}

static void test_small_messages_are_copied_again(void **state) {
    struct world *world = *state;
    struct coupling coupling = coupled(world);
    warm_up(&coupling);
    while (coupling.got < coupling.sent) {
        run_ticks(world, 1);
        pull(&coupling, SIZE_MAX);
    }
    for (int i = 0; i < 20; i++) {
        if (i == 15)
            ins = outs = 0;
        send_exactly(world, coupling.left, bytes_at(coupling.sent), 100);
        coupling.sent += 100;
        while (coupling.got < coupling.sent) {
            run_ticks(world, 1);
            pull(&coupling, SIZE_MAX);
        }
    }
    assert_int_equal(ins + outs, 0);
    /* And bulk is moved again. */
    warm_up(&coupling);
    end(&coupling);
}

static void test_what_is_no_tcp_is_copied(void **state) {
    struct coupling coupling = coupled_with(*state, unix_pair, 0);
    while (coupling.got < (size_t)8 << 20) {
        push(&coupling);
        run_ticks(*state, 1);
        pull(&coupling, SIZE_MAX);
    }
    assert_int_equal(ins + outs, 0);
    end(&coupling);
}

static void test_limits_of_the_user_are_not_passed_by(void **state) {
    struct world *world = *state;
    for (int corked = 0; corked < 2; corked++) {
        struct coupling coupling = coupled(world);
        if (corked)
            tram_transport_cork(coupling.b);
        else
            tram_transport_set_write_hard_limit(coupling.b, (size_t)1 << 30);
        for (int i = 0; i < 100; i++) {
            push(&coupling);
            run_ticks(world, 1);
            pull(&coupling, SIZE_MAX);
        }
        assert_int_equal(ins + outs, 0);
        tram_transport_uncork(coupling.b);
        end(&coupling);
    }
}

/* ---- Others who use the transport whose bytes are in a pipe ---- */

/* What was moved before comes first, then `text`, then the rest of the pattern. Returns where it was. */
static size_t pull_around(struct coupling *coupling, const char *text) {
    size_t length = strlen(text), place = 0;
    static char all[1 << 26];
    size_t size = 0;
    for (;;) {
        ssize_t received = recv(coupling->right, all + size, sizeof all - size, MSG_DONTWAIT);
        if (received == 0 || (received < 0 && errno != EAGAIN))
            break;
        size += received > 0 ? (size_t)received : 0;
        run_ticks(coupling->world, 1);
    }
    char *expected = malloc(size + 1);
    pattern(expected, size, coupling->got);
    while (place < size && all[place] == expected[place])
        place++;
    assert_true(place + length <= size);
    /* The first bytes of the text may be those of the pattern, too. */
    size_t back = 0;
    while (back < length && memcmp(all + place - back, text, length) != 0)
        back++;
    place -= back;
    assert_memory_equal(all + place, text, length);
    assert_memory_equal(all + place + length, expected + place, size - place - length);
    coupling->got += size - length;
    free(expected);
    return coupling->got - (size - length - place);
}

static void test_a_write_of_somebody_else_comes_behind_what_was_moved(void **state) {
    struct coupling coupling = choked(*state);
    size_t before = held(&coupling);
    assert_int_equal(tram_transport_write(coupling.b, "INSERTED TEXT", 13), 0);
    assert_in_range(held(&coupling), 0, before + 13); /* the kernel may have got room meanwhile */
    shutdown(coupling.left, SHUT_WR);
    assert_true(pull_around(&coupling, "INSERTED TEXT") >= before);
    assert_int_equal(coupling.got, coupling.sent);
    end(&coupling);
}

static void test_a_close_of_somebody_else_sends_what_was_moved(void **state) {
    for (int side = 0; side < 2; side++) {
        struct coupling coupling = choked(*state);
        tram_transport_close(side ? coupling.b : coupling.a);
        pull_to_the_end(&coupling);
        assert_ended(&coupling, TRAM_BRIDGE_CLOSED, side, 0);
        assert_int_equal(coupling.got, bytes_from_left(&coupling));
        end(&coupling);
    }
}

static void test_the_end_of_writing_comes_behind_what_was_moved(void **state) {
    struct coupling coupling = choked(*state);
    struct recorder *thief = recorder_new(*state, "thief");
    assert_int_equal(tram_transport_set_protocol(coupling.a, &thief->base), 0); /* so that nothing more comes */
    assert_int_equal(tram_transport_write_eof(coupling.b), 0);
    pull_to_the_end(&coupling);
    tram_transport_abort(coupling.a);
    assert_ended(&coupling, TRAM_BRIDGE_CLOSED, 0, 0);
    assert_int_equal(coupling.got, bytes_from_left(&coupling));
    end(&coupling);
}

static void test_another_protocol_gets_the_transport_with_what_was_moved(void **state) {
    struct world *world = *state;
    struct coupling coupling = choked(world);
    struct recorder *thief = recorder_new(world, "thief");
    assert_int_equal(tram_transport_set_protocol(coupling.b, &thief->base), 0);
    assert_int_equal(tram_transport_write(coupling.b, "MINE", 4), 0);
    tram_transport_close(coupling.b);
    pull_around(&coupling, "MINE");
    assert_ended(&coupling, TRAM_BRIDGE_CLOSED, 1, 0);
    assert_int_equal(coupling.got, bytes_from_left(&coupling));
    end(&coupling);
}

static void test_another_bridge_goes_on_where_one_was(void **state) {
    struct coupling coupling = choked(*state);
    tram_future *first = coupling.future;
    assert_int_equal(tram_bridge(coupling.a, coupling.b, NULL, &coupling.future), 0);
    shutdown(coupling.left, SHUT_WR);
    pull_to_the_end(&coupling);
    assert_int_equal(coupling.got, coupling.sent);
    assert_true(tram_future_done(first));
    tram_future_release(first);
    end(&coupling);
}

static void test_a_transport_cannot_be_detached_from_what_a_pipe_holds(void **state) {
    struct coupling coupling = choked(*state);
    struct detached detached;
    assert_int_equal(detach(coupling.b, &detached), TRAM_ESTATE);
    while (held(&coupling)) {
        pull(&coupling, SIZE_MAX);
        tram_transport_pause_reading(coupling.a);
        run_ticks(*state, 1);
    }
    assert_int_equal(detach(coupling.b, &detached), 0);
    assert_ended(&coupling, TRAM_BRIDGE_CLOSED, 1, 0);
    while (coupling.got < bytes_from_left(&coupling)) {
        await_events(coupling.right, POLLIN);
        pull(&coupling, SIZE_MAX);
    }
    assert_int_equal(coupling.got, bytes_from_left(&coupling));
    close(detached.fd);
    end(&coupling);
}

/* ---- Ends, of which each leaves no descriptor behind: the teardown counts them ---- */

static void test_resets(void **state) {
    struct coupling coupling = choked(*state);
    close_with_reset(coupling.right);
    coupling.right = dup(coupling.left);
    assert_ended(&coupling, TRAM_BRIDGE_FAILED, 1, -ECONNRESET);
    assert_false(receive_eof(*state, coupling.left));
    assert_int_equal(errno, ECONNRESET);
    end(&coupling);
    /* Of the side that is not read, while nobody reads at the other. */
    coupling = choked(*state);
    close_with_reset(coupling.left);
    coupling.left = dup(coupling.right);
    assert_ended(&coupling, TRAM_BRIDGE_FAILED, 0, -ECONNRESET);
    end(&coupling);
}

/* One of the sockets can be written to no more: SIGPIPE would come. */
static void test_W_12_a_splice_to_nobody_is_EPIPE_and_no_signal(void **state) {
    struct world *world = *state;
    struct sigaction before, deadly = {.sa_handler = SIG_DFL};
    assert_int_equal(sigaction(SIGPIPE, &deadly, &before), 0);
    sigset_t only, mask, pending, blocked;
    sigemptyset(&only);
    sigaddset(&only, SIGPIPE);
    for (int pends = 0; pends < 2; pends++) {
        if (pends) {
            pthread_sigmask(SIG_BLOCK, &only, &mask);
            raise(SIGPIPE);
        }
        struct coupling coupling = coupled(world);
        warm_up(&coupling);
        const tram_socket *sock = tram_transport_get_extra_info(coupling.b, "socket", NULL);
        unsigned moved = outs;
        assert_int_equal(shutdown(sock->fd, SHUT_WR), 0);
        while (!tram_future_done(coupling.future)) {
            push(&coupling);
            run_ticks(world, 1);
        }
        assert_true(outs > moved);
        assert_ended(&coupling, TRAM_BRIDGE_FAILED, 1, -EPIPE);
        pthread_sigmask(SIG_SETMASK, NULL, &blocked);
        sigpending(&pending);
        assert_int_equal(sigismember(&blocked, SIGPIPE), pends);
        assert_int_equal(sigismember(&pending, SIGPIPE), pends);
        end(&coupling);
    }
    int number;
    sigwait(&only, &number);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    sigaction(SIGPIPE, &before, NULL);
}

static void test_an_idle_bridge_ends_with_bytes_in_a_pipe(void **state) {
    struct coupling coupling = coupled_with(*state, tcp_pair, 300000000);
    choke(&coupling);
    /* A reader that takes some is not idle. */
    size_t got = coupling.got;
    while (held(&coupling) && !tram_future_done(coupling.future) && coupling.got < got + 100000) {
        pull(&coupling, 10000);
        run_ticks(*state, 1);
    }
    assert_false(tram_future_done(coupling.future));
    assert_ended(&coupling, TRAM_BRIDGE_IDLE, -1, 0);
    end(&coupling);
}

static void test_an_abort_forgets_what_a_pipe_holds(void **state) {
    struct coupling coupling = choked(*state);
    int before = open_descriptors();
    tram_transport_abort(coupling.b);
    assert_int_equal(held(&coupling), 0);
    assert_int_equal(open_descriptors(), before - 2);
    assert_ended(&coupling, TRAM_BRIDGE_CLOSED, 1, 0);
    end(&coupling);
    coupling = choked(*state);
    end(&coupling); /* cancels it */
}

static void test_a_loop_that_closes(void **state) {
    struct coupling coupling = choked(*state);
    tram_future_release(coupling.future);
    world_reopen(*state);
    close(coupling.left);
    close(coupling.right);
}

/* ---- Where the kernel does not ---- */

static void test_interrupted_and_empty(void **state) {
    struct coupling coupling = coupled(*state);
    warm_up(&coupling);
    unsigned before = outs;
    interrupted = 3;
    in_error = EAGAIN;
    while (outs < before + 10) {
        if (outs == before + 5)
            out_error = EAGAIN;
        push(&coupling);
        run_ticks(*state, 1);
        pull(&coupling, SIZE_MAX);
    }
    assert_int_equal(interrupted, 0);
    shutdown(coupling.left, SHUT_WR);
    pull_to_the_end(&coupling);
    assert_int_equal(coupling.got, coupling.sent);
    end(&coupling);
}

static void test_a_kernel_that_refuses_gets_no_more_to_do(void **state) {
    static const int errors[] = {EINVAL, ENOSYS, EOPNOTSUPP};
    for (size_t variant = 0; variant < 6; variant++) {
        bool out = variant & 1;
        struct coupling coupling = coupled(*state);
        warm_up(&coupling);
        *(out ? &out_error : &in_error) = errors[variant / 2];
        while (out ? out_error : in_error) {
            push(&coupling);
            run_ticks(*state, 1);
        }
        ins = outs = 0;
        for (int i = 0; i < 50; i++) {
            push(&coupling);
            run_ticks(*state, 1);
            pull(&coupling, SIZE_MAX);
        }
        assert_int_equal(ins + outs, 0);
        shutdown(coupling.left, SHUT_WR);
        pull_to_the_end(&coupling);
        assert_int_equal(coupling.got, coupling.sent);
        end(&coupling);
    }
}

static void test_errors_are_those_of_their_side(void **state) {
    for (int out = 0; out < 2; out++) {
        struct coupling coupling = coupled(*state);
        warm_up(&coupling);
        *(out ? &out_error : &in_error) = EIO;
        while (!tram_future_done(coupling.future)) {
            push(&coupling);
            run_ticks(*state, 1);
        }
        assert_ended(&coupling, TRAM_BRIDGE_FAILED, out, -EIO);
        end(&coupling);
    }
}

static void corked(tram_transport *to) {
    assert_int_equal(tram_transport_cork(to), 0);
}

static void limited(tram_transport *to) {
    assert_int_equal(tram_transport_set_write_hard_limit(to, (size_t)1 << 30), 0);
}

static void half_closed(tram_transport *to) {
    assert_int_equal(tram_transport_write_eof(to), 0);
}

static void closed(tram_transport *to) {
    assert_int_equal(tram_transport_close(to), 0);
}

static void lingering(tram_transport *to) {
    assert_int_equal(tram_transport_close_lingering(to, HOUR_NS), 0);
}

static void behind_a_write(tram_transport *to) {
    fill(to, 1);
}

static void broken(tram_transport *to) {
    const tram_socket *view = tram_transport_get_extra_info(to, "socket", NULL);
    assert_int_equal(shutdown(view->fd, SHUT_WR), 0);
    assert_int_equal(tram_transport_write(to, "x", 1), 0);
}

/* … while what its peer said is still to be read, so that it does not end at once. */
static int peer_of_it;

static void broken_but_heard(tram_transport *to) {
    assert_int_equal(write(peer_of_it, "answer", 6), 6);
    broken(to);
}

static unsigned layers;

static void layered(tram_transport *to) {
    struct codec *codec = codec_new(world_of(tram_transport_get_loop(to)), &codec_kind, &layers);
    assert_int_equal(tram__transport_push_layer(to, &codec->layer, NULL, 0), 0);
}

/* What the other side does not take as it comes is not moved past what stands before it. */
static void test_nothing_is_moved_where_something_stands_before_it(void **state) {
    static void (*const obstacles[])(tram_transport * to) = {
        corked, limited, half_closed, closed, lingering, behind_a_write, broken, broken_but_heard, layered};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof obstacles / sizeof *obstacles; i++) {
        struct coupling coupling = coupled(world);
        warm_up(&coupling);
        while (coupling.got < coupling.sent) {
            run_ticks(world, 1);
            pull(&coupling, SIZE_MAX);
        }
        run_to_rest(world);
        ins = 0;
        peer_of_it = coupling.right;
        obstacles[i](coupling.b);
        for (int pushes = 0; pushes < 5; pushes++) {
            push(&coupling);
            run_ticks(world, 1);
        }
        if (ins)
            fail_msg("%zu: %u splices", i, ins);
        end(&coupling);
    }
}

/* Nor past what a pipe holds, where somebody reads on all the same. */
static void test_bytes_behind_a_pipe_stay_behind_it(void **state) {
    struct coupling coupling = choked(*state);
    ins = 0;
    assert_int_equal(tram_transport_resume_reading(coupling.a), 0);
    push(&coupling);
    run_ticks(*state, 2);
    assert_int_equal(ins, 0);
    shutdown(coupling.left, SHUT_WR);
    pull_to_the_end(&coupling);
    assert_int_equal(coupling.got, coupling.sent);
    end(&coupling);
}

static void test_without_pipes_bytes_are_copied(void **state) {
    for (int large = 0; large < 2; large++) {
        no_pipes = !large;
        no_large_pipes = large;
        struct coupling coupling = coupled(*state);
        int before = open_descriptors();
        while (coupling.got < (size_t)16 << 20) {
            push(&coupling);
            run_ticks(*state, 1);
            pull(&coupling, SIZE_MAX);
        }
        assert_int_equal(ins + outs, 0);
        assert_int_equal(open_descriptors(), before);
        end(&coupling);
        world_use_sys(*state, &watched);
    }
}

/* What is found missing when the first pipe is wanted: there is none then, and bytes are copied. */
static void test_without_memory_for_pipes_bytes_are_copied(void **state) {
    struct world *world = *state;
    for (size_t after = 0; after < 2; after++) {
        world_use_sys(world, &watched);
        struct coupling coupling = coupled(world);
        pipes_made = 0;
        while (!world->failures) {
            push(&coupling);
            world->fail_once = true;
            world->fail_after = after;
            run_ticks(world, 1);
            world->fail_after = SIZE_MAX;
            if (world->failures)
                assert_int_equal(pipes_made, 0);
            pull(&coupling, SIZE_MAX);
            assert_true(coupling.sent < (size_t)1 << 28);
        }
        world->failures = 0;
        shutdown(coupling.left, SHUT_WR);
        pull_to_the_end(&coupling);
        assert_int_equal(coupling.got, coupling.sent);
        end(&coupling);
    }
}

/* It is asked again after a while, and not all the time. */
static void test_W_5_a_pipe_waits_for_memory_of_the_kernel(void **state) {
    struct coupling coupling = choked(*state);
    starved = UINT_MAX;
    while (pull(&coupling, SIZE_MAX) > 0)
        ;
    run_to_rest(coupling.world);
    assert_true(held(&coupling) > 0);
    starved = 2;
    shutdown(coupling.left, SHUT_WR);
    pull_to_the_end(&coupling);
    assert_int_equal(coupling.got, coupling.sent);
    end(&coupling);
}

static void test_T_16_a_pipe_whose_reader_cannot_be_awaited(void **state) {
    struct coupling coupling = coupled(*state);
    no_arming = true;
    for (int i = 0; !tram_future_done(coupling.future); i++) {
        assert_true(i < 1000);
        push(&coupling);
        run_ticks(coupling.world, 1);
        if (in_pipes <= 0 && i % 20 == 19)
            while (pull(&coupling, SIZE_MAX) > 0)
                ;
    }
    assert_ended(&coupling, TRAM_BRIDGE_FAILED, 1, -ENOSPC);
    end(&coupling);
}

static void test_without_memory_for_what_a_pipe_holds(void **state) {
    struct world *world = *state;
    struct coupling coupling = choked(world);
    world->fail_after = 0;
    tram_transport_write(coupling.b, "x", 1);
    world->fail_after = SIZE_MAX;
    assert_ended(&coupling, TRAM_BRIDGE_FAILED, 1, -ENOMEM);
    end(&coupling);
}

/* What a pipe holds is taken out byte by byte, and an interrupted read is done again. */
static void test_what_a_pipe_holds_is_read_in_pieces(void **state) {
    struct coupling coupling = choked(*state);
    read_at_most = 1;
    interrupted = 1;
    assert_int_equal(tram_transport_write(coupling.b, "INSERTED TEXT", 13), 0);
    assert_int_equal(interrupted, 0);
    shutdown(coupling.left, SHUT_WR);
    assert_true(pull_around(&coupling, "INSERTED TEXT") > 0);
    assert_int_equal(coupling.got, coupling.sent);
    end(&coupling);
}

static void test_a_pipe_that_cannot_be_read_ends_the_bridge(void **state) {
    for (int variant = 0; variant < 2; variant++) {
        struct coupling coupling = choked(*state);
        in_error = variant ? EBADF : 0;
        read_end = !variant;
        tram_transport_write(coupling.b, "x", 1);
        read_end = false;
        assert_ended(&coupling, TRAM_BRIDGE_FAILED, 1, variant ? -EBADF : -EIO);
        end(&coupling);
    }
}

static void test_more_readers_that_are_slow_than_pipes(void **state) {
    enum { MANY = TRAM_PIPES + 3 };
    struct coupling couplings[MANY];
    int descriptors = open_descriptors();
    for (int i = 0; i < MANY; i++) {
        couplings[i] = coupled(*state);
        for (size_t start = couplings[i].sent; couplings[i].sent < start + ((size_t)4 << 20);) {
            push(&couplings[i]);
            run_ticks(*state, 1);
            pull(&couplings[i], SIZE_MAX);
        }
        fill_up(&couplings[i]);
    }
    assert_in_range(pipes_made, 2, TRAM_PIPES);
    assert_int_equal(open_descriptors(), descriptors + 4 * MANY + 2 * (int)pipes_made);
    for (int i = 0; i < MANY; i++) {
        shutdown(couplings[i].left, SHUT_WR);
        pull_to_the_end(&couplings[i]);
        assert_int_equal(couplings[i].got, couplings[i].sent);
        end(&couplings[i]);
    }
    assert_int_equal(open_descriptors(), descriptors + 2 * (int)pipes_made); /* they stay with the loop */
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(bulk_goes_through_a_pipe_and_arrives_whole),
        TEST(L_43_urgent_data_does_not_stop_what_follows),
        TEST(W_12_a_splice_to_nobody_is_EPIPE_and_no_signal),
        TEST(a_pipe_may_be_emptied_byte_by_byte),
        TEST(both_ways_at_once),
        TEST(a_slow_reader_costs_a_pipe_and_no_memory),
        TEST(small_messages_are_copied_again),
        TEST(what_is_no_tcp_is_copied),
        TEST(limits_of_the_user_are_not_passed_by),
        TEST(a_write_of_somebody_else_comes_behind_what_was_moved),
        TEST(a_close_of_somebody_else_sends_what_was_moved),
        TEST(the_end_of_writing_comes_behind_what_was_moved),
        TEST(another_protocol_gets_the_transport_with_what_was_moved),
        TEST(another_bridge_goes_on_where_one_was),
        TEST(a_transport_cannot_be_detached_from_what_a_pipe_holds),
        TEST(resets),
        TEST(an_idle_bridge_ends_with_bytes_in_a_pipe),
        TEST(an_abort_forgets_what_a_pipe_holds),
        TEST(a_loop_that_closes),
        TEST(interrupted_and_empty),
        TEST(a_kernel_that_refuses_gets_no_more_to_do),
        TEST(errors_are_those_of_their_side),
        TEST(nothing_is_moved_where_something_stands_before_it),
        TEST(bytes_behind_a_pipe_stay_behind_it),
        TEST(without_pipes_bytes_are_copied),
        TEST(without_memory_for_pipes_bytes_are_copied),
        TEST(W_5_a_pipe_waits_for_memory_of_the_kernel),
        TEST(T_16_a_pipe_whose_reader_cannot_be_awaited),
        TEST(without_memory_for_what_a_pipe_holds),
        TEST(what_a_pipe_holds_is_read_in_pieces),
        TEST(a_pipe_that_cannot_be_read_ends_the_bridge),
        TEST(more_readers_that_are_slow_than_pipes),
    };
    pattern(stream_bytes, sizeof stream_bytes, 0);
    if (!large_pipes())
        return skip_program("no pipe holds a MiB");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
