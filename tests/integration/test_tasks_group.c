/* Groups: what fails, what is cancelled, and what is left. */
#include "support/tasks.h"

struct job {
    const char *name;
    uint64_t delay_ns;
    int result;
    bool catches;
};

static int work(void *arg) {
    const struct job *job = arg;
    int status = tram_sleep(job->delay_ns);
    trace(tasks_world, "%s:%s", job->name, status_name(status ? status : job->result));
    if (status)
        return job->catches ? job->result : status;
    return job->result;
}

struct plan {
    struct job jobs[3];
    uint64_t body_ns;
    int body_result;
};

/* Spawns all, waits in its own part, and ends the group. */
static int run_group(void *arg) {
    struct plan *plan = arg;
    tram_group *group;
    assert_int_equal(tram_group_begin(&group), 0);
    for (int i = 0; i < 3; i++)
        if (plan->jobs[i].name)
            assert_int_equal(tram_group_spawn(group, work, &plan->jobs[i], NULL, NULL), 0);
    int status = plan->body_ns ? tram_sleep(plan->body_ns) : 0;
    trace(tasks_world, "body:%s", status_name(status ? status : plan->body_result));
    status = tram_group_end(group, status ? status : plan->body_result);
    trace(tasks_world, "end:%s,%d", status_name(status), tram_task_cancelling(tram_task_current()));
    return status;
}

static void test_A_25_a_group_waits_for_all_its_tasks(void **state) {
    (void)state;
    struct plan plan = {.jobs = {{"a", MS, 0, false}, {"b", 2 * MS, 5, false}}, .body_result = 3};
    assert_int_equal(run_function(run_group, &plan), 3);
    assert_trace(tasks_world, "body:ok a:ok b:ok end:ok,0");
    plan = (struct plan){.body_result = 2};
    assert_int_equal(run_function(run_group, &plan), 2); /* no task at all */
}

static void test_A_26_the_first_failure_cancels_the_others_and_the_body(void **state) {
    (void)state;
    struct plan plan = {.jobs = {{"a", HOUR, 0, false}, {"b", MS, -EIO, false}}, .body_ns = HOUR};
    assert_int_equal(run_function(run_group, &plan), -EIO);
    assert_trace(tasks_world, "b:EIO a:TRAM_ECANCELLED body:TRAM_ECANCELLED end:EIO,0");

    plan = (struct plan){.jobs = {{"a", HOUR, 0, false}, {"b", MS, -EIO, false}}}; /* while the end waits */
    assert_int_equal(run_function(run_group, &plan), -EIO);
    assert_trace(tasks_world, "body:ok b:EIO a:TRAM_ECANCELLED end:EIO,0");
    assert_int_equal(tasks_world->exceptions, 0);
}

static void test_A_26_several_failures_are_one_error_with_their_names(void **state) {
    (void)state;
    struct plan plan = {.jobs = {{"a", HOUR, -EPIPE, true}, {"b", MS, -EIO, false}}};
    tram_task *task = spawn(run_group, &plan);
    (void)tram_loop_run_until_complete(tasks_world->loop, tram_task_future(task));
    const tram_error *error = tram_future_error(tram_task_future(task));
    assert_int_equal(error->code, TRAM_EMULTIPLE);
    assert_string_equal(error->detail, "task-3: EIO, task-2: EPIPE");
    tram_task_release(task);
}

/* By the second of them nobody is cancelled once more, who may be about to clean up. */
static void test_A_26_A_9_a_second_failure_cancels_nobody_again(void **state) {
    (void)state;
    struct plan plan = {.jobs = {{"a", HOUR, -EPIPE, true}, {"b", MS, -EIO, false}}, .body_ns = HOUR};
    assert_int_equal(run_function(run_group, &plan), TRAM_EMULTIPLE);
    assert_trace(tasks_world, "b:EIO a:TRAM_ECANCELLED body:TRAM_ECANCELLED end:TRAM_EMULTIPLE,0");
}

static int fail_at_once(void *arg) {
    (void)arg;
    return -EIO;
}

static int run_many_that_fail(void *arg) {
    tram_group *group;
    char name[32];
    assert_int_equal(tram_group_begin(&group), 0);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "one with the number %d", i);
        tram_task_options options = {.name = name};
        assert_int_equal(tram_group_spawn(group, fail_at_once, NULL, &options, NULL), 0);
    }
    (void)tram_yield();
    snprintf(arg, 32, "begun");
    return tram_group_end(group, 0);
}

/* As many as find a place in the text. */
static void test_A_26_more_failures_than_can_be_told(void **state) {
    (void)state;
    char begun[32] = "";
    tram_task *task = spawn(run_many_that_fail, begun);
    assert_int_equal(tram_loop_run_until_complete(tasks_world->loop, tram_task_future(task)), TRAM_EMULTIPLE);
    const tram_error *error = tram_future_error(tram_task_future(task));
    assert_string_equal(begun, "begun");
    const char *detail = error->detail, *expected = "one with the number 0: EIO, one with the number 1: EIO, ";
    size_t length = strlen(detail);
    assert_memory_equal(detail, expected, strlen(expected));
    assert_in_range(length, 100, 4000);
    for (size_t i = 0; i < length; i++)
        assert_true(detail[i] >= ' ');
    tram_task_release(task);
}

