/* Descriptors that go with the bytes of Unix streams: rules U-9 to U-15 of docs/rules.md. */
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/stream.h"
#include "support/support.h"

/* ---- Descriptors that can be told apart ---- */

static int number_new(int number) {
    int fd = memfd_create("number", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, number), 0);
    return fd;
}

static int number_of(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 ? (int)found.st_size : -1;
}

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int) * TRAM_UNIX_FDS_MAX)];
};

static void peer_sends_with(int peer, const void *data, size_t size, const int *fds, size_t count) {
    union control control = {
        .header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof *fds * count)}};
    memcpy(CMSG_DATA(&control.header), fds, sizeof *fds * count);
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(sizeof *fds * count)};
    assert_int_equal(sendmsg(peer, &message, MSG_NOSIGNAL), size);
}

/* Descriptors numbered from `first` on. */
static void peer_sends(int peer, const char *text, int first, int count) {
    int fds[TRAM_UNIX_FDS_MAX] = {0};
    for (int i = 0; i < count; i++)
        fds[i] = number_new(first + i);
    peer_sends_with(peer, text, strlen(text), fds, (size_t)count);
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

/* One receive of the peer's, which does not block: its bytes, or -1; the numbers of the descriptors. */
static ssize_t peer_takes(int peer, void *data, size_t size, int *ret_numbers, size_t *ret_count) {
    union control control;
    struct iovec piece = {.iov_base = data, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    *ret_count = 0;
    ssize_t received = recvmsg(peer, &message, MSG_DONTWAIT);
    if (received < 0)
        return -1;
    assert_false(message.msg_flags & MSG_CTRUNC);
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header)
        return received;
    *ret_count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < *ret_count; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
        ret_numbers[i] = number_of(fd);
        close(fd);
    }
    return received;
}

/* ---- What the protocol does with those that came ---- */

/* Takes at most (intptr_t)arg of them and writes down their numbers. */
static int take(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") != 0 && strcmp(event, "updated") != 0)
        return 0;
    int fds[TRAM_UNIX_FDS_MAX] = {0};
    tram_transport *transport = recorder->base.transport;
    size_t count = tram_transport_take_fds(transport, fds, (size_t)(intptr_t)recorder->arg);
    for (size_t i = 0; i < count; i++) {
        trace(recorder->world, "took:%d%s", number_of(fds[i]), fcntl(fds[i], F_GETFD) & FD_CLOEXEC ? "" : "!");
        close(fds[i]);
    }
    return 0;
}

static struct stream stream_for(struct world *world, struct recorder *recorder, size_t max, intptr_t taken) {
    struct stream stream = stream_open_with(world, recorder, false);
    assert_int_equal(tram_transport_receive_fds(stream.transport, max), 0);
    recorder->on = take;
    recorder->arg = (void *)taken;
    return stream;
}

static struct stream stream_plain(struct world *world, size_t max, intptr_t taken) {
    return stream_for(world, recorder_new(world, NULL), max, taken);
}

/* ---- Receiving ---- */

static void test_U_9_U_10_descriptors_wait_with_their_bytes(void **state) {
    struct world *world = *state;
    struct stream stream = stream_plain(world, 4, 4);
    peer_sends(stream.peer, "bb", 1, 2);
    peer_sends(stream.peer, "ccc", 3, 1);
    peer_sends(stream.peer, "d", 4, 4);
    send_exactly(NULL, stream.peer, "eeee", 4);
    run_until_traced(world, "data:4");
    assert_trace(world, "data:2 took:1 took:2 data:3 took:3 data:1 took:4 took:5 took:6 took:7 data:4");
    /* What was sent before may come in the same call. */
    send_exactly(NULL, stream.peer, "a", 1);
    peer_sends(stream.peer, "bb", 1, 1);
    run_until_traced(world, "took");
    assert_non_null(strstr(world->trace, " took:1"));
    stream_close(&stream);
}

/* A user may have asked the kernel for more than descriptors. */
static void test_U_9_credentials_beside_them_are_none(void **state) {
    struct world *world = *state;
    struct stream stream = stream_plain(world, TRAM_UNIX_FDS_MAX, 4);
    const tram_socket *socket = tram_transport_get_extra_info(stream.transport, "socket", NULL);
    const int on = 1;
    assert_int_equal(setsockopt(socket->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on), 0);
    peer_sends(stream.peer, "bb", 3, 2);
    run_until_traced(world, "took");
    assert_trace(world, "data:2 took:3 took:4");
    send_exactly(NULL, stream.peer, "eeee", 4);
    run_until_traced(world, "data:4");
    assert_trace(world, "data:4");
    stream_close(&stream);
}

