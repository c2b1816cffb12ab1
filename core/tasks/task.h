/*
 * Tasks from the inside: what parks and wakes them.
 *
 * What waits is a struct task_wait on the stack of the task, so that parking allocates nothing. Whoever wakes it calls
 * task_wake(), after which the task runs in the next tick. tram__task_park() returns there.
 */
#ifndef TRAM_CORE_TASKS_TASK_H
#define TRAM_CORE_TASKS_TASK_H

#include <errno.h>

#include "core/jobs/future.h"
#include "core/loop/loop.h"
#include "core/tasks/context.h"
#include "core/tasks/stack.h"
#include <tram/task.h>

struct task_wait;

/* What a task waits in. Both functions may be NULL. */
struct wait_kind {
    const char *name;
    /*
     * The task is asked to cancel while the wait is pending. True: the request was passed on, and the task will be
     * woken. NULL: it is woken, the wait being cancelled.
     */
    bool (*cancel)(struct task_wait *wait);
    /* The loop closes: nothing may point to the wait any more. It leaves its list by itself. */
    void (*abandon)(struct task_wait *wait);
};

enum wait_state { WAIT_PENDING, WAIT_WOKEN, WAIT_CANCELLED };

struct task_wait {
    struct list link; /* in the list of what it waits in, or alone; it is the waiter's to take it out */
    const struct wait_kind *kind;
    tram_task *task;
    const void *where;
    enum wait_state state;
};

/* What a task must end before it does, innermost first: timeouts and groups. */
struct task_scope {
    struct list link;
    /* The task's function returned with it open: ends it and frees it, returning the status that becomes the task's. */
    int (*end)(struct task_scope *scope, int status);
    /* The loop closes. Frees it. */
    void (*abandon)(struct task_scope *scope);
};

/* What waits for futures and belongs to the loop, not to a task. */
struct loop_owned {
    struct list link;
    void (*abandon)(struct loop_owned *owned); /* the loop closes: ends and leaves the list */
};

struct task_loop;
struct task_locals;
struct receiver;
struct tram_group;

#define TASK_NAME 32

struct tram_task {
    tram_future future;
    struct ready ready; /* queued: it runs when its turn comes */
    struct task_wait *wait;
    struct task_loop *tasks; /* of its loop */
    struct context context;
    tram_task_function function;
    void *arg;
    struct stack stack;
    const void *thread; /* where it began; NULL: it has not */
    int status;         /* what its function returned */
    unsigned cancels;   /* requests, less those that were taken back */
    bool must_cancel;   /* what it waits in next returns TRAM_ECANCELLED */
    bool returned;
    bool aborted; /* was asked to end by the runtime */
    struct list scopes;
    struct task_locals *locals;
    void *cpp_exceptions[2]; /* what C++ keeps for each thread, while the task does not run */

    struct list link; /* among all of the loop */
    tram_discard discard;
    struct tram_group *group; /* group.c */
    struct list group_link;
    struct future_watch group_watch;
    struct receiver *receiver; /* core/actors/receive.c; NULL: it is no actor */
    uint64_t number;
    char name[TASK_NAME]; /* empty: by its number */
};

/* What a loop keeps for tasks. */
#define TASK_SLOT LOOP_SLOT_CORE

struct task_loop {
    struct loop_state state;
    struct close_hook hook;
    struct context context; /* of the loop, while a task runs */
    struct list all;
    struct list owned; /* struct loop_owned */
    struct pool pool;  /* of tram_task */
    struct stack_pool stacks;
    uint64_t number; /* of the latest task */
    void *cpp_exceptions[2];
};

/* The task that runs on this thread. */
extern _Thread_local __attribute__((tls_model("initial-exec"))) tram_task *tram__task_current;

/* The running task, if it may wait for something of this loop (NULL: any); else NULL. */
static inline tram_task *task_running(const tram_loop *loop) {
    tram_task *task = tram__task_current;
    return likely(task && (!loop || task->future.loop == loop)) ? task : NULL;
}

/* May the running task wait, for something of this loop (NULL: any)? 0, TRAM_ESTATE, or -ECHILD in a forked child. */
static inline int task_check(const tram_loop *loop) {
    const tram_task *task = task_running(loop);
    if (unlikely(!task))
        return TRAM_ESTATE;
    return unlikely(loop_guard(task->future.loop) == GUARD_FORKED) ? -ECHILD : 0;
}

