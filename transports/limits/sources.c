#include "transports/limits/sources.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/auxv.h>

#include "core/base/compiler.h"
#include "transports/limits/siphash.h"

#define STRIPES      16
#define SMALLEST     16 /* slots of a stripe that has any */
#define SLOTS_MAX    (UINT32_MAX / 2 + 1)
#define STRIPE_SHIFT 60 /* the highest bits choose the stripe, the lowest the slot */

/* What one call does for a change of size at most. A table is empty before it could be due for the next one. */
#define CLEAR_SLOTS 256
#define MOVE_STEPS  32

struct source {
    uint64_t network;
    uint32_t family;
    uint32_t count; /* 0: the slot is free */
};

/* Linear probing; whoever leaves has those behind it move up, so that there are no tombstones. */
struct table {
    struct source *slots;
    uint32_t capacity; /* 0, or a power of 2 */
};

/*
 * A change of size is spread over the calls that follow: the table to come is cleared bit by bit, then it takes the
 * place of the present one, whose sources move over bit by bit. New ones go to the present table only.
 */
struct stripe {
    pthread_mutex_t lock;
    struct table present;
    struct table next;       /* being cleared */
    struct table former;     /* being emptied */
    uint32_t cleared;        /* slots of `next` */
    uint32_t emptied;        /* slots of `former`: there is nothing before this one */
    uint32_t used;           /* in both */
    uint32_t most_work;      /* for tests: the most slots that a call cleared, passed and moved */
    unsigned char apart[64]; /* no two stripes share a cache line */
};

struct sources {
    tram_allocator allocator;
    struct sources_options options;
    uint64_t secret[2];
    struct stripe stripes[STRIPES];
};

/* ---- Who is who ---- */

static uint64_t load64(const void *bytes) {
    const unsigned char *byte = bytes;
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | byte[i];
    return value;
}

static struct source from_ipv4(const struct sources *sources, uint32_t address) {
    return (struct source){.network = (uint64_t)address >> (32 - sources->options.bits_ipv4), .family = AF_INET};
}

/* Family 0: none. An IPv4 address that comes through a socket of IPv6 is one of IPv4. */
static struct source source_of(const struct sources *sources, const void *peer) {
    struct sockaddr_in6 ipv6;
    struct sockaddr_in ipv4;
    sa_family_t family;
    memcpy(&family, peer, sizeof family);
    if (family == AF_INET) {
        memcpy(&ipv4, peer, sizeof ipv4);
        return from_ipv4(sources, ntohl(ipv4.sin_addr.s_addr));
    }
    if (family != AF_INET6)
        return (struct source){0};
    memcpy(&ipv6, peer, sizeof ipv6);
    if (IN6_IS_ADDR_V4MAPPED(&ipv6.sin6_addr))
        return from_ipv4(sources, (uint32_t)load64(&ipv6.sin6_addr.s6_addr[8]));
    return (struct source){
        .network = load64(ipv6.sin6_addr.s6_addr) >> (64 - sources->options.bits_ipv6),
        .family = AF_INET6,
    };
}

static bool same(const struct source *a, const struct source *b) {
    return a->network == b->network && a->family == b->family;
}

/* ---- Where it stands ---- */

/* Of the random bytes that the kernel gives each process, which it does not show to anyone. */
static void make_secret(struct sources *sources) {
    uint64_t seed[2] = {0};
    const void *bytes = (const void *)getauxval(AT_RANDOM);
    if (bytes)
        memcpy(seed, bytes, sizeof seed);
    for (unsigned i = 0; i < 2; i++)
        sources->secret[i] = siphash_1_3(seed, (uintptr_t)sources, i);
}

static uint64_t hash_of(const struct sources *sources, const struct source *source) {
    return siphash_1_3(sources->secret, source->network, source->family);
}

/* ---- A table ---- */

static inline uint32_t home_of(const struct table *table, uint64_t hash) {
    return (uint32_t)hash & (table->capacity - 1);
}

/* Where it is, or would be: there must be a free slot. */
static struct source *find_in(const struct table *table, const struct source *source, uint64_t hash) {
    uint32_t slot = home_of(table, hash);
    while (table->slots[slot].count && !same(&table->slots[slot], source))
        slot = (slot + 1) & (table->capacity - 1);
    return &table->slots[slot];
}

