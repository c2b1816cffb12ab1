/*
 * Connecting: loop.create_connection. What is connected already comes by adopt.c.
 *
 * The operation is its own future and goes one way: look the names up, try the addresses (in turn, or as a staggered
 * race), make protocol and transport. Every attempt that fails leaves a record; what the caller gets when all did is
 * decided at the end (C-9, C-10). A try that failed may be followed by another, in fail_try(). What is under way ends
 * with a move of its life: leave().
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/base/life.h"
#include "core/jobs/future.h"
#include "core/loop/report.h"
#include "transports/base/handover.h"
#include "transports/base/held.h"
#include "transports/connect/connector.h"
#include "transports/connect/failures.h"
#include "transports/connect/retry.h"
#include "transports/proxy/header_layer.h"
#include "transports/socket/lookup.h"
#include "transports/socket/socket.h"
#include "transports/socket/tcp.h"
#include "transports/stream/stream.h"
#include <tram/connection.h>

struct connector;

enum connector_life {
    CONNECTOR_NONE,
    CONNECTOR_TRYING, /* names are looked up, attempts are under way, or the next one or the next try is due */
    CONNECTOR_MAKING, /* there is a connected socket: protocol and transport are made */
    CONNECTOR_MADE,   /* the transport has the future: it is done after connection_made, or never was */
    CONNECTOR_OVER,   /* it failed or was cancelled, and nothing of it is under way */
};

enum connector_move {
    CONNECTOR_MAKE,   /* a socket has connected, or was given */
    CONNECTOR_ATTACH, /* the transport is made */
    CONNECTOR_END,    /* a failure, a cancel, the deadline, or the end of the loop */
};

/* One socket on its way to one address. */
struct attempt {
    struct io io;
    struct deferred_free deferred;
    struct connector *connector;
    size_t sent_early; /* of what is sent first, with the packet that connects */
};

/* Those of one try, one per remote address. */
struct attempts {
    struct deferred_free deferred;
    size_t count;
    struct attempt items[];
};

struct connector {
    tram_future future;
    struct close_hook hook;
    tram_protocol_factory factory;
    void *arg;
    tram_discard discard; /* of `arg`, once the factory will not be called */
    uint8_t life;         /* enum connector_life */

    struct lookup_query remote_query;
    struct lookup_query local_query;
    char *names; /* of both; NULL: the caller's, there for one call, or the address was given */
    size_t names_size;
    struct lookup remote;
    struct lookup local;
    unsigned lookups; /* not answered yet */
    bool bind_local;

    bool race;
    bool all_errors;
    bool keep_alive;
    bool transparent;
    tram_tcp_options tcp;
    bool fast_open;
    bool not_ours; /* the socket is not closed whatever happens */
    int interleave;
    uint64_t stagger_ns;
    struct deadline stagger; /* of the next attempt in a race */
    struct deadline timeout;
    struct retry retry;
    struct deadline again; /* of the next try */

    struct attempts *attempts; /* of this try; NULL: not yet */
    size_t started;
    size_t active;
    struct failures failures; /* of this try, or the last one */

    struct tls_use tls;
    struct held *held;         /* for the transport; NULL: none */
    tram_detached *detached;   /* what there is besides, until the transport is made; NULL: nothing */
    struct held *first;        /* sent before all else: a header of the PROXY protocol, early data; NULL: nothing */
    tram_transport *transport; /* once it is made */
};

static void connector_cancel(tram_future *future);
static void connector_destroy(tram_future *future);

static const struct future_kind connector_kind = {
    .name = "create_connection",
    .value = FUTURE_VALUE_TRANSPORT,
    .cancel = connector_cancel,
    .destroy = connector_destroy,
};

static void attempt_ready(struct io *io, unsigned events);

static const struct io_kind attempt_kind = {
    .name = "connect",
    .ready = attempt_ready,
};

static tram_loop *loop_of(const struct connector *connector) {
    return connector->future.loop;
}

/* ---- Its life ---- */

