/*
 * tram's side of interop_udp.py, which compiles it: an echo of datagrams, or somebody who asks one.
 *
 *     interop_udp echo udp                   ask udp HOST PORT COUNT
 *     interop_udp echo unix PATH             ask unix OWN-PATH PATH COUNT
 *
 * An echo says where it is and ends on SIGTERM. Who asks sends COUNT datagrams of many sizes, some of them empty, has
 * up to four on their way, and ends well if all come back as they were, in order.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

enum { AHEAD = 4, LARGEST = 20000 };

struct peer {
    tram_protocol base;
    unsigned count, sent, answered;
};

static _Noreturn void fail(const char *what, int status) {
    fprintf(stderr, "interop_udp: %s: %s\n", what, tram_error_text(status));
    exit(1);
}

static int failed(tram_protocol *self, const tram_error *error) {
    (void)self;
    fail(error->operation, error->code);
}

/* ---- Echo ---- */

static int echo_made(tram_protocol *self, tram_transport *transport) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    (void)self;
    printf("%s\n",
           tram_socket_address_text(tram_transport_get_extra_info(transport, "sockname", NULL), text, sizeof text));
    fflush(stdout);
    return 0;
}

static int echo_received(tram_protocol *self, const void *data, size_t size, const tram_socket_address *from) {
    return tram_transport_sendto(self->transport, data, size, from);
}

/* ---- Ask ---- */

static size_t fill(char *bytes, unsigned number) {
    size_t size = number % 10 == 0 ? 0 : number * 977u % LARGEST;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(number + i * 7);
    return size;
}

static int ask(struct peer *peer) {
    static char bytes[LARGEST];
    while (peer->sent < peer->count && peer->sent < peer->answered + AHEAD) {
        size_t size = fill(bytes, peer->sent++);
        int status = tram_transport_sendto(peer->base.transport, bytes, size, NULL);
        if (status < 0)
            fail("sendto", status);
    }
    return peer->answered < peer->count ? 0 : tram_transport_close(peer->base.transport);
}

static int ask_made(tram_protocol *self, tram_transport *transport) {
    (void)transport;
    return ask((struct peer *)self);
}

static int ask_received(tram_protocol *self, const void *data, size_t size, const tram_socket_address *from) {
    static char bytes[LARGEST];
    struct peer *peer = (struct peer *)self;
    (void)from;
    if (fill(bytes, peer->answered++) != size || memcmp(bytes, data, size) != 0)
        fail("another datagram than the one that was sent", TRAM_EVALUE);
    return ask(peer);
}

static int lost(tram_protocol *self, const tram_error *error) {
    (void)error;
    return tram_loop_stop(tram_transport_get_loop(self->transport));
}

static const tram_protocol_ops echo_ops = {
    .connection_made = echo_made, .datagram_received = echo_received, .error_received = failed};
static const tram_protocol_ops ask_ops = {
    .connection_made = ask_made, .datagram_received = ask_received, .error_received = failed, .connection_lost = lost};

/* ---- Both ---- */

static int give(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

static int created(tram_future *future, void *arg) {
    int status = tram_future_result(future, NULL);
    (void)arg;
    if (status < 0)
        fail("create_datagram_endpoint", status);
    return 0;
}

static int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

int main(int argc, char **argv) {
    struct peer peer = {.base = {.ops = &echo_ops}};
    tram_datagram_options options = {0};
    tram_loop *loop;
    tram_future *future;
    if (argc == 3 && strcmp(argv[1], "echo") == 0)
        options.local_host = "127.0.0.1";
    else if (argc == 4 && strcmp(argv[1], "echo") == 0)
        options.local_path = argv[3];
    else if (argc != 6 || strcmp(argv[1], "ask") != 0)
        return 2;
    if (argc == 6) {
        peer = (struct peer){.base = {.ops = &ask_ops}, .count = (unsigned)atoi(argv[5])};
        bool local = strcmp(argv[2], "unix") == 0;
        *(local ? &options.local_path : &options.remote_host) = argv[3];
        *(local ? &options.remote_path : &options.remote_port) = argv[4];
    }
    int status = tram_loop_new(NULL, &loop);
    if (status == 0)
        status = tram_loop_add_signal_handler(loop, SIGTERM, stop, NULL);
    if (status == 0)
        status = tram_loop_create_datagram_endpoint(loop, give, &peer, &options, &future);
    if (status < 0)
        fail("starting", status);
    tram_future_add_done_callback(future, created, NULL);
    tram_loop_run_forever(loop);
    tram_future_release(future);
    tram_loop_free(loop);
    return 0;
}