static void move_up(const struct sources *sources, struct table *table, uint32_t hole) {
    uint32_t mask = table->capacity - 1;
    for (uint32_t slot = (hole + 1) & mask; table->slots[slot].count; slot = (slot + 1) & mask) {
        uint32_t home = home_of(table, hash_of(sources, &table->slots[slot]));
        if (((slot - home) & mask) < ((slot - hole) & mask))
            continue; /* it would come before its home */
        table->slots[hole] = table->slots[slot];
        hole = slot;
    }
    table->slots[hole].count = 0;
}

static void drop_table(const struct sources *sources, struct table *table) {
    memory_put(&sources->allocator, table->slots, table->capacity * sizeof *table->slots);
    *table = (struct table){0};
}

/* ---- A stripe, with its lock held ---- */

static bool resizing(const struct stripe *stripe) {
    return stripe->next.capacity || stripe->former.capacity;
}

static uint32_t clear_some(struct stripe *stripe) {
    struct table *next = &stripe->next;
    uint32_t left = next->capacity - stripe->cleared, count = MIN(left, CLEAR_SLOTS);
    memset(next->slots + stripe->cleared, 0, count * sizeof *next->slots);
    stripe->cleared += count;
    if (stripe->cleared == next->capacity) {
        stripe->former = stripe->present;
        stripe->present = *next;
        stripe->emptied = 0;
        *next = (struct table){0};
    }
    return count;
}

/* Each step moves one source, or passes a slot that is free. What moves up meanwhile stays behind `emptied`. */
static uint32_t move_some(const struct sources *sources, struct stripe *stripe) {
    struct table *former = &stripe->former;
    uint32_t steps = 0;
    for (; steps < MOVE_STEPS && stripe->emptied < former->capacity; steps++) {
        const struct source *source = &former->slots[stripe->emptied];
        if (!source->count) {
            stripe->emptied++;
            continue;
        }
        *find_in(&stripe->present, source, hash_of(sources, source)) = *source;
        move_up(sources, former, stripe->emptied);
    }
    if (stripe->emptied == former->capacity)
        drop_table(sources, former);
    return steps;
}

/* A part of the change of size that is under way. */
static void go_on(const struct sources *sources, struct stripe *stripe) {
    uint32_t work = stripe->next.capacity ? clear_some(stripe) : 0;
    if (stripe->former.capacity)
        work += move_some(sources, stripe);
    stripe->most_work = MAX(stripe->most_work, work);
}

static int resize(const struct sources *sources, struct stripe *stripe, uint32_t capacity) {
    struct source *slots = memory_get(&sources->allocator, capacity * sizeof *slots);
    if (!slots)
        return -ENOMEM;
    stripe->next = (struct table){.slots = slots, .capacity = capacity};
    stripe->cleared = 0;
    go_on(sources, stripe);
    return 0;
}

/* Before one is added. Without memory for more it may get crowded, but one slot stays free. */
static int make_room(const struct sources *sources, struct stripe *stripe) {
    uint32_t capacity = stripe->present.capacity;
    if (stripe->used < capacity - capacity / 4)
        return 0;
    int status = -ENOMEM;
    if (!resizing(stripe) && capacity < SLOTS_MAX)
        status = resize(sources, stripe, capacity ? capacity * 2 : SMALLEST);
    return status && stripe->used + 1 < capacity ? 0 : status;
}

/* The table that has it, or would take it; NULL: there is none. */
static struct table *find(struct stripe *stripe, const struct source *source, uint64_t hash,
                          struct source **ret_place) {
    *ret_place = NULL;
    if (stripe->former.capacity) {
        *ret_place = find_in(&stripe->former, source, hash);
        if ((*ret_place)->count)
            return &stripe->former;
    }
    if (!stripe->present.capacity)
        return NULL;
    *ret_place = find_in(&stripe->present, source, hash);
    return &stripe->present;
}

static int enter(const struct sources *sources, struct stripe *stripe, const struct source *source, uint64_t hash) {
    struct source *place;
    if (unlikely(resizing(stripe)))
        go_on(sources, stripe);
    if (!find(stripe, source, hash, &place) || !place->count) {
        int status = make_room(sources, stripe);
        if (status)
            return status;
        place = find_in(&stripe->present, source, hash);
        *place = *source;
        place->count = 0;
        stripe->used++;
    } else if (place->count >= sources->options.most) {
        return SOURCE_FULL;
    }
    place->count++;
    return SOURCE_ENTERED;
}

