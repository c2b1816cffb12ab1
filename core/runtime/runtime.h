/* The runtime from the inside. */
#ifndef TRAM_CORE_RUNTIME_RUNTIME_H
#define TRAM_CORE_RUNTIME_RUNTIME_H

#include <errno.h>

#include "core/runtime/parts.h"
#include "core/runtime/worker.h"

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
static inline int runtime_enter(const tram_runtime *runtime) {
    return loop_guard(runtime->workers[0].loop) == GUARD_FORKED ? -ECHILD : 0;
}

/* Where calls that fail keep the texts of an error for their caller: valid until the next one on this thread. */
struct kept_error *tram__runtime_error(void);

#endif
