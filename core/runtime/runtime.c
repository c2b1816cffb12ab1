/* The runtime: N loops, each on a thread of its own. Loops are made before their threads, so that what can go wrong
 * goes wrong in tram_runtime_new(). */
#include "core/runtime/runtime.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "core/base/invalid.h"
#include "core/system/fault.h"
#include "core/system/threads.h"

#define EXECUTOR_LIMIT 65536

struct kept_error *tram__runtime_error(void) {
    static _Thread_local struct kept_error error;
    return &error;
}

/* ---- Starting ---- */

static void join_all(tram_runtime *runtime) {
    pthread_mutex_lock(&runtime->joining);
    for (unsigned i = 0; i < runtime->count; i++) {
        struct worker *worker = &runtime->workers[i];
        if (worker->joinable)
            pthread_join(worker->thread, NULL);
        worker->joinable = false;
    }
    pthread_mutex_unlock(&runtime->joining);
}

/* All workers run, or none is left. */
static int start_workers(tram_runtime *runtime) {
    unsigned created = 0;
    int status = 0;
    while (created < runtime->count && !status) {
        status = tram__worker_create_thread(&runtime->workers[created]);
        created += status == 0;
    }
    pthread_mutex_lock(&runtime->lock);
    while (runtime->reported < created)
        pthread_cond_wait(&runtime->changed, &runtime->lock);
    for (unsigned i = 0; i < created && !status; i++)
        status = runtime->workers[i].status;
    runtime->state = status ? RUNTIME_ENDED : RUNTIME_RUNS;
    pthread_cond_broadcast(&runtime->changed);
    pthread_mutex_unlock(&runtime->lock);
    if (status)
        join_all(runtime);
    return status;
}

int tram_runtime_start(tram_runtime *runtime) {
    int status = runtime_enter(runtime);
    if (status)
        return status;
    pthread_mutex_lock(&runtime->lock);
    bool first = runtime->state == RUNTIME_NEW;
    if (first)
        runtime->state = RUNTIME_STARTS;
    pthread_mutex_unlock(&runtime->lock);
    return first ? start_workers(runtime) : TRAM_ESTATE;
}

int tram_runtime_join(tram_runtime *runtime) {
    int status = runtime_enter(runtime);
    if (status)
        return status;
    pthread_mutex_lock(&runtime->lock);
    bool never_ran = runtime->state == RUNTIME_NEW || runtime->state == RUNTIME_STARTS;
    pthread_mutex_unlock(&runtime->lock);
    if (never_ran || tram__runtime_is_worker(runtime))
        return TRAM_ESTATE;
    join_all(runtime);
    uint64_t aborted = 0;
    for (unsigned i = 0; i < runtime->count; i++)
        aborted += runtime->workers[i].loop->cut;
    return (int)MIN(aborted, INT_MAX);
}

int tram_runtime_run(tram_runtime *runtime) {
    int status = tram_runtime_start(runtime);
    return status ? status : tram_runtime_join(runtime);
}

/* ---- Making and freeing ---- */

static int check_options(const tram_runtime_options *options) {
    if (options->workers > TRAM_WORKERS_MAX)
        return tram__invalid("workers");
    if (options->stack_size && options->stack_size < (size_t)PTHREAD_STACK_MIN)
        return tram__invalid("stack_size");
    return reserved_used(options) ? tram__invalid("reserved") : 0;
}

/* One for all workers; its threads come when they are needed. */
static int open_executor(tram_runtime *runtime) {
    const tram_runtime_options *options = &runtime->options;
    int status = tram__threads_new(options->executor_threads, NULL, &runtime->executor);
    if (!status)
        tram__threads_limit(runtime->executor, options->executor_limit ? options->executor_limit : EXECUTOR_LIMIT);
    return status;
}

/* Waits for no job (L-34): those that run have the pool until they are done. */
static void close_executor(tram_runtime *runtime) {
    if (!runtime->executor)
        return;
    if (!tram__threads_forked(runtime->executor)) /* else a thread that is not here may have its lock */
        tram__threads_abandon(runtime->executor);
    tram__threads_release(runtime->executor);
}

static size_t runtime_size(unsigned count) {
    return sizeof(tram_runtime) + count * sizeof(struct worker);
}

