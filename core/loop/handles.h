/* The records of calls, for handles.c and its tests. */
#ifndef TRAM_CORE_LOOP_HANDLES_H
#define TRAM_CORE_LOOP_HANDLES_H

#include "core/loop/loop.h"

#define CALLS_PER_CHUNK 128u

enum call_state { CALL_FREE, CALL_READY, CALL_TIMER };

/* One cache line, since a program with a million timers finds none of them in the cache. */
struct call {
    union {
        struct ready ready;
        struct deadline deadline; /* its timer's mark: enum call_state and the bits below, also while it is no timer */
        uint32_t next_free;
    } on;
    tram_callback callback;
    void *arg;
    uint32_t slot;
    uint32_t generation;
};

/* What few calls have lies apart. */
struct call_chunk {
    _Alignas(64) struct call calls[CALLS_PER_CHUNK];
    tram_discard discards[CALLS_PER_CHUNK];
    void *memory; /* what was allocated: this struct is aligned in it */
};

struct call_slots {
    struct close_hook hook;
    tram_loop *loop;
    struct call_chunk **chunks;
    uint32_t chunk_count;
    uint32_t chunk_capacity;
    uint32_t free; /* slot, or 0 */
};

static inline struct call *call_at_slot(const struct call_slots *calls, uint32_t slot) {
    return &calls->chunks[slot / CALLS_PER_CHUNK]->calls[slot % CALLS_PER_CHUNK];
}

#endif
