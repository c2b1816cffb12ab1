/* How children are started: what they find, and what goes wrong (docs/rules.md, Z-1 to Z-3 and Z-18). */
#include "support/process.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/loop/loop.h"

#define NO_PIPE                                                                                                        \
    { .kind = TRAM_STDIO_NULL, .fd = -5 } /* only TRAM_STDIO_FD looks at it */

/* Runs a command to its end; its output is in process->bytes. */
static struct process *run(struct world *world, const char *command, const tram_subprocess_options *options) {
    struct process *process = process_new(world);
    process_shell(process, command, options);
    process_wait(process);
    world->trace[0] = '\0';
    return process;
}

static void assert_output(struct world *world, const char *command, const tram_subprocess_options *options,
                          const char *expected) {
    struct process *process = run(world, command, options);
    assert_string_equal(process->bytes[1], expected);
    assert_int_equal(process->returncode, 0);
    process_free(process);
}

/* Puts `fd` in the place of `number` in this process; returns what was there, for the same call. */
static int put_in_place(int number, int fd) {
    int before = fcntl(number, F_DUPFD_CLOEXEC, 10);
    if (fd >= 0)
        assert_int_equal(dup2(fd, number), number);
    else if (before >= 0)
        close(number);
    return before;
}

static void put_back(int number, int before) {
    if (before >= 0) {
        dup2(before, number);
        close(before);
    }
}

static void assert_holds(int fd, const char *expected) {
    char text[256] = "";
    ssize_t size = read(fd, text, sizeof text - 1);
    assert_true(size >= 0);
    assert_string_equal(text, expected);
}

/* ---- Z-1 ---- */

static void test_Z_1_null_device_and_descriptors(void **state) {
    struct world *world = *state;
    tram_subprocess_options options = {.input = NO_PIPE, .error = NO_PIPE};
    assert_output(world, "wc -c", &options, "0\n");
    int input[2], output[2];
    assert_int_equal(pipe2(input, O_CLOEXEC), 0);
    assert_int_equal(pipe2(output, O_CLOEXEC), 0);
    assert_int_equal(write(input[1], "abc", 3), 3);
    close(input[1]);
    options = (tram_subprocess_options){
        .input = {.kind = TRAM_STDIO_FD, .fd = input[0]},
        .output = {.kind = TRAM_STDIO_FD, .fd = output[1]},
        .error = {.kind = TRAM_STDIO_OUTPUT},
    };
    struct process *process = run(world, "cat; echo err >&2", &options);
    assert_holds(output[0], "abcerr\n");
    assert_false(process->lost_pipe[0] || process->lost_pipe[1] || process->lost_pipe[2]);
    process_free(process);
    close(input[0]);
    close(output[0]);
    close(output[1]);
}

static void test_Z_1_inherited_and_error_joined_to_it(void **state) {
    struct world *world = *state;
    int output[2];
    assert_int_equal(pipe2(output, O_CLOEXEC), 0);
    tram_subprocess_options options = {.input = {.kind = TRAM_STDIO_INHERIT, .fd = -5},
                                       .output = {.kind = TRAM_STDIO_INHERIT, .fd = -5},
                                       .error = {.kind = TRAM_STDIO_OUTPUT}};
    fflush(NULL);
    int before = put_in_place(1, output[1]);
    struct process *process = run(world, "echo out; echo err >&2", &options);
    put_back(1, before);
    assert_int_equal(process->returncode, 0);
    assert_holds(output[0], "out\nerr\n");
    process_free(process);
    close(output[0]);
    close(output[1]);
}

/* The child's output is what we have as 2, and its error what we have as 1. */
static void test_Z_1_descriptors_that_change_places(void **state) {
    struct world *world = *state;
    int one[2], two[2];
    assert_int_equal(pipe2(one, O_CLOEXEC), 0);
    assert_int_equal(pipe2(two, O_CLOEXEC), 0);
    tram_subprocess_options options = {
        .input = NO_PIPE, .output = {.kind = TRAM_STDIO_FD, .fd = 2}, .error = {.kind = TRAM_STDIO_FD, .fd = 1}};
    fflush(NULL);
    int before_1 = put_in_place(1, one[1]), before_2 = put_in_place(2, two[1]);
    struct process *process = run(world, "echo out; echo err >&2", &options);
    put_back(1, before_1);
    put_back(2, before_2);
    assert_holds(two[0], "out\n");
    assert_holds(one[0], "err\n");
    process_free(process);
    for (int i = 0; i < 2; i++) {
        close(one[i]);
        close(two[i]);
    }
}

