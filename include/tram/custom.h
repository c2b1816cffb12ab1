/*
 * Transports of your own: anything that moves bytes in order can carry protocols, and they cannot tell.
 *
 * A custom transport is a tram_transport whose lower half is a table of yours. The library keeps what protocols rely
 * on: the order of callbacks, pausing, water marks, half close, what close and abort mean, misuse. Your table is told
 * what to do, each entry at most when the contract allows it; you tell the library what happened by the calls below.
 *
 *     bytes to send    writelines()  →  tram_custom_sent() once they are on their way
 *     bytes that came  tram_custom_received(), while the transport is reading
 *     the peer's end   tram_custom_eof()
 *     the end of all   tram_custom_lost()
 *
 * Everything here belongs to the loop's thread. tram_custom_received() and tram_custom_eof() call the protocol, so they
 * come from the loop (a callback, mail, a timer), never from inside an entry of the table: there the protocol is at
 * work already. The other calls may come from anywhere. In-memory pairs (tram/pair.h) are made of this and nothing
 * else.
 */
#ifndef TRAM_CUSTOM_H
#define TRAM_CUSTOM_H

#include <tram/transport.h>

TRAM_BEGIN_DECLS

/*
 * What the transport does in its own way. `state` is what was given at creation. Entries that return int return 0 or a
 * negative code, which ends the connection with that error unless stated otherwise. Any may be NULL.
 */
typedef struct tram_custom_ops {
    /*
     * Send all these pieces, in order, or keep copies of them: they are borrowed for the call. At least one byte. They
     * count as the write buffer until tram_custom_sent(), which may be called here already. NULL: a transport that
     * only reads, where writing is -ENOTSUP.
     */
    int (*writelines)(tram_transport *transport, void *state, const struct iovec *pieces, size_t count);

    /* No more writelines will come, and all was sent: tell the peer. NULL: there is no write_eof. */
    int (*write_eof)(tram_transport *transport, void *state);

    /* Keep back what comes from now on. */
    int (*pause_reading)(tram_transport *transport, void *state);

    /* What was kept back may be delivered: soon, not within this call. Also the first call of all, when connection_made
     * has returned and the protocol did not pause or close. */
    int (*resume_reading)(tram_transport *transport, void *state);

    /*
     * The transport was closed: nothing is delivered any more, what is in the write buffer still is to be sent. 0:
     * connection_lost follows as soon as that is done. Positive: you still have bytes to send, for example
     * close_notify, and end the connection by tram_custom_lost(). NULL: 0.
     */
    int (*close)(tram_transport *transport, void *state);

    /* Forget all that is not sent: the transport was aborted or failed, and connection_lost is certain. */
    void (*abort)(tram_transport *transport, void *state);

    /* NULL where the name is unknown; valid until the next get_extra_info on the loop. */
    const void *(*get_extra_info)(tram_transport *transport, void *state, const char *name);

    /* connection_lost has returned, or will never come: the last call, free the state here. */
    void (*ended)(tram_transport *transport, void *state);

    uintptr_t reserved[8]; /* must be 0 */
} tram_custom_ops;

/*
 * Makes a transport without a descriptor and queues connection_made. `ops` must outlive it. On success the protocol is
 * the transport's, which calls its `released`, and so is the state until `ended`. On failure (-ENOMEM, TRAM_ETYPE for
 * a protocol without ops, TRAM_EVALUE, TRAM_ESTATE on a closed loop) both stay the caller's. `ret_transport` may be
 * NULL.
 */
TRAM_API int tram_loop_create_custom(tram_loop *loop, const tram_custom_ops *ops, void *state, tram_protocol *protocol,
                                     tram_transport **ret_transport);

/* The state of a transport with these ops; NULL after `ended`, and for any other transport. */
TRAM_API void *tram_custom_state(const tram_transport *transport, const tram_custom_ops *ops);

/*
 * Bytes came: data_received, or get_buffer and buffer_updated as often as it takes. Returns how many the protocol has
 * taken: all, unless it paused, closed or switched within; 0 while the transport is not reading. Keep the rest for
 * resume_reading.
 */
TRAM_API size_t tram_custom_received(tram_transport *transport, const void *data, size_t size);

/* The peer will send no more. False: the transport is not reading now, come again at resume_reading. */
TRAM_API bool tram_custom_eof(tram_transport *transport);

/* `size` bytes left the write buffer: resume_writing, and what waits for an empty buffer, follow from it. */
TRAM_API void tram_custom_sent(tram_transport *transport, size_t size);

/*
 * The connection is over: connection_lost soon, with the error's code, operation (a constant) and user pointer, or
 * NULL. Harmless once the end is certain.
 */
TRAM_API void tram_custom_lost(tram_transport *transport, const tram_error *error);

TRAM_END_DECLS

#endif
