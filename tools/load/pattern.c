#include "load/pattern.h"

#include <string.h>

void pattern_fill(pattern *self) {
    uint64_t state = 0x9e3779b97f4a7c15;
    for (size_t i = 0; i < PATTERN_PERIOD; i++) {
        /* xorshift64* */
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self->bytes[i] = (unsigned char)((state * 0x2545f4914f6cdd1d) >> 56);
    }
    for (size_t i = PATTERN_PERIOD; i < sizeof(self->bytes); i++) {
        self->bytes[i] = self->bytes[i - PATTERN_PERIOD];
    }
}

uint32_t pattern_start(uint64_t connection) {
    return (uint32_t)(connection % PATTERN_PERIOD * 40503 % PATTERN_PERIOD);
}

static size_t matching_bytes(const unsigned char *left, const unsigned char *right, size_t size) {
    if (memcmp(left, right, size) == 0) {
        return size;
    }
    size_t i = 0;
    while (left[i] == right[i]) {
        i++;
    }
    return i;
}

size_t pattern_match(const pattern *self, uint32_t place, const void *data, size_t size) {
    const unsigned char *bytes = data;
    size_t done = 0;
    while (done < size) {
        size_t piece = size - done < PATTERN_SPAN ? size - done : PATTERN_SPAN;
        size_t same = matching_bytes(self->bytes + place, bytes + done, piece);
        done += same;
        if (same < piece) {
            break;
        }
        place = pattern_advance(place, piece);
    }
    return done;
}
