/* What a subprocess's protocol hears, and its transport does (docs/rules.md, group Z). */
#include "support/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/loop/loop.h"

static const tram_stdio no_pipe = {.kind = TRAM_STDIO_NULL, .fd = -5}; /* only TRAM_STDIO_FD looks at it */
static const tram_subprocess_options only_output = {.input = {.kind = TRAM_STDIO_NULL},
                                                    .error = {.kind = TRAM_STDIO_NULL}};
static const tram_subprocess_options no_pipes = {
    .input = {.kind = TRAM_STDIO_NULL}, .output = {.kind = TRAM_STDIO_NULL}, .error = {.kind = TRAM_STDIO_NULL}};

static const char *const cat[] = {"cat", NULL};

/* Where a word stands in the trace; it must stand there once. */
static const char *once(struct world *world, const char *word) {
    const char *found = strstr(world->trace, word);
    if (!found || strstr(found + 1, word))
        fail_msg("'%s' is not once in: %s", word, world->trace);
    return found;
}

static void assert_before(struct world *world, const char *first, const char *second) {
    if (once(world, first) >= once(world, second))
        fail_msg("'%s' is not before '%s' in: %s", first, second, world->trace);
}

static bool child_is_dead(void *arg) {
    return ((struct process *)arg)->exited;
}

static void wait_for_exit(struct process *process) {
    run_until_true(process->world, child_is_dead, process);
}

static void clear(struct world *world) {
    world->trace[0] = '\0';
}

/* Runs a command to its end; its output is in process->bytes. */
static struct process *run(struct world *world, const char *command, const tram_subprocess_options *options) {
    struct process *process = process_new(world);
    process_shell(process, command, options);
    process_wait(process);
    return process;
}

static tram_transport *input_of(struct process *process) {
    return tram_transport_get_pipe_transport(process->base.transport, 0);
}

/* ---- Z-3 to Z-11: the life of a child ---- */

/* rules: Z-1, Z-4, Z-7, Z-8, Z-10 */
static void test_a_filter_from_beginning_to_end(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_exec(process, cat, NULL);
    assert_trace(world, "");
    run_until_traced(world, "made");
    run_ticks(world, 2);
    assert_trace(world, "made creator:0");
    assert_int_equal(tram_transport_write(input_of(process), "hello", 5), 0);
    run_until_traced(world, "data");
    assert_trace(world, "data:1");
    assert_string_equal(process->bytes[1], "hello");
    assert_int_equal(tram_transport_write_eof(input_of(process)), 0);
    process_wait(process);
    for (int fd = 0; fd < 3; fd++) {
        char word[32];
        snprintf(word, sizeof word, "lost:%d:0", fd);
        assert_before(world, word, "lost:0 released");
    }
    assert_before(world, "exited:0", "lost:0 released");
    assert_true(no_children());
    process_free(process);
}

/* Who does not listen to pipes hears of the exit all the same. */
static void test_Z_7_a_protocol_without_a_callback_for_data(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    tram_protocol_ops ops = *process->base.ops;
    ops.pipe_data_received = NULL;
    process->base.ops = &ops;
    process_shell(process, "echo nobody hears this", NULL);
    process_wait(process);
    assert_int_equal(process->received[1], 0);
    assert_true(process->exited);
    assert_int_equal(process->returncode, 0);
    process_free(process);
    world->trace[0] = '\0';
}

static void test_Z_4_a_child_that_is_gone_at_once_is_made_first_and_the_creator_goes_on(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "echo out; echo err >&2; exit 3", NULL);
    siginfo_t info;
    assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0); /* all of it has happened by now */
    process_wait(process);
    assert_memory_equal(world->trace, "made creator:0 ", 15);
    assert_before(world, "data:1", "lost:1:0");
    assert_before(world, "data:2", "lost:2:0");
    assert_before(world, "exited:3", "lost:0 released");
    assert_string_equal(process->bytes[1], "out\n");
    assert_string_equal(process->bytes[2], "err\n");
    process_free(process);
}

