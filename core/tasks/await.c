/* What a task waits in first of all: a future, a time, its next turn. */
#include <errno.h>

#include "core/base/invalid.h"
#include "core/tasks/task.h"

/* ---- A future ---- */

struct future_wait {
    struct task_wait wait;
    struct future_watch watch;
};

static bool cancel_future(struct task_wait *wait) {
    return tram_future_cancel(container_of(wait, struct future_wait, wait)->watch.future) > 0;
}

static void abandon_future(struct task_wait *wait) {
    struct future_wait *self = container_of(wait, struct future_wait, wait);
    future_unwatch(&self->watch);
    tram__future_drop(self->watch.future);
}

static const struct wait_kind future_wait_kind = {.name = "future", .cancel = cancel_future, .abandon = abandon_future};
static const struct wait_kind task_wait_kind = {.name = "task", .cancel = cancel_future, .abandon = abandon_future};

/* In place of the task itself in the ready queue. */
static void future_done(tram_loop *loop, struct ready *ready) {
    struct future_wait *self = container_of(ready, struct future_wait, watch.ready);
    self->wait.state = WAIT_WOKEN;
    tram__task_step(loop, self->wait.task);
}

static int park_for_future(tram_future *future, const void *where) {
    struct future_wait self;
    wait_init(&self.wait, future->kind == &tram__task_kind ? &task_wait_kind : &future_wait_kind, where);
    tram__future_hold(future);
    tram__future_watch(future, &self.watch, future_done);
    return tram__task_park(&self.wait);
}

int tram__task_await(tram_future *future, void **ret_value, const void *where) {
    bool parks = future->state == FUTURE_PENDING;
    int status = parks ? park_for_future(future, where) : 0;
    if (likely(!status))
        status = tram_future_result(future, ret_value);
    if (parks)
        tram__future_drop(future);
    return status;
}

/* A task that waits for itself would wait for ever. */
static bool may_await(const tram_future *future) {
    const tram_task *task = task_running(future->loop);
    return task && future != &task->future;
}

int tram_await(tram_future *future, void **ret_value) {
    if (unlikely(!future))
        return tram__invalid("future");
    int status = loop_enter_open(future->loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(!may_await(future)))
        return TRAM_ESTATE;
    return tram__task_await(future, ret_value, __builtin_return_address(0));
}

int tram_task_join(tram_task *task) {
    if (unlikely(!task))
        return tram__invalid("task");
    int status = loop_enter_open(task->future.loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(!may_await(&task->future)))
        return TRAM_ESTATE;
    void *value = NULL;
    status = tram__task_await(&task->future, &value, __builtin_return_address(0));
    if (likely(!status))
        status = (int)(intptr_t)value;
    tram__future_drop(&task->future);
    return status;
}

/* ---- Time ---- */

struct sleep_wait {
    struct task_wait wait;
    struct deadline deadline;
};

static void abandon_sleep(struct task_wait *wait) {
    struct sleep_wait *self = container_of(wait, struct sleep_wait, wait);
    deadline_cancel(wait->task->future.loop, &self->deadline);
}

static const struct wait_kind sleep_kind = {.name = "sleep", .abandon = abandon_sleep};
static const struct wait_kind yield_kind = {.name = "yield"};

static void sleep_over(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    task_wake(&container_of(deadline, struct sleep_wait, deadline)->wait);
}

static int yield(const void *where) {
    struct task_wait wait;
    wait_init(&wait, &yield_kind, where);
    task_wake(&wait);
    return tram__task_park(&wait);
}

int tram_sleep(uint64_t delay_ns) {
    int status = task_check(NULL);
    if (unlikely(status))
        return status;
    if (delay_ns == 0)
        return yield(__builtin_return_address(0));
    tram_loop *loop = tram__task_current->future.loop;
    struct sleep_wait self = {.deadline.expire = sleep_over, .deadline.timer.place = TIMER_IDLE};
    wait_init(&self.wait, &sleep_kind, __builtin_return_address(0));
    status = tram__deadline_start_after(loop, &self.deadline, delay_ns);
    if (unlikely(status))
        return status;
    status = tram__task_park(&self.wait);
    deadline_cancel(loop, &self.deadline);
    return status;
}

int tram_yield(void) {
    int status = task_check(NULL);
    if (unlikely(status))
        return status;
    return yield(__builtin_return_address(0));
}
