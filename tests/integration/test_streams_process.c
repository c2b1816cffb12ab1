/* Processes for tasks: their pipes as streams, and what waits for them. */
#include <signal.h>
#include <unistd.h>

#include "support/tasks.h"

static struct world *world;

static int setup(void **state) {
    int status = world_setup(state);
    world = tasks_world = *state;
    return status;
}

static int debug_setup(void **state) {
    int status = world_setup_debug(state);
    world = tasks_world = *state;
    return status;
}

static const tram_subprocess_options pipes; /* all three */

static tram_process *shell(const char *command) {
    tram_process *process;
    assert_int_equal(tram_create_subprocess_shell(command, &pipes, 0, &process), 0);
    return process;
}

static void assert_returncode(tram_process *process, int expected) {
    int returncode = 12345;
    assert_int_equal(tram_process_wait(process, &returncode), 0);
    assert_int_equal(returncode, expected);
}

#define assert_bytes(bytes, text)                                                                                      \
    do {                                                                                                               \
        assert_int_equal((bytes).size, strlen(text));                                                                  \
        assert_memory_equal((bytes).data, text, (bytes).size);                                                         \
    } while (0)

/* ---- Streams ---- */

static int converse(void *arg) {
    (void)arg;
    static const char *const argv[] = {"cat", NULL};
    tram_process *process;
    tram_bytes line;
    assert_int_equal(tram_create_subprocess_exec(argv, &pipes, 0, &process), 0);
    assert_true(tram_transport_get_pid(tram_process_transport(process)) > 0);
    tram_stream_writer *input = tram_process_stdin(process);
    tram_stream_reader *output = tram_process_stdout(process);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tram_stream_writer_write(input, "line\n", 5), 0);
        assert_int_equal(tram_stream_writer_drain(input), 0);
        assert_int_equal(tram_stream_reader_readline(output, &line), 0);
        assert_bytes(line, "line\n");
    }
    assert_int_equal(tram_stream_writer_close(input), 0);
    assert_int_equal(tram_stream_writer_wait_closed(input), 0);
    assert_int_equal(tram_stream_reader_readline(output, &line), 0);
    assert_bytes(line, "");
    assert_int_equal(tram_stream_reader_readall(tram_process_stderr(process), &line), 0);
    assert_bytes(line, "");
    assert_returncode(process, 0);
    assert_returncode(process, 0); /* every time */
    tram_process_free(process);
    return 0;
}

static void test_Z_21_pipes_are_streams(void **state) {
    (void)state;
    assert_int_equal(run_function(converse, NULL), 0);
    assert_int_equal(world->warnings, 0);
    tram_process_free(NULL);
}

static int inherit(void *arg) {
    (void)arg;
    static const char *const argv[] = {"sh", "-c", "exit 7", NULL};
    tram_process *process;
    tram_bytes output, error;
    assert_int_equal(tram_create_subprocess_exec(argv, NULL, 0, &process), 0);
    assert_null(tram_process_stdin(process));
    assert_null(tram_process_stdout(process));
    assert_null(tram_process_stderr(process));
    assert_int_equal(tram_process_communicate(process, "x", 1, NULL, NULL), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "input");
    assert_int_equal(tram_process_communicate(process, NULL, 0, &output, &error), 0);
    assert_bytes(output, "");
    assert_bytes(error, "");
    assert_returncode(process, 7);
    tram_process_free(process);
    return 0;
}

static void test_Z_21_without_options_everything_is_inherited(void **state) {
    (void)state;
    assert_int_equal(run_function(inherit, NULL), 0);
}

static int kill_and_wait(void *arg) {
    (void)arg;
    tram_process *process = shell("exec sleep 1000");
    assert_int_equal(tram_transport_terminate(tram_process_transport(process)), 0);
    assert_returncode(process, -SIGTERM);
    assert_int_equal(tram_transport_kill(tram_process_transport(process)), -ESRCH);
    tram_process_free(process);
    return 0;
}

static void test_Z_21_the_transport_signals(void **state) {
    (void)state;
    assert_int_equal(run_function(kill_and_wait, NULL), 0);
}

/* ---- communicate ---- */

