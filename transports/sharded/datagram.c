/*
 * A datagram endpoint on every worker: a socket each, on the same address, and the kernel spreads the senders over them
 * (SO_REUSEPORT).
 */
#include <errno.h>

#include "core/base/invalid.h"
#include "transports/base/protocol_adapter.h"
#include "transports/base/state.h"
#include "transports/datagram/datagram.h"
#include "transports/datagram/open.h"
#include "transports/sharded/shards.h"
#include "transports/socket/lookup.h"

struct tram_runtime_datagram_endpoint {
    struct shards shards;
    tram_protocol_factory factory;
    void *arg;
    tram_discard discard; /* of `arg`, with the endpoint; NULL: none */
    bool receive_ttl, receive_tos;
    tram_socket_address sockname;
    struct shard of_worker[];
};

static tram_runtime_datagram_endpoint *endpoint_of(struct shards *shards) {
    return container_of(shards, tram_runtime_datagram_endpoint, shards);
}

static int plain_error(struct kept_error *ret_error, int code) {
    ret_error->error = (tram_error){.code = code, .operation = "create_datagram_endpoint"};
    return code;
}

/* ---- The shards ---- */

static int shard_begin(struct shard *shard, tram_loop *loop, struct kept_error *ret_error) {
    tram_runtime_datagram_endpoint *endpoint = endpoint_of(shard->shards);
    tram_protocol *protocol;
    int status = transport_state_open(loop);
    if (!status)
        status = tram__protocol_make(loop, endpoint->factory, endpoint->arg, &protocol);
    if (status) {
        tram__error_keep(ret_error, tram__raised(loop, status, "protocol_factory"));
        return status;
    }
    struct datagram_setup setup = {
        .ours = true,
        .receive_ttl = endpoint->receive_ttl,
        .receive_tos = endpoint->receive_tos,
    };
    tram_transport *transport;
    status = tram__datagram_new(loop, shard->fds[0], protocol, &setup, &transport);
    if (status) {
        tram__protocol_release_soon(loop, protocol);
        return plain_error(ret_error, status);
    }
    shard->object = tram_transport_hold(transport);
    return 0;
}

static int shard_close(void *object) {
    return tram_transport_close(object);
}

static void shard_release(void *object) {
    tram_transport_release(object);
}

static size_t endpoint_size(unsigned workers) {
    return sizeof(tram_runtime_datagram_endpoint) + workers * sizeof(struct shard);
}

static void shards_free(struct shards *shards) {
    tram_runtime *runtime = shards->runtime;
    tram_runtime_datagram_endpoint *endpoint = endpoint_of(shards);
    tram_discard discard = endpoint->discard;
    void *arg = endpoint->arg;
    tram__shards_fini(shards);
    memory_put(&runtime->allocator, endpoint, endpoint_size(runtime->count));
    if (discard)
        discard(arg);
}

static const struct shard_ops datagram_shard_ops = {
    .operation = "create_datagram_endpoint",
    .create_function = FUNCTION(tram_runtime_create_datagram_endpoint),
    .close_function = FUNCTION(tram_runtime_datagram_endpoint_close),
    .release_function = FUNCTION(tram_runtime_datagram_endpoint_release),
    .begin = shard_begin,
    .close = shard_close,
    .release = shard_release,
    .free = shards_free,
};

/* ---- Opening the sockets ---- */

/* One per worker. What the first was bound to is what all others bind to: port 0 is chosen once. */
static int open_sockets(tram_runtime_datagram_endpoint *endpoint, const tram_datagram_options *options,
                        struct address_list *addresses, struct kept_error *ret_error) {
    tram_runtime *runtime = endpoint->shards.runtime;
    const struct sys *sys = runtime_sys(runtime);
    tram_socket_address none, *bound = &endpoint->sockname;
    enum port_sharing alone = runtime->count > 1 ? PORT_SHARED_LATER : PORT_ALONE;
    struct datagram_plan plan = {
        /* The port must be nobody's but ours, unless it was asked to be shared with other processes. */
        .sharing = options->reuse_port ? PORT_SHARED : alone,
        .allow_broadcast = options->allow_broadcast,
        .local = addresses,
    };
    for (unsigned i = 0; i < runtime->count; i++) {
        int fd = tram__datagram_open(sys, &plan, &none, ret_error);
        if (fd >= 0)
            *shard_fds(&endpoint->shards, i) = fd;
        int status = MIN(fd, 0);
        bound->size = sizeof bound->address;
        if (!status && !i && sys->getsockname(fd, (struct sockaddr *)&bound->address, &bound->size) < 0)
            status = plain_error(ret_error, -errno);
        if (status) {
            for (unsigned opened = 0; opened < i + (fd >= 0); opened++)
                sys->close(*shard_fds(&endpoint->shards, opened));
            return status;
        }
        addresses->items[0].address = *bound;
        addresses->count = 1;
        plan.sharing = PORT_SHARED;
    }
    return 0;
}

