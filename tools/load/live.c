#include "load/live.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

load_live *load_live_new(unsigned workers) {
    load_live *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        return NULL;
    }
    pthread_mutex_init(&self->mutex, NULL);
    self->workers = workers;
    return self;
}

void load_live_free(load_live *self) {
    if (self != NULL) {
        pthread_mutex_destroy(&self->mutex);
        free(self);
    }
}

static void draw(load_live *self) {
    const histogram *latency = &self->latency;
    self->second++;
    fprintf(stderr, "\r\033[K%4" PRIu64 " s  %" PRIu64 " requests/s  in flight %" PRIu64, self->second, latency->count,
            self->in_flight);
    fprintf(stderr, "  p50 %.3f ms  p99 %.3f ms  errors %" PRIu64, (double)histogram_percentile(latency, 50) / 1e6,
            (double)histogram_percentile(latency, 99) / 1e6, self->errors);
    fflush(stderr);
    histogram_clear(&self->latency);
    self->arrived = 0;
    self->in_flight = 0;
    self->errors = 0;
}

void load_live_add(load_live *self, histogram *latency, uint64_t in_flight, uint64_t errors) {
    pthread_mutex_lock(&self->mutex);
    histogram_add(&self->latency, latency);
    self->in_flight += in_flight;
    self->errors += errors;
    self->arrived++;
    if (self->arrived == self->workers) {
        draw(self);
    }
    pthread_mutex_unlock(&self->mutex);
    histogram_clear(latency);
}

void load_live_erase(load_live *self) {
    if (self->second > 0) {
        fprintf(stderr, "\r\033[K");
    }
}
