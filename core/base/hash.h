/* FNV-1a: tells apart what no peer chooses. Where one may, siphash.h is for it. */
#ifndef TRAM_CORE_BASE_HASH_H
#define TRAM_CORE_BASE_HASH_H

#include <stdint.h>

#define HASH_BEGIN UINT64_C(0xcbf29ce484222325)

/* Of one more byte, or number. */
static inline uint64_t hash_add(uint64_t hash, uint64_t value) {
    return (hash ^ value) * UINT64_C(0x100000001b3);
}

static inline uint64_t hash_text(const char *text) {
    uint64_t hash = HASH_BEGIN;
    for (; *text; text++)
        hash = hash_add(hash, (unsigned char)*text);
    return hash;
}

#endif
