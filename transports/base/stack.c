/*
 * The stack of layers of a transport (rules Y-1 to Y-9): what drives it, and what the state machine asks of it.
 *
 * Reading order: step() is what happens whenever something came. Its three parts are in stack_life.c, for layers that
 * are not ready and for a transport that closes, and in stack_delivery.c; layer.c has the calls into layers.
 */
#include "transports/base/stack_parts.h"

#include <errno.h>

#include "transports/base/held.h"
#include "transports/base/receiver.h"

static bool wants_bytes(const tram_transport *transport) {
    const struct layer_stack *stack = transport_stack(transport);
    if (stack_is_lost(transport) || stack->below_ended)
        return false;
    return stack_is_starting(transport) || (stack_may_deliver(transport) && !stack->behind) ||
           stack_reads_ahead(transport) ||
           (transport->flags & T_CLOSING && !stack->shut && !transport_sends_file(transport));
}

static void update_receiving(tram_transport *transport) {
    if (wants_bytes(transport)) {
        if (!(transport->io.wanted & IO_READ))
            tram__transport_receive_start(transport);
    } else if (!stack_is_lost(transport)) {
        tram__io_receive_stop(&transport->io);
    }
}

/* ---- What happens when something came, or may have ---- */

/* Layers are ready. False: nothing is delivered in this step, since whoever waited for them goes on first (P-4). */
static bool became_ready(tram_transport *transport) {
    bool made_now = transport->flags & T_MADE_PENDING, had_creator = transport->flags & T_HAS_CREATOR;
    if (made_now)
        tram__transport_made(transport);
    else
        tram__transport_start_reading(transport);
    return made_now && !had_creator;
}

static void step_once(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    bool waits = stack_is_starting(transport) &&
                 (transport->flags & T_CLOSING || !tram__stack_start(transport) || !became_ready(transport));
    if (waits || stack_is_lost(transport) || !(transport->flags & T_LAYERED))
        return; /* what is held for a protocol on the carrier is the carrier's to deliver */
    if (!(transport->flags & T_CLOSING) || transport_sends_file(transport))
        tram__stack_deliver(transport);
    else if (!stack->shut && tram__stack_shut(transport))
        tram__transport_end_carrier(transport);
}

static void step(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    if (stack->stepping) {
        stack->again = true;
        return;
    }
    stack->stepping = true;
    do {
        stack->again = false;
        step_once(transport);
    } while (stack->again && !stack_is_lost(transport));
    stack->stepping = false;
    if (transport->flags & T_LAYERED && !stack->top && !stack_is_lost(transport)) {
        tram__stack_come_down(transport);
        tram__transport_start_reading(transport);
    }
}

/* What was not read of a receive waits for the lowest reader. */
static void keep_window(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    size_t size = stack->window_size;
    stack->window_size = 0;
    if (!size || stack_is_lost(transport))
        return;
    struct layer *lowest = transport->flags & T_LAYERED ? stack_bottom(stack) : NULL;
    bool on_carrier = !(transport->flags & (T_LAYERED | T_HELD));
    int status = tram__stack_hold(transport, lowest, stack->window, size);
    if (status) {
        tram__transport_fatal(transport, status, "read", NULL);
    } else if (on_carrier) {
        tram__transport_give_held(transport, transport->more->held, false);
        tram__transport_start_reading(transport);
    }
}

/* One within another, of a custom carrier: what the other has not read yet comes first. */
static void take_window(tram_transport *transport, const void *data, size_t size) {
    struct layer_stack *stack = transport_stack(transport);
    if (stack->stepping)
        keep_window(transport);
    stack->window = data;
    stack->window_size = size;
    step(transport);
    keep_window(transport);
    if (transport->flags & T_LAYERED)
        update_receiving(transport);
}

static void received(struct io *io, void *data, ssize_t result) {
    tram_transport *transport = (tram_transport *)(void *)io;
    if (result > 0)
        transport_moved(transport, TRAFFIC_IN);
    if (result <= 0 && transport_heard_all(transport))
        return;
    if (result < 0) {
        tram__transport_fatal(transport, (int)result, "recv", NULL);
        return;
    }
    if (result == 0) {
        transport_stack(transport)->below_ended = true;
        tram__io_receive_stop(io);
    }
    take_window(transport, data, (size_t)result);
}

