/*
 * The transport as the library sees it: what every kind shares. transport.c is the state machine of the writing and
 * the ending side; protocol.c the adapter to protocols, the only place where a protocol's callback is called and its
 * answer judged (P-14 to P-17); stream.c one kind, the socket.
 */
#ifndef TRAM_TRANSPORTS_TRANSPORT_H
#define TRAM_TRANSPORTS_TRANSPORT_H

#include <netinet/in.h>

#include "core/future.h"
#include "core/loop.h"
#include "transports/write_queue.h"
#include <tram/transport.h>

/* The public calls of a kind that is not a plain byte stream both ways; NULL: -ENOTSUP. */
struct transport_calls {
    int (*close)(tram_transport *transport);
    int (*abort)(tram_transport *transport);
    int (*pause_reading)(tram_transport *transport);
    int (*resume_reading)(tram_transport *transport);
    int (*write)(tram_transport *transport, const void *data, size_t size);
    int (*writelines)(tram_transport *transport, const struct iovec *pieces, size_t count);
    int (*write_buffer)(tram_transport *transport, tram_buffer *buffer);
    int (*cork)(tram_transport *transport);
    int (*uncork)(tram_transport *transport);
    int (*write_eof)(tram_transport *transport);
};

/*
 * Has the writing side of a transport to itself for a while, and nothing is read: writes are TRAM_ESTATE (F-6). It
 * leaves by tram__transport_unpump().
 */
struct pump {
    void (*drained)(struct pump *pump); /* what was queued before is gone; asks for or against writability itself */
    /* The queue grew above or shrank to its water mark. False: the protocol is to hear it. */
    bool (*edge)(struct pump *pump, bool paused);
    void (*lost)(struct pump *pump); /* the end of the connection is certain, and the pump is off already */
    void (*next_range)(struct pump *pump, struct io_range *ret_range); /* see io_kind, with IO_SENDS_FILE */
    void (*range_sent)(struct pump *pump, ssize_t result);
};

/* How a kind of transport sends files. */
enum sendfile_mode {
    SENDFILE_NONE,
    SENDFILE_BLOCKS, /* by its write */
    SENDFILE_NATIVE, /* by next_range and range_sent */
};

/* What a kind of transport does in its own way. */
struct transport_kind {
    struct io_kind io;                     /* first: a transport's io.kind leads here */
    const struct transport_kind *plain;    /* the same kind for protocols with data_received … */
    const struct transport_kind *buffered; /* … and with get_buffer */
    const struct transport_calls *calls;   /* of transports with T_SPECIAL */
    bool can_write_eof;
    enum sendfile_mode sendfile;
    void (*drop_queue)(tram_transport *transport); /* forgets what is queued for writing; queue.size is 0 then */
    int (*end_writing)(tram_transport *transport); /* nothing is queued any more, and write_eof was asked */
    void (*end)(tram_transport *transport);        /* connection_lost has returned: let go of the descriptor */
    const void *(*extra_info)(tram_transport *transport, const char *name); /* NULL: unknown */
};

/* What ends a connection, kept until connection_lost: small, since nothing may be allocated on the way out. */
struct transport_end {
    const char *operation;
    void *user;
    int code; /* 0: a clean end */
};

/* Who counts a transport in and out: the server that accepted it. */
struct transport_owner {
    void (*attached)(struct transport_owner *owner, tram_transport *transport);
    /* After connection_lost has returned and the descriptor is closed (V-15). */
    void (*detached)(struct transport_owner *owner, tram_transport *transport);
};

/* One bit each; the state of a transport is a set of them. */
enum transport_flag {
    T_MAKE_QUEUED = 1 << 0,    /* connection_made is in the ready queue */
    T_MADE = 1 << 1,           /* connection_made was called */
    T_PAUSED = 1 << 2,         /* pause_reading */
    T_EOF = 1 << 3,            /* the peer's EOF was seen: no more reading */
    T_CLOSING = 1 << 4,        /* close, abort or an error: is_closing */
    T_LOST_QUEUED = 1 << 5,    /* connection_lost is certain: writes are dropped */
    T_LOST = 1 << 6,           /* connection_lost was called */
    T_EOF_ASKED = 1 << 7,      /* write_eof was called */
    T_WRITING_PAUSED = 1 << 8, /* pause_writing was called, resume_writing not yet */
    T_SPECIAL = 1 << 9,        /* its kind has public calls of its own */
    T_PUMPED = 1 << 10,        /* a pump is at work: nobody else writes, nothing is read */
};

struct tram_transport {
    struct io io;
    tram_protocol *protocol; /* NULL once it was released */
    struct write_queue queue;
    uint32_t flags; /* enum transport_flag */
    uint32_t holds; /* one of the open connection, and the user's */
    uint32_t dropped_writes;
    uint32_t corked;
    size_t high;
    size_t low;
    size_t hard_limit; /* 0: none */
    union {
        struct ready ready; /* connection_made, later connection_lost */
        struct grave grave; /* after that */
    } on;
    struct transport_end end;
    struct transport_owner *owner;
    tram_future *creator;          /* completed after connection_made */
    struct pump *pump;             /* or NULL */
    tram_socket_address *sockname; /* fetched, or NULL */
    struct sockaddr_in6 peer;      /* or a sockaddr_in; family 0: ask the kernel */
};

