#include "core/base/pool.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/base/compiler.h"

#if defined(TRAM_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, size)   ((void)(memory), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(memory, size) ((void)(memory), (void)(size))
#endif

/* A chunk is one allocation of about this size: small enough to be no burden, large enough to be rare. */
#define CHUNK_BYTES 16384

/* Objects of whole cache lines begin with one: what is used together is then in as few as it can be. */
#define CACHE_LINE 64

struct pool_chunk {
    struct pool_chunk *next;
    void *reserved; /* keeps the objects aligned to 16 bytes */
};

void tram__pool_init(struct pool *pool, const tram_allocator *allocator, size_t size) {
    size = (size + 15) & ~(size_t)15;
    size_t per_chunk = (CHUNK_BYTES - sizeof(struct pool_chunk) - CACHE_LINE) / size;
    *pool = (struct pool){.allocator = allocator, .size = size, .per_chunk = per_chunk ? per_chunk : 1};
}

static size_t chunk_bytes(const struct pool *pool) {
    return sizeof(struct pool_chunk) + CACHE_LINE + pool->per_chunk * pool->size;
}

void tram__pool_fini(struct pool *pool) {
    while (pool->chunks) {
        struct pool_chunk *chunk = pool->chunks;
        pool->chunks = chunk->next;
        ASAN_UNPOISON_MEMORY_REGION(chunk, chunk_bytes(pool));
        memory_put(pool->allocator, chunk, chunk_bytes(pool));
    }
    pool->free = NULL;
}

/* Where the objects of a chunk begin. */
static char *first_object(const struct pool *pool, struct pool_chunk *chunk) {
    char *first = (char *)(chunk + 1);
    return pool->size % CACHE_LINE ? first : first + (-(uintptr_t)first) % CACHE_LINE;
}

/* Adds a chunk; returns the head of the free list, still on it. */
void *tram__pool_grow(struct pool *pool) {
    struct pool_chunk *chunk = memory_get(pool->allocator, chunk_bytes(pool));
    if (!chunk)
        return NULL;
    chunk->next = pool->chunks;
    pool->chunks = chunk;
    char *object = first_object(pool, chunk) + pool->per_chunk * pool->size;
    for (size_t i = 0; i < pool->per_chunk; i++) {
        object -= pool->size;
        *(void **)(void *)object = pool->free;
        pool->free = object;
        tram__pool_mark(pool, object);
    }
    return pool->free;
}

/* ---- Checked builds ---- */

#if TRAM_CHECKED
/* A free object holds a pointer, and of these for the rest, which the address sanitizer refuses. */
#define FREE_BYTE 0xdb

void tram__pool_mark(const struct pool *pool, void *object) {
    char *rest = (char *)object + sizeof(void *);
    memset(rest, FREE_BYTE, pool->size - sizeof(void *));
    ASAN_POISON_MEMORY_REGION(rest, pool->size - sizeof(void *));
}

void tram__pool_unmark(const struct pool *pool, const void *object) {
    const unsigned char *bytes = object;
    ASAN_UNPOISON_MEMORY_REGION(object, pool->size);
    for (size_t i = sizeof(void *); i < pool->size; i++)
        TRAM_ASSERT(bytes[i] == FREE_BYTE);
}
#endif

/* It lies where a chunk has an object. */
static bool is_object(const struct pool *pool, const void *pointer) {
    for (struct pool_chunk *chunk = pool->chunks; chunk; chunk = chunk->next) {
        size_t offset = (uintptr_t)pointer - (uintptr_t)first_object(pool, chunk);
        if (offset < pool->per_chunk * pool->size)
            return offset % pool->size == 0;
    }
    return false;
}

void tram__pool_validate(const struct pool *pool) {
    size_t all = 0, free_count = 0;
    for (const struct pool_chunk *chunk = pool->chunks; chunk; chunk = chunk->next)
        all += pool->per_chunk;
    for (void *object = pool->free; object; object = *(void **)object) {
        TRAM_ASSERT(is_object(pool, object));
        TRAM_ASSERT(++free_count <= all);
        tram__pool_unmark(pool, object);
        tram__pool_mark(pool, object);
    }
    TRAM_ASSERT(pool->live + free_count == all);
}
