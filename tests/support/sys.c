/*
 * The system calls of all tests, below whatever table a test puts on top: what the library asks of the kernel keeps
 * some rules whatever a test is about, and is interrupted by a signal once in a while.
 *
 * - What it opens is closed on exec.
 * - What it reads from or writes to does not block, and a peer that is gone raises no SIGPIPE.
 * - It closes nothing twice (support/close.c sees the C library's close only).
 * - It ends only the writing side of a connection, and switches options on, not off.
 * - It asks errno about failures only: after a call that succeeded it names one of the two that are believed most
 * readily, and after one that moved no bytes that it was interrupted, as if to be asked again.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "core/base/compiler.h"
#include "core/system/sys.h"
#include "support/files.h"
#include "support/support.h"
#include "support/waits.h"

extern const struct sys __real_tram__sys;
extern struct sys __wrap_tram__sys;
struct sys __wrap_tram__sys;

#define real __real_tram__sys

static void must(bool condition, const char *call, int fd, const char *what) {
    if (condition)
        return;
    fprintf(stderr, "%s of descriptor %d: %s\n", call, fd, what);
    abort();
}

/* Of descriptors as they are in every build, release asks alone: it doubles the system calls. */
#if defined(TRAM_ASAN) || defined(TRAM_TSAN)
#define ASKS false
#else
#define ASKS true
#endif

/* Nobody may wait in the kernel but for events: the descriptor is non-blocking, a file, or the call says so. */
static void must_not_block(const char *call, int fd, bool said) {
    if (said || !ASKS)
        return;
    int error = errno, flags = fcntl(fd, F_GETFL);
    struct stat about;
    must(flags < 0 || flags & O_NONBLOCK || (fstat(fd, &about) == 0 && S_ISREG(about.st_mode)), call, fd, "may block");
    errno = error;
}

static void must_not_raise(const char *call, int fd, int flags) {
    must(flags & MSG_NOSIGNAL, call, fd, "may raise SIGPIPE");
    must_not_block(call, fd, flags & MSG_DONTWAIT);
}

/* ---- Descriptor 0 ---- */

/*
 * world_setup() leaves it free, as it is in a daemon. It goes to what a test opens, or to a socket of the library's: to
 * its first, second or third one in turn, since only few know the pollers and wake-ups of loops.
 */
static atomic_uint worlds, spared;

static int elsewhere(int fd) {
    int other = real.fcntl(fd, F_DUPFD_CLOEXEC, 3);
    real.close(fd);
    return other;
}

static int no_socket(int fd) {
    return fd ? fd : elsewhere(fd);
}

static int a_socket(int fd) {
    if (fd || atomic_load(&spared) == 0)
        return fd;
    atomic_fetch_sub(&spared, 1);
    return elsewhere(fd);
}

/* ---- Interruptions ---- */

enum { CALLS = 32 };
static atomic_uint counts[CALLS];
static atomic_bool uninterrupted;

static atomic_int left_behind = EINTR; /* in errno, by a call that succeeds: EAGAIN in every other test */

void calls_begin(void) {
    atomic_store(&left_behind, atomic_load(&left_behind) == EINTR ? EAGAIN : EINTR);
    for (unsigned i = 0; i < CALLS; i++)
        atomic_store_explicit(&counts[i], 0, memory_order_relaxed);
    atomic_store_explicit(&uninterrupted, false, memory_order_relaxed);
    atomic_store(&spared, atomic_fetch_add(&worlds, 1) % 3);
}

void calls_uninterrupted(void) {
    atomic_store_explicit(&uninterrupted, true, memory_order_relaxed);
}

/* The second call of each kind in a test is interrupted, before it has done anything. */
static bool is_interrupted(unsigned kind) {
    bool second = atomic_fetch_add_explicit(&counts[kind], 1, memory_order_relaxed) == 1;
    if (!second || atomic_load_explicit(&uninterrupted, memory_order_relaxed))
        return false;
    errno = EINTR;
    return true;
}

/* A place is a kind. */
#define INTERRUPTED is_interrupted(__COUNTER__)

