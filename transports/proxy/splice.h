/*
 * One direction of a bridge between TCP sockets, through which much goes: the kernel moves it, by way of a pipe. Small
 * messages are cheaper copied, so a direction begins when it has proved to be bulk, and ends when it is no more. What a
 * pipe holds stands before all else that is written to the receiving side.
 */
#ifndef TRAM_TRANSPORTS_PROXY_SPLICE_H
#define TRAM_TRANSPORTS_PROXY_SPLICE_H

#include "transports/base/types.h"

/*
 * Zero-initialised but for the bridge's protocols, each of which knows its transport as long as it has one. The pipe of
 * one that parts with `to` is empty: set_protocol has the bytes written, the end of a connection throws them away, and
 * detaching is refused.
 */
struct splice {
    struct exclusive_writer writer; /* of to->transport, while `pipe` holds bytes */
    const tram_protocol *from;
    const tram_protocol *to;
    int pipe[2];
    size_t bulk; /* what speaks for moving: bytes that came in large pieces lately */
    bool waits;  /* `from` is paused until the pipe is empty */
    bool never;  /* the kernel will not */
};

/* `size` bytes were received and copied. True: from now on a pipe may take them. */
bool tram__splice_update_estimate(struct splice *splice, size_t size);

/* See io_receiver. */
int tram__splice_pipe(struct splice *splice);
void tram__splice_spliced(struct splice *splice, ssize_t result);

#endif
