/*
 * The in-memory pair: two transports that are each other's peers, without a descriptor. What one end writes the other
 * receives, with flow control and half close as on a connection; the bytes that the other end has not taken yet are
 * the writer's write buffer. For tests, and for talk between protocols of one process, on one loop or across two.
 *
 * The end that closes is gone once the other has taken everything. The other end then sees the end of the stream, and
 * writing to nobody is -EPIPE, as on a Unix socket. An abort drops what is on its way in both directions; the other end
 * sees the end of the stream as well. get_extra_info knows nothing.
 */
#ifndef TRAM_PAIR_H
#define TRAM_PAIR_H

#include <tram/transport.h>

TRAM_BEGIN_DECLS

/*
 * A pair on one loop. Queues connection_made for `first`, then for `second`. Both protocols are the transports' from
 * here on; on failure (-ENOMEM, TRAM_ETYPE, TRAM_ESTATE on a closed loop) they stay the caller's. Either ret_… may be
 * NULL.
 */
TRAM_API int tram_loop_create_pair(tram_loop *loop, tram_protocol *first, tram_protocol *second,
                                   tram_transport **ret_first, tram_transport **ret_second);

/*
 * A pair whose other end lives on another loop, whose thread calls the factory and all callbacks of what it makes.
 * `protocol` gets its connection_made as above, whatever the other loop is doing; bytes written before the other end
 * exists wait for it. A factory that fails ends this end with the end of the stream, as does the other loop's closing.
 * TRAM_ESTATE: the other loop is closed already. The caller sees to it that the other loop is not freed during this
 * call.
 */
TRAM_API int tram_loop_create_pair_across(tram_loop *loop, tram_protocol *protocol, tram_loop *other,
                                          tram_protocol_factory factory, void *arg, tram_transport **ret_transport);

/* The same; `discard` is called with `arg` once the factory was called or never will be, on either thread. Where this
 * call fails, `arg` stays the caller's. */
TRAM_API int tram_loop_create_pair_across_with_discard(tram_loop *loop, tram_protocol *protocol, tram_loop *other,
                                                       tram_protocol_factory factory, void *arg, tram_discard discard,
                                                       tram_transport **ret_transport);

TRAM_END_DECLS

#endif
