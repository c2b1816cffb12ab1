#include "core/jobs/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/invalid.h"

/* Where programs are looked for without a PATH. */
#define DEFAULT_PATH "/bin:/usr/bin"

/* ---- Ending ---- */

int tram__child_signal(const struct sys *sys, const struct child *child, int number) {
    if (child->exited)
        return -ESRCH;
    if (sys->pidfd_send_signal(child->pidfd, number, NULL, 0) == 0)
        return 0;
    return errno == EINVAL ? tram__invalid("signal_number") : -errno;
}

static void lost_sight(struct child *child, const char *why) {
    child->exited = true;
    child->unknown = why;
    child->returncode = CHILD_UNKNOWN;
}

#define REAPED "was reaped by somebody else"

bool tram__child_reap(const struct sys *sys, struct child *child) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    int status;
    do
        status = sys->waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG);
    while (status < 0 && errno == EINTR);
    if (status < 0) {
        lost_sight(child, REAPED);
    } else if (info.si_pid) {
        child->exited = true;
        child->returncode = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    }
    return child->exited;
}

void tram__child_end(const struct sys *sys, struct child *child) {
    if (child->exited)
        return;
    bool killed = sys->pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0) == 0;
    if (killed) {
        struct pollfd poll_fd = {.fd = child->pidfd, .events = POLLIN};
        while (sys->poll(&poll_fd, 1, TRAM_CHILD_DEATH_MS) < 0 && errno == EINTR)
            ;
    }
    if (!tram__child_reap(sys, child))
        lost_sight(child, killed ? "was killed and did not die in time" : "could not be killed and is left to itself");
}

/* ---- What the child finds ---- */

int tram__child_descriptor_limit(void) {
    long limit = sysconf(_SC_OPEN_MAX);
    return limit < 0 || limit > INT_MAX ? INT_MAX : (int)limit;
}

/*
 * The descriptors that become 0, 1 and 2 are numbered from 3 up while they are put in place, so that none is
 * overwritten before its turn, and below the limit, which may have been lowered since they were opened: posix_spawn
 * takes no others. `lifted` are the duplicates made for that, to be closed afterwards.
 */
static int lift(const struct sys *sys, const int stdio[3], int source[3], int lifted[3]) {
    int limit = tram__child_descriptor_limit();
    for (int i = 0; i < 3; i++) {
        source[i] = stdio[i];
        if (stdio[i] < 0 || (stdio[i] > 2 && stdio[i] < limit))
            continue;
        lifted[i] = source[i] = sys->fcntl(stdio[i], F_DUPFD_CLOEXEC, 3);
        if (lifted[i] < 0)
            return -errno;
    }
    return 0;
}

static int add_stdio(posix_spawn_file_actions_t *actions, const int source[3]) {
    int error = 0;
    for (int i = 0; i < 3 && !error; i++) {
        if (source[i] >= 0)
            error = posix_spawn_file_actions_adddup2(actions, source[i], i);
        else if (source[i] == CHILD_NULL)
            error = posix_spawn_file_actions_addopen(actions, i, "/dev/null", O_RDWR, 0);
        else if (source[i] == CHILD_JOIN)
            error = posix_spawn_file_actions_adddup2(actions, 1, i);
    }
    return error;
}

/* The smallest descriptor from `from` up that is passed on; -1: none. */
static int next_passed(const struct child_spec *spec, int from) {
    int next = -1;
    for (size_t i = 0; i < spec->pass_fd_count; i++) {
        int fd = spec->pass_fds[i];
        if (fd >= from && (next < 0 || fd < next))
            next = fd;
    }
    return next;
}

/* The largest up to `to`; there is one. */
static int previous_passed(const struct child_spec *spec, int to) {
    int previous = -1;
    for (size_t i = 0; i < spec->pass_fd_count; i++) {
        int fd = spec->pass_fds[i];
        if (fd <= to && fd > previous)
            previous = fd;
    }
    return previous;
}

/*
 * Closes all from 3 up but those that are passed on, which must not be closed on exec. They are moved together, from 3
 * up, the rest is closed, and they go back: as few actions as there are of them, whatever their numbers. In rising
 * order none is overwritten on the way down (the k-th is at least 3 + k), in falling order none on the way up.
 */
static int add_passed(posix_spawn_file_actions_t *actions, const struct child_spec *spec) {
    int error = 0, end = 3;
    for (int fd = 2; !error && (fd = next_passed(spec, fd + 1)) >= 0;)
        error = posix_spawn_file_actions_adddup2(actions, fd, end++);
    if (!error)
        error = posix_spawn_file_actions_addclosefrom_np(actions, end);
    for (int fd = INT_MAX, target = end - 1; !error && target >= 3; target--) {
        fd = previous_passed(spec, fd - 1);
        error = posix_spawn_file_actions_adddup2(actions, target, fd);
    }
    for (int target = 3; !error && target < end; target++)
        if (next_passed(spec, target) != target)
            error = posix_spawn_file_actions_addclose(actions, target);
    return error;
}

static int add_all(posix_spawn_file_actions_t *actions, const struct child_spec *spec, const int source[3], int cwd) {
    int error = cwd >= 0 ? posix_spawn_file_actions_addfchdir_np(actions, cwd) : 0;
    if (!error)
        error = add_stdio(actions, source);
    return error ? error : add_passed(actions, spec);
}

