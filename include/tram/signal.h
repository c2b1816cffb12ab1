/* Signals as callbacks of a loop: loop.add_signal_handler. Calls of the loop's thread. */
#ifndef TRAM_SIGNAL_H
#define TRAM_SIGNAL_H

#include <tram/loop.h>

TRAM_BEGIN_DECLS

/*
 * Calls `callback` on the loop whenever `signal_number` came; signals in a burst may merge. Replaces the
 * handler that was set for it, on whatever loop: signal dispositions belong to the process, and the last call
 * wins. This is the one process-wide thing in tram; nothing touches a signal that was not asked for here.
 * TRAM_EVALUE: no such signal; TRAM_ESTATE: SIGKILL and SIGSTOP cannot be caught.
 */
TRAM_API int tram_loop_add_signal_handler(tram_loop *loop, int signal_number, tram_callback callback, void *arg);

/*
 * The same, and `discard` is called with `arg` when the handler is removed, replaced by another of this loop, or the
 * loop closes; never while the callback runs. On failure `arg` stays the caller's.
 */
TRAM_API int tram_loop_add_signal_handler_with_discard(tram_loop *loop, int signal_number, tram_callback callback,
                                                       void *arg, tram_discard discard);

/* Restores the signal's default action. 1: this loop had a handler for it, 0: it had none. */
TRAM_API int tram_loop_remove_signal_handler(tram_loop *loop, int signal_number);

TRAM_END_DECLS

#endif
