#include "core/system/threads.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "core/base/compiler.h"
#include "core/base/memory.h"
#include <tram/runtime.h>

struct tram_executor {
    _Atomic uint32_t references;
    unsigned threads_max;
    unsigned lookups_max;
    char name[16];
    pthread_mutex_t lock;
    pthread_cond_t work; /* tasks came, or the pool was closed */
    /* guarded by `lock` */
    struct list tasks;
    struct list lookups;
    size_t task_count;
    size_t lookup_count;
    unsigned lookups_running;
    struct list threads; /* all that nobody has joined or detached */
    unsigned live;
    unsigned idle; /* waiting, or about to take their first task */
    uint64_t sequence;
    bool closed;
    void (*ended)(void *arg); /* for the last thread; NULL: nobody asked */
    void *ended_arg;
};

struct pool_thread {
    struct list link;
    pthread_t id;
    tram_executor *executor;
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
        max_threads = cpus + 4 < 32 ? cpus + 4 : 32;
    }
    atomic_init(&executor->references, 1);
    executor->threads_max = max_threads;
    executor->lookups_max = max_threads > 1 ? max_threads / 2 : 1;
    snprintf(executor->name, sizeof executor->name, "%s", name ? name : "tram-executor");
    pthread_mutex_init(&executor->lock, NULL);
    pthread_cond_init(&executor->work, NULL);
    list_init(&executor->tasks);
    list_init(&executor->lookups);
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
    pthread_cond_destroy(&executor->work);
    pthread_mutex_destroy(&executor->lock);
    memory_put(&tram__memory_default, executor, sizeof *executor);
}

/* ---- On a thread of the pool ---- */

static struct task *task_of(struct list *link) {
    return container_of(link, struct task, link);
}

static void unqueue(tram_executor *executor, struct task *task) {
    list_remove(&task->link);
    task->queued = false;
    if (task->lookup)
        executor->lookup_count--;
    else
        executor->task_count--;
}

/* The oldest task that may run now, or NULL. With the lock held. */
static struct task *take(tram_executor *executor) {
    struct task *task = list_empty(&executor->tasks) ? NULL : task_of(executor->tasks.next);
    if (!list_empty(&executor->lookups) && executor->lookups_running < executor->lookups_max) {
        struct task *lookup = task_of(executor->lookups.next);
        if (!task || lookup->sequence < task->sequence)
            task = lookup;
    }
    if (task) {
        unqueue(executor, task);
        task->started = true;
    }
    return task;
}

static void run_task(struct pool_thread *thread, struct task *task) {
    task->run(task);
    /* From here to the next task nothing blocks, so the thread counts as one that can be joined. */
    atomic_store_explicit(&thread->busy, false, memory_order_release);
    task->done(task);
}

/* The last act of a thread; with the lock held, which it gives up. */
static void leave(struct pool_thread *thread) {
    tram_executor *executor = thread->executor;
    bool detached = thread->detached;
    void (*ended)(void *arg) = NULL;
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
    pthread_setname_np(pthread_self(), executor->name);
    pthread_mutex_lock(&executor->lock);
    executor->idle--;
    for (;;) {
        struct task *task = take(executor);
        if (task) {
            bool lookup = task->lookup;
            executor->lookups_running += lookup;
            atomic_store_explicit(&thread->busy, true, memory_order_relaxed);
            pthread_mutex_unlock(&executor->lock);
            run_task(thread, task);
            pthread_mutex_lock(&executor->lock);
            executor->lookups_running -= lookup;
        } else if (executor->closed) {
            /* Lookups may be queued still: those that run now take them over when they are done. */
            break;
        } else {
            executor->idle++;
            pthread_cond_wait(&executor->work, &executor->lock);
            executor->idle--;
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
static int start_thread(tram_executor *executor) {
    struct pool_thread *thread = tram__memory_get_zero(&tram__memory_default, sizeof *thread);
    if (!thread)
        return -ENOMEM;
    thread->executor = tram__threads_hold(executor);
    executor->idle++;
    int status = create_unsignalled(&thread->id, thread);
    if (status) {
        executor->idle--;
        tram__threads_release(executor);
        memory_put(&tram__memory_default, thread, sizeof *thread);
        return status;
    }
    list_append(&executor->threads, &thread->link);
    executor->live++;
    return 0;
}

/* How many of the queued tasks could run now. */
static size_t runnable(const tram_executor *executor) {
    size_t lookups = executor->lookups_max - executor->lookups_running;
    if (lookups > executor->lookup_count)
        lookups = executor->lookup_count;
    return executor->task_count + lookups;
}

static int submit_locked(tram_executor *executor, struct task *task) {
    if (executor->closed)
        return TRAM_ESTATE;
    bool lookup = task->lookup;
    list_append(lookup ? &executor->lookups : &executor->tasks, &task->link);
    if (lookup)
        executor->lookup_count++;
    else
        executor->task_count++;
    task->queued = true;
    task->sequence = executor->sequence++;
    if (runnable(executor) <= executor->idle) {
        pthread_cond_signal(&executor->work);
        return 0;
    }
    if (executor->live == executor->threads_max)
        return 0;
    int status = start_thread(executor);
    /* With a thread at work the task only has to wait. */
    if (!status || executor->live)
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
    pthread_cond_broadcast(&executor->work);
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
    bool work_left = executor->task_count || executor->lookup_count;
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
