/* tram_wait and tram_as_completed: a task waits for as many of several futures as it wants. */
#include <errno.h>

#include "core/base/invalid.h"
#include "core/tasks/combine.h"

#define FEW 8 /* futures whose watches fit on the stack */

/* ---- Until one future is done, with the task's own end of the wait ---- */

static const struct wait_kind completion_kind = {.name = "future", .abandon = tram__completion_abandon};

static void completion_done(tram_loop *loop, struct ready *ready) {
    (void)loop;
    task_wake(&container_of(ready, struct future_completion, watch.ready)->wait);
}

void tram__completion_begin(struct future_completion *completion, tram_future *future, const void *where) {
    wait_init(&completion->wait, &completion_kind, where);
    tram__future_hold(future);
    tram__future_watch(future, &completion->watch, completion_done);
}

void tram__completion_abandon(struct task_wait *wait) {
    struct future_completion *completion = container_of(wait, struct future_completion, wait);
    future_unwatch(&completion->watch);
    tram__future_drop(completion->watch.future);
}

int tram__completion_wait(struct future_completion *completion) {
    int status = tram__task_park(&completion->wait);
    tram__completion_abandon(&completion->wait);
    return status;
}

/* ---- wait ---- */

struct several;

struct several_child {
    struct watched watched;
    struct several *several;
};

struct several {
    struct task_wait wait;
    struct deadline deadline;
    tram_wait_mode mode;
    size_t count;
    size_t left;
    struct several_child *children;
    struct several_child few[FEW];
};

static void end_watching(struct several *self) {
    tram_loop *loop = self->wait.task->future.loop;
    deadline_cancel(loop, &self->deadline);
    for (size_t i = 0; i < self->count; i++)
        tram__watch_end(&self->children[i].watched);
    if (self->children != self->few)
        memory_put(&loop->allocator, self->children, self->count * sizeof *self->children);
}

static void abandon_several(struct task_wait *wait) {
    end_watching(container_of(wait, struct several, wait));
}

static const struct wait_kind several_kind = {.name = "wait", .abandon = abandon_several};

static void time_is_over(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    task_wake(&container_of(deadline, struct several, deadline)->wait);
}

static void one_done(struct watched *watched) {
    struct several *self = container_of(watched, struct several_child, watched)->several;
    tram_future *future = watched->watch.future;
    self->left--;
    bool failed = future->state == FUTURE_ERROR;
    if (failed && self->mode == TRAM_FIRST_EXCEPTION)
        future->retrieved = true;
    if (self->left > 0 && self->mode != TRAM_FIRST_COMPLETED && !(self->mode == TRAM_FIRST_EXCEPTION && failed))
        return;
    task_wake(&self->wait);
}

static int begin_several(struct several *self, tram_loop *loop, uint64_t timeout_ns) {
    self->deadline = (struct deadline){.timer.place = TIMER_IDLE, .expire = time_is_over};
    self->children = self->few;
    if (self->count > FEW) {
        self->children = memory_get(&loop->allocator, self->count * sizeof *self->children);
        if (!self->children)
            return -ENOMEM;
    }
    if (timeout_ns == TRAM_FOREVER)
        return 0;
    int status = tram__deadline_start_after(loop, &self->deadline, timeout_ns);
    if (status && self->children != self->few)
        memory_put(&loop->allocator, self->children, self->count * sizeof *self->children);
    return status;
}

static int count_done(tram_future *const *futures, size_t count) {
    int done = 0;
    for (size_t i = 0; i < count; i++)
        done += futures[i]->state != FUTURE_PENDING;
    return done;
}

