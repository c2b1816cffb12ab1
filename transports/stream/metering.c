#include "transports/stream/metering.h"

#include "transports/stream/bytes.h"

static tram_transport *transport_of(struct io *io) {
    return (tram_transport *)(void *)io;
}

void tram__traffic_moved(tram_transport *transport, enum traffic direction) {
    struct transport_owner *owner = transport->owner; /* none of them has a creator */
    if (owner)
        owner->moved(owner, direction);
}

void tram__traffic_received(struct io *io, void *data, ssize_t result) {
    if (result > 0)
        tram__traffic_moved(transport_of(io), TRAFFIC_IN);
    tram__bytes_received(io, data, result);
}

void tram__traffic_buffer_received(struct io *io, void *data, ssize_t result) {
    if (result > 0)
        tram__traffic_moved(transport_of(io), TRAFFIC_IN);
    tram__bytes_buffer_received(io, data, result);
}

void tram__traffic_sent(struct io *io, ssize_t result) {
    if (result > 0)
        tram__traffic_moved(transport_of(io), TRAFFIC_OUT);
    tram__bytes_sent(io, result);
}

/* ---- Calls in which the kernel may take bytes: its loop has counted them then ---- */

#define AND_TELL(call, ...)                                                                                            \
    do {                                                                                                               \
        const tram_stats *stats = &transport->io.loop->stats;                                                          \
        uint64_t before = stats->bytes_sent;                                                                           \
        int status = tram__transport_##call(__VA_ARGS__);                                                              \
        if (stats->bytes_sent != before)                                                                               \
            tram__traffic_moved(transport, TRAFFIC_OUT);                                                               \
        return status;                                                                                                 \
    } while (0)

static int metered_close(tram_transport *transport) {
    AND_TELL(close, transport); /* it may be corked */
}

static int metered_write(tram_transport *transport, const void *data, size_t size) {
    AND_TELL(write, transport, data, size);
}

static int metered_writelines(tram_transport *transport, const struct iovec *pieces, size_t count) {
    AND_TELL(writelines, transport, pieces, count);
}

static int metered_write_buffer(tram_transport *transport, tram_buffer *buffer) {
    AND_TELL(write_buffer, transport, buffer);
}

static int metered_uncork(tram_transport *transport) {
    AND_TELL(uncork, transport);
}

static int metered_write_eof(tram_transport *transport) {
    AND_TELL(write_eof, transport);
}

const struct transport_overrides tram__traffic_calls = {
    .close = metered_close,
    .abort = tram__transport_abort,
    .pause_reading = tram__transport_pause_reading,
    .resume_reading = tram__transport_resume_reading,
    .write = metered_write,
    .writelines = metered_writelines,
    .write_buffer = metered_write_buffer,
    .cork = tram__transport_cork,
    .uncork = metered_uncork,
    .write_eof = metered_write_eof,
};
