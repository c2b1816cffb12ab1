#include "core/timers.h"

#include <errno.h>
#include <string.h>

#define TICK_SHIFT  20 /* a level-0 slot is 2^20 ns, about a millisecond */
#define LEVEL_SHIFT 6
#define ARITY       4

/* Finding the nearest deadline looks through a slot of at most this many timers; a fuller one is poured when its time
 * begins, which costs one tick in which nothing fires. */
#define SCAN_LIMIT 32

static inline uint64_t tick_of(uint64_t ns) {
    return ns >> TICK_SHIFT;
}

/* ---- The heap: exact order of what is near ---- */

static inline bool earlier(const struct timer_heap_entry *a, const struct timer_heap_entry *b) {
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->sequence < b->sequence;
}

static inline void heap_set(struct timers *timers, uint32_t index, struct timer_heap_entry entry) {
    timers->heap[index] = entry;
    entry.timer->heap_index = index;
}

static void heap_up(struct timers *timers, uint32_t index, struct timer_heap_entry entry) {
    while (index > 0) {
        uint32_t parent = (index - 1) / ARITY;
        if (!earlier(&entry, &timers->heap[parent]))
            break;
        heap_set(timers, index, timers->heap[parent]);
        index = parent;
    }
    heap_set(timers, index, entry);
}

static void heap_down(struct timers *timers, uint32_t index, struct timer_heap_entry entry) {
    for (;;) {
        uint32_t child = index * ARITY + 1;
        if (child >= timers->heap_count)
            break;
        uint32_t end = child + ARITY < timers->heap_count ? child + ARITY : timers->heap_count;
        uint32_t least = child;
        while (++child < end)
            if (earlier(&timers->heap[child], &timers->heap[least]))
                least = child;
        if (!earlier(&timers->heap[least], &entry))
            break;
        heap_set(timers, index, timers->heap[least]);
        index = least;
    }
    heap_set(timers, index, entry);
}

static void heap_push(struct timers *timers, struct timer *timer) {
    timer->place = TIMER_HEAP;
    heap_up(timers, timers->heap_count++, (struct timer_heap_entry){timer->deadline, timer->sequence, timer});
}

static void heap_remove(struct timers *timers, uint32_t index) {
    struct timer_heap_entry last = timers->heap[--timers->heap_count];
    if (index == timers->heap_count)
        return;
    if (index > 0 && earlier(&last, &timers->heap[(index - 1) / ARITY]))
        heap_up(timers, index, last);
    else
        heap_down(timers, index, last);
}

/* Room for every timer there is: pages of the array that are not used cost no memory. */
static int heap_reserve(struct timers *timers) {
    uint32_t capacity = timers->heap_capacity ? timers->heap_capacity * 2 : 64;
    struct timer_heap_entry *heap = memory_get(timers->allocator, capacity * sizeof *heap);
    if (!heap)
        return -ENOMEM;
    if (timers->heap_count)
        memcpy(heap, timers->heap, timers->heap_count * sizeof *heap);
    memory_put(timers->allocator, timers->heap, timers->heap_capacity * sizeof *heap);
    timers->heap = heap;
    timers->heap_capacity = capacity;
    return 0;
}

/* ---- The wheel: what is far ---- */

/*
 * A timer's level is the highest group of six bits in which its tick differs from the wheel's. So all timers of a
 * level are earlier than all of the next, and in a level the lowest occupied slot is the next one.
 */
static void place(struct timers *timers, struct timer *timer) {
    uint64_t tick = tick_of(timer->deadline);
    if (tick <= timers->tick) {
        heap_push(timers, timer);
        return;
    }
    unsigned level = (63u - (unsigned)__builtin_clzll(tick ^ timers->tick)) / LEVEL_SHIFT;
    unsigned slot = (unsigned)(tick >> (level * LEVEL_SHIFT)) & (TIMER_SLOTS - 1);
    timer->place = TIMER_WHEEL;
    timer->level = (uint8_t)level;
    timer->slot = (uint8_t)slot;
    timers->occupied[level] |= 1ull << slot;
    list_append(&timers->slots[level][slot], &timer->link);
}

