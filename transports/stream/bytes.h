/*
 * What the poller reports, as every kind of transport takes it that moves bytes by a descriptor: the functions of its
 * io_kind. Who receives is another matter: base/receiver.h.
 */
#ifndef TRAM_TRANSPORTS_STREAM_BYTES_H
#define TRAM_TRANSPORTS_STREAM_BYTES_H

#include "transports/base/transport.h"

size_t tram__bytes_gather(struct io *io, struct iovec *pieces, size_t count);
void tram__bytes_sent(struct io *io, ssize_t result);
void tram__bytes_ending(struct io *io, enum shutdown_mode how);

/* transport_kind.drop_queue */
void tram__bytes_drop_queue(tram_transport *transport);

#endif
