#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

#include "core/jobs/executor.h"
#include "core/loop/loop.h"
#include "support/support.h"

/* ---- The default memory: where no sanitizer forbids it, the library finds these as jemalloc's ---- */

static _Atomic size_t default_live;
static _Atomic size_t default_fail_after = SIZE_MAX; /* allocations that still succeed */

void *mallocx(size_t size, int flags);
void sdallocx(void *memory, size_t size, int flags);

void *mallocx(size_t size, int flags) {
    assert_int_equal(flags, 0);
    if (default_fail_after == 0)
        return NULL;
    if (default_fail_after != SIZE_MAX)
        default_fail_after--;
    size_t *memory = malloc(size + 16);
    assert_non_null(memory);
    *memory = size;
    default_live++;
    return memory + 2;
}

void sdallocx(void *memory, size_t size, int flags) {
    assert_int_equal(flags, 0);
    assert_int_equal(((size_t *)memory)[-2], size);
    default_live--;
    free((size_t *)memory - 2);
}

static int setup(void **state) {
    default_fail_after = SIZE_MAX;
    return world_setup(state);
}

static int teardown(void **state) {
    default_fail_after = SIZE_MAX;
    int status = world_teardown(state);
    /* A thread that a closing loop had to leave behind gives its memory back when it ends. */
    for (int i = 0; default_live && i < 20000; i++)
        poll(NULL, 0, 1);
    if (default_live)
        print_error("left behind: %zu blocks of the default memory\n", default_live);
    return default_live ? -1 : status;
}

/* ---- Jobs that wait for us ---- */

struct gate {
    sem_t entered; /* posted by each job that begins */
    sem_t open;
    sem_t left;
    _Atomic int runs;
    _Atomic int discards;
};

static void gate_init(struct gate *gate) {
    sem_init(&gate->entered, 0, 0);
    sem_init(&gate->open, 0, 0);
    sem_init(&gate->left, 0, 0);
    gate->runs = gate->discards = 0;
}

static void gate_fini(struct gate *gate) {
    sem_destroy(&gate->entered);
    sem_destroy(&gate->open);
    sem_destroy(&gate->left);
}

/* Without a deadline: it would be one of a clock that may jump, and ctest has its own. */
static void await(sem_t *semaphore) {
    while (sem_wait(semaphore))
        assert_int_equal(errno, EINTR);
}

static int pass_gate(void *arg, void **ret_result) {
    struct gate *gate = arg;
    gate->runs++;
    sem_post(&gate->entered);
    while (sem_wait(&gate->open))
        continue;
    *ret_result = gate;
    sem_post(&gate->left);
    return 0;
}

static int count_run(void *arg, void **ret_result) {
    struct gate *gate = arg;
    gate->runs++;
    *ret_result = gate;
    return 0;
}

static void count_discard(void *arg) {
    struct gate *gate = arg;
    gate->discards++;
}

static int trace_done(tram_future *future, void *arg) {
    int status = tram_future_result(future, NULL);
    trace(world_of(tram_future_get_loop(future)), "%s:%s", (const char *)arg, status ? tram_error_name(status) : "ok");
    return 0;
}

static tram_future *submit(struct world *world, tram_executor *executor, tram_executor_function function,
                           struct gate *gate) {
    tram_future *future;
    assert_int_equal(tram_loop_run_in_executor(world->loop, executor, function, gate, count_discard, &future), 0);
    return future;
}

static void finish(struct world *world, tram_future *future) {
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    tram_future_release(future);
}

