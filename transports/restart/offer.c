/*
 * Offering listening sockets to the process that comes next. A part of the runtime that lives on its first worker: a
 * socket at which the heir, one at a time, asks for them (restart/wire.h). What it is sent are copies, made when it
 * asks, so nothing keeps a socket open that its server has closed. Only READY changes anything.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "transports/restart/wire.h"
#include "transports/sharded/server.h"
#include "transports/socket/file.h"
#include "transports/socket/listener.h"
#include "transports/socket/socket.h"

#define OFFER_BACKLOG      8
#define DEFAULT_TIMEOUT_NS 30000000000u
#define DEFAULT_MODE       0600

enum heir_state {
    HEIR_NONE,
    HEIR_ASKS,     /* connected: HELLO is to come */
    HEIR_TAKES,    /* the sockets are on their way */
    HEIR_PREPARES, /* it has them: READY is to come */
};

/* A copy of a socket, and whose. */
struct item {
    int fd;
    uint32_t server;
};

struct heir {
    struct io io;
    struct deadline deadline;
    enum heir_state state;
    struct item *items; /* `room` of them */
    size_t room;
    size_t count;
    size_t sent;
};

struct offered {
    tram_runtime_server *server;
    char name[TRAM_LISTENER_NAME_SIZE];
};

struct tram_offer {
    struct runtime_part part;
    tram_runtime *runtime;
    tram_offer_options options;
    tram_socket_address address;
    /* of the first worker's thread, if there is one */
    int fd; /* -1: the offer is over */
    struct socket_file file;
    struct io io;
    struct deadline retry; /* runs while there are no descriptors for an heir */
    struct heir heir;
    size_t count;
    struct offered servers[];
};

static tram_loop *loop_of(const tram_offer *offer) {
    return offer->runtime->workers[0].loop;
}

static tram_offer *offer_of_heir(struct heir *heir) {
    return container_of(heir, tram_offer, heir);
}

/* ---- The end of an heir ---- */

static void drop_items(struct heir *heir) {
    tram_loop *loop = heir->io.loop;
    while (heir->count > heir->sent)
        loop->sys->close(heir->items[--heir->count].fd);
    memory_put(&loop->allocator, heir->items, heir->room * sizeof *heir->items);
    heir->items = NULL;
    heir->room = heir->count = heir->sent = 0;
}

static void heir_end(struct heir *heir) {
    if (heir->state == HEIR_NONE)
        return;
    tram_loop *loop = heir->io.loop;
    heir->state = HEIR_NONE;
    deadline_cancel(loop, &heir->deadline);
    drop_items(heir);
    tram__io_remove(&heir->io);
    loop->sys->close(heir->io.fd);
}

/* It gets nothing, or has gone, and is told why if it still listens. */
static void heir_fail(struct heir *heir, int code) {
    tram_loop *loop = heir->io.loop;
    tram__log(loop, TRAM_LOG_WARNING, "the listeners were not taken over: %s (%s)", tram_error_text(code),
              tram_error_name(code));
    tram__inherit_send(loop->sys, heir->io.fd, INHERIT_REFUSED, code, NULL, NULL, 0);
    heir_end(heir);
}

static void heir_late(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    heir_fail(container_of(deadline, struct heir, deadline), TRAM_ETIMEOUT);
}

/* ---- The end of the offer ---- */

static void offer_end(tram_offer *offer) {
    tram_loop *loop = loop_of(offer);
    if (offer->fd < 0)
        return;
    deadline_cancel(loop, &offer->retry);
    tram__io_remove(&offer->io);
    tram__socket_file_remove(loop, &offer->address, &offer->file);
    loop->sys->close(offer->fd);
    offer->fd = -1;
}

static void heir_is_ready(struct heir *heir) {
    tram_offer *offer = offer_of_heir(heir);
    tram_runtime *runtime = offer->runtime;
    for (size_t i = 0; i < offer->count; i++) {
        int status = tram__runtime_server_give(offer->servers[i].server);
        if (status)
            tram__log(loop_of(offer), TRAM_LOG_ERROR, "a server that was taken over goes on accepting: %s",
                      tram_error_text(status));
    }
    offer_end(offer);
    tram__inherit_send(heir->io.loop->sys, heir->io.fd, INHERIT_DONE, 0, NULL, NULL, 0); /* it may be gone already */
    heir_end(heir);
    if (offer->options.taken)
        offer->options.taken(runtime, offer->options.arg);
    else
        tram_runtime_stop(runtime);
}

/* ---- Giving ---- */

