/*
 * The loop's inside, shared by the files of core and the transports. All fields belong to the loop's thread
 * but for `mailbox`, `stats` and `guard`.
 */
#ifndef TRAM_CORE_LOOP_H
#define TRAM_CORE_LOOP_H

#include <pthread.h>

#include "core/compiler.h"
#include "core/io.h"
#include "core/limits.h"
#include "core/list.h"
#include "core/mailbox.h"
#include "core/memory.h"
#include "core/poller.h"
#include "core/pool.h"
#include "core/stats.h"
#include "core/sys.h"
#include "core/timers.h"
#include <tram/future.h>
#include <tram/loop.h>

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

/* Something to free at the end of the tick, when no event or callback on the stack can refer to it any more.
 */
struct grave {
    struct grave *next;
    void (*dispose)(tram_loop *loop, struct grave *grave);
};

/* An error that is kept: texts included. */
struct kept_error {
    tram_error error;
    char detail[TRAM_ERROR_TEXT];
};

/* io slots: what the generation in an event is compared with. */
struct io_slot {
    struct io *io;       /* NULL: free */
    uint32_t generation; /* changes when the io leaves */
    uint32_t next_free;
};

/* Free chunks of one size, kept for reuse. */
struct chunk_cache {
    struct chunk *free;
    unsigned count;
};

struct call_slots; /* handles.c */

enum guard {
    GUARD_FORKED = 0, /* the page was wiped: this is a child of fork() */
    GUARD_PLAIN = 1,
    GUARD_DEBUG = 2,
};

struct tram_loop {
    /* the tick */
    struct list ready;  /* queued callbacks */
    struct list batch;  /* those that this tick runs */
    struct grave *dead; /* freed when the tick ends */
    const struct poller_ops *poller_ops;
    struct poller *poller;

    bool running;
    bool in_tick;
    bool stopping; /* stop was asked for */
    bool closing;  /* tram_loop_close() is at work */
    bool closed;
    bool debug;
    bool in_exception_handler;
    bool owned;
    pthread_t owner; /* of a loop that runs, or is driven by prepare and dispatch */

    struct timers timers;

    /* What posting threads read: constant, and no neighbour of what changes in every tick. */
    volatile unsigned char *guard; /* enum guard, on a page that fork() wipes */
    struct mailbox *mailbox;
    const struct sys *sys;
    void *receive_buffer; /* TRAM_RECEIVE_SIZE, for whatever io receives next */
    tram_allocator allocator;

    /* slots */
    struct io_slot *io_slots;
    uint32_t io_slot_count;
    uint32_t io_slot_free;
    uint32_t *descriptors; /* by descriptor: the slot of its io, or 0 */
    uint32_t descriptor_count;
    struct call_slots *calls;

    /* for the transports, which set them up at first use */
    struct pool transport_pool;
    struct chunk_cache chunk_cache[2]; /* write_queue.c */
    struct ready release_ready;        /* queued while `released` is not empty */
    tram_protocol *released;           /* protocols waiting for their `released`, linked through `reserved` */
    tram_protocol *released_last;
    void (*at_free)(tram_loop *loop); /* gives the transports' memory back */

    struct kept_error raised; /* what tram_loop_raise() remembers until the code comes back */
    bool raised_set;

    tram_exception_handler exception_handler;
    void *exception_arg;
    tram_log_function log;
    void *log_arg;
    uint64_t slow_callback_ns;
    uint64_t spin_ns;

    void *extra_info; /* where get_extra_info puts its answer: transports */
    size_t extra_info_size;
    struct executor_link *executor;       /* the default executor: executor.c */
    struct signal_record *signal_records; /* signals.c */

    void (*on_wake)(tram_loop *loop, void *arg); /* called in every tick, if set: the runtime's */
    void *on_wake_arg;

    tram_stats stats;
};

/* ---- Entering: what every public call does first ---- */

/* 0, -ECHILD in a forked child, or in debug mode TRAM_ESTATE on a wrong thread, which is reported. */
int tram__loop_enter_slow(const tram_loop *loop, const char *function);

static inline int loop_enter(const tram_loop *loop, const char *function) {
    if (likely(*loop->guard == GUARD_PLAIN))
        return 0;
    return tram__loop_enter_slow(loop, function);
}

/* The same for calls that schedule or register: TRAM_ESTATE once the loop is closed. */
static inline int loop_enter_open(const tram_loop *loop, const char *function) {
    int status = loop_enter(loop, function);
    if (unlikely(status))
        return status;
    return unlikely(loop->closed) ? TRAM_ESTATE : 0;
}

/* ---- Scheduling ---- */

static inline void loop_ready(tram_loop *loop, struct ready *ready) {
    list_append(&loop->ready, &ready->link);
}

uint64_t tram__clock(const tram_loop *loop);

/* 0 or -ENOMEM. The deadline must be idle; starting it again needs a cancel first. */
int tram__deadline_start(tram_loop *loop, struct deadline *deadline, uint64_t when_ns);
static inline void deadline_cancel(tram_loop *loop, struct deadline *deadline) {
    tram__timers_cancel(&loop->timers, &deadline->timer);
}

/* Frees by `dispose` at the end of the tick, or at once outside of one. */
void tram__loop_bury(tram_loop *loop, struct grave *grave, void (*dispose)(tram_loop *loop, struct grave *grave));

/* Asks every io of the loop to end; see enum io_ending. */
void tram__loop_end_all(tram_loop *loop, enum io_ending ending);

/* Around a callback in debug mode: logs it if it was slow (L-30). */
void tram__slow_callback(tram_loop *loop, uint64_t start_ns, const void *function, const char *what);

static inline uint64_t slow_begin(const tram_loop *loop) {
    return unlikely(loop->debug) ? tram__clock(loop) : 0;
}

static inline void slow_end(tram_loop *loop, uint64_t start_ns, const void *function, const char *what) {
    if (unlikely(start_ns))
        tram__slow_callback(loop, start_ns, function, what);
}

/* ---- Reporting: report.c ---- */

void tram__log(tram_loop *loop, tram_log_level level, const char *format, ...) TRAM_PRINTF(3, 4);

/* Gives the record to the exception handler (L-27 to L-29). */
void tram__report(tram_loop *loop, const tram_exception *exception);

/* The error that a callback's negative `code` stands for, with what tram_loop_raise() left. Valid until the
 * next callback. */
const tram_error *tram__raised(tram_loop *loop, int code, const char *operation);

/* Reports the failure of a loop callback. */
void tram__report_callback(tram_loop *loop, int code, const void *function, const char *message, tram_handle handle);

/* Copies an error with its texts. */
void tram__error_keep(struct kept_error *kept, const tram_error *error);

/* The name of a function, as far as the dynamic linker knows it; `text` is used if it must be made. */
const char *tram__function_name(const void *function, char *text, size_t size);

/* ---- Parts, each in its own file ---- */

int tram__calls_open(tram_loop *loop);     /* handles.c */
void tram__calls_discard(tram_loop *loop); /* all that are queued */
void tram__calls_close(tram_loop *loop);
void tram__signals_dispatch(tram_loop *loop); /* signals.c: queues the handlers of what came */
void tram__signals_close(tram_loop *loop);
void tram__executor_close(tram_loop *loop); /* executor.c */

/* Makes a loop with another system-call table (tests); `sys` must outlive it. */
int tram__loop_new(const tram_loop_options *options, const struct sys *sys, tram_loop **ret_loop);

#endif
