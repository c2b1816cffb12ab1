/*
 * The loop: what a tick is, and how loops begin, run and end. Read tick() first; everything that happens in a loop
 * happens in one of its lines.
 */
#include "core/loop/loop.h"

#include <errno.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/invalid.h"
#include "core/base/probes.h"
#include "core/loop/lag.h"
#include "core/loop/raised.h"
#include "core/system/fault.h"
#include "core/system/wiped.h"

/* How often a checked build looks at every link. */
#define VALIDATE_TICKS 256

static _Thread_local __attribute__((tls_model("initial-exec"))) tram_loop *running_loop;

/*
 * A child that was forked in a callback inherits what its thread was doing: it runs no loop. This is found out where a
 * child begins to have loops of its own, or lets go of its parent's.
 */
static bool runs_loop(void) {
    if (!running_loop)
        return false;
    if (likely(loop_guard(running_loop) != GUARD_FORKED))
        return true;
    running_loop = NULL;
    tram__mailbox_enter(NULL);
    return false;
}

/* ---- The tick ---- */

/* How long the poller may wait: 0 when something is to be done at once, negative for ever (L-6). */
static int64_t wait_time(const tram_loop *loop) {
    if (!list_empty(&loop->ready) || loop->stopping || !mailbox_empty(loop->mailbox))
        return 0;
    uint64_t next = loop->timers.count ? tram__timers_next(&loop->timers) : UINT64_MAX;
    if (next == UINT64_MAX)
        return -1;
    uint64_t now = loop->tick_ended ? loop->tick_ended : tram__clock(loop);
    if (next <= now)
        return 0;
    return (int64_t)MIN(next - now, TRAM_POLL_LIMIT_NS);
}

/* Mail or a signal that no tick has seen. */
static bool mail_or_signal(const tram_loop *loop) {
    const struct mailbox *mailbox = loop->mailbox;
    return !mailbox_empty(mailbox) || atomic_load_explicit(&mailbox->signals, memory_order_relaxed);
}

/*
 * Looks for something to do without sleeping: at the mailbox all the time, at the descriptors every few microseconds,
 * since that is a system call; until the next timer is due. As the poller's `wait`, which need not be called again
 * where this is not 0. What is left of the time to wait is in *timeout_ns.
 */
__attribute__((noinline)) static int spin(tram_loop *loop, int64_t *timeout_ns) {
    uint64_t limit = spin_limit(&loop->spin);
    if (!limit)
        return 0;
    uint64_t begin = tram__clock(loop), now = begin, polled = begin;
    int count = 0;
    limit = MIN((uint64_t)*timeout_ns, limit); /* what is less than 0 is much */
    while (now - begin < limit) {
        if (mail_or_signal(loop)) {
            *timeout_ns = 0;
            break;
        }
        if (now - polled >= TRAM_SPIN_POLL_NS) {
            count = loop->poller_ops->wait(loop, loop->poller, 0);
            if (count)
                break;
            polled = now;
        }
        ck_pr_stall();
        now = tram__clock(loop);
    }
    spin_spend(&loop->spin, now - begin);
    if (*timeout_ns > 0)
        *timeout_ns -= MIN(*timeout_ns, (int64_t)(now - begin));
    return count;
}

/* For hosts with one big lock: others may have it while we sleep. */
__attribute__((noinline)) static int wait_between_hooks(tram_loop *loop, int64_t timeout_ns) {
    if (loop->before_wait)
        loop->before_wait(loop, loop->wait_arg);
    int count = loop->poller_ops->wait(loop, loop->poller, timeout_ns);
    if (loop->after_wait)
        loop->after_wait(loop, loop->wait_arg);
    return count;
}

/* Collects the events, and waits for the first if nothing else is to be done. As the poller's `wait`. */
static int await_events(tram_loop *loop, int64_t timeout_ns) {
    int count = timeout_ns != 0 && loop->spin.budget_ns ? spin(loop, &timeout_ns) : 0;
    if (count)
        return count;
    if (timeout_ns != 0 && !tram__mailbox_sleep(loop->mailbox))
        timeout_ns = 0;
    if (unlikely(timeout_ns != 0 && loop->waits))
        count = wait_between_hooks(loop, timeout_ns);
    else
        count = loop->poller_ops->wait(loop, loop->poller, timeout_ns);
    mailbox_awake(loop->mailbox);
    return count;
}

