/*
 * A server on raw sockets: answers every message with the same in capitals, and "quit" with the end. Many clients at a
 * time, on one thread; each is a chain of receive, send, receive …
 *
 *     sock-server [PORT]        (any free one if none is given); ends on SIGINT or SIGTERM
 */
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tram/tram.h>

struct client {
    tram_loop *loop;
    int fd;
    char message[256];
    size_t size;
};

static void end(struct client *client, int status) {
    if (status < 0)
        fprintf(stderr, "sock-server: a client was lost: %s\n", tram_error_text(status));
    close(client->fd);
    free(client);
}

/* What comes next when the future is done; a failure to begin ends the client. */
static void then(struct client *client, int status, tram_future *future, tram_future_callback callback) {
    if (status == 0) {
        status = tram_future_add_done_callback(future, callback, client);
        tram_future_release(future);
    }
    if (status < 0)
        end(client, status);
}

static int received(tram_future *future, void *arg);

static void receive(struct client *client) {
    tram_future *future;
    int status = tram_loop_sock_recv_into(client->loop, client->fd, client->message, sizeof client->message, &future);
    then(client, status, future, received);
}

static int answered(tram_future *future, void *arg) {
    int status = tram_future_result(future, NULL);
    if (status < 0)
        end((struct client *)arg, status);
    else
        receive((struct client *)arg);
    return 0;
}

static int received(tram_future *future, void *arg) {
    struct client *client = (struct client *)arg;
    uint64_t count = 0;
    int status = tram_future_count(future, &count);
    client->size = (size_t)count;
    if (status < 0 || client->size == 0 || (client->size >= 4 && memcmp(client->message, "quit", 4) == 0)) {
        end(client, status);
        return 0;
    }
    for (size_t i = 0; i < client->size; i++)
        client->message[i] = (char)toupper((unsigned char)client->message[i]);
    status = tram_loop_sock_sendall(client->loop, client->fd, client->message, client->size, &future);
    then(client, status, future, answered);
    return 0;
}

struct server {
    tram_loop *loop;
    int fd;
};

static void accept_next(struct server *server);

static int accepted(tram_future *future, void *arg) {
    struct server *server = (struct server *)arg;
    int status = tram_future_result(future, NULL);
    if (status < 0) {
        fprintf(stderr, "sock-server: accept: %s\n", tram_error_text(status));
        tram_loop_stop(server->loop);
        return 0;
    }
    struct client *client = (struct client *)calloc(1, sizeof *client);
    if (client) {
        client->loop = server->loop;
        client->fd = tram_future_fd(future); /* left there, it would be closed with the future */
        receive(client);
    }
    accept_next(server);
    return 0;
}

static void accept_next(struct server *server) {
    tram_future *future;
    if (tram_loop_sock_accept(server->loop, server->fd, &future) == 0) {
        tram_future_add_done_callback(future, accepted, server);
        tram_future_release(future);
    }
}

static int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: sock-server [PORT]\n"
             "Answers each message in capitals, on raw sockets, until SIGINT or SIGTERM.");
        return 0;
    }
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    int status = tram_socket_address_inet("127.0.0.1", argc > 1 ? argv[1] : NULL, &address);
    if (status < 0) {
        fprintf(stderr, "sock-server: port %s: %s\n", argv[1], tram_error_text(status));
        return 2;
    }
    struct sockaddr *name = (struct sockaddr *)&address.address;
    struct server server = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (server.fd < 0 || bind(server.fd, name, address.size) < 0 || listen(server.fd, 100) < 0 ||
        getsockname(server.fd, name, &address.size) < 0) {
        perror("sock-server: listen");
        return 1;
    }
    if (tram_loop_new(NULL, &server.loop) < 0)
        return 1;
    tram_loop_add_signal_handler(server.loop, SIGINT, stop, NULL);
    tram_loop_add_signal_handler(server.loop, SIGTERM, stop, NULL);
    printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
    fflush(stdout);
    accept_next(&server);
    tram_loop_run_forever(server.loop);
    tram_loop_free(server.loop);
    close(server.fd);
    return 0;
}
