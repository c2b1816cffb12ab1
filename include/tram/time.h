/*
 * Durations. One rule for all that tram is given, in calls and in options: an uint64_t in nanoseconds, whose name ends
 * in _ns, and
 *
 *     0             the default, which the comment there tells
 *     TRAM_NOW      no time at all: what does not wait
 *     TRAM_FOREVER  as long as it takes; a limit that never comes
 *
 * Any other value is what it says, however large: a time beyond the clock's end never comes.
 */
#ifndef TRAM_TIME_H
#define TRAM_TIME_H

#include <stdint.h>

#define TRAM_FOREVER UINT64_MAX

/* A nanosecond: it has passed when somebody looks. */
#define TRAM_NOW UINT64_C(1)

#endif
