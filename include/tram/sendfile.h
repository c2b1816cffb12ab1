/*
 * Sending files without carrying their bytes through the program: loop.sendfile and loop.sock_sendfile. Calls of the
 * loop's thread.
 *
 * Both send from `offset` on, wherever the file's position is, until `count` bytes or the end of the file, and complete
 * with how many were sent: (size_t)(uintptr_t)value. Fewer than asked for is success. The file's position is behind the
 * last byte sent then, also after a failure or a cancel, unless nothing was sent.
 *
 * The kernel does it where it can: from regular files. If it refuses before the first byte, blocks are read on the
 * loop's default executor and sent from memory, so that pipes (from offset 0) and devices can be sent too; with
 * no_fallback that is TRAM_ENOSENDFILE.
 *
 * The file stays the caller's, and open until the future is done.
 *
 * At once and without a future fail: TRAM_EVALUE for a negative offset or a count of zero or less, -EBADF for what is
 * no open descriptor, -ENOMEM. Trouble with reading the file (-EBADF: not opened for reading, -EISDIR, -EIO …) comes
 * through the future; so does a lost connection, always as -ECONNRESET unless there is a better reason. `options` and
 * `ret_future` may be NULL.
 */
#ifndef TRAM_SENDFILE_H
#define TRAM_SENDFILE_H

#include <tram/future.h>

TRAM_BEGIN_DECLS

/* As a count: up to the end of the file. */
#define TRAM_SENDFILE_ALL INT64_MAX

/* Zero-initialise; zero means the default. */
typedef struct tram_sendfile_options {
    bool no_fallback;      /* only with the kernel's own sendfile */
    uintptr_t reserved[8]; /* must be 0 */
} tram_sendfile_options;

/*
 * Sends through a transport (loop.sendfile), after what was written to it before. Until the future is done, writes,
 * write_eof and further sendfiles are TRAM_ESTATE and nothing is read; what the program pauses meanwhile stays paused.
 * While blocks are sent from memory, the protocol is not told pause_writing and resume_writing, but once at the end if
 * the state is another than before. Cancelling leaves the transport open. TRAM_ESTATE at once: closing, write_eof was
 * called, a sendfile runs, a bridge writes, or a kind of transport that cannot do it.
 */
TRAM_API int tram_loop_sendfile(tram_loop *loop, tram_transport *transport, int file, int64_t offset, int64_t count,
                                const tram_sendfile_options *options, tram_future **ret_future);

/*
 * Sends through a plain stream socket of the caller's (loop.sock_sendfile); what tram/sock.h says of sockets holds.
 * TRAM_EVALUE at once for a socket that is no stream.
 */
TRAM_API int tram_loop_sock_sendfile(tram_loop *loop, int fd, int file, int64_t offset, int64_t count,
                                     const tram_sendfile_options *options, tram_future **ret_future);

TRAM_END_DECLS

#endif