static void run_batch(tram_loop *loop) {
    while (!list_empty(&loop->batch)) {
        struct ready *ready = (struct ready *)loop->batch.next;
        __builtin_prefetch(ready->link.next);
        list_remove(&ready->link);
        ready->run(loop, ready);
    }
    mailbox_send_requests(loop->mailbox);
}

__attribute__((noinline)) static void take_signals(tram_loop *loop) {
    uint64_t came = atomic_exchange(&loop->mailbox->signals, 0);
    if (came & MAILBOX_CONTROL && loop->on_control)
        loop->on_control(loop, loop->worker);
    came &= ~MAILBOX_CONTROL;
    if (came)
        loop->on_signals(loop, came);
}

static void run_due(tram_loop *loop) {
    struct timer *timer;
    if (!loop->timers.now)
        return; /* there was none when this tick began */
    while ((timer = timers_take(&loop->timers))) {
        struct deadline *deadline = (struct deadline *)(void *)timer;
        deadline->expire(loop, deadline);
    }
    *loop->turn = 0;
}

/* The oldest first: what a transport let go of is released before the transport's own memory goes. */
static void run_deferred_frees(tram_loop *loop) {
    struct deferred_free *deferred;
    while (unlikely((deferred = loop->deferred_frees) != NULL)) {
        struct deferred_free *next;
        loop->deferred_frees = NULL;
        loop->deferred_last = &loop->deferred_frees;
        for (; deferred; deferred = next) {
            next = deferred->next;
            deferred->dispose(loop, deferred);
        }
    }
}

/* With measure_lag. The next tick, which follows at once, need not read the clock to know how long it may wait. */
static void end_tick(tram_loop *loop, uint64_t began) {
    loop->tick_ended = tram__clock(loop);
    uint64_t lag_ns = loop->tick_ended - began;
    tram__lag_add(&loop->lag, lag_ns);
    if (unlikely(lag_ns >= loop->slow_callback_ns))
        stats_add(&loop->stats.slow_ticks, 1);
}

/* A loop that cannot wait cannot run: somebody has closed the descriptor by which it does. */
__attribute__((noinline)) static void report_wait(tram_loop *loop, int code) {
    tram_error error = {.code = code, .operation = "epoll_wait"};
    tram_exception exception = {.message = "the loop cannot wait for events", .error = &error, .fd = -1};
    tram__report(loop, &exception);
}

/*
 * One turn. What runs is decided before anything does: the callbacks queued so far, the mail that is there, the events
 * collected and the timers due at this moment, in this order (L-2, L-3); what they queue waits for the next turn, after
 * one more poll (L-5). 0, or why the loop could not wait.
 */
static int tick(tram_loop *loop, bool may_block) {
    if (unlikely(loop_guard(loop) == GUARD_FORKED))
        return -ECHILD; /* a callback forked, and its child came back: the descriptors are the parent's, too */
    stats_add(&loop->stats.ticks, 1);
    int status = await_events(loop, may_block ? wait_time(loop) : 0);
    PROBE1(tick_begin, loop);

    bool measures = loop->measure_lag;
    uint64_t began = measures || loop->timers.count ? tram__clock(loop) : 0;
    loop->in_tick = true;
    list_move_all(&loop->ready, &loop->batch);
    uint32_t mail = mailbox_empty(loop->mailbox) ? 0 : tram__loop_plan_mail(loop);
    if (loop->timers.count) {
        tram__timers_begin(&loop->timers, began);
        *loop->turn = loop->debug ? 0 : began | LOOP_TURN;
    }

    if (unlikely(status < 0))
        report_wait(loop, status);
    run_batch(loop);
    if (mail)
        tram__loop_run_mail(loop, mail);
    loop->poller_ops->serve(loop, loop->poller);
    run_due(loop);

    if (unlikely(atomic_load_explicit(&loop->mailbox->signals, memory_order_relaxed)))
        take_signals(loop);
    if (loop->on_wake)
        loop->on_wake(loop, loop->worker);
    run_deferred_frees(loop);
    mailbox_send_requests(loop->mailbox);
    loop->raised_set = false;
    loop->in_tick = false;
    if (TRAM_CHECKED && loop->stats.ticks % VALIDATE_TICKS == 0)
        tram__loop_validate(loop);
    if (unlikely(measures))
        end_tick(loop, began);
    PROBE1(tick_end, loop);
    return MIN(status, 0);
}

