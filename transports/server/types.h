/* What a server consists of. Types only. */
#ifndef TRAM_TRANSPORTS_SERVER_TYPES_H
#define TRAM_TRANSPORTS_SERVER_TYPES_H

#include "core/base/life.h"
#include "core/jobs/future.h"
#include "transports/base/secured.h"
#include "transports/base/transport.h"
#include "transports/limits/expiry.h"
#include "transports/server/balance.h"
#include "transports/socket/file.h"
#include <tram/server.h>

struct listener {
    struct io io;
    tram_server *server;
    struct deadline retry; /* runs while accepting pauses for want of descriptors or memory (V-11) */
    bool starved;
    unsigned starvations; /* since it was last told anew */
    uint64_t starved_ns;  /* the last time */
    uint8_t failures;     /* of accept, since it last succeeded */
    tram_socket_address address;
    struct socket_file file; /* of a Unix socket: to be removed with it; none otherwise */
};

/* They come and go together. */
struct listeners {
    struct deferred_free deferred;
    size_t count;
    struct listener items[];
};

enum server_life {
    SERVER_NONE,
    SERVER_MAKING,  /* its names are looked up, its sockets are opened */
    SERVER_BOUND,   /* it has sockets, and does not listen yet */
    SERVER_SERVING, /* it accepts */
    SERVER_CLOSING, /* it does not any more; who got through to the kernel before is served still */
    SERVER_CLOSED,  /* for its connections, and for those who hold it */
};

enum server_move {
    SERVER_BIND,  /* it gets its sockets */
    SERVER_SERVE, /* it listens */
    SERVER_CLOSE, /* close, the end of its loop, or a creation that fails */
    SERVER_END,   /* nobody is left at its sockets */
    SERVER_DROP,  /* nobody has seen it: its creation was refused, and its sockets are their owner's again */
};

struct tram_server {
    struct transport_owner owner; /* first */
    struct close_hook hook;
    tram_loop *loop; /* NULL once that closed */
    tram_allocator allocator;
    tram_protocol_factory factory;
    void *arg;
    struct listeners *listeners; /* while it is bound or serves */
    struct worker_load *load;    /* of a shard of a runtime's server; NULL: it stands alone */
    struct limits *limits;       /* NULL: none; its own where it stands alone, else the balance's */
    struct limit_tally *tally;   /* with limits */
    struct expiries expiries;    /* with limits that expire */
    struct tls_use tls;          /* of each connection */
    bool (*proxy_trusts)(const tram_socket_address *peer);
    uint64_t proxy_timeout_ns; /* 0: connections begin without a header of the PROXY protocol */
    int backlog;
    uint32_t accept_limit; /* in one tick */
    bool exclusive;        /* other loops watch the same socket */
    bool keep_alive;
    bool not_ours;  /* the listening sockets are lent to it */
    uint8_t life;   /* enum server_life */
    uint32_t holds; /* the user's, and those of operations under way */
    size_t connections;
    void *user;           /* the user's own */
    tram_discard discard; /* of `arg`, with the server's memory; not of a shard, whose runtime does it */
    struct list waiting;  /* operations that end when it is closed and has no connection */
    struct list starting; /* operations that end in the next tick */
    struct server_op *forever;
    void (*opening)(tram_server *server); /* while it is being made: gives up making it */
};

/* An operation on a server, which it holds. */
struct server_op {
    tram_future future;
    struct list link; /* in `waiting` or `starting` */
    struct ready ready;
    struct deadline deadline; /* of one that waits no longer than that */
    int turns;                /* of a drain, before it asks */
    tram_server *server;      /* NULL once it is over */
};

#endif
