/*
 * gather and shield: futures that stand for others. While it waits such a future holds itself, and is in its loop's
 * list of those, so that a loop that closes can end it.
 */
#include <errno.h>

#include "core/base/invalid.h"
#include "core/tasks/combine.h"

struct gather {
    tram_future future;
    struct loop_owned owned;
    bool keeps_errors;
    bool cancel_requested;
    size_t count;
    size_t finished;
    struct gather_child {
        struct watched watched;
        struct gather *gather;
    } children[];
};

static void end_watching(struct gather *self) {
    for (size_t i = 0; i < self->count; i++)
        tram__watch_end(&self->children[i].watched);
    list_remove(&self->owned.link);
    tram__future_drop(&self->future);
}

static void abandon_gather(struct loop_owned *owned) {
    struct gather *self = container_of(owned, struct gather, owned);
    tram__future_finish_cancelled(&self->future);
    end_watching(self);
}

static void all_finished(struct gather *self) {
    if (self->cancel_requested)
        tram__future_fail_code(&self->future, TRAM_ECANCELLED, "gather");
    else
        tram__future_finish(&self->future, NULL);
}

static void child_finished(struct gather *self, tram_future *child) {
    self->finished++;
    child->retrieved = true;
    if (self->future.state != FUTURE_PENDING)
        return;
    if (!self->keeps_errors && child->state == FUTURE_CANCELLED)
        tram__future_fail_code(&self->future, TRAM_ECANCELLED, "gather");
    else if (!self->keeps_errors && child->state == FUTURE_ERROR)
        tram__future_fail(&self->future, &child->error);
    else if (self->finished == self->count)
        all_finished(self);
}

static void child_done(struct watched *watched) {
    struct gather *self = container_of(watched, struct gather_child, watched)->gather;
    child_finished(self, watched->watch.future);
    if (self->finished == self->count)
        end_watching(self);
}

static int request_gather(tram_future *future) {
    struct gather *self = container_of(future, struct gather, future);
    int asked = 0;
    for (size_t i = 0; i < self->count; i++)
        asked |= tram_future_cancel(self->children[i].watched.watch.future) > 0;
    if (asked)
        self->cancel_requested = true;
    return asked;
}

static const struct future_kind gather_kind = {.name = "gather", .request = request_gather};

/* What is done already counts at once, when all others are watched. */
static void begin_watching(struct gather *self, tram_future *const *futures) {
    size_t done = 0;
    for (size_t i = 0; i < self->count; i++) {
        struct gather_child *child = &self->children[i];
        child->gather = self;
        if (futures[i]->state == FUTURE_PENDING) {
            tram__watch_begin(&child->watched, futures[i], child_done);
            continue;
        }
        child->watched.watch = (struct future_watch){.future = tram__future_hold(futures[i])};
        list_init(&child->watched.watch.ready.link);
        done++;
    }
    for (size_t i = 0; i < self->count && done; i++)
        if (futures[i]->state != FUTURE_PENDING)
            child_finished(self, futures[i]);
}

int tram_gather(tram_loop *loop, tram_future *const *futures, size_t count, unsigned flags, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (flags & ~(unsigned)TRAM_GATHER_ERRORS || count > SIZE_MAX / 2 / sizeof(struct gather_child))
        return tram__invalid(flags & ~(unsigned)TRAM_GATHER_ERRORS ? "flags" : "count");
    status = tram__futures_check(loop, futures, count);
    if (status)
        return status;
    struct task_loop *tasks = tram__task_loop(loop);
    struct gather *self;
    if (!tasks)
        return -ENOMEM;
    status = tram__future_new(loop, &gather_kind, sizeof *self + count * sizeof self->children[0], &self);
    if (status)
        return status;
    self->keeps_errors = flags & TRAM_GATHER_ERRORS;
    self->count = count;
    loop_own(tasks, &self->owned, abandon_gather);
    tram__future_hold(&self->future);
    begin_watching(self, futures);
    if (count == 0)
        tram__future_finish(&self->future, NULL);
    *ret_future = &self->future;
    if (self->finished == count)
        end_watching(self);
    return 0;
}

/* ---- shield ---- */

struct shield {
    tram_future future;
    struct loop_owned owned;
    struct watched inner;
};

static void end_shield(struct shield *self) {
    tram__watch_end(&self->inner);
    list_remove(&self->owned.link);
    tram__future_drop(&self->future);
}

static void abandon_shield(struct loop_owned *owned) {
    struct shield *self = container_of(owned, struct shield, owned);
    tram__future_finish_cancelled(&self->future);
    end_shield(self);
}

static void copy_outcome(tram_future *to, tram_future *from) {
    from->retrieved = true;
    if (from->state == FUTURE_RESULT)
        tram__future_finish(to, from->value);
    else if (from->state == FUTURE_ERROR)
        tram__future_fail(to, &from->error);
    else
        tram__future_finish_cancelled(to);
}

static void inner_done(struct watched *watched) {
    struct shield *self = container_of(watched, struct shield, inner);
    copy_outcome(&self->future, watched->watch.future);
    end_shield(self);
}

/* The inner one goes on, and nobody waits for it here. */
static void cancel_shield(tram_future *future) {
    struct shield *self = container_of(future, struct shield, future);
    tram__future_finish_cancelled(future);
    end_shield(self);
}

static const struct future_kind shield_kind = {.name = "shield", .cancel = cancel_shield};

int tram_shield(tram_future *inner, tram_future **ret_future) {
    if (!inner)
        return tram__invalid("inner");
    tram_loop *loop = inner->loop;
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (inner->state != FUTURE_PENDING) {
        *ret_future = tram__future_hold(inner);
        return 0;
    }
    struct task_loop *tasks = tram__task_loop(loop);
    struct shield *self;
    if (!tasks)
        return -ENOMEM;
    status = tram__future_new(loop, &shield_kind, sizeof *self, &self);
    if (status)
        return status;
    loop_own(tasks, &self->owned, abandon_shield);
    tram__future_hold(&self->future);
    tram__watch_begin(&self->inner, inner, inner_done);
    *ret_future = &self->future;
    return 0;
}