static ssize_t done(ssize_t result) {
    if (result >= 0)
        errno = atomic_load_explicit(&left_behind, memory_order_relaxed);
    return result;
}

/* What receives 0 bytes has met an end, and what sends them a datagram of none: nobody may take that for a failure. */
static ssize_t moved(ssize_t result) {
    done(result);
    if (result == 0)
        errno = EINTR;
    return result;
}

/* Calls of which nothing is asked. */
#define PLAIN(result, name, parameters, arguments)                                                                     \
    static result plain_##name parameters {                                                                            \
        return (result)done(real.name arguments);                                                                      \
    }

PLAIN(int, bind, (int fd, const struct sockaddr *address, socklen_t size), (fd, address, size))
PLAIN(int, listen, (int fd, int backlog), (fd, backlog))
PLAIN(int, connect, (int fd, const struct sockaddr *address, socklen_t size), (fd, address, size))
PLAIN(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *size), (fd, level, name, value, size))
PLAIN(int, getsockname, (int fd, struct sockaddr *address, socklen_t *size), (fd, address, size))
PLAIN(int, getpeername, (int fd, struct sockaddr *address, socklen_t *size), (fd, address, size))
PLAIN(off_t, lseek, (int fd, off_t offset, int whence), (fd, offset, whence))
PLAIN(int, stat, (const char *path, struct stat *ret_status), (path, ret_status))
PLAIN(int, fstat, (int fd, struct stat *ret_status), (fd, ret_status))
PLAIN(int, faccessat, (int directory, const char *path, int mode, int flags), (directory, path, mode, flags))
PLAIN(int, unlink, (const char *path), (path))
PLAIN(int, pidfd_open, (pid_t pid, unsigned flags), (pid, flags))
PLAIN(int, pidfd_send_signal, (int pidfd, int number, siginfo_t *info, unsigned flags), (pidfd, number, info, flags))
PLAIN(int, kill, (pid_t pid, int number), (pid, number))
PLAIN(int, epoll_ctl, (int epoll, int operation, int fd, struct epoll_event *event), (epoll, operation, fd, event))

/* ---- What makes descriptors ---- */

static int checked_socket(int family, int type, int protocol) {
    must(type & SOCK_CLOEXEC, "socket", -1, "not closed on exec");
    must(type & SOCK_NONBLOCK, "socket", -1, "blocks");
    return (int)done(a_socket(real.socket(family, type, protocol)));
}

static int checked_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    must(flags == (SOCK_CLOEXEC | SOCK_NONBLOCK), "accept4", fd, "the new one blocks or is not closed on exec");
    must_not_block("accept4", fd, false);
    return INTERRUPTED ? -1 : (int)done(a_socket(real.accept4(fd, address, size, flags)));
}

static int checked_open(const char *path, int flags) {
    must(flags & O_CLOEXEC, "open", -1, "not closed on exec");
    return (int)done(real.open(path, flags));
}

static int checked_pipe2(int ret_fds[2], int flags) {
    must(flags & O_CLOEXEC, "pipe2", -1, "not closed on exec");
    return (int)done(real.pipe2(ret_fds, flags));
}

static int checked_epoll_create1(int flags) {
    must(flags == EPOLL_CLOEXEC, "epoll_create1", -1, "not closed on exec");
    return (int)done(no_socket(real.epoll_create1(flags)));
}

static int checked_eventfd(unsigned value, int flags) {
    must(flags == (EFD_CLOEXEC | EFD_NONBLOCK), "eventfd", -1, "blocks or is not closed on exec");
    return (int)done(no_socket(real.eventfd(value, flags)));
}

static int checked_fcntl(int fd, int command, int value) {
    must(command != F_DUPFD, "fcntl", fd, "the copy is not closed on exec");
    return (int)done(real.fcntl(fd, command, value));
}

static int checked_close(int fd) {
    int status = real.close(fd);
    must(status == 0 || errno != EBADF || may_close_twice, "close", fd, "not open");
    return (int)done(status);
}

