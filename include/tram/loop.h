/*
 * The event loop: asyncio.AbstractEventLoop.
 *
 * A loop belongs to the thread that runs it. Every call here is for that thread only, unless its comment says
 * "any thread"; in debug mode a call from elsewhere is reported and fails with TRAM_ESTATE. After fork()
 * every call in the child fails with -ECHILD. A loop works alone, driven by tram_loop_run_forever() or by a
 * host's own loop; the runtime (tram/runtime.h) is many of them.
 *
 * One turn of a loop, a tick: wait for I/O no longer than the next timer allows, then run what is queued
 * (callbacks and posts of other threads, in one order), then I/O, then due timers. What these queue runs in the
 * next tick.
 */
#ifndef TRAM_LOOP_H
#define TRAM_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tram/error.h>
#include <tram/export.h>
#include <tram/memory.h>
#include <tram/time.h>

TRAM_BEGIN_DECLS

typedef struct tram_loop tram_loop;
typedef struct tram_future tram_future;
typedef struct tram_transport tram_transport;
typedef struct tram_protocol tram_protocol;
typedef struct tram_server tram_server;
typedef struct tram_faults tram_faults;

/*
 * A callback of the loop. Returns 0; a negative code plays the part of an exception: it is reported to the
 * exception handler, and the loop goes on.
 */
typedef int (*tram_callback)(tram_loop *loop, void *arg);

/*
 * Called instead of a callback that will not run, or not again; frees the argument. Must not call into the loop. Of a
 * factory: protocols that it made may still be there. There is one wherever an argument is kept until something happens
 * that the caller cannot know. What the options of a loop or a runtime name is needed until that is freed, and the
 * argument of a transport's timer until connection_lost.
 */
typedef void (*tram_discard)(void *arg);

/* ---- Making and ending a loop ---- */

/* How a loop talks to the kernel. The environment variable TRAM_BACKEND (epoll) decides where this is AUTO.
 */
typedef enum tram_backend {
    TRAM_BACKEND_AUTO = 0,
    TRAM_BACKEND_EPOLL = 1,
} tram_backend;

typedef enum tram_log_level {
    TRAM_LOG_DEBUG = 0,
    TRAM_LOG_WARNING = 1,
    TRAM_LOG_ERROR = 2,
} tram_log_level;

/* Receives log lines, without a newline at the end. Called on the loop's thread; may call what a callback may. */
typedef void (*tram_log_function)(void *arg, tram_log_level level, const char *line);

/* In a log function: the loop whose line it was given, and tram_loop_worker() of that tells the worker. NULL elsewhere.
 */
TRAM_API tram_loop *tram_log_loop(void);

/* A tram_log_function that writes to standard error: the time (UTC), the name of the thread, which has a worker's
 * number in it, the level and the line. The library itself writes nowhere unless it is given one. */
TRAM_API void tram_log_to_stderr(void *arg, tram_log_level level, const char *line);

/* Zero-initialise; zero means the default. */
typedef struct tram_loop_options {
    tram_backend backend;
    const tram_allocator *allocator; /* copied; NULL: jemalloc if linked, else malloc */
    tram_log_function log;           /* NULL: nothing is logged */
    void *log_arg;
    bool debug;                /* start in debug mode, see tram_loop_set_debug() */
    bool measure_lag;          /* see tram_lag in tram/stats.h; two readings of the clock in a tick without timers */
    bool time_callbacks;       /* see tram_slow_site in tram/stats.h; two readings of the clock for each callback */
    uint64_t slow_callback_ns; /* 0: 100 ms */
    uint64_t spin_ns;     /* poll this long before sleeping, for posts, I/O and timers: burns CPU for latency. 0: only
                             after many posts, at most 64 ns for each and 10 us at once, and with none of the
                             functions below: who posts much wakes the loop less */
    size_t mailbox_limit; /* how many tram_loop_try_call_soon_threadsafe() calls may wait; 0: 65536 */
    tram_faults *faults;  /* for tests: its calls and allocations fail by this plan, see tram/fault.h; then no
                             allocator here */
    /* Around every wait that may block, on the thread of the loop, for a host whose threads share one big lock: it is
     * given away before and taken again after. They must not call into the loop. Not with tram_loop_dispatch(), which
     * never waits. */
    void (*before_wait)(tram_loop *loop, void *arg);
    void (*after_wait)(tram_loop *loop, void *arg);
    void *wait_arg;
    uintptr_t reserved[4]; /* must be 0 */
} tram_loop_options;

