/* Which transports are coupled: tram/bridge.h has the rest. */
#ifndef TRAM_TRANSPORTS_BRIDGE_H
#define TRAM_TRANSPORTS_BRIDGE_H

#include "transports/transport_types.h"

bool tram__bridged(const tram_transport *transport);

#endif
