/*
 * The system-call table: every call that a loop makes on descriptors goes through it, so that faults can be
 * injected. Same signatures and errno convention as the C library. One constant table is the real one; a loop
 * has a pointer.
 */
#ifndef TRAM_CORE_SYSTEM_SYS_H
#define TRAM_CORE_SYSTEM_SYS_H

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

struct sys {
    int (*socket)(int family, int type, int protocol);
    int (*bind)(int fd, const struct sockaddr *address, socklen_t size);
    int (*listen)(int fd, int backlog);
    int (*connect)(int fd, const struct sockaddr *address, socklen_t size);
    int (*accept4)(int fd, struct sockaddr *address, socklen_t *size, int flags);
    ssize_t (*recv)(int fd, void *data, size_t size, int flags);
    ssize_t (*recvfrom)(int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *address_size);
    ssize_t (*recvmsg)(int fd, struct msghdr *message, int flags);
    ssize_t (*send)(int fd, const void *data, size_t size, int flags);
    ssize_t (*sendto)(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                      socklen_t address_size);
    ssize_t (*sendfile)(int fd, int file, off_t *offset, size_t size);
    ssize_t (*splice)(int in, off_t *in_offset, int out, off_t *out_offset, size_t size, unsigned flags);
    ssize_t (*sendmsg)(int fd, const struct msghdr *message, int flags);
    int (*recvmmsg)(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout);
    int (*sendmmsg)(int fd, struct mmsghdr *messages, unsigned count, int flags);
    int (*shutdown)(int fd, int how);
    int (*getsockopt)(int fd, int level, int name, void *value, socklen_t *size);
    int (*setsockopt)(int fd, int level, int name, const void *value, socklen_t size);
    int (*getsockname)(int fd, struct sockaddr *address, socklen_t *size);
    int (*getpeername)(int fd, struct sockaddr *address, socklen_t *size);
    int (*fcntl)(int fd, int command, int value);
    int (*close)(int fd);
    int (*stat)(const char *path, struct stat *ret_stat);
    int (*unlink)(const char *path);
    ssize_t (*read)(int fd, void *data, size_t size);
    off_t (*lseek)(int fd, off_t offset, int whence);
    ssize_t (*write)(int fd, const void *data, size_t size);
    ssize_t (*writev)(int fd, const struct iovec *pieces, int count);
    ssize_t (*pwritev2)(int fd, const struct iovec *pieces, int count, off_t offset, int flags);
    int (*fstat)(int fd, struct stat *ret_status);
    int (*open)(const char *path, int flags);
    int (*faccessat)(int directory, const char *path, int mode, int flags);
    int (*pipe2)(int ret_fds[2], int flags);
    int (*poll)(struct pollfd *fds, nfds_t count, int timeout_ms);
    int (*posix_spawn)(pid_t *ret_pid, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const argv[], char *const env[]);
    int (*pidfd_open)(pid_t pid, unsigned flags);
    int (*pidfd_send_signal)(int pidfd, int signal_number, siginfo_t *info, unsigned flags);
    int (*waitid)(idtype_t type, id_t id, siginfo_t *ret_info, int options);
    int (*kill)(pid_t pid, int signal_number);
    int (*epoll_create1)(int flags);
    int (*epoll_ctl)(int epoll, int operation, int fd, struct epoll_event *event);
    int (*epoll_wait)(int epoll, struct epoll_event *events, int count, int timeout_ms);
    int (*epoll_pwait2)(int epoll, struct epoll_event *events, int count, const struct timespec *timeout);
    int (*eventfd)(unsigned value, int flags);
    int (*clock_gettime)(clockid_t clock, struct timespec *ret_time);
};

extern const struct sys tram__sys;

#endif
