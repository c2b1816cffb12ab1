/* Tasks: how they begin, wait, end and are cancelled. */
#include <pthread.h>
#include <regex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/memory.h"
#include "support/tasks.h"

#define world tasks_world
#define run   run_task

/* ---- Beginning and end ---- */

static int say(void *arg) {
    trace(world, "%s", (const char *)arg);
    return 0;
}

static void test_A_1_a_task_begins_in_the_next_tick_in_order(void **state) {
    (void)state;
    tram_stats before, now;
    tram_loop_stats(world->loop, &before);
    tram_task *a = spawn(say, "a");
    assert_int_equal(tram_loop_call_soon(world->loop, trace_callback, "callback", NULL, NULL), 0);
    tram_task *b = spawn(say, "b");
    assert_trace(world, "");
    assert_false(tram_task_done(a));
    assert_int_equal(tram_task_result(a), TRAM_ESTATE);
    run_ticks(world, 1);
    assert_trace(world, "a callback b");
    assert_true(tram_task_done(a) && tram_task_done(b));
    tram_loop_stats(world->loop, &now);
    assert_int_equal(now.callbacks - before.callbacks, 3); /* a task's turn is one */
    tram_task_release(a);
    tram_task_release(b);
}

static void test_A_1_the_loop_holds_a_task_that_nobody_waits_for(void **state) {
    (void)state;
    assert_int_equal(tram_task_spawn(world->loop, say, "a", NULL, NULL), 0);
    run_ticks(world, 1);
    assert_trace(world, "a");
}

static int give(void *arg) {
    return *(int *)arg;
}

static void test_A_2_a_result_is_what_the_function_returns(void **state) {
    (void)state;
    int value = 42;
    tram_task *task = spawn(give, &value);
    run_ticks(world, 1);
    void *result;
    assert_int_equal(tram_future_result(tram_task_future(task), &result), 0);
    assert_int_equal((intptr_t)result, 42);
    assert_int_equal(tram_task_result(task), 42);
    assert_ptr_equal(tram_future_task(tram_task_future(task)), task);
    tram_task_release(task);

    value = -EIO;
    task = spawn(give, &value);
    assert_int_equal(run(task), -EIO);
    assert_int_equal(world->exceptions, 0); /* it is the task's own */

    value = TRAM_ECANCELLED;
    task = spawn(give, &value);
    run_ticks(world, 1);
    assert_true(tram_future_cancelled(tram_task_future(task)));
    assert_int_equal(tram_task_result(task), TRAM_ECANCELLED);
    tram_task_release(task);
}

static int fail_with_text(void *arg) {
    return tram_loop_raise(world->loop, -ENOENT, arg, "no such thing");
}

static void test_A_2_a_failure_has_a_text(void **state) {
    (void)state;
    tram_task *task = spawn(fail_with_text, world);
    run_ticks(world, 1);
    const tram_error *error = tram_future_error(tram_task_future(task));
    assert_int_equal(error->code, -ENOENT);
    assert_string_equal(error->detail, "no such thing");
    assert_string_equal(error->operation, "task");
    assert_ptr_equal(error->user, world);
    tram_task_release(task);
}

static void test_A_11_L_28_a_failure_that_nobody_looks_at_is_reported(void **state) {
    (void)state;
    int value = -EIO;
    tram_task *task = spawn(give, &value);
    run_ticks(world, 1);
    assert_int_equal(world->exceptions, 0);
    tram_task_release(task);
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, -EIO);
    assert_string_equal(world->exception, "Task exception was never retrieved");

    assert_int_equal(tram_task_spawn(world->loop, give, &value, NULL, NULL), 0);
    run_ticks(world, 1);
    assert_int_equal(world->exceptions, 2);

    task = spawn(give, &value); /* who cancels does not care for an error */
    run_ticks(world, 1);
    assert_int_equal(tram_task_cancel(task), 0);
    tram_task_release(task);
    assert_int_equal(world->exceptions, 2);
}

/* Whoever hears of it hears all: nothing of the error has been given back. */
static void test_A_11_a_failure_that_is_reported_has_its_texts(void **state) {
    (void)state;
    assert_int_equal(tram_loop_set_exception_handler(world->loop, NULL, NULL), 0); /* the log */
    assert_int_equal(tram_task_spawn(world->loop, fail_with_text, world, &(tram_task_options){.name = "seeker"}, NULL),
                     0);
    run_ticks(world, 1);
    assert_non_null(strstr(world->log, "Task exception was never retrieved"));
    assert_non_null(strstr(world->log, " in task: seeker: no such thing"));
}

