/* Where memory comes from. */
#ifndef TRAM_MEMORY_H
#define TRAM_MEMORY_H

#include <stddef.h>

#include <tram/export.h>

TRAM_BEGIN_DECLS

/*
 * An allocator of the embedder's. Both functions may be called from any thread that uses the loop or runtime
 * they were given to, and from threads that post to it. `allocate` returns memory aligned for any type, or
 * NULL; `release` gets the size that was asked for. What may outlive a loop (posts on their way, jobs of an executor, a
 * pair across two loops) comes from the default instead.
 *
 * Without one, tram uses jemalloc where the program linked it, else the system's malloc.
 */
typedef struct tram_allocator {
    void *(*allocate)(void *context, size_t size);
    void (*release)(void *context, void *memory, size_t size);
    void *context;
} tram_allocator;

TRAM_END_DECLS

#endif
