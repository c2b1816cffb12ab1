/*
 * What call_soon, call_later and call_at make: a record in a slot (slots.h), which is given back when the callback runs
 * or is cancelled, so a handle kept too long names nothing.
 */
#include <errno.h>

#include "core/loop/handles.h"

#include "core/base/invalid.h"

/* Marks. */
#define IS_TIMER      1u
#define HAS_DISCARD   2u /* see call_discard() */
#define WAS_CANCELLED 4u /* how the call before this one ended */

static inline bool is_timer(const struct call *call) {
    return call->on.deadline.timer.mark & IS_TIMER;
}

static inline void call_mark(struct call *call, unsigned mark) {
    call->on.deadline.timer.mark = mark & 63u;
}

static inline tram_discard *call_discard(const tram_loop *loop, uint32_t slot) {
    return slots_beside(&loop->calls, &calls_layout, slot);
}

static inline tram_handle handle_of(const struct call *call) {
    return (tram_handle){call->slot.number, call->slot.generation};
}

static void calls_ending(struct close_hook *hook, enum shutdown_mode ending);

static int grow_calls(tram_loop *loop) {
    bool first = !slots_count(&loop->calls);
    int status = tram__slots_grow(&loop->calls, &calls_layout, &loop->allocator);
    if (!status && first)
        loop_add_close_hook(loop, &loop->calls_hook, calls_ending);
    return status;
}

/* A call with these marks; the caller sets what `on` holds besides. */
static struct call *call_new(tram_loop *loop, unsigned mark, tram_callback callback, void *arg, tram_discard discard) {
    _Static_assert(sizeof(struct call) == 64, "a call is a cache line");
    if (unlikely(!loop->calls.free) && grow_calls(loop) < 0)
        return NULL;
    struct call *call = slots_take(&loop->calls, &calls_layout);
    call->callback = callback;
    call->arg = arg;
    call_mark(call, (call->on.deadline.timer.mark & WAS_CANCELLED) | mark | (discard ? HAS_DISCARD : 0));
    if (unlikely(discard != NULL))
        *call_discard(loop, call->slot.number) = discard;
    return call;
}

static void call_end(tram_loop *loop, struct call *call, bool cancelled) {
    call_mark(call, cancelled ? WAS_CANCELLED : 0);
    slots_put(&loop->calls, &calls_layout, call, call->slot);
}

static void call_run(tram_loop *loop, struct call *call) {
    tram_handle handle = handle_of(call);
    tram_callback callback = call->callback;
    bool has_discard = call->on.deadline.timer.mark & HAS_DISCARD;
    void *arg = call->arg;
    call_end(loop, call, false);
    if (unlikely(loop->closing)) {
        if (has_discard)
            (*call_discard(loop, handle.slot))(arg);
        return;
    }
    uint64_t start = slow_begin(loop);
    int status = callback(loop, arg);
    slow_end(loop, start, (const void *)(uintptr_t)callback, "callback");
    if (unlikely(status < 0))
        tram__report_callback(loop, status, (const void *)(uintptr_t)callback, "a callback of the loop failed", handle);
}

static void ready_run(tram_loop *loop, struct ready *ready) {
    stats_add(&loop->stats.callbacks, 1);
    call_run(loop, (struct call *)(void *)ready);
}

static void deadline_run(tram_loop *loop, struct deadline *deadline) {
    stats_add(&loop->stats.timers, 1);
    call_run(loop, (struct call *)(void *)deadline);
}

static void tried_ready_run(tram_loop *loop, struct ready *ready);

static void discard_all(tram_loop *loop) {
    for (uint32_t slot = 1; slot < slots_count(&loop->calls); slot++) {
        struct call *call = call_at(loop, slot);
        if (generation_is_free(call->slot.generation))
            continue;
        if (is_timer(call)) {
            tram__timers_cancel(&loop->timers, &call->on.deadline.timer);
        } else {
            list_remove(&call->on.ready.link);
            if (call->on.ready.run == tried_ready_run)
                tram__mailbox_uncount(loop->mailbox);
        }
        call_run(loop, call);
    }
}

