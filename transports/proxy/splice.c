#include "transports/proxy/splice.h"

#include <errno.h>
#include <fcntl.h>

#include "transports/base/receiver.h"
#include "transports/base/state.h"
#include "transports/base/transport.h"

/* ---- Pipes ---- */

/* Pipes through which the kernel moves bytes from socket to socket, of one loop. */
struct pipe_cache {
    struct loop_state state;
    tram_loop *loop;
    int (*free)[2]; /* the empty ones; room for all */
    unsigned free_count;
    unsigned count;  /* of all, in use or free */
    bool impossible; /* they are not to be had */
    struct close_hook hook;
};

/* There is one where a pipe is in use. */
static struct pipe_cache *pipes_of(const tram_loop *loop) {
    return loop_slot(loop, TRANSPORT_SLOT_PIPES);
}

static void close_pipe(tram_loop *loop, const int pipe[2]) {
    loop->sys->close(pipe[0]);
    loop->sys->close(pipe[1]);
    pipes_of(loop)->count--;
}

static void cache_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending != IO_SHUTDOWN_NOW)
        return;
    struct pipe_cache *cache = container_of(hook, struct pipe_cache, hook);
    tram_loop *loop = cache->loop;
    list_remove(&hook->link);
    while (cache->free_count)
        close_pipe(loop, cache->free[--cache->free_count]);
    memory_put(&loop->allocator, cache->free, TRAM_PIPES * sizeof *cache->free);
    cache->free = NULL;
    cache->impossible = true;
}

static bool cache_begin(tram_loop *loop, struct pipe_cache *cache) {
    if (likely(cache->free))
        return true;
    cache->free = memory_get(&loop->allocator, TRAM_PIPES * sizeof *cache->free);
    if (!cache->free)
        return false;
    cache->loop = loop;
    loop_add_close_hook(loop, &cache->hook, cache_ending);
    return true;
}