static void test_spawn_refuses_what_cannot_be(void **state) {
    (void)state;
    tram_task *task;
    assert_int_equal(tram_task_spawn(world->loop, NULL, NULL, NULL, &task), TRAM_EVALUE);
    assert_int_equal(tram_task_spawn(NULL, say, NULL, NULL, &task), TRAM_ESTATE);
    tram_task_options options = {.stack_size = (size_t)2 << 30};
    assert_int_equal(tram_task_spawn(world->loop, say, NULL, &options, &task), TRAM_EVALUE);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(tram_task_spawn(world->loop, say, NULL, NULL, &task), TRAM_ESTATE);
}

static void test_spawn_without_memory_leaves_nothing_behind(void **state) {
    (void)state;
    for (size_t after = 0;; after++) {
        world->fail_after = after;
        tram_task *task;
        int status = tram_task_spawn(world->loop, say, "a", NULL, &task);
        world->fail_after = SIZE_MAX;
        if (!status) {
            assert_true(after > 0);
            run(task);
            break;
        }
        assert_int_equal(status, -ENOMEM);
    }
    assert_trace(world, "a");
}

/* ---- Waiting ---- */

struct waiting {
    const char *name;
    tram_future *future;
    bool catches;
};

static int await_future(void *arg) {
    struct waiting *waiting = arg;
    trace(world, "%s:waits", waiting->name);
    void *value = NULL;
    int status = tram_await(waiting->future, &value);
    trace(world, "%s:%s", waiting->name, status_name(status));
    if (status < 0)
        return waiting->catches ? 0 : status;
    return (int)(intptr_t)value;
}

static int trace_done(tram_future *future, void *arg) {
    (void)future;
    trace(world, "%s", (const char *)arg);
    return 0;
}

static void test_A_3_X_2_a_task_waits_for_a_future(void **state) {
    (void)state;
    struct waiting waiting = {.name = "a", .future = future_new()};
    tram_task *task = spawn(await_future, &waiting);
    run_to_rest(world);
    assert_trace(world, "a:waits");
    tram_future_set_result(waiting.future, (void *)7);
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "a:ok");
    assert_int_equal(run(task), 7);
    tram_future_release(waiting.future);
}

static void test_A_3_an_error_is_what_await_returns(void **state) {
    (void)state;
    struct waiting waiting = {.name = "a", .future = future_new()};
    tram_task *task = spawn(await_future, &waiting);
    run_to_rest(world);
    tram_future_set_error(waiting.future, &(tram_error){.code = -EPIPE});
    assert_int_equal(run(task), -EPIPE);
    assert_trace(world, "a:waits a:EPIPE");
    tram_future_release(waiting.future);
}

static void test_A_3_a_future_that_is_done_costs_no_tick(void **state) {
    (void)state;
    struct waiting waiting = {.name = "a", .future = future_new()};
    tram_future_set_result(waiting.future, NULL);
    tram_task *task = spawn(await_future, &waiting);
    run_ticks(world, 1);
    assert_trace(world, "a:waits a:ok");
    assert_true(tram_task_done(task));
    tram_task_release(task);
    tram_future_release(waiting.future);
}

static int await_wrongly(void *arg) {
    (void)arg;
    assert_int_equal(tram_await(tram_task_future(tram_task_current()), NULL), TRAM_ESTATE);
    assert_int_equal(tram_await(NULL, NULL), TRAM_EVALUE);
    assert_int_equal(tram_task_join(NULL), TRAM_EVALUE);
    tram_loop *other;
    tram_future *future;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(tram_loop_create_future(other, &future), 0);
    assert_int_equal(tram_await(future, NULL), TRAM_ESTATE);
    tram_future_release(future);
    tram_loop_free(other);
    return 0;
}

