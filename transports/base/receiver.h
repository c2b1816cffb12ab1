/*
 * Who takes the bytes at the top of a transport: constant tables beside its io, exchanged at will. A protocol with
 * data_received, one with get_buffer, and, before either, who tells the owner of every byte that came. Others (a bridge
 * through which much goes, a stack of layers) put tables of their own there.
 */
#ifndef TRAM_TRANSPORTS_BASE_RECEIVER_H
#define TRAM_TRANSPORTS_BASE_RECEIVER_H

#include "transports/base/transport.h"

/* io_kind.receiver and transport_kind.buffered of transports that receive bytes. */
extern const struct io_receiver tram__receiver_plain;
extern const struct io_receiver tram__receiver_buffered;

/* The one that the transport's protocol and flags ask for. */
const struct io_receiver *tram__transport_receiver(const tram_transport *transport);

/* Puts it there; another protocol or another flag. Harmless for kinds that receive nothing. */
void tram__transport_choose_receiver(tram_transport *transport);

/*
 * Gives the protocol bytes as if they had come, as long as the transport is reading; `taken` counts up before each call
 * that is told of them. A failing protocol ends the transport.
 */
void tram__transport_feed(tram_transport *transport, const void *data, size_t size, size_t *taken);

#endif
