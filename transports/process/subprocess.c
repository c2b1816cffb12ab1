/*
 * Subprocesses. The transport's own descriptor is the child's pidfd; each pipe is a pipe transport whose protocol is a
 * part of the subprocess and passes on what it hears. Whatever comes to its end, the child or a pipe, asks
 * finish_if_over() whether that was the last.
 *
 * The subprocess holds its pipes' memory as long as its own; each pipe's protocol holds the subprocess until it is
 * released.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/jobs/child.h"
#include "transports/base/lifecycle.h"
#include "transports/base/state.h"
#include "transports/process/pipe.h"
#include "transports/socket/socket.h"
#include <tram/subprocess.h>

/* Beside the life of its transport, which ends when the child and all pipes have. */
enum process_life {
    PROCESS_NONE,
    PROCESS_STARTING,  /* connection_made has not returned */
    PROCESS_RUNNING,   /* the child is watched */
    PROCESS_CANCELLED, /* before connection_made: the child is awaited, and nobody is told but the creator */
    PROCESS_EXITED,    /* process_exited was called; pipes may be open */
};

enum process_move {
    PROCESS_WATCH,  /* connection_made has returned */
    PROCESS_CANCEL, /* of its creation */
    PROCESS_EXIT,   /* the child has exited, or is not waited for since its loop closes */
};

struct pipe_end {
    tram_protocol protocol;
    struct subprocess *process;
    tram_transport *transport; /* held; NULL: this descriptor is no pipe */
    bool open;                 /* its connection_lost has not come */
};

struct subprocess {
    tram_transport transport;
    struct child child;
    struct pipe_end pipes[3];
    struct ready gone; /* the exit of a child that could not be watched */
    uint8_t life;      /* enum process_life */
    tram_subprocess view;
};

static const struct transport_kind process_kind;

static tram_loop *loop_of(const struct subprocess *process) {
    return process->transport.io.loop;
}

static struct subprocess *process_of(tram_transport *transport) {
    return container_of(transport, struct subprocess, transport);
}

/* ---- Its life ---- */

static const struct life_state states[] = {
    [PROCESS_STARTING] = {"starting", {[PROCESS_WATCH] = PROCESS_RUNNING, [PROCESS_CANCEL] = PROCESS_CANCELLED}},
    [PROCESS_RUNNING] = {"running", {[PROCESS_EXIT] = PROCESS_EXITED}},
    [PROCESS_CANCELLED] = {.name = "cancelled"},
    [PROCESS_EXITED] = {.name = "exited"},
};

static void validate(const void *object) {
    const struct subprocess *process = object;
    bool made = process->transport.flags & T_MADE;
    TRAM_ASSERT(made == (process->life != PROCESS_CANCELLED));
    TRAM_ASSERT(process->life != PROCESS_EXITED || process->child.exited);
}

static const struct life_table life = {.name = "subprocess", .states = states, .validate = validate};

static void move(struct subprocess *process, enum process_move move) {
    tram__life_move(&life, &process->life, move, process);
}

/* ---- What comes to its end ---- */

static void finish_if_over(struct subprocess *process) {
    if (process->life != PROCESS_EXITED)
        return;
    for (int fd = 0; fd < 3; fd++)
        if (process->pipes[fd].open)
            return;
    tram__transport_abort(&process->transport);
}

static void notify_exit(struct subprocess *process) {
    tram_loop *loop = loop_of(process);
    if (process->child.unknown)
        tram__log(loop, TRAM_LOG_WARNING, "child process %d %s: its exit status is unknown", (int)process->child.pid,
                  process->child.unknown);
    if (unlikely(loop->debug))
        tram__log(loop, TRAM_LOG_DEBUG, "child process %d exited: %d", (int)process->child.pid,
                  process->child.returncode);
    tram__protocol_process_exited(&process->transport);
    move(process, PROCESS_EXIT);
    finish_if_over(process);
}

static void exited(struct subprocess *process) {
    if (process->life == PROCESS_CANCELLED)
        tram__transport_withdraw(&process->transport);
    else
        notify_exit(process);
}

static void gone_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    exited(container_of(ready, struct subprocess, gone));
}

/* The pidfd polls readable. */
static void child_ready(struct io *io, unsigned events) {
    (void)events;
    struct subprocess *process = process_of((tram_transport *)(void *)io);
    if (!tram__child_reap(io->loop->sys, &process->child))
        return;
    tram__io_watch(io, 0);
    exited(process);
}

