/*
 * Lingering close (W-31): what a kernel still holds for a peer is lost when the socket is closed while the peer sends
 * on, for then the kernel resets the connection. So the sending side ends first, and what comes is dropped until the
 * peer ends its side, or the time is over.
 */
#ifndef TRAM_TRANSPORTS_BASE_LINGER_H
#define TRAM_TRANSPORTS_BASE_LINGER_H

#include "transports/base/transport.h"

/* Made when it is asked for, or when it begins: in struct transport_more. */
struct lingering {
    struct deadline deadline; /* while T_LINGERING */
    tram_transport *transport;
    uint64_t time_ns;
};

/* The close that follows lingers for so long, 0: as long as is usual; where the kind can. 0 or -ENOMEM. */
int tram__transport_ask_linger(tram_transport *transport, uint64_t time_ns);

/*
 * Nothing is queued any more of a transport that closes, with T_LINGER or T_SERVER_CLOSE. True: connection_lost follows
 * when it has lingered; false: now. It does where it was asked to, and where the end is ours if something is on its way
 * in either direction. Never fails: without memory it does not linger.
 */
bool tram__transport_linger(tram_transport *transport);

#endif
