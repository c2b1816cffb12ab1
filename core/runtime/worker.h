/* A worker of a runtime: a loop, its thread, and how far it is in its life. */
#ifndef TRAM_CORE_RUNTIME_WORKER_H
#define TRAM_CORE_RUNTIME_WORKER_H

#include <pthread.h>

#include "core/base/life.h"
#include "core/loop/loop.h"
#include <tram/runtime.h>

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

/* Makes its loop; the worker knows its runtime and its number. Also what failed is to be freed. */
int tram__worker_open(struct worker *worker, const tram_loop_options *options);
void tram__worker_free(struct worker *worker);

/* The thread starts the worker, reports, and runs the loop if all others have started as well. */
int tram__worker_create_thread(struct worker *worker);

/* Is the calling thread a worker of this runtime? */
bool tram__runtime_is_worker(const tram_runtime *runtime);

#endif
