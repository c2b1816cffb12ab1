/*
 * The transport's state machine: how it begins, writes and ends, the same for every kind.
 *
 * Reading order: tram_transport_write() and below for bytes going out; tram__transport_sent() for what follows when the
 * kernel took some; lose_soon() and lose_now() for the end.
 */
#include "transports/transport.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

static inline tram_loop *loop_of(const tram_transport *transport) {
    return transport->io.loop;
}

/* Getters call it for its report alone. */
static int enter(const tram_transport *transport, const char *function) {
    return loop_enter(transport->io.loop, function);
}

/* ---- Ending ---- */

static void dispose(tram_loop *loop, struct grave *grave) {
    tram_transport *transport = container_of(grave, tram_transport, on.grave);
    const struct transport_kind *kind = transport_kind_of(transport);
    memory_put(&loop->allocator, transport->more, sizeof *transport->more);
    if (unlikely(kind->dispose))
        kind->dispose(transport);
    else
        pool_put(&loop->transport_pool, transport);
}

static void let_go(tram_transport *transport) {
    if (--transport->holds == 0)
        tram__loop_bury(loop_of(transport), &transport->on.grave, dispose);
}

static tram_future *take_creator(tram_transport *transport) {
    if (!(transport->flags & T_HAS_CREATOR))
        return NULL;
    tram_future **place = unlikely(transport->flags & T_UNREAD) ? &transport->unread->creator : &transport->creator;
    tram_future *creator = *place;
    *place = NULL;
    transport->flags &= ~(uint32_t)T_HAS_CREATOR;
    return creator;
}

/* The creator learns that there will be no transport for it. */
static void abandon_creator(tram_transport *transport) {
    tram_future *creator = take_creator(transport);
    if (!creator)
        return;
    tram__future_finish_cancelled(creator);
    tram_future_release(creator);
}

static void dispose_unread(tram_loop *loop, struct grave *grave) {
    struct unread *unread = container_of(grave, struct unread, grave);
    memory_put(&loop->allocator, unread, sizeof *unread + unread->size);
}

void tram__transport_drop_unread(tram_transport *transport) {
    if (likely(!(transport->flags & T_UNREAD)))
        return;
    struct unread *unread = transport->unread;
    transport->flags &= ~(uint32_t)T_UNREAD;
    transport->creator = unread->creator;
    list_remove(&unread->ready.link);
    tram__loop_bury(loop_of(transport), &unread->grave, dispose_unread);
}

static void count_out(tram_transport *transport) {
    stats_add(&loop_of(transport)->stats.connections_now, (uint64_t)-1);
    tram__transport_drop_unread(transport);
    struct transport_owner *owner = transport->owner; /* a creator has been told by now */
    transport->owner = NULL;
    if (owner)
        owner->detached(owner, transport);
}

/* Everything behind connection_lost: descriptor, owner, protocol, memory, in this order (T-6, V-15, X-4). */
static void finish(tram_transport *transport) {
    tram_protocol *protocol = transport->protocol;
    transport->flags |= T_LOST;
    transport_kind_of(transport)->end(transport);
    count_out(transport);
    transport->protocol = NULL;
    tram__protocol_release(protocol);
    let_go(transport);
}

/* connection_lost, here and now: only from the loop (T-5). */
static void lose_now(tram_transport *transport) {
    const struct transport_end *end = &transport->end;
    tram_error error = {.code = end->code, .operation = end->operation, .user = end->user};
    transport->flags |= T_LOST;
    if (unlikely(loop_of(transport)->debug))
        tram__log(loop_of(transport), TRAM_LOG_DEBUG, "connection %p lost: %s", (void *)transport,
                  end->code ? tram_error_text(end->code) : "clean end");
    tram__protocol_connection_lost(transport, end->code ? &error : NULL);
    finish(transport);
}

static void ended_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    tram_transport *transport = container_of(ready, tram_transport, on.ready);
    tram__protocol_eof(transport); /* the end is certain: what it answers changes nothing */
    lose_now(transport);
}

static void lost_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    lose_now(container_of(ready, tram_transport, on.ready));
}

static void queue_lost(tram_transport *transport) {
    transport->on.ready.run = lost_run;
    loop_ready(loop_of(transport), &transport->on.ready);
}

