/*
 * The stack of layers of a transport: how bytes travel through it, and how it starts and ends (rules Y-1 to Y-9).
 *
 * Reading order: step() is what happens whenever something came; before it its three parts, for layers that are not
 * ready, for an open transport and for one that closes. enter() and leave() enclose every call into a layer: what such
 * a call brings about for the protocol, or for the user's half of a carrier, waits for the outermost leave().
 */
#include "transports/base/stack.h"

#include <errno.h>
#include <string.h>

#include "transports/base/entering.h"
#include "transports/base/held.h"
#include "transports/base/receiver.h"
#include "transports/base/scratch.h"

static bool is_lost(const tram_transport *transport) {
    return transport->flags & (T_LOST_PENDING | T_LOST);
}

/* Layers that are not ready, and for which everything else waits. */
static bool is_starting(const tram_transport *transport) {
    return transport->flags & T_EXCLUSIVE && !(transport->flags & T_HAS_WRITER);
}

static bool may_deliver(const tram_transport *transport) {
    return transport->flags & T_MADE && !(transport->flags & (T_PAUSED | T_CLOSING | T_EOF | T_EXCLUSIVE));
}

static bool wants_bytes(const tram_transport *transport) {
    const struct layer_stack *stack = transport_stack(transport);
    if (is_lost(transport) || stack->below_ended)
        return false;
    return is_starting(transport) || may_deliver(transport) || (transport->flags & T_CLOSING && !stack->shut);
}

static void update_receiving(tram_transport *transport) {
    if (wants_bytes(transport))
        tram__transport_receive_start(transport);
    else if (!is_lost(transport))
        tram__io_receive_stop(&transport->io);
}

static void run_soon(tram_transport *transport) {
    struct ready *ready = &transport->more->ready;
    if (list_empty(&ready->link))
        loop_ready(loop_of(transport), ready);
}

/* ---- Failing ---- */

static void keep_detail(tram_transport *transport, const char *detail) {
    struct transport_more *more = transport->more;
    if (!detail || more->detail)
        return;
    more->detail = memory_get(&loop_of(transport)->allocator, TRAM_ERROR_TEXT);
    if (more->detail) { /* else the error goes without */
        strncpy(more->detail, detail, TRAM_ERROR_TEXT - 1);
        more->detail[TRAM_ERROR_TEXT - 1] = '\0';
    }
}

static void note_failure(tram_transport *transport, int code, const char *operation) {
    struct layer_stack *stack = transport_stack(transport);
    if (stack->failed || is_lost(transport))
        return;
    stack->failed = code;
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
    if (stack->failed || is_lost(transport))
        return;
    keep_detail(transport, detail);
    note_failure(transport, code, operation ? operation : layer->kind->name);
    if (!stack->depth)
        fail_now(transport);
}

bool tram__layer_failed(const struct layer *layer) {
    return is_lost(layer->transport) || transport_stack(layer->transport)->failed;
}

/* ---- Calls into layers ---- */

static void tell_started(tram_transport *transport, struct layer *layer, const tram_error *error) {
    (void)transport;
    if (layer->told)
        return;
    layer->told = true;
    if (layer->kind->started)
        layer->kind->started(layer, error);
}

static void free_removed(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    while (stack->removed) {
        struct layer *layer = stack->removed;
        stack->removed = layer->below;
        tell_started(transport, layer, NULL);
        layer->kind->free(layer);
    }
}

/* The user's half of the carrier may write, close or abort within: what comes meanwhile stands behind. */
static void send_outbox(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    if (stack->flushing)
        return;
    stack->flushing = true;
    while (stack->outbox.size && !is_lost(transport)) {
        struct iovec pieces[TRAM_WRITE_PIECES];
        size_t count = tram__write_queue_gather(&stack->outbox, pieces, TRAM_WRITE_PIECES), size = 0;
        for (size_t i = 0; i < count; i++)
            size += pieces[i].iov_len;
        int status = transport_kind_of(transport)->carry(transport, pieces, count, size);
        if (is_lost(transport))
            break; /* the outbox was emptied with it */
        tram__write_queue_consume(loop_of(transport), &stack->outbox, size);
        if (status < 0)
            tram__transport_fatal(transport, status, "write", NULL);
    }
    stack->flushing = false;
}

