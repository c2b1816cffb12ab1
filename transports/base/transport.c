/* The calls of a transport that are not about writing, the same for every kind that has no way of its own. */
#include "transports/base/transport.h"

#include "transports/base/entering.h"
#include "transports/base/linger.h"
#include "transports/base/receiver.h"
#include "transports/base/stack.h"
#include "transports/base/state.h"

/* ---- Reading ---- */

int tram__transport_pause_reading(tram_transport *transport) {
    if (transport_layers_starting(transport) && transport->flags & T_MADE)
        return TRAM_ESTATE;
    if (transport->flags & (T_PAUSED | T_CLOSING | T_EOF))
        return 0;
    transport->flags |= T_PAUSED;
    if (transport_layers_starting(transport))
        return 0; /* they read */
    tram__io_receive_stop(&transport->io);
    if (unlikely(transport->flags & T_LAYERED))
        transport_stack(transport)->calls->paused(transport);
    return 0;
}

int tram__transport_resume_reading(tram_transport *transport) {
    if (transport_layers_starting(transport) && transport->flags & T_MADE)
        return TRAM_ESTATE;
    if (!(transport->flags & T_PAUSED) || transport->flags & (T_CLOSING | T_EOF))
        return 0;
    transport->flags &= ~(uint32_t)T_PAUSED;
    tram__transport_start_reading(transport);
    return 0;
}

bool tram_transport_is_reading(const tram_transport *transport) {
    enter(transport, __func__);
    return !(transport->flags & (T_PAUSED | T_CLOSING | T_EOF | T_EXCLUSIVE));
}

/* ---- Ending ---- */

void tram__transport_cut(tram_transport *transport, enum end_reason reason, const char *operation) {
    if (!(transport->flags & T_LOST_PENDING)) {
        tram__transport_note_end(transport, reason);
        if (transport->flags & T_RESET)
            transport->end = (struct transport_end){.code = TRAM_ECANCELLED, .operation = operation, .reason = reason};
    }
    tram_transport_abort(transport);
}

static bool belongs_to(const tram_transport *transport, const struct transport_owner *root) {
    bool owned = !(transport->flags & T_HAS_CREATOR) && transport->owner;
    return owned && transport->owner->root == root;
}

void tram__transport_close_gracefully(tram_transport *transport) {
    transport->flags |= T_SERVER_CLOSE;
    tram_transport_close(transport);
}

void tram__transport_each(tram_loop *loop, const struct transport_owner *root,
                          void (*visit)(tram_transport *transport, void *arg), void *arg) {
    for (uint32_t slot = 1; slot < slots_count(&loop->io_slots); slot++) {
        struct io *io = io_of_slot(loop, slot);
        if (io && io->kind->transport && belongs_to((tram_transport *)(void *)io, root))
            visit((tram_transport *)(void *)io, arg);
    }
}

/* ---- The public calls ---- */

int tram_transport_close(tram_transport *transport) {
    DISPATCH(transport, close, transport);
}

int tram_transport_close_lingering(tram_transport *transport, uint64_t linger_ns) {
    int status = enter(transport, __func__);
    if (likely(!status) && !(transport->flags & T_LOST_PENDING))
        status = tram__transport_ask_linger(transport, linger_ns);
    return status ? status : tram_transport_close(transport);
}

int tram_transport_abort(tram_transport *transport) {
    DISPATCH(transport, abort, transport);
}

void tram__transport_forbid_end(tram_transport *transport) {
    const struct io *io = &transport->io;
    struct linger linger = {.l_onoff = 1};
    transport->flags &= ~(uint32_t)T_SERVER_CLOSE; /* which sends the end of the stream first */
    if (io->fd >= 0 && !(io->flags & IO_NO_SOCKET))
        io->loop->sys->setsockopt(io->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

int tram_transport_reset(tram_transport *transport) {
    int status = enter(transport, __func__);
    if (unlikely(status))
        return status;
    tram__transport_forbid_end(transport);
    return tram_transport_abort(transport);
}

int tram_transport_pause_reading(tram_transport *transport) {
    DISPATCH(transport, pause_reading, transport);
}

int tram_transport_resume_reading(tram_transport *transport) {
    DISPATCH(transport, resume_reading, transport);
}

bool tram_transport_is_closing(const tram_transport *transport) {
    enter(transport, __func__);
    return transport->flags & T_CLOSING;
}

/* ---- Who is at the ends ---- */

int tram__transport_set_protocol(tram_transport *transport, tram_protocol *protocol) {
    if (!protocol || !protocol->ops)
        return TRAM_ETYPE;
    transport_flush_writer(transport);
    tram_protocol *old = transport->protocol;
    if (!old || transport->flags & T_LOST)
        return TRAM_ESTATE; /* it ended: the new protocol stays the caller's */
    transport->protocol = protocol;
    transport->flags &= ~(uint32_t)T_BRIDGED;
    tram__transport_choose_receiver(transport);
    if (transport->flags & T_MADE)
        protocol->transport = transport;
    if (unlikely(transport->flags & T_ASKED)) {
        transport->flags &= ~(uint32_t)T_TOLD;
        ask_soon(loop_of(transport));
    }
    if (old != protocol) {
        tram__protocol_reclaim(loop_of(transport), protocol);
        tram__protocol_release_soon(loop_of(transport), old);
    }
    return 0;
}

int tram_transport_set_protocol(tram_transport *transport, tram_protocol *protocol) {
    int status = enter(transport, __func__);
    if (!status && transport_layers_starting(transport) && transport->flags & T_MADE)
        status = TRAM_ESTATE;
    return status ? status : tram__transport_set_protocol(transport, protocol);
}

tram_protocol *tram_transport_get_protocol(const tram_transport *transport) {
    enter(transport, __func__);
    return transport->protocol;
}

tram_loop *tram_transport_get_loop(const tram_transport *transport) {
    return transport->io.loop;
}

static const void *layers_info(const tram_transport *transport, const char *name) {
    const void *value = NULL;
    for (struct layer *layer = transport_stack(transport)->top; layer && !value; layer = layer->below)
        value = layer->kind->extra_info ? layer->kind->extra_info(layer, name) : NULL;
    return value;
}

const void *tram_transport_get_extra_info(tram_transport *transport, const char *name, const void *fallback) {
    if (enter(transport, __func__) || !name)
        return fallback;
    const void *value = unlikely(transport->flags & T_LAYERED) ? layers_info(transport, name) : NULL;
    if (!value)
        value = transport_kind_of(transport)->extra_info(transport, name);
    return value ? value : fallback;
}
