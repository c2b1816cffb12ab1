/*
 * Fault injection. Calls of a system-call table have no argument for a context, so the plan that they ask is the
 * process's one and only; loops without it never come here. The counters are atomics and nothing locks: the call that
 * wakes a loop may be made by any thread, and in a signal handler.
 */
#include "core/system/fault.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/base/memory.h"

enum { KIND_COUNT = TRAM_FAULT_EVENTFD + 1 };

/* What was ordered for one kind: calls first … first + count - 1. */
struct order {
    _Atomic uint64_t calls;
    _Atomic uint64_t first;
    _Atomic uint64_t count;
    _Atomic size_t at_most; /* bytes, where error is 0 */
    _Atomic int error;
};

struct tram_faults {
    struct sys sys;
    tram_allocator base;
    tram_allocator allocator;
    struct order orders[KIND_COUNT];
    _Atomic uint64_t injected;
    _Atomic size_t blocks;
    _Atomic size_t bytes;
};

static tram_faults *_Atomic the_plan;

static const char *const kind_names[KIND_COUNT] = {
    [TRAM_FAULT_ALLOCATE] = "allocate",
    [TRAM_FAULT_SOCKET] = "socket",
    [TRAM_FAULT_BIND] = "bind",
    [TRAM_FAULT_LISTEN] = "listen",
    [TRAM_FAULT_CONNECT] = "connect",
    [TRAM_FAULT_ACCEPT4] = "accept4",
    [TRAM_FAULT_RECV] = "recv",
    [TRAM_FAULT_RECVFROM] = "recvfrom",
    [TRAM_FAULT_RECVMSG] = "recvmsg",
    [TRAM_FAULT_RECVMMSG] = "recvmmsg",
    [TRAM_FAULT_SEND] = "send",
    [TRAM_FAULT_SENDTO] = "sendto",
    [TRAM_FAULT_SENDMSG] = "sendmsg",
    [TRAM_FAULT_SENDMMSG] = "sendmmsg",
    [TRAM_FAULT_SENDFILE] = "sendfile",
    [TRAM_FAULT_SPLICE] = "splice",
    [TRAM_FAULT_SHUTDOWN] = "shutdown",
    [TRAM_FAULT_GETSOCKOPT] = "getsockopt",
    [TRAM_FAULT_SETSOCKOPT] = "setsockopt",
    [TRAM_FAULT_GETSOCKNAME] = "getsockname",
    [TRAM_FAULT_GETPEERNAME] = "getpeername",
    [TRAM_FAULT_FCNTL] = "fcntl",
    [TRAM_FAULT_CLOSE] = "close",
    [TRAM_FAULT_READ] = "read",
    [TRAM_FAULT_WRITE] = "write",
    [TRAM_FAULT_WRITEV] = "writev",
    [TRAM_FAULT_PWRITEV2] = "pwritev2",
    [TRAM_FAULT_LSEEK] = "lseek",
    [TRAM_FAULT_OPEN] = "open",
    [TRAM_FAULT_STAT] = "stat",
    [TRAM_FAULT_FSTAT] = "fstat",
    [TRAM_FAULT_FACCESSAT] = "faccessat",
    [TRAM_FAULT_UNLINK] = "unlink",
    [TRAM_FAULT_PIPE2] = "pipe2",
    [TRAM_FAULT_POLL] = "poll",
    [TRAM_FAULT_POSIX_SPAWN] = "posix_spawn",
    [TRAM_FAULT_PIDFD_OPEN] = "pidfd_open",
    [TRAM_FAULT_PIDFD_SEND_SIGNAL] = "pidfd_send_signal",
    [TRAM_FAULT_WAITID] = "waitid",
    [TRAM_FAULT_KILL] = "kill",
    [TRAM_FAULT_EPOLL_CREATE1] = "epoll_create1",
    [TRAM_FAULT_EPOLL_CTL] = "epoll_ctl",
    [TRAM_FAULT_EPOLL_WAIT] = "epoll_wait",
    [TRAM_FAULT_EVENTFD] = "eventfd",
};

/* ---- Deciding ---- */

/* Counts a call. 0: it is left alone; its errno; or -1 and the bytes that it may move. */
static int decide(tram_faults *faults, tram_fault_kind kind, size_t *ret_at_most) {
    struct order *order = &faults->orders[kind];
    uint64_t number = atomic_fetch_add(&order->calls, 1);
    uint64_t first = atomic_load(&order->first);
    if (number < first || number - first >= atomic_load(&order->count))
        return 0;
    int error = atomic_load(&order->error);
    *ret_at_most = atomic_load(&order->at_most);
    if (!error)
        return -1;
    atomic_fetch_add(&faults->injected, 1);
    return error;
}

