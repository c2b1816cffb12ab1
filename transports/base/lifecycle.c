/* How a transport begins and ends, the same for every kind. What it does in between: writing.c, transport.c. */
#include "transports/base/lifecycle.h"
#include "transports/base/entering.h"
#include "transports/base/stack.h"
#include "transports/base/state.h"
#include "transports/base/transport.h"

#include <errno.h>
#include <string.h>

#include "core/loop/raised.h"
#include "transports/base/linger.h"

/* ---- Ending ---- */

__attribute__((noinline)) static void dispose_with_care(tram_loop *loop, tram_transport *transport) {
    const struct transport_kind *kind = transport_kind_of(transport);
    tram__transport_free_more(loop, transport);
    if (kind->dispose)
        kind->dispose(transport);
    else
        pool_put(&transport_state(loop)->pool, transport);
}

static void dispose(tram_loop *loop, struct deferred_free *deferred) {
    tram_transport *transport = container_of(deferred, tram_transport, on.deferred);
    const struct transport_kind *kind = transport_kind_of(transport);
    if (unlikely(kind->dispose || transport->more))
        dispose_with_care(loop, transport);
    else
        pool_put(&transport_state(loop)->pool, transport);
}

/* One line for each connection (W-6), with its peer as long as its socket is there. */
__attribute__((noinline)) static void log_dropped(tram_transport *transport, bool open) {
    unsigned count = transport->dropped_writes - 1u; /* the first is the end itself, as CPython counts */
    const void *peer = open ? transport_kind_of(transport)->extra_info(transport, "peername") : NULL;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    transport->dropped_writes = 1;
    tram__log(loop_of(transport), TRAM_LOG_WARNING,
              "%u%s writes to connection %p%s%s were dropped: the connection was gone", count,
              count + 1 == UINT16_MAX ? " or more" : "", (void *)transport, peer ? " of " : "",
              peer ? tram_socket_address_text(peer, text, sizeof text) : "");
}

static void let_go(tram_transport *transport) {
    /* While there is a hold still: the log function may take and give back one of its own. */
    if (unlikely(transport->dropped_writes > TRAM_DROPPED_WRITES_SILENT) && transport->holds == 1)
        log_dropped(transport, false);
    if (--transport->holds > 0)
        return;
    tram__loop_free_later(loop_of(transport), &transport->on.deferred, dispose);
}

static tram_future *take_creator(tram_transport *transport) {
    if (!(transport->flags & T_HAS_CREATOR))
        return NULL;
    tram_future *creator = transport->creator;
    transport->creator = NULL;
    transport->flags &= ~(uint32_t)T_HAS_CREATOR;
    return creator;
}

static inline tram_error end_error(const tram_transport *transport) {
    const struct transport_end *end = &transport->end;
    return (tram_error){.code = end->code,
                        .operation = end->operation,
                        .user = end->user,
                        .detail = unlikely(transport->more != NULL) ? transport->more->detail : NULL};
}

/* The creator learns that there will be no transport for it; where layers were not ready, why. */
static void fail_creator(tram_transport *transport) {
    tram_future *creator = take_creator(transport);
    if (!creator)
        return;
    tram_error error = end_error(transport);
    if (error.code && creator->state == FUTURE_PENDING)
        tram__future_fail(creator, &error);
    else
        tram__future_finish_cancelled(creator);
    tram_future_release(creator);
}

static void count_out(tram_transport *transport) {
    tram_loop *loop = loop_of(transport);
    stats_add(&loop->stats.connections_now, (uint64_t)-1);
    if (unlikely(transport->flags & (T_HELD | T_ASKED))) {
        loop->awaited -= (transport->flags & T_ASKED) != 0;
        if (transport->flags & T_HELD)
            tram__transport_drop_held(transport);
    }
    struct transport_owner *owner = transport->owner; /* a creator has been told by now */
    transport->owner = NULL;
    if (owner)
        owner->on_detach(owner, transport);
}

