/*
 * Transports: how bytes move (asyncio.Transport).
 *
 * A transport belongs to one loop and is used on its thread only. It is made by the loop (tram/connection.h,
 * tram/server.h) and pairs with one protocol at a time. A pointer to it is valid until connection_lost has
 * returned (released, where connection_made never came); who needs it longer takes a hold. No call here blocks, and
 * none of them calls connection_lost, data_received or eof_received before it returns.
 *
 * One type serves every kind of transport; a call that a kind does not have returns -ENOTSUP.
 */
#ifndef TRAM_TRANSPORT_H
#define TRAM_TRANSPORT_H

#include <sys/socket.h>
#include <sys/uio.h>

#include <tram/buffer.h>
#include <tram/protocol.h>

TRAM_BEGIN_DECLS

/* What TLS is made by: tram/tls.h, of libtram-tls. */
typedef struct tram_tls_config tram_tls_config;

/* ---- Ending ---- */

/*
 * Stops reading at once, sends what is queued, then connection_lost(NULL) (Transport.close). Repeated calls
 * are harmless.
 */
TRAM_API int tram_transport_close(tram_transport *transport);

/*
 * As close, for whoever answers and ends while the peer is still sending, such as a server that refuses an upload: to
 * close a socket then resets the connection, and the peer may lose the answer. So when all is sent the sending side is
 * ended, and what comes is read and dropped until the peer ends its side, at most `linger_ns` (0: 2 s; TRAM_FOREVER: as
 * long as it takes); then connection_lost(NULL). Writes are dropped meanwhile. TCP and Unix sockets; for other kinds,
 * and where the peer has ended already, it is a close. Harmless once the end is certain. -ENOMEM: nothing happened.
 */
TRAM_API int tram_transport_close_lingering(tram_transport *transport, uint64_t linger_ns);

/* Drops what is queued; connection_lost(NULL) follows soon (WriteTransport.abort). */
TRAM_API int tram_transport_abort(tram_transport *transport);

/*
 * As abort, and the peer sees a reset instead of the end of a stream, where there is such a thing (TCP: SO_LINGER 0).
 */
TRAM_API int tram_transport_reset(tram_transport *transport);

/*
 * As abort, but connection_lost gets an error with this one's code, operation (a constant; NULL: "abort") and user
 * pointer, which must be there until then. TRAM_EVALUE: no error, or one whose code is not negative. Harmless once the
 * end is certain: the first reason stays.
 */
TRAM_API int tram_transport_abort_with_error(tram_transport *transport, const tram_error *error);

/*
 * Says that the program works for this connection elsewhere: a job in an executor, a connection that is being made for
 * it, a call to another worker. A transport whose protocol has no `closing` is not closed by the end of its runtime or
 * server before each begin_work has had its end_work; write what comes of the work before that. Also holds the
 * transport, so that end_work may come after connection_lost. -ENOMEM; TRAM_ESTATE: it is lost already, or, of
 * end_work, nothing was begun.
 */
TRAM_API int tram_transport_begin_work(tram_transport *transport);
TRAM_API int tram_transport_end_work(tram_transport *transport);

/* How often begin_work was called and end_work not yet. */
TRAM_API size_t tram_transport_work(const tram_transport *transport);

/* True from close, abort or a fatal error on (BaseTransport.is_closing). */
TRAM_API bool tram_transport_is_closing(const tram_transport *transport);

/*
 * Keeps the transport's memory after connection_lost; the transport is inert then: extra info stays readable,
 * writes are dropped. Each hold is given back by a release. Releasing the last hold of a transport that was
 * never closed aborts nothing: the open connection itself holds it. A release too many closes it, which debug
 * mode reports. Releasing NULL does nothing.
 */
TRAM_API tram_transport *tram_transport_hold(tram_transport *transport);
TRAM_API void tram_transport_release(tram_transport *transport);

/* ---- Reading ---- */

/*
 * No data_received, eof_received or get_buffer from now on, even if the bytes are here already
 * (pause_reading); nothing is lost, and the peer is slowed by its full window. Idempotent; no effect on a
 * closing transport.
 */
TRAM_API int tram_transport_pause_reading(tram_transport *transport);
TRAM_API int tram_transport_resume_reading(tram_transport *transport);

/* Neither paused, nor closing, nor past the peer's EOF (ReadTransport.is_reading). */
TRAM_API bool tram_transport_is_reading(const tram_transport *transport);

/* ---- Writing ---- */

/*
 * Sends `size` bytes, in order, never blocking: at once what the kernel takes if nothing is queued, a private
 * copy of the rest later (WriteTransport.write). Returns 0 also when the connection is gone and the bytes are
 * dropped. After write_eof TRAM_ESTATE; NULL data with a size TRAM_EVALUE. -ENOMEM: the rest could not be
 * kept, and the connection ends with that error.
 */
