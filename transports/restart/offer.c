/*
 * Offering listening sockets to the process that comes next. A part of the runtime that lives on its first worker: a
 * socket at which the successor, one at a time, asks for them (restart/wire.h). What it is sent are copies, made when
 * it asks, so nothing keeps a socket open that its server has closed. Only READY changes anything.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/invalid.h"
#include "transports/restart/wire.h"
#include "transports/sharded/server.h"
#include "transports/socket/file.h"
#include "transports/socket/listener.h"
#include "transports/socket/socket.h"

#define OFFER_BACKLOG      8
#define DEFAULT_TIMEOUT_NS 30000000000u
#define DEFAULT_MODE       0600

enum successor_state {
    SUCCESSOR_NONE,
    SUCCESSOR_WAIT_HELLO, /* connected: HELLO is to come */
    SUCCESSOR_SENDING,    /* the sockets are on their way */
    SUCCESSOR_WAIT_READY, /* it has them: READY is to come */
};

/* A copy of a socket, and whose. */
struct item {
    int fd;
    uint32_t server;
};

struct successor {
    struct io io;
    struct deadline deadline;
    enum successor_state state;
    struct item *items; /* `capacity` of them */
    size_t capacity;
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
    struct deadline retry; /* runs while there are no descriptors for a successor */
    struct successor successor;
    size_t count;
    struct offered servers[];
};

static tram_loop *loop_of(const tram_offer *offer) {
    return offer->runtime->workers[0].loop;
}

static tram_offer *offer_of_successor(struct successor *successor) {
    return container_of(successor, tram_offer, successor);
}

/* ---- The end of a successor ---- */

static void drop_items(struct successor *successor) {
    tram_loop *loop = successor->io.loop;
    while (successor->count > successor->sent)
        loop->sys->close(successor->items[--successor->count].fd);
    memory_put(&loop->allocator, successor->items, successor->capacity * sizeof *successor->items);
    successor->items = NULL;
    successor->capacity = successor->count = successor->sent = 0;
}

static void successor_end(struct successor *successor) {
    if (successor->state == SUCCESSOR_NONE)
        return;
    tram_loop *loop = successor->io.loop;
    successor->state = SUCCESSOR_NONE;
    deadline_cancel(loop, &successor->deadline);
    drop_items(successor);
    tram__io_remove(&successor->io);
    loop->sys->close(successor->io.fd);
}

/* It gets nothing, or has gone, and is told why if it still listens. */
static void successor_fail(struct successor *successor, int code) {
    tram_loop *loop = successor->io.loop;
    tram__log(loop, TRAM_LOG_WARNING, "the listeners were not taken over: %s (%s)", tram_error_text(code),
              tram_error_name(code));
    tram__inherit_send(loop->sys, successor->io.fd, INHERIT_REFUSED, code, NULL, NULL, 0);
    successor_end(successor);
}

