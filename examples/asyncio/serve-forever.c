/*
 * A server that is bound first and begins to listen later, and then serves until it is told to end: clients cannot
 * connect before everything else is ready, yet the port is known. SIGINT and SIGTERM cancel serve_forever.
 *
 *     serve-forever [PORT]
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

static const char greeting[] = "ready\n";

static int connection_made(tram_protocol *self, tram_transport *transport) {
    (void)self;
    tram_transport_write(transport, greeting, sizeof greeting - 1);
    return tram_transport_close(transport);
}

static void released(tram_protocol *self) {
    free(self);
}

static const tram_protocol_ops greeter_ops = {.connection_made = connection_made, .released = released};

static int make_greeter(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = (tram_protocol *)calloc(1, sizeof **ret_protocol);
    if (!*ret_protocol)
        return -ENOMEM;
    (*ret_protocol)->ops = &greeter_ops;
    return 0;
}

static int cancel(tram_loop *loop, void *arg) {
    (void)loop;
    tram_future_cancel((tram_future *)arg);
    return 0;
}

/* Serves, until a signal comes; the server is closed then, and its connections have ended. */
static int serve(tram_loop *loop, tram_server *server) {
    tram_future *forever;
    int status = tram_server_serve_forever(server, &forever);
    if (status < 0)
        return status;
    tram_loop_add_signal_handler(loop, SIGINT, cancel, forever);
    tram_loop_add_signal_handler(loop, SIGTERM, cancel, forever);
    printf("serving: %s\n", tram_server_is_serving(server) ? "yes" : "no");
    fflush(stdout);
    status = tram_loop_run_until_complete(loop, forever);
    printf("serving: %s\n", tram_server_is_serving(server) ? "yes" : "no");
    tram_future_release(forever);
    return status == TRAM_ECANCELLED ? 0 : status;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: serve-forever [PORT]\n"
             "Binds PORT, listens after a line of input, and serves until SIGINT or SIGTERM.");
        return 0;
    }
    const tram_server_options options = {.defer_serving = true};
    tram_socket_address name;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_loop *loop;
    tram_future *future;
    tram_server *server = NULL;
    if (tram_loop_new(NULL, &loop) < 0)
        return 1;
    int status =
        tram_loop_create_server(loop, make_greeter, NULL, "127.0.0.1", argc > 1 ? argv[1] : "0", &options, &future);
    if (status == 0) {
        status = tram_loop_run_until_complete(loop, future);
        server = tram_future_server(future);
        tram_future_release(future);
    }
    if (status == 0) {
        tram_server_sockname(server, 0, &name);
        printf("bound to %s\nserving: %s\n", tram_socket_address_text(&name, text, sizeof text),
               tram_server_is_serving(server) ? "yes" : "no");
        fflush(stdout);
        getchar(); /* here a real server reads its files, warms its caches … */
        status = serve(loop, server);
        tram_server_release(server);
    }
    tram_loop_free(loop);
    if (status < 0)
        fprintf(stderr, "serve-forever: %s\n", tram_error_text(status));
    return status < 0;
}
