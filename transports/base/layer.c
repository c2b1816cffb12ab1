/*
 * Calls into layers, and what layers call (layer.h).
 *
 * stack_enter() and tram__stack_leave() enclose every call into a layer: what such a call brings about for the
 * protocol, or for the user's half of a carrier, waits for the outermost of them (Y-5).
 */
#include "transports/base/stack_parts.h"

#include <errno.h>
#include <string.h>

#include "transports/base/held.h"

/* ---- Failing ---- */

/* For good, and not only its sending side. */
static bool stack_has_failed(const struct layer_stack *stack) {
    return stack->failed && !stack->send_failed;
}

void tram__stack_keep_detail(tram_transport *transport, const char *detail) {
    struct transport_more *more = transport->more;
    if (!detail || more->detail)
        return;
    more->detail = memory_get(&loop_of(transport)->allocator, TRAM_ERROR_TEXT);
    if (more->detail) { /* else the error goes without */
        strncpy(more->detail, detail, TRAM_ERROR_TEXT - 1);
        more->detail[TRAM_ERROR_TEXT - 1] = '\0';
    }
}

void tram__stack_note_failure(tram_transport *transport, int code, const char *operation) {
    struct layer_stack *stack = transport_stack(transport);
    if (stack_has_failed(stack) || stack_is_lost(transport))
        return;
    stack->failed = code;
    stack->send_failed = false;
    stack->failed_operation = operation;
}

static void fail_now(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    int code = stack->failed;
    stack->failed = 0;
    if (code)
        tram__transport_fatal(transport, code, stack->failed_operation, NULL);
}

void tram__layer_fail(struct layer *layer, int code, const char *operation, const char *detail) {
    tram_transport *transport = layer->transport;
    struct layer_stack *stack = transport_stack(transport);
    if (stack_has_failed(stack) || stack_is_lost(transport))
        return;
    tram__stack_keep_detail(transport, detail);
    tram__stack_note_failure(transport, code, operation ? operation : layer->kind->name);
    if (!stack->depth)
        fail_now(transport);
}

bool tram__layer_failed(const struct layer *layer) {
    const struct layer_stack *stack = transport_stack(layer->transport);
    return stack_is_lost(layer->transport) || layer->transport->flags & T_WRITE_FAILED || stack->failed;
}

/* ---- Calls into layers ---- */

void tram__layer_tell_started(struct layer *layer, const tram_error *error) {
    if (layer->told)
        return;
    layer->told = true;
    if (layer->kind->started)
        layer->kind->started(layer, error);
}

void tram__stack_free_removed(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    while (stack->removed) {
        struct layer *layer = stack->removed;
        stack->removed = layer->below;
        tram__layer_tell_started(layer, NULL);
        layer->kind->free(layer);
    }
}

/* Of the carrier: out of memory ends the connection, all else its sending side. */
static void note_send_failure(tram_transport *transport, int code) {
    struct layer_stack *stack = transport_stack(transport);
    transport->flags |= T_RESET;
    if (code == -ENOMEM) {
        tram__stack_note_failure(transport, code, "write");
    } else if (!stack->failed) {
        stack->failed = code;
        stack->send_failed = true;
    }
}

/* The user's half of the carrier may write, close or abort within: what comes meanwhile stands behind. */
static void send_outbox(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    if (stack->flushing)
        return;
    stack->flushing = true;
    while (stack->outbox.size && !stack_is_lost(transport)) {
        struct iovec pieces[TRAM_WRITE_PIECES];
        size_t count = tram__write_queue_gather(&stack->outbox, pieces, TRAM_WRITE_PIECES), size = 0;
        for (size_t i = 0; i < count; i++)
            size += pieces[i].iov_len;
        int status = transport_kind_of(transport)->carry(transport, pieces, count, size);
        if (!stack_is_lost(transport)) /* else it was emptied with it */
            tram__write_queue_consume(loop_of(transport), &stack->outbox, size);
        if (status < 0)
            tram__transport_fatal(transport, status, "write", NULL);
    }
    stack->flushing = false;
}

/* What waited for the end of a call may be sent, told and freed now. */
static void act(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    if (stack->unsent && !stack_is_lost(transport)) {
        stack->unsent = false;
        int status = tram__transport_carry_rest(transport);
        if (status < 0)
            note_send_failure(transport, status);
    }
    if (unlikely(stack->removed))
        tram__stack_free_removed(transport);
    if (unlikely(stack_has_failed(stack))) {
        if (stack->outbox.size) /* what was said before: an alert, for example */
            send_outbox(transport);
        fail_now(transport);
        return;
    }
    if (unlikely(stack->send_failed)) {
        int code = stack->failed;
        stack->failed = 0;
        stack->send_failed = false;
        tram__transport_send_failed(transport, code, "send");
    }
    if (stack->outbox.size)
        send_outbox(transport);
    if (stack->grew && !stack_is_lost(transport)) {
        stack->grew = false;
        if (transport->flags & T_WRITING_PAUSED && transport_write_size(transport) <= transport->limits->low)
            stack_run_soon(transport); /* resume_writing comes from the loop (W-19) */
        tram__transport_queue_grew(transport);
    }
}

