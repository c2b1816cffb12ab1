/*
 * Faults on order: for tests of what a program does when the system fails it.
 *
 * A plan counts the system calls and allocations of the loops it was given to (tram_loop_options.faults) and makes
 * chosen ones fail, with the error of your choice, or move fewer bytes than they could. A test lets the first call of a
 * kind fail, then the second, and so on until a run comes through untouched: then every one of them has failed once.
 *
 *     tram_faults *faults;
 *     tram_faults_new(NULL, &faults);
 *     tram_loop_options options = {.faults = faults};
 *     for (uint64_t n = 1;; n++) {
 *         tram_faults_reset(faults);
 *         tram_faults_fail(faults, TRAM_FAULT_RECV, n, 1, ECONNRESET);
 *         scenario(&options);
 *         if (!tram_faults_injected(faults))
 *             break;
 *     }
 *     tram_faults_free(faults);
 *
 * Loops without a plan do not pay for this: they have another table of system calls. Calls that loops do not make by
 * themselves (the resolver's, the start of a thread, the clock) are not counted and do not fail.
 *
 * Every function here may be called from any thread.
 */
#ifndef TRAM_FAULT_H
#define TRAM_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#include <tram/loop.h>

TRAM_BEGIN_DECLS

/* What can fail. Later versions add to the end. */
typedef enum tram_fault_kind {
    TRAM_FAULT_ALLOCATE,
    TRAM_FAULT_SOCKET,
    TRAM_FAULT_BIND,
    TRAM_FAULT_LISTEN,
    TRAM_FAULT_CONNECT, /* EINTR: the connecting goes on, as in the kernel */
    TRAM_FAULT_ACCEPT4,
    TRAM_FAULT_RECV,
    TRAM_FAULT_RECVFROM,
    TRAM_FAULT_RECVMSG,
    TRAM_FAULT_RECVMMSG,
    TRAM_FAULT_SEND,
    TRAM_FAULT_SENDTO,
    TRAM_FAULT_SENDMSG,
    TRAM_FAULT_SENDMMSG,
    TRAM_FAULT_SENDFILE,
    TRAM_FAULT_SPLICE,
    TRAM_FAULT_SHUTDOWN,
    TRAM_FAULT_GETSOCKOPT,
    TRAM_FAULT_SETSOCKOPT,
    TRAM_FAULT_GETSOCKNAME,
    TRAM_FAULT_GETPEERNAME,
    TRAM_FAULT_FCNTL,
    TRAM_FAULT_CLOSE, /* whatever the error, the descriptor is closed, as in the kernel */
    TRAM_FAULT_READ,
    TRAM_FAULT_WRITE,
    TRAM_FAULT_WRITEV,
    TRAM_FAULT_PWRITEV2,
    TRAM_FAULT_LSEEK,
    TRAM_FAULT_OPEN,
    TRAM_FAULT_STAT,
    TRAM_FAULT_FSTAT,
    TRAM_FAULT_FACCESSAT,
    TRAM_FAULT_UNLINK,
    TRAM_FAULT_PIPE2,
    TRAM_FAULT_POLL,
    TRAM_FAULT_POSIX_SPAWN,
    TRAM_FAULT_PIDFD_OPEN,
    TRAM_FAULT_PIDFD_SEND_SIGNAL,
    TRAM_FAULT_WAITID,
    TRAM_FAULT_KILL,
    TRAM_FAULT_EPOLL_CREATE1,
    TRAM_FAULT_EPOLL_CTL,
    TRAM_FAULT_EPOLL_WAIT, /* and epoll_pwait2 */
    TRAM_FAULT_EVENTFD,
} tram_fault_kind;

/* "recv", "allocate"; NULL behind the last kind. */
TRAM_API const char *tram_fault_kind_name(tram_fault_kind kind);

/*
 * A plan in which nothing fails. Memory of its loops comes from `allocator` (copied; NULL: the default). A process has
 * one plan at a time: a system call has no argument that could tell two apart. TRAM_ESTATE if there is one, -ENOMEM,
 * TRAM_EVALUE.
 */
TRAM_API int tram_faults_new(const tram_allocator *allocator, tram_faults **ret_faults);

/* Frees the plan, after all its loops and runtimes. NULL is allowed. */
TRAM_API void tram_faults_free(tram_faults *faults);

/* As many calls as will ever be made. */
#define TRAM_FAULT_ALWAYS UINT64_MAX

/*
 * The `nth` call of the kind from now (1: the next) and the `count` - 1 after it fail with `error`, an errno; an
 * allocation gives NULL, whatever the error. Apart from the two exceptions above the call is not made at all, so choose
 * errors that the kernel knows for it. Replaces what was ordered for the kind before; count 0: nothing any more.
 * TRAM_EVALUE: an unknown kind, nth 0, an error that is not positive.
 */
TRAM_API int tram_faults_fail(tram_faults *faults, tram_fault_kind kind, uint64_t nth, uint64_t count, int error);

/*
 * The same, but these calls succeed with at most `size` bytes. For calls that move bytes by one
 * size or by pieces: recv, recvfrom, send, sendto, sendmsg, sendfile, read, write, writev, pwritev2. TRAM_EVALUE for
 * others, and for size 0. Only a call that asked for more counts as injected.
 */
TRAM_API int tram_faults_shorten(tram_faults *faults, tram_fault_kind kind, uint64_t nth, uint64_t count, size_t size);

/* Forgets all orders and sets the counters below to 0; what is allocated stays counted. */
TRAM_API void tram_faults_reset(tram_faults *faults);

/* How many calls of the kind were made, failed ones included. */
TRAM_API uint64_t tram_faults_calls(const tram_faults *faults, tram_fault_kind kind);

/* How many calls of all kinds were made to fail or shortened. */
TRAM_API uint64_t tram_faults_injected(const tram_faults *faults);

/* What the loops have allocated and not released: 0 after the last of them was freed. Each pointer may be NULL. */
TRAM_API void tram_faults_memory(const tram_faults *faults, size_t *ret_blocks, size_t *ret_bytes);

TRAM_END_DECLS

#endif
