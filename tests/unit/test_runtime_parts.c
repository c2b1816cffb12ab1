/* Who keeps a runtime from being freed, and for how long. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/runtime/runtime.h"
#include "support/support.h"

struct waiting {
    tram_runtime *runtime;
    _Atomic pid_t thread; /* once it runs */
    _Atomic bool over;
};

static void *await_pins(void *arg) {
    struct waiting *waiting = arg;
    atomic_store(&waiting->thread, gettid());
    tram__runtime_await_pins(waiting->runtime);
    atomic_store(&waiting->over, true);
    return NULL;
}

/* The kernel says that the thread sleeps. */
static bool sleeps(pid_t thread) {
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[1] == ' ' && name_end[2] == 'S';
}

static void test_whoever_frees_a_runtime_sleeps_until_nobody_needs_it(void **state) {
    struct waiting waiting = {.over = false};
    const tram_runtime_options options = {.workers = 1};
    pthread_t thread;
    (void)state;
    assert_int_equal(tram_runtime_new(&options, &waiting.runtime), 0);
    tram__runtime_await_pins(waiting.runtime); /* nobody does */
    tram__runtime_pin(waiting.runtime);
    tram__runtime_pin(waiting.runtime);
    assert_int_equal(pthread_create(&thread, NULL, await_pins, &waiting), 0);
    for (int pins = 2; pins > 0; pins--) {
        while (!atomic_load(&waiting.thread) || !sleeps(atomic_load(&waiting.thread)))
            sched_yield();
        assert_false(atomic_load(&waiting.over));
        tram__runtime_unpin(waiting.runtime);
    }
    pthread_join(thread, NULL);
    assert_true(atomic_load(&waiting.over));
    tram_runtime_free(waiting.runtime);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whoever_frees_a_runtime_sleeps_until_nobody_needs_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
