/* The drain of a server on all workers: each drains its shard, and whoever waits looks at the balance. */
#include <errno.h>
#include <limits.h>

#include "transports/server/server.h"
#include "transports/sharded/server.h"

/* With the lock held. */
static bool over(const tram_runtime_server *server) {
    for (unsigned i = 0; i < server->balance.count; i++) {
        const struct worker_load *load = &server->balance.workers[i];
        bool closed = atomic_load_explicit(&load->closed, memory_order_acquire);
        if (server->of_worker[i].state != SHARD_ENDED && !(closed && balance_load(load) == 0))
            return false;
    }
    return true;
}

static inline uint32_t cut_by(const tram_runtime_server *server, unsigned worker) {
    return atomic_load_explicit(&server->balance.workers[worker].cut, memory_order_relaxed);
}

/*
 * With the lock held: those that were reset since `cut_before`, and those that will be in a moment. The load is read
 * first: of a connection that has gone from it, it is known whether it was cut.
 */
static int count_left(const tram_runtime_server *server, const uint32_t *cut_before) {
    size_t count = 0;
    for (unsigned i = 0; i < server->balance.count; i++) {
        size_t load = runtime_server_load(server, i);
        uint32_t cut = cut_by(server, i) - cut_before[i];
        if (cut)
            count += cut;
        else if (server->of_worker[i].state != SHARD_ENDED)
            count += load;
    }
    return (int)MIN(count, INT_MAX);
}

/* The earliest end of all drains is what counts. */
static int drain_shard(tram_loop *loop, void *arg) {
    const struct shard *shard = arg;
    tram_runtime_server *server = runtime_server_of(shard->shards);
    loop_stands_for(loop, drain_shard, FUNCTION(tram_runtime_server_drain));
    if (!shard->object)
        return 0;
    pthread_mutex_lock(&server->shards.lock);
    uint64_t end_ns = server->drain_end_ns, now_ns = tram__clock(loop);
    pthread_mutex_unlock(&server->shards.lock);
    uint64_t left_ns = end_ns == TRAM_FOREVER ? TRAM_FOREVER : end_ns > now_ns ? end_ns - now_ns : TRAM_NOW;
    return tram_server_drain(shard->object, left_ns, NULL);
}

int tram_runtime_server_drain(tram_runtime_server *server, uint64_t timeout_ns) {
    struct shards *shards = &server->shards;
    int status = runtime_enter(shards->runtime);
    if (status)
        return status;
    if (tram__runtime_is_worker(shards->runtime))
        return TRAM_ESTATE;
    uint64_t end_ns = time_after(tram__clock(shards->runtime->workers[0].loop), timeout_ns);
    struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000u), .tv_nsec = (long)(end_ns % 1000000000u)};
    uint32_t cut_before[TRAM_WORKERS_MAX];
    pthread_mutex_lock(&shards->lock);
    for (unsigned i = 0; i < server->balance.count; i++)
        cut_before[i] = cut_by(server, i);
    if (!server->drain_end_ns || end_ns < server->drain_end_ns)
        server->drain_end_ns = end_ns;
    pthread_mutex_unlock(&shards->lock);
    status = tram_runtime_server_close(server);
    if (!status)
        status = tram__shards_call(shards, drain_shard);
    if (status)
        return status;
    pthread_mutex_lock(&shards->lock);
    while (!over(server) && !status)
        status = pthread_cond_timedwait(&shards->changed, &shards->lock, &end);
    int count = count_left(server, cut_before);
    pthread_mutex_unlock(&shards->lock);
    return count;
}
