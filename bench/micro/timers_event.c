/* timers.h over libevent: microseconds from the base's cached time. */
#include "timers.h"

#include <event2/event.h>
#include <event2/event_struct.h>

#include "micro.h"

static struct event_base *base;
static struct event *timers;
static struct event *first;
static uint64_t now_ns; /* when timers_run() began */

static void fire(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    (void)arg;
    timers_fired();
}

static void begin(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    (*(void (**)(void))arg)();
}

void timers_open(uint32_t count) {
    base = event_base_new();
    MICRO_CHECK(base);
    timers = calloc(count, sizeof *timers);
    for (uint32_t i = 0; i < count; i++)
        evtimer_assign(&timers[i], base, fire, NULL);
}

void timers_close(void) {
    event_base_free(base);
    free(timers);
}

void timers_run(void (*function)(void)) {
    now_ns = micro_now();
    first = evtimer_new(base, begin, &function);
    event_active(first, EV_TIMEOUT, 0);
    event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
    event_free(first);
}

void timers_stop(void) {
    event_base_loopbreak(base);
}

void timer_start(uint32_t timer, uint64_t when_ns) {
    uint64_t delay_ns = when_ns > now_ns ? when_ns - now_ns : 0;
    struct timeval delay = {.tv_sec = (time_t)(delay_ns / 1000000000), .tv_usec = (long)(delay_ns % 1000000000 / 1000)};
    evtimer_add(&timers[timer], &delay);
}

void timer_rearm(uint32_t timer, uint64_t when_ns) {
    timer_start(timer, when_ns);
}

void timer_stop(uint32_t timer) {
    evtimer_del(&timers[timer]);
}

void timers_settle(void) {}
