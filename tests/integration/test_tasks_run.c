/* tram_run and its form for a runtime. Some of it in a child process, for the sake of SIGINT. */
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
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

/* ---- Whatever has a future, and what has none ---- */

/* Of a call with a ret_future: its end, and a count that it may have. */
static size_t finish(int status, tram_future *future) {
    uint64_t count = 0;
    assert_int_equal(status, 0);
    assert_int_equal(tram_await(future, NULL), 0);
    (void)tram_future_count(future, &count);
    tram_future_release(future);
    return (size_t)count;
}

static int accept_and_answer(void *arg) {
    tram_loop *loop = tram_loop_running();
    tram_future *future;
    char bytes[8];
    assert_int_equal(tram_loop_sock_accept(loop, *(int *)arg, &future), 0);
    assert_int_equal(tram_await(future, NULL), 0);
    int fd = tram_future_fd(future);
    tram_future_release(future);
    int status = tram_loop_sock_recv_into(loop, fd, bytes, sizeof bytes, &future);
    size_t size = finish(status, future);
    status = tram_loop_sock_sendall(loop, fd, bytes, size, &future);
    finish(status, future);
    return close(fd);
}

static int ask_by_socket(void *arg) {
    tram_loop *loop = tram_loop_running();
    uint16_t port;
    int listener = tcp_listener(1, &port), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    char number[8], bytes[8];
    tram_future *future;
    tram_task *server;
    (void)arg;
    assert_true(fd >= 0);
    assert_int_equal(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(tram_task_spawn(NULL, accept_and_answer, &listener, NULL, &server), 0);
    snprintf(number, sizeof number, "%u", port);
    int status = tram_loop_sock_connect(loop, fd, "127.0.0.1", number, &future);
    finish(status, future);
    status = tram_loop_sock_sendall(loop, fd, "abc", 3, &future);
    finish(status, future);
    status = tram_loop_sock_recv_into(loop, fd, bytes, sizeof bytes, &future);
    assert_int_equal(finish(status, future), 3);
    assert_memory_equal(bytes, "abc", 3);
    assert_int_equal(tram_task_join(server), 0);
    close(fd);
    return close(listener);
}

static void test_A_3_a_task_awaits_what_sockets_do(void **state) {
    (void)state;
    assert_int_equal(tram_run(ask_by_socket, NULL, NULL), 0);
}

static int set_event(tram_loop *loop, void *event) {
    (void)loop;
    tram_event_set(event);
    return 0;
}

static int await_signal(void *arg) {
    tram_event event = {0};
    (void)arg;
    assert_int_equal(tram_loop_add_signal_handler(tram_loop_running(), SIGUSR1, set_event, &event), 0);
    kill(getpid(), SIGUSR1);
    assert_int_equal(tram_event_wait(&event), 0);
    return tram_loop_remove_signal_handler(tram_loop_running(), SIGUSR1);
}

static void test_A_30_a_task_waits_for_a_signal_by_an_event(void **state) {
    (void)state;
    assert_int_equal(tram_run(await_signal, NULL, NULL), 1); /* there was one */
}

/* A pair whose ends are streams. */
static void pair_of_streams(tram_stream_writer *ret_writers[2]) {
    tram_protocol *protocols[2];
    tram_stream_reader *reader;
    tram_loop *loop = tram_loop_running();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tram_stream_new(loop, 0, &protocols[i], &reader, &ret_writers[i]), 0);
        assert_ptr_equal(tram_stream_writer_reader(ret_writers[i]), reader);
    }
    assert_int_equal(tram_loop_create_pair(loop, protocols[0], protocols[1], NULL, NULL), 0);
}

