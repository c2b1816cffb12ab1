/*
 * A restart that loses nobody: the listening sockets go from the process that ends to the one that begins.
 *
 *     restart PATH [PORT]        listens on PORT (8080), or takes the sockets of whoever offers them at PATH; ends on
 *                                SIGINT or SIGTERM, or when the next one has taken over
 *
 * Sockets that systemd passes are served, too: restart.socket and restart.service beside this file. Each line is
 * answered with the process id.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tram/tram.h>

enum { MOST = 16 };
static const char name[] = "lines";

/* ---- A connection ---- */

static int data_received(tram_protocol *self, const void *data, size_t size) {
    char text[32];
    int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    const char *at = (const char *)data, *end = at + size;
    int status = 0;
    while (!status && (at = (const char *)memchr(at, '\n', (size_t)(end - at)))) {
        at++;
        status = tram_transport_write(self->transport, text, (size_t)length);
    }
    return status;
}

static int pause_writing(tram_protocol *self) {
    return tram_transport_pause_reading(self->transport);
}

static int resume_writing(tram_protocol *self) {
    return tram_transport_resume_reading(self->transport);
}

static void released(tram_protocol *self) {
    free(self);
}

static int make_connection(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.data_received = data_received,
                                          .pause_writing = pause_writing,
                                          .resume_writing = resume_writing,
                                          .released = released};
    (void)loop, (void)arg;
    *ret_protocol = (tram_protocol *)calloc(1, sizeof **ret_protocol);
    if (!*ret_protocol)
        return -ENOMEM;
    (*ret_protocol)->ops = &ops;
    return 0;
}

/* ---- From process to process ---- */

/* Fills `sockets` with those that were passed to us and returns how many; 0: we are the first one. */
static int inherit(const char *path, int *sockets, int *ret_link) {
    tram_listener found[MOST];
    int count = tram_listeners_activated(found, MOST, true); /* by systemd, which calls them what its unit says */
    const char *wanted = NULL;
    if (count == 0) {
        wanted = name;
        count = tram_listeners_inherit(path, strlen(path), NULL, found, MOST, ret_link);
        if (count == -ENOENT || count == -ECONNREFUSED)
            return 0;
    }
    if (count < 0)
        return count;
    size_t taken = tram_listeners_take(found, (size_t)count, wanted, sockets);
    tram_listeners_close(found, (size_t)count);
    return (int)taken;
}

static int serve(tram_runtime *runtime, const char *path, const char *port) {
    int sockets[MOST], link = -1;
    tram_runtime_server *server = NULL;
    int count = inherit(path, sockets, &link);
    if (count < 0)
        return count;
    const tram_server_options options = {.sockets = count ? sockets : NULL, .socket_count = (size_t)count};
    int status = tram_runtime_create_server(runtime, make_connection, NULL, count ? NULL : "127.0.0.1",
                                            count ? NULL : port, &options, &server, NULL);
    if (!status)
        status = tram_runtime_start(runtime); /* both processes accept now */
    if (!status && link >= 0)
        status = tram_listeners_ready(link, 0); /* and now the old one does not any more */
    const tram_offered offered = {.name = name, .server = server};
    if (!status)
        status = tram_runtime_offer_listeners(runtime, path, strlen(path), &offered, 1, NULL, NULL, NULL);
    if (status)
        return status;
    printf("%ld serves%s\n", (long)getpid(), count ? " what it was given" : "");
    fflush(stdout);
    return tram_runtime_join(runtime); /* until a signal, or the next one */
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        fputs("usage: restart PATH [PORT]\n"
              "Answers lines with its process id; a second one with the same PATH takes over without losing anybody.\n",
              argc < 2 ? stderr : stdout);
        return argc < 2 ? 2 : 0;
    }
    const tram_runtime_options options = {
        .grace_ns = 5000000000, .handle_signals = true, .loop = {.log = tram_log_to_stderr}};
    tram_runtime *runtime;
    if (tram_runtime_new(&options, &runtime))
        return 1;
    int status = serve(runtime, argv[1], argc > 2 ? argv[2] : "8080");
    if (status < 0)
        fprintf(stderr, "restart: %s\n", tram_error_text(status));
    tram_runtime_free(runtime);
    return status < 0;
}
