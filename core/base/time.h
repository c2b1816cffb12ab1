/*
 * Times are nanoseconds on a clock, durations are nanoseconds too. A duration is added to a time by time_after() and
 * nowhere else (tests/checks/durations.py): TRAM_FOREVER and what comes near it would wrap.
 */
#ifndef TRAM_CORE_BASE_TIME_H
#define TRAM_CORE_BASE_TIME_H

#include <tram/time.h>

/* The time `duration_ns` after `time_ns`; TRAM_FOREVER, a time that never comes, where the sum does not fit. */
static inline uint64_t time_after(uint64_t time_ns, uint64_t duration_ns) {
    return duration_ns < TRAM_FOREVER - time_ns ? time_ns + duration_ns : TRAM_FOREVER;
}

#endif
