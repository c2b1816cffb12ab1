/*
 * Listening sockets that outlive a process: handed to the one that comes after it, or passed by systemd. The queues of
 * the sockets go along, so a restart costs no client its connection.
 *
 * The new process, at its start, with nothing else to do:
 *
 *     tram_listener found[64];
 *     int link, sockets[64], count = tram_listeners_activated(found, 64, true);
 *     if (!count) count = tram_listeners_inherit(path, size, NULL, found, 64, &link);
 *     options.socket_count = tram_listeners_take(found, count, "http", sockets);    make a server of them, and then
 *     tram_listeners_ready(link, 0);              the old process stops accepting, as soon as this one accepts
 *     tram_runtime_offer_listeners(runtime, path, size, …);                         for the next one
 *
 * If the new process dies, or gives up by closing the link, the old one goes on as if nothing had been.
 */
#ifndef TRAM_INHERIT_H
#define TRAM_INHERIT_H

#include <sys/types.h>

#include <tram/runtime.h>

TRAM_BEGIN_DECLS

/* ---- Receiving: any thread ---- */

#define TRAM_LISTENER_NAME_SIZE 256

/* A listening stream socket that was passed to this process; close-on-exec. The caller's to use or to close. */
typedef struct tram_listener {
    int fd;                             /* -1: it was taken */
    char name[TRAM_LISTENER_NAME_SIZE]; /* which of the servers it is for */
    tram_socket_address address;        /* what it is bound to */
    uintptr_t reserved[4];
} tram_listener;

/*
 * The sockets that systemd, or who does it the same way, passed to this process (sd_listen_fds: LISTEN_PID, LISTEN_FDS,
 * LISTEN_FDNAMES). Fills `ret_listeners`, which has room for `capacity`, and returns how many there are; 0: none were
 * passed, or not to this process. Without names all are called "unknown". `unset` removes the variables, so that no
 * child takes them for its own; no other thread may use the environment meanwhile.
 *
 * TRAM_EVALUE: the variables make no sense; TRAM_ELIMIT: more than `capacity`; TRAM_ETYPE: one of them is no listening
 * stream socket; -EBADF: not there. The sockets stay open then.
 */
TRAM_API int tram_listeners_activated(tram_listener *ret_listeners, size_t capacity, bool unset);

/* Zero-initialise; zero means the default. */
typedef struct tram_inherit_options {
    uint64_t timeout_ns;   /* for all of it; 0: 10 s */
    bool any_user;         /* take them from a process of whatever user; else of this one or root */
    uintptr_t reserved[4]; /* must be 0 */
} tram_inherit_options;

/*
 * Asks the process that offers its listeners at `path` (as in tram/unix.h) for them. Blocks. Fills `ret_listeners` and
 * returns how many there are. `ret_link` gets a descriptor that stands for the hand-over: for tram_listeners_ready(),
 * or to be closed by one who gives up. Both processes accept in between.
 *
 * -ENOENT, -ECONNREFUSED: nobody offers anything there; -EACCES, -EPERM: not to this user, or by a wrong one; -EBUSY:
 * another process is just taking them over; TRAM_ETIMEOUT; TRAM_ELIMIT: more than `capacity`; TRAM_EINCOMPLETE: the
 * other end broke off; -EMFILE: no descriptors are left; -EPROTO: what came is no offer. Nothing is left open then.
 */
TRAM_API int tram_listeners_inherit(const void *path, size_t path_size, const tram_inherit_options *options,
                                    tram_listener *ret_listeners, size_t capacity, int *ret_link);

/*
 * Says that this process serves all that it got. Blocks until the old one has made sure that it will leave the sockets
 * and their files alone, has let go of `path`, and is about to stop accepting; or until it is gone, which comes to the
 * same. Closes the link in any case. `timeout_ns` 0: 10 s. TRAM_ETIMEOUT; -EPROTO.
 */
TRAM_API int tram_listeners_ready(int link, uint64_t timeout_ns);

/*
 * Takes the descriptors called `name` (NULL: all) out of the listeners: `ret_sockets` has room for `count`, returns how
 * many there are.
 */
TRAM_API size_t tram_listeners_take(tram_listener *listeners, size_t count, const char *name, int *ret_sockets);

/* Closes those that were not taken. */
TRAM_API void tram_listeners_close(tram_listener *listeners, size_t count);

/* ---- Offering ---- */

/* Freed with its runtime, or by tram_offer_release(). */
typedef struct tram_offer tram_offer;

/* A server, and what its listeners are to be called: at most 255 characters. */
typedef struct tram_offered {
    const char *name;
    tram_runtime_server *server;
    uintptr_t reserved[4]; /* must be 0 */
} tram_offered;

/* Zero-initialise; zero means the default. */
typedef struct tram_offer_options {
    mode_t mode;         /* of the file at `path`, less the umask; 0: 0600 */
    bool any_user;       /* offer to processes of all users whom the file admits; else to this one's and root's */
    uint64_t timeout_ns; /* between asking and being ready, for the new process; 0: 30 s */
    /* The new process is ready and all the servers are closing; on the first worker's thread. NULL: the runtime ends,
     * by tram_runtime_drain(): what clients have begun is finished within its grace. */
    void (*taken)(tram_runtime *runtime, void *arg);
    void *arg;
    tram_discard discard;  /* called with `arg` when the offer is freed, so after `taken`, if that came; any thread */
    uintptr_t reserved[3]; /* must be 0 */
} tram_offer_options;

/*
 * Offers the listening sockets of these servers of a runtime, which accept until a process has taken them over and is
 * ready; then they are closed, as by tram_runtime_server_close(), but what waits in the queues is left to the new
 * process, and so are the files of Unix sockets. A socket file that stands at `path` is removed first. The offer ends
 * when it is taken, closed, or the runtime stops, and removes the file, if it still is its own.
 *
 * The texts are copied. Errors as tram_runtime_create_unix_server(); TRAM_EVALUE also for a server of another runtime
 * and a name that is too long or empty. Any thread.
 */
TRAM_API int tram_runtime_offer_listeners(tram_runtime *runtime, const void *path, size_t path_size,
                                          const tram_offered *servers, size_t count, const tram_offer_options *options,
                                          tram_offer **ret_offer, tram_error *ret_error);

/* Ends the offer, soon; a successor in progress is refused. Any thread. */
TRAM_API int tram_offer_close(tram_offer *offer);

/* The same, and frees it: it is not to be used any more. -ENOMEM: call it again. NULL is allowed. Any thread. */
TRAM_API int tram_offer_release(tram_offer *offer);

TRAM_END_DECLS

#endif