/* What waited for the end of a call may be sent, told and freed now. */
static void act(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    if (stack->unsent && !is_lost(transport)) {
        stack->unsent = false;
        int status = tram__transport_carry_rest(transport);
        if (status < 0)
            note_failure(transport, status, "send");
    }
    if (unlikely(stack->removed))
        free_removed(transport);
    if (unlikely(stack->failed)) {
        if (stack->outbox.size) /* what was said before: an alert, for example */
            send_outbox(transport);
        fail_now(transport);
        return;
    }
    if (stack->outbox.size)
        send_outbox(transport);
    if (stack->grew && !is_lost(transport)) {
        stack->grew = false;
        if (transport->flags & T_WRITING_PAUSED && transport_write_size(transport) <= transport->limits->low)
            run_soon(transport); /* resume_writing comes from the loop (W-19) */
        tram__transport_queue_grew(transport);
    }
}

static void enter_layer(struct layer_stack *stack) {
    stack->depth++;
}

static void leave_layer(struct layer_stack *stack) {
    if (--stack->depth == 0)
        act(stack->transport);
}

/* ---- What layers call ---- */

static ssize_t read_carrier(struct layer_stack *stack, void *memory, size_t size) {
    size_t part = stack->window_size < size ? stack->window_size : size;
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

static bool carry(tram_transport *transport, const struct iovec *pieces, size_t count, bool more) {
    struct layer_stack *stack = transport_stack(transport);
    int status = 0;
    if (stack->finished)
        return true;
    stack->grew = true;
    if (transport_kind_of(transport)->carry) {
        for (size_t i = 0; i < count && !status; i++)
            status = tram__write_queue_copy(loop_of(transport), &stack->outbox, pieces[i].iov_base, pieces[i].iov_len);
    } else {
        status = tram__transport_carry(transport, pieces, count, more);
        stack->unsent |= more;
    }
    if (status < 0)
        note_failure(transport, status, status == -ENOMEM ? "write" : "send");
    return status > 0;
}

bool tram__layer_write(struct layer *layer, const struct iovec *pieces, size_t count, bool more) {
    tram_transport *transport = layer->transport;
    struct layer_stack *stack = transport_stack(transport);
    struct layer *below = layer->below;
    bool all = false;
    if (tram__layer_failed(layer))
        return false;
    enter_layer(stack);
    if (!below)
        all = carry(transport, pieces, count, more);
    else if (below->kind->write)
        below->kind->write(below, pieces, count);
    else
        all = tram__layer_write(below, pieces, count, more);
    leave_layer(stack);
    return all;
}

void tram__layer_keep(struct layer *layer, size_t bytes) {
    struct layer_stack *stack = transport_stack(layer->transport);
    if (is_lost(layer->transport))
        return;
    stack->kept = stack->kept - layer->kept + bytes;
    layer->kept = bytes;
    enter_layer(stack);
    stack->grew = true;
    if (!stack->kept)
        run_soon(layer->transport); /* somebody may wait for that */
    leave_layer(stack);
}

void tram__layer_again(struct layer *layer) {
    if (!is_lost(layer->transport))
        run_soon(layer->transport);
}

/* Behind what the reader above has of earlier bytes. */
static int hold_for(tram_transport *transport, struct layer *reader, const void *data, size_t size) {
    struct held **held = reader ? &reader->held : &transport->more->held;
    int status = tram__held_append(loop_of(transport), held, data, size);
    if (!reader && transport->more->held)
        transport->flags |= T_HELD;
    return status;
}

int tram__layer_remove(struct layer *layer, const void *rest, size_t size) {
    tram_transport *transport = layer->transport;
    struct layer_stack *stack = transport_stack(transport);
    int status = hold_for(transport, layer->above, rest, size);
    if (!status && layer->held)
        status = hold_for(transport, layer->above, layer->held->bytes + layer->held->taken, held_left(layer->held));
    if (status) {
        note_failure(transport, status, layer->kind->name);
        return status;
    }
    if (layer->held)
        tram__held_free_later(loop_of(transport), layer->held);
    layer->held = NULL;
    *(layer->above ? &layer->above->below : &stack->top) = layer->below;
    *(layer->below ? &layer->below->above : &stack->bottom) = layer->above;
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

/* ---- The deadline ---- */

static struct layer *first_not_ready(const struct layer_stack *stack) {
    struct layer *layer = stack->bottom;
    while (layer && layer_is_ready(layer))
        layer = layer->above;
    return layer;
}

static void expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct layer_stack *stack = container_of(deadline, struct layer_stack, deadline);
    struct layer *layer = first_not_ready(stack);
    keep_detail(stack->transport, layer ? "it was not ready in time" : "the peer did not answer in time");
    if (layer)
        tram__transport_fatal(stack->transport,
                              layer->kind->start_timeout_code ? layer->kind->start_timeout_code : -ETIMEDOUT,
                              layer->kind->name, NULL);
    else
        tram__transport_fatal(stack->transport, TRAM_ETIMEOUT, "shutdown", NULL);
}

/* Of two the later one counts. */
static int limit_time(struct layer_stack *stack, uint64_t timeout_ns) {
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
static void stack_hurry(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    tram_loop *loop = loop_of(transport);
    uint64_t when = time_after(tram__clock(loop), TRAM_LAYERS_ENDING_NS);
    if (!is_starting(transport))
        return;
    if (stack->deadline.timer.place != TIMER_IDLE) {
        if (stack->deadline.timer.deadline <= when)
            return;
        deadline_cancel(loop, &stack->deadline);
    }
    if (tram__deadline_start(loop, &stack->deadline, when))
        tram__transport_fatal(transport, -ENOMEM, "timer", NULL);
}

static void end_limit(struct layer_stack *stack) {
    deadline_cancel(loop_of(stack->transport), &stack->deadline);
}

/* ---- Beginning: each layer gets ready, from the bottom upwards ---- */

/* True: it is ready, and the next one's turn. */
static bool start_layer(tram_transport *transport, struct layer *layer) {
    struct layer_stack *stack = transport_stack(transport);
    layer->state = LAYER_STARTING;
    enter_layer(stack);
    int status = layer->kind->start ? layer->kind->start(layer) : 0;
    bool removed = layer->state == LAYER_REMOVED;
    if (!removed && !status)
        layer->state = LAYER_READY;
    if (status < 0 && status != -EAGAIN)
        note_failure(transport, status, layer->kind->name);
    leave_layer(stack); /* which tells and frees one that removed itself */
    if (is_lost(transport) || (!removed && status))
        return false;
    if (!removed)
        tell_started(transport, layer, NULL); /* may end the transport */
    return !is_lost(transport);
}

/* The last layer removed itself: the protocol is on the carrier again. */
static void come_down(tram_transport *transport) {
    struct held *held = transport->more->held;
    transport->flags &= ~(uint32_t)(T_LAYERED | T_HELD);
    list_remove(&transport->more->ready.link);
    transport->more->held = NULL;
    if (held)
        tram__transport_give_held(transport, held);
    tram__transport_choose_receiver(transport);
}

/* False: not yet, or never. */
static bool start_layers(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    struct layer *layer;
    while ((layer = first_not_ready(stack)))
        if (!start_layer(transport, layer))
            return false;
    end_limit(stack);
    transport->flags &= ~(uint32_t)T_EXCLUSIVE;
    if (!stack->top)
        come_down(transport);
    return true;
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
    if (!may_deliver(transport) || (buffered && transport->protocol != buffered)) {
        if (!is_lost(transport) && hold_for(transport, NULL, memory, size))
            tram__transport_fatal(transport, -ENOMEM, "read", NULL);
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
static bool find_memory(tram_transport *transport, struct scratch **scratch, const tram_protocol **ret_buffered,
                        void **ret_memory, size_t *ret_size) {
    const tram_protocol *protocol = transport->protocol;
    *ret_buffered = NULL;
    if (!protocol->ops->get_buffer) {
        if (!*scratch && !(*scratch = scratch_get(loop_of(transport)))) {
            tram__transport_fatal(transport, -ENOMEM, "read", NULL);
            return false;
        }
        *ret_memory = *scratch;
        *ret_size = TRAM_LAYER_READ;
        return true;
    }
    int status = tram__protocol_get_buffer(transport, ret_memory, ret_size);
    if (status < 0)
        tram__transport_fail(transport, status);
    *ret_buffered = protocol;
    return status >= 0 && may_deliver(transport) && transport->protocol == protocol;
}

/* One read of the top layer. False: there is nothing more now. */
static bool deliver_next(tram_transport *transport, struct scratch **scratch) {
    struct layer_stack *stack = transport_stack(transport);
    struct layer *top = stack->top;
    const tram_protocol *buffered;
    void *memory;
    size_t size;
    if (!find_memory(transport, scratch, &buffered, &memory, &size))
        return true; /* the caller looks why */
    enter_layer(stack);
    ssize_t result = top->kind->read ? top->kind->read(top, memory, size) : tram__layer_read(top, memory, size);
    bool removed = top->state == LAYER_REMOVED;
    if (!removed && result < 0 && result != -EAGAIN)
        note_failure(transport, (int)result, top->kind->name);
    leave_layer(stack);
    if (removed)
        return true;
    if (result > 0)
        deliver_read(transport, buffered, memory, (size_t)result);
    else if (result == 0 && may_deliver(transport))
        stream_ended(transport);
    return result > 0;
}

static void deliver(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    struct scratch *scratch = NULL; /* of this delivery: another one may run inside of it (Y-9) */
    bool more = true;
    while (more && may_deliver(transport)) {
        if (transport->flags & T_HELD)
            deliver_held(transport);
        else if (stack->top)
            more = deliver_next(transport, &scratch);
        else
            break;
    }
    if (scratch)
        scratch_put(loop_of(transport), scratch);
}

/* ---- Ending ---- */

/* True: it is done, and the next one's turn. */
static bool shut_layer(tram_transport *transport, struct layer *layer) {
    struct layer_stack *stack = transport_stack(transport);
    layer->state = LAYER_SHUTTING_DOWN;
    enter_layer(stack);
    int status = layer->kind->shutdown ? layer->kind->shutdown(layer) : 0;
    if (!status)
        layer->state = LAYER_DONE;
    else if (status != -EAGAIN)
        note_failure(transport, status, layer->kind->name);
    leave_layer(stack);
    return !status && !is_lost(transport);
}

/*
 * A server or loop that ends does not wait for the peer's goodbye with the end of the stream: once every layer has said
 * its own, and all of it was sent, what is left is to read.
 */
static void finish_early(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    bool said = transport->flags & T_SERVER_CLOSE && stack->bottom->state == LAYER_SHUTTING_DOWN;
    if (!said || stack->finished || transport_write_size(transport) || !transport_kind_of(transport)->can_write_eof)
        return;
    stack->finished = true;
    transport->flags |= T_WRITING_ENDED;
    (void)transport_kind_of(transport)->end_writing(transport); /* a dead connection is told by reading */
}

/* False: not yet, or the transport was lost meanwhile. */
static bool shut_layers(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    uint64_t longest = 0;
    for (struct layer *layer = stack->top; layer; layer = layer->below) {
        if (layer->state != LAYER_DONE && !shut_layer(transport, layer)) {
            if (is_lost(transport))
                return false;
            for (const struct layer *each = stack->top; each; each = each->below)
                longest = each->shutdown_timeout_ns > longest ? each->shutdown_timeout_ns : longest;
            if (stack->deadline.timer.place == TIMER_IDLE && limit_time(stack, longest))
                tram__transport_fatal(transport, -ENOMEM, "timer", NULL);
            else
                finish_early(transport);
            return false;
        }
    }
    stack->shut = true;
    end_limit(stack);
    tram__io_receive_stop(&transport->io);
    return true;
}

static bool stack_close(tram_transport *transport) {
    if (is_starting(transport)) {
        tram__transport_fatal(transport, -ECONNABORTED, "close", NULL);
        return false;
    }
    if (shut_layers(transport))
        return true;
    update_receiving(transport);
    return false;
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
    if (is_starting(transport) &&
        (transport->flags & T_CLOSING || !start_layers(transport) || !became_ready(transport)))
        return;
    if (is_lost(transport))
        return;
    if (!(transport->flags & T_CLOSING))
        deliver(transport);
    else if (!stack->shut && shut_layers(transport))
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
    } while (stack->again && !is_lost(transport));
    stack->stepping = false;
    if (transport->flags & T_LAYERED && !stack->top && !is_lost(transport)) {
        come_down(transport);
        tram__transport_start_reading(transport);
    }
}

/* What was not read of a receive waits for the lowest reader. */
static void keep_window(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    size_t size = stack->window_size;
    stack->window_size = 0;
    if (!size || is_lost(transport))
        return;
    bool on_carrier = !(transport->flags & (T_LAYERED | T_HELD));
    int status = hold_for(transport, transport->flags & T_LAYERED ? stack->bottom : NULL, stack->window, size);
    if (status) {
        tram__transport_fatal(transport, status, "read", NULL);
    } else if (on_carrier) {
        tram__transport_give_held(transport, transport->more->held);
        tram__io_receive_stop(&transport->io); /* they come first */
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
    if (is_lost(transport) || !(transport->flags & T_LAYERED))
        return;
    update_receiving(transport);
    tram__transport_maybe_resume(transport);
    if (!is_lost(transport) && tram__transport_idle(transport))
        tram__transport_drained(transport, true);
}

/* ---- What the state machine calls ---- */

static bool stack_made(tram_transport *transport) {
    if (!is_starting(transport))
        return true;
    if (start_layers(transport))
        return true;
    update_receiving(transport);
    return false;
}

static void stack_write(tram_transport *transport, const struct iovec *pieces, size_t count) {
    struct layer_stack *stack = transport_stack(transport);
    struct layer *top = stack->top;
    enter_layer(stack);
    if (top->kind->write)
        top->kind->write(top, pieces, count);
    else
        tram__layer_write(top, pieces, count, false);
    leave_layer(stack);
}

static bool stack_write_eof(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    bool down = true;
    enter_layer(stack);
    for (struct layer *layer = stack->top; layer && down; layer = layer->below)
        down = layer->kind->write_eof(layer);
    leave_layer(stack);
    return down;
}

static void stack_stop(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    end_limit(stack);
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
    for (struct layer *layer = transport_stack(transport)->bottom; layer; layer = layer->above)
        tell_started(transport, layer, &error);
}

static void stack_free(tram_transport *transport) {
    struct layer_stack *stack = transport_stack(transport);
    free_removed(transport);
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
    .write = stack_write,
    .write_eof = stack_write_eof,
    .close = stack_close,
    .stop = stack_stop,
    .lost = stack_lost,
    .hurry = stack_hurry,
    .drained = finish_early,
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
    stack->deadline.expire = expired;
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
    const uint32_t against = T_CLOSING | T_LOST_PENDING | T_LOST | T_WRITE_EOF | T_EOF | T_HAS_WRITER;
    if (transport->flags & against || !(transport->flags & (T_MADE | T_MADE_PENDING)))
        return TRAM_ESTATE;
    return transport->flags & T_EXCLUSIVE && transport->flags & T_MADE ? TRAM_ESTATE : 0;
}

/* Bytes that were read ahead, and behind them those that are held for the protocol. 0 or -ENOMEM: nothing happened. */
static int take_prefix(tram_transport *transport, const void *ahead, size_t size, struct held **ret_held) {
    tram_loop *loop = loop_of(transport);
    struct held *held = NULL, *old = transport->flags & T_HELD ? transport->more->held : NULL;
    int status = tram__held_append(loop, &held, ahead, size);
    if (!status && old)
        status = tram__held_append(loop, &held, old->bytes + old->taken, held_left(old));
    if (status) {
        tram__held_free(loop, held);
        return status;
    }
    if (old)
        tram__transport_drop_held(transport);
    *ret_held = held;
    return 0;
}

int tram__transport_push_layer(tram_transport *transport, struct layer *layer, const void *ahead, size_t ahead_size) {
    int status = may_push(transport);
    if (status)
        return status;
    struct layer_stack *stack = open_stack(transport);
    if (!stack || limit_time(stack, layer->start_timeout_ns))
        return -ENOMEM;
    if (take_prefix(transport, ahead, ahead_size, &layer->held)) {
        if (!first_not_ready(stack))
            end_limit(stack);
        return -ENOMEM;
    }
    layer->transport = transport;
    layer->above = NULL;
    layer->below = stack->top;
    layer->state = LAYER_NEW;
    *(stack->top ? &stack->top->above : &stack->bottom) = layer;
    stack->top = layer;
    list_remove(&transport->more->ready.link);
    transport->more->ready.run = stack_run;
    transport->flags |= T_LAYERED | T_EXCLUSIVE;
    tram__transport_choose_receiver(transport);
    if (transport->flags & T_MADE)
        run_soon(transport);
    return 0;
}
