/*
 * A proxy that ends TLS: tls-proxy LISTEN-PORT CERTIFICATE KEY TARGET-HOST TARGET-PORT
 *
 * Clients speak TLS with it, the target is spoken to in plain. tram_bridge() couples the two sides as if both were
 * plain: with half_close the end of one direction is the end of one direction, with TLS 1.3. SIGHUP reads the
 * certificate anew. Ends on SIGTERM or SIGINT.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tls.h>
#include <tram/tram.h>

static const char *target_host, *target_port;
static tram_tls_certificate certificate;
static tram_tls_config *config;

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

/* The handshake is done: one that fails costs the target nothing. */
static int client_made(tram_protocol *protocol, tram_transport *transport) {
    struct link *link = (struct link *)protocol;
    tram_loop *loop = tram_transport_get_loop(transport);
    tram_transport_pause_reading(transport);
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

static int configure(void) {
    tram_tls_options options = {0};
    tram_error error = {0};
    options.certificates = &certificate;
    options.certificate_count = 1;
    options.half_close = true;
    int status =
        config ? tram_tls_config_reload(config, &options, &error) : tram_tls_config_new(&options, &config, &error);
    if (status < 0)
        fprintf(stderr, "tls-proxy: %s\n", tram_error_describe(&error, status));
    return status;
}

static int reload(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    configure(); /* where that fails, clients get what they got before */
    return 0;
}

static int start(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)state;
    (void)arg;
    return worker == 0 ? tram_loop_add_signal_handler(loop, SIGHUP, reload, NULL) : 0;
}

static void check(int status, const char *what) {
    if (status >= 0)
        return;
    fprintf(stderr, "tls-proxy: %s: %s\n", what, tram_error_text(status));
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 6) {
        puts("usage: tls-proxy LISTEN-PORT CERTIFICATE KEY TARGET-HOST TARGET-PORT\n"
             "Couples each client, which speaks TLS, with a plain connection to the target, until SIGINT or SIGTERM.");
        return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
    }
    certificate.chain.file = argv[2];
    certificate.key.file = argv[3];
    target_host = argv[4];
    target_port = argv[5];
    if (configure() < 0)
        return 1;
    tram_runtime_options options = {0};
    options.handle_signals = true;
    options.start = start;
    options.loop.log = tram_log_to_stderr;
    tram_server_options serving = {0};
    serving.tls = config;
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    check(tram_runtime_new(&options, &runtime), "making the runtime");
    check(tram_runtime_create_server(runtime, client_factory, NULL, "127.0.0.1", argv[1], &serving, &server, NULL),
          "bind");
    check(tram_runtime_server_sockname(server, 0, &address), "asking for the address");
    printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof(text)));
    fflush(stdout);
    check(tram_runtime_run(runtime), "running");
    tram_runtime_free(runtime);
    tram_tls_config_release(config);
    return 0;
}
