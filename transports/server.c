/*
 * The server: what it listens to, what it accepts, how it closes.
 *
 * Its memory stays while anyone holds it (the user, an operation), while it is not closed, and while it has
 * connections; tram__server_put() and detached() are the two places where the last of these may go.
 */
#include "transports/server.h"
#include "core/probes.h"
#include "transports/stream.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>

/* ---- Memory ---- */

static size_t listeners_size(size_t count) {
    return sizeof(struct listeners) + count * sizeof(struct listener);
}

static void listeners_dispose(tram_loop *loop, struct grave *grave) {
    struct listeners *listeners = container_of(grave, struct listeners, grave);
    memory_put(&loop->allocator, listeners, listeners_size(listeners->count));
}

/* ---- Connections ---- */

static tram_server *server_of(struct transport_owner *owner) {
    return container_of(owner, tram_server, owner);
}

static void attached(struct transport_owner *owner, tram_transport *transport) {
    (void)transport;
    server_of(owner)->connections++;
}

static void detached(struct transport_owner *owner, tram_transport *transport) {
    (void)transport;
    tram_server *server = server_of(owner);
    if (server->place)
        balance_count(server->place, -1);
    server->connections--;
    server->holds++;
    tram__server_wake(server);
    tram__server_put(server);
}

/* A connection that could not be served concerns nobody else: it is reported in debug mode only (V-13). */
__attribute__((noinline)) static void refuse(tram_server *server, int fd, int code, const char *operation) {
    tram_loop *loop = server->loop;
    const tram_error *error = tram__raised(loop, code, operation);
    if (server->place)
        balance_count(server->place, -1);
    loop->sys->close(fd);
    tram__server_wake(server); /* it may have been the last one that a closed server waited for */
    if (!loop->debug)
        return;
    tram_exception exception = {
        .message = "error on transport creation for an incoming connection",
        .error = error,
        .server = server,
        .fd = -1,
    };
    tram__report(loop, &exception);
}

/* One that is counted here. */
static inline void serve(tram_server *server, const struct guest *guest) {
    tram_loop *loop = server->loop;
    tram_protocol *protocol = NULL;
    server->holds++; /* the factory may close the server and let go of it */
    int status = tram__protocol_make(loop, server->factory, server->arg, &protocol);
    if (unlikely(status < 0)) {
        refuse(server, guest->fd, status, "protocol_factory");
    } else {
        struct stream_options options = {
            .peer = guest->peer,
            .peer_size = guest->peer_size,
            .no_delay_set = guest->no_delay,
            .owner = &server->owner,
        };
        status = tram__stream_new(loop, guest->fd, protocol, &options, NULL);
        if (unlikely(status < 0)) {
            tram__protocol_release_soon(loop, protocol);
            refuse(server, guest->fd, status, "accept");
        }
    }
    tram__server_put(server);
}

static inline struct guest guest_of(const struct listener *listener, int fd, const struct sockaddr_storage *peer,
                                    socklen_t peer_size) {
    return (struct guest){.fd = fd, .no_delay = listener->no_delay, .peer = peer, .peer_size = peer_size};
}

static inline void serve_here(tram_server *server, const struct guest *guest) {
    if (server->place)
        balance_count(server->place, 1);
    serve(server, guest);
}

/* ---- Accepting ---- */

static void report_accept(struct listener *listener, int code, const char *message) {
    tram_error error = {.code = code, .operation = "accept"};
    tram_exception exception = {
        .message = message,
        .error = &error,
        .server = listener->server,
        .fd = listener->io.fd,
    };
    tram__report(listener->io.loop, &exception);
}

static void retry_expired(tram_loop *loop, struct deadline *deadline) {
    struct listener *listener = container_of(deadline, struct listener, retry);
    listener->starved = false;
    if (tram__io_accept_start(&listener->io, listener->server->accept_limit) == 0)
        return;
    listener->starved = true;
    tram__deadline_start(loop, deadline, tram__clock(loop) + TRAM_ACCEPT_RETRY_NS);
}

