/*
 * A server with a shard on every worker. Which of them listen, and to what, is told by enum tram_shard; who serves what
 * they accept, by their balance (balance.h). Unix sockets cannot be bound twice: there all workers share one.
 *
 * All sockets are opened by the calling thread, in order of workers; each worker then makes an ordinary server of its
 * own (sharded/shards.h), which may have none.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/base/invalid.h"
#include "transports/server/server.h"
#include "transports/server/unix.h"
#include "transports/sharded/server.h"
#include "transports/socket/lookup.h"
#include "transports/socket/reuseport.h"
#include "transports/socket/socket.h"
#include "transports/socket/tcp.h"

/* ---- The shards ---- */

/* What its end will cost the clients, where others may listen on: other processes, that share the port. */
static void warn_of_resets(const tram_runtime_server *server, tram_loop *loop) {
    if (server->options.shard == TRAM_SHARD_REUSEPORT && server->options.reuse_port && !server->balance.migrates)
        tram__log(loop, TRAM_LOG_WARNING,
                  "net.ipv4.tcp_migrate_req is off: a client that is about to connect as this server stops listening "
                  "is reset, though other processes listen to the same port");
}

static int shard_begin(struct shard *shard, tram_loop *loop, struct kept_error *ret_error) {
    tram_runtime_server *server = runtime_server_of(shard->shards);
    tram_server *serving = NULL;
    int status =
        tram__server_new(loop, server->factory, server->arg, &server->options, &server->balance.workers[shard->worker],
                         shard->fds, shard_socket_count(shard), &serving, ret_error);
    if (status)
        return status;
    shard->object = serving;
    if (server->file.known)
        serving->listeners->items[0].file = server->file;
    if (shard->worker == 0)
        warn_of_resets(server, loop);
    return 0;
}

static int shard_close(void *object) {
    return tram_server_close(object);
}

static void shard_release(void *object) {
    tram__server_leave(object);
    tram_server_release(object);
}

static bool shard_drained(const struct shard *shard) {
    const struct worker_load *load = &runtime_server_of(shard->shards)->balance.workers[shard->worker];
    return atomic_load_explicit(&load->closed, memory_order_acquire) && balance_load(load) == 0;
}

static bool shard_expects(struct shard *shard) {
    return tram__balance_has_inbound(&runtime_server_of(shard->shards)->balance.workers[shard->worker]);
}

static void shard_describe(struct shard *shard, char *text, size_t size) {
    tram__server_describe(shard->object, text, size);
}

static size_t server_size(unsigned workers) {
    return sizeof(tram_runtime_server) + workers * sizeof(struct shard);
}

/* The file of a socket that no worker took over yet; afterwards it is theirs to remove. */
static void remove_file(tram_runtime_server *server) {
    const tram_runtime *runtime = server->shards.runtime;
    bool bound = false;
    if (!server->file.known)
        return;
    pthread_mutex_lock(&server->shards.lock);
    for (unsigned i = 0; i < runtime->count; i++)
        bound |= server->of_worker[i].state == SHARD_BOUND;
    if (bound)
        tram__socket_file_unlink(runtime_sys(runtime), &server->addresses.items[0].address, &server->file);
    pthread_mutex_unlock(&server->shards.lock);
}

static void server_free(tram_runtime_server *server) {
    tram_runtime *runtime = server->shards.runtime;
    if (runtime_enter(runtime) == 0)
        remove_file(server);
    tram__shards_fini(&server->shards);
    tram__balance_fini(&server->balance);
    tram__limits_free(server->limits);
    tram__tls_use_close(&server->tls);
    tram__addresses_free(&server->addresses);
    tram_discard discard = server->discard;
    void *arg = server->arg;
    memory_put(&runtime->allocator, server, server_size(runtime->count));
    if (discard)
        discard(arg);
}

static void shards_free(struct shards *shards) {
    server_free(runtime_server_of(shards));
}

static const struct shard_ops server_shard_ops = {
    .operation = "create_server",
    .create_function = FUNCTION(tram_runtime_create_server),
    .close_function = FUNCTION(tram_runtime_server_close),
    .release_function = FUNCTION(tram_runtime_server_release),
    .begin = shard_begin,
    .close = shard_close,
    .release = shard_release,
    .drained = shard_drained,
    .expects = shard_expects,
    .describe = shard_describe,
    .free = shards_free,
};

int tram_runtime_server_close(tram_runtime_server *server) {
    int status = runtime_enter(server->shards.runtime);
    if (status)
        return status;
    remove_file(server);
    return tram__shards_close(&server->shards);
}

