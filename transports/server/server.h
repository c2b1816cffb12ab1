/*
 * The server as the library sees it: listening, accepting, closing. server/ops.c has its operations, server/calls.c and
 * server/waits.c the calls of users, server/create.c how tram_loop_create_server() comes to one; sharded/server.c many
 * of them.
 */
#ifndef TRAM_TRANSPORTS_SERVER_SERVER_H
#define TRAM_TRANSPORTS_SERVER_SERVER_H

#include "transports/server/ops.h"
#include "transports/server/types.h"
#include "transports/socket/listener.h"

/*
 * A server without sockets. `options` are checked already. Nobody holds it: the first put frees it. With a load it is
 * one of the shards that share their connections, and has their limits; else `load` is NULL.
 */
int tram__server_alloc(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_server_options *options,
                       struct worker_load *load, tram_server **ret_server);

/* Gives it bound sockets. They are the server's on success only. */
int tram__server_adopt(tram_server *server, const int *fds, size_t count);

/* Listens and accepts, if it does not yet. */
int tram__server_serve(tram_server *server, struct kept_error *ret_error);

/* Closes it; `accept_rest`: what the kernel completed is served (V-17). */
void tram__server_shut(tram_server *server, bool accept_rest);

/*
 * A shard with these bound sockets, which serves already unless defer_serving is set; with one hold, the caller's.
 * On failure the sockets stay the caller's. Ends with tram__server_leave(), on the loop's thread.
 */
int tram__server_new(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_server_options *options,
                     struct worker_load *load, const int *fds, size_t count, tram_server **ret_server,
                     struct kept_error *ret_error);
void tram__server_leave(tram_server *server);

/* The option of what comes before connection_made that makes no sense, or NULL. */
const char *tram__server_wrong_layers(const tram_server_options *options);

/* ---- server/clients.c ---- */

/* Writes who is connected and does not end anyway: the first few, and how many more. */
void tram__server_describe(tram_server *server, char *text, size_t size);

/* ---- server/create.c ---- */

/* The option that contradicts itself or another, or NULL. */
const char *tram__server_wrong_option(const char *host, const char *port, const tram_server_options *options);

#endif
