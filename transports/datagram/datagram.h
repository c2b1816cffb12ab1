/* The datagram transport over a socket. */
#ifndef TRAM_TRANSPORTS_DATAGRAM_DATAGRAM_H
#define TRAM_TRANSPORTS_DATAGRAM_DATAGRAM_H

#include "transports/base/transport.h"
#include <tram/datagram.h>

struct datagram_setup {
    const tram_socket_address *remote; /* the only one to send to; NULL: any */
    bool connected;                    /* the kernel has the destination */
    const tram_socket_address *peer;   /* … namely there, or NULL */
    bool ours;                         /* the socket was made by us */
    tram_future *creator;
};

/* As tram__stream_new(). */
int tram__datagram_new(tram_loop *loop, int fd, tram_protocol *protocol, const struct datagram_setup *setup,
                       tram_transport **ret_transport);

#endif
