/*
 * An operation on a socket of the user's: try, wait for the descriptor, try again. The operation is its own future.
 * sock.c, sock/connect.c and sock/sendfile.c are kinds of it.
 */
#ifndef TRAM_TRANSPORTS_SOCK_OP_H
#define TRAM_TRANSPORTS_SOCK_OP_H

#include "core/jobs/future.h"
#include "core/loop/watch.h"

struct sock_op;

/* What an attempt came to; or a negative code: it failed. */
enum sock_outcome {
    SOCK_DONE,      /* with *ret_value */
    SOCK_WAIT,      /* try again when the descriptor is ready */
    SOCK_BACKOFF,   /* … after a while: the kernel will not tell */
    SOCK_SUSPENDED, /* … when tram__sock_op_go() is called */
};

struct sock_op_kind {
    struct future_kind future; /* first; cancel is tram__sock_op_cancel */
    enum io_event direction;
    int (*attempt)(struct sock_op *op, void **ret_value);
    void (*end)(struct sock_op *op); /* lets go of what only a pending operation needs; may be NULL */
};

struct sock_op {
    tram_future future;
    struct close_hook hook;
    struct watcher watcher;
    struct deadline deadline; /* of SOCK_BACKOFF, or of the next look whether the descriptor is still there */
    uint64_t backoff_ns;      /* until then */
    bool retrying;            /* it is that of SOCK_BACKOFF */
    int fd;
};

/*
 * A new operation of `size` bytes, the rest zeroed; nothing is tried yet. Fails with what tram/sock.h says. On failure
 * `ret_future` is not touched.
 */
int tram__sock_op_new(tram_loop *loop, int fd, const struct sock_op_kind *kind, size_t size, tram_future **ret_future,
                      void *ret_op);

/* Tries. The operation may be gone afterwards. */
void tram__sock_op_go(struct sock_op *op);

/* Ends it with an error. */
void tram__sock_op_fail(struct sock_op *op, const tram_error *error);

void tram__sock_op_cancel(tram_future *future);

/* -errno, or SOCK_WAIT where a system call only has to be repeated when the descriptor is ready. */
int tram__sock_outcome(int error);

/* A number as a future's value. */
static inline void *sock_count(uint64_t count) {
    return (void *)(uintptr_t)count;
}

#endif