TRAM_API int tram_transport_write(tram_transport *transport, const void *data, size_t size);

/* The same for `count` pieces in one go (WriteTransport.writelines). */
TRAM_API int tram_transport_writelines(tram_transport *transport, const struct iovec *pieces, size_t count);

/*
 * The same for a shared buffer, which is never copied: the transport takes references of its own while bytes
 * of it are queued. The caller's reference stays the caller's. Where the transport lets go of the last reference, the
 * buffer's release function runs at the end of the tick, or in the next tick if that was outside of one: never inside a
 * call of a transport, so it may call anything.
 */
TRAM_API int tram_transport_write_buffer(tram_transport *transport, tram_buffer *buffer);

/*
 * Between cork and uncork writes are only queued; the last uncork sends them with one system call. Calls
 * nest. For a protocol that answers in many small pieces.
 */
TRAM_API int tram_transport_cork(tram_transport *transport);
TRAM_API int tram_transport_uncork(tram_transport *transport);

/*
 * Ends the sending side after what is queued (WriteTransport.write_eof); receiving goes on. Further writes
 * fail with TRAM_ESTATE; a second write_eof is harmless.
 */
TRAM_API int tram_transport_write_eof(tram_transport *transport);
TRAM_API bool tram_transport_can_write_eof(const tram_transport *transport);

/* For the limits: take the default, or derive it from the other one. */
#define TRAM_LIMIT_DEFAULT ((size_t)-1)

/*
 * The water marks (WriteTransport.set_write_buffer_limits): pause_writing when more than `high` bytes are
 * queued, resume_writing when `low` or fewer are left. Default 64 KiB and 16 KiB; only one given: low = high
 * / 4, high = 4 * low. high < low: TRAM_EVALUE, -ENOMEM: nothing changes. Both calls name the high mark first; either
 * ret_… may be NULL.
 */
TRAM_API int tram_transport_set_write_buffer_limits(tram_transport *transport, size_t high, size_t low);
TRAM_API int tram_transport_get_write_buffer_limits(const tram_transport *transport, size_t *ret_high, size_t *ret_low);

/*
 * More than `limit` queued bytes end the connection with TRAM_ELIMIT: for peers that never read, where the
 * protocol does not heed pause_writing. 0: no limit (the default). -ENOMEM: nothing changes.
 */
TRAM_API int tram_transport_set_write_hard_limit(tram_transport *transport, size_t limit);

/* Bytes accepted and not yet taken by the kernel (WriteTransport.get_write_buffer_size). */
TRAM_API size_t tram_transport_get_write_buffer_size(const tram_transport *transport);

/* ---- Time ---- */

/* 0, or a negative code, which ends the connection with that error (operation: "timer"). */
typedef int (*tram_transport_timeout)(tram_transport *transport, void *arg);

/*
 * Calls `callback(transport, arg)` after `delay_ns`, unless the connection has ended by then: for what a request or an
 * answer may take. NULL: the connection ends with -ETIMEDOUT. A transport has one such timer: a call replaces what was
 * set before, and costs a store or two where the new time is not earlier, so set it anew with every message.
 * TRAM_FOREVER takes it away. It goes with the transport through a change of protocols, beside the deadlines of its
 * server's limits (tram/limits.h). For more than one deadline there is tram_loop_call_later(), whose callbacks the end
 * of a connection does not cancel.
 *
 * Counted from the begin of the tick, as often as within one; zero: due at once, from the loop. Nothing is called from
 * within. TRAM_ESTATE: the end of the connection is certain; -ENOMEM, from the first call only.
 */
TRAM_API int tram_transport_call_later(tram_transport *transport, uint64_t delay_ns, tram_transport_timeout callback,
                                       void *arg);

/* ---- Who is at the ends ---- */

/*
 * Switches the protocol at once (BaseTransport.set_protocol): no connection_made for the new one, no
 * connection_lost for the old one, whose `released` follows soon. TRAM_ESTATE from connection_lost on, TRAM_ETYPE for a
 * protocol without ops: nothing changed, and the new protocol stays the caller's.
 */
TRAM_API int tram_transport_set_protocol(tram_transport *transport, tram_protocol *protocol);

/* Its protocol; NULL once connection_lost has returned, for who holds the transport. */
TRAM_API tram_protocol *tram_transport_get_protocol(const tram_transport *transport);
TRAM_API tram_loop *tram_transport_get_loop(const tram_transport *transport);

/*
 * A pointer of the user's, which the library keeps and never looks at; NULL at first. It stays readable as long as the
 * transport is held. An idle connection pays nothing for it: the first set takes memory, and fails with -ENOMEM.
 */
