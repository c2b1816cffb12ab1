/*
 * What call_soon, call_later and call_at make: a record in a slot, named from outside by slot and generation. The
 * generation ends when the callback runs or is cancelled, so a handle kept too long names nothing.
 */
#include <errno.h>

#include "core/loop/handles.h"

#include "core/base/invalid.h"

#define STATE_MASK    3u
#define WAS_CANCELLED 4u /* how the generation before this one ended */
#define HAS_DISCARD   8u /* see call_discard() */

static inline unsigned call_state(const struct call *call) {
    return call->on.deadline.timer.mark & STATE_MASK;
}

static inline void call_mark(struct call *call, unsigned mark) {
    call->on.deadline.timer.mark = mark & 63u;
}

static inline tram_discard *call_discard(const struct call_slots *calls, const struct call *call) {
    return &calls->chunks[call->slot / CALLS_PER_CHUNK]->discards[call->slot % CALLS_PER_CHUNK];
}

#define CHUNK_BYTES (sizeof(struct call_chunk) + 63)

static void calls_ending(struct close_hook *hook, enum shutdown_mode ending);

/* What a loop knows of calls, made when the first comes. */
static struct call_slots *calls_of(tram_loop *loop) {
    if (likely(loop->calls != NULL))
        return loop->calls;
    loop->calls = tram__memory_get_zero(&loop->allocator, sizeof *loop->calls);
    if (loop->calls) {
        loop->calls->loop = loop;
        loop_add_close_hook(loop, &loop->calls->hook, calls_ending);
    }
    return loop->calls;
}

static int grow_calls(tram_loop *loop) {
    struct call_slots *calls = loop->calls;
    if (calls->chunk_count == calls->chunk_capacity) {
        uint32_t capacity = calls->chunk_capacity ? calls->chunk_capacity * 2 : 8;
        struct call_chunk **chunks = memory_get(&loop->allocator, capacity * sizeof *chunks);
        if (!chunks)
            return -ENOMEM;
        for (uint32_t i = 0; i < calls->chunk_count; i++)
            chunks[i] = calls->chunks[i];
        memory_put(&loop->allocator, calls->chunks, calls->chunk_capacity * sizeof *chunks);
        calls->chunks = chunks;
        calls->chunk_capacity = capacity;
    }
    void *memory = tram__memory_get_zero(&loop->allocator, CHUNK_BYTES);
    if (!memory)
        return -ENOMEM;
    struct call_chunk *chunk = (void *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    chunk->memory = memory;
    uint32_t first = calls->chunk_count * CALLS_PER_CHUNK;
    calls->chunks[calls->chunk_count++] = chunk;
    for (uint32_t i = CALLS_PER_CHUNK; i-- > 0;) {
        struct call *call = &chunk->calls[i];
        call->slot = first + i;
        call->generation = 1;
        if (first + i == 0)
            continue; /* all zero names nothing */
        call->on.next_free = calls->free;
        calls->free = first + i;
    }
    return 0;
}

/* A call of this state; the caller sets what `on` holds besides. */
static struct call *call_new(tram_loop *loop, enum call_state state, tram_callback callback, void *arg,
                             tram_discard discard) {
    _Static_assert(sizeof(struct call) == 64, "a call is a cache line");
    struct call_slots *calls = calls_of(loop);
    if (unlikely(!calls) || (unlikely(!calls->free) && grow_calls(loop) < 0))
        return NULL;
    struct call *call = call_at_slot(calls, calls->free);
    TRAM_DCHECK(call_state(call) == CALL_FREE);
    calls->free = call->on.next_free;
    call->callback = callback;
    call->arg = arg;
    call_mark(call, (call->on.deadline.timer.mark & WAS_CANCELLED) | state | (discard ? HAS_DISCARD : 0));
    if (unlikely(discard != NULL))
        *call_discard(calls, call) = discard;
    return call;
}

/* Ends the generation; the slot may be used again at once, unless it had all: then a handle of old would name anew. */
static void call_end(tram_loop *loop, struct call *call, bool cancelled) {
    call_mark(call, cancelled ? CALL_FREE | WAS_CANCELLED : CALL_FREE);
    if (unlikely(++call->generation == UINT32_MAX))
        return;
    call->on.next_free = loop->calls->free;
    loop->calls->free = call->slot;
}

static void call_run(tram_loop *loop, struct call *call) {
    tram_handle handle = {call->slot, call->generation};
    tram_callback callback = call->callback;
    bool has_discard = call->on.deadline.timer.mark & HAS_DISCARD;
    void *arg = call->arg;
    call_end(loop, call, false);
    if (unlikely(loop->closing)) {
        if (has_discard)
            (*call_discard(loop->calls, call))(arg);
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
    struct call_slots *calls = loop->calls;
    for (uint32_t slot = 1; slot < calls->chunk_count * CALLS_PER_CHUNK; slot++) {
        struct call *call = call_at_slot(calls, slot);
        if (call_state(call) == CALL_TIMER) {
            tram__timers_cancel(&loop->timers, &call->on.deadline.timer);
        } else if (call_state(call) == CALL_READY) {
            list_remove(&call->on.ready.link);
            if (call->on.ready.run == tried_ready_run)
                tram__mailbox_uncount(loop->mailbox);
        } else {
            continue;
        }
        call_run(loop, call);
    }
}

/* The loop closes: what is queued is discarded (L-8), and no handle names anything any more. */
static void calls_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending != IO_SHUTDOWN_NOW)
        return;
    struct call_slots *calls = container_of(hook, struct call_slots, hook);
    tram_loop *loop = calls->loop;
    discard_all(loop);
    list_remove(&hook->link);
    tram__calls_free(loop);
}

