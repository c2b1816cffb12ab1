/*
 * Child processes: started by posix_spawn, known by a pidfd, reaped one by one. Nothing here touches SIGCHLD or waits
 * for children of somebody else (Z-15), so any number of loops and the host may each have children of their own.
 *
 * The pidfd polls readable when the child has exited. Who watches it is the caller's business.
 */
#ifndef TRAM_CORE_JOBS_CHILD_H
#define TRAM_CORE_JOBS_CHILD_H

#include "core/loop/loop.h"

/* What becomes the child's descriptors 0, 1 and 2, besides a descriptor of ours. */
enum child_stdio {
    CHILD_INHERIT = -1, /* what this process has there */
    CHILD_NULL = -2,    /* the null device */
    CHILD_JOIN = -3,    /* for 2 only: the same as 1 */
};

struct child_spec {
    const char *const *argv;
    const char *executable; /* with a slash a path, else searched on the PATH of the child's environment */
    const char *const *env; /* NULL: this process's */
    const char *cwd;        /* NULL: this process's */
    int stdio[3];           /* a descriptor, or enum child_stdio */
    const int *pass_fds;    /* which keep their numbers; all others from 3 up are closed */
    size_t pass_fd_count;
    bool new_session;
};

struct child {
    pid_t pid;
    int pidfd; /* -1: gone before we could get hold of it. The owner closes it. */
    bool exited;
    const char *unknown; /* why its status is not known (Z-16, Z-23); NULL: it is */
    int returncode;
};

/* Descriptors that are passed on must be below it: the limit of open files, as it is now. */
int tram__child_descriptor_limit(void);

/* The returncode of a child whose status is not known. */
#define CHILD_UNKNOWN 255

/*
 * Starts a program. The calling thread waits until the child has left it for the program: about a millisecond. The
 * child's signal mask is empty and all its signals have their default action (Z-18). On failure there is no child, no
 * zombie and no descriptor; `ret_error` says more.
 */
int tram__child_spawn(tram_loop *loop, const struct child_spec *spec, struct child *ret_child,
                      struct kept_error *ret_error);

/* 0; -ESRCH once it is known to have exited; TRAM_EVALUE: no such signal; -EPERM. */
int tram__child_signal(const struct sys *sys, const struct child *child, int number);

/* Has it exited? Then it is reaped, and `exited` and `returncode` are set. Never blocks. */
bool tram__child_reap(const struct sys *sys, struct child *child);

/* Kills and reaps it, here and now; gives up on one that does not die within a second. */
void tram__child_end(const struct sys *sys, struct child *child);

#endif
