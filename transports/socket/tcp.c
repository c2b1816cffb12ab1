#include "transports/socket/tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "core/base/invalid.h"

#define NS_PER_SECOND UINT64_C(1000000000)
#define NS_PER_MS     UINT64_C(1000000)

/* The kernel's. */
#define SECONDS_MAX   32767u
#define PROBES_MAX    127u
#define CLASS_MAX     255u
#define FAST_OPEN_MAX 65535u

static uint64_t rounded_up(uint64_t ns, uint64_t unit) {
    return ns / unit + (ns % unit != 0);
}

const char *tram__tcp_wrong_option(const tram_tcp_options *options, bool is_server) {
    if (rounded_up(options->keep_alive_idle_ns, NS_PER_SECOND) > SECONDS_MAX)
        return "keep_alive_idle_ns";
    if (rounded_up(options->keep_alive_interval_ns, NS_PER_SECOND) > SECONDS_MAX)
        return "keep_alive_interval_ns";
    if (options->keep_alive_probes > PROBES_MAX)
        return "keep_alive_probes";
    if (options->traffic_class > CLASS_MAX)
        return "traffic_class";
    if (rounded_up(options->user_timeout_ns, NS_PER_MS) > INT32_MAX)
        return "user_timeout_ns";
    if (options->fast_open > (is_server ? FAST_OPEN_MAX : 0))
        return "fast_open";
    return reserved_used(options) ? "tcp.reserved" : NULL;
}

/* 0: the system's value stays. */
static int set(const struct sys *sys, int fd, int level, int name, uint64_t value) {
    int number = (int)value;
    return number && sys->setsockopt(fd, level, name, &number, sizeof number) < 0 ? -errno : 0;
}

static int set_class(const struct sys *sys, int fd, unsigned class) {
    int family = 0;
    socklen_t size = sizeof family;
    if (!class)
        return 0;
    if (sys->getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0)
        return -errno;
    return family == AF_INET6 ? set(sys, fd, IPPROTO_IPV6, IPV6_TCLASS, class)
                              : set(sys, fd, IPPROTO_IP, IP_TOS, class);
}

int tram__tcp_set(const struct sys *sys, int fd, const tram_tcp_options *options) {
    uint64_t idle = rounded_up(options->keep_alive_idle_ns, NS_PER_SECOND);
    uint64_t interval = rounded_up(options->keep_alive_interval_ns, NS_PER_SECOND);
    int status = set(sys, fd, SOL_SOCKET, SO_KEEPALIVE, idle || interval || options->keep_alive_probes);
    if (!status)
        status = set(sys, fd, IPPROTO_TCP, TCP_KEEPIDLE, idle);
    if (!status)
        status = set(sys, fd, IPPROTO_TCP, TCP_KEEPINTVL, interval);
    if (!status)
        status = set(sys, fd, IPPROTO_TCP, TCP_KEEPCNT, options->keep_alive_probes);
    if (!status)
        status = set(sys, fd, IPPROTO_TCP, TCP_USER_TIMEOUT, rounded_up(options->user_timeout_ns, NS_PER_MS));
    if (!status)
        status = set(sys, fd, IPPROTO_TCP, TCP_FASTOPEN, options->fast_open);
    return status ? status : set_class(sys, fd, options->traffic_class);
}
