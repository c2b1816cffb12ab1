/*
 * Operations on a server: the futures that wait for it, and the holds that keep its memory. Below the server itself,
 * which tells them when something ended.
 */
#ifndef TRAM_TRANSPORTS_SERVER_OPS_H
#define TRAM_TRANSPORTS_SERVER_OPS_H

#include "transports/server/types.h"

/* A move of its life. */
void tram__server_move(tram_server *server, enum server_move move);

/* A hold less: an operation's or the user's. The last one of a server that is over frees it. */
void tram__server_put(tram_server *server);

/* Frees it if nobody holds it, it is closed and has no connection. */
void tram__server_free_if_over(tram_server *server);

/* Makes `op`, which embeds a server_op first and is `size` bytes long, an operation of the server. */
int tram__server_op_new(tram_server *server, const struct future_kind *kind, size_t size, void *ret_op,
                        tram_future **ret_future);

/* The end of an operation whose future is done. */
void tram__server_op_end(struct server_op *op);

/* Ends the operations that wait for the end, if it has come (V-18). */
void tram__server_wake(tram_server *server);

/* The loop closes: ends all operations. */
void tram__server_drop_ops(tram_server *server);

/* Cancels an operation at once: a future_kind's `cancel`. */
void tram__server_op_cancel(tram_future *future);

#endif