static void carrier_received(tram_transport *transport, const void *data, size_t size) {
    take_window(transport, data, size);
}

static void carrier_eof(tram_transport *transport) {
    transport_stack(transport)->below_ended = true;
    tram__io_receive_stop(&transport->io);
    step(transport);
}

/* Queued when reading starts, and for whatever else is to be looked at in the next tick. */
static void stack_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    tram_transport *transport = container_of(ready, struct transport_more, ready)->transport;
    step(transport);
    if (stack_is_lost(transport) || !(transport->flags & T_LAYERED))
        return;
    update_receiving(transport);
    tram__transport_maybe_resume(transport);
    if (!stack_is_lost(transport) && tram__transport_idle(transport))
        tram__transport_drained(transport, true);
}

/* ---- What the state machine calls ---- */

static bool stack_close(tram_transport *transport) {
    if (stack_is_starting(transport)) {
        tram__transport_fatal(transport, -ECONNABORTED, "close", NULL);
        return false;
    }
    if (tram__stack_shut(transport))
        return true;
    update_receiving(transport);
    return false;
}

static bool stack_made(tram_transport *transport) {
    if (!stack_is_starting(transport))
        return true;
    if (tram__stack_start(transport))
        return true;
    update_receiving(transport);
    return false;
}

static void stack_paused(tram_transport *transport) {
    if (stack_reads_ahead(transport))
        stack_run_soon(transport);
}

static void stack_write(tram_transport *transport, const struct iovec *pieces, size_t count) {
    struct layer_stack *stack = transport_stack(transport);
    struct layer *top = stack->top;
    stack_enter(stack);
    if (top->kind->write)
        top->kind->write(top, pieces, count);
    else
        tram__layer_write(top, pieces, count, false);
    tram__stack_leave(stack);
}

static bool stack_write_eof(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    bool down = true;
    stack_enter(stack);
    for (struct layer *layer = stack->top; layer && down; layer = layer->below)
        down = layer->kind->write_eof(layer);
    tram__stack_leave(stack);
    return down;
}

static void stack_stop(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    stack_end_limit(stack);
    list_remove(&transport->more->ready.link);
    stack->kept = 0;
    if (!(transport->flags & T_HAS_WRITER))
        transport->flags &= ~(uint32_t)T_EXCLUSIVE;
    tram__write_queue_clear(loop_of(transport), &stack->outbox);
}

static void stack_lost(tram_transport *transport) {
    const struct transport_end *end = &transport->end;
    tram_error error = {.code = end->code ? end->code : -ECONNABORTED,
                        .operation = end->operation ? end->operation : "close",
                        .user = end->user,
                        .detail = transport->more->detail};
    for (struct layer *layer = stack_bottom(transport_stack(transport)); layer; layer = layer->above)
        tram__layer_tell_started(layer, &error);
}

static int stack_keep_window(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    int status = tram__stack_hold(transport, stack_bottom(stack), stack->window, stack->window_size);
    if (!status)
        stack->window_size = 0;
    return status;
}

static void stack_leave(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    stack_stop(transport);
    for (struct layer *layer = stack->top; layer; layer = layer->below) {
        layer->transport = NULL;
        if (layer->held)
            tram__held_free_later(loop_of(transport), layer->held);
        layer->held = NULL;
    }
    stack->top = NULL;
    transport->flags &= ~(uint32_t)T_LAYERED;
}

static void stack_free(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    tram__stack_free_removed(transport);
    while (stack->top) {
        struct layer *layer = stack->top;
        stack->top = layer->below;
        tram__held_free(loop_of(transport), layer->held);
        layer->kind->free(layer);
    }
    memory_put(&loop_of(transport)->allocator, stack, sizeof *stack);
}

static const struct io_receiver receiver = {.received = received};