static void test_A_3_only_tasks_wait_and_not_for_themselves(void **state) {
    (void)state;
    tram_future *future = future_new();
    tram_future_set_result(future, NULL);
    assert_int_equal(tram_await(future, NULL), TRAM_ESTATE);
    assert_int_equal(tram_sleep(1), TRAM_ESTATE);
    assert_int_equal(tram_yield(), TRAM_ESTATE);
    assert_null(tram_task_current());
    tram_future_release(future);
    run(spawn(await_wrongly, NULL));
}

static void test_A_4_L_40_who_waits_goes_on_in_order_of_waiting(void **state) {
    (void)state;
    tram_future *future = future_new();
    struct waiting a = {.name = "a", .future = future}, b = {.name = "b", .future = future};
    tram_task *first = spawn(await_future, &a);
    run_ticks(world, 1);
    tram_future_add_done_callback(future, trace_done, "callback");
    tram_task *second = spawn(await_future, &b);
    run_ticks(world, 1);
    assert_trace(world, "a:waits b:waits");
    tram_future_set_result(future, NULL);
    assert_trace(world, "");
    run_ticks(world, 1);
    assert_trace(world, "a:ok callback b:ok");
    tram_task_release(first);
    tram_task_release(second);
    tram_future_release(future);
}

static int join_child(void *arg) {
    int value = tram_task_join(arg);
    trace(world, "joined");
    return value;
}

static void test_A_4_a_task_waits_for_another(void **state) {
    (void)state;
    int value = 5;
    tram_task *child = spawn(give, &value);
    assert_int_equal(run(spawn(join_child, child)), 5);
    assert_trace(world, "joined");
}

static void test_a_parked_wait_allocates_nothing(void **state) {
    (void)state;
    tram_future *future = future_new();
    struct waiting a = {.name = "a", .future = future};
    tram_task *task = spawn(await_future, &a);
    size_t before = world->allocations;
    run_ticks(world, 1);
    assert_int_equal(world->allocations, before);
    tram_future_set_result(future, NULL);
    run_ticks(world, 1);
    assert_int_equal(world->allocations, before);
    tram_task_release(task);
    tram_future_release(future);
}

/* ---- Time ---- */

static int yield_twice(void *arg) {
    for (int i = 0; i < 3; i++) {
        trace(world, "%s%d", (const char *)arg, i);
        assert_int_equal(i % 2 ? tram_yield() : tram_sleep(0), 0);
    }
    return 0;
}

static void test_A_5_yield_lets_others_run(void **state) {
    (void)state;
    tram_task *a = spawn(yield_twice, "a"), *b = spawn(yield_twice, "b");
    run_ticks(world, 1);
    assert_trace(world, "a0 b0");
    run_ticks(world, 1);
    assert_trace(world, "a1 b1");
    run_ticks(world, 2);
    assert_trace(world, "a2 b2");
    assert_true(tram_task_done(a) && tram_task_done(b));
    tram_task_release(a);
    tram_task_release(b);
}

static int sleep_ms(void *arg) {
    const int *ms = arg;
    uint64_t before = tram_loop_time(world->loop);
    int status = tram_sleep((uint64_t)*ms * 1000000u);
    trace(world, "%d:%s", *ms, status_name(status));
    assert_true(status || tram_loop_time(world->loop) - before >= (uint64_t)*ms * 1000000u);
    return status;
}

static void test_A_5_sleep_is_never_too_short_and_in_order(void **state) {
    (void)state;
    /* Whoever begins earlier sleeps less: a machine that stands still in between cannot change the order. */
    static int times[] = {10, 20, 30};
    tram_task *tasks[3];
    for (int i = 0; i < 3; i++)
        tasks[i] = spawn(sleep_ms, &times[i]);
    assert_int_equal(run(tasks[2]), 0);
    assert_trace(world, "10:ok 20:ok 30:ok");
    tram_task_release(tasks[0]);
    tram_task_release(tasks[1]);
}

static int sleep_without_memory(void *arg) {
    (void)arg;
    world->fail_after = 0;
    int status = tram_sleep(1000000);
    world->fail_after = SIZE_MAX;
    return status;
}

static void test_sleep_without_memory_for_its_timer_says_so(void **state) {
    (void)state;
    assert_int_equal(run(spawn(sleep_without_memory, NULL)), -ENOMEM);
}

/* ---- Cancelling ---- */

