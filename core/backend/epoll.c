/*
 * The epoll backend: level-triggered, one system call for what one event asks. An event is served when its turn to run
 * comes, not when it is collected, so what callbacks change in between (pause, close, set_protocol) counts; but what
 * they start anew waits for the next tick (L-2).
 *
 * An error and a hang-up are reported whether they are asked for or not, for as long as they last. Where nobody could
 * be told of one, and nothing was taken that would end it, the descriptor becomes edge-triggered until somebody is told
 * something or wants something else: so no state of a descriptor keeps the loop awake.
 */
#include "core/backend/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/backend/datagrams.h"
#include "core/backend/descriptors.h"
#include "core/backend/error_queue.h"
#include "core/base/probes.h"
#include "core/loop/loop.h"
#include "core/system/sigpipe.h"

struct poller {
    const struct sys *sys;
    tram_loop *loop;
    int epoll;
    int collected;
    bool no_pwait2; /* a kernel before 5.11 */
    bool lost;      /* somebody closed its descriptor, whose number may be anybody's by now */
    struct epoll_event events[TRAM_EVENTS_PER_TICK];
};

static inline uint64_t event_name(uint32_t slot, uint32_t generation) {
    return (uint64_t)generation << 32 | slot;
}

/*
 * In the generation of an event of an edge-triggered io, which makes it that of a free slot. So it is taken for one of
 * an io that is gone, and is looked at apart: what is level-triggered pays nothing for the difference.
 */
#define EDGE_MARK 1u

/* What is reported without having been asked for. */
#define TROUBLE ((uint32_t)(EPOLLERR | EPOLLHUP))

static int epoll_open(tram_loop *loop, struct poller **ret_poller) {
    struct poller *poller = memory_get(&loop->allocator, sizeof *poller);
    if (!poller)
        return -ENOMEM;
    *poller = (struct poller){.sys = loop->sys, .loop = loop};
    poller->epoll = poller->sys->epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = event_name(0, 0)};
    if (poller->epoll < 0 || poller->sys->epoll_ctl(poller->epoll, EPOLL_CTL_ADD, loop->mailbox->eventfd, &event) < 0) {
        int status = -errno;
        if (poller->epoll >= 0)
            poller->sys->close(poller->epoll);
        memory_put(&loop->allocator, poller, sizeof *poller);
        return status;
    }
    *ret_poller = poller;
    return 0;
}

static void epoll_close(tram_loop *loop, struct poller *poller) {
    if (!poller->lost)
        poller->sys->close(poller->epoll);
    memory_put(&loop->allocator, poller, sizeof *poller);
    tram__datagrams_free(loop);
}

static int epoll_fd(const struct poller *poller) {
    return poller->epoll;
}

static inline struct epoll_event wanted_event(const struct io *io) {
#define BOTH_WAYS(rest) (rest), EPOLLIN | (rest), EPOLLOUT | (rest), EPOLLIN | EPOLLOUT | (rest)
    static const uint32_t events[] = {BOTH_WAYS((uint32_t)0), BOTH_WAYS((uint32_t)EPOLLRDHUP),
                                      BOTH_WAYS((uint32_t)EPOLLONESHOT),
                                      BOTH_WAYS((uint32_t)EPOLLRDHUP | (uint32_t)EPOLLONESHOT)};
#undef BOTH_WAYS
    return (struct epoll_event){
        .events = events[io->wanted & (IO_READ | IO_WRITE | IO_HANGUP | IO_ONCE)],
        .data.u64 = event_name(io->slot, io->generation),
    };
}

__attribute__((noinline)) static void epoll_forget(struct poller *poller, struct io *io) {
    struct epoll_event unused = {0};
    poller->sys->epoll_ctl(poller->epoll, EPOLL_CTL_DEL, io->fd, &unused);
    io->flags &= (uint8_t)~IO_IN_KERNEL;
    io->armed = 0;
}