/* From here on the end is certain: nothing is read or sent any more. */
static void seal(tram_transport *transport) {
    transport->flags |= T_CLOSING | T_LOST_QUEUED;
    transport->dropped_writes++;
    tram__io_receive_stop(&transport->io);
    tram__io_send_stop(&transport->io);
    struct pump *pump = transport_pump(transport);
    if (unlikely(pump != NULL)) {
        tram__transport_unpump(transport);
        pump->lost(pump);
    }
}

void tram__transport_leave(tram_transport *transport) {
    tram_protocol *protocol = transport->protocol;
    seal(transport);
    transport->flags |= T_LOST;
    tram__io_remove(&transport->io);
    transport->io.fd = -1;
    abandon_creator(transport);
    count_out(transport);
    transport->protocol = NULL;
    tram__protocol_release_soon(loop_of(transport), protocol);
    let_go(transport);
}

/* connection_lost soon; while connection_made is still queued, it takes over (C-16). */
static void lose_soon(tram_transport *transport) {
    seal(transport);
    if (!(transport->flags & T_MAKE_QUEUED))
        queue_lost(transport);
}

void tram__transport_fatal(tram_transport *transport, int code, const char *operation, void *user) {
    tram_loop *loop = loop_of(transport);
    if (unlikely(loop->debug))
        tram__log(loop, TRAM_LOG_DEBUG, "connection %p: %s failed: %s", (void *)transport, operation,
                  tram_error_text(code));
    if (transport->flags & (T_LOST_QUEUED | T_LOST))
        return;
    transport->end = (struct transport_end){.code = code, .operation = operation, .user = user};
    lose_soon(transport);
    /* A shared buffer's release may call anything: the end is set by then. */
    transport_kind_of(transport)->drop_queue(transport);
}

void tram__transport_fail(tram_transport *transport, int code) {
    const struct transport_end end = transport->end; /* not this failure's if the transport ended before */
    tram__transport_fatal(transport, code, end.operation ? end.operation : "callback", end.user);
}

int tram__transport_abort(tram_transport *transport) {
    if (transport->flags & (T_LOST_QUEUED | T_LOST))
        return 0;
    lose_soon(transport);
    transport_kind_of(transport)->drop_queue(transport); /* see tram__transport_fatal() */
    return 0;
}

void tram__transport_ended(tram_transport *transport) {
    seal(transport);
    transport->on.ready.run = ended_run;
    loop_ready(loop_of(transport), &transport->on.ready);
}

static void flush_corked(tram_transport *transport);
static void make_way(tram_transport *transport);

int tram__transport_close(tram_transport *transport) {
    if (transport->flags & T_CLOSING)
        return 0;
    make_way(transport);
    transport->flags |= T_CLOSING;
    tram__io_receive_stop(&transport->io);
    if (unlikely(transport->corked))
        flush_corked(transport);
    if (write_queue_empty(&transport->queue) && !(transport->flags & T_LOST_QUEUED))
        lose_soon(transport);
    return 0;
}

bool tram_transport_is_closing(const tram_transport *transport) {
    enter(transport, __func__);
    return transport->flags & T_CLOSING;
}

tram_transport *tram_transport_hold(tram_transport *transport) {
    enter(transport, __func__);
    transport->holds++;
    return transport;
}

void tram_transport_release(tram_transport *transport) {
    enter(transport, __func__);
    /* A release too many gives back the hold of the open connection, which needs it until its end. */
    if (unlikely(transport->holds == 1 && transport->protocol)) {
        if (unlikely(loop_of(transport)->debug))
            tram__log(loop_of(transport), TRAM_LOG_WARNING, "connection %p was released while open", (void *)transport);
        tram_transport_close(transport);
        return;
    }
    let_go(transport);
}

/* ---- Beginning ---- */

/* They come first, but not before the creator goes on (P-4). */
static void queue_unread(tram_transport *transport) {
    struct unread *unread = transport->unread;
    if (list_empty(&unread->ready.link) && !(transport->flags & T_HAS_CREATOR))
        loop_ready(loop_of(transport), &unread->ready);
}

