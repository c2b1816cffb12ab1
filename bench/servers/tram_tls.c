/*
 * tram: the echo of tram.c behind TLS, on a runtime of one worker.
 *
 *     tram_tls CHAIN KEY
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <tram/tls.h>
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

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: tram_tls CHAIN KEY\n");
        return 2;
    }
    tram_tls_certificate certificate = {.chain.file = argv[1], .key.file = argv[2]};
    tram_tls_options tls = {.certificates = &certificate, .certificate_count = 1};
    tram_tls_config *config;
    check(tram_tls_config_new(&tls, &config, NULL), "certificate");
    tram_runtime_options options = {.workers = 1, .handle_signals = true, .grace_ns = TRAM_NOW};
    tram_server_options how = {.tls = config};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    check(tram_runtime_new(&options, &runtime), "making the runtime");
    check(tram_runtime_start(runtime), "starting the workers");
    check(tram_runtime_create_server(runtime, make_echo, NULL, "127.0.0.1", "0", &how, &server, NULL), "listening");
    check(tram_runtime_server_sockname(server, 0, &address), "asking for the address");
    printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof(text)));
    fflush(stdout);
    tram_runtime_join(runtime);
    tram_runtime_free(runtime);
    tram_tls_config_release(config);
    return 0;
}
