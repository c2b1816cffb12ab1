/* Bytes that a protocol gets from elsewhere than its socket, and connections that are handed over with such bytes. */
#ifndef TRAM_TRANSPORTS_BASE_HANDOVER_H
#define TRAM_TRANSPORTS_BASE_HANDOVER_H

#include "transports/base/transport.h"

/*
 * Gives the protocol bytes as if they had come, as long as the transport is reading; `taken` counts up before each call
 * that is told of them. A failing protocol ends the transport.
 */
void tram__transport_feed(tram_transport *transport, const void *data, size_t size, size_t *taken);

/* A copy of bytes that a transport is to deliver first; NULL: out of memory. Free it, or give it to a transport. */
struct unread *tram__unread_new(tram_loop *loop, const void *data, size_t size);
void tram__unread_free(tram_loop *loop, struct unread *unread);

/* Before connection_made. */
void tram__unread_give(tram_transport *transport, struct unread *unread);

#endif