static void test_U_9_a_buffered_protocol_finds_them_in_buffer_updated(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new_buffered(world, NULL);
    struct stream stream = stream_for(world, recorder, 2, 2);
    recorder->buffer_size = 2;
    peer_sends(stream.peer, "bbb", 1, 2);
    run_until_traced(world, "updated:1");
    assert_trace(world, "get_buffer updated:2 took:1 took:2 get_buffer updated:1");
    stream_close(&stream);
}

/* The far end of a pipe whose near end is on its way, or somebody's: is there nobody left? */
static bool nobody_has_the_other_end(int fd) {
    char byte;
    return read(fd, &byte, 1) == 0;
}

static int pipe_on_its_way(int peer) {
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    peer_sends_with(peer, "x", 1, &ends[1], 1);
    close(ends[1]);
    assert_false(nobody_has_the_other_end(ends[0]));
    return ends[0];
}

static void test_U_9_none_come_unasked(void **state) {
    struct world *world = *state;
    struct recorder *recorder = recorder_new(world, NULL);
    struct stream stream = stream_open_with(world, recorder, false);
    for (int round = 0; round < 2; round++) {
        recorder->on = take;
        recorder->arg = (void *)(intptr_t)2;
        int far = pipe_on_its_way(stream.peer);
        run_until_traced(world, "data:1");
        assert_trace(world, "data:1");
        assert_true(nobody_has_the_other_end(far));
        close(far);
        /* No longer asked for is the same. */
        assert_int_equal(tram_transport_receive_fds(stream.transport, 2), 0);
        assert_int_equal(tram_transport_receive_fds(stream.transport, 0), 0);
    }
    stream_close(&stream);
}

/* What a protocol may do instead of taking them; an element of arg's. */
static tram_protocol *another;
static struct detached detached;

static int do_pause(tram_transport *transport) {
    return tram_transport_pause_reading(transport);
}

static int do_switch(tram_transport *transport) {
    return tram_transport_set_protocol(transport, another);
}

static int do_detach(tram_transport *transport) {
    return detach(transport, &detached);
}

static int do_fail(tram_transport *transport) {
    (void)transport;
    return -EPROTO;
}

static int do_nothing(tram_transport *transport) {
    (void)transport;
    return 0;
}

static int (*const deeds[])(tram_transport *) = {
    do_nothing, do_pause, do_switch, do_detach, do_fail, tram_transport_close, tram_transport_abort,
};

static int act(struct recorder *recorder, const char *event) {
    if (strcmp(event, "data") != 0)
        return 0;
    tram_transport *transport = recorder->base.transport;
    int (*deed)(tram_transport *) = deeds[(intptr_t)recorder->arg];
    int fd, open = open_descriptors();
    assert_int_equal(tram_transport_take_fds(transport, &fd, 1), 1);
    assert_int_equal(number_of(fd), 1);
    close(fd);
    tram_transport_hold(transport);
    int status = deed(transport);
    /* What was done does not end the callback: they are there still. */
    assert_int_equal(tram_transport_take_fds(transport, &fd, 1), 1);
    assert_int_equal(number_of(fd), 2);
    close(fd);
    tram_transport_release(transport);
    assert_int_equal(open_descriptors(), open - 2);
    return status;
}

static void test_U_10_those_not_taken_are_closed_after_the_callback(void **state) {
    struct world *world = *state;
    for (size_t i = 0; i < sizeof deeds / sizeof *deeds; i++) {
        struct recorder *recorder = recorder_new(world, NULL);
        struct stream stream = stream_for(world, recorder, 5, 0);
        struct recorder *next = recorder_new(world, "next");
        another = &next->base;
        detached = (struct detached){.fd = -1};
        recorder->on = act;
        recorder->arg = (void *)(intptr_t)i;
        int before = open_descriptors();
        peer_sends(stream.peer, "x", 1, 5);
        run_until_traced(world, "data:1");
        run_ticks(world, 3);
        int fd;
        if (recorder->base.transport || deeds[i] == do_switch) /* it lives */
            assert_int_equal(tram_transport_take_fds(stream.transport, &fd, 1), 0);
        assert_int_equal(open_descriptors(), before - (recorder->lost ? 1 : 0));
        if (deeds[i] == do_switch)
            tram_transport_abort(stream.transport);
        else
            next->was_released = true;
        if (detached.fd >= 0)
            close(detached.fd);
        run_to_rest(world);
        stream_close(&stream);
        world->trace[0] = '\0';
    }
}

