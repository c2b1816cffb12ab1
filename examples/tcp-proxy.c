/*
 * A TCP proxy on all cores: tcp-proxy LISTEN-PORT TARGET-HOST TARGET-PORT
 *
 * Every client gets a connection to the target, and tram_bridge() couples the two: flow control both ways, the end of
 * a stream and a reset as what they are. Ends on SIGTERM or SIGINT.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

static const char *target_host, *target_port;

/* A client and its connection to the target, until they are coupled. */
struct link {
    tram_protocol client, target;
    tram_future *connecting;
    int users; /* the two protocols and the connecting; the last one frees */
};

static void link_drop(struct link *link) {
    if (--link->users == 0)
        free(link);
}

static void target_released(tram_protocol *protocol) {
    link_drop((struct link *)(void *)((char *)protocol - offsetof(struct link, target)));
}

static int target_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.released = target_released};
    (void)loop;
    struct link *link = (struct link *)arg;
    link->users++;
    link->target.ops = &ops;
    *ret_protocol = &link->target;
    return 0;
}

static int connected(tram_future *future, void *arg) {
    struct link *link = (struct link *)arg;
    tram_transport *client = link->client.transport, *target = link->target.transport; /* NULL: gone */
    int status = client && target ? tram_bridge(client, target, NULL, NULL) : -ECONNREFUSED;
    if (status != 0 && client)
        tram_transport_reset(client);
    if (status != 0 && target)
        tram_transport_abort(target);
    tram_future_release(future);
    link->connecting = NULL;
    link_drop(link);
    return 0;
}

static int client_made(tram_protocol *protocol, tram_transport *transport) {
    struct link *link = (struct link *)protocol;
    tram_loop *loop = tram_transport_get_loop(transport);
    tram_transport_pause_reading(transport); /* what it sends waits in the kernel for the bridge */
    int status =
        tram_loop_create_connection(loop, target_factory, link, target_host, target_port, NULL, &link->connecting);
    if (status != 0)
        return tram_transport_reset(transport);
    link->users++;
    return tram_future_add_done_callback(link->connecting, connected, link);
}

static int client_lost(tram_protocol *protocol, const tram_error *error) {
    struct link *link = (struct link *)protocol;
    (void)error;
    return link->connecting ? tram_future_cancel(link->connecting) : 0;
}

static void client_released(tram_protocol *protocol) {
    link_drop((struct link *)protocol);
}

static int client_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {
        .connection_made = client_made, .connection_lost = client_lost, .released = client_released};
    (void)loop;
    (void)arg;
    struct link *link = (struct link *)calloc(1, sizeof(*link));
    if (!link)
        return -ENOMEM;
    link->users = 1;
    link->client.ops = &ops;
    *ret_protocol = &link->client;
    return 0;
}

static void check(int status, const char *what) {
    if (status >= 0)
        return;
    fprintf(stderr, "tcp-proxy: %s: %s\n", what, tram_error_text(status));
    exit(1);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: tcp-proxy LISTEN-PORT TARGET-HOST TARGET-PORT\n"
             "Couples each client with a connection to the target, until SIGINT or SIGTERM.");
        return 0;
    }
    tram_runtime_options options = {.handle_signals = true, .loop = {.log = tram_log_to_stderr}};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    if (argc != 4) {
        fprintf(stderr, "usage: tcp-proxy LISTEN-PORT TARGET-HOST TARGET-PORT\n");
        return 2;
    }
    target_host = argv[2];
    target_port = argv[3];
    check(tram_runtime_new(&options, &runtime), "making the runtime");
    check(tram_runtime_create_server(runtime, client_factory, NULL, "127.0.0.1", argv[1], NULL, &server, NULL), "bind");
    check(tram_runtime_server_sockname(server, 0, &address), "asking for the address");
    printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof(text)));
    fflush(stdout);
    check(tram_runtime_run(runtime), "running");
    tram_runtime_free(runtime);
    return 0;
}
