/*
 * The one face of memory: all of the library allocates here, with sized frees. A struct memory is a copy of
 * the embedder's allocator or the default; it has no state of its own, so any thread may use it.
 */
#ifndef TRAM_CORE_BASE_MEMORY_H
#define TRAM_CORE_BASE_MEMORY_H

#include <stdbool.h>

#include "core/base/private.h"
#include <tram/memory.h>

/* The default allocator: jemalloc's sized calls where the program linked jemalloc, else malloc. */
extern TRAM_PRIVATE_API const tram_allocator tram__memory_default;

/* Copies `given` or, if NULL, the default. TRAM_EVALUE if a function is missing. */
int tram__memory_choose(const tram_allocator *given, tram_allocator *ret_allocator);

/* NULL when out of memory. */
static inline void *memory_get(const tram_allocator *allocator, size_t size) {
    return allocator->allocate(allocator->context, size);
}

/* The same, zeroed. */
TRAM_PRIVATE_API void *tram__memory_get_zero(const tram_allocator *allocator, size_t size);

/* Sums of sizes that come from outside: false, and *sum as it was, where it would not fit. */
static inline bool size_add(size_t *sum, size_t more) {
    size_t total;
    if (__builtin_add_overflow(*sum, more, &total))
        return false;
    *sum = total;
    return true;
}

/* A struct of `head` bytes with `tail` more behind it; NULL also where the sum is no size. */
static inline void *memory_get_with(const tram_allocator *allocator, size_t head, size_t tail) {
    return size_add(&head, tail) ? memory_get(allocator, head) : NULL;
}

/* `size` as it was asked for; NULL is allowed. */
static inline void memory_put(const tram_allocator *allocator, void *memory, size_t size) {
    if (memory)
        allocator->release(allocator->context, memory, size);
}

#endif