static int checked_setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    bool either = level == IPPROTO_IPV6 && name == IPV6_V6ONLY;
    int number = 1;
    if (size == sizeof number)
        memcpy(&number, value, sizeof number);
    must(number || either, "setsockopt", fd, "switches something off");
    return (int)done(real.setsockopt(fd, level, name, value, size));
}

static int checked_shutdown(int fd, int how) {
    must(how == SHUT_WR, "shutdown", fd, "of more than the writing side");
    return (int)done(real.shutdown(fd, how));
}

/* What the library opens by itself, as the tests do: files of the system's, and of TLS. */
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);

const char *file_asked_for, *file_in_its_place;

int __wrap_open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    must(flags & O_CLOEXEC, "open", -1, "not closed on exec");
    if (file_asked_for && strcmp(path, file_asked_for) == 0)
        path = file_in_its_place;
    return __real_open(path, flags, mode);
}

/* … and reads: files on other threads, whose reading may be interrupted as any other. */
ssize_t __real_read(int fd, void *data, size_t size);
ssize_t __wrap_read(int fd, void *data, size_t size);
ssize_t __real_pread(int fd, void *data, size_t size, off_t offset);
ssize_t __wrap_pread(int fd, void *data, size_t size, off_t offset);

static bool is_file_elsewhere(int fd) {
    struct stat about;
    return gettid() != getpid() && fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
}

ssize_t __wrap_read(int fd, void *data, size_t size) {
    return is_file_elsewhere(fd) && INTERRUPTED ? -1 : moved(__real_read(fd, data, size));
}

ssize_t __wrap_pread(int fd, void *data, size_t size, off_t offset) {
    return is_file_elsewhere(fd) && INTERRUPTED ? -1 : moved(__real_pread(fd, data, size, offset));
}

/* ---- What sends ---- */

static ssize_t checked_send(int fd, const void *data, size_t size, int flags) {
    must_not_raise("send", fd, flags);
    return INTERRUPTED ? -1 : moved(real.send(fd, data, size, flags));
}

static ssize_t checked_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                              socklen_t address_size) {
    must_not_raise("sendto", fd, flags);
    return INTERRUPTED ? -1 : moved(real.sendto(fd, data, size, flags, address, address_size));
}

static ssize_t checked_sendmsg(int fd, const struct msghdr *message, int flags) {
    must_not_raise("sendmsg", fd, flags);
    return INTERRUPTED ? -1 : moved(real.sendmsg(fd, message, flags));
}

static int checked_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    must_not_raise("sendmmsg", fd, flags);
    return INTERRUPTED ? -1 : (int)done(real.sendmmsg(fd, messages, count, flags));
}

static ssize_t checked_sendfile(int fd, int file, off_t *offset, size_t size) {
    must_not_block("sendfile", fd, false);
    return INTERRUPTED ? -1 : moved(real.sendfile(fd, file, offset, size));
}

static ssize_t checked_splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t size, unsigned flags) {
    must(flags & SPLICE_F_NONBLOCK, "splice", in, "may block at its pipe");
    must_not_block("splice", in, false);
    must_not_block("splice", out, false);
    return INTERRUPTED ? -1 : moved(real.splice(in, in_offset, out, out_offset, size, flags));
}

static ssize_t checked_write(int fd, const void *data, size_t size) {
    must_not_block("write", fd, false);
    return INTERRUPTED ? -1 : done(real.write(fd, data, size));
}

static ssize_t checked_writev(int fd, const struct iovec *pieces, int count) {
    must_not_block("writev", fd, false);
    return INTERRUPTED ? -1 : done(real.writev(fd, pieces, count));
}

static ssize_t checked_pwritev2(int fd, const struct iovec *pieces, int count, off_t offset, int flags) {
    must_not_block("pwritev2", fd, false);
    return INTERRUPTED ? -1 : done(real.pwritev2(fd, pieces, count, offset, flags));
}

/* ---- What receives ---- */

static ssize_t checked_recv(int fd, void *data, size_t size, int flags) {
    must_not_block("recv", fd, flags & MSG_DONTWAIT);
    return INTERRUPTED ? -1 : moved(real.recv(fd, data, size, flags));
}

