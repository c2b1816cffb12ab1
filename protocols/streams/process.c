/*
 * Processes for tasks. The process is the protocol of a subprocess's transport; once that is made, each pipe gets a
 * stream as its protocol and goes its own way.
 */
#include <tram/process.h>

#include <errno.h>

#include "core/base/invalid.h"
#include "core/base/memory.h"
#include "core/loop/report.h"
#include "core/tasks/waiters.h"
#include "protocols/streams/pool.h"
#include "protocols/streams/streams.h"

struct tram_process {
    tram_protocol protocol; /* first */
    struct stream_owned owned;
    tram_loop *loop;
    tram_transport *transport; /* held from connection_made on */
    struct stream *streams[3]; /* of the pipes; NULL: there is none */
    tram_waiters waiters;      /* for the exit */
    int returncode;
    bool exited;
    bool attached; /* the transport has the protocol, and will call `released` */
    bool kept;     /* by who made it */
};

static tram_process *process_of(tram_protocol *protocol) {
    return (tram_process *)(void *)protocol;
}

/* ---- Life ---- */

static void let_transport_go(tram_process *process) {
    tram_transport_release(process->transport);
    process->transport = NULL;
}

static void free_if_unused(tram_process *process) {
    if (process->kept || process->attached)
        return;
    list_remove(&process->owned.link);
    let_transport_go(process);
    memory_put(&process->loop->allocator, process, sizeof *process);
}

static void loop_closing(struct stream_owned *owned) {
    tram_process *process = container_of(owned, tram_process, owned);
    if (!process->attached)
        let_transport_go(process);
}

static void abandon(struct stream_owned *owned) {
    tram_process *process = container_of(owned, tram_process, owned);
    process->kept = process->attached = false;
    free_if_unused(process);
}

static const struct stream_owned_kind process_kind = {.closing = loop_closing, .abandon = abandon};

/* ---- The protocol ---- */

static int connection_made(tram_protocol *protocol, tram_transport *transport) {
    tram_process *process = process_of(protocol);
    process->transport = tram_transport_hold(transport);
    for (int fd = 0; fd < 3; fd++)
        if (process->streams[fd])
            tram__streams_take_over(process->streams[fd], tram_transport_get_pipe_transport(transport, fd));
    return 0;
}

static int process_exited(tram_protocol *protocol) {
    tram_process *process = process_of(protocol);
    process->exited = tram_transport_get_returncode(process->transport, &process->returncode) == 0;
    while (tram__waiters_wake(&process->waiters))
        ;
    return 0;
}

/* The task that has it goes on, as with a stream of its own (G-2). */
static int closing(tram_protocol *protocol, uint64_t deadline_ns) {
    (void)protocol;
    (void)deadline_ns;
    return 0;
}

static void released(tram_protocol *protocol) {
    tram_process *process = process_of(protocol);
    process->attached = false;
    if (process->loop->closed)
        let_transport_go(process);
    free_if_unused(process);
}

static const tram_protocol_ops process_ops = {
    .connection_made = connection_made,
    .process_exited = process_exited,
    .closing = closing,
    .released = released,
};

/* ---- Starting ---- */

static int give_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    tram_process *process = arg;
    process->attached = true;
    *ret_protocol = &process->protocol;
    return 0;
}

static int make_streams(tram_process *process, const tram_subprocess_options *options, size_t limit) {
    const tram_stdio *const stdio[3] = {&options->input, &options->output, &options->error};
    int status = 0;
    for (int fd = 0; fd < 3 && !status; fd++)
        if (stdio[fd]->kind == TRAM_STDIO_PIPE)
            status = tram__streams_new(process->loop, limit, &process->streams[fd]);
    return status;
}

/* What all others take for granted: everything is a pipe that says nothing else. */
static const tram_subprocess_options inherit = {
    .input.kind = TRAM_STDIO_INHERIT, .output.kind = TRAM_STDIO_INHERIT, .error.kind = TRAM_STDIO_INHERIT};

static int process_new(const tram_subprocess_options *options, size_t limit, tram_process **ret_process) {
    tram_loop *loop = opening_loop();
    if (!loop)
        return TRAM_ESTATE;
    if (options->discard)
        return tram__invalid("discard");
    struct stream_loop *streams = tram__streams_loop(loop);
    tram_process *process = streams ? memory_get(&loop->allocator, sizeof *process) : NULL;
    if (!process)
        return -ENOMEM;
    *process = (tram_process){.protocol.ops = &process_ops, .owned.kind = &process_kind, .loop = loop, .kept = true};
    list_append(&streams->all, &process->owned.link);
    int status = make_streams(process, options, limit);
    if (status)
        tram_process_free(process);
    else
        *ret_process = process;
    return status;
}

