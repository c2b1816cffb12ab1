/*
 * Datagrams: loop.create_datagram_endpoint, asyncio.DatagramTransport and DatagramProtocol, over UDP and Unix sockets.
 * Calls of the loop's thread, but for those of a runtime.
 *
 * A datagram transport has close, abort, is_closing, cork and uncork, the write buffer limits, set_protocol and
 * get_extra_info of tram/transport.h. It has no write, no write_eof and no pause_reading: -ENOTSUP. Its protocol has
 * datagram_received and error_received (tram/protocol.h) in place of data_received and eof_received.
 *
 * Datagrams are received in batches, of at most 32 system messages in a turn of the loop. What is sent within
 * datagram_received goes out with one system call after the last one of the batch; many datagrams of one size to one
 * peer cost hardly more than one where the kernel can cut (UDP_SEGMENT), and the same holds for receiving (UDP_GRO).
 * tram_transport_cork() does the same for sending elsewhere.
 */
#ifndef TRAM_DATAGRAM_H
#define TRAM_DATAGRAM_H

#include <tram/runtime.h>
#include <tram/transport.h>

TRAM_BEGIN_DECLS

/* Zero-initialise; zero means the default. */
typedef struct tram_datagram_options {
    const int *sock;         /* a datagram socket to use, with `receive_…` at most; becomes the transport's */
    const char *local_host;  /* bind to this address; NULL or "" with a local_port: all interfaces */
    const char *local_port;  /* text; "0" or NULL: the kernel chooses */
    const char *remote_host; /* connect to this address: only it is heard, and sent to */
    const char *remote_port;
    const char *local_path; /* the same for Unix sockets; a stale socket at the local path is removed */
    const char *remote_path;
    size_t local_path_size; /* 0: the path ends with a NUL; else for abstract names, which begin with one */
    size_t remote_path_size;
    int family; /* AF_INET, AF_INET6, AF_UNIX; 0: any, which needs an address */
    int protocol;
    int flags;            /* for getaddrinfo: AI_… */
    bool reuse_port;      /* SO_REUSEPORT; TRAM_EVALUE where there is none */
    bool allow_broadcast; /* SO_BROADCAST; a remote address is then not connected to, only sent to */
    bool receive_ttl;     /* tram_transport_datagram_ttl() tells; -ENOTSUP where the socket is no UDP one */
    bool receive_tos;     /* tram_transport_datagram_tos() tells; the same */
    bool not_ours;        /* `sock` is given back at the end instead of closed; see tram_adopt_options */
    tram_discard discard; /* called with the factory's `arg` once the factory will not be called (again); of an endpoint
                             over all cores on any thread */
    uintptr_t reserved[6]; /* must be 0 */
} tram_datagram_options;

/*
 * Makes a datagram transport (loop.create_datagram_endpoint): resolves, opens, binds and connects, calls the factory
 * and, after connection_made, completes the future with the tram_transport *. The value is borrowed: valid until
 * connection_lost. With a local and a remote address, those pairs of family and protocol are tried, in order, that
 * both resolve to.
 *
 * TRAM_EVALUE at once, and no future, for options that contradict each other and for a socket of another type;
 * TRAM_ESTATE for one that a transport has. Every other trouble comes through the future: TRAM_ERESOLVE,
 * TRAM_EVALUE (no common family), the first of -EADDRINUSE, -EACCES … with the address in the detail, the
 * factory's error. `ret_future` may be NULL: then only the protocol tells how it went.
 */
TRAM_API int tram_loop_create_datagram_endpoint(tram_loop *loop, tram_protocol_factory factory, void *arg,
                                                const tram_datagram_options *options, tram_future **ret_future);

/*
 * Sends one datagram, which may be empty, never blocking (DatagramTransport.sendto): at once if nothing is queued, else
 * a private copy later, whole and in order. `address` NULL: to the remote address; needed where there is none
 * (TRAM_EVALUE), and where there is one, it is equal or NULL (TRAM_EVALUE). A socket that came connected ignores it.
 *
 * Returns 0 also when the kernel refused for good, which error_received hears (too large: -EMSGSIZE; nobody there:
 * -ECONNREFUSED at some later call), and when the transport is gone and the datagram dropped. -ENOMEM: it could not be
 * queued, all else is as before. NULL data with a size: TRAM_EVALUE. A queued datagram counts for its size and 8 in
 * tram_transport_get_write_buffer_size(); one that was sent within datagram_received, only if the kernel refused it at
 * the end of the batch.
 */
