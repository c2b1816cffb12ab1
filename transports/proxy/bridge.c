/*
 * The bridge: one protocol at each of two transports, which writes to the other what it receives. All kinds of
 * transports are alike to it.
 *
 * Of one receive into the loop's buffer and one send out of it, bytes are kept only where the receiving side does not
 * take them at once. Between TCP sockets, where much goes one way, the kernel moves them: splice.h.
 */
#include <errno.h>

#include "core/base/invalid.h"
#include "transports/base/receiver.h"
#include "transports/base/transport.h"
#include "transports/proxy/splice.h"
#include "transports/socket/socket.h"
#include <tram/bridge.h>

/*
 * Its transport is known by protocol.transport alone, which is NULL from the moment at which the transport ends or has
 * another protocol. `released` comes a tick later, when the memory may be another's.
 */
struct side {
    tram_protocol protocol;
    struct bridge *bridge;
    struct side *other;
    struct splice splice; /* from here to the other */
    bool eof;
    bool left;
    bool answered; /* it said something after a send to it had failed (W-5) */
};

struct bridge {
    tram_future future; /* each side's protocol holds it until it is released */
    struct side sides[2];
    struct deadline idle;
    uint64_t idle_ns; /* 0: no limit */
    uint64_t active_ns;
    uint64_t delivered; /* when the deadline was set */
    bool decided;       /* why it ends: result is set */
    tram_bridge_result result;
};

static inline struct side *side_of(tram_protocol *protocol) {
    return container_of(protocol, struct side, protocol);
}

static int index_of(const struct side *side) {
    return (int)(side - side->bridge->sides);
}

/* The first reason counts, but that no end is orderly when bytes were still to be handed over. */
static void decide(struct side *side, tram_bridge_outcome outcome, int code) {
    struct bridge *bridge = side->bridge;
    tram_bridge_result *result = &bridge->result;
    bool cut_short = outcome == TRAM_BRIDGE_FAILED || outcome == TRAM_BRIDGE_IDLE;
    if (bridge->decided && !(result->outcome == TRAM_BRIDGE_EOF && cut_short))
        return;
    bridge->decided = true;
    result->outcome = outcome;
    result->code = code;
    result->side = outcome == TRAM_BRIDGE_FAILED || outcome == TRAM_BRIDGE_CLOSED ? index_of(side) : -1;
}

static void on_both(struct bridge *bridge, int (*call)(tram_transport *transport)) {
    for (size_t i = 0; i < 2; i++)
        if (bridge->sides[i].protocol.transport)
            call(bridge->sides[i].protocol.transport);
}

/* ---- The protocol ---- */

static const struct io_receiver splicing;

static void count(struct side *side, size_t size) {
    struct bridge *bridge = side->bridge;
    bridge->result.bytes[index_of(side)] += size;
    if (unlikely(side->protocol.transport->flags & T_WRITE_FAILED))
        side->answered = true;
    if (unlikely(bridge->idle_ns != 0))
        bridge->active_ns = tram__clock(bridge->future.loop);
}

static int bridge_received(tram_protocol *protocol, const void *data, size_t size) {
    struct side *side = side_of(protocol);
    struct bridge *bridge = side->bridge;
    tram_transport *to = side->other->protocol.transport;
    count(side, size);
    if (unlikely(!to))
        return 0;
    if (unlikely(tram__splice_update_estimate(&side->splice, size)))
        protocol->transport->io.receiver = &splicing;
    int status = tram_transport_write(to, data, size);
    if (unlikely(status < 0) && !tram_transport_is_closing(to)) {
        decide(side->other, TRAM_BRIDGE_FAILED, status);
        on_both(bridge, tram_transport_reset);
    }
    return 0;
}

static int bridge_pause(tram_protocol *protocol) {
    tram_transport *from = side_of(protocol)->other->protocol.transport;
    return from ? tram_transport_pause_reading(from) : 0;
}

static int bridge_resume(tram_protocol *protocol) {
    tram_transport *from = side_of(protocol)->other->protocol.transport;
    return from ? tram_transport_resume_reading(from) : 0;
}

