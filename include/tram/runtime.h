/*
 * The runtime: one loop per core, each on a thread of its own, a worker.
 *
 * A protocol written for one loop serves on all of them: tram_runtime_create_server() spreads the connections
 * over the workers, in one of the ways of enum tram_shard. Several runtimes may live in one process.
 *
 *     tram_runtime *runtime;
 *     tram_runtime_new(NULL, &runtime);
 *     tram_runtime_create_server(runtime, factory, NULL, NULL, "8080", NULL, &server, NULL);
 *     tram_runtime_run(runtime);
 *     tram_runtime_free(runtime);
 */
#ifndef TRAM_RUNTIME_H
#define TRAM_RUNTIME_H

#include <tram/server.h>
#include <tram/stats.h>

TRAM_BEGIN_DECLS

typedef struct tram_runtime tram_runtime;

/* A server with one shard on every worker. Freed with its runtime, or by tram_runtime_server_release(). */
typedef struct tram_runtime_server tram_runtime_server;

/*
 * Runs on a worker's thread: `start` before its loop does, `stop` after it ended and before it is closed.
 * `*state` is the worker's own pointer, for the user; tram_loop_state() and tram_runtime_state() read what it was when
 * one of the two returned. A failing `start` fails tram_runtime_start().
 *
 * No worker accepts a connection before `start` has returned on all of them. When the runtime stops, the loops of all
 * workers have run out before `stop` is called on any of them, and `stop` has returned on all of them before any loop
 * is closed: what one worker's connections want of another worker is served to the last, and `stop` may look at what
 * all workers have.
 */
typedef int (*tram_worker_function)(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg);

/* Zero-initialise; zero means the default. */
typedef struct tram_runtime_options {
    unsigned workers; /* 0: the CPUs this process may use, see tram_available_cpus() */
    bool pin;         /* worker i stays on the i-th CPU of the affinity mask */
    const char *name; /* threads are called "<name>-<i>"; NULL: "tram" */
    size_t stack_size;
    uint64_t grace_ns; /* how long connections may take to end after tram_runtime_stop(); 0: 10 s; TRAM_NOW: no time */
    /* SIGTERM and SIGINT stop the runtime; a second one ends the grace, but for those that come within 100 ms, which
     * are one. For one runtime of a process at a time: the last to start has them, and at its end they get their
     * default action (tram/signal.h). */
    bool handle_signals;
    tram_worker_function start;
    tram_worker_function stop;
    void *arg;
    tram_loop_options loop; /* for every worker's loop */
    /* The default pool of all its workers (tram/executor.h): threads for jobs (0: min(32, CPUs + 4)), and how many jobs
     * may wait for one before TRAM_ELIMIT (0: 65536; SIZE_MAX: no limit). */
    unsigned executor_threads;
    size_t executor_limit;
    uintptr_t reserved[6]; /* must be 0 */
} tram_runtime_options;

/* The CPUs this process may use: the smaller of affinity mask and cgroup quota (rounded up). */
typedef struct tram_cpu_count {
    unsigned count;     /* at least 1 */
    const char *reason; /* which limit decided: "affinity" or "cgroup quota"; a constant */
    uintptr_t reserved[4];
} tram_cpu_count;
TRAM_API tram_cpu_count tram_available_cpus(void);

/* A runtime whose workers are not started yet. `options` may be NULL. -ENOMEM, -EMFILE, TRAM_EVALUE. */
TRAM_API int tram_runtime_new(const tram_runtime_options *options, tram_runtime **ret_runtime);

/*
 * Binds a listening socket per worker, in order of workers, or fewer where options->shard says so, and serves on all
 * workers (with the options of tram_loop_create_server(); backlog 4096). Resolves and binds in the calling thread and
 * returns when every worker serves, or at once before tram_runtime_start(). Any thread that is not a worker of this
 * runtime (TRAM_ESTATE there: see tram_loop_create_runtime_server()). `ret_error` (may be NULL) gets the details of a
 * failure, with texts that are valid until the calling thread's next call of a function that makes something of a
 * runtime, whatever becomes of the runtime.
 *
 * With options->sockets each of these is listened to by some worker, and every worker listens where options->shard says
 * that all do; fewer sockets of an address than workers make TRAM_SHARD_SHARED of TRAM_SHARD_REUSEPORT. They become the
 * server's if the call succeeds.
 */