/* How many threads of this process are called so. */
static int threads_named(const char *name) {
    DIR *directory = opendir("/proc/self/task");
    struct dirent *entry;
    int count = 0;
    while ((entry = readdir(directory))) {
        char path[300], text[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        if (fgets(text, sizeof text, file))
            text[strcspn(text, "\n")] = '\0';
        count += strcmp(text, name) == 0;
        fclose(file);
    }
    closedir(directory);
    return count;
}

/* Nothing tells when a detached thread has gone, and a joined one stays in the list a moment. */
static void await_no_threads(const char *name) {
    for (int i = 0; threads_named(name); i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
    }
}

static int default_limit(void) {
    int limit = (int)tram_available_cpus().count + 4;
    return limit < 32 ? limit : 32;
}

/* ---- Running ---- */

struct report {
    pthread_t thread;
    char name[16];
};

static int report_thread(void *arg, void **ret_result) {
    struct report *report = arg;
    report->thread = pthread_self();
    pthread_getname_np(pthread_self(), report->name, sizeof report->name);
    *ret_result = report;
    return 0;
}

static void test_L_32_a_job_runs_on_a_named_thread_and_completes_on_the_loop(void **state) {
    struct world *world = *state;
    struct report report;
    tram_future *future;
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, report_thread, &report, NULL, &future), 0);
    assert_false(tram_future_done(future));
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    void *result;
    assert_int_equal(tram_future_result(future, &result), 0);
    assert_ptr_equal(result, &report);
    assert_false(pthread_equal(report.thread, pthread_self()));
    assert_string_equal(report.name, "tram-executor");
    tram_future_release(future);
}

static int fail_job(void *arg, void **ret_result) {
    (void)arg;
    (void)ret_result;
    return -EDOM;
}

static void test_L_32_a_failing_job_fails_its_future(void **state) {
    struct world *world = *state;
    tram_future *future;
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, fail_job, NULL, NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), -EDOM);
    assert_string_equal(tram_future_error(future)->operation, "run_in_executor");
    tram_future_release(future);
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, NULL, NULL, NULL, &future), TRAM_EVALUE);
}

static void test_L_32_the_default_pool_grows_on_demand_to_its_limit(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    int limit = default_limit();
    tram_future *futures[64];
    await_no_threads("tram-executor");
    for (int i = 0; i < limit; i++) {
        futures[i] = submit(world, NULL, pass_gate, &gate);
        await(&gate.entered);
        assert_int_equal(threads_named("tram-executor"), i + 1);
    }
    for (int i = limit; i < limit + 4; i++)
        futures[i] = submit(world, NULL, pass_gate, &gate);
    assert_int_equal(threads_named("tram-executor"), limit);
    for (int i = 0; i < limit + 4; i++)
        sem_post(&gate.open);
    for (int i = 0; i < limit + 4; i++)
        finish(world, futures[i]);
    assert_int_equal(gate.runs, limit + 4);
    gate_fini(&gate);
}

static int tell_thread(void *arg, void **ret_result) {
    (void)ret_result;
    *(pid_t *)arg = gettid();
    return 0;
}

/* The kernel says that it sleeps: nobody holds a lock that it could want. */
static void await_sleep(pid_t thread) {
    char path[64], line[256], state = ' ';
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    while (state != 'S') {
        FILE *file = fopen(path, "re");
        assert_non_null(file);
        assert_non_null(fgets(line, sizeof line, file));
        fclose(file);
        state = strrchr(line, ')')[2];
    }
}

static void test_a_thread_that_waits_for_work_gets_it(void **state) {
    struct world *world = *state;
    tram_executor *executor;
    tram_future *future;
    pid_t thread = 0, first = 0;
    assert_int_equal(tram_executor_new(4, "idle", &executor), 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(tram_loop_run_in_executor(world->loop, executor, tell_thread, &thread, NULL, &future), 0);
        finish(world, future);
        await_sleep(thread);
        first = first ? first : thread;
        assert_int_equal(thread, first);
        assert_int_equal(threads_named("idle"), 1);
    }
    tram_executor_free(executor);
}

static void test_jobs_of_one_thread_run_in_order(void **state) {
    struct world *world = *state;
    tram_executor *executor;
    assert_int_equal(tram_executor_new(1, "one", &executor), 0);
    struct report reports[20];
    tram_future *futures[20];
    for (int i = 0; i < 20; i++) {
        assert_int_equal(
            tram_loop_run_in_executor(world->loop, executor, report_thread, &reports[i], NULL, &futures[i]), 0);
        assert_int_equal(tram_future_add_done_callback(futures[i], trace_done, "x"), 0);
    }
    finish(world, futures[19]);
    for (int i = 0; i < 19; i++) {
        assert_true(tram_future_done(futures[i]));
        tram_future_release(futures[i]);
    }
    for (int i = 0; i < 20; i++) {
        assert_true(pthread_equal(reports[i].thread, reports[0].thread));
        assert_string_equal(reports[i].name, "one");
    }
    tram_executor_free(executor);
    await_no_threads("one");
}