int tram_wait(tram_future *const *futures, size_t count, uint64_t timeout_ns, tram_wait_mode mode) {
    int status = task_check(NULL);
    if (status)
        return status;
    tram_loop *loop = tram__task_current->future.loop;
    if (count == 0 || !futures || (unsigned)mode > TRAM_FIRST_EXCEPTION)
        return tram__invalid(count && futures ? "mode" : "futures");
    status = tram__futures_check(loop, futures, count);
    if (status)
        return status;
    struct several self;
    wait_init(&self.wait, &several_kind, __builtin_return_address(0));
    self.mode = mode;
    self.count = self.left = count;
    status = begin_several(&self, loop, timeout_ns);
    if (status)
        return status;
    for (size_t i = 0; i < count; i++) {
        self.children[i].several = &self;
        tram__watch_begin(&self.children[i].watched, futures[i], one_done);
    }
    status = tram__task_park(&self.wait);
    int done = count_done(futures, count);
    end_watching(&self);
    return status ? status : done;
}

/* ---- as_completed ---- */

struct tram_completions {
    tram_loop *loop;
    struct task_wait *waiter;
    struct deadline deadline;
    bool timed_out;
    size_t count;
    size_t done;  /* in `order` */
    size_t given; /* of these, returned */
    size_t size;
    tram_future **order;
    struct completion_child {
        struct watched watched;
        struct tram_completions *completions;
    } children[];
};

static void wake_waiter(struct tram_completions *self) {
    if (self->waiter)
        task_wake(self->waiter);
}

static void completion_arrived(struct watched *watched) {
    struct tram_completions *self = container_of(watched, struct completion_child, watched)->completions;
    if (self->timed_out)
        return;
    self->order[self->done++] = watched->watch.future;
    wake_waiter(self);
    if (self->done == self->count)
        deadline_cancel(self->loop, &self->deadline);
}

/* What has not come by now never comes. */
static void completions_time_out(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct tram_completions *self = container_of(deadline, struct tram_completions, deadline);
    self->timed_out = true;
    wake_waiter(self);
}

static struct tram_completions *completions_new(tram_loop *loop, size_t count) {
    size_t per_future = sizeof(struct completion_child) + sizeof(tram_future *);
    size_t size = sizeof(struct tram_completions) + count * per_future;
    struct tram_completions *self = tram__memory_get_zero(&loop->allocator, size);
    if (!self)
        return NULL;
    self->loop = loop;
    self->size = size;
    self->count = count;
    self->order = (tram_future **)(void *)&self->children[count];
    self->deadline = (struct deadline){.timer.place = TIMER_IDLE, .expire = completions_time_out};
    return self;
}

int tram_as_completed(tram_future *const *futures, size_t count, uint64_t timeout_ns,
                      tram_completions **ret_completions) {
    int status = task_check(NULL);
    if (status)
        return status;
    tram_loop *loop = tram__task_current->future.loop;
    status = tram__futures_check(loop, futures, count);
    if (status)
        return status;
    struct tram_completions *self = completions_new(loop, count);
    if (!self)
        return -ENOMEM;
    if (count && timeout_ns != TRAM_FOREVER) {
        status = tram__deadline_start_after(loop, &self->deadline, timeout_ns);
        if (status) {
            memory_put(&loop->allocator, self, self->size);
            return status;
        }
    }
    for (size_t i = 0; i < count; i++) {
        self->children[i].completions = self;
        tram__watch_begin(&self->children[i].watched, futures[i], completion_arrived);
    }
    *ret_completions = self;
    return 0;
}

static const struct wait_kind next_kind = {.name = "as_completed"};

int tram_completions_next(tram_completions *self, tram_future **ret_future) {
    int status = task_check(self->loop);
    if (status || self->waiter)
        return status ? status : TRAM_ESTATE;
    if (self->given == self->count)
        return 0;
    while (self->given == self->done) {
        if (self->timed_out)
            return TRAM_ETIMEOUT;
        struct task_wait wait;
        wait_init(&wait, &next_kind, __builtin_return_address(0));
        self->waiter = &wait;
        status = tram__task_park(&wait);
        self->waiter = NULL;
        if (status)
            return status;
    }
    *ret_future = self->order[self->given++];
    return 1;
}

void tram_completions_free(tram_completions *self) {
    if (!self || loop_enter(self->loop, __func__))
        return;
    deadline_cancel(self->loop, &self->deadline);
    for (size_t i = 0; i < self->count; i++)
        tram__watch_end(&self->children[i].watched);
    memory_put(&self->loop->allocator, self, self->size);
}