static void test_A_6_a_task_that_waits_is_cancelled_in_the_next_tick(void **state) {
    (void)state;
    static int long_time = 3600 * 1000;
    tram_task *task = spawn(sleep_ms, &long_time);
    run_to_rest(world);
    assert_int_equal(tram_task_cancel(task), 1);
    assert_false(tram_task_done(task));
    run_ticks(world, 1);
    assert_trace(world, "3600000:TRAM_ECANCELLED");
    assert_true(tram_future_cancelled(tram_task_future(task)));
    assert_int_equal(tram_task_cancel(task), 0);
    tram_task_release(task);
}

static void trace_discard(void *arg) {
    trace(world, "discard:%s", (const char *)arg);
}

static void test_A_6_a_task_that_has_not_begun_never_does(void **state) {
    (void)state;
    tram_task *task;
    tram_task_options options = {.discard = trace_discard};
    assert_int_equal(tram_task_spawn(world->loop, say, "a", &options, &task), 0);
    assert_int_equal(tram_task_cancel(task), 1);
    assert_false(tram_task_done(task));
    run_ticks(world, 1);
    assert_trace(world, "discard:a");
    assert_int_equal(run(task), TRAM_ECANCELLED);
}

static int cancel_oneself(void *arg) {
    (void)arg;
    assert_int_equal(tram_task_cancel(tram_task_current()), 1);
    trace(world, "on");
    int status = tram_sleep(HOUR);
    trace(world, "%s", status_name(status));
    assert_int_equal(tram_yield(), 0); /* delivered once */
    return 3;
}

static void test_A_6_a_task_that_runs_is_cancelled_where_it_waits_next(void **state) {
    (void)state;
    assert_int_equal(run(spawn(cancel_oneself, NULL)), 3);
    assert_trace(world, "on TRAM_ECANCELLED");
}

static int cancel_oneself_and_return(void *arg) {
    (void)tram_task_cancel(tram_task_current());
    return *(int *)arg;
}

static void test_A_10_a_request_that_was_not_delivered_cancels_the_result(void **state) {
    (void)state;
    int value = 3;
    assert_int_equal(run(spawn(cancel_oneself_and_return, &value)), TRAM_ECANCELLED);
    value = -EIO; /* a failure stays one */
    assert_int_equal(run(spawn(cancel_oneself_and_return, &value)), -EIO);
}

static void test_A_10_a_cancel_that_races_the_result_wins(void **state) {
    (void)state;
    struct waiting waiting = {.name = "a", .future = future_new()};
    tram_task *task = spawn(await_future, &waiting);
    run_to_rest(world);
    tram_future_set_result(waiting.future, NULL);
    assert_int_equal(tram_task_cancel(task), 1);
    assert_int_equal(run(task), TRAM_ECANCELLED);
    assert_trace(world, "a:waits a:TRAM_ECANCELLED");
    assert_int_equal(tram_future_result(waiting.future, NULL), 0);
    tram_future_release(waiting.future);
}

static void test_A_7_cancelling_passes_to_what_is_waited_for(void **state) {
    (void)state;
    struct waiting inner = {.name = "inner", .future = future_new()};
    tram_task *child = spawn(await_future, &inner);
    struct waiting outer = {.name = "outer", .future = tram_task_future(child)};
    tram_task *task = spawn(await_future, &outer);
    run_to_rest(world);
    assert_int_equal(tram_task_cancel(task), 1);
    assert_true(tram_future_cancelled(inner.future));
    assert_int_equal(run(task), TRAM_ECANCELLED);
    assert_trace(world, "inner:waits outer:waits inner:TRAM_ECANCELLED outer:TRAM_ECANCELLED");
    tram_task_release(child);
    tram_future_release(inner.future);
}

static void test_A_8_who_catches_a_cancellation_goes_on(void **state) {
    (void)state;
    struct waiting inner = {.name = "inner", .future = future_new(), .catches = true};
    tram_task *child = spawn(await_future, &inner);
    struct waiting outer = {.name = "outer", .future = tram_task_future(child)};
    tram_task *task = spawn(await_future, &outer);
    run_to_rest(world);
    tram_task_cancel(task);
    assert_int_equal(run(task), 0); /* what it waited for was not cancelled in the end */
    assert_trace(world, "inner:waits outer:waits inner:TRAM_ECANCELLED outer:ok");
    tram_task_release(child);
    tram_future_release(inner.future);
}