static void await_exit(struct subprocess *process) {
    if (!process->child.exited && tram__io_watch(&process->transport.io, IO_READ) < 0)
        tram__child_end(loop_of(process)->sys, &process->child); /* unwatched it would become a zombie */
    if (process->child.exited)
        loop_ready(loop_of(process), &process->gone);
}

/* connection_made has returned. */
static int watch_child(tram_transport *transport) {
    move(process_of(transport), PROCESS_WATCH);
    await_exit(process_of(transport));
    return 0;
}

/* ---- The protocol of a pipe ---- */

static struct pipe_end *pipe_of(tram_protocol *protocol) {
    return container_of(protocol, struct pipe_end, protocol);
}

static int number_of(const struct pipe_end *end) {
    return (int)(end - end->process->pipes);
}

static int pipe_received(tram_protocol *protocol, const void *data, size_t size) {
    struct pipe_end *end = pipe_of(protocol);
    if (unlikely(end->process->life == PROCESS_CANCELLED))
        return 0;
    tram__protocol_pipe_data_received(&end->process->transport, number_of(end), data, size);
    return 0;
}

static int pipe_lost(tram_protocol *protocol, const tram_error *error) {
    struct pipe_end *end = pipe_of(protocol);
    end->open = false;
    if (unlikely(end->process->life == PROCESS_CANCELLED))
        return 0;
    tram__protocol_pipe_connection_lost(&end->process->transport, number_of(end), error);
    finish_if_over(end->process);
    return 0;
}

static int pipe_pause_writing(tram_protocol *protocol) {
    tram__protocol_pause_writing(&pipe_of(protocol)->process->transport);
    return 0;
}

static int pipe_resume_writing(tram_protocol *protocol) {
    tram__protocol_resume_writing(&pipe_of(protocol)->process->transport);
    return 0;
}

/* After its end; or the user has given the pipe another protocol, and then it is no affair of ours any more. */
static void pipe_released(tram_protocol *protocol) {
    struct pipe_end *end = pipe_of(protocol);
    bool taken = end->open;
    end->open = false;
    if (taken && end->process->transport.protocol)
        finish_if_over(end->process);
    tram_transport_release(&end->process->transport);
}

static const tram_protocol_ops pipe_ops = {
    .data_received = pipe_received,
    .connection_lost = pipe_lost,
    .pause_writing = pipe_pause_writing,
    .resume_writing = pipe_resume_writing,
    .released = pipe_released,
};

/* ---- Ending ---- */

static void each_pipe(struct subprocess *process, int (*call)(tram_transport *transport)) {
    for (int fd = 0; fd < 3; fd++)
        if (process->pipes[fd].open)
            call(process->pipes[fd].transport);
}

static void kill_child(struct subprocess *process) {
    int status = tram__child_signal(loop_of(process)->sys, &process->child, SIGKILL);
    if (status < 0 && status != -ESRCH) /* a child with another user's rights: it ends when it likes */
        tram__log(loop_of(process), TRAM_LOG_WARNING, "child process %d cannot be killed: %s", (int)process->child.pid,
                  tram_error_text(status));
}

static int process_close(tram_transport *transport) {
    if (transport->flags & T_CLOSING)
        return 0;
    struct subprocess *process = process_of(transport);
    transport_move(transport, MOVE_CLOSE);
    each_pipe(process, tram_transport_close);
    kill_child(process);
    return 0;
}

static int process_abort(tram_transport *transport) {
    process_close(transport);
    each_pipe(process_of(transport), tram_transport_abort); /* cuts their flushes short */
    return 0;
}

static void report_alive(struct subprocess *process) {
    if (!loop_of(process)->debug || process->child.exited)
        return;
    tram_exception exception = {
        .message = "a loop was closed while its child process was alive",
        .transport = &process->transport,
        .protocol = process->transport.protocol,
        .fd = process->child.pidfd,
    };
    tram__report(loop_of(process), &exception);
}

static int drop_pipe(tram_transport *transport) {
    tram__transport_ending(transport, IO_SHUTDOWN_NOW);
    return 0;
}

/* The loop closes: all ends here and now, in the usual order. */
static void drop(struct subprocess *process) {
    tram_transport *transport = &process->transport;
    list_remove(&process->gone.link);
    report_alive(process);
    tram_transport_hold(transport);
    each_pipe(process, drop_pipe);
    tram__child_end(loop_of(process)->sys, &process->child);
    if (process->life == PROCESS_RUNNING)
        notify_exit(process);
    tram__transport_ending(transport, IO_SHUTDOWN_NOW);
    tram_transport_release(transport);
}

