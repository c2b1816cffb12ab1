/*
 * tram's side of interop_unix.py, which compiles it.
 *
 *     interop_unix echo|workers|http|client|descriptors|giver PATH
 *
 * An echo, of one loop or of two workers, and a server that answers a request of HTTP end on SIGTERM. A client sends
 * SIZE bytes and its end, and ends well if all come back as they were. The server
 * "descriptors" sends bytes and descriptors back; the client "giver" sends three and ends well if they come back. A
 * path that begins with @ is an abstract name.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "interop_peer.h"

enum { SIZE = 300000 };

static unsigned char byte_at(size_t place) {
    return (unsigned char)(place * 7 + place / 251);
}

/* ---- An echo, which sends the rest after the peer's end ---- */

static int echo_received(tram_protocol *self, const void *data, size_t size) {
    return tram_transport_write(self->transport, data, size);
}

static int echo_pause(tram_protocol *self) {
    return tram_transport_pause_reading(self->transport);
}

static int echo_resume(tram_protocol *self) {
    return tram_transport_resume_reading(self->transport);
}

static const tram_protocol_ops echo_ops = {
    .data_received = echo_received, .pause_writing = echo_pause, .resume_writing = echo_resume, .released = freed};

/* ---- As much of HTTP/1.0 as curl needs ---- */

static int http_received(tram_protocol *self, const void *data, size_t size) {
    char target[1024], body[1100];
    int status = request_target(self, data, size, target);
    if (status <= 0)
        return status;
    snprintf(body, sizeof body, "you asked for %s\n", target);
    return respond(self, body);
}

static const tram_protocol_ops http_ops = {.data_received = http_received, .released = freed};

/* ---- Descriptors ---- */

enum { GIVEN = 3 };

static int descriptors_made(tram_protocol *self, tram_transport *transport) {
    (void)self;
    return tram_transport_receive_fds(transport, 100);
}

/* What comes is written into and goes back: the other side sees that it is the same file. */
static int descriptors_received(tram_protocol *self, const void *data, size_t size) {
    int fds[100];
    size_t count = tram_transport_take_fds(self->transport, fds, 100);
    int status = 0;
    for (size_t i = 0; i < count; i++)
        if (write(fds[i], "seen", 4) != 4)
            status = -EIO;
    if (!status)
        status = count ? tram_transport_send_fds(self->transport, data, size, fds, count)
                       : tram_transport_write(self->transport, data, size);
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
    return status;
}

static const tram_protocol_ops descriptors_ops = {
    .connection_made = descriptors_made, .data_received = descriptors_received, .released = freed};

static int giver_made(tram_protocol *self, tram_transport *transport) {
    int ends[2], status = tram_transport_receive_fds(transport, GIVEN);
    if (status < 0 || pipe(ends) < 0)
        return status < 0 ? status : -errno;
    const int fds[GIVEN] = {ends[1], ends[1], ends[1]};
    status = tram_transport_send_fds(transport, "three", 5, fds, GIVEN);
    close(ends[1]);
    peer_of(self)->far_end = ends[0];
    return status;
}

/* They are the same pipe, and when they are closed nobody has it any more. */
static int giver_received(tram_protocol *self, const void *data, size_t size) {
    struct peer *peer = peer_of(self);
    int fds[GIVEN];
    char text[8] = "";
    size_t count = tram_transport_take_fds(self->transport, fds, GIVEN);
    peer->wrong |= count != GIVEN || size != 5 || memcmp(data, "three", 5) != 0;
    for (size_t i = 0; i < count; i++) {
        peer->wrong |= write(fds[i], "x", 1) != 1;
        close(fds[i]);
    }
    peer->wrong |= read(peer->far_end, text, sizeof text) != GIVEN || read(peer->far_end, text, sizeof text) != 0;
    peer->size = SIZE;
    return tram_transport_close(self->transport);
}

/* ---- A client ---- */