static int finish(tram_process *process, int status, tram_future *future, const void *where,
                  tram_process **ret_process) {
    if (!status)
        status = tram__streams_await(future, NULL, where);
    if (status)
        tram_process_free(process);
    else
        *ret_process = process;
    return status;
}

int tram_create_subprocess_exec(const char *const *argv, const tram_subprocess_options *options, size_t limit,
                                tram_process **ret_process) {
    options = options ? options : &inherit;
    tram_process *process;
    tram_future *future = NULL;
    int status = process_new(options, limit, &process);
    if (status)
        return status;
    status = tram_loop_subprocess_exec(process->loop, give_protocol, process, argv, options, &future);
    return finish(process, status, future, __builtin_return_address(0), ret_process);
}

int tram_create_subprocess_shell(const char *command, const tram_subprocess_options *options, size_t limit,
                                 tram_process **ret_process) {
    options = options ? options : &inherit;
    tram_process *process;
    tram_future *future = NULL;
    int status = process_new(options, limit, &process);
    if (status)
        return status;
    status = tram_loop_subprocess_shell(process->loop, give_protocol, process, command, options, &future);
    return finish(process, status, future, __builtin_return_address(0), ret_process);
}

static void end_stream(struct stream *stream) {
    if (stream->writer.transport)
        tram_transport_abort(stream->writer.transport);
    tram__streams_drop(stream);
}

void tram_process_free(tram_process *process) {
    if (!process || loop_enter(process->loop, __func__))
        return;
    for (int fd = 0; fd < 3; fd++)
        if (process->streams[fd])
            end_stream(process->streams[fd]);
    if (process->transport)
        tram_transport_abort(process->transport);
    process->kept = false;
    free_if_unused(process);
}

/* ---- Its parts ---- */

tram_stream_writer *tram_process_stdin(tram_process *process) {
    return process->streams[0] ? &process->streams[0]->writer : NULL;
}

tram_stream_reader *tram_process_stdout(tram_process *process) {
    return process->streams[1] ? &process->streams[1]->reader : NULL;
}

tram_stream_reader *tram_process_stderr(tram_process *process) {
    return process->streams[2] ? &process->streams[2]->reader : NULL;
}

tram_transport *tram_process_transport(tram_process *process) {
    return process->transport;
}

/* ---- Waiting ---- */

static int await_exit(tram_process *process, const void *where) {
    static const struct wait_kind kind = WAIT_KIND("process");
    bool woken;
    return process->exited ? 0 : tram__waiters_park(&process->waiters, &kind, where, &woken);
}

static int enter(const tram_process *process, const char *function) {
    int status = loop_enter(process->loop, function);
    return status || process->exited || task_running(process->loop) ? status : TRAM_ESTATE;
}

int tram_process_wait(tram_process *process, int *ret_returncode) {
    int status = enter(process, __func__);
    if (!status)
        status = await_exit(process, __builtin_return_address(0));
    if (!status && ret_returncode)
        *ret_returncode = process->returncode;
    return status;
}

/* A child that has closed its input, or ended, did not want it (Z-22). */
static int feed(tram_process *process, const void *input, size_t size) {
    tram_stream_writer *writer = tram_process_stdin(process);
    if (!writer)
        return size ? tram__invalid("input") : 0;
    int status = size && !writer->lost ? tram_stream_writer_write(writer, input, size) : 0;
    tram_stream_writer_close(writer);
    return status == -ENOMEM ? status : 0;
}

static void read_without_bound(tram_stream_reader *reader) {
    if (reader)
        tram__reader_unbound(reader);
}

static int read_all(tram_stream_reader *reader, tram_bytes *ret_bytes) {
    tram_bytes bytes = {"", 0};
    int status = reader ? tram_stream_reader_readall(reader, &bytes) : 0;
    if (ret_bytes)
        *ret_bytes = bytes;
    return status;
}

int tram_process_communicate(tram_process *process, const void *input, size_t size, tram_bytes *ret_output,
                             tram_bytes *ret_error) {
    tram_stream_reader *output = tram_process_stdout(process), *error = tram_process_stderr(process);
    int status = enter(process, __func__);
    if (!status)
        status = feed(process, input, size);
    if (status)
        return status;
    read_without_bound(output);
    read_without_bound(error);
    status = read_all(output, ret_output);
    int error_status = status ? status : read_all(error, ret_error);
    return error_status ? error_status : await_exit(process, __builtin_return_address(0));
}
