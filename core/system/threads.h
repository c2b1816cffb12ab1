/*
 * The pool of threads behind executors: takes tasks, oldest first, and starts a thread when one would have to
 * wait. Any thread may call these. The pool is counted: by its owner, by its threads, by who gives it tasks. Its
 * memory is the default one, since it may outlive the loop it was made for and with it the loop's allocator.
 */
#ifndef TRAM_CORE_SYSTEM_THREADS_H
#define TRAM_CORE_SYSTEM_THREADS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"
#include <tram/executor.h>

/* Embedded in what is to be done. The pool uses it from submit until `done`. */
struct task {
    struct list link;
    bool lookup;                     /* asks a name server: such tasks have threads of their own, half as many */
    bool queued;                     /* guarded by the pool's lock */
    bool started;                    /* written when a thread takes it */
    void (*run)(struct task *task);  /* the work */
    void (*done)(struct task *task); /* then, on the same thread: gives the task back; never blocks */
};

/* One reference. `max_threads` 0 and `name` NULL: the defaults. -ENOMEM. */
int tram__threads_new(unsigned max_threads, const char *name, tram_executor **ret_executor);
tram_executor *tram__threads_hold(tram_executor *executor);

/* As many tasks of each kind may wait for a thread; SIZE_MAX at first. */
void tram__threads_limit(tram_executor *executor, size_t waiting_max);

/* Is this a child of fork(), where it has no threads? */
bool tram__threads_forked(const tram_executor *executor);

void tram__threads_release(tram_executor *executor);

/* Queues a task. TRAM_ESTATE after close; TRAM_ELIMIT; -ENOMEM, -EAGAIN: no thread at all. */
int tram__threads_submit(tram_executor *executor, struct task *task);

/* Takes a task back that no thread began. False: one did. */
bool tram__threads_withdraw(tram_executor *executor, struct task *task);

/*
 * Lets no new task in; the threads end after what is queued. False if none is left now. Else the last one calls
 * `ended(arg)` on its way out.
 */
bool tram__threads_close(tram_executor *executor, void (*ended)(void *arg), void *arg);

/* Closes, waits for all threads. */
void tram__threads_join(tram_executor *executor);

/* Closes, joins the threads that end at once, leaves the others to end by themselves. Never waits for a task.
 */
void tram__threads_abandon(tram_executor *executor);

#endif