static void test_Z_5_pid_and_returncode(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "echo $$; read line; exit 7", NULL);
    run_until_traced(world, "data:1");
    tram_transport *transport = tram_transport_hold(process->base.transport);
    int returncode = 1234;
    pid_t pid = tram_transport_get_pid(transport);
    assert_int_equal(pid, atoi(process->bytes[1]));
    assert_int_equal(tram_transport_get_returncode(transport, &returncode), TRAM_ESTATE);
    assert_int_equal(returncode, 1234);
    const tram_subprocess *view = tram_transport_get_extra_info(transport, "subprocess", NULL);
    assert_int_equal(view->pid, pid);
    assert_true(view->pidfd >= 0);
    assert_false(view->exited);
    assert_null(tram_transport_get_extra_info(transport, "pipe", NULL));
    tram_transport_write(input_of(process), "\n", 1);
    process_wait(process);
    assert_int_equal(tram_transport_get_returncode(transport, &returncode), 0);
    assert_int_equal(returncode, 7);
    assert_int_equal(tram_transport_get_pid(transport), pid);
    view = tram_transport_get_extra_info(transport, "subprocess", NULL);
    assert_true(view->exited && view->returncode == 7 && view->pidfd == -1);
    tram_transport_release(transport);
    process_free(process);

    process = run(world, "kill -9 $$", &no_pipes);
    assert_int_equal(process->returncode, -9);
    process_free(process);
}

static void test_Z_6_I_7_the_pipes_are_transports_of_their_direction(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    tram_subprocess_options options = {.error = no_pipe};
    process_exec(process, cat, &options);
    run_until_traced(world, "made");
    tram_transport *transport = tram_transport_hold(process->base.transport);
    tram_transport *input = tram_transport_get_pipe_transport(transport, 0);
    tram_transport *output = tram_transport_get_pipe_transport(transport, 1);
    assert_int_equal(tram_transport_pause_reading(input), -ENOTSUP);
    assert_int_equal(tram_transport_write(output, "x", 1), -ENOTSUP);
    assert_true(tram_transport_is_reading(output));
    assert_null(tram_transport_get_pipe_transport(transport, 2));
    assert_null(tram_transport_get_pipe_transport(transport, 3));
    assert_null(tram_transport_get_pipe_transport(transport, -1));
    assert_null(tram_transport_get_pipe_transport(output, 1));
    tram_transport_close(input);
    process_wait(process);
    /* Inert, as long as the subprocess is there. */
    assert_ptr_equal(tram_transport_get_pipe_transport(transport, 0), input);
    assert_int_equal(tram_transport_write(input, "x", 1), 0);
    assert_true(tram_transport_is_closing(output));
    tram_transport_release(transport);
    process_free(process);
}

static void test_Z_7_Z_1_error_joined_to_output_all_comes_on_1(void **state) {
    struct world *world = *state;
    tram_subprocess_options options = {.input = no_pipe, .error = {.kind = TRAM_STDIO_OUTPUT}};
    struct process *process = run(world, "echo one; echo two >&2; echo three", &options);
    assert_string_equal(process->bytes[1], "one\ntwo\nthree\n");
    assert_int_equal(process->received[2], 0);
    assert_false(process->lost_pipe[2]);
    process_free(process);
}

/* Paused, the pipe fills and the child waits; nothing is lost. */
static void test_Z_7_R_4_reading_of_a_pipe_can_be_paused(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "head -c 200000 /dev/zero", &only_output);
    run_until_traced(world, "made");
    tram_transport *output = tram_transport_get_pipe_transport(process->base.transport, 1);
    assert_int_equal(tram_transport_pause_reading(output), 0);
    run_ticks(world, 20);
    assert_int_equal(process->received[1], 0);
    assert_int_equal(tram_transport_resume_reading(output), 0);
    process_wait(process);
    assert_int_equal(process->received[1], 200000);
    process_free(process);
}

static void test_Z_8_Z_9_pipes_may_end_long_before_the_child(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "exec <&- >&- 2>&-; exec sleep 1000", NULL);
    run_until_traced(world, "lost:0:0");
    run_until_traced(world, "lost:1:0");
    run_until_traced(world, "lost:2:0");
    assert_false(process->exited);
    assert_false(process->lost);
    clear(world);
    assert_int_equal(tram_transport_kill(process->base.transport), 0);
    process_wait(process);
    assert_trace(world, "exited:-9 lost:0 released");
    process_free(process);
}

