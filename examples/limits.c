/*
 * What a server allows (tram/limits.h): an echo server with few connections and little patience, which says why each of
 * them ended.
 *
 *     limits [PORT]        (any free one if none is given); ends on SIGINT or SIGTERM
 *
 * Two connections at a time; a third is reset. A second for the first byte, two seconds without one, three in all. A
 * client that sends and never reads is ended when 64 KiB wait for it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

static const uint64_t second = 1000000000;

/* No flow control, on purpose: the hard limit is for protocols that have none. */
static int data_received(tram_protocol *self, const void *data, size_t size) {
    return tram_transport_write(self->transport, data, size);
}

static int connection_lost(tram_protocol *self, const tram_error *error) {
    (void)self;
    if (error)
        printf("lost: %s: %s\n", error->operation, tram_error_text(error->code));
    else
        printf("lost: a clean end\n");
    fflush(stdout);
    return 0;
}

static void released(tram_protocol *self) {
    free(self);
}

static int make_echo(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {
        .data_received = data_received, .connection_lost = connection_lost, .released = released};
    (void)loop, (void)arg;
    *ret_protocol = (tram_protocol *)calloc(1, sizeof **ret_protocol);
    if (!*ret_protocol)
        return -ENOMEM;
    (*ret_protocol)->ops = &ops;
    return 0;
}

static int create(tram_runtime *runtime, const char *port, tram_runtime_server **ret_server) {
    const tram_server_limits limits = {
        .max_connections = 2,
        .idle_timeout_ns = 2 * second,
        .first_byte_timeout_ns = second,
        .total_timeout_ns = 3 * second,
        .write_hard_limit = 64 * 1024,
    };
    const tram_server_options options = {.limits = &limits}; /* both are copied */
    tram_error error = {.code = 0};
    int status = tram_runtime_create_server(runtime, make_echo, NULL, "127.0.0.1", port, &options, ret_server, &error);
    if (status)
        fprintf(stderr, "limits: %s\n", tram_error_describe(error.code ? &error : NULL, status));
    return status;
}

static void print_counts(tram_runtime *runtime, const tram_runtime_server *server) {
    uint64_t refused = 0, first_byte = 0, idle = 0, total = 0, unread = 0;
    for (unsigned i = 0; i < tram_runtime_worker_count(runtime); i++) {
        tram_limit_counts counts;
        if (tram_runtime_server_limit_counts(server, i, &counts))
            continue;
        refused += counts.refused_connections;
        first_byte += counts.expired_first_byte;
        idle += counts.expired_idle;
        total += counts.expired_total;
        unread += counts.over_write_limit;
    }
    printf("refused %" PRIu64 ", first byte %" PRIu64 ", idle %" PRIu64 ", total %" PRIu64 ", unread %" PRIu64 "\n",
           refused, first_byte, idle, total, unread);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: limits [PORT]\n"
             "An echo server with few connections and little patience, until SIGINT or SIGTERM.");
        return 0;
    }
    const tram_runtime_options options = {.grace_ns = TRAM_NOW, .handle_signals = true};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    if (tram_runtime_new(&options, &runtime))
        return 1;
    int status = create(runtime, argc > 1 ? argv[1] : "0", &server);
    if (!status)
        status = tram_runtime_server_sockname(server, 0, &address);
    if (!status) {
        printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
        fflush(stdout);
        status = tram_runtime_run(runtime);
        print_counts(runtime, server);
    }
    tram_runtime_free(runtime);
    return status < 0;
}
