#include "transports/sharded/shards.h"

#include <errno.h>

/* With the lock held, or nobody else there. */
static void close_bound(struct shard *shard) {
    struct shards *shards = shard->shards;
    if (shard->state != SHARD_BOUND)
        return;
    for (size_t i = 0; i < shard_socket_count(shard); i++)
        runtime_sys(shards->runtime)->close(shard->fds[i]);
    shard->state = SHARD_ENDED;
}

/* ---- On the worker's thread ---- */

/* Takes the sockets, unless all was closed meanwhile. */
static bool take_sockets(struct shard *shard) {
    struct shards *shards = shard->shards;
    pthread_mutex_lock(&shards->lock);
    bool taken = shard->state == SHARD_BOUND;
    if (taken)
        shard->state = SHARD_SERVES;
    pthread_mutex_unlock(&shards->lock);
    return taken;
}

/* The sockets come back and are closed. */
static void give_up_sockets(struct shard *shard) {
    struct shards *shards = shard->shards;
    pthread_mutex_lock(&shards->lock);
    for (size_t i = 0; i < shard_socket_count(shard); i++)
        runtime_sys(shards->runtime)->close(shard->fds[i]);
    shard->state = SHARD_ENDED;
    pthread_mutex_unlock(&shards->lock);
}

static int begin(struct shard *shard, tram_loop *loop, struct kept_error *ret_error) {
    struct shards *shards = shard->shards;
    if (!take_sockets(shard))
        return 0;
    int status = shards->ops->begin(shard, loop, ret_error);
    if (status)
        give_up_sockets(shard);
    return status; /* the call of one who closes it meanwhile comes after this */
}

static struct shards *shards_of(struct runtime_part *part) {
    return container_of(part, struct shards, part);
}

static int part_start(struct runtime_part *part, unsigned worker, tram_loop *loop) {
    struct kept_error error;
    return begin(&shards_of(part)->shard[worker], loop, &error);
}

static void release_part(struct shards *shards) {
    tram__runtime_release_part(shards->runtime, &shards->part);
}

static void flush_discard(void *arg) {
    release_part(arg);
}

static int flush(tram_loop *loop, void *arg) {
    struct shards *shards = arg;
    loop_stands_for(loop, flush, shards->ops->release_function);
    release_part(shards);
    return 0;
}

/*
 * No worker knows it any more, but mail on its way may: calls behind all of that let go of it. A worker whose loop is
 * closed, or out of memory, keeps it until the runtime is freed.
 */
static void free_behind_mail(struct shards *shards) {
    tram_runtime *runtime = shards->runtime;
    for (unsigned i = 0; i < runtime->count; i++) {
        tram__runtime_hold_part(runtime, &shards->part);
        tram_loop_call_soon_threadsafe(runtime->workers[i].loop, flush, shards, flush_discard);
    }
    release_part(shards);
}

static void forget(struct shard *shard) {
    struct shards *shards = shard->shards;
    if (shard->forgotten)
        return;
    shard->forgotten = true;
    if (shard->object)
        shards->ops->release(shard->object);
    shard->object = NULL;
    pthread_mutex_lock(&shards->lock);
    if (shard->state != SHARD_BOUND)
        shard->state = SHARD_ENDED;
    bool last = --shards->known == 0 && shards->released;
    pthread_cond_broadcast(&shards->changed);
    pthread_mutex_unlock(&shards->lock);
    if (last)
        free_behind_mail(shards);
}

static void part_stop(struct runtime_part *part, unsigned worker) {
    forget(&shards_of(part)->shard[worker]);
}

static bool part_expects(struct runtime_part *part, unsigned worker) {
    struct shards *shards = shards_of(part);
    return shards->ops->expects && shards->ops->expects(&shards->shard[worker]);
}

static void part_describe(struct runtime_part *part, unsigned worker, char *text, size_t size) {
    struct shards *shards = shards_of(part);
    text[0] = '\0';
    if (shards->ops->describe && shards->shard[worker].object)
        shards->ops->describe(&shards->shard[worker], text, size);
}

static void part_free(struct runtime_part *part) {
    struct shards *shards = shards_of(part);
    shards->ops->free(shards);
}

static const struct runtime_part_ops part_ops = {
    .start = part_start,
    .stop = part_stop,
    .expects = part_expects,
    .describe = part_describe,
    .free = part_free,
};

/* ---- Closing ---- */

static int shard_close(tram_loop *loop, void *arg) {
    struct shard *shard = arg;
    loop_stands_for(loop, shard_close, shard->shards->ops->close_function);
    return shard->object ? shard->shards->ops->close(shard->object) : 0;
}

int tram__shards_call(struct shards *shards, tram_callback function) {
    const tram_runtime *runtime = shards->runtime;
    int status = 0;
    for (unsigned i = 0; i < runtime->count; i++) {
        /* A worker that has ended has closed its shard, and all that it had. */
        int posted = tram_loop_call_soon_threadsafe(runtime->workers[i].loop, function, &shards->shard[i], NULL);
        if (posted == -ENOMEM)
            status = posted;
    }
    return status;
}

int tram__shards_close(struct shards *shards) {
    tram_runtime *runtime = shards->runtime;
    int status = runtime_enter(runtime);
    if (status)
        return status;
    pthread_mutex_lock(&shards->lock);
    for (unsigned i = 0; i < runtime->count; i++)
        close_bound(&shards->shard[i]);
    pthread_cond_broadcast(&shards->changed);
    pthread_mutex_unlock(&shards->lock);
    return tram__shards_call(shards, shard_close);
}

/* ---- Letting go ---- */

static void let_go_discard(void *arg) {
    const struct shard *shard = arg;
    release_part(shard->shards);
}

