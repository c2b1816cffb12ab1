/* Timeouts, and waiting for several. */
#include <pthread.h>

#include "support/tasks.h"

struct job {
    const char *name;
    uint64_t delay_ns;
    int result;
    bool catches;
    tram_future *future; /* waited for instead */
};

static int work(void *arg) {
    const struct job *job = arg;
    int status = job->future ? tram_await(job->future, NULL) : tram_sleep(job->delay_ns);
    trace(tasks_world, "%s:%s", job->name, status_name(status ? status : job->result));
    if (status)
        return job->catches ? 0 : status;
    return job->result;
}

/* ---- Timeouts ---- */

static int in_time(void *arg) {
    tram_timeout *timeout;
    assert_int_equal(tram_timeout_begin(*(uint64_t *)arg, &timeout), 0);
    int status = tram_sleep(5 * MS);
    trace(tasks_world, "%s,%d", status_name(status), tram_timeout_expired(timeout));
    status = tram_timeout_end(timeout, status);
    assert_int_equal(tram_task_cancelling(tram_task_current()), 0);
    assert_int_equal(tram_yield(), 0);
    return status;
}

static void test_A_18_a_timeout_cancels_what_takes_too_long(void **state) {
    (void)state;
    uint64_t delay = HOUR;
    assert_int_equal(run_function(in_time, &delay), 0);
    assert_trace(tasks_world, "ok,0");
    delay = MS;
    assert_int_equal(run_function(in_time, &delay), TRAM_ETIMEOUT);
    assert_trace(tasks_world, "TRAM_ECANCELLED,1");
    delay = 0;
    assert_int_equal(run_function(in_time, &delay), TRAM_ETIMEOUT);
    delay = TRAM_NOW;
    assert_int_equal(run_function(in_time, &delay), TRAM_ETIMEOUT);
    delay = TRAM_FOREVER;
    assert_int_equal(run_function(in_time, &delay), 0);
    tram_timeout *timeout;
    assert_int_equal(tram_timeout_begin(1, &timeout), TRAM_ESTATE);
}

static int cancelled_within(void *arg) {
    tram_timeout *timeout;
    assert_int_equal(tram_timeout_begin(MS, &timeout), 0);
    int status = tram_sleep(HOUR);
    if (*(bool *)arg)
        tram_task_cancel(tram_task_current()); /* somebody else asks too */
    return tram_timeout_end(timeout, status);
}

static void test_A_18_a_cancellation_by_others_stays_one(void **state) {
    (void)state;
    bool twice = true;
    assert_int_equal(run_function(cancelled_within, &twice), TRAM_ECANCELLED);
    twice = false;
    tram_task *task = spawn(cancelled_within, &twice);
    run_ticks(tasks_world, 1);
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    assert_int_equal(run_function(cancelled_within, &twice), TRAM_ETIMEOUT);
}

static int nested(void *arg) {
    (void)arg;
    tram_timeout *outer, *inner;
    assert_int_equal(tram_timeout_begin(MS, &outer), 0);
    assert_int_equal(tram_timeout_begin(HOUR, &inner), 0);
    int status = tram_sleep(HOUR);
    assert_int_equal(tram_timeout_end(outer, status), TRAM_ESTATE); /* not the innermost */
    status = tram_timeout_end(inner, status);
    trace(tasks_world, "%s", status_name(status));
    return tram_timeout_end(outer, status);
}

static void test_A_18_the_timeout_whose_time_is_over_answers(void **state) {
    (void)state;
    assert_int_equal(run_function(nested, NULL), TRAM_ETIMEOUT);
    assert_trace(tasks_world, "TRAM_ECANCELLED");
}

static int rescheduled(void *arg) {
    (void)arg;
    tram_timeout *timeout;
    assert_int_equal(tram_timeout_begin(TRAM_FOREVER, &timeout), 0);
    assert_true(tram_timeout_when(timeout) == UINT64_MAX);
    uint64_t when = tram_loop_time(tasks_world->loop) + 2 * MS;
    assert_int_equal(tram_timeout_reschedule(timeout, when), 0);
    assert_true(tram_timeout_when(timeout) == when);
    int status = tram_sleep(HOUR);
    assert_int_equal(tram_timeout_reschedule(timeout, when), TRAM_ESTATE);
    return tram_timeout_end(timeout, status);
}

static void test_A_18_a_timeout_is_rescheduled(void **state) {
    (void)state;
    assert_int_equal(run_function(rescheduled, NULL), TRAM_ETIMEOUT);
}

/* What was due, or was to be, is not any more. */
static int put_off(void *arg) {
    const uint64_t *delay_ns = arg;
    tram_timeout *timeout;
    assert_int_equal(tram_timeout_begin(*delay_ns, &timeout), 0);
    assert_int_equal(tram_timeout_reschedule(timeout, TRAM_FOREVER), 0);
    int status = tram_sleep(2 * MS);
    assert_false(tram_timeout_expired(timeout));
    return tram_timeout_end(timeout, status);
}

