#include "transports/base/timer.h"

#include <errno.h>

#include "core/loop/loop.h"
#include "transports/base/entering.h"
#include "transports/base/transport.h"

static tram_transport *transport_of(struct transport_timer *timer) {
    return container_of(timer, struct transport_more, timer)->transport;
}

/* A time of the loop's clock. */
static uint64_t clock_time(uint64_t time) {
    return time & ~LOOP_TURN;
}

/* 0 or -ENOMEM. */
static int arm(tram_loop *loop, struct transport_timer *timer) {
    timer->armed = timer->when;
    int status = tram__deadline_start(loop, &timer->deadline, clock_time(timer->when));
    if (unlikely(status))
        timer->armed = TIMER_NOT_ARMED;
    return status;
}

/* A callback that fails ends its connection, as a failing data_received does. */
static void call(tram_loop *loop, struct transport_timer *timer) {
    tram_transport *transport = transport_of(timer);
    tram_transport_timeout callback = timer->callback;
    if (!callback) {
        tram__transport_fatal(transport, -ETIMEDOUT, "timer", NULL);
        return;
    }
    uint64_t start = slow_begin(loop);
    int status = callback(transport, timer->arg);
    slow_end(loop, start, (const void *)(uintptr_t)callback, "timer of a transport");
    if (unlikely(status < 0))
        tram__transport_fail(transport, tram__protocol_timer_failed(transport, status));
}

static void expired(tram_loop *loop, struct deadline *deadline) {
    struct transport_timer *timer = container_of(deadline, struct transport_timer, deadline);
    timer->armed = TIMER_NOT_ARMED;
    if (clock_time(timer->when) <= loop->timers.now) {
        call(loop, timer);
        return;
    }
    int status = arm(loop, timer);
    if (unlikely(status))
        tram__transport_fatal(transport_of(timer), status, "timer", NULL);
}

/* The first time, an earlier time, none at all, and whatever comes outside of a tick. */
__attribute__((noinline)) static int set_timer(tram_transport *transport, uint64_t delay_ns,
                                               tram_transport_timeout callback, void *arg) {
    tram_loop *loop = loop_of(transport);
    int status = enter(transport, "tram_transport_call_later");
    if (unlikely(status))
        return status;
    if (transport->flags & T_LOST_PENDING)
        return TRAM_ESTATE;
    status = tram__transport_need_more(transport);
    if (unlikely(status))
        return status;
    struct transport_timer *timer = &transport->more->timer;
    uint64_t now = likely(loop->timers.now) ? loop->timers.now : tram__clock(loop);
    transport_timer_cancel(loop, timer);
    timer->turn = loop->turn;
    timer->callback = callback;
    timer->arg = arg;
    timer->deadline.expire = expired;
    if (delay_ns >= LOOP_TURN - now)
        return 0; /* it never comes */
    timer->when = time_after(now, delay_ns) | LOOP_TURN;
    return arm(loop, timer);
}

/* Once per message: counted in instructions (bench/counts). Of what speaks against the short way, all makes `when`
 * early. */
int tram_transport_call_later(tram_transport *transport, uint64_t delay, tram_transport_timeout callback, void *arg) {
    struct transport_more *more = transport->more;
    if (unlikely(!more || delay >= LOOP_TURN))
        return set_timer(transport, delay, callback, arg);
    uint64_t when = *more->timer.turn + delay; /* a sum beyond 2^64 is early, too */
    if (unlikely(when < more->timer.armed))
        return set_timer(transport, delay, callback, arg);
    more->timer.when = when;
    more->timer.callback = callback;
    more->timer.arg = arg;
    return 0;
}
