/*
 * The server: what it listens to, what it accepts, how it closes.
 *
 * Its memory stays while anyone holds it (the user, an operation), while it is not closed, and while it has
 * connections; tram__server_put() and on_detach() are the two places where the last of these may go.
 */
#include "transports/server/server.h"
#include "core/base/probes.h"
#include "transports/base/state.h"
#include "transports/proxy/header_layer.h"
#include "transports/socket/socket.h"
#include "transports/stream/stream.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* ---- Memory ---- */

static size_t listeners_size(size_t count) {
    return sizeof(struct listeners) + count * sizeof(struct listener);
}

static void listeners_dispose(tram_loop *loop, struct deferred_free *deferred) {
    struct listeners *listeners = container_of(deferred, struct listeners, deferred);
    memory_put(&loop->allocator, listeners, listeners_size(listeners->count));
}

/* ---- Connections ---- */

static tram_server *server_of(struct transport_owner *owner) {
    return container_of(owner, tram_server, owner);
}

static inline void count_out(tram_server *server) {
    if (server->load)
        balance_count(server->load, -1);
    server->connections--;
    server->holds++;
    tram__server_wake(server);
    tram__server_put(server);
}

static void on_detach(struct transport_owner *owner, tram_transport *transport) {
    (void)transport;
    count_out(server_of(owner));
}

/* The same with limits. */
static void limited_on_detach(struct transport_owner *owner, tram_transport *transport) {
    tram_server *server = server_of(owner);
    const struct transport_end *end = &transport->end;
    limits_leave_source(server->limits, &transport->peer);
    if (transport->limits == &server->limits->write) /* which a held transport may outlive */
        transport->limits = &tram__write_limits;
    if (end->reason == END_WRITE_LIMIT)
        tram__limits_count(server->tally, transport->io.loop, LIMIT_WRITE);
    count_out(server);
}

