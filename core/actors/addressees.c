#include "core/actors/addressees.h"

#include "core/base/steps.h"
#include "core/system/wiped.h"

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
    tram__slots_fini(&addressees->slots, &addressees_layout, &tram__memory_default);
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

uint32_t tram__addressee_add(struct addressees *addressees, deliver_function deliver, void *target) {
    struct slots *slots = &addressees->slots;
    if (!slots->free && tram__slots_grow(slots, &addressees_layout, &tram__memory_default) < 0)
        return 0;
    struct addressee *addressee = slots_take(slots, &addressees_layout);
    addressee->deliver = deliver;
    addressee->target = target;
    addressee->delivered = addressee->dropped = 0;
    *waits_of(addressees, addressee) = (struct waits){0};
    addressee->queued = 0;
    addressee->keeps = false;
    atomic_store_explicit(&addressee->refused, 0, memory_order_relaxed);
    atomic_store_explicit(&addressee->limit, TRAM_ADDRESSEE_LIMIT, memory_order_relaxed);
    return addressee->slot.number;
}

void tram__addressee_remove(struct addressees *addressees, uint32_t slot) {
    struct addressee *addressee = addressee_at(addressees, slot);
    addressee->deliver = NULL;
    addressee->target = NULL;
    slots_put(&addressees->slots, &addressees_layout, addressee, addressee->slot);
}

/* ---- Checked builds ---- */

void tram__addressees_validate(const struct addressees *addressees) {
    tram__slots_validate(&addressees->slots, &addressees_layout);
    for (uint32_t slot = 1; slot < slots_count(&addressees->slots); slot++) {
        const struct addressee *addressee = addressee_at(addressees, slot);
        bool is_free = generation_is_free(addressee->slot.generation);
        TRAM_ASSERT(is_free ? !addressee->deliver : addressee->deliver && addressee->slot.number == slot);
    }
}
