/* Making connections: loop.create_connection and loop.connect_accepted_socket. Calls of the loop's thread. */
#ifndef TRAM_CONNECTION_H
#define TRAM_CONNECTION_H

#include <tram/future.h>
#include <tram/retry.h>
#include <tram/tcp.h>
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
    uint64_t happy_eyeballs_delay_ns; /* race attempts, a new one after this delay (RFC 8305: 250 ms); 0: TRAM_FOREVER,
                                         in turn */
    int interleave;                   /* first_address_family_count; 0: 1 with happy eyeballs, else as resolved */
    bool all_errors;                  /* when all attempts fail: TRAM_EMULTIPLE, with each error in tram_error.causes */
    uint64_t timeout_ns;              /* resolve and connect within this, else TRAM_ETIMEOUT; 0: TRAM_FOREVER */
    bool keep_alive;                  /* SO_KEEPALIVE */
    bool transparent;                 /* IP_TRANSPARENT: local_host may be somebody else's; needs CAP_NET_ADMIN */
    /*
     * TLS as a client: connection_made comes after the handshake, and a failure of that is the operation's. The config
     * is held as long as it is needed. Without it the next four are TRAM_EVALUE, as in asyncio.
     */
    tram_tls_config *tls;
    /* Whose certificate it must be; NULL: `host`'s, and needed where there is none; "": anybody's. A name with bytes
     * above 127 is TRAM_EVALUE: give its A-labels, "xn--bcher-kva.example". */
    const char *server_hostname;
    uint64_t tls_handshake_timeout_ns; /* 0: as the config says; -ECONNABORTED when it is over */
    uint64_t tls_shutdown_timeout_ns;  /* 0: as the config says */
    tram_buffer *tls_session;          /* tram_tls_session() of an earlier connection; copied */
    tram_discard discard;              /* called with the factory's `arg` once the factory will not be called (again) */
    bool not_ours;                     /* `sock` is given back at the end instead of closed; see tram_adopt_options */
    const struct tram_proxy_header *proxy_header; /* tram/proxy.h: written before the first byte; copied; NULL: none */
    tram_tcp_options tcp;                         /* tram/tcp.h; with a `sock` that is refused at once */
    tram_retry_options retry;                     /* tram/retry.h; not with a `sock` */
    /*
     * The first bytes to be sent, before connection_made; copied. By TCP fast open (RFC 7413) they go with the packet
     * that connects, if the server was told to allow that (tcp.fast_open) and has been connected to before: it may
     * answer a round trip earlier. Else they are sent as soon as there is a connection. For requests that may be
     * repeated only: addresses that are tried after others get them, too, and a server may get them twice. Not with
     * `tls`, before which they would go.
     */
    const void *early_data;
    size_t early_size;
    uintptr_t reserved[3]; /* must be 0 */
} tram_connection_options;

/*
 * Resolves `host` and `port` (both text; a number needs no resolver), connects, calls the factory, makes the
 * transport and, after connection_made, completes the future with the tram_transport * (its protocol:
 * tram_transport_get_protocol). The value is borrowed: valid until connection_lost, and as long as the future, which
 * holds it: the connection may be lost before a done callback runs, and is inert then.
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
 * transport). With options: tram_loop_adopt_socket().
 */
TRAM_API int tram_loop_connect_accepted_socket(tram_loop *loop, tram_protocol_factory factory, void *arg, int sock,
                                               tram_future **ret_future);

/* ---- TLS on a connection that is open ---- */

/* Zero-initialise, but for `tls`; else zero means the default. */
typedef struct tram_start_tls_options {
    tram_tls_config *tls; /* needed; held as long as it is needed */
    bool server_side;
    const char *server_hostname;   /* of a client, who needs one: whose certificate it must be; "": anybody's */
    uint64_t handshake_timeout_ns; /* 0: as the config says */
    uint64_t shutdown_timeout_ns;
    tram_buffer *session; /* of a client: see tls_session in tram_connection_options */
    /* Bytes that the protocol has got already and that belong to TLS; copied. What the transport itself holds, and what
     * the kernel does, comes behind them. */
    const void *ahead;
    size_t ahead_size;
    uintptr_t reserved[6]; /* must be 0 */
} tram_start_tls_options;

/*
 * Lays TLS over the transport (loop.start_tls), which stays the same object. From now on `protocol` is its protocol
 * (NULL: as before; the old one gets `released`), which hears nothing until the handshake is done: then the future
 * completes with the transport, and bytes come and go encrypted. There is no second connection_made. What was written
 * before goes out plain. Until the end of the handshake everything but close, abort and getters is TRAM_ESTATE.
 *
 * A failure ends the connection: the future has the error, and so has the connection_lost of the protocol. Cancelling
 * aborts it. TLS over TLS works.
 *
 * At once, and nothing has happened: TRAM_EVALUE for options that make no sense; TRAM_ETYPE: no kind of transport for
 * it, see tram_transport_start_tls_compatible(), or no config; TRAM_ESTATE: closing, after write_eof, while a file is
 * sent, or another handshake is on; -ENOMEM. `ret_future` may be NULL: then
 * connection_lost alone tells of a failure.
 */
TRAM_API int tram_loop_start_tls(tram_loop *loop, tram_transport *transport, tram_protocol *protocol,
                                 const tram_start_tls_options *options, tram_future **ret_future);

/* ---- Handing connections over ---- */

