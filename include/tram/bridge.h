/* For proxies: two transports coupled, so that what one receives the other sends. Calls of the loop's thread. */
#ifndef TRAM_BRIDGE_H
#define TRAM_BRIDGE_H

#include <tram/future.h>
#include <tram/transport.h>

TRAM_BEGIN_DECLS

/* Zero-initialise; zero means the default. */
typedef struct tram_bridge_options {
    uint64_t idle_timeout_ns; /* abort both when no byte moved either way for so long; 0: TRAM_FOREVER */
    uintptr_t reserved[8];    /* must be 0 */
} tram_bridge_options;

typedef enum tram_bridge_outcome {
    TRAM_BRIDGE_EOF = 0,    /* both sides ended their streams, and everything was handed over */
    TRAM_BRIDGE_FAILED = 1, /* one side failed, for example by a reset: the other was reset */
    TRAM_BRIDGE_CLOSED = 2, /* somebody else closed or aborted one side: the other was closed */
    TRAM_BRIDGE_IDLE = 3,   /* the idle timeout */
} tram_bridge_outcome;

/* How a bridge ended. Sides: 0 is `a` of tram_bridge(), 1 is `b`. */
typedef struct tram_bridge_result {
    uint64_t bytes[2]; /* received from that side since the coupling */
    tram_bridge_outcome outcome;
    int side; /* FAILED, CLOSED: which one it was; else -1 */
    int code; /* FAILED: its error */
    uintptr_t reserved[4];
} tram_bridge_result;

/*
 * Couples two transports of one loop, of whatever kinds, as long as bytes flow in them. Their protocols are switched as
 * by tram_transport_set_protocol(): the old ones get `released` and no connection_lost. From then on bytes go over
 * unchanged and in order, behind what was queued for writing before; a side is not read while the other's write buffer
 * is above its high-water mark, so a slow reader costs no more than that and one read. Between TCP sockets the kernel
 * moves what comes in bulk, and keeps up to 1 MiB of it instead; that counts as the write buffer, and while there is
 * any, tram_transport_detach() is TRAM_ESTATE. The end of a stream is handed
 * on as the end of a stream, with the other direction open (a kind that cannot be half open is closed); when both have
 * ended, both are closed. A failure of one side resets the other (tram_transport_reset()), and what that had not taken
 * yet is lost. Of a side that is not read, because the other is full, nothing is heard, neither its end nor a reset,
 * until the other takes bytes again; what it sent before comes first then. For others that never do, there is the idle
 * timeout.
 *
 * The future completes when both transports are gone, with a const tram_bridge_result * that is valid as long as the
 * future. Cancelling it aborts both. `options` and `ret_future` may be NULL.
 *
 * TRAM_EVALUE: the same transport twice, or two loops; TRAM_ESTATE: one is closing, sends a file, or cannot be written
 * any more though the other may still send; -ENOTSUP: one is a datagram transport or a subprocess (its pipes can be
 * coupled), or never can be written, as the reading end of a pipe, though the other may still send, or neither can be
 * read; -ENOMEM. Nothing changed then.
 */
TRAM_API int tram_bridge(tram_transport *a, tram_transport *b, const tram_bridge_options *options,
                         tram_future **ret_future);

TRAM_END_DECLS

#endif