/*
 * Everything behind connection_lost: descriptor, owner, protocol, memory, in this order (T-6, V-15, X-4). The protocol
 * is the caller's to release, who gives the user of the error and the hold of the open connection back after that.
 */
static tram_protocol *finish(tram_transport *transport) {
    tram_protocol *protocol = transport->protocol;
    transport_kind_of(transport)->end(transport);
    count_out(transport);
    transport->protocol = NULL;
    return protocol;
}

__attribute__((noinline)) static void lose_with_error(tram_transport *transport) {
    tram_error error = end_error(transport);
    tram__protocol_connection_lost(transport, &error);
}

/* connection_lost, here and now: only from the loop (T-5). */
static void call_lost(tram_transport *transport) {
    if (unlikely(transport->flags & T_LAYERED))
        transport_stack(transport)->calls->lost(transport);
    transport_move(transport, MOVE_LOSE);
    if (unlikely(loop_of(transport)->debug))
        tram__log(loop_of(transport), TRAM_LOG_DEBUG, "connection %p lost: %s", (void *)transport,
                  transport->end.code ? tram_error_text(transport->end.code) : "clean end");
    if (unlikely(transport->end.code))
        lose_with_error(transport);
    else
        tram__protocol_connection_lost(transport, NULL);
    if (unlikely(transport->dropped_writes > TRAM_DROPPED_WRITES_SILENT))
        log_dropped(transport, true);
    tram__protocol_release(finish(transport));
    raised_drop(loop_of(transport), transport->end.user);
    let_go(transport);
}

static void ended_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    tram_transport *transport = container_of(ready, tram_transport, on.ready);
    tram__protocol_eof(transport); /* the end is certain: what it answers changes nothing */
    call_lost(transport);
}

/* From here on the end is certain: nothing is read or sent any more. */
static void stop_io(tram_transport *transport) {
    transport_move(transport, MOVE_END);
    if (unlikely(transport->flags & T_WRITE_FAILED))
        list_remove(&transport->on.ready.link); /* it was heard out meanwhile, and its end counted (W-6) */
    else
        transport->dropped_writes++;
    tram__io_receive_stop(&transport->io);
    tram__io_send_stop(&transport->io);
    if (unlikely(transport->more != NULL)) {
        transport_timer_cancel(loop_of(transport), &transport->more->timer);
        if (transport->more->linger)
            deadline_cancel(loop_of(transport), &transport->more->linger->deadline);
    }
    if (unlikely(transport->flags & T_LAYERED))
        transport_stack(transport)->calls->stop(transport);
    struct exclusive_writer *writer = transport_take_writer(transport);
    if (unlikely(writer != NULL))
        writer->lost(writer);
}

/* connection_made will never be called: what takes the place of connection_lost. The rest is as after finish(). */
static tram_protocol *undo(tram_transport *transport) {
    if (!(transport->flags & T_LOST_PENDING))
        stop_io(transport);
    if (transport->flags & T_LAYERED)
        transport_stack(transport)->calls->lost(transport);
    transport_move(transport, MOVE_LOSE);
    transport_kind_of(transport)->drop_queue(transport);
    fail_creator(transport);
    return finish(transport);
}

/* From the loop: `released` comes before the memory goes, for whoever has a pointer to it since its creation. */
static void lose_unmade(tram_transport *transport) {
    tram_protocol *protocol = undo(transport);
    if (protocol) /* a creation that is undone keeps its own */
        tram__protocol_release(protocol);
    raised_drop(loop_of(transport), transport->end.user);
    let_go(transport);
}

static void lost_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    tram_transport *transport = container_of(ready, tram_transport, on.ready);
    if (unlikely(transport->flags & T_MADE_PENDING))
        lose_unmade(transport);
    else
        call_lost(transport);
}

static void queue_lost(tram_transport *transport) {
    transport->on.ready.run = lost_run;
    loop_ready(loop_of(transport), &transport->on.ready);
}

void tram__transport_detach_io(tram_transport *transport) {
    tram_protocol *protocol = transport->protocol;
    stop_io(transport);
    transport_move(transport, MOVE_LOSE);
    tram__io_remove(&transport->io);
    transport->io.fd = -1;
    fail_creator(transport);
    count_out(transport);
    transport->protocol = NULL;
    tram__protocol_release_soon(loop_of(transport), protocol);
    let_go(transport);
}

