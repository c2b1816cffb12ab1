/* How layers begin and end: each gets ready, from the bottom upwards, and is shut down, from the top downwards (Y-6,
 * Y-8). */
#include "transports/base/stack_parts.h"

#include <errno.h>

#include "transports/base/held.h"
#include "transports/base/receiver.h"

/* ---- The deadline ---- */

struct layer *tram__stack_first_not_ready(const struct layer_stack *stack) {
    struct layer *layer = stack_bottom(stack);
    while (layer && layer_is_ready(layer))
        layer = layer->above;
    return layer;
}

void tram__stack_expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct layer_stack *stack = container_of(deadline, struct layer_stack, deadline);
    struct layer *layer = tram__stack_first_not_ready(stack);
    tram__stack_keep_detail(stack->transport, layer ? "it was not ready in time" : "the peer did not answer in time");
    if (layer)
        tram__transport_end_by(stack->transport, END_TIMEOUT,
                               layer->kind->start_timeout_code ? layer->kind->start_timeout_code : -ETIMEDOUT,
                               layer->kind->name, NULL);
    else
        tram__transport_end_by(stack->transport, END_TIMEOUT, TRAM_ETIMEOUT, "shutdown", NULL);
}

/* Of two the later one counts. */
int tram__stack_limit_time(struct layer_stack *stack, uint64_t timeout_ns) {
    tram_loop *loop = loop_of(stack->transport);
    if (!timeout_ns)
        return 0;
    uint64_t when = time_after(tram__clock(loop), timeout_ns);
    if (stack->deadline.timer.place != TIMER_IDLE) {
        if (stack->deadline.timer.deadline >= when)
            return 0;
        deadline_cancel(loop, &stack->deadline);
    }
    return tram__deadline_start(loop, &stack->deadline, when);
}

/* Honest peers are quick, and of those who stall no end is to wait for long (G-2). */
void tram__stack_hurry(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    tram_loop *loop = loop_of(transport);
    uint64_t when = time_after(tram__clock(loop), TRAM_LAYERS_ENDING_NS);
    if (!stack_is_starting(transport))
        return;
    if (stack->deadline.timer.place != TIMER_IDLE) {
        if (stack->deadline.timer.deadline <= when)
            return;
        deadline_cancel(loop, &stack->deadline);
    }
    int status = tram__deadline_start(loop, &stack->deadline, when);
    if (status)
        tram__transport_fatal(transport, status, "timer", NULL);
}

/* ---- Beginning: each layer gets ready, from the bottom upwards ---- */

/* True: it is ready, and the next one's turn. */
static bool start_layer(tram_transport *transport, struct layer *layer) {
    struct layer_stack *stack = transport_stack(transport);
    layer->state = LAYER_STARTING;
    stack_enter(stack);
    int status = layer->kind->start ? layer->kind->start(layer) : 0;
    bool removed = layer->state == LAYER_REMOVED;
    if (!removed && !status)
        layer->state = LAYER_READY;
    if (status < 0 && status != -EAGAIN)
        tram__stack_note_failure(transport, status, layer->kind->name);
    tram__stack_leave(stack); /* which tells and frees one that removed itself */
    if (stack_is_lost(transport) || (!removed && status))
        return false;
    if (!removed)
        tram__layer_tell_started(layer, NULL); /* may end the transport */
    return !stack_is_lost(transport);
}

/* The last layer removed itself: the protocol is on the carrier again. */
void tram__stack_come_down(tram_transport *transport) {
    struct held *held = transport->more->held;
    transport->flags &= ~(uint32_t)(T_LAYERED | T_HELD);
    list_remove(&transport->more->ready.link);
    transport->more->held = NULL;
    if (held || transport_stack(transport)->below_ended)
        tram__transport_give_held(transport, held, transport_stack(transport)->below_ended);
    tram__transport_choose_receiver(transport);
}

/* False: not yet, or never. */
bool tram__stack_start(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    struct layer *layer;
    while ((layer = tram__stack_first_not_ready(stack)))
        if (!start_layer(transport, layer))
            return false;
    stack_end_limit(stack);
    transport->flags &= ~(uint32_t)T_EXCLUSIVE;
    if (!stack->top)
        tram__stack_come_down(transport);
    return true;
}

/* ---- Ending ---- */

/* True: it is done, and the next one's turn. */
static bool shut_layer(tram_transport *transport, struct layer *layer) {
    struct layer_stack *stack = transport_stack(transport);
    layer->state = LAYER_SHUTTING_DOWN;
    stack_enter(stack);
    int status = layer->kind->shutdown ? layer->kind->shutdown(layer) : 0;
    if (!status)
        layer->state = LAYER_DONE;
    else if (status != -EAGAIN)
        tram__stack_note_failure(transport, status, layer->kind->name);
    tram__stack_leave(stack);
    return !status && !stack_is_lost(transport);
}

/*
 * A server or loop that ends does not wait for the peer's goodbye with the end of the stream: once every layer has said
 * its own, and all of it was sent, what is left is to read.
 */
void tram__stack_finish_early(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    bool said = transport->flags & T_SERVER_CLOSE && stack_bottom(stack)->state == LAYER_SHUTTING_DOWN;
    if (!said || stack->finished || transport_write_size(transport) || !transport_kind_of(transport)->can_write_eof)
        return;
    stack->finished = true;
    transport->flags |= T_WRITING_ENDED;
    (void)transport_kind_of(transport)->end_writing(transport); /* a dead connection is told by reading */
}

/* A layer has not said its goodbye, or not all of it. */
static void await_goodbye(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    uint64_t longest = 0;
    for (const struct layer *layer = stack->top; layer; layer = layer->below)
        longest = MAX(longest, layer->shutdown_timeout_ns);
    int status = stack->deadline.timer.place == TIMER_IDLE ? tram__stack_limit_time(stack, longest) : 0;
    if (status)
        tram__transport_fatal(transport, status, "timer", NULL);
    else
        tram__stack_finish_early(transport);
}

/* False: not yet, or the transport was lost meanwhile. */
bool tram__stack_shut(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    struct layer *layer = stack->top;
    while (layer && (layer->state == LAYER_DONE || shut_layer(transport, layer)))
        layer = layer->below;
    if (layer && !stack_is_lost(transport))
        await_goodbye(transport);
    if (layer)
        return false;
    stack->shut = true;
    stack_end_limit(stack);
    tram__io_receive_stop(&transport->io);
    return true;
}
