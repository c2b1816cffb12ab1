#include "core/system/threads.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/base/compiler.h"
#include "core/base/memory.h"
#include "core/system/wiped.h"
#include <tram/runtime.h>

/* What is asked of name servers, and all else: each has threads of its own. */
enum { JOBS, LOOKUPS, SHARES };

struct share {
    unsigned threads_max;
    /* guarded by `lock` */
    pthread_cond_t work; /* tasks came, or the pool was closed */
    struct list queued;
    size_t queued_count;
    unsigned threads;
    unsigned idle;            /* waiting, or about to take their first task */
    _Atomic unsigned running; /* goes up with the lock, and down without it, before the task is given back */
};

struct tram_executor {
    volatile unsigned char *here; /* 1, or 0 in a forked child: wiped.h */
    _Atomic uint32_t references;
    char name[16];
    pthread_mutex_t lock;
    /* guarded by `lock` */
    struct share shares[SHARES];
    size_t waiting_max;  /* of each share, beyond those that run */
    struct list threads; /* all that nobody has joined or detached */
    unsigned live;
    bool closed;
    void (*ended)(void *arg); /* for the last thread; NULL: nobody asked */
    void *ended_arg;
};

struct pool_thread {
    struct list link;
    pthread_t id;
    tram_executor *executor;
    struct share *share;
    _Atomic bool busy; /* set under the lock, cleared without it as soon as the work is done */
    bool detached;     /* guarded by the lock: frees itself */
};

/* ---- Life ---- */

int tram__threads_new(unsigned max_threads, const char *name, tram_executor **ret_executor) {
    tram_executor *executor = tram__memory_get_zero(&tram__memory_default, sizeof *executor);
    if (!executor)
        return -ENOMEM;
    if (!max_threads) {
        unsigned cpus = tram_available_cpus().count;
        max_threads = MIN(cpus + 4, 32);
    }
    executor->here = tram__wiped_new(1);
    if (!executor->here) {
        memory_put(&tram__memory_default, executor, sizeof *executor);
        return -ENOMEM;
    }
    *executor->here = 1;
    atomic_init(&executor->references, 1);
    executor->shares[JOBS].threads_max = max_threads;
    executor->shares[LOOKUPS].threads_max = MAX(max_threads / 2, 1);
    executor->waiting_max = SIZE_MAX;
    snprintf(executor->name, sizeof executor->name, "%s", name ? name : "tram-executor");
    pthread_mutex_init(&executor->lock, NULL);
    for (int i = 0; i < SHARES; i++) {
        pthread_cond_init(&executor->shares[i].work, NULL);
        list_init(&executor->shares[i].queued);
    }
    list_init(&executor->threads);
    *ret_executor = executor;
    return 0;
}

tram_executor *tram__threads_hold(tram_executor *executor) {
    atomic_fetch_add_explicit(&executor->references, 1, memory_order_relaxed);
    return executor;
}

void tram__threads_release(tram_executor *executor) {
    if (atomic_fetch_sub_explicit(&executor->references, 1, memory_order_acq_rel) != 1)
        return;
    for (int i = 0; i < SHARES; i++)
        pthread_cond_destroy(&executor->shares[i].work);
    pthread_mutex_destroy(&executor->lock);
    tram__wiped_free((void *)(uintptr_t)executor->here, 1);
    memory_put(&tram__memory_default, executor, sizeof *executor);
}

void tram__threads_limit(tram_executor *executor, size_t waiting_max) {
    pthread_mutex_lock(&executor->lock);
    executor->waiting_max = waiting_max;
    pthread_mutex_unlock(&executor->lock);
}

bool tram__threads_forked(const tram_executor *executor) {
    return !*executor->here;
}

/* ---- On a thread of the pool ---- */

static struct task *task_of(struct list *link) {
    return container_of(link, struct task, link);
}

static struct share *share_of(tram_executor *executor, const struct task *task) {
    return &executor->shares[task->lookup ? LOOKUPS : JOBS];
}

static void unqueue(tram_executor *executor, struct task *task) {
    list_remove(&task->link);
    task->queued = false;
    share_of(executor, task)->queued_count--;
}

/* The oldest task, or NULL. With the lock held. */
static struct task *take(tram_executor *executor, struct share *share) {
    if (list_empty(&share->queued))
        return NULL;
    struct task *task = task_of(share->queued.next);
    unqueue(executor, task);
    task->started = true;
    atomic_fetch_add_explicit(&share->running, 1, memory_order_relaxed);
    return task;
}

static void run_task(struct pool_thread *thread, struct task *task) {
    task->run(task);
    /* From here to the next task nothing blocks, so the thread counts as one that can be joined. Whoever is told that
     * the task is done finds its place free. */
    atomic_store_explicit(&thread->busy, false, memory_order_release);
    atomic_fetch_sub_explicit(&thread->share->running, 1, memory_order_relaxed);
    task->done(task);
}

/* The last act of a thread; with the lock held, which it gives up. */
static void leave(struct pool_thread *thread) {
    tram_executor *executor = thread->executor;
    bool detached = thread->detached;
    void (*ended)(void *arg) = NULL;
    thread->share->threads--;
    if (--executor->live == 0) {
        ended = executor->ended;
        executor->ended = NULL;
    }
    pthread_mutex_unlock(&executor->lock);
    if (ended)
        ended(executor->ended_arg);
    if (detached)
        memory_put(&tram__memory_default, thread, sizeof *thread);
    tram__threads_release(executor);
}

