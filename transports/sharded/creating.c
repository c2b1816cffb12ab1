/*
 * A server of a runtime made by a loop's thread that must not wait, as a worker's: the work is a job on the pool, which
 * may resolve, bind and wait for all workers. The runtime outlives the job: tram_runtime_free() waits for it.
 */
#include <errno.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/jobs/executor.h"
#include "core/runtime/runtime.h"

/* What the caller's pointers lead to, in one piece of memory. */
struct copies {
    char *memory; /* the pointers first */
    size_t size;
};

struct creating {
    struct job job;
    tram_runtime *runtime;
    tram_protocol_factory factory;
    void *arg;
    const char *host;
    const char *port;
    tram_server_options options;
    tram_server_limits limits;
    struct copies copies;
    tram_runtime_server *server;
    int code;
    struct kept_error error;
    bool completed; /* the server is the future's */
};

/* ---- Copies ---- */

static size_t text_size(const char *text) {
    return text ? strlen(text) + 1 : 0;
}

static const char *copy_text(char **at, const char *text) {
    size_t size = text_size(text);
    if (!size)
        return NULL;
    char *copy = memcpy(*at, text, size);
    *at += size;
    return copy;
}

static size_t count_hosts(const tram_server_options *options) {
    size_t count = 0;
    while (options->hosts && options->hosts[count])
        count++;
    return count;
}

static int copy_all(struct creating *creating, const char *host, const char *port) {
    tram_server_options *options = &creating->options;
    size_t hosts = count_hosts(options), sockets = options->sockets ? options->socket_count : 0;
    size_t size = (hosts + 1) * sizeof(char *) + sockets * sizeof(int) + text_size(host) + text_size(port);
    for (size_t i = 0; i < hosts; i++)
        size += text_size(options->hosts[i]);
    creating->copies = (struct copies){.memory = memory_get(&tram__memory_default, size), .size = size};
    if (!creating->copies.memory)
        return -ENOMEM;
    const char **names = (const char **)(void *)creating->copies.memory;
    int *fds = (int *)(void *)(names + hosts + 1);
    char *at = (char *)(fds + sockets);
    for (size_t i = 0; i < hosts; i++)
        names[i] = copy_text(&at, options->hosts[i]);
    names[hosts] = NULL;
    if (options->hosts)
        options->hosts = names;
    if (options->sockets) {
        memcpy(fds, options->sockets, sockets * sizeof *fds);
        options->sockets = fds;
    }
    if (options->limits) {
        creating->limits = *options->limits;
        options->limits = &creating->limits;
    }
    creating->host = copy_text(&at, host);
    creating->port = copy_text(&at, port);
    return 0;
}

static void free_copies(struct creating *creating) {
    memory_put(&tram__memory_default, creating->copies.memory, creating->copies.size);
}

/* ---- The job ---- */

static void creating_run(struct job *job) {
    struct creating *creating = (struct creating *)job;
    tram_error error = {0};
    creating->code = tram_runtime_create_server(creating->runtime, creating->factory, creating->arg, creating->host,
                                                creating->port, &creating->options, &creating->server, &error);
    if (creating->code)
        tram__error_keep(&creating->error, &error);
}

static void creating_complete(struct job *job, tram_future *future) {
    struct creating *creating = (struct creating *)job;
    creating->completed = true;
    if (creating->code)
        tram__future_fail(future, &creating->error.error);
    else
        tram__future_finish(future, creating->server);
    tram__runtime_unpin(creating->runtime);
}

static void creating_destroy(struct job *job) {
    struct creating *creating = (struct creating *)job;
    if (creating->server && !job->result_taken)
        tram_runtime_server_release(creating->server);
    if (!creating->completed)
        tram__runtime_unpin(creating->runtime);
    free_copies(creating);
}

static const struct job_kind creating_kind = {
    .name = "create_server",
    .run = creating_run,
    .complete = creating_complete,
    .destroy = creating_destroy,
};

int tram_loop_create_runtime_server(tram_loop *loop, tram_runtime *runtime, tram_protocol_factory factory, void *arg,
                                    const char *host, const char *port, const tram_server_options *options,
                                    tram_future **ret_future) {
    static const tram_server_options defaults;
    int status = loop_enter_open(loop, __func__);
    if (!status)
        status = runtime_enter(runtime);
    if (status)
        return status;
    if (!factory)
        return tram__invalid("factory");
    struct creating *creating;
    status = tram__job_new(loop, &creating_kind, sizeof *creating, &creating);
    if (status)
        return status;
    creating->runtime = runtime;
    creating->factory = factory;
    creating->arg = arg;
    creating->options = options ? *options : defaults;
    status = copy_all(creating, host, port);
    if (!status) {
        tram__runtime_pin(runtime);
        status = tram__job_submit(loop, NULL, &creating->job, ret_future);
        if (status)
            tram__runtime_unpin(runtime);
    }
    if (status) {
        free_copies(creating);
        tram__job_free(&creating->job);
    }
    return status;
}