/* A daemon has closed 0, 1 and 2: pipes get these numbers. */
static void test_Z_1_in_a_process_without_standard_descriptors(void **state) {
    struct world *world = *state;
    fflush(NULL);
    int before[3];
    for (int i = 0; i < 3; i++)
        before[i] = put_in_place(i, -1);
    struct process *process = process_new(world);
    process_exec(process, (const char *const[]){"cat", NULL}, NULL);
    run_until_traced(world, "made");
    tram_transport *input = tram_transport_get_pipe_transport(process->base.transport, 0);
    tram_transport_write(input, "hello", 5);
    tram_transport_close(input);
    process_wait(process);
    for (int i = 0; i < 3; i++)
        put_back(i, before[i]);
    assert_string_equal(process->bytes[1], "hello");
    assert_int_equal(process->received[2], 0);
    assert_int_equal(process->returncode, 0);
    process_free(process);
}

static void test_Z_1_big_data_through_a_filter(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    process_exec(process, (const char *const[]){"cat", NULL}, NULL);
    run_until_traced(world, "made");
    size_t size = 3 << 20;
    char *bytes = calloc(1, size);
    tram_transport *input = tram_transport_get_pipe_transport(process->base.transport, 0);
    assert_int_equal(tram_transport_write(input, bytes, size), 0);
    assert_int_equal(tram_transport_write_eof(input), 0);
    free(bytes);
    process_wait(process);
    assert_int_equal(process->received[1], size);
    assert_int_equal(process->returncode, 0);
    process_free(process);
}

/* ---- Z-2 ---- */

static void test_Z_2_options_without_sense(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    const char *const argv[] = {"cat", NULL}, *const empty[] = {NULL};
    int minus_one = -1;
    const tram_subprocess_options bad[] = {
        {.reserved = {[6] = 1}}, /* where asyncio would find universal_newlines, bufsize … */
        {.input = {.kind = TRAM_STDIO_OUTPUT}},
        {.output = {.kind = TRAM_STDIO_OUTPUT}},
        {.error = {.kind = (tram_stdio_kind)99}},
        {.input = {.kind = (tram_stdio_kind)-1}},
        {.input = {.kind = TRAM_STDIO_FD, .fd = -1}},
        {.pass_fd_count = 1},
        {.pass_fds = &minus_one, .pass_fd_count = 1},
    };
    tram_future *future = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, argv, &bad[i], &future),
                         TRAM_EVALUE);
        assert_int_equal(tram_loop_subprocess_shell(world->loop, process_factory, process, "true", &bad[i], &future),
                         TRAM_EVALUE);
    }
    assert_int_equal(tram_loop_subprocess_exec(world->loop, NULL, NULL, argv, NULL, &future), TRAM_EVALUE);
    assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, NULL, NULL, &future),
                     TRAM_EVALUE);
    assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, empty, NULL, &future),
                     TRAM_EVALUE);
    assert_int_equal(tram_loop_subprocess_shell(world->loop, process_factory, process, NULL, NULL, &future),
                     TRAM_EVALUE);
    assert_null(future);
    run_ticks(world, 1);
    assert_trace(world, "");
    assert_true(no_children());
    assert_int_equal(tram_loop_close(world->loop), 0);
    assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, argv, NULL, &future),
                     TRAM_ESTATE);
    free(process);
}

static void test_Z_2_directory_and_environment(void **state) {
    struct world *world = *state;
    const char *const env[] = {"A=1", "B=two words", NULL};
    tram_subprocess_options options = {.cwd = "/usr", .env = env};
    assert_output(world, "pwd; echo \"$A-$B-$HOME\"", &options, "/usr\n1-two words-\n");
    setenv("TRAM_TEST_VARIABLE", "ours", 1);
    assert_output(world, "echo $TRAM_TEST_VARIABLE", NULL, "ours\n");
    unsetenv("TRAM_TEST_VARIABLE");
}

/* Where 0 is free the directory gets it while the child is started, and no longer. */
static void test_Z_2_a_directory_that_is_descriptor_0(void **state) {
    struct world *world = *state;
    int before = put_in_place(0, -1);
    tram_subprocess_options options = {
        .cwd = "/usr", .input = NO_PIPE, .output = {.kind = TRAM_STDIO_NULL}, .error = {.kind = TRAM_STDIO_NULL}};
    struct process *process = run(world, "true", &options);
    assert_int_equal(process->returncode, 0);
    process_free(process);
    assert_int_equal(fcntl(0, F_GETFD), -1);
    put_back(0, before);
}

