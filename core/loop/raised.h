/*
 * User pointers that were given away with tram_loop_raise_with_release(): each is kept until the tick after the raise
 * has begun and nobody who remembers the error has it any more. The loop's thread.
 */
#ifndef TRAM_CORE_LOOP_RAISED_H
#define TRAM_CORE_LOOP_RAISED_H

#include "core/loop/loop.h"

void tram__raised_claim(tram_loop *loop, const void *user);
void tram__raised_drop(tram_loop *loop, const void *user);

/* The loop ends: nobody looks at an error any more. */
void tram__raised_fini(tram_loop *loop);

/* Somebody remembers an error with this user pointer beyond the tick, and forgets it again. Of any other, nothing. */
static inline void raised_claim(tram_loop *loop, const void *user) {
    if (unlikely(user && loop->raised_users))
        tram__raised_claim(loop, user);
}

static inline void raised_drop(tram_loop *loop, const void *user) {
    if (unlikely(user && loop->raised_users))
        tram__raised_drop(loop, user);
}

#endif
