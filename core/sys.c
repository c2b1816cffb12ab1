#include "core/sys.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* glibc's prototypes use transparent unions and variadic arguments; these give them plain types. */
static int plain_bind(int fd, const struct sockaddr *address, socklen_t size) {
    return bind(fd, address, size);
}

static int plain_connect(int fd, const struct sockaddr *address, socklen_t size) {
    return connect(fd, address, size);
}

static ssize_t plain_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                            socklen_t address_size) {
    return sendto(fd, data, size, flags, address, address_size);
}

static int plain_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    return recvmmsg(fd, messages, count, flags, timeout);
}

static int plain_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    return accept4(fd, address, size, flags);
}

static int plain_getsockname(int fd, struct sockaddr *address, socklen_t *size) {
    return getsockname(fd, address, size);
}

static int plain_getpeername(int fd, struct sockaddr *address, socklen_t *size) {
    return getpeername(fd, address, size);
}

static int plain_fcntl(int fd, int command, int value) {
    return fcntl(fd, command, value);
}

static int plain_epoll_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *timeout) {
    return epoll_pwait2(epoll, events, count, timeout, NULL);
}

const struct sys tram__sys = {
    .socket = socket,
    .bind = plain_bind,
    .listen = listen,
    .connect = plain_connect,
    .accept4 = plain_accept4,
    .recv = recv,
    .send = send,
    .sendto = plain_sendto,
    .sendmsg = sendmsg,
    .recvmmsg = plain_recvmmsg,
    .sendmmsg = sendmmsg,
    .shutdown = shutdown,
    .getsockopt = getsockopt,
    .setsockopt = setsockopt,
    .getsockname = plain_getsockname,
    .getpeername = plain_getpeername,
    .fcntl = plain_fcntl,
    .close = close,
    .stat = stat,
    .unlink = unlink,
    .read = read,
    .write = write,
    .writev = writev,
    .epoll_create1 = epoll_create1,
    .epoll_ctl = epoll_ctl,
    .epoll_wait = epoll_wait,
    .epoll_pwait2 = plain_epoll_pwait2,
    .eventfd = eventfd,
    .clock_gettime = clock_gettime,
};