/* For calls that do not move bytes. */
static bool fails(tram_fault_kind kind) {
    size_t unused;
    int error = decide(atomic_load(&the_plan), kind, &unused);
    if (error <= 0)
        return false;
    errno = error;
    return true;
}

/* For calls that do: true if it fails, else *size may have become smaller. */
static bool fails_or_shrinks(tram_fault_kind kind, size_t *size) {
    tram_faults *faults = atomic_load(&the_plan);
    size_t at_most;
    int error = decide(faults, kind, &at_most);
    if (error < 0 && *size > at_most) {
        *size = at_most;
        atomic_fetch_add(&faults->injected, 1);
    }
    if (error <= 0)
        return false;
    errno = error;
    return true;
}

/* ---- The table ---- */

/* Calls that are made or fail. */
#define PLAIN(kind, result, name, parameters, arguments)                                                               \
    static result faulty_##name parameters {                                                                           \
        return fails(kind) ? -1 : tram__sys.name arguments;                                                            \
    }

PLAIN(TRAM_FAULT_SOCKET, int, socket, (int family, int type, int protocol), (family, type, protocol))
PLAIN(TRAM_FAULT_BIND, int, bind, (int fd, const struct sockaddr *address, socklen_t size), (fd, address, size))
PLAIN(TRAM_FAULT_LISTEN, int, listen, (int fd, int backlog), (fd, backlog))
PLAIN(TRAM_FAULT_ACCEPT4, int, accept4, (int fd, struct sockaddr *address, socklen_t *size, int flags),
      (fd, address, size, flags))
PLAIN(TRAM_FAULT_SHUTDOWN, int, shutdown, (int fd, int how), (fd, how))
PLAIN(TRAM_FAULT_GETSOCKOPT, int, getsockopt, (int fd, int level, int name, void *value, socklen_t *size),
      (fd, level, name, value, size))
PLAIN(TRAM_FAULT_SETSOCKOPT, int, setsockopt, (int fd, int level, int name, const void *value, socklen_t size),
      (fd, level, name, value, size))
PLAIN(TRAM_FAULT_GETSOCKNAME, int, getsockname, (int fd, struct sockaddr *address, socklen_t *size),
      (fd, address, size))
PLAIN(TRAM_FAULT_GETPEERNAME, int, getpeername, (int fd, struct sockaddr *address, socklen_t *size),
      (fd, address, size))
PLAIN(TRAM_FAULT_FCNTL, int, fcntl, (int fd, int command, int value), (fd, command, value))
PLAIN(TRAM_FAULT_EPOLL_CREATE1, int, epoll_create1, (int flags), (flags))
PLAIN(TRAM_FAULT_EPOLL_CTL, int, epoll_ctl, (int epoll, int operation, int fd, struct epoll_event *event),
      (epoll, operation, fd, event))
PLAIN(TRAM_FAULT_EPOLL_WAIT, int, epoll_wait, (int epoll, struct epoll_event *events, int count, int timeout_ms),
      (epoll, events, count, timeout_ms))
PLAIN(TRAM_FAULT_EPOLL_WAIT, int, epoll_pwait2,
      (int epoll, struct epoll_event *events, int count, const struct timespec *timeout),
      (epoll, events, count, timeout))
PLAIN(TRAM_FAULT_EVENTFD, int, eventfd, (unsigned value, int flags), (value, flags))
PLAIN(TRAM_FAULT_RECVMMSG, int, recvmmsg,
      (int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout),
      (fd, messages, count, flags, timeout))
PLAIN(TRAM_FAULT_SENDMMSG, int, sendmmsg, (int fd, struct mmsghdr *messages, unsigned count, int flags),
      (fd, messages, count, flags))
PLAIN(TRAM_FAULT_LSEEK, off_t, lseek, (int fd, off_t offset, int whence), (fd, offset, whence))
PLAIN(TRAM_FAULT_OPEN, int, open, (const char *path, int flags), (path, flags))
PLAIN(TRAM_FAULT_STAT, int, stat, (const char *path, struct stat *ret_stat), (path, ret_stat))
PLAIN(TRAM_FAULT_FSTAT, int, fstat, (int fd, struct stat *ret_status), (fd, ret_status))
PLAIN(TRAM_FAULT_FACCESSAT, int, faccessat, (int directory, const char *path, int mode, int flags),
      (directory, path, mode, flags))