void tram__transport_start_reading(tram_transport *transport) {
    if (transport->flags & (T_PAUSED | T_CLOSING | T_EOF | T_PUMPED) || !(transport->flags & T_MADE))
        return; /* reading starts after connection_made */
    if (unlikely(transport->flags & T_UNREAD)) {
        queue_unread(transport);
        return;
    }
    int status = tram__io_receive_start(&transport->io);
    if (unlikely(status))
        tram__transport_fatal(transport, status, "epoll_ctl", NULL);
}

/* Begins to listen to what the other end does. */
static void start(tram_transport *transport) {
    const struct transport_kind *kind = transport_kind_of(transport);
    int status = 0;
    if (unlikely(kind->start) && !(transport->flags & T_LOST_QUEUED))
        status = kind->start(transport);
    if (unlikely(status))
        tram__transport_fatal(transport, status, "epoll_ctl", NULL);
    tram__transport_start_reading(transport);
}

static void value_let_go(void *value) {
    tram_transport_release(value);
}

/* The connection may be lost before a done callback runs: what it gets is inert then, not gone. */
static void tell_creator(tram_transport *transport, tram_future *creator) {
    if (creator->state == FUTURE_PENDING) {
        transport->holds++;
        creator->let_go = value_let_go;
        tram__future_finish(creator, transport);
    }
    tram_future_release(creator);
}

static void made_run(tram_loop *loop, struct ready *ready) {
    tram_transport *transport = container_of(ready, tram_transport, on.ready);
    transport->flags = (transport->flags & ~(uint32_t)T_MAKE_QUEUED) | T_MADE;
    if (unlikely(loop->debug))
        tram__log(loop, TRAM_LOG_DEBUG, "connection %p made on descriptor %d", (void *)transport, transport->io.fd);
    uint32_t sealed_before = transport->flags & T_LOST_QUEUED;
    tram__protocol_connection_made(transport);
    start(transport);
    tram_future *creator = take_creator(transport);
    if (creator)
        tell_creator(transport, creator);
    if (unlikely(transport->flags & T_UNREAD))
        tram__transport_start_reading(transport);
    if (unlikely(sealed_before))
        queue_lost(transport);
}

int tram__transport_new(tram_loop *loop, const struct transport_kind *kind, int fd, tram_transport **ret_transport) {
    _Static_assert(sizeof(tram_transport) <= 192 || sizeof(void *) != 8, "an idle connection is to fit 256 bytes");
    if (unlikely(!loop->transport_pool.allocator))
        tram__pool_init(&loop->transport_pool, &loop->allocator, sizeof(tram_transport));
    tram_transport *transport = pool_get(&loop->transport_pool);
    if (!transport)
        return -ENOMEM;
    memset(&transport->io + 1, 0, sizeof *transport - sizeof transport->io);
    int status = tram__io_add(&transport->io, loop, &kind->io, fd);
    if (status)
        pool_put(&loop->transport_pool, transport);
    else
        *ret_transport = transport;
    return status;
}

void tram__transport_begin(tram_transport *transport, tram_protocol *protocol, struct transport_owner *owner,
                           tram_future *creator) {
    tram_loop *loop = loop_of(transport);
    transport->protocol = protocol;
    transport->holds++;
    transport->high = TRAM_WRITE_HIGH;
    transport->low = TRAM_WRITE_LOW;
    TRAM_ASSERT(!owner || !creator);
    transport->owner = owner;
    if (creator)
        transport->creator = tram_future_hold(creator);
    transport->on.ready.run = made_run;
    const struct transport_kind *kind = transport_kind_of(transport);
    transport->io.kind = protocol->ops->get_buffer ? &kind->buffered->io : &kind->plain->io;
    transport->flags = T_MAKE_QUEUED | (kind->calls ? (uint32_t)T_SPECIAL : 0) |
                       (kind->no_reading ? (uint32_t)T_EOF : 0) | (creator ? (uint32_t)T_HAS_CREATOR : 0);
    stats_add(&loop->stats.connections, 1);
    stats_add(&loop->stats.connections_now, 1);
    loop_ready(loop, &transport->on.ready);
    if (owner)
        owner->attached(owner, transport);
}

