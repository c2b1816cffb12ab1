/*
 * The end of a server on all workers, as one that any thread may bring about and wait for. What a worker tells of its
 * shard comes through the watch of the balance; whoever waits looks at the balance itself.
 */
#include <errno.h>
#include <limits.h>

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
    int status = tram__runtime_enter(server->shards.runtime);
    return status ? status : tram__shards_call(&server->shards, close_clients);
}

int tram_runtime_server_abort_clients(tram_runtime_server *server) {
    int status = tram__runtime_enter(server->shards.runtime);
    return status ? status : tram__shards_call(&server->shards, abort_clients);
}

/* ---- Who is there ---- */

/* Asked on all workers while the caller waits; on its stack. */
struct survey {
    tram_runtime_server *server;
    tram_client_function visit;
    void *arg;
    unsigned unanswered; /* guarded by the shards' lock */
};

static void answer(struct survey *survey) {
    struct shards *shards = &survey->server->shards;
    pthread_mutex_lock(&shards->lock);
    survey->unanswered--;
    pthread_cond_broadcast(&shards->changed);
    pthread_mutex_unlock(&shards->lock);
}

static void answer_ended(void *arg) {
    answer(arg);
}

static int survey_worker(tram_loop *loop, void *arg) {
    struct survey *survey = arg;
    const tram_runtime *runtime = survey->server->shards.runtime;
    loop_stands_for(loop, survey_worker, FUNCTION(tram_runtime_server_each_client));
    unsigned worker = 0;
    while (runtime->workers[worker].loop != loop)
        worker++;
    tram_server *serving = survey->server->of_worker[worker].object;
    if (serving)
        tram_server_each_client(serving, survey->visit, survey->arg);
    answer(survey);
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
    int status = tram__runtime_enter(runtime);
    if (status)
        return status;
    if (tram__runtime_is_worker(runtime))
        return TRAM_ESTATE; /* it would wait for itself */
    if (!runs(runtime))
        return 0;
    struct survey survey = {.server = server, .visit = visit, .arg = arg, .unanswered = runtime->count};
    for (unsigned i = 0; i < runtime->count; i++) {
        int posted = tram_loop_call_soon_threadsafe(runtime->workers[i].loop, survey_worker, &survey, answer_ended);
        if (posted)
            answer(&survey);
        if (posted == -ENOMEM)
            status = posted;
    }
    pthread_mutex_lock(&shards->lock);
    while (survey.unanswered)
        pthread_cond_wait(&shards->changed, &shards->lock);
    pthread_mutex_unlock(&shards->lock);
    return status;
}

/* ---- Waiting ---- */

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

/* With the lock held: those that were reset since `cut_before`, and those that will be in a moment. */
static int count_left(const tram_runtime_server *server, const uint32_t *cut_before) {
    size_t count = 0;
    for (unsigned i = 0; i < server->balance.count; i++) {
        const struct shard *shard = &server->of_worker[i];
        if (shard->cut != cut_before[i])
            count += shard->cut - cut_before[i];
        else if (shard->state != SHARD_ENDED)
            count += runtime_server_load(server, i);
    }
    return count < INT_MAX ? (int)count : INT_MAX;
}

static int shard_was_drained(tram_future *future, void *arg) {
    struct shard *shard = arg;
    size_t cut = 0;
    if (tram_future_count(future, &cut) == 0) {
        pthread_mutex_lock(&shard->shards->lock);
        shard->cut += (uint32_t)cut;
        pthread_mutex_unlock(&shard->shards->lock);
    }
    return 0;
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
    tram_future *drained;
    int status = tram_server_drain(shard->object, left_ns, &drained);
    if (status)
        return status;
    status = tram_future_add_done_callback(drained, shard_was_drained, (void *)(uintptr_t)shard);
    tram_future_release(drained);
    return status;
}

int tram_runtime_server_drain(tram_runtime_server *server, uint64_t timeout_ns) {
    struct shards *shards = &server->shards;
    int status = tram__runtime_enter(shards->runtime);
    if (status)
        return status;
    if (tram__runtime_is_worker(shards->runtime))
        return TRAM_ESTATE;
    uint64_t end_ns = time_after(tram__clock(shards->runtime->workers[0].loop), timeout_ns);
    struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000u), .tv_nsec = (long)(end_ns % 1000000000u)};
    uint32_t cut_before[TRAM_WORKERS_MAX];
    pthread_mutex_lock(&shards->lock);
    for (unsigned i = 0; i < server->balance.count; i++)
        cut_before[i] = server->of_worker[i].cut;
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