static const struct life_state states[] = {
    [CONNECTOR_TRYING] = {"trying", {[CONNECTOR_MAKE] = CONNECTOR_MAKING, [CONNECTOR_END] = CONNECTOR_OVER}},
    [CONNECTOR_MAKING] = {"making", {[CONNECTOR_ATTACH] = CONNECTOR_MADE, [CONNECTOR_END] = CONNECTOR_OVER}},
    [CONNECTOR_MADE] = {.name = "made"},
    [CONNECTOR_OVER] = {.name = "over"},
};

static void validate(const void *object) {
    const struct connector *connector = object;
    TRAM_ASSERT(connector->life == CONNECTOR_TRYING || !connector->active);
    TRAM_ASSERT(!connector->transport == (connector->life != CONNECTOR_MADE));
}

static const struct life_table life = {.name = "connector", .states = states, .validate = validate};

static void move(struct connector *connector, enum connector_move move) {
    tram__life_move(&life, &connector->life, move, connector);
}

/* ---- Ending ---- */

/* An event of this tick may still name the attempt: the operation that contains it stays until the tick ends. */
static void attempt_dispose(tram_loop *loop, struct deferred_free *deferred) {
    (void)loop;
    tram__future_drop(&container_of(deferred, struct attempt, deferred)->connector->future);
}

/* Takes the descriptor away from the attempt. */
static int attempt_leave(struct attempt *attempt) {
    struct connector *connector = attempt->connector;
    int fd = attempt->io.fd;
    tram__io_remove(&attempt->io);
    connector->active--;
    tram_future_hold(&connector->future);
    tram__loop_free_later(loop_of(connector), &attempt->deferred, attempt_dispose);
    return fd;
}

/* Ends whatever is under way, with a move; the future is left to be completed. */
static void leave(struct connector *connector, enum connector_move how) {
    tram_loop *loop = loop_of(connector);
    list_remove(&connector->hook.link);
    tram__lookup_end(&connector->remote);
    tram__lookup_end(&connector->local);
    deadline_cancel(loop, &connector->stagger);
    deadline_cancel(loop, &connector->timeout);
    deadline_cancel(loop, &connector->again);
    for (size_t i = 0; i < connector->started; i++)
        if (io_added(&connector->attempts->items[i].io))
            loop->sys->close(attempt_leave(&connector->attempts->items[i]));
    move(connector, how);
}

static void fail(struct connector *connector, const tram_error *error) {
    leave(connector, CONNECTOR_END);
    tram__future_fail(&connector->future, error);
    tram__future_drop(&connector->future);
}

static void fail_code(struct connector *connector, int code, const char *operation, const char *detail) {
    tram_error error = {.code = code, .operation = operation, .detail = detail};
    fail(connector, &error);
}

static void cancel_now(struct connector *connector) {
    leave(connector, CONNECTOR_END);
    tram__future_finish_cancelled(&connector->future);
    tram__future_drop(&connector->future);
}

static void connector_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending >= IO_SHUTDOWN_CLOSE)
        cancel_now(container_of(hook, struct connector, hook));
}

/* Once the transport is made it is the one that holds the future; made and lost come as a pair or not at all (C-11). */
static void connector_cancel(tram_future *future) {
    struct connector *connector = (struct connector *)future;
    if (connector->life != CONNECTOR_MADE) {
        cancel_now(connector);
        return;
    }
    tram__future_finish_cancelled(future);
    if (!tram__transport_withdraw(connector->transport))
        tram_transport_close(connector->transport);
}

/* Once: the factory was called, or never will be. */
static void discard_arg(struct connector *connector) {
    tram_discard discard = connector->discard;
    connector->discard = NULL;
    if (discard)
        discard(connector->arg);
}

static void attempts_free(const tram_allocator *allocator, struct attempts *attempts) {
    if (attempts)
        memory_put(allocator, attempts, sizeof *attempts + attempts->count * sizeof *attempts->items);
}