static void successor_late(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    successor_fail(container_of(deadline, struct successor, deadline), TRAM_ETIMEOUT);
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

static void successor_is_ready(struct successor *successor) {
    tram_offer *offer = offer_of_successor(successor);
    tram_runtime *runtime = offer->runtime;
    for (size_t i = 0; i < offer->count; i++) {
        int status = tram__runtime_server_give(offer->servers[i].server);
        if (status)
            tram__log(loop_of(offer), TRAM_LOG_ERROR, "a server that was taken over goes on accepting: %s",
                      tram_error_text(status));
    }
    offer_end(offer);
    tram__inherit_send(successor->io.loop->sys, successor->io.fd, INHERIT_DONE, 0, NULL, NULL,
                       0); /* it may be gone already */
    successor_end(successor);
    if (offer->options.taken)
        offer->options.taken(runtime, offer->options.arg);
    else
        tram_runtime_drain(runtime);
}

/* ---- Giving ---- */

/* Copies all sockets of all servers. */
static int collect(struct successor *successor) {
    tram_offer *offer = offer_of_successor(successor);
    tram_loop *loop = successor->io.loop;
    size_t capacity = 0;
    for (size_t i = 0; i < offer->count; i++)
        capacity += tram__runtime_server_socket_limit(offer->servers[i].server);
    int *fds = memory_get(&loop->allocator, capacity * sizeof *fds);
    successor->items = memory_get(&loop->allocator, capacity * sizeof *successor->items);
    successor->capacity = capacity;
    int status = fds && successor->items ? 0 : -ENOMEM;
    for (size_t i = 0; !status && i < offer->count; i++) {
        ssize_t count = tram__runtime_server_copy(offer->servers[i].server, fds);
        for (ssize_t j = 0; j < count; j++)
            successor->items[successor->count++] = (struct item){.fd = fds[j], .server = (uint32_t)i};
        status = (int)MIN(count, 0);
    }
    memory_put(&loop->allocator, fds, capacity * sizeof *fds);
    return status;
}

/* The next message: those of one server, as many as fit, or that there are no more. */
static int send_next(struct successor *successor) {
    const tram_offer *offer = offer_of_successor(successor);
    const struct sys *sys = successor->io.loop->sys;
    if (successor->sent == successor->count)
        return tram__inherit_send(sys, successor->io.fd, INHERIT_END, (int)successor->count, NULL, NULL, 0);
    int fds[TRAM_INHERIT_BATCH];
    size_t count = 0;
    const struct item *items = successor->items + successor->sent;
    while (count < TRAM_INHERIT_BATCH && successor->sent + count < successor->count &&
           items[count].server == items->server) {
        fds[count] = items[count].fd;
        count++;
    }
    const char *name = offer->servers[items->server].name;
    int status = tram__inherit_send(sys, successor->io.fd, INHERIT_SOCKETS, (int)count, name, fds, count);
    if (status)
        return status;
    for (size_t i = 0; i < count; i++)
        sys->close(fds[i]);
    successor->sent += count;
    return 0;
}

static void successor_give(struct successor *successor) {
    bool all = false;
    int status = 0;
    while (!status && !all) {
        all = successor->sent == successor->count;
        status = send_next(successor);
        if (status == -EINTR)
            status = all = 0;
    }
    if (status == -EAGAIN) {
        status = tram__io_watch(&successor->io, IO_READ | IO_WRITE);
    } else if (!status) {
        successor->state = SUCCESSOR_WAIT_READY;
        status = tram__io_watch(&successor->io, IO_READ);
    }
    if (status)
        successor_fail(successor, status);
}

static void successor_asks(struct successor *successor) {
    int status = collect(successor);
    successor->state = SUCCESSOR_SENDING;
    if (status)
        successor_fail(successor, status);
    else
        successor_give(successor);
}

/* ---- Hearing ---- */

static void successor_on_message(struct successor *successor) {
    struct inherit_message message;
    /* Descriptors that come along are closed by the kernel, since nobody asks for them. */
    ssize_t size = successor->io.loop->sys->recv(successor->io.fd, &message, sizeof message, MSG_TRUNC);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0)
        successor_fail(successor, size < 0 ? -errno : TRAM_EINCOMPLETE);
    else if (!tram__inherit_good(&message, (size_t)size))
        successor_fail(successor, -EPROTO);
    else if (successor->state == SUCCESSOR_WAIT_HELLO && message.kind == INHERIT_HELLO)
        successor_asks(successor);
    else if (successor->state == SUCCESSOR_WAIT_READY && message.kind == INHERIT_READY)
        successor_is_ready(successor);
    else
        successor_fail(successor, -EPROTO);
}

static void successor_io_ready(struct io *io, unsigned events) {
    struct successor *successor = container_of(io, struct successor, io);
    if (events & IO_READ)
        successor_on_message(successor);
    if (events & IO_WRITE && successor->state == SUCCESSOR_SENDING)
        successor_give(successor);
}

static void successor_io_ending(struct io *io, enum shutdown_mode ending) {
    (void)ending;
    successor_end(container_of(io, struct successor, io));
}

static const struct io_kind successor_kind = {
    .name = "successor", .ready = successor_io_ready, .ending = successor_io_ending};

/* ---- Accepting ---- */