/* Copies all sockets of all servers. */
static int collect(struct heir *heir) {
    tram_offer *offer = offer_of_heir(heir);
    tram_loop *loop = heir->io.loop;
    size_t room = 0;
    for (size_t i = 0; i < offer->count; i++)
        room += tram__runtime_server_socket_limit(offer->servers[i].server);
    int *fds = memory_get(&loop->allocator, room * sizeof *fds);
    heir->items = memory_get(&loop->allocator, room * sizeof *heir->items);
    heir->room = heir->items ? room : 0;
    int status = fds && heir->items ? 0 : -ENOMEM;
    for (size_t i = 0; !status && i < offer->count; i++) {
        ssize_t count = tram__runtime_server_copy(offer->servers[i].server, fds);
        for (ssize_t j = 0; j < count; j++)
            heir->items[heir->count++] = (struct item){.fd = fds[j], .server = (uint32_t)i};
        status = count < 0 ? (int)count : 0;
    }
    memory_put(&loop->allocator, fds, room * sizeof *fds);
    return status;
}

/* The next message: those of one server, as many as fit, or that there are no more. */
static int send_next(struct heir *heir) {
    const tram_offer *offer = offer_of_heir(heir);
    const struct sys *sys = heir->io.loop->sys;
    if (heir->sent == heir->count)
        return tram__inherit_send(sys, heir->io.fd, INHERIT_END, (int)heir->count, NULL, NULL, 0);
    int fds[TRAM_INHERIT_BATCH];
    size_t count = 0;
    const struct item *items = heir->items + heir->sent;
    while (count < TRAM_INHERIT_BATCH && heir->sent + count < heir->count && items[count].server == items->server) {
        fds[count] = items[count].fd;
        count++;
    }
    const char *name = offer->servers[items->server].name;
    int status = tram__inherit_send(sys, heir->io.fd, INHERIT_SOCKETS, (int)count, name, fds, count);
    if (status)
        return status;
    for (size_t i = 0; i < count; i++)
        sys->close(fds[i]);
    heir->sent += count;
    return 0;
}

static void heir_give(struct heir *heir) {
    bool all = false;
    int status = 0;
    while (!status && !all) {
        all = heir->sent == heir->count;
        status = send_next(heir);
        if (status == -EINTR)
            status = all = 0;
    }
    if (status == -EAGAIN) {
        status = tram__io_watch(&heir->io, IO_READ | IO_WRITE);
    } else if (!status) {
        heir->state = HEIR_PREPARES;
        status = tram__io_watch(&heir->io, IO_READ);
    }
    if (status)
        heir_fail(heir, status);
}

static void heir_asks(struct heir *heir) {
    int status = collect(heir);
    heir->state = HEIR_TAKES;
    if (status)
        heir_fail(heir, status);
    else
        heir_give(heir);
}

/* ---- Hearing ---- */

static void heir_hear(struct heir *heir) {
    struct inherit_message message;
    /* Descriptors that come along are closed by the kernel, since nobody asks for them. */
    ssize_t size = heir->io.loop->sys->recv(heir->io.fd, &message, sizeof message, MSG_DONTWAIT | MSG_TRUNC);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0)
        heir_fail(heir, size < 0 ? -errno : TRAM_EINCOMPLETE);
    else if (!tram__inherit_good(&message, (size_t)size))
        heir_fail(heir, -EPROTO);
    else if (heir->state == HEIR_ASKS && message.kind == INHERIT_HELLO)
        heir_asks(heir);
    else if (heir->state == HEIR_PREPARES && message.kind == INHERIT_READY)
        heir_is_ready(heir);
    else
        heir_fail(heir, -EPROTO);
}

static void heir_io_ready(struct io *io, unsigned events) {
    struct heir *heir = container_of(io, struct heir, io);
    if (events & IO_READ)
        heir_hear(heir);
    if (events & IO_WRITE && heir->state == HEIR_TAKES)
        heir_give(heir);
}

static void heir_io_ending(struct io *io, enum io_ending ending) {
    (void)ending;
    heir_end(container_of(io, struct heir, io));
}

static const struct io_kind heir_kind = {.name = "heir", .ready = heir_io_ready, .ending = heir_io_ending};

/* ---- Accepting ---- */

static void refuse(tram_loop *loop, int fd, int code) {
    tram__inherit_send(loop->sys, fd, INHERIT_REFUSED, code, NULL, NULL, 0);
    loop->sys->close(fd);
}

