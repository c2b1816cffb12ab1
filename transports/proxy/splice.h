/*
 * One direction of a bridge between TCP sockets, through which much goes: the kernel moves it, by way of a pipe. Small
 * messages are cheaper copied, so a direction begins when it has proved to be bulk, and ends when it is no more. What a
 * pipe holds stands before all else that is written to the receiving side.
 */
#ifndef TRAM_TRANSPORTS_PROXY_SPLICE_H
#define TRAM_TRANSPORTS_PROXY_SPLICE_H

#include "transports/base/types.h"

/* Zero-initialised but for the protocol and the transports. */
struct splice {
    struct exclusive_writer writer; /* of `to`, while `pipe` holds bytes */
    const tram_protocol *protocol;  /* of `from`, as long as that is the bridge's */
    tram_transport *from;           /* NULL: it is gone, or another's */
    tram_transport *to;
    int pipe[2];
    size_t bulk; /* what speaks for moving: bytes that came in large pieces lately */
    bool waits;  /* `from` is paused until the pipe is empty */
    bool never;  /* the kernel will not */
};

/* `size` bytes were received and copied. */
void tram__splice_learn(struct splice *splice, size_t size);

/* `to` is another's, or gone: what the pipe holds goes to where it was meant to. */
void tram__splice_leave(struct splice *splice);

/* See io_kind. */
int tram__splice_pipe(struct splice *splice);
void tram__splice_spliced(struct splice *splice, ssize_t result);

#endif