static int resolve_and_open(tram_runtime_datagram_endpoint *endpoint, const tram_datagram_options *options,
                            struct kept_error *ret_error) {
    struct address_list addresses = {.allocator = &endpoint->shards.runtime->allocator};
    struct lookup_query query = datagram_local_query(options);
    int status = tram__lookup_wait(&query, &addresses, "create_datagram_endpoint", ret_error);
    if (!status && !addresses.count)
        status = plain_error(ret_error, TRAM_ERESOLVE);
    if (!status)
        status = open_sockets(endpoint, options, &addresses, ret_error);
    tram__addresses_free(&addresses);
    return status;
}

/* ---- Creating ---- */

static const char *wrong_option(tram_protocol_factory factory, const tram_datagram_options *options) {
    if (!factory || !options)
        return factory ? "options" : "factory";
    if (options->sock || options->local_path)
        return options->sock ? "sock" : "local_path";
    if (options->remote_host || options->remote_port || options->remote_path)
        return options->remote_path ? "remote_path" : options->remote_host ? "remote_host" : "remote_port";
    if (!options->local_host && !options->local_port)
        return "local_port";
    return tram__datagram_wrong_option(options);
}

static int create(tram_runtime *runtime, tram_protocol_factory factory, void *arg, const tram_datagram_options *options,
                  tram_runtime_datagram_endpoint **ret_endpoint) {
    struct kept_error *error = tram__runtime_error();
    if (tram__runtime_ends(runtime))
        return plain_error(error, TRAM_ESTATE);
    tram_runtime_datagram_endpoint *endpoint =
        tram__memory_get_zero(&runtime->allocator, endpoint_size(runtime->count));
    if (!endpoint)
        return plain_error(error, -ENOMEM);
    endpoint->factory = factory;
    endpoint->arg = arg;
    endpoint->receive_ttl = options->receive_ttl;
    endpoint->receive_tos = options->receive_tos;
    tram__shards_init(&endpoint->shards, runtime, &datagram_shard_ops, endpoint->of_worker);
    endpoint->shards.socket_count = 1;
    int status = tram__shards_reserve(&endpoint->shards, 1);
    status = status ? plain_error(error, status) : resolve_and_open(endpoint, options, error);
    if (status) {
        shards_free(&endpoint->shards);
        return status;
    }
    status = tram__shards_begin(&endpoint->shards);
    if (!status) {
        endpoint->discard = options->discard; /* with the endpoint */
        *ret_endpoint = endpoint;
    }
    return status;
}

int tram_runtime_create_datagram_endpoint(tram_runtime *runtime, tram_protocol_factory factory, void *arg,
                                          const tram_datagram_options *options,
                                          tram_runtime_datagram_endpoint **ret_endpoint, tram_error *ret_error) {
    int status = runtime_enter(runtime);
    if (status)
        return status;
    status = check_option(wrong_option(factory, options));
    if (!status && tram__runtime_is_worker(runtime))
        status = TRAM_ESTATE;
    if (status) {
        if (ret_error)
            *ret_error =
                (tram_error){.code = status, .operation = "create_datagram_endpoint", .option = option_of(status)};
        return status;
    }
    tram_runtime_datagram_endpoint *endpoint = NULL;
    status = create(runtime, factory, arg, options, &endpoint);
    if (status && ret_error)
        *ret_error = tram__runtime_error()->error;
    if (!status && ret_endpoint)
        *ret_endpoint = endpoint;
    return status;
}

int tram_runtime_datagram_endpoint_sockname(const tram_runtime_datagram_endpoint *endpoint,
                                            tram_socket_address *ret_address) {
    *ret_address = endpoint->sockname;
    return 0;
}

int tram_runtime_datagram_endpoint_close(tram_runtime_datagram_endpoint *endpoint) {
    return tram__shards_close(&endpoint->shards);
}

int tram_runtime_datagram_endpoint_release(tram_runtime_datagram_endpoint *endpoint) {
    return endpoint ? tram__shards_release(&endpoint->shards) : 0;
}
