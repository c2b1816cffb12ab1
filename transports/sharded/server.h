/* The server of a runtime as the files see it that are about one side of it: its end, its sockets. */
#ifndef TRAM_TRANSPORTS_SHARDED_SERVER_H
#define TRAM_TRANSPORTS_SHARDED_SERVER_H

#include "transports/base/secured.h"
#include "transports/server/balance.h"
#include "transports/sharded/shards.h"
#include "transports/socket/file.h"

struct tram_runtime_server {
    struct shards shards;
    struct balance balance;
    struct limits *limits; /* or NULL */
    struct tls_use tls;    /* keeps what options.tls points to, for shards that are still to be made */
    tram_protocol_factory factory;
    void *arg;
    tram_discard discard;        /* of `arg`, with the server; NULL: none */
    tram_server_options options; /* what it points to is not valid any more */
    struct address_list addresses;
    struct socket_file file; /* of a Unix socket: removed by whoever closes first */
    bool given;              /* guarded by the shards' lock: somebody else has the sockets, and the file */
    uint64_t drain_end_ns;   /* … too: the earliest of all drains; 0: none */
    struct shard of_worker[];
};

static inline tram_runtime_server *runtime_server_of(struct shards *shards) {
    return container_of(shards, tram_runtime_server, shards);
}

/* The connections of a worker, those on their way to it included. */
static inline size_t runtime_server_load(const tram_runtime_server *server, unsigned worker) {
    int32_t load = (int32_t)balance_load(&server->balance.workers[worker]);
    return (size_t)MAX(load, 0); /* one that came and went meanwhile may show its end first */
}

/* ---- sharded/ends.c ---- */

/* How the balance of a server tells it. */
extern const struct balance_watch tram__runtime_server_watch;

/* ---- sharded/sockets.c ---- */

/* Bound stream sockets of the user, to be served by the workers. Duplicates them: the originals stay open. */
int tram__runtime_server_use(tram_runtime_server *server, const int *sockets, size_t count,
                             struct kept_error *ret_error);

/* How many sockets the next call may give. */
size_t tram__runtime_server_socket_limit(const tram_runtime_server *server);

/* Duplicates of the sockets that it listens to now, each socket once. How many, or -errno. Any thread. */
ssize_t tram__runtime_server_copy(tram_runtime_server *server, int *ret_fds);

/*
 * Somebody else has the sockets, and with them whom they hold: from now on the server leaves both alone, and the file
 * of a Unix socket. Closes it, soon. Any thread.
 */
int tram__runtime_server_give(tram_runtime_server *server);

#endif
