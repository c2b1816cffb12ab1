/*
 * What the servers over tram have in common: a protocol whose data_received writes what it gets. A peer that does not
 * read is not read from either.
 */
#ifndef BENCH_TRAM_ECHO_H
#define BENCH_TRAM_ECHO_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <tram/tram.h>

static int data_received(tram_protocol *self, const void *data, size_t size) {
    return tram_transport_write(self->transport, data, size);
}

static int pause_writing(tram_protocol *self) {
    return tram_transport_pause_reading(self->transport);
}

static int resume_writing(tram_protocol *self) {
    return tram_transport_resume_reading(self->transport);
}

static void released(tram_protocol *self) {
    free(self);
}

static const tram_protocol_ops echo = {
    .data_received = data_received,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .released = released,
};

static int make_echo(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    tram_protocol *protocol = malloc(sizeof(*protocol));
    if (protocol == NULL) {
        return -ENOMEM;
    }
    *protocol = (tram_protocol){.ops = &echo};
    *ret_protocol = protocol;
    return 0;
}

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "tram: %s: %s\n", what, tram_error_text(status));
        exit(1);
    }
}

static void announce(const tram_socket_address *address) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    printf("listening on %s\n", tram_socket_address_text(address, text, sizeof(text)));
    fflush(stdout);
}

/* Until a signal; `service` in place of the echo, or NULL. */
static void serve_by_workers(tram_runtime_options options, const char *port, const tram_server_options *how,
                             const tram_stream_service *service) {
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    options.handle_signals = true;
    options.grace_ns = TRAM_NOW;
    options.loop.log = tram_log_to_stderr;
    check(tram_runtime_new(&options, &runtime), "making the runtime");
    check(tram_runtime_start(runtime), "starting the workers");
    check(service != NULL ? tram_runtime_start_server(runtime, service, "127.0.0.1", port, how, &server, NULL)
                          : tram_runtime_create_server(runtime, make_echo, NULL, "127.0.0.1", port, how, &server, NULL),
          "listening");
    check(tram_runtime_server_sockname(server, 0, &address), "asking for the address");
    announce(&address);
    tram_runtime_join(runtime);
    tram_runtime_free(runtime);
}

#endif
