#include "faults.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>

struct faults faults;

static bool fails(struct fault *fault) {
    fault->calls++;
    if (fault->skip) {
        fault->skip--;
        return false;
    }
    if (!fault->fail)
        return false;
    if (fault->fail != FAULT_ALWAYS)
        fault->fail--;
    errno = fault->error;
    return true;
}

void fail_next(struct fault *fault, int error, unsigned times) {
    fault->skip = 0;
    fault->fail = times;
    fault->error = error;
}

static ssize_t faulty_sendmsg(int fd, const struct msghdr *message, int flags) {
    if (fails(&faults.send))
        return -1;
    if (message->msg_iovlen > faults.pieces_at_most)
        faults.pieces_at_most = message->msg_iovlen;
    size_t room = faults.send_budget < faults.send_at_most ? faults.send_budget : faults.send_at_most;
    if (room == 0) {
        errno = EAGAIN;
        return -1;
    }
    struct iovec pieces[IOV_MAX];
    size_t count = 0;
    for (; count < message->msg_iovlen && count < IOV_MAX && room; count++) {
        pieces[count] = message->msg_iov[count];
        if (pieces[count].iov_len > room)
            pieces[count].iov_len = room;
        room -= pieces[count].iov_len;
    }
    if (message->msg_iovlen > IOV_MAX) {
        errno = EMSGSIZE;
        return -1;
    }
    struct msghdr cut = *message;
    cut.msg_iov = pieces;
    cut.msg_iovlen = count;
    ssize_t sent = tram__sys.sendmsg(fd, &cut, flags);
    if (sent > 0 && faults.send_budget != SIZE_MAX)
        faults.send_budget -= (size_t)sent;
    return sent;
}

static ssize_t faulty_send(int fd, const void *data, size_t size, int flags) {
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    return faulty_sendmsg(fd, &message, flags);
}

static ssize_t faulty_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to,
                             socklen_t to_size) {
    if (fails(&faults.send))
        return -1;
    if (!faults.datagram_budget) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t sent = tram__sys.sendto(fd, data, size, flags, to, to_size);
    if (sent >= 0) {
        faults.messages++;
        faults.datagram_budget -= faults.datagram_budget != SIZE_MAX;
    }
    return sent;
}

/* How many go before the first that is joined, where such fail. */
static unsigned before_joined(const struct mmsghdr *messages, unsigned count) {
    unsigned i = 0;
    while (i < count && messages[i].msg_hdr.msg_iovlen < 2)
        i++;
    return i;
}

static int faulty_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    if (fails(&faults.send))
        return -1;
    if (faults.join_error && before_joined(messages, count) < count)
        count = before_joined(messages, count);
    if (!count) {
        errno = faults.join_error;
        return -1;
    }
    if (count > faults.datagram_budget)
        count = (unsigned)faults.datagram_budget;
    if (!count) {
        errno = EAGAIN;
        return -1;
    }
    int sent = tram__sys.sendmmsg(fd, messages, count, flags);
    for (int i = 0; i < sent; i++) {
        faults.messages++;
        faults.joined += messages[i].msg_hdr.msg_iovlen > 1;
        faults.datagram_budget -= faults.datagram_budget != SIZE_MAX;
    }
    return sent;
}

static int faulty_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    return fails(&faults.recv) ? -1 : tram__sys.recvmmsg(fd, messages, count, flags, timeout);
}

static int faulty_getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
    if (faults.cannot_join && level == SOL_UDP) {
        errno = ENOPROTOOPT;
        return -1;
    }
    return tram__sys.getsockopt(fd, level, name, value, size);
}

static ssize_t faulty_recv(int fd, void *data, size_t size, int flags) {
    if (fails(&faults.recv))
        return -1;
    return tram__sys.recv(fd, data, size < faults.recv_at_most ? size : faults.recv_at_most, flags);
}

static ssize_t faulty_recvmsg(int fd, struct msghdr *message, int flags) {
    return fails(&faults.recv) ? -1 : tram__sys.recvmsg(fd, message, flags);
}

static ssize_t faulty_recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address,
                               socklen_t *address_size) {
    return fails(&faults.recvfrom) ? -1 : tram__sys.recvfrom(fd, data, size, flags, address, address_size);
}

static ssize_t faulty_sendfile(int fd, int file, off_t *offset, size_t size) {
    if (fails(&faults.sendfile))
        return -1;
    if (size > faults.sendfile_most)
        faults.sendfile_most = size;
    return tram__sys.sendfile(fd, file, offset, size < faults.sendfile_at_most ? size : faults.sendfile_at_most);
}

static int faulty_shutdown(int fd, int how) {
    return fails(&faults.shutdown) ? -1 : tram__sys.shutdown(fd, how);
}

static int faulty_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    if (operation != EPOLL_CTL_DEL && event->events & EPOLLOUT) {
        if (fails(&faults.arm_write))
            return -1;
    } else if (operation != EPOLL_CTL_DEL && event->events & EPOLLIN) {
        if (fails(&faults.arm_read))
            return -1;
    }
    return tram__sys.epoll_ctl(epoll, operation, fd, event);
}

static int faulty_getsockname(int fd, struct sockaddr *address, socklen_t *size) {
    return fails(&faults.getsockname) ? -1 : tram__sys.getsockname(fd, address, size);
}

static int faulty_setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    return fails(&faults.setsockopt) ? -1 : tram__sys.setsockopt(fd, level, name, value, size);
}

const struct sys *faults_sys(void) {
    static struct sys table;
    table = tram__sys;
    table.send = faulty_send;
    table.sendmsg = faulty_sendmsg;
    table.sendto = faulty_sendto;
    table.sendmmsg = faulty_sendmmsg;
    table.recvmmsg = faulty_recvmmsg;
    table.getsockopt = faulty_getsockopt;
    table.recv = faulty_recv;
    table.recvmsg = faulty_recvmsg;
    table.recvfrom = faulty_recvfrom;
    table.sendfile = faulty_sendfile;
    table.shutdown = faulty_shutdown;
    table.epoll_ctl = faulty_epoll_ctl;
    table.getsockname = faulty_getsockname;
    table.setsockopt = faulty_setsockopt;
    faults = (struct faults){.send_budget = SIZE_MAX,
                             .send_at_most = SIZE_MAX,
                             .recv_at_most = SIZE_MAX,
                             .datagram_budget = SIZE_MAX,
                             .sendfile_at_most = SIZE_MAX};
    return &table;
}
