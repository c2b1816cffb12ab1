/*
 * Tasks: functions of a loop that wait without blocking it (asyncio.Task).
 *
 * A task has a stack of its own. Where asyncio writes `await`, a task calls a function of this header (or of
 * tram/wait.h, tram/group.h, tram/sync.h, tram/queue.h): the task is parked, the loop goes on, and the function returns
 * once what it waits for is there. Everything between two such calls runs without interruption.
 *
 *     static int greet(void *arg) {
 *         int status = tram_sleep(1000000000);
 *         if (status)
 *             return status; // cancelled
 *         puts(arg);
 *         return 0;
 *     }
 *     int main(void) { return tram_run(greet, "hello", NULL) ? 1 : 0; } // tram/run.h
 *
 * A task belongs to one loop, and all calls are for the loop's thread. A loop whose tasks have begun stays on the
 * thread where they did. The functions that wait return TRAM_ESTATE where no task of the loop runs: in a callback, or
 * before the loop runs.
 *
 * Cancelling is a request (Task.cancel): what the task waits in returns TRAM_ECANCELLED, and the task cleans up and
 * returns that code. It may also catch it, and go on.
 *
 * C++: exceptions work within a task and must not leave its function. A task that is parked when its loop is closed is
 * never resumed: its destructors do not run.
 */
#ifndef TRAM_TASK_H
#define TRAM_TASK_H

#include <tram/future.h>

TRAM_BEGIN_DECLS

/* A task is a future: see tram_task_future(). Counted like one. */
typedef struct tram_task tram_task;

/*
 * What a task does. Its result is what it returns: 0 or a count, or a negative code, which is the task's own failure
 * and nobody else's: TRAM_ECANCELLED makes the task cancelled. tram_loop_raise() immediately before returning gives the
 * error a text.
 */
typedef int (*tram_task_function)(void *arg);

/* Zero-initialise; zero means the default. */
typedef struct tram_task_options {
    const char *name;      /* copied, at most 31 bytes of it; NULL: "task-<number>" */
    size_t stack_size;     /* usable bytes; 0: a little less than 128 KiB, where libc's deepest calls fit */
    tram_discard discard;  /* gets `arg` if the function never runs: cancelled before, or the loop was closed */
    uintptr_t reserved[5]; /* must be 0 */
} tram_task_options;

/* ---- Life ---- */

/*
 * A task that begins in the next tick (loop.create_task). `loop` NULL: the one that this thread runs. `options` may be
 * NULL. `ret_task` may be NULL: nobody waits for it; else the caller gets a reference, to be given back with
 * tram_task_join() or tram_task_release(). The loop holds a task until it ends. A task that fails and whose error
 * nobody looked at before its last reference went is reported to the exception handler ("Task exception was never
 * retrieved").
 *
 * -ENOMEM: no memory, or no mapping for its stack (on Linux before 6.13 vm.max_map_count allows some 32,000 stacks);
 * TRAM_EVALUE: a stack of more than a GiB; TRAM_ESTATE: the loop is closed, or NULL and none runs. `arg` stays the
 * caller's.
 */
TRAM_API int tram_task_spawn(tram_loop *loop, tram_task_function function, void *arg, const tram_task_options *options,
                             tram_task **ret_task);

/* One reference more, and one less; releasing NULL does nothing. A task that is released goes on. */
TRAM_API tram_task *tram_task_hold(tram_task *task);
TRAM_API void tram_task_release(tram_task *task);

/* The same object as a future, without a further reference: to wait for it, to add callbacks. Its result is 0, and the
 * value is what the task returned, as (intptr_t)value. */
TRAM_API tram_future *tram_task_future(tram_task *task);

/* The task that a future is, or NULL if it is another. */
TRAM_API tram_task *tram_future_task(tram_future *future);

/* The task that is running on this thread, or NULL (asyncio.current_task). Any thread. */
TRAM_API tram_task *tram_task_current(void);

TRAM_API bool tram_task_done(const tram_task *task);

/* What a task that is done returned (Task.result), TRAM_ECANCELLED for one that was cancelled; TRAM_ESTATE before. */
TRAM_API int tram_task_result(const tram_task *task);

/* Its name (Task.get_name), valid as long as the task and until it is named anew. */
TRAM_API const char *tram_task_name(tram_task *task);
TRAM_API int tram_task_set_name(tram_task *task, const char *name);