static void connector_destroy(tram_future *future) {
    struct connector *connector = (struct connector *)future;
    const tram_allocator *allocator = &future->loop->allocator;
    tram__failures_clear(&connector->failures);
    tram__held_free(future->loop, connector->held);
    tram__held_free(future->loop, connector->first);
    tram__tls_use_close(&connector->tls);
    discard_arg(connector);
    memory_put(allocator, connector->names, connector->names_size);
    attempts_free(allocator, connector->attempts);
}

/* What failed meanwhile tells more than the clock. */
static void timeout_expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct connector *connector = container_of(deadline, struct connector, timeout);
    struct combined_error last;
    char text[TRAM_ERROR_TEXT];
    tram__failures_combine(&connector->failures, false, &last);
    const char *detail = last.error.detail;
    snprintf(text, sizeof text, "no connection within the time that was given%s%s", detail ? "; " : "",
             detail ? detail : "");
    tram__failures_combined_free(connector->failures.allocator, &last);
    fail_code(connector, TRAM_ETIMEOUT, "create_connection", text);
}

/* ---- Trying again ---- */

/* This try has failed: another one follows in a while, or the operation ends. */
static void fail_try(struct connector *connector, const tram_error *error) {
    tram_loop *loop = loop_of(connector);
    uint64_t delay_ns;
    if (!tram__retry_next(&connector->retry, error, &delay_ns) ||
        tram__deadline_start_after(loop, &connector->again, delay_ns)) {
        fail(connector, error);
        return;
    }
    if (connector->names)
        tram__lookup_end(&connector->remote);
    tram__lookup_end(&connector->local);
    connector->lookups = 0;
    /* At last, since a log function may cancel the operation. */
    tram__log(loop, TRAM_LOG_WARNING, "connecting is tried again in %.2f s: %s", (double)delay_ns * 1e-9,
              error->detail ? error->detail : tram_error_text(error->code));
}

static void fail_all(struct connector *connector) {
    struct combined_error error;
    const tram_allocator *allocator = connector->failures.allocator;
    tram__failures_combine(&connector->failures, connector->all_errors, &error);
    fail_try(connector, &error.error);
    tram__failures_combined_free(allocator, &error);
}

/* ---- Connected ---- */

static void close_socket(struct connector *connector, int fd) {
    if (!connector->not_ours)
        loop_of(connector)->sys->close(fd);
}

/* What the transport needs before connection_made cannot be: it never was, and the operation fails. */
static void undo(struct connector *connector, const tram_error *error) {
    tram__future_fail(&connector->future, error);
    tram__transport_withdraw(connector->transport);
}

/* What it had before it was detached. False: undone. */
static bool restore(struct connector *connector) {
    int status = connector->detached ? tram__detached_give(connector->detached, connector->transport) : 0;
    if (status)
        undo(connector, &(tram_error){.code = status, .operation = "adopt"});
    return !status;
}

/* What comes before the protocol's first byte, but for what went with the packet that connected. False: undone. */
static bool send_first(struct connector *connector) {
    struct held *first = connector->first;
    if (!first)
        return true;
    if (first->taken)
        tram__transport_count_sent(connector->transport, first->taken);
    struct iovec piece = {.iov_base = first->bytes + first->taken, .iov_len = held_left(first)};
    int status = tram__transport_carry(connector->transport, &piece, 1, false);
    if (status < 0)
        undo(connector,
             &(tram_error){.code = status, .operation = connector->fast_open ? "early_data" : "proxy_header"});
    return status >= 0;
}

/* TLS before connection_made, or undone. */
static void secure(struct connector *connector) {
    struct tls_problem problem = {0};
    int status = tram__tls_use_push(&connector->tls, connector->transport, NULL, NULL, 0, &problem);
    if (status)
        undo(connector, &(tram_error){.code = status,
                                      .operation = "create_connection",
                                      .detail = problem.text[0] ? problem.text : NULL,
                                      .option = problem.option});
}

