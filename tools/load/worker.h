/* The load of one loop: opens its connections, keeps the schedule, measures, ends. */
#ifndef TRAM_LOAD_WORKER_H
#define TRAM_LOAD_WORKER_H

#include "load/connection.h"
#include "load/live.h"

/* A request counts as late if the loop was this late to send it, and it was not for want of an answer. */
#define LOAD_LATE_NS UINT64_C(1000000)

/* How long answers are awaited after the last request. */
#define LOAD_DRAIN_NS UINT64_C(2000000000)

struct load_worker;

/* What a worker tells. Called on its thread; each at most once. */
typedef struct load_worker_events {
    void (*opened)(struct load_worker *worker); /* all its connections proved themselves, or failed */
    void (*barren)(struct load_worker *worker); /* none of them is left, though there is time left */
    void (*ended)(struct load_worker *worker);  /* it has nothing more to do */
} load_worker_events;

typedef struct load_worker {
    load_shard shard; /* first: connections point to it */
    void *owner;
    const load_worker_events *events;
    load_live *live; /* NULL: nobody watches */

    load_connection *connections;
    uint64_t *rings;
    load_connection **dealt; /* the usable ones, by turn */
    uint64_t count;

    uint64_t next;    /* the first connection that was not opened yet */
    uint64_t opening; /* connections on their way */
    uint64_t opening_limit;
    uint64_t refusals; /* connections that failed while none was made */
    uint64_t alive;    /* usable connections */

    uint64_t start_ns;
    uint64_t live_ns;
    uint64_t cpu_from_ns;
    bool ended;
} load_worker;

/* What a worker is given. */
typedef struct load_worker_options {
    const load_plan *plan;
    const pattern *pattern;
    uint64_t first_number; /* of its connections, which are `count` */
    uint64_t count;
    uint64_t opening_limit; /* connections on their way at a time */
    load_live *live;
    const load_worker_events *events;
    void *owner;
} load_worker_options;

/* NULL: out of memory. */
load_worker *load_worker_new(const load_worker_options *options);

/* After its loop was closed. */
void load_worker_free(load_worker *self);

/* Begins to open connections. On the thread of `loop`, as all that follows. */
int load_worker_open(load_worker *self, tram_loop *loop);

/* When and how fast: common to all workers, but for the phase. */
typedef struct load_start {
    uint64_t start_ns;
    uint64_t usable; /* connections of all workers, among which the rate is shared */
    double phase;
} load_start;

void load_worker_begin(load_worker *self, const load_start *start);

/* Ends the measurement as if `until_ns` had been its planned end. Harmless after the end. */
void load_worker_end(load_worker *self, uint64_t until_ns);

#endif
