/*
 * The floor of a proxy: level-triggered epoll, two sockets for each client, one receive and one send for what is ready.
 * With --splice the bytes go through a pipe per direction and never into this process; a pipe
 * holds 64 KiB, or SIZE.
 *
 * A side whose peer takes no more keeps the rest and is not read meanwhile. Usage: bare_relay [--splice[=SIZE]] PORT
 * HOST PORT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../lib/listen.h"

enum { EVENTS = 256 };

/* One end of a connection, and what was read from it and not taken by the other. */
struct side {
    int fd;
    struct side *other;
    char *rest;
    size_t rest_size;
    int pipe[2];
    bool ended;
};

static char buffer[256 * 1024];
static bool splicing;
static size_t pipe_size = 65536;
static int epoll;
static struct sockaddr_in target;

static void watch(struct side *side, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = side};
    if (epoll_ctl(epoll, operation, side->fd, &event) < 0)
        fail("epoll_ctl");
}

static struct side *graveyard;

/* Both at once; the memory goes when the round of events is over. */
static void end(struct side *side) {
    struct side *both[] = {side, side->other};
    if (side->fd < 0)
        return;
    for (int i = 0; i < 2; i++) {
        close(both[i]->fd);
        both[i]->fd = -1;
        if (splicing) {
            close(both[i]->pipe[0]);
            close(both[i]->pipe[1]);
        }
        free(both[i]->rest);
    }
    both[1]->rest = (char *)graveyard; /* linked by what is free now */
    graveyard = side;
}

static void bury(void) {
    while (graveyard) {
        struct side *side = graveyard;
        graveyard = (struct side *)(void *)side->other->rest;
        free(side->other);
        free(side);
    }
}

static void finished(struct side *side) {
    side->ended = true;
    watch(side, EPOLL_CTL_MOD, 0);
    if (side->other->ended)
        end(side);
    else
        shutdown(side->other->fd, SHUT_WR);
}

/* The other side did not take all: it is asked when it will, and this one waits. */
static void wait_for(struct side *side) {
    watch(side, EPOLL_CTL_MOD, 0);
    watch(side->other, EPOLL_CTL_MOD, EPOLLOUT);
}

static void relay_copying(struct side *side) {
    ssize_t size = recv(side->fd, buffer, sizeof buffer, 0);
    if (size == 0)
        finished(side);
    else if (size < 0 && errno != EAGAIN)
        end(side);
    if (size <= 0)
        return;
    ssize_t sent = send(side->other->fd, buffer, (size_t)size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        end(side);
        return;
    }
    sent = sent < 0 ? 0 : sent;
    if (sent == size)
        return;
    side->rest_size = (size_t)(size - sent);
    side->rest = malloc(side->rest_size);
    if (!side->rest)
        fail("malloc");
    memcpy(side->rest, buffer + sent, side->rest_size);
    wait_for(side);
}

static void relay_splicing(struct side *side) {
    ssize_t size = splice(side->fd, NULL, side->pipe[1], NULL, pipe_size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (size == 0)
        finished(side);
    else if (size < 0 && errno != EAGAIN)
        end(side);
    if (size <= 0)
        return;
    ssize_t sent = splice(side->pipe[0], NULL, side->other->fd, NULL, (size_t)size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (sent < 0 && errno != EAGAIN) {
        end(side);
        return;
    }
    side->rest_size = (size_t)(size - (sent < 0 ? 0 : sent));
    if (side->rest_size)
        wait_for(side);
}

/* `side` takes bytes again; they are those of the other one. */
static void flush(struct side *side) {
    struct side *from = side->other;
    ssize_t sent = splicing ? splice(from->pipe[0], NULL, side->fd, NULL, from->rest_size, SPLICE_F_NONBLOCK)
                            : send(side->fd, from->rest, from->rest_size, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            end(side);
        return;
    }
    from->rest_size -= (size_t)sent;
    if (from->rest_size) {
        if (!splicing)
            memmove(from->rest, from->rest + sent, from->rest_size);
        return;
    }
    free(from->rest);
    from->rest = NULL;
    watch(from, EPOLL_CTL_MOD, EPOLLIN);
    watch(side, EPOLL_CTL_MOD, side->ended || side->rest_size ? 0 : EPOLLIN);
}

static void accept_one(int listener) {
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct side *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    if (!a || !b)
        fail("calloc");
    *a = (struct side){.fd = fd, .other = b};
    *b = (struct side){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .other = a};
    if (b->fd < 0 || connect(b->fd, (struct sockaddr *)&target, sizeof target) < 0)
        fail("connect");
    fcntl(b->fd, F_SETFL, O_NONBLOCK);
    setsockopt(b->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (splicing && (pipe2(a->pipe, O_NONBLOCK | O_CLOEXEC) < 0 || pipe2(b->pipe, O_NONBLOCK | O_CLOEXEC) < 0))
        fail("pipe2");
    if (splicing && (fcntl(a->pipe[1], F_SETPIPE_SZ, pipe_size) < 0 || fcntl(b->pipe[1], F_SETPIPE_SZ, pipe_size) < 0))
        fail("F_SETPIPE_SZ");
    watch(a, EPOLL_CTL_ADD, EPOLLIN);
    watch(b, EPOLL_CTL_ADD, EPOLLIN);
}

static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

static void serve(struct side *side, uint32_t events) {
    if (side->fd < 0)
        return; /* ended by an event of this round */
    if (events & EPOLLOUT)
        flush(side);
    else if (splicing)
        relay_splicing(side);
    else
        relay_copying(side);
}

int main(int argc, char **argv) {
    splicing = argc > 1 && strncmp(argv[1], "--splice", 8) == 0;
    if (splicing && argv[1][8] == '=')
        pipe_size = strtoul(argv[1] + 9, NULL, 10);
    argv += splicing;
    argc -= splicing;
    target = (struct sockaddr_in){.sin_family = AF_INET};
    if (argc != 4 || inet_pton(AF_INET, argv[2], &target.sin_addr) != 1) {
        fprintf(stderr, "usage: bare_relay [--splice[=SIZE]] LISTEN-PORT TARGET-ADDRESS TARGET-PORT\n");
        return 2;
    }
    target.sin_port = htons((uint16_t)atoi(argv[3]));
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct side listener = {.fd = listen_on((uint16_t)atoi(argv[1]))};
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN);
    while (!stopped) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct side *side = events[i].data.ptr;
            if (side == &listener)
                accept_one(listener.fd);
            else
                serve(side, events[i].events);
        }
        bury();
    }
    return 0;
}