/* Makes protocol and transport of a connected socket, which is closed if that fails (C-12, C-13). */
static void attach(struct connector *connector, int fd, const tram_socket_address *peer) {
    tram_loop *loop = loop_of(connector);
    leave(connector, CONNECTOR_MAKE);
    /* The factory may cancel the operation. */
    tram_future_hold(&connector->future);
    tram_protocol *protocol = NULL;
    int status = tram__protocol_make(loop, connector->factory, connector->arg, &protocol);
    discard_arg(connector);
    if (connector->life == CONNECTOR_OVER) {
        if (!status)
            tram__protocol_release_soon(loop, protocol);
        close_socket(connector, fd);
    } else if (status < 0) {
        close_socket(connector, fd);
        fail(connector, tram__raised(loop, status, "protocol_factory"));
    } else {
        struct stream_options options = {.creator = &connector->future, .held = connector->held};
        if (peer && tram__address_concrete(peer)) {
            options.peer = &peer->address;
            options.peer_size = peer->size;
        }
        status = tram__stream_new(loop, fd, protocol, &options, &connector->transport);
        if (!status && connector->not_ours)
            connector->transport->flags |= T_NOT_OURS;
        connector->held = status ? connector->held : NULL;
        if (status < 0) {
            tram__protocol_release_soon(loop, protocol);
            close_socket(connector, fd);
            fail_code(connector, status, "create_connection", NULL);
        } else {
            move(connector, CONNECTOR_ATTACH);
            if (restore(connector) && send_first(connector) && connector->tls.config)
                secure(connector);
            tram__future_drop(&connector->future); /* the transport has one of its own */
        }
    }
    tram__future_drop(&connector->future);
}

/* ---- Attempts ---- */

static void start_attempts(struct connector *connector);

/*
 * A socket that connects to a local port which nobody listens to may be given that very port and meet itself; to the
 * user that is no server (design notes, names and connects).
 */
static bool met_itself(const tram_socket_address *local, const tram_socket_address *remote) {
    return tram__address_port(local) == tram__address_port(remote) && tram__address_equal(local, remote);
}