/* The loop closes: what is queued is discarded (L-8), and no handle names anything any more. */
static void calls_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending != IO_SHUTDOWN_NOW)
        return;
    tram_loop *loop = container_of(hook, tram_loop, calls_hook);
    discard_all(loop);
    list_remove(&hook->link);
    tram__calls_free(loop);
}

void tram__calls_free(tram_loop *loop) {
    tram__slots_fini(&loop->calls, &calls_layout, &loop->allocator);
}

/* ---- Checked builds ---- */

void tram__loop_validate_calls(const tram_loop *loop) {
    tram__slots_validate(&loop->calls, &calls_layout);
    for (uint32_t slot = 1; slot < slots_count(&loop->calls); slot++) {
        const struct call *call = call_at(loop, slot);
        if (generation_is_free(call->slot.generation))
            continue;
        TRAM_ASSERT(call->slot.number == slot && call->callback);
        TRAM_ASSERT(is_timer(call) ? call->on.deadline.timer.place != TIMER_IDLE : list_linked(&call->on.ready.link));
    }
}

/* ---- The public calls ---- */

static void notify_handle(const struct call *call, tram_handle *ret_handle) {
    if (ret_handle)
        *ret_handle = handle_of(call);
}

int tram_loop_call_soon(tram_loop *loop, tram_callback callback, void *arg, tram_discard discard,
                        tram_handle *ret_handle) {
    int status = loop_enter_open(loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(!callback))
        return tram__invalid("callback");
    struct call *call = call_new(loop, 0, callback, arg, discard);
    if (unlikely(!call))
        return -ENOMEM;
    call->on.ready.run = ready_run;
    loop_ready(loop, &call->on.ready);
    notify_handle(call, ret_handle);
    return 0;
}

int tram_loop_call_at(tram_loop *loop, uint64_t when_ns, tram_callback callback, void *arg, tram_discard discard,
                      tram_handle *ret_handle) {
    int status = loop_enter_open(loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(!callback))
        return tram__invalid("callback");
    struct call *call = call_new(loop, IS_TIMER, callback, arg, discard);
    if (unlikely(!call))
        return -ENOMEM;
    call->on.deadline.expire = deadline_run;
    call->on.deadline.timer.place = TIMER_IDLE;
    status = tram__timers_start(&loop->timers, &call->on.deadline.timer, when_ns);
    if (unlikely(status)) {
        call_end(loop, call, false);
        return status;
    }
    notify_handle(call, ret_handle);
    return 0;
}

int tram_loop_call_later(tram_loop *loop, uint64_t delay_ns, tram_callback callback, void *arg, tram_discard discard,
                         tram_handle *ret_handle) {
    int status = loop_enter_open(loop, __func__);
    if (unlikely(status))
        return status;
    return tram_loop_call_at(loop, time_after(tram__clock(loop), delay_ns), callback, arg, discard, ret_handle);
}

/* NULL: it has run, or was cancelled. */
static struct call *call_of(const tram_loop *loop, tram_handle handle) {
    return slots_find(&loop->calls, &calls_layout, handle.slot, handle.generation);
}

int tram_handle_cancel(tram_loop *loop, tram_handle handle) {
    int status = loop_enter(loop, __func__);
    if (unlikely(status))
        return status;
    struct call *call = call_of(loop, handle);
    if (!call)
        return 0;
    if (is_timer(call))
        tram__timers_cancel(&loop->timers, &call->on.deadline.timer);
    else
        list_remove(&call->on.ready.link);
    call_end(loop, call, true);
    return 1;
}

int tram_handle_cancelled(const tram_loop *loop, tram_handle handle) {
    int status = loop_enter(loop, __func__);
    if (unlikely(status))
        return status;
    if (call_of(loop, handle))
        return 0;
    if (handle.slot >= slots_count(&loop->calls))
        return -ESRCH;
    const struct call *call = call_at(loop, handle.slot); /* remembers how the last one ended */
    uint32_t since = call->slot.generation - handle.generation;
    return since == 1 || since == 2 ? (call->on.deadline.timer.mark & WAS_CANCELLED) != 0 : -ESRCH;
}

