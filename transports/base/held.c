#include "transports/base/held.h"

#include <errno.h>
#include <string.h>

struct held *tram__held_new(tram_loop *loop, const void *data, size_t size) {
    struct held *held = memory_get_with(&loop->allocator, sizeof *held, size);
    if (!held)
        return NULL;
    *held = (struct held){.size = size};
    memcpy(held->bytes, data, size);
    return held;
}

void tram__held_free(tram_loop *loop, struct held *held) {
    if (held)
        memory_put(&loop->allocator, held, sizeof *held + held->size);
}

static void dispose(tram_loop *loop, struct deferred_free *deferred) {
    tram__held_free(loop, container_of(deferred, struct held, deferred));
}

void tram__held_free_later(tram_loop *loop, struct held *held) {
    tram__loop_free_later(loop, &held->deferred, dispose);
}

int tram__held_append(tram_loop *loop, struct held **held, const void *data, size_t size) {
    size_t before = held_left(*held);
    if (!size)
        return 0;
    struct held *joined =
        size <= SIZE_MAX - before ? memory_get_with(&loop->allocator, sizeof *joined, before + size) : NULL;
    if (!joined)
        return -ENOMEM;
    *joined = (struct held){.size = before + size};
    if (before)
        memcpy(joined->bytes, (*held)->bytes + (*held)->taken, before);
    memcpy(joined->bytes + before, data, size);
    if (*held)
        tram__held_free_later(loop, *held);
    *held = joined;
    return 0;
}

size_t tram__held_take(tram_loop *loop, struct held **held, void *memory, size_t size) {
    struct held *from = *held;
    size_t part = MIN(held_left(from), size);
    memcpy(memory, from->bytes + from->taken, part);
    from->taken += part;
    if (from->taken == from->size) {
        *held = NULL;
        tram__held_free(loop, from);
    }
    return part;
}

void tram__transport_drop_held(tram_transport *transport) {
    transport->flags &= ~(uint32_t)T_HELD;
    list_remove(&transport->more->ready.link);
    if (transport->more->held)
        tram__held_free_later(transport->io.loop, transport->more->held);
    transport->more->held = NULL;
    transport->more->held_end = false;
}