/*
 * The same for a connection whose first bytes were read already, by tram_loop_peek(), by a transport that was detached,
 * or elsewhere: they are copied, and the protocol receives them before anything from the socket. It may pause within.
 */
TRAM_API int tram_loop_adopt(tram_loop *loop, tram_protocol_factory factory, void *arg, int sock, const void *unread,
                             size_t unread_size, tram_future **ret_future);

/* Zero-initialise; zero means the default. */
typedef struct tram_adopt_options {
    const void *unread; /* as above; copied */
    size_t unread_size;
    /*
     * The socket is not the transport's but lent to it: at the end it is neither closed nor shut down, and the caller's
     * again when connection_lost has returned, or the future has failed. It is non-blocking then.
     */
    bool not_ours;
    tram_discard discard;              /* called with `arg` once the factory will not be called (again) */
    tram_tls_config *tls;              /* TLS as the server; what is unread is TLS, too */
    uint64_t tls_handshake_timeout_ns; /* 0: as the config says */
    uint64_t tls_shutdown_timeout_ns;
    uintptr_t reserved[5]; /* must be 0 */
} tram_adopt_options;

/* The same with options, which may be NULL. Where the call itself fails, `arg` stays the caller's, too. */
TRAM_API int tram_loop_adopt_socket(tram_loop *loop, tram_protocol_factory factory, void *arg, int sock,
                                    const tram_adopt_options *options, tram_future **ret_future);

/*
 * What a transport leaves behind: its socket, what was received and not delivered yet, and what else it was: its layers
 * (TLS), water marks and hard limit, its addresses, also that for messages (tram/address.h), and whether its writing
 * side has ended.
 */
typedef struct tram_detached tram_detached;

/*
 * Takes the socket away from its transport, for another loop by tram_loop_adopt_detached(), or for another process or
 * library, which get the bare socket by tram_detached_take_fd(). The connection goes on, so there is no
 * connection_lost: the protocol gets `released` soon, as after tram_transport_set_protocol(), and the transport is
 * inert, as after connection_lost. A server does not count it any more. Messages to it wait until it is adopted.
 *
 * -ENOTSUP: not a socket's stream transport; TRAM_ESTATE: before connection_made, closing, or TLS on it is not ready;
 * -EAGAIN: something is queued for writing, come again when the write buffer is empty; -ENOMEM. Nothing happened then,
 * and `*ret_detached` is as before. On success it is the caller's to free.
 */
TRAM_API int tram_transport_detach(tram_transport *transport, tram_detached **ret_detached);

/*
 * Goes on with it on this loop, which may be another one of this process, as with tram_loop_adopt(): a new transport,
 * with a connection_made of its own, that has all that the old one had. The protocol receives first what was not
 * delivered. Where writing had ended, writes are TRAM_ESTATE. What was set by the server that had it (deadlines,
 * counting, its share of the drain) stays behind, but for the water marks. `detached` stays the caller's to free, and
 * is empty; where the call itself fails it is as before. TRAM_EVALUE; TRAM_ESTATE: it is empty; -ENOMEM.
 *
 * Its address for messages stays the same, and messages come behind connection_made, first those that have waited. As
 * long as it is on another loop than the one that gave the address, they come by that. Where this loop can have no
 * addresses (TRAM_ELIMIT of tram_transport_address()) the future fails with that.
 */
TRAM_API int tram_loop_adopt_detached(tram_loop *loop, tram_protocol_factory factory, void *arg,
                                      tram_detached *detached, tram_future **ret_future);

/*
 * Takes the socket, non-blocking, out of it: the caller's from now on. Its address for messages names nobody any more,
 * and what waits is dropped. TRAM_ESTATE: it was taken; -ENOTSUP: there are layers, TLS, without which it is of no use.
 * Any thread.
 */
TRAM_API int tram_detached_take_fd(tram_detached *detached);

/* The bytes that were not delivered, for tram_loop_adopt(); NULL: none. Borrowed, until it is freed. Any thread. */
TRAM_API tram_buffer *tram_detached_unread(const tram_detached *detached);

/* Frees it, and closes the socket if nobody took it; messages that wait are dropped then. NULL is allowed. Any thread.
 */
TRAM_API void tram_detached_free(tram_detached *detached);

/* What was there to be seen. */
typedef struct tram_peeked {
    const void *data; /* read from the socket: for tram_loop_adopt() */
    size_t size;
    bool eof;       /* the peer has ended its stream behind them */
    bool timed_out; /* the deadline came before enough bytes did */
    uintptr_t reserved[4];
} tram_peeked;

/*
 * Reads the first bytes of a connected stream socket, to choose a protocol by them: completes with a const tram_peeked
 * * that is valid as long as the future, as soon as `size` bytes are there, the stream ends, or `timeout_ns` have
 * passed (0: TRAM_FOREVER). It never reads more than `size`. Fails with -errno if the connection does, also where bytes
 * had come.
 *
 * The socket is made non-blocking and stays the caller's, who neither reads nor closes it before the future is done.
 * Cancelling loses what was read. TRAM_EVALUE: no stream socket, or a size of 0; TRAM_ESTATE: in use by a transport;
 * -ENOMEM.
 */
TRAM_API int tram_loop_peek(tram_loop *loop, int sock, size_t size, uint64_t timeout_ns, tram_future **ret_future);

TRAM_END_DECLS

#endif
