/* What transports keep per loop: memory for reuse, and the protocols that wait for their `released`. */
#ifndef TRAM_TRANSPORTS_BASE_STATE_H
#define TRAM_TRANSPORTS_BASE_STATE_H

#include "core/loop/loop.h"
#include <tram/buffer.h>

/* The slots of this floor: all of them, whichever library has what is in there. */
enum transport_slot {
    TRANSPORT_SLOT = LOOP_SLOT_TRANSPORTS,
    TRANSPORT_SLOT_PIPES,      /* proxy/splice.c */
    TRANSPORT_SLOT_EXTRA_INFO, /* stream/stream.c */
    TRANSPORT_SLOT_SCRATCH,    /* stack_delivery.c */
    TRANSPORT_SLOT_TLS,        /* tls/context.c */
    TRANSPORT_SLOT_END,
};
_Static_assert((unsigned)TRANSPORT_SLOT_END <= (unsigned)LOOP_SLOT_PROTOCOLS, "the next floor's begin behind them");

/* Free chunks of one size: chunks.c. */
struct chunk_cache {
    struct free_chunk *free;
    unsigned count;
};

/*
 * Shared buffers that write queues have let go of, and whose release functions are still to come: write_queue.c. And
 * references to one that was queued in this tick: they were taken all at once, for all queues that it may go to.
 */
struct spent_chunks {
    struct chunk *first;
    struct chunk *last;
    tram_buffer *held; /* NULL: none */
    size_t held_count;
    bool due;                      /* one of the next two is */
    struct ready ready;            /* queued while there are some, … */
    struct deferred_free deferred; /* … or this, within a tick */
    bool releasing;
};

struct transport_state {
    struct loop_state state;
    struct pool pool; /* of transports that have no memory of their own */
    struct chunk_cache chunk_cache[2];
    struct spent_chunks spent;
    tram_loop *loop;
    struct ready release_ready; /* queued while `released` is not empty */
    tram_protocol *released;    /* linked through `reserved` */
    tram_protocol *released_last;
    struct list working;        /* transports that are held by their work, by struct transport_work */
    struct ready asks;          /* the pass over connections that were asked to end: graceful.c */
    uint32_t ask_slot;          /* where it goes on */
    struct deadline send_again; /* of those whose send found no memory: failed_send.c */
    bool asking;                /* it is queued */
    bool ask_again;             /* … and something changed behind it */
};

/* There is one as soon as transport_state_open() was successful: no way to the end of a transport needs memory. */
static inline struct transport_state *transport_state(const tram_loop *loop) {
    return loop_slot(loop, TRANSPORT_SLOT);
}

/* Before the first protocol or transport of a loop is made. 0 or -ENOMEM. */
int tram__transport_state_make(tram_loop *loop);

/* A connection that was asked to end may be ready for it, or has a protocol that does not know. */
static inline void ask_soon(tram_loop *loop) {
    struct transport_state *state = transport_state(loop);
    state->ask_again = state->asking;
    if (state->asking)
        return;
    state->asking = true;
    state->ask_slot = 1;
    loop_ready(loop, &state->asks);
}

static inline int transport_state_open(tram_loop *loop) {
    return likely(transport_state(loop) != NULL) ? 0 : tram__transport_state_make(loop);
}

#endif