/* connection_made was due, and waits for layers: what ends the transport now does not wait for it. */
static bool is_held_back(const tram_transport *transport) {
    return unlikely(transport->flags & T_LAYERED) && list_empty(&transport->on.ready.link);
}

void tram__transport_schedule_lost(tram_transport *transport) {
    stop_io(transport);
    if (!(transport->flags & T_MADE_PENDING) || is_held_back(transport))
        queue_lost(transport);
}

bool tram__transport_unsent(const tram_transport *transport) {
    return transport_write_size(transport) || transport->flags & T_HAS_WRITER;
}

void tram__transport_note_end(tram_transport *transport, enum end_reason reason) {
    transport->end.reason = reason;
    if (reason != END_BY_USER && tram__transport_unsent(transport))
        transport->flags |= T_RESET;
}

void tram__transport_fatal(tram_transport *transport, int code, const char *operation, void *user) {
    tram__transport_end_by(transport, END_BY_ERROR, code, operation, user);
}

void tram__transport_end_by(tram_transport *transport, enum end_reason reason, int code, const char *operation,
                            void *user) {
    tram_loop *loop = loop_of(transport);
    const char *detail = transport->more ? transport->more->detail : NULL;
    if (unlikely(loop->debug))
        tram__log(loop, TRAM_LOG_DEBUG, "connection %p: %s failed: %s", (void *)transport, operation,
                  detail ? detail : tram_error_text(code));
    if (transport->flags & T_LOST_PENDING)
        return;
    transport->end = (struct transport_end){.code = code, .operation = operation, .user = user};
    tram__transport_note_end(transport, reason);
    raised_claim(loop, user);
    tram__transport_schedule_lost(transport);
    /* A shared buffer's release may call anything: the end is set by then. */
    transport_kind_of(transport)->drop_queue(transport);
}

void tram__transport_fail(tram_transport *transport, int code) {
    const struct transport_end end = transport->end; /* not this failure's if the transport ended before */
    tram__transport_fatal(transport, code, end.operation ? end.operation : "callback", end.user);
}

void tram__transport_call_lost(tram_transport *transport) {
    stop_io(transport);
    call_lost(transport);
}

int tram__transport_abort(tram_transport *transport) {
    if (transport->flags & T_LOST_PENDING)
        return 0;
    tram__transport_schedule_lost(transport);
    transport_kind_of(transport)->drop_queue(transport); /* see tram__transport_fatal() */
    return 0;
}

void tram__transport_ended(tram_transport *transport) {
    stop_io(transport);
    transport->on.ready.run = ended_run;
    loop_ready(loop_of(transport), &transport->on.ready);
}

/* ---- Holds ---- */

tram_transport *tram_transport_hold(tram_transport *transport) {
    if (enter(transport, __func__) == 0)
        transport->holds++;
    return transport;
}

void tram_transport_release(tram_transport *transport) {
    if (!transport || enter(transport, __func__))
        return;
    /* A release too many gives back the hold of the open connection, which needs it until its end. */
    if (unlikely(transport->holds == 1 && transport->protocol)) {
        if (unlikely(loop_of(transport)->debug))
            tram__log(loop_of(transport), TRAM_LOG_WARNING, "connection %p was released while open", (void *)transport);
        transport->io.kind->ending(&transport->io, IO_SHUTDOWN_CLOSE);
        return;
    }
    let_go(transport);
}

/* ---- Beginning ---- */

const struct write_limits tram__write_limits = {.high = TRAM_WRITE_HIGH, .low = TRAM_WRITE_LOW};

/* They come first, but not before the creator goes on (P-4). */
static void queue_held(tram_transport *transport) {
    struct ready *ready = &transport->more->ready;
    if (list_empty(&ready->link) && !(transport->flags & T_HAS_CREATOR))
        loop_ready(loop_of(transport), ready);
}

