/*
 * The end of a server on all workers, as one that any thread may bring about and wait for. What a worker tells of its
 * shard comes through the watch of the balance.
 */
#include <errno.h>

#include "transports/server/server.h"
#include "transports/sharded/server.h"

/* ---- What the workers tell ---- */

static tram_runtime_server *server_of_load(const struct worker_load *load) {
    struct balance *balance = (struct balance *)(uintptr_t)load->balance;
    return container_of(balance, tram_runtime_server, balance);
}

static bool closing(struct worker_load *load) {
    tram_runtime_server *server = server_of_load(load);
    struct shard *shard = &server->of_worker[load - server->balance.workers];
    pthread_mutex_lock(&server->shards.lock);
    if (shard->state == SHARD_SERVES)
        shard->state = SHARD_CLOSED;
    bool given = server->given;
    pthread_mutex_unlock(&server->shards.lock);
    return given;
}

static void on_drained(struct worker_load *load) {
    tram_runtime_server *server = server_of_load(load);
    tram__shard_drained(&server->of_worker[load - server->balance.workers]);
}

const struct balance_watch tram__runtime_server_watch = {.closing = closing, .on_drained = on_drained};

/* ---- Clients ---- */

static int close_clients(tram_loop *loop, void *arg) {
    const struct shard *shard = arg;
    loop_stands_for(loop, close_clients, FUNCTION(tram_runtime_server_close_clients));
    return shard->object ? tram_server_close_clients(shard->object) : 0;
}

static int abort_clients(tram_loop *loop, void *arg) {
    const struct shard *shard = arg;
    loop_stands_for(loop, abort_clients, FUNCTION(tram_runtime_server_abort_clients));
    return shard->object ? tram_server_abort_clients(shard->object) : 0;
}

int tram_runtime_server_close_clients(tram_runtime_server *server) {
    int status = runtime_enter(server->shards.runtime);
    return status ? status : tram__shards_call(&server->shards, close_clients);
}

int tram_runtime_server_abort_clients(tram_runtime_server *server) {
    int status = runtime_enter(server->shards.runtime);
    return status ? status : tram__shards_call(&server->shards, abort_clients);
}

/* ---- Who is there ---- */

/* Asked on all workers while the caller waits; on its stack. */
struct query {
    tram_runtime_server *server;
    tram_client_function visit;
    void *arg;
    unsigned pending; /* guarded by the shards' lock */
};

static void query_done(struct query *query) {
    struct shards *shards = &query->server->shards;
    pthread_mutex_lock(&shards->lock);
    query->pending--;
    pthread_cond_broadcast(&shards->changed);
    pthread_mutex_unlock(&shards->lock);
}

static void query_ended(void *arg) {
    query_done(arg);
}

static int query_worker(tram_loop *loop, void *arg) {
    struct query *query = arg;
    const tram_runtime *runtime = query->server->shards.runtime;
    loop_stands_for(loop, query_worker, FUNCTION(tram_runtime_server_each_client));
    unsigned worker = 0;
    while (runtime->workers[worker].loop != loop)
        worker++;
    tram_server *serving = query->server->of_worker[worker].object;
    if (serving)
        tram_server_each_client(serving, query->visit, query->arg);
    query_done(query);
    return 0;
}

static bool runs(tram_runtime *runtime) {
    pthread_mutex_lock(&runtime->lock);
    bool runs = runtime->state == RUNTIME_STARTS || runtime->state == RUNTIME_RUNS;
    pthread_mutex_unlock(&runtime->lock);
    return runs;
}

int tram_runtime_server_each_client(tram_runtime_server *server, tram_client_function visit, void *arg) {
    struct shards *shards = &server->shards;
    tram_runtime *runtime = shards->runtime;
    int status = runtime_enter(runtime);
    if (status)
        return status;
    if (tram__runtime_is_worker(runtime))
        return TRAM_ESTATE; /* it would wait for itself */
    if (!runs(runtime))
        return 0;
    struct query query = {.server = server, .visit = visit, .arg = arg, .pending = runtime->count};
    for (unsigned i = 0; i < runtime->count; i++) {
        int posted = tram_loop_call_soon_threadsafe(runtime->workers[i].loop, query_worker, &query, query_ended);
        if (posted)
            query_done(&query);
        if (posted == -ENOMEM)
            status = posted;
    }
    pthread_mutex_lock(&shards->lock);
    while (query.pending)
        pthread_cond_wait(&shards->changed, &shards->lock);
    pthread_mutex_unlock(&shards->lock);
    return status;
}
