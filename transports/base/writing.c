/*
 * The writing side of a transport, the same for every kind.
 *
 * Reading order: tram_transport_write() at the end, whose short way is what most writes take; tram__transport_write()
 * for all the others; tram__transport_sent() for what follows when the kernel took bytes of the queue.
 */
#include "core/base/invalid.h"
#include "core/base/memory.h"
#include "core/base/probes.h"
#include "transports/base/entering.h"
#include "transports/base/lifecycle.h"
#include "transports/base/linger.h"
#include "transports/base/stack.h"
#include "transports/base/state.h"
#include "transports/base/transport.h"

#include <errno.h>
#include <limits.h>

/* ---- Water marks ---- */

void tram__transport_maybe_pause(tram_transport *transport) {
    const uint32_t state = T_MADE | T_WRITING_PAUSED;
    if (transport_write_size(transport) <= transport->limits->high || (transport->flags & state) != T_MADE)
        return; /* a custom transport may be written to before connection_made, which comes first (P-1) */
    transport->flags |= T_WRITING_PAUSED;
    tram__protocol_pause_writing(transport);
}

void tram__transport_maybe_resume(tram_transport *transport) {
    /*
     * Not after an abort or a failure (W-23), after which a queue is dropped and not drained: a file's writer may have
     * had the pause, of which the protocol knows nothing.
     */
    const uint32_t state = T_WRITING_PAUSED | T_WRITE_FAILED | T_LOST_PENDING;
    if ((transport->flags & state) != T_WRITING_PAUSED || transport_write_size(transport) > transport->limits->low)
        return;
    transport->flags &= ~(uint32_t)T_WRITING_PAUSED;
    tram__protocol_resume_writing(transport);
}

static inline void count_sent(tram_loop *loop, size_t sent) {
    stats_add(&loop->stats.writes, 1);
    stats_add(&loop->stats.bytes_sent, (uint64_t)sent);
}

void tram__transport_count_sent(tram_transport *transport, size_t sent) {
    count_sent(loop_of(transport), sent);
    transport_moved(transport, TRAFFIC_OUT);
}

