#include "transports/base/receiver.h"

#include <errno.h>
#include <string.h>

#include "transports/base/held.h"
#include "transports/base/stack.h"

static inline tram_transport *transport_of(struct io *io) {
    return (tram_transport *)(void *)io;
}

/* EOF or an error; the rare ends of a read. */
__attribute__((noinline)) static void ended(tram_transport *transport, ssize_t result) {
    if (transport_heard_all(transport))
        return;
    if (result < 0)
        tram__transport_fatal(transport, (int)result, "recv", NULL);
    else
        transport_kind_of(transport)->eof(transport);
}

/* ---- data_received ---- */

static void plain_received(struct io *io, void *data, ssize_t result) {
    tram_transport *transport = transport_of(io);
    if (unlikely(result <= 0)) {
        ended(transport, result);
        return;
    }
    int status = tram__protocol_received(transport, data, (size_t)result);
    if (unlikely(status < 0))
        tram__transport_fail(transport, status);
}

const struct io_receiver tram__receiver_plain = {.received = plain_received};

/* ---- get_buffer ---- */

static int buffered_buffer(struct io *io, void **ret_memory, size_t *ret_size) {
    tram_transport *transport = transport_of(io);
    const tram_protocol *protocol = transport->protocol;
    int status = tram__protocol_get_buffer(transport, -1, ret_memory, ret_size);
    if (unlikely(status < 0))
        tram__transport_fail(transport, status);
    /*
     * get_buffer may have closed, paused or switched: then this read does not happen. The memory would be the old
     * protocol's, and buffer_updated the new one's.
     */
    if (status < 0 || !(io->wanted & IO_READ) || transport->protocol != protocol)
        return -ECANCELED;
    return 0;
}

static void buffered_received(struct io *io, void *data, ssize_t result) {
    (void)data;
    tram_transport *transport = transport_of(io);
    if (unlikely(result <= 0)) {
        ended(transport, result);
        return;
    }
    int status = tram__protocol_buffer_updated(transport, (size_t)result);
    if (unlikely(status < 0))
        tram__transport_fail(transport, status);
}

const struct io_receiver tram__receiver_buffered = {.buffer = buffered_buffer, .received = buffered_received};

static const struct io_receiver *protocol_receiver(const tram_transport *transport) {
    return transport->protocol->ops->get_buffer ? &tram__receiver_buffered : &tram__receiver_plain;
}

/* ---- Metered: one of these, and the owner is told before ---- */

static int metered_buffer(struct io *io, void **ret_memory, size_t *ret_size) {
    const struct io_receiver *receiver = protocol_receiver(transport_of(io));
    return receiver->buffer ? receiver->buffer(io, ret_memory, ret_size) : 0;
}

static void metered_received(struct io *io, void *data, ssize_t result) {
    if (result > 0)
        transport_moved(transport_of(io), TRAFFIC_IN);
    protocol_receiver(transport_of(io))->received(io, data, result);
}

static const struct io_receiver metered = {.buffer = metered_buffer, .received = metered_received};

/* ---- Lingering: what comes is dropped until the end ---- */

static void discarded(struct io *io, void *data, ssize_t result) {
    (void)data;
    if (result <= 0)
        tram__transport_schedule_lost(transport_of(io));
}

static const struct io_receiver discarding = {.received = discarded};

/* ---- Choosing ---- */

const struct io_receiver *tram__transport_receiver(const tram_transport *transport) {
    if (unlikely(transport->flags & T_LINGERING))
        return &discarding;
    if (unlikely(transport->flags & T_LAYERED))
        return transport_stack(transport)->calls->receiver;
    return unlikely(transport->flags & T_METERED) ? &metered : protocol_receiver(transport);
}

void tram__transport_choose_receiver(tram_transport *transport) {
    if (transport->io.receiver)
        transport->io.receiver = tram__transport_receiver(transport);
}

/* ---- Bytes from elsewhere ---- */

static bool reading(const tram_transport *transport) {
    return transport->flags & T_MADE && !(transport->flags & (T_PAUSED | T_CLOSING | T_EOF | T_EXCLUSIVE));
}

/* One round of a buffered protocol. */
static int fill_buffer(tram_transport *transport, const char *data, size_t size, size_t *taken) {
    const tram_protocol *protocol = transport->protocol;
    void *memory;
    size_t room;
    int status = tram__protocol_get_buffer(transport, -1, &memory, &room);
    if (status < 0 || !reading(transport) || transport->protocol != protocol)
        return status; /* as where a socket is read: it does not happen */
    size_t part = MIN(room, size);
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

/* ---- Held bytes ---- */

/* Delivers what is held, then turns to the socket. The transport may be paused, ended or detached within. */
static void held_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    tram_transport *transport = container_of(ready, struct transport_more, ready)->transport;
    struct held *held = transport->more->held;
    bool end = transport->more->held_end;
    if (held)
        tram__transport_feed(transport, held->bytes, held->size, &held->taken);
    if (!(transport->flags & T_HELD) || held_left(held) || (end && !reading(transport)))
        return;
    tram__transport_drop_held(transport);
    if (end)
        transport_kind_of(transport)->eof(transport);
    else
        tram__transport_start_reading(transport);
}

void tram__transport_give_held(tram_transport *transport, struct held *held, bool end) {
    transport->more->held = held;
    transport->more->held_end = end;
    transport->more->ready.run = held_run;
    transport->flags |= T_HELD;
    tram__io_receive_stop(&transport->io); /* they come first */
}