/* The next slot with timers in it, and the tick at which it begins. False: the wheel is empty. */
static bool next_slot(const struct timers *timers, unsigned *ret_level, unsigned *ret_slot, uint64_t *ret_tick) {
    for (unsigned level = 0; level < TIMER_LEVELS; level++) {
        if (!timers->occupied[level])
            continue;
        unsigned slot = (unsigned)__builtin_ctzll(timers->occupied[level]);
        unsigned shift = level * LEVEL_SHIFT;
        uint64_t above = shift + LEVEL_SHIFT < 64 ? timers->tick >> (shift + LEVEL_SHIFT) : 0;
        *ret_level = level;
        *ret_slot = slot;
        *ret_tick = (above << LEVEL_SHIFT | slot) << shift;
        return true;
    }
    return false;
}

/* Moves the wheel to `tick`: every slot that begins by then is spread over lower levels, in the end into the heap. */
static void advance(struct timers *timers, uint64_t tick) {
    unsigned level, slot;
    uint64_t begins;
    while (next_slot(timers, &level, &slot, &begins) && begins <= tick) {
        timers->tick = begins;
        timers->occupied[level] &= ~(1ull << slot);
        struct list timers_of_slot;
        list_init(&timers_of_slot);
        list_move_all(&timers->slots[level][slot], &timers_of_slot);
        while (!list_empty(&timers_of_slot)) {
            struct timer *timer = (struct timer *)timers_of_slot.next;
            list_remove(&timer->link);
            place(timers, timer);
        }
    }
    if (timers->tick < tick)
        timers->tick = tick;
}

/* ---- The interface ---- */

void tram__timers_init(struct timers *timers, const tram_allocator *allocator, uint64_t now) {
    memset(timers, 0, sizeof *timers);
    timers->allocator = allocator;
    timers->tick = tick_of(now);
    for (unsigned level = 0; level < TIMER_LEVELS; level++)
        for (unsigned slot = 0; slot < TIMER_SLOTS; slot++)
            list_init(&timers->slots[level][slot]);
}

void tram__timers_fini(struct timers *timers) {
    memory_put(timers->allocator, timers->heap, timers->heap_capacity * sizeof *timers->heap);
    timers->heap = NULL;
    timers->heap_capacity = timers->heap_count = 0;
}

int tram__timers_start(struct timers *timers, struct timer *timer, uint64_t deadline) {
    if (__builtin_expect(timers->count >= timers->heap_capacity, 0)) {
        int status = heap_reserve(timers);
        if (status)
            return status;
    }
    timers->count++;
    timer->deadline = deadline;
    timer->sequence = timers->sequence++;
    place(timers, timer);
    return 0;
}

void tram__timers_cancel(struct timers *timers, struct timer *timer) {
    switch ((enum timer_place)timer->place) {
    case TIMER_IDLE:
        return;
    case TIMER_WHEEL: {
        struct list *slot = &timers->slots[timer->level][timer->slot];
        list_remove(&timer->link);
        if (list_empty(slot))
            timers->occupied[timer->level] &= ~(1ull << timer->slot);
        break;
    }
    case TIMER_HEAP:
        heap_remove(timers, timer->heap_index);
        break;
    case TIMER_DUE:
        list_remove(&timer->link);
        break;
    }
    timer->place = TIMER_IDLE;
    timers->count--;
}

void tram__timers_collect(struct timers *timers, uint64_t now, struct list *due) {
    if (tick_of(now) > timers->tick)
        advance(timers, tick_of(now));
    while (timers->heap_count && timers->heap[0].deadline <= now) {
        struct timer *timer = timers->heap[0].timer;
        heap_remove(timers, 0);
        timer->place = TIMER_DUE;
        list_append(due, &timer->link);
    }
}

uint64_t tram__timers_next(const struct timers *timers) {
    if (timers->heap_count)
        return timers->heap[0].deadline;
    unsigned level, slot;
    uint64_t begins;
    if (!next_slot(timers, &level, &slot, &begins))
        return UINT64_MAX;
    const struct list *head = &timers->slots[level][slot];
    uint64_t nearest = UINT64_MAX;
    unsigned seen = 0;
    for (const struct list *link = head->next; link != head; link = link->next) {
        if (++seen > SCAN_LIMIT)
            return begins << TICK_SHIFT;
        uint64_t deadline = ((const struct timer *)(const void *)link)->deadline;
        if (deadline < nearest)
            nearest = deadline;
    }
    return nearest;
}
