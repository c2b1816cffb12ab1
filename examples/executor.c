/*
 * Work off the loop: counts primes on a pool of threads, while the loops go on serving.
 *
 *     executor [PORT]        (any free one if none is given); ends on SIGINT or SIGTERM
 *
 * Each line is a number; the answer is how many primes are not above it. A connection is not read while its answer is
 * being computed, so answers come in order, and what a client sends meanwhile waits in the kernel. A client may go at
 * any time: what was computed for it is dropped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

enum { MOST = 10000000, DIGITS = 8 };

static tram_executor *pool; /* one for the loops of all workers */

/* ---- On a thread of the pool: nothing of a loop may be touched ---- */

struct job {
    unsigned long most, count;
};

static int count_primes(void *arg, void **ret_result) {
    struct job *job = (struct job *)arg;
    unsigned char *composite = (unsigned char *)calloc(job->most + 1, 1);
    if (!composite) {
        free(job);
        return -ENOMEM;
    }
    for (unsigned long n = 2; n <= job->most; n++) {
        if (composite[n])
            continue;
        job->count++;
        for (unsigned long multiple = n * n; multiple <= job->most; multiple += n)
            composite[multiple] = 1;
    }
    free(composite);
    *ret_result = job;
    return 0;
}

/* ---- On the loop ---- */

struct connection {
    tram_protocol base; /* first */
    tram_future *computing;
    size_t size, taken; /* what was received and not parsed: at most one buffer */
    char received[256];
};

static int go_on(struct connection *connection);

static int answer(struct connection *connection, const struct job *job) {
    char text[32];
    int size = snprintf(text, sizeof text, "%lu\n", job->count);
    int status = tram_transport_write(connection->base.transport, text, (size_t)size);
    return status ? status : go_on(connection);
}

static int computed(tram_future *future, void *arg) {
    tram_transport *transport = (tram_transport *)arg;
    struct connection *connection = (struct connection *)tram_transport_user(transport); /* NULL: it is lost */
    void *job = NULL;
    int status = tram_future_result(future, &job);
    if (connection) {
        connection->computing = NULL;
        if (!status)
            status = answer(connection, (const struct job *)job);
        if (status)
            tram_transport_abort(transport);
    }
    free(job);
    tram_future_release(future);
    tram_transport_release(transport);
    return connection ? status : 0;
}

static int compute(struct connection *connection, unsigned long most) {
    tram_transport *transport = connection->base.transport;
    struct job *arg = (struct job *)calloc(1, sizeof *arg);
    if (!arg)
        return -ENOMEM;
    arg->most = most;
    const tram_job job = {.function = count_primes, .arg = arg, .discard = free, .free_result = free};
    int status = tram_loop_run_job(tram_transport_get_loop(transport), pool, &job, &connection->computing);
    if (status) {
        free(arg);
        return status;
    }
    status = tram_future_add_done_callback(connection->computing, computed, transport);
    if (status) {
        tram_future_release(connection->computing);
        connection->computing = NULL;
        return status;
    }
    tram_transport_hold(transport); /* the connection may be gone when the answer comes */
    return tram_transport_pause_reading(transport);
}

/* Parses up to the next line, which is computed; where there is none, reads. */
static int go_on(struct connection *connection) {
    const char *begin = connection->received + connection->taken;
    size_t left = connection->size - connection->taken;
    const char *newline = (const char *)memchr(begin, '\n', left);
    tram_transport *transport = connection->base.transport;
    if (!newline && left > DIGITS)
        return tram_loop_raise(tram_transport_get_loop(transport), TRAM_ELIMIT, NULL, "a line is too long");
    if (!newline) {
        memmove(connection->received, begin, left);
        connection->size = left;
        connection->taken = 0;
        return tram_transport_resume_reading(transport);
    }
    char *end;
    unsigned long most = strtoul(begin, &end, 10);
    if (end != newline || end == begin || most > MOST)
        return tram_loop_raise(tram_transport_get_loop(transport), TRAM_EVALUE, NULL, "no number up to 10000000");
    connection->taken += (size_t)(newline + 1 - begin);
    return compute(connection, most);
}

/* Receives into the connection's own memory, so that no more comes than fits. */
static int get_buffer(tram_protocol *self, ptrdiff_t size_hint, void **ret_memory, size_t *ret_size) {
    struct connection *connection = (struct connection *)self;
    (void)size_hint;
    *ret_memory = connection->received + connection->size;
    *ret_size = sizeof connection->received - 1 - connection->size; /* strtoul() needs a zero behind the last byte */
    return 0;
}

static int buffer_updated(tram_protocol *self, size_t size) {
    struct connection *connection = (struct connection *)self;
    connection->size += size;
    connection->received[connection->size] = '\0';
    return go_on(connection);
}

static int connection_made(tram_protocol *self, tram_transport *transport) {
    return tram_transport_set_user(transport, self);
}

static int connection_lost(tram_protocol *self, const tram_error *error) {
    struct connection *connection = (struct connection *)self;
    (void)error;
    tram_transport_set_user(self->transport, NULL);
    if (connection->computing)
        tram_future_cancel(connection->computing); /* a job that has not begun never does */
    return 0;
}

static void released(tram_protocol *self) {
    free(self);
}

static int make_connection(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {
        .connection_made = connection_made,
        .connection_lost = connection_lost,
        .get_buffer = get_buffer,
        .buffer_updated = buffer_updated,
        .released = released,
    };
    (void)loop, (void)arg;
    struct connection *connection = (struct connection *)calloc(1, sizeof *connection);
    if (!connection)
        return -ENOMEM;
    connection->base.ops = &ops;
    *ret_protocol = &connection->base;
    return 0;
}

static int serve(tram_runtime *runtime, const char *port) {
    tram_runtime_server *server;
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_error error = {.code = 0};
    int status = tram_runtime_create_server(runtime, make_connection, NULL, "127.0.0.1", port, NULL, &server, &error);
    if (!status)
        status = tram_runtime_server_sockname(server, 0, &address);
    if (status) {
        fprintf(stderr, "executor: %s\n", tram_error_describe(error.code ? &error : NULL, status));
        return status;
    }
    printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
    fflush(stdout);
    return tram_runtime_run(runtime);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: executor [PORT]\n"
             "Answers each number with how many primes are not above it, computed on a pool of threads.");
        return 0;
    }
    const tram_runtime_options options = {.handle_signals = true, .loop = {.log = tram_log_to_stderr}};
    tram_runtime *runtime;
    int status = tram_executor_new(0, "primes", &pool);
    if (!status)
        status = tram_runtime_new(&options, &runtime);
    if (status)
        return 1;
    status = serve(runtime, argc > 1 ? argv[1] : "0");
    tram_runtime_free(runtime); /* the loops first: jobs answer to them */
    tram_executor_free(pool);
    return status < 0;
}
