/*
 * Waiting for data on a socket that was opened elsewhere, in the two ways of asyncio's manual: wrapped as a connection
 * of a protocol, and watched by add_reader. What is waited for is sent by call_soon, as if by the network.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tram/tram.h>

static void check(int status, const char *what) {
    if (status >= 0)
        return;
    fprintf(stderr, "socket-pair: %s: %s\n", what, tram_error_text(status));
    exit(1);
}

/* The other end of the pair: arg is its descriptor. */
static int send_abc(tram_loop *loop, void *arg) {
    (void)loop;
    return send(*(int *)arg, "abc", 3, 0) == 3 ? 0 : -errno;
}

/* ---- As a connection ---- */

static int data_received(tram_protocol *self, const void *data, size_t size) {
    printf("Received by a protocol: %.*s\n", (int)size, (const char *)data);
    return tram_transport_close(self->transport);
}

static int connection_lost(tram_protocol *self, const tram_error *error) {
    if (error)
        fprintf(stderr, "socket-pair: %s\n", tram_error_text(error->code));
    return tram_loop_stop(tram_transport_get_loop(self->transport)); /* the socket is closed behind this */
}

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.data_received = data_received, .connection_lost = connection_lost};
    (void)loop;
    tram_protocol *protocol = (tram_protocol *)arg;
    protocol->ops = &ops;
    *ret_protocol = protocol;
    return 0;
}

static void wait_as_a_connection(tram_loop *loop) {
    int fds[2];
    tram_protocol protocol = {0};
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0 ? -errno : 0, "socketpair");
    tram_connection_options options = {.sock = &fds[0]};
    check(tram_loop_create_connection(loop, factory, &protocol, NULL, NULL, &options, NULL), "create_connection");
    check(tram_loop_call_soon(loop, send_abc, &fds[1], NULL, NULL), "call_soon");
    check(tram_loop_run_forever(loop), "running");
    close(fds[1]);
}

/* ---- Watched ---- */

static int readable(tram_loop *loop, void *arg) {
    char bytes[100];
    int fd = *(int *)arg;
    ssize_t size = recv(fd, bytes, sizeof bytes, 0);
    if (size < 0)
        return -errno;
    printf("Received by a reader: %.*s\n", (int)size, bytes);
    tram_loop_remove_reader(loop, fd);
    return tram_loop_stop(loop);
}

static void wait_by_a_reader(tram_loop *loop) {
    int fds[2];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0 ? -errno : 0, "socketpair");
    check(tram_loop_add_reader(loop, fds[0], readable, &fds[0]), "add_reader");
    check(tram_loop_call_soon(loop, send_abc, &fds[1], NULL, NULL), "call_soon");
    check(tram_loop_run_forever(loop), "running");
    close(fds[0]);
    close(fds[1]);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: socket-pair\n"
             "Waits for data on a socket that was opened elsewhere, in two ways.");
        return 0;
    }
    tram_loop_options options = {.log = tram_log_to_stderr};
    tram_loop *loop;
    check(tram_loop_new(&options, &loop), "making the loop");
    wait_as_a_connection(loop);
    wait_by_a_reader(loop);
    tram_loop_free(loop);
    return 0;
}
