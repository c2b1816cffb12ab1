/* What tests/checks/walk.py has valgrind count: each way is one dump of callgrind. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

#include <tram/tram.h>

#include "transports/base/layer.h"

static void check(int status) {
    if (status < 0) {
        fprintf(stderr, "walk: %s\n", tram_error_text(status));
        exit(1);
    }
}

/* ---- A protocol and a layer that do next to nothing ---- */

static unsigned bytes_received, connections_made, messages;

static int data_received(tram_protocol *self, const void *data, size_t size) {
    (void)self, (void)data;
    bytes_received += (unsigned)size;
    return 0;
}

static int connection_made(tram_protocol *self, tram_transport *transport) {
    (void)self, (void)transport;
    connections_made++;
    return 0;
}

static const tram_protocol_ops ops = {.connection_made = connection_made, .data_received = data_received};

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static tram_protocol protocols[16];
    static unsigned next;
    (void)loop, (void)arg;
    *ret_protocol = &protocols[next++];
    (*ret_protocol)->ops = &ops;
    return 0;
}

static ssize_t turn_read(struct layer *layer, void *memory, size_t size) {
    ssize_t got = tram__layer_read(layer, memory, size);
    for (ssize_t i = 0; i < got; i++)
        ((char *)memory)[i] ^= 1;
    return got;
}

static void turn_write(struct layer *layer, const struct iovec *pieces, size_t count) {
    for (size_t i = 0; i < count; i++)
        for (size_t at = 0; at < pieces[i].iov_len; at++) {
            char byte = ((const char *)pieces[i].iov_base)[at] ^ 1;
            layer_write(layer, &byte, 1);
        }
}

static void turn_free(struct layer *layer) {
    (void)layer;
}

static const struct layer_kind turn_kind = {.name = "turn", .read = turn_read, .write = turn_write, .free = turn_free};

/* ---- The ways ---- */

static int job(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    messages++;
    return 0;
}

static void turns(tram_loop *loop, int count) {
    for (int i = 0; i < count; i++) {
        check(tram_loop_stop(loop));
        check(tram_loop_run_forever(loop));
    }
}

/* What happens twice before is warm: memory of the loop's is there. */
#define WAY(name, act)                                                                                                 \
    do {                                                                                                               \
        for (int round = 0; round < 3; round++) {                                                                      \
            CALLGRIND_ZERO_STATS;                                                                                      \
            act;                                                                                                       \
        }                                                                                                              \
        CALLGRIND_DUMP_STATS_AT(name);                                                                                 \
    } while (0)

static struct tram_transport *connection(tram_loop *loop, bool layered, int *ret_peer) {
    static struct layer layer = {.kind = &turn_kind};
    int fds[2];
    void *transport;
    tram_future *future;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0)
        exit(1);
    *ret_peer = fds[1];
    check(tram_loop_connect_accepted_socket(loop, factory, NULL, fds[0], &future));
    check(tram_loop_run_until_complete(loop, future));
    check(tram_future_result(future, &transport));
    tram_future_release(future);
    if (layered)
        check(tram__transport_push_layer(transport, &layer, NULL, 0));
    turns(loop, 3);
    return transport;
}

static int client(const tram_socket_address *address) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address->address, address->size) < 0)
        exit(1);
    return fd;
}

static void peer_sends(int peer) {
    if (send(peer, "x", 1, 0) != 1)
        exit(1);
}

int main(void) {
    tram_loop *loop;
    int plain_peer, layered_peer, fds[3];
    void *server;
    tram_future *future;
    tram_socket_address address;
    check(tram_loop_new(NULL, &loop));
    tram_transport *plain = connection(loop, false, &plain_peer);
    tram_transport *layered = connection(loop, true, &layered_peer);
    check(tram_loop_create_server(loop, factory, NULL, "127.0.0.1", "0", NULL, &future));
    check(tram_loop_run_until_complete(loop, future));
    check(tram_future_result(future, &server));
    tram_future_release(future);
    check(tram_server_sockname(server, 0, &address));
    turns(loop, 3);
    WAY("turn", turns(loop, 1));
    WAY("received", (peer_sends(plain_peer), turns(loop, 1)));
    WAY("written", tram_transport_write(plain, "x", 1));
    WAY("received through a layer", (peer_sends(layered_peer), turns(loop, 1)));
    WAY("written through a layer", tram_transport_write(layered, "x", 1));
    WAY("accepted", (fds[round] = client(&address), turns(loop, 2)));
    WAY("posted", (tram_loop_call_soon_threadsafe(loop, job, NULL, NULL), turns(loop, 1)));
    bool all = bytes_received == 6 && connections_made == 5 && messages == 3;
    CALLGRIND_STOP_INSTRUMENTATION;
    tram_loop_free(loop);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    close(plain_peer);
    close(layered_peer);
    return !all;
}
