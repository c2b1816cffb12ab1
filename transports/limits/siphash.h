/*
 * SipHash-1-3 of 16 bytes, with a secret key: what a table is sorted by that peers would like to fill with collisions.
 * The same as CPython's hash of bytes, which its tests are the judge of.
 */
#ifndef TRAM_TRANSPORTS_LIMITS_SIPHASH_H
#define TRAM_TRANSPORTS_LIMITS_SIPHASH_H

#include <stdint.h>

static inline uint64_t siphash_rotate(uint64_t value, int bits) {
    return value << bits | value >> (64 - bits);
}

static inline void siphash_round(uint64_t v[4]) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = siphash_rotate(v[1], 13) ^ v[0];
    v[3] = siphash_rotate(v[3], 16) ^ v[2];
    v[0] = siphash_rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = siphash_rotate(v[1], 17) ^ v[2];
    v[3] = siphash_rotate(v[3], 21) ^ v[0];
    v[2] = siphash_rotate(v[2], 32);
}

static inline void siphash_word(uint64_t v[4], uint64_t word) {
    v[3] ^= word;
    siphash_round(v);
    v[0] ^= word;
}

/* Two words, as they stand in memory where the lowest byte comes first. */
static inline uint64_t siphash_1_3(const uint64_t key[2], uint64_t first, uint64_t second) {
    uint64_t v[4] = {
        key[0] ^ 0x736f6d6570736575u,
        key[1] ^ 0x646f72616e646f6du,
        key[0] ^ 0x6c7967656e657261u,
        key[1] ^ 0x7465646279746573u,
    };
    siphash_word(v, first);
    siphash_word(v, second);
    siphash_word(v, (uint64_t)16 << 56); /* the length, which ends every message */
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        siphash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