TRAM_API int tram_transport_set_user(tram_transport *transport, void *user);
TRAM_API void *tram_transport_user(const tram_transport *transport);

/* A socket's address, as get_extra_info gives it. */
struct tram_socket_address {
    socklen_t size;
    struct sockaddr_storage address;
};

/*
 * Makes an address of a numeric host ("127.0.0.1", "::1", "fe80::1%eth0") and a numeric port (NULL: 0). TRAM_EVALUE:
 * one of them is none, or there is no such interface; names go to the resolver (tram/resolver.h). Any thread.
 */
TRAM_API int tram_socket_address_inet(const char *host, const char *port, tram_socket_address *ret_address);

/*
 * Makes the address of a Unix socket: a path, or a name in the abstract space, which begins with a NUL and may have any
 * bytes. `size` without a NUL at the end. TRAM_EVALUE: empty, longer than 107 bytes (abstract: 108), or a path with a
 * NUL in it. Any thread.
 */
TRAM_API int tram_socket_address_unix(const char *path, size_t size, tram_socket_address *ret_address);

/* The port of an internet address, as a number; -EAFNOSUPPORT for any other. Any thread. */
TRAM_API int tram_socket_address_port(const tram_socket_address *address);

/* A network of internet addresses. Zeroed: one that contains nobody. */
typedef struct tram_socket_network {
    int family; /* AF_INET, AF_INET6 */
    unsigned bits;
    unsigned char prefix[16]; /* the first `bits` bits of its addresses; the others are 0 */
} tram_socket_network;

/*
 * Makes a network of its text, "10.0.0.0/8" or "2001:db8::/32"; without bits it is that one address. TRAM_EVALUE: it is
 * none, or the address goes on behind the bits ("10.0.0.1/8"), as with Python's ipaddress. Any thread.
 */
TRAM_API int tram_socket_network_parse(const char *text, tram_socket_network *ret_network);

/*
 * Is it an address of this network? An IPv4 address that comes in the form of IPv6 ("::ffff:10.0.0.1", as on a socket
 * of both families) is one of IPv4. Never of other families' addresses. Any thread.
 */
TRAM_API bool tram_socket_network_contains(const tram_socket_network *network, const tram_socket_address *address);

/* A view of a transport's socket: for options and names. Not to be closed, read or written. */
typedef struct tram_socket {
    int fd; /* -1 after the connection ended */
    int family;
    int type;
    int protocol;
    uintptr_t reserved[4];
} tram_socket;

/*
 * What else is known of the connection (BaseTransport.get_extra_info):
 *
 *     "socket"    const tram_socket *
 *     "sockname"  const tram_socket_address *
 *     "peername"  const tram_socket_address *; of a Unix client without a name its address is the family alone
 *     "peercred"  const tram_peer_credentials * (tram/unix.h): of Unix sockets
 *
 * The value is valid until the next call of this function on the same loop. Unknown or absent: `fallback`.
 */
TRAM_API const void *tram_transport_get_extra_info(tram_transport *transport, const char *name, const void *fallback);

/*
 * The two addresses as copies, which do not die with the next call: get_extra_info("peername") and ("sockname").
 * -ENOTSUP: there is none, as with pipes and pairs; -ECHILD.
 */
TRAM_API int tram_transport_peername(tram_transport *transport, tram_socket_address *ret_address);
TRAM_API int tram_transport_sockname(tram_transport *transport, tram_socket_address *ret_address);

/* How tram_loop_sendfile() sends through a transport (asyncio.constants._SendfileMode). */
typedef enum tram_sendfile_mode {
    TRAM_SENDFILE_UNSUPPORTED = 0,
    TRAM_SENDFILE_FALLBACK = 1,   /* blocks are read and written */
    TRAM_SENDFILE_TRY_NATIVE = 2, /* by the kernel; blocks where it refuses */
} tram_sendfile_mode;
TRAM_API tram_sendfile_mode tram_transport_sendfile_mode(const tram_transport *transport);

/* Could TLS be laid over it (Transport._start_tls_compatible)? TCP and Unix streams, and custom transports that say so.
 */
TRAM_API bool tram_transport_start_tls_compatible(const tram_transport *transport);

/*
 * Writes an address as text, "127.0.0.1:80", "[::1]:80", "unix:/path", "unix:@abstract"; always terminated, cut if
 * `size` is too small. Peers choose the names of Unix sockets: in them a backslash is "\\", and what is not printable
 * UTF-8 is "\x1b". Returns `text`. Any thread.
 */
TRAM_API const char *tram_socket_address_text(const tram_socket_address *address, char *text, size_t size);

/* Length of text that fits any address. */
#define TRAM_ADDRESS_TEXT_SIZE 448

TRAM_END_DECLS

#endif
