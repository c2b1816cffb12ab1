/*
 * Tasks that wait in a lock or the like, in order of arrival. A waiter stays in its list until it runs again, woken or
 * cancelled: that is what keeps the order (asyncio's futures in a deque do the same). The head is zeroed memory; the
 * nodes are waits on the tasks' stacks.
 */
#ifndef TRAM_CORE_TASKS_WAITERS_H
#define TRAM_CORE_TASKS_WAITERS_H

#include "core/tasks/task.h"
#include <tram/sync.h>

struct waiter {
    struct task_wait wait;
    struct waiter *next, *previous;
    tram_waiters *waiters;
};

/* Joins the end and parks; when it is back it has left the list. As tram__task_park(). */
int tram__waiters_park(tram_waiters *waiters, const struct wait_kind *kind, const void *where, bool *ret_woken);

/* Wakes the first that is neither woken nor cancelled. False: there is none. */
bool tram__waiters_wake(tram_waiters *waiters);

/* Leaves the list; for the wait_kind of those that park here. */
void tram__waiters_abandon(struct task_wait *wait);

static inline struct waiter *waiters_first(const tram_waiters *waiters) {
    return waiters->first;
}

/* Is there one that was not cancelled? */
static inline bool waiters_any(const tram_waiters *waiters) {
    for (const struct waiter *waiter = waiters->first; waiter; waiter = waiter->next)
        if (waiter->wait.state != WAIT_CANCELLED)
            return true;
    return false;
}

#define WAIT_KIND(text)                                                                                                \
    { .name = text, .abandon = tram__waiters_abandon }

#endif
