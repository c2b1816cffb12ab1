/*
 * A UDP echo server: sends every datagram back to where it came from.
 *
 *     udp-echo-server [PORT]        (any free one if none is given); ends on SIGINT or SIGTERM
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <tram/tram.h>

static int connection_made(tram_protocol *self, tram_transport *transport) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_socket_address name;
    (void)self;
    int status = tram_transport_sockname(transport, &name);
    if (status < 0)
        return status;
    printf("listening on %s\n", tram_socket_address_text(&name, text, sizeof text));
    fflush(stdout);
    return 0;
}

static int datagram_received(tram_protocol *self, const void *data, size_t size, const tram_socket_address *peer) {
    return tram_transport_sendto(self->transport, data, size, peer);
}

/* Somebody asked and is gone, most likely. That is no reason to stop. */
static int error_received(tram_protocol *self, const tram_error *error) {
    (void)self;
    fprintf(stderr, "udp-echo-server: %s: %s\n", error->operation, tram_error_text(error->code));
    return 0;
}

static const tram_protocol_ops echo_ops = {
    .connection_made = connection_made,
    .datagram_received = datagram_received,
    .error_received = error_received,
};

static int make_echo(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = (tram_protocol *)arg;
    return 0;
}

static int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: udp-echo-server [PORT]\n"
             "Sends every datagram back, until SIGINT or SIGTERM.");
        return 0;
    }
    const tram_datagram_options options = {.local_host = "127.0.0.1", .local_port = argc > 1 ? argv[1] : NULL};
    tram_protocol echo = {.ops = &echo_ops};
    tram_loop *loop;
    tram_future *future;
    int status = tram_loop_new(NULL, &loop);
    if (status == 0) {
        tram_loop_add_signal_handler(loop, SIGINT, stop, NULL);
        tram_loop_add_signal_handler(loop, SIGTERM, stop, NULL);
        status = tram_loop_create_datagram_endpoint(loop, make_echo, &echo, &options, &future);
        if (status == 0) {
            status = tram_loop_run_until_complete(loop, future);
            tram_future_release(future);
        }
        if (status == 0)
            status = tram_loop_run_forever(loop);
        tram_loop_free(loop);
    }
    if (status < 0)
        fprintf(stderr, "udp-echo-server: %s\n", tram_error_text(status));
    return status < 0;
}