bool tram__transport_withdraw(tram_transport *transport) {
    if (!(transport->flags & T_MAKE_QUEUED))
        return false;
    list_remove(&transport->on.ready.link);
    seal(transport);
    transport->flags &= ~(uint32_t)T_MAKE_QUEUED;
    transport_kind_of(transport)->drop_queue(transport);
    abandon_creator(transport);
    finish(transport);
    return true;
}

/* The loop closes: end within this call, with connection_lost for whoever got connection_made. */
static void drop(tram_transport *transport) {
    if (tram__transport_withdraw(transport))
        return;
    if (transport->flags & T_LOST)
        return;
    tram_loop *loop = loop_of(transport);
    if (transport->flags & T_LOST_QUEUED)
        list_remove(&transport->on.ready.link);
    else
        seal(transport);
    if (unlikely(loop->debug))
        tram__log(loop, TRAM_LOG_WARNING, "connection %p was still open when its loop closed", (void *)transport);
    transport_kind_of(transport)->drop_queue(transport);
    lose_now(transport);
}

void tram__transport_ending(tram_transport *transport, enum io_ending ending) {
    switch (ending) {
    case IO_ENDING_STOP:
        break;
    case IO_ENDING_CLOSE:
        tram_transport_close(transport);
        break;
    case IO_ENDING_ABORT:
        tram_transport_abort(transport);
        break;
    case IO_ENDING_DROP:
        drop(transport);
        break;
    }
}

void tram__transport_each(tram_loop *loop, const struct transport_owner *owner,
                          void (*visit)(tram_transport *transport)) {
    for (uint32_t slot = 1; slot < loop->io_slot_count; slot++) {
        struct io *io = loop->io_slots[slot].io;
        if (io && io->kind->transport && ((tram_transport *)(void *)io)->owner == owner)
            visit((tram_transport *)(void *)io);
    }
}

/* ---- Reading ---- */

int tram__transport_pause_reading(tram_transport *transport) {
    if (transport->flags & (T_PAUSED | T_CLOSING | T_EOF))
        return 0;
    transport->flags |= T_PAUSED;
    tram__io_receive_stop(&transport->io);
    return 0;
}

int tram__transport_resume_reading(tram_transport *transport) {
    if (!(transport->flags & T_PAUSED) || transport->flags & (T_CLOSING | T_EOF))
        return 0;
    transport->flags &= ~(uint32_t)T_PAUSED;
    tram__transport_start_reading(transport);
    return 0;
}

bool tram_transport_is_reading(const tram_transport *transport) {
    enter(transport, __func__);
    return !(transport->flags & (T_PAUSED | T_CLOSING | T_EOF | T_PUMPED));
}

/* ---- Writing ---- */

void tram__transport_maybe_pause(tram_transport *transport) {
    if (transport->queue.size <= transport->high || transport->flags & T_WRITING_PAUSED)
        return;
    transport->flags |= T_WRITING_PAUSED;
    tram__protocol_pause_writing(transport);
}

void tram__transport_maybe_resume(tram_transport *transport) {
    if (!(transport->flags & T_WRITING_PAUSED) || transport->queue.size > transport->low)
        return;
    if (unlikely(transport->flags & T_LOST_QUEUED))
        return; /* the release of a buffer that was just sent ended it (W-23) */
    transport->flags &= ~(uint32_t)T_WRITING_PAUSED;
    tram__protocol_resume_writing(transport);
}

static void count_sent(tram_loop *loop, ssize_t sent) {
    stats_add(&loop->stats.writes, 1);
    stats_add(&loop->stats.bytes_sent, (uint64_t)sent);
}

void tram__transport_over_limit(tram_transport *transport, const char *operation, const char *message) {
    tram__transport_fatal(transport, TRAM_ELIMIT, operation, NULL);
    tram_error error = {.code = TRAM_ELIMIT, .operation = operation};
    tram_exception exception = {
        .message = message,
        .error = &error,
        .transport = transport,
        .protocol = transport->protocol,
        .fd = transport->io.fd,
    };
    tram__report(loop_of(transport), &exception);
}

