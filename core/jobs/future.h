/*
 * Futures from the inside: an operation embeds a tram_future as its first member and completes it once.
 *
 * Reference counting is plain: futures never leave their loop's thread. A pending operation holds its own
 * future.
 */
#ifndef TRAM_CORE_JOBS_FUTURE_H
#define TRAM_CORE_JOBS_FUTURE_H

#include "core/base/invalid.h"
#include "core/loop/loop.h"
#include "core/loop/report.h"
#include <tram/future.h>

/* What a future's value is, for the readers by type. */
enum future_value { FUTURE_VALUE_OTHER, FUTURE_VALUE_TRANSPORT, FUTURE_VALUE_SERVER, FUTURE_VALUE_COUNT };

/* What an operation adds to a future; both functions may be NULL. */
struct future_kind {
    const char *name;
    enum future_value value;
    /*
     * The user asks to cancel. The operation takes itself back and completes the future with
     * tram__future_finish_cancelled(), now or later. NULL: the future is cancelled at once.
     */
    void (*cancel)(tram_future *future);
    /* Instead of `cancel`, for what counts requests: called for each one while the future is pending; 1 or 0, as
     * tram_future_cancel() returns. */
    int (*request)(tram_future *future);
    /* Tells of an error that nobody read, which is whole still. NULL: the loop does it, later. */
    void (*report)(tram_future *future);
    /* The last reference went: free what the operation and the value need, not the future itself. */
    void (*destroy)(tram_future *future);
    /* Gives its memory back, which is not the allocator's; NULL: it is. */
    void (*recycle)(tram_future *future);
};

enum future_state { FUTURE_PENDING, FUTURE_RESULT, FUTURE_ERROR, FUTURE_CANCELLED };

/*
 * Waits for a future without an allocation: embedded in its owner, who holds the future meanwhile. `ready.run` is
 * called as a done callback is, once the future is done.
 */
struct future_watch {
    struct ready ready;
    tram_future *future;
    bool embedded; /* false: part of a struct done_callback */
};

/* A user's callback: it waits for the future and then, where it holds it, in the ready queue. */
struct done_callback {
    struct future_watch watch;
    tram_future_callback callback;
    void *arg;
    tram_discard discard; /* NULL: none */
};

/* Who waits for a future. */
enum future_waits {
    WAITS_NOBODY,
    WAITS_FIRST,          /* a callback, by the future's first record, which is in no list; or in the ready queue */
    WAITS_LIST,           /* those in the list, if any are left; the first record is not used */
    WAITS_LIST_WITH_FIRST /* it is one of them, the foremost; or in the ready queue */
};

/* The life of one that succeeds touches two cache lines: what comes before `let_go`. */
struct tram_future {
    const struct future_kind *kind;
    tram_loop *loop;
    struct list callbacks;      /* struct future_watch; see enum future_waits */
    struct done_callback first; /* most futures have one callback: it needs no memory, and no list */
    void *value;
    void *user; /* the user's own */
    union {
        uint32_t size;   /* of the whole object … */
        uint32_t number; /* … or, where a kind recycles it, the kind's own */
    };
    uint32_t references;
    /* A word, which is written at once: a processor waits for a part of it that was written apart. */
    uint8_t state;   /* enum future_state */
    uint8_t waits;   /* enum future_waits */
    uint8_t marks;   /* the kind's own */
    bool cancelling; /* the operation was asked to cancel */
    bool retrieved;  /* somebody read the error, or the value */
    bool holds;      /* more than its memory: what follows was set, and is given back with the last reference */
    uint8_t unused[2];

    void (*let_go)(void *value); /* gives back what the future holds of its value; NULL: nothing */
    tram_error error;            /* of a failed one; its texts and causes lie in `texts` */
    void *texts;                 /* NULL also where memory ran out: then the code alone tells */
    size_t texts_size;
    struct ready report;
};

_Static_assert(offsetof(tram_future, let_go) <= 128, "two cache lines");

/* What every public call does first: as loop_enter(), and NULL is no future. */
static inline int future_enter(const tram_future *future, const char *function) {
    return unlikely(!future) ? tram__invalid("future") : loop_enter(future->loop, function);
}

static inline int future_enter_open(const tram_future *future, const char *function) {
    return unlikely(!future) ? tram__invalid("future") : loop_enter_open(future->loop, function);
}

/* Once the future is done, or at once if it is, `run` joins the ready queue. */
void tram__future_watch(tram_future *future, struct future_watch *watch, void (*run)(tram_loop *, struct ready *));

/* `run` does not come any more; harmless if it came. */
static inline void future_unwatch(struct future_watch *watch) {
    list_remove(&watch->ready.link);
}

static inline void future_begin(tram_future *future, uint8_t marks) {
    future->state = FUTURE_PENDING;
    future->waits = WAITS_NOBODY;
    future->marks = marks;
    future->cancelling = false;
    future->retrieved = false;
    future->holds = false;
    future->unused[0] = future->unused[1] = 0;
}

/* Makes a future of any memory, with one reference, the caller's. Its size is set where no kind recycles it. */
static inline void tram__future_init(tram_future *future, tram_loop *loop, const struct future_kind *kind) {
    future->kind = kind;
    future->loop = loop;
    list_init(&future->callbacks);
    future->value = NULL;
    future->user = NULL;
    future->references = 1;
    future_begin(future, 0);
}

/* The same of one that a kind has recycled: its loop is what it was, and nothing waits for it. */
static inline void future_renew(tram_future *future, const struct future_kind *kind, uint32_t references,
                                uint8_t marks) {
    future->kind = kind;
    future->user = NULL;
    future->references = references;
    future_begin(future, marks);
}

/* An object of `size` bytes that begins with a tram_future; the rest is zeroed. One reference, the caller's.
 */
int tram__future_new(tram_loop *loop, const struct future_kind *kind, size_t size, void *ret_future);

static inline tram_future *tram__future_hold(tram_future *future) {
    future->references++;
    return future;
}

/* The last reference went. */
void tram__future_end(tram_future *future);

static inline void tram__future_drop(tram_future *future) {
    if (--future->references == 0)
        tram__future_end(future);
}

/* Does a callback, or a watch, wait for it? */
static inline bool future_awaited(const tram_future *future) {
    return future->waits == WAITS_FIRST || !list_empty(&future->callbacks);
}

/* With the last reference `let_go` is called with the value. */
void tram__future_holds_value(tram_future *future, void (*let_go)(void *value));

/*
 * Complete it; harmless if it is done already. Callbacks are queued (X-2, L-40), or dropped once the loop is
 * closing. An error's texts are copied, but for `operation` of fail_code, which is a constant.
 */
void tram__future_finish(tram_future *future, void *value);
void tram__future_fail(tram_future *future, const tram_error *error);
void tram__future_fail_code(tram_future *future, int code, const char *operation);
void tram__future_finish_cancelled(tram_future *future);

/* Is it, as in general, one callback that waits for it, which is to be queued? */
static inline bool future_waits_simply(const tram_future *future) {
    const tram_loop *loop = future->loop;
    return likely(future->state == FUTURE_PENDING && future->waits == WAITS_FIRST && loop->in_tick && !loop->closed);
}

/* Completes one of which that is true; the operation's reference becomes that of the queue. */
static inline void future_finish_simply(tram_future *future, void *value) {
    future->value = value;
    future->state = FUTURE_RESULT;
    list_append(&future->loop->ready, &future->first.watch.ready.link);
}

/* As tram_future_remove_done_callback(), but takes off also what is in the ready queue: afterwards it does not come. */
void tram__future_unhook(tram_future *future, tram_future_callback callback, void *arg);

#endif
