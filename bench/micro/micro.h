/* What the small measuring programs of bench/micro share: a clock, pinning, random numbers, lines of results. */
#ifndef TRAM_BENCH_MICRO_H
#define TRAM_BENCH_MICRO_H

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* A failure that makes the figures worthless. */
#define MICRO_CHECK(condition)                                                                                         \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static inline uint64_t micro_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* CPU time of the thread, where nothing waits: what others do on the machine does not count. */
static inline uint64_t micro_cpu_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The CPU of that number among those that the process may use. Too few of them: all. First called by the first thread.
 */
static inline cpu_set_t micro_cpu(unsigned number) {
    static cpu_set_t allowed;
    if (!CPU_COUNT(&allowed) && sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        CPU_SET(0, &allowed);
    cpu_set_t one;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || number-- > 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        return one;
    }
    return allowed;
}

/* Keeps the calling thread on it. */
static inline void micro_pin(unsigned number) {
    cpu_set_t one = micro_cpu(number);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

/* Starts a thread that is on its CPU from the beginning: it must not wait for its creator to leave another. */
static inline pthread_t micro_thread(unsigned number, void *(*function)(void *), void *arg) {
    cpu_set_t one = micro_cpu(number);
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setaffinity_np(&attributes, sizeof one, &one);
    if (pthread_create(&thread, &attributes, function, arg) != 0)
        abort();
    pthread_attr_destroy(&attributes);
    return thread;
}

/* xorshift64*: the same sequence for every program. */
static inline uint64_t micro_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

/*
 * Time in slices of equal work, of which the median counts: what another process does to a few of them is no matter.
 * Call micro_slice() after each; the first call begins.
 */
#define MICRO_SLICES 50

struct micro_slices {
    uint64_t last_ns;
    unsigned count; /* of calls */
    uint64_t took_ns[MICRO_SLICES];
};

static inline void micro_slice(struct micro_slices *slices) {
    uint64_t now = micro_now();
    if (slices->count > 0 && slices->count <= MICRO_SLICES)
        slices->took_ns[slices->count - 1] = now - slices->last_ns;
    slices->last_ns = now;
    slices->count++;
}

static inline int micro_compare(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static inline double micro_median(struct micro_slices *slices) {
    MICRO_CHECK(slices->count > MICRO_SLICES);
    qsort(slices->took_ns, MICRO_SLICES, sizeof slices->took_ns[0], micro_compare);
    return (double)(slices->took_ns[MICRO_SLICES / 2 - 1] + slices->took_ns[MICRO_SLICES / 2]) / 2;
}

/* One figure, for the driver to read. */
static inline void micro_tell(const char *name, double value) {
    printf("%s %.4f\n", name, value);
    fflush(stdout);
}

#endif
