/*
 * The life of a task, and the two switches: step() goes from the loop to a task, task_park() back.
 *
 * A task is queued like a callback, by its `ready`. It begins in its first step, parks any number of times, and
 * returns; then its stack goes back to the pool and its future is done. The future lives on with its references.
 */
#include "core/tasks/task.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/invalid.h"

/* ---- C++ ---- */

/* What is being caught is known to the thread, not to the stack. Present only in a program with C++ in it. */
extern void **__cxa_get_globals(void) __attribute__((weak));

/* Two words: the exceptions being caught, and how many are on their way. Not their own: the other's. */
static inline void swap_cpp_exceptions(void **mine, void **theirs) {
    if (likely(!__cxa_get_globals))
        return;
    void **globals = __cxa_get_globals();
    memcpy(mine, globals, 2 * sizeof *mine);
    memcpy(globals, theirs, 2 * sizeof *theirs);
}

/* ---- The switches ---- */

static int end_scopes(tram_task *task, int status) {
    while (unlikely(!list_empty(&task->scopes))) {
        struct task_scope *scope = container_of(task->scopes.next, struct task_scope, link);
        status = scope->end(scope, status);
    }
    return status;
}

/* The bottom of a task's stack. */
static void task_entry(void) {
    tram_task *task = tram__task_current;
    context_entered(&task->tasks->context);
    task->status = end_scopes(task, task->function(task->arg));
    task->returned = true;
    context_switch(&task->context, &task->tasks->context, true);
    abort(); /* nobody comes back */
}

static void task_end(tram_task *task);

/* On a thread that the task has not run on before. True: it begins here. */
__attribute__((noinline)) static bool may_begin(tram_loop *loop, tram_task *task) {
    if (likely(!task->thread)) {
        task->thread = &tram__task_current;
        tram__overflow_prepare();
        return true;
    }
    tram_error error = {.code = TRAM_ESTATE, .operation = "task", .detail = tram_task_name(task)};
    tram_exception exception = {.message = "A task cannot go on: its loop was run on another thread",
                                .error = &error,
                                .future = &task->future,
                                .fd = -1};
    tram__report(loop, &exception);
    return false;
}

/* Until it waits, or has returned. */
static ALWAYS_INLINE void enter(struct task_loop *tasks, tram_task *task) {
    tram__task_current = task;
    context_self(&tasks->context);
    context_switch(&tasks->context, &task->context, false);
    tram__task_current = NULL;
}

/* The same where tasks are timed, or there is C++ in the program. */
__attribute__((noinline)) static void enter_with_care(tram_loop *loop, tram_task *task) {
    struct task_loop *tasks = task->tasks;
    uint64_t start = slow_begin(loop);
    swap_cpp_exceptions(tasks->cpp_exceptions, task->cpp_exceptions);
    enter(tasks, task);
    swap_cpp_exceptions(task->cpp_exceptions, tasks->cpp_exceptions);
    slow_end(loop, start, (const void *)(uintptr_t)task->function, "task");
}

static ALWAYS_INLINE void step(tram_loop *loop, tram_task *task) {
    if (unlikely(task->thread != &tram__task_current) && !may_begin(loop, task))
        return;
    if (unlikely(loop->timed || __cxa_get_globals))
        enter_with_care(loop, task);
    else
        enter(task->tasks, task);
    if (unlikely(task->returned))
        task_end(task);
}

void tram__task_step(tram_loop *loop, tram_task *task) {
    step(loop, task);
}

int tram__task_park(struct task_wait *wait) {
    return task_park(wait);
}

void tram__task_deliver(struct task_wait *wait) {
    tram_task *task = wait->task;
    unsigned cancels = task->cancels;
    if (wait->state != WAIT_PENDING)
        return;
    task->must_cancel = false;
    tram__task_request(task);
    task->cancels = cancels;
}

/* ---- Cancelling ---- */

/* True if what the task waits in passes the request on. */
static bool cancel_wait(struct task_wait *wait) {
    if (!wait || wait->state != WAIT_PENDING)
        return false;
    if (wait->kind->cancel)
        return wait->kind->cancel(wait);
    wait->state = WAIT_CANCELLED;
    loop_ready(wait->task->future.loop, &wait->task->ready);
    return true;
}

int tram__task_request(tram_task *task) {
    task->cancels++;
    if (!cancel_wait(task->wait))
        task->must_cancel = true;
    return 1;
}

static int request(tram_future *future) {
    return tram__task_request(task_of(future));
}

/* ---- Beginning and end ---- */

static void report(tram_future *future) {
    tram_task *task = task_of(future);
    tram_error error = future->error;
    char detail[TRAM_ERROR_TEXT];
    snprintf(detail, sizeof detail, "%s%s%s", tram_task_name(task), error.detail ? ": " : "",
             error.detail ? error.detail : "");
    error.detail = detail;
    char function[128];
    tram_exception exception = {
        .message = "Task exception was never retrieved",
        .error = &error,
        .callback = tram_function_name((const void *)(uintptr_t)task->function, function, sizeof function),
        .future = future,
        .fd = -1,
    };
    tram__report(future->loop, &exception);
}

