/* The adapter: every call of a protocol's callback, and what its answer means. */
#include <errno.h>

#include "core/base/probes.h"
#include "transports/base/protocol_adapter.h"
#include "transports/base/released.h"
#include "transports/base/state.h"

#define FUNCTION(pointer) ((const void *)(uintptr_t)(pointer))

int tram__protocol_make(tram_loop *loop, tram_protocol_factory factory, void *arg, tram_protocol **ret_protocol) {
    tram_protocol *protocol = NULL;
    uint64_t start = slow_begin(loop);
    TRAM_DCHECK(transport_state(loop));
    loop->in_callouts++; /* a call outside of the loop may call it, and goes on with the loop */
    int status = factory(loop, arg, &protocol);
    loop->in_callouts--;
    slow_end(loop, start, FUNCTION(factory), "protocol factory");
    if (status < 0)
        return status;
    if (!protocol || !protocol->ops)
        return TRAM_ETYPE;
    protocol->transport = NULL;
    *ret_protocol = protocol;
    return 0;
}

static void report(tram_transport *transport, const tram_error *error) {
    tram_exception exception = {
        .message = "a protocol callback failed",
        .error = error,
        .transport = transport,
        .protocol = transport->protocol,
        .fd = transport->io.fd,
    };
    tram__report(transport->io.loop, &exception);
}

/* A failure that changes nothing but is told to the handler. */
static void report_failure(tram_transport *transport, int code, const char *operation) {
    report(transport, tram__raised(transport->io.loop, code, operation));
}

/*
 * A failure that ends the connection (P-15). What looks like an error of the system is not reported (T-17). A transport
 * that ended already keeps its own end (T-16), also where the exception handler ended it just now.
 */
static int fail(tram_transport *transport, int code, const char *operation) {
    const tram_error *error = tram__raised(transport->io.loop, code, operation);
    void *user = error->user;
    if (code < -4096)
        report(transport, error);
    if (!(transport->flags & T_LOST_PENDING))
        transport->end = (struct transport_end){.code = code, .operation = operation, .user = user};
    return code;
}

/* What calls a callback that many protocols do not have stays out of the way of those. */

__attribute__((noinline)) static void call_connection_made(tram_transport *transport) {
    tram_loop *loop = transport->io.loop;
    tram_protocol *protocol = transport->protocol;
    uint64_t start = slow_begin(loop);
    int status = protocol->ops->connection_made(protocol, transport);
    slow_end(loop, start, FUNCTION(protocol->ops->connection_made), "connection_made");
    if (unlikely(status < 0))
        report_failure(transport, status, "connection_made");
}

void tram__protocol_connection_made(tram_transport *transport) {
    transport->protocol->transport = transport;
    PROBE3(connection_made, transport, transport->protocol, transport->io.fd);
    if (transport->protocol->ops->connection_made)
        call_connection_made(transport);
}

__attribute__((noinline)) static void call_connection_lost(tram_transport *transport, const tram_error *error) {
    tram_loop *loop = transport->io.loop;
    tram_protocol *protocol = transport->protocol;
    uint64_t start = slow_begin(loop);
    int status = protocol->ops->connection_lost(protocol, error);
    slow_end(loop, start, FUNCTION(protocol->ops->connection_lost), "connection_lost");
    if (unlikely(status < 0))
        report_failure(transport, status, "connection_lost");
}

void tram__protocol_connection_lost(tram_transport *transport, const tram_error *error) {
    PROBE3(connection_lost, transport, transport->protocol, transport->end.code);
    if (transport->protocol->ops->connection_lost)
        call_connection_lost(transport, error);
}

/* A failing data_received or eof_received ends a connection (P-15); a kind that lives on only tells (P-17). */
__attribute__((noinline)) static int receiving_failed(tram_transport *transport, int status, const char *operation) {
    if (!transport_kind_of(transport)->lives_on)
        return fail(transport, status, operation);
    report_failure(transport, status, operation);
    return 0;
}

