/*
 * Between the atomic steps of what threads share: a place where a test may hold a thread up, so that orders come about
 * which otherwise need luck. In builds with TRAM_CHECKED; else nothing.
 */
#ifndef TRAM_CORE_BASE_STEPS_H
#define TRAM_CORE_BASE_STEPS_H

#include "core/base/assert.h"

#if TRAM_CHECKED
/* NULL: nobody is held up. Set before threads are started. */
extern void (*tram__between_steps)(void);

static inline void between_steps(void) {
    if (tram__between_steps)
        tram__between_steps();
}
#else
static inline void between_steps(void) {}
#endif

#endif
