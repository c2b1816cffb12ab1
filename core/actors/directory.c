#include "core/actors/directory.h"

#include "core/base/steps.h"

/*
 * An entry's word: the generation, a bit that the loop has ended, and pins. Generations of a loop are odd, so that no
 * address ever finds an entry that is unused.
 */
#define GENERATION_SHIFT 32
#define ONE_GENERATION   (UINT64_C(1) << GENERATION_SHIFT)
#define ENDED            (UINT64_C(1) << 31)
#define PINS             (ENDED - 1)

/* A line each, since different threads count in different ones. */
struct entry {
    _Alignas(64) _Atomic uint64_t word;
    _Atomic(struct addressees *) addressees;
};

static struct entry entries[TRAM_LOOPS_MAX + 1]; /* none has number 0 */

/* Is it unused, and was it this call that took it? */
static bool take_entry(struct entry *entry) {
    uint64_t word = atomic_load_explicit(&entry->word, memory_order_relaxed);
    while (!(word & (ONE_GENERATION | ENDED)))
        if (atomic_compare_exchange_weak_explicit(&entry->word, &word, word | ENDED, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    return false;
}

/* The lowest number that is free: without a lock, which a child of fork() could find held by nobody that is there. */
int tram__directory_add(struct addressees *addressees) {
    uint32_t number = 1;
    while (number <= TRAM_LOOPS_MAX && !take_entry(&entries[number]))
        number++;
    if (number > TRAM_LOOPS_MAX)
        return TRAM_ELIMIT;
    struct entry *entry = &entries[number];
    uint64_t word = atomic_load_explicit(&entry->word, memory_order_relaxed);
    addressees->number = number;
    addressees->generation = (uint32_t)(word >> GENERATION_SHIFT) + 1;
    between_steps();
    atomic_store_explicit(&entry->addressees, addressees_hold(addressees), memory_order_relaxed);
    /* Who meant an earlier generation may have it pinned for a moment: his pin is kept. */
    atomic_fetch_add_explicit(&entry->word, ONE_GENERATION - ENDED, memory_order_release);
    return 0;
}

/* The loop's last generation of this number: it is never free again. */
static uint64_t unused(uint64_t word) {
    return word >> GENERATION_SHIFT == UINT32_MAX ? word - ONE_GENERATION : (word & ~ENDED) + ONE_GENERATION;
}

/* The word was seen to have ended, without a pin: one of those who see that gives the number back. */
static void give_back(uint32_t number, uint64_t word) {
    struct entry *entry = &entries[number];
    struct addressees *addressees = atomic_load_explicit(&entry->addressees, memory_order_relaxed);
    if (atomic_compare_exchange_strong_explicit(&entry->word, &word, unused(word), memory_order_acq_rel,
                                                memory_order_relaxed))
        tram__addressees_release(addressees);
}

void tram__directory_remove(const struct addressees *addressees) {
    uint32_t number = addressees->number;
    uint64_t before = atomic_fetch_or_explicit(&entries[number].word, ENDED, memory_order_acq_rel);
    between_steps();
    if (!(before & PINS))
        give_back(number, before | ENDED);
}

void tram__directory_unpin(uint32_t number) {
    between_steps();
    uint64_t before = atomic_fetch_sub_explicit(&entries[number].word, 1, memory_order_acq_rel);
    between_steps();
    if (before & ONE_GENERATION && before & ENDED && (before & PINS) == 1)
        give_back(number, before - 1);
}

struct addressees *tram__directory_pin(uint32_t number, uint32_t generation) {
    if (!number || number > TRAM_LOOPS_MAX)
        return NULL;
    struct entry *entry = &entries[number];
    uint64_t before = atomic_fetch_add_explicit(&entry->word, 1, memory_order_acquire);
    between_steps();
    if (generation % 2 && before >> GENERATION_SHIFT == generation && !(before & ENDED))
        return atomic_load_explicit(&entry->addressees, memory_order_relaxed);
    tram__directory_unpin(number);
    return NULL;
}
