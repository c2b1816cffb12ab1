/*
 * Protocols: what bytes mean (asyncio.Protocol, asyncio.BufferedProtocol and asyncio.DatagramProtocol).
 *
 * A protocol is a struct of yours that begins with a tram_protocol, which points to a constant table of
 * callbacks. The library calls them on the loop's thread, one at a time, in the order
 *
 *     connection_made, data_received*, eof_received?, connection_lost, released
 *
 * or, over datagrams (tram/datagram.h),
 *
 *     connection_made, datagram_received* and error_received* in any order, connection_lost, released
 *
 * with pause_writing and resume_writing, strictly alternating, anywhere between made and lost, and message_received
 * (tram/message.h) for what other threads post to it. A NULL entry
 * does nothing and returns 0. A callback may call anything on any transport of its loop, its own included.
 *
 * Every callback returns 0, or a negative code that plays the part of an exception (see tram_loop_raise()).
 * Failing data_received, eof_received, get_buffer and buffer_updated end the connection with that error;
 * other failures are reported to the exception handler, and the connection goes on.
 */
#ifndef TRAM_PROTOCOL_H
#define TRAM_PROTOCOL_H

#include <tram/loop.h>
#include <tram/message.h>

TRAM_BEGIN_DECLS

typedef struct tram_socket_address tram_socket_address; /* tram/transport.h */

typedef struct tram_protocol_ops {
    /* Once, first. `transport` is also in protocol->transport, from now until connection_lost has returned.
     */
    int (*connection_made)(tram_protocol *protocol, tram_transport *transport);

    /* Bytes came: at least one, in order, in pieces of any size. They are borrowed for the call. */
    int (*data_received)(tram_protocol *protocol, const void *data, size_t size);

    /*
     * The peer will send no more; at most once. 0: the transport closes itself after sending what is queued.
     * Positive: it stays open for writing, and the protocol closes it.
     */
    int (*eof_received)(tram_protocol *protocol);

    /*
     * Once, last of the connection; NULL error: an end by EOF, close or abort. Waiting writers must be freed
     * here: resume_writing does not come after an abort or an error.
     */
    int (*connection_lost)(tram_protocol *protocol, const tram_error *error);

    /* The write buffer grew above its high-water mark: called inside the write that did it. Information only.
     */
    int (*pause_writing)(tram_protocol *protocol);

    /* It shrank to the low-water mark. */
    int (*resume_writing)(tram_protocol *protocol);

    /*
     * A protocol with get_buffer receives into its own memory (BufferedProtocol), and data_received is not
     * used. get_buffer names the memory for one read: any size but 0; `size_hint` is -1 or a useful size.
     * buffer_updated says that `size` bytes are in it; it may not come (EOF, nothing there after all). The
     * memory must stay valid until one of buffer_updated, eof_received, connection_lost or the next
     * get_buffer.
     */
    int (*get_buffer)(tram_protocol *protocol, ptrdiff_t size_hint, void **ret_memory, size_t *ret_size);
    int (*buffer_updated)(tram_protocol *protocol, size_t size);

    /*
     * Of a subprocess (SubprocessProtocol), see tram/subprocess.h. Bytes that the child wrote to its descriptor
     * `fd`, 1 or 2: at least one, borrowed for the call.
     */
    int (*pipe_data_received)(tram_protocol *protocol, int fd, const void *data, size_t size);

    /* Once per pipe, after its data: it ended, by the child or by a close; -EPIPE: input was left unread. */
    int (*pipe_connection_lost)(tram_protocol *protocol, int fd, const tram_error *error);

    /*
     * Once: the child has exited. Its output need not be in by then: it is when pipe_connection_lost came for
     * 1 and 2, too; connection_lost comes after all of these.
     */
    int (*process_exited)(tram_protocol *protocol);

    /*
     * The library's last word about this protocol, exactly once, outside any other callback: free it here.
     * Comes after connection_lost, after a creation that failed once the factory had made the protocol, and
     * after set_protocol took the protocol off a transport.
     */
    void (*released)(tram_protocol *protocol);

    /*
     * Of datagram transports (DatagramProtocol): one whole datagram, which may be empty, and who sent it; NULL where
     * the sender has no name. Both are borrowed for the call. Failing here is reported, and the transport goes on.
     */
    int (*datagram_received)(tram_protocol *protocol, const void *data, size_t size,
                             const tram_socket_address *address);

    /*
     * Sending or receiving failed, a datagram was lost perhaps, and the transport goes on. May be called within
     * tram_transport_sendto().
     */
    int (*error_received)(tram_protocol *protocol, const tram_error *error);

    /*
     * Once: the connection is to end, because its runtime stops or its server drains (tram_runtime_stop(),
     * tram_server_drain()). The protocol finishes what it has begun and closes the transport itself, at once if it has
     * nothing to do; until then it goes on as before, and receives as before. What has not ended at `deadline_ns`, on
     * the clock of tram_loop_time() (TRAM_FOREVER: no such time), is reset. A protocol that comes by set_protocol later
     * is told, too. Failing is reported, and closes the transport.
     *
     * NULL: the transport is closed, as by tram_transport_close(), as soon as no file is being sent through it and the
     * program has no work for it (tram_transport_begin_work()).
     */
    int (*closing)(tram_protocol *protocol, uint64_t deadline_ns);

    /*
     * A message came by tram_transport_address(). What it refers to is destroyed after this has returned, unless it was
     * taken: tram_message_take(); a request may be answered within or later: tram_message_take_request(). Comes between
     * made and lost, also while the transport is closing. Where this is NULL, messages are dropped.
     */
    int (*message_received)(tram_protocol *protocol, tram_message *message);

    uintptr_t reserved[6]; /* must be 0 */
} tram_protocol_ops;

