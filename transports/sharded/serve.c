/* A server's main function: the only place in the library that writes to standard output and standard error. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <tram/serve.h>

#include "core/base/invalid.h"

#define ADDRESSES_MAX 64 /* that are told: interfaces of a host, by family */

static const char *name_of(const tram_serve_options *options) {
    return options->name ? options->name : "tram";
}

static const char *host_of(const tram_serve_options *options) {
    return options->host ? options->host : "127.0.0.1";
}

static const char *port_of(const tram_serve_options *options) {
    return options->port ? options->port : "0";
}

int tram_raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
            return -errno;
    }
    return limit.rlim_cur > INT_MAX ? INT_MAX : (int)limit.rlim_cur;
}

/* ---- What goes wrong ---- */

/* What to do about it; NULL: the text of the error says it all. */
static const char *hint_of(int code) {
    switch (code) {
    case -EADDRINUSE:
        return "another program listens there: stop it, or choose another --port (\"ss -ltnp\" names it)";
    case -EACCES:
    case -EPERM:
        return "ports below 1024 are for root, or for who has CAP_NET_BIND_SERVICE: choose a higher --port";
    case -EADDRNOTAVAIL:
        return "no interface of this machine has that address: \"ip addr\" lists them, --host \"\" means all";
    case -EMFILE:
    case -ENFILE:
        return "too many files are open: raise the limit (\"ulimit -n\")";
    case TRAM_ERESOLVE:
        return "--host is an address or a name of this machine, --port a number or the name of a service";
    default:
        return NULL;
    }
}

static int complain(const tram_serve_options *options, const char *what, int code, const tram_error *error) {
    const char *hint = hint_of(code);
    fprintf(stderr, "%s: %s: %s\n", name_of(options), what, tram_error_describe(error, code));
    if (hint)
        fprintf(stderr, "%s: hint: %s\n", name_of(options), hint);
    return code;
}

/* ---- Serving ---- */

/* One line for each address. */
static void announce(const tram_runtime_server *server) {
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    for (size_t i = 0; i < ADDRESSES_MAX && !tram_runtime_server_sockname(server, i, &address); i++)
        printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
    fflush(stdout);
}

static int serve_with(tram_runtime *runtime, tram_protocol_factory factory, void *arg,
                      const tram_serve_options *options) {
    tram_runtime_server *server;
    tram_error error = {0};
    int status = tram_runtime_create_server(runtime, factory, arg, host_of(options), port_of(options), options->server,
                                            &server, &error);
    if (status) {
        char what[TRAM_ADDRESS_TEXT_SIZE];
        snprintf(what, sizeof what, "cannot listen on %s port %s", *host_of(options) ? host_of(options) : "any address",
                 port_of(options));
        return complain(options, what, status, error.code ? &error : NULL);
    }
    status = tram_runtime_start(runtime);
    if (status)
        return complain(options, "cannot start the workers", status, NULL);
    announce(server);
    status = tram_runtime_join(runtime);
    return status < 0 ? complain(options, "cannot wait for the workers", status, NULL) : 0;
}

int tram_serve(tram_protocol_factory factory, void *arg, const tram_serve_options *options) {
    static const tram_serve_options defaults;
    if (!options)
        options = &defaults;
    if (reserved_used(options))
        return complain(options, "cannot serve", tram__invalid("reserved"), NULL);
    int status = options->prepare ? options->prepare(arg) : 0;
    if (status < 0)
        return status;
    tram_runtime_options with = options->runtime ? *options->runtime : (tram_runtime_options){0};
    with.workers = options->workers;
    with.name = name_of(options);
    with.handle_signals = true;
    if (!options->keep_file_limit)
        tram_raise_file_limit(); /* what cannot be had is not needed yet */
    tram_runtime *runtime;
    status = tram_runtime_new(&with, &runtime);
    if (status)
        return complain(options, "cannot make the workers", status, NULL);
    status = serve_with(runtime, factory, arg, options);
    tram_runtime_free(runtime);
    return status;
}

/* ---- The command line ---- */

static void help(const tram_serve_options *options) {
    printf("usage: %s [options]\n", name_of(options));
    if (options->summary)
        printf("%s: %s\n\n", name_of(options), options->summary);
    printf("  --host H     address or name to listen on (%s); \"\" is all interfaces\n", host_of(options));
    printf("  --port P     port (%s); 0 lets the kernel choose\n", port_of(options));
    printf("  --workers N  threads (%u); 0 is one for each CPU\n", options->workers);
    for (const tram_serve_argument *argument = options->arguments; argument && argument->name; argument++)
        printf("  %s %s  %s\n", argument->name, argument->value_name, argument->help);
    printf("  --help       this text\n\nSIGTERM and SIGINT end it when what is to be sent is sent.\n");
}

static bool set_workers(tram_serve_options *options, const char *value) {
    char *end;
    errno = 0;
    unsigned long number = strtoul(value, &end, 10);
    options->workers = (unsigned)number;
    return *value >= '0' && *value <= '9' && !*end && !errno && number <= UINT_MAX;
}

/* False: there is no such option, or it has no such value. `name` has `size` bytes. */
static bool set_option(tram_serve_options *options, const char *name, size_t size, const char *value) {
#define IS(text) (size == sizeof(text) - 1 && !memcmp(name, text, size))
    if (IS("--host"))
        options->host = value;
    else if (IS("--port"))
        options->port = value;
    else if (IS("--workers"))
        return set_workers(options, value);
    else {
        const tram_serve_argument *argument = options->arguments;
        while (argument && argument->name && (strlen(argument->name) != size || memcmp(argument->name, name, size)))
            argument++;
        if (!argument || !argument->name)
            return false;
        *argument->value = value;
    }
    return true;
#undef IS
}

/* 0, positive for --help, or TRAM_EVALUE. */
static int parse(int argc, char **argv, tram_serve_options *options) {
    for (int i = 1; i < argc; i++) {
        const char *equals = strchr(argv[i], '='), *option = argv[i];
        if (!strcmp(option, "--help") || !strcmp(option, "-h"))
            return 1;
        size_t size = equals ? (size_t)(equals - option) : strlen(option);
        const char *value = equals ? equals + 1 : argv[++i]; /* argv ends with a NULL */
        if (value && set_option(options, option, size, value))
            continue;
        fprintf(stderr, "%s: %s %.*s; --help lists the options\n", name_of(options),
                value ? "no such option or value:" : "a value is missing after", (int)size, option);
        return tram__invalid("argv");
    }
    return 0;
}

int tram_serve_main(int argc, char **argv, tram_protocol_factory factory, void *arg,
                    const tram_serve_options *options) {
    tram_serve_options with = options ? *options : (tram_serve_options){0};
    int status = parse(argc, argv, &with);
    if (status < 0)
        return status;
    if (!status)
        return tram_serve(factory, arg, &with);
    help(options ? options : &with);
    return 0;
}
