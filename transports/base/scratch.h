/*
 * Memory of TRAM_LAYER_READ bytes into which layers read for a protocol without memory of its own. One delivery has one
 * to itself, also where another delivery runs inside of it; the loop keeps one for the next.
 */
#ifndef TRAM_TRANSPORTS_BASE_SCRATCH_H
#define TRAM_TRANSPORTS_BASE_SCRATCH_H

#include "transports/base/state.h"

/* NULL: out of memory. */
static inline struct scratch *scratch_get(tram_loop *loop) {
    struct transport_state *state = transport_state(loop);
    struct scratch *scratch = state->scratch;
    state->scratch = NULL;
    return likely(scratch != NULL) ? scratch : memory_get(&loop->allocator, TRAM_LAYER_READ);
}

static inline void scratch_put(tram_loop *loop, struct scratch *scratch) {
    struct transport_state *state = transport_state(loop);
    if (state->scratch || loop->closing)
        memory_put(&loop->allocator, scratch, TRAM_LAYER_READ);
    else
        state->scratch = scratch;
}

#endif
