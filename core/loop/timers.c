#include "core/loop/timers.h"

#include <errno.h>
#include <string.h>

#include "core/base/compiler.h"

#define TICK_SHIFT  20 /* a level-0 slot is 2^20 ns, about a millisecond */
#define LEVEL_SHIFT 6
#define ARITY       4

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

/* Of `count` entries. The place where `entry` belongs, counted down from `index`; what is earlier moves up. */
static inline void sift_down(struct timer_heap_entry *heap, uint32_t count, uint32_t index,
                             struct timer_heap_entry entry, bool tell) {
    for (;;) {
        uint32_t child = index * ARITY + 1;
        if (child >= count)
            break;
        uint32_t end = child + ARITY < count ? child + ARITY : count;
        uint32_t least = child;
        while (++child < end)
            if (earlier(&heap[child], &heap[least]))
                least = child;
        if (!earlier(&heap[least], &entry))
            break;
        heap[index] = heap[least];
        if (tell)
            heap[index].timer->heap_index = index;
        index = least;
    }
    heap[index] = entry;
    if (tell)
        entry.timer->heap_index = index;
}

static void heap_down(struct timers *timers, uint32_t index, struct timer_heap_entry entry) {
    sift_down(timers->heap, timers->heap_count, index, entry, true);
}

static void heap_push(struct timers *timers, struct timer *timer) {
    timer->place = TIMER_HEAP;
    heap_up(timers, timers->heap_count++, (struct timer_heap_entry){timer->deadline, timer_sequence(timer), timer});
}

static void heap_remove(struct timers *timers, uint32_t index) {
    TRAM_DCHECK(index < timers->heap_count);
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
    timers->occupied[level] |= 1ull << slot;
    list_append(&timers->slots[level][slot].lanes[timer->sequence_low % TIMER_LANES], &timer->link);
}

static bool slot_empty(const struct timer_slot *slot) {
    for (unsigned lane = 0; lane < TIMER_LANES; lane++)
        if (!list_empty(&slot->lanes[lane]))
            return false;
    return true;
}

