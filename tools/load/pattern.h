/*
 * The bytes that are sent: an endless noise, the same for all connections, which every connection enters at a
 * place of its own. So a byte that is wrong, missing, doubled, out of place or another connection's does not
 * match, and a comparison is one memcmp.
 */
#ifndef TRAM_LOAD_PATTERN_H
#define TRAM_LOAD_PATTERN_H

#include <stddef.h>
#include <stdint.h>

/* After this many bytes the noise begins again. A prime: no request size of use falls into step with it. */
#define PATTERN_PERIOD 65521u

/* So many bytes from any place on are in one piece. */
#define PATTERN_SPAN (256u * 1024)

typedef struct pattern {
    unsigned char bytes[PATTERN_PERIOD + PATTERN_SPAN];
} pattern;

void pattern_fill(pattern *self);

/* Where a connection begins, by its number: different for 65,521 numbers in a row. */
uint32_t pattern_start(uint64_t connection);

/* The place `size` bytes after `place`. */
static inline uint32_t pattern_advance(uint32_t place, size_t size) {
    return (uint32_t)((place + size) % PATTERN_PERIOD);
}

/* How many of `data` are as the noise is from `place` on: `size` if all are. */
size_t pattern_match(const pattern *self, uint32_t place, const void *data, size_t size);

#endif