static void attempt_ready(struct io *io, unsigned events) {
    (void)events;
    struct attempt *attempt = container_of(io, struct attempt, io);
    struct connector *connector = attempt->connector;
    tram_loop *loop = loop_of(connector);
    size_t index = (size_t)(attempt - connector->attempts->items);
    const tram_socket_address *remote = &connector->remote.list.items[index].address;
    tram_socket_address local = {.size = sizeof local.address}, reached = *remote;
    int error = 0;
    socklen_t size = sizeof error;
    if (loop->sys->getsockopt(io->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        error = errno;
    if (!error && loop->sys->getsockname(io->fd, (struct sockaddr *)&local.address, &local.size) < 0)
        error = errno;
    if (!error && !tram__address_concrete(remote)) { /* the kernel has made an address of this machine of it */
        reached.size = sizeof reached.address;
        if (loop->sys->getpeername(io->fd, (struct sockaddr *)&reached.address, &reached.size) < 0)
            error = errno;
    }
    if (!error && met_itself(&local, &reached))
        error = ECONNREFUSED;
    int fd = attempt_leave(attempt);
    if (!error) {
        tram_socket_address peer = *remote; /* the list ends with the operation */
        if (connector->first)
            connector->first->taken = attempt->sent_early;
        attach(connector, fd, &peer);
        return;
    }
    loop->sys->close(fd);
    tram__failures_add_address(&connector->failures, index, -error, "connect", remote);
    /* In a race the next one has started already, unless this was the latest (C-7). */
    if (index + 1 == connector->started)
        start_attempts(connector);
    else if (!connector->active && connector->started == connector->attempts->count)
        fail_all(connector);
}

/* Binds to the first local address of the family that can be had (C-6). False: none, and the attempt is over. */
static bool bind_local(struct connector *connector, size_t index, int fd, int family) {
    const struct sys *sys = loop_of(connector)->sys;
    bool tried = false;
    for (size_t i = 0; i < connector->local.list.count; i++) {
        const tram_socket_address *local = &connector->local.list.items[i].address;
        if (address_family(local) != family)
            continue;
        tried = true;
        /* Without it the kernel would choose a port that is free for all peers, of which it soon runs out. */
        int on = 1;
        if (!tram__address_port(local))
            sys->setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        else /* an earlier connection from there may be in TIME_WAIT, for a minute */
            sys->setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (sys->bind(fd, (const struct sockaddr *)&local->address, local->size) == 0)
            return true;
        tram__failures_add_address(&connector->failures, index, -errno, "bind", local);
    }
    if (!tried)
        tram__failures_add(&connector->failures, index, -EADDRNOTAVAIL, "bind",
                           "no local address of the family of the remote one");
    return false;
}

/*
 * A Unix socket whose listener's queue is full: the kernel would let a blocking caller wait and tells nobody else when
 * there is room, so the attempt is made again and again until then (L-38). False: no memory for the timer.
 */
static bool attempt_later(struct connector *connector) {
    tram_loop *loop = loop_of(connector);
    if (tram__deadline_start_after(loop, &connector->stagger, TRAM_CONNECT_RETRY_NS))
        return false;
    connector->started--;
    return true;
}

/*
 * With early data the kernel is asked to send it with the SYN. It does that where it has a cookie of the peer's, and
 * asks for one where it has none; where that is not allowed (net.ipv4.tcp_fastopen), connecting is as always.
 */
static int connect_socket(struct connector *connector, struct attempt *attempt, int fd,
                          const struct candidate *remote) {
    const struct sys *sys = loop_of(connector)->sys;
    const struct sockaddr *address = (const struct sockaddr *)&remote->address.address;
    socklen_t size = remote->address.size;
    struct held *first = connector->first;
    if (connector->fast_open && (!remote->protocol || remote->protocol == IPPROTO_TCP)) {
        ssize_t sent;
        do
            sent = sys->sendto(fd, first->bytes, first->size, MSG_FASTOPEN | MSG_NOSIGNAL, address, size);
        while (sent < 0 && errno == EINTR);
        if (sent < 0 && errno == EALREADY) /* the one that was interrupted had begun */
            return -EINPROGRESS;
        attempt->sent_early = sent > 0 ? (size_t)sent : 0;
        if (sent >= 0 || errno != EOPNOTSUPP)
            return sent < 0 ? -errno : 0;
    }
    return sys->connect(fd, address, size) < 0 ? -errno : 0;
}

/* A socket that connects, or one that will try again; false with the reason noted. */
static bool begin_attempt(struct connector *connector, size_t index) {
    tram_loop *loop = loop_of(connector);
    const struct sys *sys = loop->sys;
    const struct candidate *candidate = &connector->remote.list.items[index];
    struct attempt *attempt = &connector->attempts->items[index];
    int family = address_family(&candidate->address);
    int fd = sys->socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, candidate->protocol);
    if (fd < 0) {
        tram__failures_add_address(&connector->failures, index, -errno, "socket", &candidate->address);
        return false;
    }
    int on = 1;
    if (connector->keep_alive)
        sys->setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    int set = tram__tcp_set(sys, fd, &connector->tcp);
    if (set) {
        tram__failures_add_address(&connector->failures, index, set, "setsockopt", &candidate->address);
        sys->close(fd);
        return false;
    }
    if (connector->transparent && tram__socket_set_transparent(sys, fd, family) < 0) {
        tram__failures_add_address(&connector->failures, index, -errno, "IP_TRANSPARENT", &candidate->address);
        sys->close(fd);
        return false;
    }
    if (connector->bind_local && !bind_local(connector, index, fd, family)) {
        sys->close(fd);
        return false;
    }
    int status = connect_socket(connector, attempt, fd, candidate);
    /* Interrupted or not, the connecting goes on behind the scenes. */
    if (!status || status == -EINPROGRESS || status == -EINTR) {
        attempt->connector = connector;
        status = tram__io_add(&attempt->io, loop, &attempt_kind, fd);
        if (!status)
            connector->active++;
        if (!status && !(status = tram__io_watch(&attempt->io, IO_WRITE)))
            return true;
    }
    sys->close(io_added(&attempt->io) ? attempt_leave(attempt) : fd);
    if (status == -EAGAIN && family == AF_UNIX) {
        if (attempt_later(connector))
            return true;
        status = -ENOMEM;
    }
    tram__failures_add_address(&connector->failures, index, status, "connect", &candidate->address);
    return false;
}

static void stagger_expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    start_attempts(container_of(deadline, struct connector, stagger));
}

