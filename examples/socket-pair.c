/*
 * A socket that the program has already, in the two ways to watch one: as a connection with a protocol, and as a mere
 * descriptor with add_reader. What is sent to the other end comes from a callback in either case.
 */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tram/tram.h>

/* Simulates a peer: somebody writes to the other end of the pair. */
static int send_hello(tram_loop *loop, void *arg) {
    const int *fd = arg;
    (void)loop;
    return send(*fd, "hello", 5, MSG_NOSIGNAL) == 5 ? 0 : TRAM_EUSER;
}

/* ---- As a connection ---- */

struct reader {
    tram_protocol base; /* first */
    tram_loop *loop;
};

static int data_received(tram_protocol *self, const void *data, size_t size) {
    printf("connection received: %.*s\n", (int)size, (const char *)data);
    return tram_transport_close(self->transport);
}

static int connection_lost(tram_protocol *self, const tram_error *error) {
    (void)error;
    return tram_loop_stop(((struct reader *)self)->loop); /* the transport closes its socket */
}

static const tram_protocol_ops reader_ops = {.data_received = data_received, .connection_lost = connection_lost};

static int make_reader(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct reader *reader = arg;
    (void)loop;
    *ret_protocol = &reader->base;
    return 0;
}

static int as_connection(tram_loop *loop, const int *fds) {
    struct reader reader = {.base = {.ops = &reader_ops}, .loop = loop};
    const tram_connection_options options = {.sock = &fds[0]};
    tram_future *future;
    int status = tram_loop_create_connection(loop, make_reader, &reader, NULL, NULL, &options, &future);
    if (status < 0) {
        close(fds[0]);
        return status;
    }
    status = tram_loop_run_until_complete(loop, future);
    tram_future_release(future);
    if (status < 0)
        return status;
    tram_loop_call_soon(loop, send_hello, (void *)(uintptr_t)&fds[1], NULL, NULL);
    return tram_loop_run_forever(loop);
}

/* ---- As a descriptor ---- */

static int readable(tram_loop *loop, void *arg) {
    const int *fd = arg;
    char text[100];
    ssize_t size = recv(*fd, text, sizeof text, 0);
    printf("reader received: %.*s\n", (int)(size > 0 ? size : 0), text);
    tram_loop_remove_reader(loop, *fd);
    return tram_loop_stop(loop);
}

static int as_descriptor(tram_loop *loop, int *fds) {
    int status = tram_loop_add_reader(loop, fds[0], readable, &fds[0]);
    if (status == 0) {
        tram_loop_call_soon(loop, send_hello, &fds[1], NULL, NULL);
        status = tram_loop_run_forever(loop);
    }
    close(fds[0]); /* it stayed ours */
    return status;
}

int main(void) {
    tram_loop *loop;
    int pairs[2][2];
    if (tram_loop_new(NULL, &loop) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[0]) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[1]) < 0)
        return 1;
    int status = as_connection(loop, pairs[0]);
    if (status == 0)
        status = as_descriptor(loop, pairs[1]);
    close(pairs[0][1]);
    close(pairs[1][1]);
    tram_loop_free(loop);
    return status < 0;
}
