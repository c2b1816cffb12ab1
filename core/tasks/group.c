/*
 * Task groups. The group is a scope of the task that began it, and each of its tasks is in its list until its done
 * callback was called, which the task embeds.
 */
#include "core/base/invalid.h"
#include "core/tasks/task.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <tram/group.h>

struct tram_group {
    struct task_scope scope;
    tram_task *parent;
    struct list tasks;      /* not ended yet */
    struct task_wait *wait; /* the parent waits for them to end */
    unsigned failures;
    int failure; /* the first one's code */
    bool exiting;
    bool aborting;
    bool cancels_parent; /* one request to the parent is ours */
    struct kept_error kept;
    size_t text_used;
    char text[TRAM_ERROR_TEXT]; /* who failed, and why */
};

static void cancel_tasks(struct tram_group *group) {
    group->aborting = true;
    for (struct list *link = group->tasks.next; link != &group->tasks; link = link->next) {
        tram_task *task = container_of(link, tram_task, group_link);
        if (task->future.state == FUTURE_PENDING)
            tram__task_request(task);
    }
}

static void note_failure(struct tram_group *group, const char *who, const tram_error *error) {
    if (group->failures++ == 0) {
        group->failure = error->code;
        tram__error_keep(&group->kept, error);
    }
    int length = snprintf(group->text + group->text_used, sizeof group->text - group->text_used, "%s%s: %s",
                          group->text_used ? ", " : "", who, tram_error_name(error->code));
    group->text_used += (size_t)MAX(length, 0);
    if (group->text_used >= sizeof group->text)
        group->text_used = sizeof group->text - 1;
}

static void task_failed(struct tram_group *group, tram_task *task) {
    task->future.retrieved = true;
    note_failure(group, tram_task_name(task), &task->future.error);
    if (group->aborting || group->cancels_parent)
        return;
    /* The parent may be anywhere in its part: the cancellation brings it to tram_group_end(). */
    cancel_tasks(group);
    group->cancels_parent = true;
    tram__task_request(group->parent);
}

static void task_done(tram_loop *loop, struct ready *ready) {
    (void)loop;
    tram_task *task = container_of(ready, tram_task, group_watch.ready);
    struct tram_group *group = task->group;
    list_remove(&task->group_link);
    if (group->wait && list_empty(&group->tasks))
        task_wake(group->wait);
    if (task->future.state == FUTURE_ERROR)
        task_failed(group, task);
    tram__future_drop(&task->future);
}

static void free_group(struct tram_group *group) {
    list_remove(&group->scope.link);
    memory_put(&group->parent->future.loop->allocator, group, sizeof *group);
}

/* The loop closes: its tasks, which end in the same way, leave it. */
static void abandon_scope(struct task_scope *scope) {
    struct tram_group *group = container_of(scope, struct tram_group, scope);
    while (!list_empty(&group->tasks)) {
        tram_task *task = container_of(group->tasks.next, tram_task, group_link);
        list_remove(&task->group_link);
        future_unwatch(&task->group_watch);
        tram__future_drop(&task->future);
    }
    free_group(group);
}

/* ---- The end ---- */

static const struct wait_kind group_kind = {.name = "group"};

/* Until no task is left, however often the parent is cancelled meanwhile. True: it was, and not by the group. */
static bool wait_for_tasks(struct tram_group *group, const void *where) {
    bool cancelled = false;
    while (!list_empty(&group->tasks)) {
        struct task_wait wait;
        wait_init(&wait, &group_kind, where);
        group->wait = &wait;
        int status = tram__task_park(&wait);
        group->wait = NULL;
        if (status && !group->aborting) {
            cancelled = true;
            cancel_tasks(group);
        }
    }
    return cancelled;
}

/* The failures' own end: one is itself, several are one error with all their names. */
static int end_failed(struct tram_group *group) {
    tram_task *parent = group->parent;
    tram_loop *loop = parent->future.loop;
    if (parent->cancels) {
        /* Who cancelled it from outside shall have it cancelled where it waits next. */
        parent->cancels--;
        if (!parent->cancels)
            parent->must_cancel = false;
        tram__task_request(parent);
    }
    if (group->failures > 1)
        return tram_loop_raise(loop, TRAM_EMULTIPLE, NULL, group->text);
    return tram_loop_raise(loop, group->failure, group->kept.error.user, group->kept.error.detail);
}

static int leave(struct tram_group *group, int status, const void *where) {
    tram_task *parent = group->parent;
    group->exiting = true;
    bool cancelled = status == TRAM_ECANCELLED;
    if (status < 0 && !group->aborting)
        cancel_tasks(group);
    if (wait_for_tasks(group, where))
        cancelled = true;
    if (group->cancels_parent && tram_task_uncancel(parent) == 0)
        cancelled = false;
    if (cancelled && !group->failures)
        return TRAM_ECANCELLED;
    if (status < 0 && status != TRAM_ECANCELLED)
        note_failure(group, "the group's own part", tram__raised(parent->future.loop, status, "group"));
    if (group->failures)
        return end_failed(group);
    return status == TRAM_ECANCELLED ? 0 : status;
}

static int end_scope(struct task_scope *scope, int status) {
    struct tram_group *group = container_of(scope, struct tram_group, scope);
    status = leave(group, status, NULL);
    free_group(group);
    return status;
}

/* ---- The public calls ---- */

int tram_group_begin(tram_group **ret_group) {
    int status = task_check(NULL);
    if (status)
        return status;
    tram_task *task = tram__task_current;
    tram_group *group = tram__memory_get_zero(&task->future.loop->allocator, sizeof *group);
    if (!group)
        return -ENOMEM;
    group->scope.end = end_scope;
    group->scope.abandon = abandon_scope;
    group->parent = task;
    list_init(&group->tasks);
    scope_open(task, &group->scope);
    *ret_group = group;
    return 0;
}

int tram_group_spawn(tram_group *group, tram_task_function function, void *arg, const tram_task_options *options,
                     tram_task **ret_task) {
    if (!group || !function)
        return tram__invalid(group ? "function" : "group");
    tram_loop *loop = group->parent->future.loop;
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (group->aborting || (group->exiting && list_empty(&group->tasks)))
        return TRAM_ESTATE;
    tram_task *task;
    status = tram__task_new(loop, function, arg, options, &task);
    if (status)
        return status;
    task->group = group;
    list_append(&group->tasks, &task->group_link);
    tram__future_hold(&task->future);
    tram__future_watch(&task->future, &task->group_watch, task_done);
    if (ret_task) {
        tram__future_hold(&task->future);
        *ret_task = task;
    }
    return 0;
}

int tram_group_end(tram_group *group, int status) {
    if (!group)
        return tram__invalid("group");
    if (!scope_is_innermost(&group->scope))
        return TRAM_ESTATE;
    int forked = task_check(NULL);
    if (forked)
        return forked; /* in a child its tasks never end */
    status = leave(group, status, __builtin_return_address(0));
    free_group(group);
    return status;
}
