/* What the tests of tasks share. */
#ifndef TRAM_TESTS_TASKS_H
#define TRAM_TESTS_TASKS_H

#include "support/support.h"

/* A busy machine may stand still for longer between any two calls: of two timers the later one is begun later. */
#define MS   30000000ull
#define HOUR (3600ull * 1000000000)

/* A fixture: world_setup(), and the world in `tasks_world` too. */
int tasks_setup(void **state);
extern struct world *tasks_world;

/* A task of the world's loop; the caller has a reference. */
tram_task *spawn(tram_task_function function, const void *arg);

/* Runs until it is done, releases it, and returns what it returned. */
int run_task(tram_task *task);

/* spawn and run_task. */
int run_function(tram_task_function function, const void *arg);

/* "ok", or the error's name. */
const char *status_name(int status);

tram_future *future_new(void);

#define TASK_TEST(name) cmocka_unit_test_setup_teardown(name, tasks_setup, world_teardown)

#endif