static void test_Z_9_Z_10_a_grandchild_that_holds_a_pipe_delays_the_end(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "sleep 1000 & echo $!", &only_output);
    wait_for_exit(process);
    run_until_traced(world, "data:1");
    run_ticks(world, 10);
    assert_false(process->lost);
    assert_false(process->lost_pipe[1]);
    assert_false(tram_transport_is_closing(process->base.transport));
    clear(world);
    assert_int_equal(kill(atoi(process->bytes[1]), SIGKILL), 0);
    process_wait(process);
    assert_trace(world, "lost:1:0 lost:0 released");
    process_free(process);
}

static void test_Z_11_nothing_is_told_inside_a_call(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "echo here; exec sleep 1000", NULL);
    run_until_traced(world, "data:1");
    clear(world);
    tram_transport *transport = process->base.transport;
    int pipes[3];
    for (int fd = 0; fd < 3; fd++)
        pipes[fd] =
            *(const int *)tram_transport_get_extra_info(tram_transport_get_pipe_transport(transport, fd), "pipe", NULL);
    assert_true(pipes[0] >= 0 && pipes[1] >= 0 && pipes[2] >= 0);
    siginfo_t info;
    assert_int_equal(tram_transport_terminate(transport), 0);
    assert_int_equal(waitid(P_PID, (id_t)tram_transport_get_pid(transport), &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(tram_transport_write(input_of(process), "x", 1), 0); /* EPIPE or not, depending on sleep */
    assert_int_equal(tram_transport_close(transport), 0);
    assert_int_equal(tram_transport_abort(transport), 0);
    assert_trace(world, "");
    process_wait(process);
    assert_before(world, "exited:-15", "lost:0 released");
    process_free(process);
}

/* ---- Z-12 to Z-14: closing, signals, input ---- */

static void test_Z_12_closing_kills_and_the_rest_follows(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_exec(process, (const char *const[]){"sleep", "1000", NULL}, NULL);
    run_until_traced(world, "made");
    run_ticks(world, 1);
    clear(world);
    tram_transport *transport = process->base.transport;
    assert_false(tram_transport_is_closing(transport));
    assert_int_equal(tram_transport_close(transport), 0);
    assert_true(tram_transport_is_closing(transport));
    assert_int_equal(tram_transport_close(transport), 0);
    assert_trace(world, "");
    process_wait(process);
    assert_int_equal(process->returncode, -9);
    assert_true(process->lost_pipe[0] && process->lost_pipe[1] && process->lost_pipe[2]);
    assert_before(world, "exited:-9", "lost:0 released");
    assert_before(world, "lost:2:0", "lost:0 released");
    assert_true(no_children());
    process_free(process);
}

static void test_Z_12_closing_closes_the_pipes_whoever_else_holds_them(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "sleep 1000 & echo $!; wait", NULL);
    run_until_traced(world, "data:1");
    tram_transport_close(process->base.transport);
    process_wait(process);
    assert_true(process->lost_pipe[1] && process->lost_pipe[2]);
    assert_int_equal(kill(atoi(process->bytes[1]), SIGKILL), 0); /* it lived all the while */
    process_free(process);
}

static int close_at(struct process *process, const char *event) {
    if (strcmp(event, process->arg) == 0)
        tram_transport_close(process->base.transport);
    return 0;
}

static void test_Z_12_closing_inside_any_callback(void **state) {
    struct world *world = *state;
    const char *events[] = {"made", "data", "pipe_lost", "exited", "lost"};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        struct process *process = process_new(world);
        process->on = close_at;
        process->arg = (void *)(uintptr_t)events[i];
        process_shell(process, "echo out; echo err >&2; exit 4", NULL);
        process_wait(process);
        assert_true(process->lost_pipe[0] && process->lost_pipe[1] && process->lost_pipe[2] && process->exited);
        assert_true(process->returncode == -9 || process->returncode == 4);
        clear(world);
        process_free(process);
    }
    assert_true(no_children());
}

static void test_Z_12_an_end_before_connection_made_still_makes_and_loses(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_exec(process, cat, &only_output);
    /* As a runtime that stops would do; the creator has no transport yet. */
    tram__loop_end_all(world->loop, IO_SHUTDOWN_CLOSE);
    process_wait(process);
    assert_memory_equal(world->trace, "made ", 5);
    once(world, "exited:");
    once(world, "lost:0 released");
    process_free(process);
}

