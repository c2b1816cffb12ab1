/* Connecting sockets of the user's. */
#include <errno.h>
#include <netinet/in.h>

#include "core/base/invalid.h"
#include "transports/sock/op.h"
#include "transports/socket/lookup.h"
#include <tram/sock.h>

struct connect_op {
    struct sock_op op;
    struct lookup lookup;
    tram_socket_address address;
    bool under_way;
};

static int first_try(struct connect_op *connect) {
    const struct sys *sys = connect->op.future.loop->sys;
    const tram_socket_address *address = &connect->address;
    if (sys->connect(connect->op.fd, (const struct sockaddr *)&address->address, address->size) == 0)
        return SOCK_DONE;
    switch (errno) {
    case EINPROGRESS:
    case EALREADY: /* an earlier call that was cancelled */
    case EINTR:
        connect->under_way = true;
        return SOCK_WAIT;
    case EAGAIN: /* the queue of a Unix listener is full, and nobody tells when it no longer is */
        return SOCK_BACKOFF;
    default:
        return -errno;
    }
}

static int connect_attempt(struct sock_op *op, void **ret_value) {
    struct connect_op *connect = (struct connect_op *)op;
    *ret_value = NULL;
    if (!connect->under_way)
        return first_try(connect);
    int error = 0;
    socklen_t size = sizeof error;
    if (op->future.loop->sys->getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        error = errno;
    return error ? -error : (int)SOCK_DONE;
}

static void connect_end(struct sock_op *op) {
    tram__lookup_end(&((struct connect_op *)op)->lookup);
}

static const struct sock_op_kind connect_kind = {
    .future = {.name = "sock_connect", .cancel = tram__sock_op_cancel},
    .direction = IO_WRITE,
    .attempt = connect_attempt,
    .end = connect_end,
};

static void found(struct lookup *lookup, const tram_error *error) {
    struct connect_op *connect = container_of(lookup, struct connect_op, lookup);
    if (error) {
        tram__sock_op_fail(&connect->op, error);
        return;
    }
    connect->address = lookup->list.items[0].address;
    tram__sock_op_go(&connect->op);
}

/* The internet family of a socket, or TRAM_EVALUE. */
static int internet_family(const tram_loop *loop, int fd) {
    int family = 0;
    socklen_t size = sizeof family;
    if (loop->sys->getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0)
        return errno == ENOTSOCK ? tram__invalid("fd") : -errno;
    return family == AF_INET || family == AF_INET6 ? family : tram__invalid("fd");
}

/* Nobody has seen the operation yet: it never was. */
static int abort_creation(struct connect_op *connect, int status, tram_future **ret_future) {
    tram__sock_op_cancel(&connect->op.future);
    if (ret_future) {
        tram_future_release(*ret_future);
        *ret_future = NULL;
    }
    return status;
}

int tram_loop_sock_connect(tram_loop *loop, int fd, const char *host, const char *port, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!host && !port)
        return tram__invalid("host");
    struct connect_op *connect;
    status = tram__sock_op_new(loop, fd, &connect_kind, sizeof *connect, ret_future, &connect);
    if (status)
        return status;
    int family = internet_family(loop, fd);
    if (family < 0)
        return abort_creation(connect, family, ret_future);
    struct lookup_query query = {.host = host, .port = port, .family = family};
    status = tram__lookup_start(&connect->lookup, loop, &query, found);
    if (status < 0)
        return abort_creation(connect, status, ret_future);
    if (status > 0)
        found(&connect->lookup, NULL);
    return 0;
}

int tram_loop_sock_connect_address(tram_loop *loop, int fd, const tram_socket_address *address,
                                   tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!address || !address->size || address->size > sizeof address->address)
        return tram__invalid("address");
    struct connect_op *connect;
    status = tram__sock_op_new(loop, fd, &connect_kind, sizeof *connect, ret_future, &connect);
    if (status)
        return status;
    connect->address = *address;
    tram__sock_op_go(&connect->op);
    return 0;
}