/* Two threads, and room for `waiting`. */
static void check_limit(struct world *world, tram_executor *executor, struct gate *gate, int waiting) {
    tram_future *futures[8], *refused;
    assert_int_equal(tram_executor_set_limit(executor, (size_t)waiting), 0);
    for (int i = 0; i < 2 + waiting; i++)
        futures[i] = submit(world, executor, pass_gate, gate);
    assert_int_equal(tram_loop_run_in_executor(world->loop, executor, pass_gate, gate, count_discard, &refused),
                     TRAM_ELIMIT);
    /* A cancelled job, and one that is done, have made room when that is known. */
    if (waiting) {
        assert_int_equal(tram_future_cancel(futures[1 + waiting]), 1);
        tram_future_release(futures[1 + waiting]);
        futures[1 + waiting] = submit(world, executor, pass_gate, gate);
    }
    sem_post(&gate->open);
    while (!tram_future_done(futures[0]) && !tram_future_done(futures[1]))
        run_ticks(world, 1);
    futures[2 + waiting] = submit(world, executor, pass_gate, gate);
    assert_int_equal(tram_loop_run_in_executor(world->loop, executor, pass_gate, gate, count_discard, &refused),
                     TRAM_ELIMIT);
    for (int i = 0; i < 2 + waiting; i++)
        sem_post(&gate->open);
    for (int i = 0; i < 3 + waiting; i++)
        finish(world, futures[i]);
}

static void test_L_45_a_job_beyond_the_limit_is_refused(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_executor *executor;
    assert_int_equal(tram_executor_new(2, "two", &executor), 0);
    check_limit(world, executor, &gate, 3);
    assert_int_equal(gate.discards, 1); /* of the cancelled one: those that are refused stay the caller's */
    check_limit(world, executor, &gate, 0);
    assert_int_equal(gate.discards, 1);
    assert_int_equal(tram_executor_set_limit(NULL, 1), TRAM_EVALUE);
    tram_executor_free(executor);
    await_no_threads("two");
    gate_fini(&gate);
}

static void test_a_job_may_go_without_a_future(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    sem_post(&gate.open);
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, pass_gate, &gate, count_discard, NULL), 0);
    await(&gate.left);
    finish(world, submit(world, NULL, count_run, &gate));
    gate_fini(&gate);
}

static void test_freeing_an_executor_runs_what_is_queued(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_executor *executor;
    assert_int_equal(tram_executor_new(2, NULL, &executor), 0);
    tram_future *futures[50];
    for (int i = 0; i < 50; i++)
        futures[i] = submit(world, executor, count_run, &gate);
    tram_executor_free(executor);
    assert_int_equal(gate.runs, 50);
    for (int i = 0; i < 50; i++)
        finish(world, futures[i]);
    tram_executor_free(NULL);
    gate_fini(&gate);
}

static void test_a_future_may_outlive_its_executor(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_executor *executor;
    assert_int_equal(tram_executor_new(1, NULL, &executor), 0);
    tram_future *future = submit(world, executor, count_run, &gate);
    tram_executor_free(executor);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_int_equal(tram_future_result(future, NULL), TRAM_ECANCELLED);
    tram_future_release(future);
    run_ticks(world, 2);
    assert_int_equal(gate.runs, 1);
    assert_int_equal(gate.discards, 0);
    gate_fini(&gate);
}

/* ---- Cancelling ---- */

static void test_L_33_cancelling_a_running_job_detaches_it(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_future *future = submit(world, NULL, pass_gate, &gate);
    await(&gate.entered);
    assert_int_equal(tram_future_add_done_callback(future, trace_done, "job"), 0);
    assert_int_equal(tram_future_cancel(future), 1);
    run_ticks(world, 2);
    assert_trace(world, "job:TRAM_ECANCELLED");
    sem_post(&gate.open);
    await(&gate.left); /* it ran to its end */
    finish(world, submit(world, NULL, count_run, &gate));
    assert_true(tram_future_cancelled(future));
    assert_int_equal(gate.discards, 0);
    tram_future_release(future);
    gate_fini(&gate);
}

