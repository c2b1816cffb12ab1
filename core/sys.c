#include "core/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <unistd.h>

/* glibc's prototypes use transparent unions and variadic arguments; these give them plain types. */
static int plain_bind(int fd, const struct sockaddr *address, socklen_t size) {
    return bind(fd, address, size);
}

static int plain_connect(int fd, const struct sockaddr *address, socklen_t size) {
    return connect(fd, address, size);
}

static int plain_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    return accept4(fd, address, size, flags);
}

static ssize_t plain_recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address,
                              socklen_t *address_size) {
    return recvfrom(fd, data, size, flags, address, address_size);
}

static ssize_t plain_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                            socklen_t address_size) {
    return sendto(fd, data, size, flags, address, address_size);
}

/*
 * sendfile(2) has no MSG_NOSIGNAL: SIGPIPE is held off meanwhile, and taken away if it came (W-12). It may come of a
 * call that sent less than it was to.
 */
static ssize_t quiet_sendfile(int fd, int file, off_t *offset, size_t size) {
    sigset_t pipe, before, pending;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &before);
    bool blocked = sigismember(&before, SIGPIPE);
    bool pends = blocked && sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE);
    ssize_t sent = sendfile(fd, file, offset, size);
    int error = errno;
    if (!pends && (sent < 0 ? error == EPIPE : (size_t)sent < size)) {
        struct timespec now = {0};
        while (sigtimedwait(&pipe, NULL, &now) < 0 && errno == EINTR)
            ;
    }
    if (!blocked)
        pthread_sigmask(SIG_UNBLOCK, &pipe, NULL);
    errno = error;
    return sent;
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
    .recvfrom = plain_recvfrom,
    .send = send,
    .sendto = plain_sendto,
    .sendfile = quiet_sendfile,
    .sendmsg = sendmsg,
    .shutdown = shutdown,
    .getsockopt = getsockopt,
    .setsockopt = setsockopt,
    .getsockname = plain_getsockname,
    .getpeername = plain_getpeername,
    .fcntl = plain_fcntl,
    .close = close,
    .read = read,
    .lseek = lseek,
    .fstat = fstat,
    .write = write,
    .writev = writev,
    .epoll_create1 = epoll_create1,
    .epoll_ctl = epoll_ctl,
    .epoll_wait = epoll_wait,
    .epoll_pwait2 = plain_epoll_pwait2,
    .eventfd = eventfd,
    .clock_gettime = clock_gettime,
};