/* One report and one timer, however often it is noticed before the timer has run (V-11). */
static void starve(struct listener *listener, int code) {
    tram_loop *loop = listener->io.loop;
    if (listener->starved)
        return;
    /* Should even the timer find no memory, the listener goes on without a pause. */
    if (tram__deadline_start(loop, &listener->retry, tram__clock(loop) + TRAM_ACCEPT_RETRY_NS) == 0) {
        listener->starved = true;
        tram__io_accept_stop(&listener->io);
    }
    stats_add(&loop->stats.accept_pauses, 1);
    report_accept(listener, code, "accept is out of system resources");
}

static inline void welcome(struct listener *listener, int fd, const struct sockaddr_storage *peer,
                           socklen_t peer_size) {
    tram_server *server = listener->server;
    struct guest guest = guest_of(listener, fd, peer, peer_size);
    if (!server->place || !balance_hand_over(server->place, &guest))
        serve_here(server, &guest);
}

static bool is_exhaustion(int code) {
    return code == -EMFILE || code == -ENFILE || code == -ENOBUFS || code == -ENOMEM;
}

static void accepted(struct io *io, int result, const struct sockaddr_storage *peer, socklen_t peer_size) {
    struct listener *listener = container_of(io, struct listener, io);
    if (likely(result >= 0))
        welcome(listener, result, peer, peer_size);
    else if (is_exhaustion(result))
        starve(listener, result);
    else
        report_accept(listener, result, "accept failed");
}

static const struct io_kind listener_kind = {
    .name = "listener",
    .accepted = accepted,
};

/*
 * Serves here whoever got through to the kernel before a close (V-17). The queue is as long as the backlog; what comes
 * while it is emptied need not be served, so the end is certain.
 */
static void accept_rest(struct listener *listener) {
    tram_server *server = listener->server;
    tram_loop *loop = listener->io.loop;
    int longest = server->backlog > TRAM_BACKLOG_RUNTIME ? server->backlog : TRAM_BACKLOG_RUNTIME;
    for (int i = 0; i <= longest; i++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        int fd = loop->sys->accept4(listener->io.fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            stats_add(&loop->stats.accepted, 1);
            PROBE3(accept, loop, listener->io.fd, fd);
            struct guest guest = guest_of(listener, fd, &peer, size);
            serve_here(server, &guest);
            if (!io_added(&listener->io))
                return;
            continue;
        }
        if (errno == ECONNABORTED || errno == EINTR)
            continue;
        if (errno != EAGAIN && !listener->starved)
            report_accept(listener, -errno, "accept failed while the server closed");
        return;
    }
}

/* ---- Beginning ---- */