static int give_memory(void *arg, void **ret_result) {
    int status = pass_gate(arg, ret_result);
    *ret_result = malloc(1);
    return status;
}

static sem_t results_freed;

static void free_result(void *result) {
    free(result);
    sem_post(&results_freed);
}

/* The loop has to hear of the job's end first. */
static void await_freed(struct world *world) {
    while (sem_trywait(&results_freed))
        run_ticks(world, 1);
}

/* rules: L-33 */
static void test_L_33_the_result_of_a_cancelled_job_is_freed(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    sem_init(&results_freed, 0, 0);
    const tram_job job = {.function = give_memory, .arg = &gate, .free_result = free_result};
    tram_future *future;
    assert_int_equal(tram_loop_run_job(world->loop, NULL, &job, &future), 0);
    await(&gate.entered);
    assert_int_equal(tram_future_cancel(future), 1);
    sem_post(&gate.open);
    tram_future_release(future);
    await_freed(world);
    /* Released unread, or without a future: the same. One that is read is the reader's. */
    for (int i = 0; i < 3; i++) {
        void *result = NULL;
        assert_int_equal(tram_loop_run_job(world->loop, NULL, &job, i == 1 ? NULL : &future), 0);
        await(&gate.entered);
        sem_post(&gate.open);
        if (i != 1) {
            assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
            if (i == 2)
                assert_int_equal(tram_future_result(future, &result), 0);
            tram_future_release(future);
        }
        int freed = 0;
        if (i != 2)
            await_freed(world);
        sem_getvalue(&results_freed, &freed);
        assert_int_equal(freed, 0);
        free(result);
    }
    sem_destroy(&results_freed);
    gate_fini(&gate);
}

static void test_X_3_cancelling_a_queued_job_takes_it_back(void **state) {
    struct world *world = *state;
    struct gate gate, never;
    gate_init(&gate);
    gate_init(&never);
    tram_executor *executor;
    assert_int_equal(tram_executor_new(1, NULL, &executor), 0);
    tram_future *first = submit(world, executor, pass_gate, &gate);
    await(&gate.entered);
    tram_future *second = submit(world, executor, count_run, &never);
    assert_int_equal(tram_future_add_done_callback(second, trace_done, "job"), 0);
    assert_int_equal(tram_future_cancel(second), 1);
    assert_int_equal(never.discards, 1);
    assert_int_equal(tram_future_cancel(second), 0);
    run_ticks(world, 1);
    assert_trace(world, "job:TRAM_ECANCELLED");
    tram_future_release(second);
    sem_post(&gate.open);
    finish(world, first);
    tram_executor_free(executor);
    assert_int_equal(never.runs, 0);
    assert_int_equal(never.discards, 1);
    assert_int_equal(gate.discards, 0);
    gate_fini(&gate);
    gate_fini(&never);
}

/* ---- The end ---- */

static void test_L_32_L_34_shutdown_waits_for_the_pool_and_lets_nothing_in(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_future *job = submit(world, NULL, pass_gate, &gate);
    await(&gate.entered);
    tram_future *shutdown, *again, *refused;
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 0, &shutdown), 0);
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 0, &again), 0);
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, count_run, &gate, count_discard, &refused),
                     TRAM_ESTATE);
    assert_int_equal(gate.discards, 0);
    run_ticks(world, 3); /* the loop is not blocked */
    assert_false(tram_future_done(shutdown));
    assert_false(tram_future_done(again)); /* the second one waits as well */
    sem_post(&gate.open);
    finish(world, shutdown);
    finish(world, again);
    assert_true(tram_future_done(job));
    await_no_threads("tram-executor");
    finish(world, job);
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 0, &again), 0);
    assert_true(tram_future_done(again));
    finish(world, again);
    gate_fini(&gate);
}

