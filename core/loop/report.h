/*
 * What goes wrong and who hears of it: calls that may not be made, callbacks that fail or are slow. The loop's thread.
 */
#ifndef TRAM_CORE_LOOP_REPORT_H
#define TRAM_CORE_LOOP_REPORT_H

#include "core/base/private.h"
#include "core/loop/types.h"

/* ---- Entering: what every public call does first ---- */

/* 0, -ECHILD in a forked child, or in debug mode TRAM_ESTATE on a wrong thread, which is reported. */
TRAM_PRIVATE_API int tram__loop_enter_slow(const tram_loop *loop, const char *function);

/* The same; TRAM_ESTATE also once the loop is closed. */
TRAM_PRIVATE_API int tram__loop_enter_open_slow(const tram_loop *loop, const char *function);

static ALWAYS_INLINE int loop_enter_by(const tram_loop *loop, int (*slow)(const tram_loop *, const char *),
                                       const char *function) {
    return loop_is_plain(loop) ? 0 : slow(loop, function);
}

static inline int loop_enter(const tram_loop *loop, const char *function) {
    return loop_enter_by(loop, tram__loop_enter_slow, function);
}

/* For calls that schedule or register. */
static inline int loop_enter_open(const tram_loop *loop, const char *function) {
    return loop_enter_by(loop, tram__loop_enter_open_slow, function);
}

/* ---- Slow callbacks ---- */

/* Where callbacks are timed: remembers one if it was slow, and logs it in debug mode (L-30). See slow_begin(). */
void tram__slow_callback(tram_loop *loop, uint64_t start_ns, const void *function, const char *what);

/*
 * Called first in a callback of ours: what it stands for, a function of the user's or the one that the user called, is
 * what reports name.
 */
static inline void loop_stands_for(tram_loop *loop, tram_callback ours, const void *function) {
    loop->stand_in = ours;
    loop->stands_for = function;
}

/* ---- Records and the log ---- */

/*
 * One line. Peers must not be able to fill a disk: of each format, or message of a record, at most TRAM_LOG_PER_SECOND
 * lines come within a second, and then one that tells how many were left out.
 */
void tram__log(tram_loop *loop, tram_log_level level, const char *format, ...) TRAM_PRINTF(3, 4);

/* Tells what was left out so far: the loop closes. */
void tram__log_flush(tram_loop *loop);

/* Gives the record to the exception handler (L-27 to L-29). */
void tram__report(tram_loop *loop, const tram_exception *exception);

/* The error that a callback's negative `code` stands for, with what tram_loop_raise() left. Valid until the next
 * callback. */
const tram_error *tram__raised(tram_loop *loop, int code, const char *operation);

/* Reports the failure of a loop callback. */
void tram__report_callback(tram_loop *loop, int code, const void *function, const char *message, tram_handle handle);

/* Copies an error with its texts. */
void tram__error_keep(struct kept_error *kept, const tram_error *error);

#endif