void tram__transport_queue_grew(tram_transport *transport) {
    if (unlikely(transport->hard_limit && transport->queue.size > transport->hard_limit)) {
        tram__transport_over_limit(transport, "write", "more is queued for writing than the hard limit allows");
        return;
    }
    tram__transport_maybe_pause(transport);
}

void tram__transport_queued(tram_transport *transport) {
    if (!transport->corked) {
        int status = tram__io_send_start(&transport->io);
        if (unlikely(status)) {
            tram__transport_fatal(transport, status, "epoll_ctl", NULL);
            return;
        }
    }
    tram__transport_queue_grew(transport);
}

static int out_of_memory(tram_transport *transport) {
    tram__transport_fatal(transport, -ENOMEM, "write", NULL);
    return -ENOMEM;
}

/* The connection is gone: the bytes are dropped, and counted (W-6). */
void tram__transport_drop_write(tram_transport *transport) {
    tram_loop *loop = loop_of(transport);
    stats_add(&loop->stats.dropped_writes, 1);
    if (transport->dropped_writes >= TRAM_DROPPED_WRITES_SILENT)
        tram__log(loop, TRAM_LOG_WARNING, "a write to connection %p was dropped: the connection is gone",
                  (void *)transport);
    if (transport->dropped_writes < TRAM_DROPPED_WRITES_SILENT)
        transport->dropped_writes++;
}

static void make_way(tram_transport *transport) {
    if (unlikely(transport->flags & T_GIVES_WAY))
        transport->on.pump->give_way(transport->on.pump);
}

#define T_NO_WRITING (T_EOF_ASKED | T_LOST_QUEUED | T_LOST | T_PUMPED)

static int may_not_write(tram_transport *transport, size_t size) {
    make_way(transport);
    if (!(transport->flags & T_NO_WRITING))
        return size != 0;
    if (transport->flags & (T_EOF_ASKED | T_PUMPED))
        return TRAM_ESTATE;
    if (size)
        tram__transport_drop_write(transport);
    return 0;
}

/* What stands before any write. 1: go on; 0: nothing to do; negative: misuse. */
static inline int may_write(tram_transport *transport, size_t size) {
    if (likely(!(transport->flags & (T_NO_WRITING | T_GIVES_WAY))))
        return size != 0;
    return may_not_write(transport, size);
}

/* Nothing is queued before it: the kernel may take it at once. */
static inline bool goes_at_once(const tram_transport *transport) {
    return likely(write_queue_empty(&transport->queue)) && likely(!transport->corked);
}

/* What the kernel took of a send; 0 also where the connection just died. */
static inline size_t taken(tram_transport *transport, ssize_t sent) {
    if (likely(sent >= 0)) {
        count_sent(loop_of(transport), sent);
        return (size_t)sent;
    }
    if (sent != -EAGAIN)
        tram__transport_fatal(transport, (int)sent, "send", NULL);
    return 0;
}

static bool died(const tram_transport *transport) {
    return transport->flags & T_LOST_QUEUED;
}

static int keep_rest(tram_transport *transport, const void *data, size_t size) {
    if (died(transport))
        return 0;
    if (tram__write_queue_copy(loop_of(transport), &transport->queue, data, size) < 0)
        return out_of_memory(transport);
    tram__transport_queued(transport);
    return 0;
}

int tram__transport_write(tram_transport *transport, const void *data, size_t size) {
    if (unlikely(!data && size))
        return TRAM_EVALUE;
    int status = may_write(transport, size);
    if (unlikely(status <= 0))
        return status;
    size_t sent = 0;
    if (goes_at_once(transport))
        sent = taken(transport, io_try_send(&transport->io, data, size));
    return likely(sent == size) ? 0 : keep_rest(transport, (const char *)data + sent, size - sent);
}