static int await_bridge(void *arg) {
    tram_stream_writer *left[2], *right[2];
    tram_future *future;
    char bytes[5];
    (void)arg;
    pair_of_streams(left);
    pair_of_streams(right);
    assert_int_equal(tram_yield(), 0);
    assert_int_equal(tram_yield(), 0); /* their connections are made */
    tram_transport *between[] = {tram_stream_writer_transport(left[1]), tram_stream_writer_transport(right[0])};
    assert_int_equal(tram_bridge(between[0], between[1], NULL, &future), 0);
    tram_stream_writer_write(left[0], "there", 5);
    assert_int_equal(tram_stream_reader_readexactly(tram_stream_writer_reader(right[1]), bytes, 5, NULL), 0);
    assert_memory_equal(bytes, "there", 5);
    tram_stream_writer_close(left[0]);
    tram_stream_writer_close(right[1]);
    void *value = NULL;
    assert_int_equal(tram_await(future, &value), 0);
    const tram_bridge_result *result = value;
    assert_int_equal(result->outcome, TRAM_BRIDGE_EOF);
    assert_int_equal(result->bytes[0], 5);
    tram_future_release(future);
    for (int i = 0; i < 2; i++) {
        tram_stream_writer_release(left[i]);
        tram_stream_writer_release(right[i]);
    }
    return 0;
}

static void test_A_3_a_task_awaits_a_bridge(void **state) {
    (void)state;
    assert_int_equal(tram_run(await_bridge, NULL, NULL), 0);
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

/* It comes when `main` has ended: nobody is there whom it could cancel. */
static int interrupt_at_the_end(void *arg) {
    (void)arg;
    int status = tram_sleep(HOUR);
    kill(getpid(), SIGINT);
    for (int i = 0; i < 10; i++)
        tram_sleep(MS);
    return status;
}

static int end_before_others(void *arg) {
    return tram_task_spawn(NULL, interrupt_at_the_end, arg, NULL, NULL);
}

static void test_A_37_A_38_an_interrupt_behind_main_takes_the_default_action(void **state) {
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        const tram_runtime_options options = {.workers = 1};
        if (tram_runtime_new(&options, &runtime))
            _exit(3);
        tram_runtime_run_task(runtime, end_before_others, NULL);
        _exit(4);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
}

/* Who is cancelled leaves another behind, which is cancelled before it begins. */
static int sleep_in_turn(void *arg) {
    int status = tram_sleep(HOUR);
    note(tram_error_name(status));
    return tram_task_spawn(NULL, sleep_in_turn, arg, NULL, NULL);
}

static int leave_others_behind(void *arg) {
    return tram_task_spawn(NULL, sleep_in_turn, arg, NULL, NULL);
}

static void test_A_38_what_begins_while_a_runtime_ends_is_cancelled_too(void **state) {
    (void)state;
    text[0] = '\0';
    assert_int_equal(tram_runtime_run_task(runtime_new(), leave_others_behind, NULL), 0);
    assert_string_equal(text, "TRAM_ECANCELLED");
    tram_runtime_free(runtime);
}

static int stop_the_loop(void *arg) {
    assert_int_equal(tram_loop_stop(tram_loop_running()), 0);
    return tram_sleep(*(uint64_t *)arg);
}

static void no_log(void *arg, tram_log_level level, const char *line) {
    (void)arg, (void)level, (void)line;
}

static void test_A_38_a_main_task_whose_loop_was_stopped_is_cancelled(void **state) {
    (void)state;
    const tram_runtime_options options = {.workers = 1, .loop = {.log = no_log}};
    uint64_t forever = HOUR;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_run_task(runtime, stop_the_loop, &forever), TRAM_ECANCELLED);
    assert_null(tram_run_error());
    tram_runtime_free(runtime);
}

/* ---- Without memory ---- */

static int main_that_copes(void *arg) {
    tram_future *future = NULL;
    void *value;
    int status = tram_task_spawn(NULL, sleep_in_background, NULL, NULL, NULL);
    if (!status)
        status = tram_loop_run_in_executor(tram_loop_running(), NULL, job, arg, NULL, &future);
    if (!status)
        status = tram_await(future, &value);
    tram_future_release(future);
    return status ? status : *(int *)value;
}

