/*
 * When a connection's time is over: the deadlines of a server's limits. Each connection of a server that has some gets
 * one of these as its owner, in the server's place, whom it tells in turn.
 *
 * One timer a connection, for whichever deadline comes next. What is received or sent writes down when that was, and
 * touches no timer: one that goes off too early goes on for the rest.
 */
#ifndef TRAM_TRANSPORTS_LIMITS_EXPIRY_H
#define TRAM_TRANSPORTS_LIMITS_EXPIRY_H

#include "transports/limits/limits.h"
#include "transports/stream/stream.h"

/* Of a shard. */
struct expiries {
    const struct limits *limits; /* with `expires` */
    struct limit_tally *tally;
    struct transport_owner *server;
    struct pool pool;
};

/* `allocator` must stay. */
void tram__expiries_init(struct expiries *expiries, const struct limits *limits, struct limit_tally *tally,
                         struct transport_owner *server, const tram_allocator *allocator);
void tram__expiries_fini(struct expiries *expiries);

/* tram__transport_new() of a connection of the server, whose time runs from now on. `options->owner` is filled in. */
int tram__expiry_stream_new(struct expiries *expiries, tram_loop *loop, int fd, tram_protocol *protocol,
                            struct transport_options *options, tram_transport **ret_transport);

#endif