TRAM_API int tram_transport_sendto(tram_transport *transport, const void *data, size_t size,
                                   const tram_socket_address *address);

/*
 * The same, leaving from `source`, an address of this machine of the same family; its port is not looked at, a scope
 * (fe80::1%eth0) chooses the interface. NULL: the kernel chooses. An address that is not ours is an error of the system
 * for error_received. TRAM_EVALUE: another family, no internet address; -ENOTSUP: no datagram transport.
 *
 * tram_transport_sendto() leaves the choice to the kernel, too, with one exception: an answer to the sender of the
 * datagram that is just being received leaves from the address that the datagram came to. So on all interfaces a peer
 * hears from whom it asked; who answers later keeps what tram_transport_datagram_local() told.
 */
TRAM_API int tram_transport_sendto_from(tram_transport *transport, const void *data, size_t size,
                                        const tram_socket_address *address, const tram_socket_address *source);

/*
 * Within datagram_received: the address of this machine that the datagram came to, with the port of the socket. Where
 * the socket is bound to all interfaces that is the kernel's word (IP_PKTINFO; of a broadcast it is the address of the
 * interface), else the name of the socket. TRAM_ESTATE elsewhere; -ENOTSUP: no datagram transport; -ENOMEM.
 */
TRAM_API int tram_transport_datagram_local(tram_transport *transport, tram_socket_address *ret_address);

/*
 * Within datagram_received: its time to live or hop limit, where `receive_ttl` asks for it; its type of service or
 * traffic class, the lowest two bits of which are ECN, where `receive_tos` does. -1: not known.
 */
TRAM_API int tram_transport_datagram_ttl(const tram_transport *transport);
TRAM_API int tram_transport_datagram_tos(const tram_transport *transport);

/*
 * Within datagram_received: the size that the datagram was sent with. More than what was delivered if it was cut, which
 * happens to Unix datagrams of more than 256 KiB; 0 elsewhere.
 */
TRAM_API size_t tram_transport_datagram_size(const tram_transport *transport);

/* ---- Over all cores ---- */

/* An endpoint with a socket and a protocol on every worker. Freed with its runtime. */
typedef struct tram_runtime_datagram_endpoint tram_runtime_datagram_endpoint;

/*
 * Binds a UDP socket per worker to the local address of `options`, in order of workers, and makes a protocol for each
 * on its worker's loop. The kernel chooses by the sender's address which socket gets a datagram (SO_REUSEPORT), always
 * the same. Resolves and binds in the calling thread and returns when every worker receives, or at once before
 * tram_runtime_start(). Without `reuse_port` the port must be nobody else's.
 *
 * TRAM_EVALUE: no local address, or a socket, a remote address or a Unix path. Any thread that is not a worker of this
 * runtime (TRAM_ESTATE there). `ret_endpoint` may be NULL. `ret_error` (may be NULL) gets the details of a failure,
 * with texts that are valid until the next such call or tram_runtime_create_server() on the same runtime.
 */
TRAM_API int tram_runtime_create_datagram_endpoint(tram_runtime *runtime, tram_protocol_factory factory, void *arg,
                                                   const tram_datagram_options *options,
                                                   tram_runtime_datagram_endpoint **ret_endpoint,
                                                   tram_error *ret_error);

/* The address of its sockets. Any thread. */
TRAM_API int tram_runtime_datagram_endpoint_sockname(const tram_runtime_datagram_endpoint *endpoint,
                                                     tram_socket_address *ret_address);

/* Closes the transports of all workers, as tram_transport_close(), soon. Any thread. */
TRAM_API int tram_runtime_datagram_endpoint_close(tram_runtime_datagram_endpoint *endpoint);

/* The same, and frees it, soon: it is not to be used any more. -ENOMEM: call it again. NULL is allowed. Any thread. */
TRAM_API int tram_runtime_datagram_endpoint_release(tram_runtime_datagram_endpoint *endpoint);

TRAM_END_DECLS

#endif
