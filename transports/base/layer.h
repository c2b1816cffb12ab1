/*
 * Layers: what lies between the carrier of a transport (socket, custom transport, one end of a pair) and its protocol.
 * TLS is one, the header of the PROXY protocol another. The contract: rules Y-1 to Y-9.
 *
 *     protocol            the receiver takes bytes at the top
 *     layer   ↑ read      each reads from what is below it: tram__layer_read()
 *     layer   ↓ write     each writes to what is below it: tram__layer_write()
 *     carrier             has a window of bytes that arrived, and the write queue
 *
 * A layer is an object with a constant table (struct layer_kind) that embeds a struct layer first. It belongs to one
 * transport and so to one loop, and is used on that loop's thread only. Its memory is its maker's until it was pushed,
 * from then on the transport's, which gives it back by `free`.
 *
 * Bytes travel up by reading. Something came, or is held from before: the transport reads from the top layer, which
 * reads from what is below it, until that says -EAGAIN. So nothing is kept between two layers, a buffered protocol's
 * memory goes down to the layer that can fill it, and a paused transport simply does not read. What is held for a
 * layer (bytes that were read ahead before it was pushed, the rest of a receive) is its prefix: tram__layer_read()
 * gives that first. While layers keep bytes for writing (tram__layer_keep()), a paused transport reads all the same,
 * since it may be the peer for whom they wait, until something is held for the protocol.
 *
 * Bytes travel down by writing, which never refuses. The carrier sends at once where nothing is queued, else the bytes
 * join the write queue of the transport.
 *
 * No code of a user's runs while one of the functions start, read, write, write_eof and shutdown of a layer is on the
 * stack. So whatever those call (tram__layer_write() that passes a water mark, tram__layer_fail()) takes effect in the
 * transport when the outermost of them has returned: inside a layer nothing ends, nothing is freed, and no other
 * function of the layer is called but by the layer itself or by the one above it.
 */
#ifndef TRAM_TRANSPORTS_BASE_LAYER_H
#define TRAM_TRANSPORTS_BASE_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/base/private.h"
#include <tram/transport.h>

struct layer;
struct held;

/* What a layer does. Entries that may be NULL say so. */
struct layer_kind {
    const char *name; /* one word, for logs and for the operation of an error without one */

    /*
     * Makes ready: a handshake. Called soon after the push, from the bottom of the stack upwards, and each time that
     * bytes came, the stream below ended or tram__layer_again() asked for it, until it returns something else than
     * -EAGAIN. 0: ready; bytes that it did not read stay below for `read`. Other negative: it failed with that code,
     * of which tram__layer_fail() may have told more before. It reads by tram__layer_read() (0: the stream ended, the
     * layer says which error that is) and writes by tram__layer_write(). NULL: ready at once.
     *
     * Until all layers are ready connection_made is held back; on a transport that is open the protocol hears nothing
     * and writes are TRAM_ESTATE. The time is limited by start_timeout_ns.
     */
    int (*start)(struct layer *layer);

    /*
     * The next bytes of its stream, at most `size` (which is at least 1), into `memory`; how many. 0: its stream has
     * ended, and so it says ever after. -EAGAIN: what is below has none now, and neither has the layer: it is asked
     * again when bytes came, the stream below ended or tram__layer_again() asked for it, and not before. So it looks
     * into its own buffers first, and need not fill `memory`. Other negative: a failure. A receive from the carrier
     * counts as one event: within it tram__layer_read() gives what the receive brought, then -EAGAIN.
     *
     * It may write (an answer, a key update), within. Not called before `start` has succeeded, nor by the transport
     * after the end of the stream or once the transport closes; a `shutdown` above may still read.
     */
    ssize_t (*read)(struct layer *layer, void *memory, size_t size);

    /* False: `read` would say -EAGAIN, and is not called. NULL: only it knows. */
    bool (*may_read)(const struct layer *layer);

    /* How many bytes of its stream it has, which need nothing from below; a hint. NULL: it cannot tell. */
    size_t (*pending)(const struct layer *layer);

    /*
     * All of these bytes, in order; at least one, borrowed for the call. What comes out goes down by
     * tram__layer_write(). What it cannot pass on yet it copies, and counts by tram__layer_keep(). It never refuses:
     * out of memory is a tram__layer_fail(). Not called before `start` has succeeded, nor after write_eof or shutdown
     * began.
     */
    void (*write)(struct layer *layer, const struct iovec *pieces, size_t count);

