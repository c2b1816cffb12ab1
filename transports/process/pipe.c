/*
 * Pipe transports. Reading and writing are two kinds that have one direction each of what a stream has; a third one is
 * for character devices, where nothing can be heard of a reader.
 */
#include "transports/process/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/base/invalid.h"
#include "transports/base/receiver.h"
#include "transports/base/state.h"
#include "transports/socket/socket.h"
#include "transports/stream/bytes.h"
#include <tram/pipe.h>

/* ---- Writing ---- */

/* After a close nothing is taken any more, though the rest may still be on its way (I-8). */
static bool refused(tram_transport *transport, size_t size) {
    if (likely(!(transport->flags & T_CLOSING)))
        return false;
    if (size)
        tram__transport_drop_write(transport);
    return true;
}

static int write_bytes(tram_transport *transport, const void *data, size_t size) {
    if (unlikely(!data && size))
        return tram__invalid("data");
    return refused(transport, size) ? 0 : tram__transport_write(transport, data, size);
}

static int write_lines(tram_transport *transport, const struct iovec *pieces, size_t count) {
    size_t size;
    if (!pieces_size(&transport->queue, pieces, count, &size))
        return tram__invalid("pieces");
    return refused(transport, size) ? 0 : tram__transport_writelines(transport, pieces, count);
}

static int write_buffer(tram_transport *transport, tram_buffer *buffer) {
    if (unlikely(!buffer))
        return tram__invalid("buffer");
    return refused(transport, tram_buffer_size(buffer)) ? 0 : tram__transport_write_buffer(transport, buffer);
}

static int listen_to_reader(tram_transport *transport) {
    return tram__io_hangup_start(&transport->io);
}

/*
 * Without its reader a pipe serves no purpose; that is an error only for bytes that nobody will get (I-9). The reader
 * of a socket that has ended its own stream may still take what is queued.
 */
static void reader_gone(struct io *io, bool half) {
    tram_transport *transport = (tram_transport *)(void *)io;
    if (half) {
        tram__io_hangup_stop(io);
        tram__transport_close(transport);
    } else if (transport->queue.size)
        tram__transport_fatal(transport, -EPIPE, "write", NULL);
    else
        tram__transport_abort(transport);
}

/* ---- Both ---- */

static void end(tram_transport *transport) {
    int fd = transport->io.fd;
    tram__io_remove(&transport->io);
    transport->io.fd = -1;
    if (transport->flags & T_NOT_OURS)
        return;
    if (transport->io.flags & IO_NO_SOCKET)
        transport->io.loop->sys->close(fd);
    else
        tram__socket_close(transport->io.loop->sys, fd);
}

static const void *extra_info(tram_transport *transport, const char *name) {
    return strcmp(name, "pipe") == 0 ? &transport->io.fd : NULL;
}

static const struct transport_overrides read_calls = {
    .close = tram__transport_close,
    .abort = tram__transport_abort,
    .pause_reading = tram__transport_pause_reading,
    .resume_reading = tram__transport_resume_reading,
};

static const struct transport_overrides write_calls = {
    .close = tram__transport_close,
    .abort = tram__transport_abort,
    .write = write_bytes,
    .writelines = write_lines,
    .write_buffer = write_buffer,
    .cork = tram__transport_cork,
    .uncork = tram__transport_uncork,
    .write_eof = tram__transport_close, /* I-10 */
};

static const struct transport_kind read_kind = {
    .io = {.name = "read pipe", .transport = true, .receiver = &tram__receiver_plain, .ending = tram__bytes_ending},
    .buffered = &tram__receiver_buffered,
    .flags = T_HAS_OVERRIDES,
    .calls = &read_calls,
    .no_writing = true,
    .lives_on = true,
    .eof = tram__transport_ended,
    .drop_queue = tram__bytes_drop_queue,
    .end = end,
    .extra_info = extra_info,
};

#define WRITE_KIND(start_function)                                                                                     \
    {                                                                                                                  \
        .io = {.name = "write pipe",                                                                                   \
               .transport = true,                                                                                      \
               .gather = tram__bytes_gather,                                                                           \
               .sent = tram__bytes_sent,                                                                               \
               .hangup = reader_gone,                                                                                  \
               .ending = tram__bytes_ending},                                                                          \
        .flags = T_HAS_OVERRIDES | T_EOF, .calls = &write_calls, .no_reading = true, .can_write_eof = true,            \
        .start = start_function, .drop_queue = tram__bytes_drop_queue, .end = end, .extra_info = extra_info,           \
    }

static const struct transport_kind write_kind = WRITE_KIND(listen_to_reader);
static const struct transport_kind write_device_kind = WRITE_KIND(NULL);

/* ---- Making one ---- */

