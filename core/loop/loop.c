/*
 * The loop: what a tick is, and how loops begin, run and end. Read tick() first; everything that happens in a loop
 * happens in one of its lines.
 */
#include "core/loop/loop.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/probes.h"
#include "core/loop/lag.h"
#include "core/system/fault.h"

/* How often a checked build looks at every link. */
#define VALIDATE_TICKS 256

static _Thread_local tram_loop *running_loop;

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
    return (int64_t)(next - now < TRAM_POLL_LIMIT_NS ? next - now : TRAM_POLL_LIMIT_NS);
}

/* Polls without sleeping for a while, where the user pays CPU time for latency. True: something came. */
static bool spin(tram_loop *loop) {
    uint64_t end = time_after(tram__clock(loop), loop->spin_ns);
    do {
        if (!mailbox_empty(loop->mailbox))
            return true;
        ck_pr_stall();
    } while (tram__clock(loop) < end);
    return false;
}

static void run_batch(tram_loop *loop) {
    while (!list_empty(&loop->batch)) {
        struct ready *ready = (struct ready *)loop->batch.next;
        list_remove(&ready->link);
        ready->run(loop, ready);
    }
}

static void run_mail(tram_loop *loop) {
    struct mailbox *mailbox = loop->mailbox;
    struct mail_batch used = mailbox->used;
    struct mail *mail;
    unsigned count = 0;
    while (count < TRAM_MAIL_PER_TICK && (mail = mailbox_next(mailbox))) {
        if (unlikely(mail->kind->counted))
            tram__mailbox_uncount(mailbox);
        mail->kind->run(loop, mail);
        mail_put_back(mailbox, &used, mail);
        count++;
    }
    if (!mailbox->taken || used.count >= TRAM_MAIL_BATCH) {
        tram__mail_batch_send(mailbox, used);
        used = (struct mail_batch){0};
    }
    mailbox->used = used;
    stats_add(&loop->stats.mails, count);
}

static void run_due(tram_loop *loop) {
    struct timer *timer;
    while ((timer = timers_take(&loop->timers))) {
        struct deadline *deadline = (struct deadline *)(void *)timer;
        deadline->expire(loop, deadline);
    }
}

