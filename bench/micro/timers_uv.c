/* timers.h over libuv: whole milliseconds from the loop's time. */
#include "timers.h"

#include <uv.h>

#include "micro.h"

static uv_loop_t loop;
static uv_timer_t *timers;
static uint32_t timer_count;
static uv_idle_t idle;

void timers_open(uint32_t count) {
    MICRO_CHECK(uv_loop_init(&loop) == 0);
    timers = calloc(count, sizeof *timers);
    timer_count = count;
    for (uint32_t i = 0; i < count; i++)
        uv_timer_init(&loop, &timers[i]);
    uv_idle_init(&loop, &idle);
}

void timers_close(void) {
    for (uint32_t i = 0; i < timer_count; i++)
        uv_close((uv_handle_t *)&timers[i], NULL);
    uv_close((uv_handle_t *)&idle, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    free(timers);
}

static void begin(uv_idle_t *handle) {
    uv_idle_stop(handle);
    ((void (*)(void))handle->data)();
}

void timers_run(void (*function)(void)) {
    idle.data = (void *)(uintptr_t)function;
    uv_update_time(&loop);
    uv_idle_start(&idle, begin);
    uv_run(&loop, UV_RUN_DEFAULT);
}

void timers_stop(void) {
    uv_stop(&loop);
}

static void fire(uv_timer_t *timer) {
    (void)timer;
    timers_fired();
}

void timer_start(uint32_t timer, uint64_t when_ns) {
    uint64_t when_ms = when_ns / 1000000, now_ms = uv_now(&loop);
    uv_timer_start(&timers[timer], fire, when_ms > now_ms ? when_ms - now_ms : 0, 0);
}

void timer_rearm(uint32_t timer, uint64_t when_ns) {
    timer_start(timer, when_ns);
}

void timer_stop(uint32_t timer) {
    uv_timer_stop(&timers[timer]);
}

void timers_settle(void) {}
