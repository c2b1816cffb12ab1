/*
 * Descriptors that come and go with the bytes of a Unix stream. Those that came are nowhere but in the poller's hands
 * while the protocol is called with their bytes; those that are to go hang on a chunk of the write queue.
 */
#include "transports/stream/descriptors.h"

#include <errno.h>

#include "core/base/invalid.h"
#include "core/base/memory.h"
#include "transports/base/transport.h"
#include <tram/unix.h>

static tram_transport *transport_of(struct io *io) {
    return (tram_transport *)(void *)io;
}

/* ---- What the poller asks ---- */

static size_t room(struct io *io) {
    return transport_of(io)->more->descriptors->capacity;
}

static void close_all(tram_loop *loop, const int *fds, size_t count) {
    for (size_t i = 0; i < count; i++)
        loop->sys->close(fds[i]);
}

/* The connection ends, if it does, after this tick's callbacks: they stay for as long as this needs them. */
static void received(struct io *io, void *data, ssize_t result, const int *fds, size_t count, bool cut) {
    tram_transport *transport = transport_of(io);
    struct transport_descriptors *descriptors = transport->more->descriptors;
    if (unlikely(cut)) {
        close_all(io->loop, fds, count);
        tram__transport_over_limit(transport, "recv", "more descriptors came than there is room for");
        return;
    }
    descriptors->waiting = fds;
    descriptors->left = count;
    io->receiver->received(io, data, result);
    close_all(io->loop, descriptors->waiting, descriptors->left);
    descriptors->left = 0;
}

static size_t gather(struct io *io, const int **ret_fds) {
    return tram__write_queue_descriptors(&transport_of(io)->queue, ret_fds);
}

const struct io_descriptor_kind tram__stream_descriptors = {.room = room, .received = received, .gather = gather};

/* ---- The public calls ---- */

static bool is_unix(const tram_transport *transport) {
    int family = 0;
    socklen_t size = sizeof family;
    transport->io.loop->sys->getsockopt(transport->io.fd, SOL_SOCKET, SO_DOMAIN, &family, &size);
    return family == AF_UNIX;
}

/* Descriptors may come and go from now on. 0, -ENOTSUP or -ENOMEM. */
static int prepare(tram_transport *transport) {
    if (transport->io.flags & IO_DESCRIPTORS && !(transport->flags & T_LAYERED))
        return 0;
    if (!transport->io.kind->descriptors || transport->flags & T_LAYERED || !is_unix(transport))
        return -ENOTSUP;
    int status = tram__transport_need_more(transport);
    if (status)
        return status;
    struct transport_more *more = transport->more;
    if (!more->descriptors)
        more->descriptors = tram__memory_get_zero(&transport->io.loop->allocator, sizeof *more->descriptors);
    if (!more->descriptors)
        return -ENOMEM;
    transport->io.flags |= IO_DESCRIPTORS;
    return 0;
}

int tram_transport_receive_fds(tram_transport *transport, size_t max) {
    int status = loop_enter_open(transport->io.loop, __func__);
    if (status)
        return status;
    if (max > TRAM_DESCRIPTORS_MAX)
        return tram__invalid("max");
    if (transport->flags & T_LOST)
        return TRAM_ESTATE;
    status = prepare(transport);
    if (!status)
        transport->more->descriptors->capacity = max;
    return status;
}

size_t tram_transport_take_fds(tram_transport *transport, int *ret_fds, size_t count) {
    if (loop_enter(transport->io.loop, __func__) || !transport->more || !transport->more->descriptors)
        return 0;
    struct transport_descriptors *descriptors = transport->more->descriptors;
    count = MIN(count, descriptors->left);
    for (size_t i = 0; i < count; i++)
        ret_fds[i] = descriptors->waiting[i];
    descriptors->waiting += count;
    descriptors->left -= count;
    return count;
}

/* What the kernel says of the descriptors, and not of the connection. */
static bool refused(ssize_t result) {
    return result == -EBADF || result == -EINVAL || result == -ETOOMANYREFS;
}

/* Nothing is queued. */
static int send_now(tram_transport *transport, const char *data, size_t size, const int *fds, size_t count,
                    ssize_t *ret_sent) {
    ssize_t sent = io_try_send_descriptors(&transport->io, data, size, fds, count);
    *ret_sent = MAX(sent, 0);
    if (refused(sent))
        return (int)sent;
    if (sent > 0) {
        tram__transport_count_sent(transport, (size_t)sent);
    } else if (sent != -EAGAIN && !send_is_starved(sent)) {
        tram__transport_send_failed(transport, (int)sent, "send");
    }
    return 0;
}

static int send_later(tram_transport *transport, const char *data, size_t size, const int *fds, size_t count) {
    int status = tram__write_queue_copy_with(transport->io.loop, &transport->queue, data, size, fds, count);
    if (!status)
        tram__transport_queued(transport);
    return status;
}

static int send_descriptors(tram_transport *transport, const char *data, size_t size, const int *fds, size_t count) {
    ssize_t sent = 0;
    if (write_queue_empty(&transport->queue) && !transport->corked) {
        int status = send_now(transport, data, size, fds, count, &sent);
        if (status || transport->flags & (T_LOST_PENDING | T_WRITE_FAILED))
            return status;
    }
    /* They went with the first byte: the rest is like any other. */
    return sent ? tram_transport_write(transport, data + sent, size - (size_t)sent)
                : send_later(transport, data, size, fds, count);
}

int tram_transport_send_fds(tram_transport *transport, const void *data, size_t size, const int *fds, size_t count) {
    int status = loop_enter_open(transport->io.loop, __func__);
    if (status)
        return status;
    if (!data || !size || !fds || !count || count > TRAM_DESCRIPTORS_MAX)
        return tram__invalid(!data || !size ? "data" : !fds ? "fds" : "count");
    if (transport->flags & (T_WRITE_EOF | T_EXCLUSIVE))
        return TRAM_ESTATE;
    if (transport->flags & (T_LINGERING | T_LOST_PENDING | T_WRITE_FAILED)) {
        tram__transport_drop_write(transport);
        return 0;
    }
    status = prepare(transport);
    return status ? status : send_descriptors(transport, data, size, fds, count);
}
