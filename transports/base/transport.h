/*
 * The state machine that all kinds of transports share: how one begins, writes and ends. A kind (stream.c …) puts its
 * table into base/types.h's terms and calls down here; this calls base/protocol_adapter.h.
 */
#ifndef TRAM_TRANSPORTS_BASE_TRANSPORT_H
#define TRAM_TRANSPORTS_BASE_TRANSPORT_H

#include <errno.h>

#include "transports/base/protocol_adapter.h"
#include "transports/base/types.h"

/* The public calls as byte streams have them, for kinds to put into their transport_overrides. */
int tram__transport_close(tram_transport *transport);
int tram__transport_abort(tram_transport *transport);
int tram__transport_pause_reading(tram_transport *transport);
int tram__transport_resume_reading(tram_transport *transport);
int tram__transport_write(tram_transport *transport, const void *data, size_t size);
int tram__transport_writelines(tram_transport *transport, const struct iovec *pieces, size_t count);
int tram__transport_write_buffer(tram_transport *transport, tram_buffer *buffer);
/* Sends a chain of pieces of this loop, or joins it to the queue; it is empty afterwards, whatever is returned. */
int tram__transport_write_chain(tram_transport *transport, struct write_queue *chain);
int tram__transport_cork(tram_transport *transport);
int tram__transport_uncork(tram_transport *transport);
int tram__transport_write_eof(tram_transport *transport);

/* Limits of its own, which begin as those that it had. NULL: out of memory. */
struct write_limits *tram__transport_own_limits(tram_transport *transport);

/* Sends what corking holds back; uncork has nothing to do then. */
void tram__transport_end_corking(tram_transport *transport);

/* The same as tram_transport_set_protocol(), also while a layer on the open transport is not ready. */
int tram__transport_set_protocol(tram_transport *transport, tram_protocol *protocol);

/* Bytes joined the write queue: asks for writability, heeds the limits. */
void tram__transport_queued(tram_transport *transport);

/*
 * Nothing is queued, and no resume_writing is due: it comes from the loop (W-19), so that a queue that a call of the
 * protocol's own emptied is still paused for a moment.
 */
bool tram__transport_idle(const tram_transport *transport);

/* The kernel took bytes of a send that no poller has counted. */
void tram__transport_count_sent(tram_transport *transport, size_t sent);

/* Bytes moved: the owner is told, if it wants to know. */
static inline void transport_moved(tram_transport *transport, enum traffic direction) {
    if (unlikely(transport->flags & T_METERED) && transport->owner)
        transport->owner->on_bytes(transport->owner, direction);
}

/* Water marks, for kinds that keep their own queue in queue.size: after it grew, and after it shrank. */
void tram__transport_queue_grew(tram_transport *transport); /* heeds the hard limit, too */
void tram__transport_maybe_pause(tram_transport *transport);
void tram__transport_maybe_resume(tram_transport *transport);

/* The water marks that are meant where one or both are TRAM_LIMIT_DEFAULT (W-13). TRAM_EVALUE: they are none. */
int tram__transport_water_marks(size_t *high, size_t *low);

/*
 * Bytes of layers for a carrier with a write queue, sent at once where nothing is queued unless `more` come soon, which
 * ends with tram__transport_carry_rest(). 0, or a negative code, of a connection that is to fail. The protocol hears
 * nothing yet.
 */
int tram__transport_carry(tram_transport *transport, const struct iovec *pieces, size_t count, bool more);
int tram__transport_carry_rest(tram_transport *transport);

/* A close goes on: what is queued, then connection_lost. */
void tram__transport_end_carrier(tram_transport *transport);

/* Layers are ready: connection_made, and all that comes with it. From the loop. */
void tram__transport_made(tram_transport *transport);

/* A write after the end: dropped, counted, and logged from the fifth on (W-6). */
void tram__transport_drop_write(tram_transport *transport);

/*
 * The queue became empty: ends a closing transport, or the writing side where write_eof waits. `within_loop`:
 * connection_lost may be called here.
 */
void tram__transport_drained(tram_transport *transport, bool within_loop);

/*
 * Gives the writing side to a writer, which is told when the queue is empty unless it is already; and takes it away
 * again: reading starts again unless it was paused meanwhile. The interest in writability stays as it is.
 */
void tram__transport_set_writer(tram_transport *transport, struct exclusive_writer *writer);
void tram__transport_clear_writer(tram_transport *transport);

/*
 * The bytes of the writer that has the writing side to itself, corked or not: as a write, of which it is told nothing
 * but by its own functions. The connection may be lost, and the writer with it.
 */
void tram__transport_write_alone(tram_transport *transport, const void *data, size_t size);

/*
 * Has a writer's ranges sent, for which nothing may be queued, while all else goes on: reading, and whoever writes,
 * closes or takes the transport, before whom it gives way.
 */
void tram__transport_set_yielding_writer(tram_transport *transport, struct exclusive_writer *writer);

struct transport_options {
    const struct sockaddr_storage *peer; /* who connected; NULL: not known */
    socklen_t peer_size;
    struct transport_owner *owner; /* whoever counts it, and is told when it ended; or NULL */
    tram_future *creator;          /* see tram__transport_begin(); or NULL; not both */
};

/*
 * Makes a transport of the loop's pool, which begins. The loop has its state: transport_state_open(). On success the
 * descriptor and the protocol are the transport's. On failure both stay the caller's: -ENOMEM; TRAM_ESTATE: the
 * descriptor belongs to a transport.
 */
int tram__transport_new(tram_loop *loop, const struct transport_kind *kind, int fd, tram_protocol *protocol,
                        const struct transport_options *options, tram_transport **ret_transport);