/* Is it something that may become a pipe transport (I-1, T-18)? 0 or a negative code. */
static int examine(tram_loop *loop, int fd, mode_t *ret_mode) {
    struct stat status;
    if (loop->sys->fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISFIFO(status.st_mode) && !S_ISSOCK(status.st_mode) && !S_ISCHR(status.st_mode))
        return tram__invalid("fd");
    struct io *present = tram__io_of_descriptor(loop, fd);
    if (present && !present->kind->yields)
        return TRAM_ESTATE;
    *ret_mode = status.st_mode;
    return 0;
}

static int make_non_blocking(const struct sys *sys, int fd) {
    int flags = sys->fcntl(fd, F_GETFL, 0);
    if (flags < 0 || (!(flags & O_NONBLOCK) && sys->fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0))
        return -errno;
    return 0;
}

int tram__pipe_new(tram_loop *loop, enum pipe_side side, int fd, tram_protocol *protocol, tram_future *creator,
                   tram_transport **ret_transport) {
    mode_t mode;
    int status = examine(loop, fd, &mode);
    if (status)
        return status;
    const struct transport_kind *kind = side == PIPE_READ ? &read_kind
                                        : S_ISCHR(mode)   ? &write_device_kind
                                                          : &write_kind;
    status = make_non_blocking(loop->sys, fd);
    if (!status)
        status = tram__transport_new(loop, kind, fd, protocol, &(struct transport_options){.creator = creator},
                                     ret_transport);
    if (!status && !S_ISSOCK(mode))
        (*ret_transport)->io.flags |= IO_NO_SOCKET;
    return status;
}

/* ---- For the user ---- */

struct creation {
    tram_future future;
    tram_transport *transport; /* while the future is pending */
};

/* Pending means that connection_made was not called: made and lost come as a pair or not at all (C-11). */
static void creation_cancel(tram_future *future) {
    tram_transport *transport = ((struct creation *)future)->transport;
    tram__future_finish_cancelled(future);
    if (!tram__transport_withdraw(transport))
        tram_transport_close(transport);
}

static const struct future_kind creation_kind = {
    .name = "connect_pipe", .value = FUTURE_VALUE_TRANSPORT, .cancel = creation_cancel};

/* Protocol and transport. 0; the error of a factory that failed is the future's by then, and the descriptor closed. */
static int create(struct creation *creation, enum pipe_side side, tram_protocol_factory factory, void *arg, int fd,
                  bool not_ours) {
    tram_loop *loop = creation->future.loop;
    tram_protocol *protocol;
    int status = tram__protocol_make(loop, factory, arg, &protocol);
    if (status < 0) {
        tram__future_fail(&creation->future, tram__raised(loop, status, "protocol_factory"));
        if (!not_ours)
            loop->sys->close(fd);
        return 0;
    }
    status = tram__pipe_new(loop, side, fd, protocol, &creation->future, &creation->transport);
    if (status)
        tram__protocol_release_soon(loop, protocol);
    else if (not_ours)
        creation->transport->flags |= T_NOT_OURS;
    return status;
}

static int connect_pipe(tram_loop *loop, enum pipe_side side, tram_protocol_factory factory, void *arg, int fd,
                        const tram_pipe_options *options, tram_future **ret_future) {
    static const tram_pipe_options defaults;
    mode_t mode;
    if (!options)
        options = &defaults;
    int status = check_option(!factory ? "factory" : reserved_used(options) ? "reserved" : NULL);
    if (!status)
        status = examine(loop, fd, &mode);
    if (!status)
        status = transport_state_open(loop);
    if (status)
        return status;
    struct creation *creation;
    status = tram__future_new(loop, &creation_kind, sizeof *creation, &creation);
    if (status)
        return status;
    status = create(creation, side, factory, arg, fd, options->not_ours);
    if (!status && options->discard)
        options->discard(arg);
    if (!status && ret_future)
        *ret_future = &creation->future;
    else
        tram__future_drop(&creation->future);
    return status;
}

int tram_loop_connect_read_pipe(tram_loop *loop, tram_protocol_factory factory, void *arg, int fd,
                                tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : connect_pipe(loop, PIPE_READ, factory, arg, fd, NULL, ret_future);
}

int tram_loop_connect_write_pipe(tram_loop *loop, tram_protocol_factory factory, void *arg, int fd,
                                 tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : connect_pipe(loop, PIPE_WRITE, factory, arg, fd, NULL, ret_future);
}

int tram_loop_connect_read_pipe_with_options(tram_loop *loop, tram_protocol_factory factory, void *arg, int fd,
                                             const tram_pipe_options *options, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : connect_pipe(loop, PIPE_READ, factory, arg, fd, options, ret_future);
}

int tram_loop_connect_write_pipe_with_options(tram_loop *loop, tram_protocol_factory factory, void *arg, int fd,
                                              const tram_pipe_options *options, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : connect_pipe(loop, PIPE_WRITE, factory, arg, fd, options, ret_future);
}
