#include "stream.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

int world_setup_faults(void **state) {
    world_setup(state);
    world_use_sys(*state, faults_sys());
    return 0;
}

int world_setup_faults_debug(void **state) {
    world_setup_debug(state);
    world_use_sys(*state, faults_sys());
    return 0;
}

struct stream stream_open_with(struct world *world, struct recorder *recorder, bool tcp) {
    int fds[2];
    if (tcp)
        tcp_pair(fds);
    else
        unix_pair(fds);
    struct stream stream = {.world = world, .recorder = recorder, .peer = fds[1]};
    stream.transport = transport_new(world, fds[0], recorder);
    run_ticks(world, 1);
    assert_true(recorder->made);
    world->trace[0] = '\0';
    return stream;
}

struct stream stream_open(struct world *world) {
    return stream_open_with(world, recorder_new(world, NULL), false);
}

struct stream stream_open_tcp(struct world *world) {
    return stream_open_with(world, recorder_new(world, NULL), true);
}

void stream_close(struct stream *stream) {
    /* After set_protocol the recorder may be gone although the transport lives: then its new protocol ends it. */
    tram_protocol *current = stream->recorder->base.transport ? &stream->recorder->base : NULL;
    if (current && !stream->recorder->lost) {
        tram_transport_abort(stream->transport);
        run_until(stream->world, &stream->recorder->lost);
    }
    if (stream->peer >= 0)
        close(stream->peer);
    stream->peer = -1;
}

static unsigned char pattern_at(size_t place) {
    return (unsigned char)(place * 131 + (place >> 8) * 31 + (place >> 16) * 7);
}

void pattern(void *bytes, size_t size, size_t offset) {
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)bytes)[i] = pattern_at(offset + i);
}

void assert_pattern(const void *bytes, size_t size, size_t offset) {
    for (size_t i = 0; i < size; i++)
        if (((const unsigned char *)bytes)[i] != pattern_at(offset + i))
            fail_msg("byte %zu of the stream is wrong", offset + i);
}

int write_pattern(tram_transport *transport, size_t size, size_t offset) {
    char *bytes = calloc(1, size ? size : 1);
    pattern(bytes, size, offset);
    int status = tram_transport_write(transport, bytes, size);
    memset(bytes, 0xee, size); /* the caller's memory is free for reuse */
    free(bytes);
    return status;
}

void read_pattern(struct stream *stream, size_t size, size_t offset) {
    char bytes[16384];
    while (size) {
        size_t part = size < sizeof bytes ? size : sizeof bytes;
        receive_exactly(stream->world, stream->peer, bytes, part);
        assert_pattern(bytes, part, offset);
        offset += part;
        size -= part;
    }
}

size_t peek_peer(struct stream *stream, void *bytes, size_t size) {
    ssize_t received = recv(stream->peer, bytes, size, MSG_DONTWAIT | MSG_PEEK);
    return received > 0 ? (size_t)received : 0;
}

size_t drain_peer(struct stream *stream) {
    char bytes[65536];
    size_t taken = 0;
    for (;;) {
        ssize_t received = recv(stream->peer, bytes, sizeof bytes, MSG_DONTWAIT);
        if (received <= 0)
            return taken;
        taken += (size_t)received;
    }
}
