#include "core/runtime/parts.h"

#include <errno.h>

#include "core/runtime/runtime.h"

static bool ends(const tram_runtime *runtime) {
    return runtime->state == RUNTIME_ENDED || atomic_load_explicit(&runtime->asked, memory_order_relaxed);
}

bool tram__runtime_ends(tram_runtime *runtime) {
    pthread_mutex_lock(&runtime->lock);
    bool result = ends(runtime);
    pthread_mutex_unlock(&runtime->lock);
    return result;
}

/* With the lock. */
static struct runtime_part *part_of_kind(const tram_runtime *runtime, const struct runtime_part_ops *ops) {
    for (const struct list *link = runtime->parts.next; link != &runtime->parts; link = link->next)
        if (container_of(link, struct runtime_part, link)->ops == ops)
            return container_of(link, struct runtime_part, link);
    return NULL;
}

struct runtime_part *tram__runtime_find_part(tram_runtime *runtime, const struct runtime_part_ops *ops) {
    pthread_mutex_lock(&runtime->lock);
    struct runtime_part *part = part_of_kind(runtime, ops);
    pthread_mutex_unlock(&runtime->lock);
    return part;
}

static int add_part(tram_runtime *runtime, struct runtime_part *part, bool only) {
    pthread_mutex_lock(&runtime->lock);
    int status = ends(runtime) ? TRAM_ESTATE : only && part_of_kind(runtime, part->ops) ? -EEXIST : 0;
    if (!status) {
        part->holds = 1;
        part->late = runtime->state != RUNTIME_NEW;
        list_append(&runtime->parts, &part->link);
    }
    pthread_mutex_unlock(&runtime->lock);
    return status;
}

void tram__runtime_hold_part(tram_runtime *runtime, struct runtime_part *part) {
    pthread_mutex_lock(&runtime->lock);
    part->holds++;
    pthread_mutex_unlock(&runtime->lock);
}

void tram__runtime_release_part(tram_runtime *runtime, struct runtime_part *part) {
    if (runtime->freeing)
        return; /* all are freed, and this one may be already */
    pthread_mutex_lock(&runtime->lock);
    bool last = --part->holds == 0;
    if (last)
        list_remove(&part->link);
    pthread_mutex_unlock(&runtime->lock);
    if (last)
        part->ops->free(part);
}

int tram__runtime_add_part(tram_runtime *runtime, struct runtime_part *part) {
    return add_part(runtime, part, false);
}

int tram__runtime_add_only_part(tram_runtime *runtime, struct runtime_part *part) {
    return add_part(runtime, part, true);
}

void tram__runtime_pin(tram_runtime *runtime) {
    pthread_mutex_lock(&runtime->lock);
    runtime->pins++;
    pthread_mutex_unlock(&runtime->lock);
}

void tram__runtime_unpin(tram_runtime *runtime) {
    pthread_mutex_lock(&runtime->lock);
    runtime->pins--;
    pthread_cond_broadcast(&runtime->changed);
    pthread_mutex_unlock(&runtime->lock);
}

void tram__runtime_await_pins(tram_runtime *runtime) {
    pthread_mutex_lock(&runtime->lock);
    while (runtime->pins)
        pthread_cond_wait(&runtime->changed, &runtime->lock);
    pthread_mutex_unlock(&runtime->lock);
}

/* The lock is held for no call of a part. */
struct runtime_part *tram__runtime_next_part(tram_runtime *runtime, struct runtime_part *part) {
    pthread_mutex_lock(&runtime->lock);
    struct list *link = part ? part->link.next : runtime->parts.next;
    struct runtime_part *next = NULL;
    if (link != &runtime->parts) {
        next = container_of(link, struct runtime_part, link);
        next->holds++;
    }
    pthread_mutex_unlock(&runtime->lock);
    if (part)
        tram__runtime_release_part(runtime, part);
    return next;
}