void tram__loop_validate(const tram_loop *loop) {
    list_validate(&loop->ready);
    list_validate(&loop->batch);
    list_validate(&loop->close_hooks);
    tram__timers_validate(&loop->timers);
    tram__loop_validate_ios(loop);
    tram__loop_validate_calls(loop);
    for (unsigned slot = 0; slot < LOOP_SLOT_COUNT; slot++)
        if (loop->slots[slot] && loop->slots[slot]->validate)
            loop->slots[slot]->validate(loop->slots[slot]);
}

/* ---- Running ---- */

static int begin_running(tram_loop *loop, const char *function) {
    int status = loop_enter_open(loop, function);
    if (status)
        return status;
    if (loop->running || runs_loop())
        return TRAM_ESTATE;
    loop->running = true;
    loop->owner = pthread_self();
    loop->owned = true;
    running_loop = loop;
    tram__mailbox_enter(loop->mailbox);
    return 0;
}

static void end_running(tram_loop *loop) {
    loop->running = false;
    loop->tick_ended = 0; /* time passes from here */
    loop->owned = false;
    running_loop = NULL;
    tram__mailbox_enter(NULL);
}

int tram_loop_run_forever(tram_loop *loop) {
    int status = begin_running(loop, __func__);
    if (status)
        return status;
    do
        status = tick(loop, true);
    while (!loop->stopping && likely(!status));
    loop->stopping = false;
    end_running(loop);
    return status;
}

int tram_loop_stop(tram_loop *loop) {
    int status = loop_enter_open(loop, __func__);
    if (!status)
        loop->stopping = true;
    return status;
}

int tram_loop_prepare(tram_loop *loop, uint64_t *ret_timeout_ns) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    loop->owner = pthread_self();
    loop->owned = true;
    int64_t timeout_ns = wait_time(loop);
    if (timeout_ns != 0 && !tram__mailbox_sleep(loop->mailbox))
        timeout_ns = 0;
    *ret_timeout_ns = timeout_ns < 0 ? TRAM_FOREVER : (uint64_t)timeout_ns;
    return 0;
}

int tram_loop_dispatch(tram_loop *loop) {
    int status = begin_running(loop, __func__);
    if (status)
        return status;
    status = tick(loop, false);
    end_running(loop);
    loop->owned = true; /* by the thread that drives it */
    int stopped = loop->stopping;
    loop->stopping = false;
    return status ? status : stopped;
}

int tram_loop_backend_fd(const tram_loop *loop) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : loop->poller_ops->fd(loop->poller);
}

/* ---- Beginning ---- */

static void guard_set(tram_loop *loop) {
    enum guard guard = loop->closed ? GUARD_CLOSED : loop->debug ? GUARD_DEBUG : GUARD_PLAIN;
    atomic_store_explicit(loop->guard, guard, memory_order_relaxed);
}

/* A page that fork() wipes in the child tells both that this is a child and whether calls are to be checked. */
static int guard_open(tram_loop *loop) {
    char *page = tram__wiped_new(LOOP_TURN_OFFSET + sizeof *loop->turn);
    if (!page)
        return -errno;
    loop->guard = (_Atomic unsigned char *)page;
    loop->turn = (uint64_t *)(void *)(page + LOOP_TURN_OFFSET);
    guard_set(loop);
    return 0;
}

static void guard_close(tram_loop *loop) {
    tram__wiped_free((void *)(uintptr_t)loop->guard, LOOP_TURN_OFFSET + sizeof *loop->turn);
}

