/*
 * The floor: what the kernel takes for an echo when nothing lies between. Level-triggered epoll, one receive
 * and one send per message, accept4 until there is nothing to accept, close at the end. A connection is its
 * descriptor; there is no memory of it but what a peer left unread.
 *
 * TCP_NODELAY: on, set once on the listening socket, from which accepted sockets inherit it.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../lib/listen.h"

enum { EVENTS = 256 };

/* What a descriptor's peer did not take yet; touched only after a short send. */
struct rest {
    char *bytes;
    size_t size;
};

static char buffer[64 * 1024];
static struct rest *rests;
static size_t rest_count;
static int epoll;

static void keep(int fd, const char *bytes, size_t size) {
    if ((size_t)fd >= rest_count) {
        size_t count = (size_t)fd * 2;
        rests = realloc(rests, count * sizeof(*rests));
        if (rests == NULL) {
            fail("realloc");
        }
        memset(rests + rest_count, 0, (count - rest_count) * sizeof(*rests));
        rest_count = count;
    }
    rests[fd].bytes = malloc(size);
    if (rests[fd].bytes == NULL) {
        fail("malloc");
    }
    memcpy(rests[fd].bytes, bytes, size);
    rests[fd].size = size;
}

static void forget(int fd) {
    if ((size_t)fd < rest_count) {
        free(rests[fd].bytes);
        rests[fd] = (struct rest){0};
    }
}

static void watch(int fd, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, operation, fd, &event) < 0) {
        fail("epoll_ctl");
    }
}

static void end(int fd) {
    forget(fd);
    close(fd);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            watch(fd, EPOLL_CTL_ADD, EPOLLIN);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            fail("accept4");
        }
    }
}

static void echo(int fd) {
    ssize_t size = recv(fd, buffer, sizeof(buffer), 0);
    if (size <= 0) {
        if (size == 0 || errno != EAGAIN) {
            end(fd);
        }
        return;
    }
    ssize_t sent = send(fd, buffer, (size_t)size, MSG_NOSIGNAL);
    if (sent == size) {
        return;
    }
    if (sent < 0 && errno != EAGAIN) {
        end(fd);
        return;
    }
    if (sent < 0) {
        sent = 0;
    }
    keep(fd, buffer + sent, (size_t)(size - sent));
    watch(fd, EPOLL_CTL_MOD, EPOLLOUT);
}

static void send_rest(int fd) {
    struct rest *rest = &rests[fd];
    ssize_t sent = send(fd, rest->bytes, rest->size, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) {
            end(fd);
        }
        return;
    }
    rest->size -= (size_t)sent;
    if (rest->size > 0) {
        memmove(rest->bytes, rest->bytes + sent, rest->size);
        return;
    }
    forget(fd);
    watch(fd, EPOLL_CTL_MOD, EPOLLIN);
}

static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

int main(void) {
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        fail("epoll_create1");
    }
    int listener = listen_on(0);
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
    while (!stopped) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) {
            fail("epoll_wait");
        }
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(listener);
            } else if (events[i].events & EPOLLOUT) {
                send_rest(fd);
            } else {
                echo(fd);
            }
        }
    }
    return 0;
}
