/* What every transport consists of. Types only. */
#ifndef TRAM_TRANSPORTS_TRANSPORT_TYPES_H
#define TRAM_TRANSPORTS_TRANSPORT_TYPES_H

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
    int (*sendto)(tram_transport *transport, const void *data, size_t size, const tram_socket_address *address);
};

/* What a kind of transport does in its own way. */
struct transport_kind {
    struct io_kind io;                     /* first: a transport's io.kind leads here */
    const struct transport_kind *plain;    /* the same kind for protocols with data_received … */
    const struct transport_kind *buffered; /* … and with get_buffer */
    const struct transport_calls *calls;   /* of transports with T_SPECIAL */
    bool can_write_eof;
    void (*drop_queue)(tram_transport *transport); /* forgets what is queued for writing; queue.size is 0 then */
    int (*end_writing)(tram_transport *transport); /* nothing is queued any more, and write_eof was asked */
    void (*end)(tram_transport *transport);        /* connection_lost has returned: let go of the descriptor */
    void (*dispose)(tram_transport *transport);    /* frees the memory; NULL: it is from the loop's pool */
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
    tram_socket_address *sockname; /* fetched, or NULL */
    struct sockaddr_in6 peer;      /* or a sockaddr_in; family 0: ask the kernel */
};

static inline const struct transport_kind *transport_kind_of(const tram_transport *transport) {
    return (const struct transport_kind *)transport->io.kind;
}

#endif
