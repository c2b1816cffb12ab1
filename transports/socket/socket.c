#include "transports/socket/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>

#include "core/base/invalid.h"

int tram__socket_take(tram_loop *loop, int fd, int type) {
    int present_type = 0;
    socklen_t size = sizeof present_type;
    if (loop->sys->getsockopt(fd, SOL_SOCKET, SO_TYPE, &present_type, &size) < 0)
        return errno == ENOTSOCK ? tram__invalid("sock") : -errno;
    if (present_type != type)
        return tram__invalid("sock");
    struct io *present = tram__io_of_descriptor(loop, fd);
    if (present && !present->kind->yields)
        return TRAM_ESTATE;
    int flags = loop->sys->fcntl(fd, F_GETFL, 0);
    if (flags < 0 || (!(flags & O_NONBLOCK) && loop->sys->fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0))
        return -errno;
    return 0;
}

void tram__socket_forbid_linger(const struct sys *sys, int fd) {
    struct linger linger = {0};
    socklen_t size = sizeof linger;
    if (sys->getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size) < 0 || !linger.l_onoff || !linger.l_linger)
        return;
    linger.l_onoff = 0;
    sys->setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

void tram__socket_close(const struct sys *sys, int fd) {
    tram__socket_forbid_linger(sys, fd);
    sys->close(fd);
}

int tram__socket_check_unix(const struct sys *sys, int fd) {
    int family = 0;
    socklen_t size = sizeof family;
    if (sys->getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0)
        return errno == ENOTSOCK ? tram__invalid("sock") : -errno;
    return family == AF_UNIX ? 0 : tram__invalid("sock");
}

bool tram__family_known(int family) {
    return family == AF_UNSPEC || family == AF_INET || family == AF_INET6;
}

int tram__socket_set_transparent(const struct sys *sys, int fd, int family) {
    int on = 1;
    if (family == AF_INET6)
        return sys->setsockopt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &on, sizeof on);
    return sys->setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on);
}