static void leave(const struct sources *sources, struct stripe *stripe, const struct source *source, uint64_t hash) {
    struct source *place;
    if (unlikely(resizing(stripe)))
        go_on(sources, stripe);
    struct table *table = find(stripe, source, hash, &place);
    TRAM_ASSERT(table && place->count > 0);
    if (--place->count)
        return;
    move_up(sources, table, (uint32_t)(place - table->slots));
    stripe->used--;
    uint32_t capacity = stripe->present.capacity;
    if (capacity > SMALLEST && stripe->used < capacity / 8 && !resizing(stripe))
        (void)resize(sources, stripe, capacity / 2); /* without memory it stays large */
}

/* ---- The interface ---- */

static struct stripe *lock_stripe(struct sources *sources, uint64_t hash) {
    if (!sources->options.shared)
        return &sources->stripes[0];
    struct stripe *stripe = &sources->stripes[hash >> STRIPE_SHIFT];
    pthread_mutex_lock(&stripe->lock);
    return stripe;
}

static void unlock_stripe(const struct sources *sources, struct stripe *stripe) {
    if (sources->options.shared)
        pthread_mutex_unlock(&stripe->lock);
}

int tram__sources_enter(struct sources *sources, const void *peer) {
    struct source source = source_of(sources, peer);
    if (!source.family)
        return SOURCE_ENTERED;
    uint64_t hash = hash_of(sources, &source);
    struct stripe *stripe = lock_stripe(sources, hash);
    int status = enter(sources, stripe, &source, hash);
    unlock_stripe(sources, stripe);
    return status;
}

void tram__sources_leave(struct sources *sources, const void *peer) {
    struct source source = source_of(sources, peer);
    if (!source.family)
        return;
    uint64_t hash = hash_of(sources, &source);
    struct stripe *stripe = lock_stripe(sources, hash);
    leave(sources, stripe, &source, hash);
    unlock_stripe(sources, stripe);
}

int tram__sources_new(const tram_allocator *allocator, const struct sources_options *options,
                      struct sources **ret_sources) {
    _Static_assert(STRIPES == 1 << (64 - STRIPE_SHIFT), "the bits that choose a stripe");
    struct sources *sources = tram__memory_get_zero(allocator, sizeof *sources);
    if (!sources)
        return -ENOMEM;
    sources->allocator = *allocator;
    sources->options = *options;
    make_secret(sources);
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_init(&sources->stripes[i].lock, NULL);
    *ret_sources = sources;
    return 0;
}

void tram__sources_free(struct sources *sources) {
    if (!sources)
        return;
    for (unsigned i = 0; i < STRIPES; i++) {
        struct stripe *stripe = &sources->stripes[i];
        drop_table(sources, &stripe->present);
        drop_table(sources, &stripe->next);
        drop_table(sources, &stripe->former);
        pthread_mutex_destroy(&stripe->lock);
    }
    tram_allocator allocator = sources->allocator;
    memory_put(&allocator, sources, sizeof *sources);
}

/* ---- For tests ---- */

size_t tram__sources_count(const struct sources *sources) {
    size_t count = 0;
    for (unsigned i = 0; i < STRIPES; i++)
        count += sources->stripes[i].used;
    return count;
}

size_t tram__sources_room(const struct sources *sources) {
    size_t capacity = 0;
    for (unsigned i = 0; i < STRIPES; i++)
        capacity += sources->stripes[i].present.capacity + sources->stripes[i].next.capacity +
                    sources->stripes[i].former.capacity;
    return capacity;
}

static size_t longest_run(const struct table *table) {
    size_t longest = 0, run = 0;
    for (uint32_t slot = 0; slot < table->capacity; slot++) {
        run = table->slots[slot].count ? run + 1 : 0;
        longest = MAX(longest, run);
    }
    return longest;
}

size_t tram__sources_longest_run(const struct sources *sources) {
    size_t longest = 0;
    for (unsigned i = 0; i < STRIPES; i++) {
        size_t present = longest_run(&sources->stripes[i].present), former = longest_run(&sources->stripes[i].former);
        longest = MAX(longest, present);
        longest = MAX(longest, former);
    }
    return longest;
}

size_t tram__sources_most_work(const struct sources *sources) {
    size_t most = 0;
    for (unsigned i = 0; i < STRIPES; i++)
        most = MAX(most, sources->stripes[i].most_work);
    return most;
}