static inline const struct transport_kind *transport_kind_of(const tram_transport *transport) {
    return (const struct transport_kind *)transport->io.kind;
}

/* ---- stream.c ---- */

/*
 * Makes a stream transport of a connected, non-blocking socket and queues connection_made, the start of reading and
 * the wake-up of `creator` (P-3; a pending future, which the transport holds until then, or NULL), which completes
 * with the transport. `owner` may be NULL; it is told at once, and when the transport ended.
 *
 * On success the descriptor and the protocol are the transport's. On failure (-ENOMEM, TRAM_ESTATE: the descriptor
 * belongs to a transport) both stay the caller's.
 */
struct stream_options {
    const struct sockaddr_storage *peer; /* NULL: the kernel is asked */
    socklen_t peer_size;
    bool no_delay_set; /* inherited from the listener: a saved system call */
    struct transport_owner *owner;
    tram_future *creator;
};
int tram__stream_new(tram_loop *loop, int fd, tram_protocol *protocol, const struct stream_options *options,
                     tram_transport **ret_transport);

/* ---- transport.c ---- */

/* The public calls as byte streams have them, for kinds to put into their transport_calls. */
int tram__transport_close(tram_transport *transport);
int tram__transport_abort(tram_transport *transport);
int tram__transport_pause_reading(tram_transport *transport);
int tram__transport_resume_reading(tram_transport *transport);
int tram__transport_write(tram_transport *transport, const void *data, size_t size);
int tram__transport_writelines(tram_transport *transport, const struct iovec *pieces, size_t count);
int tram__transport_write_buffer(tram_transport *transport, tram_buffer *buffer);
int tram__transport_cork(tram_transport *transport);
int tram__transport_uncork(tram_transport *transport);
int tram__transport_write_eof(tram_transport *transport);

/* Water marks, for kinds that keep their own queue in queue.size: after it grew, and after it shrank. */
void tram__transport_maybe_pause(tram_transport *transport);
void tram__transport_maybe_resume(tram_transport *transport);

/* A write after the end: dropped, counted, and logged from the fifth on (W-6). */
void tram__transport_drop_write(tram_transport *transport);

/*
 * The queue became empty: ends a closing transport, or the writing side where write_eof waits. `within_loop`:
 * connection_lost may be called here.
 */
void tram__transport_drained(tram_transport *transport, bool within_loop);

/*
 * Gives the writing side to a pump, which is told when the queue is empty unless it is already; and takes it back:
 * reading starts again unless it was paused meanwhile. The interest in writability stays as it is.
 */
void tram__transport_pump(tram_transport *transport, struct pump *pump);
void tram__transport_unpump(tram_transport *transport);

/* Common part of making one; `io` is added already. Queues connection_made. */
void tram__transport_begin(tram_transport *transport, tram_protocol *protocol, struct transport_owner *owner,
                           tram_future *creator);

/*
 * Takes back a transport whose connection_made was not called yet (C-11): it never will be. The protocol is released,
 * the descriptor closed. False: connection_made was called, nothing happened.
 */
bool tram__transport_withdraw(tram_transport *transport);

/* A fatal error (T-16). Does nothing if the end is certain already. */
void tram__transport_fatal(tram_transport *transport, int code, const char *operation, void *user);

/* The kernel took bytes of the queue, or failed. For the loop: connection_lost may be called within. */
void tram__transport_sent(tram_transport *transport, ssize_t result);

/* See enum io_ending. */
void tram__transport_ending(tram_transport *transport, enum io_ending ending);

/* Calls `visit` for every open transport of the loop whose owner is `owner`. */
void tram__transport_each(tram_loop *loop, const struct transport_owner *owner,
                          void (*visit)(tram_transport *transport));

/* ---- protocol.c: the adapter ---- */

/*
 * Calls a factory: a protocol, or a negative code. A factory that returns success without a protocol, or with one
 * that has no ops, is TRAM_ETYPE.
 */
int tram__protocol_make(tram_loop *loop, tram_protocol_factory factory, void *arg, tram_protocol **ret_protocol);

/* Queues `released` of a protocol that no transport has any more (X-4, S-5). Never fails. */
void tram__protocol_release_soon(tram_loop *loop, tram_protocol *protocol);
void tram__protocol_release(tram_protocol *protocol);

/* Takes that back, for a protocol that a transport has again. Harmless for any other. */
void tram__protocol_reclaim(tram_loop *loop, tram_protocol *protocol);

void tram__protocol_connection_made(tram_transport *transport);
void tram__protocol_connection_lost(tram_transport *transport, const tram_error *error);
void tram__protocol_received(tram_transport *transport, const void *data, size_t size);
int tram__protocol_get_buffer(tram_transport *transport, void **ret_memory, size_t *ret_size);
void tram__protocol_buffer_updated(tram_transport *transport, size_t size);
void tram__protocol_eof(tram_transport *transport);
void tram__protocol_pause_writing(tram_transport *transport);
void tram__protocol_resume_writing(tram_transport *transport);

#endif
