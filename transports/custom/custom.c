/*
 * Custom transports: the state machine of transport.c on top, a table of the user's below, no descriptor. The calls of
 * the first part come from protocols, those of the last from the user's half.
 */
#include <errno.h>

#include "core/base/invalid.h"
#include "transports/base/receiver.h"
#include "transports/base/stack.h"
#include "transports/base/state.h"
#include "transports/base/transport.h"
#include "transports/socket/socket.h"
#include <tram/custom.h>

struct custom {
    tram_transport transport;
    const tram_custom_ops *ops;
    void *state;
    struct ready sent;   /* queued by what was sent within an entry of the table */
    unsigned in_entries; /* how many of them are at work */
    bool ends_itself;    /* `close` said so */
};

static inline struct custom *custom_of(const tram_transport *transport) {
    return (struct custom *)(uintptr_t)transport;
}

static inline bool over(const tram_transport *transport) {
    return transport->flags & T_LOST_PENDING;
}

static int fatal(tram_transport *transport, int status, const char *operation) {
    if (status < 0)
        tram__transport_fatal(transport, status, operation, NULL);
    return status;
}

/* What called it goes on with the loop afterwards, perhaps outside of a tick. */
static void enter(struct custom *custom) {
    custom->in_entries++;
    custom->transport.io.loop->in_callouts++;
}

static void leave(struct custom *custom) {
    custom->in_entries--;
    custom->transport.io.loop->in_callouts--;
}

/* An entry of the table, in which the user's half may call anything: what it reports as sent waits meanwhile. */
static int call_entry(struct custom *custom, int (*entry)(tram_transport *, void *), const char *operation) {
    enter(custom);
    int status = entry(&custom->transport, custom->state);
    leave(custom);
    return fatal(&custom->transport, status, operation);
}

/* ---- What protocols call ---- */

static int carry(tram_transport *transport, const struct iovec *pieces, size_t count, size_t size) {
    struct custom *custom = custom_of(transport);
    transport->queue.size += size;
    enter(custom);
    int status = custom->ops->writelines(transport, custom->state, pieces, count);
    leave(custom);
    return status;
}

static int custom_writelines(tram_transport *transport, const struct iovec *pieces, size_t count) {
    struct custom *custom = custom_of(transport);
    size_t size;
    if (!pieces_size(&transport->queue, pieces, count, &size))
        return tram__invalid("pieces");
    if (!custom->ops->writelines)
        return -ENOTSUP;
    if (transport->flags & (T_WRITE_EOF | T_EXCLUSIVE))
        return TRAM_ESTATE;
    if (!size)
        return 0;
    if (over(transport)) {
        tram__transport_drop_write(transport);
        return 0;
    }
    if (transport->flags & T_LAYERED)
        return tram__transport_writelines(transport, pieces, count);
    if (fatal(transport, carry(transport, pieces, count, size), "write") == -ENOMEM)
        return -ENOMEM;
    if (!over(transport))
        tram__transport_queue_grew(transport);
    return 0;
}

static int custom_write(tram_transport *transport, const void *data, size_t size) {
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    return custom_writelines(transport, &piece, 1);
}

static int custom_write_buffer(tram_transport *transport, tram_buffer *buffer) {
    return buffer ? custom_write(transport, tram_buffer_data(buffer), tram_buffer_size(buffer))
                  : tram__invalid("buffer");
}

/* There is no system call to save. */
static int custom_cork(tram_transport *transport) {
    (void)transport;
    return 0;
}

static int custom_write_eof(tram_transport *transport) {
    return custom_of(transport)->ops->write_eof ? tram__transport_write_eof(transport) : -ENOTSUP;
}

static int custom_pause_reading(tram_transport *transport) {
    struct custom *custom = custom_of(transport);
    bool reading = transport->io.wanted & IO_READ;
    int status = tram__transport_pause_reading(transport);
    if (reading && !(transport->io.wanted & IO_READ) && custom->ops->pause_reading)
        call_entry(custom, custom->ops->pause_reading, "pause_reading");
    return status;
}

/* connection_made has returned. */
static int start(tram_transport *transport) {
    tram__transport_maybe_pause(transport); /* for what was written before */
    return 0;
}

static void resumed(tram_transport *transport) {
    struct custom *custom = custom_of(transport);
    if (custom->ops->resume_reading)
        call_entry(custom, custom->ops->resume_reading, "resume_reading");
}

