#include "transports/limits/sources.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/auxv.h>

#include "core/base/compiler.h"

#define STRIPES      16
#define SMALLEST     16 /* slots of a stripe that has any */
#define SLOTS_MAX    (UINT32_MAX / 2 + 1)
#define STRIPE_SHIFT 60 /* the highest bits choose the stripe, the lowest the slot */

struct source {
    uint64_t network;
    uint32_t family;
    uint32_t count; /* 0: the slot is free */
};

/* Linear probing; whoever leaves has those behind it move up, so that there are no deferred_frees. */
struct stripe {
    pthread_mutex_t lock;
    struct source *slots;
    uint32_t room; /* 0, or a power of 2 */
    uint32_t used;
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

/* ---- SipHash-1-3 of two words ---- */

static inline uint64_t rotate(uint64_t value, int bits) {
    return value << bits | value >> (64 - bits);
}

static inline void sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static inline void sip_word(uint64_t v[4], uint64_t word) {
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

static uint64_t mix(const uint64_t secret[2], uint64_t first, uint64_t second) {
    uint64_t v[4] = {
        secret[0] ^ 0x736f6d6570736575u,
        secret[1] ^ 0x646f72616e646f6du,
        secret[0] ^ 0x6c7967656e657261u,
        secret[1] ^ 0x7465646279746573u,
    };
    sip_word(v, first);
    sip_word(v, second);
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Of the random bytes that the kernel gives each process, which it does not show to anyone. */
static void make_secret(struct sources *sources) {
    uint64_t seed[2] = {0};
    const void *bytes = (const void *)getauxval(AT_RANDOM);
    if (bytes)
        memcpy(seed, bytes, sizeof seed);
    for (unsigned i = 0; i < 2; i++)
        sources->secret[i] = mix(seed, (uintptr_t)sources, i);
}

static uint64_t hash_of(const struct sources *sources, const struct source *source) {
    return mix(sources->secret, source->network, source->family);
}

/* ---- A stripe, with its lock held ---- */

static inline uint32_t home_of(const struct stripe *stripe, uint64_t hash) {
    return (uint32_t)hash & (stripe->room - 1);
}

/* Where it is, or would be: there must be a free slot. */
static struct source *find(const struct stripe *stripe, const struct source *source, uint64_t hash) {
    uint32_t slot = home_of(stripe, hash);
    while (stripe->slots[slot].count && !same(&stripe->slots[slot], source))
        slot = (slot + 1) & (stripe->room - 1);
    return &stripe->slots[slot];
}

static int resize(const struct sources *sources, struct stripe *stripe, uint32_t room) {
    struct source *old = stripe->slots;
    uint32_t old_room = stripe->room;
    struct source *slots = tram__memory_get_zero(&sources->allocator, room * sizeof *slots);
    if (!slots)
        return -ENOMEM;
    stripe->slots = slots;
    stripe->room = room;
    for (uint32_t i = 0; i < old_room; i++)
        if (old[i].count)
            *find(stripe, &old[i], hash_of(sources, &old[i])) = old[i];
    memory_put(&sources->allocator, old, old_room * sizeof *old);
    return 0;
}

/* Before one is added. Without memory for more it may get crowded, but one slot stays free. */
static int make_room(const struct sources *sources, struct stripe *stripe) {
    if (stripe->used < stripe->room - stripe->room / 4)
        return 0;
    uint32_t room = stripe->room ? stripe->room * 2 : SMALLEST;
    int status = stripe->room < SLOTS_MAX ? resize(sources, stripe, room) : -ENOMEM;
    return status && stripe->used + 1 < stripe->room ? 0 : status;
}

static void move_up(const struct sources *sources, struct stripe *stripe, uint32_t hole) {
    uint32_t mask = stripe->room - 1;
    for (uint32_t slot = (hole + 1) & mask; stripe->slots[slot].count; slot = (slot + 1) & mask) {
        uint32_t home = home_of(stripe, hash_of(sources, &stripe->slots[slot]));
        if (((slot - home) & mask) < ((slot - hole) & mask))
            continue; /* it would come before its home */
        stripe->slots[hole] = stripe->slots[slot];
        hole = slot;
    }
    stripe->slots[hole].count = 0;
}

static int enter(const struct sources *sources, struct stripe *stripe, const struct source *source, uint64_t hash) {
    struct source *present = stripe->room ? find(stripe, source, hash) : NULL;
    if (!present || !present->count) {
        int status = make_room(sources, stripe);
        if (status)
            return status;
        present = find(stripe, source, hash);
        *present = *source;
        present->count = 0;
        stripe->used++;
    } else if (present->count >= sources->options.most) {
        return SOURCE_FULL;
    }
    present->count++;
    return SOURCE_ENTERED;
}

static void leave(const struct sources *sources, struct stripe *stripe, const struct source *source, uint64_t hash) {
    struct source *present = find(stripe, source, hash);
    TRAM_ASSERT(present->count > 0);
    if (--present->count)
        return;
    move_up(sources, stripe, (uint32_t)(present - stripe->slots));
    stripe->used--;
    if (stripe->room > SMALLEST && stripe->used < stripe->room / 8)
        (void)resize(sources, stripe, stripe->room / 2); /* without memory it stays large */
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
        memory_put(&sources->allocator, stripe->slots, stripe->room * sizeof *stripe->slots);
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
    size_t room = 0;
    for (unsigned i = 0; i < STRIPES; i++)
        room += sources->stripes[i].room;
    return room;
}

size_t tram__sources_longest_run(const struct sources *sources) {
    size_t longest = 0;
    for (unsigned i = 0; i < STRIPES; i++) {
        const struct stripe *stripe = &sources->stripes[i];
        size_t run = 0;
        for (uint32_t slot = 0; slot < stripe->room; slot++) {
            run = stripe->slots[slot].count ? run + 1 : 0;
            longest = run > longest ? run : longest;
        }
    }
    return longest;
}
