/* loop.create_server: from hosts, or a socket, to a server that serves. */
#include "transports/server/create.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "core/base/invalid.h"
#include "transports/socket/socket.h"
#include "transports/socket/tcp.h"

static void creation_cancel(tram_future *future);
static void creation_destroy(tram_future *future);

static const struct future_kind creation_kind = {
    .name = "create_server",
    .value = FUTURE_VALUE_SERVER,
    .cancel = creation_cancel,
    .destroy = creation_destroy,
};

static struct creation *creation_of(tram_future *future) {
    return (struct creation *)(void *)future;
}

/* ---- Ending ---- */

static void creation_destroy(tram_future *future) {
    struct creation *creation = creation_of(future);
    if (creation->held && !future->retrieved)
        tram__server_put(future->value); /* nobody else will: it serves without a holder */
    for (size_t i = 0; i < creation->host_count; i++)
        tram__lookup_end(&creation->lookups[i]);
    memory_put(&future->loop->allocator, creation->lookups, creation->host_count * sizeof *creation->lookups);
}

/* The future is done, and there is no server for anyone. */
static void give_up(struct creation *creation) {
    for (size_t i = 0; i < creation->host_count; i++)
        tram__lookup_end(&creation->lookups[i]);
    creation->op.server->opening = NULL;
    tram__server_shut(creation->op.server, false);
    tram__server_op_end(&creation->op);
}

static void creation_cancel(tram_future *future) {
    tram__future_finish_cancelled(future);
    give_up(creation_of(future));
}

/* The loop ends meanwhile. */
static void opening(tram_server *server) {
    struct server_op *op = container_of(server->starting.next, struct server_op, link);
    creation_cancel(&op->future);
}

/* Does anyone but the operation itself look at its outcome? */
static bool awaited(const struct creation *creation) {
    const tram_future *future = &creation->op.future;
    return future->references > 1 || future_awaited(future);
}

void tram__creation_fail(struct creation *creation, const tram_error *error) {
    tram__future_fail(&creation->op.future, error);
    give_up(creation);
}

static void fail_code(struct creation *creation, int code) {
    tram_error error = {.code = code, .operation = "create_server"};
    tram__creation_fail(creation, &error);
}

/* The tick after listening began (V-8). */
static void created(tram_loop *loop, struct ready *ready) {
    (void)loop;
    struct creation *creation = (struct creation *)(void *)container_of(ready, struct server_op, ready);
    tram_server *server = creation->op.server;
    server->opening = NULL;
    creation->held = awaited(creation);
    server->holds += creation->held; /* the caller's, once it is read */
    tram__future_finish(&creation->op.future, server);
    tram__server_op_end(&creation->op);
}

/* ---- Opening ---- */

void tram__creation_use_sockets(struct creation *creation, const int *fds, size_t count) {
    tram_server *server = creation->op.server;
    tram_loop *loop = server->loop;
    struct kept_error error;
    int status = tram__server_adopt(server, fds, count);
    if (status) {
        for (size_t i = 0; i < count && !server->not_ours; i++)
            loop->sys->close(fds[i]);
        fail_code(creation, status);
        return;
    }
    status = creation->defer_serving ? 0 : tram__server_serve(server, &error);
    if (status) {
        tram__creation_fail(creation, &error.error);
        return;
    }
    creation->op.ready.run = created;
    loop_ready(loop, &creation->op.ready);
}

static void open_addresses(struct creation *creation, struct address_list *list) {
    tram_loop *loop = creation->op.future.loop;
    struct kept_error error;
    size_t room = list->count * sizeof(int), count;
    int *fds = memory_get(&loop->allocator, room);
    if (!fds) {
        fail_code(creation, -ENOMEM);
        return;
    }
    int status = tram__listeners_open(loop->sys, list, &creation->options,
                                      creation->options.reuse_port ? PORT_SHARED : PORT_ALONE, fds, &count, &error);
    if (status)
        tram__creation_fail(creation, &error.error);
    else
        tram__creation_use_sockets(creation, fds, count);
    memory_put(&loop->allocator, fds, room);
}

/* All hosts are known: their addresses in order, each once (V-1). */
static void join_answers(struct creation *creation) {
    struct address_list all = {.allocator = &creation->op.future.loop->allocator};
    int status = 0;
    for (size_t i = 0; i < creation->host_count && !status; i++) {
        const struct address_list *list = &creation->lookups[i].list;
        for (size_t j = 0; j < list->count && !status; j++)
            status = tram__addresses_add(&all, &list->items[j].address, list->items[j].protocol);
    }
    if (status) {
        fail_code(creation, status);
    } else {
        tram__addresses_unique(&all);
        open_addresses(creation, &all);
    }
    tram__addresses_free(&all);
}

/* ---- Beginning ---- */

static void host_found(struct lookup *lookup, const tram_error *error) {
    struct creation *creation = lookup->owner;
    if (error)
        tram__creation_fail(creation, error);
    else if (--creation->unanswered == 0)
        join_answers(creation);
}

static int poll_queue_up(struct creation *creation, const char *const *hosts, const char *port,
                         const tram_server_options *options) {
    tram_loop *loop = creation->op.future.loop;
    for (size_t i = 0; i < creation->host_count; i++) {
        struct lookup_query query = {
            .host = hosts[i], .port = port, .family = options->family, .flags = options->flags, .any = true};
        creation->lookups[i].owner = creation;
        int status = tram__lookup_start(&creation->lookups[i], loop, &query, host_found);
        if (status < 0)
            return status;
        creation->unanswered += status == 0;
    }
    return 0;
}

