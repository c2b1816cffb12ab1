/* How the programs of bench/ that have nothing but the kernel listen, and say where. */
#ifndef BENCH_LISTEN_H
#define BENCH_LISTEN_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static _Noreturn void fail(const char *what) {
    perror(what);
    exit(1);
}

/* What the scripts wait for. */
static void announce(const struct sockaddr_in *address) {
    printf("listening on 127.0.0.1:%d\n", ntohs(address->sin_port));
    fflush(stdout);
}

/*
 * A non-blocking socket at 127.0.0.1; port 0 is one of the kernel's choice. TCP_NODELAY is set on it: accepted sockets
 * inherit that.
 */
static int listen_on(uint16_t port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    socklen_t size = sizeof(address);
    int on = 1;
    if (listener < 0 || setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
        bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 4096) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) < 0) {
        fail("listen");
    }
    announce(&address);
    return listener;
}

#endif
