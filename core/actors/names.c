/* Names of actors: a table for each runtime, made with the first name, that any thread may ask. */
#include "core/actors/actor.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "core/base/hash.h"
#include "core/base/invalid.h"
#include "core/runtime/runtime.h"

#define NAME_BUCKETS 256

struct name {
    struct name *next;          /* in its bucket */
    struct name *next_of_actor; /* of the same actor */
    struct names *names;
    tram_address address;
    char text[];
};

struct names {
    struct runtime_part part;
    tram_allocator allocator;
    pthread_mutex_t lock; /* of the buckets, for some instructions */
    struct name *buckets[NAME_BUCKETS];
};

static int part_start(struct runtime_part *part, unsigned worker, tram_loop *loop) {
    (void)part;
    (void)worker;
    (void)loop;
    return 0;
}

static void part_stop(struct runtime_part *part, unsigned worker) {
    (void)part;
    (void)worker;
}

static void part_free(struct runtime_part *part) {
    struct names *names = container_of(part, struct names, part);
    tram_allocator allocator = names->allocator;
    pthread_mutex_destroy(&names->lock);
    memory_put(&allocator, names, sizeof *names);
}

static const struct runtime_part_ops names_ops = {.start = part_start, .stop = part_stop, .free = part_free};

static struct names *names_present(tram_runtime *runtime) {
    struct runtime_part *part = tram__runtime_find_part(runtime, &names_ops);
    return part ? container_of(part, struct names, part) : NULL;
}

static int names_open(tram_runtime *runtime, struct names **ret_names) {
    struct names *made = tram__memory_get_zero(&runtime->allocator, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->part.ops = &names_ops;
    made->allocator = runtime->allocator;
    pthread_mutex_init(&made->lock, NULL);
    int status = tram__runtime_add_only_part(runtime, &made->part);
    if (status)
        part_free(&made->part);
    *ret_names = names_present(runtime); /* somebody else may have been faster */
    return *ret_names ? 0 : status;
}

static struct name **link_of(struct names *names, const char *text) {
    struct name **link = &names->buckets[hash_text(text) % NAME_BUCKETS];
    while (*link && strcmp((*link)->text, text) != 0)
        link = &(*link)->next;
    return link;
}

static size_t name_size(const struct name *name) {
    return sizeof *name + strlen(name->text) + 1;
}

static int add_name(struct actor_record *record, struct names *names, const char *text) {
    tram_loop *loop = record->actor->loop;
    size_t size = strlen(text) + 1;
    struct name *name = memory_get_with(&names->allocator, sizeof *name, size);
    if (!name)
        return -ENOMEM;
    *name = (struct name){.names = names, .address = address_here(actors_present(loop), record->slot)};
    memcpy(name->text, text, size);
    pthread_mutex_lock(&names->lock);
    struct name **link = link_of(names, text);
    bool taken = *link != NULL;
    if (!taken)
        *link = name;
    pthread_mutex_unlock(&names->lock);
    if (taken) {
        memory_put(&names->allocator, name, name_size(name));
        return -EEXIST;
    }
    name->next_of_actor = record->names;
    record->names = name;
    return 0;
}

void tram__names_drop(struct name *first) {
    for (struct name *name = first, *next; name; name = next) {
        struct names *names = name->names;
        next = name->next_of_actor;
        pthread_mutex_lock(&names->lock);
        *link_of(names, name->text) = name->next;
        pthread_mutex_unlock(&names->lock);
        memory_put(&names->allocator, name, name_size(name));
    }
}

int tram_actor_register(tram_actor *actor, tram_runtime *runtime, const char *text) {
    int status = actor->loop ? loop_enter(actor->loop, __func__) : TRAM_ESTATE;
    if (status)
        return status;
    if (!actor_alive(actor))
        return TRAM_ESTATE;
    if (!text || !*text)
        return tram__invalid("name");
    struct names *names = names_present(runtime);
    status = names ? 0 : names_open(runtime, &names);
    return status ? status : add_name(actor->record, names, text);
}

int tram_runtime_lookup(tram_runtime *runtime, const char *text, tram_address *ret_address) {
    int status = runtime_enter(runtime);
    if (status)
        return status;
    struct names *names = names_present(runtime);
    if (!names || !text)
        return -ENOENT;
    pthread_mutex_lock(&names->lock);
    const struct name *name = *link_of(names, text);
    if (name)
        *ret_address = name->address;
    pthread_mutex_unlock(&names->lock);
    return name ? 0 : -ENOENT;
}
