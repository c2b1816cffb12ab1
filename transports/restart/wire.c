#include "transports/restart/wire.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const uint64_t magic = 0x31686e496d617274; /* "tramInh1" where the lowest byte comes first */

int tram__inherit_send(const struct sys *sys, int link, enum inherit_kind kind, int value, const char *name,
                       const int *fds, size_t count) {
    struct inherit_message message = {.magic = magic, .kind = kind, .value = value};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(TRAM_INHERIT_BATCH * sizeof(int))];
    } control = {0};
    struct iovec piece = {.iov_base = &message, .iov_len = sizeof message};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1};
    if (name)
        memcpy(message.name, name, strnlen(name, sizeof message.name - 1));
    if (count) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(count * sizeof *fds);
        control.header = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(count * sizeof *fds), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), fds, count * sizeof *fds);
    }
    return sys->sendmsg(link, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

bool tram__inherit_good(const struct inherit_message *message, size_t size) {
    return size == sizeof *message && message->magic == magic && message->kind >= INHERIT_HELLO &&
           message->kind <= INHERIT_REFUSED && memchr(message->name, 0, sizeof message->name);
}

int tram__inherit_check_peer(const struct sys *sys, int link) {
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof peer;
    if (sys->getsockopt(link, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return -errno;
    return peer.uid == geteuid() || peer.uid == 0 ? 0 : -EPERM;
}