static void test_A_18_a_timeout_is_put_off(void **state) {
    (void)state;
    uint64_t delays_ns[] = {MS, 0};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(run_function(put_off, &delays_ns[i]), 0);
}

static int leave_open(void *arg) {
    (void)arg;
    tram_timeout *timeout;
    assert_int_equal(tram_timeout_begin(MS, &timeout), 0);
    return tram_sleep(HOUR);
}

static void test_A_18_a_timeout_that_is_left_open_ends_with_its_task(void **state) {
    (void)state;
    assert_int_equal(run_function(leave_open, NULL), TRAM_ETIMEOUT);
    tram_task *task = spawn(leave_open, NULL);
    run_ticks(tasks_world, 1);
    tram_loop_close(tasks_world->loop); /* frees what was open */
    tram_task_release(task);
}

struct limited {
    struct job job;
    uint64_t timeout_ns;
};

static int wait_for(void *arg) {
    struct limited *limited = arg;
    tram_task *task = spawn(work, &limited->job);
    void *value = NULL;
    int status = tram_wait_for(tram_task_future(task), limited->timeout_ns, &value);
    tram_task_release(task);
    return status ? status : (int)(intptr_t)value;
}

static void test_A_19_wait_for_cancels_what_is_late_and_waits_for_its_end(void **state) {
    (void)state;
    struct limited limited = {{.name = "a", .delay_ns = 0, .result = 4}, HOUR};
    assert_int_equal(run_function(wait_for, &limited), 4);
    limited.job.result = -EIO;
    assert_int_equal(run_function(wait_for, &limited), -EIO);
    limited = (struct limited){{.name = "b", .delay_ns = HOUR}, MS};
    assert_int_equal(run_function(wait_for, &limited), TRAM_ETIMEOUT);
    assert_trace(tasks_world, "a:ok a:EIO b:TRAM_ECANCELLED");
    limited.job.catches = true; /* its result is there after all */
    assert_int_equal(run_function(wait_for, &limited), 0);
}

static int no_time(void *arg) {
    tram_future *future = arg;
    return tram_wait_for(future, 0, NULL);
}

static void test_A_19_without_time_only_what_is_done_counts(void **state) {
    (void)state;
    tram_future *future = future_new();
    assert_int_equal(run_function(no_time, future), TRAM_ETIMEOUT);
    assert_true(tram_future_cancelled(future));
    tram_future_release(future);
    future = future_new();
    tram_future_set_result(future, NULL);
    assert_int_equal(run_function(no_time, future), 0);
    tram_future_release(future);
}

static int catch_a_cancellation(void *arg) {
    (void)arg;
    assert_int_equal(tram_sleep(HOUR), TRAM_ECANCELLED);
    return tram_sleep(HOUR);
}

static int no_time_for_a_task(void *arg) {
    return no_time(tram_task_future(arg));
}

/* Its time is over all the same, but that is not what ended it. */
static void test_A_19_without_time_a_cancellation_by_others_stays_one(void **state) {
    struct world *world = *state;
    tram_task *slow = spawn(catch_a_cancellation, NULL);
    run_to_rest(world);
    tram_task *task = spawn(no_time_for_a_task, slow);
    run_to_rest(world);
    assert_false(tram_task_done(slow) || tram_task_done(task));
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    tram_task_cancel(slow);
    assert_int_equal(run_task(slow), TRAM_ECANCELLED);
}

/* ---- gather ---- */

struct gathering {
    struct job jobs[3];
    unsigned flags;
    tram_task *tasks[3];
};

static int gather(void *arg) {
    struct gathering *gathering = arg;
    tram_future *futures[3], *all;
    for (int i = 0; i < 3; i++) {
        gathering->tasks[i] = spawn(work, &gathering->jobs[i]);
        futures[i] = tram_task_future(gathering->tasks[i]);
    }
    assert_int_equal(tram_gather(tasks_world->loop, futures, 3, gathering->flags, &all), 0);
    int status = tram_await(all, NULL);
    trace(tasks_world, "gathered:%s", status_name(status));
    tram_future_release(all);
    return status;
}

static void release_gathered(struct gathering *gathering) {
    for (int i = 0; i < 3; i++)
        tram_task_release(gathering->tasks[i]);
}

static void test_A_20_gather_waits_for_all(void **state) {
    (void)state;
    struct gathering gathering = {
        {{"a", MS, 1, false, NULL}, {"b", 2 * MS, 2, false, NULL}, {"c", 3 * MS, 3, false, NULL}}, 0, {0}};
    assert_int_equal(run_function(gather, &gathering), 0);
    assert_trace(tasks_world, "a:ok b:ok c:ok gathered:ok");
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_task_result(gathering.tasks[i]), i + 1);
    release_gathered(&gathering);
}