/* It failed, or there is no descriptor: the user's half of a carrier is to know. */
__attribute__((noinline)) static void receive_started(tram_transport *transport, int status, bool before) {
    const struct transport_kind *kind = transport_kind_of(transport);
    if (status)
        tram__transport_fatal(transport, status, "epoll_ctl", NULL);
    else if (kind->resumed && !before)
        kind->resumed(transport);
}

void tram__transport_receive_start(tram_transport *transport) {
    bool before = transport->io.wanted & IO_READ;
    int status = io_receive_start(&transport->io);
    if (unlikely(status || transport->io.fd < 0))
        receive_started(transport, status, before);
}

void tram__transport_start_reading(tram_transport *transport) {
    if (transport->flags & (T_PAUSED | T_CLOSING | T_EOF | T_EXCLUSIVE) || !(transport->flags & T_MADE))
        return; /* reading starts after connection_made */
    if (unlikely(transport->flags & (T_HELD | T_LAYERED)))
        queue_held(transport);
    else
        tram__transport_receive_start(transport);
}

/* Begins to listen to what the other end does. */
static void start(tram_transport *transport) {
    const struct transport_kind *kind = transport_kind_of(transport);
    int status = unlikely(kind->start) && !(transport->flags & T_LOST_PENDING) ? kind->start(transport) : 0;
    if (unlikely(status))
        tram__transport_fatal(transport, status, "epoll_ctl", NULL);
    tram__transport_start_reading(transport);
}

static void value_let_go(void *value) {
    tram_transport_release(value);
}

/* The connection may be lost before a done callback runs: what it gets is inert then, not gone. */
__attribute__((noinline)) static void notify_creator(tram_transport *transport) {
    tram_future *creator = take_creator(transport);
    if (creator->state == FUTURE_PENDING) {
        transport->holds++;
        tram__future_holds_value(creator, value_let_go);
        tram__future_finish(creator, transport);
    }
    tram_future_release(creator);
}

ALWAYS_INLINE static void made(tram_transport *transport) {
    transport_move(transport, MOVE_MADE);
    uint32_t ended_before = transport->flags & (T_LOST_PENDING | T_ASKED);
    tram__protocol_connection_made(transport);
    start(transport);
    if (unlikely(transport->flags & T_HAS_CREATOR))
        notify_creator(transport);
    if (unlikely(transport->flags & (T_HELD | T_LAYERED)))
        tram__transport_start_reading(transport);
    if (unlikely(ended_before & T_LOST_PENDING))
        queue_lost(transport);
    else if (unlikely(ended_before))
        ask_soon(loop_of(transport));
}

static void made_run(tram_loop *loop, struct ready *ready) {
    tram_transport *transport = container_of(ready, tram_transport, on.ready);
    if (unlikely(loop->debug)) { /* the log function may call anything: it is called before a state is read */
        tram__log(loop, TRAM_LOG_DEBUG, "connection %p made on descriptor %d", (void *)transport, transport->io.fd);
        if (transport->flags & T_LOST)
            return; /* withdrawn */
    }
    if (likely(!(transport->flags & T_LAYERED)))
        made(transport);
    else if (transport->flags & T_LOST_PENDING && list_empty(&ready->link))
        lose_unmade(transport);
    else if (transport->flags & T_LOST_PENDING)
        return; /* the log function ended it, which lost_run() acts upon */
    else if (transport_stack(transport)->calls->made(transport))
        tram__transport_made(transport);
}

void tram__transport_made(tram_transport *transport) {
    made(transport);
}

/* Pieces of up to a cache line become plain stores; of a whole transport compilers make a `rep stos`, which is slow. */
static inline void zero(tram_transport *transport, size_t from, size_t to) {
    memset((char *)transport + from, 0, to - from);
}