int tram__transport_writelines(tram_transport *transport, const struct iovec *pieces, size_t count) {
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        if (!pieces[i].iov_base && pieces[i].iov_len)
            return TRAM_EVALUE;
        size += pieces[i].iov_len;
    }
    int status = may_write(transport, size);
    if (unlikely(status <= 0))
        return status;
    size_t sent = 0;
    if (goes_at_once(transport))
        sent = taken(transport, io_try_send_pieces(&transport->io, pieces, count < IOV_MAX ? count : IOV_MAX));
    if (likely(sent == size) || died(transport))
        return 0;
    for (size_t i = 0; i < count; i++) {
        size_t skip = sent < pieces[i].iov_len ? sent : pieces[i].iov_len;
        sent -= skip;
        if (skip == pieces[i].iov_len)
            continue; /* sent, or empty: then its address may be NULL */
        if (tram__write_queue_copy(loop_of(transport), &transport->queue, (const char *)pieces[i].iov_base + skip,
                                   pieces[i].iov_len - skip) < 0)
            return out_of_memory(transport);
    }
    tram__transport_queued(transport);
    return 0;
}

int tram__transport_write_buffer(tram_transport *transport, tram_buffer *buffer) {
    if (unlikely(!buffer))
        return TRAM_EVALUE;
    size_t size = tram_buffer_size(buffer);
    int status = may_write(transport, size);
    if (unlikely(status <= 0))
        return status;
    size_t sent = 0;
    if (goes_at_once(transport))
        sent = taken(transport, io_try_send(&transport->io, tram_buffer_data(buffer), size));
    if (likely(sent == size) || died(transport))
        return 0;
    if (tram__write_queue_refer(loop_of(transport), &transport->queue, buffer, sent) < 0)
        return out_of_memory(transport);
    tram__transport_queued(transport);
    return 0;
}

/* The queue is empty: what was waiting for that? `within_loop`: connection_lost may be called here. */
void tram__transport_drained(tram_transport *transport, bool within_loop) {
    if (transport_pump(transport) && !(transport->flags & T_CLOSING)) {
        transport_pump(transport)->drained(transport_pump(transport));
        return;
    }
    tram__io_send_stop(&transport->io);
    if (transport->flags & T_CLOSING) {
        if (!within_loop) {
            lose_soon(transport);
            return;
        }
        seal(transport);
        lose_now(transport);
    } else if (transport->flags & T_EOF_ASKED) {
        transport_kind_of(transport)->end_writing(transport);
    }
}

static void sent(tram_transport *transport, ssize_t result, bool within_loop) {
    if (unlikely(result < 0)) {
        tram__transport_fatal(transport, (int)result, "send", NULL);
        return;
    }
    tram__write_queue_consume(loop_of(transport), &transport->queue, (size_t)result);
    tram__transport_maybe_resume(transport); /* may write, close, abort (W-20) */
    if (write_queue_empty(&transport->queue) && !(transport->flags & T_LOST_QUEUED))
        tram__transport_drained(transport, within_loop);
}

void tram__transport_sent(tram_transport *transport, ssize_t result) {
    sent(transport, result, true);
}

/* Ends all corking and sends what it held back, as far as the kernel takes it. */
static void flush_corked(tram_transport *transport) {
    transport->corked = 0;
    if (write_queue_empty(&transport->queue) || transport->flags & (T_LOST_QUEUED | T_LOST))
        return;
    struct iovec pieces[TRAM_WRITE_PIECES];
    size_t count = tram__write_queue_gather(&transport->queue, pieces, TRAM_WRITE_PIECES);
    ssize_t result = transport->io.wanted & IO_WRITE ? -EAGAIN : io_try_send_pieces(&transport->io, pieces, count);
    if (result != -EAGAIN) {
        if (result > 0)
            count_sent(loop_of(transport), result);
        sent(transport, result, false);
    }
    if (!write_queue_empty(&transport->queue)) {
        int status = tram__io_send_start(&transport->io);
        if (unlikely(status))
            tram__transport_fatal(transport, status, "epoll_ctl", NULL);
    }
}

int tram__transport_cork(tram_transport *transport) {
    if (transport->corked == UINT16_MAX)
        return TRAM_ELIMIT;
    transport->corked++;
    return 0;
}

int tram__transport_uncork(tram_transport *transport) {
    if (!transport->corked)
        return 0; /* close() ended it */
    if (--transport->corked == 0)
        flush_corked(transport);
    return 0;
}

