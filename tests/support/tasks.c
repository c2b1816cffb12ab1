#include "support/tasks.h"

struct world *tasks_world;

int tasks_setup(void **state) {
    int status = world_setup(state);
    tasks_world = *state;
    return status;
}

tram_task *spawn(tram_task_function function, const void *arg) {
    tram_task *task;
    assert_int_equal(tram_task_spawn(tasks_world->loop, function, (void *)(uintptr_t)arg, NULL, &task), 0);
    return task;
}

int run_task(tram_task *task) {
    (void)tram_loop_run_until_complete(tasks_world->loop, tram_task_future(task));
    assert_true(tram_task_done(task));
    int status = tram_task_result(task);
    tram_task_release(task);
    return status;
}

int run_function(tram_task_function function, const void *arg) {
    return run_task(spawn(function, arg));
}

const char *status_name(int status) {
    return status < 0 ? tram_error_name(status) : "ok";
}

tram_future *future_new(void) {
    tram_future *future;
    assert_int_equal(tram_loop_create_future(tasks_world->loop, &future), 0);
    return future;
}
