/*
 * Receiving listening sockets, from systemd or from the process that served them before. No loop is needed: a process
 * has nothing else to do before it has its sockets.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/invalid.h"
#include "core/base/time.h"
#include "transports/restart/wire.h"
#include "transports/socket/socket.h"

#define FIRST_ACTIVATED    3 /* SD_LISTEN_FDS_START */
#define DEFAULT_TIMEOUT_NS 10000000000u

static const struct sys *const sys = &tram__sys;

/* ---- Listeners ---- */

/* Is it a listening stream socket, and of which address? */
static int look_at(int fd, tram_listener *ret_listener) {
    int type = 0, listens = 0;
    socklen_t size = sizeof type;
    ret_listener->fd = fd;
    ret_listener->address = (tram_socket_address){.size = sizeof ret_listener->address.address};
    if (sys->getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return errno == ENOTSOCK ? TRAM_ETYPE : -errno;
    size = sizeof listens;
    if (type != SOCK_STREAM || sys->getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || !listens)
        return TRAM_ETYPE;
    struct sockaddr *address = (struct sockaddr *)&ret_listener->address.address;
    return sys->getsockname(fd, address, &ret_listener->address.size) < 0 ? -errno : 0;
}

size_t tram_listeners_take(tram_listener *listeners, size_t count, const char *name, int *ret_sockets) {
    size_t taken = 0;
    for (size_t i = 0; i < count; i++) {
        if (listeners[i].fd < 0 || (name && strcmp(listeners[i].name, name) != 0))
            continue;
        ret_sockets[taken++] = listeners[i].fd;
        listeners[i].fd = -1;
    }
    return taken;
}

void tram_listeners_close(tram_listener *listeners, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (listeners[i].fd >= 0)
            sys->close(listeners[i].fd);
        listeners[i].fd = -1;
    }
}

/* ---- Socket activation ---- */

/* A whole number from 1 on; 0: none. */
static int number_of(const char *text) {
    if (!*text || text[strspn(text, "0123456789")])
        return 0;
    errno = 0;
    long number = strtol(text, NULL, 10);
    return !errno && number <= INT_MAX - FIRST_ACTIVATED ? (int)number : 0;
}

/* The next name of a list with colons; false: there is none, or it is too long. */
static bool next_name(const char **names, char *ret_name) {
    const char *begin = *names;
    if (!begin)
        return false;
    size_t length = strcspn(begin, ":");
    *names = begin[length] ? begin + length + 1 : NULL;
    if (length >= TRAM_LISTENER_NAME_SIZE)
        return false;
    memcpy(ret_name, begin, length);
    ret_name[length] = '\0';
    return true;
}

static int activated(const char *pid, const char *fds, const char *names, tram_listener *ret_listeners,
                     size_t capacity) {
    if (!pid || !fds)
        return 0;
    int owner = number_of(pid), count = number_of(fds);
    if (!owner || !count)
        return tram__invalid(owner ? "LISTEN_FDS" : "LISTEN_PID");
    if (owner != getpid())
        return 0;
    for (int i = 0; i < count; i++)
        if (sys->fcntl(FIRST_ACTIVATED + i, F_SETFD, FD_CLOEXEC) < 0)
            return -errno;
    if ((size_t)count > capacity)
        return TRAM_ELIMIT;
    bool named = names;
    for (int i = 0; i < count; i++) {
        tram_listener *listener = &ret_listeners[i];
        snprintf(listener->name, sizeof listener->name, "unknown");
        if (named && !next_name(&names, listener->name))
            return tram__invalid("LISTEN_FDNAMES");
        int status = look_at(FIRST_ACTIVATED + i, listener);
        if (status)
            return status;
    }
    return names && named ? tram__invalid("LISTEN_FDNAMES") : count;
}

int tram_listeners_activated(tram_listener *ret_listeners, size_t capacity, bool unset) {
    int status =
        activated(getenv("LISTEN_PID"), getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES"), ret_listeners, capacity);
    if (unset) {
        unsetenv("LISTEN_PID");
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_FDNAMES");
    }
    return status;
}

/* ---- From the process before ---- */

static uint64_t now_ns(void) {
    struct timespec now;
    sys->clock_gettime(CLOCK_MONOTONIC, &now);
    return time_of(&now);
}

static uint64_t end_after(uint64_t timeout_ns) {
    return time_after(now_ns(), timeout_ns ? timeout_ns : DEFAULT_TIMEOUT_NS);
}

/* 0 or TRAM_ETIMEOUT, -errno. */
static int wait_for(int link, short events, uint64_t end) {
    uint64_t now = now_ns();
    if (now >= end)
        return TRAM_ETIMEOUT;
    uint64_t left_ms = (end - now + 999999) / 1000000;
    struct pollfd wanted = {.fd = link, .events = events};
    int found = sys->poll(&wanted, 1, (int)MIN(left_ms, INT_MAX));
    return found < 0 && errno != EINTR ? -errno : 0;
}

/* The server may just be busy with so many that its queue is full. */
static int connect_to(const tram_socket_address *address, uint64_t end, int *ret_link) {
    int link = sys->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (link < 0)
        return -errno;
    *ret_link = link;
    while (sys->connect(link, (const struct sockaddr *)&address->address, address->size) < 0) {
        if (errno != EAGAIN)
            return errno == EPROTOTYPE ? -EPROTO : -errno;
        if (now_ns() >= end)
            return TRAM_ETIMEOUT;
        sys->poll(NULL, 0, 1);
    }
    return 0;
}

static int say(int link, enum inherit_kind kind, uint64_t end) {
    int status;
    while ((status = tram__inherit_send(sys, link, kind, 0, NULL, NULL, 0)) == -EAGAIN || status == -EINTR) {
        status = wait_for(link, POLLOUT, end);
        if (status)
            return status;
    }
    return status;
}

/* What came with a message. */
struct received_message {
    struct inherit_message message;
    int fds[TRAM_INHERIT_BATCH];
    size_t count;
};

static void drop(struct received_message *received) {
    while (received->count)
        sys->close(received->fds[--received->count]);
}

/* Takes all descriptors that came, wherever they are. False: there are more than fit. */
static bool unpack(struct msghdr *header, struct received_message *received) {
    bool fits = true;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            fits = received->count < TRAM_INHERIT_BATCH;
            if (fits)
                received->fds[received->count++] = fd;
            else
                sys->close(fd);
        }
    }
    return fits;
}