static int heir_begin(struct heir *heir, tram_loop *loop, int fd) {
    const tram_offer_options *options = &offer_of_heir(heir)->options;
    int status = options->any_user ? 0 : tram__inherit_check_peer(loop->sys, fd);
    if (!status)
        status = tram__io_add(&heir->io, loop, &heir_kind, fd);
    if (status)
        return status;
    uint64_t now = tram__clock(loop), timeout_ns = options->timeout_ns ? options->timeout_ns : DEFAULT_TIMEOUT_NS;
    heir->deadline.expire = heir_late;
    status = tram__io_watch(&heir->io, IO_READ);
    if (!status && timeout_ns < UINT64_MAX - now)
        status = tram__deadline_start(loop, &heir->deadline, now + timeout_ns);
    if (status)
        tram__io_remove(&heir->io);
    else
        heir->state = HEIR_ASKS;
    return status;
}

static void retry_expired(tram_loop *loop, struct deadline *deadline) {
    tram_offer *offer = container_of(deadline, tram_offer, retry);
    if (tram__io_watch(&offer->io, IO_READ) < 0)
        tram__deadline_start(loop, deadline, tram__clock(loop) + TRAM_ACCEPT_RETRY_NS);
}

/* Without descriptors or memory it would be told of the same heir in every tick. */
static void pause_accepting(tram_offer *offer) {
    tram_loop *loop = loop_of(offer);
    if (tram__deadline_start(loop, &offer->retry, tram__clock(loop) + TRAM_ACCEPT_RETRY_NS) == 0)
        tram__io_watch(&offer->io, 0);
}

static void offer_io_ready(struct io *io, unsigned events) {
    (void)events;
    tram_offer *offer = container_of(io, tram_offer, io);
    tram_loop *loop = io->loop;
    int fd = loop->sys->accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            pause_accepting(offer);
        return;
    }
    int status = offer->heir.state == HEIR_NONE ? heir_begin(&offer->heir, loop, fd) : -EBUSY;
    if (status)
        refuse(loop, fd, status);
}

static void offer_io_ending(struct io *io, enum io_ending ending) {
    (void)ending;
    offer_end(container_of(io, tram_offer, io));
}

static const struct io_kind offer_kind = {.name = "offer", .ready = offer_io_ready, .ending = offer_io_ending};

/* ---- As a part of the runtime ---- */

static int offer_begin(tram_offer *offer) {
    int status = tram__io_add(&offer->io, loop_of(offer), &offer_kind, offer->fd);
    offer->retry.expire = retry_expired;
    return status ? status : tram__io_watch(&offer->io, IO_READ);
}

static tram_offer *offer_of_part(struct runtime_part *part) {
    return container_of(part, tram_offer, part);
}

static int part_start(struct runtime_part *part, unsigned worker, tram_loop *loop) {
    (void)loop;
    return worker == 0 ? offer_begin(offer_of_part(part)) : 0;
}

static void part_stop(struct runtime_part *part, unsigned worker) {
    tram_offer *offer = offer_of_part(part);
    if (worker == 0) {
        heir_end(&offer->heir);
        offer_end(offer);
    }
}

static size_t offer_size(size_t count) {
    return sizeof(tram_offer) + count * sizeof(struct offered);
}

/* One that no worker knows. */
static void offer_shut(tram_offer *offer) {
    const struct sys *sys = runtime_sys(offer->runtime);
    if (offer->fd < 0)
        return;
    if (tram__runtime_enter(offer->runtime) == 0)
        tram__socket_file_unlink(sys, &offer->address, &offer->file);
    sys->close(offer->fd);
    offer->fd = -1;
}

static void offer_free(tram_offer *offer) {
    tram_runtime *runtime = offer->runtime;
    offer_shut(offer);
    memory_put(&runtime->allocator, offer, offer_size(offer->count));
}

static void part_free(struct runtime_part *part) {
    offer_free(offer_of_part(part));
}

static const struct runtime_part_ops offer_part_ops = {.start = part_start, .stop = part_stop, .free = part_free};

/* In a runtime that runs: the same by mail. */
static int begin_call(tram_loop *loop, void *arg) {
    tram_offer *offer = arg;
    bool stops = atomic_load_explicit(&offer->runtime->stops, memory_order_relaxed);
    int status = stops ? 0 : offer_begin(offer);
    if (status)
        tram__log(loop, TRAM_LOG_ERROR, "the listeners cannot be offered: %s", tram_error_text(status));
    if (status || stops)
        offer_end(offer);
    return 0;
}

static int close_call(tram_loop *loop, void *arg) {
    (void)loop;
    tram_offer *offer = arg;
    if (offer->heir.state != HEIR_NONE)
        heir_fail(&offer->heir, TRAM_ECANCELLED);
    offer_end(offer);
    return 0;
}

