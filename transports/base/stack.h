/*
 * The stack of layers of a transport: what the state machine, which stands below it, knows of it. layer.h is what
 * layers know. In the private part of a transport, made at the first push; it stays when the last layer has gone.
 */
#ifndef TRAM_TRANSPORTS_BASE_STACK_H
#define TRAM_TRANSPORTS_BASE_STACK_H

#include "transports/base/layer.h"
#include "transports/base/transport.h"

/* What the state machine asks of a stack: through a table, since the stack stands above it. */
struct stack_calls {
    const struct io_receiver *receiver;
    /* connection_made is due. False: it is held back, or will never come. */
    bool (*made)(tram_transport *transport);
    /* The protocol does not read any more, by itself or for a writer; layers may have to. */
    void (*paused)(tram_transport *transport);
    /* At least one byte from the protocol, at the top. */
    void (*write)(tram_transport *transport, const struct iovec *pieces, size_t count);
    /* True: the carrier is to end its writing side, too. */
    bool (*write_eof)(tram_transport *transport);
    /* The transport closes. True: all layers are shut down; false: tram__transport_end_carrier() follows, or the end.
     */
    bool (*close)(tram_transport *transport);
    /* The end is certain. */
    void (*stop)(tram_transport *transport);
    /* connection_lost is next, or what takes its place. */
    void (*lost)(tram_transport *transport);
    /* It is asked to end: what is not ready has but a moment to become so. */
    void (*hurry)(tram_transport *transport);
    /* Nothing is queued any more while layers shut down. */
    void (*drained)(tram_transport *transport);
    /* What was received and not read yet becomes the prefix of the lowest layer. 0 or -ENOMEM: nothing happened. */
    int (*keep_window)(tram_transport *transport);
    /* The layers belong to somebody else from now on. */
    void (*leave)(tram_transport *transport);
    /* With the transport's memory. */
    void (*free)(tram_transport *transport);
    /* A custom carrier received bytes, or the end of its stream. */
    void (*received)(tram_transport *transport, const void *data, size_t size);
    void (*eof)(tram_transport *transport);
};

/* Each connection of TLS has one: the order leaves no gaps. What is looked at for each record has a byte of its own. */
struct layer_stack {
    const struct stack_calls *calls;
    struct layer *top;         /* NULL: none is left */
    struct layer *removed;     /* linked by `below`; freed when no layer is on the stack */
    const char *window;        /* what the carrier received, within that event */
    size_t window_size;        /* of it not read yet */
    size_t kept;               /* bytes that layers keep for writing */
    struct write_queue outbox; /* for a carrier that is the user's code: sent when no layer is on the stack */
    struct deadline deadline;  /* of the starts, later of the shutdowns */
    tram_transport *transport;
    const char *failed_operation;
    int failed;     /* tram__layer_fail() was called while a layer was on the stack, or … */
    uint16_t depth; /* of calls into layers */
    bool stepping;
    bool again;           /* step once more */
    bool grew;            /* something was written since the water marks were looked at */
    bool unsent;          /* the carrier has bytes that wait for the outermost call to return */
    bool send_failed : 1; /* … the carrier could not send: that is all that failed (W-5) */
    bool flushing : 1;    /* the outbox is being sent */
    bool below_ended : 1; /* the carrier's stream has ended */
    bool behind : 1;      /* a receive brought more than is delivered in a tick: the next goes on with it */
    bool shut : 1;        /* all layers are shut down */
    bool finished : 1;    /* the carrier's writing side was ended before that: what layers write is dropped */
};

static inline struct layer *stack_bottom(const struct layer_stack *stack) {
    struct layer *layer = stack->top;
    while (layer && layer->below)
        layer = layer->below;
    return layer;
}

static inline struct layer_stack *transport_stack(const tram_transport *transport) {
    return transport->more->stack;
}

/* Bytes that count as the write buffer: what is queued, and what layers keep. */
static inline size_t transport_write_size(const tram_transport *transport) {
    size_t size = transport->queue.size;
    if (unlikely(transport->flags & T_LAYERED))
        size += transport_stack(transport)->kept + transport_stack(transport)->outbox.size;
    return size;
}

/* The transport is open, and a layer on it not ready: only its end can be asked for (Y-7). */
static inline bool transport_layers_starting(const tram_transport *transport) {
    return unlikely((transport->flags & (T_LAYERED | T_EXCLUSIVE | T_HAS_WRITER)) == (T_LAYERED | T_EXCLUSIVE));
}

/* Something that came is on its way to the protocol, and nothing more is received before. */
static inline bool transport_is_behind(const tram_transport *transport) {
    return unlikely(transport->flags & T_LAYERED) && transport_stack(transport)->behind;
}

/* The goodbyes of layers are not all said yet. */
static inline bool transport_shutting_down(const tram_transport *transport) {
    return unlikely(transport->flags & T_LAYERED) && !transport_stack(transport)->shut;
}

/* ---- For the files of the stack: stack_parts.h ---- */

/* Nothing goes through layers any more. */
static inline bool stack_is_lost(const tram_transport *transport) {
    return transport->flags & (T_LINGERING | T_LOST_PENDING);
}

/* Layers are not ready, and everything else waits for them. */
static inline bool stack_is_starting(const tram_transport *transport) {
    return (transport->flags & (T_EXCLUSIVE | T_HAS_WRITER)) == T_EXCLUSIVE;
}

static inline bool stack_may_deliver(const tram_transport *transport) {
    return (transport->flags & (T_MADE | T_PAUSED | T_CLOSING | T_EOF | T_EXCLUSIVE)) == T_MADE;
}

/*
 * The protocol does not read, but layers keep bytes for writing until the peer says something: they are asked all the
 * same until something of theirs is held for the protocol, or, while a close waits for a file, what they have is
 * dropped.
 */
static inline bool stack_reads_ahead(const tram_transport *transport) {
    if (likely(!transport_stack(transport)->kept) || (transport->flags & (T_MADE | T_EOF)) != T_MADE)
        return false;
    return transport->flags & T_CLOSING ? transport_sends_file(transport)
                                        : !(transport->flags & T_HELD) && transport->flags & (T_PAUSED | T_HAS_WRITER);
}

static inline void stack_enter(struct layer_stack *stack) {
    stack->depth++;
}

#endif
