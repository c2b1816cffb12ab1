/*
 * The transport as the library sees it: what every kind shares, and the adapter between transports and
 * protocols, which is the only place where a protocol's callback is called and its answer judged (P-14 to
 * P-17).
 */
#ifndef TRAM_TRANSPORTS_TRANSPORT_H
#define TRAM_TRANSPORTS_TRANSPORT_H

#include "core/future.h"
#include "core/loop.h"
#include "transports/write_queue.h"
#include <tram/transport.h>

/* What ends a connection, kept until connection_lost: small, since nothing may be allocated on the way out.
 */
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

/* One bit each; the states of a transport are sets of them. */
enum transport_flag {
    T_MADE = 1 << 0,               /* connection_made has been called */
    T_PAUSED = 1 << 1,             /* pause_reading */
    T_EOF = 1 << 2,                /* the peer's EOF was seen: no more reading */
    T_CLOSING = 1 << 3,            /* close, abort or an error: is_closing */
    T_LOST_QUEUED = 1 << 4,        /* connection_lost is on its way: writes are dropped */
    T_LOST = 1 << 5,               /* connection_lost has been called */
    T_EOF_ASKED = 1 << 6,          /* write_eof was called */
    T_EOF_SENT = 1 << 7,           /* the write side is shut */
    T_WRITING_PAUSED = 1 << 8,     /* pause_writing was called, resume_writing not yet */
    T_BUFFERED = 1 << 9,           /* the protocol has get_buffer */
    T_LIMIT_HIT = 1 << 10,         /* the hard limit was hit */
    T_MAKE_QUEUED = 1 << 11,       /* connection_made is in the ready queue */
    T_NO_OWNER_SOCKNAME = 1 << 12, /* sockname must be fetched before the descriptor closes if held */
};

struct transport_names; /* addresses that were fetched or must outlive the descriptor: stream.c */

struct tram_transport {
    struct io io;
    tram_protocol *protocol;
    struct write_queue queue;
    uint32_t flags; /* enum transport_flag */
    uint32_t holds; /* one of the open connection, and the user's */
    uint32_t dropped_writes;
    uint32_t corked;
    size_t high;
    size_t low;
    size_t hard_limit;  /* 0: none */
    struct ready ready; /* connection_made, later connection_lost */
    struct transport_end end;
    struct transport_owner *owner;
    tram_future *creator; /* completed after connection_made */
    struct transport_names *names;
    struct sockaddr_storage *peer_given; /* see stream.c */
};

/*
 * Makes a stream transport of a connected, non-blocking socket and queues connection_made, the start of
 * reading and the wake-up of `creator` (P-3; a pending future that the transport holds, or NULL), which
 * completes with the transport. `peer` is the peer's address if it is known already, else NULL. `owner` may
 * be NULL; it is told at once, and when the transport ended.
 *
 * On success the descriptor and the protocol are the transport's. On failure (-ENOMEM, TRAM_ESTATE: the
 * descriptor belongs to a transport) both stay the caller's.
 */
struct stream_options {
    const struct sockaddr_storage *peer;
    socklen_t peer_size;
    const struct sockaddr_storage *local; /* the address it is bound to, where that is known and concrete */
    socklen_t local_size;
    bool no_delay_set; /* inherited from the listener: a saved system call */
    struct transport_owner *owner;
    tram_future *creator;
};
int tram__stream_new(tram_loop *loop, int fd, tram_protocol *protocol, const struct stream_options *options,
                     tram_transport **ret_transport);

/* The transport behind an io of this loop, or NULL if it is something else: for walking over all of a loop.
 */
tram_transport *tram__transport_of(struct io *io);

/* Calls `visit` for every open transport of the loop whose owner is `owner`. */
void tram__transport_each(tram_loop *loop, struct transport_owner *owner, void (*visit)(tram_transport *transport));

/*
 * Calls a factory: a protocol, or a negative code. A factory that returns success without a protocol, or with
 * one that has no ops, is TRAM_ETYPE.
 */
int tram__protocol_make(tram_loop *loop, tram_protocol_factory factory, void *arg, tram_protocol **ret_protocol);

/* Queues `released` of a protocol that no transport has (S-5, X-4). Never fails: without memory it is called
 * later in this tick. */
void tram__protocol_release_soon(tram_loop *loop, tram_protocol *protocol);

#endif