/* A wait of the running task. `where`: __builtin_return_address(0) of the public function. */
static inline void wait_init(struct task_wait *wait, const struct wait_kind *kind, const void *where) {
    list_init(&wait->link);
    wait->kind = kind;
    wait->task = tram__task_current;
    wait->where = where;
    wait->state = WAIT_PENDING;
}

/*
 * Leaves the running task until its wait is woken. 0, or TRAM_ECANCELLED: the task, or the wait, was cancelled, which
 * may be after it was woken: wait->state tells. The wait is still in its list.
 */
int tram__task_park(struct task_wait *wait);

/* A request to cancel that came while the task ran is delivered by what it now waits in. */
void tram__task_deliver(struct task_wait *wait);

/* tram__task_park() for where its call would weigh. */
static ALWAYS_INLINE int task_park(struct task_wait *wait) {
    tram_task *task = wait->task;
    task->wait = wait;
    if (unlikely(task->must_cancel))
        tram__task_deliver(wait);
    context_switch(&task->context, &task->tasks->context, false);
    task->wait = NULL;
    if (likely(!task->must_cancel))
        return unlikely(wait->state == WAIT_CANCELLED) ? TRAM_ECANCELLED : 0;
    task->must_cancel = false;
    return TRAM_ECANCELLED;
}

/* Wakes one that is pending. */
static inline void task_wake_pending(struct task_wait *wait) {
    tram_task *task = wait->task;
    wait->state = WAIT_WOKEN;
    loop_ready(task->future.loop, &task->ready);
}

/* Wakes it, unless that was done or it was cancelled. True: done by this call. */
static inline bool task_wake(struct task_wait *wait) {
    if (wait->state != WAIT_PENDING)
        return false;
    task_wake_pending(wait);
    return true;
}

/* Runs the task now, from the loop: for what queues itself instead of the task. */
void tram__task_step(tram_loop *loop, tram_task *task);

/* Waits for a future that may be done. */
int tram__task_await(tram_future *future, void **ret_value, const void *where);

/* One request to cancel. */
int tram__task_request(tram_task *task);

/* What a loop keeps for tasks, or NULL. */
static inline struct task_loop *task_loop_present(const tram_loop *loop) {
    return loop_slot(loop, TASK_SLOT);
}

/* The same, made when it is first needed; NULL: out of memory. */
struct task_loop *tram__task_loop(tram_loop *loop);

/* A task, as tram_task_spawn(), which has checked. */
int tram__task_new(tram_loop *loop, tram_task_function function, void *arg, const tram_task_options *options,
                   tram_task **ret_task);

extern const struct future_kind tram__task_kind;

static inline tram_task *task_of(tram_future *future) {
    return (tram_task *)(void *)future;
}

static inline void loop_own(struct task_loop *tasks, struct loop_owned *owned, void (*abandon)(struct loop_owned *)) {
    owned->abandon = abandon;
    list_append(&tasks->owned, &owned->link);
}

/* Becomes the innermost scope of the running task. */
static inline void scope_open(tram_task *task, struct task_scope *scope) {
    scope->link = (struct list){task->scopes.next, &task->scopes};
    task->scopes.next->previous = &scope->link;
    task->scopes.next = &scope->link;
}

static inline bool scope_is_innermost(const struct task_scope *scope) {
    const tram_task *task = tram__task_current;
    return task && task->scopes.next == &scope->link;
}

/*
 * Waits for a future's end without a claim on it: a task that is cancelled meanwhile does not cancel the future. It is
 * held from begin to the end of wait. wait.c
 */
struct future_completion {
    struct task_wait wait;
    struct future_watch watch;
};
void tram__completion_begin(struct future_completion *completion, tram_future *future, const void *where);
int tram__completion_wait(struct future_completion *completion);
void tram__completion_abandon(struct task_wait *wait);

/* Values of a task: locals.c. */
struct task_locals *tram__locals_hold(struct task_locals *locals);
void tram__locals_drop(struct task_locals *locals);

/* Gives the thread what tram_task_report_overflows() needs of it; once per task, so cheap where nobody asked:
 * overflow.c. */
void tram__overflow_prepare(void);

#endif