static void test_A_20_gather_fails_with_the_first_and_others_go_on(void **state) {
    (void)state;
    tram_future *first = future_new(), *second = future_new();
    struct gathering gathering = {
        .jobs = {{.name = "a", .result = 1, .future = second},
                 {.name = "b", .result = -EIO},
                 {.name = "c", .result = -EPIPE, .future = first}},
    };
    assert_int_equal(run_function(gather, &gathering), -EIO);
    assert_trace(tasks_world, "b:EIO gathered:EIO");
    tram_future_set_result(first, NULL);
    tram_future_set_result(second, NULL);
    run_until_traced(tasks_world, "a:ok");
    assert_trace(tasks_world, "c:EPIPE a:ok");
    run_ticks(tasks_world, 2);
    release_gathered(&gathering);
    tram_future_release(first);
    tram_future_release(second);
    assert_int_equal(tasks_world->exceptions, 0); /* all errors count as looked at */
}

static void test_A_20_gather_keeps_errors_where_asked(void **state) {
    (void)state;
    struct gathering gathering = {
        {{"a", MS, 1, false, NULL}, {"b", 0, -EIO, false, NULL}, {"c", 0, 0, false, NULL}}, TRAM_GATHER_ERRORS, {0}};
    assert_int_equal(run_function(gather, &gathering), 0);
    assert_int_equal(tram_task_result(gathering.tasks[1]), -EIO);
    release_gathered(&gathering);
}

static void test_A_21_cancelling_gather_cancels_all(void **state) {
    (void)state;
    for (unsigned flags = 0; flags <= TRAM_GATHER_ERRORS; flags++) {
        struct gathering gathering = {
            {{"a", HOUR, 0, false, NULL}, {"b", HOUR, 0, true, NULL}, {"c", HOUR, 0, false, NULL}}, flags, {0}};
        tram_task *task = spawn(gather, &gathering);
        run_ticks(tasks_world, 3);
        tram_task_cancel(task);
        assert_int_equal(run_task(task), TRAM_ECANCELLED);
        assert_trace(tasks_world, "a:TRAM_ECANCELLED b:TRAM_ECANCELLED c:TRAM_ECANCELLED gathered:TRAM_ECANCELLED");
        release_gathered(&gathering);
    }
}

static void test_A_20_gather_of_nothing_and_of_what_is_done_is_done_at_once(void **state) {
    (void)state;
    tram_future *all, *done = future_new(), *futures[] = {done, done};
    assert_int_equal(tram_gather(tasks_world->loop, NULL, 0, 0, &all), 0);
    assert_true(tram_future_done(all));
    tram_future_release(all);
    tram_future_set_result(done, NULL);
    assert_int_equal(tram_gather(tasks_world->loop, futures, 2, 0, &all), 0);
    assert_true(tram_future_done(all));
    tram_future_release(all);
    futures[1] = NULL;
    assert_int_equal(tram_gather(tasks_world->loop, futures, 2, 0, &all), TRAM_EVALUE);
    assert_int_equal(tram_gather(tasks_world->loop, futures, 1, 8, &all), TRAM_EVALUE);
    tram_future_release(done);
}

static void test_a_gather_that_still_waits_ends_with_its_loop(void **state) {
    (void)state;
    tram_future *inner = future_new(), *all, *outer;
    assert_int_equal(tram_gather(tasks_world->loop, &inner, 1, 0, &all), 0);
    assert_int_equal(tram_shield(inner, &outer), 0);
    tram_loop_close(tasks_world->loop);
    assert_true(tram_future_cancelled(all) && tram_future_cancelled(outer));
    tram_future_release(all);
    tram_future_release(outer);
    tram_future_release(inner);
}

static void test_gather_and_shield_without_memory_leave_nothing_behind(void **state) {
    (void)state;
    tram_future *inner = future_new(), *outer;
    run_task(spawn(in_time, &(uint64_t){HOUR})); /* what a loop needs for tasks is there */
    tasks_world->fail_after = 0;
    assert_int_equal(tram_gather(tasks_world->loop, &inner, 1, 0, &outer), -ENOMEM);
    assert_int_equal(tram_shield(inner, &outer), -ENOMEM);
    tasks_world->fail_after = SIZE_MAX;
    tram_future_release(inner);
}

/* ---- wait ---- */

struct waiting {
    tram_future *futures[12];
    size_t count;
    uint64_t timeout_ns;
    tram_wait_mode mode;
};

static int wait_several(void *arg) {
    const struct waiting *waiting = arg;
    return tram_wait(waiting->futures, waiting->count, waiting->timeout_ns, waiting->mode);
}

static struct waiting waiting_new(size_t count, tram_wait_mode mode) {
    struct waiting waiting = {.count = count, .timeout_ns = TRAM_FOREVER, .mode = mode};
    for (size_t i = 0; i < count; i++)
        waiting.futures[i] = future_new();
    return waiting;
}

static void waiting_release(struct waiting *waiting) {
    for (size_t i = 0; i < waiting->count; i++)
        tram_future_release(waiting->futures[i]);
}