static void test_L_34_shutdown_of_no_pool_is_done_at_once(void **state) {
    struct world *world = *state;
    tram_future *future;
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 1000000, &future), 0);
    assert_true(tram_future_done(future));
    finish(world, future);
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, fail_job, NULL, NULL, &future), TRAM_ESTATE);
    assert_int_equal(world->warnings, 0);
}

static void test_L_34_shutdown_runs_what_is_queued(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_future *futures[200], *shutdown;
    for (int i = 0; i < 200; i++)
        futures[i] = submit(world, NULL, count_run, &gate);
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, TRAM_FOREVER, &shutdown), 0);
    finish(world, shutdown);
    assert_int_equal(gate.runs, 200);
    for (int i = 0; i < 200; i++)
        finish(world, futures[i]);
    gate_fini(&gate);
}

static int count_callback(tram_loop *loop, void *arg) {
    (void)loop;
    ++*(int *)arg;
    return 0;
}

static void test_L_34_other_callbacks_run_while_a_shutdown_waits(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_future *job = submit(world, NULL, pass_gate, &gate), *shutdown;
    await(&gate.entered);
    int calls = 0;
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 0, &shutdown), 0);
    assert_int_equal(tram_loop_call_later(world->loop, 1, count_callback, &calls, NULL, NULL), 0);
    while (!calls)
        run_ticks(world, 1);
    assert_false(tram_future_done(shutdown));
    sem_post(&gate.open);
    finish(world, shutdown);
    finish(world, job);
    gate_fini(&gate);
}

static void test_L_34_at_the_timeout_shutdown_warns_and_abandons(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_future *job = submit(world, NULL, pass_gate, &gate);
    await(&gate.entered);
    tram_future *shutdown;
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 1000000, &shutdown), 0);
    finish(world, shutdown);
    assert_int_equal(world->warnings, 1);
    assert_non_null(strstr(world->log, "within 0.001 seconds"));
    assert_false(tram_future_done(job));
    sem_post(&gate.open);
    finish(world, job);
    gate_fini(&gate);
}

static void test_X_3_a_shutdown_can_be_cancelled(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_future *job = submit(world, NULL, pass_gate, &gate);
    tram_future *shutdown;
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 20000000000, &shutdown), 0);
    assert_int_equal(tram_future_cancel(shutdown), 1);
    assert_int_equal(tram_future_result(shutdown, NULL), TRAM_ECANCELLED);
    tram_future_release(shutdown);
    sem_post(&gate.open);
    finish(world, job);
    gate_fini(&gate);
}

static void test_L_34_closing_the_loop_does_not_wait_for_jobs(void **state) {
    struct world *world = *state;
    struct gate gate, queued;
    gate_init(&gate);
    gate_init(&queued);
    tram_executor *executor;
    assert_int_equal(tram_executor_new(1, "outer", &executor), 0);
    tram_future *own = submit(world, NULL, pass_gate, &gate);
    tram_future *outer = submit(world, executor, pass_gate, &gate);
    await(&gate.entered);
    await(&gate.entered);
    tram_future *waiting = submit(world, executor, count_run, &queued);
    tram_future *shutdown;
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 20000000000, &shutdown), 0);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_true(tram_future_cancelled(own));
    assert_true(tram_future_cancelled(outer));
    assert_true(tram_future_cancelled(waiting));
    assert_true(tram_future_cancelled(shutdown));
    assert_int_equal(queued.discards, 1);
    tram_future_release(own);
    tram_future_release(outer);
    tram_future_release(waiting);
    tram_future_release(shutdown);
    /* What still runs owns nothing of the loop or its allocator. */
    assert_int_equal(tram_loop_free(world->loop), 0);
    world->loop = NULL;
    assert_int_equal(world->live_blocks, 0);
    assert_int_equal(open_descriptors(), world->descriptors);
    sem_post(&gate.open);
    sem_post(&gate.open);
    await(&gate.left);
    await(&gate.left);
    tram_executor_free(executor);
    await_no_threads("tram-executor");
    assert_int_equal(queued.runs, 0);
    gate_fini(&gate);
    gate_fini(&queued);
}

static void cancel_other(void *arg) {
    tram_future **other = arg;
    assert_int_equal(tram_future_cancel(*other), 1);
}