static int set_attributes(posix_spawnattr_t *attributes, const struct child_spec *spec) {
    sigset_t none, all;
    sigemptyset(&none);
    memset(&all, 0xff, sizeof all); /* sigfillset() would leave the C library's own two to be ignored */
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    if (spec->new_session)
        flags |= POSIX_SPAWN_SETSID;
    int error = posix_spawnattr_setflags(attributes, flags);
    if (!error)
        error = posix_spawnattr_setsigmask(attributes, &none);
    return error ? error : posix_spawnattr_setsigdefault(attributes, &all);
}

/* ---- Starting ---- */

struct launch {
    const struct sys *sys;
    const struct child_spec *spec;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int cwd; /* -1: stay */
    pid_t pid;
};

static int run(struct launch *launch, const char *path) {
    const struct child_spec *spec = launch->spec;
    char *const *argv = (char *const *)(uintptr_t)spec->argv;
    char *const *env = spec->env ? (char *const *)(uintptr_t)spec->env : environ;
    return launch->sys->posix_spawn(&launch->pid, path, &launch->actions, &launch->attributes, argv, env);
}

static const char *search_path(const struct child_spec *spec) {
    const char *const *env = spec->env ? spec->env : (const char *const *)environ;
    for (; *env; env++)
        if (strncmp(*env, "PATH=", 5) == 0)
            return *env + 5;
    return DEFAULT_PATH;
}

/* It is not the program's, nor its directory's: it would come again in every other one. */
static bool ends_search(int error) {
    return error == 0 || error == EAGAIN || error == ENOMEM || error == E2BIG;
}

/* Tries the directories in turn. What one of them has, but cannot be run, is remembered, and the search goes on. */
static int search(struct launch *launch, const char *name) {
    int directory_fd = launch->cwd >= 0 ? launch->cwd : AT_FDCWD, remembered = ENOENT;
    for (const char *directory = search_path(launch->spec), *end; directory; directory = *end ? end + 1 : NULL) {
        end = strchrnul(directory, ':');
        char path[4096];
        int length = snprintf(path, sizeof path, "%.*s%s%s", (int)(end - directory), directory,
                              end > directory ? "/" : "", name);
        /* Asking is cheaper than starting a child in vain. */
        int error = length >= (int)sizeof path                                ? ENAMETOOLONG
                    : launch->sys->faccessat(directory_fd, path, F_OK, 0) < 0 ? errno
                                                                              : run(launch, path);
        if (ends_search(error))
            return error;
        if (remembered == ENOENT && error != ENOTDIR)
            remembered = error;
    }
    return remembered;
}

/* Gets hold of a child that was started. Should that fail it is ended: nobody could ever wait for it. */
static int attach(const struct sys *sys, pid_t pid, struct child *ret_child) {
    *ret_child = (struct child){.pid = pid, .pidfd = sys->pidfd_open(pid, 0)};
    if (ret_child->pidfd >= 0)
        return 0;
    int status = -errno;
    if (status == -ESRCH) { /* reaped already: by the host, or because it ignores SIGCHLD */
        lost_sight(ret_child, REAPED);
        return 0;
    }
    siginfo_t info;
    sys->kill(pid, SIGKILL);
    while (sys->waitid(P_PID, (id_t)pid, &info, WEXITED) < 0 && errno == EINTR)
        ;
    return status;
}

static int fail(struct kept_error *ret_error, int code, const char *operation, const char *subject) {
    snprintf(ret_error->detail, sizeof ret_error->detail, "%s: %s", subject, tram_error_text(code));
    ret_error->error = (tram_error){.code = code, .operation = operation, .detail = ret_error->detail};
    return code;
}

static int spawn_prepared(struct launch *launch, const int source[3]) {
    const char *name = launch->spec->executable;
    int error = add_all(&launch->actions, launch->spec, source, launch->cwd);
    if (!error)
        error = set_attributes(&launch->attributes, launch->spec);
    if (error)
        return error;
    return strchr(name, '/') ? run(launch, name) : search(launch, name);
}

static int spawn(struct launch *launch, const int source[3]) {
    int error = posix_spawn_file_actions_init(&launch->actions);
    if (error)
        return error;
    error = posix_spawnattr_init(&launch->attributes);
    if (!error) {
        error = spawn_prepared(launch, source);
        posix_spawnattr_destroy(&launch->attributes);
    }
    posix_spawn_file_actions_destroy(&launch->actions);
    return error;
}

int tram__child_spawn(tram_loop *loop, const struct child_spec *spec, struct child *ret_child,
                      struct kept_error *ret_error) {
    const struct sys *sys = loop->sys;
    struct launch launch = {.sys = sys, .spec = spec, .cwd = -1};
    /* Opened here, so that a bad directory is not taken for a missing program. */
    if (spec->cwd && (launch.cwd = sys->open(spec->cwd, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        return fail(ret_error, -errno, "chdir", spec->cwd);
    int source[3], lifted[3] = {-1, -1, -1};
    int status = lift(sys, spec->stdio, source, lifted);
    if (!status)
        status = -spawn(&launch, source);
    for (int i = 0; i < 3; i++)
        if (lifted[i] >= 0)
            sys->close(lifted[i]);
    if (launch.cwd >= 0)
        sys->close(launch.cwd);
    if (!status)
        status = attach(sys, launch.pid, ret_child);
    return status ? fail(ret_error, status, "posix_spawn", spec->executable) : 0;
}
