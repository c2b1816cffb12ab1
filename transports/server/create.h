/*
 * Making a server, step by step: the operation and its server first, sockets that are bound then, by which it comes to
 * serve. Where the sockets come from is the caller's business.
 */
#ifndef TRAM_TRANSPORTS_SERVER_CREATE_H
#define TRAM_TRANSPORTS_SERVER_CREATE_H

#include "transports/server/server.h"
#include "transports/socket/lookup.h"

struct creation {
    struct server_op op;
    struct lookup *lookups; /* one per host */
    size_t host_count;
    size_t unanswered;
    tram_server_options options; /* for the sockets */
    bool defer_serving;
};

/* `options` are checked already. On failure there is neither an operation nor a future. */
int tram__creation_new(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_server_options *options,
                       tram_future **ret_future, struct creation **ret_creation);

/* Goes on with these sockets, which are the server's, or closed. */
void tram__creation_use_sockets(struct creation *creation, const int *fds, size_t count);

/* There will be no server. */
void tram__creation_fail(struct creation *creation, const tram_error *error);

#endif
