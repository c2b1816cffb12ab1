/*
 * System calls that would send SIGPIPE and take no flag against it (W-12). The signal goes to the thread that makes the
 * call, so it is enough to block it here and to take it back if it came.
 */
#ifndef TRAM_CORE_SYSTEM_QUIET_H
#define TRAM_CORE_SYSTEM_QUIET_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>

struct quiet {
    sigset_t pipe;
    bool blocked; /* it was before */
    bool pends;   /* one came before and is not ours to take */
};

static inline void quiet_begin(struct quiet *quiet) {
    sigset_t before, pending;
    sigemptyset(&quiet->pipe);
    sigaddset(&quiet->pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &quiet->pipe, &before);
    quiet->blocked = sigismember(&before, SIGPIPE);
    quiet->pends = quiet->blocked && sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE);
}

/* Leaves errno as it is. `may_have_come`: the call failed with EPIPE, or stopped for a reason it does not tell. */
static inline void quiet_end(const struct quiet *quiet, bool may_have_come) {
    int error = errno;
    static const struct timespec now;
    if (may_have_come && !quiet->pends)
        while (sigtimedwait(&quiet->pipe, NULL, &now) < 0 && errno == EINTR)
            ;
    if (!quiet->blocked)
        pthread_sigmask(SIG_UNBLOCK, &quiet->pipe, NULL);
    errno = error;
}

#endif
