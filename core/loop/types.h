/*
 * What a loop consists of, shared by the files of core and the transports. All fields belong to the loop's thread but
 * for `mailbox`, `guard`, and what comes from `slow_sites` on. Types only: what is done with them is in the files of
 * the same names.
 */
#ifndef TRAM_CORE_LOOP_TYPES_H
#define TRAM_CORE_LOOP_TYPES_H

#include <pthread.h>

#include "core/base/compiler.h"
#include "core/base/limits.h"
#include "core/base/list.h"
#include "core/base/memory.h"
#include "core/base/pool.h"
#include "core/base/slots.h"
#include "core/base/time.h"
#include "core/loop/io.h"
#include "core/loop/mailbox.h"
#include "core/loop/poller.h"
#include "core/loop/slow_sites.h"
#include "core/loop/spin.h"
#include "core/loop/stats.h"
#include "core/loop/timers.h"
#include "core/system/sys.h"
#include <tram/loop.h>

struct raised_user;

/* An entry of the ready queue, embedded in what it is about; it runs once per queueing (L-4). */
struct ready {
    struct list link;
    void (*run)(tram_loop *loop, struct ready *ready);
};

/* A timer of the library's own: `expire` runs in order with the user's. */
struct deadline {
    struct timer timer;
    void (*expire)(tram_loop *loop, struct deadline *deadline);
};

/* Something to free at the end of the tick, when no event or callback on the stack can refer to it any more. */
struct deferred_free {
    struct deferred_free *next;
    void (*dispose)(tram_loop *loop, struct deferred_free *deferred);
};

/*
 * Something of a loop that has no descriptor, or not always, and must hear when the loop ends: an operation between two
 * steps, a server. Heard after every io; see enum shutdown_mode.
 */
struct close_hook {
    struct list link;
    void (*ending)(struct close_hook *hook, enum shutdown_mode ending);
};

/* An error that is kept: texts included. */
struct kept_error {
    tram_error error;
    char detail[TRAM_ERROR_TEXT];
};

/*
 * What an event names: the io that has a slot; see io_at(). One word each, which an io takes all of: the generation is
 * in the io meanwhile. Of a free slot the word is odd, as its generation is, and an address never.
 */
