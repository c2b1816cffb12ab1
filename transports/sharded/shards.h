/*
 * Something with sockets of its own on every worker of a runtime: a server's listeners, a datagram endpoint. The
 * calling thread opens all sockets, so that errors are its own; each worker takes over its share when it starts, or by
 * a call through its mailbox. What a worker makes of them is the table's business.
 */
#ifndef TRAM_TRANSPORTS_SHARDED_SHARDS_H
#define TRAM_TRANSPORTS_SHARDED_SHARDS_H

#include "core/runtime/runtime.h"
#include "transports/socket/address.h"

/* As data, for reports. */
#define FUNCTION(pointer) ((const void *)(uintptr_t)(pointer))

struct shard;
struct shards;

/* All but `free` run on the worker's thread. */
struct shard_ops {
    const char *operation; /* for errors */
    /* What the user called, for reports. */
    const void *create_function, *close_function, *release_function;
    /* Takes over the shard's sockets, and sets its `object`; on failure they stay the caller's. */
    int (*begin)(struct shard *shard, tram_loop *loop, struct kept_error *ret_error);
    int (*close)(void *object);
    void (*release)(void *object);
    /* May it be released, since it was closed and nobody is connected any more? NULL: yes. */
    bool (*drained)(const struct shard *shard);
    /* See struct runtime_part_ops; NULL: never, nobody. */
    bool (*expects)(struct shard *shard);
    void (*describe)(struct shard *shard, char *text, size_t size);
    /* Any thread, when no worker knows it any more: tram__shards_fini(), and frees the whole thing. */
    void (*free)(struct shards *shards);
};

enum shard_state {
    SHARD_BOUND, /* its sockets wait for the worker */
    SHARD_SERVES,
    SHARD_CLOSED, /* its sockets are gone, or about to go */
    SHARD_ENDED,  /* and so is all it had */
};

struct shard {
    struct shards *shards;
    unsigned worker;
    enum shard_state state; /* guarded by the lock */
    int *fds;               /* at most socket_count of them; the rest is -1 */
    void *object;           /* of the worker's thread */
    bool forgotten;         /* by its worker; of its thread */
};

struct shards {
    struct runtime_part part;
    tram_runtime *runtime;
    const struct shard_ops *ops;
    int *fds; /* of all workers */
    size_t fds_capacity;
    size_t socket_count; /* of each worker, at most */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* on the monotonic clock */
    unsigned done_count;    /* shards that serve, or could not */
    int status;             /* of the first that could not */
    struct kept_error *ret_error;
    bool released;       /* by the user */
    unsigned known;      /* to how many workers */
    struct shard *shard; /* one per worker */
};

/* `shard` has room for all workers of the runtime. Errors go to tram__runtime_error() of this thread. */
void tram__shards_init(struct shards *shards, tram_runtime *runtime, const struct shard_ops *ops, struct shard *shard);

/* Room for that many sockets on each worker; all are -1. 0 or -ENOMEM. */
int tram__shards_reserve(struct shards *shards, size_t sockets);

/* Where the sockets of a worker go. */
static inline int *shard_fds(const struct shards *shards, unsigned worker) {
    return shards->fds + worker * shards->socket_count;
}

/* How many sockets a shard has. */
static inline size_t shard_socket_count(const struct shard *shard) {
    size_t count = 0;
    while (count < shard->shards->socket_count && shard->fds[count] >= 0)
        count++;
    return count;
}

/* With all sockets open: hands them over. On failure everything is closed and freed, soon. */
int tram__shards_begin(struct shards *shards);

/* Closes every shard, soon. Any thread. */
int tram__shards_close(struct shards *shards);

/*
 * Closes it, and frees it once no worker knows it and nobody is connected; at the latest with the runtime. 0 or
 * -ENOMEM, and then it is to be called again. Any thread.
 */
int tram__shards_release(struct shards *shards);

/* A shard was drained: it is forgotten, soon, if all was released. Any thread that knows another shard. */
void tram__shard_drained(struct shard *shard);

/* Calls `function` with each shard on its worker, soon; its object may be NULL. 0 or -ENOMEM. Any thread. */
int tram__shards_call(struct shards *shards, tram_callback function);

/* Closes what no worker took over, and frees what this file made. */
void tram__shards_fini(struct shards *shards);

static inline const struct sys *runtime_sys(const tram_runtime *runtime) {
    return runtime->workers[0].loop->sys;
}

#endif
