/*
 * An HTTPS client: https-head HOST [PORT [CA-FILE]]
 *
 * Connects by TLS, checks that the certificate is HOST's, asks for the head of "/" and prints what it was told and how
 * the connection was secured. Ends with 1 where that was not possible, and says why.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tls.h>
#include <tram/tram.h>

struct head {
    tram_protocol base;
    const char *host;
    int done; /* the exit code, once it is over */
};

static int head_made(tram_protocol *protocol, tram_transport *transport) {
    struct head *head = (struct head *)protocol;
    const tram_tls_cipher *cipher = (const tram_tls_cipher *)tram_transport_get_extra_info(transport, "cipher", NULL);
    const tram_tls_peer_certificate *certificate =
        (const tram_tls_peer_certificate *)tram_transport_get_extra_info(transport, "peercert", NULL);
    const char *version = (const char *)tram_transport_get_extra_info(transport, "tls_version", "");
    char request[512];
    printf("%s with %s, certificate of %s\n", version, cipher ? cipher->name : "?",
           certificate ? certificate->subject : "nobody");
    snprintf(request, sizeof(request), "HEAD / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", head->host);
    return tram_transport_write(transport, request, strlen(request));
}

static int head_received(tram_protocol *protocol, const void *data, size_t size) {
    (void)protocol;
    fwrite(data, 1, size, stdout);
    return 0;
}

static int head_lost(tram_protocol *protocol, const tram_error *error) {
    struct head *head = (struct head *)protocol;
    if (error)
        fprintf(stderr, "https-head: %s\n", tram_error_describe(error, 0));
    head->done = error ? 1 : 0;
    return tram_loop_stop(tram_transport_get_loop(protocol->transport));
}

static int head_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {
        .connection_made = head_made, .data_received = head_received, .connection_lost = head_lost};
    struct head *head = (struct head *)arg;
    (void)loop;
    head->base.ops = &ops;
    *ret_protocol = &head->base;
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 4 || strcmp(argv[1], "--help") == 0) {
        puts("usage: https-head HOST [PORT [CA-FILE]]\nPrints the head of https://HOST/ and how it was secured.");
        return argc < 2 || argc > 4 ? 2 : 0;
    }
    tram_tls_options tls = {0};
    if (argc > 3)
        tls.ca.file = argv[3];
    struct head head = {0};
    head.host = argv[1];
    head.done = -1; /* not yet */
    tram_error error = {0};
    tram_tls_config *config;
    int status = tram_tls_config_new(&tls, &config, &error);
    if (status < 0) {
        fprintf(stderr, "https-head: %s\n", tram_error_describe(&error, status));
        return 1;
    }
    tram_loop *loop;
    if (tram_loop_new(NULL, &loop) < 0)
        return 1;
    tram_connection_options options = {0};
    options.tls = config;
    tram_future *connecting;
    status = tram_loop_create_connection(loop, head_factory, &head, argv[1], argc > 2 ? argv[2] : "443", &options,
                                         &connecting);
    if (status == 0)
        status = tram_loop_run_until_complete(loop, connecting);
    if (status < 0)
        fprintf(stderr, "https-head: %s\n", tram_error_describe(tram_future_error(connecting), status));
    else if (head.done < 0)
        tram_loop_run_forever(loop);
    tram_future_release(connecting);
    tram_loop_free(loop);
    tram_tls_config_release(config);
    return status < 0 ? 1 : head.done;
}
