/*
 * Who can be posted to on one loop: slots, each with a function that delivers. Core knows no more of an addressee than
 * that; transports bind theirs to protocols.
 *
 * The struct is counted and outlives its loop while somebody may still post: it holds the mailbox. Slots are filled,
 * emptied and delivered to by the loop's thread. Posters read what is constant, and the bound of a slot. What is still
 * on its way to a slot that was given back finds nobody (slots.h).
 */
#ifndef TRAM_CORE_ACTORS_ADDRESSEES_H
#define TRAM_CORE_ACTORS_ADDRESSEES_H

#include <stdatomic.h>

#include "core/loop/loop.h"
#include <tram/message.h>

enum delivery {
    MESSAGE_UNWANTED = 0, /* there is nobody who could receive it, and the message is as it was */
    MESSAGE_RECEIVED = 1,
    MESSAGE_KEPT = 2, /* a task will receive it: receive.c; or it is for who has moved: forwarding.c */
};

typedef enum delivery (*deliver_function)(tram_loop *loop, void *target, tram_message *message);

/* A cache line. */
struct addressee {
    deliver_function deliver; /* NULL: the slot is free */
    void *target;
    struct slot slot;
    _Atomic uint32_t bounded; /* messages of tram_try_post() that are on their way */
    _Atomic uint32_t limit;
    _Atomic uint64_t refused; /* … that were too many */
    uint64_t delivered;
    uint64_t dropped; /* nobody received them */
    uint32_t queued;  /* kept, and not received, or sent on, yet */
    bool keeps;       /* messages are MESSAGE_KEPT */
};

/* How long messages were in the queue of an addressee, those of which it was measured. */
struct waits {
    uint64_t measured;
    uint64_t waited_ns;
    uint64_t longest_wait_ns;
};

struct addressees {
    struct mailbox *mailbox;      /* held */
    _Atomic unsigned char *wiped; /* 1; a page that fork() wipes: 0 in the child, whose mail would go nowhere */
    uint32_t number;              /* of the loop, and … */
    uint32_t generation;          /* … which of those that had the number */
    struct slots slots;
    _Atomic uint32_t references;
};

/* Is that the loop of this address? */
static inline bool addressees_are_of(const struct addressees *addressees, tram_address address) {
    return ((addressees->number ^ address.loop) | (addressees->generation ^ address.loop_generation)) == 0;
}

static const struct slots_layout addressees_layout = {
    .size = sizeof(struct addressee),
    .slot = offsetof(struct addressee, slot),
    .per_chunk = 128,
    .beside = sizeof(struct waits),
};

_Static_assert(sizeof(struct addressee) == 64, "a shift finds one");

/* For the mailbox of a loop that is about to have a number. NULL: out of memory. */
struct addressees *tram__addressees_new(struct mailbox *mailbox);
void tram__addressees_release(struct addressees *addressees);

static inline struct addressees *addressees_hold(struct addressees *addressees) {
    atomic_fetch_add_explicit(&addressees->references, 1, memory_order_relaxed);
    return addressees;
}

/* The slot, which must exist. Any thread. */
static inline struct addressee *addressee_at(const struct addressees *addressees, uint32_t slot) {
    return slots_at_shared(&addressees->slots, &addressees_layout, slot);
}

/* The owner. */
static inline struct waits *waits_of(const struct addressees *addressees, const struct addressee *addressee) {
    return slots_beside(&addressees->slots, &addressees_layout, addressee->slot.number);
}

static inline bool addressee_exists(const struct addressees *addressees, uint32_t slot) {
    return slot < slots_count(&addressees->slots);
}

/* Who has the slot in this generation, or NULL. The owner. */
static inline struct addressee *addressee_of(const struct addressees *addressees, uint32_t slot, uint32_t generation) {
    return slots_find(&addressees->slots, &addressees_layout, slot, generation);
}

/* The owner. Counted first: who receives it may end, and another have the slot. */
static ALWAYS_INLINE enum delivery deliver_to(tram_loop *loop, struct addressee *addressee, tram_message *message) {
    addressee->delivered++;
    enum delivery done = addressee->deliver(loop, addressee->target, message);
    if (unlikely(done != MESSAGE_RECEIVED)) {
        addressee->delivered--;
        addressee->dropped += done == MESSAGE_UNWANTED;
        return done;
    }
    stats_add(&loop->stats.messages, 1);
    return MESSAGE_RECEIVED;
}

/* The owner: a slot for a target, or 0: out of memory. */
uint32_t tram__addressee_add(struct addressees *addressees, deliver_function deliver, void *target);
void tram__addressee_remove(struct addressees *addressees, uint32_t slot);

void tram__addressees_validate(const struct addressees *addressees);

#endif