static void test_U_10_a_pause_leaves_the_rest_to_the_kernel(void **state) {
    struct world *world = *state;
    struct stream stream = stream_plain(world, 5, 5);
    assert_int_equal(tram_transport_pause_reading(stream.transport), 0);
    int before = open_descriptors();
    peer_sends(stream.peer, "x", 1, 2);
    run_to_rest(world);
    assert_trace(world, "");
    assert_int_equal(open_descriptors(), before);
    assert_int_equal(tram_transport_resume_reading(stream.transport), 0);
    run_until_traced(world, "took:2");
    assert_trace(world, "data:1 took:1 took:2");
    stream_close(&stream);
}

static void test_U_10_the_new_protocol_takes_what_comes_next(void **state) {
    struct world *world = *state;
    struct stream stream = stream_plain(world, 5, 5);
    struct recorder *next = recorder_new_buffered(world, "next");
    next->on = take;
    next->arg = (void *)(intptr_t)5;
    assert_int_equal(tram_transport_set_protocol(stream.transport, &next->base), 0);
    peer_sends(stream.peer, "x", 1, 1);
    run_until_traced(world, "took:1");
    assert_non_null(strstr(world->trace, "next.updated:1 took:1"));
    tram_transport_abort(stream.transport);
    run_until_traced(world, "next.released");
    stream_close(&stream);
}

static void test_U_10_a_bridge_takes_none(void **state) {
    struct world *world = *state;
    struct stream one = stream_plain(world, 5, 0), other = stream_plain(world, 5, 0);
    tram_future *future;
    assert_int_equal(tram_bridge(one.transport, other.transport, NULL, &future), 0);
    int far = pipe_on_its_way(one.peer), number;
    size_t count;
    char byte;
    receive_exactly(world, other.peer, &byte, 1);
    assert_true(nobody_has_the_other_end(far));
    close(far);
    assert_int_equal(peer_takes(other.peer, &byte, 1, &number, &count), -1);
    tram_future_cancel(future);
    tram_future_release(future);
    run_to_rest(world);
    stream_close(&one);
    stream_close(&other);
}

/* ---- Too many ---- */

/* No descriptor number is left, until lift_limit(). */
static struct rlimit limit_before;

static void no_more_descriptors(void) {
    int lowest = dup(1);
    assert_true(lowest >= 0);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit_before), 0);
    struct rlimit low = limit_before;
    low.rlim_cur = (rlim_t)lowest;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
}

static void lift_limit(void) {
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit_before), 0);
}

static struct sys watched;
static int most_open;

static ssize_t watched_recvmsg(int fd, struct msghdr *message, int flags) {
    ssize_t received = tram__sys.recvmsg(fd, message, flags);
    int error = errno, open = open_descriptors();
    if (open > most_open)
        most_open = open;
    errno = error;
    return received;
}

static void test_U_11_T_17_more_than_the_limit_end_the_connection(void **state) {
    struct world *world = *state;
    watched = tram__sys;
    watched.recvmsg = watched_recvmsg;
    world_use_sys(world, &watched);
    world->trace_reports = true;
    for (int max = 1; max <= 4; max++) {
        struct stream stream = stream_plain(world, (size_t)max, 4);
        int before = most_open = open_descriptors();
        peer_sends(stream.peer, "x", 1, max);
        run_until_traced(world, "took");
        world->trace[0] = '\0';
        peer_sends(stream.peer, "x", 1, max + 1);
        run_until(world, &stream.recorder->lost);
        run_to_rest(world);
        assert_trace(world, "reported:TRAM_ELIMIT lost:TRAM_ELIMIT released");
        assert_ptr_equal(world->exception_transport, stream.transport);
        assert_int_equal(open_descriptors(), before - 1);
        assert_in_range(most_open, before, before + max); /* not for a moment */
        stream_close(&stream);
    }
}

