/*
 * Lock, event, semaphore, condition and barrier, each as asyncio's: who is woken has not got it yet, but its turn, and
 * takes it when it runs.
 */
#include "core/base/invalid.h"
#include "core/tasks/waiters.h"

static const struct wait_kind lock_kind = WAIT_KIND("lock");
static const struct wait_kind event_kind = WAIT_KIND("event");
static const struct wait_kind semaphore_kind = WAIT_KIND("semaphore");
static const struct wait_kind condition_kind = WAIT_KIND("condition");

/* ---- Lock ---- */

/* Only the first, and only if nothing happened to it yet: it is its turn. */
static void wake_first(tram_lock *lock) {
    struct waiter *first = waiters_first(&lock->waiters);
    if (first)
        task_wake(&first->wait);
}

static int acquire(tram_lock *lock, const void *where) {
    int status = task_check(NULL);
    if (unlikely(status))
        return status;
    if (likely(!lock->locked && !waiters_any(&lock->waiters))) {
        lock->locked = true;
        return 0;
    }
    bool woken;
    status = tram__waiters_park(&lock->waiters, &lock_kind, where, &woken);
    if (status) {
        if (!lock->locked)
            wake_first(lock);
        return status;
    }
    lock->locked = true;
    return 0;
}

int tram_lock_acquire(tram_lock *lock) {
    return acquire(lock, __builtin_return_address(0));
}

int tram_lock_release(tram_lock *lock) {
    if (unlikely(!lock->locked))
        return TRAM_ESTATE;
    lock->locked = false;
    wake_first(lock);
    return 0;
}

bool tram_lock_locked(const tram_lock *lock) {
    return lock->locked;
}

/* ---- Event ---- */

void tram_event_set(tram_event *event) {
    if (event->set)
        return;
    event->set = true;
    for (struct waiter *waiter = waiters_first(&event->waiters); waiter; waiter = waiter->next)
        task_wake(&waiter->wait);
}

void tram_event_clear(tram_event *event) {
    event->set = false;
}

bool tram_event_is_set(const tram_event *event) {
    return event->set;
}

int tram_event_wait(tram_event *event) {
    int status = task_check(NULL);
    if (unlikely(status) || event->set)
        return status;
    bool woken;
    return tram__waiters_park(&event->waiters, &event_kind, __builtin_return_address(0), &woken);
}

/* ---- Semaphore ---- */

void tram_semaphore_init(tram_semaphore *semaphore, size_t value, bool bounded) {
    *semaphore = (tram_semaphore){.value = value, .bound = bounded ? value + 1 : 0};
}

bool tram_semaphore_locked(const tram_semaphore *semaphore) {
    return semaphore->value == 0 || waiters_any(&semaphore->waiters);
}

/* Who is woken has it already, unless it is cancelled before it runs. */
static bool wake_next(tram_semaphore *semaphore) {
    if (!tram__waiters_wake(&semaphore->waiters))
        return false;
    semaphore->value--;
    return true;
}

int tram_semaphore_acquire(tram_semaphore *semaphore) {
    int status = task_check(NULL);
    if (unlikely(status))
        return status;
    if (likely(!tram_semaphore_locked(semaphore))) {
        semaphore->value--;
        return 0;
    }
    bool woken;
    status = tram__waiters_park(&semaphore->waiters, &semaphore_kind, __builtin_return_address(0), &woken);
    if (status && woken)
        semaphore->value++;
    /* Who came meanwhile had to wait, also where there was enough for it. */
    while (semaphore->value > 0 && wake_next(semaphore))
        ;
    return status;
}

int tram_semaphore_release(tram_semaphore *semaphore) {
    if (unlikely(semaphore->bound && semaphore->value + 1 >= semaphore->bound))
        return tram__invalid("semaphore");
    semaphore->value++;
    wake_next(semaphore);
    return 0;
}

/* ---- Condition ---- */

void tram_condition_init(tram_condition *condition, tram_lock *lock) {
    *condition = (tram_condition){.lock = lock};
}

static void notify(tram_condition *condition, size_t count) {
    while (count-- > 0 && tram__waiters_wake(&condition->waiters))
        ;
}

/* However often the task is cancelled while it waits for the lock, it has it in the end. */
static int acquire_again(tram_lock *lock, const void *where) {
    int status = 0;
    while (acquire(lock, where))
        status = TRAM_ECANCELLED;
    return status;
}

