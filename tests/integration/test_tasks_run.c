/* tram_run and its form for a runtime. Some of it in a child process, for the sake of SIGINT. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/support.h"

#define MS   1000000ull
#define HOUR (3600ull * 1000000000)

static char text[1024];

static void note(const char *word) {
    if (text[0])
        strcat(text, " ");
    strcat(text, word);
}

static int sleep_in_background(void *arg) {
    int status = tram_sleep(HOUR);
    note(status == TRAM_ECANCELLED ? "background:cancelled" : "background:?");
    return arg ? -EIO : status;
}

static int main_task(void *arg) {
    assert_string_equal(tram_task_name(tram_task_current()), "main");
    assert_int_equal(tram_task_spawn(NULL, sleep_in_background, NULL, NULL, NULL), 0);
    assert_int_equal(tram_sleep(MS), 0);
    note("main");
    return *(int *)arg;
}

static void test_A_36_run_returns_what_main_returned_and_cancels_the_rest(void **state) {
    (void)state;
    int result = 7, descriptors = open_descriptors();
    text[0] = '\0';
    assert_int_equal(tram_run(main_task, &result, NULL), 7);
    assert_string_equal(text, "main background:cancelled");
    result = -EIO;
    assert_int_equal(tram_run(main_task, &result, NULL), -EIO);
    assert_int_equal(open_descriptors(), descriptors);
    assert_null(tram_loop_running());
}

static int raise_text(void *arg) {
    return tram_loop_raise(tram_loop_running(), TRAM_EUSER, NULL, arg);
}

static int fail_to_connect(void *arg) {
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    return tram_open_connection("127.0.0.1", arg, 0, NULL, &reader, &writer);
}

static void test_A_36_what_main_failed_with_is_told(void **state) {
    (void)state;
    int result = 0;
    char words[] = "no header"; /* copied */
    assert_int_equal(tram_run(raise_text, words, NULL), TRAM_EUSER);
    words[0] = 'x';
    assert_string_equal(tram_error_describe(tram_run_error(), TRAM_EUSER), "no header");
    uint16_t port;
    char service[8];
    close(tcp_listener(1, &port));
    snprintf(service, sizeof service, "%u", port);
    assert_int_equal(tram_run(fail_to_connect, service, NULL), -ECONNREFUSED);
    assert_non_null(strstr(tram_run_error()->detail, service));
    assert_int_equal(tram_run(main_task, &result, NULL), 0);
    assert_null(tram_run_error());
}

static void count_line(void *arg, tram_log_level level, const char *line) {
    (void)level;
    if (strstr(line, "A task failed while tram_run() ended") && strstr(line, "EIO"))
        ++*(int *)arg;
}

static int spawn_failing(void *arg) {
    assert_int_equal(tram_task_spawn(NULL, sleep_in_background, arg, NULL, NULL), 0);
    return tram_yield();
}

static void test_A_36_what_fails_while_it_is_cancelled_is_reported(void **state) {
    (void)state;
    int lines = 0;
    tram_loop_options options = {.log = count_line, .log_arg = &lines};
    assert_int_equal(tram_run(spawn_failing, &lines, &options), 0);
    assert_int_equal(lines, 1);
}

static int stop_loop(void *arg) {
    (void)arg;
    tram_loop_stop(tram_loop_running());
    return tram_sleep(HOUR);
}

static int run_within(void *arg) {
    (void)arg;
    return tram_run(run_within, NULL, NULL);
}

static void test_A_36_run_within_a_loop_or_a_stopped_one_is_no_run(void **state) {
    (void)state;
    assert_int_equal(tram_run(run_within, NULL, NULL), TRAM_ESTATE);
    assert_int_equal(tram_run(stop_loop, NULL, NULL), TRAM_ECANCELLED); /* as one of the rest */
    assert_int_equal(tram_run(NULL, NULL, NULL), TRAM_EVALUE);
}

static int job(void *arg, void **ret_result) {
    *ret_result = arg;
    return 0;
}

static int use_executor(void *arg) {
    tram_future *future;
    void *value = NULL;
    int status = tram_loop_run_in_executor(tram_loop_running(), NULL, job, arg, NULL, &future);
    assert_int_equal(status, 0);
    status = tram_await(future, &value);
    tram_future_release(future);
    return status ? status : *(int *)value;
}

