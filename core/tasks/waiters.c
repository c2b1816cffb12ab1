#include "core/tasks/waiters.h"

static void join(tram_waiters *waiters, struct waiter *waiter) {
    waiter->waiters = waiters;
    waiter->next = NULL;
    waiter->previous = waiters->last;
    if (waiter->previous)
        waiter->previous->next = waiter;
    else
        waiters->first = waiter;
    waiters->last = waiter;
}

static void leave(struct waiter *waiter) {
    tram_waiters *waiters = waiter->waiters;
    if (waiter->previous)
        waiter->previous->next = waiter->next;
    else
        waiters->first = waiter->next;
    if (waiter->next)
        waiter->next->previous = waiter->previous;
    else
        waiters->last = waiter->previous;
}

void tram__waiters_abandon(struct task_wait *wait) {
    leave(container_of(wait, struct waiter, wait));
}

int tram__waiters_park(tram_waiters *waiters, const struct wait_kind *kind, const void *where, bool *ret_woken) {
    struct waiter waiter;
    wait_init(&waiter.wait, kind, where);
    join(waiters, &waiter);
    int status = tram__task_park(&waiter.wait);
    leave(&waiter);
    *ret_woken = waiter.wait.state == WAIT_WOKEN;
    return status;
}

bool tram__waiters_wake(tram_waiters *waiters) {
    for (struct waiter *waiter = waiters->first; waiter; waiter = waiter->next)
        if (task_wake(&waiter->wait))
            return true;
    return false;
}
