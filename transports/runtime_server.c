/*
 * A server with a shard on every worker: a listening socket each, on the same addresses, and the kernel spreads the
 * connections over them (SO_REUSEPORT).
 *
 * All sockets are opened by the calling thread, in order of workers; each worker then makes an ordinary server of its
 * own (runtime_shards.h).
 */
#include <errno.h>
#include <string.h>

#include "transports/lookup.h"
#include "transports/runtime_shards.h"
#include "transports/server.h"

struct tram_runtime_server {
    struct shards shards;
    tram_protocol_factory factory;
    void *arg;
    tram_server_options options; /* the texts in it are not valid any more */
    struct address_list addresses;
    struct shard of_worker[];
};

static tram_runtime_server *server_of(struct shards *shards) {
    return container_of(shards, tram_runtime_server, shards);
}

/* ---- The shards ---- */

static int shard_begin(struct shard *shard, tram_loop *loop, struct kept_error *ret_error) {
    tram_runtime_server *server = server_of(shard->shards);
    tram_server *serving = NULL;
    int status = tram__server_new(loop, server->factory, server->arg, &server->options, shard->fds,
                                  server->shards.socket_count, &serving, ret_error);
    shard->object = serving;
    return status;
}

static int shard_close(void *object) {
    return tram_server_close(object);
}

static void shard_release(void *object) {
    tram_server_release(object);
}

static size_t server_size(unsigned workers) {
    return sizeof(tram_runtime_server) + workers * sizeof(struct shard);
}

static void server_free(tram_runtime_server *server) {
    tram_runtime *runtime = server->shards.runtime;
    tram__shards_fini(&server->shards);
    tram__addresses_free(&server->addresses);
    memory_put(&runtime->allocator, server, server_size(runtime->count));
}

static void shards_free(struct shards *shards) {
    server_free(server_of(shards));
}

static const struct shard_ops server_shard_ops = {
    .operation = "create_server",
    .begin = shard_begin,
    .close = shard_close,
    .release = shard_release,
    .free = shards_free,
};

int tram_runtime_server_close(tram_runtime_server *server) {
    return tram__shards_close(&server->shards);
}

/* ---- Opening the sockets ---- */

static int plain_error(struct kept_error *ret_error, int code) {
    ret_error->error = (tram_error){.code = code, .operation = "create_server"};
    return code;
}

static int resolve_all(tram_runtime_server *server, const char *host, const char *port,
                       const tram_server_options *options, struct kept_error *ret_error) {
    const char *const one_host[] = {host, NULL}, *const *hosts = options->hosts ? options->hosts : one_host;
    int status = 0;
    size_t i = 0;
    do {
        struct lookup_query query = {
            .host = hosts[i], .port = port, .family = options->family, .flags = options->flags, .any = true};
        status = tram__lookup_wait(&query, &server->addresses, "create_server", ret_error);
    } while (!status && hosts[i] && hosts[++i]);
    if (!status && !server->addresses.count)
        return plain_error(ret_error, TRAM_ERESOLVE);
    tram__addresses_unique(&server->addresses);
    return status;
}

/* What the first worker's sockets were bound to is what all others bind to: port 0 is chosen once. */
static int learn_addresses(tram_runtime_server *server, struct kept_error *ret_error) {
    for (size_t i = 0; i < server->shards.socket_count; i++) {
        struct candidate *candidate = &server->addresses.items[i];
        tram_socket_address *address = &candidate->address;
        address->size = sizeof address->address;
        if (runtime_sys(server->shards.runtime)
                ->getsockname(server->shards.fds[i], (struct sockaddr *)&address->address, &address->size) < 0)
            return plain_error(ret_error, -errno);
    }
    server->addresses.count = server->shards.socket_count;
    return 0;
}

static void close_sockets(tram_runtime_server *server, unsigned workers) {
    for (size_t i = 0; i < workers * server->shards.socket_count; i++)
        runtime_sys(server->shards.runtime)->close(server->shards.fds[i]);
}

