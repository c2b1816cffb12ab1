/* How late a loop is: one observation for each tick, counted by its thread like stats.h, read by any. */
#ifndef TRAM_CORE_LOOP_LAG_H
#define TRAM_CORE_LOOP_LAG_H

#include <tram/stats.h>

#define LAG_FIRST_BOUND_NS 4000u

/* The bucket that counts a lag: the first whose bound it does not exceed. */
static inline unsigned lag_bucket(uint64_t lag_ns) {
    if (lag_ns <= LAG_FIRST_BOUND_NS)
        return 0;
    /* Bounds double: how often does the first one go into it, rounded up, and how many bits has that? */
    uint64_t times = (lag_ns - 1) / LAG_FIRST_BOUND_NS;
    unsigned bucket = 64u - (unsigned)__builtin_clzll(times);
    return bucket < TRAM_LAG_BUCKETS - 1 ? bucket : TRAM_LAG_BUCKETS - 1;
}

void tram__lag_add(tram_lag *lag, uint64_t lag_ns);

/* Any thread. */
void tram__lag_read(const tram_lag *lag, tram_lag *ret_lag);

#endif
