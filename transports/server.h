/*
 * The server as the library sees it. server.c is the object: listening, accepting, closing; server_waits.c its
 * futures; server_create.c how tram_loop_create_server() comes to one; runtime_server.c many of them.
 */
#ifndef TRAM_TRANSPORTS_SERVER_H
#define TRAM_TRANSPORTS_SERVER_H

#include "core/future.h"
#include "transports/listener.h"
#include "transports/transport.h"
#include <tram/server.h>

struct listener {
    struct io io;
    tram_server *server;
    struct deadline retry; /* runs while accepting pauses for want of descriptors or memory (V-11) */
    bool starved;
    bool no_delay; /* what it accepts has TCP_NODELAY already */
    tram_socket_address address;
};

/* They come and go together. */
struct listeners {
    struct grave grave;
    size_t count;
    struct listener items[];
};

struct tram_server {
    struct transport_owner owner; /* first */
    struct seat seat;
    tram_loop *loop; /* NULL once it closed */
    tram_allocator allocator;
    tram_protocol_factory factory;
    void *arg;
    struct listeners *listeners; /* NULL before the sockets are there, and after close */
    int backlog;
    bool keep_alive;
    bool serving;
    bool closed;
    uint32_t holds; /* the user's, and those of operations under way */
    size_t connections;
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
    tram_server *server; /* NULL once it is over */
};

/* ---- server.c ---- */

/* A server without sockets. `options` are checked already. Nobody holds it: the first put frees it. */
int tram__server_alloc(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_server_options *options,
                       tram_server **ret_server);

/* Gives it bound sockets. They are the server's on success only. */
int tram__server_adopt(tram_server *server, const int *fds, size_t count);

/* Listens and accepts, if it does not yet. */
int tram__server_serve(tram_server *server, struct kept_error *ret_error);

/* Closes it; `accept_rest`: what the kernel completed is served (V-17). */
void tram__server_shut(tram_server *server, bool accept_rest);

/* A hold less: an operation's or the user's. */
void tram__server_put(tram_server *server);

/*
 * A server with these bound sockets, which serves already unless defer_serving is set; with one hold, the caller's.
 * On failure the sockets stay the caller's.
 */
int tram__server_new(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_server_options *options,
                     const int *fds, size_t count, tram_server **ret_server, struct kept_error *ret_error);

/* ---- server_create.c ---- */

/* TRAM_EVALUE for what contradicts itself. */
int tram__server_check_options(const char *host, const char *port, const tram_server_options *options);

/* ---- server_waits.c ---- */

/* Makes `op`, which embeds a server_op first and is `size` bytes long, an operation of the server. */
int tram__server_op_new(tram_server *server, const struct future_kind *kind, size_t size, void *ret_op,
                        tram_future **ret_future);

/* The end of an operation whose future is done. */
void tram__server_op_end(struct server_op *op);

/* Ends the operations that wait for the end, if it has come (V-18). */
void tram__server_wake(tram_server *server);

/* The loop closes: ends all operations. */
void tram__server_drop_ops(tram_server *server);

#endif
