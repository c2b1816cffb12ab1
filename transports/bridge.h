/* Which transports are coupled, and what those of a bridge move past it: tram/bridge.h has the rest. */
#ifndef TRAM_TRANSPORTS_BRIDGE_H
#define TRAM_TRANSPORTS_BRIDGE_H

#include "transports/splice.h"

/* The way of the bytes that a transport receives; NULL: it is not bridged. */
struct splice *tram__bridge_splice(const tram_transport *transport);

/* Bytes went this way without being received. */
void tram__bridge_moved(struct splice *splice, size_t size);

#endif