__attribute__((noinline)) static int received_with_care(tram_transport *transport, const void *data, size_t size) {
    tram_loop *loop = transport->io.loop;
    const tram_protocol_ops *ops = transport->protocol->ops;
    if (!ops->data_received)
        return 0;
    uint64_t start = slow_begin(loop);
    int status = ops->data_received(transport->protocol, data, size);
    slow_end(loop, start, FUNCTION(ops->data_received), "data_received");
    return status >= 0 ? 0 : receiving_failed(transport, status, "data_received");
}

/* The hottest callback: what timing it needs stays out of the way. */
int tram__protocol_received(tram_transport *transport, const void *data, size_t size) {
    tram_protocol *protocol = transport->protocol;
    PROBE3(data_received, transport, protocol, size);
    int (*data_received)(tram_protocol *, const void *, size_t) = protocol->ops->data_received;
    if (unlikely(!data_received || transport->io.loop->timed))
        return received_with_care(transport, data, size);
    int status = data_received(protocol, data, size);
    return likely(status >= 0) ? 0 : receiving_failed(transport, status, "data_received");
}

int tram__protocol_get_buffer(tram_transport *transport, ptrdiff_t hint, void **ret_memory, size_t *ret_size) {
    tram_loop *loop = transport->io.loop;
    tram_protocol *protocol = transport->protocol;
    const tram_protocol_ops *ops = protocol->ops;
    *ret_memory = NULL;
    *ret_size = 0;
    uint64_t start = slow_begin(loop);
    int status = ops->get_buffer(protocol, hint, ret_memory, ret_size);
    slow_end(loop, start, FUNCTION(ops->get_buffer), "get_buffer");
    if (likely(status >= 0) && unlikely(!*ret_size || !*ret_memory))
        status = tram_loop_raise(loop, TRAM_ESTATE, NULL, "get_buffer returned no room");
    return likely(status >= 0) ? 0 : fail(transport, status, "get_buffer");
}

int tram__protocol_buffer_updated(tram_transport *transport, size_t size) {
    tram_loop *loop = transport->io.loop;
    tram_protocol *protocol = transport->protocol;
    const tram_protocol_ops *ops = protocol->ops;
    PROBE3(data_received, transport, protocol, size);
    if (!ops->buffer_updated)
        return 0;
    uint64_t start = slow_begin(loop);
    int status = ops->buffer_updated(protocol, size);
    slow_end(loop, start, FUNCTION(ops->buffer_updated), "buffer_updated");
    return likely(status >= 0) ? 0 : fail(transport, status, "buffer_updated");
}

__attribute__((noinline)) static int call_eof_received(tram_transport *transport) {
    tram_loop *loop = transport->io.loop;
    tram_protocol *protocol = transport->protocol;
    const tram_protocol_ops *ops = protocol->ops;
    uint64_t start = slow_begin(loop);
    int keep_open = ops->eof_received(protocol);
    slow_end(loop, start, FUNCTION(ops->eof_received), "eof_received");
    return likely(keep_open >= 0) ? keep_open : receiving_failed(transport, keep_open, "eof_received");
}

int tram__protocol_timer_failed(tram_transport *transport, int status) {
    return fail(transport, status, "timer");
}

int tram__protocol_eof(tram_transport *transport) {
    return transport->protocol->ops->eof_received ? call_eof_received(transport) : 0;
}

int tram__protocol_closing(tram_transport *transport, uint64_t deadline_ns) {
    tram_loop *loop = transport->io.loop;
    const tram_protocol_ops *ops = transport->protocol->ops;
    uint64_t start = slow_begin(loop);
    int status = ops->closing(transport->protocol, deadline_ns);
    slow_end(loop, start, FUNCTION(ops->closing), "closing");
    if (unlikely(status < 0))
        report_failure(transport, status, "closing");
    return MIN(status, 0);
}