static void *thread_main(void *arg) {
    struct pool_thread *thread = arg;
    tram_executor *executor = thread->executor;
    struct share *share = thread->share;
    pthread_setname_np(pthread_self(), executor->name);
    pthread_mutex_lock(&executor->lock);
    share->idle--;
    for (;;) {
        struct task *task = take(executor, share);
        if (task) {
            atomic_store_explicit(&thread->busy, true, memory_order_relaxed);
            pthread_mutex_unlock(&executor->lock);
            run_task(thread, task);
            pthread_mutex_lock(&executor->lock);
        } else if (executor->closed) {
            break;
        } else {
            share->idle++;
            pthread_cond_wait(&share->work, &executor->lock);
            share->idle--;
        }
    }
    leave(thread);
    return NULL;
}

/* ---- Tasks in and out ---- */

/* The host's signals are for the host's threads; those that a fault raises in this one cannot wait. */
static int create_unsignalled(pthread_t *ret_id, struct pool_thread *thread) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int error = pthread_create(ret_id, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

/* With the lock held. */
static int start_thread(tram_executor *executor, struct share *share) {
    struct pool_thread *thread = tram__memory_get_zero(&tram__memory_default, sizeof *thread);
    if (!thread)
        return -ENOMEM;
    thread->executor = tram__threads_hold(executor);
    thread->share = share;
    share->idle++;
    int status = create_unsignalled(&thread->id, thread);
    if (status) {
        share->idle--;
        tram__threads_release(executor);
        memory_put(&tram__memory_default, thread, sizeof *thread);
        return status;
    }
    list_append(&executor->threads, &thread->link);
    share->threads++;
    executor->live++;
    return 0;
}

static bool is_full(const tram_executor *executor, const struct share *share) {
    size_t unfinished = share->queued_count + atomic_load_explicit(&share->running, memory_order_relaxed);
    return unfinished >= share->threads_max && unfinished - share->threads_max >= executor->waiting_max;
}

static int submit_locked(tram_executor *executor, struct task *task) {
    struct share *share = share_of(executor, task);
    if (executor->closed)
        return TRAM_ESTATE;
    if (is_full(executor, share))
        return TRAM_ELIMIT;
    list_append(&share->queued, &task->link);
    share->queued_count++;
    task->queued = true;
    if (share->queued_count <= share->idle) {
        pthread_cond_signal(&share->work);
        return 0;
    }
    if (share->threads == share->threads_max)
        return 0;
    int status = start_thread(executor, share);
    /* With a thread at work the task only has to wait. */
    if (!status || share->threads)
        return 0;
    unqueue(executor, task);
    return status;
}

int tram__threads_submit(tram_executor *executor, struct task *task) {
    pthread_mutex_lock(&executor->lock);
    int status = submit_locked(executor, task);
    pthread_mutex_unlock(&executor->lock);
    return status;
}

bool tram__threads_withdraw(tram_executor *executor, struct task *task) {
    pthread_mutex_lock(&executor->lock);
    bool queued = task->queued;
    if (queued)
        unqueue(executor, task);
    pthread_mutex_unlock(&executor->lock);
    return queued;
}

/* ---- The end ---- */

static void close_locked(tram_executor *executor) {
    executor->closed = true;
    for (int i = 0; i < SHARES; i++)
        pthread_cond_broadcast(&executor->shares[i].work);
}

bool tram__threads_close(tram_executor *executor, void (*ended)(void *arg), void *arg) {
    pthread_mutex_lock(&executor->lock);
    close_locked(executor);
    bool alive = executor->live > 0;
    if (alive) {
        executor->ended = ended;
        executor->ended_arg = arg;
    }
    pthread_mutex_unlock(&executor->lock);
    return alive;
}

static void join_all(struct list *threads) {
    while (!list_empty(threads)) {
        struct pool_thread *thread = container_of(threads->next, struct pool_thread, link);
        list_remove(&thread->link);
        pthread_join(thread->id, NULL);
        memory_put(&tram__memory_default, thread, sizeof *thread);
    }
}

void tram__threads_join(tram_executor *executor) {
    struct list threads;
    list_init(&threads);
    pthread_mutex_lock(&executor->lock);
    close_locked(executor);
    list_move_all(&executor->threads, &threads);
    pthread_mutex_unlock(&executor->lock);
    join_all(&threads);
}

void tram__threads_abandon(tram_executor *executor) {
    struct list threads, ending;
    list_init(&threads);
    list_init(&ending);
    pthread_mutex_lock(&executor->lock);
    close_locked(executor);
    list_move_all(&executor->threads, &threads);
    bool work_left = executor->shares[JOBS].queued_count || executor->shares[LOOKUPS].queued_count;
    while (!list_empty(&threads)) {
        struct pool_thread *thread = container_of(threads.next, struct pool_thread, link);
        list_remove(&thread->link);
        if (work_left || atomic_load_explicit(&thread->busy, memory_order_acquire)) {
            thread->detached = true;
            pthread_detach(thread->id);
        } else {
            list_append(&ending, &thread->link);
        }
    }
    pthread_mutex_unlock(&executor->lock);
    join_all(&ending);
}