static void test_at_the_close_a_discard_may_cancel_the_next_job(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_executor *executor;
    assert_int_equal(tram_executor_new(1, "outer", &executor), 0);
    tram_future_release(submit(world, executor, pass_gate, &gate));
    await(&gate.entered);
    tram_future *next;
    assert_int_equal(tram_loop_run_in_executor(world->loop, executor, fail_job, &next, cancel_other, NULL), 0);
    next = submit(world, executor, count_run, &gate);
    tram_future_release(submit(world, executor, count_run, &gate));
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_true(tram_future_cancelled(next));
    tram_future_release(next);
    assert_int_equal(gate.discards, 2);
    sem_post(&gate.open);
    tram_executor_free(executor);
    assert_int_equal(gate.runs, 1);
    gate_fini(&gate);
}

static void test_L_34_closing_ends_idle_threads(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    finish(world, submit(world, NULL, count_run, &gate));
    assert_int_equal(threads_named("tram-executor"), 1);
    assert_int_equal(tram_loop_close(world->loop), 0);
    await_no_threads("tram-executor");
    tram_future *future;
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, count_run, &gate, NULL, &future), TRAM_ESTATE);
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 0, &future), TRAM_ESTATE);
    gate_fini(&gate);
}

static void test_L_34_answers_that_race_with_the_close_are_dropped(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_executor *executor;
    assert_int_equal(tram_executor_new(3, NULL, &executor), 0);
    for (int turn = 0; turn < 100; turn++) {
        for (int i = 0; i < 10; i++)
            tram_future_release(submit(world, executor, count_run, &gate));
        if (turn & 1)
            run_ticks(world, 1);
        world_reopen(world);
    }
    tram_executor_free(executor);
    assert_int_equal(gate.runs + gate.discards, 1000);
    gate_fini(&gate);
}

/* ---- Another default executor ---- */

static bool one_is_done(void *arg) {
    tram_future **jobs = arg;
    return tram_future_done(jobs[0]) || tram_future_done(jobs[1]);
}

static void test_a_set_executor_is_used_and_stays_the_callers(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_executor *executor;
    struct report report;
    assert_int_equal(tram_executor_new(2, "mine", &executor), 0);
    assert_int_equal(tram_loop_set_default_executor(world->loop, NULL), TRAM_EVALUE);
    finish(world, submit(world, NULL, count_run, &gate)); /* an own pool, which is given up */
    assert_int_equal(tram_loop_set_default_executor(world->loop, executor), 0);
    await_no_threads("tram-executor");
    tram_future *future;
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, report_thread, &report, NULL, &future), 0);
    finish(world, future);
    assert_string_equal(report.name, "mine");

    tram_future *jobs[] = {submit(world, NULL, pass_gate, &gate), submit(world, NULL, pass_gate, &gate)}, *shutdown;
    await(&gate.entered);
    await(&gate.entered);
    assert_int_equal(tram_loop_shutdown_default_executor(world->loop, 0, &shutdown), 0);
    sem_post(&gate.open);
    run_until_true(world, one_is_done, jobs);
    run_ticks(world, 2);
    assert_false(tram_future_done(shutdown)); /* the other one runs */
    assert_int_equal(tram_future_cancel(jobs[tram_future_done(jobs[0])]), 1);
    run_ticks(world, 2);
    assert_false(tram_future_done(shutdown)); /* … also detached */
    sem_post(&gate.open);
    finish(world, shutdown);
    tram_future_release(jobs[0]);
    tram_future_release(jobs[1]);
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, count_run, &gate, NULL, &future), TRAM_ESTATE);
    assert_int_equal(tram_loop_set_default_executor(world->loop, executor), TRAM_ESTATE);
    finish(world, submit(world, executor, count_run, &gate)); /* the pool itself goes on */
    world_reopen(world);
    finish(world, submit(world, executor, count_run, &gate)); /* and serves other loops */
    tram_executor_free(executor);
    gate_fini(&gate);
}

