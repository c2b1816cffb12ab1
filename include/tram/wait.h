/*
 * Waiting for several futures, and for no longer than a while (asyncio.gather, wait, as_completed, shield, wait_for,
 * timeout). A task is a future too: tram_task_future().
 *
 * Calls of the loop's thread. Those that wait are for tasks, and return TRAM_ESTATE elsewhere; futures of another loop
 * are TRAM_ESTATE, a NULL among them TRAM_EVALUE.
 */
#ifndef TRAM_WAIT_H
#define TRAM_WAIT_H

#include <tram/future.h>
#include <tram/time.h>

TRAM_BEGIN_DECLS

/* ---- No longer than a while ---- */

/*
 * As tram_await(), but after `timeout_ns` the future is cancelled, and when it has ended TRAM_ETIMEOUT is returned
 * (asyncio.wait_for). If it ended otherwise, that counts. 0: only what is done already is in time.
 */
TRAM_API int tram_wait_for(tram_future *future, uint64_t timeout_ns, void **ret_value);

/*
 * A part of a task that may take no longer than a while (asyncio.timeout):
 *
 *     tram_timeout *timeout;
 *     int status = tram_timeout_begin(5000000000, &timeout);
 *     if (status)
 *         return status;
 *     status = do_this_and_that();
 *     return tram_timeout_end(timeout, status);
 *
 * When the time is over the task is cancelled. If what the part returns is that cancellation, and nobody else asked for
 * one, tram_timeout_end() returns TRAM_ETIMEOUT instead. Timeouts nest, and nest with groups; one that is still open
 * when the task's function returns is ended there.
 */
typedef struct tram_timeout tram_timeout;

/* Begins it for the running task. 0: its time is over in the next tick; TRAM_FOREVER: no deadline yet. -ENOMEM. */
TRAM_API int tram_timeout_begin(uint64_t delay_ns, tram_timeout **ret_timeout);

/* Ends and frees it; `status` is what the part returned. Returns that, or TRAM_ETIMEOUT. TRAM_ESTATE: it is not the
 * innermost scope of the running task, and was not ended. */
TRAM_API int tram_timeout_end(tram_timeout *timeout, int status);

/* Another deadline, on the clock of tram_loop_time(); TRAM_FOREVER: none (Timeout.reschedule). TRAM_ESTATE: it is over.
 */
TRAM_API int tram_timeout_reschedule(tram_timeout *timeout, uint64_t when_ns);

/* The deadline (Timeout.when); TRAM_FOREVER: none. */
TRAM_API uint64_t tram_timeout_when(const tram_timeout *timeout);

/* Is its time over, and the task cancelled (Timeout.expired)? */
TRAM_API bool tram_timeout_expired(const tram_timeout *timeout);

/* ---- Several ---- */

enum {
    TRAM_GATHER_ERRORS = 1 /* an error of one does not end the waiting for the others (return_exceptions) */
};

/*
 * A future that is done when all of `futures` are (asyncio.gather), which it holds meanwhile; the array is copied. Its
 * result is NULL: ask each of them for its own. Without TRAM_GATHER_ERRORS it fails as soon as one fails, or with
 * TRAM_ECANCELLED when one was cancelled, and the others go on. Cancelling it cancels all that are not done; it is done
 * with TRAM_ECANCELLED when they are. Errors count as looked at. No futures: it is done at once. -ENOMEM.
 */
TRAM_API int tram_gather(tram_loop *loop, tram_future *const *futures, size_t count, unsigned flags,
                         tram_future **ret_future);

typedef enum tram_wait_mode {
    TRAM_ALL_COMPLETED = 0,
    TRAM_FIRST_COMPLETED = 1,
    TRAM_FIRST_EXCEPTION = 2 /* the first that fails, cancelled ones apart; else all */
} tram_wait_mode;

/*
 * Waits until as many are done as `mode` says, but no longer than `timeout_ns` (0: it only looks) (asyncio.wait).
 * Returns how many are done, which tram_future_done() tells of each. Nothing is cancelled, neither at the end of the
 * time nor when the task is. TRAM_EVALUE: no futures, or no such mode; -ENOMEM.
 */
TRAM_API int tram_wait(tram_future *const *futures, size_t count, uint64_t timeout_ns, tram_wait_mode mode);

/*
 * Futures in the order in which they are done (asyncio.as_completed). Begun with all of them, which are held until
 * tram_completions_free(); the array is copied.
 */
typedef struct tram_completions tram_completions;
TRAM_API int tram_as_completed(tram_future *const *futures, size_t count, uint64_t timeout_ns,
                               tram_completions **ret_completions);

/* Waits for the next one. 1 and the future, without a further reference; 0: all were returned; TRAM_ETIMEOUT: the time
 * is over, counted from tram_as_completed(); TRAM_ECANCELLED. */
TRAM_API int tram_completions_next(tram_completions *completions, tram_future **ret_future);

/* To be called before the loop is freed. NULL is allowed. */
TRAM_API void tram_completions_free(tram_completions *completions);

/*
 * A future that ends as `inner` does, but whose cancelling does not cancel `inner` (asyncio.shield). The inner one is
 * held meanwhile; its value is not copied. -ENOMEM.
 */
TRAM_API int tram_shield(tram_future *inner, tram_future **ret_future);

TRAM_END_DECLS

#endif
