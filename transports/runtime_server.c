/*
 * A server with a shard on every worker: a listening socket each, on the same addresses, and the kernel spreads the
 * connections over them (SO_REUSEPORT).
 *
 * All sockets are opened by the calling thread, in order of workers, so that errors are the caller's. Each worker then
 * makes an ordinary server of its sockets: when it starts, or by a call through its mailbox.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/runtime.h"
#include "transports/lookup.h"
#include "transports/server.h"

enum shard_state {
    SHARD_BOUND,  /* its sockets wait for the worker */
    SHARD_SERVES, /* they are its server's */
    SHARD_ENDED,
};

struct shard {
    tram_runtime_server *server;
    unsigned worker;
    enum shard_state state; /* guarded by the lock */
    tram_server *serving;   /* of the worker's thread */
};

struct tram_runtime_server {
    struct runtime_part part;
    tram_runtime *runtime;
    tram_protocol_factory factory;
    void *arg;
    tram_server_options options; /* the texts in it are not valid any more */
    size_t socket_count;         /* of each worker */
    struct address_list addresses;
    int *fds; /* socket_count per worker */
    size_t fds_room;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned answered; /* shards that serve, or could not */
    int status;        /* of the first that could not */
    struct kept_error *ret_error;
    bool closed;
    struct shard shards[];
};

static int *fds_of(const struct shard *shard) {
    return shard->server->fds + shard->worker * shard->server->socket_count;
}

static const struct sys *sys_of(const tram_runtime *runtime) {
    return runtime->workers[0].loop->sys;
}

/* ---- On the worker's thread ---- */

/* Takes the sockets, unless the server was closed meanwhile. */
static bool take_sockets(struct shard *shard) {
    tram_runtime_server *server = shard->server;
    pthread_mutex_lock(&server->lock);
    bool taken = shard->state == SHARD_BOUND;
    if (taken)
        shard->state = SHARD_SERVES;
    pthread_mutex_unlock(&server->lock);
    return taken;
}

/* The sockets come back and are closed. */
static void give_up_sockets(struct shard *shard) {
    tram_runtime_server *server = shard->server;
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < server->socket_count; i++)
        sys_of(server->runtime)->close(fds_of(shard)[i]);
    shard->state = SHARD_ENDED;
    pthread_mutex_unlock(&server->lock);
}

static int shard_serve(struct shard *shard, tram_loop *loop, struct kept_error *ret_error) {
    tram_runtime_server *server = shard->server;
    if (!take_sockets(shard))
        return 0;
    int status = tram__server_new(loop, server->factory, server->arg, &server->options, fds_of(shard),
                                  server->socket_count, &shard->serving, ret_error);
    if (status) {
        give_up_sockets(shard);
        return status;
    }
    pthread_mutex_lock(&server->lock);
    bool closed = server->closed; /* then the call that closes it may have come before */
    pthread_mutex_unlock(&server->lock);
    if (closed)
        tram_server_close(shard->serving);
    return 0;
}

static tram_runtime_server *server_of(struct runtime_part *part) {
    return container_of(part, tram_runtime_server, part);
}

static int part_start(struct runtime_part *part, unsigned worker, tram_loop *loop) {
    struct kept_error error;
    return shard_serve(&server_of(part)->shards[worker], loop, &error);
}

static void part_stop(struct runtime_part *part, unsigned worker) {
    struct shard *shard = &server_of(part)->shards[worker];
    if (shard->serving)
        tram_server_release(shard->serving);
    shard->serving = NULL;
}

/* ---- Closing and freeing ---- */

static int shard_close(tram_loop *loop, void *arg) {
    (void)loop;
    struct shard *shard = arg;
    return shard->serving ? tram_server_close(shard->serving) : 0;
}

int tram_runtime_server_close(tram_runtime_server *server) {
    tram_runtime *runtime = server->runtime;
    int status = tram__runtime_enter(runtime);
    if (status)
        return status;
    pthread_mutex_lock(&server->lock);
    server->closed = true;
    for (unsigned i = 0; i < runtime->count; i++) {
        struct shard *shard = &server->shards[i];
        if (shard->state != SHARD_BOUND)
            continue;
        for (size_t j = 0; j < server->socket_count; j++)
            sys_of(runtime)->close(fds_of(shard)[j]);
        shard->state = SHARD_ENDED;
    }
    pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < runtime->count; i++) {
        /* A worker that has ended has closed its shard. */
        int posted = tram_loop_call_soon_threadsafe(runtime->workers[i].loop, shard_close, &server->shards[i], NULL);
        if (posted == -ENOMEM)
            status = posted;
    }
    return status;
}