    /*
     * What was written was the last: the peer is told in the layer's own way, behind what the layer keeps. True: what
     * is below is to end its writing side, too. NULL: write_eof of the transport is -ENOTSUP, can_write_eof is false,
     * and a true from eof_received has no effect but a warning (as it is for TLS without half close). Not called more
     * than once.
     */
    bool (*write_eof)(struct layer *layer);

    /*
     * The transport closes. Says goodbye to the peer (close_notify) and waits, if it has to, for the peer's. 0: done,
     * also where it failed and the goodbye does not matter; -EAGAIN: call again when bytes came, the stream below ended
     * or tram__layer_again() asked for it. It reads what comes by itself (tram__layer_read()) and drops what is for the
     * protocol; what it keeps for writing it sends before. Other negative: the connection is lost with that error.
     * From the top of the stack downwards, each when the one above is done; not after an abort or an error. All of it
     * together is limited by shutdown_timeout_ns. NULL: nothing to do.
     */
    int (*shutdown)(struct layer *layer);

    /* ---- Called while no layer is on the stack ---- */

    /*
     * Once, whatever happened: `start` has succeeded (NULL), or the layer will never be ready: the error of its
     * failure, of a timeout, of the transport's end. Before connection_made, connection_lost and the creator's future.
     * It may call anything. May be NULL.
     */
    void (*started)(struct layer *layer, const tram_error *error);

    /* A value of get_extra_info, NULL: not known here, the next one below is asked. Also after the end. May be NULL. */
    const void *(*extra_info)(struct layer *layer, const char *name);

    /*
     * The transport is to leave its loop with all layers (detach): lets go of what belongs to the loop. 0; -EAGAIN: not
     * now; -ENOTSUP. Then `arrive` follows, on the other loop, with layer->transport set to the new transport; 0 or a
     * negative code, with which the new transport fails. Between the two only `free`. NULL: the layer cannot move.
     */
    int (*leave)(struct layer *layer);
    int (*arrive)(struct layer *layer);

    /*
     * The last call: frees the layer's memory. The transport was freed, or the layer removed itself. layer->transport
     * is NULL where the layer has left its loop; else it still has its loop, and nothing else of it may be used.
     */
    void (*free)(struct layer *layer);

    /* What an expired start_timeout_ns is to the creator, and to a protocol that had connection_made; 0: -ETIMEDOUT. */
    int start_timeout_code;
};

enum layer_state {
    LAYER_NEW,      /* `start` was not called yet */
    LAYER_STARTING, /* it said -EAGAIN */
    LAYER_READY,
    LAYER_SHUTTING_DOWN, /* `shutdown` was called, and said -EAGAIN */
    LAYER_DONE,          /* it was shut down */
    LAYER_REMOVED,
};

/* First in every layer. Zero-initialise, then set `kind` and the two times; the rest is set by the push. */
struct layer {
    const struct layer_kind *kind;
    tram_transport *transport;
    uint64_t shutdown_timeout_ns; /* for all layers together the longest counts; 0: no limit */
    union {
        uint64_t start_timeout_ns; /* before the push: from that to ready; 0: no limit */
        /* The transport's from then on: */
        size_t kept;          /* bytes that it keeps for writing: tram__layer_keep() */
        tram_buffer *carried; /* between two loops, where it keeps none: its prefix; NULL: none */
    };
    struct layer *above; /* NULL: the receiver */
    struct layer *below; /* NULL: the carrier */
    struct held *held;   /* its prefix; NULL: none */
    enum layer_state state;
    bool told; /* `started` was called */
};

/* ---- What a layer calls; from inside of its functions, and where it says so from elsewhere on the loop's thread ----
 */

static inline bool layer_is_ready(const struct layer *layer) {
    return layer->state >= LAYER_READY;
}

/*
 * Reads from what is below: first what is held for the layer, then the layer below, or what the carrier received. How
 * many bytes, 0 at the end of that stream, -EAGAIN: none now. Other negative codes are the failure of a layer below or
 * of the carrier: return them.
 */