/* Opens the sockets of all workers and listens on them, in order; all or none. */
static int open_sockets(tram_runtime_server *server, struct kept_error *ret_error) {
    tram_runtime *runtime = server->shards.runtime;
    const struct sys *sys = runtime_sys(runtime);
    bool reuse_address = !server->options.no_reuse_address;
    /* The port must be nobody's but ours, unless it was asked to be shared with other processes. */
    enum port_sharing first = server->options.reuse_port ? PORT_SHARED
                              : runtime->count > 1       ? PORT_SHARED_LATER
                                                         : PORT_ALONE;
    int status = tram__listeners_open(sys, &server->addresses, reuse_address, first, server->shards.fds,
                                      &server->shards.socket_count, ret_error);
    if (status)
        return status;
    unsigned opened = 1;
    status = learn_addresses(server, ret_error);
    while (!status && opened < runtime->count) {
        size_t count;
        int *fds = shard_fds(&server->shards, opened);
        status = tram__listeners_open(sys, &server->addresses, reuse_address, PORT_SHARED, fds, &count, ret_error);
        opened += status == 0;
        if (!status && count < server->shards.socket_count) {
            for (size_t i = 0; i < count; i++)
                sys->close(fds[i]);
            opened--;
            status = ret_error->error.code;
        }
    }
    for (size_t i = 0; !status && i < runtime->count * server->shards.socket_count; i++)
        status = tram__listener_listen(sys, server->shards.fds[i], server->options.backlog, ret_error);
    if (status)
        close_sockets(server, opened);
    return status;
}

/* ---- Creating ---- */

static int check(const tram_runtime *runtime, tram_protocol_factory factory, const char *host, const char *port,
                 const tram_server_options *options) {
    if (!factory || options->sock || options->defer_serving)
        return TRAM_EVALUE; /* one socket cannot be on all workers; nobody could begin to serve later */
    if (tram__runtime_is_worker(runtime))
        return TRAM_ESTATE;
    return tram__server_check_options(host, port, options);
}

static tram_runtime_server *server_alloc(tram_runtime *runtime, tram_protocol_factory factory, void *arg,
                                         const tram_server_options *options) {
    tram_runtime_server *server = tram__memory_get_zero(&runtime->allocator, server_size(runtime->count));
    if (!server)
        return NULL;
    server->factory = factory;
    server->arg = arg;
    server->options = *options;
    if (!options->backlog)
        server->options.backlog = TRAM_BACKLOG_RUNTIME;
    server->addresses.allocator = &runtime->allocator;
    tram__shards_init(&server->shards, runtime, &server_shard_ops, server->of_worker);
    return server;
}

static int create(tram_runtime *runtime, tram_protocol_factory factory, void *arg, const char *host, const char *port,
                  const tram_server_options *options, tram_runtime_server **ret_server) {
    struct kept_error *error = &runtime->server_error;
    if (runtime->state == RUNTIME_ENDED || atomic_load_explicit(&runtime->stops, memory_order_relaxed))
        return plain_error(error, TRAM_ESTATE);
    tram_runtime_server *server = server_alloc(runtime, factory, arg, options);
    if (!server)
        return plain_error(error, -ENOMEM);
    int status = resolve_all(server, host, port, options, error);
    if (!status) {
        status = tram__shards_make_room(&server->shards, server->addresses.count);
        status = status ? plain_error(error, status) : open_sockets(server, error);
    }
    if (status) {
        server_free(server);
        return status;
    }
    status = tram__shards_begin(&server->shards);
    if (!status)
        *ret_server = server;
    return status; /* a server that failed later is freed with the runtime: a worker may still know it */
}

int tram_runtime_create_server(tram_runtime *runtime, tram_protocol_factory factory, void *arg, const char *host,
                               const char *port, const tram_server_options *options, tram_runtime_server **ret_server,
                               tram_error *ret_error) {
    static const tram_server_options defaults;
    int status = tram__runtime_enter(runtime);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    status = check(runtime, factory, host, port, options);
    if (status) {
        if (ret_error)
            *ret_error = (tram_error){.code = status, .operation = "create_server"};
        return status;
    }
    tram_runtime_server *server = NULL;
    pthread_mutex_lock(&runtime->control);
    status = create(runtime, factory, arg, host, port, options, &server);
    if (status && ret_error)
        *ret_error = runtime->server_error.error;
    pthread_mutex_unlock(&runtime->control);
    if (!status && ret_server)
        *ret_server = server;
    return status;
}

int tram_runtime_server_sockname(const tram_runtime_server *server, size_t index, tram_socket_address *ret_address) {
    if (index >= server->addresses.count)
        return TRAM_EVALUE;
    *ret_address = server->addresses.items[index].address;
    return 0;
}