/* 1: stay open for what the other side still sends; 0: close. */
static int bridge_eof(tram_protocol *protocol) {
    struct side *side = side_of(protocol), *other = side->other;
    tram_transport *to = other->protocol.transport;
    side->eof = true;
    if (!to)
        return 0;
    bool writable = !transport_kind_of(to)->no_writing;
    if (!other->eof && (!writable || tram_transport_can_write_eof(to))) {
        if (writable)
            tram_transport_write_eof(to);
        return 1;
    }
    decide(side, TRAM_BRIDGE_EOF, 0);
    tram_transport_close(to);
    return 0;
}

/* A side is gone, or another protocol has it. */
static void leave(struct side *side, int code) {
    struct bridge *bridge = side->bridge;
    struct side *other = side->other;
    side->left = true;
    side->protocol.transport = NULL; /* of one that is being lost, too */
    decide(side, code ? TRAM_BRIDGE_FAILED : side->eof ? TRAM_BRIDGE_EOF : TRAM_BRIDGE_CLOSED, code);
    if (other->left) {
        deadline_cancel(bridge->future.loop, &bridge->idle);
        tram__future_finish(&bridge->future, &bridge->result);
    } else if (!other->protocol.transport) {
        return; /* another protocol has both: this one's leaves next */
    } else if (code && !side->answered) {
        tram_transport_reset(other->protocol.transport);
    } else {
        tram_transport_close(other->protocol.transport);
    }
}

static int bridge_lost(tram_protocol *protocol, const tram_error *error) {
    leave(side_of(protocol), error ? error->code : 0);
    return 0;
}

/* It ends when its sides do. */
static int bridge_closing(tram_protocol *protocol, uint64_t deadline_ns) {
    (void)protocol;
    (void)deadline_ns;
    return 0;
}

static void bridge_released(tram_protocol *protocol) {
    struct side *side = side_of(protocol);
    if (!side->left)
        leave(side, 0);
    tram__future_drop(&side->bridge->future);
}

static const tram_protocol_ops bridge_ops = {
    .data_received = bridge_received,
    .eof_received = bridge_eof,
    .connection_lost = bridge_lost,
    .pause_writing = bridge_pause,
    .resume_writing = bridge_resume,
    .released = bridge_released,
    .closing = bridge_closing,
};

/* ---- Receiving into a pipe, where much goes through ---- */

static tram_transport *transport_of(struct io *io) {
    return (tram_transport *)(void *)io;
}

static int usual_buffer(struct io *io, void **ret_memory, size_t *ret_size) {
    const struct io_receiver *usual = tram__transport_receiver(transport_of(io));
    return usual->buffer ? usual->buffer(io, ret_memory, ret_size) : 0;
}

static void usual_received(struct io *io, void *data, ssize_t result) {
    tram__transport_receiver(transport_of(io))->received(io, data, result);
}

static int bridge_pipe(struct io *io) {
    return tram__splice_pipe(&side_of(transport_of(io)->protocol)->splice);
}

static void bridge_spliced(struct io *io, ssize_t result) {
    struct side *side = side_of(transport_of(io)->protocol);
    if (result > 0)
        count(side, (size_t)result);
    tram__splice_spliced(&side->splice, result);
}

static const struct io_receiver splicing = {
    .buffer = usual_buffer, .received = usual_received, .pipe = bridge_pipe, .spliced = bridge_spliced};

/* ---- Idleness ---- */

/* Bytes that have left us: a slow reader of much is not idle. */
static uint64_t delivered(const struct bridge *bridge) {
    uint64_t bytes = bridge->result.bytes[0] + bridge->result.bytes[1];
    for (size_t i = 0; i < 2; i++)
        if (bridge->sides[i].protocol.transport)
            bytes -= tram_transport_get_write_buffer_size(bridge->sides[i].protocol.transport);
    return bytes;
}

static uint64_t idle_end(const struct bridge *bridge) {
    return time_after(bridge->active_ns, bridge->idle_ns);
}