static void process_ending(struct io *io, enum shutdown_mode ending) {
    tram_transport *transport = (tram_transport *)(void *)io;
    if (ending == IO_SHUTDOWN_NOW)
        drop(process_of(transport));
    else
        tram__transport_ending(transport, ending);
}

static void process_end(tram_transport *transport) {
    struct subprocess *process = process_of(transport);
    tram__io_remove(&transport->io);
    transport->io.fd = -1;
    if (process->child.pidfd >= 0)
        transport->io.loop->sys->close(process->child.pidfd);
    process->child.pidfd = -1;
}

static void process_dispose(tram_transport *transport) {
    struct subprocess *process = process_of(transport);
    for (int fd = 0; fd < 3; fd++)
        if (process->pipes[fd].transport)
            tram_transport_release(process->pipes[fd].transport);
    memory_put(&loop_of(process)->allocator, process, sizeof *process);
}

static void no_queue(tram_transport *transport) {
    (void)transport;
}

static const void *process_extra_info(tram_transport *transport, const char *name) {
    struct subprocess *process = process_of(transport);
    if (strcmp(name, "subprocess") != 0)
        return NULL;
    process->view = (tram_subprocess){.pid = process->child.pid,
                                      .pidfd = process->child.pidfd,
                                      .exited = process->child.exited,
                                      .returncode = process->child.returncode};
    return &process->view;
}

static const struct transport_overrides process_calls = {.close = process_close, .abort = process_abort};

static const struct transport_kind process_kind = {
    .io = {.name = "subprocess", .transport = true, .ready = child_ready, .ending = process_ending},
    .flags = T_HAS_OVERRIDES | T_EOF,
    .calls = &process_calls,
    .no_reading = true,
    .no_writing = true,
    .start = watch_child,
    .drop_queue = no_queue,
    .end = process_end,
    .dispose = process_dispose,
    .extra_info = process_extra_info,
};

/* ---- The creation ---- */

struct creation {
    tram_future future;
    struct subprocess *process; /* while the future is pending */
};

/* A pipe may have been made already, which nobody was told of, and nobody is told of its end. */
static int withdraw(tram_transport *transport) {
    return tram__transport_withdraw(transport) ? 0 : tram_transport_abort(transport);
}

/* Where connection_made was not called it never will be; but the child must be reaped (Z-19). */
static void creation_cancel(tram_future *future) {
    struct subprocess *process = ((struct creation *)future)->process;
    if (process->transport.flags & T_MADE) { /* within connection_made, and so connection_lost comes, too */
        tram__future_finish_cancelled(future);
        tram_transport_close(&process->transport);
        return;
    }
    move(process, PROCESS_CANCEL);
    list_remove(&process->transport.on.ready.link);
    each_pipe(process, withdraw);
    kill_child(process);
    await_exit(process);
}

static const struct future_kind creation_kind = {
    .name = "subprocess", .value = FUTURE_VALUE_TRANSPORT, .cancel = creation_cancel};

