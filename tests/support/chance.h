/* Chance for stress tests, by thread, and the delays between atomic steps that it decides about. */
#ifndef TRAM_TESTS_SUPPORT_CHANCE_H
#define TRAM_TESTS_SUPPORT_CHANCE_H

#include <sched.h>
#include <stdint.h>
#include <time.h>

/* Set it when a thread begins, to another number in each. */
static _Thread_local uint64_t dice_state;

static inline uint32_t dice(uint32_t sides) {
    dice_state = dice_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(dice_state >> 33) % sides;
}

/* For tram__between_steps, which checked builds have. */
static inline void hold_up(void) {
    switch (dice(64)) {
    case 0:
        sched_yield();
        break;
    case 1:
        nanosleep(&(struct timespec){.tv_nsec = dice(20000)}, NULL);
        break;
    default:
        break;
    }
}

#endif