static void refuse(tram_loop *loop, int fd, int code) {
    tram__inherit_send(loop->sys, fd, INHERIT_REFUSED, code, NULL, NULL, 0);
    loop->sys->close(fd);
}

static int successor_begin(struct successor *successor, tram_loop *loop, int fd) {
    const tram_offer_options *options = &offer_of_successor(successor)->options;
    int status = options->any_user ? 0 : tram__inherit_check_peer(loop->sys, fd);
    if (!status)
        status = tram__io_add(&successor->io, loop, &successor_kind, fd);
    if (status)
        return status;
    successor->deadline.expire = successor_late;
    status = tram__io_watch(&successor->io, IO_READ);
    if (!status)
        status = tram__deadline_start_after(loop, &successor->deadline,
                                            options->timeout_ns ? options->timeout_ns : DEFAULT_TIMEOUT_NS);
    if (status)
        tram__io_remove(&successor->io);
    else
        successor->state = SUCCESSOR_WAIT_HELLO;
    return status;
}

static void retry_expired(tram_loop *loop, struct deadline *deadline) {
    tram_offer *offer = container_of(deadline, tram_offer, retry);
    if (tram__io_watch(&offer->io, IO_READ))
        tram__deadline_start_after(loop, deadline, TRAM_ACCEPT_RETRY_NS);
}

/* Without descriptors or memory it would be told of the same successor in every tick. */
static void pause_accepting(tram_offer *offer) {
    tram_loop *loop = loop_of(offer);
    if (tram__deadline_start_after(loop, &offer->retry, TRAM_ACCEPT_RETRY_NS) == 0)
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
    int status = offer->successor.state == SUCCESSOR_NONE ? successor_begin(&offer->successor, loop, fd) : -EBUSY;
    if (status)
        refuse(loop, fd, status);
}

static void offer_io_ending(struct io *io, enum shutdown_mode ending) {
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
        successor_end(&offer->successor);
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
    if (runtime_enter(offer->runtime) == 0)
        tram__socket_file_unlink(sys, &offer->address, &offer->file);
    sys->close(offer->fd);
    offer->fd = -1;
}

/* The servers whose sockets are offered stay for as long. */
static void hold_servers(tram_offer *offer) {
    for (size_t i = 0; i < offer->count; i++)
        tram__runtime_hold_part(offer->runtime, &offer->servers[i].server->shards.part);
}

static void release_servers(tram_offer *offer) {
    for (size_t i = 0; i < offer->count && !offer->runtime->freeing; i++)
        tram__runtime_release_part(offer->runtime, &offer->servers[i].server->shards.part);
}

static void offer_free(tram_offer *offer) {
    tram_runtime *runtime = offer->runtime;
    offer_shut(offer);
    release_servers(offer);
    tram_discard discard = offer->options.discard;
    void *arg = offer->options.arg;
    memory_put(&runtime->allocator, offer, offer_size(offer->count));
    if (discard)
        discard(arg);
}

static void part_free(struct runtime_part *part) {
    offer_free(offer_of_part(part));
}

static const struct runtime_part_ops offer_part_ops = {.start = part_start, .stop = part_stop, .free = part_free};

/* In a runtime that runs: the same by mail. */
static int begin_call(tram_loop *loop, void *arg) {
    tram_offer *offer = arg;
    loop_stands_for(loop, begin_call, (const void *)(uintptr_t)tram_runtime_offer_listeners);
    bool stops = atomic_load_explicit(&offer->runtime->asked, memory_order_relaxed);
    int status = stops ? 0 : offer_begin(offer);
    if (status)
        tram__log(loop, TRAM_LOG_ERROR, "the listeners cannot be offered: %s", tram_error_text(status));
    if (status || stops)
        offer_end(offer);
    return 0;
}

static void close_here(tram_offer *offer) {
    if (offer->successor.state != SUCCESSOR_NONE)
        successor_fail(&offer->successor, TRAM_ECANCELLED);
    offer_end(offer);
}

static int close_call(tram_loop *loop, void *arg) {
    loop_stands_for(loop, close_call, (const void *)(uintptr_t)tram_offer_close);
    close_here(arg);
    return 0;
}