static void test_Z_13_signals(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "trap 'echo usr1; exit 5' USR1; echo ready; while :; do sleep 0.01; done", &only_output);
    run_until_traced(world, "data:1");
    tram_transport *transport = tram_transport_hold(process->base.transport);
    tram_transport *output = tram_transport_get_pipe_transport(transport, 1);
    assert_int_equal(tram_transport_send_signal(transport, 0), 0);
    assert_int_equal(tram_transport_send_signal(transport, -1), TRAM_EVALUE);
    assert_int_equal(tram_transport_send_signal(transport, 1000), TRAM_EVALUE);
    assert_int_equal(tram_transport_send_signal(output, SIGTERM), -ENOTSUP);
    assert_int_equal(tram_transport_kill(output), -ENOTSUP);
    assert_int_equal(tram_transport_terminate(output), -ENOTSUP);
    assert_int_equal(tram_transport_get_pid(output), -ENOTSUP);
    int returncode;
    assert_int_equal(tram_transport_get_returncode(output, &returncode), -ENOTSUP);
    assert_int_equal(tram_transport_send_signal(transport, SIGUSR1), 0);
    wait_for_exit(process);
    assert_int_equal(process->returncode, 5);
    assert_int_equal(tram_transport_send_signal(transport, SIGUSR1), -ESRCH);
    process_wait(process);
    assert_string_equal(process->bytes[1], "ready\nusr1\n");
    assert_int_equal(tram_transport_kill(transport), -ESRCH);
    assert_int_equal(tram_transport_terminate(transport), -ESRCH);
    tram_transport_release(transport);
    process_free(process);
}

static void test_Z_13_terminate_and_kill(void **state) {
    struct world *world = *state;
    int (*calls[])(tram_transport *) = {tram_transport_terminate, tram_transport_kill};
    const int expected[] = {-SIGTERM, -SIGKILL};
    for (int i = 0; i < 2; i++) {
        struct process *process = process_new(world);
        process_exec(process, cat, NULL);
        run_until_traced(world, "made");
        assert_int_equal(calls[i](process->base.transport), 0);
        process_wait(process);
        assert_int_equal(process->returncode, expected[i]);
        clear(world);
        process_free(process);
    }
}

static void test_Z_13_calls_of_other_kinds_are_not_for_subprocesses(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_exec(process, cat, NULL);
    run_until_traced(world, "made");
    tram_transport *transport = process->base.transport;
    assert_int_equal(tram_transport_write(transport, "x", 1), -ENOTSUP);
    assert_int_equal(tram_transport_write_eof(transport), -ENOTSUP);
    assert_int_equal(tram_transport_pause_reading(transport), -ENOTSUP);
    assert_int_equal(tram_transport_set_write_buffer_limits(transport, 10, 1), -ENOTSUP);
    assert_false(tram_transport_is_reading(transport));
    assert_false(tram_transport_can_write_eof(transport));
    assert_int_equal(tram_transport_get_write_buffer_size(transport), 0);
    tram_transport_close(input_of(process));
    process_wait(process);
    assert_int_equal(process->returncode, 0);
    process_free(process);
}

static void test_Z_14_water_marks_of_the_input_reach_the_protocol(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    tram_subprocess_options options = {.output = no_pipe, .error = no_pipe};
    process_shell(process, "kill -STOP $$; exec cat", &options);
    run_until_traced(world, "made");
    run_ticks(world, 1);
    clear(world);
    static char bytes[400000];
    tram_transport *input = input_of(process);
    assert_int_equal(tram_transport_write(input, bytes, sizeof bytes), 0);
    assert_trace(world, "pause");
    assert_true(tram_transport_get_write_buffer_size(input) >= sizeof bytes - 65536);
    siginfo_t info; /* it sleeps first, so that its waking is the only reason for what follows */
    assert_int_equal(waitid(P_PID, (id_t)tram_transport_get_pid(process->base.transport), &info, WSTOPPED | WNOWAIT),
                     0);
    assert_int_equal(tram_transport_send_signal(process->base.transport, SIGCONT), 0);
    run_until_traced(world, "resume");
    assert_trace(world, "resume");
    tram_transport_write_eof(input);
    process_wait(process);
    assert_int_equal(process->returncode, 0);
    process_free(process);
}