static void test_A_22_wait_waits_for_as_many_as_it_is_told(void **state) {
    (void)state;
    for (size_t count = 2; count <= 12; count += 10) { /* more than fit on the stack, too */
        struct waiting waiting = waiting_new(count, TRAM_ALL_COMPLETED);
        tram_task *task = spawn(wait_several, &waiting);
        for (size_t i = 0; i < count; i++) {
            run_ticks(tasks_world, 3);
            assert_false(tram_task_done(task));
            tram_future_set_error(waiting.futures[i], &(tram_error){.code = -EIO});
        }
        assert_int_equal(run_task(task), (int)count);
        waiting_release(&waiting);
    }
    struct waiting waiting = waiting_new(3, TRAM_FIRST_COMPLETED);
    tram_task *task = spawn(wait_several, &waiting);
    run_ticks(tasks_world, 2);
    tram_future_set_result(waiting.futures[1], NULL);
    assert_int_equal(run_task(task), 1);
    assert_false(tram_future_done(waiting.futures[0]));
    waiting_release(&waiting);

    waiting = waiting_new(3, TRAM_FIRST_EXCEPTION);
    task = spawn(wait_several, &waiting);
    run_ticks(tasks_world, 2);
    tram_future_set_result(waiting.futures[1], NULL);
    tram_future_cancel(waiting.futures[2]);
    run_ticks(tasks_world, 3);
    assert_false(tram_task_done(task));
    tram_future_set_error(waiting.futures[0], &(tram_error){.code = -EIO});
    assert_int_equal(run_task(task), 3);
    waiting_release(&waiting);
}

/* As asyncio.wait: the other two look at nothing, so that an error that nobody reads is reported. */
static void test_A_22_X_11_who_waits_for_an_exception_has_seen_it(void **state) {
    (void)state;
    static const tram_wait_mode modes[] = {TRAM_ALL_COMPLETED, TRAM_FIRST_COMPLETED, TRAM_FIRST_EXCEPTION};
    for (size_t i = 0; i < 3; i++) {
        unsigned before = tasks_world->exceptions;
        struct waiting waiting = waiting_new(1, modes[i]);
        tram_task *task = spawn(wait_several, &waiting);
        run_ticks(tasks_world, 2);
        tram_future_set_error(waiting.futures[0], &(tram_error){.code = -EIO});
        assert_int_equal(run_task(task), 1);
        waiting_release(&waiting);
        run_to_rest(tasks_world);
        assert_int_equal(tasks_world->exceptions - before, modes[i] != TRAM_FIRST_EXCEPTION);
    }
}

static void test_A_22_wait_cancels_nothing(void **state) {
    (void)state;
    struct waiting waiting = waiting_new(2, TRAM_ALL_COMPLETED);
    waiting.timeout_ns = MS;
    tram_future_set_result(waiting.futures[0], NULL);
    assert_int_equal(run_function(wait_several, &waiting), 1);
    waiting.timeout_ns = TRAM_FOREVER;
    tram_task *task = spawn(wait_several, &waiting);
    run_ticks(tasks_world, 3);
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    assert_false(tram_future_done(waiting.futures[1]));
    task = spawn(wait_several, &waiting);
    run_ticks(tasks_world, 3);
    tram_loop_close(tasks_world->loop);
    tram_task_release(task);
    waiting_release(&waiting);
}

static void test_wait_refuses_what_has_no_sense(void **state) {
    (void)state;
    struct waiting waiting = waiting_new(1, TRAM_ALL_COMPLETED);
    assert_int_equal(tram_wait(waiting.futures, 1, 0, TRAM_ALL_COMPLETED), TRAM_ESTATE);
    waiting.mode = 7;
    assert_wrong(run_function(wait_several, &waiting), "mode");
    waiting.mode = TRAM_ALL_COMPLETED;
    waiting.count = 0;
    assert_wrong(run_function(wait_several, &waiting), "futures");
    waiting.count = 1;
    waiting_release(&waiting);
}

/* ---- as_completed ---- */

static int complete_in_order(void *arg) {
    const struct waiting *waiting = arg;
    tram_completions *completions;
    int status = tram_as_completed(waiting->futures, waiting->count, waiting->timeout_ns, &completions);
    assert_int_equal(status, 0);
    tram_future *future;
    while ((status = tram_completions_next(completions, &future)) > 0)
        for (size_t i = 0; i < waiting->count; i++)
            if (waiting->futures[i] == future)
                trace(tasks_world, "%zu", i);
    tram_completions_free(completions);
    return status;
}

static void test_A_23_as_completed_gives_them_in_order_of_their_end(void **state) {
    (void)state;
    struct waiting waiting = waiting_new(3, 0);
    tram_future_set_result(waiting.futures[2], NULL);
    tram_task *task = spawn(complete_in_order, &waiting);
    run_ticks(tasks_world, 3);
    tram_future_cancel(waiting.futures[0]);
    run_ticks(tasks_world, 3);
    tram_future_set_result(waiting.futures[1], NULL);
    assert_int_equal(run_task(task), 0);
    assert_trace(tasks_world, "2 0 1");
    waiting_release(&waiting);
}

