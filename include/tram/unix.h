/*
 * Unix stream sockets: loop.create_unix_server and loop.create_unix_connection. Calls of the loop's thread, but for
 * that of a runtime.
 *
 * A path is bytes with a length, without a NUL at the end. One that begins with a NUL is a name in the abstract space
 * of Linux, may have any bytes, and has no file. At most 107 bytes, abstract names 108: longer, empty, or a path with
 * a NUL in it is TRAM_EVALUE.
 */
#ifndef TRAM_UNIX_H
#define TRAM_UNIX_H

#include <sys/types.h>

#include <tram/retry.h>
#include <tram/runtime.h>

TRAM_BEGIN_DECLS

/* ---- Servers ---- */

/* Zero-initialise; zero means the default. */
typedef struct tram_unix_server_options {
    const int *sock;       /* a bound Unix stream socket instead of a path; becomes the server's */
    int backlog;           /* 0: 100; 4096 for a server of a runtime */
    bool keep_socket_file; /* cleanup_socket=False: leave the file when the server closes */
    bool defer_serving;    /* start_serving=False: bind, but do not listen before tram_server_start_serving() */
    const tram_server_limits *limits; /* tram/limits.h; NULL: none */
    tram_discard discard;             /* as in tram_server_options */
    bool not_ours;                    /* `sock` is given back at the end instead of closed, as in tram_server_options */
    tram_tls_config *tls;             /* as in tram_server_options */
    uint64_t tls_handshake_timeout_ns;
    uint64_t tls_shutdown_timeout_ns;
    bool proxy_protocol; /* as in tram_server_options, and so are the next two */
    uint64_t proxy_timeout_ns;
    bool (*proxy_trusts)(const tram_socket_address *peer);
    uintptr_t reserved[1]; /* must be 0 */
} tram_unix_server_options;

/*
 * Binds and listens (loop.create_unix_server). A socket file that stands at the path is removed first: whoever listened
 * there does not get connections any more. Anything else at the path stays, and fails the call with -EADDRINUSE. When
 * the server closes, it removes the file, if it still is the one that it made or was given.
 *
 * Otherwise as tram_loop_create_server(): completes with the tram_server *, of which the caller has one hold. Errors
 * through the future, with the path in the detail: -EADDRINUSE, -EACCES, -ENOENT … TRAM_EVALUE at once: path and socket
 * both, or neither; a path as above; a socket that is no Unix stream socket.
 */
TRAM_API int tram_loop_create_unix_server(tram_loop *loop, tram_protocol_factory factory, void *arg, const void *path,
                                          size_t path_size, const tram_unix_server_options *options,
                                          tram_future **ret_future);

/*
 * The same on all workers, which accept from one listening socket, as tram_runtime_create_server() with
 * TRAM_SHARD_SHARED. TRAM_EVALUE also for defer_serving. A socket becomes the server's if the call succeeds. Any thread
 * that is not a worker of this runtime.
 */
TRAM_API int tram_runtime_create_unix_server(tram_runtime *runtime, tram_protocol_factory factory, void *arg,
                                             const void *path, size_t path_size,
                                             const tram_unix_server_options *options, tram_runtime_server **ret_server,
                                             tram_error *ret_error);

/* ---- Connections ---- */

/* Zero-initialise; zero means the default. */
typedef struct tram_unix_connection_options {
    const int *sock;     /* a connected Unix stream socket instead of a path; becomes the transport's */
    uint64_t timeout_ns; /* connect within this, else TRAM_ETIMEOUT; 0: TRAM_FOREVER */
    /* As in tram_connection_options; there is no host, so server_hostname must be given, "" perhaps. */
    tram_tls_config *tls;
    const char *server_hostname;
    uint64_t tls_handshake_timeout_ns;
    uint64_t tls_shutdown_timeout_ns;
    tram_buffer *tls_session;
    tram_discard discard; /* called with the factory's `arg` once the factory will not be called (again) */
    bool not_ours;        /* `sock` is given back at the end instead of closed; see tram_adopt_options */
    const struct tram_proxy_header *proxy_header; /* as in tram_connection_options */
    tram_retry_options retry;                     /* tram/retry.h; not with a `sock` */
    uintptr_t reserved[5];                        /* must be 0 */
} tram_unix_connection_options;

/*
 * Connects to a server's path (loop.create_unix_connection); otherwise as tram_loop_create_connection(), and completes
 * with the tram_transport *. Errors of the system come through the future as they are, with the path in the detail:
 * -ENOENT, -ECONNREFUSED (nobody listens any more), -EACCES … While the server's backlog is full the operation waits.
 * TRAM_EVALUE at once: path and socket both, or neither; a path as above; a socket that is no Unix stream socket.
 */
TRAM_API int tram_loop_create_unix_connection(tram_loop *loop, tram_protocol_factory factory, void *arg,
                                              const void *path, size_t path_size,
                                              const tram_unix_connection_options *options, tram_future **ret_future);

/* ---- Who is there ---- */

/*
 * What tram_transport_get_extra_info(transport, "peercred", …) points to: the process at the other end, as the kernel
 * saw it when the connection was made (SO_PEERCRED).
 */
typedef struct tram_peer_credentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
    uintptr_t reserved[4];
} tram_peer_credentials;

/* ---- Descriptors ---- */

/*
 * An extension: open files go from process to process with the bytes of a Unix stream. Each call here is -ENOTSUP on
 * other transports.
 */

/* So many go with one byte at most, as Linux has it. */
#define TRAM_UNIX_FDS_MAX 253

/*
 * Lets descriptors come in, at most `max` with one receive; 0, as at the beginning: those that come are closed by the
 * kernel. To be called in connection_made, before anything is read. TRAM_EVALUE: more than TRAM_UNIX_FDS_MAX;
 * TRAM_ESTATE: the connection is lost; -ENOMEM.
 *
 * They wait when data_received or buffer_updated is called with the byte with which they were sent, and are the
 * protocol's if it takes them then. Bytes of earlier sends may come in the same call, those of later ones do not.
 * Those that nobody took are closed when the callback returns. If more come than `max`, or than this process may open,
 * all of them are closed and the connection ends with TRAM_ELIMIT: no peer can make us hold more than `max`. Not for
 * sockets on which SO_PASSCRED or its like was set.
 */
TRAM_API int tram_transport_receive_fds(tram_transport *transport, size_t max);

/*
 * Takes at most `count` of those that wait, in the order in which they were sent; how many. They are close-on-exec, and
 * the caller's to close. 0 outside of data_received and buffer_updated.
 */
TRAM_API size_t tram_transport_take_fds(tram_transport *transport, int *ret_fds, size_t count);

/*
 * As tram_transport_write(), with `count` descriptors that go with the first byte. The caller's stay the caller's:
 * what must wait is duplicated, and closed when it was sent or the connection ends. Such a call is never joined with
 * what was written before it.
 *
 * TRAM_EVALUE: no bytes, no descriptors, or more than TRAM_UNIX_FDS_MAX. -EBADF: one is none; -EMFILE,
 * -ENOMEM: they could not be kept; -ETOOMANYREFS: too many of this user's are on their way already (see
 * RLIMIT_NOFILE). Nothing was sent or queued then, and the connection lives. If that shows only when their turn comes,
 * the connection ends with it.
 */
TRAM_API int tram_transport_send_fds(tram_transport *transport, const void *data, size_t size, const int *fds,
                                     size_t count);

TRAM_END_DECLS

#endif
