/*
 * What call_soon, call_later and call_at make: a record in a slot, named from outside by slot and generation. The
 * generation ends when the callback runs or is cancelled, so a handle kept too long names nothing.
 */
#include <errno.h>

#include "core/loop.h"

#define CALLS_PER_CHUNK 128u

enum call_state { CALL_FREE, CALL_READY, CALL_TIMER };

struct call {
    union {
        struct ready ready;
        struct deadline deadline;
    } on;
    tram_callback callback;
    void *arg;
    tram_discard discard;
    uint32_t slot;
    uint32_t generation;
    uint32_t next_free;
    uint8_t state;         /* enum call_state */
    uint8_t was_cancelled; /* how the generation before this one ended */
};

struct call_slots {
    struct call **chunks;
    uint32_t chunk_count;
    uint32_t chunk_capacity;
    uint32_t free; /* slot, or 0 */
};

static inline struct call *call_at_slot(const struct call_slots *calls, uint32_t slot) {
    return &calls->chunks[slot / CALLS_PER_CHUNK][slot % CALLS_PER_CHUNK];
}

int tram__calls_open(tram_loop *loop) {
    loop->calls = tram__memory_get_zero(&loop->allocator, sizeof *loop->calls);
    return loop->calls ? 0 : -ENOMEM;
}

void tram__calls_close(tram_loop *loop) {
    struct call_slots *calls = loop->calls;
    if (!calls)
        return;
    for (uint32_t i = 0; i < calls->chunk_count; i++)
        memory_put(&loop->allocator, calls->chunks[i], CALLS_PER_CHUNK * sizeof(struct call));
    memory_put(&loop->allocator, calls->chunks, calls->chunk_capacity * sizeof *calls->chunks);
    memory_put(&loop->allocator, calls, sizeof *calls);
    loop->calls = NULL;
}

static int grow_calls(tram_loop *loop) {
    struct call_slots *calls = loop->calls;
    if (calls->chunk_count == calls->chunk_capacity) {
        uint32_t capacity = calls->chunk_capacity ? calls->chunk_capacity * 2 : 8;
        struct call **chunks = memory_get(&loop->allocator, capacity * sizeof *chunks);
        if (!chunks)
            return -ENOMEM;
        for (uint32_t i = 0; i < calls->chunk_count; i++)
            chunks[i] = calls->chunks[i];
        memory_put(&loop->allocator, calls->chunks, calls->chunk_capacity * sizeof *chunks);
        calls->chunks = chunks;
        calls->chunk_capacity = capacity;
    }
    struct call *chunk = tram__memory_get_zero(&loop->allocator, CALLS_PER_CHUNK * sizeof *chunk);
    if (!chunk)
        return -ENOMEM;
    uint32_t first = calls->chunk_count * CALLS_PER_CHUNK;
    calls->chunks[calls->chunk_count++] = chunk;
    for (uint32_t i = CALLS_PER_CHUNK; i-- > 0;) {
        chunk[i].slot = first + i;
        chunk[i].generation = 1;
        if (first + i == 0)
            continue; /* all zero names nothing */
        chunk[i].next_free = calls->free;
        calls->free = first + i;
    }
    return 0;
}

static struct call *call_new(tram_loop *loop, tram_callback callback, void *arg, tram_discard discard) {
    struct call_slots *calls = loop->calls;
    if (unlikely(!calls->free) && grow_calls(loop) < 0)
        return NULL;
    struct call *call = call_at_slot(calls, calls->free);
    calls->free = call->next_free;
    call->callback = callback;
    call->arg = arg;
    call->discard = discard;
    return call;
}

/* Ends the generation; the slot may be used again at once. */
static void call_end(tram_loop *loop, struct call *call, bool cancelled) {
    call->state = CALL_FREE;
    call->was_cancelled = cancelled;
    call->generation++;
    call->next_free = loop->calls->free;
    loop->calls->free = call->slot;
}