static void tell_over_limit(tram_transport *transport, enum end_reason reason, const char *operation,
                            const char *message) {
    tram__transport_end_by(transport, reason, TRAM_ELIMIT, operation, NULL);
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

void tram__transport_over_limit(tram_transport *transport, const char *operation, const char *message) {
    tell_over_limit(transport, END_BY_ERROR, operation, message);
}

__attribute__((noinline)) static void over_hard_limit(tram_transport *transport) {
    if (!(transport->flags & T_LOST_PENDING))
        stats_add(&loop_of(transport)->stats.over_write_limit, 1);
    tell_over_limit(transport, END_WRITE_LIMIT, "write", "more is queued for writing than the hard limit allows");
}

void tram__transport_queue_grew(tram_transport *transport) {
    if (unlikely(transport->limits->hard && transport_write_size(transport) > transport->limits->hard)) {
        over_hard_limit(transport);
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

/* A part may be sent: the peer is not to take it for all (W-30). */
static int out_of_memory(tram_transport *transport) {
    transport->flags |= T_RESET;
    tram__transport_fatal(transport, -ENOMEM, "write", NULL);
    return -ENOMEM;
}

/* The connection is gone: the bytes are dropped, and counted (W-6). Its end tells how many they were. */
void tram__transport_drop_write(tram_transport *transport) {
    tram_loop *loop = loop_of(transport);
    stats_add(&loop->stats.dropped_writes, 1);
    if (transport->dropped_writes < UINT16_MAX)
        transport->dropped_writes++;
}

#define T_NO_WRITING (T_WRITE_EOF | T_LINGERING | T_LOST_PENDING | T_EXCLUSIVE | T_WRITE_FAILED)

static int may_not_write(tram_transport *transport, size_t size) {
    transport_flush_writer(transport);
    if (!(transport->flags & T_NO_WRITING))
        return size != 0;
    if (transport->flags & (T_WRITE_EOF | T_EXCLUSIVE))
        return TRAM_ESTATE;
    if (size)
        tram__transport_drop_write(transport);
    return 0;
}

/* What stands before any write. 1: go on; 0: nothing to do; negative: misuse. */
static inline int may_write(tram_transport *transport, size_t size) {
    if (likely(!(transport->flags & (T_NO_WRITING | T_WRITER_YIELDS))))
        return size != 0;
    return may_not_write(transport, size);
}

/* Nothing is queued before it: the kernel may take it at once. */
static inline bool goes_at_once(const tram_transport *transport) {
    return likely(write_queue_empty(&transport->queue)) && likely(!transport->corked);
}

/* What the kernel took of a send; 0 also where it just failed for good. */
static inline size_t taken(tram_transport *transport, ssize_t sent) {
    if (likely(sent >= 0)) {
        tram__transport_count_sent(transport, (size_t)sent);
        return (size_t)sent;
    }
    if (sent != -EAGAIN && !send_is_starved(sent))
        tram__transport_send_failed(transport, (int)sent, "send");
    return 0;
}

static bool died(const tram_transport *transport) {
    return transport->flags & (T_LOST_PENDING | T_WRITE_FAILED);
}

static int keep_rest(tram_transport *transport, const void *data, size_t size) {
    if (died(transport))
        return 0;
    if (tram__write_queue_copy(loop_of(transport), &transport->queue, data, size) < 0)
        return out_of_memory(transport);
    tram__transport_queued(transport);
    return 0;
}

/* Through the layers, which take all. After close nothing is taken any more (S-23). */
__attribute__((noinline)) static int write_layered(tram_transport *transport, const struct iovec *pieces,
                                                   size_t count) {
    if (transport->flags & T_CLOSING)
        tram__transport_drop_write(transport);
    else
        transport_stack(transport)->calls->write(transport, pieces, count);
    return 0;
}

int tram__transport_write(tram_transport *transport, const void *data, size_t size) {
    if (unlikely(!data && size))
        return tram__invalid("data");
    int status = may_write(transport, size);
    if (unlikely(status <= 0))
        return status;
    if (unlikely(transport->flags & T_LAYERED)) {
        struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
        return write_layered(transport, &piece, 1);
    }
    size_t sent = 0;
    if (goes_at_once(transport))
        sent = taken(transport, io_try_send(&transport->io, data, size));
    return likely(sent == size) ? 0 : keep_rest(transport, (const char *)data + sent, size - sent);
}

/* What comes behind the first `sent` bytes. 0 or -ENOMEM. */
static int queue_rest(tram_transport *transport, const struct iovec *pieces, size_t count, size_t sent) {
    for (size_t i = 0; i < count; i++) {
        size_t skip = MIN(sent, pieces[i].iov_len);
        sent -= skip;
        int status = tram__write_queue_copy(loop_of(transport), &transport->queue,
                                            (const char *)pieces[i].iov_base + skip, pieces[i].iov_len - skip);
        if (status)
            return status;
    }
    return 0;
}

int tram__transport_writelines(tram_transport *transport, const struct iovec *pieces, size_t count) {
    size_t size;
    if (unlikely(!pieces_size(&transport->queue, pieces, count, &size)))
        return tram__invalid("pieces");
    PROBE2(write, transport, size);
    int status = may_write(transport, size);
    if (unlikely(status <= 0))
        return status;
    if (unlikely(transport->flags & T_LAYERED))
        return write_layered(transport, pieces, count);
    size_t sent = 0;
    if (goes_at_once(transport))
        sent = taken(transport, io_try_send_pieces(&transport->io, pieces, MIN(count, IOV_MAX)));
    if (likely(sent == size) || died(transport))
        return 0;
    if (queue_rest(transport, pieces, count, sent))
        return out_of_memory(transport);
    tram__transport_queued(transport);
    return 0;
}

int tram__transport_write_buffer(tram_transport *transport, tram_buffer *buffer) {
    if (unlikely(!buffer))
        return tram__invalid("buffer");
    size_t size = tram_buffer_size(buffer);
    PROBE2(write, transport, size);
    int status = may_write(transport, size);
    if (unlikely(status <= 0))
        return status;
    if (unlikely(transport->flags & T_LAYERED)) {
        struct iovec piece = {.iov_base = (void *)(uintptr_t)tram_buffer_data(buffer), .iov_len = size};
        return write_layered(transport, &piece, 1);
    }
    size_t sent = 0;
    if (goes_at_once(transport))
        sent = taken(transport, io_try_send(&transport->io, tram_buffer_data(buffer), size));
    if (likely(sent == size) || died(transport))
        return 0;
    if (!tram__write_queue_refer(loop_of(transport), &transport->queue, buffer, sent))
        return out_of_memory(transport);
    tram__transport_queued(transport);
    return 0;
}

/* As many pieces of it as one call takes. */
static size_t send_chain(tram_transport *transport, const struct write_queue *chain) {
    struct iovec pieces[TRAM_WRITE_PIECES];
    size_t count = tram__write_queue_gather(chain, pieces, TRAM_WRITE_PIECES);
    if (likely(count == 1))
        return taken(transport, io_try_send(&transport->io, pieces[0].iov_base, pieces[0].iov_len));
    return taken(transport, io_try_send_pieces(&transport->io, pieces, count));
}

static void write_chain_layered(tram_transport *transport, struct write_queue *chain) {
    while (chain->size) {
        struct iovec pieces[TRAM_WRITE_PIECES];
        size_t count = tram__write_queue_gather(chain, pieces, TRAM_WRITE_PIECES), size = 0;
        for (size_t i = 0; i < count; i++)
            size += pieces[i].iov_len;
        write_layered(transport, pieces, count);
        tram__write_queue_consume(loop_of(transport), chain, size);
    }
}

int tram__transport_write_chain(tram_transport *transport, struct write_queue *chain) {
    PROBE2(write, transport, chain->size);
    int status = may_write(transport, chain->size);
    if (unlikely(transport->flags & T_LAYERED) && status > 0)
        write_chain_layered(transport, chain);
    else if (likely(status > 0) && goes_at_once(transport))
        tram__write_queue_consume(loop_of(transport), chain, send_chain(transport, chain));
    if (unlikely(status <= 0 || died(transport)) || likely(!chain->size)) {
        tram__write_queue_clear(loop_of(transport), chain);
        return MIN(status, 0);
    }
    tram__write_queue_join(&transport->queue, chain);
    tram__transport_queued(transport);
    return 0;
}

/* Tells the kind that no more will be written; once, whoever asks again meanwhile. */
static int end_writing(tram_transport *transport) {
    if (transport->flags & T_WRITING_ENDED)
        return 0;
    transport->flags |= T_WRITING_ENDED;
    return transport_kind_of(transport)->end_writing(transport);
}

/* All was sent of one that closes, and connection_lost is not due yet. */
static inline bool lingers(tram_transport *transport) {
    return unlikely(transport->flags & (T_LINGER | T_SERVER_CLOSE)) && tram__transport_linger(transport);
}

/* The queue is empty: what was waiting for that? `within_loop`: connection_lost may be called here. */
void tram__transport_drained(tram_transport *transport, bool within_loop) {
    if (transport_writer(transport)) {
        transport_writer(transport)->drained(transport_writer(transport));
        return;
    }
    tram__io_send_stop(&transport->io);
    if (unlikely(transport->flags & T_LAYERED)) {
        if (transport_stack(transport)->kept)
            return; /* layers have something to write still */
        if (transport->flags & T_CLOSING && transport_shutting_down(transport)) {
            transport_stack(transport)->calls->drained(transport);
            return;
        }
    }
    if (transport->flags & T_CLOSING) {
        if (unlikely(lingers(transport)))
            return;
        if (!within_loop) {
            tram__transport_schedule_lost(transport);
            return;
        }
        tram__transport_call_lost(transport);
    } else if (transport->flags & T_WRITE_EOF) {
        end_writing(transport);
    }
}

bool tram__transport_idle(const tram_transport *transport) {
    return !transport_write_size(transport) && !(transport->flags & T_WRITING_PAUSED);
}

void tram__transport_sent(tram_transport *transport, ssize_t result) {
    if (unlikely(result < 0)) {
        if (send_is_starved(result))
            tram__transport_send_later(transport, (int)result);
        else
            tram__transport_send_failed(transport, (int)result, "send");
        return;
    }
    if (likely(result))
        transport_moved(transport, TRAFFIC_OUT);
    tram__write_queue_consume(loop_of(transport), &transport->queue, (size_t)result);
    tram__transport_maybe_resume(transport); /* may write, close, abort (W-20) */
    if (write_queue_empty(&transport->queue) && !(transport->flags & T_LOST_PENDING))
        tram__transport_drained(transport, true);
}

/* ---- For layers ---- */

int tram__transport_carry_rest(tram_transport *transport) {
    struct iovec pieces[TRAM_WRITE_PIECES];
    if (write_queue_empty(&transport->queue) || transport->corked || transport->io.wanted & IO_WRITE)
        return 0;
    size_t count = tram__write_queue_gather(&transport->queue, pieces, TRAM_WRITE_PIECES);
    ssize_t sent = io_try_send_pieces(&transport->io, pieces, count);
    if (sent < 0 && sent != -EAGAIN && !send_is_starved(sent))
        return (int)sent;
    if (sent > 0) {
        tram__transport_count_sent(transport, (size_t)sent);
        tram__write_queue_consume(loop_of(transport), &transport->queue, (size_t)sent);
    }
    return write_queue_empty(&transport->queue) ? 0 : tram__io_send_start(&transport->io);
}

int tram__transport_carry(tram_transport *transport, const struct iovec *pieces, size_t count, bool more) {
    size_t size = 0, taken_now = 0;
    bool first = write_queue_empty(&transport->queue) && !transport->corked && !more;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].iov_len;
    if (first && size) {
        ssize_t sent = io_try_send_pieces(&transport->io, pieces, MIN(count, IOV_MAX));
        if (sent < 0 && sent != -EAGAIN && !send_is_starved(sent))
            return (int)sent;
        if (sent > 0) {
            taken_now = (size_t)sent;
            tram__transport_count_sent(transport, taken_now);
        }
    }
    if (taken_now == size)
        return 0;
    int status = queue_rest(transport, pieces, count, taken_now);
    if (status || more || transport->corked)
        return status;
    return first ? tram__io_send_start(&transport->io) : tram__transport_carry_rest(transport);
}

/* Sends what was held back, as far as the kernel takes it. False: the connection ended. */
static bool send_held(tram_transport *transport) {
    struct iovec pieces[TRAM_WRITE_PIECES];
    if (transport->io.wanted & IO_WRITE)
        return true; /* the kernel is full */
    size_t count = tram__write_queue_gather(&transport->queue, pieces, TRAM_WRITE_PIECES);
    size_t size = taken(transport, io_try_send_pieces(&transport->io, pieces, count));
    tram__write_queue_consume(loop_of(transport), &transport->queue, size);
    return !died(transport);
}

/*
 * Ends all corking and sends what it held back. No callback of the protocol's runs in here: if resume_writing is due it
 * comes from the write event, and behind it all that waits for an empty queue (W-19).
 */
static void flush_corked(tram_transport *transport) {
    transport->corked = 0;
    if (write_queue_empty(&transport->queue) || transport->flags & T_LOST_PENDING || !send_held(transport))
        return;
    if (tram__transport_idle(transport)) {
        tram__transport_drained(transport, false);
        return;
    }
    int status = tram__io_send_start(&transport->io);
    if (unlikely(status))
        tram__transport_fatal(transport, status, "epoll_ctl", NULL);
}

void tram__transport_end_corking(tram_transport *transport) {
    if (unlikely(transport->corked))
        flush_corked(transport);
}

int tram__transport_cork(tram_transport *transport) {
    if (transport_layers_starting(transport))
        return TRAM_ESTATE;
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
    if (transport->flags & (T_CLOSING | T_WRITE_EOF))
        return 0;
    if (transport->flags & T_EXCLUSIVE)
        return TRAM_ESTATE;
    transport_flush_writer(transport);
    if (unlikely(transport->flags & T_LAYERED)) {
        if (!tram_transport_can_write_eof(transport))
            return -ENOTSUP;
        transport->flags |= T_WRITE_EOF;
        if (!transport_stack(transport)->calls->write_eof(transport))
            transport->flags |= T_WRITING_ENDED; /* the carrier's writing side stays open */
        if (transport->flags & T_LOST_PENDING)
            return 0;
    }
    transport->flags |= T_WRITE_EOF;
    if (unlikely(transport->corked && !write_queue_empty(&transport->queue))) {
        flush_corked(transport); /* which ends the writing side when nothing is left */
        return 0;
    }
    return !transport_write_size(transport) ? end_writing(transport) : 0;
}

void tram__transport_set_writer(tram_transport *transport, struct exclusive_writer *writer) {
    transport->on.writer = writer;
    transport->flags |= T_EXCLUSIVE | T_HAS_WRITER;
    tram__io_receive_stop(&transport->io);
    if (unlikely(transport->flags & T_LAYERED))
        transport_stack(transport)->calls->paused(transport);
    tram__transport_end_corking(transport);
}

/* Sent or queued, or given to whoever sends them. 0 or a negative code, of a connection that is to fail. */
static int put(tram_transport *transport, const struct iovec *piece) {
    if (transport_kind_of(transport)->carry)
        return transport_kind_of(transport)->carry(transport, piece, 1, piece->iov_len);
    return tram__transport_carry(transport, piece, 1, false);
}

void tram__transport_write_alone(tram_transport *transport, const void *data, size_t size) {
    struct exclusive_writer *writer = transport_writer(transport);
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    uint16_t corked = transport->corked;
    transport->corked = 0;
    if (unlikely(transport->flags & T_LAYERED)) {
        transport_stack(transport)->calls->write(transport, &piece, 1);
    } else {
        int status = put(transport, &piece);
        if (unlikely(status == -ENOMEM))
            out_of_memory(transport);
        else if (unlikely(status < 0 && transport_kind_of(transport)->carry))
            tram__transport_fatal(transport, status, "write", NULL);
        else if (unlikely(status < 0))
            tram__transport_send_failed(transport, status, "send");
        else if (!died(transport))
            tram__transport_queue_grew(transport);
    }
    if (!died(transport) && transport_writer(transport) == writer)
        transport->corked = corked;
}

/* The write event that calls resume_writing goes on with the close (W-23). */
static bool resume_is_due(const tram_transport *transport) {
    return unlikely(transport->flags & T_WRITING_PAUSED) && transport->io.kind->gather &&
           transport->io.wanted & IO_WRITE;
}

void tram__transport_set_yielding_writer(tram_transport *transport, struct exclusive_writer *writer) {
    transport->on.writer = writer;
    transport->flags |= T_HAS_WRITER | T_WRITER_YIELDS;
    transport->io.flags |= IO_SENDS_FILE;
}

void tram__transport_end_carrier(tram_transport *transport) {
    const struct transport_kind *kind = transport_kind_of(transport);
    if (unlikely(kind->close))
        kind->close(transport);
    else if (write_queue_empty(&transport->queue) && !(transport->flags & T_LOST_PENDING) &&
             !resume_is_due(transport)) {
        if (likely(!lingers(transport)))
            tram__transport_schedule_lost(transport);
    }
}

/* All that was to be written was given to the layers, or to the queue. */
static void end_layers(tram_transport *transport) {
    if (unlikely(transport->flags & T_LAYERED) &&
        (transport->flags & T_LOST_PENDING || !transport_stack(transport)->calls->close(transport)))
        return;
    tram__transport_end_carrier(transport);
}

int tram__transport_close(tram_transport *transport) {
    if (transport->flags & T_CLOSING)
        return 0;
    transport_flush_writer(transport);
    transport_move(transport, MOVE_CLOSE);
    tram__io_receive_stop(&transport->io);
    tram__transport_end_corking(transport);
    if (!transport_sends_file(transport))
        end_layers(transport);
    return 0;
}

void tram__transport_clear_writer(tram_transport *transport) {
    transport_take_writer(transport);
    if (unlikely(transport->flags & T_ASKED))
        ask_soon(loop_of(transport));
    if (unlikely((transport->flags & (T_CLOSING | T_LOST_PENDING)) == T_CLOSING))
        end_layers(transport); /* the close had waited for the file */
    else
        tram__transport_start_reading(transport);
}

bool tram_transport_can_write_eof(const tram_transport *transport) {
    const struct layer *layer = unlikely(transport->flags & T_LAYERED) ? transport_stack(transport)->top : NULL;
    for (; layer; layer = layer->below)
        if (!layer->kind->write_eof)
            return false;
    return transport_kind_of(transport)->can_write_eof;
}

/* ---- The public calls ---- */

/* What the kernel did not take of a write, or its error. */
__attribute__((noinline)) static int short_write(tram_transport *transport, const void *data, size_t size,
                                                 ssize_t sent) {
    size_t done = taken(transport, sent);
    return keep_rest(transport, (const char *)data + done, size - done);
}

__attribute__((noinline)) static int careful_write(tram_transport *transport, const void *data, size_t size) {
    DISPATCH(transport, write, transport, data, size);
}

/* What keeps a write from the short way. */
#define T_NO_SHORT_WAY (T_HAS_OVERRIDES | T_NO_WRITING | T_WRITER_YIELDS | T_METERED | T_LAYERED)

/* The hottest call there is: nothing special, nothing queued, all taken. Everything else goes the long way round. */
int tram_transport_write(tram_transport *transport, const void *data, size_t size) {
    PROBE2(write, transport, size);
    if (unlikely(!loop_is_plain(loop_of(transport)) || transport->flags & T_NO_SHORT_WAY || transport->queue.size ||
                 transport->corked || !data || !size))
        return careful_write(transport, data, size);
    ssize_t sent = io_try_send(&transport->io, data, size);
    if (unlikely(sent != (ssize_t)size))
        return short_write(transport, data, size, sent);
    count_sent(loop_of(transport), (size_t)sent);
    return 0;
}

int tram_transport_writelines(tram_transport *transport, const struct iovec *pieces, size_t count) {
    if (unlikely(!pieces && count))
        return tram__invalid("pieces");
    DISPATCH(transport, writelines, transport, pieces, count);
}

int tram_transport_write_buffer(tram_transport *transport, tram_buffer *buffer) {
    DISPATCH(transport, write_buffer, transport, buffer);
}

int tram_transport_cork(tram_transport *transport) {
    DISPATCH(transport, cork, transport);
}

int tram_transport_uncork(tram_transport *transport) {
    DISPATCH(transport, uncork, transport);
}

int tram_transport_write_eof(tram_transport *transport) {
    DISPATCH(transport, write_eof, transport);
}

/* ---- Limits ---- */

struct write_limits *tram__transport_own_limits(tram_transport *transport) {
    if (tram__transport_need_more(transport)) /* with which they are freed */
        return NULL;
    if (!(transport->flags & T_OWN_LIMITS)) {
        struct write_limits *limits = memory_get(&loop_of(transport)->allocator, sizeof *limits);
        if (!limits)
            return NULL;
        *limits = *transport->limits;
        transport->limits = limits;
        transport->flags |= T_OWN_LIMITS;
    }
    return (struct write_limits *)(uintptr_t)transport->limits;
}

/* What stands before the calls about the queue, which not every kind has. */
static int enter_queue(const tram_transport *transport, const char *function) {
    int status = enter(transport, function);
    return likely(!status) && unlikely(transport_kind_of(transport)->no_writing) ? -ENOTSUP : status;
}

int tram__transport_water_marks(size_t *high, size_t *low) {
    if (*high == TRAM_LIMIT_DEFAULT) {
        if (*low == TRAM_LIMIT_DEFAULT)
            *high = TRAM_WRITE_HIGH;
        else if (*low > SIZE_MAX / 4)
            return tram__invalid("low");
        else
            *high = 4 * *low;
    }
    if (*low == TRAM_LIMIT_DEFAULT)
        *low = *high / 4;
    return *high < *low ? tram__invalid("low") : 0;
}

int tram_transport_set_write_buffer_limits(tram_transport *transport, size_t high, size_t low) {
    int status = enter_queue(transport, __func__);
    if (likely(!status))
        status = tram__transport_water_marks(&high, &low);
    if (unlikely(status))
        return status;
    struct write_limits *own = tram__transport_own_limits(transport);
    if (!own)
        return -ENOMEM;
    own->high = high;
    own->low = low;
    if (!(transport->flags & T_LOST_PENDING))
        tram__transport_maybe_pause(transport);
    return 0;
}

int tram_transport_get_write_buffer_limits(const tram_transport *transport, size_t *ret_high, size_t *ret_low) {
    int status = enter_queue(transport, __func__);
    if (unlikely(status))
        return status;
    if (ret_high)
        *ret_high = transport->limits->high;
    if (ret_low)
        *ret_low = transport->limits->low;
    return 0;
}

int tram_transport_set_write_hard_limit(tram_transport *transport, size_t limit) {
    int status = enter_queue(transport, __func__);
    if (unlikely(status))
        return status;
    struct write_limits *own = tram__transport_own_limits(transport);
    if (!own)
        return -ENOMEM;
    own->hard = limit;
    tram__transport_queue_grew(transport);
    return 0;
}

size_t tram_transport_get_write_buffer_size(const tram_transport *transport) {
    enter(transport, __func__);
    const struct exclusive_writer *writer = transport_writer(transport);
    return transport_write_size(transport) + (unlikely(writer != NULL) ? writer->held : 0);
}
