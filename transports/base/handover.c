/*
 * Handing connections over: a transport parts with its descriptor, its layers and what its protocol has not read;
 * another one, on whatever loop, begins with all of it.
 */
#include "transports/base/handover.h"

#include <errno.h>
#include <string.h>

#include "transports/base/address.h"
#include "transports/base/entering.h"
#include "transports/base/held.h"
#include "transports/base/stack.h"

/* It may live longer than its loop and be freed by any thread, so it is of the default memory, as buffers are. */
struct tram_detached {
    int fd; /* -1: taken */
    tram_buffer *unread;
    tram_buffer *tlvs;    /* of a header of the PROXY protocol; NULL: none */
    struct layer *bottom; /* of its layers, linked by `above`; NULL: none */
    uint32_t flags;       /* those of WRITING_ENDED */
    struct write_limits limits;
    struct sockaddr_in6 peer;             /* as the transport knows it */
    struct transport_addresses addresses; /* the same, but the tlvs */
    struct move *move;                    /* of its address for messages; NULL: none */
};

#define WRITING_ENDED ((uint32_t)(T_WRITE_EOF | T_WRITING_ENDED))

static int copy_held(const struct held *held, tram_buffer **ret_buffer) {
    if (!held_left(held))
        return 0;
    *ret_buffer = tram_buffer_copy(held->bytes + held->taken, held_left(held));
    return *ret_buffer ? 0 : -ENOMEM;
}

/* ---- Layers ---- */

static bool can_move(const struct layer *layer) {
    while (layer && layer->kind->leave && layer->kind->arrive)
        layer = layer->above;
    return !layer;
}

static void drop_carried(struct layer *layer) {
    for (; layer; layer = layer->above) {
        tram_buffer_release(layer->carried);
        layer->carried = NULL;
    }
}

static int carry_prefixes(struct layer *bottom) {
    int status = 0;
    for (struct layer *layer = bottom; layer && !status; layer = layer->above)
        status = copy_held(layer->held, &layer->carried);
    return status;
}

/* All of them or none: if one refuses, those below it come back, and where they cannot, the connection has failed. */
static int leave(tram_transport *transport, struct layer *bottom) {
    int status = 0;
    struct layer *layer = bottom;
    while (layer && !(status = layer->kind->leave(layer)))
        layer = layer->above;
    for (struct layer *left = bottom; status && left != layer; left = left->above) {
        int code = left->kind->arrive(left);
        if (code)
            tram__transport_fatal(transport, code, left->kind->name, NULL);
    }
    return status;
}

/* ---- Detaching ---- */

static void keep_settings(tram_detached *detached, const tram_transport *transport) {
    detached->flags = transport->flags & WRITING_ENDED;
    detached->limits = *transport->limits;
    detached->peer = transport->peer;
    if (transport->more && transport->more->addresses)
        detached->addresses = *transport->more->addresses;
    detached->addresses.tlvs = NULL;
}

/* Copies of what it has. Nothing of the transport's is changed but prefixes made longer. 0 or -ENOMEM. */
static int keep_bytes(tram_detached *detached, tram_transport *transport) {
    const struct transport_more *more = transport->more;
    int status = 0;
    if (transport->flags & T_LAYERED)
        status = transport_stack(transport)->calls->keep_window(transport);
    if (!status && transport->flags & T_HELD)
        status = copy_held(more->held, &detached->unread);
    if (!status && more && more->addresses && more->addresses->tlvs)
        status = copy_held(more->addresses->tlvs, &detached->tlvs);
    return status ? status : carry_prefixes(detached->bottom);
}

static int detached_new(tram_transport *transport, tram_detached **ret_detached) {
    tram_detached *detached = memory_get(&tram__memory_default, sizeof *detached);
    if (!detached)
        return -ENOMEM;
    *detached = (tram_detached){.fd = -1};
    detached->bottom = transport->flags & T_LAYERED ? stack_bottom(transport_stack(transport)) : NULL;
    keep_settings(detached, transport);
    int status = keep_bytes(detached, transport);
    if (!status)
        status = tram__transport_prepare_move(transport, &detached->move);
    if (!status)
        status = leave(transport, detached->bottom);
    *ret_detached = detached;
    return status;
}

/* The address stays, too. */
static void undo_move(tram_detached *detached) {
    if (detached->move)
        tram__move_undo(detached->move);
    detached->move = NULL;
}

static int may_detach(const tram_transport *transport) {
    if (!transport_kind_of(transport)->detachable)
        return -ENOTSUP;
    if (transport->flags & (T_CLOSING | T_WRITE_FAILED | T_HAS_WRITER | T_EXCLUSIVE) || !(transport->flags & T_MADE))
        return TRAM_ESTATE;
    if (transport->flags & T_LAYERED && !can_move(stack_bottom(transport_stack(transport))))
        return -ENOTSUP;
    return transport_write_size(transport) ? -EAGAIN : 0;
}