int tram__transport_write_eof(tram_transport *transport) {
    if (transport->flags & (T_CLOSING | T_EOF_ASKED))
        return 0;
    if (transport->flags & T_PUMPED)
        return TRAM_ESTATE;
    make_way(transport);
    transport->flags |= T_EOF_ASKED;
    if (unlikely(transport->corked && !write_queue_empty(&transport->queue))) {
        flush_corked(transport); /* which ends the writing side when nothing is left */
        return 0;
    }
    return write_queue_empty(&transport->queue) ? transport_kind_of(transport)->end_writing(transport) : 0;
}

void tram__transport_pump(tram_transport *transport, struct pump *pump) {
    transport->on.pump = pump;
    transport->flags |= T_PUMPED | T_HAS_PUMP;
    tram__io_receive_stop(&transport->io);
    if (unlikely(transport->corked))
        flush_corked(transport);
}

void tram__transport_pump_beside(tram_transport *transport, struct pump *pump) {
    transport->on.pump = pump;
    transport->flags |= T_HAS_PUMP | T_GIVES_WAY;
    transport->io.flags |= IO_SENDS_FILE;
}

void tram__transport_unpump(tram_transport *transport) {
    transport->flags &= ~(uint32_t)(T_PUMPED | T_HAS_PUMP | T_GIVES_WAY);
    transport->io.flags &= (uint8_t)~IO_SENDS_FILE;
    tram__transport_start_reading(transport);
}

bool tram_transport_can_write_eof(const tram_transport *transport) {
    return transport_kind_of(transport)->can_write_eof;
}

/* ---- The public calls, which a kind may have in its own way ---- */

/* The kind's own function if the kind is a special one, -ENOTSUP if it has none, else the common one above. */
#define FORWARD(transport, call, ...)                                                                                  \
    do {                                                                                                               \
        int entered = enter(transport, __func__);                                                                      \
        if (unlikely(entered))                                                                                         \
            return entered;                                                                                            \
        if (likely(!((transport)->flags & T_SPECIAL)))                                                                 \
            return tram__transport_##call(__VA_ARGS__);                                                                \
        const struct transport_calls *calls = transport_kind_of(transport)->calls;                                     \
        return calls->call ? calls->call(__VA_ARGS__) : -ENOTSUP;                                                      \
    } while (0)

int tram_transport_close(tram_transport *transport) {
    FORWARD(transport, close, transport);
}

int tram_transport_abort(tram_transport *transport) {
    FORWARD(transport, abort, transport);
}