/* A timer does not say which slot it is in; only the last of its list needs it, whose neighbour is in the slot. */
static void leave_wheel(struct timers *timers, struct timer *timer) {
    const struct list *neighbour = timer->link.next;
    bool last = neighbour == timer->link.previous;
    list_remove(&timer->link);
    if (last) {
        const struct timer_slot *slots = &timers->slots[0][0];
        size_t index = (size_t)((const char *)neighbour - (const char *)slots) / sizeof *slots;
        if (slot_empty(&slots[index]))
            timers->occupied[index / TIMER_SLOTS] &= ~(1ull << index % TIMER_SLOTS);
    }
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

/* What is left of a list that is walked from both ends; front NULL: nothing. */
struct walk {
    struct list *front, *back;
};

static inline void visit_both_ends(struct timers *timers, struct walk *walk,
                                   void (*visit)(struct timers *timers, struct timer *timer)) {
    struct list *front = walk->front, *back = walk->back, *next = front->next, *previous = back->previous;
    __builtin_prefetch(next, 1);
    __builtin_prefetch(previous, 1);
    *walk = (struct walk){next, previous};
    if (front == back || next == back)
        walk->front = NULL;
    visit(timers, (struct timer *)(void *)front);
    if (front != back)
        visit(timers, (struct timer *)(void *)back);
}

/*
 * Empties a slot: `visit` for each of its timers, in no order. Of a million timers hardly one is in the cache, and
 * nothing but time is lost by waiting for it: so all lists are walked at the same time, each from both ends.
 */
static inline void empty_slot(struct timers *timers, unsigned level, unsigned slot,
                              void (*visit)(struct timers *timers, struct timer *timer)) {
    struct walk walks[TIMER_LANES];
    for (unsigned lane = 0; lane < TIMER_LANES; lane++) {
        struct list *head = &timers->slots[level][slot].lanes[lane];
        walks[lane] = list_empty(head) ? (struct walk){NULL, NULL} : (struct walk){head->next, head->previous};
        list_init(head);
    }
    timers->occupied[level] &= ~(1ull << slot);
    for (bool more = true; more;) {
        more = false;
        for (unsigned lane = 0; lane < TIMER_LANES; lane++) {
            if (!walks[lane].front)
                continue;
            visit_both_ends(timers, &walks[lane], visit);
            more = true;
        }
    }
}

static inline void add_entry(struct timers *timers, struct timer *timer) {
    timers->heap[timers->heap_count++] = (struct timer_heap_entry){timer->deadline, timer_sequence(timer), timer};
}

/* A slot of level 0 that has passed, while the heap is empty: sorted by a heap that tells nobody where it is. */
static void sort_slot(struct timers *timers, unsigned slot) {
    empty_slot(timers, 0, slot, add_entry);
    struct timer_heap_entry *heap = timers->heap;
    uint32_t count = timers->heap_count;
    timers->heap_count = 0;
    for (uint32_t i = (count + ARITY - 2) / ARITY; i-- > 0;)
        sift_down(heap, count, i, heap[i], false);
    while (count) {
        struct timer *timer = heap[0].timer;
        count--;
        sift_down(heap, count, 0, heap[count], false);
        __builtin_prefetch(heap[0].timer, 1);
        timer->place = TIMER_DUE;
        list_append(&timers->due, &timer->link);
    }
}

/* ---- The interface ---- */

void tram__timers_init(struct timers *timers, const tram_allocator *allocator, uint64_t now) {
    memset(timers, 0, sizeof *timers);
    timers->allocator = allocator;
    timers->tick = tick_of(now);
    list_init(&timers->due);
    list_init(&timers->late);
    for (unsigned level = 0; level < TIMER_LEVELS; level++)
        for (unsigned slot = 0; slot < TIMER_SLOTS; slot++)
            for (unsigned lane = 0; lane < TIMER_LANES; lane++)
                list_init(&timers->slots[level][slot].lanes[lane]);
}

void tram__timers_fini(struct timers *timers) {
    memory_put(timers->allocator, timers->heap, timers->heap_capacity * sizeof *timers->heap);
}

int tram__timers_start(struct timers *timers, struct timer *timer, uint64_t deadline) {
    if (unlikely(timers->count >= timers->heap_capacity)) {
        int status = heap_reserve(timers);
        if (status)
            return status;
    }
    TRAM_DCHECK(timer->place == TIMER_IDLE);
    timers->count++;
    timer->deadline = deadline;
    timer_set_sequence(timer, timers->sequence++);
    if (unlikely(timers->now && deadline <= timers->now)) {
        timer->place = TIMER_DUE;
        list_append(&timers->late, &timer->link);
    } else {
        place(timers, timer);
    }
    return 0;
}

void tram__timers_cancel(struct timers *timers, struct timer *timer) {
    switch ((enum timer_place)timer->place) {
    case TIMER_IDLE:
        return;
    case TIMER_WHEEL:
        leave_wheel(timers, timer);
        break;
    case TIMER_HEAP:
        heap_remove(timers, timer->heap_index);
        break;
    case TIMER_DUE:
        list_remove(&timer->link);
        break;
    }
    timer->place = TIMER_IDLE;
    TRAM_DCHECK(timers->count > 0);
    timers->count--;
}

void tram__timers_begin(struct timers *timers, uint64_t now) {
    timers->now = now;
}

/* Those that were started meanwhile and are due already take their places. */
static void end(struct timers *timers) {
    timers->now = 0;
    while (!list_empty(&timers->late)) {
        struct timer *timer = (struct timer *)(void *)timers->late.next;
        list_remove(&timer->link);
        place(timers, timer);
    }
}

static struct timer *take_from_list(struct timers *timers) {
    struct timer *timer = (struct timer *)(void *)timers->due.next;
    list_remove(&timer->link);
    __builtin_prefetch(timers->due.next, 1);
    return timer;
}

/*
 * Slot by slot, and the next one only when all of this one have run: so the heap is small, and a timer that was fetched
 * to be sorted is still in the cache when it runs. What is in the list is earlier than the heap, and that than the
 * wheel.
 */
static struct timer *take(struct timers *timers) {
    uint64_t tick = tick_of(timers->now), begins;
    unsigned level, slot;
    for (;;) {
        if (!list_empty(&timers->due))
            return take_from_list(timers);
        if (timers->heap_count) {
            struct timer *timer = timers->heap[0].timer;
            if (timer->deadline > timers->now)
                return NULL;
            heap_remove(timers, 0);
            return timer;
        }
        if (timers->tick >= tick)
            return NULL;
        if (!next_slot(timers, &level, &slot, &begins) || begins > tick) {
            timers->tick = tick;
            return NULL;
        }
        timers->tick = begins;
        if (level == 0 && begins < tick)
            sort_slot(timers, slot);
        else
            empty_slot(timers, level, slot, place);
    }
}

struct timer *tram__timers_take_next(struct timers *timers) {
    struct timer *timer = take(timers);
    if (timer) {
        timer->place = TIMER_IDLE;
        timers->count--;
    } else {
        end(timers);
    }
    return timer;
}

uint64_t tram__timers_next(const struct timers *timers) {
    if (timers->heap_count)
        return timers->heap[0].deadline;
    unsigned level, slot;
    uint64_t begins;
    if (!next_slot(timers, &level, &slot, &begins))
        return UINT64_MAX;
    uint64_t nearest = UINT64_MAX;
    unsigned seen = 0;
    for (unsigned lane = 0; lane < TIMER_LANES; lane++) {
        const struct list *head = &timers->slots[level][slot].lanes[lane];
        for (const struct list *link = head->next; link != head; link = link->next) {
            if (++seen > TIMER_SCAN_LIMIT)
                return begins << TICK_SHIFT;
            uint64_t deadline = ((const struct timer *)(const void *)link)->deadline;
            nearest = MIN(nearest, deadline);
        }
    }
    return nearest;
}

/* ---- Checked builds ---- */

static void heap_validate(const struct timers *timers) {
    TRAM_ASSERT(timers->heap_count <= timers->heap_capacity);
    for (uint32_t i = 0; i < timers->heap_count; i++) {
        const struct timer_heap_entry *entry = &timers->heap[i];
        TRAM_ASSERT(entry->timer && entry->timer->place == TIMER_HEAP && entry->timer->heap_index == i);
        TRAM_ASSERT(entry->deadline == entry->timer->deadline && entry->sequence == timer_sequence(entry->timer));
        TRAM_ASSERT(i == 0 || !earlier(entry, &timers->heap[(i - 1) / ARITY]));
    }
}

/* How many timers a list has, all of which are in this place. */
static uint64_t list_of_timers_validate(const struct list *list, enum timer_place where) {
    uint64_t count = list_validate(list);
    for (const struct list *link = list->next; link != list; link = link->next)
        TRAM_ASSERT(((const struct timer *)(const void *)link)->place == where);
    return count;
}

static uint64_t wheel_validate(const struct timers *timers) {
    uint64_t count = 0;
    for (unsigned level = 0; level < TIMER_LEVELS; level++) {
        for (unsigned slot = 0; slot < TIMER_SLOTS; slot++) {
            uint64_t here = 0;
            for (unsigned lane = 0; lane < TIMER_LANES; lane++)
                here += list_of_timers_validate(&timers->slots[level][slot].lanes[lane], TIMER_WHEEL);
            TRAM_ASSERT((here != 0) == (timers->occupied[level] >> slot & 1));
            count += here;
        }
    }
    return count;
}

void tram__timers_validate(const struct timers *timers) {
    heap_validate(timers);
    uint64_t count = timers->heap_count + wheel_validate(timers);
    count += list_of_timers_validate(&timers->due, TIMER_DUE) + list_of_timers_validate(&timers->late, TIMER_DUE);
    TRAM_ASSERT(timers->count == count);
}
