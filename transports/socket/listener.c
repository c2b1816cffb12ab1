#include "transports/socket/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>

#include "transports/socket/socket.h"

int tram__address_error(struct kept_error *ret_error, int code, const char *operation,
                        const tram_socket_address *address) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    snprintf(ret_error->detail, sizeof ret_error->detail, "%s %s: %s", operation,
             tram_socket_address_text(address, text, sizeof text), tram_error_text(code));
    ret_error->error = (tram_error){.code = code, .operation = operation, .detail = ret_error->detail};
    return code;
}

static bool set_option(const struct sys *sys, int fd, int level, int name) {
    int on = 1;
    return sys->setsockopt(fd, level, name, &on, sizeof on) == 0;
}

/* A kernel without the family, or without any address of it, is no reason to fail (V-5). */
static bool may_be_skipped(int error, bool binding) {
    if (binding)
        return error == EADDRNOTAVAIL;
    return error == EAFNOSUPPORT || error == EPROTONOSUPPORT || error == ESOCKTNOSUPPORT || error == EPROTOTYPE ||
           error == EINVAL;
}

/* 0; 1: to be skipped, and `ret_error` says why; or a negative code. */
static int open_one(const struct sys *sys, const struct candidate *candidate, const tram_server_options *options,
                    enum port_sharing sharing, int *ret_fd, struct kept_error *ret_error) {
    const tram_socket_address *address = &candidate->address;
    int family = address_family(address);
    int fd = sys->socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, candidate->protocol);
    if (fd < 0) {
        int error = errno;
        tram__address_error(ret_error, -error, "socket", address);
        return may_be_skipped(error, false) ? 1 : -error;
    }
    int code = 0;
    const char *operation = "setsockopt";
    if (!options->no_reuse_address && !set_option(sys, fd, SOL_SOCKET, SO_REUSEADDR))
        code = -errno;
    else if (sharing == PORT_SHARED && !set_option(sys, fd, SOL_SOCKET, SO_REUSEPORT))
        code = TRAM_EVALUE;
    else if (family == AF_INET6 && !set_option(sys, fd, IPPROTO_IPV6, IPV6_V6ONLY))
        code = -errno;
    else if (options->transparent && tram__socket_set_transparent(sys, fd, family) < 0)
        code = -errno;
    else if (operation = "bind", sys->bind(fd, (const struct sockaddr *)&address->address, address->size) < 0)
        code = -errno;
    else if (sharing == PORT_SHARED_LATER && !set_option(sys, fd, SOL_SOCKET, SO_REUSEPORT))
        code = TRAM_EVALUE;
    *ret_fd = fd;
    if (!code)
        return 0;
    sys->close(fd);
    tram__address_error(ret_error, code, operation, address);
    return may_be_skipped(-code, true) ? 1 : code;
}

int tram__listeners_open(const struct sys *sys, const struct address_list *list, const tram_server_options *options,
                         enum port_sharing sharing, int *fds, size_t *ret_count, struct kept_error *ret_error) {
    size_t count = 0;
    int status = 0;
    for (size_t i = 0; i < list->count && status >= 0; i++) {
        status = open_one(sys, &list->items[i], options, sharing, &fds[count], ret_error);
        count += status == 0;
    }
    if (status < 0)
        while (count)
            sys->close(fds[--count]);
    for (size_t i = count; i < list->count; i++)
        fds[i] = -1;
    *ret_count = count;
    if (status >= 0 && !count)
        status = ret_error->error.code; /* why the last one was skipped */
    return status < 0 ? status : 0;
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
