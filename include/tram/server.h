/* Servers: loop.create_server and asyncio.Server. Calls of the loop's thread. Sharded over cores:
 * tram/runtime.h. */
#ifndef TRAM_SERVER_H
#define TRAM_SERVER_H

#include <tram/future.h>
#include <tram/limits.h>
#include <tram/tcp.h>
#include <tram/transport.h>

TRAM_BEGIN_DECLS

/* How the connections of a server get to the workers of its runtime (tram/runtime.h). */
typedef enum tram_shard {
    /*
     * A listening socket per worker (SO_REUSEPORT): the kernel spreads connections by chance, and a worker that has
     * clearly more of them than another hands a fresh one over. A steady load costs no system call for that.
     */
    TRAM_SHARD_REUSEPORT = 0,
    /* One worker accepts and gives each connection to the worker with the fewest: exactly level. */
    TRAM_SHARD_HANDOFF,
    /* One socket that all workers watch (EPOLLEXCLUSIVE): whoever is idle accepts; then as with REUSEPORT. */
    TRAM_SHARD_SHARED,
    /* One worker accepts and serves all. */
    TRAM_SHARD_FIXED,
} tram_shard;

/* How the kernel chooses among the sockets of TRAM_SHARD_REUSEPORT. */
typedef enum tram_steer {
    TRAM_STEER_KERNEL = 0, /* by a hash of the addresses */
    /* The CPU on which the packet came, modulo the workers: with `pin` and a network card that spreads its queues over
     * the CPUs, a connection stays on one CPU from the card to the protocol. */
    TRAM_STEER_CPU,
    /* The hash that the network card gave the packet, modulo the workers. */
    TRAM_STEER_HASH,
} tram_steer;

/* Zero-initialise; zero means the default. */
typedef struct tram_server_options {
    const char *const *hosts; /* several hosts instead of the one argument; ended by NULL */
    const int *sock;          /* a bound stream socket instead of host and port; becomes the server's */
    const int *sockets;       /* or several, `socket_count` different ones, as tram/inherit.h gets them */
    size_t socket_count;
    int family;            /* AF_INET, AF_INET6; 0: any */
    int flags;             /* for getaddrinfo; 0: AI_PASSIVE */
    int backlog;           /* 0: 100; 4096 for a server of a runtime */
    bool no_reuse_address; /* leave SO_REUSEADDR off */
    bool reuse_port;       /* SO_REUSEPORT */
    bool same_port;     /* with port 0: one port for all addresses, of both families, instead of one each; -EADDRINUSE
                           if none is found that is free everywhere */
    bool keep_alive;    /* SO_KEEPALIVE on accepted connections */
    bool transparent;   /* IP_TRANSPARENT: take connections to addresses of others; needs CAP_NET_ADMIN */
    bool defer_serving; /* start_serving=False: bind, but do not listen before tram_server_start_serving() */
    unsigned accept_budget; /* connections accepted in one tick, at most; 0: backlog + 1, and no more than 256 */
    /* for servers of a runtime only; TRAM_EVALUE elsewhere */
    tram_shard shard;
    unsigned shard_worker;    /* who accepts with HANDOFF and FIXED */
    tram_steer steer;         /* with REUSEPORT */
    bool keep_where_accepted; /* with REUSEPORT and SHARED: hand nothing over */
    /* for all */
    const tram_server_limits *limits; /* tram/limits.h; NULL: none */
    tram_discard discard; /* called with the factory's `arg` once no loop will call the factory any more; any thread */
    bool not_ours;        /* `sock` or `sockets` are not closed: the caller's again when the server has closed, or the
                             future has failed; they still listen then */
    /*
     * TLS for each connection: connection_made comes after the handshake, and one that fails is nobody's but the
     * factory's (`released`). The config is held as long as it is needed.
     */
    tram_tls_config *tls;
    uint64_t tls_handshake_timeout_ns; /* 0: as the config says; TRAM_EVALUE without it */
    uint64_t tls_shutdown_timeout_ns;
    /*
     * Each connection begins with a header of the PROXY protocol: tram/proxy.h. `proxy_trusts` tells whose header is
     * believed, with tram_socket_network_contains() perhaps; the others' connections begin without one. NULL:
     * everybody's; any thread, and it does not block.
     */
    bool proxy_protocol;
    uint64_t proxy_timeout_ns; /* for the header; 0: 3 seconds; TRAM_EVALUE without `proxy_protocol`, as the next */
    bool (*proxy_trusts)(const tram_socket_address *peer);
    tram_tcp_options tcp;  /* tram/tcp.h; of the listening sockets, and so of the connections */
    uintptr_t reserved[1]; /* must be 0 */
} tram_server_options;