/* After a change that failed, which left errno. */
__attribute__((noinline)) static int change_again(struct io *io, struct epoll_event event) {
    const struct poller *poller = io->loop->poller;
    bool known = io->flags & IO_IN_KERNEL;
    int status = -1;
    /* The kernel may have lost it, where the descriptor was closed and its number came back. */
    if (known && errno == ENOENT)
        status = poller->sys->epoll_ctl(poller->epoll, EPOLL_CTL_ADD, io->fd, &event);
    /* Or it knows it still, where a copy of a descriptor that was closed too early came back to its number. */
    else if (!known && errno == EEXIST)
        status = poller->sys->epoll_ctl(poller->epoll, EPOLL_CTL_MOD, io->fd, &event);
    if (status < 0)
        return -errno;
    io->flags |= IO_IN_KERNEL;
    io->armed = io->wanted;
    return 0;
}

ALWAYS_INLINE static int change_by(struct poller *poller, struct io *io, int operation, struct epoll_event event) {
    if (unlikely(poller->sys->epoll_ctl(poller->epoll, operation, io->fd, &event) < 0))
        return change_again(io, event);
    io->flags |= IO_IN_KERNEL;
    io->armed = io->wanted;
    return 0;
}

__attribute__((noinline)) static int change_known(struct poller *poller, struct io *io, struct epoll_event event) {
    if (unlikely(io->flags & IO_EXCLUSIVE)) {
        event.events |= EPOLLEXCLUSIVE;
        if (io->flags & IO_IN_KERNEL)
            epoll_forget(poller, io); /* the kernel does not change what is exclusive */
    }
    if (io->flags & IO_IN_KERNEL)
        return change_by(poller, io, EPOLL_CTL_MOD, event);
    return io->wanted ? change_by(poller, io, EPOLL_CTL_ADD, event) : 0;
}

/* Most are changed once, when they begin. */
static int epoll_change(struct poller *poller, struct io *io) {
    struct epoll_event event = wanted_event(io);
    if (unlikely(io->flags & (IO_IN_KERNEL | IO_EXCLUSIVE) || !io->wanted))
        return change_known(poller, io, event);
    return change_by(poller, io, EPOLL_CTL_ADD, event);
}

/* From now on only what is new is reported. Where the kernel refuses even that, it is to forget the descriptor. */
__attribute__((noinline)) static void make_edge_triggered(struct poller *poller, struct io *io) {
    struct epoll_event event = wanted_event(io);
    event.events = (event.events & ~(uint32_t)EPOLLONESHOT) | (uint32_t)EPOLLET;
    event.data.u64 |= (uint64_t)EDGE_MARK << 32;
    io->armed = 0;
    if ((io->flags & IO_IN_KERNEL || io->wanted) && change_known(poller, io, event) < 0)
        epoll_forget(poller, io);
    else
        io->armed |= IO_EDGE;
}

/* The kernel knows a descriptor by its number and its open file: another file of the same number is unknown to it. */
static int epoll_renew(struct poller *poller, struct io *io) {
    struct epoll_event event = wanted_event(io);
    if (poller->sys->epoll_ctl(poller->epoll, EPOLL_CTL_MOD, io->fd, &event) < 0)
        return errno == ENOENT ? -EBADF : -errno;
    io->armed = io->wanted;
    return 0;
}