#define MUCH 1000000

/* Much for each of the three pipes, and the error first. */
static int exchange_much(void *arg) {
    (void)arg;
    char *input = malloc(MUCH);
    memset(input, 'i', MUCH);
    tram_process *process = shell("head -c 1000000 /dev/zero >&2; cat; exit 5");
    tram_bytes output, error;
    assert_int_equal(tram_process_communicate(process, input, MUCH, &output, &error), 0);
    assert_int_equal(output.size, MUCH);
    assert_memory_equal(output.data, input, MUCH);
    assert_int_equal(error.size, MUCH);
    assert_int_equal(error.data[MUCH - 1], 0);
    assert_returncode(process, 5);
    tram_process_free(process);
    free(input);
    return 0;
}

static void test_Z_22_communicate_with_big_data(void **state) {
    (void)state;
    assert_int_equal(run_function(exchange_much, NULL), 0);
}

/* The readers were full, and so the pipes not read, before. */
static int communicate_late(void *arg) {
    (void)arg;
    static const char *const argv[] = {"sh", "-c", "head -c 1000000 /dev/zero; cat", NULL};
    tram_process *process;
    tram_bytes output;
    assert_int_equal(tram_create_subprocess_exec(argv, &pipes, 100, &process), 0);
    tram_transport *pipe = tram_transport_get_pipe_transport(tram_process_transport(process), 1);
    while (tram_transport_is_reading(pipe))
        assert_int_equal(tram_sleep(1000000), 0);
    assert_int_equal(tram_process_communicate(process, "x", 1, &output, NULL), 0);
    assert_int_equal(output.size, MUCH + 1);
    assert_int_equal(output.data[MUCH], 'x');
    tram_process_free(process);
    return 0;
}

static void test_Z_22_communicate_reads_on_what_was_paused(void **state) {
    (void)state;
    assert_int_equal(run_function(communicate_late, NULL), 0);
}

static int feed_nobody(void *arg) {
    (void)arg;
    char *input = calloc(1, MUCH);
    tram_process *process = shell("exec <&-; echo done");
    tram_bytes output;
    assert_int_equal(tram_process_communicate(process, input, MUCH, &output, NULL), 0);
    assert_bytes(output, "done\n");
    assert_int_equal(tram_process_communicate(process, input, MUCH, &output, NULL), 0); /* it is over */
    assert_bytes(output, "");
    assert_returncode(process, 0);
    tram_process_free(process);
    free(input);
    return 0;
}

static void test_Z_22_a_child_need_not_want_its_input(void **state) {
    (void)state;
    assert_int_equal(run_function(feed_nobody, NULL), 0);
    assert_int_equal(world->exceptions, 0);
}

static int communicate(void *arg) {
    int status = tram_process_communicate(arg, "abc", 3, NULL, NULL);
    trace(world, "%s", status_name(status));
    return status;
}

static int cancel_and_go_on(void *arg) {
    (void)arg;
    int gate[2];
    assert_int_equal(pipe(gate), 0);
    char command[64];
    snprintf(command, sizeof command, "cat; exec cat <&%d", gate[0]);
    tram_subprocess_options options = {.pass_fds = &gate[0], .pass_fd_count = 1};
    tram_process *process;
    tram_bytes output;
    assert_int_equal(tram_create_subprocess_shell(command, &options, 0, &process), 0);
    close(gate[0]);
    tram_task *task = spawn(communicate, process);
    for (int i = 0; i < 5; i++)
        assert_int_equal(tram_yield(), 0);
    tram_task_cancel(task);
    assert_int_equal(tram_task_join(task), TRAM_ECANCELLED);
    close(gate[1]); /* now it can end */
    assert_int_equal(tram_process_communicate(process, NULL, 0, &output, NULL), 0);
    assert_bytes(output, "abc");
    tram_process_free(process);
    return 0;
}

static void test_Z_22_a_communicate_that_is_cancelled_loses_nothing(void **state) {
    (void)state;
    assert_int_equal(run_function(cancel_and_go_on, NULL), 0);
    assert_trace(world, "TRAM_ECANCELLED");
}

/* ---- wait ---- */