/* A connection that could not be served concerns nobody else: it is reported in debug mode only (V-13). */
__attribute__((noinline)) static void discard_accepted(tram_server *server, const struct accepted_socket *accepted,
                                                       int code, const char *operation) {
    tram_loop *loop = server->loop;
    const tram_error *error = tram__raised(loop, code, operation);
    loop->sys->close(accepted->fd);
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

/* The same of one that is counted here already. */
static void discard_counted(tram_server *server, const struct accepted_socket *accepted, int code,
                            const char *operation) {
    if (server->load)
        balance_count(server->load, -1);
    if (server->limits)
        limits_leave(server->limits, accepted->peer);
    discard_accepted(server, accepted, code, operation);
}

/* How connections of a server are made; a constant in each place, so that a plain one pays for nothing. */
enum serving {
    SERVE_PLAIN,
    SERVE_ANY, /* with limits, TLS or both */
};

static bool has_layers(const tram_server *server) {
    return server->tls.config || server->proxy_timeout_ns;
}

/* A header of the PROXY protocol comes first, where one is believed. */
static int expect_header(tram_server *server, tram_transport *transport) {
    if (!server->proxy_timeout_ns)
        return 0;
    const tram_socket_address *peer = tram_transport_get_extra_info(transport, "peername", NULL);
    if (server->proxy_trusts && (!peer || !server->proxy_trusts(peer)))
        return 0;
    return tram__proxy_push(transport, server->proxy_timeout_ns);
}

/*
 * What stands before connection_made: a header, then TLS. Where that cannot be the transport never was: counted out by
 * its owner, or here.
 */
static int secure(tram_server *server, tram_transport *transport) {
    struct tls_problem problem = {0};
    struct tls_watcher *watcher = limits_handshake_watcher(server->limits);
    int status = expect_header(server, transport);
    if (!status && server->tls.config)
        status = tram__tls_use_push(&server->tls, transport, watcher, NULL, 0, &problem);
    if (status == 0)
        return 0;
    if (watcher)
        limits_leave_handshake(server->limits, &transport->peer); /* which never began */
    tram__transport_withdraw(transport);
    if (server->loop->debug)
        tram__log(server->loop, TRAM_LOG_DEBUG, "the beginning of an incoming connection: %s",
                  problem.text[0] ? problem.text : tram_error_text(status));
    return 0;
}

ALWAYS_INLINE static int make_stream(tram_server *server, const struct accepted_socket *accepted,
                                     tram_protocol *protocol, enum serving how) {
    struct transport_options options = {
        .peer = accepted->peer, .peer_size = accepted->peer_size, .owner = &server->owner};
    tram_transport *transport;
    int status =
        how == SERVE_ANY && server->limits && server->limits->expires
            ? tram__expiry_stream_new(&server->expiries, server->loop, accepted->fd, protocol, &options, &transport)
            : tram__transport_new(server->loop, &tram__stream_kind, accepted->fd, protocol, &options, &transport);
    if (unlikely(status < 0))
        return status;
    server->connections++;
    if (how == SERVE_PLAIN)
        return 0;
    if (server->limits)
        transport->limits = &server->limits->write;
    return has_layers(server) ? secure(server, transport) : 0;
}

/* One that is counted here. */
ALWAYS_INLINE static void serve(tram_server *server, const struct accepted_socket *accepted, enum serving how) {
    tram_loop *loop = server->loop;
    tram_protocol *protocol = NULL;
    server->holds++; /* the factory may close the server and let go of it */
    int status = tram__protocol_make(loop, server->factory, server->arg, &protocol);
    if (unlikely(status < 0)) {
        discard_counted(server, accepted, status, "protocol_factory");
    } else {
        status = make_stream(server, accepted, protocol, how);
        if (unlikely(status < 0)) {
            tram__protocol_release_soon(loop, protocol);
            discard_counted(server, accepted, status, "accept");
        }
    }
    if (unlikely(--server->holds == 0))
        tram__server_free_if_over(server);
}

/* Counted here already, and whatever the server has. */
static void serve_any(tram_server *server, const struct accepted_socket *accepted) {
    serve(server, accepted, SERVE_ANY);
}

ALWAYS_INLINE static void serve_here(tram_server *server, const struct accepted_socket *accepted) {
    if (server->load)
        balance_count(server->load, 1);
    serve(server, accepted, SERVE_PLAIN);
}

/* ---- Where there is TLS and no limit ---- */

static void serve_secured_here(tram_server *server, const struct accepted_socket *accepted) {
    if (server->load)
        balance_count(server->load, 1);
    serve_any(server, accepted);
}

/* ---- Where there are limits ---- */

/* One too many. Its client learns so at once, and nothing of it stays in the kernel. */
static void reject(tram_server *server, const struct accepted_socket *accepted, enum limit limit) {
    tram_loop *loop = server->loop;
    struct linger linger = {.l_onoff = 1};
    tram__limits_count(server->tally, loop, limit); /* whoever sees the reset finds it counted */
    loop->sys->setsockopt(accepted->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    loop->sys->close(accepted->fd);
    if (loop->debug)
        tram__log(loop, TRAM_LOG_DEBUG, "a connection was refused: the limit of %s is reached",
                  limit == LIMIT_HANDSHAKES ? "handshakes of its source"
                  : limit == LIMIT_SOURCE   ? "its source"
                  : limit == LIMIT_WORKER   ? "the worker"
                                            : "the server");
}

static enum limit overfull(const tram_server *server) {
    const tram_server_limits *bounds = &server->limits->bounds;
    if (bounds->max_connections && server->connections >= bounds->max_connections)
        return LIMIT_CONNECTIONS;
    return bounds->max_per_worker && server->connections >= bounds->max_per_worker ? LIMIT_WORKER : LIMIT_NONE;
}

/* Reserves room for one that got in by its source; `ret_here`: it is to be served here. */
static enum limit place_connection(tram_server *server, const struct accepted_socket *accepted, bool hand_over,
                                   bool *ret_here) {
    if (server->load)
        return tram__balance_place(server->load, accepted, hand_over, ret_here);
    *ret_here = true;
    return overfull(server);
}

static void admit(tram_server *server, const struct accepted_socket *accepted, bool hand_over) {
    int entered = tram__limits_enter(server->limits, accepted->peer);
    if (entered != LIMIT_NONE) {
        if (entered >= 0)
            reject(server, accepted, (enum limit)entered);
        else
            discard_accepted(server, accepted, entered, "accept");
        return;
    }
    bool here;
    enum limit limit = place_connection(server, accepted, hand_over, &here);
    if (limit != LIMIT_NONE) {
        limits_leave(server->limits, accepted->peer);
        reject(server, accepted, limit);
    } else if (here) {
        serve_any(server, accepted);
    }
}

/* ---- Accepting ---- */

static void report_accept(struct listener *listener, int code, const char *message, const char *detail) {
    tram_error error = {.code = code, .operation = "accept", .detail = detail};
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
    listener->starved = tram__io_accept_start(&listener->io) != 0;
    if (listener->starved)
        tram__deadline_start_after(loop, deadline, TRAM_ACCEPT_RETRY_NS);
}

/* Which limit it was. */
static const char *exhaustion_text(int code, char *text, size_t size) {
    struct rlimit limit;
    if (code == -EMFILE && getrlimit(RLIMIT_NOFILE, &limit) == 0)
        snprintf(text, size, "this process may have %llu descriptors (ulimit -n, LimitNOFILE=)",
                 (unsigned long long)limit.rlim_cur);
    else if (code == -ENFILE)
        snprintf(text, size, "the limit of all processes together is reached (fs.file-max)");
    else
        return NULL;
    return text;
}

/* Told the first time, and then ever more seldom, until there was enough for a minute. */
static void report_starving(struct listener *listener, int code) {
    uint64_t now = tram__clock(listener->io.loop);
    if (now - listener->starved_ns > TRAM_STARVED_LONG_NS)
        listener->starvations = 0;
    listener->starved_ns = now;
    unsigned count = ++listener->starvations;
    if (count & (count - 1))
        return;
    char text[128];
    report_accept(listener, code, "accept is out of system resources", exhaustion_text(code, text, sizeof text));
}

/*
 * One timer, however often it is noticed before the timer has run (V-11). Should even the timer find no memory, the
 * listener goes on without a pause. False: it pauses already.
 */
static bool pause_accepting(struct listener *listener, uint64_t pause_ns) {
    tram_loop *loop = listener->io.loop;
    if (listener->starved)
        return false;
    if (tram__deadline_start_after(loop, &listener->retry, pause_ns) == 0) {
        listener->starved = true;
        tram__io_accept_stop(&listener->io);
    }
    stats_add(&loop->stats.accept_pauses, 1);
    return true;
}

static void starve(struct listener *listener, int code) {
    if (pause_accepting(listener, TRAM_ACCEPT_RETRY_NS))
        report_starving(listener, code);
}

/*
 * A failure that takes the connection with it happens once. One that comes again is the listener's own: it was shut
 * down, or is refused by a policy, and that may last (V-12).
 */
static void accept_failed(struct listener *listener, int code) {
    unsigned before = listener->failures;
    if (listener->failures < TRAM_ACCEPT_DOUBLINGS + 1)
        listener->failures++;
    if (!before)
        report_accept(listener, code, "accept failed", NULL);
    else if (pause_accepting(listener, TRAM_ACCEPT_RETRY_NS << (before - 1)))
        report_accept(listener, code, "accept keeps failing", NULL);
}

static inline void on_accepted(struct listener *listener, int fd, const struct sockaddr_storage *peer,
                               socklen_t peer_size) {
    tram_server *server = listener->server;
    listener->failures = 0;
    struct accepted_socket accepted = {.fd = fd, .peer = peer, .peer_size = peer_size};
    if (!server->load || !balance_hand_over(server->load, &accepted))
        serve_here(server, &accepted);
}

static bool is_exhaustion(int code) {
    return code == -EMFILE || code == -ENFILE || code == -ENOBUFS || code == -ENOMEM;
}

static void io_accepted(struct io *io, int result, const struct sockaddr_storage *peer, socklen_t peer_size) {
    struct listener *listener = container_of(io, struct listener, io);
    if (likely(result >= 0))
        on_accepted(listener, result, peer, peer_size);
    else if (is_exhaustion(result))
        starve(listener, result);
    else
        accept_failed(listener, result);
}

static void secured_accepted(struct io *io, int result, const struct sockaddr_storage *peer, socklen_t peer_size) {
    struct listener *listener = container_of(io, struct listener, io);
    tram_server *server = listener->server;
    struct accepted_socket accepted = {.fd = result, .peer = peer, .peer_size = peer_size};
    if (unlikely(result < 0)) {
        io_accepted(io, result, peer, peer_size);
        return;
    }
    listener->failures = 0;
    if (!server->load || !balance_hand_over(server->load, &accepted))
        serve_secured_here(server, &accepted);
}

static void limited_accepted(struct io *io, int result, const struct sockaddr_storage *peer, socklen_t peer_size) {
    struct listener *listener = container_of(io, struct listener, io);
    struct accepted_socket accepted = {.fd = result, .peer = peer, .peer_size = peer_size};
    if (unlikely(result < 0)) {
        io_accepted(io, result, peer, peer_size);
        return;
    }
    listener->failures = 0;
    admit(listener->server, &accepted, true);
}

static uint32_t accept_limit(const struct io *io) {
    return ((const struct listener *)(const void *)io)->server->accept_limit;
}

static const struct io_kind listener_kind = {
    .name = "listener",
    .accepted = io_accepted,
    .accept_limit = accept_limit,
};

static const struct io_kind secured_listener_kind = {
    .name = "listener",
    .accepted = secured_accepted,
    .accept_limit = accept_limit,
};

static const struct io_kind limited_listener_kind = {
    .name = "listener",
    .accepted = limited_accepted,
    .accept_limit = accept_limit,
};

static void serve_rest(tram_server *server, const struct accepted_socket *accepted) {
    if (server->limits)
        admit(server, accepted, false);
    else if (has_layers(server))
        serve_secured_here(server, accepted);
    else
        serve_here(server, accepted);
}

/* False: there is nobody more, or the server has closed meanwhile. */
static bool accept_next(struct listener *listener) {
    tram_loop *loop = listener->io.loop;
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int fd = loop->sys->accept4(listener->io.fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        bool goes_on = errno == ECONNABORTED || errno == EINTR;
        if (!goes_on && errno != EAGAIN && !listener->starved)
            report_accept(listener, -errno, "accept failed while the server closed", NULL);
        return goes_on;
    }
    stats_add(&loop->stats.accepted, 1);
    PROBE3(accept, loop, listener->io.fd, fd);
    struct accepted_socket accepted = {.fd = fd, .peer = &peer, .peer_size = size};
    serve_rest(listener->server, &accepted);
    return io_added(&listener->io);
}

/*
 * Serves here whoever got through to the kernel before a close (V-17). The queue is as long as the backlog; what comes
 * while it is emptied need not be served, so the end is certain.
 */
static void accept_rest(struct listener *listener) {
    int backlog = listener->server->backlog;
    int left = MAX(backlog, TRAM_BACKLOG_RUNTIME);
    while (accept_next(listener) && left)
        left--;
}

/* ---- As one of several shards ---- */

static void arrived(struct worker_load *load, const struct accepted_socket *accepted) {
    tram_server *server = load->server; /* also where it was closed meanwhile: the client got through before (V-17) */
    if (server->limits || has_layers(server))
        serve_any(server, accepted);
    else
        serve(server, accepted, SERVE_PLAIN);
}

static void poll_accept_queue(struct worker_load *load) {
    struct listeners *listeners = load->server->listeners;
    load->server->holds++;
    for (size_t i = 0; load->server->listeners == listeners && listeners && i < listeners->count; i++)
        accept_rest(&listeners->items[i]);
    tram__server_put(load->server);
}

/* ---- Beginning ---- */

static void listener_open(struct listener *listener) {
    tram_server *server = listener->server;
    const struct sys *sys = server->loop->sys;
    int fd = listener->io.fd, on = 1;
    listener->retry.expire = retry_expired;
    tram__socket_forbid_linger(sys, fd);
    listener->address.size = sizeof listener->address.address;
    if (sys->getsockname(fd, (struct sockaddr *)&listener->address.address, &listener->address.size) < 0)
        listener->address.size = 0;
    /* Accepted sockets inherit both, which saves a system call for each of them. */
    int family = address_family(&listener->address);
    if (family == AF_INET || family == AF_INET6)
        sys->setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (server->keep_alive)
        sys->setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

int tram__server_adopt(tram_server *server, const int *fds, size_t count) {
    tram_loop *loop = server->loop;
    struct listeners *listeners = tram__memory_get_zero(&loop->allocator, listeners_size(count));
    if (!listeners)
        return -ENOMEM;
    listeners->count = count;
    const struct io_kind *kind = server->limits       ? &limited_listener_kind
                                 : has_layers(server) ? &secured_listener_kind
                                                      : &listener_kind;
    int status = 0;
    size_t added = 0;
    while (added < count && !status) {
        status = tram__io_add(&listeners->items[added].io, loop, kind, fds[added]);
        added += status == 0;
    }
    if (status) {
        while (added)
            tram__io_remove(&listeners->items[--added].io);
        listeners_dispose(loop, &listeners->deferred);
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        listeners->items[i].server = server;
        if (server->exclusive)
            listeners->items[i].io.flags |= IO_EXCLUSIVE;
        listener_open(&listeners->items[i]);
    }
    server->listeners = listeners;
    tram__server_move(server, SERVER_BIND);
    return 0;
}

int tram__server_serve(tram_server *server, struct kept_error *ret_error) {
    if (server->life == SERVER_SERVING)
        return 0;
    struct listeners *listeners = server->listeners;
    for (size_t i = 0; i < listeners->count; i++) {
        int status = tram__listener_listen(server->loop->sys, listeners->items[i].io.fd, server->backlog, ret_error);
        if (status)
            return status;
    }
    for (size_t i = 0; i < listeners->count; i++) {
        struct listener *listener = &listeners->items[i];
        int status = tram__io_accept_start(&listener->io);
        if (status)
            return tram__address_error(ret_error, status, "watch", &listener->address);
    }
    tram__server_move(server, SERVER_SERVE);
    return 0;
}

static void server_ending(struct close_hook *hook, enum shutdown_mode ending) {
    tram_server *server = container_of(hook, tram_server, hook);
    server->holds++;
    if (server->opening)
        server->opening(server);
    if (ending == IO_SHUTDOWN_NOW) {
        tram__server_shut(server, false);
        tram__server_wake(server); /* it may have been closed before */
        tram__server_drop_ops(server);
        list_remove(&server->hook.link);
        server->loop = NULL;
    } else {
        tram__server_shut(server, true);
    }
    tram__server_put(server);
}

static struct tls_wishes tls_wishes_of(const tram_server_options *options) {
    return (struct tls_wishes){
        .config = options->tls,
        .server = true,
        .handshake_timeout_ns = options->tls_handshake_timeout_ns,
        .shutdown_timeout_ns = options->tls_shutdown_timeout_ns,
    };
}

const char *tram__server_wrong_layers(const tram_server_options *options) {
    if (!options->proxy_protocol && (options->proxy_timeout_ns || options->proxy_trusts))
        return options->proxy_timeout_ns ? "proxy_timeout_ns" : "proxy_trusts";
    if (!options->tls && options->limits && options->limits->max_handshakes_per_source)
        return "max_handshakes_per_source";
    const struct tls_wishes tls = tls_wishes_of(options);
    return tram__tls_wrong_option(&tls);
}

/* The balance's, or its own. */
static int find_limits(tram_server *server, const tram_server_limits *wanted) {
    int status = 0;
    if (server->load)
        server->limits = server->load->balance->limits;
    else if (wanted)
        status = tram__limits_new(&server->allocator, wanted, 1, &server->limits);
    if (!server->limits)
        return status;
    server->tally = &server->limits->tally[server->load ? server->load - server->load->balance->workers : 0];
    server->owner.on_detach = limited_on_detach;
    if (server->limits->expires)
        tram__expiries_init(&server->expiries, server->limits, server->tally, &server->owner, &server->allocator);
    return 0;
}

int tram__server_alloc(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_server_options *options,
                       struct worker_load *load, tram_server **ret_server) {
    tram_server *server = transport_state_open(loop) ? NULL : tram__memory_get_zero(&loop->allocator, sizeof *server);
    if (!server)
        return -ENOMEM;
    server->owner = (struct transport_owner){.on_detach = on_detach, .root = &server->owner};
    server->loop = loop;
    server->allocator = loop->allocator;
    server->load = load;
    const struct tls_wishes tls = tls_wishes_of(options);
    int status = tram__tls_use_open(&tls, &server->tls);
    if (!status)
        status = find_limits(server, options->limits);
    if (status) {
        tram__tls_use_close(&server->tls);
        memory_put(&loop->allocator, server, sizeof *server);
        return status;
    }
    server->factory = factory;
    server->arg = arg;
    server->life = SERVER_MAKING;
    server->backlog = options->backlog ? options->backlog : TRAM_BACKLOG;
    uint32_t waiting = (uint32_t)server->backlog + 1;
    uint32_t budget = options->accept_budget;
    uint32_t most = MIN(waiting, TRAM_ACCEPTS_PER_TICK);
    server->accept_limit = budget && budget < waiting ? budget : most;
    server->exclusive = options->shard == TRAM_SHARD_SHARED;
    server->keep_alive = options->keep_alive;
    server->proxy_trusts = options->proxy_trusts;
    if (options->proxy_protocol)
        server->proxy_timeout_ns = options->proxy_timeout_ns ? options->proxy_timeout_ns : TRAM_PROXY_TIMEOUT_NS;
    list_init(&server->waiting);
    list_init(&server->starting);
    loop_add_close_hook(loop, &server->hook, server_ending);
    *ret_server = server;
    return 0;
}

/* The sockets go back to the caller. */
static void give_back(tram_server *server) {
    struct listeners *listeners = server->listeners;
    server->listeners = NULL;
    for (size_t i = 0; i < listeners->count; i++)
        tram__io_remove(&listeners->items[i].io);
    tram__loop_free_later(server->loop, &listeners->deferred, listeners_dispose);
}

int tram__server_new(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_server_options *options,
                     struct worker_load *load, const int *fds, size_t count, tram_server **ret_server,
                     struct kept_error *ret_error) {
    static const struct balance_ops balance_ops = {.arrived = arrived, .poll_accept_queue = poll_accept_queue};
    tram_server *server;
    int status = tram__server_alloc(loop, factory, arg, options, load, &server);
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
        tram__balance_open(load, server, &balance_ops);
        *ret_server = server;
        return 0;
    }
    tram__server_move(server, SERVER_DROP);
    tram__server_put(server);
    return status;
}

/* ---- Closing ---- */

void tram__server_shut(tram_server *server, bool serve_rest) {
    if (server->life >= SERVER_CLOSING)
        return;
    tram_loop *loop = server->loop;
    struct listeners *listeners = server->listeners;
    bool was_serving = server->life == SERVER_SERVING;
    /* Whoever took the sockets over serves what waits there, and has the files. */
    bool given = server->load && tram__balance_closing(server->load);
    server->holds++;
    server->listeners = NULL;
    tram__server_move(server, SERVER_CLOSE);
    if (server->load)
        balance_close(server->load);
    for (size_t i = 0; listeners && i < listeners->count; i++) {
        struct listener *listener = &listeners->items[i];
        int fd = listener->io.fd;
        deadline_cancel(loop, &listener->retry);
        if (!given)
            tram__socket_file_remove(loop, &listener->address, &listener->file);
        if (serve_rest && was_serving && !given && !loop->closed)
            accept_rest(listener);
        tram__io_remove(&listener->io);
        if (!server->not_ours)
            loop->sys->close(fd);
    }
    if (listeners)
        tram__loop_free_later(loop, &listeners->deferred, listeners_dispose);
    if (server->load && listeners && listeners->count)
        tram__balance_notify_peers(server->load);
    if (server->load)
        balance_closed(server->load);
    if (server->forever)
        list_append(&server->waiting, &server->forever->link);
    tram__server_move(server, SERVER_END);
    tram__server_wake(server);
    tram__server_put(server);
}

void tram__server_leave(tram_server *server) {
    if (server->load)
        tram__balance_leave(server->load);
    if (server->connections)
        return;
    /* Its user may hold it longer than the runtime's server lives, which these belong to. */
    server->load = NULL;
    server->limits = NULL;
    server->tally = NULL;
}
