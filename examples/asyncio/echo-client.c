/*
 * A TCP client that sends as soon as it is connected, prints what comes back, and ends when the connection does.
 *
 *     echo-client HOST PORT [MESSAGE]
 */
#include <stdio.h>
#include <string.h>

#include <tram/tram.h>

struct client {
    tram_protocol base; /* first */
    tram_loop *loop;
    const char *message;
    int status;
};

static int connection_made(tram_protocol *self, tram_transport *transport) {
    const char *message = ((struct client *)self)->message;
    printf("sending: %s\n", message);
    return tram_transport_write(transport, message, strlen(message));
}

static int data_received(tram_protocol *self, const void *data, size_t size) {
    (void)self;
    printf("received: %.*s\n", (int)size, (const char *)data);
    return 0;
}

static int connection_lost(tram_protocol *self, const tram_error *error) {
    struct client *client = (struct client *)self;
    printf("the server closed the connection\n");
    client->status = error ? error->code : 0;
    return tram_loop_stop(client->loop);
}

static const tram_protocol_ops client_ops = {
    .connection_made = connection_made,
    .data_received = data_received,
    .connection_lost = connection_lost,
};

static int make_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct client *client = (struct client *)arg;
    (void)loop;
    *ret_protocol = &client->base;
    return 0;
}

/* Waits for the connection, then for its end. */
static int talk(struct client *client, tram_future *future) {
    int status = tram_loop_run_until_complete(client->loop, future);
    if (status < 0) {
        fprintf(stderr, "echo-client: %s\n", tram_error_describe(tram_future_error(future), status));
    } else {
        tram_loop_run_forever(client->loop);
    }
    tram_future_release(future);
    return status < 0 ? status : client->status;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: echo-client HOST PORT [MESSAGE]\n"
             "Sends MESSAGE (Hello World!) to an echo server and prints what comes back.");
        return 0;
    }
    if (argc < 3) {
        fprintf(stderr, "usage: echo-client HOST PORT [MESSAGE]\n");
        return 2;
    }
    struct client client = {.base = {.ops = &client_ops}, .message = argc > 3 ? argv[3] : "Hello World!"};
    tram_future *future;
    if (tram_loop_new(NULL, &client.loop) < 0)
        return 1;
    int status = tram_loop_create_connection(client.loop, make_client, &client, argv[1], argv[2], NULL, &future);
    if (status == 0)
        status = talk(&client, future);
    tram_loop_free(client.loop);
    return status < 0;
}
