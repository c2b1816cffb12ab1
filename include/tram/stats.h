/* What a loop has done so far, how late it was, and which callbacks were slow. As text for Prometheus: tram/metrics.h.
 */
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
    uint64_t slow_callbacks; /* in debug mode, and with time_callbacks in tram_loop_options; see tram_slow_site */
    uint64_t handed_over;    /* accepted here and given to another worker, which serves them */
    uint64_t taken_over;     /* accepted by another worker and served here */
    uint64_t slow_ticks;     /* with measure_lag: turns whose lag was that of a slow callback, or more */
    /* What limits did (tram/limits.h): connections that servers reset, and those whose time was over. */
    uint64_t refused_connections;
    uint64_t refused_worker;
    uint64_t refused_source;
    uint64_t refused_handshakes;
    uint64_t expired_idle;
    uint64_t expired_first_byte;
    uint64_t expired_total;
    uint64_t over_write_limit;  /* any transport's: tram_transport_set_write_hard_limit() */
    uint64_t expired_grace;     /* reset when the grace of a stop, or the time of a drain, was over */
    uint64_t messages;          /* delivered to protocols and actors (tram/message.h) */
    uint64_t dropped_messages;  /* accepted, and their addressee had ended */
    uint64_t tls_handshakes;    /* TLS handshakes done, as a client and as a server (tram/tls.h) */
    uint64_t tls_resumed;       /* … of these, those that went on with a former session */
    uint64_t tls_failed;        /* handshakes that TLS or the peer refused; not those whose time was over, … */
    uint64_t tls_expired;       /* … which are these */
    uint64_t tls_steps;         /* turns of handshakes, each of which may cost as much as hundreds of messages */
    uint64_t tls_postponed;     /* turns put off, since a tick has but so many: handshakes that begin together wait */
    uint64_t measured_messages; /* those of which the time in the queue was measured: tram_message_counts */
    uint64_t message_wait_ns;   /* … their times, together: the mean is message_wait_ns / measured_messages */
    uint64_t reserved[8];
} tram_stats;

/* Reads the counters. Any thread, at any time before tram_loop_free(); each counter is exact, the set is not
 * atomic. */
TRAM_API void tram_loop_stats(const tram_loop *loop, tram_stats *ret_stats);

/* ---- How late a loop is ---- */

#define TRAM_LAG_BUCKETS 24

/*
 * The lag of a tick is the time from the end of its wait until all that it ran has returned: what was or became ready
 * in it waited for up to so long. Each tick counts once. Measured where measure_lag in tram_loop_options says so: that
 * is two readings of the clock in a tick, which a loop that has timers makes anyway.
 */
typedef struct tram_lag {
    uint64_t buckets[TRAM_LAG_BUCKETS]; /* ticks with a lag up to tram_lag_bound(), and above that of the one before */
    uint64_t sum_ns;
    uint64_t longest_ns;
    uint64_t reserved[4];
} tram_lag;

/* The highest lag of a bucket in nanoseconds: 4 µs for the first, twice as much for each further one, 16.8 s for the
 * last but one; TRAM_FOREVER from the last on. */
TRAM_API uint64_t tram_lag_bound(unsigned bucket);

/* Reads the lag. Any thread, as tram_loop_stats(). False: this loop does not measure it, all is zero. */
TRAM_API bool tram_loop_lag(const tram_loop *loop, tram_lag *ret_lag);

/* ---- Slow callbacks ---- */

/*
 * A function that was slow as a callback, once or more: took slow_callback_ns of tram_loop_options or longer. Kept in
 * debug mode, and with time_callbacks in tram_loop_options. A loop remembers TRAM_SLOW_SITES of them, which is more
 * than programs have; those that come up later are counted together in one last site.
 */
typedef struct tram_slow_site {
    const char *kind;     /* what it was called for: "callback", "data_received", "reader" …; a constant */
    const void *function; /* NULL: those that found no place, of kind "other" */
    uint64_t count;       /* how often it was slow */
    uint64_t sum_ns;      /* … and how long in all */
    uint64_t worst_ns;
    uintptr_t reserved[2];
} tram_slow_site;

#define TRAM_SLOW_SITES 32

/*
 * How many there are, at most TRAM_SLOW_SITES + 1, in order of their first time; fills at most `count` entries of
 * `ret_sites`, which may be NULL with count 0. Any thread, as tram_loop_stats(); each number is exact, those of a site
 * that is slow just now may be one apart.
 */
TRAM_API size_t tram_loop_slow_sites(const tram_loop *loop, tram_slow_site *ret_sites, size_t count);

/*
 * A function's name as far as the dynamic linker knows it, else "module+0x1234", or the bare address; either a constant
 * or made in `text`, where 128 bytes are plenty. Any thread.
 */
TRAM_API const char *tram_function_name(const void *function, char *text, size_t size);

TRAM_END_DECLS

#endif