static void test_U_11_a_peer_that_sends_a_thousand(void **state) {
    struct world *world = *state;
    watched = tram__sys;
    watched.recvmsg = watched_recvmsg;
    world_use_sys(world, &watched);
    struct stream stream = stream_plain(world, TRAM_UNIX_FDS_MAX, 1);
    int number = number_new(1), fds[250], before = most_open = open_descriptors();
    for (size_t i = 0; i < 250; i++)
        fds[i] = number;
    for (size_t i = 0; i < 4; i++) {
        size_t received = stream.recorder->received;
        peer_sends_with(stream.peer, "x", 1, fds, 250);
        run_until_traced(world, "took:1");
        world->trace[0] = '\0';
        assert_int_equal(stream.recorder->received, received + 1);
        assert_int_equal(open_descriptors(), before);
    }
    assert_in_range(most_open, before + 1, before + 250);
    /* To one who expects two. */
    assert_int_equal(tram_transport_receive_fds(stream.transport, 2), 0);
    most_open = before;
    peer_sends_with(stream.peer, "x", 1, fds, 250);
    run_until(world, &stream.recorder->lost);
    assert_int_equal(stream.recorder->lost_code, TRAM_ELIMIT);
    assert_in_range(most_open, before, before + 2);
    close(number);
    stream_close(&stream);
}

static void test_U_11_a_process_that_may_open_no_more(void **state) {
    skip_where_emulated("valgrind keeps limits of descriptors in its own way");
    struct world *world = *state;
    struct stream stream = stream_plain(world, 200, 200);
    int opened = open_descriptors();
    peer_sends(stream.peer, "x", 1, 100);
    no_more_descriptors();
    run_until(world, &stream.recorder->lost);
    lift_limit();
    run_to_rest(world);
    assert_trace(world, "lost:TRAM_ELIMIT released");
    assert_int_equal(open_descriptors(), opened - 1);
    stream_close(&stream);
}

static void test_U_9_L_38_interrupted_and_empty_receives(void **state) {
    struct world *world = *state;
    struct stream stream = stream_plain(world, 2, 2);
    peer_sends(stream.peer, "x", 1, 2);
    fail_next(&faults.recv, EINTR, 3);
    run_until_traced(world, "data");
    assert_trace(world, "data:1 took:1 took:2");
    peer_sends(stream.peer, "x", 1, 2);
    fail_next(&faults.recv, EAGAIN, 3);
    run_until_traced(world, "data");
    assert_trace(world, "data:1 took:1 took:2");
    close_with_reset(stream.peer);
    stream.peer = -1;
    run_until(world, &stream.recorder->lost);
    stream_close(&stream);
}

/* ---- Sending ---- */

static void peer_finds(struct stream *stream, const char *text, int first, size_t expected) {
    char bytes[100];
    int numbers[TRAM_UNIX_FDS_MAX];
    size_t count, size = strlen(text);
    await_events(stream->peer, POLLIN);
    assert_int_equal(peer_takes(stream->peer, bytes, sizeof bytes, numbers, &count), size);
    assert_memory_equal(bytes, text, size);
    assert_int_equal(count, expected);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(numbers[i], first + (int)i);
}

static int send_numbers(tram_transport *transport, const void *data, size_t size, int first, size_t count) {
    int fds[TRAM_UNIX_FDS_MAX] = {0};
    for (size_t i = 0; i < count; i++)
        fds[i] = number_new(first + (int)i);
    int status = tram_transport_send_fds(transport, data, size, fds, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(number_of(fds[i]), first + (int)i); /* the caller's stay the caller's */
        close(fds[i]);
    }
    return status;
}

static void test_U_12_descriptors_go_with_the_first_byte(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int before = open_descriptors();
    assert_int_equal(send_numbers(stream.transport, "hello", 5, 1, 3), 0);
    assert_int_equal(open_descriptors(), before);
    peer_finds(&stream, "hello", 1, 3);
    assert_int_equal(send_numbers(stream.transport, "many", 4, 1, TRAM_UNIX_FDS_MAX), 0);
    peer_finds(&stream, "many", 1, TRAM_UNIX_FDS_MAX);
    assert_int_equal(tram_transport_write(stream.transport, "plain", 5), 0);
    peer_finds(&stream, "plain", 0, 0);
    assert_trace(world, "");
    stream_close(&stream);
}

/* Where in the stream descriptors are to be, by the number of the first, and how many. */
struct place {
    size_t offset;
    int first;
    size_t count;
};

