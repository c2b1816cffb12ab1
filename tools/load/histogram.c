#include "load/histogram.h"

#include <math.h>
#include <string.h>

void histogram_clear(histogram *self) {
    memset(self, 0, sizeof(*self));
}

uint64_t histogram_slot_top(uint32_t slot) {
    if (slot < 2 * HISTOGRAM_STEPS) {
        return slot;
    }
    uint32_t shift = slot / HISTOGRAM_STEPS - 1;
    uint64_t step = slot - shift * HISTOGRAM_STEPS;
    return ((step + 1) << shift) - 1;
}

void histogram_add(histogram *self, const histogram *other) {
    for (uint32_t i = 0; i < HISTOGRAM_SLOT_COUNT; i++) {
        self->slots[i] += other->slots[i];
    }
    self->count += other->count;
    self->sum += other->sum;
    if (other->maximum > self->maximum) {
        self->maximum = other->maximum;
    }
}

uint64_t histogram_percentile(const histogram *self, double percent) {
    if (self->count == 0) {
        return 0;
    }
    /* 99.9 is no number of a computer: without the correction 99.9 % of 1000 would be the 1000th value. */
    double exact = percent / 100 * (double)self->count;
    uint64_t rank = (uint64_t)ceil(exact - exact * 1e-12);
    if (rank == 0) {
        rank = 1;
    }
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_SLOT_COUNT; i++) {
        seen += self->slots[i];
        if (seen >= rank) {
            uint64_t top = histogram_slot_top(i);
            /* The last slot also counts what is larger than it can tell. */
            return top < self->maximum && i + 1 < HISTOGRAM_SLOT_COUNT ? top : self->maximum;
        }
    }
    return self->maximum;
}

double histogram_mean(const histogram *self) {
    return self->count == 0 ? 0 : (double)self->sum / (double)self->count;
}