/* An empty pipe that holds as much as one splice moves: smaller ones cost more than copying. */
static bool take_pipe(tram_loop *loop, int ret_pipe[2]) {
    struct pipe_cache *cache = tram__loop_slot_open(loop, TRANSPORT_SLOT_PIPES, sizeof *cache, NULL);
    if (unlikely(!cache))
        return false;
    if (likely(cache->free_count)) {
        const int *pipe = cache->free[--cache->free_count];
        ret_pipe[0] = pipe[0];
        ret_pipe[1] = pipe[1];
        return true;
    }
    if (cache->impossible || cache->count == TRAM_PIPES || !cache_begin(loop, cache) ||
        loop->sys->pipe2(ret_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
        return false;
    cache->count++;
    if (loop->sys->fcntl(ret_pipe[1], F_SETPIPE_SZ, TRAM_SPLICE_SIZE) >= 0)
        return true;
    close_pipe(loop, ret_pipe);
    cache->impossible = true;
    return false;
}

static void put_pipe(tram_loop *loop, const int pipe[2], bool empty) {
    struct pipe_cache *cache = pipes_of(loop);
    if (unlikely(!empty || !cache->free)) {
        close_pipe(loop, pipe);
        return;
    }
    cache->free[cache->free_count][0] = pipe[0];
    cache->free[cache->free_count++][1] = pipe[1];
}

/* ---- Out of the pipe ---- */

static struct splice *of(struct exclusive_writer *writer) {
    return container_of(writer, struct splice, writer);
}

/* The pipe is not needed any more. */
static void done(struct splice *splice, tram_loop *loop) {
    put_pipe(loop, splice->pipe, !splice->writer.held);
    splice->writer.held = 0;
    const tram_transport *to = splice->to->transport;
    tram_transport *from = splice->from->transport;
    bool waited = splice->waits;
    splice->waits = false;
    if (waited && from && to && !(to->flags & T_WRITING_PAUSED))
        tram_transport_resume_reading(from);
}

static void lost(struct exclusive_writer *writer) {
    struct splice *splice = of(writer);
    done(splice, splice->to->transport->io.loop);
}

/* All that the pipe holds, into memory. 0 or a negative code. */
static int read_pipe(struct splice *splice, const struct sys *sys, char *memory) {
    size_t size = 0;
    while (size < splice->writer.held) {
        ssize_t part = sys->read(splice->pipe[0], memory + size, splice->writer.held - size);
        if (part > 0)
            size += (size_t)part;
        else if (part == 0 || errno != EINTR)
            return part == 0 ? -EIO : -errno;
    }
    return 0;
}

static void yield_writer(struct exclusive_writer *writer) {
    struct splice *splice = of(writer);
    tram_transport *to = splice->to->transport;
    tram_loop *loop = to->io.loop;
    size_t size = writer->held;
    char *memory = memory_get(&loop->allocator, size);
    int status = memory ? read_pipe(splice, loop->sys, memory) : -ENOMEM;
    if (status) {
        tram__transport_fatal(to, status, "splice", NULL); /* which tells lost() */
    } else {
        writer->held = 0;
        tram__transport_clear_writer(to);
        tram_transport_write(to, memory, size);
        done(splice, loop);
    }
    memory_put(&loop->allocator, memory, size);
}

/* The kernel does not do it with these: nothing was moved. */
static bool refused(ssize_t result) {
    return result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP;
}

static void next_range(struct exclusive_writer *writer, struct io_range *ret_range) {
    *ret_range = (struct io_range){.file = of(writer)->pipe[0], .offset = -1, .size = writer->held};
}

static void range_sent(struct exclusive_writer *writer, ssize_t result) {
    struct splice *splice = of(writer);
    tram_transport *to = splice->to->transport;
    if (unlikely(send_is_starved(result))) {
        tram__transport_send_later(to, (int)result);
        return;
    }
    if (unlikely(result <= 0)) {
        splice->never = true;
        if (refused(result))
            yield_writer(writer);
        else
            tram__transport_send_failed(to, result ? (int)result : -EIO, "splice");
        return;
    }
    writer->held -= (size_t)result;
    if (writer->held)
        return;
    tram__io_send_stop(&to->io);
    tram__transport_clear_writer(to);
    done(splice, to->io.loop);
}

/* `to` takes no more now: `from` waits. */
static void wait_for_room(struct splice *splice) {
    splice->waits = true;
    tram_transport *to = splice->to->transport;
    tram_transport_pause_reading(splice->from->transport);
    int status = tram__io_send_start(&to->io);
    if (unlikely(status))
        tram__transport_fatal(to, status, "epoll_ctl", NULL);
}

/* The pipe has bytes again. */
static void send_on(struct splice *splice, size_t size) {
    tram_transport *to = splice->to->transport;
    struct exclusive_writer *writer = &splice->writer;
    *writer = (struct exclusive_writer){
        .lost = lost, .next_range = next_range, .range_sent = range_sent, .yield_writer = yield_writer, .held = size};
    tram__transport_set_yielding_writer(to, writer);
    struct io_range range;
    next_range(writer, &range);
    ssize_t sent = io_try_send_range(&to->io, &range);
    if (sent > 0)
        tram__transport_count_sent(to, (size_t)sent);
    if (sent != -EAGAIN)
        range_sent(writer, sent);
    if (writer->held)
        wait_for_room(splice);
}

/* ---- Into the pipe ---- */

static bool is_tcp(const tram_transport *transport) {
    sa_family_t family = transport->peer.sin6_family;
    if (transport->flags & T_LAYERED)
        return false;
    return transport_kind_of(transport)->sendfile == SENDFILE_NATIVE && (family == AF_INET || family == AF_INET6);
}

bool tram__splice_update_estimate(struct splice *splice, size_t size) {
    if (size >= TRAM_SPLICE_BEGIN)
        splice->bulk += size;
    else if (size < TRAM_SPLICE_END)
        splice->bulk = 0;
    if (splice->bulk < TRAM_SPLICE_AFTER || splice->never)
        return false;
    splice->bulk = TRAM_SPLICE_AFTER;
    splice->never = !is_tcp(splice->from->transport) || !is_tcp(splice->to->transport);
    return !splice->never;
}

/* Nothing stands before what would come out of a pipe, and no limit is set that it would pass by. */
static bool is_free(const tram_transport *to) {
    const uint32_t state = T_MADE | T_LAYERED | T_CLOSING | T_WRITE_EOF | T_WRITE_FAILED | T_HAS_WRITER;
    return to && write_queue_empty(&to->queue) && !to->corked && !to->limits->hard && (to->flags & state) == T_MADE;
}

int tram__splice_pipe(struct splice *splice) {
    tram_transport *from = splice->from->transport;
    if (unlikely(!splice->bulk || splice->never)) {
        tram__transport_choose_receiver(from);
        return -1;
    }
    return is_free(splice->to->transport) && take_pipe(from->io.loop, splice->pipe) ? splice->pipe[1] : -1;
}

void tram__splice_spliced(struct splice *splice, ssize_t result) {
    struct io *io = &splice->from->transport->io;
    if (unlikely(result <= 0)) {
        put_pipe(io->loop, splice->pipe, true);
        if (refused(result))
            splice->never = true;
        else if (result != -EAGAIN)
            io->receiver->received(io, NULL, result);
        return;
    }
    transport_moved(splice->from->transport, TRAFFIC_IN);
    if (result < TRAM_SPLICE_END)
        splice->bulk -= MIN(splice->bulk, TRAM_SPLICE_BEGIN);
    else
        splice->bulk = TRAM_SPLICE_AFTER;
    send_on(splice, (size_t)result);
}