TRAM_API int tram_runtime_create_server(tram_runtime *runtime, tram_protocol_factory factory, void *arg,
                                        const char *host, const char *port, const tram_server_options *options,
                                        tram_runtime_server **ret_server, tram_error *ret_error);

/*
 * The same for callbacks, of a worker above all: without blocking, on a thread of the loop's default executor.
 * Completes on `loop` with the tram_runtime_server *, when every worker serves; who reads it (tram_future_result() with
 * a place for it) has it. One that nobody reads is released. Options that contradict each other fail the future, too.
 * Strings and options are copied, but for `sockets`, which stay open until the future is done, and the caller's if it
 * failed; so does `arg`, but for a cancelled future, whose server may have been made and is released then. Whoever
 * frees the runtime waits for those under way, and has released the futures of others. TRAM_EVALUE; -ENOMEM, -EAGAIN.
 * Loop's thread.
 */
TRAM_API int tram_loop_create_runtime_server(tram_loop *loop, tram_runtime *runtime, tram_protocol_factory factory,
                                             void *arg, const char *host, const char *port,
                                             const tram_server_options *options, tram_future **ret_future);

/* The address of its `index`-th socket of one worker; all workers have the same addresses. Any thread. */
TRAM_API int tram_runtime_server_sockname(const tram_runtime_server *server, size_t index,
                                          tram_socket_address *ret_address);

/* The connections that one worker has of this server, those on their way to it included. Any thread. */
TRAM_API size_t tram_runtime_server_connection_count(const tram_runtime_server *server, unsigned worker);

/* What its limits did so far on one worker: those that it accepted and reset, those that ended there. TRAM_EVALUE if
 * there is no such worker. Any thread. */
TRAM_API int tram_runtime_server_limit_counts(const tram_runtime_server *server, unsigned worker,
                                              tram_limit_counts *ret_counts);

/* What a server found when it was made. */
typedef struct tram_sharding {
    tram_shard shard;
    unsigned listening; /* workers with listening sockets */
    /*
     * TRAM_SHARD_REUSEPORT: a client that is about to connect to a worker's socket when that closes gets another
     * worker's (net.ipv4.tcp_migrate_req is set); else it is reset, and a warning in the log says so once. What was
     * connected is served in any case.
     */
    bool migrates;
    unsigned workers; /* of its runtime */
    uint64_t reserved[8];
} tram_sharding;
TRAM_API int tram_runtime_server_sharding(const tram_runtime_server *server, tram_sharding *ret_info);

/* Closes every shard, as tram_server_close(), soon. Any thread. */
TRAM_API int tram_runtime_server_close(tram_runtime_server *server);

/*
 * Closes it, and frees it when its last connection has ended, at the latest with the runtime: the server is not to be
 * used any more. An offer of its listeners goes on without it. -ENOMEM: call it again. NULL is allowed. Never waits.
 * Any thread.
 */
TRAM_API int tram_runtime_server_release(tram_runtime_server *server);

/* Close, or abort, every connection of the server, on every worker, soon. New ones still come. Any thread. */
TRAM_API int tram_runtime_server_close_clients(tram_runtime_server *server);
TRAM_API int tram_runtime_server_abort_clients(tram_runtime_server *server);

/*
 * Ends the server gracefully on all workers, as tram_server_drain(): closes it, asks its connections to end, and blocks
 * until none is left, but no longer than `timeout_ns` (0: does not block). Returns how many are left then, which are
 * reset, soon. Any thread that is not a worker of this runtime (TRAM_ESTATE there).
 */
TRAM_API int tram_runtime_server_drain(tram_runtime_server *server, uint64_t timeout_ns);

/*
 * tram_server_each_client() on every worker that runs, at the same time; returns when all have done it. -ENOMEM: some
 * could not be asked. Any thread that is not a worker of this runtime (TRAM_ESTATE there).
 */
TRAM_API int tram_runtime_server_each_client(tram_runtime_server *server, tram_client_function visit, void *arg);

/* Starts the workers and returns when all of them run, or none: -EAGAIN …, or what a `start` function
 * returned. */
TRAM_API int tram_runtime_start(tram_runtime *runtime);