static void test_Z_20_that_the_child_closed_its_input_is_seen_without_writing(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "exec <&-; exec sleep 1000",
                  &(tram_subprocess_options){.output = no_pipe, .error = no_pipe});
    run_until_traced(world, "lost:0:0");
    assert_false(process->exited);
    tram_transport_close(process->base.transport);
    process_wait(process);
    process_free(process);
}

static void test_Z_20_Z_8_EPIPE_does_no_harm(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "head -c 1 >/dev/null; exec <&-; echo still here; exit 6",
                  &(tram_subprocess_options){.error = no_pipe});
    run_until_traced(world, "made");
    static char bytes[400000];
    assert_int_equal(tram_transport_write(input_of(process), bytes, sizeof bytes), 0);
    process_wait(process);
    once(world, "lost:0:EPIPE");
    assert_string_equal(process->bytes[1], "still here\n");
    assert_int_equal(process->returncode, 6);
    assert_int_equal(world->exceptions, 0);
    process_free(process);
}

/* ---- Callbacks that fail, protocols that change ---- */

static int always_fail(struct process *process, const char *event) {
    return tram_loop_raise(process->world->loop, TRAM_EUSER, NULL, event);
}

static void test_P_14_P_16_failing_callbacks_are_reported_and_change_nothing(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process->on = always_fail;
    process_shell(process, "echo out", &only_output);
    process_wait(process);
    assert_string_equal(process->bytes[1], "out\n");
    assert_int_equal(process->returncode, 0);
    assert_int_equal(world->exceptions, 5); /* made, data, pipe lost, exited, lost */
    process_free(process);
}

static void test_T_12_a_pipe_with_another_protocol_leaves_the_subprocess(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_exec(process, cat, NULL);
    run_until_traced(world, "made");
    struct recorder *recorder = recorder_new(world, "own");
    tram_transport *output = tram_transport_get_pipe_transport(process->base.transport, 1);
    assert_int_equal(tram_transport_set_protocol(output, &recorder->base), 0);
    assert_int_equal(tram_transport_write(input_of(process), "hello", 5), 0);
    run_until_traced(world, "own.data:5");
    tram_transport_close(input_of(process));
    process_wait(process);
    run_until(world, &recorder->was_released);
    assert_false(process->lost_pipe[1]);
    assert_int_equal(process->received[1], 0);
    once(world, "own.eof own.lost:0");
    process_free(process);
}

static void test_T_12_Z_10_the_last_pipe_taken_away_is_the_end(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "sleep 1000 & echo $!", &only_output);
    wait_for_exit(process);
    run_until_traced(world, "data:1");
    clear(world);
    struct recorder *recorder = recorder_new(world, "own");
    tram_transport *output = tram_transport_get_pipe_transport(process->base.transport, 1);
    assert_int_equal(tram_transport_set_protocol(output, &recorder->base), 0);
    assert_trace(world, "");
    process_wait(process);
    assert_trace(world, "lost:0 released");
    assert_int_equal(kill(atoi(process->bytes[1]), SIGKILL), 0);
    run_until(world, &recorder->was_released);
    assert_trace(world, "own.eof own.lost:0 own.released");
    process_free(process);
}

static void test_T_12_another_protocol_hears_the_rest(void **state) {
    struct world *world = *state;
    struct process *first = process_new(world), *second = process_new(world);
    process_exec(first, cat, &only_output);
    run_until_traced(world, "made");
    assert_int_equal(tram_transport_set_protocol(first->base.transport, &second->base), 0);
    process_wait(second);
    assert_true(first->was_released);
    assert_false(first->exited || first->lost);
    assert_true(second->exited && second->lost && second->lost_pipe[1]);
    process_free(first);
    process_free(second);
}

/* ---- Z-15 to Z-17: reaping ---- */

static volatile sig_atomic_t sigchld_count;

static void count_sigchld(int number) {
    (void)number;
    sigchld_count++;
}

