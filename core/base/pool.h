/*
 * A pool of objects of one size, for the objects of the hot path: chunks from the memory face, a free list on
 * top. Owned by one loop, used on its thread only. Memory goes back to the allocator when the pool ends.
 */
#ifndef TRAM_CORE_BASE_POOL_H
#define TRAM_CORE_BASE_POOL_H

#include "core/base/assert.h"
#include "core/base/memory.h"

struct pool {
    const tram_allocator *allocator;
    void *free; /* free objects, linked through their first word */
    struct pool_chunk *chunks;
    size_t size;      /* of an object, a multiple of 16 */
    size_t per_chunk; /* objects in a chunk */
    size_t live;      /* objects given out */
};

void tram__pool_init(struct pool *pool, const tram_allocator *allocator, size_t size);

/* Frees all chunks, live objects included. */
void tram__pool_fini(struct pool *pool);

void *tram__pool_grow(struct pool *pool);

/* Each object is live or on the free list once, and nothing was written to those that are free. */
void tram__pool_validate(const struct pool *pool);

#if TRAM_CHECKED
/* Marks an object as free, so that using it is noticed; and sees that nobody wrote to it. */
void tram__pool_mark(const struct pool *pool, void *object);
void tram__pool_unmark(const struct pool *pool, const void *object);
#else
static inline void tram__pool_mark(const struct pool *pool, void *object) {
    (void)pool;
    (void)object;
}
static inline void tram__pool_unmark(const struct pool *pool, const void *object) {
    (void)pool;
    (void)object;
}
#endif

/* An object with undefined contents; NULL when out of memory. */
static inline void *pool_get(struct pool *pool) {
    void *object = pool->free;
    if (__builtin_expect(!object, 0)) {
        object = tram__pool_grow(pool);
        if (!object)
            return NULL;
    }
    tram__pool_unmark(pool, object);
    pool->free = *(void **)object;
    pool->live++;
    return object;
}

static inline void pool_put(struct pool *pool, void *object) {
    TRAM_DCHECK(pool->live > 0);
    *(void **)object = pool->free;
    pool->free = object;
    pool->live--;
    tram__pool_mark(pool, object);
}

#endif