static void test_A_27_a_body_that_fails_cancels_the_tasks(void **state) {
    (void)state;
    struct plan plan = {.jobs = {{"a", HOUR, 0, false}}, .body_ns = MS, .body_result = -ENOENT};
    assert_int_equal(run_function(run_group, &plan), -ENOENT);
    assert_trace(tasks_world, "body:ENOENT a:TRAM_ECANCELLED end:ENOENT,0");
}

static void test_A_27_cancelling_the_parent_cancels_the_tasks(void **state) {
    (void)state;
    struct plan plan = {.jobs = {{"a", HOUR, 0, false}}, .body_ns = HOUR};
    tram_task *task = spawn(run_group, &plan);
    run_ticks(tasks_world, 2);
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    assert_trace(tasks_world, "body:TRAM_ECANCELLED a:TRAM_ECANCELLED end:TRAM_ECANCELLED,1");

    plan.body_ns = 0; /* in the end itself */
    task = spawn(run_group, &plan);
    run_ticks(tasks_world, 2);
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    assert_trace(tasks_world, "body:ok a:TRAM_ECANCELLED end:TRAM_ECANCELLED,1");
}

static void test_A_27_a_failure_goes_before_a_cancellation_that_stays_pending(void **state) {
    (void)state;
    struct plan plan = {.jobs = {{"a", HOUR, -EIO, true}}};
    tram_task *task = spawn(run_group, &plan);
    run_ticks(tasks_world, 2);
    tram_task_cancel(task);
    assert_int_equal(run_task(task), -EIO);
    assert_trace(tasks_world, "body:ok a:TRAM_ECANCELLED end:EIO,1");
}

struct late {
    tram_group *group;
    bool in_time;
    struct job job;
};

static int spawn_late(void *arg) {
    struct late *late = arg;
    int status = tram_sleep(MS);
    int spawned = tram_group_spawn(late->group, work, &late->job, NULL, NULL);
    trace(tasks_world, "spawned:%s", status_name(spawned));
    return late->in_time ? status : -EIO;
}

static int end_while_spawning(void *arg) {
    struct late *late = arg;
    assert_int_equal(tram_group_begin(&late->group), 0);
    assert_int_equal(tram_group_spawn(late->group, spawn_late, late, NULL, NULL), 0);
    assert_int_equal(tram_yield(), 0);
    int status = late->in_time ? 0 : -ENOENT; /* a group that ends with an error takes no more */
    return tram_group_end(late->group, status);
}

static void test_A_28_tasks_of_a_group_may_spawn_more_until_it_aborts(void **state) {
    (void)state;
    struct late late = {.in_time = true, .job = {.name = "more"}};
    assert_int_equal(run_function(end_while_spawning, &late), 0);
    assert_trace(tasks_world, "spawned:ok more:ok");
    late.in_time = false;
    assert_int_equal(run_function(end_while_spawning, &late), TRAM_EMULTIPLE);
    assert_trace(tasks_world, "spawned:TRAM_ESTATE");
    assert_int_equal(tram_group_begin(&late.group), TRAM_ESTATE);
    assert_int_equal(tram_group_end(NULL, 0), TRAM_EVALUE);
    assert_int_equal(tram_group_spawn(NULL, work, NULL, NULL, NULL), TRAM_EVALUE);
}

static int leave_group_open(void *arg) {
    tram_group *group;
    assert_int_equal(tram_group_begin(&group), 0);
    assert_int_equal(tram_group_spawn(group, work, arg, NULL, NULL), 0);
    return 9;
}

static void test_A_25_nothing_outlives_a_group_that_is_left_open(void **state) {
    (void)state;
    struct job job = {.name = "a", .delay_ns = MS};
    assert_int_equal(run_function(leave_group_open, &job), 9);
    assert_trace(tasks_world, "a:ok");
    job.result = -EIO;
    assert_int_equal(run_function(leave_group_open, &job), -EIO);
}

struct nested {
    struct plan task; /* a group in a task of the outer group */
    struct plan body; /* and one in the outer group's own part */
};

static int nest(void *arg) {
    struct nested *nested = arg;
    tram_group *group;
    assert_int_equal(tram_group_begin(&group), 0);
    assert_int_equal(tram_group_spawn(group, run_group, &nested->task, NULL, NULL), 0);
    int status = run_group(&nested->body);
    return tram_group_end(group, status);
}

