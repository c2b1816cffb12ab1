/* Receiving, sending and accepting on sockets of the user's. */
#include <errno.h>
#include <string.h>

#include "core/base/invalid.h"
#include "transports/sock/op.h"
#include "transports/socket/socket.h"
#include <tram/sock.h>

/* ---- Receiving ---- */

struct receive_op {
    struct sock_op op;
    void *into; /* the caller's memory; NULL: the operation's own */
    size_t capacity;
    size_t wanted; /* at most the capacity */
    bool addressed;
    void *own; /* what was received, `own_size` bytes of memory */
    size_t own_size;
    tram_sock_data data;
};

static const struct sock_op_kind recv_into_kind;

/* What came may be much less than there was room for. */
static void trim(struct receive_op *receive, void *memory, size_t size) {
    const tram_allocator *allocator = &receive->op.future.loop->allocator;
    receive->own = memory;
    receive->own_size = receive->capacity;
    void *smaller = receive->capacity - size > 4096 ? memory_get(allocator, size + 1) : NULL;
    if (smaller) {
        memcpy(smaller, memory, size);
        memory_put(allocator, memory, receive->capacity);
        receive->own = smaller;
        receive->own_size = size + 1;
    }
    receive->data.data = receive->own;
}

/* The memory is there only while something is received: those who wait need none. */
static int receive_attempt(struct sock_op *op, void **ret_value) {
    struct receive_op *receive = (struct receive_op *)op;
    tram_loop *loop = op->future.loop;
    tram_socket_address *address = receive->addressed ? &receive->data.address : NULL;
    bool counts = op->future.kind == &recv_into_kind.future;
    if (!receive->wanted && !receive->addressed) { /* nothing was asked for, and nothing is what comes */
        receive->data.data = "";
        *ret_value = counts ? sock_count(0) : &receive->data;
        return SOCK_DONE;
    }
    void *memory = receive->into ? receive->into : memory_get(&loop->allocator, receive->capacity);
    if (!memory)
        return -ENOMEM;
    socklen_t size = sizeof address->address;
    ssize_t received =
        loop->sys->recvfrom(op->fd, memory, receive->wanted, MSG_DONTWAIT,
                            address ? (struct sockaddr *)&address->address : NULL, address ? &size : NULL);
    if (received < 0) {
        int outcome = tram__sock_outcome(errno);
        if (!receive->into)
            memory_put(&loop->allocator, memory, receive->capacity);
        return outcome;
    }
    receive->data.data = memory;
    receive->data.size = (size_t)received;
    if (address)
        address->size = size <= sizeof address->address ? size : (socklen_t)sizeof address->address;
    if (!receive->into)
        trim(receive, memory, (size_t)received);
    *ret_value = counts ? sock_count((uint64_t)received) : &receive->data;
    return SOCK_DONE;
}

static void receive_destroy(tram_future *future) {
    struct receive_op *receive = (struct receive_op *)future;
    memory_put(&future->loop->allocator, receive->own, receive->own_size);
}

#define RECEIVE_KIND(what, gives)                                                                                      \
    {                                                                                                                  \
        .future = {.name = what, .value = gives, .cancel = tram__sock_op_cancel, .destroy = receive_destroy},          \
        .direction = IO_READ, .attempt = receive_attempt,                                                              \
    }

static const struct sock_op_kind recv_kind = RECEIVE_KIND("sock_recv", FUTURE_VALUE_OTHER);
static const struct sock_op_kind recv_into_kind = RECEIVE_KIND("sock_recv_into", FUTURE_VALUE_COUNT);
static const struct sock_op_kind recvfrom_kind = RECEIVE_KIND("sock_recvfrom", FUTURE_VALUE_OTHER);
static const struct sock_op_kind recvfrom_into_kind = RECEIVE_KIND("sock_recvfrom_into", FUTURE_VALUE_OTHER);

static int receive_begin(tram_loop *loop, int fd, const struct sock_op_kind *kind, void *into, size_t wanted,
                         tram_future **ret_future) {
    struct receive_op *receive;
    int status = tram__sock_op_new(loop, fd, kind, sizeof *receive, ret_future, &receive);
    if (status)
        return status;
    receive->into = into;
    receive->wanted = into ? wanted : MIN(wanted, TRAM_RECEIVE_SIZE);
    receive->capacity = receive->wanted ? receive->wanted : 1;
    receive->addressed = kind == &recvfrom_kind || kind == &recvfrom_into_kind;
    tram__sock_op_go(&receive->op);
    return 0;
}

int tram_loop_sock_recv(tram_loop *loop, int fd, size_t size, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : receive_begin(loop, fd, &recv_kind, NULL, size, ret_future);
}

int tram_loop_sock_recv_into(tram_loop *loop, int fd, void *memory, size_t size, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    return memory ? receive_begin(loop, fd, &recv_into_kind, memory, size, ret_future) : tram__invalid("memory");
}

int tram_loop_sock_recvfrom(tram_loop *loop, int fd, size_t size, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : receive_begin(loop, fd, &recvfrom_kind, NULL, size, ret_future);
}