static void test_A_36_a_task_awaits_the_executor_and_run_ends_it(void **state) {
    (void)state;
    int result = 5;
    assert_int_equal(tram_run(use_executor, &result, NULL), 5);
}

/* ---- SIGINT, in a child ---- */

static int interrupt_oneself(void *arg) {
    kill(getpid(), SIGINT);
    int status = tram_sleep(HOUR);
    if (arg) {
        kill(getpid(), SIGINT); /* the second one ends the process */
        tram_sleep(HOUR);
    }
    return status;
}

static int run_in_child(bool twice) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        int status = tram_run(interrupt_oneself, twice ? &twice : NULL, NULL);
        _exit(status == -EINTR ? 3 : 4);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void test_A_37_an_interrupt_cancels_main_and_a_second_one_ends_the_process(void **state) {
    (void)state;
    int status = run_in_child(false);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
    status = run_in_child(true);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
}

/* ---- The runtime's form ---- */

static tram_runtime *runtime;

static int runtime_main(void *arg) {
    assert_int_equal(tram_runtime_worker_count(runtime), 2);
    assert_ptr_equal(tram_loop_running(), tram_runtime_loop(runtime, 0));
    assert_int_equal(tram_task_spawn(NULL, sleep_in_background, NULL, NULL, NULL), 0);
    assert_int_equal(tram_sleep(MS), 0);
    return *(int *)arg;
}

static tram_runtime *runtime_new(void) {
    tram_runtime_options options = {.workers = 2};
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    return runtime;
}

static void test_A_38_a_runtime_runs_a_main_task_and_ends_with_it(void **state) {
    (void)state;
    int result = 9;
    text[0] = '\0';
    assert_int_equal(tram_runtime_run_task(runtime_new(), runtime_main, &result), 9);
    assert_string_equal(text, "background:cancelled");
    tram_runtime_free(runtime);
    result = -EPIPE;
    assert_int_equal(tram_runtime_run_task(runtime_new(), runtime_main, &result), -EPIPE);
    assert_int_equal(tram_runtime_run_task(runtime, NULL, NULL), TRAM_EVALUE);
    tram_runtime_free(runtime);
}

static int stop_runtime(void *arg) {
    (void)arg;
    tram_runtime_stop(runtime);
    int status = tram_sleep(HOUR);
    note("cleaned");
    return status;
}

static void test_A_38_what_the_main_task_of_a_runtime_failed_with_is_told(void **state) {
    (void)state;
    assert_int_equal(tram_runtime_run_task(runtime_new(), raise_text, "no header"), TRAM_EUSER);
    assert_string_equal(tram_run_error()->detail, "no header");
    tram_runtime_free(runtime);
    assert_int_equal(tram_runtime_run_task(runtime_new(), stop_runtime, NULL), TRAM_ECANCELLED);
    assert_null(tram_run_error());
    tram_runtime_free(runtime);
}

static void test_A_38_a_runtime_that_is_stopped_cancels_the_main_task(void **state) {
    (void)state;
    text[0] = '\0';
    assert_int_equal(tram_runtime_run_task(runtime_new(), stop_runtime, NULL), TRAM_ECANCELLED);
    assert_string_equal(text, "cleaned");
    tram_runtime_free(runtime);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_A_36_run_returns_what_main_returned_and_cancels_the_rest),
        cmocka_unit_test(test_A_36_what_main_failed_with_is_told),
        cmocka_unit_test(test_A_36_what_fails_while_it_is_cancelled_is_reported),
        cmocka_unit_test(test_A_36_run_within_a_loop_or_a_stopped_one_is_no_run),
        cmocka_unit_test(test_A_36_a_task_awaits_the_executor_and_run_ends_it),
        cmocka_unit_test(test_A_37_an_interrupt_cancels_main_and_a_second_one_ends_the_process),
        cmocka_unit_test(test_A_38_a_runtime_runs_a_main_task_and_ends_with_it),
        cmocka_unit_test(test_A_38_what_the_main_task_of_a_runtime_failed_with_is_told),
        cmocka_unit_test(test_A_38_a_runtime_that_is_stopped_cancels_the_main_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
