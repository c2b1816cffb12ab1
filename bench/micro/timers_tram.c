/* timers.h over tram: call_at and handles. To move a timer is to cancel and start it. */
#include "timers.h"

#include <tram/loop.h>

#include "micro.h"

static tram_loop *loop;
static tram_handle *handles;

void timers_open(uint32_t count) {
    MICRO_CHECK(tram_loop_new(NULL, &loop) == 0);
    handles = calloc(count, sizeof *handles);
}

void timers_close(void) {
    tram_loop_free(loop);
    free(handles);
}

static int begin(tram_loop *of, void *arg) {
    (void)of;
    (*(void (**)(void))arg)();
    return 0;
}

void timers_run(void (*function)(void)) {
    MICRO_CHECK(tram_loop_call_soon(loop, begin, &function, NULL, NULL) == 0);
    MICRO_CHECK(tram_loop_run_forever(loop) == 0);
}

void timers_stop(void) {
    tram_loop_stop(loop);
}

static int fire(tram_loop *of, void *arg) {
    (void)of;
    (void)arg;
    timers_fired();
    return 0;
}

void timer_start(uint32_t timer, uint64_t when_ns) {
    MICRO_CHECK(tram_loop_call_at(loop, when_ns, fire, NULL, NULL, &handles[timer]) == 0);
}

void timer_rearm(uint32_t timer, uint64_t when_ns) {
    timer_stop(timer);
    timer_start(timer, when_ns);
}

void timer_stop(uint32_t timer) {
    MICRO_CHECK(tram_handle_cancel(loop, handles[timer]) == 1);
}

void timers_settle(void) {}
