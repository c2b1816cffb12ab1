/* The records of calls, for handles.c and its tests. */
#ifndef TRAM_CORE_LOOP_HANDLES_H
#define TRAM_CORE_LOOP_HANDLES_H

#include "core/loop/loop.h"

/* One cache line, since a program with a million timers finds none of them in the cache. */
struct call {
    union {
        struct ready ready;
        struct deadline deadline; /* its timer's mark, see handles.c, is the call's, also while it is no timer */
    } on;
    tram_callback callback;
    void *arg;
    struct slot slot;
};

/* What few calls have lies apart: a tram_discard. */
static const struct slots_layout calls_layout = {
    .size = sizeof(struct call), .slot = offsetof(struct call, slot), .per_chunk = 128, .beside = sizeof(tram_discard)};

static inline struct call *call_at(const tram_loop *loop, uint32_t slot) {
    return slots_at(&loop->calls, &calls_layout, slot);
}

#endif