/* ---- Waiting ---- */

/*
 * Waits until `future` is done and returns tram_future_result() of it: 0 and the value, or the error's code. One that
 * is done is returned at once, without a trip through the loop. The future is held meanwhile.
 *
 * If the task is cancelled meanwhile, the future is asked to cancel in turn (a task that is waited for is cancelled
 * too; tram_shield() is against that); TRAM_ECANCELLED says that either was cancelled. TRAM_ESTATE also for a future of
 * another loop, and for the task's own.
 */
TRAM_API int tram_await(tram_future *future, void **ret_value);

/* Waits for a task, returns what it returned, and gives back the caller's reference. NULL: TRAM_EVALUE. With an error
 * of TRAM_ESTATE for a call outside of a task the reference stays the caller's. */
TRAM_API int tram_task_join(tram_task *task);

/* Waits for so long (asyncio.sleep). 0: others run, then the task goes on in the next tick; TRAM_FOREVER: until it is
 * cancelled. TRAM_ECANCELLED, -ENOMEM. */
TRAM_API int tram_sleep(uint64_t delay_ns);

/* tram_sleep(0) */
TRAM_API int tram_yield(void);

/* ---- Cancelling ---- */

/*
 * Asks the task to end (Task.cancel). 1: asked: what it waits in returns TRAM_ECANCELLED in the next tick, or, if it
 * waits in nothing, what it waits in next; a task that has not begun never does. 0: it had ended. Each call counts.
 * From any callback or task of the loop, also the task itself.
 */
TRAM_API int tram_task_cancel(tram_task *task);

/* One request less (Task.uncancel), by who caught the cancellation and goes on; at 0 a request that was not delivered
 * yet is dropped. Returns how many are left. */
TRAM_API int tram_task_uncancel(tram_task *task);

/* Requests that were not taken back (Task.cancelling). */
TRAM_API int tram_task_cancelling(const tram_task *task);

/* ---- Values of a task (contextvars) ---- */

/*
 * Sets the value of `key`, any address of the caller's own, for the running task and the tasks that it spawns from now
 * on; those that it spawned before keep theirs. `destroy` (may be NULL) gets the value when no task has it any more.
 * TRAM_ESTATE: no task runs; -ENOMEM: nothing was set.
 */
TRAM_API int tram_task_set_local(const void *key, void *value, tram_discard destroy);

/* The running task's value of `key`, or NULL. */
TRAM_API void *tram_task_local(const void *key);

/* ---- Looking ---- */

typedef enum tram_task_state {
    TRAM_TASK_NEW,     /* has not begun */
    TRAM_TASK_READY,   /* runs in the next tick */
    TRAM_TASK_RUNNING, /* is the one that asks */
    TRAM_TASK_WAITING
} tram_task_state;

/* What a task is at; texts and pointers are valid during the visit. */
typedef struct tram_task_info {
    tram_task *task;
    const char *name;
    tram_task_function function;
    tram_task_state state;
    const char *waits_for; /* "sleep", "future", "lock" …; NULL unless TRAM_TASK_WAITING */
    const void *where;     /* the code that waits: an address in the caller of the waiting function; or NULL */
    int cancelling;
    uintptr_t reserved[6];
} tram_task_info;

/* Visits every task of the loop that has not ended, in order of creation (asyncio.all_tasks). The visitor may cancel
 * tasks; it must not spawn any. */
TRAM_API int tram_loop_each_task(tram_loop *loop, void (*visit)(const tram_task_info *info, void *arg), void *arg);

/* A line for each of them: name, function, what it waits for and where. `line` has no newline at its end. */
TRAM_API int tram_loop_dump_tasks(tram_loop *loop, void (*print)(void *arg, const char *line), void *arg);

/*
 * Below every stack is a guard: a task that needs more than its stack dies of SIGSEGV, instead of writing on what is
 * not its own. After this call standard error says before which task it was and how large its stack is; then the signal
 * takes the course that it had before. This sets the process's handler of SIGSEGV, and of each thread that runs tasks
 * the alternate signal stack if it has none; so the library does it for who asks only. Any thread. -errno.
 */
TRAM_API int tram_task_report_overflows(void);

TRAM_END_DECLS

#endif
