/* What the files of the stack have of each other: layer.c, stack_life.c, stack_delivery.c and stack.c, upwards. */
#ifndef TRAM_TRANSPORTS_BASE_STACK_PARTS_H
#define TRAM_TRANSPORTS_BASE_STACK_PARTS_H

#include "transports/base/entering.h"
#include "transports/base/stack.h"

/* It is looked at in the next tick. */
static inline void stack_run_soon(tram_transport *transport) {
    struct ready *ready = &transport->more->ready;
    if (list_empty(&ready->link))
        loop_ready(loop_of(transport), ready);
}

/* ---- layer.c ---- */

/* Around every call into a layer: stack_enter() before it. */
void tram__stack_leave(struct layer_stack *stack);

/* The connection is to fail with this code when no layer is on the stack any more. The first one counts. */
void tram__stack_note_failure(tram_transport *transport, int code, const char *operation);

/* The detail of the error that ends it; NULL: none. The first one counts. */
void tram__stack_keep_detail(tram_transport *transport, const char *detail);

/* `started`, once. */
void tram__layer_tell_started(struct layer *layer, const tram_error *error);

void tram__stack_free_removed(tram_transport *transport);

/* Holds bytes for a reader, NULL: the protocol, behind what it has of earlier ones. 0 or -ENOMEM. */
int tram__stack_hold(tram_transport *transport, struct layer *reader, const void *data, size_t size);

/* ---- stack_life.c ---- */

/* From the bottom; NULL: all are ready. */
struct layer *tram__stack_first_not_ready(const struct layer_stack *stack);

/* The deadline of the starts or the shutdowns. Of two the later one counts; 0: no limit. 0 or -ENOMEM. */
int tram__stack_limit_time(struct layer_stack *stack, uint64_t timeout_ns);
/* It is asked to end: what is not ready has but a moment left. */
void tram__stack_hurry(tram_transport *transport);
void tram__stack_expired(tram_loop *loop, struct deadline *deadline);

static inline void stack_end_limit(struct layer_stack *stack) {
    deadline_cancel(loop_of(stack->transport), &stack->deadline);
}

/* Each layer gets ready, from the bottom upwards. False: not yet, or never. */
bool tram__stack_start(tram_transport *transport);

/* Each layer is shut down, from the top downwards. False: not yet, or the transport was lost meanwhile. */
bool tram__stack_shut(tram_transport *transport);

/* Ends the carrier's writing side before the layers are shut down, where that can be. */
void tram__stack_finish_early(tram_transport *transport);

/* The last layer removed itself: the protocol is on the carrier again. */
void tram__stack_come_down(tram_transport *transport);

/* ---- stack_delivery.c ---- */

/* Gives the protocol what there is, as long as it reads. */
void tram__stack_deliver(tram_transport *transport);

#endif