/*
 * Asks for the end. Every worker
 *
 *     1. stops accepting, and serves those that the kernel had connected by then;
 *     2. asks its connections to end: calls `closing` of each protocol (tram/protocol.h), and closes those of its
 *        servers that have none when their work is done: bytes that are queued, a file that is sent, what
 *        tram_transport_begin_work() stands for. All others go on, since those may need them, and so do connections
 * that are being made;
 *     3. when none of these is left on any worker, closes all others, gives up those that are being made, and cancels
 *        its tasks;
 *     4. ends when nothing is left.
 *
 * What is left when the grace period is over is reset, its protocol hears TRAM_ETIMEOUT of "grace", and the log gets a
 * line for each worker; tram_runtime_join() tells how many there were.
 *
 * Any thread, and signal handlers; returns at once. A second call ends the grace period. Neither waits behind what was
 * posted, nor behind callbacks of many connections: a worker takes few posts while it ends, and discards those that are
 * left (tram_loop_call_soon_threadsafe()).
 */
TRAM_API int tram_runtime_stop(tram_runtime *runtime);

/*
 * The same end, which is no stop: the next tram_runtime_stop(), or signal, is the first one, and does not end the grace
 * period. For a process whose sockets another one has taken over. Nothing happens where the runtime ends already.
 */
TRAM_API int tram_runtime_drain(tram_runtime *runtime);

/*
 * Waits until all workers have ended. Returns how many connections had to be reset at the end of the grace period; 0:
 * nothing was cut. Not from a worker, and not while
 * tram_runtime_start() is at work: TRAM_ESTATE.
 */
TRAM_API int tram_runtime_join(tram_runtime *runtime);

/* start and join: serves until someone calls tram_runtime_stop(). */
TRAM_API int tram_runtime_run(tram_runtime *runtime);

/* Stops and joins if need be, and frees everything. NULL is allowed. No other thread may use it any more. */
TRAM_API void tram_runtime_free(tram_runtime *runtime);

TRAM_API unsigned tram_runtime_worker_count(const tram_runtime *runtime);

/* The loop of a worker, for the calls that any thread may make; NULL if there is no such worker. Any thread.
 */
TRAM_API tram_loop *tram_runtime_loop(const tram_runtime *runtime, unsigned worker);

/* The worker's state pointer, as `start` left it; NULL before. Any thread; all that `start` wrote is seen. */
TRAM_API void *tram_runtime_state(const tram_runtime *runtime, unsigned worker);

/*
 * Whose loop it is: the runtime, and the number of the worker. Either may be NULL. TRAM_ESTATE: no runtime's. Any
 * thread, as long as the runtime lives.
 */
TRAM_API int tram_loop_worker(const tram_loop *loop, tram_runtime **ret_runtime, unsigned *ret_index);

/* The worker's state pointer, from its loop; NULL if it is no runtime's. */
TRAM_API void *tram_loop_state(const tram_loop *loop);

/* What a worker made of it. */
typedef struct tram_worker_result {
    int status; /* 0, the negative code of the function, or why it did not run: TRAM_ESTATE, TRAM_ECANCELLED: the worker
                   has ended; -ENOMEM */
    void *value; /* what the function stored */
} tram_worker_result;

/*
 * Runs `function(worker's loop, arg)` on every worker, at the same time, each as by tram_loop_submit(); the future is
 * of `loop`, which is the caller's own and need not be a worker's. Its value is a const tram_worker_result *, with an
 * entry for each worker, in their order, valid as long as the future; it is done when all have answered, and fails for
 * none of them. `discard` (may be NULL) gets `arg` once, when no worker will use it any more: any thread. Cancelling
 * takes no work back. TRAM_EVALUE, TRAM_ESTATE, -ENOMEM: nothing runs, and `arg` stays the caller's.
 */
TRAM_API int tram_runtime_each(tram_runtime *runtime, tram_loop *loop, tram_submit_function function, void *arg,
                               tram_discard discard, tram_future **ret_future);

/* The worker's counters. Any thread, also after join. TRAM_EVALUE if there is no such worker. */
TRAM_API int tram_runtime_stats(const tram_runtime *runtime, unsigned worker, tram_stats *ret_stats);

TRAM_END_DECLS

#endif