static int count_cancels(void *arg) {
    (void)arg;
    tram_task *self = tram_task_current();
    int status = tram_sleep(HOUR);
    trace(world, "%s:%d", status_name(status), tram_task_cancelling(self));
    status = tram_yield(); /* both requests were delivered as one */
    trace(world, "%s:%d", status_name(status), tram_task_cancelling(self));
    assert_int_equal(tram_task_uncancel(self), 1);
    assert_int_equal(tram_task_uncancel(self), 0);
    assert_int_equal(tram_task_uncancel(self), 0);
    tram_task_cancel(self);
    assert_int_equal(tram_task_uncancel(self), 0); /* drops what was not delivered */
    trace(world, "%s", status_name(tram_yield()));
    return 0;
}

static void test_A_9_requests_are_counted(void **state) {
    (void)state;
    tram_task *task = spawn(count_cancels, NULL);
    run_to_rest(world);
    assert_int_equal(tram_task_cancelling(task), 0);
    tram_task_cancel(task);
    tram_task_cancel(task);
    assert_int_equal(tram_task_cancelling(task), 2);
    assert_int_equal(run(task), 0);
    assert_trace(world, "TRAM_ECANCELLED:2 ok:2 ok");
}

/* ---- Names, values, looking ---- */

static void test_A_12_a_task_has_a_name(void **state) {
    (void)state;
    tram_task *a = spawn(say, "a"), *b;
    tram_task_options options = {.name = "a name that is too long to be kept whole"};
    assert_int_equal(tram_task_spawn(world->loop, say, "b", &options, &b), 0);
    assert_string_equal(tram_task_name(a), "task-1");
    assert_string_equal(tram_task_name(b), "a name that is too long to be k");
    assert_int_equal(tram_task_set_name(a, "other"), 0);
    assert_string_equal(tram_task_name(a), "other");
    run(a);
    run(b);
}

static const char key_a, key_b;

static int show_locals(void *arg) {
    const char *a = tram_task_local(&key_a), *b = tram_task_local(&key_b);
    trace(world, "%s:%s,%s", (const char *)arg, a ? a : "-", b ? b : "-");
    return 0;
}

static int set_in_child(void *arg) {
    (void)arg;
    show_locals("child");
    assert_int_equal(tram_task_set_local(&key_a, "child's", trace_discard), 0);
    assert_int_equal(tram_task_set_local(&key_b, "new", NULL), 0);
    return show_locals("child");
}

static int use_locals(void *arg) {
    (void)arg;
    show_locals("before");
    assert_int_equal(tram_task_set_local(&key_a, "1", trace_discard), 0);
    tram_task *early, *child;
    assert_int_equal(tram_task_spawn(NULL, set_in_child, NULL, NULL, &child), 0);
    assert_int_equal(tram_task_spawn(NULL, show_locals, "early", NULL, &early), 0);
    assert_int_equal(tram_task_set_local(&key_a, "2", trace_discard), 0);
    tram_task_join(child);
    tram_task_join(early);
    show_locals("after");
    assert_int_equal(tram_task_set_local(&key_a, "3", trace_discard), 0);
    return 0;
}

static void test_A_13_values_of_a_task_pass_to_those_it_spawns(void **state) {
    (void)state;
    assert_int_equal(tram_task_set_local(&key_a, NULL, NULL), TRAM_ESTATE);
    assert_null(tram_task_local(&key_a));
    run(spawn(use_locals, NULL));
    assert_trace(world, "before:-,- child:1,- child:child's,new discard:child's early:1,- discard:1 after:2,- "
                        "discard:2 discard:3");
}

static void collect_line(void *arg, const char *line) {
    strcat(arg, line);
    strcat(arg, "\n");
}

static bool matches(const char *text, const char *pattern) {
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool result = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    if (!result)
        print_error("%s", text);
    return result;
}

static int sleep_on(void *arg) {
    (void)arg;
    assert_int_equal(tram_sleep(HOUR), TRAM_ECANCELLED);
    return tram_sleep(HOUR);
}

static int dump(void *arg) {
    return tram_loop_dump_tasks(world->loop, collect_line, arg);
}