__attribute__((noinline)) static ssize_t send_with_care(struct io *io, const void *data, size_t size) {
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    ssize_t sent;
    do
        sent = io->flags & IO_NO_SOCKET ? tram__io_write(io, &piece, 1)
                                        : io->loop->sys->send(io->fd, data, size, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0 ? sent : -errno;
}

static ssize_t epoll_try_send(struct io *io, const void *data, size_t size) {
    if (unlikely(io->flags & IO_NO_SOCKET))
        return send_with_care(io, data, size);
    ssize_t sent = io->loop->sys->send(io->fd, data, size, MSG_NOSIGNAL);
    if (likely(sent >= 0))
        return sent;
    return errno == EINTR ? send_with_care(io, data, size) : -errno;
}

static ssize_t epoll_try_send_descriptors(struct io *io, const void *data, size_t size, const int *fds, size_t count) {
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    return tram__descriptors_send(io, &piece, 1, fds, count);
}

static ssize_t epoll_try_send_pieces(struct io *io, const struct iovec *pieces, size_t count) {
    const int *fds;
    size_t fd_count = unlikely(io->flags & IO_DESCRIPTORS) ? io->kind->descriptors->gather(io, &fds) : 0;
    if (unlikely(fd_count))
        return tram__descriptors_send(io, pieces, count, fds, fd_count);
    if (count == 1)
        return epoll_try_send(io, pieces[0].iov_base, pieces[0].iov_len);
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = count};
    ssize_t sent;
    do
        sent = likely(!(io->flags & IO_NO_SOCKET)) ? io->loop->sys->sendmsg(io->fd, &message, MSG_NOSIGNAL)
                                                   : tram__io_write(io, pieces, count);
    while (unlikely(sent < 0) && errno == EINTR);
    return likely(sent >= 0) ? sent : -errno;
}

static ssize_t send_one(struct io *io, const struct io_datagram *datagram) {
    ssize_t sent;
    do
        sent = io->loop->sys->sendto(io->fd, datagram->data, datagram->size, MSG_NOSIGNAL, datagram->address,
                                     datagram->address_size);
    while (unlikely(sent < 0) && errno == EINTR);
    return likely(sent >= 0) ? 1 : -errno;
}

static ssize_t send_packed(struct io *io, const struct io_datagram *datagrams, size_t count) {
    struct datagram_area *area = io->loop->datagrams;
    unsigned messages = tram__datagrams_pack(area, io, datagrams, count);
    int sent;
    do
        sent = io->loop->sys->sendmmsg(io->fd, area->out, messages, MSG_NOSIGNAL);
    while (unlikely(sent < 0) && errno == EINTR);
    return likely(sent > 0) ? (ssize_t)tram__datagrams_packed(area, (unsigned)sent) : -errno;
}

static ssize_t epoll_try_send_datagrams(struct io *io, const struct io_datagram *datagrams, size_t count) {
    if (count == 1 && likely(!datagrams->ancillary))
        return send_one(io, datagrams);
    ssize_t sent = send_packed(io, datagrams, count);
    if (likely(sent > 0) || !tram__datagrams_joined_badly(io->loop->datagrams, (int)-sent))
        return sent;
    int error = (int)-sent;
    sent = send_packed(io, datagrams, 1);
    if (sent > 0)
        tram__datagrams_unjoin(io, datagrams, error);
    return sent;
}

static ssize_t send_from_pipe(struct io *io, const struct io_range *range) {
    struct sigpipe_guard guard;
    ssize_t sent;
    sigpipe_block(&guard);
    do
        sent = io->loop->sys->splice(range->file, NULL, io->fd, NULL, range->size, SPLICE_F_NONBLOCK);
    while (unlikely(sent < 0) && errno == EINTR);
    sigpipe_restore(&guard, sent < 0 ? errno == EPIPE : (size_t)sent < range->size);
    return likely(sent >= 0) ? sent : -errno;
}

static ssize_t epoll_try_send_range(struct io *io, const struct io_range *range) {
    off_t offset = range->offset;
    ssize_t sent;
    if (range->offset < 0)
        return send_from_pipe(io, range);
    do
        sent = io->loop->sys->sendfile(io->fd, range->file, &offset, range->size);
    while (unlikely(sent < 0) && errno == EINTR);
    return likely(sent >= 0) ? sent : -errno;
}

/* ---- Waiting ---- */

static int wait_rounded_up(struct poller *poller, int64_t timeout_ns) {
    int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + 999999) / 1000000;
    return poller->sys->epoll_wait(poller->epoll, poller->events, TRAM_EVENTS_PER_TICK, (int)ms);
}

