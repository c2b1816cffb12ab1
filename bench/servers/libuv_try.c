/*
 * libuv at its best: one receive buffer for the whole loop, which is free again when the callback returns
 * because uv_try_write sends at once. Only what the kernel does not take is copied and queued, and until it
 * is gone nothing more is read from that client.
 *
 * TCP_NODELAY: on, set once on the listening socket, from which accepted sockets inherit it; libuv by itself
 * leaves it off.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

enum { BACKLOG = 4096 };

static char loop_buffer[64 * 1024];

struct rest {
    uv_write_t request;
    char bytes[];
};

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "%s: %s\n", what, uv_strerror(status));
        exit(1);
    }
}

static void *allocate(size_t size) {
    void *memory = malloc(size);
    check(memory == NULL ? UV_ENOMEM : 0, "malloc");
    return memory;
}

static void closed(uv_handle_t *client) {
    free(client);
}

static void give_buffer(uv_handle_t *client, size_t suggested, uv_buf_t *buffer) {
    (void)client;
    (void)suggested;
    *buffer = uv_buf_init(loop_buffer, sizeof(loop_buffer));
}

static void received(uv_stream_t *client, ssize_t size, const uv_buf_t *buffer);

static void rest_written(uv_write_t *request, int status) {
    uv_stream_t *client = request->handle;
    free(request);
    if (uv_is_closing((uv_handle_t *)client)) {
        return;
    }
    if (status < 0) {
        uv_close((uv_handle_t *)client, closed);
    } else {
        uv_read_start(client, give_buffer, received);
    }
}

static void queue_rest(uv_stream_t *client, const char *bytes, size_t size) {
    struct rest *rest = allocate(sizeof(*rest) + size);
    memcpy(rest->bytes, bytes, size);
    uv_buf_t piece = uv_buf_init(rest->bytes, (unsigned)size);
    uv_read_stop(client);
    check(uv_write(&rest->request, client, &piece, 1, rest_written), "uv_write");
}

static void received(uv_stream_t *client, ssize_t size, const uv_buf_t *buffer) {
    if (size == 0) {
        return;
    }
    if (size < 0) {
        uv_close((uv_handle_t *)client, closed);
        return;
    }
    uv_buf_t piece = uv_buf_init(buffer->base, (unsigned)size);
    int sent = uv_try_write(client, &piece, 1);
    if (sent == size) {
        return;
    }
    if (sent < 0 && sent != UV_EAGAIN) {
        uv_close((uv_handle_t *)client, closed);
        return;
    }
    size_t taken = sent < 0 ? 0 : (size_t)sent;
    queue_rest(client, buffer->base + taken, (size_t)size - taken);
}

static void incoming(uv_stream_t *listener, int status) {
    if (status < 0) {
        return;
    }
    uv_tcp_t *client = allocate(sizeof(*client));
    check(uv_tcp_init(listener->loop, client), "uv_tcp_init");
    if (uv_accept(listener, (uv_stream_t *)client) == 0) {
        uv_read_start((uv_stream_t *)client, give_buffer, received);
    } else {
        uv_close((uv_handle_t *)client, closed);
    }
}

static void terminated(uv_signal_t *handle, int number) {
    (void)number;
    uv_stop(handle->loop);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN); /* libuv leaves that to the program */
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t listener;
    struct sockaddr_in address;
    int size = sizeof(address);
    uv_tcp_init(loop, &listener);
    uv_ip4_addr("127.0.0.1", 0, &address);
    check(uv_tcp_bind(&listener, (const struct sockaddr *)&address, 0), "uv_tcp_bind");
    check(uv_tcp_nodelay(&listener, 1), "uv_tcp_nodelay");
    check(uv_listen((uv_stream_t *)&listener, BACKLOG, incoming), "uv_listen");
    check(uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &size), "uv_tcp_getsockname");
    uv_signal_t term;
    uv_signal_init(loop, &term);
    uv_signal_start(&term, terminated, SIGTERM);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    uv_run(loop, UV_RUN_DEFAULT);
    return 0;
}