static int condition_wait(tram_condition *condition, const void *where) {
    int status = task_check(NULL);
    if (unlikely(status))
        return status;
    if (unlikely(!condition->lock || !condition->lock->locked))
        return TRAM_ESTATE;
    (void)tram_lock_release(condition->lock);
    bool woken;
    status = tram__waiters_park(&condition->waiters, &condition_kind, where, &woken);
    if (acquire_again(condition->lock, where))
        status = TRAM_ECANCELLED;
    if (status)
        notify(condition, 1); /* it may have been notified, and does not use it */
    return status;
}

int tram_condition_wait(tram_condition *condition) {
    return condition_wait(condition, __builtin_return_address(0));
}

int tram_condition_notify(tram_condition *condition, size_t count) {
    if (!condition->lock || !condition->lock->locked)
        return TRAM_ESTATE;
    notify(condition, count);
    return 0;
}

int tram_condition_notify_all(tram_condition *condition) {
    return tram_condition_notify(condition, SIZE_MAX);
}

/* ---- Barrier ---- */

enum { BARRIER_FILLING, BARRIER_DRAINING, BARRIER_RESETTING, BARRIER_BROKEN };

int tram_barrier_init(tram_barrier *barrier, size_t parties) {
    if (parties == 0)
        return tram__invalid("parties");
    *barrier = (tram_barrier){.parties = parties};
    tram_condition_init(&barrier->condition, &barrier->lock);
    return 0;
}

/* Until the round before has left. */
static int barrier_block(tram_barrier *barrier, const void *where) {
    while (barrier->state == BARRIER_DRAINING || barrier->state == BARRIER_RESETTING) {
        int status = condition_wait(&barrier->condition, where);
        if (status)
            return status;
    }
    return barrier->state == BARRIER_BROKEN ? TRAM_ESTATE : 0;
}

static int barrier_fill(tram_barrier *barrier, const void *where) {
    while (barrier->state == BARRIER_FILLING) {
        int status = condition_wait(&barrier->condition, where);
        if (status)
            return status;
    }
    return barrier->state == BARRIER_DRAINING ? 0 : TRAM_ESTATE;
}

static void barrier_leave(tram_barrier *barrier) {
    if (barrier->count > 0)
        return;
    if (barrier->state == BARRIER_RESETTING || barrier->state == BARRIER_DRAINING)
        barrier->state = BARRIER_FILLING;
    notify(&barrier->condition, SIZE_MAX);
}

static int barrier_round(tram_barrier *barrier, const void *where) {
    int status = barrier_block(barrier, where);
    if (status)
        return status;
    int index = (int)barrier->count++;
    if (barrier->count == barrier->parties) {
        barrier->state = BARRIER_DRAINING;
        notify(&barrier->condition, SIZE_MAX);
    } else {
        status = barrier_fill(barrier, where);
    }
    barrier->count--;
    barrier_leave(barrier);
    return status ? status : index;
}

int tram_barrier_wait(tram_barrier *barrier) {
    const void *where = __builtin_return_address(0);
    int status = acquire(&barrier->lock, where);
    if (status)
        return status;
    status = barrier_round(barrier, where);
    (void)tram_lock_release(&barrier->lock);
    return status;
}

int tram_barrier_reset(tram_barrier *barrier) {
    int status = acquire(&barrier->lock, __builtin_return_address(0));
    if (status)
        return status;
    barrier->state = barrier->count ? BARRIER_RESETTING : BARRIER_FILLING;
    notify(&barrier->condition, SIZE_MAX);
    return tram_lock_release(&barrier->lock);
}

int tram_barrier_abort(tram_barrier *barrier) {
    int status = acquire(&barrier->lock, __builtin_return_address(0));
    if (status)
        return status;
    barrier->state = BARRIER_BROKEN;
    notify(&barrier->condition, SIZE_MAX);
    return tram_lock_release(&barrier->lock);
}

bool tram_barrier_broken(const tram_barrier *barrier) {
    return barrier->state == BARRIER_BROKEN;
}

size_t tram_barrier_waiting(const tram_barrier *barrier) {
    return barrier->state == BARRIER_FILLING ? barrier->count : 0;
}