static int epoll_wait_collect(tram_loop *loop, struct poller *poller, int64_t timeout_ns) {
    (void)loop;
    int count;
    if (timeout_ns > 0 && !poller->no_pwait2) {
        struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
        count = poller->sys->epoll_pwait2(poller->epoll, poller->events, TRAM_EVENTS_PER_TICK, &timeout);
        if (count < 0 && errno == ENOSYS) {
            poller->no_pwait2 = true;
            count = wait_rounded_up(poller, timeout_ns);
        }
    } else {
        count = wait_rounded_up(poller, timeout_ns);
    }
    poller->collected = MAX(count, 0);
    if (likely(count >= 0) || errno == EINTR)
        return poller->collected; /* an interrupted wait is an empty one: the loop comes again */
    poller->lost = errno == EBADF || errno == EINVAL;
    return -errno;
}

static void epoll_discard(struct poller *poller, const struct io *io) {
    for (int i = 0; i < poller->collected; i++) {
        struct epoll_event *event = &poller->events[i];
        if ((uint32_t)event->data.u64 != io->slot)
            continue;
        bool writable = io->wanted & IO_WRITE && event->events & (EPOLLOUT | TROUBLE);
        bool readable = io->wanted & IO_READ && event->events & (EPOLLIN | TROUBLE);
        event->events = (writable ? (uint32_t)EPOLLOUT : 0) | (readable ? (uint32_t)EPOLLIN : 0);
    }
}

/* ---- Serving ---- */

static void count_received(tram_loop *loop, ssize_t received) {
    if (received >= 0) {
        stats_add(&loop->stats.reads, 1);
        stats_add(&loop->stats.bytes_received, (uint64_t)received);
    }
}

/*
 * The functions below that return a bool tell whether somebody was told something. Where nobody was there was nothing
 * to receive, to send or to accept, whatever the kernel had said.
 */

__attribute__((noinline)) static bool receive_descriptors(tram_loop *loop, struct io *io, void *memory, size_t size) {
    struct descriptors came;
    ssize_t received = tram__descriptors_receive(io, memory, size, &came);
    if (received == -EAGAIN)
        return false;
    count_received(loop, received);
    io->kind->descriptors->received(io, memory, received, came.fds, came.count, came.cut);
    return true;
}

/*
 * Nothing, or the end of the stream, is no answer of splice(2), which does not get past urgent data: a receive, which
 * does, decides.
 */
static bool receive_into_pipe(tram_loop *loop, const struct sys *sys, struct io *io, int pipe) {
    ssize_t received;
    do
        received = sys->splice(io->fd, NULL, pipe, NULL, TRAM_SPLICE_SIZE, SPLICE_F_NONBLOCK);
    while (received < 0 && errno == EINTR);
    bool answer = received > 0 || (received < 0 && errno != EAGAIN);
    if (answer)
        count_received(loop, received);
    io->receiver->spliced(io, received > 0 ? received : answer ? -errno : -EAGAIN);
    return answer;
}

/* Where the next bytes go: the loop's memory, or the owner's. False: nowhere, the owner does not receive now. */
static bool find_memory(tram_loop *loop, struct io *io, void **ret_memory, size_t *ret_size) {
    *ret_memory = loop->receive_buffer;
    *ret_size = TRAM_RECEIVE_SIZE;
    return !io->receiver->buffer || io->receiver->buffer(io, ret_memory, ret_size) >= 0;
}

/*
 * A receive that is not the common one: into memory of the owner's, from no socket, into a pipe, with descriptors, or
 * one that was interrupted.
 */
