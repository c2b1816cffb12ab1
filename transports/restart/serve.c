/* A server's main function: the only place in the library that writes to standard output and standard error. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <tram/inherit.h>
#include <tram/serve.h>

#include "core/base/invalid.h"
#include "core/base/limits.h"
#include "core/base/memory.h"
#include "transports/restart/notify.h"

#define ADDRESSES_MAX 1024 /* that are told or taken over: of interfaces, families, workers */
#define PATH_SIZE     256

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
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    return (int)MIN(limit.rlim_cur, INT_MAX);
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
    const char *wrong = option_of(code);
    fprintf(stderr, "%s: %s: %s%s%s\n", name_of(options), what, tram_error_describe(error, code), wrong ? ": " : "",
            wrong ? wrong : "");
    if (hint)
        fprintf(stderr, "%s: hint: %s\n", name_of(options), hint);
    return code;
}

/* ---- From process to process ---- */

/* Sockets that were passed to this process, and the link to who passed them, or -1. */
struct inherited {
    int sockets[ADDRESSES_MAX];
    size_t count;
    int link;
};

/* A path as the rest of the library has it, which does not tell names from paths by an '@'. */
static size_t path_of(const tram_serve_options *options, char path[PATH_SIZE]) {
    size_t size = strnlen(options->inherit, PATH_SIZE);
    memcpy(path, options->inherit, size);
    if (size && path[0] == '@')
        path[0] = '\0';
    return size;
}

/* None is no trouble: it is the first one. */
static int find_listeners(const tram_serve_options *options, tram_listener *found, int *ret_link) {
    char path[PATH_SIZE];
    int count = tram_listeners_activated(found, ADDRESSES_MAX, true);
    if (count == 0 && options->inherit) {
        size_t size = path_of(options, path);
        count = tram_listeners_inherit(path, size, NULL, found, ADDRESSES_MAX, ret_link);
    }
    return count == -ENOENT || count == -ECONNREFUSED ? 0 : count;
}

static int inherit(const tram_serve_options *options, struct inherited *ret_inherited) {
    size_t room = ADDRESSES_MAX * sizeof(tram_listener);
    tram_listener *found = memory_get(&tram__memory_default, room);
    *ret_inherited = (struct inherited){.link = -1};
    int count = found ? find_listeners(options, found, &ret_inherited->link) : -ENOMEM;
    if (count > 0)
        ret_inherited->count = tram_listeners_take(found, (size_t)count, NULL, ret_inherited->sockets);
    memory_put(&tram__memory_default, found, room);
    return count < 0 ? complain(options, "cannot take the listeners over", count, NULL) : 0;
}

/* Nothing becomes of it: who passed them goes on as before. */
static void disown(const struct inherited *inherited) {
    for (size_t i = 0; i < inherited->count; i++)
        close(inherited->sockets[i]);
    if (inherited->link >= 0)
        close(inherited->link);
}

/* What clients have begun is finished; systemd has heard of the next one. */
static void taken(tram_runtime *runtime, void *arg) {
    ((struct notifier *)arg)->handed_on = true;
    tram_runtime_drain(runtime);
}

/* The one before is let go, and the next one may come. */
static int hand_on(tram_runtime *runtime, tram_runtime_server *server, int link, const tram_serve_options *options,
                   struct notifier *notifier) {
    const tram_offered offered = {.name = "server", .server = server};
    const tram_offer_options offer = {.taken = taken, .arg = notifier};
    tram_error error = {0};
    char path[PATH_SIZE];
    int status = link >= 0 ? tram_listeners_ready(link, 0) : 0;
    if (status)
        complain(options, "the process before may still accept", status, NULL);
    if (!options->inherit)
        return 0;
    size_t size = path_of(options, path);
    status = tram_runtime_offer_listeners(runtime, path, size, &offered, 1, &offer, NULL, &error);
    if (!status || status == TRAM_ESTATE) /* stopped already */
        return 0;
    return complain(options, "cannot offer the listeners", status, error.code ? &error : NULL);
}

/* ---- Serving ---- */

/* One line for each address. */
static void announce(const tram_runtime_server *server) {
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    for (size_t i = 0; !tram_runtime_server_sockname(server, i, &address); i++)
        printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
    fflush(stdout);
}

/* At the sockets that were passed, or else at host and port. */
static int listen_with(tram_runtime *runtime, tram_protocol_factory factory, void *arg,
                       const tram_serve_options *options, const struct inherited *inherited,
                       tram_runtime_server **ret_server) {
    tram_server_options with = options->server ? *options->server : (tram_server_options){0};
    tram_error error = {0};
    bool given = inherited->count;
    if (given) {
        with.hosts = NULL;
        with.sockets = inherited->sockets;
        with.socket_count = inherited->count;
    }
    int status = tram_runtime_create_server(runtime, factory, arg, given ? NULL : host_of(options),
                                            given ? NULL : port_of(options), &with, ret_server, &error);
    if (!status)
        return 0;
    disown(inherited);
    char what[TRAM_ADDRESS_TEXT_SIZE] = "cannot serve the sockets that were passed";
    if (!given)
        snprintf(what, sizeof what, "cannot listen on %s port %s", *host_of(options) ? host_of(options) : "any address",
                 port_of(options));
    return complain(options, what, status, error.code ? &error : NULL);
}

static int serve_with(tram_runtime *runtime, tram_protocol_factory factory, void *arg,
                      const tram_serve_options *options, struct notifier *notifier) {
    tram_runtime_server *server;
    struct inherited inherited;
    int status = inherit(options, &inherited);
    if (!status)
        status = listen_with(runtime, factory, arg, options, &inherited, &server);
    if (status)
        return status;
    status = tram_runtime_start(runtime);
    if (status)
        return complain(options, "cannot start the workers", status, NULL);
    bool follows = inherited.link >= 0;
    if (follows)
        tram__notifier_reloading(notifier);
    status = hand_on(runtime, server, inherited.link, options, notifier);
    if (status)
        return status;
    announce(server);
    tram__notifier_ready(notifier, follows);
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
    struct notifier notifier;
    tram__notifier_open(&notifier, runtime);
    status = serve_with(runtime, factory, arg, options, &notifier);
    tram_runtime_free(runtime);
    tram__notifier_close(&notifier);
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
    printf("  --inherit PATH  take the listeners from whoever serves PATH, and offer them there (@NAME: abstract)\n");
    for (const tram_serve_argument *argument = options->arguments; argument && argument->name; argument++)
        printf("  %s %s  %s\n", argument->name, argument->value_name, argument->help);
    printf("  --help       this text\n\nSIGTERM and SIGINT end it when what is to be sent is sent.\n");
}

static bool set_workers(tram_serve_options *options, const char *value) {
    char *end;
    errno = 0;
    unsigned long number = strtoul(value, &end, 10);
    options->workers = (unsigned)number;
    return isdigit((unsigned char)*value) && !*end && !errno && number <= TRAM_WORKERS_MAX;
}

/* False: there is no such option, or it has no such value. `name` has `size` bytes. */
static bool set_option(tram_serve_options *options, const char *name, size_t size, const char *value) {
#define IS(text) (size == sizeof(text) - 1 && !memcmp(name, text, size))
    if (IS("--host"))
        options->host = value;
    else if (IS("--port"))
        options->port = value;
    else if (IS("--inherit"))
        options->inherit = value;
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
        fprintf(stderr, "%s: %s: %.*s%s%s; --help lists the options\n", name_of(options),
                value ? "no such option or value" : "no such option, or it needs a value", (int)size, option,
                value ? " " : "", value ? value : "");
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
