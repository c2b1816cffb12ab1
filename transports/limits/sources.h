/*
 * How many connections each source has, over all workers of a server. Sources are networks; those without a connection
 * are not in the table, so it is never larger than the connections make it.
 *
 * The one thing of a server that its workers share under a lock: the connections of a source come to whatever worker,
 * so that a count of each worker for itself would be a multiple of the limit, or a guess. The table is cut into
 * stripes, a connection takes the lock of one of them when it comes and when it goes, and nothing else is done
 * meanwhile; when the table grows or shrinks, each call does a bounded part of that. Which source is where depends on a
 * secret, so that nobody can choose addresses that meet (SipHash-1-3).
 */
#ifndef TRAM_TRANSPORTS_LIMITS_SOURCES_H
#define TRAM_TRANSPORTS_LIMITS_SOURCES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/base/memory.h"

struct sources_options {
    uint32_t most;      /* connections of one source */
    unsigned bits_ipv4; /* of the address, at most 32 */
    unsigned bits_ipv6; /* at most 64 */
    bool shared;        /* several threads use it */
};

struct sources;

/* 0 or -ENOMEM. */
int tram__sources_new(const tram_allocator *allocator, const struct sources_options *options,
                      struct sources **ret_sources);

/* NULL is allowed. */
void tram__sources_free(struct sources *sources);

enum { SOURCE_ENTERED = 0, SOURCE_FULL = 1 };

/*
 * One connection more of the peer: SOURCE_ENTERED, SOURCE_FULL or -ENOMEM. A peer that is neither IPv4 nor IPv6 has no
 * source and always gets in. Any thread, if `shared`.
 */
int tram__sources_enter(struct sources *sources, const void *peer);

/* One less, of one that got in. */
void tram__sources_leave(struct sources *sources, const void *peer);

/* For tests, of tables that nobody uses meanwhile. */
size_t tram__sources_count(const struct sources *sources);
size_t tram__sources_room(const struct sources *sources);
size_t tram__sources_longest_run(const struct sources *sources); /* of slots that are taken */
size_t tram__sources_most_work(const struct sources *sources);   /* slots that a call cleared, passed and moved */

#endif