static void write_script(const char *path, const char *text, mode_t mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

/* The PATH of the child's environment counts, directory by directory, relative to the child's own. */
static void test_Z_2_the_program_is_looked_for_in_the_childs_PATH(void **state) {
    struct world *world = *state;
    char directory[] = "/tmp/tram-test-XXXXXX", path[128], variable[256];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/sub", directory);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/sub/tram-test-program", directory);
    write_script(path, "#!/bin/sh\necho \"$0 $1\"\n", 0700);
    const char *const argv[] = {"tram-test-program", "argument", NULL};
    for (int relative = 0; relative < 2; relative++) {
        snprintf(variable, sizeof variable, "PATH=/nonexistent:%s%ssub", relative ? "" : directory,
                 relative ? "" : "/");
        const char *const env[] = {variable, NULL};
        tram_subprocess_options options = {.env = env, .cwd = directory};
        struct process *process = process_new(world);
        process_exec(process, argv, &options);
        process_wait(process);
        assert_int_equal(process->returncode, 0);
        assert_non_null(strstr(process->bytes[1], "sub/tram-test-program argument\n"));
        process_free(process);
        world->trace[0] = '\0';
    }
    unlink(path);
    path[strlen(path) - strlen("/tram-test-program")] = '\0';
    rmdir(path);
    rmdir(directory);
}

static void test_Z_2_executable_stands_for_argv_0_and_the_shell(void **state) {
    struct world *world = *state;
    tram_subprocess_options options = {.executable = "/bin/sh"};
    struct process *process = process_new(world);
    process_exec(process, (const char *const[]){"another-name", "-c", "echo $0", NULL}, &options);
    process_wait(process);
    assert_string_equal(process->bytes[1], "another-name\n");
    process_free(process);
    options.executable = "echo";
    assert_output(world, "a command", &options, "-c a command\n");
}

static void test_Z_2_new_session(void **state) {
    struct world *world = *state;
    for (int new_session = 0; new_session < 2; new_session++) {
        struct process *process = process_new(world);
        tram_subprocess_options options = {.new_session = new_session};
        process_exec(process, (const char *const[]){"cat", NULL}, &options);
        run_until_traced(world, "made");
        pid_t pid = tram_transport_get_pid(process->base.transport);
        assert_int_equal(getsid(pid), new_session ? pid : getsid(0));
        tram_transport_close(process->base.transport);
        process_wait(process);
        world->trace[0] = '\0';
        process_free(process);
    }
}

/* ---- Z-18 ---- */

static void test_Z_18_no_descriptor_but_those_passed_on_purpose(void **state) {
    struct world *world = *state;
    int open_ones[6]; /* inheritable all of them */
    for (int i = 0; i < 6; i++) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        open_ones[i] = fcntl(fd, F_DUPFD, 20 + 7 * i);
        close(fd);
    }
    /* Its own directory is what ls has besides. */
    assert_output(world, "exec ls /proc/self/fd", NULL, "0\n1\n2\n3\n");
    int passed[] = {open_ones[4], open_ones[1], open_ones[1]}; /* in no order, and twice */
    fcntl(open_ones[4], F_SETFD, FD_CLOEXEC);
    tram_subprocess_options options = {.pass_fds = passed, .pass_fd_count = 3};
    char expected[64];
    snprintf(expected, sizeof expected, "0\n1\n2\n%d\n3\n%d\n", open_ones[1], open_ones[4]);
    assert_output(world, "exec ls /proc/self/fd", &options, expected);
    assert_int_equal(fcntl(open_ones[4], F_GETFD), FD_CLOEXEC);
    for (int i = 0; i < 6; i++)
        close(open_ones[i]);
}

/* The creator gets `code`, with `detail` in its text, and nobody hears anything else. */
static void assert_fails(struct world *world, const char *const *argv, const tram_subprocess_options *options, int code,
                         const char *detail) {
    struct process *process = process_new(world);
    tram_future *future;
    int descriptors = open_descriptors();
    assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, argv, options, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), code);
    assert_non_null(strstr(tram_future_error(future)->detail, detail));
    tram_future_release(future);
    run_until(world, &process->was_released);
    run_ticks(world, 2);
    assert_trace(world, "released");
    assert_true(no_children());
    assert_int_equal(open_descriptors(), descriptors);
    process_free(process);
}

/* Of open files, lowered to `limit` until it is lowered again. */
static rlim_t lower_limit(rlim_t limit) {
    struct rlimit now;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &now), 0);
    rlim_t before = now.rlim_cur;
    now.rlim_cur = limit;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    return before;
}

