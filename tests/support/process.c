#include "support/process.h"

#include <sys/wait.h>

static struct process *of(tram_protocol *protocol) {
    return (struct process *)protocol;
}

static int say(struct process *process, const char *event, const char *format, ...) {
    char word[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(word, sizeof word, format, arguments);
    va_end(arguments);
    process->last_fd = 0;
    trace(process->world, "%s", word);
    return process->on ? process->on(process, event) : 0;
}

static const char *name_of(const tram_error *error) {
    return error ? tram_error_name(error->code) : "0";
}

static int on_made(tram_protocol *protocol, tram_transport *transport) {
    of(protocol)->transport = transport;
    return say(of(protocol), "made", "made");
}

static int on_data(tram_protocol *protocol, int fd, const void *data, size_t size) {
    struct process *process = of(protocol);
    assert_in_range(fd, 1, 2);
    assert_true(size > 0);
    assert_false(process->lost_pipe[fd]);
    size_t end = sizeof process->bytes[fd] - 1, have = process->received[fd]; /* a text: the last byte stays 0 */
    if (have < end)
        memcpy(process->bytes[fd] + have, data, size < end - have ? size : end - have);
    process->received[fd] += size;
    if (process->last_fd == fd)
        return process->on ? process->on(process, "data") : 0;
    int status = say(process, "data", "data:%d", fd);
    process->last_fd = fd;
    return status;
}

static int on_pipe_lost(tram_protocol *protocol, int fd, const tram_error *error) {
    struct process *process = of(protocol);
    assert_in_range(fd, 0, 2);
    assert_false(process->lost_pipe[fd]);
    assert_false(process->lost);
    process->lost_pipe[fd] = true;
    return say(process, "pipe_lost", "lost:%d:%s", fd, name_of(error));
}

static int on_exited(tram_protocol *protocol) {
    struct process *process = of(protocol);
    assert_false(process->exited);
    assert_false(process->lost);
    process->exited = true;
    assert_int_equal(tram_transport_get_returncode(protocol->transport, &process->returncode), 0);
    return say(process, "exited", "exited:%d", process->returncode);
}

static int on_lost(tram_protocol *protocol, const tram_error *error) {
    struct process *process = of(protocol);
    assert_false(process->lost);
    process->lost = true;
    return say(process, "lost", "lost:%s", name_of(error));
}

static int on_pause(tram_protocol *protocol) {
    return say(of(protocol), "pause", "pause");
}

static int on_resume(tram_protocol *protocol) {
    return say(of(protocol), "resume", "resume");
}

static void on_released(tram_protocol *protocol) {
    struct process *process = of(protocol);
    assert_false(process->was_released);
    process->was_released = true;
    say(process, "released", "released");
}

static const tram_protocol_ops ops = {
    .connection_made = on_made,
    .pipe_data_received = on_data,
    .pipe_connection_lost = on_pipe_lost,
    .process_exited = on_exited,
    .connection_lost = on_lost,
    .pause_writing = on_pause,
    .resume_writing = on_resume,
    .released = on_released,
};

struct process *process_new(struct world *world) {
    struct process *process = calloc(1, sizeof *process);
    process->base.ops = &ops;
    process->world = world;
    return process;
}

void process_free(struct process *process) {
    assert_true(process->was_released);
    free(process);
}

int process_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

static int created(tram_future *future, void *arg) {
    int status = tram_future_result(future, NULL);
    trace(arg, "creator:%s", status ? tram_error_name(status) : "0");
    return 0;
}

static void follow(struct process *process, int status, tram_future *future) {
    assert_int_equal(status, 0);
    assert_int_equal(tram_future_add_done_callback(future, created, process->world), 0);
    tram_future_release(future);
}

void process_exec(struct process *process, const char *const *argv, const tram_subprocess_options *options) {
    tram_future *future = NULL;
    int status = tram_loop_subprocess_exec(process->world->loop, process_factory, process, argv, options, &future);
    follow(process, status, future);
}

void process_shell(struct process *process, const char *command, const tram_subprocess_options *options) {
    tram_future *future = NULL;
    int status = tram_loop_subprocess_shell(process->world->loop, process_factory, process, command, options, &future);
    follow(process, status, future);
}

void process_wait(struct process *process) {
    run_until(process->world, &process->was_released);
    run_ticks(process->world, 1);
}

bool no_such_child(pid_t pid) {
    siginfo_t info;
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
}

bool no_children(void) {
    siginfo_t info;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
}
