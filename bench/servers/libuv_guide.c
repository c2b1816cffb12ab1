/*
 * libuv as its guide teaches it: fresh memory of the suggested size for every read, which then belongs to the
 * write that sends it back; a request from malloc for every uv_write.
 *
 * TCP_NODELAY: on, set once on the listening socket, from which accepted sockets inherit it; libuv by itself
 * leaves it off.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <uv.h>

enum { BACKLOG = 4096 };

struct write_request {
    uv_write_t request;
    uv_buf_t bytes;
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

static void written(uv_write_t *request, int status) {
    struct write_request *write = (struct write_request *)(void *)request;
    if (status < 0 && !uv_is_closing((uv_handle_t *)request->handle)) {
        uv_close((uv_handle_t *)request->handle, closed);
    }
    free(write->bytes.base);
    free(write);
}

static void give_buffer(uv_handle_t *client, size_t suggested, uv_buf_t *buffer) {
    (void)client;
    *buffer = uv_buf_init(allocate(suggested), (unsigned)suggested);
}

static void received(uv_stream_t *client, ssize_t size, const uv_buf_t *buffer) {
    if (size > 0) {
        struct write_request *write = allocate(sizeof(*write));
        write->bytes = uv_buf_init(buffer->base, (unsigned)size);
        check(uv_write(&write->request, client, &write->bytes, 1, written), "uv_write");
        return;
    }
    if (size < 0) {
        uv_close((uv_handle_t *)client, closed);
    }
    free(buffer->base);
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