static void test_A_14_all_tasks_can_be_seen(void **state) {
    (void)state;
    static int hour = 3600 * 1000;
    struct waiting waiting = {.name = "a", .future = future_new()};
    tram_task *sleeper = spawn(sleep_ms, &hour), *waiter = spawn(await_future, &waiting);
    struct waiting joining = {.name = "b", .future = tram_task_future(waiter)};
    tram_task *joiner = spawn(await_future, &joining), *stubborn = spawn(sleep_on, NULL);
    run_to_rest(world);
    tram_task_cancel(stubborn);
    run_to_rest(world);
    char text[2048] = "";
    tram_task *dumper = spawn(dump, text);
    tram_task *fresh = spawn(say, "fresh");
    tram_task_set_name(fresh, "fresh");
    tram_task_cancel(sleeper);
    assert_int_equal(run(dumper), 0);
#define FUNCTION "[^ ,]+" /* by its name, or as program+0x1234 */
    assert_true(matches(text, "^task-1: " FUNCTION ", ready\n"
                              "task-2: " FUNCTION ", waits in future at " FUNCTION "\n"
                              "task-3: " FUNCTION ", waits in task at " FUNCTION "\n"
                              "task-4: " FUNCTION ", waits in sleep at " FUNCTION ", cancelling\n"
                              "task-5: " FUNCTION ", running\n"
                              "fresh: " FUNCTION ", new\n$"));
    tram_task_cancel(stubborn);
    (void)tram_loop_run_until_complete(world->loop, tram_task_future(stubborn));
    tram_task_release(stubborn);
    tram_future_set_result(waiting.future, NULL);
    run(joiner);
    run(fresh);
    tram_task_release(waiter);
    tram_task_release(sleeper);
    tram_future_release(waiting.future);
    assert_int_equal(tram_loop_each_task(world->loop, NULL, NULL), TRAM_EVALUE);
}

/* ---- The loop closes ---- */

static void test_A_15_a_loop_that_closes_reports_tasks_and_never_runs_them(void **state) {
    (void)state;
    static int hour = 3600 * 1000;
    struct waiting waiting = {.name = "a", .future = future_new()};
    tram_task *sleeper = spawn(sleep_ms, &hour), *waiter = spawn(await_future, &waiting);
    struct waiting joining = {.name = "b", .future = tram_task_future(waiter)};
    tram_task *joiner = spawn(await_future, &joining);
    run_to_rest(world);
    tram_task_options options = {.discard = trace_discard};
    assert_int_equal(tram_task_spawn(world->loop, say, "fresh", &options, NULL), 0);
    tram_future_set_result(waiting.future, NULL); /* its waiter is queued already */
    assert_trace(world, "a:waits b:waits");
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_trace(world, "discard:fresh");
    assert_int_equal(world->exceptions, 4);
    assert_string_equal(world->exception, "Task was destroyed but it is pending");
    assert_true(tram_future_cancelled(tram_task_future(sleeper)));
    assert_int_equal(tram_task_result(joiner), TRAM_ECANCELLED);
    assert_int_equal(tram_task_cancel(waiter), 0);
    tram_task_release(sleeper);
    tram_task_release(waiter);
    tram_task_release(joiner);
    tram_future_release(waiting.future);
}

static int run_another_loop(void *arg) {
    (void)arg;
    assert_int_equal(tram_loop_run_forever(world->loop), TRAM_ESTATE);
    assert_int_equal(tram_loop_close(world->loop), TRAM_ESTATE);
    return 0;
}

static void test_a_task_cannot_run_or_close_its_loop(void **state) {
    (void)state;
    run(spawn(run_another_loop, NULL));
}

static void *run_one_tick(void *arg) {
    (void)arg;
    run_ticks(world, 1);
    return NULL;
}

static void test_A_17_tasks_that_have_begun_stay_on_their_thread(void **state) {
    (void)state;
    tram_task *task = spawn(yield_twice, "a");
    run_ticks(world, 1);
    assert_trace(world, "a0");
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_one_tick, NULL), 0);
    pthread_join(thread, NULL);
    assert_trace(world, "");
    assert_int_equal(world->exceptions, 1);
    assert_int_equal(world->exception_code, TRAM_ESTATE);
    tram_task_release(task);
}

/* ---- Stacks ---- */

static int use_stack(void *arg) {
    volatile char large[300000];
    memset((void *)(uintptr_t)large, 1, sizeof large);
    (void)arg;
    return large[4711];
}