static bool has_acts(const struct layer_stack *stack) {
    return stack->grew | stack->unsent | (stack->failed != 0) | (stack->removed != NULL) | (stack->outbox.size != 0);
}

void tram__stack_leave(struct layer_stack *stack) {
    if (--stack->depth == 0 && has_acts(stack))
        act(stack->transport);
}

/* ---- What layers call ---- */

static ssize_t read_carrier(struct layer_stack *stack, void *memory, size_t size) {
    size_t part = MIN(stack->window_size, size);
    if (!part)
        return stack->below_ended ? 0 : -EAGAIN;
    memcpy(memory, stack->window, part);
    stack->window += part;
    stack->window_size -= part;
    return (ssize_t)part;
}

ssize_t tram__layer_read(struct layer *layer, void *memory, size_t size) {
    struct layer_stack *stack = transport_stack(layer->transport);
    TRAM_DCHECK(stack->depth && size);
    for (;;) {
        if (layer->held)
            return (ssize_t)tram__held_take(loop_of(layer->transport), &layer->held, memory, size);
        struct layer *below = layer->below;
        if (!below)
            return read_carrier(stack, memory, size);
        ssize_t result =
            below->kind->read ? below->kind->read(below, memory, size) : tram__layer_read(below, memory, size);
        if (below->state != LAYER_REMOVED)
            return result;
    }
}

bool tram__layer_may_read(const struct layer *layer) {
    const struct layer_stack *stack = transport_stack(layer->transport);
    return layer->held || layer->below || stack->window_size || stack->below_ended;
}

static void carry(tram_transport *transport, const struct iovec *pieces, size_t count, bool more) {
    struct layer_stack *stack = transport_stack(transport);
    int status = 0;
    if (stack->finished)
        return;
    stack->grew = true;
    if (transport_kind_of(transport)->carry) {
        for (size_t i = 0; i < count && !status; i++)
            status = tram__write_queue_copy(loop_of(transport), &stack->outbox, pieces[i].iov_base, pieces[i].iov_len);
    } else {
        status = tram__transport_carry(transport, pieces, count, more);
        stack->unsent |= more;
    }
    if (status < 0)
        note_send_failure(transport, status);
}

void tram__layer_write(struct layer *layer, const struct iovec *pieces, size_t count, bool more) {
    tram_transport *transport = layer->transport;
    struct layer_stack *stack = transport_stack(transport);
    struct layer *below = layer->below;
    if (tram__layer_failed(layer))
        return;
    stack_enter(stack);
    if (!below)
        carry(transport, pieces, count, more);
    else if (below->kind->write)
        below->kind->write(below, pieces, count);
    else
        tram__layer_write(below, pieces, count, more);
    tram__stack_leave(stack);
}

void tram__layer_keep(struct layer *layer, size_t bytes) {
    struct layer_stack *stack = transport_stack(layer->transport);
    if (stack_is_lost(layer->transport))
        return;
    stack->kept = stack->kept - layer->kept + bytes;
    layer->kept = bytes;
    stack_enter(stack);
    stack->grew = true;
    if (!stack->kept || layer->transport->flags & (T_PAUSED | T_HAS_WRITER))
        stack_run_soon(layer->transport); /* somebody may wait for that, or it is for the peer that the layer waits */
    tram__stack_leave(stack);
}

void tram__layer_again(struct layer *layer) {
    if (!stack_is_lost(layer->transport))
        stack_run_soon(layer->transport);
}

/* Behind what the reader above has of earlier bytes. */
int tram__stack_hold(tram_transport *transport, struct layer *reader, const void *data, size_t size) {
    struct held **held = reader ? &reader->held : &transport->more->held;
    int status = tram__held_append(loop_of(transport), held, data, size);
    if (!reader && transport->more->held)
        transport->flags |= T_HELD;
    return status;
}

int tram__layer_remove(struct layer *layer, const void *rest, size_t size) {
    tram_transport *transport = layer->transport;
    struct layer_stack *stack = transport_stack(transport);
    int status = tram__stack_hold(transport, layer->above, rest, size);
    if (!status && layer->held)
        status =
            tram__stack_hold(transport, layer->above, layer->held->bytes + layer->held->taken, held_left(layer->held));
    if (status) {
        tram__stack_note_failure(transport, status, layer->kind->name);
        return status;
    }
    if (layer->held)
        tram__held_free_later(loop_of(transport), layer->held);
    layer->held = NULL;
    *(layer->above ? &layer->above->below : &stack->top) = layer->below;
    if (layer->below)
        layer->below->above = layer->above;
    stack->kept -= layer->kept;
    layer->kept = 0;
    layer->state = LAYER_REMOVED;
    layer->below = stack->removed;
    stack->removed = layer;
    return 0;
}

struct layer *tram__transport_find_layer(const tram_transport *transport, const struct layer_kind *kind) {
    struct layer *layer = transport->flags & T_LAYERED ? transport_stack(transport)->top : NULL;
    while (layer && layer->kind != kind)
        layer = layer->below;
    return layer;
}
