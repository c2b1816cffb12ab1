/*
 * Futures: what every asynchronous call returns (asyncio.Future).
 *
 * A future belongs to one loop and is used on its thread only. It is counted: a call that hands one out gives
 * the caller one reference, to be given back with tram_future_release() before the loop is freed. Letting go
 * of a future does not cancel what it stands for. The error of one that is freed unread goes to the exception handler,
 * as "future exception was never retrieved". NULL is no future: calls return TRAM_EVALUE, or false or NULL.
 */
#ifndef TRAM_FUTURE_H
#define TRAM_FUTURE_H

#include <tram/loop.h>

TRAM_BEGIN_DECLS

/*
 * Called once, from the loop, after the future is done: never inside the call that completed or asked for it; not at
 * all where the loop closes first (tram_future_add_done_callback_with_discard() hears of that). Returns 0; a negative
 * code is reported to the exception handler, with the future (see tram_callback).
 */
typedef int (*tram_future_callback)(tram_future *future, void *arg);

/* A pending future (loop.create_future), for the caller to complete. */
TRAM_API int tram_loop_create_future(tram_loop *loop, tram_future **ret_future);

/* One reference more, and one less; releasing NULL does nothing. */
TRAM_API tram_future *tram_future_hold(tram_future *future);
TRAM_API void tram_future_release(tram_future *future);
TRAM_API tram_loop *tram_future_get_loop(const tram_future *future);

TRAM_API bool tram_future_done(const tram_future *future);
TRAM_API bool tram_future_cancelled(const tram_future *future);

/*
 * 0 and the value (what it is, and whose, says the call that returned the future); the code of the error;
 * TRAM_ECANCELLED; TRAM_ESTATE while pending. `ret_value` may be NULL.
 */
TRAM_API int tram_future_result(const tram_future *future, void **ret_value);

/*
 * The value by its type: of a future that has succeeded and stands for a transport, or a server; else NULL. As long as
 * the future, which holds it; whose it is beyond that, says the call that returned the future.
 */
TRAM_API tram_transport *tram_future_transport(const tram_future *future);
TRAM_API tram_server *tram_future_server(const tram_future *future);

/*
 * The same of a count, as of tram_loop_sock_recv_into(), tram_loop_sendfile() or tram_server_drain(). 0, or what
 * tram_future_result() returns; TRAM_ETYPE: the future stands for something else. A descriptor is had from
 * tram_future_fd() (tram/sock.h).
 */
TRAM_API int tram_future_count(const tram_future *future, uint64_t *ret_count);

/* A pointer of the user's, which the library keeps and never looks at; NULL at first. */
TRAM_API int tram_future_set_user(tram_future *future, void *user);
TRAM_API void *tram_future_user(const tram_future *future);

/* The error of a failed future, valid as long as the future; NULL if it has none (Future.exception). */
TRAM_API const tram_error *tram_future_error(const tram_future *future);

/*
 * Complete a future of tram_loop_create_future(); TRAM_ETYPE for any other. TRAM_ESTATE if it is done
 * already. The error, its texts and its causes are copied.
 */
TRAM_API int tram_future_set_result(tram_future *future, void *value);
TRAM_API int tram_future_set_error(tram_future *future, const tram_error *error);

/*
 * Asks for cancellation (Future.cancel). 1: asked; a future of the caller's own is done with TRAM_ECANCELLED
 * on return, one that stands for an operation as soon as that is withdrawn. 0: it was done already.
 */
TRAM_API int tram_future_cancel(tram_future *future);

/*
 * Calls `callback(future, arg)` by call_soon once the future is done, or soon if it is
 * (Future.add_done_callback), in order of registration. From then on the loop holds the future until the
 * callback ran; a future that is let go while it is pending calls nothing. -ENOMEM, but not for
 * a future's only one; TRAM_ESTATE on a closed loop.
 */
TRAM_API int tram_future_add_done_callback(tram_future *future, tram_future_callback callback, void *arg);

/*
 * The same, and `discard` is called with `arg` if the callback will never run: it was removed, the future was let go
 * while it was pending, or the loop closed. On failure `arg` stays the caller's.
 */
TRAM_API int tram_future_add_done_callback_with_discard(tram_future *future, tram_future_callback callback, void *arg,
                                                        tram_discard discard);

/* How many such callbacks were taken off before they were scheduled (Future.remove_done_callback). */
TRAM_API int tram_future_remove_done_callback(tram_future *future, tram_future_callback callback, void *arg);

TRAM_END_DECLS

#endif
