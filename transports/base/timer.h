/*
 * The timer of a transport, which is set anew with every message and seldom fires. Setting it writes down when it is to
 * fire, and touches the loop's timers only where that is earlier than they would call: one that they call too early
 * goes on for the rest.
 */
#ifndef TRAM_TRANSPORTS_BASE_TIMER_H
#define TRAM_TRANSPORTS_BASE_TIMER_H

#include "core/loop/loop.h"
#include <tram/transport.h>

/* All times have LOOP_TURN set, so that one that was added to no time is earlier than any. */
struct transport_timer {
    const uint64_t *turn; /* loop->turn; a zero before the timer was ever set */
    uint64_t armed;       /* when the loop's timer fires; UINT64_MAX: it does not run */
    uint64_t when;        /* when this one is to fire */
    tram_transport_timeout callback;
    void *arg;
    struct deadline deadline;
};

#define TIMER_NOT_ARMED UINT64_MAX

static inline void transport_timer_init(struct transport_timer *timer) {
    static const uint64_t no_turn;
    timer->turn = &no_turn;
    timer->armed = TIMER_NOT_ARMED;
}

static inline void transport_timer_cancel(tram_loop *loop, struct transport_timer *timer) {
    if (timer->armed == TIMER_NOT_ARMED)
        return;
    deadline_cancel(loop, &timer->deadline);
    timer->armed = TIMER_NOT_ARMED;
}

#endif
