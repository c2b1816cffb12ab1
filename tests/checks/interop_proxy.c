/*
 * tram's side of interop_proxy.py, which compiles it.
 *
 *     interop_proxy server PATH
 *     interop_proxy client VERSION HOST PORT|PATH "" [SOURCE SOURCE_PORT DESTINATION DESTINATION_PORT]
 *
 * The server listens at 127.0.0.1, at ::1 and at PATH, says "ready PORT PORT", takes a header of the PROXY protocol off
 * each connection, and answers a request of HTTP with what the header told, which it also prints with the target of the
 * request; it ends on SIGTERM. The client connects with a header, asks, and prints the answer.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interop_peer.h"

/* ---- A server that tells what it was told ---- */

static void tell_value(tram_transport *transport, char *text, size_t size, const char *name, uint8_t type) {
    size_t length = 0, used = strlen(text);
    const unsigned char *value = tram_proxy_value(transport, type, &length);
    if (!value)
        return;
    used += (size_t)snprintf(text + used, size - used, " %s=", name);
    for (size_t i = 0; i < length && used + 4 < size; i++)
        used += (size_t)snprintf(text + used, size - used, value[i] > 32 && value[i] < 127 ? "%c" : "%%%02x", value[i]);
}

static int server_received(tram_protocol *self, const void *data, size_t size) {
    tram_socket_address peername, sockname;
    char target[1024], texts[2][TRAM_ADDRESS_TEXT_SIZE], told[3000];
    int status = request_target(self, data, size, target);
    if (status <= 0)
        return status;
    if (tram_transport_peername(self->transport, &peername) || tram_transport_sockname(self->transport, &sockname))
        return TRAM_EUSER;
    snprintf(told, sizeof told, "%s %s", tram_socket_address_text(&peername, texts[0], sizeof texts[0]),
             tram_socket_address_text(&sockname, texts[1], sizeof texts[1]));
    tell_value(self->transport, told, sizeof told, "alpn", TRAM_PROXY_ALPN);
    tell_value(self->transport, told, sizeof told, "authority", TRAM_PROXY_AUTHORITY);
    tell_value(self->transport, told, sizeof told, "unique_id", TRAM_PROXY_UNIQUE_ID);
    tell_value(self->transport, told, sizeof told, "ssl", TRAM_PROXY_SSL);
    printf("%s %s\n", target, told);
    fflush(stdout);
    return respond(self, told);
}

static const tram_protocol_ops server_ops = {.data_received = server_received, .released = freed};

/* ---- A client ---- */

static int client_made(tram_protocol *self, tram_transport *transport) {
    static const char request[] = "GET /client HTTP/1.0\r\nHost: localhost\r\n\r\n";
    (void)self;
    return tram_transport_write(transport, request, sizeof request - 1);
}

static int client_received(tram_protocol *self, const void *data, size_t size) {
    (void)self;
    return fwrite(data, 1, size, stdout) == size ? 0 : TRAM_EUSER;
}

static int client_lost(tram_protocol *self, const tram_error *error) {
    peer_of(self)->status = error ? error->code : 0;
    return tram_loop_stop(peer_of(self)->loop);
}

static const tram_protocol_ops client_ops = {
    .connection_made = client_made, .data_received = client_received, .connection_lost = client_lost};

static int make_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct peer *peer = arg;
    peer->base.ops = &client_ops;
    peer->loop = loop;
    *ret_protocol = &peer->base;
    return 0;
}

/* ---- Running ---- */

/* The future's value in *ret_value, which lives as long as whoever runs it. */
static int wait_for(tram_loop *loop, int status, tram_future **future, void **ret_value) {
    if (status == 0)
        status = tram_loop_run_until_complete(loop, *future);
    if (status == 0)
        status = tram_future_result(*future, ret_value);
    return status;
}

static int serve(tram_loop *loop, const char *path) {
    static const char *const hosts[] = {"127.0.0.1", "::1", NULL};
    const tram_server_options options = {.hosts = hosts, .proxy_protocol = true};
    const tram_unix_server_options unix_options = {.proxy_protocol = true};
    void *arg = (void *)(uintptr_t)&server_ops, *server, *unix_server;
    tram_future *future;
    int status =
        wait_for(loop, tram_loop_create_server(loop, make_peer, arg, NULL, "0", &options, &future), &future, &server);
    if (status == 0)
        status = wait_for(
            loop, tram_loop_create_unix_server(loop, make_peer, arg, path, strlen(path), &unix_options, &future),
            &future, &unix_server);
    if (status < 0)
        return status;
    printf("ready");
    for (size_t i = 0; i < 2; i++) {
        tram_socket_address address;
        tram_server_sockname(server, i, &address);
        printf(" %d", tram_socket_address_port(&address));
    }
    printf("\n");
    fflush(stdout);
    return tram_loop_run_forever(loop);
}

static int ask(tram_loop *loop, char **arguments, int count) {
    tram_socket_address source, destination;
    tram_proxy_header header = {.version = atoi(arguments[0])};
    if (count > 3) {
        int status = tram_socket_address_inet(arguments[3], arguments[4], &source);
        if (status == 0)
            status = tram_socket_address_inet(arguments[5], arguments[6], &destination);
        if (status < 0)
            return status;
        header.source = &source;
        header.destination = &destination;
    }
    const tram_connection_options options = {.proxy_header = &header};
    const tram_unix_connection_options unix_options = {.proxy_header = &header};
    static struct peer client;
    tram_future *future;
    void *transport;
    int status = arguments[2][0] ? tram_loop_create_connection(loop, make_client, &client, arguments[1], arguments[2],
                                                               &options, &future)
                                 : tram_loop_create_unix_connection(loop, make_client, &client, arguments[1],
                                                                    strlen(arguments[1]), &unix_options, &future);
    status = wait_for(loop, status, &future, &transport);
    if (status == 0)
        status = tram_loop_run_forever(loop);
    return status ? status : client.status;
}

int main(int argc, char **argv) {
    bool serves = argc == 3 && strcmp(argv[1], "server") == 0;
    if (!serves && argc != 5 && argc != 9)
        return 2;
    tram_loop *loop;
    int status = tram_loop_new(NULL, &loop);
    if (status < 0)
        return 1;
    tram_loop_add_signal_handler(loop, SIGTERM, stop, NULL);
    status = serves ? serve(loop, argv[2]) : ask(loop, argv + 2, argc - 2);
    tram_loop_free(loop);
    if (status < 0)
        fprintf(stderr, "interop_proxy: %s\n", tram_error_text(status));
    return status < 0;
}
