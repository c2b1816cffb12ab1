/*
 * Which callbacks were slow: a table of the loop's thread that any thread may read. A site is complete before it is
 * counted among the known and keeps its place and its name from then on, so a reader needs no lock; the numbers in it
 * are counters like those of stats.h.
 */
#ifndef TRAM_CORE_LOOP_SLOW_SITES_H
#define TRAM_CORE_LOOP_SLOW_SITES_H

#include <stdatomic.h>

#include <tram/stats.h>

struct slow_sites {
    _Atomic uint32_t known;
    tram_slow_site sites[TRAM_SLOW_SITES + 1]; /* the last is all others' */
};

/* The loop's thread. */
void tram__slow_sites_add(struct slow_sites *table, const char *kind, const void *function, uint64_t took_ns);

/* Any thread. */
size_t tram__slow_sites_read(const struct slow_sites *table, tram_slow_site *ret_sites, size_t count);

#endif
