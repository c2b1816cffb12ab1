/*
 * loop.create_datagram_endpoint: the operation is its own future. It looks the names up, opens the socket, which never
 * takes time, and makes protocol and transport. Whatever ends it goes through cancel_pending().
 */
#include <errno.h>
#include <string.h>

#include "core/base/invalid.h"
#include "transports/base/protocol_adapter.h"
#include "transports/base/state.h"
#include "transports/datagram/datagram.h"
#include "transports/datagram/open.h"
#include "transports/socket/file.h"
#include "transports/socket/lookup.h"
#include "transports/socket/socket.h"

struct creator {
    tram_future future;
    struct close_hook hook;
    tram_protocol_factory factory;
    void *arg;
    tram_discard discard; /* of `arg`, once the factory will not be called */
    bool not_ours;        /* the socket is not closed whatever happens */
    struct datagram_plan plan;
    bool receive_ttl, receive_tos;
    struct lookup local;
    struct lookup remote;
    unsigned lookups;          /* not answered yet */
    tram_transport *transport; /* once it is made, until the future is done */
};

static void creator_cancel(tram_future *future);
static void creator_destroy(tram_future *future);

static const struct future_kind creator_kind = {.name = "create_datagram_endpoint",
                                                .value = FUTURE_VALUE_TRANSPORT,
                                                .cancel = creator_cancel,
                                                .destroy = creator_destroy};

static tram_loop *loop_of(const struct creator *creator) {
    return creator->future.loop;
}

/* ---- Ending ---- */

static void cancel_pending(struct creator *creator) {
    list_remove(&creator->hook.link);
    tram__lookup_end(&creator->local);
    tram__lookup_end(&creator->remote);
}

/* Once: the factory was called, or never will be. */
static void discard_arg(struct creator *creator) {
    tram_discard discard = creator->discard;
    creator->discard = NULL;
    if (discard)
        discard(creator->arg);
}

static void creator_destroy(tram_future *future) {
    discard_arg((struct creator *)future);
}

static void close_socket(struct creator *creator, int fd) {
    if (!creator->not_ours)
        loop_of(creator)->sys->close(fd);
}

static void fail(struct creator *creator, const tram_error *error) {
    cancel_pending(creator);
    tram__future_fail(&creator->future, error);
    tram__future_drop(&creator->future);
}

static void cancel_now(struct creator *creator) {
    cancel_pending(creator);
    tram__future_finish_cancelled(&creator->future);
    tram__future_drop(&creator->future);
}

static void creator_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending >= IO_SHUTDOWN_CLOSE)
        cancel_now(container_of(hook, struct creator, hook));
}

/* Once the transport is made it is the one that holds the future; made and lost come as a pair or not at all. */
static void creator_cancel(tram_future *future) {
    struct creator *creator = (struct creator *)future;
    tram_transport *transport = creator->transport;
    if (!transport) {
        cancel_now(creator);
        return;
    }
    tram__future_finish_cancelled(future);
    if (!tram__transport_withdraw(transport))
        tram_transport_close(transport);
}

/* ---- Making ---- */

/* Makes protocol and transport of an open socket, which is closed if that fails. */
static void attach(struct creator *creator, int fd, const struct datagram_setup *given) {
    tram_loop *loop = loop_of(creator);
    cancel_pending(creator);
    /* The factory may cancel the operation. */
    tram_future_hold(&creator->future);
    tram_protocol *protocol = NULL;
    int status = tram__protocol_make(loop, creator->factory, creator->arg, &protocol);
    discard_arg(creator);
    if (creator->future.state != FUTURE_PENDING) {
        if (!status)
            tram__protocol_release_soon(loop, protocol);
        close_socket(creator, fd);
    } else if (status < 0) {
        close_socket(creator, fd);
        fail(creator, tram__raised(loop, status, "protocol_factory"));
    } else {
        struct datagram_setup setup = *given;
        setup.creator = &creator->future;
        status = tram__datagram_new(loop, fd, protocol, &setup, &creator->transport);
        if (status < 0) {
            tram_error error = {.code = status, .operation = "create_datagram_endpoint"};
            tram__protocol_release_soon(loop, protocol);
            close_socket(creator, fd);
            fail(creator, &error);
        } else {
            if (creator->not_ours)
                creator->transport->flags |= T_NOT_OURS;
            tram__future_drop(&creator->future); /* the transport has one of its own */
        }
    }
    tram__future_drop(&creator->future);
}

static void open_and_attach(struct creator *creator) {
    tram_socket_address remote;
    struct kept_error error;
    creator->plan.local = creator->local.list.count ? &creator->local.list : NULL;
    creator->plan.remote = creator->remote.list.count ? &creator->remote.list : NULL;
    int fd = tram__datagram_open(loop_of(creator)->sys, &creator->plan, &remote, &error);
    if (fd < 0) {
        fail(creator, &error.error);
        return;
    }
    struct datagram_setup setup = {
        .remote = remote.size ? &remote : NULL,
        .connected = remote.size && !creator->plan.allow_broadcast,
        .ours = true,
        .receive_ttl = creator->receive_ttl,
        .receive_tos = creator->receive_tos,
    };
    if (setup.connected)
        setup.peer = &remote;
    attach(creator, fd, &setup);
}