static void test_Z_15_only_own_children_are_reaped_and_SIGCHLD_is_the_applications(void **state) {
    struct world *world = *state;
    struct sigaction mine = {.sa_handler = count_sigchld}, before, after;
    assert_int_equal(sigaction(SIGCHLD, &mine, &before), 0);
    pid_t stranger = fork();
    if (stranger == 0)
        _exit(42);
    siginfo_t info;
    while (waitid(P_PID, (id_t)stranger, &info, WEXITED | WNOWAIT) < 0)
        assert_int_equal(errno, EINTR);
    sigchld_count = 0;
    struct process *process = run(world, "exit 1", &no_pipes);
    assert_int_equal(process->returncode, 1);
    assert_true(sigchld_count > 0);
    assert_int_equal(sigaction(SIGCHLD, &before, &after), 0);
    assert_ptr_equal(after.sa_handler, count_sigchld);
    int status;
    assert_int_equal(waitpid(stranger, &status, 0), stranger);
    assert_int_equal(WEXITSTATUS(status), 42);
    assert_true(no_children());
    process_free(process);
}

static void test_Z_16_a_child_that_somebody_else_reaped_has_255(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_shell(process, "exit 3", &no_pipes);
    int status;
    assert_true(waitpid(-1, &status, 0) > 0);
    assert_int_equal(WEXITSTATUS(status), 3);
    process_wait(process);
    assert_trace(world, "made creator:0 exited:255 lost:0 released");
    assert_int_equal(world->warnings, 1);
    assert_non_null(strstr(world->log, "reaped by somebody else"));
    process_free(process);
}

static void test_Z_16_a_child_of_a_program_that_ignores_SIGCHLD_has_255(void **state) {
    struct world *world = *state;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGCHLD, &ignore, &before);
    struct process *process = run(world, "echo out; exit 3", &only_output);
    sigaction(SIGCHLD, &before, NULL);
    assert_int_equal(process->returncode, 255);
    assert_string_equal(process->bytes[1], "out\n");
    assert_int_equal(world->warnings, 1);
    process_free(process);
}

/* ---- Z-19, Z-23: creations and loops that end ---- */

static void test_Z_19_a_cancelled_creation_kills_and_reaps(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    tram_future *future;
    const char *const argv[] = {"sleep", "1000", NULL};
    assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, argv, NULL, &future), 0);
    siginfo_t info;
    assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOHANG), 0); /* there is one, and it lives */
    assert_int_equal(info.si_pid, 0);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_int_equal(tram_future_cancel(future), 1);
    assert_false(tram_future_done(future));
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_ECANCELLED);
    assert_true(no_children());
    tram_future_release(future);
    run_until(world, &process->was_released);
    assert_trace(world, "released");
    process_free(process);
}

static int cancel_creation(struct process *process, const char *event) {
    if (strcmp(event, "made") == 0)
        assert_int_equal(tram_future_cancel(process->arg), 1);
    return 0;
}

/* As of a connection (C-11): made and lost come as a pair. */
static void test_Z_19_a_creation_that_is_cancelled_within_connection_made(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    tram_future *future;
    const char *const argv[] = {"sleep", "1000", NULL};
    process->on = cancel_creation;
    assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, argv, NULL, &future), 0);
    process->arg = future;
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_ECANCELLED);
    tram_future_release(future);
    run_until(world, &process->was_released);
    assert_true(process->lost && no_children());
    process_free(process);
}

/* A pipe may be made, and have bytes or its end to tell, before the process is: nobody is told. */
static void test_Z_19_pipes_of_a_cancelled_creation_tell_nobody(void **state) {
    struct world *world = *state;
    const char *const argv[] = {"sh", "-c", "echo out", NULL};
    unsigned cancelled = 0;
    for (int ticks = 0; ticks < 6; ticks++) {
        struct process *process = process_new(world);
        tram_future *future;
        assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, argv, NULL, &future), 0);
        siginfo_t info;
        assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0); /* it has written, and its pipes have ended */
        run_ticks(world, ticks);
        bool pending = tram_future_cancel(future) == 1;
        cancelled += pending;
        if (pending) {
            assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_ECANCELLED);
            run_until(world, &process->was_released);
            assert_trace(world, "released");
        } else {
            if (!process->was_released && input_of(process))
                tram_transport_close(input_of(process));
            run_until(world, &process->was_released);
            world->trace[0] = '\0';
        }
        tram_future_release(future);
        process_free(process);
    }
    assert_in_range(cancelled, 1, 6);
}