static int run_alone(tram_faults *faults) {
    int result = 7;
    const tram_loop_options options = {.faults = faults};
    return tram_run(main_that_copes, &result, &options);
}

static int run_on_a_worker(tram_faults *faults) {
    int result = 7;
    const tram_runtime_options options = {.workers = 1, .loop = {.faults = faults}};
    int status = tram_runtime_new(&options, &runtime);
    if (status)
        return status;
    status = tram_runtime_run_task(runtime, main_that_copes, &result);
    tram_runtime_free(runtime);
    return status;
}

/* Each allocation fails once: whoever runs hears of it, or did not need it, and nothing is left behind. */
static uint64_t run_without_memory(int (*run)(tram_faults *faults), void (*on_interrupt)(int)) {
    tram_faults *faults;
    int descriptors = open_descriptors();
    uint64_t failures = 0, injected = 1;
    void (*handler)(int) = signal(SIGINT, on_interrupt);
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    for (uint64_t nth = 1; injected; nth++) {
        size_t blocks;
        text[0] = '\0';
        tram_faults_reset(faults);
        assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_ALLOCATE, nth, 1, ENOMEM), 0);
        int status = run(faults);
        injected = tram_faults_injected(faults);
        assert_true(status == 7 || (status == -ENOMEM && injected));
        failures += status != 7;
        tram_faults_memory(faults, &blocks, NULL);
        assert_int_equal(blocks, 0);
        assert_int_equal(open_descriptors(), descriptors);
    }
    assert_in_range(failures, 8, 100);
    tram_faults_free(faults);
    signal(SIGINT, handler);
    return failures;
}

static void test_A_36_X_1_without_memory_there_is_no_run(void **state) {
    (void)state;
    uint64_t failures = run_without_memory(run_alone, SIG_DFL);
    assert_true(failures > run_without_memory(run_alone, SIG_IGN)); /* which it does not handle then */
}

static void test_A_38_X_1_without_memory_a_runtime_runs_no_main_task(void **state) {
    (void)state;
    run_without_memory(run_on_a_worker, SIG_DFL);
    run_without_memory(run_on_a_worker, SIG_IGN);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_A_36_run_returns_what_main_returned_and_cancels_the_rest),
        cmocka_unit_test(test_A_36_what_main_failed_with_is_told),
        cmocka_unit_test(test_A_36_what_fails_while_it_is_cancelled_is_reported),
        cmocka_unit_test(test_A_36_run_within_a_loop_or_a_stopped_one_is_no_run),
        cmocka_unit_test(test_A_36_a_task_awaits_the_executor_and_run_ends_it),
        cmocka_unit_test(test_A_3_a_task_awaits_what_sockets_do),
        cmocka_unit_test(test_A_30_a_task_waits_for_a_signal_by_an_event),
        cmocka_unit_test(test_A_3_a_task_awaits_a_bridge),
        cmocka_unit_test(test_A_37_an_interrupt_cancels_main_and_a_second_one_ends_the_process),
        cmocka_unit_test(test_A_38_a_runtime_runs_a_main_task_and_ends_with_it),
        cmocka_unit_test(test_A_38_what_the_main_task_of_a_runtime_failed_with_is_told),
        cmocka_unit_test(test_A_38_a_runtime_that_is_stopped_cancels_the_main_task),
        cmocka_unit_test(test_A_38_what_begins_while_a_runtime_ends_is_cancelled_too),
        cmocka_unit_test(test_A_37_A_38_an_interrupt_behind_main_takes_the_default_action),
        cmocka_unit_test(test_A_38_a_main_task_whose_loop_was_stopped_is_cancelled),
        cmocka_unit_test(test_A_36_X_1_without_memory_there_is_no_run),
        cmocka_unit_test(test_A_38_X_1_without_memory_a_runtime_runs_no_main_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
