#include "transports/base/chunks.h"
#include "transports/base/state.h"

struct free_chunk {
    struct free_chunk *next;
};

static const size_t chunk_sizes[] = {CHUNK_SMALL, CHUNK_LARGE};

void tram__chunks_free(tram_loop *loop, struct transport_state *state) {
    for (unsigned class = 0; class < 2; class ++) {
        struct chunk_cache *cache = &state->chunk_cache[class];
        while (cache->free) {
            struct free_chunk *chunk = cache->free;
            cache->free = chunk->next;
            memory_put(&loop->allocator, chunk, chunk_sizes[class]);
        }
    }
}

void *tram__chunk_get(tram_loop *loop, size_t *size) {
    if (*size > CHUNK_LARGE)
        return memory_get(&loop->allocator, *size);
    unsigned class = *size > CHUNK_SMALL;
    struct chunk_cache *cache = &transport_state(loop)->chunk_cache[class];
    struct free_chunk *chunk = cache->free;
    *size = chunk_sizes[class];
    if (!chunk)
        return memory_get(&loop->allocator, *size);
    cache->free = chunk->next;
    cache->count--;
    return chunk;
}

void tram__chunk_put(tram_loop *loop, void *memory, size_t size) {
    struct chunk_cache *cache = &transport_state(loop)->chunk_cache[size > CHUNK_SMALL];
    if (size > CHUNK_LARGE || cache->count >= TRAM_CHUNKS_KEPT) {
        memory_put(&loop->allocator, memory, size);
        return;
    }
    struct free_chunk *chunk = memory;
    chunk->next = cache->free;
    cache->free = chunk;
    cache->count++;
}

void tram__chunks_validate(const struct chunk_cache *cache) {
    unsigned listed = 0;
    for (const struct free_chunk *chunk = cache->free; chunk; chunk = chunk->next)
        TRAM_ASSERT(++listed <= TRAM_CHUNKS_KEPT);
    TRAM_ASSERT(listed == cache->count);
}