/* Starts the next attempt that can be started; if none can and none is under way, all is over. */
static void start_attempts(struct connector *connector) {
    tram_loop *loop = loop_of(connector);
    deadline_cancel(loop, &connector->stagger);
    while (connector->started < connector->attempts->count) {
        if (!begin_attempt(connector, connector->started++))
            continue;
        /* Should memory lack for the timer, the next attempt waits for this one to fail. */
        if (connector->race && connector->started < connector->attempts->count)
            tram__deadline_start_after(loop, &connector->stagger, connector->stagger_ns);
        return;
    }
    if (!connector->active)
        fail_all(connector);
}

static void begin_connecting(struct connector *connector) {
    struct address_list *list = &connector->remote.list;
    const tram_allocator *allocator = &loop_of(connector)->allocator;
    size_t first_count = connector->interleave ? (size_t)connector->interleave : connector->race;
    if (first_count && tram__addresses_interleave(list, first_count)) {
        fail_code(connector, -ENOMEM, "create_connection", NULL);
        return;
    }
    size_t size = sizeof(struct attempts) + list->count * sizeof(struct attempt);
    connector->attempts = tram__memory_get_zero(allocator, size);
    if (!connector->attempts) {
        fail_code(connector, -ENOMEM, "create_connection", NULL);
        return;
    }
    connector->attempts->count = list->count;
    start_attempts(connector);
}

/* ---- Beginning ---- */

static void looked_up(struct connector *connector, const tram_error *error) {
    if (error) {
        tram__failures_add(&connector->failures, 0, error->code, error->operation, "%s",
                           error->detail ? error->detail : tram_error_text(error->code));
        fail_try(connector, error);
    } else if (--connector->lookups == 0) {
        begin_connecting(connector);
    }
}

static void remote_found(struct lookup *lookup, const tram_error *error) {
    looked_up(container_of(lookup, struct connector, remote), error);
}

static void local_found(struct lookup *lookup, const tram_error *error) {
    looked_up(container_of(lookup, struct connector, local), error);
}

static int start_lookup(struct connector *connector, struct lookup *lookup, const struct lookup_query *query,
                        void (*done)(struct lookup *lookup, const tram_error *error)) {
    int status = tram__lookup_start(lookup, loop_of(connector), query, done);
    connector->lookups += status == 0;
    return status < 0 ? status : 0;
}

/* Asks for all names; what needs no asking is there at once. 0 or a negative code. */
static int look_up(struct connector *connector) {
    int status = start_lookup(connector, &connector->remote, &connector->remote_query, remote_found);
    if (!status && connector->bind_local)
        status = start_lookup(connector, &connector->local, &connector->local_query, local_found);
    return status;
}

static void attempts_dispose(tram_loop *loop, struct deferred_free *deferred) {
    attempts_free(&loop->allocator, container_of(deferred, struct attempts, deferred));
}

/* Attempts of the last try may wait for the end of this tick, and are ahead of theirs. */
static void again_expired(tram_loop *loop, struct deadline *deadline) {
    struct connector *connector = container_of(deadline, struct connector, again);
    if (connector->attempts)
        tram__loop_free_later(loop, &connector->attempts->deferred, attempts_dispose);
    connector->attempts = NULL;
    connector->started = 0;
    tram__failures_clear(&connector->failures);
    int status = connector->names ? look_up(connector) : 0;
    if (status)
        fail_try(connector, &(tram_error){.code = status, .operation = "getaddrinfo"});
    else if (!connector->lookups)
        begin_connecting(connector);
}

