/*
 * Descriptors that go with bytes through a Unix socket (SCM_RIGHTS): the two system calls, for backends. See
 * io_descriptor_kind.
 */
#ifndef TRAM_CORE_BACKEND_DESCRIPTORS_H
#define TRAM_CORE_BACKEND_DESCRIPTORS_H

#include "core/base/limits.h"
#include "core/loop/io.h"

/* What came with one receive. */
struct descriptors {
    int fds[TRAM_DESCRIPTORS_MAX];
    size_t count;
    bool cut; /* there were more than there was room for */
};

/* As sendmsg and recvmsg, but -errno; the descriptors go with the first byte. Those that come are close-on-exec. */
ssize_t tram__descriptors_send(struct io *io, const struct iovec *pieces, size_t count, const int *fds,
                               size_t fd_count);
ssize_t tram__descriptors_receive(struct io *io, void *memory, size_t size, struct descriptors *ret_came);

#endif