/* The last number that a process may have. */
static void test_Z_18_descriptors_at_the_soft_limit_are_passed(void **state) {
    struct world *world = *state;
    enum { LIMIT = 64 };
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int high = fcntl(null, F_DUPFD_CLOEXEC, LIMIT - 1), low[4];
    for (int i = 0; i < 4; i++)
        low[i] = fcntl(null, F_DUPFD, 40 + 2 * i); /* inheritable */
    rlim_t before = lower_limit(LIMIT);
    int passed[] = {high, low[2], low[1]};
    tram_subprocess_options options = {.pass_fds = passed, .pass_fd_count = 3};
    char expected[64];
    snprintf(expected, sizeof expected, "0\n1\n2\n%d\n%d\n%d\n", low[1], low[2], high);
    assert_output(world, "for i in $(seq 0 99); do if [ -e /proc/$$/fd/$i ]; then echo $i; fi; done", &options,
                  expected);
    lower_limit(before);
    for (int i = 0; i < 4; i++)
        close(low[i]);
    close(high), close(null);
}

/* The limit was lowered after they were opened. Its own number is the first that is too high. */
static void test_Z_18_descriptors_above_the_soft_limit(void **state) {
    struct world *world = *state;
    enum { LIMIT = 64 };
    const char *const argv[] = {"true", NULL};
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    int above[] = {fcntl(fds[1], F_DUPFD_CLOEXEC, LIMIT), fcntl(fds[1], F_DUPFD_CLOEXEC, 200)};
    rlim_t before = lower_limit(LIMIT);
    for (int i = 0; i < 2; i++) {
        tram_subprocess_options options = {.output = {.kind = TRAM_STDIO_FD, .fd = above[i]}};
        struct process *process = run(world, "echo hello", &options);
        assert_int_equal(process->returncode, 0);
        process_free(process);
        options = (tram_subprocess_options){.pass_fds = &above[i], .pass_fd_count = 1};
        assert_fails(world, argv, &options, -EMFILE, "limit of open files");
    }
    assert_holds(fds[0], "hello\nhello\n");
    lower_limit(before);
    close(above[0]), close(above[1]), close(fds[0]), close(fds[1]);
}

static int actions_of_spawn;
static int (*spawn_before)(pid_t *ret_pid, const char *path, const posix_spawn_file_actions_t *actions,
                           const posix_spawnattr_t *attributes, char *const argv[], char *const env[]);

static int count_actions(pid_t *ret_pid, const char *path, const posix_spawn_file_actions_t *actions,
                         const posix_spawnattr_t *attributes, char *const argv[], char *const env[]) {
    actions_of_spawn = actions->__used;
    return spawn_before(ret_pid, path, actions, attributes, argv, env);
}

/* One action for each number below it would be thousands, made on the loop and run while it waits. */
static void test_Z_18_a_high_number_costs_no_more_than_a_low_one(void **state) {
    struct world *world = *state;
    struct sys counting = *world->loop->sys;
    spawn_before = counting.posix_spawn;
    counting.posix_spawn = count_actions;
    const struct sys *before = world->loop->sys;
    world->loop->sys = &counting;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), high = fcntl(null, F_DUPFD_CLOEXEC, 800);
    tram_subprocess_options options = {.pass_fds = &high, .pass_fd_count = 1};
    char expected[64];
    snprintf(expected, sizeof expected, "0\n1\n2\n3\n%d\n", high);
    assert_output(world, "exec ls /proc/self/fd", &options, expected);
    assert_in_range(actions_of_spawn, 1, 10);
    world->loop->sys = before;
    close(high), close(null);
}

static void test_Z_18_a_passed_descriptor_works(void **state) {
    struct world *world = *state;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    tram_subprocess_options options = {.pass_fds = &fds[1], .pass_fd_count = 1};
    char command[64];
    snprintf(command, sizeof command, "echo passed > /proc/self/fd/%d", fds[1]);
    assert_output(world, command, &options, "");
    assert_holds(fds[0], "passed\n");
    close(fds[0]);
    close(fds[1]);
}

static void test_Z_18_no_signal_is_blocked_or_ignored(void **state) {
    struct world *world = *state;
    const int ignored[] = {SIGPIPE, SIGHUP, SIGUSR2};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before[3];
    sigset_t all, mask, now;
    for (int i = 0; i < 3; i++)
        sigaction(ignored[i], &ignore, &before[i]);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mask);
    struct process *process = run(world, "exec grep -E 'Sig(Blk|Ign)' /proc/self/status", NULL);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    assert_true(sigismember(&now, SIGUSR1)); /* ours is as it was */
    for (int i = 0; i < 3; i++)
        sigaction(ignored[i], &before[i], NULL);
    assert_string_equal(process->bytes[1], "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    process_free(process);
}

/* ---- Z-3 and worse ---- */