/* The peer reads up to each place, finds none on the way, and at the place those that belong there. */
static void peer_finds_all(struct stream *stream, const struct place *places, size_t count, size_t total) {
    static char bytes[65536];
    int numbers[TRAM_UNIX_FDS_MAX];
    size_t position = 0, next = 0, came;
    while (position < total) {
        bool here = next < count && places[next].offset == position;
        size_t until = here ? position + 1 : next < count ? places[next].offset : total, part = until - position;
        ssize_t received = peer_takes(stream->peer, bytes, part < sizeof bytes ? part : sizeof bytes, numbers, &came);
        if (received < 0) {
            run_ticks(stream->world, 1);
            continue;
        }
        assert_pattern(bytes, (size_t)received, position);
        assert_int_equal(came, here ? places[next].count : 0);
        for (size_t i = 0; i < came; i++)
            assert_int_equal(numbers[i], places[next].first + (int)i);
        next += here;
        position += (size_t)received;
    }
    assert_int_equal(next, count);
}

static size_t send_pattern(tram_transport *transport, size_t size, size_t offset, int first, size_t count) {
    char *bytes = malloc(size);
    pattern(bytes, size, offset);
    assert_int_equal(send_numbers(transport, bytes, size, first, count), 0);
    memset(bytes, 0xee, size);
    free(bytes);
    return offset + size;
}

static void test_U_12_U_13_W_1_order_and_place_behind_a_full_buffer(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    tram_transport *transport = stream.transport;
    int before = open_descriptors();
    struct place places[40];
    size_t count = 0, offset = 0;
    while (!tram_transport_get_write_buffer_size(transport)) {
        assert_int_equal(write_pattern(transport, 5000, offset), 0);
        offset += 5000;
    }
    for (size_t i = 0; i < 40; i++) {
        static const size_t sizes[] = {1, 700, 2048, 3000, 16384, 40000};
        places[count] = (struct place){.offset = offset, .first = 10 * (int)i + 1, .count = i % 9 + 1};
        offset = send_pattern(transport, sizes[i % 6], offset, places[count].first, places[count].count);
        count++;
        if (i % 3) {
            assert_int_equal(write_pattern(transport, i % 3 * 10, offset), 0); /* shares the chunk */
            offset += i % 3 * 10;
        }
    }
    assert_true(open_descriptors() > before + 40);
    peer_finds_all(&stream, places, count, offset);
    run_to_rest(world);
    assert_int_equal(open_descriptors(), before);
    assert_trace(world, "pause resume");
    stream_close(&stream);
}

/* The copy that waits is the lowest number that is free. */
static void test_U_12_one_that_waits_may_be_descriptor_0(void **state) {
    struct world *world = *state;
    int before = open_descriptors(), lowest = number_new(3);
    assert_int_equal(lowest, 0); /* nobody else has it (support.c) */
    struct stream stream = stream_open(world);
    size_t offset = 0;
    while (!tram_transport_get_write_buffer_size(stream.transport)) {
        assert_int_equal(write_pattern(stream.transport, 5000, offset), 0);
        offset += 5000;
    }
    const struct place places[] = {{offset, 1, 2}};
    int fds[] = {number_new(1), number_new(2)};
    char bytes[10];
    pattern(bytes, sizeof bytes, offset);
    close(lowest);
    assert_int_equal(tram_transport_send_fds(stream.transport, bytes, sizeof bytes, fds, 2), 0);
    assert_int_equal(number_of(0), 1);
    close(fds[0]), close(fds[1]);
    peer_finds_all(&stream, places, 1, offset + sizeof bytes);
    run_to_rest(world);
    assert_trace(world, "");
    stream_close(&stream);
    assert_int_equal(open_descriptors(), before);
}

static void test_U_12_what_is_sent_in_parts_has_them_once(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    const struct place places[] = {{0, 1, 2}, {1000000, 3, 1}};
    int before = open_descriptors();
    /* At once, as far as it goes, and behind that. */
    size_t offset = send_pattern(stream.transport, 1000000, 0, 1, 2);
    assert_int_equal(open_descriptors(), before); /* they are gone already */
    assert_true(tram_transport_get_write_buffer_size(stream.transport) > 0);
    offset = send_pattern(stream.transport, 1000000, offset, 3, 1);
    assert_int_equal(open_descriptors(), before + 1);
    peer_finds_all(&stream, places, 2, offset);
    stream_close(&stream);
}

