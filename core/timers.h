/*
 * Timers in exact order of (deadline, creation), cheap at a million: a hierarchical wheel holds what is far
 * away in unsorted slots of a millisecond or more; the slot whose time has come is poured into a small heap,
 * which orders it to the nanosecond. Starting and cancelling a far timer is O(1).
 * The heap always has room for every timer, so pouring cannot fail.
 *
 * Owned by one loop. A timer is embedded in its owner's struct; it is in at most one place, and says where.
 */
#ifndef TRAM_CORE_TIMERS_H
#define TRAM_CORE_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"
#include "core/memory.h"

struct timer {
    struct list link; /* in a slot of the wheel, or in the list of due timers */
    uint64_t deadline;
    uint64_t sequence; /* order of creation */
    uint32_t heap_index;
    uint8_t place; /* enum timer_place */
    uint8_t level;
    uint8_t slot;
};

enum timer_place { TIMER_IDLE, TIMER_WHEEL, TIMER_HEAP, TIMER_DUE };

/* 64 slots a level; a slot of level 0 is 2^20 ns, and eight levels reach beyond 2^64. */
#define TIMER_LEVELS 8
#define TIMER_SLOTS  64

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
    uint64_t occupied[TIMER_LEVELS];
    struct list slots[TIMER_LEVELS][TIMER_SLOTS];
};

void tram__timers_init(struct timers *timers, const tram_allocator *allocator, uint64_t now);
void tram__timers_fini(struct timers *timers);

/* 0, or -ENOMEM with the timer idle. The timer must be idle. */
int tram__timers_start(struct timers *timers, struct timer *timer, uint64_t deadline);

/* Idempotent. */
void tram__timers_cancel(struct timers *timers, struct timer *timer);

/*
 * Moves every timer with a deadline up to `now` to the end of `due`, in order. If memory runs out while many
 * are poured at once, those that do not fit come with a later call.
 */
void tram__timers_collect(struct timers *timers, uint64_t now, struct list *due);

/* Takes the timer off the list of due ones: it is about to run. */
static inline void timers_fired(struct timers *timers, struct timer *timer) {
    list_remove(&timer->link);
    timer->place = TIMER_IDLE;
    timers->count--;
}

/*
 * A time at which collect should be called again: the next deadline, or earlier if finding it would be dear.
 * UINT64_MAX: no timer.
 */
uint64_t tram__timers_next(const struct timers *timers);

#endif
