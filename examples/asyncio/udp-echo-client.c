/*
 * A UDP client with a terminal: sends each line that is typed as a datagram and prints what comes back, at the same
 * time. "q" ends it, and so does the end of the input.
 *
 *     udp-echo-client HOST PORT
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <tram/tram.h>

struct client {
    tram_protocol base; /* first */
    tram_loop *loop;
    int status;
    char line[1024]; /* what was typed of the next one */
    size_t size;
};

/* Sends whole lines. Returns false where "q" was typed. */
static bool send_lines(struct client *client) {
    char *end;
    while ((end = (char *)memchr(client->line, '\n', client->size)) != NULL) {
        size_t length = (size_t)(end - client->line);
        if (length == 1 && client->line[0] == 'q')
            return false;
        tram_transport_sendto(client->base.transport, client->line, length, NULL);
        client->size -= length + 1;
        memmove(client->line, end + 1, client->size);
    }
    return true;
}

static int typed(tram_loop *loop, void *arg) {
    struct client *client = (struct client *)arg;
    ssize_t count = read(STDIN_FILENO, client->line + client->size, sizeof client->line - client->size);
    if (count < 0 && errno == EINTR)
        return 0;
    client->size += count > 0 ? (size_t)count : 0;
    if (count > 0 && send_lines(client) && client->size < sizeof client->line)
        return 0;
    tram_loop_remove_reader(loop, STDIN_FILENO);
    return tram_transport_close(client->base.transport);
}

static int connection_made(tram_protocol *self, tram_transport *transport) {
    struct client *client = (struct client *)self;
    client->status = tram_loop_add_reader(client->loop, STDIN_FILENO, typed, client);
    return client->status < 0 ? tram_transport_close(transport) : 0; /* a file cannot be waited for */
}

static int datagram_received(tram_protocol *self, const void *data, size_t size, const tram_socket_address *peer) {
    (void)self;
    (void)peer;
    printf("%.*s\n", (int)size, (const char *)data);
    fflush(stdout);
    return 0;
}

static int error_received(tram_protocol *self, const tram_error *error) {
    (void)self;
    printf("error: %s\n", tram_error_text(error->code));
    fflush(stdout);
    return 0;
}

static int connection_lost(tram_protocol *self, const tram_error *error) {
    (void)error;
    return tram_loop_stop(((struct client *)self)->loop);
}

static const tram_protocol_ops client_ops = {
    .connection_made = connection_made,
    .connection_lost = connection_lost,
    .datagram_received = datagram_received,
    .error_received = error_received,
};

static int make_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct client *client = (struct client *)arg;
    (void)loop;
    *ret_protocol = &client->base;
    return 0;
}

/* Without an endpoint nothing else would end the loop. */
static int created(tram_future *future, void *arg) {
    struct client *client = (struct client *)arg;
    int status = tram_future_result(future, NULL);
    if (status < 0) {
        client->status = status;
        tram_loop_stop(client->loop);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: udp-echo-client HOST PORT\n"
             "Sends each line of the input as a datagram and prints what comes back; \"q\" ends it.");
        return 0;
    }
    struct client client = {.base = {.ops = &client_ops}};
    tram_future *future;
    if (argc != 3) {
        fprintf(stderr, "usage: udp-echo-client HOST PORT\n");
        return 2;
    }
    const tram_datagram_options options = {.remote_host = argv[1], .remote_port = argv[2]};
    int status = tram_loop_new(NULL, &client.loop);
    if (status == 0)
        status = tram_loop_create_datagram_endpoint(client.loop, make_client, &client, &options, &future);
    if (status == 0) {
        tram_future_add_done_callback(future, created, &client);
        tram_loop_run_forever(client.loop);
        tram_future_release(future);
        status = client.status;
    }
    tram_loop_free(client.loop);
    if (status < 0)
        fprintf(stderr, "udp-echo-client: %s\n", tram_error_text(status));
    return status < 0;
}
