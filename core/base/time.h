/*
 * Times are nanoseconds on a clock, durations are nanoseconds too. A duration is added to a time by time_after() and
 * nowhere else (tests/checks/durations.py): TRAM_FOREVER and what comes near it would wrap.
 */
#ifndef TRAM_CORE_BASE_TIME_H
#define TRAM_CORE_BASE_TIME_H

#include <time.h>

#include <tram/time.h>

static inline uint64_t time_of(const struct timespec *time) {
    return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
}

/* Where no loop is at hand, which has a clock of its own for tests. */
static inline uint64_t time_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return time_of(&now);
}

/* The time `duration_ns` after `time_ns`; TRAM_FOREVER, a time that never comes, where the sum does not fit. */
static inline uint64_t time_after(uint64_t time_ns, uint64_t duration_ns) {
    return duration_ns < TRAM_FOREVER - time_ns ? time_ns + duration_ns : TRAM_FOREVER;
}

#endif
