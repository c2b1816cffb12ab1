#include "core/system/sys.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/compiler.h"
#include "core/system/sigpipe.h"

/* glibc's prototypes use transparent unions and variadic arguments; these give them plain types. */
static int plain_bind(int fd, const struct sockaddr *address, socklen_t size) {
    return bind(fd, address, size);
}

static int plain_connect(int fd, const struct sockaddr *address, socklen_t size) {
    return connect(fd, address, size);
}

static ssize_t plain_recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address,
                              socklen_t *address_size) {
    return recvfrom(fd, data, size, flags, address, address_size);
}

static ssize_t plain_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                            socklen_t address_size) {
    return sendto(fd, data, size, flags, address, address_size);
}

static int plain_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    return recvmmsg(fd, messages, count, flags, timeout);
}

/* Of a call that sent less than it was to, SIGPIPE may have come all the same. */
static ssize_t sendfile_without_sigpipe(int fd, int file, off_t *offset, size_t size) {
    struct sigpipe_guard guard;
    sigpipe_block(&guard);
    ssize_t sent = sendfile(fd, file, offset, size);
    sigpipe_restore(&guard, sent < 0 ? errno == EPIPE : (size_t)sent < size);
    return sent;
}

static ssize_t plain_splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t size, unsigned flags) {
    return splice(in, in_offset, out, out_offset, size, flags);
}

static int plain_getsockname(int fd, struct sockaddr *address, socklen_t *size) {
    return getsockname(fd, address, size);
}

static int plain_getpeername(int fd, struct sockaddr *address, socklen_t *size) {
    return getpeername(fd, address, size);
}

static int plain_fcntl(int fd, int command, int value) {
    return fcntl(fd, command, value);
}

static int plain_epoll_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *timeout) {
    return epoll_pwait2(epoll, events, count, timeout, NULL);
}

static int plain_fstat(int fd, struct stat *ret_status) {
    return fstat(fd, ret_status);
}

static int plain_open(const char *path, int flags) {
    return open(path, flags);
}

static int plain_poll(struct pollfd *fds, nfds_t count, int timeout_ms) {
    return poll(fds, count, timeout_ms);
}

/* Newer than the C libraries that are still about. */
static int plain_pidfd_open(pid_t pid, unsigned flags) {
    return (int)syscall(SYS_pidfd_open, pid, flags);
}

static int plain_pidfd_send_signal(int pidfd, int signal_number, siginfo_t *info, unsigned flags) {
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal_number, info, flags);
}

/*
 * ---- The calls of every message and every connection: without the C library's cancellation points ----
 *
 * In a process with threads glibc surrounds recv, send, accept4, close and epoll_wait with two locked instructions
 * each, so that pthread_cancel() may end the thread inside them. tram's threads are never cancelled; a loop would pay
 * four locked instructions and some 90 others per echoed message for nothing (bench/counts shows it).
 *
 * Sanitizers learn of these calls through the C library, so they get its versions; so do other processors.
 */

#if !defined(TRAM_TSAN) && !defined(TRAM_ASAN) && (defined(__x86_64__) || defined(__aarch64__)) && defined(__LP64__)

/* The kernel's answer: a result, or -errno. */
static inline long direct_call(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
    return x0;
#endif
}

#define direct_call1(number, a)          direct_call(number, a, 0, 0, 0, 0, 0)
#define direct_call3(number, a, b, c)    direct_call(number, a, b, c, 0, 0, 0)
#define direct_call4(number, a, b, c, d) direct_call(number, a, b, c, d, 0, 0)

/* As the C library answers: -1 and errno. */
static inline long direct_result(long result) {
    if (likely((unsigned long)result < -4095ul))
        return result;
    errno = (int)-result;
    return -1;
}

static int quick_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    return (int)direct_result(direct_call4(SYS_accept4, fd, (long)address, (long)size, flags));
}

static ssize_t quick_recv(int fd, void *data, size_t size, int flags) {
    return direct_result(direct_call4(SYS_recvfrom, fd, (long)data, (long)size, flags));
}

static ssize_t quick_send(int fd, const void *data, size_t size, int flags) {
    return direct_result(direct_call4(SYS_sendto, fd, (long)data, (long)size, flags));
}

static ssize_t quick_sendmsg(int fd, const struct msghdr *message, int flags) {
    return direct_result(direct_call3(SYS_sendmsg, fd, (long)message, flags));
}

static int quick_close(int fd) {
    return (int)direct_result(direct_call1(SYS_close, fd));
}

static int quick_epoll_wait(int epoll, struct epoll_event *events, int count, int timeout_ms) {
    /* There is no epoll_wait on every processor; without a mask epoll_pwait is the same. */
    return (int)direct_result(direct_call(SYS_epoll_pwait, epoll, (long)events, count, timeout_ms, 0, 8));
}

#else

static int quick_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
    return accept4(fd, address, size, flags);
}

#define quick_recv       recv
#define quick_send       send
#define quick_sendmsg    sendmsg
#define quick_close      close
#define quick_epoll_wait epoll_wait

#endif

const struct sys tram__sys = {
    .socket = socket,
    .bind = plain_bind,
    .listen = listen,
    .connect = plain_connect,
    .accept4 = quick_accept4,
    .recv = quick_recv,
    .recvfrom = plain_recvfrom,
    .recvmsg = recvmsg,
    .send = quick_send,
    .sendto = plain_sendto,
    .sendfile = sendfile_without_sigpipe,
    .splice = plain_splice,
    .sendmsg = quick_sendmsg,
    .recvmmsg = plain_recvmmsg,
    .sendmmsg = sendmmsg,
    .shutdown = shutdown,
    .getsockopt = getsockopt,
    .setsockopt = setsockopt,
    .getsockname = plain_getsockname,
    .getpeername = plain_getpeername,
    .fcntl = plain_fcntl,
    .close = quick_close,
    .stat = stat,
    .unlink = unlink,
    .read = read,
    .lseek = lseek,
    .write = write,
    .writev = writev,
    .pwritev2 = pwritev2,
    .fstat = plain_fstat,
    .open = plain_open,
    .faccessat = faccessat,
    .pipe2 = pipe2,
    .poll = plain_poll,
    .posix_spawn = posix_spawn,
    .pidfd_open = plain_pidfd_open,
    .pidfd_send_signal = plain_pidfd_send_signal,
    .waitid = waitid,
    .kill = kill,
    .epoll_create1 = epoll_create1,
    .epoll_ctl = epoll_ctl,
    .epoll_wait = quick_epoll_wait,
    .epoll_pwait2 = plain_epoll_pwait2,
    .eventfd = eventfd,
    .clock_gettime = clock_gettime,
};
