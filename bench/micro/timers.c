/*
 * Measures timers, over whatever library is linked with it (timers.h).
 *
 *     timers-NAME LIVE
 *
 * tells ns per operation with LIVE timers pending: start (from none to LIVE), rearm (one of them, at random), pair (one
 * more is started and cancelled), cancel (all, in random order), fire (LIVE timers whose time passed while the program
 * slept). Deadlines are random within a minute, those that fire within a second or, few, within 10 ms.
 */
#include "timers.h"

#include <time.h>

#include "micro.h"

#define SECOND 1000000000ull
#define FEW    10000u

static uint32_t live;
static uint64_t seed = 88172645463325252u;
static uint32_t *order;
static uint64_t *times;

static uint64_t random_time(void) {
    return micro_now() + 10 * SECOND + micro_random(&seed) % (60 * SECOND);
}

/* Prepared beforehand, so that neither clock nor random numbers are measured. */
static void prepare(uint32_t count) {
    uint64_t now = micro_now();
    for (uint32_t i = 0; i < count; i++)
        times[i] = now + 10 * SECOND + micro_random(&seed) % (60 * SECOND);
}

static void shuffle(void) {
    for (uint32_t i = 0; i < live; i++)
        order[i] = i;
    for (uint32_t i = live; i > 1; i--) {
        uint32_t j = (uint32_t)(micro_random(&seed) % i), kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

/* ---- Setting ---- */

static double start_ns, rearm_ns, pair_ns, cancel_ns, fire_ns;

/* Few timers are measured often. */
static uint32_t repetitions(void) {
    return live < FEW ? 200000 / live : 1;
}

static double per_operation(uint64_t begin_ns, uint64_t count) {
    return (double)(micro_now() - begin_ns) / (double)count;
}

static void settle_sometimes(uint32_t i) {
    if (i % 1024 == 1023)
        timers_settle();
}

static double start_all(void) {
    prepare(live);
    uint64_t begin_ns = micro_now();
    for (uint32_t i = 0; i < live; i++)
        timer_start(i, times[i]);
    return per_operation(begin_ns, live);
}

static double cancel_all(void) {
    shuffle();
    uint64_t begin_ns = micro_now();
    for (uint32_t i = 0; i < live; i++) {
        timer_stop(order[i]);
        settle_sometimes(i);
    }
    timers_settle();
    return per_operation(begin_ns, live);
}

static double rearm_random(void) {
    prepare(live);
    shuffle();
    uint64_t begin_ns = micro_now();
    for (uint32_t i = 0; i < live; i++) {
        timer_rearm(order[i], times[i]);
        settle_sometimes(i);
    }
    timers_settle();
    return per_operation(begin_ns, live);
}

static double start_and_cancel(void) {
    uint32_t count = 200000;
    uint64_t begin_ns = micro_now(), when = random_time();
    for (uint32_t i = 0; i < count; i++) {
        timer_start(live, when + i * 4096);
        timer_stop(live);
        settle_sometimes(i);
    }
    timers_settle();
    return per_operation(begin_ns, count);
}

static void set(void) {
    uint32_t times_each = repetitions();
    for (uint32_t i = 0; i < times_each; i++) {
        start_ns += start_all() / times_each;
        if (i == 0)
            pair_ns = start_and_cancel();
        rearm_ns += rearm_random() / times_each;
        cancel_ns += cancel_all() / times_each;
    }
    timers_stop();
}

/* ---- Firing ---- */

static uint32_t fired;

void timers_fired(void) {
    if (++fired == live)
        timers_stop();
}

static uint64_t all_due_ns;

static void set_to_fire(void) {
    uint64_t begin_ns = micro_now(), within = live < FEW ? SECOND / 100 : SECOND;
    uint64_t first_ns = begin_ns + (live < FEW ? SECOND / 100 : SECOND * 3 / 2);
    for (uint32_t i = 0; i < live; i++)
        timer_start(i, first_ns + micro_random(&seed) % within);
    all_due_ns = first_ns + within + 2000000;
    MICRO_CHECK(micro_now() < first_ns);
    timers_stop();
}

static void nothing(void) {}

static double fire_all(void) {
    fired = 0;
    timers_run(set_to_fire);
    struct timespec until = {.tv_sec = (time_t)(all_due_ns / SECOND), .tv_nsec = (long)(all_due_ns % SECOND)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    uint64_t begin_ns = micro_now();
    timers_run(nothing);
    double took = per_operation(begin_ns, live);
    MICRO_CHECK(fired == live);
    return took;
}

int main(int count, char **arguments) {
    live = count == 2 ? (uint32_t)strtoul(arguments[1], NULL, 10) : 0;
    if (!live) {
        fprintf(stderr, "usage: %s LIVE\n", arguments[0]);
        return 2;
    }
    micro_pin(1);
    order = malloc(live * sizeof *order);
    times = malloc(live * sizeof *times);
    timers_open(live + 1);
    timers_run(set);
    uint32_t times_each = live < FEW ? 20 : 1;
    for (uint32_t i = 0; i < times_each; i++)
        fire_ns += fire_all() / times_each;
    timers_close();
    micro_tell("start", start_ns);
    micro_tell("rearm", rearm_ns);
    micro_tell("cancel", cancel_ns);
    micro_tell("fire", fire_ns);
    micro_tell("pair", pair_ns);
    return 0;
}