static int leave_grandchild(void *arg) {
    (void)arg;
    tram_process *process = shell("sleep 1000 & echo $!; exit 3");
    tram_bytes line;
    assert_returncode(process, 3); /* although the grandchild has the pipes */
    assert_int_equal(tram_stream_reader_readline(tram_process_stdout(process), &line), 0);
    int grandchild = atoi(line.data);
    assert_true(grandchild > 1);
    assert_false(tram_stream_reader_at_eof(tram_process_stdout(process)));
    assert_int_equal(kill(grandchild, SIGKILL), 0);
    assert_int_equal(tram_stream_reader_readline(tram_process_stdout(process), &line), 0);
    assert_bytes(line, "");
    tram_process_free(process);
    return 0;
}

static void test_Z_22_wait_does_not_wait_for_pipes(void **state) {
    (void)state;
    assert_int_equal(run_function(leave_grandchild, NULL), 0);
}

static int wait_task(void *arg) {
    int status = tram_process_wait(arg, NULL);
    trace(world, "%s", status_name(status));
    return status;
}

static int cancel_one_of_three(void *arg) {
    (void)arg;
    tram_process *process = shell("read line");
    tram_task *tasks[3];
    for (int i = 0; i < 3; i++)
        tasks[i] = spawn(wait_task, process);
    assert_int_equal(tram_yield(), 0);
    tram_task_cancel(tasks[1]);
    assert_int_equal(tram_task_join(tasks[1]), TRAM_ECANCELLED);
    tram_stream_writer_close(tram_process_stdin(process));
    assert_int_equal(tram_task_join(tasks[0]), 0);
    assert_int_equal(tram_task_join(tasks[2]), 0);
    assert_returncode(process, 1);
    tram_process_free(process);
    return 0;
}

static void test_Z_22_any_number_of_tasks_may_wait(void **state) {
    (void)state;
    assert_int_equal(run_function(cancel_one_of_three, NULL), 0);
    assert_trace(world, "TRAM_ECANCELLED ok ok");
}

/* ---- What goes wrong, and the end ---- */

static int start_wrongly(void *arg) {
    static const char *const nothing[] = {NULL}, *const missing[] = {"/no/such/program", NULL};
    tram_process *process;
    tram_subprocess_options options = {.discard = free};
    assert_int_equal(tram_create_subprocess_exec(NULL, NULL, 0, &process), TRAM_EVALUE);
    assert_int_equal(tram_create_subprocess_exec(nothing, &pipes, 0, &process), TRAM_EVALUE);
    assert_int_equal(tram_create_subprocess_shell(NULL, NULL, 0, &process), TRAM_EVALUE);
    assert_int_equal(tram_create_subprocess_exec(missing, &options, 0, &process), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "discard");
    options = (tram_subprocess_options){.reserved[0] = 1};
    assert_int_equal(tram_create_subprocess_exec(missing, &options, 0, &process), TRAM_EVALUE);
    (void)arg;
    return tram_create_subprocess_exec(missing, &pipes, 0, &process);
}

static void test_Z_21_what_cannot_be_started(void **state) {
    (void)state;
    tram_task *task = spawn(start_wrongly, NULL);
    tram_task_hold(task);
    assert_int_equal(run_task(task), -ENOENT);
    assert_non_null(tram_future_error(tram_task_future(task))->detail); /* which */
    tram_task_release(task);
    static const char *const argv[] = {"true", NULL};
    tram_process *process;
    assert_int_equal(tram_create_subprocess_exec(argv, NULL, 0, &process), TRAM_ESTATE); /* no task */
}

static int pid_of_child;

static int start_only(void *arg) {
    tram_process **ret_process = arg;
    int status = tram_create_subprocess_shell("exec sleep 1000", &pipes, 0, ret_process);
    if (!status)
        pid_of_child = tram_transport_get_pid(tram_process_transport(*ret_process));
    return status;
}

static bool child_is_gone(void *arg) {
    (void)arg;
    return kill(pid_of_child, 0) < 0 && errno == ESRCH;
}