/* What is to be looked up, and again if need be: the caller's texts are there for this call alone. 0 or -ENOMEM. */
static int keep_queries(struct connector *connector, const char *host, const char *port,
                        const tram_connection_options *options) {
    struct lookup_query query = {
        .host = host, .port = port, .family = options->family, .protocol = options->protocol, .flags = options->flags};
    connector->remote_query = connector->local_query = query;
    connector->local_query.host = options->local_host;
    connector->local_query.port = options->local_port;
    connector->local_query.any = true;
    connector->bind_local = options->local_host || options->local_port;
    if (!connector->retry.left)
        return 0;
    const char **texts[] = {&connector->remote_query.host, &connector->remote_query.port, &connector->local_query.host,
                            &connector->local_query.port};
    for (size_t i = 0; i < 4; i++)
        connector->names_size += *texts[i] ? strlen(*texts[i]) + 1 : 0;
    char *end = connector->names = memory_get(&loop_of(connector)->allocator, connector->names_size);
    if (!end)
        return -ENOMEM;
    for (size_t i = 0; i < 4; i++) {
        if (!*texts[i])
            continue;
        char *copy = end;
        end = stpcpy(copy, *texts[i]) + 1;
        *texts[i] = copy;
    }
    return 0;
}

static int connector_new(tram_loop *loop, tram_protocol_factory factory, void *arg, tram_future **ret_future,
                         struct connector **ret_connector) {
    struct connector *connector;
    int status = tram__future_new(loop, &connector_kind, sizeof *connector, &connector);
    if (status)
        return status;
    connector->life = CONNECTOR_TRYING;
    connector->factory = factory;
    connector->arg = arg;
    connector->stagger.expire = stagger_expired;
    connector->timeout.expire = timeout_expired;
    connector->again.expire = again_expired;
    connector->failures.allocator = &loop->allocator;
    loop_add_close_hook(loop, &connector->hook, connector_ending);
    if (ret_future)
        *ret_future = tram_future_hold(&connector->future);
    *ret_connector = connector;
    return 0;
}

/* Nobody has seen the operation yet: it never was. */
static int abort_creation(struct connector *connector, int status, tram_future **ret_future) {
    leave(connector, CONNECTOR_END);
    connector->discard = NULL; /* `arg` stays the caller's */
    if (ret_future) {
        tram_future_release(*ret_future);
        *ret_future = NULL;
    }
    tram__future_drop(&connector->future);
    return status;
}

/* The name to check is the host's unless another is given (C-4). */
static struct tls_wishes tls_wishes_of(const char *host, const tram_connection_options *options) {
    return (struct tls_wishes){
        .config = options->tls,
        .server_hostname = options->server_hostname || !options->tls ? options->server_hostname : host,
        .session = options->tls_session,
        .handshake_timeout_ns = options->tls_handshake_timeout_ns,
        .shutdown_timeout_ns = options->tls_shutdown_timeout_ns,
        .needs_hostname = true,
    };
}

/* The option or argument that makes no sense, or NULL (C-2, C-3). */
static const char *wrong_option(tram_protocol_factory factory, const char *host, const char *port,
                                const tram_connection_options *options) {
    if (!factory)
        return "factory";
    if ((host || port) == (options->sock != NULL))
        return options->sock ? "sock" : "host";
    const struct tls_wishes tls = tls_wishes_of(host, options);
    const char *wrong = tram__tls_wrong_option(&tls);
    if (wrong)
        return wrong;
    if (!tram__family_known(options->family))
        return "family";
    if (options->interleave < 0)
        return "interleave";
    if (options->sock && (options->local_host || options->local_port))
        return "local_host";
    if (options->not_ours && !options->sock)
        return "not_ours";
    if (options->proxy_header && !tram__proxy_possible(options->proxy_header))
        return "proxy_header";
    if (options->early_size && (!options->early_data || options->tls))
        return "early_data";
    if (options->sock && options->retry.limit)
        return "retry.limit";
    wrong = tram__retry_wrong_option(&options->retry);
    if (wrong)
        return wrong;
    wrong = tram__tcp_wrong_option(&options->tcp, false);
    if (wrong)
        return wrong;
    return reserved_used(options) ? "reserved" : NULL;
}

