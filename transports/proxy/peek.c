/* Looking at the first bytes of a connection: an operation that reads into memory of its own. */
#include <errno.h>

#include "core/base/invalid.h"
#include "core/jobs/future.h"
#include "core/loop/loop.h"
#include "transports/socket/socket.h"
#include <tram/connection.h>

struct peek {
    tram_future future;
    struct io io;
    struct close_hook hook;
    struct deferred_free deferred;
    struct deadline deadline;
    size_t capacity;
    tram_peeked peeked;
    char bytes[];
};

static struct peek *peek_of(struct io *io) {
    return container_of(io, struct peek, io);
}

static void dispose(tram_loop *loop, struct deferred_free *deferred) {
    (void)loop;
    tram__future_drop(&container_of(deferred, struct peek, deferred)->future);
}

/* Lets go of the socket; an event of this tick may still name the io, so the memory stays until its end. */
static void stop_watching(struct peek *peek) {
    tram_loop *loop = peek->future.loop;
    tram__io_remove(&peek->io);
    list_remove(&peek->hook.link);
    deadline_cancel(loop, &peek->deadline);
    tram__loop_free_later(loop, &peek->deferred, dispose);
}

static void complete(struct peek *peek) {
    stop_watching(peek);
    tram__future_finish(&peek->future, &peek->peeked);
}

static void cancel(tram_future *future) {
    stop_watching((struct peek *)future);
    tram__future_finish_cancelled(future);
}

static void hook_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending >= IO_SHUTDOWN_CLOSE)
        cancel(&container_of(hook, struct peek, hook)->future);
}

static void expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct peek *peek = container_of(deadline, struct peek, deadline);
    peek->peeked.timed_out = true;
    complete(peek);
}

static int buffer(struct io *io, void **ret_memory, size_t *ret_size) {
    struct peek *peek = peek_of(io);
    *ret_memory = peek->bytes + peek->peeked.size;
    *ret_size = peek->capacity - peek->peeked.size;
    return 0;
}

static void received(struct io *io, void *data, ssize_t result) {
    struct peek *peek = peek_of(io);
    (void)data;
    if (result < 0) {
        stop_watching(peek);
        tram__future_fail_code(&peek->future, (int)result, "recv");
        return;
    }
    peek->peeked.eof = result == 0;
    peek->peeked.size += (size_t)result;
    if (peek->peeked.eof || peek->peeked.size == peek->capacity)
        complete(peek);
}

static const struct io_receiver receiver = {.buffer = buffer, .received = received};
static const struct io_kind io_kind = {.name = "peek", .receiver = &receiver};
static const struct future_kind future_kind = {.name = "peek", .cancel = cancel};

static int begin(struct peek *peek, tram_loop *loop, int sock, uint64_t timeout_ns) {
    int status = tram__io_add(&peek->io, loop, &io_kind, sock);
    if (!status)
        status = io_receive_start(&peek->io);
    if (!status && timeout_ns)
        status = tram__deadline_start_after(loop, &peek->deadline, timeout_ns);
    if (status && io_added(&peek->io))
        tram__io_remove(&peek->io);
    return status;
}

int tram_loop_peek(tram_loop *loop, int sock, size_t size, uint64_t timeout_ns, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!size || !ret_future || size > SIZE_MAX / 2)
        return tram__invalid(ret_future ? "size" : "ret_future");
    status = tram__socket_take(loop, sock, SOCK_STREAM);
    if (status)
        return status;
    struct peek *peek;
    status = tram__future_new(loop, &future_kind, sizeof *peek + size, &peek);
    if (status)
        return status;
    peek->capacity = size;
    peek->peeked.data = peek->bytes;
    peek->deadline.expire = expired;
    status = begin(peek, loop, sock, timeout_ns);
    if (status) {
        tram__future_drop(&peek->future);
        return status;
    }
    loop_add_close_hook(loop, &peek->hook, hook_ending);
    *ret_future = tram_future_hold(&peek->future);
    return 0;
}