static ssize_t checked_recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address,
                                socklen_t *address_size) {
    must_not_block("recvfrom", fd, flags & MSG_DONTWAIT);
    return INTERRUPTED ? -1 : moved(real.recvfrom(fd, data, size, flags, address, address_size));
}

static ssize_t checked_recvmsg(int fd, struct msghdr *message, int flags) {
    must_not_block("recvmsg", fd, flags & (MSG_DONTWAIT | MSG_ERRQUEUE));
    must(!message->msg_control || flags & (MSG_CMSG_CLOEXEC | MSG_ERRQUEUE), "recvmsg", fd,
         "what is passed is not closed on exec");
    return INTERRUPTED ? -1 : moved(real.recvmsg(fd, message, flags));
}

static int checked_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    must_not_block("recvmmsg", fd, flags & MSG_DONTWAIT);
    return INTERRUPTED ? -1 : (int)done(real.recvmmsg(fd, messages, count, flags, timeout));
}

static ssize_t checked_read(int fd, void *data, size_t size) {
    must_not_block("read", fd, false);
    return INTERRUPTED ? -1 : moved(real.read(fd, data, size));
}

/* ---- What waits ---- */

static int checked_epoll_wait(int epoll, struct epoll_event *events, int count, int timeout_ms) {
    waits_check();
    return (int)done(real.epoll_wait(epoll, events, count, timeout_ms));
}

static int checked_epoll_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *timeout) {
    waits_check();
    return (int)done(real.epoll_pwait2(epoll, events, count, timeout));
}

static int checked_poll(struct pollfd *fds, nfds_t count, int timeout_ms) {
    return count && INTERRUPTED ? -1 : (int)done(real.poll(fds, count, timeout_ms));
}

static int checked_waitid(idtype_t type, id_t id, siginfo_t *ret_info, int options) {
    must(options & WNOHANG || type == P_PID, "waitid", (int)id, "waits for a child");
    return INTERRUPTED ? -1 : (int)done(real.waitid(type, id, ret_info, options));
}

__attribute__((constructor(101))) static void make_table(void) {
    __wrap_tram__sys = real;
    struct sys *table = &__wrap_tram__sys;
    table->socket = checked_socket;
    table->accept4 = checked_accept4;
    table->open = checked_open;
    table->pipe2 = checked_pipe2;
    table->epoll_create1 = checked_epoll_create1;
    table->eventfd = checked_eventfd;
    table->fcntl = checked_fcntl;
    table->close = checked_close;
    table->setsockopt = checked_setsockopt;
    table->shutdown = checked_shutdown;
    table->send = checked_send;
    table->sendto = checked_sendto;
    table->sendmsg = checked_sendmsg;
    table->sendmmsg = checked_sendmmsg;
    table->sendfile = checked_sendfile;
    table->splice = checked_splice;
    table->write = checked_write;
    table->writev = checked_writev;
    table->pwritev2 = checked_pwritev2;
    table->recv = checked_recv;
    table->recvfrom = checked_recvfrom;
    table->recvmsg = checked_recvmsg;
    table->recvmmsg = checked_recvmmsg;
    table->read = checked_read;
    table->poll = checked_poll;
    table->waitid = checked_waitid;
    table->bind = plain_bind;
    table->listen = plain_listen;
    table->connect = plain_connect;
    table->getsockopt = plain_getsockopt;
    table->getsockname = plain_getsockname;
    table->getpeername = plain_getpeername;
    table->lseek = plain_lseek;
    table->stat = plain_stat;
    table->fstat = plain_fstat;
    table->faccessat = plain_faccessat;
    table->unlink = plain_unlink;
    table->pidfd_open = plain_pidfd_open;
    table->pidfd_send_signal = plain_pidfd_send_signal;
    table->kill = plain_kill;
    table->epoll_ctl = plain_epoll_ctl;
    table->epoll_wait = checked_epoll_wait;
    table->epoll_pwait2 = checked_epoll_pwait2;
}