int tram_transport_detach(tram_transport *transport, tram_detached **ret_detached) {
    int status = loop_enter_open(transport->io.loop, __func__);
    if (!status)
        status = may_detach(transport);
    if (status)
        return status;
    tram_detached *detached = NULL;
    status = detached_new(transport, &detached);
    if (status) {
        if (detached) { /* the layers are the transport's still */
            drop_carried(detached->bottom);
            detached->bottom = NULL;
            undo_move(detached);
        }
        tram_detached_free(detached);
        return status;
    }
    if (transport->flags & T_LAYERED)
        transport_stack(transport)->calls->leave(transport);
    detached->fd = transport->io.fd;
    tram__transport_leave_address(transport, detached->move);
    tram__transport_detach_io(transport);
    *ret_detached = detached;
    return 0;
}

/* ---- What is left behind ---- */

/* The connection goes on without it, or not at all. */
static void end_address(tram_detached *detached) {
    if (detached->move)
        tram__move_end(detached->move);
    detached->move = NULL;
}

int tram_detached_take_fd(tram_detached *detached) {
    int fd = detached->fd;
    if (fd >= 0 && detached->bottom)
        return -ENOTSUP;
    end_address(detached);
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
    drop_carried(detached->bottom);
    while (detached->bottom) {
        struct layer *layer = detached->bottom;
        detached->bottom = layer->above;
        layer->kind->free(layer);
    }
    end_address(detached);
    tram_buffer_release(detached->unread);
    tram_buffer_release(detached->tlvs);
    memory_put(&tram__memory_default, detached, sizeof *detached);
}

/* ---- Going on with it ---- */

int tram__detached_fd(const tram_detached *detached) {
    return detached->fd;
}

void tram__detached_empty(tram_detached *detached) {
    end_address(detached); /* where the transport did not come to take it */
    detached->fd = -1;
}

static bool has_addresses(const tram_detached *detached) {
    return detached->addresses.sock.size || detached->addresses.peer.size || detached->tlvs;
}

static int give_addresses(const tram_detached *detached, tram_transport *transport) {
    const tram_buffer *tlvs = detached->tlvs;
    struct transport_addresses *addresses = tram__transport_addresses(transport);
    if (!addresses)
        return -ENOMEM;
    *addresses = detached->addresses;
    if (!tlvs)
        return 0;
    addresses->tlvs = tram__held_new(transport->io.loop, tram_buffer_data(tlvs), tram_buffer_size(tlvs));
    return addresses->tlvs ? 0 : -ENOMEM;
}

static int give_settings(const tram_detached *detached, tram_transport *transport) {
    int status = tram__transport_need_more(transport);
    if (status)
        return status;
    transport->flags |= detached->flags;
    transport->peer = detached->peer;
    struct write_limits *limits = tram__transport_own_limits(transport);
    if (!limits)
        return -ENOMEM;
    *limits = detached->limits;
    return has_addresses(detached) ? give_addresses(detached, transport) : 0;
}

static int arrive_one(tram_transport *transport, struct layer *layer, const tram_buffer *carried) {
    if (carried) {
        layer->held = tram__held_new(transport->io.loop, tram_buffer_data(carried), tram_buffer_size(carried));
        if (!layer->held)
            return -ENOMEM;
    }
    layer->transport = transport;
    int status = layer->kind->arrive(layer);
    if (status)
        layer->transport = NULL;
    return status;
}

static int arrive(tram_transport *transport, struct layer *layer) {
    int status = 0;
    for (; layer; layer = layer->above) {
        tram_buffer *carried = layer->carried;
        layer->kept = 0;
        if (!status)
            status = arrive_one(transport, layer, carried);
        tram_buffer_release(carried);
    }
    return status;
}

static int give_layers(tram_detached *detached, tram_transport *transport) {
    struct layer *bottom = detached->bottom;
    int status = tram__transport_take_layers(transport, bottom);
    if (status)
        return status;
    detached->bottom = NULL;
    return arrive(transport, bottom);
}

static int give_address(tram_detached *detached, tram_transport *transport) {
    int status = tram__transport_take_address(transport, detached->move);
    if (!status)
        detached->move = NULL;
    return status;
}

int tram__detached_give(tram_detached *detached, tram_transport *transport) {
    int status = give_settings(detached, transport);
    if (!status && detached->bottom)
        status = give_layers(detached, transport);
    if (!status && detached->move)
        status = give_address(detached, transport);
    return status;
}
