/* Unix stream sockets of one loop: loop.create_unix_server and loop.create_unix_connection. */
#include "transports/server/unix.h"

#include <errno.h>
#include <limits.h>

#include "core/base/invalid.h"
#include "transports/connect/connector.h"
#include "transports/connect/retry.h"
#include "transports/limits/limits.h"
#include "transports/proxy/header_layer.h"
#include "transports/server/create.h"
#include "transports/socket/socket.h"

/* A Unix stream socket that may become ours. */
static int take_socket(tram_loop *loop, int fd) {
    int status = tram__socket_check_unix(loop->sys, fd);
    return status ? status : tram__socket_take(loop, fd, SOCK_STREAM);
}

/* Either a path, which becomes an address, or a socket (U-4, C-15). */
static int path_or_socket(tram_loop *loop, const void *path, size_t size, const int *sock,
                          tram_socket_address *ret_address) {
    if (!path == !sock)
        return tram__invalid("path");
    return sock ? take_socket(loop, *sock) : tram_socket_address_unix(path, size, ret_address);
}

/* ---- Servers ---- */

int tram__unix_server_check(const tram_unix_server_options *options, tram_server_options *ret_common) {
    if (options->backlog < 0 || options->backlog == INT_MAX)
        return tram__invalid("backlog");
    if (options->not_ours && !options->sock)
        return tram__invalid("not_ours");
    if (reserved_used(options))
        return tram__invalid("reserved");
    int status = tram__limits_check(options->limits);
    if (status)
        return status;
    const char *by_source = tram__limits_by_source(options->limits);
    if (by_source)
        return tram__invalid(by_source);
    *ret_common = (tram_server_options){
        .backlog = options->backlog,
        .defer_serving = options->defer_serving,
        .limits = options->limits,
        .discard = options->discard,
        .tls = options->tls,
        .tls_handshake_timeout_ns = options->tls_handshake_timeout_ns,
        .tls_shutdown_timeout_ns = options->tls_shutdown_timeout_ns,
        .proxy_protocol = options->proxy_protocol,
        .proxy_timeout_ns = options->proxy_timeout_ns,
        .proxy_trusts = options->proxy_trusts,
    };
    return check_option(tram__server_wrong_layers(ret_common));
}

int tram__unix_bind(const struct sys *sys, const tram_socket_address *address, int *ret_fd,
                    struct kept_error *ret_error) {
    int fd = sys->socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return tram__address_error(ret_error, -errno, "socket", address);
    if (sys->bind(fd, (const struct sockaddr *)&address->address, address->size) < 0) {
        int code = -errno;
        sys->close(fd);
        return tram__address_error(ret_error, code, "bind", address);
    }
    *ret_fd = fd;
    return 0;
}

/* Goes on with a bound socket. The server removes the file when it closes, unless it is to stay. */
static void use_socket(struct creation *creation, int fd, bool keep_file) {
    tram_server *server = creation->op.server;
    tram_loop *loop = server->loop;
    const struct sys *sys = loop->sys;
    struct socket_file file = {0};
    tram_socket_address address = {.size = sizeof address.address};
    if (!keep_file && sys->getsockname(fd, (struct sockaddr *)&address.address, &address.size) == 0)
        file = tram__socket_file_at(sys, &address);
    server->holds++; /* the creation may end it */
    tram__creation_use_sockets(creation, &fd, 1);
    if (server->listeners)
        server->listeners->items[0].file = file;
    else
        tram__socket_file_remove(loop, &address, &file);
    tram__server_put(server);
}

static void open_path(struct creation *creation, const tram_socket_address *address, bool keep_file) {
    tram_loop *loop = creation->op.server->loop;
    struct kept_error error;
    int fd;
    tram__socket_file_remove_stale(loop, address);
    if (tram__unix_bind(loop->sys, address, &fd, &error) < 0)
        tram__creation_fail(creation, &error.error);
    else
        use_socket(creation, fd, keep_file);
}

int tram_loop_create_unix_server(tram_loop *loop, tram_protocol_factory factory, void *arg, const void *path,
                                 size_t path_size, const tram_unix_server_options *options, tram_future **ret_future) {
    static const tram_unix_server_options defaults;
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    tram_server_options common;
    tram_socket_address address;
    status = factory ? tram__unix_server_check(options, &common) : tram__invalid("factory");
    if (!status)
        status = path_or_socket(loop, path, path_size, options->sock, &address);
    struct creation *creation;
    if (!status)
        status = tram__creation_new(loop, factory, arg, &common, ret_future, &creation);
    if (status)
        return status;
    creation->op.server->discard = options->discard;
    creation->op.server->not_ours = options->not_ours;
    if (options->sock)
        use_socket(creation, *options->sock, options->keep_socket_file || options->not_ours);
    else
        open_path(creation, &address, options->keep_socket_file);
    return 0;
}

/* ---- Connections ---- */

/* There is no host whose name it could be (C-15). */
static struct tls_wishes tls_wishes_of(const tram_unix_connection_options *options) {
    return (struct tls_wishes){
        .config = options->tls,
        .server_hostname = options->server_hostname,
        .session = options->tls_session,
        .handshake_timeout_ns = options->tls_handshake_timeout_ns,
        .shutdown_timeout_ns = options->tls_shutdown_timeout_ns,
        .needs_hostname = true,
    };
}

static const char *wrong_option(tram_protocol_factory factory, const tram_unix_connection_options *options) {
    if (!factory)
        return "factory";
    const struct tls_wishes tls = tls_wishes_of(options);
    const char *wrong = tram__tls_wrong_option(&tls);
    if (wrong)
        return wrong;
    if (options->not_ours && !options->sock)
        return "not_ours";
    if (options->proxy_header && !tram__proxy_possible(options->proxy_header))
        return "proxy_header";
    if (options->sock && options->retry.limit)
        return "retry.limit";
    wrong = tram__retry_wrong_option(&options->retry);
    if (wrong)
        return wrong;
    return reserved_used(options) ? "reserved" : NULL;
}

int tram_loop_create_unix_connection(tram_loop *loop, tram_protocol_factory factory, void *arg, const void *path,
                                     size_t path_size, const tram_unix_connection_options *options,
                                     tram_future **ret_future) {
    static const tram_unix_connection_options defaults;
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    status = check_option(wrong_option(factory, options));
    if (status)
        return status;
    tram_socket_address address;
    status = path_or_socket(loop, path, path_size, options->sock, &address);
    if (status)
        return status;
    const struct socket_wishes wishes = {
        .discard = options->discard,
        .not_ours = options->not_ours,
        .tls = tls_wishes_of(options),
        .proxy_header = options->proxy_header,
    };
    if (options->sock)
        return tram__connect_socket(loop, factory, arg, *options->sock, &wishes, ret_future);
    return tram__connect_address(loop, factory, arg, &address, options->timeout_ns, &options->retry, &wishes,
                                 ret_future);
}
