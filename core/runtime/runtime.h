/*
 * The runtime from the inside: workers, and the parts that run on all of them. Core knows a part by its table only;
 * sharded servers are one kind (transports/sharded/server.c).
 */
#ifndef TRAM_CORE_RUNTIME_RUNTIME_H
#define TRAM_CORE_RUNTIME_RUNTIME_H

#include "core/loop/loop.h"
#include <tram/runtime.h>

struct runtime_part;

struct runtime_part_ops {
    /* On the worker's thread, before its loop runs: 0 or a negative code, which fails the start of the runtime. */
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
    /* With the runtime, when no worker runs any more. */
    void (*free)(struct runtime_part *part);
};

struct runtime_part {
    struct list link;
    const struct runtime_part_ops *ops;
};

/* How far a worker is with its end. */
enum worker_phase {
    WORKER_SERVES,
    WORKER_DRAINING_INPUT, /* servers are closed; what clients had sent by then is still delivered */
    WORKER_CLOSES,         /* connections flush */
    WORKER_ABORTS,         /* the grace period is over */
    WORKER_EXITING,        /* a last turn for what is queued */
};

struct worker {
    tram_runtime *runtime;
    unsigned index;
    tram_loop *loop;
    struct mailbox *mailbox;    /* held: a stop may come after the loop was closed */
    struct mail *stop_mails[2]; /* made beforehand, so that a signal handler can post them */
    struct mail *left_mail;     /* to worker 0: this one has left; NULL once it is posted */
    pthread_t thread;
    bool created;
    bool joined;
    bool started; /* its `start` function succeeded */
    int status;   /* of starting */
    void *state;  /* the user's */

    /* the end; of the worker's thread until it is joined */
    enum worker_phase phase;
    unsigned turns; /* of hearing that are left */
    struct ready turn;
    struct deadline grace;
    uint64_t connections; /* made when they were last asked to end */
    uint64_t aborted;
};

enum runtime_state { RUNTIME_NEW, RUNTIME_RUNS, RUNTIME_ENDED };
enum runtime_verdict { VERDICT_OPEN, VERDICT_RUN, VERDICT_GIVE_UP };

struct tram_runtime {
    tram_allocator allocator;
    tram_runtime_options options; /* `name` and `loop` are not valid any more */
    char name[16];
    pthread_mutex_t control; /* one at a time: starting, and adding a part */
    pthread_mutex_t joining;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    enum runtime_state state;
    enum runtime_verdict verdict; /* on the start */
    unsigned reported;            /* workers that know whether they can start */
    struct list parts;
    _Atomic unsigned stops;         /* how often a stop was asked for */
    _Atomic unsigned left;          /* workers whose loop has ended */
    struct kept_error server_error; /* of the last tram_runtime_create_server() that failed */
    unsigned count;
    struct worker workers[];
};

/* 0, or -ECHILD in a forked child. */
int tram__runtime_enter(const tram_runtime *runtime);

/* Is the calling thread one of its workers? */
bool tram__runtime_is_worker(const tram_runtime *runtime);

/* Adds a part, with `control` held; it is started with the workers, or not at all if they run already. */
void tram__runtime_add_part(tram_runtime *runtime, struct runtime_part *part);

#endif
