/* tram in bench/udp: the echo answers within datagram_received; the source sends bursts between cork and uncork. */
#include <tram/tram.h>

#include "udp_common.h"

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "tram: %s: %s\n", what, tram_error_text(status));
        exit(1);
    }
}

struct endpoint {
    tram_protocol base;
    struct source_plan plan;
    uint64_t count; /* received by the sink; sent by the source */
    uint64_t acked;
};

static int error_received(tram_protocol *self, const tram_error *error) {
    (void)self;
    check(error->code, error->operation);
    return 0;
}

static int echo_received(tram_protocol *self, const void *data, size_t size, const tram_socket_address *peer) {
    return tram_transport_sendto(self->transport, data, size, peer);
}

static int sink_received(tram_protocol *self, const void *data, size_t size, const tram_socket_address *peer) {
    struct endpoint *sink = (struct endpoint *)self;
    (void)data;
    if (size != DATAGRAM)
        fail("a datagram of another size");
    if (++sink->count % ACK != 0)
        return 0;
    return tram_transport_sendto(self->transport, &sink->count, sizeof(sink->count), peer);
}

static int send_bursts(struct endpoint *source) {
    static const char bytes[DATAGRAM];
    tram_transport *transport = source->base.transport;
    while (source->count < source->plan.datagrams && source->count + BURST - source->acked <= WINDOW) {
        tram_transport_cork(transport);
        for (int i = 0; i < BURST; i++, source->count++)
            check(tram_transport_sendto(transport, bytes, DATAGRAM, NULL), "sendto");
        tram_transport_uncork(transport);
    }
    return source->acked >= source->plan.datagrams ? tram_loop_stop(tram_transport_get_loop(transport)) : 0;
}

static int source_made(tram_protocol *self, tram_transport *transport) {
    (void)transport;
    return send_bursts((struct endpoint *)self);
}

static int source_received(tram_protocol *self, const void *data, size_t size, const tram_socket_address *peer) {
    struct endpoint *source = (struct endpoint *)self;
    (void)peer;
    if (size != sizeof(source->acked))
        fail("no acknowledgement");
    memcpy(&source->acked, data, size);
    return send_bursts(source);
}

static const tram_protocol_ops echo_ops = {.datagram_received = echo_received, .error_received = error_received};
static const tram_protocol_ops sink_ops = {.datagram_received = sink_received, .error_received = error_received};
static const tram_protocol_ops source_ops = {
    .connection_made = source_made, .datagram_received = source_received, .error_received = error_received};

static int make(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

static int terminated(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

/* Makes the endpoint and runs until someone stops. */
static void run(struct endpoint *endpoint, const tram_datagram_options *options) {
    tram_loop_options loop_options = {.log = tram_log_to_stderr};
    tram_loop *loop;
    tram_future *future;
    void *transport = NULL;
    struct sockaddr_in address;
    check(tram_loop_new(&loop_options, &loop), "making a loop");
    check(tram_loop_add_signal_handler(loop, SIGTERM, terminated, NULL), "watching for SIGTERM");
    check(tram_loop_create_datagram_endpoint(loop, make, endpoint, options, &future), "making an endpoint");
    check(tram_loop_run_until_complete(loop, future), "making an endpoint");
    check(tram_future_result(future, &transport), "making an endpoint");
    tram_future_release(future);
    const tram_socket *view = tram_transport_get_extra_info(transport, "socket", NULL);
    large_buffers(view->fd);
    if (options->local_host) {
        const tram_socket_address *name = tram_transport_get_extra_info(transport, "sockname", NULL);
        memcpy(&address, &name->address, sizeof(address));
        printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
        fflush(stdout);
    }
    check(tram_loop_run_forever(loop), "running");
    tram_loop_free(loop);
}

static int serve(const tram_protocol_ops *ops) {
    struct endpoint endpoint = {.base = {.ops = ops}};
    tram_datagram_options options = {.local_host = "127.0.0.1"};
    run(&endpoint, &options);
    return 0;
}

static int source(const struct source_plan *plan, const char *port) {
    struct endpoint endpoint = {.base = {.ops = &source_ops}, .plan = *plan};
    tram_datagram_options options = {.remote_host = "127.0.0.1", .remote_port = port};
    struct account account = account_begin(plan->pid);
    run(&endpoint, &options);
    account_end(&account, endpoint.count);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "echo") == 0)
        return serve(&echo_ops);
    if (argc == 2 && strcmp(argv[1], "sink") == 0)
        return serve(&sink_ops);
    struct source_plan plan = source_plan(argc, argv);
    return source(&plan, argv[2]);
}
