/*
 * What each library must offer so that timers.c can measure its timers. All calls come from the one thread, those that
 * set timers from within timers_run(), as a program would: some libraries keep the time only there.
 */
#ifndef TRAM_BENCH_TIMERS_H
#define TRAM_BENCH_TIMERS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Room for timers 0 to count - 1. */
void timers_open(uint32_t count);
void timers_close(void);

/* Runs the loop until timers_stop(); calls `function` once, first. */
void timers_run(void (*function)(void));
void timers_stop(void);

/* Starts a timer that is not pending, moves or cancels one that is. Times are on CLOCK_MONOTONIC. When one is due,
 * timers_fired() is called. */
void timer_start(uint32_t timer, uint64_t when_ns);
void timer_rearm(uint32_t timer, uint64_t when_ns);
void timer_stop(uint32_t timer);

/* After at most some thousand of the above: lets the library do what it left for later. */
void timers_settle(void);

/* In timers.c. */
void timers_fired(void);

#ifdef __cplusplus
}
#endif

#endif
