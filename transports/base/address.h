/* The address of a transport, made when somebody asks for it: message_received of whatever protocol it has. */
#ifndef TRAM_TRANSPORTS_BASE_ADDRESS_H
#define TRAM_TRANSPORTS_BASE_ADDRESS_H

#include "core/actors/actors.h"
#include "transports/base/types.h"

/* Its memory goes. */
static inline void transport_close_address(tram_transport *transport) {
    if (transport->more && transport->more->address)
        tram__address_close(transport->io.loop, transport->more->address);
}

#endif
