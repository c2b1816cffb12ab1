#include "transports/datagram/open.h"

#include <errno.h>
#include <string.h>

#include "core/base/invalid.h"
#include "transports/socket/socket.h"

/* ---- Options ---- */

static bool has_path(const tram_datagram_options *options) {
    return options->local_path || options->remote_path;
}

static bool has_host(const tram_datagram_options *options) {
    return options->local_host || options->local_port || options->remote_host || options->remote_port;
}

const char *tram__datagram_wrong_option(const tram_datagram_options *options) {
    if (reserved_used(options))
        return "reserved";
    if (options->sock) {
        bool more = has_path(options) || has_host(options) || options->family || options->protocol || options->flags ||
                    options->reuse_port || options->allow_broadcast;
        return more ? "sock" : NULL;
    }
    if (options->not_ours)
        return "not_ours";
    if (options->family != AF_UNIX && !tram__family_known(options->family))
        return "family";
    if (has_path(options) && has_host(options))
        return options->local_path ? "local_path" : "remote_path";
    if (has_path(options))
        return options->family && options->family != AF_UNIX ? "family" : NULL;
    if (has_host(options))
        return options->family == AF_UNIX ? "family" : NULL;
    return options->family ? NULL : "family";
}

int tram__datagram_add_path(struct address_list *list, const char *name, const char *path, size_t size, int protocol) {
    tram_socket_address address;
    if (!path)
        return 0;
    int status = tram_socket_address_unix(path, size ? size : strlen(path), &address);
    if (status)
        return tram__invalid(name);
    return tram__addresses_add(list, &address, protocol);
}

/* ---- One pair ---- */

struct pair {
    int family;
    int protocol;
    const tram_socket_address *local; /* NULL: none */
    const tram_socket_address *remote;
};

static bool set_option(const struct sys *sys, int fd, int name) {
    int on = 1;
    return sys->setsockopt(fd, SOL_SOCKET, name, &on, sizeof on) == 0;
}

static int bind_local(const struct sys *sys, int fd, const struct datagram_plan *plan, const tram_socket_address *local,
                      struct kept_error *ret_error) {
    if (!local)
        return 0;
    if (sys->bind(fd, (const struct sockaddr *)&local->address, local->size) < 0)
        return tram__address_error(ret_error, -errno, "bind", local);
    if (plan->sharing == PORT_SHARED_LATER && !set_option(sys, fd, SO_REUSEPORT))
        return tram__address_error(ret_error, TRAM_EVALUE, "setsockopt", local);
    return 0;
}

static int make_ready(const struct sys *sys, int fd, const struct datagram_plan *plan, const struct pair *pair,
                      struct kept_error *ret_error) {
    const tram_socket_address *any = pair->local ? pair->local : pair->remote;
    if (plan->sharing == PORT_SHARED && !set_option(sys, fd, SO_REUSEPORT))
        return tram__address_error(ret_error, TRAM_EVALUE, "setsockopt", any);
    if (plan->allow_broadcast && !set_option(sys, fd, SO_BROADCAST))
        return tram__address_error(ret_error, -errno, "setsockopt", any);
    int status = bind_local(sys, fd, plan, pair->local, ret_error);
    const tram_socket_address *remote = pair->remote;
    if (status || !remote || plan->allow_broadcast)
        return status;
    if (sys->connect(fd, (const struct sockaddr *)&remote->address, remote->size) < 0)
        return tram__address_error(ret_error, -errno, "connect", remote);
    return 0;
}

static int open_pair(const struct sys *sys, const struct datagram_plan *plan, const struct pair *pair,
                     struct kept_error *ret_error) {
    int fd = sys->socket(pair->family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, pair->protocol);
    if (fd < 0)
        return tram__address_error(ret_error, -errno, "socket", pair->local ? pair->local : pair->remote);
    int status = make_ready(sys, fd, plan, pair, ret_error);
    if (!status)
        return fd;
    sys->close(fd);
    return status;
}

/* ---- All pairs ---- */

static bool same_kind(const struct candidate *a, const struct candidate *b) {
    return address_family(&a->address) == address_family(&b->address) && a->protocol == b->protocol;
}

/* The last one of the family and protocol of `like`, which CPython uses, too; NULL: none. */
static const tram_socket_address *find(const struct address_list *list, const struct candidate *like) {
    const tram_socket_address *found = NULL;
    for (size_t i = 0; list && i < list->count; i++)
        if (same_kind(&list->items[i], like))
            found = &list->items[i].address;
    return found;
}

/* The first `count` of the list have none of its family and protocol. */
static bool is_new(const struct address_list *list, size_t count, const struct candidate *candidate) {
    for (size_t i = 0; i < count; i++)
        if (same_kind(&list->items[i], candidate))
            return false;
    return true;
}

int tram__datagram_open(const struct sys *sys, const struct datagram_plan *plan, tram_socket_address *ret_remote,
                        struct kept_error *ret_error) {
    /* A pair must be in both lists: going through one of them finds all. */
    const struct address_list *list = plan->local ? plan->local : plan->remote;
    int status = TRAM_EVALUE;
    ret_remote->size = 0;
    if (!list) {
        struct pair pair = {.family = plan->family, .protocol = plan->protocol};
        return open_pair(sys, plan, &pair, ret_error);
    }
    ret_error->error = (tram_error){.code = TRAM_EVALUE,
                                    .operation = "create_datagram_endpoint",
                                    .detail = "the local and the remote address have no family in common"};
    struct kept_error failure, *place = ret_error;
    for (size_t i = 0; i < list->count; i++) {
        const struct candidate *candidate = &list->items[i];
        struct pair pair = {
            .family = address_family(&candidate->address),
            .protocol = candidate->protocol,
            .local = find(plan->local, candidate),
            .remote = find(plan->remote, candidate),
        };
        if (!is_new(list, i, candidate) || (plan->local && !pair.local) || (plan->remote && !pair.remote))
            continue;
        int fd = open_pair(sys, plan, &pair, place);
        if (fd >= 0 && pair.remote)
            *ret_remote = *pair.remote;
        if (fd >= 0)
            return fd;
        if (place == ret_error)
            status = fd;
        place = &failure; /* the first one is told */
    }
    return status;
}