static void test_A_26_groups_nest(void **state) {
    (void)state;
    const struct plan fails = {.jobs = {{"a", HOUR, 0, false}, {"b", MS, -EIO, false}}, .body_ns = HOUR};
    const struct plan waits = {.jobs = {{"c", HOUR, 0, false}}};
    const struct plan fails_when_cancelled = {.jobs = {{"d", HOUR, -EPIPE, true}}};
    struct nested nested = {.task = fails, .body = waits};
    assert_int_equal(run_function(nest, &nested), -EIO);
    nested = (struct nested){.task = waits, .body = fails};
    assert_int_equal(run_function(nest, &nested), -EIO);
    nested = (struct nested){.task = fails, .body = fails_when_cancelled};
    assert_int_equal(run_function(nest, &nested), TRAM_EMULTIPLE);
    nested = (struct nested){.task = fails_when_cancelled, .body = fails};
    assert_int_equal(run_function(nest, &nested), TRAM_EMULTIPLE);
    const struct plan works = {.jobs = {{"a", MS, 0, false}}};
    nested = (struct nested){.task = works, .body = works};
    assert_int_equal(run_function(nest, &nested), 0);
}

static int group_in_timeout(void *arg) {
    tram_timeout *timeout;
    assert_int_equal(tram_timeout_begin(MS, &timeout), 0);
    return tram_timeout_end(timeout, run_group(arg));
}

static void test_A_27_a_timeout_ends_a_group(void **state) {
    (void)state;
    struct plan plan = {.jobs = {{"a", HOUR, 0, false}}, .body_ns = HOUR};
    assert_int_equal(run_function(group_in_timeout, &plan), TRAM_ETIMEOUT);
    assert_trace(tasks_world, "body:TRAM_ECANCELLED a:TRAM_ECANCELLED end:TRAM_ECANCELLED,1");
}

static void test_A_15_a_group_ends_with_its_loop(void **state) {
    (void)state;
    struct plan plan = {.jobs = {{"a", HOUR, 0, false}, {"b", HOUR, 0, false}}, .body_ns = HOUR};
    tram_task *task = spawn(run_group, &plan);
    run_ticks(tasks_world, 2);
    tram_loop_close(tasks_world->loop);
    assert_int_equal(tasks_world->exceptions, 3);
    tram_task_release(task);
}

static int end_the_outer_one_first(void *arg) {
    (void)arg;
    tram_group *outer, *inner;
    assert_int_equal(tram_group_begin(&outer), 0);
    assert_int_equal(tram_group_begin(&inner), 0);
    assert_int_equal(tram_group_end(outer, 0), TRAM_ESTATE);
    assert_int_equal(tram_group_end(inner, 0), 0);
    return tram_group_end(outer, 3);
}

static void test_A_26_a_group_ends_after_those_in_it(void **state) {
    (void)state;
    assert_int_equal(run_function(end_the_outer_one_first, NULL), 3);
}

static int spawn_without_memory(void *arg) {
    struct job *job = arg;
    tram_task_options options = {.name = "a name that is copied"};
    tram_group *group;
    tram_task *task = NULL;
    assert_int_equal(tram_group_begin(&group), 0);
    tasks_world->fail_after = 0;
    int status = 0;
    for (int i = 0; i < 1000 && !status; i++) /* some have a place already */
        status = tram_group_spawn(group, work, job, &options, &task);
    tasks_world->fail_after = SIZE_MAX;
    assert_int_equal(status, -ENOMEM);
    return tram_group_end(group, 0);
}

static void test_A_25_a_task_that_finds_no_memory_is_none_of_the_group(void **state) {
    (void)state;
    struct job job = {"a", 0, 0, false};
    assert_int_equal(run_function(spawn_without_memory, &job), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TASK_TEST(test_A_25_a_group_waits_for_all_its_tasks),
        TASK_TEST(test_A_26_the_first_failure_cancels_the_others_and_the_body),
        TASK_TEST(test_A_26_several_failures_are_one_error_with_their_names),
        TASK_TEST(test_A_26_A_9_a_second_failure_cancels_nobody_again),
        TASK_TEST(test_A_26_more_failures_than_can_be_told),
        TASK_TEST(test_A_27_a_body_that_fails_cancels_the_tasks),
        TASK_TEST(test_A_27_cancelling_the_parent_cancels_the_tasks),
        TASK_TEST(test_A_27_a_failure_goes_before_a_cancellation_that_stays_pending),
        TASK_TEST(test_A_28_tasks_of_a_group_may_spawn_more_until_it_aborts),
        TASK_TEST(test_A_25_nothing_outlives_a_group_that_is_left_open),
        TASK_TEST(test_A_26_groups_nest),
        TASK_TEST(test_A_26_a_group_ends_after_those_in_it),
        TASK_TEST(test_A_25_a_task_that_finds_no_memory_is_none_of_the_group),
        TASK_TEST(test_A_27_a_timeout_ends_a_group),
        TASK_TEST(test_A_15_a_group_ends_with_its_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
