/*
 * How long messages are in the queue: of about one in SAMPLE_EVERY it is measured, and of no two of one receiving loop
 * at a time. So a message costs no reading of the clock, and a sampled one needs no room for a time: that lies in the
 * mailbox of the receiving loop. That a message is sampled says its kind.
 */
#ifndef TRAM_CORE_ACTORS_SAMPLE_H
#define TRAM_CORE_ACTORS_SAMPLE_H

#include "core/actors/actors.h"

#define SAMPLE_EVERY 64u

/* The same clock for who posts, who may have no loop, and who receives. */
static inline uint64_t sample_clock(void) {
    struct timespec now;
    tram__sys.clock_gettime(CLOCK_MONOTONIC, &now);
    return time_of(&now);
}

/* The poster: true: the message that is posted next to this mailbox is sampled, and must be of a kind that says so. */
static inline bool sample_begin(struct mailbox *there) {
    if (atomic_load_explicit(&there->sampling, memory_order_relaxed) ||
        atomic_exchange_explicit(&there->sampling, true, memory_order_acquire))
        return false;
    there->sampled_ns = sample_clock();
    return true;
}

/* Its receiver, of this mailbox: when it was posted. The next one may be sampled now. */
static inline uint64_t sample_take(struct mailbox *own) {
    uint64_t posted_ns = own->sampled_ns;
    atomic_store_explicit(&own->sampling, false, memory_order_release);
    return posted_ns;
}

/* It has been received now. */
static inline void sample_end(tram_loop *loop, const struct addressee *addressee, uint64_t posted_ns) {
    struct waits *waits = waits_of(actors_present(loop)->here, addressee);
    uint64_t waited_ns = sample_clock() - posted_ns;
    waits->measured++;
    waits->waited_ns += waited_ns;
    waits->longest_wait_ns = MAX(waits->longest_wait_ns, waited_ns);
    stats_add(&loop->stats.measured_messages, 1);
    stats_add(&loop->stats.message_wait_ns, waited_ns);
}

/*
 * A sampled message is about to be delivered. A task takes it later: `sampled_ns` tells the function that keeps it when
 * it was posted; to be zeroed afterwards.
 */
static inline void sample_deliver(tram_loop *loop, uint32_t slot, uint32_t generation) {
    struct actors *actors = actors_present(loop);
    uint64_t posted_ns = sample_take(loop->mailbox);
    struct addressee *addressee = addressee_of(actors->here, slot, generation);
    if (addressee && addressee->keeps)
        actors->sampled_ns = posted_ns;
    else if (addressee)
        sample_end(loop, addressee, posted_ns);
}

#endif