/* The first member of your struct. Set `ops`, zero the rest. */
struct tram_protocol {
    const tram_protocol_ops *ops;
    tram_transport *transport; /* kept by the library: the transport between made and lost, else NULL */
    uintptr_t reserved;        /* must be 0 */
};

/*
 * Makes the protocol of a new connection, on the loop that will own it. `arg` is what was given with the
 * factory; a server that is sharded over workers calls the same factory on all of them, at the same time. On
 * failure it returns a negative code, and the connection is closed.
 */
typedef int (*tram_protocol_factory)(tram_loop *loop, void *arg, tram_protocol **ret_protocol);

/*
 * Gives a protocol bytes that came from elsewhere, as if they had been received: what a parser had read ahead
 * before set_protocol, what a test makes up. A buffered protocol is asked for memory, `size_hint` being what is
 * left, until all bytes are in it (asyncio.protocols._feed_data_to_buffered_proto); any other gets one
 * data_received. The callbacks run inside this call, on a connection or without one.
 *
 * Returns 0 or the negative code of the callback that failed, which ends the feeding and nothing else: to end the
 * connection, return it from the callback that feeds. TRAM_ESTATE: get_buffer gave no room. TRAM_EVALUE: NULL data
 * with a size; TRAM_ETYPE: a protocol without ops.
 */
TRAM_API int tram_protocol_feed(tram_protocol *protocol, const void *data, size_t size);

/*
 * The address by which any thread reaches message_received of the transport's protocol (tram/message.h), made at the
 * first call. It stays the transport's until connection_lost has returned, whatever protocol it has, and goes with the
 * connection where that is detached and adopted; a new one is made once the loop that gave it has closed. -ENOMEM;
 * TRAM_ELIMIT: more than 4,096 loops have addresses; TRAM_ESTATE: the connection is lost, or, by its protocol, not made
 * yet.
 */
TRAM_API int tram_transport_address(tram_transport *transport, tram_address *ret_address);
TRAM_API int tram_protocol_address(const tram_protocol *protocol, tram_address *ret_address);

TRAM_END_DECLS

#endif