static int client_made(tram_protocol *self, tram_transport *transport) {
    (void)self;
    unsigned char *bytes = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = byte_at(i);
    tram_transport_write(transport, bytes, SIZE);
    free(bytes);
    return tram_transport_write_eof(transport);
}

static int client_received(tram_protocol *self, const void *data, size_t size) {
    struct peer *peer = peer_of(self);
    for (size_t i = 0; i < size; i++)
        peer->wrong |= ((const unsigned char *)data)[i] != byte_at(peer->size++);
    return 0;
}

static int client_lost(tram_protocol *self, const tram_error *error) {
    peer_of(self)->wrong |= error != NULL;
    return tram_loop_stop(peer_of(self)->loop);
}

static const tram_protocol_ops client_ops = {
    .connection_made = client_made, .data_received = client_received, .connection_lost = client_lost};
static const tram_protocol_ops giver_ops = {
    .connection_made = giver_made, .data_received = giver_received, .connection_lost = client_lost};

static int make_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct peer *peer = arg;
    peer->loop = loop;
    *ret_protocol = &peer->base;
    return 0;
}

/* ---- Running ---- */

static int ready(void) {
    printf("ready\n");
    return fflush(stdout);
}

static int on_workers(const char *path, size_t size) {
    const tram_runtime_options options = {.workers = 2, .handle_signals = true};
    tram_runtime *runtime;
    int status = tram_runtime_new(&options, &runtime);
    if (status == 0) {
        status = tram_runtime_create_unix_server(runtime, make_peer, (void *)(uintptr_t)&echo_ops, path, size, NULL,
                                                 NULL, NULL);
        if (status == 0)
            status = tram_runtime_start(runtime);
        if (status == 0 && ready() == 0)
            status = tram_runtime_join(runtime);
        tram_runtime_free(runtime);
    }
    return status;
}

static int on_a_loop(tram_loop *loop, const tram_protocol_ops *ops, struct peer *client, const char *path,
                     size_t size) {
    tram_future *future;
    int status = client
                     ? tram_loop_create_unix_connection(loop, make_client, client, path, size, NULL, &future)
                     : tram_loop_create_unix_server(loop, make_peer, (void *)(uintptr_t)ops, path, size, NULL, &future);
    if (status < 0)
        return status;
    status = tram_loop_run_until_complete(loop, future);
    tram_future_release(future);
    if (status == 0 && !client)
        status = ready();
    if (status == 0)
        status = tram_loop_run_forever(loop);
    if (status == 0 && client)
        status = client->wrong || client->size != SIZE ? TRAM_EINCOMPLETE : printf("ok\n") - 3;
    return status;
}

static const struct part {
    const char *name;
    const tram_protocol_ops *ops;
    bool connects;
} parts[] = {
    {"echo", &echo_ops, false},    {"http", &http_ops, false},  {"descriptors", &descriptors_ops, false},
    {"client", &client_ops, true}, {"giver", &giver_ops, true}, {NULL, NULL, false},
};

int main(int argc, char **argv) {
    static struct peer client;
    char path[200];
    if (argc != 3)
        return 2;
    size_t size = (size_t)snprintf(path, sizeof path, "%s", argv[2]);
    if (path[0] == '@')
        path[0] = '\0';
    const char *what = argv[1];
    tram_loop *loop;
    int status;
    if (strcmp(what, "workers") == 0) {
        status = on_workers(path, size);
    } else {
        status = tram_loop_new(NULL, &loop);
        if (status < 0)
            return 1;
        tram_loop_add_signal_handler(loop, SIGTERM, stop, NULL);
        const struct part *part = parts;
        while (part->name && strcmp(part->name, what) != 0)
            part++;
        client.base.ops = part->ops;
        status = part->name ? on_a_loop(loop, part->ops, part->connects ? &client : NULL, path, size) : TRAM_EVALUE;
        tram_loop_free(loop);
    }
    if (status < 0)
        fprintf(stderr, "interop_unix: %s\n", tram_error_text(status));
    return status < 0;
}