/* What comes before connection_made, copied. 0 or -ENOMEM. */
static int take_wishes(struct connector *connector, const struct socket_wishes *wishes) {
    tram_loop *loop = loop_of(connector);
    if (wishes->proxy_header) {
        connector->first = tram__proxy_bytes(loop, wishes->proxy_header);
        if (!connector->first)
            return -ENOMEM;
    }
    if (wishes->early_size && tram__held_append(loop, &connector->first, wishes->early_data, wishes->early_size))
        return -ENOMEM;
    connector->fast_open = wishes->early_size;
    return tram__tls_use_open(&wishes->tls, &connector->tls);
}

int tram__connect_socket(tram_loop *loop, tram_protocol_factory factory, void *arg, int fd,
                         const struct socket_wishes *wishes, tram_future **ret_future) {
    struct connector *connector;
    int status = tram__socket_take(loop, fd, SOCK_STREAM);
    if (!status && wishes->tcp)
        status = tram__tcp_set(loop->sys, fd, wishes->tcp);
    if (!status)
        status = connector_new(loop, factory, arg, ret_future, &connector);
    if (!status) {
        status = take_wishes(connector, wishes);
        status = status ? abort_creation(connector, status, ret_future) : 0;
    }
    if (status) {
        tram__held_free(loop, wishes->held);
        return status;
    }
    connector->held = wishes->held;
    connector->detached = wishes->detached;
    connector->discard = wishes->discard;
    connector->not_ours = wishes->not_ours;
    int on = 1;
    if (wishes->keep_alive)
        loop->sys->setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    attach(connector, fd, NULL);
    return 0;
}

int tram__connect_address(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_socket_address *address,
                          uint64_t timeout_ns, const tram_retry_options *retry, const struct socket_wishes *wishes,
                          tram_future **ret_future) {
    struct connector *connector;
    int status = connector_new(loop, factory, arg, ret_future, &connector);
    if (status)
        return status;
    connector->discard = wishes->discard;
    tram__retry_init(&connector->retry, retry);
    connector->remote.list.allocator = &loop->allocator;
    status = tram__addresses_add(&connector->remote.list, address, 0);
    if (!status)
        status = take_wishes(connector, wishes);
    if (!status && timeout_ns)
        status = tram__deadline_start_after(loop, &connector->timeout, timeout_ns);
    if (status)
        return abort_creation(connector, status, ret_future);
    begin_connecting(connector);
    return 0;
}

int tram_loop_create_connection(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *host,
                                const char *port, const tram_connection_options *options, tram_future **ret_future) {
    static const tram_connection_options defaults;
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    status = check_option(wrong_option(factory, host, port, options));
    if (status)
        return status;
    const struct socket_wishes wishes = {
        .discard = options->discard,
        .keep_alive = options->keep_alive,
        .not_ours = options->not_ours,
        .tcp = &options->tcp,
        .tls = tls_wishes_of(host, options),
        .proxy_header = options->proxy_header,
        .early_data = options->early_data,
        .early_size = options->early_size,
    };
    if (options->sock)
        return tram__connect_socket(loop, factory, arg, *options->sock, &wishes, ret_future);

    struct connector *connector;
    status = connector_new(loop, factory, arg, ret_future, &connector);
    if (status)
        return status;
    connector->race = options->happy_eyeballs_delay_ns && options->happy_eyeballs_delay_ns != TRAM_FOREVER;
    connector->stagger_ns = options->happy_eyeballs_delay_ns;
    connector->interleave = options->interleave;
    connector->all_errors = options->all_errors;
    connector->keep_alive = options->keep_alive;
    connector->transparent = options->transparent;
    connector->tcp = options->tcp;
    connector->discard = options->discard;
    tram__retry_init(&connector->retry, &options->retry);
    status = keep_queries(connector, host, port, options);
    if (!status)
        status = look_up(connector);
    if (!status)
        status = take_wishes(connector, &wishes);
    if (!status && options->timeout_ns)
        status = tram__deadline_start_after(loop, &connector->timeout, options->timeout_ns);
    if (status)
        return abort_creation(connector, status, ret_future);
    if (!connector->lookups)
        begin_connecting(connector);
    return 0;
}
