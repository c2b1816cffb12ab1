/*
 * Handing connections over: a transport parts with its descriptor and what its protocol has not read, another one, on
 * whatever loop, begins with both.
 */
#include "transports/base/handover.h"

#include <errno.h>
#include <string.h>

#include <tram/connection.h>

/* ---- Bytes from elsewhere ---- */

static bool reading(const tram_transport *transport) {
    return transport->flags & T_MADE && !(transport->flags & (T_PAUSED | T_CLOSING | T_EOF | T_EXCLUSIVE));
}

/* One round of a buffered protocol. */
static int fill_buffer(tram_transport *transport, const char *data, size_t size, size_t *taken) {
    const tram_protocol *protocol = transport->protocol;
    void *memory;
    size_t room;
    int status = tram__protocol_get_buffer(transport, &memory, &room);
    if (status < 0 || !reading(transport) || transport->protocol != protocol)
        return status; /* as where a socket is read: it does not happen */
    size_t part = room < size ? room : size;
    memcpy(memory, data, part);
    *taken += part;
    return tram__protocol_buffer_updated(transport, part);
}

void tram__transport_feed(tram_transport *transport, const void *data, size_t size, size_t *taken) {
    while (*taken < size && reading(transport)) {
        const char *from = (const char *)data + *taken;
        size_t left = size - *taken;
        int status;
        if (transport->protocol->ops->get_buffer) {
            status = fill_buffer(transport, from, left, taken);
        } else {
            *taken = size;
            status = tram__protocol_received(transport, from, left);
        }
        if (unlikely(status < 0))
            tram__transport_fail(transport, status);
    }
}

/* Delivers what is unread, then turns to the socket. It may be paused, ended or detached within. */
static void unread_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    struct unread *unread = container_of(ready, struct unread, ready);
    tram_transport *transport = unread->transport;
    tram__transport_feed(transport, unread->bytes, unread->size, &unread->taken);
    if (!(transport->flags & T_UNREAD) || unread->taken < unread->size)
        return;
    tram__transport_drop_unread(transport);
    tram__transport_start_reading(transport);
}

struct unread *tram__unread_new(tram_loop *loop, const void *data, size_t size) {
    struct unread *unread = memory_get(&loop->allocator, sizeof *unread + size);
    if (!unread)
        return NULL;
    *unread = (struct unread){.ready.run = unread_run, .size = size};
    list_init(&unread->ready.link);
    memcpy(unread->bytes, data, size);
    return unread;
}

void tram__unread_free(tram_loop *loop, struct unread *unread) {
    if (unread)
        memory_put(&loop->allocator, unread, sizeof *unread + unread->size);
}

void tram__unread_give(tram_transport *transport, struct unread *unread) {
    unread->transport = transport;
    unread->creator = transport->creator;
    transport->unread = unread;
    transport->flags |= T_UNREAD;
}

/* ---- Handing over ---- */

/* It may live longer than its loop and be freed by any thread, so it is of the default memory, as buffers are. */
struct tram_detached {
    int fd; /* -1: taken */
    tram_buffer *unread;
};

static int detached_new(const struct unread *unread, tram_detached **ret_detached) {
    tram_detached *detached = memory_get(&tram__memory_default, sizeof *detached);
    if (!detached)
        return -ENOMEM;
    *detached = (tram_detached){.fd = -1};
    *ret_detached = detached;
    if (!unread || unread->taken == unread->size)
        return 0;
    detached->unread = tram_buffer_copy(unread->bytes + unread->taken, unread->size - unread->taken);
    return detached->unread ? 0 : -ENOMEM;
}

int tram_transport_detach(tram_transport *transport, tram_detached **ret_detached) {
    int status = loop_enter_open(transport->io.loop, __func__);
    if (status)
        return status;
    if (!transport_kind_of(transport)->detachable)
        return -ENOTSUP;
    if (transport->flags & (T_CLOSING | T_LOST_PENDING | T_LOST | T_HAS_WRITER) || !(transport->flags & T_MADE))
        return TRAM_ESTATE;
    if (!write_queue_empty(&transport->queue))
        return -EAGAIN;
    tram_detached *detached = NULL;
    status = detached_new(transport->flags & T_UNREAD ? transport->unread : NULL, &detached);
    if (status) {
        tram_detached_free(detached);
        return status;
    }
    detached->fd = transport->io.fd;
    tram__transport_detach_io(transport);
    *ret_detached = detached;
    return 0;
}

int tram_detached_take_fd(tram_detached *detached) {
    int fd = detached->fd;
    detached->fd = -1;
    return fd < 0 ? TRAM_ESTATE : fd;
}

tram_buffer *tram_detached_unread(const tram_detached *detached) {
    return detached->unread;
}

void tram_detached_free(tram_detached *detached) {
    if (!detached)
        return;
    if (detached->fd >= 0)
        tram__sys.close(detached->fd);
    tram_buffer_release(detached->unread);
    memory_put(&tram__memory_default, detached, sizeof *detached);
}
