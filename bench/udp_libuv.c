/*
 * libuv in bench/udp, at its best: recvmmsg (UV_UDP_RECVMMSG) into one buffer, uv_udp_try_send for each answer.
 * `echo --plain`: without UV_UDP_RECVMMSG, as a program that does not know of it.
 */
#include "udp_common.h"
#include <uv.h>

static char buffer[32 * 64 * 1024];
static bool plain;

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "libuv: %s: %s\n", what, uv_strerror(status));
        exit(1);
    }
}

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer) {
    (void)handle;
    (void)suggested;
    *ret_buffer = uv_buf_init(buffer, plain ? 65536 : sizeof(buffer));
}

static void received(uv_udp_t *handle, ssize_t size, const uv_buf_t *bytes, const struct sockaddr *peer,
                     unsigned flags) {
    (void)flags;
    check((int)size, "receiving");
    if (!peer)
        return;
    uv_buf_t piece = uv_buf_init(bytes->base, (unsigned)size);
    check(uv_udp_try_send(handle, &piece, 1, peer), "uv_udp_try_send");
}

static void terminated(uv_signal_t *handle, int number) {
    (void)number;
    uv_stop(handle->loop);
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "echo") != 0)
        return 2;
    plain = argc == 3 && strcmp(argv[2], "--plain") == 0;
    uv_loop_t *loop = uv_default_loop();
    uv_udp_t handle;
    uv_signal_t term;
    struct sockaddr_in address = loopback(0);
    int size = sizeof(address), fd;
    check(uv_udp_init_ex(loop, &handle, AF_INET | (plain ? 0 : UV_UDP_RECVMMSG)), "uv_udp_init_ex");
    check(uv_udp_bind(&handle, (const struct sockaddr *)&address, 0), "uv_udp_bind");
    check(uv_fileno((const uv_handle_t *)&handle, &fd), "uv_fileno");
    large_buffers(fd);
    check(uv_udp_getsockname(&handle, (struct sockaddr *)&address, &size), "uv_udp_getsockname");
    check(uv_udp_recv_start(&handle, give_buffer, received), "uv_udp_recv_start");
    uv_signal_init(loop, &term);
    uv_signal_start(&term, terminated, SIGTERM);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    uv_run(loop, UV_RUN_DEFAULT);
    return 0;
}
