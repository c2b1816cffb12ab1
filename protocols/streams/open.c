/* Connections that a task opens. */
#include "core/base/invalid.h"
#include "core/loop/report.h"
#include "core/tasks/task.h"
#include "protocols/streams/streams.h"

static int give_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    struct stream *stream = arg;
    stream->attached = true;
    *ret_protocol = &stream->protocol;
    return 0;
}

/* Cancelled at the last moment: nobody knows of the connection. */
static void give_up(struct stream *stream) {
    if (stream->writer.transport)
        tram_transport_abort(stream->writer.transport);
    tram__streams_drop(stream);
}

static int finish(struct stream *stream, int status, tram_future *future, const void *where,
                  tram_stream_reader **ret_reader, tram_stream_writer **ret_writer) {
    if (!status)
        status = tram__streams_await(future, NULL, where);
    if (status) {
        give_up(stream);
        return status;
    }
    *ret_reader = &stream->reader;
    *ret_writer = &stream->writer;
    return 0;
}

int tram_open_connection(const char *host, const char *port, size_t limit, const tram_connection_options *options,
                         tram_stream_reader **ret_reader, tram_stream_writer **ret_writer) {
    tram_loop *loop = opening_loop();
    struct stream *stream;
    if (!loop)
        return TRAM_ESTATE;
    if (options && options->discard)
        return tram__invalid("discard");
    int status = tram__streams_new(loop, limit, &stream);
    if (status)
        return status;
    tram_future *future = NULL;
    status = tram_loop_create_connection(loop, give_protocol, stream, host, port, options, &future);
    return finish(stream, status, future, __builtin_return_address(0), ret_reader, ret_writer);
}

int tram_open_unix_connection(const void *path, size_t path_size, size_t limit,
                              const tram_unix_connection_options *options, tram_stream_reader **ret_reader,
                              tram_stream_writer **ret_writer) {
    tram_loop *loop = opening_loop();
    struct stream *stream;
    if (!loop)
        return TRAM_ESTATE;
    if (options && options->discard)
        return tram__invalid("discard");
    int status = tram__streams_new(loop, limit, &stream);
    if (status)
        return status;
    tram_future *future = NULL;
    status = tram_loop_create_unix_connection(loop, give_protocol, stream, path, path_size, options, &future);
    return finish(stream, status, future, __builtin_return_address(0), ret_reader, ret_writer);
}
