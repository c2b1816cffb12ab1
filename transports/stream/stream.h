/* The stream transport over a connected socket. */
#ifndef TRAM_TRANSPORTS_STREAM_STREAM_H
#define TRAM_TRANSPORTS_STREAM_STREAM_H

#include "transports/base/transport.h"

/*
 * Makes a stream transport of a connected, non-blocking socket and queues connection_made, the start of reading and
 * the wake-up of `creator` (P-3; a pending future, which the transport holds until then, or NULL), which completes
 * with the transport. `owner` may be NULL; it is told at once, and when the transport ended.
 *
 * On success the descriptor and the protocol are the transport's. On failure (-ENOMEM, TRAM_ESTATE: the descriptor
 * belongs to a transport) both stay the caller's.
 */
struct stream_options {
    const struct sockaddr_storage *peer; /* NULL: the kernel is asked */
    socklen_t peer_size;
    bool no_delay_set; /* inherited from the listener: a saved system call */
    struct transport_owner *owner;
    tram_future *creator;
    bool metered;      /* the owner is told of every byte that moves */
    struct held *held; /* bytes that were read already, the transport's on success; NULL: none */
};
int tram__stream_new(tram_loop *loop, int fd, tram_protocol *protocol, const struct stream_options *options,
                     tram_transport **ret_transport);

/* What every transport over a socket has: transport_kind.end and .extra_info. */
void tram__socket_end(tram_transport *transport);
/* For "peername", where the kernel forgets the address with the peer. */
void tram__socket_keep_peer(tram_transport *transport, const tram_socket_address *peer);
const void *tram__socket_extra_info(tram_transport *transport, const char *name);

#endif
