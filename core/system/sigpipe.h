/*
 * System calls that would send SIGPIPE and take no flag against it (W-12). The signal goes to the thread that makes the
 * call, so it is enough to block it here and to take it back if it came.
 */
#ifndef TRAM_CORE_SYSTEM_SIGPIPE_H
#define TRAM_CORE_SYSTEM_SIGPIPE_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>

struct sigpipe_guard {
    sigset_t pipe;
    bool blocked; /* it was before */
    bool pends;   /* one came before and is not ours to take */
};

static inline void sigpipe_block(struct sigpipe_guard *guard) {
    sigset_t before, pending;
    sigemptyset(&guard->pipe);
    sigaddset(&guard->pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &guard->pipe, &before);
    guard->blocked = sigismember(&before, SIGPIPE);
    guard->pends = guard->blocked && sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE);
}

/* Leaves errno as it is. `may_have_come`: the call failed with EPIPE, or stopped for a reason it does not tell. */
static inline void sigpipe_restore(const struct sigpipe_guard *guard, bool may_have_come) {
    int error = errno;
    static const struct timespec now;
    if (may_have_come && !guard->pends)
        while (sigtimedwait(&guard->pipe, NULL, &now) < 0 && errno == EINTR)
            ;
    if (!guard->blocked)
        pthread_sigmask(SIG_UNBLOCK, &guard->pipe, NULL);
    errno = error;
}

#endif