static void recycle(tram_future *future) {
    pool_put(&task_of(future)->tasks->pool, future);
}

const struct future_kind tram__task_kind = {.name = "task", .request = request, .report = report, .recycle = recycle};

/* Gives back what only a task that has not ended needs. */
static void release_parts(tram_task *task) {
    list_remove(&task->link);
    task->future.loop->unfinished--;
    context_end(&task->context);
    tram__stack_put(&task->tasks->stacks, task->stack);
    tram__locals_drop(task->locals);
    task->locals = NULL;
}

static void complete(tram_task *task) {
    tram_future *future = &task->future;
    int status = task->status;
    if (unlikely(status == TRAM_ECANCELLED) || (unlikely(task->must_cancel) && status >= 0))
        tram__future_finish_cancelled(future);
    else if (likely(status >= 0))
        tram__future_finish(future, (void *)(intptr_t)status);
    else
        tram__future_fail(future, tram__raised(future->loop, status, "task"));
}

static void task_end(tram_task *task) {
    release_parts(task);
    complete(task);
    tram__future_drop(&task->future);
}

static void discard_arg(tram_task *task) {
    if (task->discard)
        task->discard(task->arg);
}

static void run_ready(tram_loop *loop, struct ready *ready) {
    tram_task *task = container_of(ready, tram_task, ready);
    stats_add(&loop->stats.callbacks, 1);
    if (unlikely(task->must_cancel) && !task->thread) {
        discard_arg(task);
        task->status = TRAM_ECANCELLED;
        task_end(task);
        return;
    }
    step(loop, task);
}

static void set_name(tram_task *task, const char *name) {
    size_t length = name ? strnlen(name, TASK_NAME - 1) : 0;
    memcpy(task->name, name ? name : "", length);
    task->name[length] = '\0';
}

int tram__task_new(tram_loop *loop, tram_task_function function, void *arg, const tram_task_options *options,
                   tram_task **ret_task) {
    if (unlikely(options && reserved_used(options)))
        return tram__invalid("reserved");
    struct task_loop *tasks = tram__task_loop(loop);
    tram_task *task = likely(tasks) ? pool_get(&tasks->pool) : NULL;
    if (unlikely(!task))
        return -ENOMEM;
    memset(task, 0, tasks->pool.size);
    int status = tram__stack_get(&tasks->stacks, options ? options->stack_size : 0, &task->stack);
    if (unlikely(status)) {
        pool_put(&tasks->pool, task);
        return status;
    }
    if (unlikely(!context_init(&task->context, stack_bottom(&task->stack), stack_usable(&task->stack), task_entry))) {
        tram__stack_put(&tasks->stacks, task->stack);
        pool_put(&tasks->pool, task);
        return -ENOMEM;
    }
    tram__future_init(&task->future, loop, &tram__task_kind);
    task->tasks = tasks;
    task->function = function;
    task->arg = arg;
    task->number = ++tasks->number;
    task->ready.run = run_ready;
    list_init(&task->scopes);
    list_append(&tasks->all, &task->link);
    loop->unfinished++;
    if (tram__task_current)
        task->locals = tram__locals_hold(tram__task_current->locals);
    if (options) {
        task->discard = options->discard;
        set_name(task, options->name);
    }
    loop_ready(loop, &task->ready);
    *ret_task = task;
    return 0;
}

/* ---- The loop closes ---- */

static void report_pending(tram_task *task) {
    char detail[TRAM_ERROR_TEXT], function[128], where[128];
    const struct task_wait *wait = task->wait;
    snprintf(detail, sizeof detail, "%s, %s%s%s%s", tram_task_name(task),
             !task->thread ? "which has not begun"
             : wait        ? "which waits in "
                           : "which was to run",
             wait ? wait->kind->name : "", wait && wait->where ? " at " : "",
             wait && wait->where ? tram_function_name(wait->where, where, sizeof where) : "");
    tram_error error = {.code = TRAM_ESTATE, .operation = "close", .detail = detail};
    tram_exception exception = {
        .message = "Task was destroyed but it is pending",
        .error = &error,
        .callback = tram_function_name((const void *)(uintptr_t)task->function, function, sizeof function),
        .future = &task->future,
        .fd = -1,
    };
    tram__report(task->future.loop, &exception);
}

/* Nothing that lives on points to the task's stack afterwards. */
static void detach(tram_task *task) {
    list_remove(&task->ready.link);
    struct task_wait *wait = task->wait;
    if (!wait)
        return;
    list_remove(&wait->link);
    if (wait->kind->abandon)
        wait->kind->abandon(wait);
    task->wait = NULL;
}

static void abandon(tram_task *task) {
    while (!list_empty(&task->scopes)) {
        struct task_scope *scope = container_of(task->scopes.next, struct task_scope, link);
        list_remove(&scope->link);
        scope->abandon(scope);
    }
    if (!task->thread)
        discard_arg(task);
    release_parts(task);
    tram__future_finish_cancelled(&task->future);
    tram__future_drop(&task->future);
}