int tram_transport_reset(tram_transport *transport) {
    const struct io *io = &transport->io;
    struct linger linger = {.l_onoff = 1};
    int status = enter(transport, __func__);
    if (unlikely(status))
        return status;
    if (io->fd >= 0 && !(io->flags & IO_NO_SOCKET))
        io->loop->sys->setsockopt(io->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    return tram_transport_abort(transport);
}

int tram_transport_pause_reading(tram_transport *transport) {
    FORWARD(transport, pause_reading, transport);
}

int tram_transport_resume_reading(tram_transport *transport) {
    FORWARD(transport, resume_reading, transport);
}

/* What the kernel did not take of a write, or its error. */
__attribute__((noinline)) static int short_write(tram_transport *transport, const void *data, size_t size,
                                                 ssize_t sent) {
    size_t done = taken(transport, sent);
    return keep_rest(transport, (const char *)data + done, size - done);
}

__attribute__((noinline)) static int careful_write(tram_transport *transport, const void *data, size_t size) {
    FORWARD(transport, write, transport, data, size);
}

/* What keeps a write from the short way. */
#define T_NO_SHORT_WAY (T_SPECIAL | T_NO_WRITING | T_GIVES_WAY)

/* The hottest call there is: nothing special, nothing queued, all taken. Everything else goes the long way round. */
int tram_transport_write(tram_transport *transport, const void *data, size_t size) {
    if (unlikely(*loop_of(transport)->guard != GUARD_PLAIN || transport->flags & T_NO_SHORT_WAY ||
                 transport->queue.size || transport->corked || !data || !size))
        return careful_write(transport, data, size);
    ssize_t sent = io_try_send(&transport->io, data, size);
    if (unlikely(sent != (ssize_t)size))
        return short_write(transport, data, size, sent);
    count_sent(loop_of(transport), sent);
    return 0;
}

int tram_transport_writelines(tram_transport *transport, const struct iovec *pieces, size_t count) {
    if (unlikely(!pieces && count))
        return TRAM_EVALUE;
    FORWARD(transport, writelines, transport, pieces, count);
}

int tram_transport_write_buffer(tram_transport *transport, tram_buffer *buffer) {
    FORWARD(transport, write_buffer, transport, buffer);
}

int tram_transport_cork(tram_transport *transport) {
    FORWARD(transport, cork, transport);
}

int tram_transport_uncork(tram_transport *transport) {
    FORWARD(transport, uncork, transport);
}

int tram_transport_write_eof(tram_transport *transport) {
    FORWARD(transport, write_eof, transport);
}

/* ---- Limits ---- */

/* What stands before the calls about the queue, which not every kind has. */
static int enter_queue(const tram_transport *transport, const char *function) {
    int status = enter(transport, function);
    return likely(!status) && unlikely(transport_kind_of(transport)->no_writing) ? -ENOTSUP : status;
}

int tram_transport_set_write_buffer_limits(tram_transport *transport, size_t high, size_t low) {
    int status = enter_queue(transport, __func__);
    if (unlikely(status))
        return status;
    if (high == TRAM_LIMIT_DEFAULT) {
        if (low == TRAM_LIMIT_DEFAULT)
            high = TRAM_WRITE_HIGH;
        else if (low > SIZE_MAX / 4)
            return TRAM_EVALUE;
        else
            high = 4 * low;
    }
    if (low == TRAM_LIMIT_DEFAULT)
        low = high / 4;
    if (high < low)
        return TRAM_EVALUE;
    transport->high = high;
    transport->low = low;
    if (!(transport->flags & (T_LOST_QUEUED | T_LOST)))
        tram__transport_maybe_pause(transport);
    return 0;
}

int tram_transport_get_write_buffer_limits(const tram_transport *transport, size_t *ret_low, size_t *ret_high) {
    int status = enter_queue(transport, __func__);
    if (unlikely(status))
        return status;
    if (ret_low)
        *ret_low = transport->low;
    if (ret_high)
        *ret_high = transport->high;
    return 0;
}

int tram_transport_set_write_hard_limit(tram_transport *transport, size_t limit) {
    int status = enter_queue(transport, __func__);
    if (unlikely(status))
        return status;
    transport->hard_limit = limit;
    if (limit && transport->queue.size > limit)
        tram__transport_over_limit(transport, "write", "more is queued for writing than the hard limit allows");
    return 0;
}

size_t tram_transport_get_write_buffer_size(const tram_transport *transport) {
    enter(transport, __func__);
    const struct pump *pump = transport_pump(transport);
    return transport->queue.size + (unlikely(pump != NULL) ? pump->held : 0);
}

/* ---- Who is at the ends ---- */

int tram_transport_set_protocol(tram_transport *transport, tram_protocol *protocol) {
    int status = enter(transport, __func__);
    if (unlikely(status))
        return status;
    if (!protocol || !protocol->ops)
        return TRAM_ETYPE;
    make_way(transport);
    tram_protocol *old = transport->protocol;
    if (!old)
        return TRAM_ESTATE; /* it ended: the new protocol stays the caller's */
    const struct transport_kind *kind = transport_kind_of(transport);
    transport->protocol = protocol;
    transport->io.kind = protocol->ops->get_buffer ? &kind->buffered->io : &kind->plain->io;
    if (transport->flags & T_MADE)
        protocol->transport = transport;
    if (old != protocol) {
        tram__protocol_reclaim(loop_of(transport), protocol);
        tram__protocol_release_soon(loop_of(transport), old);
    }
    return 0;
}

tram_protocol *tram_transport_get_protocol(const tram_transport *transport) {
    enter(transport, __func__);
    return transport->protocol;
}

tram_loop *tram_transport_get_loop(const tram_transport *transport) {
    return transport->io.loop;
}

const void *tram_transport_get_extra_info(tram_transport *transport, const char *name, const void *fallback) {
    if (enter(transport, __func__) || !name)
        return fallback;
    const void *value = transport_kind_of(transport)->extra_info(transport, name);
    return value ? value : fallback;
}