TRAM_PRIVATE_API ssize_t tram__layer_read(struct layer *layer, void *memory, size_t size);

/* False: a read would say -EAGAIN. True: it may give something. */
TRAM_PRIVATE_API bool tram__layer_may_read(const struct layer *layer);

/*
 * Writes to what is below, by copy or at once: the memory is the layer's again when it returns. `more`: the layer will
 * write again before its function returns, and the bytes may wait for that, so that one system call takes all; false:
 * they go at once if they can. Also from elsewhere, for a layer that is ready: a timer of the layer's, for example.
 */
TRAM_PRIVATE_API void tram__layer_write(struct layer *layer, const struct iovec *pieces, size_t count, bool more);

/* The one piece that most write. */
static inline void layer_write(struct layer *layer, const void *data, size_t size) {
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    tram__layer_write(layer, &piece, 1, false);
}

/* Keeps so many bytes for writing now: they count as the write buffer of the transport. Also from elsewhere. */
void tram__layer_keep(struct layer *layer, size_t bytes);

/*
 * The connection is to end with this error. The first one counts. `operation` is a constant, `detail` (may be NULL) is
 * copied. Takes effect when no layer is on the stack any more; so the function goes on to return, what it returns does
 * not matter then. Before connection_made: the creator's error; then nothing but `released` reaches the protocol. Also
 * from elsewhere.
 */
TRAM_PRIVATE_API void tram__layer_fail(struct layer *layer, int code, const char *operation, const char *detail);

/* The connection has failed, or is to: nothing that is written goes anywhere. */
bool tram__layer_failed(const struct layer *layer);

/*
 * The function that said, or is about to say, -EAGAIN is called once more in the next tick though nothing came:
 * `start`, `read` or `shutdown`, by what the layer is at. For a handshake that is over its budget. Also from elsewhere.
 */
TRAM_PRIVATE_API void tram__layer_again(struct layer *layer);

/*
 * Takes the layer out of the stack, inside of its `start` (which returns 0) or `read` (whatever it returns does not
 * matter). `rest` are bytes that it read and that are for the one above; what it had not read yet goes there as well.
 * `free` follows when no layer is on the stack any more. 0; -ENOMEM: the rest could not be kept, and the connection
 * fails.
 */
int tram__layer_remove(struct layer *layer, const void *rest, size_t size);

/* ---- What makers of transports call, while no layer is on the stack ---- */

/*
 * Puts a layer on top of the stack. Either before connection_made, which is held back then until the layer is ready: a
 * connector or server does it directly after it made the transport (and before it queued anything behind it); or on an
 * open transport (start_tls): then the protocol hears nothing and writes are TRAM_ESTATE until the layer is ready, and
 * reading goes on whether paused or not, and is as the protocol wants it after that.
 *
 * `ahead` are bytes that the protocol has got already and that are for the layer: they are copied, and stand before
 * those that the transport held for the protocol.
 *
 * 0: the layer is the transport's. -ENOMEM; -ENOTSUP: a kind of transport that has no layers (datagrams, pipes,
 * subprocesses; a custom transport without start_tls_compatible); TRAM_ESTATE: it closes, is lost, write_eof was
 * called, a file is being sent, or another layer is not ready yet. Then nothing happened.
 *
 * Where `start` fails or its time is over before connection_made, the descriptor is closed, the protocol hears
 * `released`, and a creator's future (that of tram__transport_begin()) fails with the code, the operation and the
 * detail. On an open transport the protocol gets connection_lost with that error; a future of start_tls learns by
 * `started`. A close or abort meanwhile is -ECONNABORTED to `started` and the creator.
 */
int tram__transport_push_layer(tram_transport *transport, struct layer *layer, const void *ahead, size_t ahead_size);

/*
 * Puts layers that have left another transport, all of them ready, under a transport without layers that waits for its
 * connection_made; `bottom` is the lowest, the others follow by `above`. 0 or -ENOMEM: then they stay the caller's.
 */
int tram__transport_take_layers(tram_transport *transport, struct layer *bottom);

/* The top layer of this kind, or NULL: for getters and for whoever pushed it. */
TRAM_PRIVATE_API struct layer *tram__transport_find_layer(const tram_transport *transport,
                                                          const struct layer_kind *kind);

#endif