/* In a forked child: what was posted is its parent's to run or to discard, and only the nodes are given back. */
static void forget_mail(struct mailbox *mailbox) {
    mailbox_send_requests(mailbox);
    mailbox_send_replies(mailbox);
    do {
        while (mailbox->taken) {
            struct mail *mail = mailbox_next(mailbox);
            if (mail->kind->flags & MAIL_PART)
                mail->kind->discard(mail);
            else
                mail_put_back(mailbox, &mailbox->used, mail);
        }
        mailbox->unplanned = 0;
        tram__mailbox_plan(mailbox, 0); /* takes what is in the inbox */
    } while (mailbox->taken);
    tram__mail_batch_send(mailbox, &mailbox->used);
}

void *tram__loop_slot_open(tram_loop *loop, unsigned slot, size_t size,
                           void (*free)(tram_loop *loop, struct loop_state *state)) {
    struct loop_state *state = loop->slots[slot];
    if (state) {
        TRAM_ASSERT(state->size == size && state->free == free); /* no slot has two owners */
        return state;
    }
    state = tram__memory_get_zero(&loop->allocator, size);
    if (!state)
        return NULL;
    *state = (struct loop_state){.free = free, .size = size};
    return loop->slots[slot] = state;
}

static void free_slots(tram_loop *loop) {
    for (unsigned slot = LOOP_SLOT_COUNT; slot-- > 0;) {
        struct loop_state *state = loop->slots[slot];
        if (state && state->free)
            state->free(loop, state);
        if (state)
            memory_put(&loop->allocator, state, state->size);
    }
}

static void free_parts(tram_loop *loop) {
    tram__raised_fini(loop);
    if (loop->poller)
        loop->poller_ops->close(loop, loop->poller);
    free_slots(loop);
    tram__calls_free(loop); /* in a forked child, where nothing was closed */
    tram__timers_fini(&loop->timers);
    const tram_allocator *allocator = &loop->allocator;
    tram__slots_fini(&loop->io_slots, &io_slots_layout, allocator);
    tram__loop_free_descriptors(loop);
    memory_put(allocator, loop->receive_buffer, TRAM_RECEIVE_SIZE);
    if (loop->mailbox)
        tram__mailbox_abandon(loop->mailbox);
    guard_close(loop);
    tram_allocator copy = loop->allocator;
    memory_put(&copy, loop, sizeof *loop);
}

static int open_parts(tram_loop *loop, const tram_loop_options *options) {
    int status = guard_open(loop);
    if (status)
        return status;
    size_t limit = options->mailbox_limit ? options->mailbox_limit : TRAM_MAILBOX_LIMIT;
    if (limit > INT32_MAX)
        return tram__invalid("mailbox_limit");
    status = tram__mailbox_new(&loop->allocator, loop->sys, (uint32_t)limit, &loop->mailbox);
    if (status)
        return status;
    loop->receive_buffer = memory_get(&loop->allocator, TRAM_RECEIVE_SIZE);
    if (!loop->receive_buffer)
        return -ENOMEM;
    status = tram__slots_grow(&loop->io_slots, &io_slots_layout, &loop->allocator); /* slot 0 is the mailbox's */
    if (status)
        return status;
    return loop->poller_ops->open(loop, &loop->poller);
}

static uint64_t slow_callback_ns(uint64_t duration_ns) {
    return duration_ns ? duration_ns : TRAM_SLOW_CALLBACK_NS;
}

int tram__loop_create(const tram_loop_options *options, const struct sys *sys, const struct poller_ops *poller_ops,
                      tram_loop **ret_loop) {
    tram_allocator allocator;
    runs_loop();
    int status = tram__faults_allocator(options, &allocator);
    if (status)
        return status;
    tram_loop *loop = tram__memory_get_zero(&allocator, sizeof *loop);
    if (!loop)
        return -ENOMEM;
    loop->allocator = allocator;
    loop->sys = sys;
    loop->poller_ops = poller_ops;
    loop->debug = options->debug;
    loop->time_callbacks = options->time_callbacks;
    loop->timed = loop->debug || loop->time_callbacks;
    loop->measure_lag = options->measure_lag;
    loop->log = options->log;
    loop->log_arg = options->log_arg;
    loop->slow_callback_ns = slow_callback_ns(options->slow_callback_ns);
    spin_init(&loop->spin, options->spin_ns, !options->before_wait && !options->after_wait);
    loop->before_wait = options->before_wait;
    loop->after_wait = options->after_wait;
    loop->wait_arg = options->wait_arg;
    loop->waits = loop->before_wait || loop->after_wait;
    loop->mail_limit = TRAM_MAIL_PER_TICK;
    list_init(&loop->ready);
    list_init(&loop->batch);
    list_init(&loop->close_hooks);
    loop->deferred_last = &loop->deferred_frees;
    tram__timers_init(&loop->timers, &loop->allocator, tram__clock(loop));
    status = open_parts(loop, options);
    if (status)
        free_parts(loop);
    else
        *ret_loop = loop;
    return status;
}

