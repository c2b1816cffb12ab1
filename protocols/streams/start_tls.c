/* StreamWriter.start_tls: the stream goes on as it is, over TLS. */
#include "core/base/invalid.h"
#include "core/loop/report.h"
#include "core/tasks/task.h"
#include "protocols/streams/streams.h"

/* What the peer has sent behind the request for TLS is TLS already (K-30). */
static int begin(struct stream *stream, const tram_start_tls_options *options, tram_future **ret_future) {
    tram_start_tls_options all = *options;
    tram_bytes ahead = tram__reader_rest(&stream->reader);
    all.server_side = options->server_side || stream->serve;
    all.ahead = ahead.data;
    all.ahead_size = ahead.size;
    int status = tram_loop_start_tls(stream->reader.loop, stream->writer.transport, NULL, &all, ret_future);
    if (!status)
        tram__reader_drop_rest(&stream->reader);
    return status;
}

int tram_stream_writer_start_tls(tram_stream_writer *writer, const tram_start_tls_options *options) {
    struct stream *stream = stream_of_writer(writer);
    int status = loop_enter(stream->reader.loop, __func__);
    if (status)
        return status;
    if (!options)
        return TRAM_ETYPE;
    if (options->ahead || options->ahead_size)
        return tram__invalid("ahead");
    if (!task_running(stream->reader.loop))
        return TRAM_ESTATE;
    status = tram_stream_writer_drain(writer);
    if (status)
        return status;
    if (!writer->transport || stream->reader.input.flags & INPUT_EOF)
        return TRAM_ESTATE;
    tram_future *future;
    status = begin(stream, options, &future);
    return status ? status : tram__streams_await(future, NULL, __builtin_return_address(0));
}
