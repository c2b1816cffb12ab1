/* The stream transport over a connected socket. */
#ifndef TRAM_TRANSPORTS_STREAM_STREAM_H
#define TRAM_TRANSPORTS_STREAM_STREAM_H

#include "transports/base/transport.h"

/* Of a connected, non-blocking socket, for tram__transport_new(): one that was accepted has all it needs. */
extern const struct transport_kind tram__stream_kind;

/*
 * tram__transport_new() of any other connected socket: its peer may have to be asked for, it is to send without delay,
 * and something may have been read from it.
 */
struct stream_options {
    const struct sockaddr_storage *peer; /* NULL: the kernel is asked */
    socklen_t peer_size;
    tram_future *creator;
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