int tram_handle_when(const tram_loop *loop, tram_handle handle, uint64_t *ret_when_ns) {
    int status = loop_enter(loop, __func__);
    if (unlikely(status))
        return status;
    const struct call *call = call_of(loop, handle);
    if (!call || !is_timer(call))
        return -ESRCH;
    *ret_when_ns = call->on.deadline.timer.deadline;
    return 0;
}

/* ---- From other threads ---- */

struct posted_call {
    tram_callback callback;
    void *arg;
    tram_discard discard;
};

static void posted_run(tram_loop *loop, struct mail *mail) {
    struct posted_call call = *(struct posted_call *)(void *)mail->payload;
    uint64_t start = slow_begin(loop);
    int status = call.callback(loop, call.arg);
    slow_end(loop, start, (const void *)(uintptr_t)call.callback, "callback");
    if (unlikely(status < 0))
        tram__report_callback(loop, status, (const void *)(uintptr_t)call.callback, "a callback of the loop failed",
                              (tram_handle){0});
}

static void posted_discard(struct mail *mail) {
    struct posted_call *call = (struct posted_call *)(void *)mail->payload;
    if (call->discard)
        call->discard(call->arg);
}

static const struct mail_kind posted_call = {.run = posted_run, .discard = posted_discard};
static const struct mail_kind tried_call = {.run = posted_run, .discard = posted_discard, .flags = MAIL_COUNTED};

static void tried_ready_run(tram_loop *loop, struct ready *ready) {
    tram__mailbox_uncount(loop->mailbox);
    ready_run(loop, ready);
}

/*
 * From a callback of the loop itself: the call takes its place in the ready queue, as if it came by call_soon. Only
 * while more mail waits than one tick runs, it goes behind that, so that the calls of this thread keep their order.
 */
__attribute__((noinline)) static int post_to_itself(tram_loop *loop, const struct mail_kind *kind,
                                                    struct posted_call posted) {
    if (loop->mailbox->unplanned) {
        struct mail *mail = mail_new(loop->mailbox, kind);
        if (!mail)
            return -ENOMEM;
        *(struct posted_call *)(void *)mail->payload = posted;
        tram__mailbox_append(loop->mailbox, mail);
        return 0;
    }
    struct call *call = call_new(loop, 0, posted.callback, posted.arg, posted.discard);
    if (!call)
        return -ENOMEM;
    call->on.ready.run = kind->flags & MAIL_COUNTED ? tried_ready_run : ready_run;
    loop_ready(loop, &call->on.ready);
    return 0;
}

/* In each of its two callers: a post is what a thread may do a million times a second. */
static ALWAYS_INLINE int post_call(tram_loop *loop, const struct mail_kind *kind, tram_callback callback, void *arg,
                                   tram_discard discard) {
    if (unlikely(loop_guard(loop) == GUARD_FORKED))
        return -ECHILD;
    if (unlikely(!callback))
        return tram__invalid("callback");
    struct posted_call posted = {callback, arg, discard};
    if (unlikely(tram__mailbox_entered == loop->mailbox))
        return post_to_itself(loop, kind, posted);
    struct mail *mail = mail_new(loop->mailbox, kind);
    if (unlikely(!mail))
        return -ENOMEM;
    *(struct posted_call *)(void *)mail->payload = posted;
    return tram__mailbox_send(loop->mailbox, mail);
}

int tram_loop_call_soon_threadsafe(tram_loop *loop, tram_callback callback, void *arg, tram_discard discard) {
    _Static_assert(sizeof(struct posted_call) <= MAIL_PAYLOAD, "fits a node");
    return post_call(loop, &posted_call, callback, arg, discard);
}

int tram_loop_try_call_soon_threadsafe(tram_loop *loop, tram_callback callback, void *arg, tram_discard discard) {
    int status = tram__mailbox_count(loop->mailbox);
    if (status)
        return status;
    status = post_call(loop, &tried_call, callback, arg, discard);
    if (status)
        tram__mailbox_uncount(loop->mailbox);
    return status;
}