/*
 * A new loop (asyncio.new_event_loop). `options` may be NULL. -ENOMEM, -EMFILE …, TRAM_EVALUE for an unknown
 * backend. Any thread; while nobody runs the loop, whoever uses it sees to it that nobody else does.
 */
TRAM_API int tram_loop_new(const tram_loop_options *options, tram_loop **ret_loop);

/*
 * Closes a loop that does not run (loop.close): queued callbacks and timers are discarded unrun, signal
 * handlers removed, open transports and servers closed at once. Afterwards every call that would schedule or
 * register fails with TRAM_ESTATE. TRAM_ESTATE while it runs, and inside of what calls outside of it may call, too, and
 * which go on with the loop: factories, `start` of a supervisor's children, pause_writing and resume_writing, entries
 * of custom transports, exception handlers. Closing twice is harmless.
 */
TRAM_API int tram_loop_close(tram_loop *loop);

/*
 * Closes the loop if that was not done, and frees it. No thread may use `loop` any more. NULL is allowed. In
 * a forked child this only forgets the loop: nothing is called, not even what discards posts. A child that was forked
 * in a callback may do so, and then run loops of its own, but must not return from the callback: it ends by _exit(2)
 * or exec(3). TRAM_ESTATE while it runs.
 */
TRAM_API int tram_loop_free(tram_loop *loop);

TRAM_API bool tram_loop_is_running(const tram_loop *loop);
TRAM_API bool tram_loop_is_closed(const tram_loop *loop);

/* The loop that the calling thread is running, or NULL (asyncio.get_running_loop). Any thread. */
TRAM_API tram_loop *tram_loop_running(void);

/* "epoll". Any thread. */
TRAM_API const char *tram_loop_backend_name(const tram_loop *loop);

/* ---- Running ---- */

/*
 * Runs ticks until tram_loop_stop() (loop.run_forever). TRAM_ESTATE: closed, already running, or another loop
 * runs on this thread. -errno: somebody has closed the descriptor by which the loop waits, which is reported, too.
 */
TRAM_API int tram_loop_run_forever(tram_loop *loop);

/*
 * Runs until `future` is done (loop.run_until_complete) and returns its status: 0 or the error's code.
 * TRAM_ESTATE also if the loop was stopped before that. The caller keeps its reference to the future.
 */
TRAM_API int tram_loop_run_until_complete(tram_loop *loop, tram_future *future);

/*
 * Ends run_forever after the tick that is running (loop.stop); what that tick queued waits for the next run.
 * Before a run: that run makes exactly one tick.
 */
TRAM_API int tram_loop_stop(tram_loop *loop);

/*
 * Three calls drive the loop from a host's own loop instead of run_forever, all on one thread:
 *
 *     uint64_t timeout_ns;
 *     tram_loop_prepare(loop, &timeout_ns);             immediately before the host sleeps
 *     host waits at most timeout_ns (0: not at all, or TRAM_FOREVER), or until tram_loop_backend_fd() is readable
 *     tram_loop_dispatch(loop);                         one tick, never blocks
 *
 * prepare makes posts of other threads wake the descriptor, so it must come after the last call into the
 * loop.
 */
TRAM_API int tram_loop_prepare(tram_loop *loop, uint64_t *ret_timeout_ns);

/* A descriptor that polls readable when the loop has something to do. Owned by the loop. */
TRAM_API int tram_loop_backend_fd(const tram_loop *loop);

/* One tick. 1: tram_loop_stop() was called, 0: go on; otherwise as run_forever. */
TRAM_API int tram_loop_dispatch(tram_loop *loop);

/* ---- Callbacks and timers ---- */

/*
 * Names a scheduled callback or timer (asyncio.Handle, TimerHandle). A value: copy it, keep it for ever; once
 * its callback ran or was cancelled it names nothing, and never something else. All zero names nothing.
 */
typedef struct tram_handle {
    uint32_t slot;
    uint32_t generation;
} tram_handle;

