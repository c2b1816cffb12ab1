/*
 * Counters with one writer, the loop's thread, and readers on any: plain loads and stores that the compiler
 * may not tear, no lock prefix. The counters are the words of tram_stats, in its order.
 */
#ifndef TRAM_CORE_LOOP_STATS_H
#define TRAM_CORE_LOOP_STATS_H

#include <tram/stats.h>

static inline uint64_t stats_read(const uint64_t *counter) {
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static inline void stats_add(uint64_t *counter, uint64_t amount) {
    __atomic_store_n(counter, stats_read(counter) + amount, __ATOMIC_RELAXED);
}

/* For the highest value so far. */
static inline void stats_raise(uint64_t *highest, uint64_t value) {
    if (value > stats_read(highest))
        __atomic_store_n(highest, value, __ATOMIC_RELAXED);
}

#endif