/*
 * The same for one of a kind that has memory of its own; `io` is added already, the rest zero or what the kind put
 * there. Queues connection_made, the start of reading and the wake-up of `creator` (P-3; a pending future, which the
 * transport holds until then, or NULL), which completes with the transport.
 */
void tram__transport_begin(tram_transport *transport, tram_protocol *protocol, tram_future *creator);

/*
 * Withdraws a transport whose connection_made was not called yet (C-11): it never will be. The descriptor is closed,
 * and `released` follows soon, not within this call. False: connection_made was called, nothing happened.
 */
bool tram__transport_withdraw(tram_transport *transport);

/*
 * Parts with the descriptor, which stays open, and with the protocol, which hears no connection_lost but `released`.
 * The transport is inert from here on.
 */
void tram__transport_detach_io(tram_transport *transport);

/* Makes the part that few transports have. 0 or -ENOMEM. */
int tram__transport_need_more(tram_transport *transport);

/* The same for one that is to be made, before there is a way to its end. NULL: out of memory. */
struct transport_more *tram__transport_more_new(tram_loop *loop);

/* With the memory of the transport. */
void tram__transport_free_more(tram_loop *loop, tram_transport *transport);

/* Its addresses, made when they are first wanted. NULL: out of memory. */
struct transport_addresses *tram__transport_addresses(tram_transport *transport);

/* Forgets what is held for its receiver, at the end of the tick. */
void tram__transport_drop_held(tram_transport *transport);

/* The same whatever it is, for layers. */
void tram__transport_receive_start(tram_transport *transport);

/* Unless it is paused, ended or not made yet. Held bytes come first; then it is they who call this. */
void tram__transport_start_reading(tram_transport *transport);

/* connection_lost soon; while connection_made is still queued, it takes over (C-16). */
void tram__transport_schedule_lost(tram_transport *transport);

/* connection_lost within this call: only from the loop (T-5). */
void tram__transport_call_lost(tram_transport *transport);

/* The loop closes: end within this call, with connection_lost for whoever got connection_made. */
void tram__transport_drop(tram_transport *transport);

/* Accepted bytes, or a file, are not sent yet. */
bool tram__transport_unsent(const tram_transport *transport);

/*
 * An end that the library makes: abort, but what was accepted and is dropped with it makes it an error: TRAM_ECANCELLED
 * to the protocol, a reset to the peer.
 */
void tram__transport_cut(tram_transport *transport, enum end_reason reason, const char *operation);

/* Before an end that has its error already, or is none to the protocol: it may be one to the peer. */
void tram__transport_note_end(tram_transport *transport, enum end_reason reason);

/* A fatal error (T-16). Does nothing if the end is certain already. */
void tram__transport_end_by(tram_transport *transport, enum end_reason reason, int code, const char *operation,
                            void *user);
void tram__transport_fatal(tram_transport *transport, int code, const char *operation, void *user);

/* A send failed for good (W-5): lost with that error, after what the peer had sent was delivered. */
void tram__transport_send_failed(tram_transport *transport, int code, const char *operation);

/* The kernel has no memory for it now, with this code: what is queued is tried again soon. */
void tram__transport_send_later(tram_transport *transport, int code);

static inline bool send_is_starved(ssize_t sent) {
    return sent == -ENOBUFS || sent == -ENOMEM;
}

/* The stream has ended, or a receive failed, of one whose send had failed before. */
static inline bool transport_heard_all(tram_transport *transport) {
    if (likely(!(transport->flags & T_WRITE_FAILED)))
        return false;
    tram__transport_schedule_lost(transport);
    return true;
}

/* What the peer or the protocol does is more than the user allows: TRAM_ELIMIT, which is reported (T-17). */
void tram__transport_over_limit(tram_transport *transport, const char *operation, const char *message);

/* The same for the failure of a protocol, of which base/protocol_adapter.h has put the rest into transport->end. */
void tram__transport_fail(tram_transport *transport, int code);

/* The kernel took bytes of the queue, 0: there were none, or failed. For the loop: connection_lost may be called
 * within. */
void tram__transport_sent(tram_transport *transport, ssize_t result);

/* The stream of a kind that is never half open has ended: eof_received and connection_lost, both queued (I-5). */
void tram__transport_ended(tram_transport *transport);

/*
 * Asks it to end when its work is done: calls `closing` soon, or closes it. Once; harmless if it ends already. Its
 * protocol is told the end of the loop's or its server's grace.
 */
void tram__transport_ask_end(tram_transport *transport);

/* The grace is over: resets it, counted, unless its end is certain. */
void tram__transport_expire(tram_transport *transport);

/* Of the stream: what the peer sees from here on is a reset, where there is such a thing. */
void tram__transport_forbid_end(tram_transport *transport);

/* See enum shutdown_mode. */
void tram__transport_ending(tram_transport *transport, enum shutdown_mode ending);

/*
 * Closes it, for a server or a loop that ends: what the peer sends meanwhile does not turn the end of the stream into a
 * reset.
 */
void tram__transport_close_gracefully(tram_transport *transport);

/* Its flags as words, cut to `size`; for logs. */
void tram__transport_describe(const tram_transport *transport, char *text, size_t size);

/* What must hold for an open transport between calls. */
void tram__transport_validate(const tram_transport *transport);

/* Calls `visit` for every open transport of the loop that `whole` or one who stands in for it owns. */
void tram__transport_each(tram_loop *loop, const struct transport_owner *root,
                          void (*visit)(tram_transport *transport, void *arg), void *arg);

#endif
