/*
 * Locks and signals between tasks of one loop (asyncio.Lock, Event, Semaphore, Condition, Barrier).
 *
 * All are structs that the user embeds; zeroed memory is one that is ready for use, except for what _init sets. Their
 * fields are private. None needs to be freed, but one must not go away while a task waits in it. All calls are for the
 * loop's thread; those that wait are for tasks (TRAM_ESTATE elsewhere) and return TRAM_ECANCELLED when the task is
 * cancelled: what they were to get they then have not got. Waiting tasks get their turn in order of arrival, and no
 * wait allocates memory.
 */
#ifndef TRAM_SYNC_H
#define TRAM_SYNC_H

#include <tram/loop.h>

TRAM_BEGIN_DECLS

/* The tasks that wait; private. */
typedef struct tram_waiters {
    void *first;
    void *last;
} tram_waiters;

/* ---- Lock ---- */

/* One task at a time. It belongs to no task in particular: any may release it. */
typedef struct tram_lock {
    tram_waiters waiters;
    bool locked;
} tram_lock;

/* Waits for it and takes it (Lock.acquire). */
TRAM_API int tram_lock_acquire(tram_lock *lock);

/* The next one that waits gets it. TRAM_ESTATE: it is not locked. */
TRAM_API int tram_lock_release(tram_lock *lock);
TRAM_API bool tram_lock_locked(const tram_lock *lock);

/* ---- Event ---- */

/* A flag that tasks wait for. */
typedef struct tram_event {
    tram_waiters waiters;
    bool set;
} tram_event;

/* Sets it, and wakes all that wait. */
TRAM_API void tram_event_set(tram_event *event);
TRAM_API void tram_event_clear(tram_event *event);
TRAM_API bool tram_event_is_set(const tram_event *event);

/* Returns at once if it is set, else waits until it was. */
TRAM_API int tram_event_wait(tram_event *event);

/* ---- Semaphore ---- */

/* At most so many tasks at a time. */
typedef struct tram_semaphore {
    tram_waiters waiters;
    size_t value;
    size_t bound; /* 0: none */
} tram_semaphore;

/* `value` may be acquired before the first release; with `bounded` it never gets larger than that (BoundedSemaphore).
 */
TRAM_API void tram_semaphore_init(tram_semaphore *semaphore, size_t value, bool bounded);
TRAM_API int tram_semaphore_acquire(tram_semaphore *semaphore);

/* TRAM_EVALUE: a bounded one was released more often than acquired. */
TRAM_API int tram_semaphore_release(tram_semaphore *semaphore);

/* Would acquire wait? */
TRAM_API bool tram_semaphore_locked(const tram_semaphore *semaphore);

/* ---- Condition ---- */

/* Waits for what others change under a lock. */
typedef struct tram_condition {
    tram_waiters waiters;
    tram_lock *lock;
} tram_condition;

/* With the lock that guards what is waited for, which must live as long. */
TRAM_API void tram_condition_init(tram_condition *condition, tram_lock *lock);

/*
 * Releases the lock, waits to be notified, and takes the lock again, also when it returns TRAM_ECANCELLED. May return
 * without what was waited for being so: wait in a loop. TRAM_ESTATE: the lock is not locked.
 */
TRAM_API int tram_condition_wait(tram_condition *condition);

/* Wakes at most `count` of those that wait. TRAM_ESTATE: the lock is not locked. */
TRAM_API int tram_condition_notify(tram_condition *condition, size_t count);
TRAM_API int tram_condition_notify_all(tram_condition *condition);

/* ---- Barrier ---- */

/* Tasks wait for each other until so many are there; then again for the next round. */
typedef struct tram_barrier {
    tram_lock lock;
    tram_condition condition;
    size_t parties;
    size_t count; /* that wait */
    int state;
} tram_barrier;

/* TRAM_EVALUE: no parties. It must not be moved afterwards. */
TRAM_API int tram_barrier_init(tram_barrier *barrier, size_t parties);

/* Waits until all are there. Returns which one this was, from 0 to parties - 1; TRAM_ESTATE: broken
 * (BrokenBarrierError), by tram_barrier_abort() or a reset while it waited. */
TRAM_API int tram_barrier_wait(tram_barrier *barrier);

/* Back to empty: who waits gets TRAM_ESTATE. From a task; may wait for a lock. */
TRAM_API int tram_barrier_reset(tram_barrier *barrier);

/* Broken until it is reset. */
TRAM_API int tram_barrier_abort(tram_barrier *barrier);
TRAM_API bool tram_barrier_broken(const tram_barrier *barrier);

/* Tasks that wait. */
TRAM_API size_t tram_barrier_waiting(const tram_barrier *barrier);

TRAM_END_DECLS

#endif
