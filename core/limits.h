/* Every bound of the library that is not an option, by name. */
#ifndef TRAM_CORE_LIMITS_H
#define TRAM_CORE_LIMITS_H

#define TRAM_RECEIVE_SIZE          (256u * 1024u) /* one read takes at most this */
#define TRAM_EVENTS_PER_TICK       256            /* descriptors served in one tick; the rest come next time */
#define TRAM_MAIL_PER_TICK         256            /* cells taken from the mailbox in one tick */
#define TRAM_MAILBOX_LIMIT         65536          /* try_call_soon_threadsafe calls that may wait, by default */
#define TRAM_POLL_LIMIT_NS         (24ull * 3600 * 1000000000ull) /* a wait is never longer (L-6) */
#define TRAM_SLOW_CALLBACK_NS      100000000ull                   /* what is slow in debug mode (L-30) */
#define TRAM_WRITE_HIGH            65536u                         /* water marks (W-13) */
#define TRAM_WRITE_LOW             16384u
#define TRAM_DROPPED_WRITES_SILENT 5          /* counts from which a dropped write is logged (W-6) */
#define TRAM_WRITE_PIECES          64         /* chunks handed to one gathering send */
#define TRAM_DATAGRAMS_IN          32         /* received by one system call (D-7) */
#define TRAM_DATAGRAMS_OUT         128        /* handed to one system call */
#define TRAM_DATAGRAM_SLOT         65536u     /* room for one of UDP, or for some that were joined */
#define TRAM_DATAGRAM_SLOT_LARGE   262144u    /* … of other families (D-7) */
#define TRAM_DATAGRAMS_HELD        262144u    /* bytes that a cork holds back */
#define TRAM_SEGMENTS              64         /* datagrams that the kernel cuts from one (UDP_MAX_SEGMENTS) */
#define TRAM_SEGMENTS_SIZE         65400u     /* … and their bytes: 64 KiB less headers with options */
#define TRAM_DATAGRAM_RETRY_NS     1000000ull /* after the kernel refused what it had asked for */
#define TRAM_CHUNKS_KEPT           64         /* free chunks of each size that a loop keeps */
#define TRAM_BACKLOG               100        /* of a listener (V-6) */
#define TRAM_BACKLOG_RUNTIME       4096
#define TRAM_ACCEPT_RETRY_NS       1000000000ull  /* pause after descriptor or memory exhaustion (V-11) */
#define TRAM_GRACE_NS              10000000000ull /* of tram_runtime_stop() */
#define TRAM_WORKERS_MAX           1024
#define TRAM_ERROR_TEXT            256 /* detail text kept with an error */

#endif
