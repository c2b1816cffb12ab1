/*
 * Values of tasks. A task and those that it spawned share one table until one of them sets something, which makes a
 * table of its own. The values themselves are counted by the tables that have them.
 */
#include <errno.h>

#include "core/tasks/task.h"

struct local_value {
    void *value;
    tram_discard destroy;
    size_t references;
};

struct local_entry {
    const void *key;
    struct local_value *value;
};

struct task_locals {
    tram_loop *loop;
    size_t references;
    size_t count;
    struct local_entry entries[];
};

static size_t table_size(size_t count) {
    return sizeof(struct task_locals) + count * sizeof(struct local_entry);
}

static void drop_value(tram_loop *loop, struct local_value *value) {
    if (--value->references > 0)
        return;
    if (value->destroy)
        value->destroy(value->value);
    memory_put(&loop->allocator, value, sizeof *value);
}

struct task_locals *tram__locals_hold(struct task_locals *locals) {
    if (locals)
        locals->references++;
    return locals;
}

void tram__locals_drop(struct task_locals *locals) {
    if (!locals || --locals->references > 0)
        return;
    for (size_t i = 0; i < locals->count; i++)
        drop_value(locals->loop, locals->entries[i].value);
    memory_put(&locals->loop->allocator, locals, table_size(locals->count));
}

static struct local_entry *find(struct task_locals *locals, const void *key) {
    for (size_t i = 0; locals && i < locals->count; i++)
        if (locals->entries[i].key == key)
            return &locals->entries[i];
    return NULL;
}

/* What `old` has, and room for one more if the key is none of it. */
static struct task_locals *copy(tram_loop *loop, struct task_locals *old, const void *key) {
    size_t count = old ? old->count : 0;
    size_t more = find(old, key) ? 0 : 1;
    struct task_locals *table = memory_get(&loop->allocator, table_size(count + more));
    if (!table)
        return NULL;
    *table = (struct task_locals){.loop = loop, .references = 1, .count = count + more};
    for (size_t i = 0; i < count; i++) {
        table->entries[i] = old->entries[i];
        table->entries[i].value->references++;
    }
    if (more)
        table->entries[count] = (struct local_entry){.key = key};
    return table;
}

/* The task's own table, with an entry for the key. */
static struct local_entry *own_entry(tram_task *task, const void *key) {
    struct task_locals *locals = task->locals;
    struct local_entry *entry = find(locals, key);
    if (entry && locals->references == 1)
        return entry;
    locals = copy(task->future.loop, locals, key);
    if (!locals)
        return NULL;
    tram__locals_drop(task->locals);
    task->locals = locals;
    return find(locals, key);
}

int tram_task_set_local(const void *key, void *value, tram_discard destroy) {
    tram_task *task = tram__task_current;
    if (!task)
        return TRAM_ESTATE;
    tram_loop *loop = task->future.loop;
    struct local_value *fresh = memory_get(&loop->allocator, sizeof *fresh);
    struct local_entry *entry = fresh ? own_entry(task, key) : NULL;
    if (!entry) {
        memory_put(&loop->allocator, fresh, sizeof *fresh);
        return -ENOMEM;
    }
    *fresh = (struct local_value){value, destroy, 1};
    struct local_value *old = entry->value;
    entry->value = fresh;
    if (old)
        drop_value(loop, old);
    return 0;
}

void *tram_task_local(const void *key) {
    const tram_task *task = tram__task_current;
    const struct local_entry *entry = task ? find(task->locals, key) : NULL;
    return entry ? entry->value->value : NULL;
}
