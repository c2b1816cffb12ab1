#include "core/actors/addressees.h"

#include "core/base/steps.h"
#include "core/system/wiped.h"

/* A directory of chunks that was too small: somebody may be reading it, so it stays as long as the addressees. */
struct outgrown {
    struct outgrown *next;
    struct addressee **chunks;
    uint32_t capacity;
};

#define CHUNK_BYTES (ADDRESSEES_PER_CHUNK * sizeof(struct addressee))

/* They may outlive their loop, so they are of the default memory, as buffers are. */
static void *get_zero(size_t size) {
    return tram__memory_get_zero(&tram__memory_default, size);
}

static void put(void *memory, size_t size) {
    memory_put(&tram__memory_default, memory, size);
}

struct addressees *tram__addressees_new(struct mailbox *mailbox) {
    struct addressees *addressees = get_zero(sizeof *addressees);
    if (!addressees)
        return NULL;
    addressees->wiped = tram__wiped_new(1);
    if (!addressees->wiped) {
        put(addressees, sizeof *addressees);
        return NULL;
    }
    atomic_store_explicit(addressees->wiped, 1, memory_order_relaxed);
    atomic_init(&addressees->references, 1);
    addressees->mailbox = tram__mailbox_hold(mailbox);
    return addressees;
}

static void destroy(struct addressees *addressees) {
    struct addressee **chunks = atomic_load_explicit(&addressees->chunks, memory_order_relaxed);
    uint32_t count = atomic_load_explicit(&addressees->slot_count, memory_order_relaxed) / ADDRESSEES_PER_CHUNK;
    for (uint32_t i = 0; i < count; i++)
        put(chunks[i], CHUNK_BYTES);
    put(chunks, addressees->chunk_capacity * sizeof *chunks);
    for (struct outgrown *outgrown = addressees->outgrown, *next; outgrown; outgrown = next) {
        next = outgrown->next;
        put(outgrown->chunks, outgrown->capacity * sizeof *outgrown->chunks);
        put(outgrown, sizeof *outgrown);
    }
    tram__wiped_free((void *)(uintptr_t)addressees->wiped, 1);
    tram__mailbox_release(addressees->mailbox);
    put(addressees, sizeof *addressees);
}

void tram__addressees_release(struct addressees *addressees) {
    between_steps();
    if (atomic_fetch_sub_explicit(&addressees->references, 1, memory_order_acq_rel) == 1)
        destroy(addressees);
}

/* ---- Slots ---- */

static bool grow_directory(struct addressees *addressees) {
    uint32_t old = addressees->chunk_capacity, capacity = old ? old * 2 : 8;
    struct addressee **before = atomic_load_explicit(&addressees->chunks, memory_order_relaxed);
    struct addressee **chunks = get_zero(capacity * sizeof *chunks);
    struct outgrown *outgrown = old ? get_zero(sizeof *outgrown) : NULL;
    if (!chunks || (old && !outgrown)) {
        put(chunks, capacity * sizeof *chunks);
        put(outgrown, sizeof *outgrown);
        return false;
    }
    for (uint32_t i = 0; i < old; i++)
        chunks[i] = before[i];
    if (outgrown) {
        *outgrown = (struct outgrown){addressees->outgrown, before, old};
        addressees->outgrown = outgrown;
    }
    addressees->chunk_capacity = capacity;
    atomic_store_explicit(&addressees->chunks, chunks, memory_order_release);
    return true;
}

static bool grow(struct addressees *addressees) {
    uint32_t first = atomic_load_explicit(&addressees->slot_count, memory_order_relaxed);
    uint32_t index = first / ADDRESSEES_PER_CHUNK;
    if (first > UINT32_MAX - ADDRESSEES_PER_CHUNK)
        return false;
    if (index == addressees->chunk_capacity && !grow_directory(addressees))
        return false;
    struct addressee *chunk = get_zero(CHUNK_BYTES);
    if (!chunk)
        return false;
    for (uint32_t i = ADDRESSEES_PER_CHUNK; i-- > 0;) {
        chunk[i].generation = 1;
        if (first + i == 0)
            continue; /* all zero names nobody */
        chunk[i].next_free = addressees->free;
        addressees->free = first + i;
    }
    atomic_load_explicit(&addressees->chunks, memory_order_relaxed)[index] = chunk;
    between_steps();
    /* Who sees the number sees the chunk. */
    atomic_store_explicit(&addressees->slot_count, first + ADDRESSEES_PER_CHUNK, memory_order_release);
    return true;
}

uint32_t tram__addressee_add(struct addressees *addressees, deliver_function deliver, void *target) {
    if (!addressees->free && !grow(addressees))
        return 0;
    uint32_t slot = addressees->free;
    struct addressee *addressee = addressee_at(addressees, slot);
    TRAM_DCHECK(!addressee->deliver);
    addressees->free = addressee->next_free;
    addressee->deliver = deliver;
    addressee->target = target;
    addressee->delivered = addressee->dropped = 0;
    addressee->measured = addressee->waited_ns = addressee->longest_wait_ns = 0;
    addressee->queued = 0;
    addressee->keeps = false;
    atomic_store_explicit(&addressee->refused, 0, memory_order_relaxed);
    atomic_store_explicit(&addressee->limit, TRAM_ADDRESSEE_LIMIT, memory_order_relaxed);
    return slot;
}

/* Ends the generation; a slot that had all of them is not used again: an address of old would name anew. */
void tram__addressee_remove(struct addressees *addressees, uint32_t slot) {
    struct addressee *addressee = addressee_at(addressees, slot);
    TRAM_DCHECK(addressee->deliver);
    addressee->deliver = NULL;
    addressee->target = NULL;
    if (unlikely(++addressee->generation == UINT32_MAX))
        return;
    addressee->next_free = addressees->free;
    addressees->free = slot;
}

/* ---- Checked builds ---- */

void tram__addressees_validate(const struct addressees *addressees) {
    uint32_t count = atomic_load_explicit(&addressees->slot_count, memory_order_relaxed), free_count = 0, listed = 0;
    for (uint32_t slot = 1; slot < count; slot++) {
        const struct addressee *addressee = addressee_at(addressees, slot);
        TRAM_ASSERT(addressee->generation);
        free_count += !addressee->deliver && addressee->generation != UINT32_MAX;
    }
    for (uint32_t slot = addressees->free; slot; slot = addressee_at(addressees, slot)->next_free) {
        TRAM_ASSERT(slot < count && !addressee_at(addressees, slot)->deliver);
        TRAM_ASSERT(++listed <= free_count);
    }
    TRAM_ASSERT(listed == free_count);
}