/* ---- Ending ---- */

int tram_loop_close(tram_loop *loop) {
    int status = loop_enter(loop, __func__);
    if (status)
        return status;
    if (loop->running || loop->closing || loop->in_callouts || loop->in_exception_handler)
        return TRAM_ESTATE;
    if (loop->closed)
        return 0;
    loop->closed = true; /* whatever the callbacks below try to schedule is refused */
    guard_set(loop);
    loop->closing = true;
    loop->in_tick = true; /* nothing is freed until all is done */
    tram__loop_end_all(loop, IO_SHUTDOWN_NOW);
    tram__mailbox_close(loop->mailbox);
    while (!list_empty(&loop->ready) || loop->deferred_frees) {
        list_move_all(&loop->ready, &loop->batch);
        run_batch(loop);
        run_deferred_frees(loop);
    }
    tram__log_flush(loop);
    loop->in_tick = false;
    loop->closing = false;
    return 0;
}

int tram_loop_free(tram_loop *loop) {
    if (!loop)
        return 0;
    if (loop_guard(loop) != GUARD_FORKED) {
        int status = tram_loop_close(loop);
        if (status)
            return status;
        run_deferred_frees(loop); /* what was let go of since */
    } else {
        runs_loop();
        forget_mail(loop->mailbox);
    }
    free_parts(loop);
    return 0;
}

/* ---- The rest ---- */

void tram__loop_free_later(tram_loop *loop, struct deferred_free *deferred,
                           void (*dispose)(tram_loop *loop, struct deferred_free *deferred)) {
    deferred->dispose = dispose;
    deferred->next = NULL;
    *loop->deferred_last = deferred;
    loop->deferred_last = &deferred->next;
}

void tram_loop_stats(const tram_loop *loop, tram_stats *ret_stats) {
    const uint64_t *from = (const uint64_t *)&loop->stats;
    uint64_t *to = (uint64_t *)ret_stats;
    for (size_t i = 0; i < sizeof *ret_stats / sizeof *to; i++)
        to[i] = stats_read(&from[i]);
}

bool tram_loop_lag(const tram_loop *loop, tram_lag *ret_lag) {
    tram__lag_read(&loop->lag, ret_lag);
    return loop->measure_lag;
}

size_t tram_loop_slow_sites(const tram_loop *loop, tram_slow_site *ret_sites, size_t count) {
    return tram__slow_sites_read(&loop->slow_sites, ret_sites, count);
}

uint64_t tram_loop_time(const tram_loop *loop) {
    return tram__clock(loop);
}

bool tram_loop_is_running(const tram_loop *loop) {
    return loop->running;
}

bool tram_loop_is_closed(const tram_loop *loop) {
    return loop->closed;
}

tram_loop *tram_loop_running(void) {
    return runs_loop() ? running_loop : NULL;
}

const char *tram_loop_backend_name(const tram_loop *loop) {
    return loop->poller_ops->name;
}

int tram_loop_set_debug(tram_loop *loop, bool enabled) {
    int status = loop_enter(loop, __func__);
    if (status)
        return status;
    loop->debug = enabled;
    loop->timed = enabled || loop->time_callbacks;
    *loop->turn = 0;
    guard_set(loop);
    return 0;
}

bool tram_loop_get_debug(const tram_loop *loop) {
    return loop->debug;
}

int tram_loop_set_slow_callback_duration(tram_loop *loop, uint64_t duration_ns) {
    int status = loop_enter(loop, __func__);
    if (!status)
        loop->slow_callback_ns = slow_callback_ns(duration_ns);
    return status;
}