/* The two ends of a pipe: ours becomes a transport, the other is returned for the child. */
static int open_pipe(struct subprocess *process, int number, int *ret_child_end) {
    const struct sys *sys = loop_of(process)->sys;
    struct pipe_end *end = &process->pipes[number];
    int fds[2];
    if (sys->pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    enum pipe_side side = number == 0 ? PIPE_WRITE : PIPE_READ;
    int ours = fds[side == PIPE_WRITE];
    int theirs = fds[side == PIPE_READ];
    end->protocol.ops = &pipe_ops;
    end->process = process;
    int status = tram__pipe_new(loop_of(process), side, ours, &end->protocol, NULL, &end->transport);
    if (status) {
        end->transport = NULL;
        sys->close(ours);
        sys->close(theirs);
        return status;
    }
    end->open = true;
    tram_transport_hold(end->transport);
    tram_transport_hold(&process->transport);
    *ret_child_end = theirs;
    return 0;
}

static int open_stdio(struct subprocess *process, const tram_subprocess_options *options, int stdio[3],
                      int to_close[3]) {
    static const int others[] = {
        [TRAM_STDIO_INHERIT] = CHILD_INHERIT, [TRAM_STDIO_NULL] = CHILD_NULL, [TRAM_STDIO_OUTPUT] = CHILD_JOIN};
    const tram_stdio *wanted[3] = {&options->input, &options->output, &options->error};
    int status = 0;
    for (int number = 0; number < 3 && !status; number++) {
        if (wanted[number]->kind == TRAM_STDIO_PIPE) {
            status = open_pipe(process, number, &to_close[number]);
            stdio[number] = to_close[number];
        } else {
            stdio[number] = wanted[number]->kind == TRAM_STDIO_FD ? wanted[number]->fd : others[wanted[number]->kind];
        }
    }
    return status;
}

static int fail(struct kept_error *ret_error, int code, const char *operation) {
    ret_error->error = (tram_error){.code = code, .operation = operation};
    return code;
}

static int bad_descriptor(struct kept_error *ret_error, int fd, int code, const char *why) {
    snprintf(ret_error->detail, sizeof ret_error->detail, "descriptor %d: %s", fd, why);
    ret_error->error = (tram_error){.code = code, .operation = "subprocess", .detail = ret_error->detail};
    return code;
}

static int check_descriptor(const struct sys *sys, int fd, struct kept_error *ret_error) {
    if (sys->fcntl(fd, F_GETFD, 0) >= 0)
        return 0;
    int code = -errno;
    return bad_descriptor(ret_error, fd, code, tram_error_text(code));
}

/* The child has no such number either: its limit is ours. */
static int check_passed(const struct sys *sys, int fd, struct kept_error *ret_error) {
    if (fd >= tram__child_descriptor_limit())
        return bad_descriptor(ret_error, fd, -EMFILE, "not below the limit of open files (ulimit -n)");
    return check_descriptor(sys, fd, ret_error);
}

/* Before pipes are opened, which might get the number of one that is not. */
static int check_descriptors(const struct sys *sys, const tram_subprocess_options *options,
                             struct kept_error *ret_error) {
    const tram_stdio *stdio[3] = {&options->input, &options->output, &options->error};
    int status = 0;
    for (int i = 0; i < 3 && !status; i++)
        if (stdio[i]->kind == TRAM_STDIO_FD)
            status = check_descriptor(sys, stdio[i]->fd, ret_error);
    for (size_t i = 0; i < options->pass_fd_count && !status; i++)
        status = check_passed(sys, options->pass_fds[i], ret_error);
    return status;
}

/* Pipes and child. On failure the pipes that were opened stay for the caller to withdraw. */
static int start_child(struct subprocess *process, const char *const *argv, const tram_subprocess_options *options,
                       struct kept_error *ret_error) {
    tram_loop *loop = loop_of(process);
    struct child_spec spec = {
        .argv = argv,
        .executable = options->executable ? options->executable : argv[0],
        .env = options->env,
        .cwd = options->cwd,
        .pass_fds = options->pass_fds,
        .pass_fd_count = options->pass_fd_count,
        .new_session = options->new_session,
    };
    int to_close[3] = {-1, -1, -1};
    int status = check_descriptors(loop->sys, options, ret_error);
    if (status)
        return status;
    status = open_stdio(process, options, spec.stdio, to_close);
    if (status)
        fail(ret_error, status, "pipe");
    else
        status = tram__child_spawn(loop, &spec, &process->child, ret_error);
    for (int number = 0; number < 3; number++)
        if (to_close[number] >= 0)
            loop->sys->close(to_close[number]);
    if (status)
        return status;
    status = tram__io_add(&process->transport.io, loop, &process_kind.io, process->child.pidfd);
    if (!status)
        return 0;
    tram__child_end(loop->sys, &process->child);
    if (process->child.pidfd >= 0)
        loop->sys->close(process->child.pidfd);
    return fail(ret_error, status, "subprocess");
}

static void create(struct creation *creation, tram_protocol_factory factory, void *arg, const char *const *argv,
                   const tram_subprocess_options *options) {
    struct subprocess *process = creation->process;
    tram_loop *loop = loop_of(process);
    struct kept_error error;
    tram_protocol *protocol;
    int status = tram__protocol_make(loop, factory, arg, &protocol);
    if (options->discard)
        options->discard(arg);
    if (status < 0) {
        tram__future_fail(&creation->future, tram__raised(loop, status, "protocol_factory"));
        return;
    }
    status = start_child(process, argv, options, &error);
    if (status) {
        each_pipe(process, withdraw);
        tram__protocol_release_soon(loop, protocol);
        tram__future_fail(&creation->future, &error.error);
        return;
    }
    tram__transport_begin(&process->transport, protocol, &creation->future);
}

static bool stdio_has_sense(const tram_stdio *stdio, tram_stdio_kind last) {
    return (unsigned)stdio->kind <= (unsigned)last && (stdio->kind != TRAM_STDIO_FD || stdio->fd >= 0) &&
           !reserved_used(stdio);
}

static const char *wrong_option(const tram_subprocess_options *options) {
    if (!stdio_has_sense(&options->input, TRAM_STDIO_FD))
        return "input";
    if (!stdio_has_sense(&options->output, TRAM_STDIO_FD))
        return "output";
    if (!stdio_has_sense(&options->error, TRAM_STDIO_OUTPUT))
        return "error";
    if (options->pass_fd_count && !options->pass_fds)
        return "pass_fds";
    for (size_t i = 0; i < options->pass_fd_count; i++)
        if (options->pass_fds[i] < 0)
            return "pass_fds";
    return reserved_used(options) ? "reserved" : NULL;
}

static int subprocess(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *const *argv,
                      const tram_subprocess_options *options, tram_future **ret_future) {
    static const tram_subprocess_options defaults;
    if (!options)
        options = &defaults;
    int status = check_option(factory ? wrong_option(options) : "factory");
    if (!status)
        status = transport_state_open(loop);
    if (status)
        return status;
    struct subprocess *process = tram__memory_get_zero(&loop->allocator, sizeof *process);
    if (!process)
        return -ENOMEM;
    struct creation *creation;
    status = tram__future_new(loop, &creation_kind, sizeof *creation, &creation);
    if (status) {
        memory_put(&loop->allocator, process, sizeof *process);
        return status;
    }
    process->transport.io = (struct io){.kind = &process_kind.io, .loop = loop, .fd = -1};
    process->transport.holds = 1; /* ours, until the creation has begun or failed */
    list_init(&process->gone.link);
    process->gone.run = gone_run;
    process->life = PROCESS_STARTING;
    creation->process = process;
    create(creation, factory, arg, argv, options);
    tram_transport_release(&process->transport);
    if (ret_future)
        *ret_future = &creation->future;
    else
        tram__future_drop(&creation->future);
    return 0;
}

/* ---- For the user ---- */

int tram_loop_subprocess_exec(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *const *argv,
                              const tram_subprocess_options *options, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    return argv && argv[0] ? subprocess(loop, factory, arg, argv, options, ret_future) : tram__invalid("argv");
}

int tram_loop_subprocess_shell(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *command,
                               const tram_subprocess_options *options, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};
    return command ? subprocess(loop, factory, arg, argv, options, ret_future) : tram__invalid("command");
}