int tram_offer_close(tram_offer *offer) {
    int status = tram__runtime_enter(offer->runtime);
    if (!status)
        status = tram_loop_call_soon_threadsafe(loop_of(offer), close_call, offer, NULL);
    return status == TRAM_ESTATE ? 0 : status; /* the worker has ended, and the offer with it */
}

/* ---- Making ---- */

static int offer_error(struct kept_error *ret_error, int code) {
    ret_error->error = (tram_error){.code = code, .operation = "offer_listeners"};
    return code;
}

/* The mode is that of the socket before it has a name: the file never has another one. */
static int offer_open(tram_offer *offer, struct kept_error *ret_error) {
    const struct sys *sys = runtime_sys(offer->runtime);
    mode_t mode = offer->options.mode ? offer->options.mode : DEFAULT_MODE;
    const tram_socket_address *address = &offer->address;
    offer->fd = sys->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (offer->fd < 0)
        return tram__address_error(ret_error, -errno, "socket", address);
    if (fchmod(offer->fd, mode) < 0)
        return tram__address_error(ret_error, -errno, "chmod", address);
    tram__socket_file_clear(sys, address); /* trouble shows when it comes to binding */
    if (sys->bind(offer->fd, (const struct sockaddr *)&address->address, address->size) < 0)
        return tram__address_error(ret_error, -errno, "bind", address);
    offer->file = tram__socket_file_at(sys, address);
    return tram__listener_listen(sys, offer->fd, OFFER_BACKLOG, ret_error);
}

static int offer_new(tram_runtime *runtime, const tram_socket_address *address, const tram_offered *servers,
                     size_t count, const tram_offer_options *options, tram_offer **ret_offer) {
    struct kept_error *error = &runtime->server_error;
    if (runtime->state == RUNTIME_ENDED || atomic_load_explicit(&runtime->stops, memory_order_relaxed))
        return offer_error(error, TRAM_ESTATE);
    tram_offer *offer = tram__memory_get_zero(&runtime->allocator, offer_size(count));
    if (!offer)
        return offer_error(error, -ENOMEM);
    offer->part.ops = &offer_part_ops;
    list_init(&offer->part.link);
    offer->runtime = runtime;
    offer->options = *options;
    offer->address = *address;
    offer->count = count;
    for (size_t i = 0; i < count; i++) {
        offer->servers[i].server = servers[i].server;
        memcpy(offer->servers[i].name, servers[i].name, strlen(servers[i].name));
    }
    int status = offer_open(offer, error);
    if (status) {
        offer_free(offer);
        return status;
    }
    tram__runtime_add_part(runtime, &offer->part);
    if (runtime->state == RUNTIME_RUNS)
        status = tram_loop_call_soon_threadsafe(loop_of(offer), begin_call, offer, NULL);
    if (status == -ENOMEM) {
        offer_shut(offer);
        return offer_error(error, status);
    }
    *ret_offer = offer; /* also where the runtime has just ended */
    return 0;
}

static int check(const tram_runtime *runtime, const tram_offered *servers, size_t count,
                 const tram_offer_options *options) {
    if (!servers || !count || count > UINT32_MAX || tram__reserved_used(options->reserved, 4))
        return TRAM_EVALUE;
    for (size_t i = 0; i < count; i++) {
        if (!servers[i].server || servers[i].server->shards.runtime != runtime)
            return TRAM_EVALUE;
        size_t length = servers[i].name ? strnlen(servers[i].name, TRAM_LISTENER_NAME_SIZE) : 0;
        if (!length || length == TRAM_LISTENER_NAME_SIZE)
            return TRAM_EVALUE;
    }
    return 0;
}

int tram_runtime_offer_listeners(tram_runtime *runtime, const void *path, size_t path_size, const tram_offered *servers,
                                 size_t count, const tram_offer_options *options, tram_offer **ret_offer,
                                 tram_error *ret_error) {
    static const tram_offer_options defaults;
    int status = tram__runtime_enter(runtime);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    tram_socket_address address;
    tram_offer *offer = NULL;
    struct kept_error wrong;
    const tram_error *error = &wrong.error;
    status = check(runtime, servers, count, options);
    if (!status)
        status = tram_socket_address_unix(path, path_size, &address);
    if (status) {
        offer_error(&wrong, status);
    } else {
        pthread_mutex_lock(&runtime->control);
        error = &runtime->server_error.error;
        status = offer_new(runtime, &address, servers, count, options, &offer);
        pthread_mutex_unlock(&runtime->control);
    }
    if (status && ret_error)
        *ret_error = *error;
    if (!status && ret_offer)
        *ret_offer = offer;
    return status;
}
