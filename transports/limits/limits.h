/*
 * The limits of a server, as its shards share them, and what a shard counts of them. Who has how many connections is
 * counted elsewhere: by a server alone, by the shards in balance.h, by source in sources.h.
 */
#ifndef TRAM_TRANSPORTS_LIMITS_LIMITS_H
#define TRAM_TRANSPORTS_LIMITS_LIMITS_H

#include "core/loop/types.h"
#include "transports/base/secured.h"
#include "transports/base/types.h"
#include "transports/limits/sources.h"
#include <tram/limits.h>

/* In the order of tram_limit_counts and of the words of tram_stats. */
enum limit {
    LIMIT_CONNECTIONS,
    LIMIT_WORKER,
    LIMIT_SOURCE,
    LIMIT_HANDSHAKES,
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
    struct sources *sources;         /* NULL: as many as there are */
    struct sources *handshakes;      /* the same of connections whose TLS handshake is not over */
    struct tls_watcher on_handshake; /* hears of each of those when it is */
    bool expires;                    /* a connection has a deadline */
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

/* The option that counts by source, where one is set; NULL: none. NULL is allowed. */
const char *tram__limits_by_source(const tram_server_limits *limits);

/* ---- Who comes and goes, where there is a limit for each source. Any thread. ---- */

/* One connection more of the peer: LIMIT_NONE, the limit that rejects it, or -ENOMEM. */
int tram__limits_enter(const struct limits *limits, const void *peer);

/* One less, which was a transport and whose handshake is over. */
static inline void limits_leave_source(const struct limits *limits, const void *peer) {
    if (limits->sources)
        tram__sources_leave(limits->sources, peer);
}

/* One handshake less; `on_handshake` does that for those of which TLS tells. */
static inline void limits_leave_handshake(const struct limits *limits, const void *peer) {
    if (limits->handshakes)
        tram__sources_leave(limits->handshakes, peer);
}

/* One less, which never was a transport. */
static inline void limits_leave(const struct limits *limits, const void *peer) {
    limits_leave_handshake(limits, peer);
    limits_leave_source(limits, peer);
}

/* Who is to hear when the handshake of one that entered is over. NULL: nobody. */
static inline struct tls_watcher *limits_handshake_watcher(struct limits *limits) {
    return limits && limits->handshakes ? &limits->on_handshake : NULL;
}

#endif