static const struct stack_calls calls = {
    .receiver = &receiver,
    .made = stack_made,
    .paused = stack_paused,
    .write = stack_write,
    .write_eof = stack_write_eof,
    .close = stack_close,
    .stop = stack_stop,
    .lost = stack_lost,
    .hurry = tram__stack_hurry,
    .drained = tram__stack_finish_early,
    .keep_window = stack_keep_window,
    .leave = stack_leave,
    .free = stack_free,
    .received = carrier_received,
    .eof = carrier_eof,
};

/* ---- Pushing ---- */

static struct layer_stack *open_stack(tram_transport *transport) {
    if (tram__transport_need_more(transport))
        return NULL;
    struct layer_stack *stack = transport->more->stack;
    if (stack)
        return stack;
    stack = tram__memory_get_zero(&loop_of(transport)->allocator, sizeof *stack);
    if (!stack)
        return NULL;
    stack->calls = &calls;
    stack->transport = transport;
    stack->deadline.expire = tram__stack_expired;
    transport->more->stack = stack;
    return stack;
}

/* Before connection_made several may be pushed, one after the other. */
static int may_push(tram_transport *transport) {
    const struct transport_kind *kind = transport_kind_of(transport);
    if (!kind->start_tls_compatible || !kind->start_tls_compatible(transport))
        return -ENOTSUP;
    transport_flush_writer(transport);
    tram__transport_end_corking(transport); /* a handshake could wait for its end for ever */
    const uint32_t against = T_CLOSING | T_WRITE_EOF | T_WRITE_FAILED | T_EOF;
    if (transport->flags & against || !(transport->flags & (T_MADE | T_MADE_PENDING)))
        return TRAM_ESTATE;
    return transport->flags & T_EXCLUSIVE && transport->flags & T_MADE ? TRAM_ESTATE : 0;
}

/* Bytes that were read ahead, and behind them those that are held for the protocol. 0 or -ENOMEM: nothing happened. */
static int take_prefix(tram_transport *transport, const void *ahead, size_t size, struct held **ret_held) {
    tram_loop *loop = loop_of(transport);
    struct held *held = NULL, *old = transport->more->held;
    int status = tram__held_append(loop, &held, ahead, size);
    if (!status && old)
        status = tram__held_append(loop, &held, old->bytes + old->taken, held_left(old));
    if (status) {
        tram__held_free(loop, held);
        return status;
    }
    if (transport->flags & T_HELD) {
        transport_stack(transport)->below_ended |= transport->more->held_end;
        tram__transport_drop_held(transport);
    }
    *ret_held = held;
    return 0;
}

int tram__transport_push_layer(tram_transport *transport, struct layer *layer, const void *ahead, size_t ahead_size) {
    int status = may_push(transport);
    if (status)
        return status;
    struct layer_stack *stack = open_stack(transport);
    if (!stack)
        return -ENOMEM;
    status = tram__stack_limit_time(stack, layer->start_timeout_ns);
    if (!status)
        status = take_prefix(transport, ahead, ahead_size, &layer->held);
    if (status) {
        if (!tram__stack_first_not_ready(stack))
            stack_end_limit(stack);
        return status;
    }
    layer->transport = transport;
    layer->above = NULL;
    layer->below = stack->top;
    layer->state = LAYER_NEW;
    layer->kept = 0;
    if (stack->top)
        stack->top->above = layer;
    stack->top = layer;
    list_remove(&transport->more->ready.link);
    transport->more->ready.run = stack_run;
    transport->flags |= T_LAYERED | T_EXCLUSIVE;
    tram__transport_choose_receiver(transport);
    if (transport->flags & T_MADE)
        stack_run_soon(transport);
    return 0;
}

int tram__transport_take_layers(tram_transport *transport, struct layer *bottom) {
    struct layer_stack *stack = open_stack(transport);
    if (!stack)
        return -ENOMEM;
    for (struct layer *layer = bottom; layer; layer = layer->above)
        stack->top = layer;
    transport->more->ready.run = stack_run;
    transport->flags |= T_LAYERED;
    tram__transport_choose_receiver(transport);
    return 0;
}