static void test_Z_19_a_creation_that_is_done_cannot_be_cancelled(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    tram_future *future;
    assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, cat, NULL, &future), 0);
    run_until_traced(world, "made");
    assert_int_equal(tram_future_cancel(future), 0);
    tram_future_release(future);
    tram_transport_close(input_of(process));
    process_wait(process);
    assert_int_equal(process->returncode, 0);
    process_free(process);
}

static void test_Z_23_a_loop_that_closes_ends_its_children_and_debug_mode_reports_them(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_set_debug(world->loop, true), 0);
    struct process *process = process_new(world), *dead = process_new(world), *newest = process_new(world);
    process_exec(process, (const char *const[]){"sleep", "1000", NULL}, NULL);
    process_shell(dead, "sleep 1000 & echo $!", &only_output);
    wait_for_exit(dead);
    run_until_traced(world, "data:1");
    process_exec(newest, cat, &no_pipes);
    clear(world);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_true(no_children());
    assert_int_equal(world->exceptions, 2); /* not for the one that is dead though its pipe is open */
    assert_string_equal(world->exception, "a loop was closed while its child process was alive");
    assert_true(process->lost && process->exited && process->lost_pipe[0] && process->lost_pipe[1]);
    assert_int_equal(process->returncode, -9);
    assert_true(dead->lost && dead->lost_pipe[1] && dead->returncode == 0);
    assert_false(newest->lost || newest->exited); /* connection_made had not been called */
    assert_int_equal(kill(atoi(dead->bytes[1]), SIGKILL), 0);
    process_free(process);
    process_free(dead);
    process_free(newest);
}

static void test_Z_23_without_debug_mode_nothing_is_reported(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_exec(process, cat, NULL);
    run_until_traced(world, "made");
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_true(no_children());
    assert_int_equal(world->exceptions, 0);
    process_free(process);
}

static struct sys immortal;
static bool may_signal;
static int waited_ms;

static int no_signal(int pidfd, int number, siginfo_t *info, unsigned flags) {
    (void)pidfd, (void)number, (void)info, (void)flags;
    errno = EPERM;
    return may_signal ? 0 : -1; /* it hears it, and does not die: as in an uninterruptible wait */
}

static int no_death(struct pollfd *fds, nfds_t count, int timeout_ms) {
    (void)fds, (void)count;
    waited_ms = timeout_ms;
    return 0;
}

static int nobody_exited(idtype_t type, id_t id, siginfo_t *ret_info, int options) {
    (void)type, (void)id, (void)ret_info, (void)options;
    return 0;
}

static int not_ours(idtype_t type, id_t id, siginfo_t *ret_info, int options) {
    (void)type, (void)id, (void)ret_info, (void)options;
    errno = ECHILD;
    return -1;
}

/* The loop waits a second for it, then lets go of it. */
static void test_Z_23_a_child_that_neither_dies_nor_can_be_reaped(void **state) {
    struct world *world = *state;
    immortal = tram__sys;
    immortal.pidfd_send_signal = no_signal;
    immortal.poll = no_death;
    for (int variant = 0; variant < 4; variant++) {
        may_signal = variant & 1;
        immortal.waitid = variant & 2 ? not_ours : nobody_exited;
        waited_ms = 0;
        world_use_sys(world, &immortal);
        int before = open_descriptors();
        struct process *process = process_new(world);
        process_exec(process, cat, &no_pipes);
        run_until_traced(world, "made");
        tram_transport *transport =
            tram_transport_hold(process->transport ? process->transport : process->base.transport);
        const tram_subprocess *view = tram_transport_get_extra_info(transport, "subprocess", NULL);
        pid_t pid = view->pid;
        tram_transport_release(transport);
        clear(world);
        assert_int_equal(tram_loop_close(world->loop), 0);
        assert_int_equal(waited_ms, may_signal ? 1000 : 0);
        assert_true(process->exited && process->lost && process->was_released);
        assert_int_equal(process->returncode, 255); /* nobody knows it */
        const char *why = variant & 2  ? "was reaped by somebody else: its exit status is unknown"
                          : may_signal ? "was killed and did not die in time: its exit status is unknown"
                                       : "could not be killed and is left to itself: its exit status is unknown";
        assert_non_null(strstr(world->log, why));
        assert_true((variant & 2) || !strstr(world->log, "reaped"));
        assert_in_range(open_descriptors(), 0, before);
        process_free(process);
        /* It lived on, and is not ours any more. */
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
    }
}

