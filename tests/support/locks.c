/*
 * Whoever waits for a condition holds its lock: for all tests, and the library in them. Linked in place of the C
 * library's by --wrap (tests/CMakeLists.txt). A lock that another thread has just then passes for held.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __real_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *end);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *end);

static void assert_held(pthread_mutex_t *lock) {
    if (pthread_mutex_trylock(lock) == 0) {
        fprintf(stderr, "a thread waits for a condition without its lock\n");
        abort();
    }
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock) {
    assert_held(lock);
    return __real_pthread_cond_wait(condition, lock);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *end) {
    assert_held(lock);
    return __real_pthread_cond_timedwait(condition, lock, end);
}