static void test_a_pool_given_up_with_work_left_does_that_work(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_future *futures[40];
    int limit = default_limit();
    for (int i = 0; i < 40; i++)
        futures[i] = submit(world, NULL, pass_gate, &gate);
    for (int i = 0; i < limit; i++)
        await(&gate.entered); /* all threads are up, so their end can be seen */
    tram_executor *executor;
    assert_int_equal(tram_executor_new(1, "mine", &executor), 0);
    assert_int_equal(tram_loop_set_default_executor(world->loop, executor), 0);
    for (int i = 0; i < 40; i++)
        sem_post(&gate.open);
    for (int i = 0; i < 40; i++)
        finish(world, futures[i]);
    tram_executor_free(executor);
    await_no_threads("tram-executor");
    gate_fini(&gate);
}

/* ---- Trouble ---- */

static void test_without_memory_the_argument_stays_the_callers(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    for (int kind = 0; kind < 2; kind++) {
        for (size_t allocations = 0;; allocations++) {
            world_reopen(world);
            world->fail_after = kind ? SIZE_MAX : allocations;
            default_fail_after = kind ? allocations : SIZE_MAX;
            tram_future *future;
            int status = tram_loop_run_in_executor(world->loop, NULL, count_run, &gate, count_discard, &future);
            world->fail_after = SIZE_MAX;
            default_fail_after = SIZE_MAX;
            if (status == 0) {
                finish(world, future);
                break;
            }
            assert_int_equal(status, -ENOMEM);
        }
    }
    assert_int_equal(gate.runs, 2);
    assert_int_equal(gate.discards, 0);
    gate_fini(&gate);
}

static void test_without_memory_for_a_thread_a_job_waits_for_another(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_future *first = submit(world, NULL, pass_gate, &gate);
    await(&gate.entered);
    default_fail_after = 2; /* the job itself, and the node of its answer */
    tram_future *second = submit(world, NULL, count_run, &gate);
    default_fail_after = SIZE_MAX;
    sem_post(&gate.open);
    finish(world, first);
    finish(world, second);
    gate_fini(&gate);
}

/* No thread gets a stack of that size. */
static void let_threads_begin(bool may) {
    static pthread_attr_t usual;
    static bool kept;
    pthread_attr_t attributes;
    if (!kept)
        assert_int_equal(pthread_getattr_default_np(&usual), 0);
    kept = true;
    assert_int_equal(pthread_getattr_default_np(&attributes), 0);
    if (!may)
        assert_int_equal(pthread_attr_setstacksize(&attributes, (size_t)1 << 46), 0);
    assert_int_equal(pthread_setattr_default_np(may ? &usual : &attributes), 0);
    pthread_attr_destroy(&attributes);
}

/* The first one is refused, and the next as if that had not been; beside another thread a job waits for that. */
static void test_without_a_thread_a_job_is_refused_or_waits(void **state) {
    struct world *world = *state;
    struct gate gate;
    tram_executor *executor;
    tram_future *future = NULL;
    gate_init(&gate);
    assert_int_equal(tram_executor_new(2, NULL, &executor), 0);
    let_threads_begin(false);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tram_loop_run_in_executor(world->loop, executor, count_run, &gate, count_discard, &future),
                         -EAGAIN);
    assert_null(future);
    let_threads_begin(true);
    future = submit(world, executor, pass_gate, &gate);
    await(&gate.entered);
    let_threads_begin(false);
    tram_future *second = submit(world, executor, count_run, &gate);
    let_threads_begin(true);
    sem_post(&gate.open);
    finish(world, future);
    finish(world, second);
    assert_int_equal(gate.runs, 2);
    assert_int_equal(gate.discards, 0);
    tram_executor_free(executor);
    gate_fini(&gate);
}

/* It is the loop's still, which cannot know. */
static void test_an_executor_that_was_freed_takes_no_more(void **state) {
    struct world *world = *state;
    struct gate gate;
    tram_executor *executor;
    tram_future *future;
    gate_init(&gate);
    assert_int_equal(tram_executor_new(2, NULL, &executor), 0);
    assert_int_equal(tram_loop_set_default_executor(world->loop, executor), 0);
    tram_executor_free(executor);
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, count_run, &gate, count_discard, &future),
                     TRAM_ESTATE);
    assert_int_equal(gate.runs + gate.discards, 0);
    gate_fini(&gate);
}

