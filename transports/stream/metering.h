/*
 * Byte streams that tell their owner of every byte that moves: what takes the place of the common functions in the
 * tables of a kind, so that all other streams pay nothing for it.
 */
#ifndef TRAM_TRANSPORTS_STREAM_METERING_H
#define TRAM_TRANSPORTS_STREAM_METERING_H

#include "transports/base/transport.h"

/* io_kind.received, of plain protocols and of buffered ones, and .sent. */
void tram__traffic_received(struct io *io, void *data, ssize_t result);
void tram__traffic_buffer_received(struct io *io, void *data, ssize_t result);
void tram__traffic_sent(struct io *io, ssize_t result);

/* Bytes moved: the owner is told, if there still is one. */
void tram__traffic_moved(tram_transport *transport, enum traffic direction);

/* transport_kind.calls: what is written may go at once. */
extern const struct transport_overrides tram__traffic_calls;

#endif
