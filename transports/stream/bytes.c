#include "transports/stream/bytes.h"

#include <errno.h>

static inline tram_transport *transport_of(struct io *io) {
    return (tram_transport *)(void *)io;
}

/* EOF or an error; the rare ends of a read. */
static void ended(tram_transport *transport, ssize_t result) {
    if (result < 0)
        tram__transport_fatal(transport, (int)result, "recv", NULL);
    else
        transport_kind_of(transport)->eof(transport);
}

void tram__bytes_received(struct io *io, void *data, ssize_t result) {
    tram_transport *transport = transport_of(io);
    if (unlikely(result <= 0)) {
        ended(transport, result);
        return;
    }
    int status = tram__protocol_received(transport, data, (size_t)result);
    if (unlikely(status < 0))
        tram__transport_fail(transport, status);
}

int tram__bytes_buffer(struct io *io, void **ret_memory, size_t *ret_size) {
    tram_transport *transport = transport_of(io);
    const tram_protocol *protocol = transport->protocol;
    int status = tram__protocol_get_buffer(transport, ret_memory, ret_size);
    if (unlikely(status < 0))
        tram__transport_fail(transport, status);
    /*
     * get_buffer may have closed, paused or switched: then this read does not happen. The memory would be the old
     * protocol's, and buffer_updated the new one's.
     */
    if (status < 0 || !(io->wanted & IO_READ) || transport->protocol != protocol)
        return -ECANCELED;
    return 0;
}

void tram__bytes_buffer_received(struct io *io, void *data, ssize_t result) {
    (void)data;
    tram_transport *transport = transport_of(io);
    if (unlikely(result <= 0)) {
        ended(transport, result);
        return;
    }
    int status = tram__protocol_buffer_updated(transport, (size_t)result);
    if (unlikely(status < 0))
        tram__transport_fail(transport, status);
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