static bool sent_is_queued(const struct custom *custom) {
    return custom->sent.run && !list_empty(&custom->sent.link);
}

static void end_carrier(tram_transport *transport) {
    struct custom *custom = custom_of(transport);
    int status = custom->ops->close ? call_entry(custom, custom->ops->close, "close") : 0;
    custom->ends_itself = status > 0;
    /* Where the rest was sent within the entry, sent_run() goes on. */
    if (!status && !over(transport) && !transport->queue.size && !sent_is_queued(custom))
        tram__transport_schedule_lost(transport);
}

static const struct transport_overrides calls = {
    .close = tram__transport_close,
    .abort = tram__transport_abort,
    .pause_reading = custom_pause_reading,
    .resume_reading = tram__transport_resume_reading,
    .write = custom_write,
    .writelines = custom_writelines,
    .write_buffer = custom_write_buffer,
    .cork = custom_cork,
    .uncork = custom_cork,
    .write_eof = custom_write_eof,
};

/* ---- What the state machine asks of a kind ---- */

static void eof(tram_transport *transport) {
    transport->flags |= T_EOF;
    tram__io_receive_stop(&transport->io);
    int keep_open = tram__protocol_eof(transport);
    if (keep_open < 0)
        tram__transport_fail(transport, keep_open);
    else if (keep_open == 0)
        tram_transport_close(transport);
}

static void drop_queue(tram_transport *transport) {
    struct custom *custom = custom_of(transport);
    transport->queue.size = 0;
    if (!custom->ops->abort)
        return;
    transport->io.loop->in_callouts++;
    custom->ops->abort(transport, custom->state);
    transport->io.loop->in_callouts--;
}

static int end_writing(tram_transport *transport) {
    struct custom *custom = custom_of(transport);
    call_entry(custom, custom->ops->write_eof, "write_eof");
    return 0;
}

static void end(tram_transport *transport) {
    struct custom *custom = custom_of(transport);
    void *state = custom->state;
    if (custom->sent.run)
        list_remove(&custom->sent.link);
    tram__io_remove(&transport->io);
    custom->state = NULL;
    if (custom->ops->ended)
        custom->ops->ended(transport, state);
}

static const void *extra_info(tram_transport *transport, const char *name) {
    struct custom *custom = custom_of(transport);
    if (!custom->ops->get_extra_info || transport->flags & T_LOST)
        return NULL;
    return custom->ops->get_extra_info(transport, custom->state, name);
}

static void ending(struct io *io, enum shutdown_mode how) {
    tram__transport_ending((tram_transport *)(void *)io, how);
}

static void dispose(tram_transport *transport) {
    memory_put(&transport->io.loop->allocator, transport, sizeof(struct custom));
}

static bool start_tls_compatible(const tram_transport *transport) {
    return custom_of(transport)->ops->start_tls_compatible;
}

/* The one kind stands for protocols of both sorts: tram_custom_received() looks at the protocol. */
#define CUSTOM_KIND(kind, writes, half_close, sends)                                                                   \
    static const struct transport_kind kind = {                                                                        \
        .io = {.name = "custom", .transport = true, .ending = ending},                                                 \
        .flags = T_HAS_OVERRIDES,                                                                                      \
        .calls = &calls,                                                                                               \
        .no_writing = !(writes),                                                                                       \
        .can_write_eof = half_close,                                                                                   \
        .sendfile = sends,                                                                                             \
        .start_tls_compatible = start_tls_compatible,                                                                  \
        .eof = eof,                                                                                                    \
        .carry = carry,                                                                                                \
        .resumed = resumed,                                                                                            \
        .close = end_carrier,                                                                                          \
        .drop_queue = drop_queue,                                                                                      \
        .end_writing = end_writing,                                                                                    \
        .start = start,                                                                                                \
        .end = end,                                                                                                    \
        .extra_info = extra_info,                                                                                      \
        .dispose = dispose,                                                                                            \
    }

CUSTOM_KIND(read_only, false, false, SENDFILE_NONE);
CUSTOM_KIND(one_way_close, true, false, SENDFILE_NONE);
CUSTOM_KIND(half_close, true, true, SENDFILE_NONE);
CUSTOM_KIND(one_way_close_sending, true, false, SENDFILE_BLOCKS);
CUSTOM_KIND(half_close_sending, true, true, SENDFILE_BLOCKS);