union io_slot {
    struct slot slot;
    struct io *__attribute__((may_alias)) io;
};
_Static_assert(sizeof(union io_slot) == 8 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the lowest bit is the generation's");

static const struct slots_layout io_slots_layout = {.size = sizeof(union io_slot), .per_chunk = 512};

/*
 * Slots for what upper floors keep per loop: each floor has a few, which it numbers itself. The loop knows no more of
 * what is in there than how to free it.
 */
enum loop_slot {
    LOOP_SLOT_LOOP = 0, /* the loop's own folder; freed last */
    LOOP_SLOT_CORE = 1, /* folders of core above the loop */
    LOOP_SLOT_TRANSPORTS = 5,
    LOOP_SLOT_PROTOCOLS = 10,
    LOOP_SLOT_COUNT = 14,
};

/* First in what is in a slot; see tram__loop_slot_open(). */
struct loop_state {
    void (*free)(tram_loop *loop, struct loop_state *state); /* what it holds, when the loop is freed; may be NULL */
    void (*validate)(const struct loop_state *state);        /* part of tram__loop_validate(); may be NULL */
    size_t size;                                             /* of all of it */
};

/* What one site has logged within a second: report.c. */
struct log_site {
    uint64_t hash; /* of its format or message; 0: free */
    uint32_t lines;
    uint32_t left_out;
    uint32_t level;
    char sample[TRAM_LOG_SAMPLE]; /* the beginning of the last line */
};

struct log_limiter {
    uint64_t began_ns; /* the second */
    struct deadline deadline;
    bool timed; /* the deadline runs: something was left out */
    struct log_site sites[TRAM_LOG_SITES];
};

enum guard {
    GUARD_FORKED = 0, /* the page was wiped: this is a child of fork() */
    GUARD_PLAIN = 1,  /* open, and not in debug mode */
    GUARD_DEBUG = 2,
    GUARD_CLOSED = 3, /* in debug mode, too */
};

struct tram_loop {
    /* the tick */
    struct list ready;                    /* queued callbacks */
    struct list batch;                    /* those that this tick runs */
    uint32_t mail_placed;                 /* nodes that have a place in `ready`; see loop_ready() */
    struct deferred_free *deferred_frees; /* freed when the tick ends, the first first */
    struct deferred_free **deferred_last; /* where the next one goes */
    const struct poller_ops *poller_ops;
    struct poller *poller;

    bool running;
    bool in_tick;
    bool stopping; /* stop was asked for */
    bool closing;  /* tram_loop_close() is at work */
    bool closed;
    bool debug;
    bool timed; /* callbacks are: in debug mode, or by option */
    bool time_callbacks;
    bool measure_lag;
    bool waits; /* before_wait or after_wait is there */
    bool in_exception_handler;
    uint32_t in_callouts; /* functions of the user's on the stack that a call outside of a tick may make */
    bool owned;
    pthread_t owner; /* of a loop that runs, or is driven by prepare and dispatch */

    struct timers timers;

    /* What posting threads read: constant, and no neighbour of what changes in every tick. */
    _Atomic unsigned char *guard; /* enum guard, on a page that fork() wipes; read by loop_guard() */
    uint64_t *turn;               /* on the same page: the time of this tick with LOOP_TURN set, or 0; see below */
    struct mailbox *mailbox;
    const struct sys *sys;
    void *receive_buffer;            /* TRAM_RECEIVE_SIZE, for whatever io receives next */
    struct datagram_area *datagrams; /* datagrams.h; NULL before the first io that has some */
    tram_allocator allocator;

    /* slots */
    struct slots io_slots;
    uint32_t **descriptors; /* by page and descriptor: the slot of its io, or 0 */
    uint32_t descriptor_count;
    struct list close_hooks;
    struct slots calls; /* handles.c, as is: */
    struct close_hook calls_hook;

    struct loop_state *slots[LOOP_SLOT_COUNT];

    struct kept_error raised; /* what tram_loop_raise() remembers until the code comes back */
    bool raised_set;
    struct raised_user *raised_users; /* raised.c; NULL: none */

    tram_callback stand_in; /* a function of ours that runs as a callback, and what reports name in its place */
    const void *stands_for;
    tram_exception_handler exception_handler;
    void *exception_arg;
    tram_log_function log;
    void *log_arg;
    struct log_limiter log_limiter;
    uint64_t slow_callback_ns;
    struct spin spin;
    void (*before_wait)(tram_loop *loop, void *arg);
    void (*after_wait)(tram_loop *loop, void *arg);
    void *wait_arg;

    struct executor_link *executor;        /* the default executor: executor.c */
    struct tram_executor *shared_executor; /* what it is unless another is set: that of the runtime; NULL: its own */
    struct signal_record *signal_records;  /* signals.c */
    struct close_hook signal_hook;
    void (*on_signals)(tram_loop *loop, uint64_t came); /* called with the signals in mailbox->signals */

    size_t unfinished; /* things of an upper floor that a worker waits for when it ends */
    size_t awaited;    /* connections that were asked to end and have not yet, and work of connections */
    uint64_t cut;      /* … that were reset since they had not by the end of the grace */
    uint64_t end_ns;   /* the end of the grace; 0: the loop is not asked to end */

    /* The runtime's: called when somebody asked by mailbox_control(), and in every tick, if set. */
    void (*on_control)(tram_loop *loop, void *arg);
    void (*on_wake)(tram_loop *loop, void *arg);
    void *worker;
    unsigned mail_limit; /* in one tick */

    uint64_t tick_ended; /* by the clock, with measure_lag; 0: long ago */
    struct slow_sites slow_sites;
    tram_lag lag;
    tram_stats stats;
};

/*
 * The clock of a tick for what is to cost next to nothing: the time at which timers are due in it. 0 where that is not
 * known, calls are checked, or this is a child of fork(): outside of ticks, without timers, in debug mode.
 */
#define LOOP_TURN        (1ull << 63)
#define LOOP_TURN_OFFSET 128 /* of the page: a line of its own, for posting threads read the guard */

/* Any thread. */
static inline enum guard loop_guard(const tram_loop *loop) {
    return (enum guard)atomic_load_explicit(loop->guard, memory_order_relaxed);
}

/* Any thread. No call needs another look at it. */
static inline bool loop_is_plain(const tram_loop *loop) {
    return likely(loop_guard(loop) == GUARD_PLAIN);
}

static inline uint64_t tram__clock(const tram_loop *loop) {
    struct timespec now;
    loop->sys->clock_gettime(CLOCK_MONOTONIC, &now);
    return time_of(&now);
}

#endif