static void free_all(tram_runtime *runtime, bool forked) {
    /* Mail may refer to the parts, also what came while a loop closed. */
    for (unsigned i = 0; !forked && i < runtime->count && runtime->workers[i].mailbox; i++) {
        tram_loop_close(runtime->workers[i].loop);
        tram__mailbox_close(runtime->workers[i].mailbox);
    }
    if (!forked)
        tram__runtime_await_pins(runtime);
    runtime->freeing = true;
    while (!list_empty(&runtime->parts)) {
        struct runtime_part *part = container_of(runtime->parts.next, struct runtime_part, link);
        list_remove(&part->link);
        part->ops->free(part);
    }
    for (unsigned i = 0; i < runtime->count; i++)
        tram__worker_free(&runtime->workers[i]);
    close_executor(runtime);
    /* In a forked child this would wait for threads that are not there. */
    if (!forked) {
        pthread_cond_destroy(&runtime->changed);
        pthread_mutex_destroy(&runtime->lock);
        pthread_mutex_destroy(&runtime->joining);
    }
    tram_allocator allocator = runtime->allocator;
    memory_put(&allocator, runtime, runtime_size(runtime->count));
}

int tram_runtime_new(const tram_runtime_options *options, tram_runtime **ret_runtime) {
    static const tram_runtime_options defaults;
    if (!options)
        options = &defaults;
    tram_allocator allocator;
    int status = check_options(options);
    if (!status)
        status = tram__faults_allocator(&options->loop, &allocator);
    if (status)
        return status;
    unsigned count = options->workers ? options->workers : tram_available_cpus().count;
    count = MIN(count, TRAM_WORKERS_MAX);
    tram_runtime *runtime = tram__memory_get_zero(&allocator, runtime_size(count));
    if (!runtime)
        return -ENOMEM;
    runtime->allocator = allocator;
    runtime->options = *options;
    runtime->count = count;
    snprintf(runtime->name, sizeof runtime->name, "%s", options->name ? options->name : "tram");
    list_init(&runtime->parts);
    pthread_mutex_init(&runtime->joining, NULL);
    pthread_mutex_init(&runtime->lock, NULL);
    pthread_cond_init(&runtime->changed, NULL);
    status = open_executor(runtime);
    for (unsigned i = 0; i < count && !status; i++) {
        runtime->workers[i].runtime = runtime;
        runtime->workers[i].index = i;
        status = tram__worker_open(&runtime->workers[i], &options->loop);
    }
    if (status)
        free_all(runtime, false);
    else
        *ret_runtime = runtime;
    return status;
}

void tram_runtime_free(tram_runtime *runtime) {
    if (!runtime)
        return;
    bool forked = runtime_enter(runtime) != 0; /* then the threads are not here to be joined */
    if (!forked && runtime->state == RUNTIME_RUNS) {
        if (runtime->workers[0].joinable)
            tram_runtime_stop(runtime);
        join_all(runtime);
    }
    free_all(runtime, forked);
}

/* ---- Questions ---- */

unsigned tram_runtime_worker_count(const tram_runtime *runtime) {
    return runtime->count;
}

tram_loop *tram_runtime_loop(const tram_runtime *runtime, unsigned worker) {
    return worker < runtime->count ? runtime->workers[worker].loop : NULL;
}

void *tram_runtime_state(const tram_runtime *runtime, unsigned worker) {
    return worker < runtime->count ? atomic_load_explicit(&runtime->workers[worker].state, memory_order_acquire) : NULL;
}

int tram_loop_worker(const tram_loop *loop, tram_runtime **ret_runtime, unsigned *ret_index) {
    const struct worker *worker = loop->worker;
    if (!worker)
        return TRAM_ESTATE;
    if (ret_runtime)
        *ret_runtime = worker->runtime;
    if (ret_index)
        *ret_index = worker->index;
    return 0;
}

void *tram_loop_state(const tram_loop *loop) {
    const struct worker *worker = loop->worker;
    return worker ? atomic_load_explicit(&worker->state, memory_order_acquire) : NULL;
}

int tram_runtime_stats(const tram_runtime *runtime, unsigned worker, tram_stats *ret_stats) {
    if (worker >= runtime->count)
        return tram__invalid("worker");
    tram_loop_stats(runtime->workers[worker].loop, ret_stats);
    return 0;
}
