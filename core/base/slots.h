/*
 * Records that are named from outside by slot and generation. They are of one size and lie in chunks that never move.
 * A generation is even while somebody has the slot and odd while it is free, so taking a slot and giving it back begin
 * a new one each: a name that was kept too long names nothing. A slot that has had all generations is not used again,
 * or a name of old would name anew. Slot 0 is nobody's: it is such a slot from the beginning.
 *
 * One thread owns the table. Others may look at the records of slots that exist: a directory of chunks that became too
 * small stays until the end, since somebody may be reading it.
 */
#ifndef TRAM_CORE_BASE_SLOTS_H
#define TRAM_CORE_BASE_SLOTS_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/base/compiler.h"
#include "core/base/memory.h"

/* In each record. Who has the slot may keep it elsewhere, and use its place. */
struct slot {
    uint32_t generation;
    uint32_t number; /* its own; in a free one that of the next free, or 0 */
};

/* A constant of each table's, with which the compiler does the arithmetic. */
struct slots_layout {
    uint32_t size;      /* of a record; those of whole cache lines begin with one */
    uint32_t slot;      /* where in it is its struct slot */
    uint32_t per_chunk; /* records */
    uint32_t beside;    /* bytes apart that each record has, see slots_beside(); may be 0 */
};

struct slots_directory {
    struct slots_directory *outgrown; /* the one before */
    uint32_t capacity;
    char *chunks[];
};

/* All zero: an empty one. */
struct slots {
    _Atomic(struct slots_directory *) directory;
    _Atomic uint32_t count; /* slots that exist, in whole chunks, slot 0 included */
    uint32_t free;          /* the first free slot, or 0 */
};

/* Adds a chunk of free slots, of zeroed records. 0 or -ENOMEM. */
int tram__slots_grow(struct slots *slots, const struct slots_layout *layout, const tram_allocator *allocator);

/* Frees all memory; it is an empty one then. */
void tram__slots_fini(struct slots *slots, const struct slots_layout *layout, const tram_allocator *allocator);

/* Those that are free, and no others, are listed as free. */
void tram__slots_validate(const struct slots *slots, const struct slots_layout *layout);

static inline bool generation_is_free(uint32_t generation) {
    return generation % 2;
}

/* All slots below this number exist. Any thread. */
static inline uint32_t slots_count(const struct slots *slots) {
    return atomic_load_explicit(&slots->count, memory_order_acquire);
}

static ALWAYS_INLINE void *slots_in(const struct slots_directory *directory, const struct slots_layout *layout,
                                    uint32_t number) {
    return directory->chunks[number / layout->per_chunk] + (size_t)(number % layout->per_chunk) * layout->size;
}

/* The record of a slot, which must exist. The owner. */
static ALWAYS_INLINE void *slots_at(const struct slots *slots, const struct slots_layout *layout, uint32_t number) {
    return slots_in(atomic_load_explicit(&slots->directory, memory_order_relaxed), layout, number);
}

/* The same. Any thread. */
static ALWAYS_INLINE void *slots_at_shared(const struct slots *slots, const struct slots_layout *layout,
                                           uint32_t number) {
    return slots_in(atomic_load_explicit(&slots->directory, memory_order_acquire), layout, number);
}

/* What of a record is rarely used, behind all records of the chunk. */
static ALWAYS_INLINE void *slots_beside(const struct slots *slots, const struct slots_layout *layout, uint32_t number) {
    uint32_t index = number % layout->per_chunk;
    char *record = slots_at(slots, layout, number);
    return record + (size_t)(layout->per_chunk - index) * layout->size + (size_t)index * layout->beside;
}

static ALWAYS_INLINE struct slot *slots_slot(const struct slots_layout *layout, void *record) {
    return (struct slot *)(void *)((char *)record + layout->slot);
}

/* The record that has the slot in this generation; NULL: nothing has. The owner. */
static ALWAYS_INLINE void *slots_find(const struct slots *slots, const struct slots_layout *layout, uint32_t number,
                                      uint32_t generation) {
    if (unlikely(number >= slots_count(slots)))
        return NULL;
    void *record = slots_at(slots, layout, number);
    bool same = slots_slot(layout, record)->generation == generation;
    return likely(same && !generation_is_free(generation)) ? record : NULL;
}

/* The first free slot's record, as its last owner left it; there must be one. */
static ALWAYS_INLINE void *slots_take(struct slots *slots, const struct slots_layout *layout) {
    uint32_t number = slots->free;
    void *record = slots_at(slots, layout, number);
    struct slot *slot = slots_slot(layout, record);
    TRAM_DCHECK(generation_is_free(slot->generation));
    slots->free = slot->number;
    slot->number = number;
    slot->generation++;
    return record;
}

/* Gives back what was taken as `had`. */
static ALWAYS_INLINE void slots_put(struct slots *slots, const struct slots_layout *layout, void *record,
                                    struct slot had) {
    struct slot *slot = slots_slot(layout, record);
    TRAM_DCHECK(!generation_is_free(had.generation));
    slot->generation = had.generation + 1;
    if (unlikely(slot->generation == UINT32_MAX))
        return; /* that was the last */
    slot->number = slots->free;
    slots->free = had.number;
}

#endif
