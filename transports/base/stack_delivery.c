/* Bytes from the top of a stack to the protocol (Y-2, Y-3). */
#include "transports/base/stack_parts.h"

#include <errno.h>

#include "transports/base/held.h"
#include "transports/base/receiver.h"
#include "transports/base/state.h"

/* ---- Memory ---- */

/*
 * Into which layers read for a protocol without memory of its own. The loop has one, made at first use; a delivery that
 * runs inside of another one gets its own (Y-9).
 */
struct scratch {
    struct loop_state state;
    bool taken;
    char bytes[TRAM_LAYER_READ];
};

/* NULL: out of memory. */
static void *scratch_get(tram_loop *loop) {
    struct scratch *scratch = loop_slot(loop, TRANSPORT_SLOT_SCRATCH);
    if (unlikely(!scratch))
        scratch = tram__loop_slot_open(loop, TRANSPORT_SLOT_SCRATCH, sizeof *scratch, NULL);
    if (unlikely(!scratch || scratch->taken))
        return memory_get(&loop->allocator, TRAM_LAYER_READ);
    scratch->taken = true;
    return scratch->bytes;
}

static void scratch_put(tram_loop *loop, void *memory) {
    struct scratch *scratch = loop_slot(loop, TRANSPORT_SLOT_SCRATCH);
    if (likely(scratch && memory == scratch->bytes))
        scratch->taken = false;
    else
        memory_put(&loop->allocator, memory, TRAM_LAYER_READ);
}

/* ---- Delivering ---- */

static void stream_ended(tram_transport *transport) {
    transport->flags |= T_EOF;
    tram__io_receive_stop(&transport->io);
    int keep_open = tram__protocol_eof(transport);
    if (keep_open < 0) {
        tram__transport_fail(transport, keep_open);
        return;
    }
    if (keep_open > 0 && tram_transport_can_write_eof(transport))
        return;
    if (keep_open > 0)
        tram__log(loop_of(transport), TRAM_LOG_WARNING,
                  "connection %p: eof_received wants to stay open, which its layers cannot", (void *)transport);
    tram_transport_close(transport);
}

/* What is held for the protocol comes before what layers have. */
static void deliver_held(tram_transport *transport) {
    struct held *held = transport->more->held;
    tram__transport_feed(transport, held->bytes, held->size, &held->taken);
    if (transport->flags & T_HELD && held->taken == held->size)
        tram__transport_drop_held(transport);
}

/* Bytes that were read. While the layers were left the protocol may have been called: it may not take them any more. */
static void deliver_read(tram_transport *transport, const tram_protocol *buffered, void *memory, size_t size) {
    int status;
    if (!stack_may_deliver(transport) || (buffered && transport->protocol != buffered)) {
        status = transport->flags & T_CLOSING ? 0 : tram__stack_hold(transport, NULL, memory, size);
        if (status)
            tram__transport_fatal(transport, status, "read", NULL);
        return;
    }
    if (buffered)
        status = tram__protocol_buffer_updated(transport, size);
    else if (transport->protocol->ops->get_buffer)
        return tram__transport_feed(transport, memory, size, &(size_t){0});
    else
        status = tram__protocol_received(transport, memory, size);
    if (status < 0)
        tram__transport_fail(transport, status);
}

/* Where the next bytes go: the memory of a buffered protocol, which is returned then, or of the loop. False: nowhere.
 */
static bool find_memory(tram_transport *transport, void **scratch, const tram_protocol **ret_buffered,
                        void **ret_memory, size_t *ret_size) {
    const tram_protocol *protocol = transport->protocol;
    *ret_buffered = NULL;
    if (!protocol->ops->get_buffer || !stack_may_deliver(transport)) {
        if (!*scratch && !(*scratch = scratch_get(transport->io.loop))) {
            tram__transport_fatal(transport, -ENOMEM, "read", NULL);
            return false;
        }
        *ret_memory = *scratch;
        *ret_size = TRAM_LAYER_READ;
        return true;
    }
    const struct layer *top = transport_stack(transport)->top;
    size_t pending = top->kind->pending ? top->kind->pending(top) : 0;
    int status = tram__protocol_get_buffer(transport, pending ? (ptrdiff_t)pending : -1, ret_memory, ret_size);
    if (status < 0)
        tram__transport_fail(transport, status);
    *ret_buffered = protocol;
    return status >= 0 && stack_may_deliver(transport) && transport->protocol == protocol;
}

/* One read of the top layer. False: there is nothing more now. */
static bool deliver_next(tram_transport *transport, void **scratch) {
    struct layer_stack *stack = transport_stack(transport);
    struct layer *top = stack->top;
    const tram_protocol *buffered;
    void *memory;
    size_t size;
    if (top->kind->may_read && !top->kind->may_read(top))
        return false;
    if (!find_memory(transport, scratch, &buffered, &memory, &size))
        return true; /* the caller looks why */
    stack_enter(stack);
    ssize_t result = top->kind->read ? top->kind->read(top, memory, size) : tram__layer_read(top, memory, size);
    bool removed = top->state == LAYER_REMOVED;
    if (!removed && result < 0 && result != -EAGAIN)
        tram__stack_note_failure(transport, (int)result, top->kind->name);
    tram__stack_leave(stack);
    if (removed)
        return true;
    if (result > 0)
        deliver_read(transport, buffered, memory, (size_t)result);
    else if (result == 0 && stack_may_deliver(transport))
        stream_ended(transport);
    return result > 0;
}

/* A peer can make many reads of few bytes: those of one receive are spread, so that others have their turn between. */
static void fall_behind(tram_transport *transport) {
    transport_stack(transport)->behind = true;
    stack_run_soon(transport);
}

static void catch_up(tram_transport *transport) {
    transport_stack(transport)->behind = false;
    if (transport->flags & T_ASKED)
        ask_soon(loop_of(transport)); /* its end waited for this */
}

void tram__stack_deliver(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    void *scratch = NULL; /* of this delivery: another one may run inside of it (Y-9) */
    bool more = true;
    unsigned left = TRAM_LAYER_READS_PER_TICK;
    while (more && left && (stack_may_deliver(transport) || stack_reads_ahead(transport))) {
        left--;
        if (transport->flags & T_HELD && stack_may_deliver(transport))
            deliver_held(transport);
        else
            more = stack->top && deliver_next(transport, &scratch);
    }
    if (unlikely(!left))
        fall_behind(transport);
    else if (unlikely(stack->behind))
        catch_up(transport);
    if (scratch)
        scratch_put(transport->io.loop, scratch);
}