static void test_A_23_as_completed_ends_with_its_time(void **state) {
    (void)state;
    struct waiting waiting = waiting_new(2, 0);
    waiting.timeout_ns = MS;
    tram_future_set_result(waiting.futures[1], NULL);
    assert_int_equal(run_function(complete_in_order, &waiting), TRAM_ETIMEOUT);
    assert_trace(tasks_world, "1");
    waiting_release(&waiting);
}

/* What comes behind that time is not given any more. */
static int complete_too_late(void *arg) {
    const struct waiting *waiting = arg;
    tram_completions *completions;
    tram_future *future = NULL;
    assert_int_equal(tram_as_completed(waiting->futures, 2, MS, &completions), 0);
    assert_int_equal(tram_completions_next(completions, &future), TRAM_ETIMEOUT);
    assert_int_equal(tram_future_set_result(waiting->futures[1], NULL), 0);
    assert_int_equal(tram_yield(), 0);
    assert_int_equal(tram_completions_next(completions, &future), TRAM_ETIMEOUT);
    assert_null(future);
    tram_completions_free(completions);
    return 0;
}

static void test_A_23_what_is_late_is_not_among_the_completed(void **state) {
    (void)state;
    struct waiting waiting = waiting_new(2, 0);
    assert_int_equal(run_function(complete_too_late, &waiting), 0);
    waiting_release(&waiting);
}

/* ---- Times ---- */

static int complete(tram_loop *loop, void *future) {
    (void)loop;
    return tram_future_set_result(future, NULL);
}

/* Once without memory for a timer: for ever needs none, any other time does. */
static int wait_without_timers(void *arg) {
    struct world *world = arg;
    static const struct {
        uint64_t ns;
        int code;
    } times[] = {{TRAM_FOREVER, 0}, {HOUR, -ENOMEM}};
    for (size_t i = 0; i < 2; i++) {
        tram_future *future = future_new(), *other = future_new();
        tram_timeout *timeout;
        tram_completions *completions;
        world_lacks_timers(world);
        int begun = tram_timeout_begin(times[i].ns, &timeout);
        if (!begun)
            assert_int_equal(tram_timeout_end(timeout, 0), 0);
        assert_int_equal(tram_timeout_begin(TRAM_FOREVER, &timeout), 0);
        uint64_t when_ns = i ? tram_loop_time(world->loop) + HOUR : TRAM_FOREVER;
        int again = tram_timeout_reschedule(timeout, when_ns);
        assert_int_equal(tram_timeout_end(timeout, 0), 0);
        int completed = tram_as_completed(&future, 1, times[i].ns, &completions);
        if (!completed)
            tram_completions_free(completions);
        assert_int_equal(tram_loop_call_soon(world->loop, complete, future, NULL, NULL), 0);
        int waited = tram_wait_for(future, times[i].ns, NULL);
        assert_int_equal(tram_loop_call_soon(world->loop, complete, other, NULL, NULL), 0);
        int done = tram_wait(&other, 1, times[i].ns, TRAM_ALL_COMPLETED);
        world_has_timers(world);
        assert_int_equal(begun, times[i].code);
        assert_int_equal(again, times[i].code);
        assert_int_equal(completed, times[i].code);
        assert_int_equal(waited, times[i].code);
        assert_int_equal(done, times[i].code ? times[i].code : 1);
        assert_int_equal(tram_yield(), 0);
        tram_future_release(future);
        tram_future_release(other);
    }
    return 0;
}

static void test_X_1_for_ever_needs_no_timer(void **state) {
    assert_int_equal(run_function(wait_without_timers, *state), 0);
}

/* ---- shield ---- */

static int await_shielded(void *arg) {
    tram_future *outer;
    assert_int_equal(tram_shield(arg, &outer), 0);
    void *value = NULL;
    int status = tram_await(outer, &value);
    trace(tasks_world, "%s", status_name(status));
    tram_future_release(outer);
    return status ? status : (int)(intptr_t)value;
}

static void test_A_24_shield_keeps_a_cancellation_from_the_inner_one(void **state) {
    (void)state;
    struct job job = {.name = "inner", .delay_ns = 2 * MS, .result = 6};
    tram_task *inner = spawn(work, &job), *task = spawn(await_shielded, tram_task_future(inner));
    run_ticks(tasks_world, 1);
    tram_task_cancel(task);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    assert_int_equal(run_function(await_shielded, tram_task_future(inner)), 6);
    assert_int_equal(run_function(await_shielded, tram_task_future(inner)), 6); /* done already */
    assert_trace(tasks_world, "TRAM_ECANCELLED inner:ok ok ok");
    tram_task_release(inner);
}

