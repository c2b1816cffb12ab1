#include "protocols/streams/pool.h"

#include "core/base/memory.h"
#include "protocols/streams/streams.h"

static void *block_get(void *context, size_t size) {
    struct stream_loop *streams = context;
    return likely(size <= STREAM_BLOCK) ? pool_get(&streams->blocks) : memory_get(&streams->loop->allocator, size);
}

static void block_put(void *context, void *block, size_t size) {
    struct stream_loop *streams = context;
    if (likely(size <= STREAM_BLOCK))
        pool_put(&streams->blocks, block);
    else
        memory_put(&streams->loop->allocator, block, size);
}

tram_allocator tram__streams_blocks(tram_loop *loop) {
    return (tram_allocator){block_get, block_put, loop_slot(loop, STREAMS_SLOT)};
}

static void loop_closes(struct close_hook *hook, enum shutdown_mode mode) {
    struct stream_loop *streams = container_of(hook, struct stream_loop, hook);
    if (mode != IO_SHUTDOWN_NOW)
        return;
    for (struct list *link = streams->all.next; link != &streams->all; link = link->next) {
        struct stream_owned *owned = container_of(link, struct stream_owned, link);
        owned->kind->closing(owned);
    }
    list_remove(&hook->link);
}

/* Streams and processes that tasks held which never went on. */
static void free_state(tram_loop *loop, struct loop_state *state) {
    (void)loop;
    struct stream_loop *streams = (struct stream_loop *)(void *)state;
    while (!list_empty(&streams->all)) {
        struct stream_owned *owned = container_of(streams->all.next, struct stream_owned, link);
        owned->kind->abandon(owned);
    }
    tram__pool_fini(&streams->streams);
    tram__pool_fini(&streams->blocks);
}

static void validate(const struct loop_state *state) {
    const struct stream_loop *streams = (const struct stream_loop *)(const void *)state;
    tram__pool_validate(&streams->streams);
    tram__pool_validate(&streams->blocks);
    list_validate(&streams->all);
}

struct stream_loop *tram__streams_loop(tram_loop *loop) {
    struct stream_loop *streams = loop_slot(loop, STREAMS_SLOT);
    if (likely(streams != NULL))
        return streams;
    streams = tram__loop_slot_open(loop, STREAMS_SLOT, sizeof *streams, free_state);
    if (!streams)
        return NULL;
    streams->state.validate = validate;
    streams->loop = loop;
    list_init(&streams->all);
    loop_add_close_hook(loop, &streams->hook, loop_closes);
    tram__pool_init(&streams->streams, &loop->allocator, sizeof(struct stream));
    tram__pool_init(&streams->blocks, &loop->allocator, STREAM_BLOCK);
    return streams;
}
