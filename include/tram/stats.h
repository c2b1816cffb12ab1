/* What a loop has done so far. */
#ifndef TRAM_STATS_H
#define TRAM_STATS_H

#include <tram/loop.h>

TRAM_BEGIN_DECLS

/* Counters since the loop was made, but for those that say "now". */
typedef struct tram_stats {
    uint64_t connections_now; /* open transports */
    uint64_t connections;     /* transports made, accepted ones included */
    uint64_t accepted;
    uint64_t bytes_received;
    uint64_t bytes_sent;
    uint64_t reads;          /* receive calls that brought bytes, datagrams or EOF */
    uint64_t writes;         /* send calls that took bytes */
    uint64_t ticks;          /* turns of the loop */
    uint64_t wakeups;        /* times another thread had to wake it */
    uint64_t mails;          /* calls that came from other threads */
    uint64_t callbacks;      /* call_soon callbacks run */
    uint64_t timers;         /* timers fired */
    uint64_t exceptions;     /* records given to the exception handler */
    uint64_t dropped_writes; /* writes after the connection was gone */
    uint64_t accept_pauses;  /* incidents in which accepting stopped for want of descriptors or memory */
    uint64_t slow_callbacks; /* debug mode only */
    uint64_t handed_over;    /* accepted here and given to another worker, which serves them */
    uint64_t taken_over;     /* accepted by another worker and served here */
    uint64_t reserved[6];
} tram_stats;

/* Reads the counters. Any thread, at any time before tram_loop_free(); each counter is exact, the set is not
 * atomic. */
TRAM_API void tram_loop_stats(const tram_loop *loop, tram_stats *ret_stats);

TRAM_END_DECLS

#endif