static const struct transport_kind *kind_for(const tram_custom_ops *ops) {
    if (!ops->writelines)
        return &read_only;
    if (ops->sendfile_mode == TRAM_SENDFILE_FALLBACK)
        return ops->write_eof ? &half_close_sending : &one_way_close_sending;
    return ops->write_eof ? &half_close : &one_way_close;
}

/* ---- What the user's half calls ---- */

int tram_loop_create_custom(tram_loop *loop, const tram_custom_ops *ops, void *state, tram_protocol *protocol,
                            tram_transport **ret_transport) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!ops || (unsigned)ops->sendfile_mode > TRAM_SENDFILE_FALLBACK)
        return tram__invalid(ops ? "sendfile_mode" : "ops");
    if (reserved_used(ops))
        return tram__invalid("reserved");
    if (!protocol || !protocol->ops)
        return TRAM_ETYPE;
    struct custom *custom = transport_state_open(loop) ? NULL : tram__memory_get_zero(&loop->allocator, sizeof *custom);
    if (!custom)
        return -ENOMEM;
    const struct transport_kind *kind = kind_for(ops);
    status = tram__io_add(&custom->transport.io, loop, &kind->io, -1);
    if (status) {
        memory_put(&loop->allocator, custom, sizeof *custom);
        return status;
    }
    custom->ops = ops;
    custom->state = state;
    tram__transport_begin(&custom->transport, protocol, NULL);
    if (ret_transport)
        *ret_transport = &custom->transport;
    return 0;
}

void *tram_custom_state(const tram_transport *transport, const tram_custom_ops *ops) {
    bool custom = transport_kind_of(transport)->calls == &calls;
    return custom && custom_of(transport)->ops == ops ? custom_of(transport)->state : NULL;
}

static bool reading(const tram_transport *transport) {
    return transport->io.wanted & IO_READ;
}

size_t tram_custom_received(tram_transport *transport, const void *data, size_t size) {
    size_t taken = 0;
    if (loop_enter(transport->io.loop, __func__) || !reading(transport))
        return 0;
    if (unlikely(transport->flags & T_LAYERED)) {
        taken = size;
        transport_stack(transport)->calls->received(transport, data, size);
    } else {
        tram__transport_feed(transport, data, size, &taken);
    }
    if (taken) {
        stats_add(&transport->io.loop->stats.reads, 1);
        stats_add(&transport->io.loop->stats.bytes_received, (uint64_t)taken);
    }
    return taken;
}

bool tram_custom_eof(tram_transport *transport) {
    if (loop_enter(transport->io.loop, __func__) || !reading(transport))
        return false;
    if (unlikely(transport->flags & T_LAYERED))
        transport_stack(transport)->calls->eof(transport);
    else
        eof(transport);
    return true;
}

/* What follows from a queue that shrank. */
static void after_sent(tram_transport *transport) {
    tram__transport_maybe_resume(transport);
    bool ends_itself = transport->flags & T_CLOSING && custom_of(transport)->ends_itself;
    if (!transport->queue.size && !over(transport) && !ends_itself)
        tram__transport_drained(transport, false);
}

static void sent_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    tram_transport *transport = &container_of(ready, struct custom, sent)->transport;
    if (!over(transport))
        after_sent(transport);
}

void tram_custom_sent(tram_transport *transport, size_t size) {
    struct custom *custom = custom_of(transport);
    if (loop_enter(transport->io.loop, __func__) || over(transport) || !size)
        return;
    transport->queue.size -= MIN(size, transport->queue.size);
    stats_add(&transport->io.loop->stats.writes, 1);
    stats_add(&transport->io.loop->stats.bytes_sent, (uint64_t)size);
    bool waited_for = transport->flags & (T_WRITING_PAUSED | T_WRITE_EOF | T_CLOSING);
    if (!custom->in_entries) {
        after_sent(transport);
    } else if (waited_for && !sent_is_queued(custom)) { /* the protocol is at work, and hears of it later (W-19) */
        custom->sent.run = sent_run;
        loop_ready(transport->io.loop, &custom->sent);
    }
}

void tram_custom_lost(tram_transport *transport, const tram_error *error) {
    if (loop_enter(transport->io.loop, __func__) || over(transport))
        return;
    if (error)
        tram__transport_fatal(transport, error->code, error->operation ? error->operation : "transport", error->user);
    else
        tram__transport_abort(transport);
}