static int let_go(tram_loop *loop, void *arg) {
    struct shard *shard = arg;
    struct shards *shards = shard->shards;
    loop_stands_for(loop, let_go, shards->ops->release_function);
    if (!shard->object || !shards->ops->drained || shards->ops->drained(shard))
        forget(shard);
    release_part(shards);
    return 0;
}

static void post_let_go(struct shard *shard) {
    struct shards *shards = shard->shards;
    tram_runtime *runtime = shards->runtime;
    tram__runtime_hold_part(runtime, &shards->part);
    if (tram_loop_call_soon_threadsafe(runtime->workers[shard->worker].loop, let_go, shard, let_go_discard))
        release_part(shards); /* that worker forgets it when it ends, or has done so */
}

void tram__shard_drained(struct shard *shard) {
    struct shards *shards = shard->shards;
    pthread_mutex_lock(&shards->lock);
    pthread_cond_broadcast(&shards->changed);
    bool released = shards->released;
    pthread_mutex_unlock(&shards->lock);
    if (released)
        post_let_go(shard);
}

int tram__shards_release(struct shards *shards) {
    tram_runtime *runtime = shards->runtime;
    int status = tram__shards_close(shards);
    if (status)
        return status;
    tram__runtime_hold_part(runtime, &shards->part);
    pthread_mutex_lock(&shards->lock);
    shards->released = true; /* what all workers have forgotten already is freed with the runtime */
    pthread_mutex_unlock(&shards->lock);
    for (unsigned i = 0; i < runtime->count; i++)
        post_let_go(&shards->shard[i]);
    release_part(shards);
    return 0;
}

void tram__shards_fini(struct shards *shards) {
    for (unsigned i = 0; i < shards->runtime->count; i++)
        close_bound(&shards->shard[i]);
    memory_put(&shards->runtime->allocator, shards->fds, shards->fds_capacity * sizeof *shards->fds);
    if (runtime_enter(shards->runtime) == 0) {
        pthread_cond_destroy(&shards->changed);
        pthread_mutex_destroy(&shards->lock);
    }
}

/* ---- Handing over ---- */

static void shard_done(struct shard *shard, int status, const struct kept_error *error) {
    struct shards *shards = shard->shards;
    pthread_mutex_lock(&shards->lock);
    shards->done_count++;
    if (status && !shards->status) {
        shards->status = status;
        tram__error_keep(shards->ret_error, &error->error);
    }
    pthread_cond_broadcast(&shards->changed);
    pthread_mutex_unlock(&shards->lock);
}

static void shard_ended(void *arg) {
    struct shard *shard = arg;
    struct kept_error error = {
        .error = {.code = TRAM_ESTATE, .operation = shard->shards->ops->operation, .detail = "the worker has ended"}};
    shard_done(shard, TRAM_ESTATE, &error);
}

static int shard_begin(tram_loop *loop, void *arg) {
    struct shard *shard = arg;
    struct kept_error error;
    loop_stands_for(loop, shard_begin, shard->shards->ops->create_function);
    if (atomic_load_explicit(&shard->shards->runtime->asked, memory_order_relaxed))
        shard_ended(shard);
    else
        shard_done(shard, begin(shard, loop, &error), &error);
    return 0;
}

static int hand_over(struct shards *shards) {
    tram_runtime *runtime = shards->runtime;
    for (unsigned i = 0; i < runtime->count; i++) {
        struct shard *shard = &shards->shard[i];
        int status = tram_loop_call_soon_threadsafe(runtime->workers[i].loop, shard_begin, shard, shard_ended);
        if (status == TRAM_ESTATE) {
            shard_ended(shard);
        } else if (status) {
            struct kept_error error = {.error = {.code = status, .operation = shards->ops->operation}};
            shard_done(shard, status, &error);
        }
    }
    pthread_mutex_lock(&shards->lock);
    while (shards->done_count < runtime->count)
        pthread_cond_wait(&shards->changed, &shards->lock);
    int status = shards->status;
    pthread_mutex_unlock(&shards->lock);
    if (status)
        tram__shards_release(shards);
    return status;
}

int tram__shards_begin(struct shards *shards) {
    tram_runtime *runtime = shards->runtime;
    for (unsigned i = 0; i < runtime->count; i++) {
        shards->shard[i].fds = shard_fds(shards, i);
        shards->shard[i].state = SHARD_BOUND;
    }
    int status = tram__runtime_add_part(runtime, &shards->part);
    if (status) {
        shards->ret_error->error = (tram_error){.code = status, .operation = shards->ops->operation};
        shards->ops->free(shards);
        return status;
    }
    return shards->part.late ? hand_over(shards) : 0;
}

/* ---- Making ---- */

void tram__shards_init(struct shards *shards, tram_runtime *runtime, const struct shard_ops *ops, struct shard *shard) {
    list_init(&shards->part.link);
    shards->part.ops = &part_ops;
    shards->runtime = runtime;
    shards->ops = ops;
    shards->ret_error = tram__runtime_error();
    shards->known = runtime->count;
    shards->shard = shard;
    pthread_mutex_init(&shards->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&shards->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (unsigned i = 0; i < runtime->count; i++)
        shard[i] = (struct shard){.shards = shards, .worker = i, .state = SHARD_ENDED};
}

int tram__shards_reserve(struct shards *shards, size_t sockets) {
    size_t room = shards->runtime->count * sockets;
    shards->fds = memory_get(&shards->runtime->allocator, room * sizeof *shards->fds);
    if (!shards->fds)
        return -ENOMEM;
    shards->fds_capacity = room;
    for (size_t i = 0; i < room; i++)
        shards->fds[i] = -1;
    return 0;
}
