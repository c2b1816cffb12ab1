/* What a server's stream does: its handler runs, in a task of its own. */
#include "core/base/invalid.h"
#include "core/loop/report.h"
#include "core/tasks/task.h"
#include "protocols/streams/streams.h"
#include <tram/transport.h>

/* A loop that closes may have let the transport go. */
static void close_transport(const struct stream *stream) {
    if (stream->writer.transport)
        tram_transport_close(stream->writer.transport);
}

/* Reported, and the connection closed (K-2). */
static void handler_failed(struct stream *stream, int status) {
    tram_loop *loop = stream->reader.loop;
    char function[128];
    tram_exception exception = {
        .message = "a stream handler failed",
        .error = tram__raised(loop, status, "stream handler"),
        .callback = tram_function_name((const void *)(uintptr_t)stream->handler, function, sizeof function),
        .transport = stream->writer.transport,
        .protocol = &stream->protocol,
        .fd = -1,
    };
    if (status != TRAM_ECANCELLED)
        tram__report(loop, &exception);
    close_transport(stream);
}

static int run_handler(void *arg) {
    struct stream *stream = arg;
    int status = stream->handler(&stream->reader, &stream->writer, stream->arg);
    if (status < 0)
        handler_failed(stream, status);
    tram__streams_drop(stream);
    return status == TRAM_ECANCELLED ? status : 0;
}

/* The task was cancelled before it began. */
static void never_handled(void *arg) {
    struct stream *stream = arg;
    close_transport(stream);
    tram__streams_drop(stream);
}

static int refuse(struct stream *stream, int status) {
    tram_transport_abort(stream->writer.transport);
    tram__streams_drop(stream);
    return status;
}

static int serve(struct stream *stream) {
    const tram_task_options options = {
        .name = "stream handler", .stack_size = stream->stack_size, .discard = never_handled};
    tram_task *task;
    if (stream->plain) {
        int status = stream->handler(&stream->reader, &stream->writer, stream->arg);
        return status < 0 ? refuse(stream, status) : 0;
    }
    int status = tram__task_new(stream->reader.loop, run_handler, stream, &options, &task);
    return unlikely(status) ? refuse(stream, status) : 0;
}

int tram_stream_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    const tram_stream_service *service = arg;
    struct stream *stream;
    if (unlikely(!service || !service->handler))
        return tram__invalid("handler");
    if (unlikely(reserved_used(service)))
        return tram__invalid("reserved");
    int status = tram__streams_new(loop, service->limit, &stream);
    if (unlikely(status))
        return status;
    stream->serve = serve;
    stream->handler = service->handler;
    stream->arg = service->arg;
    stream->stack_size = service->stack_size;
    stream->plain = service->plain;
    stream->attached = true;
    *ret_protocol = &stream->protocol;
    return 0;
}
