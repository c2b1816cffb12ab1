/* What a detached connection takes along, for the transport that goes on with it. */
#ifndef TRAM_TRANSPORTS_BASE_HANDOVER_H
#define TRAM_TRANSPORTS_BASE_HANDOVER_H

#include "transports/base/transport.h"
#include <tram/connection.h>

/* Its descriptor, or -1: it was taken. It stays where it is. */
int tram__detached_fd(const tram_detached *detached);

/*
 * Gives a transport that was just made of the descriptor, and knows of none of it, all the rest. 0 or a negative code:
 * then the transport is to be withdrawn, and has a part of it.
 */
int tram__detached_give(tram_detached *detached, tram_transport *transport);

/* The descriptor, and what else can be given but once, are somebody else's from now on. */
void tram__detached_empty(tram_detached *detached);

#endif