static void test_A_16_a_task_may_have_a_larger_stack(void **state) {
    (void)state;
    tram_task *task;
    tram_task_options options = {.stack_size = 512 * 1024};
    assert_int_equal(tram_task_spawn(world->loop, use_stack, NULL, &options, &task), 0);
    assert_int_equal(run(task), 1);
}

static int recurse(int depth) {
    volatile char frame[1024];
    memset((void *)(uintptr_t)frame, depth, sizeof frame);
    return depth > 0 ? recurse(depth - 1) + frame[17] : frame[17];
}

static int overflow(void *arg) {
    (void)arg;
    return recurse(1 << 20);
}

/* In a child process: what it wrote to standard error, and the signal that ended it. */
static int overflow_in_child(bool report, const char *name, char *text, size_t size) {
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(pipe_fds[1], STDERR_FILENO);
        signal(SIGSEGV, SIG_DFL);
        tram_loop *loop;
        tram_task_options options = {.name = name};
        if (report && tram_task_report_overflows())
            _exit(1);
        tram_loop_new(NULL, &loop);
        tram_task_spawn(loop, overflow, NULL, &options, NULL);
        tram_loop_run_forever(loop);
        _exit(0);
    }
    close(pipe_fds[1]);
    ssize_t length = read(pipe_fds[0], text, size - 1);
    text[length > 0 ? length : 0] = '\0';
    close(pipe_fds[0]);
    int status;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void test_A_16_a_stack_that_overflows_is_caught(void **state) {
    (void)state;
    skip_where_emulated("the handler of a stack that overflowed is valgrind's own");
    char text[1024];
#define OVERFLOWED " overflowed its stack of 1[0-9]{5} bytes: see stack_size of tram_task_options\n$"
    assert_int_equal(overflow_in_child(true, "deep", text, sizeof text), SIGSEGV);
    assert_true(matches(text, "^tram: task deep" OVERFLOWED));
    assert_int_equal(overflow_in_child(true, NULL, text, sizeof text), SIGSEGV);
    assert_true(matches(text, "^tram: task task-1" OVERFLOWED));
#if !defined(__SANITIZE_ADDRESS__)
    assert_int_equal(overflow_in_child(false, "deep", text, sizeof text), SIGSEGV);
    assert_string_equal(text, "");
#endif
}

static int nothing(void *arg) {
    (void)arg;
    return 0;
}

static pthread_key_t look_key;
static stack_t seen_at_the_end;

/* In its second round all others have had their first. */
static void look_at_the_end(void *rounds) {
    uintptr_t left = (uintptr_t)rounds - 1;
    if (left)
        pthread_setspecific(look_key, (void *)left);
    else
        sigaltstack(NULL, &seen_at_the_end);
}

/* The alternate stack of a thread, before and after a task began on it. */
struct alternate {
    bool lacks_memory;
    stack_t before, after;
};

static void *begin_a_task(void *arg) {
    struct alternate *alternate = arg;
    tram_loop *loop;
    if (pthread_setspecific(look_key, (void *)(uintptr_t)2) || sigaltstack(NULL, &alternate->before) ||
        tram_loop_new(NULL, &loop) || tram_task_spawn(loop, nothing, NULL, NULL, NULL) || tram_loop_stop(loop))
        _exit(2);
    if (alternate->lacks_memory)
        memory_fail_others(1, UINT64_MAX);
    int status = tram_loop_run_forever(loop);
    memory_fail(0, 0);
    if (status || sigaltstack(NULL, &alternate->after) || tram_loop_free(loop))
        _exit(3);
    return NULL;
}