static void run_deferred_frees(tram_loop *loop) {
    while (unlikely(loop->deferred_frees != NULL)) {
        struct deferred_free *deferred = loop->deferred_frees;
        loop->deferred_frees = deferred->next;
        deferred->dispose(loop, deferred);
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

/*
 * One turn. What runs is decided before anything does: the callbacks queued so far, the events collected, the mail
 * taken and the timers due at this moment, in this order (L-2, L-3); what they queue waits for the next turn, after
 * one more poll (L-5).
 */
static void tick(tram_loop *loop, bool may_block) {
    stats_add(&loop->stats.ticks, 1);
    int64_t timeout_ns = may_block ? wait_time(loop) : 0;
    if (timeout_ns != 0 && loop->spin_ns && spin(loop))
        timeout_ns = 0;
    if (timeout_ns != 0 && !tram__mailbox_sleep(loop->mailbox))
        timeout_ns = 0;
    loop->poller_ops->wait(loop, loop->poller, timeout_ns);
    mailbox_awake(loop->mailbox);
    PROBE1(tick_begin, loop);

    bool measures = loop->measure_lag;
    uint64_t began = measures || loop->timers.count ? tram__clock(loop) : 0;
    loop->in_tick = true;
    list_move_all(&loop->ready, &loop->batch);
    if (!mailbox_empty(loop->mailbox))
        tram__mailbox_take(loop->mailbox);
    if (loop->timers.count)
        tram__timers_begin(&loop->timers, began);

    run_batch(loop);
    loop->poller_ops->serve(loop, loop->poller);
    if (loop->mailbox->taken)
        run_mail(loop);
    run_due(loop);

    if (unlikely(atomic_load_explicit(&loop->mailbox->signals, memory_order_relaxed)))
        loop->on_signals(loop);
    if (loop->on_wake)
        loop->on_wake(loop, loop->on_wake_arg);
    run_deferred_frees(loop);
    loop->raised_set = false;
    loop->in_tick = false;
    if (TRAM_CHECKED && loop->stats.ticks % VALIDATE_TICKS == 0)
        tram__loop_validate(loop);
    if (unlikely(measures))
        end_tick(loop, began);
    PROBE1(tick_end, loop);
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
    if (loop->running || running_loop)
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
        tick(loop, true);
    while (!loop->stopping);
    loop->stopping = false;
    end_running(loop);
    return 0;
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
    tick(loop, false);
    end_running(loop);
    loop->owned = true; /* by the thread that drives it */
    int stopped = loop->stopping;
    loop->stopping = false;
    return stopped;
}

int tram_loop_backend_fd(const tram_loop *loop) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : loop->poller_ops->fd(loop->poller);
}

/* ---- Beginning ---- */

/* A page that fork() wipes in the child tells both that this is a child and whether calls are to be checked. */
static int guard_open(tram_loop *loop) {
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return -errno;
    madvise(page, size, MADV_WIPEONFORK); /* without it (before Linux 4.14) forks go unnoticed */
    loop->guard = page;
    *loop->guard = loop->debug ? GUARD_DEBUG : GUARD_PLAIN;
    return 0;
}

static void guard_close(tram_loop *loop) {
    if (loop->guard)
        munmap((void *)(uintptr_t)loop->guard, (size_t)sysconf(_SC_PAGESIZE));
}

void *tram__loop_slot_open(tram_loop *loop, unsigned slot, size_t size,
                           void (*free)(tram_loop *loop, struct loop_state *state)) {
    struct loop_state *state = loop->slots[slot];
    if (state)
        return state;
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
    if (loop->poller)
        loop->poller_ops->close(loop, loop->poller);
    free_slots(loop);
    tram__timers_fini(&loop->timers);
    const tram_allocator *allocator = &loop->allocator;
    memory_put(allocator, loop->io_slots, loop->io_slot_capacity * sizeof *loop->io_slots);
    memory_put(allocator, loop->descriptors, loop->descriptor_count * sizeof *loop->descriptors);
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
        return TRAM_EVALUE;
    status = tram__mailbox_new(&loop->allocator, loop->sys, (uint32_t)limit, &loop->mailbox);
    if (status)
        return status;
    loop->receive_buffer = memory_get(&loop->allocator, TRAM_RECEIVE_SIZE);
    if (!loop->receive_buffer)
        return -ENOMEM;
    return loop->poller_ops->open(loop, &loop->poller);
}

static uint64_t slow_callback_ns(uint64_t duration_ns) {
    return duration_ns ? duration_ns : TRAM_SLOW_CALLBACK_NS;
}

int tram__loop_create(const tram_loop_options *options, const struct sys *sys, const struct poller_ops *poller_ops,
                      tram_loop **ret_loop) {
    tram_allocator allocator;
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
    loop->spin_ns = options->spin_ns;
    list_init(&loop->ready);
    list_init(&loop->batch);
    list_init(&loop->close_hooks);
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
    if (loop->running)
        return TRAM_ESTATE;
    if (loop->closed)
        return 0;
    loop->closed = true; /* whatever the callbacks below try to schedule is refused */
    loop->closing = true;
    loop->in_tick = true; /* nothing is freed until all is done */
    tram__loop_end_all(loop, IO_SHUTDOWN_NOW);
    tram__mailbox_close(loop->mailbox);
    list_move_all(&loop->ready, &loop->batch);
    run_batch(loop);
    run_deferred_frees(loop);
    loop->in_tick = false;
    loop->closing = false;
    return 0;
}

int tram_loop_free(tram_loop *loop) {
    if (!loop)
        return 0;
    if (*loop->guard != GUARD_FORKED) {
        int status = tram_loop_close(loop);
        if (status)
            return status;
    }
    free_parts(loop);
    return 0;
}

/* ---- The rest ---- */

int tram__deadline_start(tram_loop *loop, struct deadline *deadline, uint64_t when_ns) {
    return tram__timers_start(&loop->timers, &deadline->timer, when_ns);
}

int tram__deadline_start_after(tram_loop *loop, struct deadline *deadline, uint64_t duration_ns) {
    return tram__deadline_start(loop, deadline, time_after(tram__clock(loop), duration_ns));
}

void tram__loop_free_later(tram_loop *loop, struct deferred_free *deferred,
                           void (*dispose)(tram_loop *loop, struct deferred_free *deferred)) {
    if (!loop->in_tick) {
        dispose(loop, deferred);
        return;
    }
    deferred->dispose = dispose;
    deferred->next = loop->deferred_frees;
    loop->deferred_frees = deferred;
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
    return running_loop;
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
    *loop->guard = enabled ? GUARD_DEBUG : GUARD_PLAIN;
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
