/*
 * Timers in exact order of (deadline, creation), cheap at a million: a hierarchical wheel holds what is far
 * away in unsorted slots of a millisecond or more; the slot whose time has come is poured into a small heap,
 * which orders it to the nanosecond. Starting and cancelling a far timer is O(1).
 * The heap always has room for every timer, so pouring cannot fail.
 *
 * Owned by one loop. A timer is embedded in its owner's struct; it is in at most one place, and says where.
 */
#ifndef TRAM_CORE_LOOP_TIMERS_H
#define TRAM_CORE_LOOP_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/base/memory.h"

/* Half a cache line: with a million of them, touching one is what costs. */
struct timer {
    union {
        struct list link; /* in a slot of the wheel, or in a list */
        uint32_t heap_index;
    };
    uint64_t deadline;
    uint32_t sequence_low; /* order of creation, 56 bits: see timer_sequence() */
    uint16_t sequence_middle;
    uint8_t sequence_high;
    uint8_t place : 2; /* enum timer_place */
    uint8_t mark : 6;  /* for the object that it is embedded in */
};

/* 56 bits last for two years at a thousand million timers a second. In pieces, since a word that was written as a byte
 * cannot be read as a word at once. */
static inline void timer_set_sequence(struct timer *timer, uint64_t sequence) {
    timer->sequence_low = (uint32_t)sequence;
    timer->sequence_middle = (uint16_t)(sequence >> 32);
    timer->sequence_high = (uint8_t)(sequence >> 48);
}

static inline uint64_t timer_sequence(const struct timer *timer) {
    return (uint64_t)timer->sequence_high << 48 | (uint64_t)timer->sequence_middle << 32 | timer->sequence_low;
}

enum timer_place { TIMER_IDLE, TIMER_WHEEL, TIMER_HEAP, TIMER_DUE };

/* 64 slots a level; a slot of level 0 is 2^20 ns, and eight levels reach beyond 2^64. */
#define TIMER_LEVELS 8
#define TIMER_SLOTS  64

/* The timers of a slot, in several lists so that several can be fetched from memory at once. */
#define TIMER_LANES 4

/* Finding the nearest deadline looks through a slot of at most this many timers; a fuller one is poured when its time
 * begins, which costs one tick in which nothing fires. */
#define TIMER_SCAN_LIMIT 32

struct timer_slot {
    struct list lanes[TIMER_LANES];
};

struct timer_heap_entry {
    uint64_t deadline;
    uint64_t sequence;
    struct timer *timer;
};

struct timers {
    const tram_allocator *allocator;
    struct timer_heap_entry *heap;
    uint32_t heap_count;
    uint32_t heap_capacity;
    uint64_t tick;     /* level-0 slots up to this one have been poured into the heap */
    uint64_t sequence; /* of the next timer */
    uint64_t count;    /* timers started and not fired, due ones included */
    uint64_t now;      /* what is due by then is being taken; 0: nothing is */
    struct list due;   /* the next to be taken, in order */
    struct list late;  /* started since, though due by `now`: not taken this time */
    uint64_t occupied[TIMER_LEVELS];
    struct timer_slot slots[TIMER_LEVELS][TIMER_SLOTS];
};

void tram__timers_init(struct timers *timers, const tram_allocator *allocator, uint64_t now);
void tram__timers_fini(struct timers *timers);

/* 0, or -ENOMEM with the timer idle. The timer must be idle. */
int tram__timers_start(struct timers *timers, struct timer *timer, uint64_t deadline);

/* Idempotent. */
void tram__timers_cancel(struct timers *timers, struct timer *timer);

/*
 * Decides that the timers with a deadline up to `now` are due. Each timers_take() gives the next of them, in
 * order and idle, until NULL; one that is started after begin comes at the next time, whatever its deadline. Taking
 * must go on until NULL.
 */
void tram__timers_begin(struct timers *timers, uint64_t now);
struct timer *tram__timers_take_next(struct timers *timers);

static inline struct timer *timers_take(struct timers *timers) {
    return timers->now ? tram__timers_take_next(timers) : NULL;
}

/* Every timer is where it says, the heap and the wheel are in order, and the count is right. */
void tram__timers_validate(const struct timers *timers);

/*
 * A time at which begin should be called again: the next deadline, or earlier if finding it would be dear.
 * UINT64_MAX: no timer.
 */
uint64_t tram__timers_next(const struct timers *timers);

#endif