PLAIN(TRAM_FAULT_UNLINK, int, unlink, (const char *path), (path))
PLAIN(TRAM_FAULT_PIPE2, int, pipe2, (int ret_fds[2], int flags), (ret_fds, flags))
PLAIN(TRAM_FAULT_POLL, int, poll, (struct pollfd * fds, nfds_t count, int timeout_ms), (fds, count, timeout_ms))
PLAIN(TRAM_FAULT_PIDFD_OPEN, int, pidfd_open, (pid_t pid, unsigned flags), (pid, flags))
PLAIN(TRAM_FAULT_PIDFD_SEND_SIGNAL, int, pidfd_send_signal,
      (int pidfd, int signal_number, siginfo_t *info, unsigned flags), (pidfd, signal_number, info, flags))
PLAIN(TRAM_FAULT_WAITID, int, waitid, (idtype_t type, id_t id, siginfo_t *ret_info, int options),
      (type, id, ret_info, options))
PLAIN(TRAM_FAULT_KILL, int, kill, (pid_t pid, int signal_number), (pid, signal_number))

/* Calls that move bytes between one piece of memory and a descriptor. */
#define MOVING(kind, name, parameters, arguments)                                                                      \
    static ssize_t faulty_##name parameters {                                                                          \
        return fails_or_shrinks(kind, &size) ? -1 : tram__sys.name arguments;                                          \
    }

MOVING(TRAM_FAULT_RECV, recv, (int fd, void *data, size_t size, int flags), (fd, data, size, flags))
MOVING(TRAM_FAULT_SEND, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags))
MOVING(TRAM_FAULT_READ, read, (int fd, void *data, size_t size), (fd, data, size))
MOVING(TRAM_FAULT_WRITE, write, (int fd, const void *data, size_t size), (fd, data, size))
MOVING(TRAM_FAULT_RECVFROM, recvfrom,
       (int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *address_size),
       (fd, data, size, flags, address, address_size))
MOVING(TRAM_FAULT_SENDTO, sendto,
       (int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t address_size),
       (fd, data, size, flags, address, address_size))
MOVING(TRAM_FAULT_SPLICE, splice, (int in, off_t *in_offset, int out, off_t *out_offset, size_t size, unsigned flags),
       (in, in_offset, out, out_offset, size, flags))
MOVING(TRAM_FAULT_SENDFILE, sendfile, (int fd, int file, off_t *offset, size_t size), (fd, file, offset, size))

/* The same pieces, cut where an order says so: how many are left, or -1 if the call fails. */
static int cut_pieces(tram_fault_kind kind, const struct iovec *pieces, size_t count, struct iovec *ret_pieces) {
    size_t size = 0, used = 0;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].iov_len;
    if (fails_or_shrinks(kind, &size))
        return -1;
    for (; used < count && used < IOV_MAX && size; used++) {
        ret_pieces[used] = pieces[used];
        ret_pieces[used].iov_len = MIN(ret_pieces[used].iov_len, size);
        size -= ret_pieces[used].iov_len;
    }
    return (int)used;
}

static ssize_t faulty_sendmsg(int fd, const struct msghdr *message, int flags) {
    struct iovec pieces[IOV_MAX];
    int count = cut_pieces(TRAM_FAULT_SENDMSG, message->msg_iov, message->msg_iovlen, pieces);
    struct msghdr cut = *message;
    cut.msg_iov = pieces;
    cut.msg_iovlen = (size_t)count;
    return count < 0 ? -1 : tram__sys.sendmsg(fd, &cut, flags);
}

static ssize_t faulty_recvmsg(int fd, struct msghdr *message, int flags) {
    struct iovec pieces[IOV_MAX], *given = message->msg_iov;
    size_t given_count = message->msg_iovlen;
    int count = cut_pieces(TRAM_FAULT_RECVMSG, given, given_count, pieces);
    if (count < 0)
        return -1;
    message->msg_iov = pieces;
    message->msg_iovlen = (size_t)count;
    ssize_t received = tram__sys.recvmsg(fd, message, flags);
    message->msg_iov = given;
    message->msg_iovlen = given_count;
    return received;
}

static ssize_t faulty_writev(int fd, const struct iovec *pieces, int count) {
    struct iovec cut[IOV_MAX];
    int left = cut_pieces(TRAM_FAULT_WRITEV, pieces, (size_t)count, cut);
    return left < 0 ? -1 : tram__sys.writev(fd, cut, left);
}