/* The rest is zero, or what the kind put there. */
ALWAYS_INLINE static void begin(tram_transport *transport, tram_loop *loop, const struct transport_kind *kind,
                                tram_protocol *protocol, tram_future *creator) {
    transport->protocol = protocol;
    transport->holds++;
    transport->limits = &tram__write_limits;
    transport->flags = LIFE_BEGINS | kind->flags;
    if (unlikely(creator != NULL)) {
        transport->creator = tram_future_hold(creator);
        transport->flags |= T_HAS_CREATOR;
    }
    if (unlikely(protocol->ops->get_buffer && kind->buffered))
        transport->io.receiver = kind->buffered;
    transport->on.ready.run = made_run;
    stats_add(&loop->stats.connections, 1);
    stats_add(&loop->stats.connections_now, 1);
    loop_ready(loop, &transport->on.ready);
}

void tram__transport_begin(tram_transport *transport, tram_protocol *protocol, tram_future *creator) {
    begin(transport, loop_of(transport), transport_kind_of(transport), protocol, creator);
}

/*
 * The peer's address, where it fits: later the kernel may have forgotten it, since after a reset nobody is connected
 * any more. For the name of a Unix socket, which it does not forget, the kernel is asked when someone wants to know.
 */
static inline void keep_peer(tram_transport *transport, const struct sockaddr_storage *peer, socklen_t size) {
    bool inet = peer->ss_family == AF_INET || peer->ss_family == AF_INET6;
    if (likely(inet))
        memcpy(&transport->peer, peer, sizeof transport->peer); /* of a constant size: no call */
    else if (size == sizeof(sa_family_t) && peer->ss_family == AF_UNIX)
        transport->peer.sin6_family = AF_UNIX;
}

int tram__transport_new(tram_loop *loop, const struct transport_kind *kind, int fd, tram_protocol *protocol,
                        const struct transport_options *options, tram_transport **ret_transport) {
    _Static_assert(sizeof(tram_transport) <= 176 || sizeof(void *) != 8, "an idle connection is to fit 224 bytes");
    struct pool *pool = &transport_state(loop)->pool;
    tram_transport *transport = pool_get(pool);
    if (unlikely(!transport))
        return -ENOMEM;
    int status = io_add(&transport->io, loop, &kind->io, fd);
    if (unlikely(status)) {
        pool_put(pool, transport);
        return status;
    }
    zero(transport, sizeof transport->io, offsetof(tram_transport, limits));
    zero(transport, offsetof(tram_transport, end), sizeof *transport);
    if (likely(options->peer))
        keep_peer(transport, options->peer, options->peer_size);
    transport->owner = options->owner;
    TRAM_DCHECK(!options->owner || !options->creator);
    begin(transport, loop, kind, protocol, options->creator);
    *ret_transport = transport;
    return 0;
}

bool tram__transport_withdraw(tram_transport *transport) {
    if (!(transport->flags & T_MADE_PENDING))
        return false;
    list_remove(&transport->on.ready.link);
    tram_protocol *protocol = undo(transport);
    if (protocol)
        tram__protocol_release_soon(loop_of(transport), protocol);
    raised_drop(loop_of(transport), transport->end.user);
    let_go(transport);
    return true;
}

static void warn_still_open(const tram_transport *transport) {
    char state[160];
    tram__transport_describe(transport, state, sizeof state);
    tram__log(loop_of(transport), TRAM_LOG_WARNING, "connection %p was still open when its loop closed (%s)",
              (const void *)transport, state);
}

void tram__transport_drop(tram_transport *transport) {
    if (transport->flags & T_LOST)
        return;
    if (transport->flags & T_MADE_PENDING) {
        list_remove(&transport->on.ready.link);
        lose_unmade(transport);
        return;
    }
    tram_loop *loop = loop_of(transport);
    if (transport->flags & T_LOST_PENDING) {
        list_remove(&transport->on.ready.link);
    } else {
        tram__transport_note_end(transport, END_STOP);
        if (transport->flags & T_RESET)
            transport->end =
                (struct transport_end){.code = TRAM_ECANCELLED, .operation = "loop_close", .reason = END_STOP};
        stop_io(transport);
    }
    if (unlikely(loop->debug))
        warn_still_open(transport);
    transport_kind_of(transport)->drop_queue(transport);
    call_lost(transport);
}