/* It would be closed twice: the second time perhaps when the number is somebody else's. */
static bool given_twice(const int *sockets, size_t count) {
    for (size_t i = 1; i < count; i++)
        for (size_t j = 0; j < i; j++)
            if (sockets[i] == sockets[j])
                return true;
    return false;
}

const char *tram__server_wrong_option(const char *host, const char *port, const tram_server_options *options) {
    bool given = options->sock || options->sockets;
    if (!options->sockets != !options->socket_count || (options->sock && options->sockets))
        return "sockets";
    if (given_twice(options->sockets, options->socket_count))
        return "sockets";
    if (given && (host || port || options->hosts))
        return options->hosts ? "hosts" : host ? "host" : "port";
    if (options->hosts && (host || !options->hosts[0]))
        return "hosts";
    if (options->shard > TRAM_SHARD_FIXED)
        return "shard";
    if (options->steer > TRAM_STEER_HASH || (options->steer && options->shard != TRAM_SHARD_REUSEPORT))
        return "steer";
    if (!tram__family_known(options->family))
        return "family";
    if (options->backlog < 0 || options->backlog == INT_MAX)
        return "backlog";
    if (options->not_ours && !given)
        return "not_ours";
    if (tram__limits_check(options->limits))
        return tram_wrong_option();
    const char *wrong = tram__server_wrong_layers(options);
    if (!wrong)
        wrong = tram__tcp_wrong_option(&options->tcp, true);
    if (wrong)
        return wrong;
    return reserved_used(options) ? "reserved" : NULL;
}

/* What only a server of a runtime has, or NULL. */
static const char *sharded(const tram_server_options *options) {
    if (options->shard || options->shard_worker)
        return options->shard ? "shard" : "shard_worker";
    return options->steer ? "steer" : options->keep_where_accepted ? "keep_where_accepted" : NULL;
}

static const char *wrong_option(tram_protocol_factory factory, const char *host, const char *port,
                                const tram_server_options *options) {
    const char *wrong = factory ? sharded(options) : "factory";
    return wrong ? wrong : tram__server_wrong_option(host, port, options);
}

int tram__creation_new(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_server_options *options,
                       tram_future **ret_future, struct creation **ret_creation) {
    tram_server *server;
    struct creation *creation;
    int status = tram__server_alloc(loop, factory, arg, options, NULL, &server);
    if (status)
        return status;
    server->holds++;
    status = tram__server_op_new(server, &creation_kind, sizeof *creation, &creation, ret_future);
    if (status) {
        tram__server_move(server, SERVER_DROP);
    } else {
        server->opening = opening;
        list_append(&server->starting, &creation->op.link);
        creation->options = *options;
        server->not_ours = options->not_ours;
        creation->defer_serving = options->defer_serving;
        *ret_creation = creation;
    }
    tram__server_put(server);
    return status;
}

/* Nobody has seen the operation yet: it never was. */
static int abort_creation(struct creation *creation, int status, tram_future **ret_future) {
    creation->op.server->discard = NULL; /* `arg` stays the caller's */
    tram__future_finish_cancelled(&creation->op.future);
    if (ret_future) {
        tram_future_release(*ret_future);
        *ret_future = NULL;
    }
    give_up(creation);
    return status;
}

int tram_loop_create_server(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *host,
                            const char *port, const tram_server_options *options, tram_future **ret_future) {
    static const tram_server_options defaults;
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    status = check_option(wrong_option(factory, host, port, options));
    const int *sockets = options->sock ? options->sock : options->sockets;
    size_t socket_count = options->sock ? 1 : options->socket_count;
    const char *by_source = tram__limits_by_source(options->limits);
    for (size_t i = 0; !status && i < socket_count; i++) {
        status = tram__socket_take(loop, sockets[i], SOCK_STREAM);
        if (!status && by_source && tram__socket_check_unix(loop->sys, sockets[i]) == 0)
            status = tram__invalid(by_source); /* it has no sources */
        if (!status)
            status = tram__tcp_set(loop->sys, sockets[i], &options->tcp);
    }
    if (status)
        return status;
    struct creation *creation;
    status = tram__creation_new(loop, factory, arg, options, ret_future, &creation);
    if (status)
        return status;
    creation->op.server->discard = options->discard;
    if (sockets) {
        tram__creation_use_sockets(creation, sockets, socket_count);
        return 0;
    }
    const char *const one_host[] = {host, NULL}, *const *hosts = options->hosts ? options->hosts : one_host;
    size_t count = 1; /* a lone host may be NULL: all interfaces */
    while (hosts[count - 1] && hosts[count])
        count++;
    creation->lookups = tram__memory_get_zero(&loop->allocator, count * sizeof *creation->lookups);
    if (!creation->lookups)
        return abort_creation(creation, -ENOMEM, ret_future);
    creation->host_count = count;
    status = poll_queue_up(creation, hosts, port, options);
    if (status)
        return abort_creation(creation, status, ret_future);
    if (!creation->unanswered)
        join_answers(creation);
    return 0;
}
