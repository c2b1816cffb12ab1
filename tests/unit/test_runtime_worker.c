/* What a worker's thread is made with, where the system does not tell or give it. */
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

#include "support/support.h"

/* ---- The C library's, which fail on order ---- */

static int affinity_error;   /* of sched_getaffinity; 0: none */
static int attributes_error; /* of the next pthread_attr_init; 0: none */
static bool no_cpus;         /* it tells of none */

int sched_getaffinity(pid_t process, size_t size, cpu_set_t *ret_mask) {
    static int (*next)(pid_t process, size_t size, cpu_set_t * ret_mask);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "sched_getaffinity");
    if (affinity_error) {
        errno = affinity_error;
        return -1;
    }
    if (!no_cpus)
        return next(process, size, ret_mask);
    memset(ret_mask, 0, size);
    return 0;
}

int pthread_attr_init(pthread_attr_t *attributes) {
    static int (*next)(pthread_attr_t * attributes);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "pthread_attr_init");
    int error = attributes_error;
    attributes_error = 0;
    return error ? error : next(attributes);
}

/* ---- Workers ---- */

static int count_cpus(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    cpu_set_t mask;
    (void)runtime, (void)loop, (void)state;
    assert_int_equal(pthread_getaffinity_np(pthread_self(), sizeof mask, &mask), 0);
    ((int *)arg)[worker] = CPU_COUNT(&mask);
    return 0;
}

static void assert_runs_on(int cpus) {
    int counts[2] = {0};
    const tram_runtime_options options = {.workers = 2, .pin = true, .start = count_cpus, .arg = counts};
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    tram_runtime_free(runtime);
    for (int i = 0; i < 2; i++)
        assert_int_equal(counts[i], cpus);
}

static void test_a_worker_that_cannot_be_pinned_runs_anywhere(void **state) {
    cpu_set_t mask;
    (void)state;
    assert_int_equal(pthread_getaffinity_np(pthread_self(), sizeof mask, &mask), 0);
    assert_runs_on(1);
    affinity_error = EINVAL; /* a machine of more processors than a mask has room for */
    assert_runs_on(CPU_COUNT(&mask));
    affinity_error = 0;
    no_cpus = true;
    assert_runs_on(CPU_COUNT(&mask));
    no_cpus = false;
}

static void test_X_1_a_worker_without_memory_for_its_thread_does_not_start(void **state) {
    (void)state;
    const tram_runtime_options options = {.workers = 2};
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    attributes_error = ENOMEM;
    assert_int_equal(tram_runtime_start(runtime), -ENOMEM);
    assert_int_equal(attributes_error, 0);
    assert_int_equal(tram_runtime_start(runtime), TRAM_ESTATE);
    tram_runtime_free(runtime);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_worker_that_cannot_be_pinned_runs_anywhere),
        cmocka_unit_test(test_X_1_a_worker_without_memory_for_its_thread_does_not_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
