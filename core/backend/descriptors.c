#include "core/backend/descriptors.h"

#include <errno.h>
#include <string.h>

#include "core/loop/types.h"

/* Room for one control message, of descriptors. */
union control {
    struct cmsghdr header; /* for its alignment */
    char bytes[CMSG_SPACE(sizeof(int) * TRAM_DESCRIPTORS_MAX)];
};

ssize_t tram__descriptors_send(struct io *io, const struct iovec *pieces, size_t count, const int *fds,
                               size_t fd_count) {
    union control control;
    memset(&control, 0, CMSG_SPACE(sizeof *fds * fd_count));
    control.header = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof *fds * fd_count)};
    memcpy(CMSG_DATA(&control.header), fds, sizeof *fds * fd_count);
    struct msghdr message = {
        .msg_iov = (struct iovec *)(uintptr_t)pieces,
        .msg_iovlen = count,
        .msg_control = &control,
        .msg_controllen = CMSG_SPACE(sizeof *fds * fd_count),
    };
    ssize_t sent;
    do
        sent = io->loop->sys->sendmsg(io->fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0 ? sent : -errno;
}

static void find(struct msghdr *message, struct descriptors *ret_came) {
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t size = header->cmsg_len - CMSG_LEN(0);
        memcpy(ret_came->fds + ret_came->count, CMSG_DATA(header), size);
        ret_came->count += size / sizeof *ret_came->fds;
    }
}

ssize_t tram__descriptors_receive(struct io *io, void *memory, size_t size, struct descriptors *ret_came) {
    size_t room = io->kind->descriptors->room(io);
    union control control;
    struct iovec piece = {.iov_base = memory, .iov_len = size};
    struct msghdr message;
    ssize_t received;
    do {
        /* Without the padding at its end, where the kernel would find room for one more. */
        message = (struct msghdr){.msg_iov = &piece,
                                  .msg_iovlen = 1,
                                  .msg_control = room ? &control : NULL,
                                  .msg_controllen = room ? CMSG_LEN(sizeof(int) * room) : 0};
        received = io->loop->sys->recvmsg(io->fd, &message, MSG_CMSG_CLOEXEC);
    } while (received < 0 && errno == EINTR);
    ret_came->count = 0;
    ret_came->cut = room && received >= 0 && message.msg_flags & MSG_CTRUNC;
    if (received < 0)
        return -errno;
    find(&message, ret_came);
    return received;
}