static void test_Z_3_a_missing_program(void **state) {
    struct world *world = *state;
    assert_fails(world, (const char *const[]){"/nonexistent/program", NULL}, NULL, -ENOENT, "/nonexistent/program");
    /* A path that one may search: a folder that is closed to this user would be told instead, as by execvp(). */
    const char *path = getenv("PATH");
    char *before = path ? strdup(path) : NULL;
    setenv("PATH", "/nonexistent:/usr/bin:/bin", 1);
    assert_fails(world, (const char *const[]){"tram-no-such-program", NULL}, NULL, -ENOENT, "tram-no-such-program");
    if (before)
        setenv("PATH", before, 1);
    else
        unsetenv("PATH");
    free(before);
    const char *const env[] = {"PATH=/nonexistent", NULL};
    tram_subprocess_options options = {.env = env};
    assert_fails(world, (const char *const[]){"cat", NULL}, &options, -ENOENT, "cat");
}

static void test_Z_3_what_is_no_program(void **state) {
    struct world *world = *state;
    char directory[] = "/tmp/tram-test-XXXXXX", path[64], variable[128];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/file", directory);
    snprintf(variable, sizeof variable, "PATH=%s:/bin:/usr/bin", directory);
    write_script(path, "no program\n", 0600);
    const char *const argv[] = {path, NULL}, *const name[] = {"file-nowhere-else", NULL};
    assert_fails(world, argv, NULL, -EACCES, path);
    assert_fails(world, (const char *const[]){directory, NULL}, NULL, -EACCES, directory);
    assert_int_equal(chmod(path, 0700), 0);
    assert_fails(world, argv, NULL, -ENOEXEC, path);
    /* Found on the PATH but not to be executed, and nowhere else: that, and not a missing program, is the error. */
    char other[96];
    snprintf(other, sizeof other, "%s/file-nowhere-else", directory);
    write_script(other, "#!/bin/sh\n", 0600);
    const char *const env[] = {variable, NULL};
    tram_subprocess_options options = {.env = env};
    assert_fails(world, name, &options, -EACCES, "file-nowhere-else");
    unlink(path);
    unlink(other);
    rmdir(directory);
}

static void test_Z_3_a_bad_directory_or_descriptor(void **state) {
    struct world *world = *state;
    const char *const argv[] = {"cat", NULL};
    tram_subprocess_options options = {.cwd = "/nonexistent"};
    assert_fails(world, argv, &options, -ENOENT, "/nonexistent");
    options.cwd = "/dev/null";
    assert_fails(world, argv, &options, -ENOTDIR, "/dev/null");
    int closed = dup(1);
    close(closed);
    options = (tram_subprocess_options){.output = {.kind = TRAM_STDIO_FD, .fd = closed}};
    assert_fails(world, argv, &options, -EBADF, "descriptor");
    options = (tram_subprocess_options){.pass_fds = &closed, .pass_fd_count = 1};
    assert_fails(world, argv, &options, -EBADF, "descriptor");
}

static int refuse(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)ret_protocol;
    return tram_loop_raise(loop, TRAM_EUSER, arg, "not today");
}

static void test_C_13_the_error_of_a_factory_reaches_the_creator(void **state) {
    struct world *world = *state;
    tram_future *future;
    assert_int_equal(
        tram_loop_subprocess_exec(world->loop, refuse, world, (const char *const[]){"cat", NULL}, NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), TRAM_EUSER);
    assert_string_equal(tram_future_error(future)->detail, "not today");
    tram_future_release(future);
    assert_true(no_children());
}

/* ---- Faults of the system: the `nth` call fails with `error` ---- */

static struct sys faulty;
static unsigned nth;
static int error;
static int always; /* … or every spawn, if this is not 0 */
static unsigned tries;

static bool is_due(void) {
    return nth && --nth == 0;
}

static int faulty_spawn(pid_t *ret_pid, const char *path, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const argv[], char *const env[]) {
    tries++;
    if (always)
        return always;
    return is_due() ? error : posix_spawn(ret_pid, path, actions, attributes, argv, env);
}

static int faulty_pipe2(int fds[2], int flags) {
    if (!is_due())
        return pipe2(fds, flags);
    errno = error;
    return -1;
}

static int faulty_pidfd_open(pid_t pid, unsigned flags) {
    if (!is_due())
        return tram__sys.pidfd_open(pid, flags);
    if (error == ESRCH) /* what it means: somebody reaped it */
        waitpid(pid, NULL, 0);
    errno = error;
    return -1;
}

static int faulty_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    if (operation == EPOLL_CTL_DEL || !is_due())
        return epoll_ctl(epoll, operation, fd, event);
    errno = error;
    return -1;
}