void tram__protocol_datagram_received(tram_transport *transport, const void *data, size_t size,
                                      const tram_socket_address *address) {
    tram_loop *loop = transport->io.loop;
    const tram_protocol_ops *ops = transport->protocol->ops;
    if (!ops->datagram_received)
        return;
    uint64_t start = slow_begin(loop);
    int status = ops->datagram_received(transport->protocol, data, size, address);
    slow_end(loop, start, FUNCTION(ops->datagram_received), "datagram_received");
    if (unlikely(status < 0))
        report_failure(transport, status, "datagram_received");
}

void tram__protocol_error_received(tram_transport *transport, const tram_error *error) {
    tram_loop *loop = transport->io.loop;
    const tram_protocol_ops *ops = transport->protocol->ops;
    if (!ops->error_received)
        return;
    uint64_t start = slow_begin(loop);
    int status = ops->error_received(transport->protocol, error);
    slow_end(loop, start, FUNCTION(ops->error_received), "error_received");
    if (unlikely(status < 0))
        report_failure(transport, status, "error_received");
}

void tram__protocol_message_received(tram_transport *transport, tram_message *message) {
    tram_loop *loop = transport->io.loop;
    const tram_protocol_ops *ops = transport->protocol->ops;
    uint64_t start = slow_begin(loop);
    int status = ops->message_received(transport->protocol, message);
    slow_end(loop, start, FUNCTION(ops->message_received), "message_received");
    if (unlikely(status < 0))
        report_failure(transport, status, "message_received");
}

static void call_event(tram_transport *transport, int (*callback)(tram_protocol *), const char *name) {
    if (!callback)
        return;
    tram_loop *loop = transport->io.loop;
    uint64_t start = slow_begin(loop);
    loop->in_callouts++; /* a write outside of a tick may pause */
    int status = callback(transport->protocol);
    loop->in_callouts--;
    slow_end(loop, start, FUNCTION(callback), name);
    if (unlikely(status < 0))
        report_failure(transport, status, name);
}

static bool writer_takes_watermark(tram_transport *transport, bool paused) {
    struct exclusive_writer *writer = transport_writer(transport);
    return writer && writer->on_watermark(writer, paused);
}

void tram__protocol_pause_writing(tram_transport *transport) {
    if (!writer_takes_watermark(transport, true))
        call_event(transport, transport->protocol->ops->pause_writing, "pause_writing");
}

void tram__protocol_resume_writing(tram_transport *transport) {
    if (!writer_takes_watermark(transport, false))
        call_event(transport, transport->protocol->ops->resume_writing, "resume_writing");
}

/* ---- Subprocesses ---- */

void tram__protocol_pipe_data_received(tram_transport *transport, int fd, const void *data, size_t size) {
    tram_loop *loop = transport->io.loop;
    const tram_protocol_ops *ops = transport->protocol->ops;
    if (!ops->pipe_data_received)
        return;
    uint64_t start = slow_begin(loop);
    int status = ops->pipe_data_received(transport->protocol, fd, data, size);
    slow_end(loop, start, FUNCTION(ops->pipe_data_received), "pipe_data_received");
    if (unlikely(status < 0))
        report_failure(transport, status, "pipe_data_received");
}

void tram__protocol_pipe_connection_lost(tram_transport *transport, int fd, const tram_error *error) {
    tram_loop *loop = transport->io.loop;
    const tram_protocol_ops *ops = transport->protocol->ops;
    if (!ops->pipe_connection_lost)
        return;
    uint64_t start = slow_begin(loop);
    int status = ops->pipe_connection_lost(transport->protocol, fd, error);
    slow_end(loop, start, FUNCTION(ops->pipe_connection_lost), "pipe_connection_lost");
    if (unlikely(status < 0))
        report_failure(transport, status, "pipe_connection_lost");
}

void tram__protocol_process_exited(tram_transport *transport) {
    call_event(transport, transport->protocol->ops->process_exited, "process_exited");
}
