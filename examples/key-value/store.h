/* A table of keys and values, some of which expire: one worker's part of them all. */
#ifndef TRAM_EXAMPLES_STORE_H
#define TRAM_EXAMPLES_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct entry {
    struct entry *next; /* in its bucket */
    uint64_t hash;
    uint64_t expires_ms; /* 0: never */
    size_t key_size, value_size, room;
    char bytes[]; /* the key, then room for the value */
};

struct store {
    struct entry **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
    size_t swept; /* the bucket where the search for what has expired goes on */
};

/* 64 bits of which both ends are good: the low ones choose the bucket, the high ones the worker. */
static inline uint64_t hash_of(const char *key, size_t size) {
    uint64_t hash = 0x9e3779b97f4a7c15u ^ size, part;
    for (; size >= 8; key += 8, size -= 8) {
        memcpy(&part, key, 8);
        hash = (hash ^ part) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    part = 0;
    memcpy(&part, key, size);
    hash = (hash ^ part) * 0xff51afd7ed558ccdu;
    hash ^= hash >> 32;
    hash *= 0xc4ceb9fe1a85ec53u;
    return hash ^ hash >> 29;
}

static inline uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline bool has_expired(const struct entry *entry) {
    return entry->expires_ms && entry->expires_ms <= now_ms();
}

static inline char *value_of(struct entry *entry) {
    return entry->bytes + entry->key_size;
}

static inline void store_free(struct store *store) {
    for (size_t i = 0; i < store->bucket_count; i++)
        for (struct entry *entry = store->buckets[i], *next; entry; entry = next) {
            next = entry->next;
            free(entry);
        }
    free(store->buckets);
    *store = (struct store){0};
}

/* The place that points to the entry, or to NULL at the end of its bucket. There must be buckets. */
static inline struct entry **store_place(struct store *store, const char *key, size_t size, uint64_t hash) {
    struct entry **place = &store->buckets[hash & (store->bucket_count - 1)];
    while (*place && ((*place)->hash != hash || (*place)->key_size != size || memcmp((*place)->bytes, key, size)))
        place = &(*place)->next;
    return place;
}

static inline void store_remove(struct store *store, struct entry **place) {
    struct entry *entry = *place;
    *place = entry->next;
    store->count--;
    free(entry);
}

/* The entry, or NULL: there is none, or it has expired. */
static inline struct entry *store_find(struct store *store, const char *key, size_t size, uint64_t hash) {
    struct entry **place = store->count ? store_place(store, key, size, hash) : NULL;
    if (!place || !*place || !has_expired(*place))
        return place ? *place : NULL;
    store_remove(store, place);
    return NULL;
}

static inline bool store_grow(struct store *store) {
    size_t count = store->bucket_count ? store->bucket_count * 2 : 1024;
    struct entry **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return store->bucket_count > 0; /* it is only slower */
    for (size_t i = 0; i < store->bucket_count; i++)
        for (struct entry *entry = store->buckets[i], *next; entry; entry = next) {
            next = entry->next;
            entry->next = buckets[entry->hash & (count - 1)];
            buckets[entry->hash & (count - 1)] = entry;
        }
    free(store->buckets);
    store->buckets = buckets;
    store->bucket_count = count;
    store->swept = 0;
    return true;
}

/* Sets the value; what the entry says of expiry stays, or is never. NULL: out of memory, nothing has changed. */
static inline struct entry *store_set(struct store *store, const char *key, size_t key_size, uint64_t hash,
                                      const char *value, size_t value_size) {
    if (store->count >= store->bucket_count && !store_grow(store))
        return NULL;
    struct entry **place = store_place(store, key, key_size, hash), *entry = *place;
    if (!entry || entry->room < value_size) {
        struct entry *made = malloc(sizeof *made + key_size + value_size);
        if (!made)
            return NULL;
        *made = (struct entry){.next = entry ? entry->next : NULL,
                               .hash = hash,
                               .key_size = key_size,
                               .expires_ms = entry ? entry->expires_ms : 0,
                               .room = value_size};
        memcpy(made->bytes, key, key_size);
        store->count += !entry;
        free(entry);
        *place = entry = made;
    }
    memcpy(value_of(entry), value, value_size);
    entry->value_size = value_size;
    return entry;
}

/* One that was found. */
static inline void store_delete(struct store *store, struct entry *entry) {
    store_remove(store, store_place(store, entry->bytes, entry->key_size, entry->hash));
}

/* Looks through some buckets for what has expired. */
static inline void store_sweep(struct store *store, size_t buckets) {
    for (size_t i = 0; i < buckets && i < store->bucket_count; i++) {
        struct entry **place = &store->buckets[store->swept++ & (store->bucket_count - 1)];
        while (*place) {
            if (has_expired(*place))
                store_remove(store, place);
            else
                place = &(*place)->next;
        }
    }
}

#endif
