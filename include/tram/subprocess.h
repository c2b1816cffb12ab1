/*
 * Subprocesses: loop.subprocess_exec and loop.subprocess_shell. Calls of the loop's thread.
 *
 * A subprocess is a transport of its own kind, with a pipe transport (tram/pipe.h) for each of the child's standard
 * descriptors that is a pipe. Its protocol hears (tram/protocol.h)
 *
 *     connection_made, then pipe_data_received*, pipe_connection_lost per pipe, process_exited, connection_lost,
 * released
 *
 * where process_exited may come before, between or after the others of the middle: to have all output wait for
 * pipe_connection_lost(1) too, or for connection_lost, which comes when everything has come to its end. A grandchild
 * that holds a pipe delays it without limit. pause_writing and resume_writing are those of the child's input. A failing
 * callback is reported and changes nothing.
 *
 * tram_transport_close() closes the pipes and kills the child if it runs, tram_transport_abort() drops unsent input
 * besides; the callbacks still follow. The only other calls of tram/transport.h for it are those of hold, protocol,
 * loop and extra info; the rest returns -ENOTSUP.
 *
 * Children are watched and reaped one by one, by pidfd: SIGCHLD stays the application's. Only where it is ignored, or
 * somebody else waits for any child, the exit status is lost: the returncode is 255 then, with a warning in the log.
 */
#ifndef TRAM_SUBPROCESS_H
#define TRAM_SUBPROCESS_H

#include <sys/types.h>

#include <tram/future.h>
#include <tram/transport.h>

TRAM_BEGIN_DECLS

/* What one of the child's standard descriptors is. */
typedef enum tram_stdio_kind {
    TRAM_STDIO_PIPE = 0,    /* a pipe to or from this process */
    TRAM_STDIO_INHERIT = 1, /* what this process has there */
    TRAM_STDIO_NULL = 2,    /* /dev/null */
    TRAM_STDIO_FD = 3,      /* the descriptor `fd`, which stays the caller's */
    TRAM_STDIO_OUTPUT = 4,  /* for the error only: the same as the output, whatever that is */
} tram_stdio_kind;

typedef struct tram_stdio {
    tram_stdio_kind kind;
    int fd;
    uintptr_t reserved[2]; /* must be 0 */
} tram_stdio;

/* Zero-initialise; zero means the default. */
typedef struct tram_subprocess_options {
    tram_stdio input;       /* descriptor 0 */
    tram_stdio output;      /* descriptor 1 */
    tram_stdio error;       /* descriptor 2 */
    const char *executable; /* the program to run where that is not argv[0], or the shell */
    const char *cwd;        /* the child's directory; NULL: this process's */
    const char *const *env; /* "NAME=value" …, NULL; NULL: this process's environment */
    bool new_session;       /* setsid() in the child */
    const int *pass_fds;    /* descriptors that the child inherits besides, with the same numbers: -EMFILE through the
                             * future for one that is not below the limit of open files */
    size_t pass_fd_count;
    tram_discard discard;  /* called with the factory's `arg` after the factory, where the call succeeds */
    uintptr_t reserved[7]; /* must be 0 */
} tram_subprocess_options;

/*
 * Starts a program, `argv` ending in NULL; argv[0] without a slash is looked for in the PATH of the child's
 * environment. After connection_made the future completes with the tram_transport *, which is borrowed: valid until
 * connection_lost.
 *
 * The child inherits no descriptors but 0, 1, 2 and pass_fds; no signal is blocked or ignored in it. The factory is
 * called at once and the child started within this call, which takes about a millisecond in which the loop stands
 * still: too little to be worth a thread's round trip.
 *
 * TRAM_EVALUE at once, and no future, for options without sense; -ENOMEM. Every other trouble comes through the future:
 * the factory's error; -ENOENT, -EACCES, -ENOEXEC, -E2BIG of the program; -ENOENT, -ENOTDIR … of the directory (the
 * error's detail names which); -EMFILE, -EAGAIN: no pipe, no process could be had. Cancelling the future before
 * connection_made kills the child, and completes when it is reaped. `ret_future` may be NULL.
 *
 * A loop that closes kills and reaps the children it still has; debug mode reports them.
 */
TRAM_API int tram_loop_subprocess_exec(tram_loop *loop, tram_protocol_factory factory, void *arg,
                                       const char *const *argv, const tram_subprocess_options *options,
                                       tram_future **ret_future);

/* The same for a command line, run by /bin/sh -c. */
TRAM_API int tram_loop_subprocess_shell(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *command,
                                        const tram_subprocess_options *options, tram_future **ret_future);

/* ---- The subprocess's transport; -ENOTSUP for any other ---- */

/* The child's process id (SubprocessTransport.get_pid). It may be another's once process_exited came. */
TRAM_API pid_t tram_transport_get_pid(const tram_transport *transport);

/*
 * How the child ended (SubprocessTransport.get_returncode): its exit status, or -n if signal n ended it. TRAM_ESTATE
 * until that is known.
 */
TRAM_API int tram_transport_get_returncode(const tram_transport *transport, int *ret_returncode);

/*
 * The transport of the pipe that is the child's descriptor 0 (for writing), 1 or 2 (for reading); NULL if that is no
 * pipe (SubprocessTransport.get_pipe_transport). Closing it is how the child's input ends. Valid as long as the
 * subprocess's transport; inert once its pipe_connection_lost came.
 */
TRAM_API tram_transport *tram_transport_get_pipe_transport(const tram_transport *transport, int fd);

/*
 * Signals the child (SubprocessTransport.send_signal, terminate: SIGTERM, kill: SIGKILL). -ESRCH if it is known to have
 * exited: nothing is sent, and its pid may be another's. TRAM_EVALUE: no such signal. -EPERM.
 */
TRAM_API int tram_transport_send_signal(tram_transport *transport, int signal_number);
TRAM_API int tram_transport_terminate(tram_transport *transport);
TRAM_API int tram_transport_kill(tram_transport *transport);

/* A view of the child, as get_extra_info("subprocess") gives it; not to be waited for or closed. */
typedef struct tram_subprocess {
    pid_t pid;
    int pidfd; /* -1 after the end */
    bool exited;
    int returncode; /* once it has exited */
    uintptr_t reserved[4];
} tram_subprocess;

TRAM_END_DECLS

#endif