/* The thread that ends gives back what its overflows would be told on; where there was none, nothing is told. */
static void test_A_16_a_thread_has_a_stack_to_tell_of_overflows_as_long_as_it_runs(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    print_message("a sanitizer gives each thread such a stack\n");
    skip();
#endif
    skip_where_emulated("the handler of a stack that overflowed is valgrind's own");
    for (int memory = 0; memory < 2; memory++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct alternate alternate = {.lacks_memory = !memory};
            pthread_t thread;
            unsigned char resident;
            if (tram_task_report_overflows() || pthread_key_create(&look_key, look_at_the_end) ||
                pthread_create(&thread, NULL, begin_a_task, &alternate) || pthread_join(thread, NULL))
                _exit(1);
            bool has = !(alternate.after.ss_flags & SS_DISABLE);
            if (!(alternate.before.ss_flags & SS_DISABLE) || has != memory || !(seen_at_the_end.ss_flags & SS_DISABLE))
                _exit(4);
            if (has && (mincore(alternate.after.ss_sp, 1, &resident) == 0 || errno != ENOMEM))
                _exit(5); /* it is mapped still */
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

/* ---- Many ---- */

static int count_down(void *arg) {
    int *left = arg;
    assert_int_equal(tram_yield(), 0);
    --*left;
    return 0;
}

static void test_many_tasks_in_rounds_reuse_their_stacks(void **state) {
    (void)state;
#if defined(__SANITIZE_THREAD__)
    const int rounds = 3, count = 50; /* its fibers take long to make */
#else
    const int rounds = 20, count = 500;
#endif
    for (int round = 0; round < rounds; round++) {
        int left = count;
        for (int i = 0; i < count; i++)
            assert_int_equal(tram_task_spawn(world->loop, count_down, &left, NULL, NULL), 0);
        run_ticks(world, 2);
        assert_int_equal(left, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TASK_TEST(test_A_1_a_task_begins_in_the_next_tick_in_order),
        TASK_TEST(test_A_1_the_loop_holds_a_task_that_nobody_waits_for),
        TASK_TEST(test_A_2_a_result_is_what_the_function_returns),
        TASK_TEST(test_A_2_a_failure_has_a_text),
        TASK_TEST(test_A_11_L_28_a_failure_that_nobody_looks_at_is_reported),
        TASK_TEST(test_A_11_a_failure_that_is_reported_has_its_texts),
        TASK_TEST(test_spawn_refuses_what_cannot_be),
        TASK_TEST(test_spawn_without_memory_leaves_nothing_behind),
        TASK_TEST(test_A_3_X_2_a_task_waits_for_a_future),
        TASK_TEST(test_A_3_an_error_is_what_await_returns),
        TASK_TEST(test_A_3_a_future_that_is_done_costs_no_tick),
        TASK_TEST(test_A_3_only_tasks_wait_and_not_for_themselves),
        TASK_TEST(test_A_4_L_40_who_waits_goes_on_in_order_of_waiting),
        TASK_TEST(test_A_4_a_task_waits_for_another),
        TASK_TEST(test_a_parked_wait_allocates_nothing),
        TASK_TEST(test_A_5_yield_lets_others_run),
        TASK_TEST(test_A_5_sleep_is_never_too_short_and_in_order),
        TASK_TEST(test_sleep_without_memory_for_its_timer_says_so),
        TASK_TEST(test_A_6_a_task_that_waits_is_cancelled_in_the_next_tick),
        TASK_TEST(test_A_6_a_task_that_has_not_begun_never_does),
        TASK_TEST(test_A_6_a_task_that_runs_is_cancelled_where_it_waits_next),
        TASK_TEST(test_A_10_a_request_that_was_not_delivered_cancels_the_result),
        TASK_TEST(test_A_10_a_cancel_that_races_the_result_wins),
        TASK_TEST(test_A_7_cancelling_passes_to_what_is_waited_for),
        TASK_TEST(test_A_8_who_catches_a_cancellation_goes_on),
        TASK_TEST(test_A_9_requests_are_counted),
        TASK_TEST(test_A_12_a_task_has_a_name),
        TASK_TEST(test_A_13_values_of_a_task_pass_to_those_it_spawns),
        TASK_TEST(test_A_14_all_tasks_can_be_seen),
        TASK_TEST(test_A_15_a_loop_that_closes_reports_tasks_and_never_runs_them),
        TASK_TEST(test_a_task_cannot_run_or_close_its_loop),
        TASK_TEST(test_A_17_tasks_that_have_begun_stay_on_their_thread),
        TASK_TEST(test_A_16_a_task_may_have_a_larger_stack),
        TASK_TEST(test_A_16_a_stack_that_overflows_is_caught),
        TASK_TEST(test_A_16_a_thread_has_a_stack_to_tell_of_overflows_as_long_as_it_runs),
        TASK_TEST(test_many_tasks_in_rounds_reuse_their_stacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