static ssize_t faulty_pwritev2(int fd, const struct iovec *pieces, int count, off_t offset, int flags) {
    struct iovec cut[IOV_MAX];
    int left = cut_pieces(TRAM_FAULT_PWRITEV2, pieces, (size_t)count, cut);
    return left < 0 ? -1 : tram__sys.pwritev2(fd, cut, left, offset, flags);
}

/* The one that returns its error. */
static int faulty_posix_spawn(pid_t *ret_pid, const char *path, const posix_spawn_file_actions_t *actions,
                              const posix_spawnattr_t *attributes, char *const argv[], char *const env[]) {
    if (fails(TRAM_FAULT_POSIX_SPAWN))
        return errno;
    return tram__sys.posix_spawn(ret_pid, path, actions, attributes, argv, env);
}

static int faulty_connect(int fd, const struct sockaddr *address, socklen_t size) {
    if (!fails(TRAM_FAULT_CONNECT))
        return tram__sys.connect(fd, address, size);
    int error = errno;
    if (error == EINTR)
        tram__sys.connect(fd, address, size);
    errno = error;
    return -1;
}

static int faulty_close(int fd) {
    bool failed = fails(TRAM_FAULT_CLOSE);
    int error = errno;
    int status = tram__sys.close(fd);
    if (!failed)
        return status;
    errno = error;
    return -1;
}

/* Only the clock is the real one: nobody expects it to fail. */
static void fill_table(struct sys *sys) {
    *sys = tram__sys;
    sys->socket = faulty_socket;
    sys->bind = faulty_bind;
    sys->listen = faulty_listen;
    sys->connect = faulty_connect;
    sys->accept4 = faulty_accept4;
    sys->recv = faulty_recv;
    sys->recvfrom = faulty_recvfrom;
    sys->recvmsg = faulty_recvmsg;
    sys->recvmmsg = faulty_recvmmsg;
    sys->send = faulty_send;
    sys->sendto = faulty_sendto;
    sys->sendmsg = faulty_sendmsg;
    sys->sendmmsg = faulty_sendmmsg;
    sys->sendfile = faulty_sendfile;
    sys->splice = faulty_splice;
    sys->shutdown = faulty_shutdown;
    sys->getsockopt = faulty_getsockopt;
    sys->setsockopt = faulty_setsockopt;
    sys->getsockname = faulty_getsockname;
    sys->getpeername = faulty_getpeername;
    sys->fcntl = faulty_fcntl;
    sys->close = faulty_close;
    sys->read = faulty_read;
    sys->write = faulty_write;
    sys->writev = faulty_writev;
    sys->pwritev2 = faulty_pwritev2;
    sys->lseek = faulty_lseek;
    sys->open = faulty_open;
    sys->stat = faulty_stat;
    sys->fstat = faulty_fstat;
    sys->faccessat = faulty_faccessat;
    sys->unlink = faulty_unlink;
    sys->pipe2 = faulty_pipe2;
    sys->poll = faulty_poll;
    sys->posix_spawn = faulty_posix_spawn;
    sys->pidfd_open = faulty_pidfd_open;
    sys->pidfd_send_signal = faulty_pidfd_send_signal;
    sys->waitid = faulty_waitid;
    sys->kill = faulty_kill;
    sys->epoll_create1 = faulty_epoll_create1;
    sys->epoll_ctl = faulty_epoll_ctl;
    sys->epoll_wait = faulty_epoll_wait;
    sys->epoll_pwait2 = faulty_epoll_pwait2;
    sys->eventfd = faulty_eventfd;
}

/* ---- Memory ---- */

static void *faulty_allocate(void *context, size_t size) {
    tram_faults *faults = context;
    size_t unused;
    if (decide(faults, TRAM_FAULT_ALLOCATE, &unused) > 0)
        return NULL;
    void *memory = memory_get(&faults->base, size);
    if (memory) {
        atomic_fetch_add(&faults->blocks, 1);
        atomic_fetch_add(&faults->bytes, size);
    }
    return memory;
}

static void counted_release(void *context, void *memory, size_t size) {
    tram_faults *faults = context;
    atomic_fetch_sub(&faults->blocks, 1);
    atomic_fetch_sub(&faults->bytes, size);
    memory_put(&faults->base, memory, size);
}

static void *lasting_allocate(void *context, size_t size) {
    (void)context;
    size_t unused;
    tram_faults *faults = atomic_load(&the_plan);
    if (faults && decide(faults, TRAM_FAULT_ALLOCATE, &unused) > 0)
        return NULL;
    return memory_get(&tram__memory_default, size);
}

static void lasting_release(void *context, void *memory, size_t size) {
    (void)context;
    memory_put(&tram__memory_default, memory, size);
}

/* ---- For loops ---- */

