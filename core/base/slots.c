#include "core/base/slots.h"

#include <errno.h>

#include "core/base/steps.h"

#define CACHE_LINE 64

static size_t chunk_bytes(const struct slots_layout *layout) {
    return CACHE_LINE + (size_t)layout->per_chunk * (layout->size + layout->beside);
}

/* Where the memory of a chunk begins: in front of it, where alignment for any type leaves room for this. */
static char **start_of(char *chunk) {
    return (char **)(void *)chunk - 1;
}

/* It begins with a cache line. */
static char *chunk_new(const struct slots_layout *layout, const tram_allocator *allocator) {
    char *start = tram__memory_get_zero(allocator, chunk_bytes(layout));
    if (!start)
        return NULL;
    char *chunk = start + CACHE_LINE - (uintptr_t)start % CACHE_LINE;
    *start_of(chunk) = start;
    return chunk;
}

static size_t directory_bytes(uint32_t capacity) {
    return sizeof(struct slots_directory) + capacity * sizeof(char *);
}

/* One with room for another chunk; NULL: out of memory. */
static struct slots_directory *roomy_directory(struct slots *slots, uint32_t chunks, const tram_allocator *allocator) {
    struct slots_directory *before = atomic_load_explicit(&slots->directory, memory_order_relaxed);
    if (before && chunks < before->capacity)
        return before;
    uint32_t capacity = before ? before->capacity * 2 : 8;
    struct slots_directory *directory = memory_get(allocator, directory_bytes(capacity));
    if (!directory)
        return NULL;
    directory->outgrown = before;
    directory->capacity = capacity;
    for (uint32_t i = 0; i < chunks; i++)
        directory->chunks[i] = before->chunks[i];
    between_steps();
    atomic_store_explicit(&slots->directory, directory, memory_order_release);
    return directory;
}

int tram__slots_grow(struct slots *slots, const struct slots_layout *layout, const tram_allocator *allocator) {
    uint32_t first = slots_count(slots), index = first / layout->per_chunk;
    if (first > UINT32_MAX - layout->per_chunk)
        return -ENOMEM;
    struct slots_directory *directory = roomy_directory(slots, index, allocator);
    char *chunk = directory ? chunk_new(layout, allocator) : NULL;
    if (!chunk)
        return -ENOMEM;
    directory->chunks[index] = chunk;
    for (uint32_t i = layout->per_chunk; i-- > 0;) {
        struct slot *slot = slots_slot(layout, chunk + (size_t)i * layout->size);
        *slot = (struct slot){.generation = first + i ? 1 : UINT32_MAX, .number = slots->free};
        slots->free = first + i ? first + i : slots->free;
    }
    between_steps();
    /* Who sees the number sees the chunk. */
    atomic_store_explicit(&slots->count, first + layout->per_chunk, memory_order_release);
    return 0;
}

void tram__slots_fini(struct slots *slots, const struct slots_layout *layout, const tram_allocator *allocator) {
    for (uint32_t number = 0; number < slots_count(slots); number += layout->per_chunk)
        memory_put(allocator, *start_of(slots_at(slots, layout, number)), chunk_bytes(layout));
    struct slots_directory *directory = atomic_load_explicit(&slots->directory, memory_order_relaxed), *outgrown;
    for (; directory; directory = outgrown) {
        outgrown = directory->outgrown;
        memory_put(allocator, directory, directory_bytes(directory->capacity));
    }
    *slots = (struct slots){.free = 0};
}

/* ---- Checked builds ---- */

static const struct slot *slot_at(const struct slots *slots, const struct slots_layout *layout, uint32_t number) {
    return slots_slot(layout, slots_at(slots, layout, number));
}

void tram__slots_validate(const struct slots *slots, const struct slots_layout *layout) {
    const struct slots_directory *directory = atomic_load_explicit(&slots->directory, memory_order_relaxed);
    uint32_t count = slots_count(slots), free_count = 0, listed = 0;
    TRAM_ASSERT(count % layout->per_chunk == 0);
    TRAM_ASSERT(!count || count / layout->per_chunk <= directory->capacity);
    for (uint32_t number = 0; number < count; number++) {
        uint32_t generation = slot_at(slots, layout, number)->generation;
        free_count += generation_is_free(generation) && generation != UINT32_MAX;
    }
    for (uint32_t number = slots->free; number; number = slot_at(slots, layout, number)->number) {
        TRAM_ASSERT(number < count && generation_is_free(slot_at(slots, layout, number)->generation));
        TRAM_ASSERT(++listed <= free_count);
    }
    TRAM_ASSERT(listed == free_count);
}
