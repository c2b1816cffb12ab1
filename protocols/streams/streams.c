/* The life of a stream, and its protocol. */
#include "protocols/streams/streams.h"

#include <errno.h>

#include "core/loop/report.h"
#include "core/tasks/task.h"
#include "protocols/streams/pool.h"
#include <tram/transport.h>

static struct stream *stream_of(tram_protocol *protocol) {
    return (struct stream *)(void *)protocol;
}

/* ---- Life ---- */

static void stream_free(struct stream *stream) {
    tram_loop *loop = stream->reader.loop;
    list_remove(&stream->owned.link);
    tram__reader_fini(&stream->reader);
    tram_transport_release(stream->writer.transport);
    pool_put(&tram__streams_loop(loop)->streams, stream);
}

static void free_if_unused(struct stream *stream) {
    if (!stream->holds && !stream->attached)
        stream_free(stream);
}

/* The loop closes, or has closed: what holds it now may never let go. */
static void let_transport_go(struct stream *stream) {
    tram_transport_release(stream->writer.transport);
    stream->writer.transport = NULL;
}

static void loop_closing(struct stream_owned *owned) {
    struct stream *stream = container_of(owned, struct stream, owned);
    if (!stream->attached)
        let_transport_go(stream);
}

static void abandon(struct stream_owned *owned) {
    stream_free(container_of(owned, struct stream, owned));
}

static const struct stream_owned_kind stream_kind = {.closing = loop_closing, .abandon = abandon};

/* Nobody can read or write any more (K-31). */
static void forgotten(struct stream *stream) {
    tram_transport *transport = stream->writer.transport;
    tram_loop *loop = stream->reader.loop;
    if (!transport || stream->writer.lost || tram_transport_is_closing(transport))
        return;
    if (unlikely(loop->debug))
        tram__log(loop, TRAM_LOG_WARNING, "unclosed stream of connection %p", (void *)transport);
    tram_transport_close(transport);
}

void tram__streams_drop(struct stream *stream) {
    if (--stream->holds)
        return;
    forgotten(stream);
    free_if_unused(stream);
}

/* ---- The protocol ---- */

static int connection_made(tram_protocol *protocol, tram_transport *transport) {
    struct stream *stream = stream_of(protocol);
    stream->writer.transport = tram_transport_hold(transport);
    stream->reader.transport = transport;
    if (stream->serve)
        return stream->serve(stream);
    if (unlikely(!stream->holds))
        forgotten(stream);
    return 0;
}

/* After an end that we made ourselves the peer may still be talking. */
static int data_received(tram_protocol *protocol, const void *data, size_t size) {
    struct stream *stream = stream_of(protocol);
    if (likely(reader_fill(&stream->reader, data, size)))
        return 0;
    if (unlikely(stream->reader.input.flags & INPUT_EOF || stream->reader.error.code || !stream->holds))
        return 0;
    return tram__reader_feed(&stream->reader, data, size);
}

/* Half open where that can be, as it cannot with most TLS (K-4). */
static int eof_received(tram_protocol *protocol) {
    struct stream *stream = stream_of(protocol);
    tram__reader_feed_eof(&stream->reader);
    return tram_transport_can_write_eof(stream->writer.transport);
}

static int pause_writing(tram_protocol *protocol) {
    stream_of(protocol)->writer.paused = true;
    return 0;
}

static int resume_writing(tram_protocol *protocol) {
    tram__writer_resumed(&stream_of(protocol)->writer);
    return 0;
}

static int connection_lost(tram_protocol *protocol, const tram_error *error) {
    struct stream *stream = stream_of(protocol);
    stream->reader.transport = NULL;
    if (error)
        tram__reader_fail(&stream->reader, error);
    else
        tram__reader_feed_eof(&stream->reader);
    tram__writer_lost(&stream->writer, error ? error->code : 0);
    return 0;
}

/* A server's handler finishes the request that it has begun, and closes; a stream of our own goes on (G-2). */
static int closing(tram_protocol *protocol, uint64_t deadline_ns) {
    (void)deadline_ns;
    struct stream *stream = stream_of(protocol);
    if (stream->serve)
        tram__reader_closing(&stream->reader);
    return 0;
}

/* Nothing comes any more. */
static void cut_off(struct stream *stream, int code) {
    stream->attached = false;
    stream->reader.transport = NULL;
    if (!stream->writer.lost) {
        tram__reader_feed_eof(&stream->reader);
        tram__writer_lost(&stream->writer, code);
    }
}

/* Perhaps without a connection_lost: its connection was never made, or has another protocol now. */
static void released(tram_protocol *protocol) {
    struct stream *stream = stream_of(protocol);
    cut_off(stream, TRAM_ESTATE);
    if (unlikely(stream->reader.loop->closed))
        let_transport_go(stream);
    free_if_unused(stream);
}

static const tram_protocol_ops stream_ops = {
    .connection_made = connection_made,
    .data_received = data_received,
    .eof_received = eof_received,
    .connection_lost = connection_lost,
    .closing = closing,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .released = released,
};

/* ---- Making one ---- */

int tram__streams_new(tram_loop *loop, size_t limit, struct stream **ret_stream) {
    struct stream_loop *streams = tram__streams_loop(loop);
    struct stream *stream = likely(streams != NULL) ? pool_get(&streams->streams) : NULL;
    if (unlikely(!stream))
        return -ENOMEM;
    *stream = (struct stream){.protocol.ops = &stream_ops, .owned.kind = &stream_kind, .holds = 1};
    tram__reader_init(&stream->reader, loop, limit);
    list_init(&stream->writer.drainers);
    list_init(&stream->writer.closers);
    list_append(&streams->all, &stream->owned.link);
    *ret_stream = stream;
    return 0;
}

int tram_stream_new(tram_loop *loop, size_t limit, tram_protocol **ret_protocol, tram_stream_reader **ret_reader,
                    tram_stream_writer **ret_writer) {
    struct stream *stream;
    int status = loop_enter_open(loop, __func__);
    if (likely(!status))
        status = tram__streams_new(loop, limit, &stream);
    if (unlikely(status))
        return status;
    stream->attached = true;
    *ret_protocol = &stream->protocol;
    *ret_reader = &stream->reader;
    *ret_writer = &stream->writer;
    return 0;
}

tram_stream_writer *tram_stream_writer_hold(tram_stream_writer *writer) {
    stream_of_writer(writer)->holds++;
    return writer;
}

void tram_stream_writer_release(tram_stream_writer *writer) {
    if (writer && !loop_enter(stream_of_writer(writer)->reader.loop, __func__))
        tram__streams_drop(stream_of_writer(writer));
}

void tram__streams_take_over(struct stream *stream, tram_transport *transport) {
    stream->attached = true;
    stream->writer.transport = tram_transport_hold(transport);
    stream->reader.transport = transport;
    int status = tram_transport_set_protocol(transport, &stream->protocol);
    if (status)
        cut_off(stream, status);
}

int tram__streams_await(tram_future *future, void **ret_value, const void *where) {
    int status = tram__task_await(future, ret_value, where);
    const tram_error *error = tram_future_error(future);
    if (status && error && error->code == status)
        tram_loop_raise(tram_future_get_loop(future), status, error->user, error->detail);
    tram_future_release(future);
    return status;
}
