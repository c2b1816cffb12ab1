#include "transports/sock/op.h"

#include <errno.h>
#include <fcntl.h>

#include "core/base/invalid.h"

static tram_loop *loop_of(const struct sock_op *op) {
    return op->future.loop;
}

static const struct sock_op_kind *kind_of(const struct sock_op *op) {
    return (const struct sock_op_kind *)op->future.kind;
}

/* ---- Ending ---- */

/* Withdraws all registrations; the future is left to be completed. */
static void cancel_pending(struct sock_op *op) {
    list_remove(&op->hook.link);
    tram__watcher_stop(&op->watcher);
    deadline_cancel(loop_of(op), &op->deadline);
    if (kind_of(op)->end)
        kind_of(op)->end(op);
}

void tram__sock_op_fail(struct sock_op *op, const tram_error *error) {
    cancel_pending(op);
    tram__future_fail(&op->future, error);
    tram__future_drop(&op->future);
}

static void fail_code(struct sock_op *op, int code) {
    cancel_pending(op);
    tram__future_fail_code(&op->future, code, op->future.kind->name);
    tram__future_drop(&op->future);
}

void tram__sock_op_cancel(tram_future *future) {
    struct sock_op *op = (struct sock_op *)future;
    cancel_pending(op);
    tram__future_finish_cancelled(future);
    tram__future_drop(future);
}

static void op_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending >= IO_SHUTDOWN_CLOSE)
        tram__sock_op_cancel(&container_of(hook, struct sock_op, hook)->future);
}

/* ---- Waiting ---- */

int tram__sock_outcome(int error) {
    return error == EAGAIN || error == EINTR ? (int)SOCK_WAIT : -error;
}

/* -ENOMEM is no failure here: the operation waits all the same. */
static void start_deadline(struct sock_op *op, uint64_t longest_ns) {
    tram_loop *loop = loop_of(op);
    deadline_cancel(loop, &op->deadline);
    tram__deadline_start_after(loop, &op->deadline, op->backoff_ns);
    if (op->backoff_ns < longest_ns)
        op->backoff_ns *= 2;
}

static void wait_ready(struct sock_op *op) {
    if (op->watcher.watch)
        return;
    int status = tram__watcher_start(&op->watcher, loop_of(op), op->fd);
    if (status) {
        fail_code(op, status);
        return;
    }
    op->backoff_ns = TRAM_SOCK_LOOK_NS;
    start_deadline(op, TRAM_SOCK_LOOK_MAX_NS);
}

void tram__sock_op_go(struct sock_op *op) {
    void *value = NULL;
    int outcome = kind_of(op)->attempt(op, &value);
    op->retrying = outcome == SOCK_BACKOFF;
    switch (outcome) {
    case SOCK_DONE:
        cancel_pending(op);
        tram__future_finish(&op->future, value);
        tram__future_drop(&op->future);
        break;
    case SOCK_WAIT:
        wait_ready(op);
        break;
    case SOCK_BACKOFF:
    case SOCK_SUSPENDED:
        tram__watcher_stop(&op->watcher);
        if (op->retrying)
            start_deadline(op, TRAM_SOCK_BACKOFF_MAX_NS);
        else
            deadline_cancel(loop_of(op), &op->deadline);
        break;
    default:
        fail_code(op, outcome);
    }
}

static void op_ready(struct watcher *watcher) {
    tram__sock_op_go(container_of(watcher, struct sock_op, watcher));
}

/* The loop that closes ends its operations itself. */
static void op_gone(struct watcher *watcher) {
    struct sock_op *op = container_of(watcher, struct sock_op, watcher);
    if (!loop_of(op)->closing)
        fail_code(op, -EBADF);
}

/*
 * The kernel does not tell that a descriptor was closed, so a waiting operation looks now and then, ever more seldom
 * (O-15).
 */
static void op_expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct sock_op *op = container_of(deadline, struct sock_op, deadline);
    if (op->retrying) {
        tram__sock_op_go(op);
        return;
    }
    tram__future_hold(&op->future);
    tram__watcher_check(&op->watcher);
    if (op->watcher.watch)
        start_deadline(op, TRAM_SOCK_LOOK_MAX_NS);
    tram__future_drop(&op->future);
}

/* ---- Beginning ---- */

static int check_socket(const tram_loop *loop, int fd) {
    if (fd < 0)
        return -EBADF;
    if (tram__descriptor_owned(loop, fd))
        return TRAM_ESTATE;
    if (likely(!loop->debug))
        return 0;
    int flags = loop->sys->fcntl(fd, F_GETFL, 0);
    if (flags < 0)
        return -errno;
    return flags & O_NONBLOCK ? 0 : tram__invalid("fd");
}

int tram__sock_op_new(tram_loop *loop, int fd, const struct sock_op_kind *kind, size_t size, tram_future **ret_future,
                      void *ret_op) {
    int status = check_socket(loop, fd);
    if (status)
        return status;
    struct sock_op *op;
    status = tram__future_new(loop, &kind->future, size, &op);
    if (status)
        return status;
    op->fd = fd;
    op->watcher = (struct watcher){.ready = op_ready, .gone = op_gone, .direction = kind->direction};
    op->deadline.expire = op_expired;
    op->backoff_ns = TRAM_SOCK_BACKOFF_NS;
    loop_add_close_hook(loop, &op->hook, op_ending);
    if (ret_future)
        *ret_future = tram_future_hold(&op->future);
    *(struct sock_op **)ret_op = op;
    return 0;
}
