/*
 * Graceful ends (G-1 to G-3): a connection is asked to end, ends when its work is done, and is cut when the grace is
 * over.
 *
 * tram__transport_ask_end() marks it. What may call the user happens in a pass over the loop's transports, which runs
 * from the ready queue: it calls `closing` of each protocol that was not told, and closes those that have none once
 * nothing is left to do for them. A protocol that comes later, and work that ends, cause another pass. A pass calls few
 * protocols in one tick, so that a stop and the end of the grace do not wait behind them (G-5).
 */
#include "transports/base/entering.h"
#include "transports/base/protocol_adapter.h"
#include "transports/base/stack.h"
#include "transports/base/state.h"
#include "transports/base/transport.h"

#include <errno.h>

#define CALLS_PER_TICK 64

/* ---- Asking ---- */

/* The server that it belongs to, or who stands in for it; NULL: none. */
static struct transport_owner *owner_of(const tram_transport *transport) {
    return transport->flags & T_HAS_CREATOR ? NULL : transport->owner;
}

/* The loop's end, or the server's, whichever comes first; 0: there is none. */
static uint64_t earlier(uint64_t a_ns, uint64_t b_ns) {
    return !a_ns || (b_ns && b_ns < a_ns) ? b_ns : a_ns;
}

static uint64_t deadline_of(const tram_transport *transport) {
    const struct transport_owner *owner = owner_of(transport);
    uint64_t end_ns = earlier(loop_of(transport)->end_ns, owner ? owner->root->end_ns : 0);
    return end_ns ? end_ns : TRAM_FOREVER;
}

/* A file is being sent, what came is not delivered yet, or the program said that it works for this connection. */
static bool busy(const tram_transport *transport) {
    return transport_sends_file(transport) || transport_is_behind(transport) || tram_transport_work(transport);
}

static bool asked(const tram_transport *transport) {
    return (transport->flags & (T_ASKED | T_MADE | T_CLOSING)) == (T_ASKED | T_MADE);
}

/* One step towards its end; counts where a protocol is called. */
static void advance(tram_transport *transport, unsigned *calls) {
    if (!transport->protocol->ops->closing) {
        if (!busy(transport))
            tram_transport_close(transport);
    } else if (!(transport->flags & T_TOLD)) {
        transport->flags |= T_TOLD;
        ++*calls;
        if (tram__protocol_closing(transport, deadline_of(transport)))
            tram_transport_close(transport);
    }
}

static void run_pass(tram_loop *loop, struct ready *ready) {
    struct transport_state *state = container_of(ready, struct transport_state, asks);
    unsigned calls = 0;
    while (state->ask_slot < slots_count(&loop->io_slots) && calls < CALLS_PER_TICK) {
        struct io *io = io_of_slot(loop, state->ask_slot++);
        if (io && io->kind->transport && asked((tram_transport *)(void *)io))
            advance((tram_transport *)(void *)io, &calls);
    }
    state->asking = false;
    if (state->ask_slot < slots_count(&loop->io_slots)) {
        state->asking = true;
        loop_ready(loop, ready);
    } else if (state->ask_again) {
        ask_soon(loop);
    }
}

void tram__transport_ask_end(tram_transport *transport) {
    tram_loop *loop = loop_of(transport);
    if (transport->flags & (T_ASKED | T_CLOSING))
        return;
    transport->flags |= T_ASKED | T_SERVER_CLOSE;
    loop->awaited++;
    transport_state(loop)->asks.run = run_pass;
    if (transport->flags & T_MADE_PENDING) {
        if (transport->flags & T_LAYERED)
            transport_stack(transport)->calls->hurry(transport);
        return; /* the pass comes after connection_made */
    }
    if (transport->protocol->ops->closing || busy(transport))
        ask_soon(loop);
    else
        tram_transport_close(transport);
}

/* ---- Cutting ---- */

void tram__transport_expire(tram_transport *transport) {
    tram_loop *loop = loop_of(transport);
    if (transport->flags & T_LOST_PENDING)
        return;
    if (transport->flags & T_LINGERING) {
        tram__transport_schedule_lost(transport); /* nothing is left to be cut */
        return;
    }
    loop->cut++;
    stats_add(&loop->stats.expired_grace, 1);
    /* One that was to end by itself did not, or bytes are lost: an orderly end would be a lie (W-30). */
    if (transport->protocol->ops->closing || busy(transport) || tram__transport_unsent(transport)) {
        transport->flags |= T_RESET;
        transport->end = (struct transport_end){.code = TRAM_ETIMEOUT, .operation = "grace", .reason = END_STOP};
    }
    tram_transport_abort(transport);
}

/* ---- A loop or server that ends ---- */

void tram__transport_ending(tram_transport *transport, enum shutdown_mode ending) {
    bool served = owner_of(transport) || (transport->protocol && transport->protocol->ops->closing);
    if (ending == IO_SHUTDOWN_CLOSE || (ending == IO_SHUTDOWN_DRAIN && served))
        tram__transport_ask_end(transport);
    else if (ending == IO_SHUTDOWN_ABORT)
        tram__transport_expire(transport);
    else if (ending == IO_SHUTDOWN_NOW)
        tram__transport_drop(transport);
}

/* ---- Work ---- */

/* NULL: out of memory. */
static struct transport_work *need_work(tram_transport *transport) {
    if (tram__transport_need_more(transport))
        return NULL;
    struct transport_work *work = transport->more->work;
    if (work)
        return work;
    work = memory_get(&loop_of(transport)->allocator, sizeof *work);
    if (work)
        *work = (struct transport_work){.transport = transport};
    return transport->more->work = work;
}

int tram_transport_begin_work(tram_transport *transport) {
    int status = enter(transport, __func__);
    if (!status && !transport->protocol)
        status = TRAM_ESTATE;
    if (status)
        return status;
    struct transport_work *work = need_work(transport);
    if (!work)
        return -ENOMEM;
    if (work->count++ == 0)
        list_append(&transport_state(loop_of(transport))->working, &work->link);
    loop_of(transport)->awaited++;
    transport->holds++;
    return 0;
}

int tram_transport_end_work(tram_transport *transport) {
    int status = enter(transport, __func__);
    if (status)
        return status;
    if (!tram_transport_work(transport))
        return TRAM_ESTATE;
    struct transport_work *work = transport->more->work;
    if (--work->count == 0)
        list_remove(&work->link);
    loop_of(transport)->awaited--;
    if (asked(transport) && !transport->protocol->ops->closing && !busy(transport))
        tram_transport_close(transport);
    tram_transport_release(transport);
    return 0;
}

size_t tram_transport_work(const tram_transport *transport) {
    const struct transport_work *work = transport->more ? transport->more->work : NULL;
    return work ? work->count : 0;
}
