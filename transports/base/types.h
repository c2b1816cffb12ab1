/* What every transport consists of. Types only. */
#ifndef TRAM_TRANSPORTS_BASE_TYPES_H
#define TRAM_TRANSPORTS_BASE_TYPES_H

#include <netinet/in.h>

#include "core/jobs/future.h"
#include "core/loop/loop.h"
#include "transports/base/timer.h"
#include "transports/base/write_queue.h"
#include <tram/transport.h>

/* The public calls of a kind that is not a plain byte stream both ways; NULL: -ENOTSUP. */
struct transport_overrides {
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

/*
 * Has the writing side of a transport to itself for a while, and nothing is read: writes are TRAM_ESTATE (F-6). It
 * leaves by tram__transport_clear_writer().
 */
struct exclusive_writer {
    void (*drained)(
        struct exclusive_writer *writer); /* what was queued before is gone; asks for or against writability itself */
    /* The queue grew above or shrank to its water mark. False: the protocol is to hear it. */
    bool (*on_watermark)(struct exclusive_writer *writer, bool paused);
    void (*lost)(
        struct exclusive_writer *writer); /* the end of the connection is certain, and the writer is off already */
    void (*next_range)(struct exclusive_writer *writer,
                       struct io_range *ret_range); /* see io_kind, with IO_SENDS_FILE */
    void (*range_sent)(struct exclusive_writer *writer, ssize_t result);
    /* Of a writer with T_WRITER_YIELDS: puts what it has into the write queue and leaves. */
    void (*yield_writer)(struct exclusive_writer *writer);
    size_t held; /* bytes that it has, and which count as the write buffer */
};

enum traffic { TRAFFIC_IN, TRAFFIC_OUT };

/* How a kind of transport sends files. */
enum sendfile_mode {
    SENDFILE_NONE,
    SENDFILE_BLOCKS, /* by its write */
    SENDFILE_NATIVE, /* by next_range and range_sent */
};

/* What a kind of transport does in its own way. */
struct transport_kind {
    struct io_kind io; /* first: a transport's io.kind leads here; with a receiver: receiver.h chooses which */
    uint32_t flags;    /* that it begins with: T_HAS_OVERRIDES with `calls`, T_EOF with no_reading */
    const struct transport_overrides *calls; /* of transports with T_HAS_OVERRIDES */
    bool can_write_eof;
    bool detachable;
    enum sendfile_mode sendfile;
    bool no_reading; /* it has no reading side: is_reading is false */
    bool no_writing; /* nor a queue for writing: no water marks, -ENOTSUP */
    bool lingers;    /* its close may linger: linger.h; with end_writing */
    bool lives_on;   /* a failing data_received is reported and changes nothing (P-17) */
    /* Who takes what it receives for a protocol with get_buffer. NULL: the same as for others, or it never receives. */
    const struct io_receiver *buffered;
    /* connection_made has returned: what there is to listen to besides reading; 0 or -errno. May be NULL. */
    int (*start)(tram_transport *transport);
    void (*eof)(tram_transport *transport); /* the peer's stream has ended */
    /* The user's half of a carrier sends these, or copies them; 0 or a negative code. NULL: the write queue does. */
    int (*carry)(tram_transport *transport, const struct iovec *pieces, size_t count, size_t size);
    /* Reading has started. May be NULL. */
    void (*resumed)(tram_transport *transport);
    /* It was closed, and layers are shut down: the carrier's own end. NULL: when nothing is queued. */
    void (*close)(tram_transport *transport);
    void (*drop_queue)(tram_transport *transport); /* forgets what is queued for writing; queue.size is 0 then */
    int (*end_writing)(tram_transport *transport); /* nothing is queued any more, and write_eof was asked */
    void (*end)(tram_transport *transport);        /* connection_lost has returned: let go of the descriptor */
    void (*dispose)(tram_transport *transport);    /* frees the memory; NULL: it is from tram__transport_new() */
    const void *(*extra_info)(tram_transport *transport, const char *name); /* NULL: unknown */
    bool (*start_tls_compatible)(const tram_transport *transport);          /* NULL: it is not */
};

/* Who ends a connection: it decides whether the peer may take what it got for all (W-30). */
enum end_reason {
    END_BY_USER,     /* close, abort, or what the peer did; the default */
    END_BY_ERROR,    /* a system call, a callback or a layer failed */
    END_WRITE_LIMIT, /* more was queued than the hard limit allows */
    END_TIMEOUT,     /* a deadline: of its server, a bridge, its layers */
    END_STOP,        /* the end of a grace, of a loop, or abort_clients */
};

/* What ends a connection, kept until connection_lost: small, since nothing may be allocated on the way out. */
struct transport_end {
    const char *operation;
    void *user;
    int code; /* 0: a clean end */
    enum end_reason reason : 8;
};

/* Who counts a transport: the server that accepted it, or one who stands in for it. */
struct transport_owner {
    /* It ended: after connection_lost has returned and the descriptor is closed (V-15). */
    void (*on_detach)(struct transport_owner *owner, tram_transport *transport);
    /* Bytes moved, of a transport with T_METERED. */
    void (*on_bytes)(struct transport_owner *owner, enum traffic direction);
    struct transport_owner *root; /* the server's; itself, if this is it */
    uint64_t end_ns;              /* of the server's: when its drain is over; 0: it does not drain */
};

/* When pause_writing and resume_writing are called, and what is too much. */
struct write_limits {
    size_t high;
    size_t low;
    size_t hard; /* 0: none */
};

/* Those that a transport begins with (W-13). */
extern const struct write_limits tram__write_limits;

/* Addresses that the kernel was asked for, or a layer knows, which come before it; of size 0: not yet. */
struct transport_addresses {
    tram_socket_address sock;
    tram_socket_address peer;
    struct held *tlvs; /* of the header of the PROXY protocol that they are from; NULL: none */
};

/* Descriptors that come with the bytes: descriptors.c. */
struct transport_descriptors {
    size_t capacity;    /* for so many */
    size_t left;        /* waiting to be taken, within the callback with which they came */
    const int *waiting; /* the first of these */
};

/* That the program has begun for a connection and not ended: graceful.c. */
struct transport_work {
    struct list link; /* in the list of its loop, while there is some */
    tram_transport *transport;
    size_t count;
};

/* What few transports have; made on the way in, so that no end needs memory. Each connection of TLS has one. */
struct transport_more {
    struct transport_timer timer; /* first: it is set anew with every message */
    tram_transport *transport;
    void *user;                /* the user's own */
    struct held *held;         /* T_HELD: bytes that come before all others, see held.h; NULL: only an end */
    struct ready ready;        /* … and what delivers them, queued when reading starts */
    struct layer_stack *stack; /* T_LAYERED: stack.h; NULL: there never was a layer */
    char *detail;              /* of the error that ends it; NULL: none */
    struct lingering *linger;  /* linger.h; NULL: it was never asked to */
    struct transport_addresses *addresses;
    struct transport_descriptors *descriptors; /* NULL: none may come */
    struct transport_work *work;               /* graceful.c; NULL: there never was any */
    uint32_t address;                          /* the slot of its address, or 0: address.c */
    bool held_end; /* behind what is held comes the end of the stream, which a carrier tells once */
};

/* One bit each; the state of a transport is a set of them. */
enum transport_flag {
    T_MADE_PENDING = 1 << 0,   /* connection_made is in the ready queue */
    T_MADE = 1 << 1,           /* connection_made was called */
    T_PAUSED = 1 << 2,         /* pause_reading */
    T_EOF = 1 << 3,            /* the peer's EOF was seen: no more reading */
    T_CLOSING = 1 << 4,        /* close, abort or an error: is_closing */
    T_LOST_PENDING = 1 << 5,   /* connection_lost is certain, or was called: writes are dropped; with T_CLOSING */
    T_LOST = 1 << 6,           /* connection_lost was called; with T_LOST_PENDING */
    T_WRITE_EOF = 1 << 7,      /* write_eof was called */
    T_WRITING_PAUSED = 1 << 8, /* pause_writing was called, resume_writing not yet */
    T_HAS_OVERRIDES = 1 << 9,  /* its kind has public calls of its own */
    T_HAS_CREATOR = 1 << 10,   /* somebody waits for it to be made, and nobody owns it */
    T_EXCLUSIVE = 1 << 11,     /* a writer is at work, or layers are not ready: nobody writes, nothing is delivered */
    T_HAS_WRITER = 1 << 12,    /* on.writer is there; T_EXCLUSIVE too, or T_WRITER_YIELDS */
    T_WRITER_YIELDS = 1 << 13, /* with T_HAS_WRITER: its bytes go first, but it minds nobody else's */
    T_SERVER_CLOSE = 1 << 14,  /* it was us who ended it, for all: see tram__transport_close_gracefully() */
    T_HELD = 1 << 15,          /* bytes, or an end, are held for its receiver, which come before all others */
    T_WRITING_ENDED = 1 << 16, /* the kind was told to end the writing side, which happens once */
    T_NOT_OURS = 1 << 17,      /* the descriptor is lent to it: not closed at the end */
    T_FD_KNOWN = 1 << 18,      /* the user knows the descriptor, and may have set options of it */
    T_METERED = 1 << 19,       /* its owner is told of every byte that moves */
    T_BRIDGED = 1 << 20,       /* a bridge has it: errors are told though nothing is read, and nobody sends files */
    T_LAYERED = 1 << 21,       /* layers lie between carrier and protocol: stack.h */
    T_RESET = 1 << 22,         /* accepted bytes were dropped: the peer is to see a reset (W-30) */
    T_ASKED = 1 << 23,         /* it was asked to end when its work is done: graceful.c */
    T_TOLD = 1 << 24,          /* … and its protocol's `closing` was called */
    T_WRITE_FAILED = 1 << 25,  /* a send failed: lost with that when what came before was delivered (W-5) */
    T_SEND_LATER = 1 << 26,    /* the kernel had no memory: failed_send.c tries again */
    T_LINGER = 1 << 27,        /* its close is to linger: linger.h */
    T_LINGERING = 1 << 28,     /* … and does: all was sent, and what comes is dropped */
    T_OWN_LIMITS = 1 << 29,    /* `limits` is memory of its own */
    T_FLAGS_END,               /* one above the last */
};

/* Of the bench's 224 bytes for an idle connection this is the most: the order leaves no gaps. */
struct tram_transport {
    /* The first 64 bytes are what a message needs that is received and answered at once. */
    struct io io;
    tram_protocol *protocol; /* NULL once it was released */
    uint32_t flags;          /* enum transport_flag */
    uint16_t dropped_writes; /* told in one line at the end */
    uint16_t corked;
    struct write_queue queue;
    uint32_t holds;           /* one of the open connection, and the user's */
    struct sockaddr_in6 peer; /* who connected: or a sockaddr_in, or a mere AF_UNIX; family 0: ask the kernel */
    const struct write_limits *limits; /* its server's, with T_OWN_LIMITS its own, or tram__write_limits */
    union {
        struct ready ready;              /* connection_made, later connection_lost */
        struct exclusive_writer *writer; /* between the two, with T_HAS_WRITER */
        struct deferred_free deferred;   /* after that */
    } on;
    struct transport_end end;
    union {
        struct transport_owner *owner; /* of an accepted one; may be NULL */
        tram_future *creator;          /* T_HAS_CREATOR: completed after connection_made */
    };
    struct transport_more *more; /* or NULL: none of it */
};

static inline const struct transport_kind *transport_kind_of(const tram_transport *transport) {
    return (const struct transport_kind *)transport->io.kind;
}

static inline struct exclusive_writer *transport_writer(const tram_transport *transport) {
    return unlikely(transport->flags & T_HAS_WRITER) ? transport->on.writer : NULL;
}

/* The one that leaves, or is sent off; NULL: there is none. */
static inline struct exclusive_writer *transport_take_writer(tram_transport *transport) {
    struct exclusive_writer *writer = transport_writer(transport);
    if (unlikely(writer != NULL)) {
        transport->flags &= ~(uint32_t)(T_EXCLUSIVE | T_HAS_WRITER | T_WRITER_YIELDS);
        transport->io.flags &= (uint8_t)~IO_SENDS_FILE;
    }
    return writer;
}

/* Bytes of a file, or of somebody else's, are written: they count as queued. */
static inline bool transport_sends_file(const tram_transport *transport) {
    return unlikely((transport->flags & (T_HAS_WRITER | T_WRITER_YIELDS)) == T_HAS_WRITER);
}

/* Before anybody but a writer of T_WRITER_YIELDS does something to the queue. */
static inline void transport_flush_writer(tram_transport *transport) {
    if (unlikely(transport->flags & T_WRITER_YIELDS))
        transport->on.writer->yield_writer(transport->on.writer);
}

#endif
