/*
 * Connecting: the operation of loop.create_connection, which comes by create.c. What is connected already comes by
 * adopt.c.
 *
 * The operation is its own future and goes one way: look the names up, try the addresses (attempts.h), make protocol
 * and transport. What the caller gets when all attempts failed is decided at the end (C-9, C-10). A try that failed may
 * be followed by another, in fail_try(). What is under way ends with a move of its life: leave().
 */
#include <errno.h>
#include <stdio.h>

#include "core/base/life.h"
#include "core/jobs/future.h"
#include "core/loop/report.h"
#include "transports/base/handover.h"
#include "transports/base/held.h"
#include "transports/base/state.h"
#include "transports/connect/attempts.h"
#include "transports/connect/connector.h"
#include "transports/connect/retry.h"
#include "transports/proxy/header_layer.h"
#include "transports/socket/lookup.h"
#include "transports/socket/socket.h"
#include "transports/socket/tcp.h"
#include "transports/stream/stream.h"
#include <tram/connection.h>

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

    struct attempts attempts; /* of this try */
    bool all_errors;
    bool not_ours; /* the socket is not closed whatever happens */
    struct deadline timeout;
    struct retry retry;
    struct deadline again; /* of the next try */

    struct tls_use tls;
    struct held *held;         /* for the transport; NULL: none */
    tram_detached *detached;   /* what there is besides, until the transport is made; NULL: nothing */
    tram_transport *transport; /* once it is made */
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
    TRAM_ASSERT(connector->life == CONNECTOR_TRYING || !connector->attempts.active);
    TRAM_ASSERT(!connector->transport == (connector->life != CONNECTOR_MADE));
}

static const struct life_table life = {.name = "connector", .states = states, .validate = validate};

static void move(struct connector *connector, enum connector_move move) {
    tram__life_move(&life, &connector->life, move, connector);
}

/* ---- Ending ---- */

