/*
 * Whoever waits for a condition holds its lock, whoever gives a lock back has it, and what was made of locks and
 * conditions is destroyed once: for all tests, and the library in them. Linked in place of the C library's by --wrap
 * (tests/CMakeLists.txt).
 */
#include "support/locks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int __real_pthread_mutex_init(pthread_mutex_t *lock, const pthread_mutexattr_t *attributes);
int __real_pthread_mutex_destroy(pthread_mutex_t *lock);
int __real_pthread_mutex_unlock(pthread_mutex_t *lock);
int __real_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int __real_pthread_cond_destroy(pthread_cond_t *condition);
int __wrap_pthread_mutex_init(pthread_mutex_t *lock, const pthread_mutexattr_t *attributes);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *lock);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock);
int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int __wrap_pthread_cond_destroy(pthread_cond_t *condition);
int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __real_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *end);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *end);

static atomic_int locks, conditions; /* made and not destroyed */

void locks_begin(void) {
    atomic_store(&locks, 0);
    atomic_store(&conditions, 0);
}

bool locks_are_destroyed(void) {
    for (int tries = 0; tries < 2000; tries++) {
        if (!atomic_load(&locks) && !atomic_load(&conditions))
            return true;
        const struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
    }
    fprintf(stderr, "left behind: %d locks, %d conditions\n", atomic_load(&locks), atomic_load(&conditions));
    return false;
}

/* Other threads write it, but never this thread's number. */
__attribute__((no_sanitize("thread"))) static pid_t holder_of(const pthread_mutex_t *lock) {
    return *(const volatile int *)&lock->__data.__owner;
}

static void assert_held(const pthread_mutex_t *lock, const char *what) {
    if (holder_of(lock) == gettid())
        return;
    fprintf(stderr, "a thread %s that it does not hold\n", what);
    abort();
}

int __wrap_pthread_mutex_init(pthread_mutex_t *lock, const pthread_mutexattr_t *attributes) {
    atomic_fetch_add(&locks, 1);
    return __real_pthread_mutex_init(lock, attributes);
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *lock) {
    atomic_fetch_sub(&locks, 1);
    return __real_pthread_mutex_destroy(lock);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock) {
    assert_held(lock, "gives a lock back");
    return __real_pthread_mutex_unlock(lock);
}

int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes) {
    atomic_fetch_add(&conditions, 1);
    return __real_pthread_cond_init(condition, attributes);
}

int __wrap_pthread_cond_destroy(pthread_cond_t *condition) {
    atomic_fetch_sub(&conditions, 1);
    return __real_pthread_cond_destroy(condition);
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock) {
    assert_held(lock, "waits with a lock");
    return __real_pthread_cond_wait(condition, lock);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *end) {
    assert_held(lock, "waits with a lock");
    return __real_pthread_cond_timedwait(condition, lock, end);
}