int tram_loop_sock_recvfrom_into(tram_loop *loop, int fd, void *memory, size_t size, size_t count,
                                 tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!memory || count > size)
        return tram__invalid(memory ? "count" : "memory");
    return receive_begin(loop, fd, &recvfrom_into_kind, memory, count ? count : size, ret_future);
}

/* ---- Sending ---- */

struct send_op {
    struct sock_op op;
    const char *data;
    size_t size;
    size_t sent;
    tram_socket_address address; /* of sendto; size 0: the socket's peer */
};

static int sendall_attempt(struct sock_op *op, void **ret_value) {
    struct send_op *send = (struct send_op *)op;
    *ret_value = NULL;
    if (send->sent == send->size)
        return SOCK_DONE;
    ssize_t sent = op->future.loop->sys->send(op->fd, send->data + send->sent, send->size - send->sent,
                                              MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0)
        return tram__sock_outcome(errno);
    send->sent += (size_t)sent;
    return send->sent == send->size ? SOCK_DONE : SOCK_WAIT;
}

static int sendto_attempt(struct sock_op *op, void **ret_value) {
    struct send_op *send = (struct send_op *)op;
    const struct sockaddr *address = send->address.size ? (const struct sockaddr *)&send->address.address : NULL;
    ssize_t sent = op->future.loop->sys->sendto(op->fd, send->data, send->size, MSG_NOSIGNAL | MSG_DONTWAIT, address,
                                                send->address.size);
    if (sent < 0)
        return tram__sock_outcome(errno);
    *ret_value = sock_count((uint64_t)sent);
    return SOCK_DONE;
}

static const struct sock_op_kind sendall_kind = {
    .future = {.name = "sock_sendall", .cancel = tram__sock_op_cancel},
    .direction = IO_WRITE,
    .attempt = sendall_attempt,
};

static const struct sock_op_kind sendto_kind = {
    .future = {.name = "sock_sendto", .value = FUTURE_VALUE_COUNT, .cancel = tram__sock_op_cancel},
    .direction = IO_WRITE,
    .attempt = sendto_attempt,
};

static int send_begin(tram_loop *loop, int fd, const struct sock_op_kind *kind, const void *data, size_t size,
                      const tram_socket_address *address, tram_future **ret_future) {
    if (!data && size)
        return tram__invalid("data");
    if (address && (!address->size || address->size > sizeof address->address))
        return tram__invalid("address");
    struct send_op *send;
    int status = tram__sock_op_new(loop, fd, kind, sizeof *send, ret_future, &send);
    if (status)
        return status;
    send->data = data;
    send->size = size;
    if (address)
        send->address = *address;
    tram__sock_op_go(&send->op);
    return 0;
}

int tram_loop_sock_sendall(tram_loop *loop, int fd, const void *data, size_t size, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : send_begin(loop, fd, &sendall_kind, data, size, NULL, ret_future);
}

int tram_loop_sock_sendto(tram_loop *loop, int fd, const void *data, size_t size, const tram_socket_address *address,
                          tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : send_begin(loop, fd, &sendto_kind, data, size, address, ret_future);
}

/* ---- Accepting ---- */

struct accept_op {
    struct sock_op op;
    int accepted; /* -1: none, or taken */
    tram_socket_address peer;
};

static int accept_attempt(struct sock_op *op, void **ret_value) {
    struct accept_op *accept = (struct accept_op *)op;
    tram_socket_address *peer = &accept->peer;
    peer->size = sizeof peer->address;
    int fd = op->future.loop->sys->accept4(op->fd, (struct sockaddr *)&peer->address, &peer->size,
                                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) /* one that ended before it was accepted is none */
        return errno == ECONNABORTED ? (int)SOCK_WAIT : tram__sock_outcome(errno);
    accept->accepted = fd;
    *ret_value = peer;
    return SOCK_DONE;
}

static void accept_destroy(tram_future *future) {
    struct accept_op *accept = (struct accept_op *)future;
    if (accept->accepted >= 0)
        tram__socket_close(future->loop->sys, accept->accepted);
}

static const struct sock_op_kind accept_kind = {
    .future = {.name = "sock_accept", .cancel = tram__sock_op_cancel, .destroy = accept_destroy},
    .direction = IO_READ,
    .attempt = accept_attempt,
};

int tram_loop_sock_accept(tram_loop *loop, int fd, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    struct accept_op *accept;
    status = tram__sock_op_new(loop, fd, &accept_kind, sizeof *accept, ret_future, &accept);
    if (status)
        return status;
    accept->accepted = -1;
    tram__sock_op_go(&accept->op);
    return 0;
}

int tram_future_fd(tram_future *future) {
    int status = future_enter(future, __func__);
    if (status)
        return status;
    if (future->kind != &accept_kind.future)
        return TRAM_ETYPE;
    struct accept_op *accept = (struct accept_op *)future;
    int fd = accept->accepted;
    accept->accepted = -1;
    return fd >= 0 ? fd : TRAM_ESTATE;
}
