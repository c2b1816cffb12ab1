/*
 * Operations on plain sockets: loop.sock_recv and its family. Calls of the loop's thread.
 *
 * The socket is the caller's before, during and after: the loop only waits for it. It must be non-blocking (debug mode
 * checks). Each call tries at once; if the kernel has to be waited for, the operation waits on the loop, and its future
 * completes then. Cancelling the future takes the operation back: the socket stays open, and nothing was received.
 *
 * One operation may wait for reading and one for writing. A further one of the same direction takes the place of the
 * one that waits (a reader or writer of tram_loop_add_reader() counts as one), which then waits until it is cancelled.
 * Closing the descriptor under a waiting operation fails it with -EBADF, within some seconds at the latest.
 *
 * At once and without a future fail: -EBADF for a negative descriptor, TRAM_ESTATE for one that a transport has,
 * TRAM_EVALUE for arguments without sense and, in debug mode, for a blocking socket; -ENOMEM. Every other trouble comes
 * through the future. Memory of the caller's is borrowed until the future is done. `ret_future` may be NULL.
 *
 * tram_loop_sock_sendfile() is in tram/sendfile.h.
 */
#ifndef TRAM_SOCK_H
#define TRAM_SOCK_H

#include <tram/future.h>
#include <tram/transport.h>

TRAM_BEGIN_DECLS

/* What a receiving operation brings; lives as long as its future. */
typedef struct tram_sock_data {
    const void *data; /* the future's own memory, or the caller's; never NULL */
    size_t size;
    tram_socket_address address; /* of the sender; size 0 if it has none, and for sock_recv */
    uintptr_t reserved[4];
} tram_sock_data;

/* At most `size` bytes, and never more than 256 KiB (loop.sock_recv). Completes with a const tram_sock_data *; size 0:
 * the end of the stream. */
TRAM_API int tram_loop_sock_recv(tram_loop *loop, int fd, size_t size, tram_future **ret_future);

/* The same into the caller's memory (loop.sock_recv_into). Completes with the count: (size_t)(uintptr_t)value. */
TRAM_API int tram_loop_sock_recv_into(tram_loop *loop, int fd, void *memory, size_t size, tram_future **ret_future);

/*
 * One datagram and who sent it; what exceeds `size` or 256 KiB is cut off (loop.sock_recvfrom). Completes with a const
 * tram_sock_data *; an empty datagram has size 0.
 */
TRAM_API int tram_loop_sock_recvfrom(tram_loop *loop, int fd, size_t size, tram_future **ret_future);

/*
 * The same into the caller's memory of `size` bytes, of which `count` are used (0: all; above `size`: TRAM_EVALUE)
 * (loop.sock_recvfrom_into). Completes with a const tram_sock_data * whose data is `memory`.
 */
TRAM_API int tram_loop_sock_recvfrom_into(tram_loop *loop, int fd, void *memory, size_t size, size_t count,
                                          tram_future **ret_future);

/* Sends all, or fails after an unknown part of it (loop.sock_sendall). Completes with NULL. */
TRAM_API int tram_loop_sock_sendall(tram_loop *loop, int fd, const void *data, size_t size, tram_future **ret_future);

/*
 * Sends one datagram to `address`, or to the peer of a connected socket if that is NULL (loop.sock_sendto). Completes
 * with the count: (size_t)(uintptr_t)value.
 */
TRAM_API int tram_loop_sock_sendto(tram_loop *loop, int fd, const void *data, size_t size,
                                   const tram_socket_address *address, tram_future **ret_future);

/*
 * Connects an internet socket (loop.sock_connect): a name is resolved for the socket's family first, a number is not,
 * and the first address is taken. Completes with NULL. TRAM_EVALUE for a socket of another family.
 */
TRAM_API int tram_loop_sock_connect(tram_loop *loop, int fd, const char *host, const char *port,
                                    tram_future **ret_future);

/* Connects a socket of any family to `address`, which is passed on as it is (loop.sock_connect). */
TRAM_API int tram_loop_sock_connect_address(tram_loop *loop, int fd, const tram_socket_address *address,
                                            tram_future **ret_future);

/*
 * Accepts one connection of a listening socket (loop.sock_accept). Completes with a const tram_socket_address *, the
 * peer's, which lives as long as the future; the descriptor is had from tram_future_fd().
 */
TRAM_API int tram_loop_sock_accept(tram_loop *loop, int fd, tram_future **ret_future);

/*
 * Takes the accepted descriptor, non-blocking and close-on-exec, out of the future: from now on it is the caller's to
 * close. One that nobody took is closed with the last reference to the future. TRAM_ESTATE: not done, without success,
 * or taken already; TRAM_ETYPE: no future of tram_loop_sock_accept().
 */
TRAM_API int tram_future_fd(tram_future *future);

TRAM_END_DECLS

#endif