/* The subprocess of a transport; -ENOTSUP if it is of another kind. */
static int enter(const tram_transport *transport, const char *function, struct subprocess **ret_process) {
    int status = loop_enter(transport->io.loop, function);
    if (status)
        return status;
    *ret_process = process_of((tram_transport *)(uintptr_t)transport);
    return transport->io.kind == &process_kind.io ? 0 : -ENOTSUP;
}

pid_t tram_transport_get_pid(const tram_transport *transport) {
    struct subprocess *process;
    int status = enter(transport, __func__, &process);
    return status ? status : process->child.pid;
}

int tram_transport_get_returncode(const tram_transport *transport, int *ret_returncode) {
    struct subprocess *process;
    int status = enter(transport, __func__, &process);
    if (status)
        return status;
    if (!process->child.exited)
        return TRAM_ESTATE;
    *ret_returncode = process->child.returncode;
    return 0;
}

tram_transport *tram_transport_get_pipe_transport(const tram_transport *transport, int fd) {
    struct subprocess *process;
    if (enter(transport, __func__, &process) || fd < 0 || fd > 2)
        return NULL;
    return process->pipes[fd].transport;
}

int tram_transport_send_signal(tram_transport *transport, int signal_number) {
    struct subprocess *process;
    int status = enter(transport, __func__, &process);
    return status ? status : tram__child_signal(loop_of(process)->sys, &process->child, signal_number);
}

int tram_transport_terminate(tram_transport *transport) {
    return tram_transport_send_signal(transport, SIGTERM);
}

int tram_transport_kill(tram_transport *transport) {
    return tram_transport_send_signal(transport, SIGKILL);
}