static void test_A_24_shield_passes_on_how_the_inner_one_ends(void **state) {
    (void)state;
    tram_future *inner = future_new();
    tram_task *task = spawn(await_shielded, inner);
    run_ticks(tasks_world, 1);
    tram_future_set_error(inner, &(tram_error){.code = -EIO});
    assert_int_equal(run_task(task), -EIO);
    tram_future_release(inner);
    inner = future_new();
    task = spawn(await_shielded, inner);
    run_ticks(tasks_world, 1);
    tram_future_cancel(inner);
    assert_int_equal(run_task(task), TRAM_ECANCELLED);
    tram_future_release(inner);
}

/* ---- Without memory ---- */

static int yield_twice(void *arg) {
    (void)arg;
    (void)tram_yield();
    return tram_yield();
}

/* As many tasks as there is memory for. */
static size_t spawn_some(tram_task **tasks, tram_future **futures, size_t most) {
    size_t count = 0;
    for (size_t i = 0; i < most; i++)
        if (had_memory(tram_task_spawn(NULL, yield_twice, NULL, NULL, &tasks[count]))) {
            futures[count] = tram_task_future(tasks[count]);
            count++;
        }
    return count;
}

static void wait_for_some(size_t count, tram_future **futures) {
    tram_future *all = NULL, *shielded = NULL, *next;
    tram_completions *completions = NULL;
    if (had_memory(tram_gather(tasks_world->loop, futures, count, 0, &all))) {
        (void)had_memory(tram_await(all, NULL));
        tram_future_release(all);
    }
    if (count && had_memory(tram_wait(futures, count, HOUR, TRAM_ALL_COMPLETED)))
        for (size_t i = 0; i < count; i++)
            assert_true(tram_future_done(futures[i]));
    if (had_memory(tram_as_completed(futures, count, TRAM_FOREVER, &completions))) {
        size_t came = 0;
        while (tram_completions_next(completions, &next) == 1)
            came++;
        assert_int_equal(came, count);
        tram_completions_free(completions);
    }
    if (count && had_memory(tram_shield(futures[0], &shielded))) {
        (void)had_memory(tram_await(shielded, NULL));
        tram_future_release(shielded);
    }
}

static void use_scopes(void) {
    static int key;
    tram_timeout *timeout;
    tram_group *group;
    if (had_memory(tram_task_set_local(&key, "value", NULL)))
        assert_string_equal(tram_task_local(&key), "value");
    else
        assert_null(tram_task_local(&key));
    if (had_memory(tram_timeout_begin(HOUR, &timeout)))
        assert_int_equal(tram_timeout_end(timeout, 7), 7);
    if (had_memory(tram_group_begin(&group))) {
        (void)had_memory(tram_group_spawn(group, yield_twice, NULL, NULL, NULL));
        (void)had_memory(tram_group_end(group, 0));
    }
    (void)had_memory(tram_sleep(1));
}

static void use_queues(void) {
    for (tram_queue_order order = TRAM_QUEUE_FIFO; order <= TRAM_QUEUE_LIFO; order++) {
        tram_queue *queue;
        if (!had_memory(tram_queue_new(tasks_world->loop, &(tram_queue_options){.order = order}, &queue)))
            continue;
        size_t put = 0;
        for (int i = 0; i < 40; i++) {
            put += had_memory(tram_queue_put_nowait(queue, "item"));
            assert_int_equal(tram_queue_size(queue), put);
        }
        for (void *item; put && tram_queue_get_nowait(queue, &item) == 0; put--)
            assert_string_equal(item, "item");
        assert_int_equal(put, 0);
        tram_queue_free(queue);
    }
}

static void discard_nothing(void *item) {
    assert_string_equal(item, "item");
}

static void use_a_channel(void) {
    tram_channel *passage;
    if (!had_memory(tram_channel_new(tasks_world->loop, 4, discard_nothing, &passage)))
        return;
    for (int i = 0; i < 2; i++) {
        int status = had_memory(tram_channel_try_send(passage, "item")) ? 0 : -ENOMEM;
        void *item = NULL;
        if (status == 0 && had_memory(tram_channel_receive(passage, &item)))
            assert_string_equal(item, "item");
        if (had_memory(tram_channel_send(passage, "item")) && had_memory(tram_channel_receive(passage, &item)))
            assert_string_equal(item, "item");
    }
    tram_channel_close(passage);
    tram_channel_release(passage);
}

static int use_all(void *arg) {
    tram_task *tasks[10]; /* more than tram_wait() has a place for on its stack */
    tram_future *futures[10];
    size_t count = spawn_some(tasks, futures, 10);
    wait_for_some(count, futures);
    for (size_t i = 0; i < count; i++)
        (void)had_memory(tram_task_join(tasks[i]));
    use_scopes();
    use_queues();
    use_a_channel();
    *(bool *)arg = true;
    return 0;
}

static void use_tasks(struct world *world) {
    bool done = false;
    if (!had_memory(tram_task_spawn(world->loop, use_all, &done, NULL, NULL)))
        return;
    int ticks = 0; /* a timer may not be had, so none is waited for */
    while (!done) {
        assert_true(ticks++ < 10000);
        run_ticks(world, 1);
    }
    run_ticks(world, 3);
}