/*
 * Binds and listens (loop.create_server); for every connection the factory makes a protocol. `host` NULL or
 * "": all interfaces; `port` is text, "0" or NULL lets the kernel choose. Completes, one tick after listening
 * began, with the tram_server *, of which the caller then has one hold: tram_server_release() it. Errors
 * through the future: TRAM_ERESOLVE, -EADDRINUSE, -EACCES … with the address in the detail. TRAM_EVALUE at
 * once for options that contradict each other. `ret_future` may be NULL: then the server lives until the loop
 * closes.
 */
TRAM_API int tram_loop_create_server(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *host,
                                     const char *port, const tram_server_options *options, tram_future **ret_future);

TRAM_API tram_server *tram_server_hold(tram_server *server);

/* Gives a hold back; NULL: nothing. A server nobody holds goes on serving until it is closed, by the loop at the
 * latest. */
TRAM_API void tram_server_release(tram_server *server);

/*
 * Stops listening, at once (Server.close). Connections go on; those that the kernel had completed already are
 * still accepted and served. Idempotent.
 */
TRAM_API int tram_server_close(tram_server *server);

/* Close, or abort, every connection of the server (Server.close_clients, abort_clients). New ones still come.
 */
TRAM_API int tram_server_close_clients(tram_server *server);
TRAM_API int tram_server_abort_clients(tram_server *server);

/* Completes once the server was closed and has no connection left (Server.wait_closed). */
TRAM_API int tram_server_wait_closed(tram_server *server, tram_future **ret_future);

/*
 * Ends the server gracefully: closes it, asks every connection to end when its work is done, as the end of a runtime
 * does (`closing` in tram/protocol.h, tram_runtime_stop()), waits until all are gone, but no longer than `timeout_ns`
 * (0: as TRAM_NOW), and resets what is left then; the log names them. Completes with how many these were:
 * (size_t)(uintptr_t)value; 0 also where the loop closed. Cancelling it only ends the wait, and then nothing is reset.
 */
TRAM_API int tram_server_drain(tram_server *server, uint64_t timeout_ns, tram_future **ret_future);

/* Who is connected to a server. */
typedef struct tram_client {
    tram_transport *transport;
    tram_socket_address peername; /* of size 0 where it is not known */
    size_t unsent;                /* bytes that wait to be sent */
    bool half_closed;             /* the peer has ended its stream, and hears more from us */
    bool closing;                 /* it ends when all is sent */
    uintptr_t reserved[4];
} tram_client;

/* May do anything that the loop's thread may, also end the transport. */
typedef void (*tram_client_function)(const tram_client *client, void *arg);

/* Calls `visit` for each connection that the server has now, within this call. */
TRAM_API int tram_server_each_client(tram_server *server, tram_client_function visit, void *arg);

/* Writes a client as text, "127.0.0.1:4711 (closing, 1024 bytes unsent)"; as tram_socket_address_text(). */
TRAM_API const char *tram_client_text(const tram_client *client, char *text, size_t size);

/* Begins to accept (Server.start_serving); harmless if it does. TRAM_ESTATE on a closed server. */
TRAM_API int tram_server_start_serving(tram_server *server, tram_future **ret_future);

/*
 * Serves until the server is closed or the future cancelled, which closes it (Server.serve_forever); the future then
 * ends with TRAM_ECANCELLED, after the last connection did. Cancelling once more, or after a close, interrupts that
 * wait. TRAM_ESTATE: closed, or asked twice.
 */
TRAM_API int tram_server_serve_forever(tram_server *server, tram_future **ret_future);

/* A pointer of the user's, which the library keeps and never looks at; NULL at first. */
TRAM_API int tram_server_set_user(tram_server *server, void *user);
TRAM_API void *tram_server_user(const tram_server *server);

TRAM_API bool tram_server_is_serving(const tram_server *server);
TRAM_API tram_loop *tram_server_get_loop(const tram_server *server);

/* How many connections it has now. */
TRAM_API size_t tram_server_connection_count(const tram_server *server);

/* What its limits did so far. Any thread, while the server is held. */
TRAM_API int tram_server_limit_counts(const tram_server *server, tram_limit_counts *ret_counts);

/*
 * The listening sockets (Server.sockets): how many there are; none after close. Fills at most `count` entries
 * of `ret_sockets`, which may be NULL with count 0.
 */
TRAM_API size_t tram_server_sockets(const tram_server *server, tram_socket *ret_sockets, size_t count);

/* The address a listening socket is bound to, by index; TRAM_EVALUE if there is no such socket. */
TRAM_API int tram_server_sockname(const tram_server *server, size_t index, tram_socket_address *ret_address);

TRAM_END_DECLS

#endif