static void fail_the(unsigned which, int with) {
    nth = which;
    error = with;
}

static void test_Z_3_without_processes_pipes_or_descriptors(void **state) {
    struct world *world = *state;
    const char *const argv[] = {"cat", NULL};
    faulty = tram__sys;
    faulty.posix_spawn = faulty_spawn;
    world_use_sys(world, &faulty);
    /* What would come again in each directory of the PATH ends the search; the rest does not. */
    static const int errors[] = {EAGAIN /* RLIMIT_NPROC */, ENOMEM, E2BIG, EACCES, ENOENT};
    const char *const env[] = {"PATH=/bin:/usr/bin:/bin", NULL};
    const tram_subprocess_options options = {.env = env};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        always = errors[i];
        tries = 0;
        assert_fails(world, argv, &options, -errors[i], "cat");
        assert_int_equal(tries, i < 3 ? 1 : tries);
        assert_true(i < 3 || tries >= 2);
    }
    always = 0;
    faulty = tram__sys;
    faulty.pidfd_open = faulty_pidfd_open;
    fail_the(1, EMFILE);
    assert_fails(world, argv, NULL, -EMFILE, "cat");
    faulty = tram__sys;
    faulty.pipe2 = faulty_pipe2;
    for (unsigned i = 1; i <= 3; i++) {
        struct process *process = process_new(world);
        fail_the(i, EMFILE);
        process_exec(process, argv, NULL);
        run_until(world, &process->was_released);
        run_until_traced(world, "creator:EMFILE");
        assert_trace(world, "released creator:EMFILE");
        process_free(process);
    }
    assert_true(no_children());
}

/* ---- What the C library prepares ---- */

static const char *unprepared; /* the next call of this name finds no memory */

static bool lacks(const char *call) {
    bool due = unprepared && strcmp(unprepared, call) == 0;
    if (due)
        unprepared = NULL;
    return due;
}

int posix_spawn_file_actions_init(posix_spawn_file_actions_t *actions) {
    static int (*next)(posix_spawn_file_actions_t * actions);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "posix_spawn_file_actions_init");
    return lacks("actions") ? ENOMEM : next(actions);
}

int posix_spawnattr_init(posix_spawnattr_t *attributes) {
    static int (*next)(posix_spawnattr_t * attributes);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "posix_spawnattr_init");
    return lacks("attributes") ? ENOMEM : next(attributes);
}

int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int from) {
    static int (*next)(posix_spawn_file_actions_t * actions, int from);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "posix_spawn_file_actions_addclosefrom_np");
    return lacks("closing") ? ENOMEM : next(actions, from);
}

int posix_spawnattr_setflags(posix_spawnattr_t *attributes, short flags) {
    static int (*next)(posix_spawnattr_t * attributes, short flags);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "posix_spawnattr_setflags");
    return lacks("flags") ? ENOMEM : next(attributes, flags);
}

static int no_lifting(int fd, int command, int from) {
    if (command != F_DUPFD_CLOEXEC)
        return tram__sys.fcntl(fd, command, from);
    errno = EMFILE;
    return -1;
}

static void test_Z_3_a_child_that_cannot_be_prepared_is_not_started(void **state) {
    struct world *world = *state;
    static const char *const calls[] = {"actions", "attributes", "closing", "flags"};
    const char *const argv[] = {"true", NULL};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        unprepared = calls[i];
        assert_fails(world, argv, NULL, -ENOMEM, "true");
        assert_null(unprepared);
    }
    const tram_subprocess_options options = {.output = {.kind = TRAM_STDIO_FD, .fd = 2}};
    faulty = tram__sys;
    faulty.fcntl = no_lifting;
    world_use_sys(world, &faulty);
    assert_fails(world, argv, &options, -EMFILE, "true");
}

static void test_Z_16_a_child_that_is_reaped_before_it_could_be_watched(void **state) {
    struct world *world = *state;
    faulty = tram__sys;
    faulty.pidfd_open = faulty_pidfd_open;
    world_use_sys(world, &faulty);
    for (int cancel = 0; cancel < 2; cancel++) {
        struct process *process = process_new(world);
        tram_future *future;
        fail_the(1, ESRCH);
        assert_int_equal(
            tram_loop_subprocess_shell(world->loop, process_factory, process, "echo out; exit 3", NULL, &future), 0);
        if (cancel)
            tram_future_cancel(future);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), cancel ? TRAM_ECANCELLED : 0);
        tram_future_release(future);
        process_wait(process);
        assert_int_equal(process->exited, !cancel);
        assert_int_equal(process->returncode, cancel ? 0 : 255);
        assert_string_equal(process->bytes[1], cancel ? "" : "out\n");
        process_free(process);
    }
    assert_int_equal(world->warnings, 1);
}

