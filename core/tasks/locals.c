/*
 * Values of tasks. They are a list that only grows at its head: a task that is spawned shares what its parent has by
 * holding the head, and what either sets later is its own.
 */
#include <errno.h>

#include "core/tasks/task.h"

struct task_local {
    struct task_local *next;
    tram_loop *loop;
    const void *key;
    void *value;
    tram_discard destroy;
    size_t references;
};

struct task_local *tram__locals_hold(struct task_local *locals) {
    if (locals)
        locals->references++;
    return locals;
}

void tram__locals_drop(struct task_local *locals) {
    while (locals && --locals->references == 0) {
        struct task_local *next = locals->next;
        if (locals->destroy)
            locals->destroy(locals->value);
        memory_put(&locals->loop->allocator, locals, sizeof *locals);
        locals = next;
    }
}

/* A value that only this task has may be changed where it is. */
static struct task_local *own(const tram_task *task, const void *key) {
    for (struct task_local *local = task->locals; local && local->references == 1; local = local->next)
        if (local->key == key)
            return local;
    return NULL;
}

static void change(struct task_local *local, void *value, tram_discard destroy) {
    void *old = local->value;
    tram_discard destroy_old = local->destroy;
    local->value = value;
    local->destroy = destroy;
    if (destroy_old)
        destroy_old(old);
}

int tram_task_set_local(const void *key, void *value, tram_discard destroy) {
    tram_task *task = tram__task_current;
    if (!task)
        return TRAM_ESTATE;
    struct task_local *local = own(task, key);
    if (local) {
        change(local, value, destroy);
        return 0;
    }
    tram_loop *loop = task->future.loop;
    local = memory_get(&loop->allocator, sizeof *local);
    if (!local)
        return -ENOMEM;
    *local = (struct task_local){
        .next = task->locals, .loop = loop, .key = key, .value = value, .destroy = destroy, .references = 1};
    task->locals = local;
    return 0;
}

void *tram_task_local(const void *key) {
    const tram_task *task = tram__task_current;
    for (const struct task_local *local = task ? task->locals : NULL; local; local = local->next)
        if (local->key == key)
            return local->value;
    return NULL;
}
