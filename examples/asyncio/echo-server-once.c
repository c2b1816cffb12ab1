/*
 * A TCP echo server of the shortest kind: sends back what came first, and closes.
 *
 *     echo-server-once [PORT]        (any free one if none is given); ends on SIGINT or SIGTERM
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

static int data_received(tram_protocol *self, const void *data, size_t size) {
    int status = tram_transport_write(self->transport, data, size);
    return status < 0 ? status : tram_transport_close(self->transport); /* what is written is sent first */
}

static void released(tram_protocol *self) {
    free(self);
}

static const tram_protocol_ops echo_ops = {.data_received = data_received, .released = released};

static int make_echo(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = (tram_protocol *)calloc(1, sizeof **ret_protocol);
    if (!*ret_protocol)
        return -ENOMEM;
    (*ret_protocol)->ops = &echo_ops;
    return 0;
}

static int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

/* Waits until the server listens, and says where. */
static int begin(tram_loop *loop, tram_future *future) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_socket_address name;
    int status = tram_loop_run_until_complete(loop, future);
    tram_server *server = tram_future_server(future);
    if (status < 0) {
        fprintf(stderr, "echo-server-once: %s\n", tram_error_describe(tram_future_error(future), status));
    } else {
        tram_server_sockname(server, 0, &name);
        printf("listening on %s\n", tram_socket_address_text(&name, text, sizeof text));
        fflush(stdout);
        tram_server_release(server); /* the loop closes it */
    }
    tram_future_release(future);
    return status;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: echo-server-once [PORT]\n"
             "Sends back what each client sends first, and closes. SIGINT and SIGTERM end it.");
        return 0;
    }
    tram_loop *loop;
    tram_future *future;
    if (tram_loop_new(NULL, &loop) < 0)
        return 1;
    tram_loop_add_signal_handler(loop, SIGINT, stop, NULL);
    tram_loop_add_signal_handler(loop, SIGTERM, stop, NULL);
    int status = tram_loop_create_server(loop, make_echo, NULL, "127.0.0.1", argc > 1 ? argv[1] : "0", NULL, &future);
    if (status == 0)
        status = begin(loop, future);
    if (status == 0)
        status = tram_loop_run_forever(loop);
    tram_loop_free(loop);
    return status < 0;
}
