/* Blocking work on a pool of threads: loop.run_in_executor. */
#ifndef TRAM_EXECUTOR_H
#define TRAM_EXECUTOR_H

#include <tram/future.h>

TRAM_BEGIN_DECLS

/* A pool of threads, for one loop or for many. */
typedef struct tram_executor tram_executor;

/* The work, on a thread of the pool. 0 and the result, or a negative code. */
typedef int (*tram_executor_function)(void *arg, void **ret_result);

/*
 * A pool of at most `max_threads` (0: min(32, CPUs + 4)) threads named `name` (NULL: "tram-executor"), each
 * started when first needed. Any thread. -ENOMEM.
 */
TRAM_API int tram_executor_new(unsigned max_threads, const char *name, tram_executor **ret_executor);

/* Runs what is queued, ends the threads and frees the pool; blocks until then. Not from one of its own
 * threads. */
TRAM_API void tram_executor_free(tram_executor *executor);

/*
 * Runs `function(arg)` on `executor` (NULL: the loop's default pool, made on first use); completes with its
 * result. `discard` (may be NULL) gets `arg` if the function will never run. Cancelling takes a queued job
 * back; of a running one it only detaches the future: the function runs to its end and its result is dropped.
 * TRAM_ESTATE after shutdown_default_executor; -ENOMEM, -EAGAIN: `arg` stays the caller's. Loop's thread.
 */
TRAM_API int tram_loop_run_in_executor(tram_loop *loop, tram_executor *executor, tram_executor_function function,
                                       void *arg, tram_discard discard, tram_future **ret_future);

/* Uses `executor` for this loop from now on; it stays the caller's and must outlive the loop. */
TRAM_API int tram_loop_set_default_executor(tram_loop *loop, tram_executor *executor);

/*
 * Lets no new job into the default pool and completes when its threads have ended, without blocking the loop;
 * `timeout_ns` (0: TRAM_FOREVER) later it gives up with a warning and leaves them behind: the future completes all
 * the same.
 */
TRAM_API int tram_loop_shutdown_default_executor(tram_loop *loop, uint64_t timeout_ns, tram_future **ret_future);

TRAM_END_DECLS

#endif