void tram__calls_free(tram_loop *loop) {
    struct call_slots *calls = loop->calls;
    if (!calls)
        return;
    loop->calls = NULL;
    for (uint32_t i = 0; i < calls->chunk_count; i++)
        memory_put(&loop->allocator, calls->chunks[i]->memory, CHUNK_BYTES);
    memory_put(&loop->allocator, calls->chunks, calls->chunk_capacity * sizeof *calls->chunks);
    memory_put(&loop->allocator, calls, sizeof *calls);
}

/* ---- Checked builds ---- */

static void call_validate(const struct call *call, uint32_t slot) {
    TRAM_ASSERT(call->slot == slot && call->generation);
    switch ((enum call_state)call_state(call)) {
    case CALL_FREE:
        break;
    case CALL_READY:
        TRAM_ASSERT(list_linked(&call->on.ready.link) && call->callback);
        break;
    case CALL_TIMER:
        TRAM_ASSERT(call->on.deadline.timer.place != TIMER_IDLE && call->callback);
        break;
    }
}

void tram__loop_validate_calls(const tram_loop *loop) {
    const struct call_slots *calls = loop->calls;
    if (!calls)
        return;
    uint32_t slots = calls->chunk_count * CALLS_PER_CHUNK, free_count = 0, listed = 0;
    for (uint32_t slot = 1; slot < slots; slot++) {
        const struct call *call = call_at_slot(calls, slot);
        free_count += call_state(call) == CALL_FREE && call->generation != UINT32_MAX; /* else it has retired */
        call_validate(call, slot);
    }
    for (uint32_t slot = calls->free; slot; slot = call_at_slot(calls, slot)->on.next_free) {
        TRAM_ASSERT(slot < slots && call_state(call_at_slot(calls, slot)) == CALL_FREE);
        TRAM_ASSERT(++listed <= free_count);
    }
    TRAM_ASSERT(listed == free_count);
}

/* ---- The public calls ---- */

static void notify_handle(const struct call *call, tram_handle *ret_handle) {
    if (ret_handle)
        *ret_handle = (tram_handle){call->slot, call->generation};
}

int tram_loop_call_soon(tram_loop *loop, tram_callback callback, void *arg, tram_discard discard,
                        tram_handle *ret_handle) {
    int status = loop_enter_open(loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(!callback))
        return tram__invalid("callback");
    struct call *call = call_new(loop, CALL_READY, callback, arg, discard);
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
    struct call *call = call_new(loop, CALL_TIMER, callback, arg, discard);
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

/* The record that the handle names now or named last; NULL if it names something else by now. */
static struct call *call_of(const tram_loop *loop, tram_handle handle) {
    const struct call_slots *calls = loop->calls;
    if (!calls || handle.slot == 0 || handle.slot >= calls->chunk_count * CALLS_PER_CHUNK)
        return NULL;
    return call_at_slot(calls, handle.slot);
}

int tram_handle_cancel(tram_loop *loop, tram_handle handle) {
    int status = loop_enter(loop, __func__);
    if (unlikely(status))
        return status;
    struct call *call = call_of(loop, handle);
    if (!call || call->generation != handle.generation || call_state(call) == CALL_FREE)
        return 0;
    if (call_state(call) == CALL_TIMER)
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
    const struct call *call = call_of(loop, handle);
    if (!call)
        return -ESRCH;
    if (call->generation == handle.generation)
        return call_state(call) == CALL_FREE ? -ESRCH : 0;
    return call->generation == handle.generation + 1 ? (call->on.deadline.timer.mark & WAS_CANCELLED) != 0 : -ESRCH;
}

int tram_handle_when(const tram_loop *loop, tram_handle handle, uint64_t *ret_when_ns) {
    int status = loop_enter(loop, __func__);
    if (unlikely(status))
        return status;
    const struct call *call = call_of(loop, handle);
    if (!call || call->generation != handle.generation || call_state(call) != CALL_TIMER)
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
    struct call *call = call_new(loop, CALL_READY, posted.callback, posted.arg, posted.discard);
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
