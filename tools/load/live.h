/* The live line: once a second every worker says what it did, and the last to say so draws the line. */
#ifndef TRAM_LOAD_LIVE_H
#define TRAM_LOAD_LIVE_H

#include <pthread.h>

#include "load/histogram.h"

#define LOAD_LIVE_PERIOD_NS UINT64_C(1000000000)

typedef struct load_live {
    pthread_mutex_t mutex; /* once a second, and only while someone watches */
    unsigned workers;
    unsigned arrived;
    uint64_t second;
    uint64_t in_flight;
    uint64_t errors;
    histogram latency;
} load_live;

/* NULL: out of memory. */
load_live *load_live_new(unsigned workers);
void load_live_free(load_live *self);

/* What one worker did since its last call. Clears `latency`. Any thread. */
void load_live_add(load_live *self, histogram *latency, uint64_t in_flight, uint64_t errors);

/* Takes the line away. No worker runs any more. */
void load_live_erase(load_live *self);

#endif