/* Whatever cannot be watched is ended: no zombie, and everybody hears of the end. */
static void test_Z_15_Z_10_what_cannot_be_watched_comes_to_an_end(void **state) {
    struct world *world = *state;
    faulty = tram__sys;
    faulty.epoll_ctl = faulty_epoll_ctl;
    world_use_sys(world, &faulty);
    for (unsigned i = 1; i <= 4; i++) {
        struct process *process = process_new(world);
        fail_the(i, ENOSPC);
        process_exec(process, (const char *const[]){"cat", NULL}, NULL);
        run_until_traced(world, "creator:0");
        assert_int_equal(nth, 0);
        run_ticks(world, 2);
        if (!process->was_released)
            tram_transport_close(process->base.transport);
        process_wait(process);
        assert_true(process->exited && process->lost);
        assert_true(process->lost_pipe[0] && process->lost_pipe[1] && process->lost_pipe[2]);
        assert_true(no_children());
        process_free(process);
        world->trace[0] = '\0';
    }
}

static void test_Z_3_without_memory(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    int descriptors = open_descriptors();
    for (size_t allowed = 0;; allowed++) {
        assert_true(allowed < 100);
        tram_future *future = NULL;
        world->fail_after = allowed;
        int status = tram_loop_subprocess_exec(world->loop, process_factory, process,
                                               (const char *const[]){"true", NULL}, NULL, &future);
        world->fail_after = SIZE_MAX;
        if (!status)
            status = tram_loop_run_until_complete(world->loop, future);
        if (future)
            tram_future_release(future);
        if (!status)
            break;
        assert_int_equal(status, -ENOMEM);
        run_ticks(world, 1);
        assert_true(no_children());
        assert_int_equal(open_descriptors(), descriptors);
        process->was_released = false;
    }
    process_wait(process);
    assert_int_equal(process->returncode, 0);
    process_free(process);
}

/* The child runs when it turns out that it cannot be watched. */
static void test_Z_3_without_room_for_one_more(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    const tram_subprocess_options options = {.input = NO_PIPE, .output = NO_PIPE, .error = NO_PIPE};
    int descriptors = open_descriptors();
    tram_future *future = NULL;
    world_lacks_slots(world, 0);
    int status = tram_loop_subprocess_exec(world->loop, process_factory, process,
                                           (const char *const[]){"sleep", "1000", NULL}, &options, &future);
    if (!status)
        status = tram_loop_run_until_complete(world->loop, future);
    if (future)
        tram_future_release(future);
    run_ticks(world, 2);
    world_has_slots(world);
    assert_int_equal(status, -ENOMEM);
    assert_true(no_children());
    assert_int_equal(open_descriptors(), descriptors);
    process_free(process);
    world->trace[0] = '\0';
}

/* ---- With real asyncio at the other end ---- */

static const char asyncio_echo[] =
    "import asyncio, sys\n"
    "class Output(asyncio.streams.FlowControlMixin):\n"
    "    def connection_lost(self, error):\n"
    "        super().connection_lost(error)\n"
    "        self.gone.set_result(None)\n"
    "async def main():\n"
    "    loop = asyncio.get_running_loop()\n"
    "    reader = asyncio.StreamReader()\n"
    "    make = lambda: asyncio.StreamReaderProtocol(reader)\n"
    "    await loop.connect_read_pipe(make, sys.stdin.buffer)\n"
    "    transport, protocol = await loop.connect_write_pipe(Output, sys.stdout.buffer)\n"
    "    protocol.gone = loop.create_future()\n"
    "    writer = asyncio.StreamWriter(transport, protocol, None, loop)\n"
    "    while data := await reader.read(65536):\n"
    "        writer.write(data)\n"
    "        await writer.drain()\n"
    "    writer.close()\n"
    "    await protocol.gone\n"
    "asyncio.run(main())\n";

