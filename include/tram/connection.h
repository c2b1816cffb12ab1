/* Making connections: loop.create_connection and loop.connect_accepted_socket. Calls of the loop's thread. */
#ifndef TRAM_CONNECTION_H
#define TRAM_CONNECTION_H

#include <tram/future.h>
#include <tram/transport.h>

TRAM_BEGIN_DECLS

/* Zero-initialise; zero means the default. */
typedef struct tram_connection_options {
    const int *sock; /* a connected stream socket to use instead of host and port; becomes the transport's */
    int family;      /* AF_INET, AF_INET6; 0: any */
    int protocol;
    int flags;                        /* for getaddrinfo: AI_… */
    const char *local_host;           /* bind to this address first; NULL with a local_port: any */
    const char *local_port;           /* NULL: any */
    uint64_t happy_eyeballs_delay_ns; /* race attempts, a new one after this delay (RFC 8305: 250 ms); 0: in
                                         turn */
    int interleave;                   /* first_address_family_count; 0: 1 with happy eyeballs, else as resolved */
    bool all_errors;                  /* when all attempts fail: TRAM_EMULTIPLE, with each error in tram_error.causes */
    uint64_t timeout_ns;              /* resolve and connect within this, else TRAM_ETIMEOUT; 0: no deadline */
    bool keep_alive;                  /* SO_KEEPALIVE */
    /* For TLS, which this version does not have: TRAM_EVALUE if any is set, as asyncio without ssl. */
    const char *server_hostname;
    uint64_t tls_handshake_timeout_ns;
    uint64_t tls_shutdown_timeout_ns;
    uintptr_t reserved[8]; /* must be 0 */
} tram_connection_options;

/*
 * Resolves `host` and `port` (both text; a number needs no resolver), connects, calls the factory, makes the
 * transport and, after connection_made, completes the future with the tram_transport * (its protocol:
 * tram_transport_get_protocol). The value is borrowed: valid until connection_lost.
 *
 * TRAM_EVALUE at once, and no future, for options that contradict each other; every other trouble comes
 * through the future: TRAM_ERESOLVE, -ECONNREFUSED …, TRAM_EMULTIPLE with all texts when attempts failed for
 * different reasons, TRAM_ETIMEOUT, the factory's error. Cancelling the future closes what was begun; if
 * connection_made ran, connection_lost follows. `ret_future` may be NULL: then only the protocol tells how it
 * went.
 */
TRAM_API int tram_loop_create_connection(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *host,
                                         const char *port, const tram_connection_options *options,
                                         tram_future **ret_future);

/*
 * Makes a transport of a connected stream socket that was accepted elsewhere. The socket is the transport's
 * from here on, except when this call itself fails (TRAM_EVALUE: no stream socket; TRAM_ESTATE: in use by a
 * transport).
 */
TRAM_API int tram_loop_connect_accepted_socket(tram_loop *loop, tram_protocol_factory factory, void *arg, int sock,
                                               tram_future **ret_future);

TRAM_END_DECLS

#endif
