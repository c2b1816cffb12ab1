/*
 * The runtime from the inside: workers, and the parts that run on all of them. Core knows a part by its table only;
 * sharded servers are one kind (transports/sharded/server.c).
 */
#ifndef TRAM_CORE_RUNTIME_RUNTIME_H
#define TRAM_CORE_RUNTIME_RUNTIME_H

#include "core/base/life.h"
#include "core/loop/loop.h"
#include <tram/runtime.h>

struct runtime_part;

struct runtime_part_ops {
    /* On the worker's thread, before its loop runs: 0 or a negative code, which fails the start of the runtime. Not
     * called for a part that is late. */
    int (*start)(struct runtime_part *part, unsigned worker, tram_loop *loop);
    /* On the worker's thread, after its loop ended and before it is closed. */
    void (*stop)(struct runtime_part *part, unsigned worker);
    /*
     * On the worker's thread, after the servers are closed: is something on its way to it that must still be heard, or
     * came since this was asked last? It must be over soon: the worker does not sleep meanwhile. NULL: never.
     */
    bool (*expects)(struct runtime_part *part, unsigned worker);
    /* On the worker's thread: writes who still has a connection there, as far as it fits; NULL: nobody. */
    void (*describe)(struct runtime_part *part, unsigned worker, char *text, size_t size);
    /* When nobody holds it any more; or with the runtime, when no worker runs any more. */
    void (*free)(struct runtime_part *part);
};

/* Made zeroed, but for `ops`. Counted: it stays in the list until the last hold goes. */
struct runtime_part {
    struct list link;
    const struct runtime_part_ops *ops;
    unsigned holds; /* guarded by the runtime's lock */
    bool late;      /* the workers had begun to start: it is handed over by mail */
};

enum worker_life {
    WORKER_NONE,
    WORKER_STARTING,       /* its `start` function has not succeeded */
    WORKER_SERVES,         /* … it has; the loop runs when that of every worker has */
    WORKER_DRAINING_INPUT, /* servers are closed; what clients had sent by then is still delivered */
    WORKER_DRAINS,         /* connections that are served were asked to end */
    WORKER_DRAINED,        /* none of them is left here; what those of other workers want of this one is done */
    WORKER_CLOSES,         /* none is left anywhere: what they may have needed is closed */
    WORKER_CLOSED,         /* that is done here; it waits for the others */
    WORKER_EXITING,        /* a last turn for what is queued */
    WORKER_ENDED,          /* the loop does not run any more */
    WORKER_COUNT,
};

enum worker_move {
    WORKER_START,      /* its `start` function has succeeded */
    WORKER_STOP,       /* a stop was asked for */
    WORKER_DRAIN,      /* what clients had sent is delivered */
    WORKER_DRAIN_DONE, /* connections and their work have ended, or the grace is over */
    WORKER_CLOSE,      /* all workers are as far, or are not waited for any more */
    WORKER_CLOSE_DONE, /* nothing is left */
    WORKER_EXIT,       /* the same of all workers */
    WORKER_LEAVE,      /* the loop has returned; also before all that, where the user stopped it or the start failed */
};

struct worker {
    tram_runtime *runtime;
    unsigned index;
    tram_loop *loop;
    struct mailbox *mailbox; /* held: a stop may come after the loop was closed */
    pthread_t thread;
    bool joinable;         /* it was created, and nobody has joined it */
    int status;            /* of starting */
    _Atomic(void *) state; /* the user's, as `start` and `stop` have left it */

    /* of the worker's thread until it is joined */
    uint8_t life;   /* enum worker_life */
    uint8_t told;   /* … as far as the others know */
    bool aborts;    /* the grace is over */
    bool alone;     /* … for long: it does not wait for the others any more */
    unsigned turns; /* of hearing that are left */
    struct ready turn;
    struct deadline grace;
    uint64_t connections; /* made when they were last asked to end */
};

enum runtime_state { RUNTIME_NEW, RUNTIME_STARTS, RUNTIME_RUNS, RUNTIME_ENDED };
/* What the workers are to do. */
enum runtime_asked {
    ASKED_NOTHING,
    ASKED_DRAIN, /* to end, and the next stop is the first */
    ASKED_STOP,  /* to end */
    ASKED_AGAIN, /* … without the rest of the grace */
};

struct tram_runtime {
    tram_allocator allocator;
    tram_runtime_options options; /* `name` and `loop` are not valid any more */
    char name[16];
    struct tram_executor *executor; /* the default one of all loops */
    pthread_mutex_t joining;        /* held while workers are waited for: no worker may take it */
    pthread_mutex_t lock;           /* of what follows; held for some instructions, and while nothing is called */
    pthread_cond_t changed;
    enum runtime_state state;
    unsigned reported; /* workers that know whether they can start */
    struct list parts;
    unsigned pins; /* jobs of other threads that need the runtime: freeing it waits for them */
    bool freeing;
    unsigned ran_out;                       /* workers whose loop does not run any more, … */
    unsigned stopped;                       /* … and whose `stop` function has returned */
    _Atomic unsigned asked;                 /* enum runtime_asked */
    _Atomic unsigned reached[WORKER_COUNT]; /* workers that are as far as that, or further */
    _Atomic uint64_t signalled_ns;          /* when the last signal came that counted as a stop */
    unsigned count;
    struct worker workers[];
};

/* 0, or -ECHILD in a forked child. */
int tram__runtime_enter(const tram_runtime *runtime);

/* Is the calling thread one of its workers? */
bool tram__runtime_is_worker(const tram_runtime *runtime);

/*
 * Adds a part, with one hold, the caller's. 0: it is started with the workers, or, if it is late now, by mail that the
 * caller sends them; or TRAM_ESTATE: the runtime ends. Any thread.
 */
int tram__runtime_add_part(tram_runtime *runtime, struct runtime_part *part);

/* The part of this kind, of which there is one at most; NULL: none. Any thread. */
struct runtime_part *tram__runtime_find_part(tram_runtime *runtime, const struct runtime_part_ops *ops);

/* Adds such a part, as above; -EEXIST: there is one of its kind. */
int tram__runtime_add_only_part(tram_runtime *runtime, struct runtime_part *part);

/* Does it end, or has it ended, so that nothing can be added? Any thread. */
bool tram__runtime_ends(tram_runtime *runtime);

/* Any thread. Without any hold the part is freed. */
void tram__runtime_hold_part(tram_runtime *runtime, struct runtime_part *part);
void tram__runtime_release_part(tram_runtime *runtime, struct runtime_part *part);

/* A job on a thread that nobody joins needs the runtime until it lets go of it again. Any thread. */
void tram__runtime_pin(tram_runtime *runtime);
void tram__runtime_unpin(tram_runtime *runtime);

/* Where calls that fail keep the texts of an error for their caller: valid until the next one on this thread. */
struct kept_error *tram__runtime_error(void);

#endif