static void test_without_memory_there_is_no_executor(void **state) {
    (void)state;
    tram_executor *executor = NULL;
    default_fail_after = 0;
    int status = tram_executor_new(1, NULL, &executor);
    default_fail_after = SIZE_MAX;
    assert_true(status == (executor ? 0 : -ENOMEM));
    tram_executor_free(executor);
}

static void test_without_memory_a_shutdown_has_not_begun(void **state) {
    struct world *world = *state;
    struct gate gate;
    gate_init(&gate);
    tram_future *job = submit(world, NULL, pass_gate, &gate), *shutdown;
    await(&gate.entered);
    for (size_t allocations = 0;; allocations++) {
        world->fail_after = allocations;
        int status = tram_loop_shutdown_default_executor(world->loop, 20000000000, &shutdown);
        world->fail_after = SIZE_MAX;
        if (status == 0)
            break;
        assert_int_equal(status, -ENOMEM);
        finish(world, submit(world, NULL, count_run, &gate));
    }
    sem_post(&gate.open);
    finish(world, shutdown);
    finish(world, job);
    gate_fini(&gate);
}

static int signals_blocked(void *arg, void **ret_result) {
    (void)ret_result;
    sigset_t *set = arg;
    pthread_sigmask(SIG_SETMASK, NULL, set);
    return 0;
}

static void test_the_pool_takes_no_signals(void **state) {
    struct world *world = *state;
    sigset_t set, mine;
    tram_future *future;
    assert_int_equal(tram_loop_run_in_executor(world->loop, NULL, signals_blocked, &set, NULL, &future), 0);
    finish(world, future);
    assert_true(sigismember(&set, SIGTERM) == 1 && sigismember(&set, SIGUSR1) == 1);
    assert_false(sigismember(&set, SIGSEGV));
    pthread_sigmask(SIG_SETMASK, NULL, &mine);
    assert_false(sigismember(&mine, SIGTERM));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_L_32_a_job_runs_on_a_named_thread_and_completes_on_the_loop),
        TEST(test_L_32_a_failing_job_fails_its_future),
        TEST(test_L_32_the_default_pool_grows_on_demand_to_its_limit),
        TEST(test_jobs_of_one_thread_run_in_order),
        TEST(test_a_thread_that_waits_for_work_gets_it),
        TEST(test_L_45_a_job_beyond_the_limit_is_refused),
        TEST(test_a_job_may_go_without_a_future),
        TEST(test_freeing_an_executor_runs_what_is_queued),
        TEST(test_a_future_may_outlive_its_executor),
        TEST(test_L_33_cancelling_a_running_job_detaches_it),
        TEST(test_L_33_the_result_of_a_cancelled_job_is_freed),
        TEST(test_X_3_cancelling_a_queued_job_takes_it_back),
        TEST(test_L_32_L_34_shutdown_waits_for_the_pool_and_lets_nothing_in),
        TEST(test_L_34_shutdown_of_no_pool_is_done_at_once),
        TEST(test_L_34_shutdown_runs_what_is_queued),
        TEST(test_L_34_other_callbacks_run_while_a_shutdown_waits),
        TEST(test_L_34_at_the_timeout_shutdown_warns_and_abandons),
        TEST(test_X_3_a_shutdown_can_be_cancelled),
        TEST(test_L_34_closing_the_loop_does_not_wait_for_jobs),
        TEST(test_at_the_close_a_discard_may_cancel_the_next_job),
        TEST(test_L_34_closing_ends_idle_threads),
        TEST(test_L_34_answers_that_race_with_the_close_are_dropped),
        TEST(test_a_set_executor_is_used_and_stays_the_callers),
        TEST(test_a_pool_given_up_with_work_left_does_that_work),
        TEST(test_without_memory_the_argument_stays_the_callers),
        TEST(test_without_memory_for_a_thread_a_job_waits_for_another),
        TEST(test_without_memory_there_is_no_executor),
        TEST(test_without_a_thread_a_job_is_refused_or_waits),
        TEST(test_an_executor_that_was_freed_takes_no_more),
        TEST(test_without_memory_a_shutdown_has_not_begun),
        TEST(test_the_pool_takes_no_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
