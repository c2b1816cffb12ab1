/*
 * What is called once a callback of the user's will not run any more: its argument goes back. It is kept beside what is
 * registered and runs at the end of the tick, so never while the callback is at work; outside of a tick, where only the
 * exception handler may be, at once unless it is. The loop's thread.
 */
#ifndef TRAM_CORE_LOOP_DISCARD_H
#define TRAM_CORE_LOOP_DISCARD_H

#include "core/loop/loop.h"

struct discard {
    struct deferred_free deferred;
    tram_discard function;
    void *arg;
};

/* NULL for no function. 0 or -ENOMEM. */
int tram__discard_new(tram_loop *loop, tram_discard function, void *arg, struct discard **ret_discard);

/*
 * Calls it soon, once, and frees it. NULL: nothing. The function may call anything, so this is the last thing that
 * whoever takes a callback off does.
 */
void tram__discard_soon(tram_loop *loop, struct discard *discard);

/* Frees it uncalled. NULL: nothing. */
void tram__discard_forget(tram_loop *loop, struct discard *discard);

#endif
