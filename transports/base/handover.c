/*
 * Handing connections over: a transport parts with its descriptor and what its protocol has not read, another one, on
 * whatever loop, begins with both.
 */
#include "transports/base/held.h"

#include <errno.h>

#include <tram/connection.h>

/* It may live longer than its loop and be freed by any thread, so it is of the default memory, as buffers are. */
struct tram_detached {
    int fd; /* -1: taken */
    tram_buffer *unread;
};

static int detached_new(const struct held *held, tram_detached **ret_detached) {
    tram_detached *detached = memory_get(&tram__memory_default, sizeof *detached);
    if (!detached)
        return -ENOMEM;
    *detached = (tram_detached){.fd = -1};
    *ret_detached = detached;
    if (!held_left(held))
        return 0;
    detached->unread = tram_buffer_copy(held->bytes + held->taken, held_left(held));
    return detached->unread ? 0 : -ENOMEM;
}

int tram_transport_detach(tram_transport *transport, tram_detached **ret_detached) {
    int status = loop_enter_open(transport->io.loop, __func__);
    if (status)
        return status;
    if (!transport_kind_of(transport)->detachable || transport->flags & T_LAYERED)
        return -ENOTSUP;
    if (transport->flags & (T_CLOSING | T_WRITE_FAILED | T_HAS_WRITER | T_EXCLUSIVE) || !(transport->flags & T_MADE))
        return TRAM_ESTATE;
    if (!write_queue_empty(&transport->queue))
        return -EAGAIN;
    tram_detached *detached = NULL;
    status = detached_new(transport->flags & T_HELD ? transport->more->held : NULL, &detached);
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