static void test_U_12_L_38_byte_by_byte(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    const struct place places[] = {{0, 1, 2}, {3, 3, 1}, {4, 4, 3}, {57, 7, 1}};
    faults.send_at_most = 1;
    fail_next(&faults.send, EINTR, 2);
    size_t offset = send_pattern(stream.transport, 3, 0, 1, 2);
    offset = send_pattern(stream.transport, 1, offset, 3, 1);
    offset = send_pattern(stream.transport, 50, offset, 4, 3);
    assert_int_equal(write_pattern(stream.transport, 3, offset), 0);
    offset = send_pattern(stream.transport, 3, offset + 3, 7, 1);
    peer_finds_all(&stream, places, 4, offset);
    /* The kernel takes nothing. */
    int before = open_descriptors();
    fail_next(&faults.send, EAGAIN, 3);
    assert_int_equal(send_numbers(stream.transport, "late", 4, 1, 2), 0);
    assert_int_equal(open_descriptors(), before + 2);
    faults.send_at_most = SIZE_MAX;
    run_to_rest(world);
    peer_finds(&stream, "late", 1, 2);
    assert_int_equal(open_descriptors(), before);
    stream_close(&stream);
}

static void test_U_12_corked_and_uncorked(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int before = open_descriptors();
    tram_transport_cork(stream.transport);
    tram_transport_write(stream.transport, "a", 1);
    assert_int_equal(send_numbers(stream.transport, "bb", 2, 1, 2), 0);
    tram_transport_write(stream.transport, "c", 1);
    assert_int_equal(send_numbers(stream.transport, "ddd", 3, 3, 1), 0);
    assert_int_equal(open_descriptors(), before + 3);
    tram_transport_uncork(stream.transport);
    run_to_rest(world);
    assert_int_equal(open_descriptors(), before);
    peer_finds(&stream, "abbc", 1, 2);
    peer_finds(&stream, "ddd", 3, 1);
    stream_close(&stream);
}

static void test_U_12_W_25_the_ends_of_a_stream(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    stream.recorder->eof_returns = 1;
    shutdown(stream.peer, SHUT_WR);
    run_until_traced(world, "eof");
    /* The peer's end is not ours. */
    tram_transport_cork(stream.transport);
    assert_int_equal(send_numbers(stream.transport, "last", 4, 1, 1), 0);
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    assert_int_equal(send_numbers(stream.transport, "x", 1, 1, 1), TRAM_ESTATE);
    run_to_rest(world);
    peer_finds(&stream, "last", 1, 1);
    assert_true(receive_eof(world, stream.peer));
    stream_close(&stream);
    /* A close sends what is queued. */
    stream = stream_open(world);
    fail_next(&faults.send, EAGAIN, 1);
    assert_int_equal(send_numbers(stream.transport, "last", 4, 1, 1), 0);
    tram_transport_close(stream.transport);
    run_until(world, &stream.recorder->lost);
    assert_int_equal(stream.recorder->lost_code, 0);
    peer_finds(&stream, "last", 1, 1);
    stream_close(&stream);
}

/* ---- What is not sent ---- */

static struct stream with_three_queued(struct world *world) {
    struct stream stream = stream_open(world);
    int before = open_descriptors();
    fill(stream.transport, 100);
    assert_int_equal(send_numbers(stream.transport, "x", 1, 1, 2), 0);
    assert_int_equal(send_numbers(stream.transport, "x", 1, 3, 1), 0);
    assert_int_equal(open_descriptors(), before + 3);
    return stream;
}

static void test_U_13_a_connection_that_is_lost_closes_them(void **state) {
    struct world *world = *state;
    int before = open_descriptors();
    struct stream stream = with_three_queued(world);
    tram_transport_abort(stream.transport);
    assert_int_equal(open_descriptors(), before + 2);
    stream_close(&stream);
    assert_int_equal(open_descriptors(), before);
    /* By the peer. */
    stream = with_three_queued(world);
    close(stream.peer);
    stream.peer = -1;
    run_until(world, &stream.recorder->lost);
    stream_close(&stream);
    assert_int_equal(open_descriptors(), before);
    /* By the hard limit. */
    stream = with_three_queued(world);
    tram_transport_set_write_hard_limit(stream.transport, tram_transport_get_write_buffer_size(stream.transport) + 2);
    assert_int_equal(send_numbers(stream.transport, "xxx", 3, 1, 2), 0);
    run_until(world, &stream.recorder->lost);
    assert_int_equal(stream.recorder->lost_code, TRAM_ELIMIT);
    stream_close(&stream);
    assert_int_equal(open_descriptors(), before);
    /* Afterwards they are dropped with their bytes. */
    stream = stream_open(world);
    tram_transport_hold(stream.transport);
    tram_transport_abort(stream.transport);
    assert_int_equal(send_numbers(stream.transport, "x", 1, 1, 1), 0);
    run_until(world, &stream.recorder->lost);
    assert_int_equal(send_numbers(stream.transport, "x", 1, 1, 1), 0);
    assert_int_equal(tram_transport_receive_fds(stream.transport, 1), TRAM_ESTATE);
    tram_transport_release(stream.transport);
    stream_close(&stream);
}