/* Ends whatever is under way, with a move; the future is left to be completed. */
static void leave(struct connector *connector, enum connector_move how) {
    tram_loop *loop = loop_of(connector);
    list_remove(&connector->hook.link);
    tram__lookup_end(&connector->remote);
    tram__lookup_end(&connector->local);
    deadline_cancel(loop, &connector->timeout);
    deadline_cancel(loop, &connector->again);
    tram__attempts_end(&connector->attempts);
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

static void connector_destroy(tram_future *future) {
    struct connector *connector = (struct connector *)future;
    tram__held_free(future->loop, connector->held);
    tram__held_free(future->loop, connector->attempts.first);
    tram__tls_use_close(&connector->tls);
    discard_arg(connector);
    memory_put(&future->loop->allocator, connector->names, connector->names_size);
    tram__attempts_fini(&connector->attempts);
}

/* What failed meanwhile tells more than the clock. */
static void timeout_expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct connector *connector = container_of(deadline, struct connector, timeout);
    struct combined_error last;
    char text[TRAM_ERROR_TEXT];
    tram__failures_combine(&connector->attempts.failures, false, &last);
    const char *detail = last.error.detail;
    snprintf(text, sizeof text, "no connection within the time that was given%s%s", detail ? "; " : "",
             detail ? detail : "");
    tram__failures_combined_free(connector->attempts.failures.allocator, &last);
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

static void all_failed(struct attempts *attempts) {
    struct connector *connector = container_of(attempts, struct connector, attempts);
    struct combined_error error;
    const tram_allocator *allocator = attempts->failures.allocator;
    tram__failures_combine(&attempts->failures, connector->all_errors, &error);
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
    struct held *first = connector->attempts.first;
    if (!first)
        return true;
    if (first->taken)
        tram__transport_count_sent(connector->transport, first->taken);
    struct iovec piece = {.iov_base = first->bytes + first->taken, .iov_len = held_left(first)};
    int status = tram__transport_carry(connector->transport, &piece, 1, false);
    if (status)
        undo(connector,
             &(tram_error){.code = status, .operation = connector->attempts.fast_open ? "early_data" : "proxy_header"});
    return !status;
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

static void reached(struct attempts *attempts, int fd, const tram_socket_address *peer) {
    attach(container_of(attempts, struct connector, attempts), fd, peer);
}

static void begin_connecting(struct connector *connector) {
    int status = tram__attempts_begin(&connector->attempts);
    if (status)
        fail_code(connector, status, "create_connection", NULL);
}

/* ---- Beginning ---- */

static void looked_up(struct connector *connector, const tram_error *error) {
    if (error) {
        tram__failures_add(&connector->attempts.failures, 0, error->code, error->operation, "%s",
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
    return MIN(status, 0);
}

/* Asks for all names; what needs no asking is there at once. 0 or a negative code. */
static int look_up(struct connector *connector) {
    int status = start_lookup(connector, &connector->remote, &connector->remote_query, remote_found);
    if (!status && connector->attempts.local)
        status = start_lookup(connector, &connector->local, &connector->local_query, local_found);
    return status;
}

static void again_expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct connector *connector = container_of(deadline, struct connector, again);
    tram__attempts_clear(&connector->attempts);
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
    if (options->local_host || options->local_port)
        connector->attempts.local = &connector->local.list;
    if (!connector->retry.left)
        return 0;
    return tram__lookup_keep(&connector->remote_query, &connector->local_query, &loop_of(connector)->allocator,
                             &connector->names, &connector->names_size);
}

static const struct future_kind connector_kind = {
    .name = "create_connection",
    .value = FUTURE_VALUE_TRANSPORT,
    .cancel = connector_cancel,
    .destroy = connector_destroy,
};

static int connector_new(tram_loop *loop, tram_protocol_factory factory, void *arg, tram_future **ret_future,
                         struct connector **ret_connector) {
    struct connector *connector;
    int status = transport_state_open(loop);
    if (!status)
        status = tram__future_new(loop, &connector_kind, sizeof *connector, &connector);
    if (status)
        return status;
    connector->life = CONNECTOR_TRYING;
    connector->factory = factory;
    connector->arg = arg;
    connector->timeout.expire = timeout_expired;
    connector->again.expire = again_expired;
    tram__attempts_init(&connector->attempts, &connector->future);
    connector->attempts.connected = reached;
    connector->attempts.failed = all_failed;
    connector->attempts.remote = &connector->remote.list;
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

/* What comes before connection_made, copied. 0 or -ENOMEM. */
static int take_wishes(struct connector *connector, const struct socket_wishes *wishes) {
    tram_loop *loop = loop_of(connector);
    if (wishes->proxy_header) {
        connector->attempts.first = tram__proxy_bytes(loop, wishes->proxy_header);
        if (!connector->attempts.first)
            return -ENOMEM;
    }
    if (wishes->early_size &&
        tram__held_append(loop, &connector->attempts.first, wishes->early_data, wishes->early_size))
        return -ENOMEM;
    connector->attempts.fast_open = wishes->early_size;
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

int tram__connect_names(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *host, const char *port,
                        const tram_connection_options *options, const struct socket_wishes *wishes,
                        tram_future **ret_future) {
    struct connector *connector;
    int status = connector_new(loop, factory, arg, ret_future, &connector);
    if (status)
        return status;
    struct attempts *attempts = &connector->attempts;
    attempts->race = options->happy_eyeballs_delay_ns && options->happy_eyeballs_delay_ns != TRAM_FOREVER;
    attempts->stagger_ns = options->happy_eyeballs_delay_ns;
    attempts->interleave = options->interleave;
    attempts->keep_alive = options->keep_alive;
    attempts->transparent = options->transparent;
    attempts->tcp = options->tcp;
    connector->all_errors = options->all_errors;
    connector->discard = options->discard;
    tram__retry_init(&connector->retry, &options->retry);
    status = keep_queries(connector, host, port, options);
    if (!status)
        status = look_up(connector);
    if (!status)
        status = take_wishes(connector, wishes);
    if (!status && options->timeout_ns)
        status = tram__deadline_start_after(loop, &connector->timeout, options->timeout_ns);
    if (status)
        return abort_creation(connector, status, ret_future);
    if (!connector->lookups)
        begin_connecting(connector);
    return 0;
}