/* A cancelled creation whose child the loop's end finds still dying. */
static void test_Z_23_Z_19_a_loop_that_closes_amid_a_cancel(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    tram_future *future;
    assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, cat, NULL, &future), 0);
    tram_future_cancel(future);
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_true(tram_future_cancelled(future));
    assert_true(no_children());
    tram_future_release(future);
    assert_trace(world, "released");
    process_free(process);
}

/* ---- E-5 ---- */

/* What examples/asyncio/subprocess-date.c does. */
static void test_E_5_Z_9_the_output_of_date_is_collected(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_exec(process, (const char *const[]){"date", NULL}, &only_output);
    while (!process->exited || !process->lost_pipe[1])
        run_ticks(world, 1);
    assert_int_equal(process->returncode, 0);
    assert_true(process->received[1] > 10);
    assert_int_equal(process->bytes[1][process->received[1] - 1], '\n');
    process_wait(process);
    process_free(process);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_filter_from_beginning_to_end),
        TEST(test_Z_7_a_protocol_without_a_callback_for_data),
        TEST(test_Z_4_a_child_that_is_gone_at_once_is_made_first_and_the_creator_goes_on),
        TEST(test_Z_5_pid_and_returncode),
        TEST(test_Z_6_I_7_the_pipes_are_transports_of_their_direction),
        TEST(test_Z_7_Z_1_error_joined_to_output_all_comes_on_1),
        TEST(test_Z_7_R_4_reading_of_a_pipe_can_be_paused),
        TEST(test_Z_8_Z_9_pipes_may_end_long_before_the_child),
        TEST(test_Z_9_Z_10_a_grandchild_that_holds_a_pipe_delays_the_end),
        TEST(test_Z_11_nothing_is_told_inside_a_call),
        TEST(test_Z_12_closing_kills_and_the_rest_follows),
        TEST(test_Z_12_closing_closes_the_pipes_whoever_else_holds_them),
        TEST(test_Z_12_closing_inside_any_callback),
        TEST(test_Z_12_an_end_before_connection_made_still_makes_and_loses),
        TEST(test_Z_13_signals),
        TEST(test_Z_13_terminate_and_kill),
        TEST(test_Z_13_calls_of_other_kinds_are_not_for_subprocesses),
        TEST(test_Z_14_water_marks_of_the_input_reach_the_protocol),
        TEST(test_Z_20_that_the_child_closed_its_input_is_seen_without_writing),
        TEST(test_Z_20_Z_8_EPIPE_does_no_harm),
        TEST(test_P_14_P_16_failing_callbacks_are_reported_and_change_nothing),
        TEST(test_T_12_a_pipe_with_another_protocol_leaves_the_subprocess),
        TEST(test_T_12_Z_10_the_last_pipe_taken_away_is_the_end),
        TEST(test_T_12_another_protocol_hears_the_rest),
        TEST(test_Z_15_only_own_children_are_reaped_and_SIGCHLD_is_the_applications),
        TEST(test_Z_16_a_child_that_somebody_else_reaped_has_255),
        TEST(test_Z_16_a_child_of_a_program_that_ignores_SIGCHLD_has_255),
        TEST(test_Z_19_a_cancelled_creation_kills_and_reaps),
        TEST(test_Z_19_a_creation_that_is_cancelled_within_connection_made),
        TEST(test_Z_19_pipes_of_a_cancelled_creation_tell_nobody),
        TEST(test_Z_19_a_creation_that_is_done_cannot_be_cancelled),
        TEST(test_Z_23_a_loop_that_closes_ends_its_children_and_debug_mode_reports_them),
        TEST(test_Z_23_without_debug_mode_nothing_is_reported),
        TEST(test_Z_23_a_child_that_neither_dies_nor_can_be_reaped),
        TEST(test_Z_23_Z_19_a_loop_that_closes_amid_a_cancel),
        TEST(test_E_5_Z_9_the_output_of_date_is_collected),
    };
    if (is_emulated())
        return skip_program("valgrind has no pidfd_open");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
