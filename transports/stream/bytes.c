#include "transports/stream/bytes.h"

static inline tram_transport *transport_of(struct io *io) {
    return (tram_transport *)(void *)io;
}

size_t tram__bytes_gather(struct io *io, struct iovec *pieces, size_t count) {
    return tram__write_queue_gather(&transport_of(io)->queue, pieces, count);
}

void tram__bytes_sent(struct io *io, ssize_t result) {
    tram__transport_sent(transport_of(io), result);
}

void tram__bytes_ending(struct io *io, enum shutdown_mode how) {
    tram__transport_ending(transport_of(io), how);
}

void tram__bytes_drop_queue(tram_transport *transport) {
    tram__write_queue_clear(transport->io.loop, &transport->queue);
}
