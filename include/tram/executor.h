/* Blocking work on a pool of threads: loop.run_in_executor. */
#ifndef TRAM_EXECUTOR_H
#define TRAM_EXECUTOR_H

#include <tram/future.h>

TRAM_BEGIN_DECLS

/* A pool of threads, for one loop or for many. After fork() it has none in the child: calls with it are -ECHILD, and
 * tram_executor_free() there leaves it alone. */
typedef struct tram_executor tram_executor;

/* The work, on a thread of the pool. 0 and the result, or a negative code. */
typedef int (*tram_executor_function)(void *arg, void **ret_result);

/*
 * A pool of at most `max_threads` (0: min(32, CPUs + 4)) threads named `name` (NULL: "tram-executor"), each
 * started when first needed. Lookups of names (tram/resolver.h) have half as many threads of their own beside these,
 * and at least one: neither work nor names that hang hold the other up. Any thread. -ENOMEM.
 */
TRAM_API int tram_executor_new(unsigned max_threads, const char *name, tram_executor **ret_executor);

/*
 * At most so many jobs, and as many lookups, wait while all threads that they may have are at work (at first: any
 * number). One more is refused with TRAM_ELIMIT, and its argument stays the caller's; so is a job beyond a limit that
 * was lowered, but those that wait go on waiting. Any thread. -ECHILD, TRAM_EVALUE.
 */
TRAM_API int tram_executor_set_limit(tram_executor *executor, size_t waiting);

/* Runs what is queued, ends the threads and frees the pool; blocks until then. Not from one of its own
 * threads. */
TRAM_API void tram_executor_free(tram_executor *executor);

/*
 * Runs `function(arg)` on `executor`; completes with its result. NULL is the loop's default pool: that of its runtime
 * (tram_runtime_options), which all workers share, or else one of its own, made on first use. `discard` (may be NULL)
 * gets `arg` if the function will never run. Cancelling takes a queued job back; of a running one it only detaches the
 * future: the function runs to its end and its result is dropped. TRAM_ESTATE after shutdown_default_executor;
 * TRAM_ELIMIT: too many wait; -ENOMEM, -EAGAIN: `arg` stays the caller's. Loop's thread.
 */
TRAM_API int tram_loop_run_in_executor(tram_loop *loop, tram_executor *executor, tram_executor_function function,
                                       void *arg, tram_discard discard, tram_future **ret_future);

/* A job with all that can be said of it. Zero-initialise. */
typedef struct tram_job {
    tram_executor_function function;
    void *arg;
    tram_discard discard; /* gets `arg` if the function will never run */
    /* Gets the result, unless it is NULL, where nobody can: the future was cancelled while the function ran, or
     * released with its value unread, or the loop was closed. Any thread; it must not wait for one. NULL: nothing is
     * done. */
    tram_discard free_result;
    uintptr_t reserved[4]; /* must be 0 */
} tram_job;

/* The same as tram_loop_run_in_executor(). A result that was read (tram_future_result() with a place for it) is the
 * reader's to free. */
TRAM_API int tram_loop_run_job(tram_loop *loop, tram_executor *executor, const tram_job *job, tram_future **ret_future);

/* Uses `executor` for this loop from now on; it stays the caller's and must outlive the loop. */
TRAM_API int tram_loop_set_default_executor(tram_loop *loop, tram_executor *executor);

/*
 * Lets no new job of this loop into its default pool and completes when the threads have ended, or, of a pool that is
 * shared or was set, when this loop's jobs have, without blocking the loop;
 * `timeout_ns` (0: TRAM_FOREVER) later it gives up with a warning and leaves them behind: the future completes all
 * the same.
 */
TRAM_API int tram_loop_shutdown_default_executor(tram_loop *loop, uint64_t timeout_ns, tram_future **ret_future);

TRAM_END_DECLS

#endif
