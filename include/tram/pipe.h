/*
 * Pipes: transports over one end of a pipe, a FIFO, a terminal or another character device, or a socket used one
 * way (loop.connect_read_pipe and loop.connect_write_pipe). Calls of the loop's thread.
 *
 * A read transport receives: data_received, eof_received, connection_lost; what eof_received returns does not matter,
 * since nothing could be written any more. A failing data_received is reported and reading goes on.
 *
 * A write transport writes, as tram/transport.h tells, with these differences: write_eof is a close; after either,
 * written bytes are dropped, not refused; and that the reader closed its end is noticed without writing (not on
 * character devices): connection_lost(NULL), or -EPIPE if bytes were still queued.
 *
 * Calls of the other direction return -ENOTSUP. The only extra info is "pipe", a const int *: the descriptor, -1 after
 * the end; not to be closed, read or written.
 */
#ifndef TRAM_PIPE_H
#define TRAM_PIPE_H

#include <tram/future.h>
#include <tram/transport.h>

TRAM_BEGIN_DECLS

/*
 * Makes a transport of a descriptor and, after connection_made, completes the future with the tram_transport *, which
 * is borrowed: valid until connection_lost.
 *
 * The descriptor becomes non-blocking for everybody who shares its open file, be it another process on the same
 * terminal, and is the transport's from here on, also where the factory fails; except when this call itself fails:
 * TRAM_EVALUE, neither pipe, socket nor character device (a regular file, a directory), and untouched; TRAM_ESTATE, in
 * use by a transport; -EBADF; -ENOMEM. The factory's error comes through the future. Cancelling the
 * future closes what was begun. `ret_future` may be NULL.
 */
TRAM_API int tram_loop_connect_read_pipe(tram_loop *loop, tram_protocol_factory factory, void *arg, int fd,
                                         tram_future **ret_future);
TRAM_API int tram_loop_connect_write_pipe(tram_loop *loop, tram_protocol_factory factory, void *arg, int fd,
                                          tram_future **ret_future);

/* Zero-initialise; zero means the default. */
typedef struct tram_pipe_options {
    bool not_ours;         /* the descriptor is given back at the end instead of closed; see tram_adopt_options */
    tram_discard discard;  /* called with the factory's `arg` after the factory, where the call succeeds */
    uintptr_t reserved[6]; /* must be 0 */
} tram_pipe_options;

/* The same with options, which may be NULL. */
TRAM_API int tram_loop_connect_read_pipe_with_options(tram_loop *loop, tram_protocol_factory factory, void *arg, int fd,
                                                      const tram_pipe_options *options, tram_future **ret_future);
TRAM_API int tram_loop_connect_write_pipe_with_options(tram_loop *loop, tram_protocol_factory factory, void *arg,
                                                       int fd, const tram_pipe_options *options,
                                                       tram_future **ret_future);

TRAM_END_DECLS

#endif