int tram_runtime_server_release(tram_runtime_server *server) {
    if (!server)
        return 0;
    int status = runtime_enter(server->shards.runtime);
    if (status)
        return status;
    remove_file(server);
    return tram__shards_release(&server->shards);
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

static bool all_listen(const tram_runtime_server *server) {
    return server->options.shard == TRAM_SHARD_REUSEPORT || server->options.shard == TRAM_SHARD_SHARED;
}

/* The worker whose sockets come first, and maybe alone. */
static unsigned first_listener(const tram_runtime_server *server) {
    return all_listen(server) ? 0 : server->options.shard_worker;
}

/* What the first sockets were bound to is what all others bind to: port 0 is chosen once. */
static int read_addresses(tram_runtime_server *server, const int *fds, struct kept_error *ret_error) {
    const struct sys *sys = runtime_sys(server->shards.runtime);
    for (size_t i = 0; i < server->shards.socket_count; i++) {
        tram_socket_address *address = &server->addresses.items[i].address;
        address->size = sizeof address->address;
        if (sys->getsockname(fds[i], (struct sockaddr *)&address->address, &address->size) < 0)
            return plain_error(ret_error, -errno);
    }
    server->addresses.count = server->shards.socket_count;
    return 0;
}

static void close_sockets(tram_runtime_server *server) {
    for (size_t i = 0; i < server->shards.fds_capacity; i++) {
        if (server->shards.fds[i] >= 0)
            runtime_sys(server->shards.runtime)->close(server->shards.fds[i]);
        server->shards.fds[i] = -1;
    }
}

static int open_first(tram_runtime_server *server, struct kept_error *ret_error) {
    struct shards *shards = &server->shards;
    unsigned first = first_listener(server);
    bool others_bind = server->options.shard == TRAM_SHARD_REUSEPORT && shards->runtime->count > 1;
    /* The port must be nobody's but ours, unless it was asked to be shared with other processes. */
    enum port_sharing sharing = server->options.reuse_port ? PORT_SHARED : others_bind ? PORT_SHARED_LATER : PORT_ALONE;
    int status = tram__listeners_open(runtime_sys(shards->runtime), &server->addresses, &server->options, sharing,
                                      shards->fds, &shards->socket_count, ret_error);
    /* How many each worker may have is known only now. */
    for (size_t i = 0; !status && first && i < shards->socket_count; i++) {
        shard_fds(shards, first)[i] = shards->fds[i];
        shards->fds[i] = -1;
    }
    return status ? status : read_addresses(server, shard_fds(shards, first), ret_error);
}

/* The same sockets for one more worker: bound to the same addresses, or the very same. */
static int open_further(tram_runtime_server *server, unsigned worker, struct kept_error *ret_error) {
    struct shards *shards = &server->shards;
    const struct sys *sys = runtime_sys(shards->runtime);
    int *fds = shard_fds(shards, worker), status = 0;
    size_t count = 0;
    if (server->options.shard == TRAM_SHARD_REUSEPORT) {
        status = tram__listeners_open(sys, &server->addresses, &server->options, PORT_SHARED, fds, &count, ret_error);
        return status || count == shards->socket_count ? status : ret_error->error.code;
    }
    for (; count < shards->socket_count; count++) {
        fds[count] = sys->fcntl(shards->fds[count], F_DUPFD_CLOEXEC, 0);
        if (fds[count] < 0)
            return tram__address_error(ret_error, -errno, "dup", &server->addresses.items[count].address);
    }
    return 0;
}

static int listen_on_all(tram_runtime_server *server, struct kept_error *ret_error) {
    struct shards *shards = &server->shards;
    const struct sys *sys = runtime_sys(shards->runtime);
    int status = 0;
    for (size_t i = 0; !status && i < shards->runtime->count * shards->socket_count; i++)
        if (shards->fds[i] >= 0)
            status = tram__listener_listen(sys, shards->fds[i], server->options.backlog, ret_error);
    for (size_t i = 0; !status && i < server->addresses.count && server->options.steer; i++) {
        status = tram__reuseport_steer(sys, shards->fds[i], server->options.steer, shards->runtime->count);
        if (status)
            tram__address_error(ret_error, status, "steer", &server->addresses.items[i].address);
    }
    return status;
}

/* With the first sockets open: the other workers', and all listen. */
static int open_rest(tram_runtime_server *server, struct kept_error *ret_error) {
    int status = 0;
    for (unsigned i = 1; !status && all_listen(server) && i < server->shards.runtime->count; i++)
        status = open_further(server, i, ret_error);
    return status ? status : listen_on_all(server, ret_error);
}

static bool migrates(const tram_runtime_server *server) {
    return server->options.shard == TRAM_SHARD_REUSEPORT && tram__reuseport_migrates();
}

/* Opens the sockets of all workers and listens on them, in order; all or none. */
static int open_sockets(tram_runtime_server *server, struct kept_error *ret_error) {
    int status = open_first(server, ret_error);
    if (!status)
        status = open_rest(server, ret_error);
    if (status)
        close_sockets(server);
    server->balance.migrates = migrates(server);
    return status;
}

/* The same with a Unix socket, which is TRAM_SHARD_SHARED. */
static int open_path(tram_runtime_server *server, const tram_socket_address *address, bool keep_file,
                     struct kept_error *ret_error) {
    const struct sys *sys = runtime_sys(server->shards.runtime);
    int status = tram__addresses_add(&server->addresses, address, 0);
    if (!status)
        status = tram__shards_reserve(&server->shards, 1);
    if (status)
        return plain_error(ret_error, status);
    tram__socket_file_clear(sys, address); /* trouble shows when it comes to binding */
    status = tram__unix_bind(sys, address, server->shards.fds, ret_error);
    if (status)
        return status;
    server->shards.socket_count = 1;
    struct socket_file file = tram__socket_file_at(sys, address);
    status = open_rest(server, ret_error);
    if (status) {
        tram__socket_file_unlink(sys, address, &file);
        close_sockets(server);
    } else if (!keep_file) {
        server->file = file;
    }
    return status;
}

/* ---- Creating ---- */

/* Where a server is to listen: names, the address of a Unix socket, or sockets. */
struct listen_target {
    const char *host;
    const char *port;
    const tram_socket_address *local;
    bool keep_file; /* of a Unix socket */
    const int *sockets;
    size_t socket_count;
};

static const char *wrong_option(const tram_runtime *runtime, tram_protocol_factory factory, const char *host,
                                const char *port, const tram_server_options *options) {
    if (!factory)
        return "factory";
    if (options->sock || options->defer_serving) /* one socket cannot be on all; nobody could begin to serve later */
        return options->sock ? "sock" : "defer_serving";
    if (options->shard_worker >= runtime->count)
        return "shard_worker";
    return tram__server_wrong_option(host, port, options);
}

static int check(const tram_runtime *runtime, tram_protocol_factory factory, const char *host, const char *port,
                 const tram_server_options *options) {
    int status = check_option(wrong_option(runtime, factory, host, port, options));
    return status || !tram__runtime_is_worker(runtime) ? status : TRAM_ESTATE;
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
    int status = tram__balance_init(&server->balance, &runtime->allocator, runtime->count, options);
    if (!status && options->limits)
        status = tram__limits_new(&runtime->allocator, options->limits, runtime->count, &server->limits);
    if (!status)
        status = tram__tls_use_open(&(struct tls_wishes){.config = options->tls, .server = true}, &server->tls);
    if (status) {
        server_free(server);
        return NULL;
    }
    server->balance.watch = &tram__runtime_server_watch;
    server->balance.limits = server->limits;
    for (unsigned i = 0; i < runtime->count; i++)
        tram__balance_bind(&server->balance.workers[i], runtime->workers[i].loop);
    return server;
}

static int use_sockets(tram_runtime_server *server, const struct listen_target *target, struct kept_error *ret_error) {
    int status = 0;
    for (size_t i = 0; i < target->socket_count && !status; i++)
        status = plain_error(
            ret_error, tram__tcp_set(runtime_sys(server->shards.runtime), target->sockets[i], &server->options.tcp));
    if (!status)
        status = tram__runtime_server_use(server, target->sockets, target->socket_count, ret_error);
    if (!status)
        status = listen_on_all(server, ret_error);
    if (status) {
        close_sockets(server);
        return status;
    }
    server->balance.migrates = migrates(server);
    if (!target->keep_file)
        server->file = tram__socket_file_at(runtime_sys(server->shards.runtime), &server->addresses.items[0].address);
    return 0;
}

static int open_target(tram_runtime_server *server, const struct listen_target *target,
                       const tram_server_options *options, struct kept_error *ret_error) {
    if (target->sockets)
        return use_sockets(server, target, ret_error);
    if (target->local)
        return open_path(server, target->local, target->keep_file, ret_error);
    int status = resolve_all(server, target->host, target->port, options, ret_error);
    if (status)
        return status;
    status = tram__shards_reserve(&server->shards, server->addresses.count);
    return status ? plain_error(ret_error, status) : open_sockets(server, ret_error);
}

static int create_here(tram_runtime *runtime, tram_protocol_factory factory, void *arg,
                       const struct listen_target *target, const tram_server_options *options,
                       tram_runtime_server **ret_server) {
    struct kept_error *error = tram__runtime_error();
    if (tram__runtime_ends(runtime))
        return plain_error(error, TRAM_ESTATE);
    tram_runtime_server *server = server_alloc(runtime, factory, arg, options);
    if (!server)
        return plain_error(error, -ENOMEM);
    int status = open_target(server, target, options, error);
    if (status) {
        server_free(server);
        return status;
    }
    status = tram__shards_begin(&server->shards);
    if (!status) {
        server->discard = options->discard; /* with the server */
        *ret_server = server;
    }
    for (size_t i = 0; !status && !options->not_ours && i < target->socket_count; i++)
        runtime_sys(runtime)->close(target->sockets[i]); /* the workers have their own */
    return status;
}

/* `status`: of the checks so far. */
static int create(tram_runtime *runtime, tram_protocol_factory factory, void *arg, const struct listen_target *target,
                  const tram_server_options *options, int status, tram_runtime_server **ret_server,
                  tram_error *ret_error) {
    if (status) {
        if (ret_error)
            *ret_error = (tram_error){.code = status, .operation = "create_server", .option = option_of(status)};
        return status;
    }
    tram_runtime_server *server = NULL;
    status = create_here(runtime, factory, arg, target, options, &server);
    if (status && ret_error)
        *ret_error = tram__runtime_error()->error;
    if (!status && ret_server)
        *ret_server = server;
    return status;
}

int tram_runtime_create_server(tram_runtime *runtime, tram_protocol_factory factory, void *arg, const char *host,
                               const char *port, const tram_server_options *options, tram_runtime_server **ret_server,
                               tram_error *ret_error) {
    static const tram_server_options defaults;
    int status = runtime_enter(runtime);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    const struct listen_target target = {
        .host = host,
        .port = port,
        .keep_file = true,
        .sockets = options->sockets,
        .socket_count = options->socket_count,
    };
    status = check(runtime, factory, host, port, options);
    return create(runtime, factory, arg, &target, options, status, ret_server, ret_error);
}

int tram_runtime_create_unix_server(tram_runtime *runtime, tram_protocol_factory factory, void *arg, const void *path,
                                    size_t path_size, const tram_unix_server_options *options,
                                    tram_runtime_server **ret_server, tram_error *ret_error) {
    static const tram_unix_server_options defaults;
    int status = runtime_enter(runtime);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    tram_server_options common = {0};
    tram_socket_address local;
    const struct listen_target target = {
        .local = &local,
        .keep_file = options->keep_socket_file || options->not_ours,
        .sockets = options->sock,
        .socket_count = options->sock != NULL,
    };
    status = !path == !options->sock ? tram__invalid("path") : tram__unix_server_check(options, &common);
    if (!status && options->sock)
        status = tram__socket_check_unix(runtime_sys(runtime), *options->sock);
    else if (!status)
        status = tram_socket_address_unix(path, path_size, &local);
    common.shard = TRAM_SHARD_SHARED;
    if (!status)
        status = check(runtime, factory, NULL, NULL, &common);
    common.not_ours = options->not_ours;
    return create(runtime, factory, arg, &target, &common, status, ret_server, ret_error);
}

int tram_runtime_server_sockname(const tram_runtime_server *server, size_t index, tram_socket_address *ret_address) {
    if (index >= server->addresses.count)
        return tram__invalid("index");
    *ret_address = server->addresses.items[index].address;
    return 0;
}

size_t tram_runtime_server_connection_count(const tram_runtime_server *server, unsigned worker) {
    return worker < server->balance.count ? runtime_server_load(server, worker) : 0;
}

int tram_runtime_server_limit_counts(const tram_runtime_server *server, unsigned worker,
                                     tram_limit_counts *ret_counts) {
    if (worker >= server->balance.count)
        return tram__invalid("worker");
    tram__limits_read(server->limits ? &server->limits->tally[worker] : NULL, ret_counts);
    return 0;
}

int tram_runtime_server_sharding(const tram_runtime_server *server, tram_sharding *ret_info) {
    *ret_info = (tram_sharding){
        .shard = server->options.shard,
        .listening = all_listen(server) ? server->balance.count : 1,
        .migrates = server->balance.migrates,
        .workers = server->balance.count,
    };
    return 0;
}