/* The next message. On failure no descriptor is kept. */
static int receive_message(int link, uint64_t end, struct received_message *ret_received) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(TRAM_INHERIT_BATCH * sizeof(int))];
    } control;
    struct iovec piece = {.iov_base = &ret_received->message, .iov_len = sizeof ret_received->message};
    struct msghdr header;
    ssize_t size;
    ret_received->count = 0;
    do {
        int status = wait_for(link, POLLIN, end);
        if (status)
            return status;
        header = (struct msghdr){
            .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        size = sys->recvmsg(link, &header, MSG_CMSG_CLOEXEC);
        /* One who closed without reading all has perhaps said why; the next turn tells. */
    } while (size < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET));
    if (size < 0)
        return -errno;
    bool whole = unpack(&header, ret_received); /* an empty message may have some as well */
    int status = 0;
    if (!size && !ret_received->count)
        status = TRAM_EINCOMPLETE;
    else if (header.msg_flags & MSG_CTRUNC)
        status = ret_received->count < TRAM_INHERIT_BATCH ? -EMFILE : -EPROTO;
    else if (!whole || header.msg_flags & MSG_TRUNC || !tram__inherit_good(&ret_received->message, (size_t)size))
        status = -EPROTO;
    else if (ret_received->message.kind == INHERIT_REFUSED)
        status = ret_received->message.value < 0 ? ret_received->message.value : -EPROTO;
    if (status)
        drop(ret_received);
    return status;
}

/* Adds what came to the listeners; what does not fit stays in the received. */
static int keep(struct received_message *received, tram_listener *listeners, size_t capacity, size_t *count) {
    const struct inherit_message *message = &received->message;
    if (message->kind != INHERIT_SOCKETS || message->value < 1 || (size_t)message->value != received->count)
        return -EPROTO;
    if (received->count > capacity - *count)
        return TRAM_ELIMIT;
    size_t begin = *count, came = received->count;
    for (size_t i = 0; i < came; i++) {
        listeners[begin + i].fd = received->fds[i];
        memcpy(listeners[begin + i].name, message->name, sizeof message->name);
    }
    received->count = 0;
    *count += came;
    int status = 0;
    for (size_t i = begin; i < *count && !status; i++)
        status = look_at(listeners[i].fd, &listeners[i]) ? -EPROTO : 0;
    return status;
}

static int receive_all(int link, uint64_t end, tram_listener *listeners, size_t capacity, size_t *count) {
    struct received_message received = {.count = 0};
    int status = say(link, INHERIT_HELLO, end);
    if (status == -EPIPE || status == -ECONNRESET)
        status = 0; /* as in tram_listeners_ready() */
    while (!status) {
        status = receive_message(link, end, &received);
        if (!status && received.message.kind == INHERIT_END && !received.count)
            return received.message.value >= 0 && (size_t)received.message.value == *count ? 0 : -EPROTO;
        if (!status)
            status = keep(&received, listeners, capacity, count);
        drop(&received);
    }
    return status;
}

int tram_listeners_inherit(const void *path, size_t path_size, const tram_inherit_options *options,
                           tram_listener *ret_listeners, size_t capacity, int *ret_link) {
    static const tram_inherit_options defaults;
    if (!options)
        options = &defaults;
    tram_socket_address address;
    if (reserved_used(options) || capacity > INT_MAX)
        return tram__invalid(capacity > INT_MAX ? "capacity" : "reserved");
    int status = tram_socket_address_unix(path, path_size, &address), link = -1;
    uint64_t end = end_after(options->timeout_ns);
    size_t count = 0;
    if (!status)
        status = connect_to(&address, end, &link);
    if (!status && !options->any_user)
        status = tram__inherit_check_peer(sys, link);
    if (!status)
        status = receive_all(link, end, ret_listeners, capacity, &count);
    if (!status) {
        *ret_link = link;
        return (int)count;
    }
    tram_listeners_close(ret_listeners, count);
    if (link >= 0)
        sys->close(link);
    return status;
}

int tram_listeners_ready(int link, uint64_t timeout_ns) {
    uint64_t end = end_after(timeout_ns);
    struct received_message received;
    int status = say(link, INHERIT_READY, end);
    if (!status || status == -EPIPE || status == -ECONNRESET)
        status = receive_message(link, end, &received); /* who has hung up has perhaps said why */
    if (!status) {
        status = received.message.kind == INHERIT_DONE ? 0 : -EPROTO;
        drop(&received);
    }
    sys->close(link);
    /* Whoever is gone does not accept any more. */
    return status == TRAM_EINCOMPLETE ? 0 : status;
}
