#include "core/backend/error_queue.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <string.h>

#include "core/loop/types.h"

/* A queue of this many small ones is longer than default buffers let it become; the rest is reported again. */
#define TAKE_AT_MOST 1024

/* Other families have no such queue, and might give what is there to be received. */
static bool has_queue(const struct io *io) {
    int family = AF_UNSPEC;
    socklen_t size = sizeof family;
    if (io->flags & IO_NO_SOCKET || io->loop->sys->getsockopt(io->fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0)
        return false;
    return family == AF_INET || family == AF_INET6;
}

static bool is_error(const struct cmsghdr *control) {
    return (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_RECVERR) ||
           (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_RECVERR);
}

/* Is it one that a receive or send tells, too? */
static bool is_network_error(struct msghdr *message) {
    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
        struct sock_extended_err error;
        if (!is_error(control) || control->cmsg_len < CMSG_LEN(sizeof error))
            continue;
        memcpy(&error, CMSG_DATA(control), sizeof error);
        return error.ee_origin == SO_EE_ORIGIN_ICMP || error.ee_origin == SO_EE_ORIGIN_ICMP6;
    }
    return false;
}

bool tram__error_queue_take(struct io *io) {
    if (!has_queue(io))
        return false;
    bool taken = false;
    for (int i = 0; i < TAKE_AT_MOST; i++) {
        union {
            struct cmsghdr header; /* for its alignment */
            char bytes[512];
        } control;
        struct msghdr message = {.msg_control = &control, .msg_controllen = sizeof control};
        if (io->loop->sys->recvmsg(io->fd, &message, MSG_ERRQUEUE) < 0)
            break;
        taken = true;
        if (is_network_error(&message))
            break;
    }
    return taken;
}
