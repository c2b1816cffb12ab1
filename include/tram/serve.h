/*
 * The main function of a server, for programs that want no more than to serve:
 *
 *     int main(int argc, char **argv) {
 *         tram_serve_options options = {.name = "my-server", .port = "7000"};
 *         return tram_serve_main(argc, argv, factory, NULL, &options) ? EXIT_FAILURE : EXIT_SUCCESS;
 *     }
 *
 * A runtime with a worker on each CPU serves until SIGTERM or SIGINT, and then ends in good order (tram/runtime.h). The
 * first line on standard output says "listening on HOST:PORT". Sockets that systemd passes (tram/inherit.h) are served
 * instead of host and port. Where it wants to hear of a service ($NOTIFY_SOCKET, Type=notify), it is told READY=1;
 * STOPPING=1 as soon as a signal ends it; RELOADING=1, and then MAINPID, by who takes the listeners over
 * (NotifyAccess=all); and WATCHDOG=1 as long as all workers answer ($WATCHDOG_USEC). What goes wrong is said on
 * standard error, in words and with a hint where there is one. Nothing else of tram writes anywhere, nor handles
 * signals unasked.
 */
#ifndef TRAM_SERVE_H
#define TRAM_SERVE_H

#include <tram/runtime.h>

TRAM_BEGIN_DECLS

/* An option "--name VALUE" of the program's own, for tram_serve_main(). */
typedef struct tram_serve_argument {
    const char *name;       /* "--root"; NULL ends the table */
    const char *value_name; /* "DIR" */
    const char *help;       /* "what is served (.)" */
    const char **value;     /* gets what was given */
} tram_serve_argument;

/* Zero-initialise; zero means the default. */
typedef struct tram_serve_options {
    const char *name;     /* of the program, in what it says and in the names of its threads; NULL: "tram" */
    const char *summary;  /* a sentence for --help */
    const char *host;     /* NULL: 127.0.0.1; "": all interfaces */
    const char *port;     /* NULL: 0, the kernel chooses */
    unsigned workers;     /* 0: the CPUs this process may use */
    bool keep_file_limit; /* do not call tram_raise_file_limit() */
    const tram_serve_argument *arguments;
    /*
     * Called with the factory's `arg` once the command line was read and before anything is served: for what the
     * arguments name, such as a directory or a certificate. It may still change what `server` and `runtime` point to. A
     * negative code, which it has explained itself, is what the call then returns.
     */
    int (*prepare)(void *arg);
    const tram_server_options *server;   /* NULL: the defaults */
    const tram_runtime_options *runtime; /* `workers` and `name` are those above; signals are handled */
    /* A path, or "@NAME" in the abstract space: the listeners are taken over from the process that offers them there,
     * where there is one, and offered to the next, so that a restart loses nobody. When that serves, this one ends as
     * after SIGTERM. NULL: neither. */
    const char *inherit;
    uintptr_t reserved[6]; /* must be 0 */
} tram_serve_options;

/*
 * Serves until a signal ends it: 0, or the negative code of what went wrong, which was said on standard error.
 * `options` may be NULL. Blocks; not from a worker.
 */
TRAM_API int tram_serve(tram_protocol_factory factory, void *arg, const tram_serve_options *options);

/*
 * The same with what the command line says: --host H, --port P, --workers N, --inherit PATH, --help, and those of
 * options->arguments, as "--port 80" or "--port=80". --help is printed on standard output and returns 0; TRAM_EVALUE
 * for anything unknown.
 */
TRAM_API int tram_serve_main(int argc, char **argv, tram_protocol_factory factory, void *arg,
                             const tram_serve_options *options);

/*
 * Raises how many files this process may have open to what the system lets it (RLIMIT_NOFILE, soft to hard): a
 * connection is a file. Returns the limit, or -errno. For programs, at their start; select() does not work above 1024.
 */
TRAM_API int tram_raise_file_limit(void);

TRAM_END_DECLS

#endif