static void call_run(tram_loop *loop, struct call *call) {
    tram_handle handle = {call->slot, call->generation};
    tram_callback callback = call->callback;
    tram_discard discard = call->discard;
    void *arg = call->arg;
    call_end(loop, call, false);
    if (unlikely(loop->closing)) {
        if (discard)
            discard(arg);
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

void tram__calls_discard(tram_loop *loop) {
    struct call_slots *calls = loop->calls;
    for (uint32_t slot = 1; slot < calls->chunk_count * CALLS_PER_CHUNK; slot++) {
        struct call *call = call_at_slot(calls, slot);
        if (call->state == CALL_TIMER)
            tram__timers_cancel(&loop->timers, &call->on.deadline.timer);
        else if (call->state == CALL_READY)
            list_remove(&call->on.ready.link);
        else
            continue;
        call_run(loop, call);
    }
}

/* ---- The public calls ---- */

static void tell_handle(const struct call *call, tram_handle *ret_handle) {
    if (ret_handle)
        *ret_handle = (tram_handle){call->slot, call->generation};
}

int tram_loop_call_soon(tram_loop *loop, tram_callback callback, void *arg, tram_discard discard,
                        tram_handle *ret_handle) {
    int status = loop_enter_open(loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(!callback))
        return TRAM_EVALUE;
    struct call *call = call_new(loop, callback, arg, discard);
    if (unlikely(!call))
        return -ENOMEM;
    call->state = CALL_READY;
    call->on.ready.run = ready_run;
    loop_ready(loop, &call->on.ready);
    tell_handle(call, ret_handle);
    return 0;
}

int tram_loop_call_at(tram_loop *loop, uint64_t when_ns, tram_callback callback, void *arg, tram_discard discard,
                      tram_handle *ret_handle) {
    int status = loop_enter_open(loop, __func__);
    if (unlikely(status))
        return status;
    if (unlikely(!callback))
        return TRAM_EVALUE;
    struct call *call = call_new(loop, callback, arg, discard);
    if (unlikely(!call))
        return -ENOMEM;
    call->on.deadline.expire = deadline_run;
    call->on.deadline.timer.place = TIMER_IDLE;
    if (unlikely(tram__timers_start(&loop->timers, &call->on.deadline.timer, when_ns) < 0)) {
        call_end(loop, call, false);
        return -ENOMEM;
    }
    call->state = CALL_TIMER;
    tell_handle(call, ret_handle);
    return 0;
}

int tram_loop_call_later(tram_loop *loop, int64_t delay_ns, tram_callback callback, void *arg, tram_discard discard,
                         tram_handle *ret_handle) {
    int status = loop_enter_open(loop, __func__);
    if (unlikely(status))
        return status;
    uint64_t now = tram__clock(loop);
    uint64_t delay = delay_ns > 0 ? (uint64_t)delay_ns : 0;
    return tram_loop_call_at(loop, now + delay, callback, arg, discard, ret_handle);
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
    if (!call || call->generation != handle.generation || call->state == CALL_FREE)
        return 0;
    if (call->state == CALL_TIMER)
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
        return call->state == CALL_FREE ? -ESRCH : 0;
    return call->generation == handle.generation + 1 ? call->was_cancelled : -ESRCH;
}

int tram_handle_when(const tram_loop *loop, tram_handle handle, uint64_t *ret_when_ns) {
    int status = loop_enter(loop, __func__);
    if (unlikely(status))
        return status;
    const struct call *call = call_of(loop, handle);
    if (!call || call->generation != handle.generation || call->state != CALL_TIMER)
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
static const struct mail_kind tried_call = {.run = posted_run, .discard = posted_discard, .counted = true};

static int post_call(tram_loop *loop, const struct mail_kind *kind, tram_callback callback, void *arg,
                     tram_discard discard) {
    if (unlikely(*loop->guard == GUARD_FORKED))
        return -ECHILD;
    if (unlikely(!callback))
        return TRAM_EVALUE;
    struct mail *mail = tram__mail_new(loop->mailbox, kind);
    if (unlikely(!mail))
        return -ENOMEM;
    *(struct posted_call *)(void *)mail->payload = (struct posted_call){callback, arg, discard};
    int status = tram__mailbox_post(loop->mailbox, mail);
    if (unlikely(status))
        tram__mail_free(loop->mailbox, mail);
    return status;
}

int tram_loop_call_soon_threadsafe(tram_loop *loop, tram_callback callback, void *arg, tram_discard discard) {
    _Static_assert(sizeof(struct posted_call) <= MAIL_PAYLOAD, "fits a cell");
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
