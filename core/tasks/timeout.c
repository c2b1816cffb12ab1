#include "core/tasks/timeout.h"

#include <errno.h>

#include "core/base/invalid.h"

static void disarm(struct tram_timeout *timeout) {
    deadline_cancel(timeout->task->future.loop, &timeout->deadline);
    list_remove(&timeout->ready.link);
}

static void expire(struct tram_timeout *timeout) {
    tram__task_request(timeout->task);
    timeout->state = TIMEOUT_EXPIRING;
}

static void deadline_passed(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    expire(container_of(deadline, struct tram_timeout, deadline));
}

static void was_due(tram_loop *loop, struct ready *ready) {
    (void)loop;
    expire(container_of(ready, struct tram_timeout, ready));
}

static int arm(struct tram_timeout *timeout, uint64_t when_ns) {
    tram_loop *loop = timeout->task->future.loop;
    disarm(timeout);
    timeout->when_ns = when_ns;
    if (when_ns == TRAM_FOREVER)
        return 0;
    if (when_ns > tram__clock(loop))
        return tram__deadline_start(loop, &timeout->deadline, when_ns);
    loop_ready(loop, &timeout->ready);
    return 0;
}

static void free_timeout(struct tram_timeout *timeout) {
    if (timeout->allocated)
        memory_put(&timeout->task->future.loop->allocator, timeout, sizeof *timeout);
}

static int end_scope(struct task_scope *scope, int status) {
    return tram__timeout_leave(container_of(scope, struct tram_timeout, scope), status);
}

static void abandon_scope(struct task_scope *scope) {
    struct tram_timeout *timeout = container_of(scope, struct tram_timeout, scope);
    disarm(timeout);
    free_timeout(timeout);
}

int tram__timeout_enter(struct tram_timeout *timeout, tram_task *task, uint64_t delay_ns) {
    *timeout = (struct tram_timeout){
        .scope = {.end = end_scope, .abandon = abandon_scope},
        .task = task,
        .deadline = {.timer.place = TIMER_IDLE, .expire = deadline_passed},
        .ready.run = was_due,
        .cancelling = task->cancels,
    };
    list_init(&timeout->ready.link);
    int status = arm(timeout, time_after(tram__clock(task->future.loop), delay_ns));
    if (!status)
        scope_open(task, &timeout->scope);
    return status;
}

int tram__timeout_leave(struct tram_timeout *timeout, int status) {
    tram_task *task = timeout->task;
    disarm(timeout);
    list_remove(&timeout->scope.link);
    if (timeout->state == TIMEOUT_EXPIRING) {
        if (task->cancels > 0 && --task->cancels == 0)
            task->must_cancel = false;
        if (task->cancels <= timeout->cancelling && status == TRAM_ECANCELLED)
            status = TRAM_ETIMEOUT;
    }
    free_timeout(timeout);
    return status;
}

/* ---- The public calls ---- */

int tram_timeout_begin(uint64_t delay_ns, tram_timeout **ret_timeout) {
    int status = task_check(NULL);
    if (unlikely(status))
        return status;
    tram_task *task = tram__task_current;
    const tram_allocator *allocator = &task->future.loop->allocator;
    struct tram_timeout *timeout = memory_get(allocator, sizeof *timeout);
    if (unlikely(!timeout))
        return -ENOMEM;
    status = tram__timeout_enter(timeout, task, delay_ns);
    if (unlikely(status)) {
        memory_put(allocator, timeout, sizeof *timeout);
        return status;
    }
    timeout->allocated = true;
    *ret_timeout = timeout;
    return 0;
}

int tram_timeout_end(tram_timeout *timeout, int status) {
    if (unlikely(!timeout))
        return tram__invalid("timeout");
    if (unlikely(!scope_is_innermost(&timeout->scope)))
        return TRAM_ESTATE;
    return tram__timeout_leave(timeout, status);
}

int tram_timeout_reschedule(tram_timeout *timeout, uint64_t when_ns) {
    int status = loop_enter_open(timeout->task->future.loop, __func__);
    if (unlikely(status))
        return status;
    return timeout->state == TIMEOUT_ENTERED ? arm(timeout, when_ns) : TRAM_ESTATE;
}

uint64_t tram_timeout_when(const tram_timeout *timeout) {
    return timeout->when_ns;
}

bool tram_timeout_expired(const tram_timeout *timeout) {
    return timeout->state == TIMEOUT_EXPIRING || timeout->state == TIMEOUT_EXPIRED;
}

/* ---- tram_wait_for ---- */

/* Cancels it and waits for its end, whatever that is. */
static int cancel_and_wait(tram_future *future, const void *where) {
    struct future_completion completion;
    tram__completion_begin(&completion, future, where);
    (void)tram_future_cancel(future);
    int status = tram__completion_wait(&completion);
    return status;
}

static int wait_no_time(tram_future *future, void **ret_value, const void *where) {
    if (future->state != FUTURE_PENDING)
        return tram_future_result(future, ret_value);
    int status = cancel_and_wait(future, where);
    if (!status)
        status = tram_future_result(future, ret_value);
    else
        return status;
    return status == TRAM_ECANCELLED ? TRAM_ETIMEOUT : status;
}

int tram_wait_for(tram_future *future, uint64_t timeout_ns, void **ret_value) {
    if (unlikely(!future))
        return tram__invalid("future");
    int status = task_check(future->loop);
    if (unlikely(status))
        return status;
    tram_task *task = tram__task_current;
    if (unlikely(future == &task->future))
        return TRAM_ESTATE;
    const void *where = __builtin_return_address(0);
    if (timeout_ns == 0)
        return wait_no_time(future, ret_value, where);
    struct tram_timeout timeout;
    status = tram__timeout_enter(&timeout, task, timeout_ns);
    if (unlikely(status))
        return status;
    status = tram__task_await(future, ret_value, where);
    return tram__timeout_leave(&timeout, status);
}