/*
 * Runs `callback(loop, arg)` in the next tick, in order of calling (loop.call_soon). `discard` (may be NULL)
 * is called with `arg` instead if the loop is closed first; after a cancel neither is called. `ret_handle`
 * may be NULL. -ENOMEM, TRAM_ESTATE: nothing was queued and `arg` stays the caller's.
 */
TRAM_API int tram_loop_call_soon(tram_loop *loop, tram_callback callback, void *arg, tram_discard discard,
                                 tram_handle *ret_handle);

/*
 * The same after `delay_ns` from now (loop.call_later). Zero: due at once, yet a timer, so it runs after what is
 * queued already. TRAM_FOREVER: never, so that there is something to cancel. Timers run in order of deadline, then of
 * creation, and never early. A time that has passed is for tram_loop_call_at().
 */
TRAM_API int tram_loop_call_later(tram_loop *loop, uint64_t delay_ns, tram_callback callback, void *arg,
                                  tram_discard discard, tram_handle *ret_handle);

/* The same at `when_ns` on the clock of tram_loop_time() (loop.call_at). */
TRAM_API int tram_loop_call_at(tram_loop *loop, uint64_t when_ns, tram_callback callback, void *arg,
                               tram_discard discard, tram_handle *ret_handle);

/* The loop's clock, CLOCK_MONOTONIC in nanoseconds, read now (loop.time). Any thread. */
TRAM_API uint64_t tram_loop_time(const tram_loop *loop);

/*
 * After this the callback never runs, even if its time has come in this tick (Handle.cancel). 1: it was
 * cancelled by this call; 0: it had run or was cancelled before.
 */
TRAM_API int tram_handle_cancel(tram_loop *loop, tram_handle handle);

/*
 * Was it cancelled (Handle.cancelled)? 1 or 0; -ESRCH once so many handles were made since that the loop has
 * forgotten this one.
 */
TRAM_API int tram_handle_cancelled(const tram_loop *loop, tram_handle handle);

/* The deadline of a pending timer (TimerHandle.when), on the clock of tram_loop_time(). -ESRCH: no pending
 * timer. */
TRAM_API int tram_handle_when(const tram_loop *loop, tram_handle handle, uint64_t *ret_when_ns);

/*
 * As tram_loop_call_soon(), from any thread (loop.call_soon_threadsafe). Wakes the loop if it sleeps; never
 * blocks; calls of one thread keep their order. There is one queue: this call has its place among those of
 * tram_loop_call_soon(), but for two cases: a call of another thread that comes within a tick runs behind what the
 * tick's callbacks queued, and where more than 256 of them wait, the rest has its turn in later ticks. What it accepted
 * is run, or given to `discard` when the loop closes: on the closing thread, or within this call on the calling one.
 * -ENOMEM, TRAM_ESTATE after close: `arg` stays the caller's.
 */
TRAM_API int tram_loop_call_soon_threadsafe(tram_loop *loop, tram_callback callback, void *arg, tram_discard discard);

/* The same, but -EAGAIN when mailbox_limit such calls wait already. Any thread. */
TRAM_API int tram_loop_try_call_soon_threadsafe(tram_loop *loop, tram_callback callback, void *arg,
                                                tram_discard discard);

/*
 * A call from any thread that any thread may take back (asyncio.Handle of call_soon_threadsafe). Counted: the caller's
 * reference is given back by tram_threadsafe_handle_release(), before or after the call. It may outlive the loop.
 */
typedef struct tram_threadsafe_handle tram_threadsafe_handle;
TRAM_API int tram_loop_call_soon_threadsafe_handle(tram_loop *loop, tram_callback callback, void *arg,
                                                   tram_discard discard, tram_threadsafe_handle **ret_handle);

/*
 * After it returned 1, neither the callback nor `discard` is called: `arg` is the caller's again. 0: the callback has
 * begun, was discarded, or was cancelled before. Any thread.
 */
TRAM_API int tram_threadsafe_handle_cancel(tram_threadsafe_handle *handle);
TRAM_API bool tram_threadsafe_handle_cancelled(const tram_threadsafe_handle *handle);

/* NULL is allowed. Any thread. */
TRAM_API void tram_threadsafe_handle_release(tram_threadsafe_handle *handle);

/* ---- Descriptors ---- */