static void listener_open(struct listener *listener) {
    tram_server *server = listener->server;
    const struct sys *sys = server->loop->sys;
    int fd = listener->io.fd, on = 1;
    listener->retry.expire = retry_expired;
    listener->address.size = sizeof listener->address.address;
    if (sys->getsockname(fd, (struct sockaddr *)&listener->address.address, &listener->address.size) < 0)
        listener->address.size = 0;
    /* Accepted sockets inherit both, which saves a system call for each of them. */
    int family = address_family(&listener->address);
    if (family == AF_INET || family == AF_INET6)
        listener->no_delay = sys->setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0;
    if (server->keep_alive)
        sys->setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

int tram__server_adopt(tram_server *server, const int *fds, size_t count) {
    tram_loop *loop = server->loop;
    struct listeners *listeners = tram__memory_get_zero(&loop->allocator, listeners_size(count));
    if (!listeners)
        return -ENOMEM;
    listeners->count = count;
    int status = 0;
    size_t added = 0;
    while (added < count && !status) {
        status = tram__io_add(&listeners->items[added].io, loop, &listener_kind, fds[added]);
        added += status == 0;
    }
    if (status) {
        while (added)
            tram__io_remove(&listeners->items[--added].io);
        listeners_dispose(loop, &listeners->grave);
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        listeners->items[i].server = server;
        if (server->exclusive)
            listeners->items[i].io.flags |= IO_EXCLUSIVE;
        listener_open(&listeners->items[i]);
    }
    server->listeners = listeners;
    return 0;
}

int tram__server_serve(tram_server *server, struct kept_error *ret_error) {
    if (server->serving)
        return 0;
    struct listeners *listeners = server->listeners;
    for (size_t i = 0; i < listeners->count; i++) {
        int status = tram__listener_listen(server->loop->sys, listeners->items[i].io.fd, server->backlog, ret_error);
        if (status)
            return status;
    }
    for (size_t i = 0; i < listeners->count; i++) {
        struct listener *listener = &listeners->items[i];
        int status = tram__io_accept_start(&listener->io, server->accept_limit);
        if (status)
            return tram__address_error(ret_error, status, "watch", &listener->address);
    }
    server->serving = true;
    return 0;
}

static void server_ending(struct seat *seat, enum io_ending ending) {
    tram_server *server = container_of(seat, tram_server, seat);
    server->holds++;
    if (server->opening)
        server->opening(server);
    if (ending == IO_ENDING_DROP) {
        tram__server_shut(server, false);
        tram__server_drop_ops(server);
        list_remove(&server->seat.link);
        server->loop = NULL;
    } else {
        tram__server_shut(server, true);
    }
    tram__server_put(server);
}

int tram__server_alloc(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_server_options *options,
                       tram_server **ret_server) {
    tram_server *server = tram__memory_get_zero(&loop->allocator, sizeof *server);
    if (!server)
        return -ENOMEM;
    server->owner = (struct transport_owner){.attached = attached, .detached = detached};
    server->loop = loop;
    server->allocator = loop->allocator;
    server->factory = factory;
    server->arg = arg;
    server->backlog = options->backlog ? options->backlog : TRAM_BACKLOG;
    uint32_t waiting = (uint32_t)server->backlog + 1;
    uint32_t budget = options->accept_budget;
    server->accept_limit = budget && budget < waiting ? budget : waiting;
    server->exclusive = options->shard == TRAM_SHARD_SHARED;
    server->keep_alive = options->keep_alive;
    list_init(&server->waiting);
    list_init(&server->starting);
    loop_seat(loop, &server->seat, server_ending);
    *ret_server = server;
    return 0;
}

/* The sockets go back to the caller. */
static void give_back(tram_server *server) {
    struct listeners *listeners = server->listeners;
    server->listeners = NULL;
    for (size_t i = 0; i < listeners->count; i++)
        tram__io_remove(&listeners->items[i].io);
    tram__loop_bury(server->loop, &listeners->grave, listeners_dispose);
}

int tram__server_new(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_server_options *options,
                     const int *fds, size_t count, tram_server **ret_server, struct kept_error *ret_error) {
    tram_server *server;
    int status = tram__server_alloc(loop, factory, arg, options, &server);
    if (status) {
        ret_error->error = (tram_error){.code = status, .operation = "create_server"};
        return status;
    }
    server->holds = 1;
    status = tram__server_adopt(server, fds, count);
    if (status) {
        ret_error->error = (tram_error){.code = status, .operation = "create_server"};
    } else if (!options->defer_serving) {
        status = tram__server_serve(server, ret_error);
        if (status)
            give_back(server);
    }
    if (!status) {
        *ret_server = server;
        return 0;
    }
    server->closed = true;
    tram__server_put(server);
    return status;
}

/* ---- Closing ---- */

void tram__server_shut(tram_server *server, bool serve_rest) {
    if (server->closed)
        return;
    tram_loop *loop = server->loop;
    struct listeners *listeners = server->listeners;
    bool was_serving = server->serving;
    /* Whoever took the sockets over serves what waits there, and has the files. */
    bool given = server->place && tram__balance_closing(server->place);
    server->holds++;
    server->closed = true;
    server->serving = false;
    server->listeners = NULL;
    if (server->place)
        balance_close(server->place);
    for (size_t i = 0; listeners && i < listeners->count; i++) {
        struct listener *listener = &listeners->items[i];
        int fd = listener->io.fd;
        deadline_cancel(loop, &listener->retry);
        if (!given)
            tram__socket_file_remove(loop, &listener->address, &listener->file);
        if (serve_rest && was_serving && !given && !loop->closed)
            accept_rest(listener);
        tram__io_remove(&listener->io);
        loop->sys->close(fd);
    }
    if (listeners)
        tram__loop_bury(loop, &listeners->grave, listeners_dispose);
    if (server->place && listeners && listeners->count)
        tram__balance_call_others(server->place);
    if (server->place)
        balance_closed(server->place);
    if (server->forever)
        list_append(&server->waiting, &server->forever->link);
    tram__server_wake(server);
    tram__server_put(server);
}

/* ---- As one of several shards ---- */

static void arrived(struct balance_place *place, const struct guest *guest) {
    serve(place->server, guest); /* also where it was closed meanwhile: the client got through before (V-17) */
}

static void look(struct balance_place *place) {
    struct listeners *listeners = place->server->listeners;
    place->server->holds++;
    for (size_t i = 0; place->server->listeners == listeners && listeners && i < listeners->count; i++)
        accept_rest(&listeners->items[i]);
    tram__server_put(place->server);
}

void tram__server_join(tram_server *server, struct balance_place *place) {
    static const struct balance_ops ops = {.arrived = arrived, .look = look};
    server->place = place;
    tram__balance_open(place, server, &ops);
}

void tram__server_leave(tram_server *server) {
    if (server->place)
        tram__balance_leave(server->place);
}

/* ---- The public face ---- */

/* A server may be held longer than its loop lives. */
static int enter(const tram_server *server, const char *function) {
    return server->loop ? loop_enter(server->loop, function) : TRAM_ESTATE;
}

int tram_server_close(tram_server *server) {
    if (server->closed)
        return 0;
    int status = enter(server, __func__);
    if (!status)
        tram__server_shut(server, true);
    return status;
}

tram_server *tram_server_hold(tram_server *server) {
    if (!server->loop || loop_enter(server->loop, __func__) == 0)
        server->holds++;
    return server;
}

void tram_server_release(tram_server *server) {
    if (server && (!server->loop || loop_enter(server->loop, __func__) == 0))
        tram__server_put(server);
}

static void close_client(tram_transport *transport, void *arg) {
    (void)arg;
    tram__transport_part(transport);
}

static void abort_client(tram_transport *transport, void *arg) {
    (void)arg;
    tram_transport_abort(transport);
}

int tram_server_close_clients(tram_server *server) {
    int status = enter(server, __func__);
    if (!status)
        tram__transport_each(server->loop, &server->owner, close_client, NULL);
    return status;
}

int tram_server_abort_clients(tram_server *server) {
    int status = enter(server, __func__);
    if (!status)
        tram__transport_each(server->loop, &server->owner, abort_client, NULL);
    return status;
}

bool tram_server_is_serving(const tram_server *server) {
    return enter(server, __func__) == 0 && server->serving;
}

tram_loop *tram_server_get_loop(const tram_server *server) {
    return server->loop;
}

size_t tram_server_connection_count(const tram_server *server) {
    return enter(server, __func__) == 0 ? server->connections : 0;
}

size_t tram_server_sockets(const tram_server *server, tram_socket *ret_sockets, size_t count) {
    if (enter(server, __func__) || !server->listeners)
        return 0;
    const struct listeners *listeners = server->listeners;
    for (size_t i = 0; i < listeners->count && i < count; i++) {
        const struct listener *listener = &listeners->items[i];
        int family = address_family(&listener->address);
        ret_sockets[i] = (tram_socket){
            .fileno = listener->io.fd,
            .family = family,
            .type = SOCK_STREAM,
            .protocol = family == AF_INET || family == AF_INET6 ? IPPROTO_TCP : 0,
        };
    }
    return listeners->count;
}

int tram_server_sockname(const tram_server *server, size_t index, tram_socket_address *ret_address) {
    int status = enter(server, __func__);
    if (status)
        return status;
    if (!server->listeners || index >= server->listeners->count)
        return TRAM_EVALUE;
    *ret_address = server->listeners->items[index].address;
    return 0;
}