static void test_X_1_tasks_and_what_they_wait_for_without_memory(void **state) {
    run_out_of_other_memory(*state, false, use_tasks);
    run_out_of_other_memory(*state, true, use_tasks);
    run_out_of_memory(*state, false, use_tasks);
    run_out_of_memory(*state, true, use_tasks);
}

/* ---- Who may not wait, and for what ---- */

static int refuse_strange_futures(void *arg) {
    tram_future *foreign = arg, *made, *none = NULL;
    tram_completions *completions;
    assert_int_equal(tram_await(foreign, NULL), TRAM_ESTATE);
    assert_int_equal(tram_task_join(tram_task_current()), TRAM_ESTATE);
    assert_int_equal(tram_wait_for(foreign, 1000, NULL), TRAM_ESTATE);
    assert_int_equal(tram_wait(&foreign, 1, HOUR, TRAM_ALL_COMPLETED), TRAM_ESTATE);
    assert_int_equal(tram_as_completed(&foreign, 1, HOUR, &completions), TRAM_ESTATE);
    assert_int_equal(tram_gather(tasks_world->loop, &foreign, 1, 0, &made), TRAM_ESTATE);
    assert_int_equal(tram_wait_for(tram_task_future(tram_task_current()), 1000, NULL), TRAM_ESTATE);
    assert_int_equal(tram_wait_for(tram_task_future(tram_task_current()), 0, NULL), TRAM_ESTATE);
    assert_wrong(tram_wait_for(NULL, 1000, NULL), "future");
    assert_wrong(tram_wait(&none, 1, HOUR, TRAM_ALL_COMPLETED), "futures");
    assert_wrong(tram_as_completed(&none, 1, HOUR, &completions), "futures");
    assert_wrong(tram_shield(NULL, &made), "inner");
    assert_wrong(tram_timeout_end(NULL, 0), "timeout");
    assert_wrong(tram_group_end(NULL, 0), "group");
    return 7;
}

static void test_A_3_futures_of_other_loops_and_none(void **state) {
    (void)state;
    tram_loop *other;
    tram_future *foreign;
    assert_int_equal(tram_loop_new(NULL, &other), 0);
    assert_int_equal(tram_loop_create_future(other, &foreign), 0);
    assert_int_equal(run_function(refuse_strange_futures, foreign), 7);
    assert_false(tram_future_done(foreign));
    tram_future_release(foreign);
    assert_int_equal(tram_loop_free(other), 0);
}

/* None of them changes anything, either. */
static void test_A_3_whatever_waits_needs_a_task(void **state) {
    (void)state;
    tram_future *pending = future_new();
    tram_completions *completions;
    tram_timeout *timeout;
    tram_group *group;
    tram_event event = {.set = true};
    tram_semaphore semaphore;
    tram_barrier barrier;
    tram_queue *queue;
    void *item;
    tram_semaphore_init(&semaphore, 1, false);
    assert_int_equal(tram_barrier_init(&barrier, 1), 0);
    assert_int_equal(tram_queue_new(tasks_world->loop, NULL, &queue), 0);
    assert_int_equal(tram_sleep(0), TRAM_ESTATE);
    assert_int_equal(tram_wait_for(pending, 1000, NULL), TRAM_ESTATE);
    assert_int_equal(tram_wait(&pending, 1, HOUR, TRAM_ALL_COMPLETED), TRAM_ESTATE);
    assert_int_equal(tram_as_completed(&pending, 1, HOUR, &completions), TRAM_ESTATE);
    assert_int_equal(tram_timeout_begin(1000, &timeout), TRAM_ESTATE);
    assert_int_equal(tram_group_begin(&group), TRAM_ESTATE);
    assert_int_equal(tram_event_wait(&event), TRAM_ESTATE);
    assert_int_equal(tram_semaphore_acquire(&semaphore), TRAM_ESTATE);
    assert_false(tram_semaphore_locked(&semaphore));
    assert_int_equal(tram_barrier_wait(&barrier), TRAM_ESTATE);
    assert_int_equal(tram_barrier_reset(&barrier), TRAM_ESTATE);
    assert_int_equal(tram_barrier_abort(&barrier), TRAM_ESTATE);
    assert_false(tram_barrier_broken(&barrier));
    assert_int_equal(tram_queue_put(queue, "item"), TRAM_ESTATE);
    assert_int_equal(tram_queue_size(queue), 0);
    assert_int_equal(tram_queue_get(queue, &item), TRAM_ESTATE);
    assert_int_equal(tram_queue_join(queue), TRAM_ESTATE);
    tram_queue_free(queue);
    tram_future_release(pending);
}

/* ---- Wrong threads ---- */

struct stranger {
    tram_queue *queue;
    tram_completions *completions;
    tram_timeout *timeout;
    tram_task *task;
    int rescheduled, uncancelled;
};