/*
 * Calls `callback` in every tick in which `fd` is readable (or has an error or a hang-up) until it is removed
 * (loop.add_reader). A second call replaces the first, whose callback does not run any more. The descriptor
 * stays the caller's, who removes it before closing it. -EBADF; -EPERM for a regular file; TRAM_ESTATE if a
 * transport owns it.
 */
TRAM_API int tram_loop_add_reader(tram_loop *loop, int fd, tram_callback callback, void *arg);
TRAM_API int tram_loop_add_writer(tram_loop *loop, int fd, tram_callback callback, void *arg);

/*
 * The same, and `discard` is called with `arg` when the callback is removed, replaced by another, or its loop closes;
 * never while the callback runs. On failure `arg` stays the caller's.
 */
TRAM_API int tram_loop_add_reader_with_discard(tram_loop *loop, int fd, tram_callback callback, void *arg,
                                               tram_discard discard);
TRAM_API int tram_loop_add_writer_with_discard(tram_loop *loop, int fd, tram_callback callback, void *arg,
                                               tram_discard discard);

/* 1: was registered and is no more, 0: nothing was registered (loop.remove_reader). */
TRAM_API int tram_loop_remove_reader(tram_loop *loop, int fd);
TRAM_API int tram_loop_remove_writer(tram_loop *loop, int fd);

/* ---- When something goes wrong ---- */

/* The record that an exception handler gets; what does not apply is NULL, zero, or -1 for `fd`. */
typedef struct tram_exception {
    const char *message;
    const tram_error *error;
    tram_handle handle;
    const char *callback; /* name of the function concerned, as far as it can be told */
    tram_transport *transport;
    tram_protocol *protocol;
    tram_server *server;
    tram_future *future;
    int fd;
    uintptr_t reserved[8];
} tram_exception;

/* Returns 0; if it fails, the record goes to the log. */
typedef int (*tram_exception_handler)(tram_loop *loop, const tram_exception *exception, void *arg);

/* Replaces the handler (loop.set_exception_handler); NULL: the default one, which logs the record. */
TRAM_API int tram_loop_set_exception_handler(tram_loop *loop, tram_exception_handler handler, void *arg);

/*
 * The same, and `discard` is called with `arg` when another takes its place, or the loop is freed; never while the
 * handler runs. -ENOMEM: the handler is the one that it was, and `arg` stays the caller's.
 */
TRAM_API int tram_loop_set_exception_handler_with_discard(tram_loop *loop, tram_exception_handler handler, void *arg,
                                                          tram_discard discard);

/* Hands a record to the handler (loop.call_exception_handler). */
TRAM_API int tram_loop_call_exception_handler(tram_loop *loop, const tram_exception *exception);

/*
 * For a callback that fails: remembers `user` and `detail` (both may be NULL; the text is copied) until the end of
 * the tick, and returns `code` (TRAM_EUSER for one that is no error), which the callback returns in turn. Both reach
 * the exception handler with the code; connection_lost gets `user`:
 *
 *     return tram_loop_raise(loop, TRAM_EUSER, my_context, "no such account");
 */
TRAM_API int tram_loop_raise(tram_loop *loop, int code, void *user, const char *detail);

/*
 * The same with a `user` that is given away: release(user) is called once, when everyone has seen the error: after the
 * exception handler or connection_lost has returned, with the last reference to a future that failed with it, or soon
 * if the code is not returned at all. Without memory it is called at once, and the error has no user pointer.
 */
TRAM_API int tram_loop_raise_with_release(tram_loop *loop, int code, void *user, void (*release)(void *user),
                                          const char *detail);

/*
 * Debug mode (loop.set_debug): calls from a wrong thread are caught (and reported on that thread), slow callbacks
 * logged with their name, and the life of transports logged. Costs nothing when off.
 */
TRAM_API int tram_loop_set_debug(tram_loop *loop, bool enabled);
TRAM_API bool tram_loop_get_debug(const tram_loop *loop);

/* From how long on a callback is slow (loop.slow_callback_duration). 0: 100 ms; TRAM_NOW: always; TRAM_FOREVER: never.
 */
TRAM_API int tram_loop_set_slow_callback_duration(tram_loop *loop, uint64_t duration_ns);

TRAM_END_DECLS

#endif