static void idle_expired(tram_loop *loop, struct deadline *deadline) {
    struct bridge *bridge = container_of(deadline, struct bridge, idle);
    uint64_t now = tram__clock(loop), bytes = delivered(bridge);
    if (bytes != bridge->delivered && idle_end(bridge) <= now)
        bridge->active_ns = now; /* out of the buffers only; it may have been long ago */
    bridge->delivered = bytes;
    if (idle_end(bridge) > now && tram__deadline_start(loop, deadline, idle_end(bridge)) == 0)
        return;
    decide(&bridge->sides[0], TRAM_BRIDGE_IDLE, 0);
    for (size_t i = 0; i < 2; i++)
        if (bridge->sides[i].protocol.transport)
            tram__transport_cut(bridge->sides[i].protocol.transport, END_TIMEOUT, "idle");
}

/* ---- Making one ---- */

static void bridge_cancel(tram_future *future) {
    tram__future_finish_cancelled(future);
    on_both((struct bridge *)future, tram_transport_abort);
}

static const struct future_kind bridge_kind = {.name = "bridge", .cancel = bridge_cancel};

static bool is_stream(const tram_transport *transport) {
    const struct transport_kind *kind = transport_kind_of(transport);
    return !(kind->calls && kind->calls->sendto) && !(kind->no_reading && kind->no_writing);
}

/* Can all that `from` may still send be written to `to`? 0 or why not. */
static int leads(const tram_transport *from, const tram_transport *to) {
    bool busy = from->flags & T_EXCLUSIVE;
    if (from->flags & T_CLOSING || busy || !from->protocol)
        return TRAM_ESTATE;
    if (from->flags & T_EOF)
        return 0;
    if (transport_kind_of(to)->no_writing)
        return -ENOTSUP;
    return to->flags & T_WRITE_EOF ? TRAM_ESTATE : 0;
}

static int may_be_coupled(const tram_transport *a, const tram_transport *b) {
    if (!is_stream(a) || !is_stream(b) || (transport_kind_of(a)->no_reading && transport_kind_of(b)->no_reading))
        return -ENOTSUP;
    int status = leads(a, b);
    return status ? status : leads(b, a);
}

/* The user's half of a custom transport, which is called within, may take either of them away. */
static void begin_side(struct side *side) {
    tram_transport *from = side->protocol.transport, *to = side->other->protocol.transport;
    if (!from || !to)
        return;
    if (from->flags & T_EOF) {
        if (!side->eof && bridge_eof(&side->protocol) == 0)
            tram_transport_close(from);
    } else if (to->flags & T_WRITING_PAUSED) {
        tram_transport_pause_reading(from);
    } else {
        tram_transport_resume_reading(from);
    }
}

int tram_bridge(tram_transport *a, tram_transport *b, const tram_bridge_options *options, tram_future **ret_future) {
    static const tram_bridge_options defaults;
    tram_loop *loop = a->io.loop;
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    if (a == b || loop != b->io.loop || reserved_used(options))
        return tram__invalid(a == b || loop != b->io.loop ? "b" : "reserved");
    transport_flush_writer(a); /* what an old bridge's pipe holds: it may fail, which the log function hears */
    transport_flush_writer(b);
    status = may_be_coupled(a, b);
    if (status)
        return status;
    struct bridge *bridge;
    status = tram__future_new(loop, &bridge_kind, sizeof *bridge, &bridge);
    if (status)
        return status;
    bridge->idle.expire = idle_expired;
    bridge->idle_ns = options->idle_timeout_ns;
    bridge->active_ns = tram__clock(loop);
    bridge->result.side = -1;
    status = bridge->idle_ns ? tram__deadline_start(loop, &bridge->idle, idle_end(bridge)) : 0;
    if (status) {
        tram__future_drop(&bridge->future);
        return status;
    }
    for (size_t i = 0; i < 2; i++) {
        struct side *side = &bridge->sides[i];
        *side = (struct side){.protocol.ops = &bridge_ops, .bridge = bridge, .other = &bridge->sides[!i]};
        side->protocol.transport = i ? b : a; /* also where connection_made comes later */
        side->splice.from = &side->protocol;
        side->splice.to = &side->other->protocol;
        tram__future_hold(&bridge->future);
        tram_transport *transport = side->protocol.transport;
        tram_transport_set_protocol(transport, &side->protocol);
        transport->flags |= T_BRIDGED;
    }
    for (size_t i = 0; i < 2; i++)
        begin_side(&bridge->sides[i]);
    if (ret_future)
        *ret_future = &bridge->future;
    else
        tram__future_drop(&bridge->future);
    return 0;
}