/* ---- Beginning ---- */

static void looked_up(struct creator *creator, const tram_error *error) {
    if (error)
        fail(creator, error);
    else if (--creator->lookups == 0)
        open_and_attach(creator);
}

static void local_found(struct lookup *lookup, const tram_error *error) {
    looked_up(container_of(lookup, struct creator, local), error);
}

static void remote_found(struct lookup *lookup, const tram_error *error) {
    looked_up(container_of(lookup, struct creator, remote), error);
}

static int look_up_one(struct creator *creator, struct lookup *lookup, const struct lookup_query *query,
                       void (*found)(struct lookup *lookup, const tram_error *error)) {
    if (!query->host && !query->port)
        return 0;
    int status = tram__lookup_start(lookup, loop_of(creator), query, found);
    creator->lookups += status == 0;
    return MIN(status, 0);
}

/* Asks for all names; what needs no asking is there at once. */
static int look_up(struct creator *creator, const tram_datagram_options *options) {
    struct lookup_query query = datagram_local_query(options);
    int status = look_up_one(creator, &creator->local, &query, local_found);
    query.host = options->remote_host;
    query.port = options->remote_port;
    query.any = false;
    return status ? status : look_up_one(creator, &creator->remote, &query, remote_found);
}

static int use_paths(struct creator *creator, const tram_datagram_options *options) {
    const tram_allocator *allocator = &loop_of(creator)->allocator;
    struct address_list *local = &creator->local.list, *remote = &creator->remote.list;
    if (!options->local_path && !options->remote_path)
        return 0;
    local->allocator = remote->allocator = allocator;
    int status =
        tram__datagram_add_path(local, "local_path", options->local_path, options->local_path_size, options->protocol);
    if (status)
        return status;
    status = tram__datagram_add_path(remote, "remote_path", options->remote_path, options->remote_path_size,
                                     options->protocol);
    if (!status && options->local_path)
        tram__socket_file_remove_stale(loop_of(creator), &local->items[0].address);
    return status;
}

static int creator_new(tram_loop *loop, tram_protocol_factory factory, void *arg, tram_future **ret_future,
                       struct creator **ret_creator) {
    struct creator *creator;
    int status = transport_state_open(loop);
    if (!status)
        status = tram__future_new(loop, &creator_kind, sizeof *creator, &creator);
    if (status)
        return status;
    creator->factory = factory;
    creator->arg = arg;
    loop_add_close_hook(loop, &creator->hook, creator_ending);
    if (ret_future)
        *ret_future = tram_future_hold(&creator->future);
    *ret_creator = creator;
    return 0;
}

/* Nobody has seen the operation yet: it never was. */
static int abort_creation(struct creator *creator, int status, tram_future **ret_future) {
    cancel_pending(creator);
    creator->discard = NULL; /* `arg` stays the caller's */
    if (ret_future) {
        tram_future_release(*ret_future);
        *ret_future = NULL;
    }
    tram__future_drop(&creator->future);
    return status;
}

static int use_socket(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_datagram_options *options,
                      tram_future **ret_future) {
    int fd = *options->sock, status = tram__socket_take(loop, fd, SOCK_DGRAM);
    if (status)
        return status;
    struct creator *creator;
    status = creator_new(loop, factory, arg, ret_future, &creator);
    if (status)
        return status;
    creator->discard = options->discard;
    creator->not_ours = options->not_ours;
    /* A peer may be without a name, and is one all the same (D-11). */
    tram_socket_address peer = {.size = sizeof peer.address};
    struct datagram_setup setup = {
        .connected = loop->sys->getpeername(fd, (struct sockaddr *)&peer.address, &peer.size) == 0,
        .receive_ttl = options->receive_ttl,
        .receive_tos = options->receive_tos,
    };
    if (setup.connected)
        setup.peer = &peer;
    attach(creator, fd, &setup);
    return 0;
}

int tram_loop_create_datagram_endpoint(tram_loop *loop, tram_protocol_factory factory, void *arg,
                                       const tram_datagram_options *options, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    /* There is no endpoint without any choice (D-3). */
    status = check_option(!factory ? "factory" : !options ? "options" : tram__datagram_wrong_option(options));
    if (status)
        return status;
    if (options->sock)
        return use_socket(loop, factory, arg, options, ret_future);

    struct creator *creator;
    status = creator_new(loop, factory, arg, ret_future, &creator);
    if (status)
        return status;
    creator->discard = options->discard;
    creator->receive_ttl = options->receive_ttl;
    creator->receive_tos = options->receive_tos;
    creator->plan = (struct datagram_plan){
        .family = options->family,
        .protocol = options->protocol,
        .sharing = options->reuse_port ? PORT_SHARED : PORT_ALONE,
        .allow_broadcast = options->allow_broadcast,
    };
    status = use_paths(creator, options);
    if (!status)
        status = look_up(creator, options);
    if (status)
        return abort_creation(creator, status, ret_future);
    if (!creator->lookups)
        open_and_attach(creator);
    return 0;
}