const struct sys *tram__faults_sys(const tram_faults *faults) {
    return faults ? &faults->sys : &tram__sys;
}

int tram__faults_allocator(const tram_loop_options *options, tram_allocator *ret_allocator) {
    if (options->faults && options->allocator)
        return tram__invalid("allocator");
    return tram__memory_choose(options->faults ? &options->faults->allocator : options->allocator, ret_allocator);
}

tram_allocator tram__faults_lasting(const tram_allocator *allocator) {
    if (allocator->allocate != faulty_allocate)
        return tram__memory_default;
    return (tram_allocator){.allocate = lasting_allocate, .release = lasting_release};
}

/* ---- The public face ---- */

const char *tram_fault_kind_name(tram_fault_kind kind) {
    return (unsigned)kind < KIND_COUNT ? kind_names[kind] : NULL;
}

int tram_faults_new(const tram_allocator *allocator, tram_faults **ret_faults) {
    tram_allocator base;
    int status = tram__memory_choose(allocator, &base);
    if (status)
        return status;
    tram_faults *faults = tram__memory_get_zero(&base, sizeof *faults), *none = NULL;
    if (!faults)
        return -ENOMEM;
    faults->base = base;
    faults->allocator = (tram_allocator){.allocate = faulty_allocate, .release = counted_release, .context = faults};
    fill_table(&faults->sys);
    if (!atomic_compare_exchange_strong(&the_plan, &none, faults)) {
        memory_put(&base, faults, sizeof *faults);
        return TRAM_ESTATE;
    }
    *ret_faults = faults;
    return 0;
}

void tram_faults_free(tram_faults *faults) {
    if (!faults)
        return;
    atomic_store(&the_plan, NULL);
    tram_allocator base = faults->base;
    memory_put(&base, faults, sizeof *faults);
}

/* The count goes last: until then no call meets half an order. */
static int give_order(tram_faults *faults, tram_fault_kind kind, uint64_t nth, uint64_t count, int error,
                      size_t at_most) {
    if ((unsigned)kind >= KIND_COUNT || !nth)
        return tram__invalid(nth ? "kind" : "nth");
    struct order *order = &faults->orders[kind];
    atomic_store(&order->count, 0);
    atomic_store(&order->first, atomic_load(&order->calls) + nth - 1);
    atomic_store(&order->error, error);
    atomic_store(&order->at_most, at_most);
    atomic_store(&order->count, count);
    return 0;
}

int tram_faults_fail(tram_faults *faults, tram_fault_kind kind, uint64_t nth, uint64_t count, int error) {
    return error > 0 ? give_order(faults, kind, nth, count, error, 0) : tram__invalid("error");
}

static bool moves_bytes(tram_fault_kind kind) {
    switch ((int)kind) {
    case TRAM_FAULT_RECV:
    case TRAM_FAULT_RECVFROM:
    case TRAM_FAULT_RECVMSG:
    case TRAM_FAULT_SEND:
    case TRAM_FAULT_SENDTO:
    case TRAM_FAULT_SENDMSG:
    case TRAM_FAULT_SENDFILE:
    case TRAM_FAULT_SPLICE:
    case TRAM_FAULT_READ:
    case TRAM_FAULT_WRITE:
    case TRAM_FAULT_WRITEV:
    case TRAM_FAULT_PWRITEV2:
        return true;
    default:
        return false;
    }
}

int tram_faults_shorten(tram_faults *faults, tram_fault_kind kind, uint64_t nth, uint64_t count, size_t size) {
    if (!moves_bytes(kind) || !size)
        return tram__invalid(size ? "kind" : "size");
    return give_order(faults, kind, nth, count, 0, size);
}

void tram_faults_reset(tram_faults *faults) {
    for (size_t i = 0; i < KIND_COUNT; i++) {
        atomic_store(&faults->orders[i].count, 0);
        atomic_store(&faults->orders[i].calls, 0);
    }
    atomic_store(&faults->injected, 0);
}

uint64_t tram_faults_calls(const tram_faults *faults, tram_fault_kind kind) {
    return (unsigned)kind < KIND_COUNT ? atomic_load(&faults->orders[kind].calls) : 0;
}

uint64_t tram_faults_injected(const tram_faults *faults) {
    return atomic_load(&faults->injected);
}

void tram_faults_memory(const tram_faults *faults, size_t *ret_blocks, size_t *ret_bytes) {
    if (ret_blocks)
        *ret_blocks = atomic_load(&faults->blocks);
    if (ret_bytes)
        *ret_bytes = atomic_load(&faults->bytes);
}
