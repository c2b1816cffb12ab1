/*
 * What C++ knows of a thread's exceptions belongs to a task: this program is one with C++ in it, as far as the library
 * can tell.
 */
#include "support/tasks.h"

/* The two words that are the language's, and one that is not. */
static void *globals[3];

void **__cxa_get_globals(void);

void **__cxa_get_globals(void) {
    return globals;
}

static void set_globals(const char *words) {
    globals[0] = (void *)(uintptr_t)words;
    globals[1] = (void *)(uintptr_t)(words + 1);
}

static void assert_globals(const char *words) {
    assert_ptr_equal(globals[0], words);
    assert_ptr_equal(globals[1], words ? words + 1 : NULL);
}

static int catch_something(void *arg) {
    assert_globals(NULL); /* a task begins with none */
    for (int i = 0; i < 3; i++) {
        const char *words = (const char *)arg + 2 * i;
        set_globals(words);
        assert_int_equal(tram_yield(), 0);
        assert_globals(words);
    }
    return 0;
}

static int look(tram_loop *loop, void *arg) {
    (void)loop;
    assert_globals(arg);
    trace(tasks_world, "looked");
    return 0;
}

static void test_a_task_has_its_own_exceptions(void **state) {
    struct world *world = *state;
    static const char loops[2], a[6], b[6];
    set_globals(loops);
    globals[2] = world;
    tram_task *tasks[] = {spawn(catch_something, a), spawn(catch_something, b)};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tram_loop_call_soon(world->loop, look, (void *)(uintptr_t)loops, NULL, NULL), 0);
        run_ticks(world, 1);
        assert_globals(loops);
    }
    assert_int_equal(run_task(tasks[0]), 0);
    assert_int_equal(run_task(tasks[1]), 0);
    assert_globals(loops);
    assert_ptr_equal(globals[2], world);
    assert_trace(world, "looked looked looked");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TASK_TEST(test_a_task_has_its_own_exceptions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