static void *call_from_elsewhere(void *arg) {
    struct stranger *stranger = arg;
    stranger->rescheduled = tram_timeout_reschedule(stranger->timeout, 0);
    stranger->uncancelled = tram_task_uncancel(stranger->task);
    tram_queue_free(stranger->queue);
    tram_completions_free(stranger->completions);
    return NULL;
}

static int meet_a_stranger(void *arg) {
    tram_future *future = arg;
    struct stranger stranger = {.task = tram_task_current()};
    assert_int_equal(tram_queue_new(tasks_world->loop, NULL, &stranger.queue), 0);
    assert_int_equal(tram_as_completed(&future, 1, TRAM_FOREVER, &stranger.completions), 0);
    assert_int_equal(tram_timeout_begin(HOUR, &stranger.timeout), 0);
    tram_task_cancel(stranger.task);
    uint64_t when = tram_timeout_when(stranger.timeout);
    on_another_thread(call_from_elsewhere, &stranger);
    assert_int_equal(stranger.rescheduled, TRAM_ESTATE);
    assert_int_equal(stranger.uncancelled, TRAM_ESTATE);
    assert_true(tram_timeout_when(stranger.timeout) == when);
    assert_int_equal(tram_task_cancelling(stranger.task), 1);
    assert_int_equal(tram_task_uncancel(stranger.task), 0);
    assert_int_equal(tram_timeout_end(stranger.timeout, 0), 0);
    tram_queue_free(stranger.queue); /* they are there still */
    tram_completions_free(stranger.completions);
    return 0;
}

static void test_L_10_L_31_debug_mode_lets_no_other_thread_end_what_tasks_wait_with(void **state) {
    struct world *world = *state;
    tram_future *future = future_new();
    assert_int_equal(run_function(meet_a_stranger, future), 0);
    assert_int_equal(world->exceptions, 4);
    assert_int_equal(world->exception_code, TRAM_ESTATE);
    tram_future_release(future);
}

/* Who ends what it never had does nothing. */
static void test_ends_of_nothing(void **state) {
    struct world *world = *state;
    tram_queue_free(NULL);
    tram_completions_free(NULL);
    assert_int_equal(world->exceptions, 0);
}

static int debug_setup(void **state) {
    int status = world_setup_debug(state);
    tasks_world = *state;
    return status;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TASK_TEST(test_A_18_a_timeout_cancels_what_takes_too_long),
        TASK_TEST(test_A_18_a_cancellation_by_others_stays_one),
        TASK_TEST(test_A_18_the_timeout_whose_time_is_over_answers),
        TASK_TEST(test_A_18_a_timeout_is_rescheduled),
        TASK_TEST(test_A_18_a_timeout_is_put_off),
        TASK_TEST(test_A_18_a_timeout_that_is_left_open_ends_with_its_task),
        TASK_TEST(test_A_19_wait_for_cancels_what_is_late_and_waits_for_its_end),
        TASK_TEST(test_A_19_without_time_only_what_is_done_counts),
        TASK_TEST(test_A_19_without_time_a_cancellation_by_others_stays_one),
        TASK_TEST(test_ends_of_nothing),
        cmocka_unit_test_setup_teardown(test_L_10_L_31_debug_mode_lets_no_other_thread_end_what_tasks_wait_with,
                                        debug_setup, world_teardown),
        TASK_TEST(test_A_20_gather_waits_for_all),
        TASK_TEST(test_A_20_gather_fails_with_the_first_and_others_go_on),
        TASK_TEST(test_A_20_gather_keeps_errors_where_asked),
        TASK_TEST(test_A_21_cancelling_gather_cancels_all),
        TASK_TEST(test_A_20_gather_of_nothing_and_of_what_is_done_is_done_at_once),
        TASK_TEST(test_a_gather_that_still_waits_ends_with_its_loop),
        TASK_TEST(test_gather_and_shield_without_memory_leave_nothing_behind),
        TASK_TEST(test_A_22_wait_waits_for_as_many_as_it_is_told),
        TASK_TEST(test_A_22_X_11_who_waits_for_an_exception_has_seen_it),
        TASK_TEST(test_A_22_wait_cancels_nothing),
        TASK_TEST(test_wait_refuses_what_has_no_sense),
        TASK_TEST(test_A_23_as_completed_gives_them_in_order_of_their_end),
        TASK_TEST(test_A_23_as_completed_ends_with_its_time),
        TASK_TEST(test_A_23_what_is_late_is_not_among_the_completed),
        TASK_TEST(test_X_1_for_ever_needs_no_timer),
        TASK_TEST(test_A_24_shield_keeps_a_cancellation_from_the_inner_one),
        TASK_TEST(test_A_24_shield_passes_on_how_the_inner_one_ends),
        TASK_TEST(test_A_3_futures_of_other_loops_and_none),
        TASK_TEST(test_A_3_whatever_waits_needs_a_task),
        TASK_TEST(test_X_1_tasks_and_what_they_wait_for_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