static void test_U_13_a_loop_that_closes_closes_them(void **state) {
    struct world *world = *state;
    struct stream stream = with_three_queued(world);
    close(stream.peer);
    world_reopen(world); /* the teardown counts */
    assert_true(stream.recorder->lost);
}

static void test_U_13_the_callers_may_be_closed_at_once(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    fail_next(&faults.send, EAGAIN, 1);
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(tram_transport_send_fds(stream.transport, "x", 1, &ends[1], 1), 0);
    close(ends[1]);
    assert_false(nobody_has_the_other_end(ends[0]));
    run_to_rest(world);
    int number;
    size_t count;
    char byte;
    assert_int_equal(peer_takes(stream.peer, &byte, 1, &number, &count), 1);
    assert_int_equal(count, 1);
    assert_true(nobody_has_the_other_end(ends[0]));
    close(ends[0]);
    stream_close(&stream);
}

static void test_U_14_what_is_refused_changes_nothing(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    tram_transport *transport = stream.transport;
    int good = number_new(1), before = open_descriptors();
    const int fds[] = {good, 9999, good};
    /* At once. */
    assert_int_equal(tram_transport_send_fds(transport, "x", 1, fds, 3), -EBADF);
    static const int errors[] = {EBADF, EINVAL, ETOOMANYREFS};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        fail_next(&faults.send, errors[i], 1);
        assert_int_equal(tram_transport_send_fds(transport, "x", 1, &good, 1), -errors[i]);
    }
    /* Behind something else. */
    tram_transport_cork(transport);
    tram_transport_write(transport, "a", 1);
    world->fail_after = 0;
    assert_int_equal(tram_transport_send_fds(transport, "x", 1, &good, 1), -ENOMEM);
    /* Part of it would have found room. */
    world->fail_after = 1;
    char much[100000] = "";
    assert_int_equal(tram_transport_send_fds(transport, much, sizeof much, &good, 1), -ENOMEM);
    world->fail_after = SIZE_MAX;
    assert_int_equal(tram_transport_send_fds(transport, "x", 1, fds, 3), -EBADF);
    no_more_descriptors();
    assert_int_equal(tram_transport_send_fds(transport, "x", 1, &good, 1), -EMFILE);
    lift_limit();
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 1);
    assert_int_equal(open_descriptors(), before);
    tram_transport_uncork(transport);
    assert_int_equal(tram_transport_send_fds(transport, "b", 1, &good, 1), 0);
    run_to_rest(world);
    assert_trace(world, "");
    peer_finds(&stream, "ab", 1, 1);
    close(good);
    stream_close(&stream);
}

static void test_U_14_too_many_on_their_way_when_their_turn_comes(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    int before = open_descriptors();
    fail_next(&faults.send, EAGAIN, 1);
    assert_int_equal(send_numbers(stream.transport, "x", 1, 1, 3), 0);
    fail_next(&faults.send, ETOOMANYREFS, 1);
    run_until(world, &stream.recorder->lost);
    run_to_rest(world);
    assert_trace(world, "lost:ETOOMANYREFS released");
    assert_int_equal(open_descriptors(), before - 1);
    stream_close(&stream);
}