/*
 * Tasks that have not ended never go on. They are all reported before the first is touched, and all detached before the
 * first stack goes: one may wait in what lies on another's.
 */
static void abandon_all(struct task_loop *tasks) {
    struct list *all = &tasks->all;
    for (struct list *link = all->next; link != all; link = link->next)
        report_pending(container_of(link, tram_task, link));
    for (struct list *link = all->next; link != all; link = link->next)
        detach(container_of(link, tram_task, link));
    while (!list_empty(all))
        abandon(container_of(all->next, tram_task, link));
}

/* Once each: a worker may ask several times. */
static void cancel_all(struct task_loop *tasks) {
    for (struct list *link = tasks->all.next; link != &tasks->all; link = link->next) {
        tram_task *task = container_of(link, tram_task, link);
        if (!task->aborted)
            tram__task_request(task);
        task->aborted = true;
    }
}

static void tasks_ending(struct close_hook *hook, enum shutdown_mode mode) {
    struct task_loop *tasks = container_of(hook, struct task_loop, hook);
    if (mode == IO_SHUTDOWN_ABORT)
        cancel_all(tasks);
    if (mode != IO_SHUTDOWN_NOW)
        return;
    abandon_all(tasks);
    while (!list_empty(&tasks->owned)) {
        struct loop_owned *owned = container_of(tasks->owned.next, struct loop_owned, link);
        owned->abandon(owned);
    }
    list_remove(&hook->link);
    tram__stack_pool_fini(&tasks->stacks);
}

static void free_state(tram_loop *loop, struct loop_state *state) {
    (void)loop;
    tram__pool_fini(&((struct task_loop *)(void *)state)->pool);
}

static void validate(const struct loop_state *state) {
    const struct task_loop *tasks = container_of(state, struct task_loop, state);
    tram__pool_validate(&tasks->pool);
    list_validate(&tasks->owned);
    size_t count = list_validate(&tasks->all);
    TRAM_ASSERT(count <= tasks->pool.live);
    for (const struct list *link = tasks->all.next; link != &tasks->all; link = link->next)
        list_validate(&container_of(link, tram_task, link)->scopes);
}

struct task_loop *tram__task_loop(tram_loop *loop) {
    struct task_loop *tasks = task_loop_present(loop);
    if (likely(tasks != NULL))
        return tasks;
    tasks = tram__loop_slot_open(loop, TASK_SLOT, sizeof *tasks, free_state);
    if (!tasks)
        return NULL;
    tasks->state.validate = validate;
    tram__pool_init(&tasks->pool, &loop->allocator, sizeof(tram_task));
    list_init(&tasks->all);
    list_init(&tasks->owned);
    loop_add_close_hook(loop, &tasks->hook, tasks_ending);
    return tasks;
}

/* ---- The public calls ---- */

int tram_task_spawn(tram_loop *loop, tram_task_function function, void *arg, const tram_task_options *options,
                    tram_task **ret_task) {
    if (!loop)
        loop = tram_loop_running();
    if (unlikely(!loop))
        return TRAM_ESTATE;
    int status = loop_enter_open(loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(!function))
        return tram__invalid("function");
    tram_task *task;
    status = tram__task_new(loop, function, arg, options, &task);
    if (likely(!status) && ret_task) {
        tram__future_hold(&task->future);
        *ret_task = task;
    }
    return status;
}

tram_task *tram_task_hold(tram_task *task) {
    tram_future_hold(&task->future);
    return task;
}

void tram_task_release(tram_task *task) {
    if (task)
        tram_future_release(&task->future);
}

tram_future *tram_task_future(tram_task *task) {
    return &task->future;
}

tram_task *tram_future_task(tram_future *future) {
    return future && future->kind == &tram__task_kind ? task_of(future) : NULL;
}

bool tram_task_done(const tram_task *task) {
    return tram_future_done(&task->future);
}

int tram_task_result(const tram_task *task) {
    void *value = NULL;
    int status = tram_future_result(&task->future, &value);
    return status ? status : (int)(intptr_t)value;
}

const char *tram_task_name(tram_task *task) {
    if (!task->name[0])
        snprintf(task->name, sizeof task->name, "task-%" PRIu64, task->number);
    return task->name;
}

int tram_task_set_name(tram_task *task, const char *name) {
    int status = loop_enter(task->future.loop, __func__);
    if (!status)
        set_name(task, name);
    return status;
}

int tram_task_cancel(tram_task *task) {
    return tram_future_cancel(&task->future);
}

int tram_task_uncancel(tram_task *task) {
    int status = loop_enter(task->future.loop, __func__);
    if (status)
        return status;
    if (task->cancels > 0 && --task->cancels == 0)
        task->must_cancel = false;
    return (int)task->cancels;
}

int tram_task_cancelling(const tram_task *task) {
    int status = loop_enter(task->future.loop, __func__);
    return status ? status : (int)task->cancels;
}