/* rules: Z-1, I-4, I-8 */
static void test_asyncio_echoes_through_pipes(void **state) {
    struct world *world = *state;
    struct process *process = process_new(world);
    tram_future *future;
    const char *const argv[] = {"python3", "-c", asyncio_echo, NULL};
    tram_subprocess_options options = {.error = {.kind = TRAM_STDIO_INHERIT}};
    assert_int_equal(tram_loop_subprocess_exec(world->loop, process_factory, process, argv, &options, &future), 0);
    int status = tram_loop_run_until_complete(world->loop, future);
    tram_future_release(future);
    if (status == -ENOENT) {
        run_until(world, &process->was_released);
        process_free(process);
        skip();
    }
    assert_int_equal(status, 0);
    size_t size = 1 << 20;
    char *bytes = calloc(1, size);
    tram_transport *input = tram_transport_get_pipe_transport(process->base.transport, 0);
    assert_int_equal(tram_transport_write(input, "first", 5), 0);
    assert_int_equal(tram_transport_write(input, bytes, size), 0);
    assert_int_equal(tram_transport_write_eof(input), 0);
    free(bytes);
    process_wait(process);
    assert_int_equal(process->received[1], size + 5);
    assert_memory_equal(process->bytes[1], "first", 5);
    assert_int_equal(process->returncode, 0);
    process_free(process);
}

/* A directory that leads to itself, and one with a name that is too long for a path, are none with the program. */
static void test_Z_2_the_search_goes_on_behind_bad_directories(void **state) {
    struct world *world = *state;
    char directory[] = "/tmp/tram-test-XXXXXX", path[64], component[301], rest[5001];
    static char variable[8192];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/loop", directory);
    assert_int_equal(symlink(path, path), 0);
    memset(component, 'c', 300);
    memset(rest, 'r', 5000);
    component[300] = rest[5000] = '\0';
    const char *const argv[] = {"true", NULL}, *const env[] = {variable, NULL};
    tram_subprocess_options options = {.env = env};
    snprintf(variable, sizeof variable, "PATH=%s:/tmp/%s:/%s:/bin:/usr/bin", path, component, rest);
    struct process *process = process_new(world);
    process_exec(process, argv, &options);
    process_wait(process);
    assert_int_equal(process->returncode, 0);
    process_free(process);
    world->trace[0] = '\0';
    /* Nowhere else: the first of them is told. */
    const char *const nowhere[] = {"tram-no-such-program", NULL};
    snprintf(variable, sizeof variable, "PATH=%s:/tmp/%s:/bin", path, component);
    assert_fails(world, nowhere, &options, -ELOOP, "tram-no-such-program");
    snprintf(variable, sizeof variable, "PATH=/etc/passwd:/bin"); /* what is no directory has no program */
    assert_fails(world, nowhere, &options, -ENOENT, "tram-no-such-program");
    snprintf(variable, sizeof variable, "PATH=/bin:/%s:%s", rest, path);
    assert_fails(world, nowhere, &options, -ENAMETOOLONG, "tram-no-such-program");
    unlink(path);
    rmdir(directory);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_Z_2_the_search_goes_on_behind_bad_directories, world_setup,
                                        world_teardown),
        TEST(test_Z_1_null_device_and_descriptors),
        TEST(test_Z_1_inherited_and_error_joined_to_it),
        TEST(test_Z_1_descriptors_that_change_places),
        TEST(test_Z_1_in_a_process_without_standard_descriptors),
        TEST(test_Z_1_big_data_through_a_filter),
        TEST(test_Z_2_options_without_sense),
        TEST(test_Z_2_directory_and_environment),
        TEST(test_Z_2_a_directory_that_is_descriptor_0),
        TEST(test_Z_2_the_program_is_looked_for_in_the_childs_PATH),
        TEST(test_Z_2_executable_stands_for_argv_0_and_the_shell),
        TEST(test_Z_2_new_session),
        TEST(test_Z_18_no_descriptor_but_those_passed_on_purpose),
        TEST(test_Z_18_a_passed_descriptor_works),
        TEST(test_Z_18_descriptors_at_the_soft_limit_are_passed),
        TEST(test_Z_18_descriptors_above_the_soft_limit),
        TEST(test_Z_18_a_high_number_costs_no_more_than_a_low_one),
        TEST(test_Z_18_no_signal_is_blocked_or_ignored),
        TEST(test_Z_3_a_missing_program),
        TEST(test_Z_3_what_is_no_program),
        TEST(test_Z_3_a_bad_directory_or_descriptor),
        TEST(test_C_13_the_error_of_a_factory_reaches_the_creator),
        TEST(test_Z_3_without_processes_pipes_or_descriptors),
        TEST(test_Z_16_a_child_that_is_reaped_before_it_could_be_watched),
        TEST(test_Z_3_a_child_that_cannot_be_prepared_is_not_started),
        TEST(test_Z_15_Z_10_what_cannot_be_watched_comes_to_an_end),
        TEST(test_Z_3_without_memory),
        TEST(test_Z_3_without_room_for_one_more),
        TEST(test_asyncio_echoes_through_pipes),
    };
    if (is_emulated())
        return skip_program("valgrind has no pidfd_open");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