static void test_U_14_bad_arguments(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open(world);
    tram_transport *transport = stream.transport;
    static int many[TRAM_UNIX_FDS_MAX + 1];
    const int fd = 1;
    assert_int_equal(tram_transport_send_fds(transport, NULL, 1, &fd, 1), TRAM_EVALUE);
    assert_int_equal(tram_transport_send_fds(transport, "x", 0, &fd, 1), TRAM_EVALUE);
    assert_int_equal(tram_transport_send_fds(transport, "x", 1, NULL, 1), TRAM_EVALUE);
    assert_int_equal(tram_transport_send_fds(transport, "x", 1, &fd, 0), TRAM_EVALUE);
    assert_int_equal(tram_transport_send_fds(transport, "x", 1, many, TRAM_UNIX_FDS_MAX + 1), TRAM_EVALUE);
    assert_int_equal(tram_transport_receive_fds(transport, TRAM_UNIX_FDS_MAX + 1), TRAM_EVALUE);
    world->fail_after = 0;
    assert_int_equal(tram_transport_receive_fds(transport, 1), -ENOMEM);
    world->fail_after = SIZE_MAX;
    char byte;
    assert_int_equal(recv(stream.peer, &byte, 1, MSG_DONTWAIT), -1);
    stream_close(&stream);
}

static void refuses(tram_transport *transport) {
    int fd = 1;
    assert_int_equal(tram_transport_receive_fds(transport, 1), -ENOTSUP);
    assert_int_equal(tram_transport_send_fds(transport, "x", 1, &fd, 1), -ENOTSUP);
    assert_int_equal(tram_transport_take_fds(transport, &fd, 1), 0);
}

static int give(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

/* rules: U-15, X-1 */
static void test_other_transports_have_none(void **state) {
    struct world *world = *state;
    struct stream stream = stream_open_tcp(world);
    refuses(stream.transport);
    stream_close(&stream);
    struct recorder *ends[2] = {recorder_new(world, "a"), recorder_new(world, "b")};
    assert_int_equal(tram_loop_create_pair(world->loop, &ends[0]->base, &ends[1]->base, NULL, NULL), 0);
    run_until_traced(world, "b.made");
    refuses(ends[0]->base.transport);
    tram_transport_abort(ends[0]->base.transport);
    run_until_traced(world, "b.released");
    /* Not even a Unix socket that is used as a pipe. */
    int fds[2];
    unix_pair(fds);
    struct recorder *recorder = recorder_new(world, "pipe");
    tram_future *future;
    assert_int_equal(tram_loop_connect_write_pipe(world->loop, give, &recorder->base, fds[0], &future), 0);
    tram_loop_run_until_complete(world->loop, future);
    tram_future_release(future);
    refuses(recorder->base.transport);
    tram_transport_abort(recorder->base.transport);
    run_until_traced(world, "pipe.released");
    close(fds[1]);
}

#define TEST(name)  cmocka_unit_test_setup_teardown(test_##name, world_setup, world_teardown)
#define FAULT(name) cmocka_unit_test_setup_teardown(test_##name, world_setup_faults, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(U_9_U_10_descriptors_wait_with_their_bytes),
        TEST(U_9_a_buffered_protocol_finds_them_in_buffer_updated),
        TEST(U_9_credentials_beside_them_are_none),
        TEST(U_9_none_come_unasked),
        TEST(U_10_those_not_taken_are_closed_after_the_callback),
        TEST(U_10_a_pause_leaves_the_rest_to_the_kernel),
        TEST(U_10_the_new_protocol_takes_what_comes_next),
        TEST(U_10_a_bridge_takes_none),
        TEST(U_11_T_17_more_than_the_limit_end_the_connection),
        TEST(U_11_a_peer_that_sends_a_thousand),
        TEST(U_11_a_process_that_may_open_no_more),
        FAULT(U_9_L_38_interrupted_and_empty_receives),
        TEST(U_12_descriptors_go_with_the_first_byte),
        TEST(U_12_U_13_W_1_order_and_place_behind_a_full_buffer),
        TEST(U_12_one_that_waits_may_be_descriptor_0),
        TEST(U_12_what_is_sent_in_parts_has_them_once),
        FAULT(U_12_L_38_byte_by_byte),
        TEST(U_12_corked_and_uncorked),
        FAULT(U_12_W_25_the_ends_of_a_stream),
        TEST(U_13_a_connection_that_is_lost_closes_them),
        TEST(U_13_a_loop_that_closes_closes_them),
        FAULT(U_13_the_callers_may_be_closed_at_once),
        FAULT(U_14_what_is_refused_changes_nothing),
        FAULT(U_14_too_many_on_their_way_when_their_turn_comes),
        TEST(U_14_bad_arguments),
        cmocka_unit_test_setup_teardown(test_other_transports_have_none, world_setup, world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
