/*
 * Counters with one writer, the loop's thread, and readers on any: plain loads and stores that the compiler
 * may not tear, no lock prefix. The counters are the words of tram_stats, in its order.
 */
#ifndef TRAM_CORE_STATS_H
#define TRAM_CORE_STATS_H

#include <tram/stats.h>

static inline void stats_add(uint64_t *counter, uint64_t amount) {
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + amount, __ATOMIC_RELAXED);
}

#endif
