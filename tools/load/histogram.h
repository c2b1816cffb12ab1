/* A histogram of durations with three significant digits: counting is one addition, and histograms add up. */
#ifndef TRAM_LOAD_HISTOGRAM_H
#define TRAM_LOAD_HISTOGRAM_H

#include <stdint.h>

/*
 * Every power of two is cut into HISTOGRAM_STEPS equal steps, so a value is known to 1/1024 of itself;
 * what is below 2 * HISTOGRAM_STEPS is known exactly.
 */
#define HISTOGRAM_STEP_BITS 10
#define HISTOGRAM_STEPS     (1u << HISTOGRAM_STEP_BITS)

/* In nanoseconds some 73 minutes. Larger values are counted as this one; `maximum` still tells the largest.
 */
#define HISTOGRAM_VALUE_BITS 42
#define HISTOGRAM_LARGEST    ((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1)
#define HISTOGRAM_SLOT_COUNT ((HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS)

/* Some 270 KB: not for the stack. All zero is an empty one. */
typedef struct histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t maximum; /* exact */
    uint64_t slots[HISTOGRAM_SLOT_COUNT];
} histogram;

void histogram_clear(histogram *self);

/* The slot of a value. Slots are in the order of their values. */
static inline uint32_t histogram_slot(uint64_t value) {
    if (value > HISTOGRAM_LARGEST) {
        value = HISTOGRAM_LARGEST;
    }
    if (value < 2 * HISTOGRAM_STEPS) {
        return (uint32_t)value;
    }
    uint32_t shift = 63 - (uint32_t)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
    return shift * HISTOGRAM_STEPS + (uint32_t)(value >> shift);
}

/* The largest value of a slot. */
uint64_t histogram_slot_top(uint32_t slot);

static inline void histogram_record(histogram *self, uint64_t value) {
    self->slots[histogram_slot(value)]++;
    self->count++;
    self->sum += value;
    if (value > self->maximum) {
        self->maximum = value;
    }
}

/* Adds all of `other`: the result is as if every value had been recorded here. */
void histogram_add(histogram *self, const histogram *other);

/*
 * The smallest value that is not below `percent` per cent of what was recorded, rounded up to the top of its
 * slot but never above the maximum: no latency is shown smaller than it was. 0 if nothing was recorded.
 */
uint64_t histogram_percentile(const histogram *self, double percent);

/* 0 if nothing was recorded. */
double histogram_mean(const histogram *self);

#endif