__attribute__((noinline)) static bool receive_with_care(tram_loop *loop, const struct sys *sys, struct io *io) {
    int pipe = io->receiver->pipe ? io->receiver->pipe(io) : -1;
    if (pipe >= 0 && receive_into_pipe(loop, sys, io, pipe))
        return true;
    void *memory;
    size_t size;
    if (!find_memory(loop, io, &memory, &size))
        return true;
    if (io->flags & IO_DESCRIPTORS)
        return receive_descriptors(loop, io, memory, size);
    ssize_t received;
    do
        received = io->flags & IO_NO_SOCKET ? sys->read(io->fd, memory, size) : sys->recv(io->fd, memory, size, 0);
    while (received < 0 && errno == EINTR);
    if (received < 0 && errno == EAGAIN)
        return false;
    count_received(loop, received);
    io->receiver->received(io, memory, received < 0 ? -errno : received);
    return true;
}

/* What a failed receive means to the owner: an interrupted one is made again. */
__attribute__((noinline)) static void receive_failed(tram_loop *loop, const struct sys *sys, struct io *io) {
    if (errno == EINTR)
        receive_with_care(loop, sys, io);
    else if (errno != EAGAIN)
        io->receiver->received(io, NULL, -errno);
}

static inline void receive(tram_loop *loop, const struct sys *sys, struct io *io) {
    const struct io_receiver *receiver = io->receiver;
    if (unlikely(receiver->buffer || io->flags & (IO_NO_SOCKET | IO_DESCRIPTORS))) {
        receive_with_care(loop, sys, io);
        return;
    }
    /* It is there by the time that the kernel has received. */
    __builtin_prefetch(*(void **)(void *)(io + 1));
    ssize_t received = sys->recv(io->fd, loop->receive_buffer, TRAM_RECEIVE_SIZE, 0);
    if (unlikely(received < 0)) {
        receive_failed(loop, sys, io);
        return;
    }
    stats_add(&loop->stats.reads, 1);
    stats_add(&loop->stats.bytes_received, (uint64_t)received);
    receiver->received(io, loop->receive_buffer, received);
}

static void count_sent(tram_loop *loop, ssize_t sent) {
    if (sent > 0) {
        stats_add(&loop->stats.writes, 1);
        stats_add(&loop->stats.bytes_sent, (uint64_t)sent);
    }
}

static bool flush_file(tram_loop *loop, struct io *io) {
    struct io_range range;
    io->kind->next_range(io, &range);
    ssize_t sent = epoll_try_send_range(io, &range);
    if (sent == -EAGAIN)
        return false;
    count_sent(loop, sent);
    io->kind->range_sent(io, sent);
    return true;
}

static bool flush(tram_loop *loop, struct io *io) {
    if (unlikely(io->flags & IO_SENDS_FILE))
        return flush_file(loop, io);
    struct iovec pieces[TRAM_WRITE_PIECES];
    size_t count = io->kind->gather(io, pieces, TRAM_WRITE_PIECES);
    if (unlikely(!count)) {
        io->kind->sent(io, 0);
        return true;
    }
    ssize_t sent = epoll_try_send_pieces(io, pieces, count);
    if (sent == -EAGAIN)
        return false;
    count_sent(loop, sent);
    io->kind->sent(io, sent);
    return true;
}

/* One batch: what is left is reported again. */
static bool receive_datagrams(tram_loop *loop, const struct sys *sys, struct io *io) {
    struct datagram_area *area = loop->datagrams;
    unsigned room = tram__datagrams_room(area, io);
    int count;
    do
        count = sys->recvmmsg(io->fd, area->in, room, MSG_TRUNC, NULL);
    while (unlikely(count < 0) && errno == EINTR);
    if (likely(count > 0))
        tram__datagrams_deliver(io, (unsigned)count);
    else if (count < 0 && errno != EAGAIN)
        io->kind->datagrams->receive_failed(io, -errno);
    else
        return false;
    return true;
}