static size_t server_size(unsigned workers) {
    return sizeof(tram_runtime_server) + workers * sizeof(struct shard);
}

static void server_free(tram_runtime_server *server) {
    tram_runtime *runtime = server->runtime;
    const tram_allocator *allocator = &runtime->allocator;
    for (unsigned i = 0; i < runtime->count; i++)
        for (size_t j = 0; server->shards[i].state == SHARD_BOUND && j < server->socket_count; j++)
            sys_of(runtime)->close(fds_of(&server->shards[i])[j]);
    memory_put(allocator, server->fds, server->fds_room * sizeof *server->fds);
    tram__addresses_free(&server->addresses);
    if (tram__runtime_enter(runtime) == 0) {
        pthread_cond_destroy(&server->changed);
        pthread_mutex_destroy(&server->lock);
    }
    memory_put(allocator, server, server_size(runtime->count));
}

static void part_free(struct runtime_part *part) {
    server_free(server_of(part));
}

static const struct runtime_part_ops part_ops = {.start = part_start, .stop = part_stop, .free = part_free};

/* ---- Handing the shards over to workers that run ---- */

static void answer(struct shard *shard, int status, const struct kept_error *error) {
    tram_runtime_server *server = shard->server;
    pthread_mutex_lock(&server->lock);
    server->answered++;
    if (status && !server->status) {
        server->status = status;
        tram__error_keep(server->ret_error, &error->error);
    }
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static void answer_ended(void *arg) {
    struct kept_error error = {
        .error = {.code = TRAM_ESTATE, .operation = "create_server", .detail = "the worker has ended"}};
    answer(arg, TRAM_ESTATE, &error);
}

static int shard_begin(tram_loop *loop, void *arg) {
    struct shard *shard = arg;
    struct kept_error error;
    if (atomic_load_explicit(&shard->server->runtime->stops, memory_order_relaxed))
        answer_ended(shard);
    else
        answer(shard, shard_serve(shard, loop, &error), &error);
    return 0;
}

static int hand_over(tram_runtime_server *server) {
    tram_runtime *runtime = server->runtime;
    for (unsigned i = 0; i < runtime->count; i++) {
        struct shard *shard = &server->shards[i];
        int status = tram_loop_call_soon_threadsafe(runtime->workers[i].loop, shard_begin, shard, answer_ended);
        if (status == TRAM_ESTATE) {
            answer_ended(shard);
        } else if (status) {
            struct kept_error error = {.error = {.code = status, .operation = "create_server"}};
            answer(shard, status, &error);
        }
    }
    pthread_mutex_lock(&server->lock);
    while (server->answered < runtime->count)
        pthread_cond_wait(&server->changed, &server->lock);
    int status = server->status;
    pthread_mutex_unlock(&server->lock);
    if (status)
        tram_runtime_server_close(server);
    return status;
}

/* ---- Opening the sockets ---- */

static int plain_error(struct kept_error *ret_error, int code) {
    ret_error->error = (tram_error){.code = code, .operation = "create_server"};
    return code;
}

/* Asks the resolver in this thread. */
static int resolve(const struct lookup_query *query, struct address_list *list, struct kept_error *ret_error) {
    int status = tram__lookup_numeric(query, list);
    if (status)
        return status < 0 ? plain_error(ret_error, status) : 0;
    struct addrinfo hints = tram__lookup_hints(query), *found = NULL;
    const char *host = query->host && *query->host ? query->host : NULL;
    int gai;
    do
        gai = getaddrinfo(host, query->port, &hints, &found);
    while (gai == EAI_SYSTEM && errno == EINTR);
    if (gai) {
        snprintf(ret_error->detail, sizeof ret_error->detail, "%s: %s", host ? host : query->port,
                 gai == EAI_SYSTEM ? tram_error_text(-errno) : gai_strerror(gai));
        ret_error->error = (tram_error){.code = TRAM_ERESOLVE, .operation = "getaddrinfo", .detail = ret_error->detail};
        return TRAM_ERESOLVE;
    }
    status = tram__addresses_add_answer(list, found);
    freeaddrinfo(found);
    return status ? plain_error(ret_error, status) : 0;
}

static int resolve_all(tram_runtime_server *server, const char *host, const char *port,
                       const tram_server_options *options, struct kept_error *ret_error) {
    const char *const one_host[] = {host, NULL}, *const *hosts = options->hosts ? options->hosts : one_host;
    int status = 0;
    size_t i = 0;
    do {
        struct lookup_query query = {
            .host = hosts[i], .port = port, .family = options->family, .flags = options->flags, .any = true};
        status = resolve(&query, &server->addresses, ret_error);
    } while (!status && hosts[i] && hosts[++i]);
    if (!status && !server->addresses.count)
        return plain_error(ret_error, TRAM_ERESOLVE);
    tram__addresses_unique(&server->addresses);
    return status;
}

/* What the first worker's sockets were bound to is what all others bind to: port 0 is chosen once. */
static int learn_addresses(tram_runtime_server *server, struct kept_error *ret_error) {
    for (size_t i = 0; i < server->socket_count; i++) {
        struct candidate *candidate = &server->addresses.items[i];
        tram_socket_address *address = &candidate->address;
        address->size = sizeof address->address;
        if (sys_of(server->runtime)->getsockname(server->fds[i], (struct sockaddr *)&address->address, &address->size) <
            0)
            return plain_error(ret_error, -errno);
    }
    server->addresses.count = server->socket_count;
    return 0;
}

static void close_sockets(tram_runtime_server *server, unsigned workers) {
    for (size_t i = 0; i < workers * server->socket_count; i++)
        sys_of(server->runtime)->close(server->fds[i]);
}

/* Opens the sockets of all workers and listens on them, in order; all or none. */
static int open_sockets(tram_runtime_server *server, struct kept_error *ret_error) {
    tram_runtime *runtime = server->runtime;
    const struct sys *sys = sys_of(runtime);
    bool reuse_address = !server->options.no_reuse_address;
    /* The port must be nobody's but ours, unless it was asked to be shared with other processes. */
    enum port_sharing first = server->options.reuse_port ? PORT_SHARED
                              : runtime->count > 1       ? PORT_SHARED_LATER
                                                         : PORT_ALONE;
    int status = tram__listeners_open(sys, &server->addresses, reuse_address, first, server->fds, &server->socket_count,
                                      ret_error);
    if (status)
        return status;
    unsigned opened = 1;
    status = learn_addresses(server, ret_error);
    while (!status && opened < runtime->count) {
        size_t count;
        int *fds = server->fds + opened * server->socket_count;
        status = tram__listeners_open(sys, &server->addresses, reuse_address, PORT_SHARED, fds, &count, ret_error);
        opened += status == 0;
        if (!status && count < server->socket_count) {
            for (size_t i = 0; i < count; i++)
                sys->close(fds[i]);
            opened--;
            status = ret_error->error.code;
        }
    }
    for (size_t i = 0; !status && i < runtime->count * server->socket_count; i++)
        status = tram__listener_listen(sys, server->fds[i], server->options.backlog, ret_error);
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
    list_init(&server->part.link);
    server->part.ops = &part_ops;
    server->runtime = runtime;
    server->factory = factory;
    server->arg = arg;
    server->options = *options;
    if (!options->backlog)
        server->options.backlog = TRAM_BACKLOG_RUNTIME;
    server->addresses.allocator = &runtime->allocator;
    server->ret_error = &runtime->server_error;
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->changed, NULL);
    for (unsigned i = 0; i < runtime->count; i++)
        server->shards[i] = (struct shard){.server = server, .worker = i, .state = SHARD_ENDED};
    return server;
}

/* With the sockets open: they belong to the shards from here on. */
static int begin(tram_runtime_server *server) {
    tram_runtime *runtime = server->runtime;
    for (unsigned i = 0; i < runtime->count; i++)
        server->shards[i].state = SHARD_BOUND;
    tram__runtime_add_part(runtime, &server->part);
    return runtime->state == RUNTIME_RUNS ? hand_over(server) : 0;
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
        server->fds_room = runtime->count * server->addresses.count;
        server->fds = memory_get(&runtime->allocator, server->fds_room * sizeof *server->fds);
        status = server->fds ? open_sockets(server, error) : plain_error(error, -ENOMEM);
    }
    if (status) {
        server_free(server);
        return status;
    }
    status = begin(server);
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
