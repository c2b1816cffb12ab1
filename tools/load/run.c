#include "load/run.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Connections on their way at a time, of all workers: a listener with a small backlog must keep up. */
enum { OPENING_LIMIT = 64 };

/* From the moment when all are connected to the start, so that every worker hears of it before. */
#define START_DELAY_NS UINT64_C(5000000)

struct load_run {
    const load_plan *plan;
    tram_runtime *runtime;
    load_worker **workers;
    unsigned worker_count;
    load_live *live;
    load_tally total;
    pattern pattern;

    atomic_uint opening; /* workers that have not opened all their connections */
    atomic_uint fertile; /* workers that have connections left */
    atomic_uint running; /* workers that have not ended */
    atomic_uint_fast64_t usable;
    _Atomic uint64_t start_ns;
    _Atomic uint64_t end_ns; /* of an early end */
    atomic_bool interrupted;
};

/* ---- From one worker to all ---- */

static int post(load_run *self, tram_callback callback) {
    int result = 0;
    for (unsigned i = 0; i < self->worker_count; i++) {
        int code =
            tram_loop_call_soon_threadsafe(tram_runtime_loop(self->runtime, i), callback, self->workers[i], NULL);
        result = code < 0 ? code : result;
    }
    return result;
}

static int begin_worker(tram_loop *loop, void *arg) {
    (void)loop;
    load_worker *worker = arg;
    load_run *self = worker->owner;
    unsigned index = 0;
    while (self->workers[index] != worker) {
        index++;
    }
    load_start start = {
        .start_ns = atomic_load(&self->start_ns),
        .usable = atomic_load(&self->usable),
        .phase = (double)index / self->worker_count,
    };
    load_worker_begin(worker, &start);
    return 0;
}

static int end_worker(tram_loop *loop, void *arg) {
    (void)loop;
    load_worker *worker = arg;
    load_run *self = worker->owner;
    load_worker_end(worker, atomic_load(&self->end_ns));
    return 0;
}

static void end_early(load_run *self, uint64_t now_ns) {
    atomic_store(&self->end_ns, now_ns);
    if (post(self, end_worker) < 0) {
        tram_runtime_stop(self->runtime);
    }
}

/* ---- What workers tell ---- */

static void worker_opened(load_worker *worker) {
    load_run *self = worker->owner;
    atomic_fetch_add(&self->usable, worker->alive);
    if (atomic_fetch_sub(&self->opening, 1) > 1) {
        return;
    }
    uint64_t now_ns = tram_loop_time(worker->shard.loop);
    if (atomic_load(&self->usable) == 0) {
        end_early(self, now_ns);
        return;
    }
    atomic_store(&self->start_ns, now_ns + START_DELAY_NS);
    if (post(self, begin_worker) < 0) {
        tram_runtime_stop(self->runtime);
    }
}

static void worker_barren(load_worker *worker) {
    load_run *self = worker->owner;
    if (atomic_fetch_sub(&self->fertile, 1) == 1) {
        end_early(self, tram_loop_time(worker->shard.loop));
    }
}

static void worker_ended(load_worker *worker) {
    load_run *self = worker->owner;
    if (atomic_fetch_sub(&self->running, 1) == 1) {
        tram_runtime_stop(self->runtime);
    }
}

static const load_worker_events run_events = {
    .opened = worker_opened,
    .barren = worker_barren,
    .ended = worker_ended,
};

/* ---- Signals ---- */

/* More than one changes nothing: what follows the first takes LOAD_DRAIN_NS at most. */
static int on_signal(tram_loop *loop, void *arg) {
    load_run *self = arg;
    if (!atomic_exchange(&self->interrupted, true)) {
        end_early(self, tram_loop_time(loop));
    }
    return 0;
}

static int start_worker(tram_runtime *runtime, unsigned index, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)state;
    load_run *self = arg;
    int code = 0;
    if (index == 0) {
        code = tram_loop_add_signal_handler(loop, SIGINT, on_signal, self);
        if (code == 0) {
            code = tram_loop_add_signal_handler(loop, SIGTERM, on_signal, self);
        }
    }
    return code < 0 ? code : load_worker_open(self->workers[index], loop);
}

/* ---- The run ---- */

static int make_workers(load_run *self) {
    const load_plan *plan = self->plan;
    unsigned limit = OPENING_LIMIT / self->worker_count;
    uint64_t first = 0;
    self->workers = calloc(self->worker_count, sizeof(load_worker *));
    if (self->workers == NULL) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < self->worker_count; i++) {
        uint64_t count = plan->connections / self->worker_count + (i < plan->connections % self->worker_count);
        load_worker_options options = {
            .plan = plan,
            .pattern = &self->pattern,
            .first_number = first,
            .count = count,
            .opening_limit = limit > 0 ? limit : 1,
            .live = self->live,
            .events = &run_events,
            .owner = self,
        };
        self->workers[i] = load_worker_new(&options);
        if (self->workers[i] == NULL) {
            return -ENOMEM;
        }
        first += count;
    }
    return 0;
}

static int make_runtime(load_run *self) {
    tram_runtime_options options = {
        .workers = self->worker_count,
        .name = "tram-load",
        .grace_ns = 1000000000,
        .start = start_worker,
        .arg = self,
        .loop = {.log = tram_log_to_stderr},
    };
    return tram_runtime_new(&options, &self->runtime);
}

int load_run_new(const load_plan *plan, bool watched, load_run **ret_run) {
    load_run *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        return -ENOMEM;
    }
    uint64_t workers = plan->workers > 0 ? plan->workers : tram_available_cpus().count;
    self->plan = plan;
    self->worker_count = (unsigned)(workers < plan->connections ? workers : plan->connections);
    atomic_init(&self->opening, self->worker_count);
    atomic_init(&self->fertile, self->worker_count);
    atomic_init(&self->running, self->worker_count);
    pattern_fill(&self->pattern);
    int code = 0;
    if (watched) {
        self->live = load_live_new(self->worker_count);
        code = self->live == NULL ? -ENOMEM : 0;
    }
    if (code == 0) {
        code = make_workers(self);
    }
    if (code == 0) {
        code = make_runtime(self);
    }
    if (code < 0) {
        load_run_free(self);
        return code;
    }
    *ret_run = self;
    return 0;
}

void load_run_free(load_run *self) {
    tram_runtime_free(self->runtime);
    for (unsigned i = 0; self->workers != NULL && i < self->worker_count; i++) {
        load_worker_free(self->workers[i]);
    }
    free(self->workers);
    load_live_free(self->live);
    free(self);
}

int load_run_execute(load_run *self) {
    int code = tram_runtime_run(self->runtime);
    if (self->live != NULL) {
        load_live_erase(self->live);
    }
    for (unsigned i = 0; i < self->worker_count; i++) {
        load_tally_add(&self->total, &self->workers[i]->shard.tally);
    }
    return code < 0 ? code : 0;
}

unsigned load_run_workers(const load_run *self) {
    return self->worker_count;
}

const load_tally *load_run_tally(const load_run *self, unsigned worker) {
    return &self->workers[worker]->shard.tally;
}

const load_tally *load_run_total(const load_run *self) {
    return &self->total;
}

bool load_run_interrupted(const load_run *self) {
    return atomic_load(&self->interrupted);
}