int tram_offer_close(tram_offer *offer) {
    int status = runtime_enter(offer->runtime);
    if (!status)
        status = tram_loop_call_soon_threadsafe(loop_of(offer), close_call, offer, NULL);
    return status == TRAM_ESTATE ? 0 : status; /* the worker has ended, and the offer with it */
}

static void release_discard(void *arg) {
    tram_offer *offer = arg;
    tram__runtime_release_part(offer->runtime, &offer->part);
}

static int release_call(tram_loop *loop, void *arg) {
    loop_stands_for(loop, release_call, (const void *)(uintptr_t)tram_offer_release);
    close_here(arg);
    release_discard(arg);
    return 0;
}

int tram_offer_release(tram_offer *offer) {
    if (!offer)
        return 0;
    int status = runtime_enter(offer->runtime);
    if (!status)
        status = tram_loop_call_soon_threadsafe(loop_of(offer), release_call, offer, release_discard);
    return status == TRAM_ESTATE ? 0 : status; /* freed with the runtime, whose workers have ended */
}

/* ---- Making ---- */

static int offer_error(struct kept_error *ret_error, int code) {
    ret_error->error = (tram_error){.code = code, .operation = "offer_listeners", .option = option_of(code)};
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
    struct kept_error *error = tram__runtime_error();
    if (tram__runtime_ends(runtime))
        return offer_error(error, TRAM_ESTATE);
    tram_offer *offer = tram__memory_get_zero(&runtime->allocator, offer_size(count));
    if (!offer)
        return offer_error(error, -ENOMEM);
    offer->part.ops = &offer_part_ops;
    list_init(&offer->part.link);
    offer->runtime = runtime;
    offer->options = *options;
    offer->options.discard = NULL; /* on failure `arg` stays the caller's */
    offer->address = *address;
    offer->count = count;
    for (size_t i = 0; i < count; i++) {
        offer->servers[i].server = servers[i].server;
        memcpy(offer->servers[i].name, servers[i].name, strlen(servers[i].name));
    }
    hold_servers(offer);
    int status = offer_open(offer, error);
    if (!status) {
        status = tram__runtime_add_part(runtime, &offer->part);
        if (status)
            offer_error(error, status);
    }
    if (status) {
        offer_free(offer);
        return status;
    }
    if (offer->part.late)
        status = tram_loop_call_soon_threadsafe(loop_of(offer), begin_call, offer, NULL);
    if (status == -ENOMEM) {
        tram__runtime_release_part(runtime, &offer->part);
        return offer_error(error, status);
    }
    offer->options.discard = options->discard;
    *ret_offer = offer; /* also where the runtime has just ended */
    return 0;
}

static int check(const tram_runtime *runtime, const tram_offered *servers, size_t count,
                 const tram_offer_options *options) {
    if (reserved_used(options))
        return tram__invalid("reserved");
    if (!servers || !count || count > UINT32_MAX)
        return tram__invalid(servers ? "count" : "servers");
    for (size_t i = 0; i < count; i++) {
        if (!servers[i].server || servers[i].server->shards.runtime != runtime)
            return tram__invalid("servers");
        if (reserved_used(&servers[i]))
            return tram__invalid("reserved");
        size_t length = servers[i].name ? strnlen(servers[i].name, TRAM_LISTENER_NAME_SIZE) : 0;
        if (!length || length == TRAM_LISTENER_NAME_SIZE)
            return tram__invalid("name");
    }
    return 0;
}

int tram_runtime_offer_listeners(tram_runtime *runtime, const void *path, size_t path_size, const tram_offered *servers,
                                 size_t count, const tram_offer_options *options, tram_offer **ret_offer,
                                 tram_error *ret_error) {
    static const tram_offer_options defaults;
    int status = runtime_enter(runtime);
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
        error = &tram__runtime_error()->error;
        status = offer_new(runtime, &address, servers, count, options, &offer);
    }
    if (status && ret_error)
        *ret_error = *error;
    if (!status && ret_offer)
        *ret_offer = offer;
    return status;
}
