/*
 * The limits of a server, as its shards share them, and what a shard counts of them. Who has how many connections is
 * counted elsewhere: by a server alone, by the shards in balance.h, by source in sources.h.
 */
#ifndef TRAM_TRANSPORTS_LIMITS_LIMITS_H
#define TRAM_TRANSPORTS_LIMITS_LIMITS_H

#include "core/loop/types.h"
#include "transports/base/types.h"
#include "transports/limits/sources.h"
#include <tram/limits.h>

/* In the order of tram_limit_counts and of the words of tram_stats. */
enum limit {
    LIMIT_CONNECTIONS,
    LIMIT_WORKER,
    LIMIT_SOURCE,
    LIMIT_IDLE,
    LIMIT_FIRST_BYTE,
    LIMIT_TOTAL,
    LIMIT_WRITE,
    LIMIT_COUNT,
    LIMIT_NONE = LIMIT_COUNT,
};

/* What one shard did: one writer, its thread, and readers on any. No two share a cache line. */
struct limit_tally {
    uint64_t of[LIMIT_COUNT];
    unsigned char apart[128 - LIMIT_COUNT * sizeof(uint64_t)];
};

struct limits {
    tram_allocator allocator;
    tram_server_limits bounds; /* defaults filled in; deadlines that are off are TRAM_FOREVER */
    struct write_limits write;
    struct sources *sources; /* NULL: as many as there are */
    bool expires;            /* a connection has a deadline */
    unsigned shards;
    struct limit_tally tally[];
};

/* TRAM_EVALUE for what contradicts itself. NULL is allowed. */
int tram__limits_check(const tram_server_limits *limits);

/* Of limits that were checked. 0 or -ENOMEM. */
int tram__limits_new(const tram_allocator *allocator, const tram_server_limits *wanted, unsigned shards,
                     struct limits **ret_limits);

/* NULL is allowed. */
void tram__limits_free(struct limits *limits);

/* A limit had its effect on the shard of this loop. */
void tram__limits_count(struct limit_tally *tally, tram_loop *loop, enum limit limit);

/* Any thread. NULL: there are no limits. */
void tram__limits_read(const struct limit_tally *tally, tram_limit_counts *ret_counts);

/* See sources.h, if there is a limit for each. Any thread. */
static inline int limits_enter_source(const struct limits *limits, const void *peer) {
    return limits->sources ? tram__sources_enter(limits->sources, peer) : SOURCE_ENTERED;
}

static inline void limits_leave_source(const struct limits *limits, const void *peer) {
    if (limits->sources)
        tram__sources_leave(limits->sources, peer);
}

#endif
