#include "transports/socket/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>

#include "core/base/invalid.h"
#include "transports/socket/socket.h"
#include "transports/socket/tcp.h"

#define PORT_TRIES 32 /* of same_port */

int tram__address_error(struct kept_error *ret_error, int code, const char *operation,
                        const tram_socket_address *address) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    snprintf(ret_error->detail, sizeof ret_error->detail, "%s %s: %s", operation,
             tram_socket_address_text(address, text, sizeof text), tram_error_text(code));
    ret_error->error = (tram_error){.code = code, .operation = operation, .detail = ret_error->detail};
    return code;
}

static bool set_value(const struct sys *sys, int fd, int level, int name, int value) {
    return sys->setsockopt(fd, level, name, &value, sizeof value) == 0;
}

static bool set_option(const struct sys *sys, int fd, int level, int name) {
    return set_value(sys, fd, level, name, 1);
}

/* A socket of IPv6 stays with it (V-4), unless it is bound to an address of IPv4. */
static bool set_family(const struct sys *sys, int fd, const tram_socket_address *address) {
    if (address_family(address) != AF_INET6)
        return true;
    return set_value(sys, fd, IPPROTO_IPV6, IPV6_V6ONLY, !tram__address_mapped(address));
}

/* A kernel without the family, or without any address of it, is no reason to fail (V-5). */
static bool may_be_skipped(int error, bool binding) {
    if (binding)
        return error == EADDRNOTAVAIL;
    return error == EAFNOSUPPORT || error == EPROTONOSUPPORT || error == ESOCKTNOSUPPORT || error == EPROTOTYPE ||
           error == EINVAL;
}

static int set_options(const struct sys *sys, int fd, const tram_socket_address *address,
                       const tram_server_options *options, enum port_sharing sharing) {
    if (!options->no_reuse_address && !set_option(sys, fd, SOL_SOCKET, SO_REUSEADDR))
        return -errno;
    if (sharing == PORT_SHARED && !set_option(sys, fd, SOL_SOCKET, SO_REUSEPORT))
        return tram__invalid("reuse_port");
    if (!set_family(sys, fd, address))
        return -errno;
    if (options->transparent && tram__socket_set_transparent(sys, fd, address_family(address)) < 0)
        return -errno;
    return tram__tcp_set(sys, fd, &options->tcp);
}

/* 0; 1: to be skipped, and `ret_error` says why; or a negative code. */
static int open_one(const struct sys *sys, const struct candidate *candidate, const tram_server_options *options,
                    enum port_sharing sharing, int *ret_fd, struct kept_error *ret_error) {
    const tram_socket_address *address = &candidate->address;
    int fd = sys->socket(address_family(address), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, candidate->protocol);
    if (fd < 0) {
        int error = errno;
        tram__address_error(ret_error, -error, "socket", address);
        return may_be_skipped(error, false) ? 1 : -error;
    }
    int code = set_options(sys, fd, address, options, sharing);
    const char *operation = code ? "setsockopt" : "bind";
    if (!code && sys->bind(fd, (const struct sockaddr *)&address->address, address->size) < 0)
        code = -errno;
    else if (!code && sharing == PORT_SHARED_LATER && !set_option(sys, fd, SOL_SOCKET, SO_REUSEPORT))
        code = tram__invalid("reuse_port");
    *ret_fd = fd;
    if (!code)
        return 0;
    sys->close(fd);
    tram__address_error(ret_error, code, operation, address);
    return may_be_skipped(-code, true) ? 1 : code;
}

/* In network order; 0: the kernel chooses, or the family has none. */
static in_port_t *port_of(tram_socket_address *address) {
    static in_port_t none;
    struct sockaddr *any = (struct sockaddr *)&address->address;
    if (any->sa_family == AF_INET)
        return &((struct sockaddr_in *)(void *)any)->sin_port;
    return any->sa_family == AF_INET6 ? &((struct sockaddr_in6 *)(void *)any)->sin6_port : &none;
}

static in_port_t bound_port(const struct sys *sys, int fd) {
    tram_socket_address address = {.size = sizeof address.address};
    return sys->getsockname(fd, (struct sockaddr *)&address.address, &address.size) < 0 ? 0 : *port_of(&address);
}

/*
 * All of the list; `common` is what the first has to share with those that say 0. As open_one(), with all closed again
 * on failure.
 */
static int open_all(const struct sys *sys, const struct address_list *list, const tram_server_options *options,
                    enum port_sharing sharing, int *fds, size_t *ret_count, struct kept_error *ret_error,
                    in_port_t *ret_common) {
    size_t count = 0;
    int status = 0;
    *ret_common = 0;
    for (size_t i = 0; i < list->count && status >= 0; i++) {
        struct candidate candidate = list->items[i];
        bool chosen = *port_of(&candidate.address) == 0;
        if (chosen)
            *port_of(&candidate.address) = *ret_common;
        status = open_one(sys, &candidate, options, sharing, &fds[count], ret_error);
        if (status == 0 && options->same_port && chosen && !*ret_common)
            *ret_common = bound_port(sys, fds[count]);
        count += status == 0;
    }
    if (status < 0)
        while (count)
            sys->close(fds[--count]);
    *ret_count = count;
    return status;
}

int tram__listeners_open(const struct sys *sys, const struct address_list *list, const tram_server_options *options,
                         enum port_sharing sharing, int *fds, size_t *ret_count, struct kept_error *ret_error) {
    size_t count = 0;
    in_port_t common;
    int status = -EADDRINUSE;
    /* A port that one address had free may be taken at another. */
    for (int tries = 0; tries < PORT_TRIES && status == -EADDRINUSE; tries++) {
        status = open_all(sys, list, options, sharing, fds, &count, ret_error, &common);
        if (!common)
            break;
    }
    for (size_t i = count; i < list->count; i++)
        fds[i] = -1;
    *ret_count = count;
    if (status >= 0 && !count)
        status = ret_error->error.code; /* why the last one was skipped */
    return MIN(status, 0);
}

int tram__listener_listen(const struct sys *sys, int fd, int backlog, struct kept_error *ret_error) {
    if (sys->listen(fd, backlog) == 0)
        return 0;
    int code = -errno;
    tram_socket_address address = {.size = sizeof address.address};
    if (sys->getsockname(fd, (struct sockaddr *)&address.address, &address.size) < 0)
        address.size = 0;
    return tram__address_error(ret_error, code, "listen", &address);
}
