/*
 * A backend: how a loop waits, and how what was asked in io.h is done. One table each; the loop calls it, and
 * io.c calls `change` when what an io wants and what the kernel was asked for differ.
 */
#ifndef TRAM_CORE_LOOP_POLLER_H
#define TRAM_CORE_LOOP_POLLER_H

#include "core/loop/io.h"

struct poller; /* the backend's own state */

struct poller_ops {
    const char *name;
    int (*open)(tram_loop *loop, struct poller **ret_poller);
    void (*close)(tram_loop *loop, struct poller *poller);
    int (*fd)(const struct poller *poller);

    /* Makes the kernel agree with io->wanted. 0 or -errno. */
    int (*change)(struct poller *poller, struct io *io);
    /* See tram__io_renew(). */
    int (*renew)(struct poller *poller, struct io *io);
    /* Makes the kernel forget the io. */
    void (*forget)(struct poller *poller, struct io *io);
    /* See io_try_send() and its like. */
    ssize_t (*try_send)(struct io *io, const void *data, size_t size);
    ssize_t (*try_send_pieces)(struct io *io, const struct iovec *pieces, size_t count);
    ssize_t (*try_send_datagrams)(struct io *io, const struct io_datagram *datagrams, size_t count);
    ssize_t (*try_send_descriptors)(struct io *io, const void *data, size_t size, const int *fds, size_t count);
    ssize_t (*try_send_range)(struct io *io, const struct io_range *range);

    /* Waits at most `timeout_ns` (negative: for ever) and collects; nothing runs yet. */
    void (*wait)(tram_loop *loop, struct poller *poller, int64_t timeout_ns);
    /* Serves what was collected. */
    void (*serve)(tram_loop *loop, struct poller *poller);
};

#endif
