/* The address of a transport, made when somebody asks for it: message_received of whatever protocol it has. */
#ifndef TRAM_TRANSPORTS_BASE_ADDRESS_H
#define TRAM_TRANSPORTS_BASE_ADDRESS_H

#include "core/actors/forwarding.h"
#include "transports/base/types.h"

/* Its memory goes. */
static inline void transport_close_address(tram_transport *transport) {
    if (transport->more && transport->more->address)
        tram__address_end(transport->io.loop, transport->more->address);
}

/* It is about to be detached: its address goes along, in a move that is NULL where it has none. 0 or -ENOMEM. */
int tram__transport_prepare_move(tram_transport *transport, struct move **ret_move);

/* It is detached, by a move that was prepared. */
void tram__transport_leave_address(tram_transport *transport, struct move *move);

/* A transport that goes on with the connection has the address. 0, or a code: then the move is the caller's still. */
int tram__transport_take_address(tram_transport *transport, struct move *move);

#endif