static void test_Z_21_a_process_that_is_freed_is_killed(void **state) {
    (void)state;
    tram_process *process = NULL;
    assert_int_equal(run_function(start_only, &process), 0);
    assert_int_equal(tram_process_wait(process, NULL), TRAM_ESTATE); /* no task */
    assert_int_equal(tram_process_communicate(process, NULL, 0, NULL, NULL), TRAM_ESTATE);
    tram_process_free(process);
    run_until_true(world, child_is_gone, NULL);
    assert_int_equal(world->warnings, 0); /* that is how it is done */
}

static void test_Z_21_a_start_that_is_cancelled_leaves_no_child(void **state) {
    (void)state;
    bool started = false;
    for (int ticks = 0; ticks < 20 && !started; ticks++) {
        tram_process *process = NULL;
        tram_task *task = spawn(start_only, &process);
        run_ticks(world, ticks);
        tram_task_cancel(task);
        int status = run_task(task);
        started = !status;
        if (started)
            tram_process_free(process);
        else
            assert_int_equal(status, TRAM_ECANCELLED);
    }
    assert_true(started);
}

static void test_Z_21_a_process_that_finds_no_memory(void **state) {
    (void)state;
    bool started = false;
    for (size_t allocations = 0; allocations < 60 && !started; allocations++) {
        world_reopen(world);
        tram_process *process = NULL;
        tram_task *task = spawn(start_only, &process);
        world->fail_after = allocations;
        run_ticks(world, 5);
        world->fail_after = SIZE_MAX;
        int status = run_task(task);
        started = !status;
        tram_process_free(process);
        assert_true(started || status == -ENOMEM || status == -ENOENT || status == -EAGAIN);
    }
    assert_true(started);
}

static int wait_for_ever(void *arg) {
    (void)arg;
    tram_process *process = shell("exec sleep 1000");
    trace(world, "waits");
    return tram_process_wait(process, NULL);
}

static int read_for_ever(void *arg) {
    (void)arg;
    tram_process *process = shell("exec sleep 1000");
    trace(world, "reads");
    return tram_process_communicate(process, NULL, 0, NULL, NULL);
}

static void test_Z_21_Z_23_the_loop_closes_with_processes(void **state) {
    (void)state;
    tram_task *tasks[] = {spawn(wait_for_ever, NULL), spawn(read_for_ever, NULL)};
    run_until_traced(world, "waits");
    run_until_traced(world, "reads");
    tram_process *kept = NULL;
    assert_int_equal(run_function(start_only, &kept), 0);
    unsigned before = world->exceptions;
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(world->exceptions - before, 2 + 3); /* tasks that were pending, children that were alive */
    assert_null(tram_process_transport(kept));
    int returncode;
    assert_int_equal(tram_process_wait(kept, &returncode), 0);
    assert_int_equal(returncode, -SIGKILL);
    tram_process_free(kept);
    tram_task_release(tasks[0]);
    tram_task_release(tasks[1]);
    /* Nobody frees what the tasks had: world_teardown() counts memory. */
}

#define TEST(name)       cmocka_unit_test_setup_teardown(name, setup, world_teardown)
#define DEBUG_TEST(name) cmocka_unit_test_setup_teardown(name, debug_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_Z_21_pipes_are_streams),
        TEST(test_Z_21_without_options_everything_is_inherited),
        TEST(test_Z_21_the_transport_signals),
        TEST(test_Z_22_communicate_with_big_data),
        TEST(test_Z_22_communicate_reads_on_what_was_paused),
        TEST(test_Z_22_a_child_need_not_want_its_input),
        TEST(test_Z_22_a_communicate_that_is_cancelled_loses_nothing),
        TEST(test_Z_22_wait_does_not_wait_for_pipes),
        TEST(test_Z_22_any_number_of_tasks_may_wait),
        TEST(test_Z_21_what_cannot_be_started),
        DEBUG_TEST(test_Z_21_a_process_that_is_freed_is_killed),
        TEST(test_Z_21_a_start_that_is_cancelled_leaves_no_child),
        TEST(test_Z_21_a_process_that_finds_no_memory),
        DEBUG_TEST(test_Z_21_Z_23_the_loop_closes_with_processes),
    };
    if (is_emulated())
        return skip_program("valgrind has no pidfd_open");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