/* Until the kernel refuses, or one fails (D-15, D-18). */
static bool flush_datagrams(tram_loop *loop, struct io *io) {
    struct datagram_area *area = loop->datagrams;
    const union io_slot *slot = io_slot_of(io);
    uint32_t generation = io->generation;
    bool some = false;
    ssize_t sent;
    do {
        size_t count = io->kind->datagrams->gather(io, area->gathered, TRAM_DATAGRAMS_OUT);
        sent = count ? io_try_send_datagrams(io, area->gathered, count) : 0;
        if (sent == -EAGAIN && some)
            return true;
        some = sent != -EAGAIN;
        io->kind->datagrams->sent(io, sent);
    } while (sent > 0 && io_still_there(slot, generation) && (io->wanted & IO_WRITE));
    return some;
}

/* A batch of connections (V-9, V-10). */
static bool accept_batch(tram_loop *loop, const struct sys *sys, struct io *io) {
    const union io_slot *slot = io_slot_of(io);
    uint32_t generation = io->generation, limit = io->kind->accept_limit(io);
    bool told = false;
    for (uint32_t i = 0; i < limit; i++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        int fd = sys->accept4(io->fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (unlikely(fd < 0)) {
            if (errno == ECONNABORTED)
                continue;
            if (errno != EAGAIN && errno != EINTR) {
                told = true;
                io->kind->accepted(io, -errno, NULL, 0);
            }
            break;
        }
        told = true;
        stats_add(&loop->stats.accepted, 1);
        PROBE3(accept, loop, io->fd, fd);
        io->kind->accepted(io, fd, &peer, size);
        if (!io_still_there(slot, generation) || !(io->wanted & IO_READ))
            return true;
    }
    return told;
}

/* An operation that waits on a descriptor is told nothing by being called: it may find that it has to wait on. */
static bool call_ready(struct io *io, unsigned happened) {
    bool once = io->wanted & IO_ONCE;
    if (once && !(io->armed & IO_EDGE))
        io->armed = 0;
    io->kind->ready(io, happened);
    return !once;
}

/* The error of a socket that wants neither to receive nor to send, where its owner wants to hear of it all the same. */
static bool tell_error(const struct sys *sys, struct io *io) {
    int error = 0;
    socklen_t size = sizeof error;
    if (!io->kind->hears_errors || !io->kind->hears_errors(io) ||
        sys->getsockopt(io->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || !error)
        return false;
    io->receiver->received(io, NULL, -error);
    return true;
}

static inline unsigned events_of(uint32_t events) {
    unsigned happened = 0;
    if (events & (EPOLLIN | TROUBLE))
        happened |= IO_READ;
    if (events & (EPOLLOUT | TROUBLE))
        happened |= IO_WRITE;
    if (events & (EPOLLRDHUP | TROUBLE))
        happened |= IO_HANGUP;
    return happened;
}

static bool receive_kind(tram_loop *loop, struct poller *poller, struct io *io) {
    return io->kind->datagrams ? receive_datagrams(loop, poller->sys, io) : receive_with_care(loop, poller->sys, io);
}

static bool flush_kind(tram_loop *loop, struct io *io) {
    return io->kind->datagrams ? flush_datagrams(loop, io) : flush(loop, io);
}

static bool serve_happened(tram_loop *loop, struct poller *poller, struct io *io, uint32_t events) {
    const struct io_kind *kind = io->kind;
    const union io_slot *slot = io_slot_of(io);
    uint32_t generation = io->generation;
    unsigned happened = events_of(events) & io->wanted;
    if (kind->accepted)
        return accept_batch(loop, poller->sys, io);
    if (kind->ready)
        return call_ready(io, happened);
    if (happened & IO_HANGUP) {
        kind->hangup(io, !(events & TROUBLE));
        return true;
    }
    bool told = happened & IO_READ && receive_kind(loop, poller, io);
    if (happened & IO_WRITE && io_still_there(slot, generation) && (io->wanted & IO_WRITE))
        told |= flush_kind(loop, io);
    return told;
}

/* An event that is not just "readable", or of an edge-triggered io. */
__attribute__((noinline)) static void serve_with_care(tram_loop *loop, struct poller *poller, struct io *io,
                                                      uint32_t events) {
    const union io_slot *slot = io_slot_of(io);
    uint32_t generation = io->generation;
    uint8_t wanted = io->wanted;
    bool trouble = events & TROUBLE, told;
    if (events_of(events) & wanted)
        told = serve_happened(loop, poller, io, events);
    else if (trouble)
        told = events & EPOLLERR && tell_error(poller->sys, io);
    else {
        if (events)
            epoll_change(poller, io);
        return;
    }
    if (!io_still_there(slot, generation))
        return;
    bool taken = events & EPOLLERR && (!told || io->kind->datagrams) && tram__error_queue_take(io);
    if (told || taken || io->wanted != wanted) {
        if (io->armed & IO_EDGE)
            epoll_change(poller, io);
        io->armed &= (uint8_t)~IO_IDLED;
    } else if (trouble && !(io->armed & IO_EDGE)) {
        if (io->armed & IO_IDLED)
            make_edge_triggered(poller, io);
        else
            io->armed |= IO_IDLED; /* once may be chance */
    }
}

static inline uint32_t slot_of(const struct epoll_event *event) {
    return (uint32_t)event->data.u64;
}

static inline uint32_t generation_of(const struct epoll_event *event) {
    return (uint32_t)(event->data.u64 >> 32);
}

/* Nobody has the slot: it is the mailbox's, or a callback of this tick has ended the io. */
__attribute__((noinline)) static void serve_nobody(tram_loop *loop, const struct poller *poller,
                                                   const struct epoll_event *event) {
    if (slot_of(event))
        return;
    tram__mailbox_drain_wakeup(loop->mailbox, poller->sys);
    stats_add(&loop->stats.wakeups, 1);
}

/* The io has not the generation of the event. */
__attribute__((noinline)) static void serve_marked(tram_loop *loop, struct poller *poller, struct io *io,
                                                   const struct epoll_event *event) {
    if (io->generation == (generation_of(event) ^ EDGE_MARK))
        serve_with_care(loop, poller, io, event->events);
    /* else a callback of this tick has ended the one that was meant */
}

static void serve_one(tram_loop *loop, struct poller *poller, const struct epoll_event *event) {
    const union io_slot *slot = io_slot_at(loop, slot_of(event));
    if (unlikely(generation_is_free(slot->slot.generation))) {
        serve_nobody(loop, poller, event);
        return;
    }
    struct io *io = slot->io;
    if (unlikely(io->generation != generation_of(event))) {
        serve_marked(loop, poller, io, event);
        return;
    }
    if (unlikely(event->events != EPOLLIN || !(io->wanted & IO_READ))) {
        serve_with_care(loop, poller, io, event->events);
        return;
    }
    if (likely(io->receiver != NULL))
        receive(loop, poller->sys, io);
    else if (io->kind->datagrams)
        receive_datagrams(loop, poller->sys, io);
    else if (io->kind->accepted)
        accept_batch(loop, poller->sys, io);
    else
        call_ready(io, IO_READ);
}

static void epoll_serve(tram_loop *loop, struct poller *poller) {
    const struct epoll_event *end = poller->events + poller->collected;
    for (const struct epoll_event *event = poller->events; event != end; event++)
        serve_one(loop, poller, event);
    poller->collected = 0;
}

const struct poller_ops tram__poller_epoll = {
    .name = "epoll",
    .open = epoll_open,
    .close = epoll_close,
    .fd = epoll_fd,
    .change = epoll_change,
    .renew = epoll_renew,
    .forget = epoll_forget,
    .discard = epoll_discard,
    .try_send = epoll_try_send,
    .try_send_pieces = epoll_try_send_pieces,
    .try_send_datagrams = epoll_try_send_datagrams,
    .try_send_descriptors = epoll_try_send_descriptors,
    .try_send_range = epoll_try_send_range,
    .wait = epoll_wait_collect,
    .serve = epoll_serve,
};
