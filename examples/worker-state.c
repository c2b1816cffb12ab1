/*
 * State of each worker: every connection adds to its worker's counters without a lock, and any connection can ask for
 * the sum over all workers.
 *
 *     worker-state [PORT]        (any free one if none is given); ends on SIGINT or SIGTERM
 *
 * A line "total" is answered with the number of lines that all workers have read, any other line with a number that
 * counts the lines of the worker that serves the connection.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

/* Written by its own worker's thread only, read by all: so it is stored and loaded in one piece, and no more. */
struct worker {
    uint64_t lines;
};

static tram_runtime *runtime;
static __thread struct worker *this_worker;

static int start_worker(tram_runtime *of, unsigned index, tram_loop *loop, void **state, void *arg) {
    (void)of, (void)index, (void)loop, (void)arg;
    this_worker = (struct worker *)calloc(1, sizeof *this_worker);
    *state = this_worker;
    return this_worker ? 0 : -ENOMEM;
}

/* On the worker's thread again, when its loop has ended. The state stays: others may still ask for the sum. */
static int stop_worker(tram_runtime *of, unsigned index, tram_loop *loop, void **state, void *arg) {
    (void)of, (void)loop, (void)state, (void)arg;
    printf("worker %u: %" PRIu64 " lines\n", index, this_worker->lines);
    return 0;
}

static void free_states(void) {
    for (unsigned i = 0; i < tram_runtime_worker_count(runtime); i++)
        free(tram_runtime_state(runtime, i));
}

static uint64_t total(void) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < tram_runtime_worker_count(runtime); i++) {
        struct worker *worker = (struct worker *)tram_runtime_state(runtime, i);
        sum += __atomic_load_n(&worker->lines, __ATOMIC_RELAXED);
    }
    return sum;
}

/* ---- A connection ---- */

struct connection {
    tram_protocol base; /* first */
    char line[16];      /* as much of the line as "total" needs */
    size_t length;
};

static int answer(struct connection *connection) {
    char text[32];
    uint64_t lines = this_worker->lines + 1;
    __atomic_store_n(&this_worker->lines, lines, __ATOMIC_RELAXED);
    bool asks = connection->length == 5 && memcmp(connection->line, "total", 5) == 0;
    int size = snprintf(text, sizeof text, "%" PRIu64 "\n", asks ? total() : lines);
    connection->length = 0;
    return tram_transport_write(connection->base.transport, text, (size_t)size);
}

static int data_received(tram_protocol *self, const void *data, size_t size) {
    struct connection *connection = (struct connection *)self;
    const char *bytes = (const char *)data;
    int status = 0;
    for (size_t i = 0; i < size && !status; i++) {
        if (bytes[i] == '\n') {
            status = answer(connection);
            continue;
        }
        if (connection->length < sizeof connection->line)
            connection->line[connection->length] = bytes[i];
        connection->length++;
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
    static const tram_protocol_ops ops = {
        .data_received = data_received,
        .pause_writing = pause_writing,
        .resume_writing = resume_writing,
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

static int serve(const char *port) {
    tram_runtime_server *server;
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_error error = {.code = 0};
    /* Started first, so that every worker has its state when the first connection comes. */
    int status = tram_runtime_start(runtime);
    if (!status)
        status = tram_runtime_create_server(runtime, make_connection, NULL, "127.0.0.1", port, NULL, &server, &error);
    if (!status)
        status = tram_runtime_server_sockname(server, 0, &address);
    if (status) {
        fprintf(stderr, "worker-state: %s\n", tram_error_describe(error.code ? &error : NULL, status));
        return status;
    }
    printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
    fflush(stdout);
    return tram_runtime_join(runtime);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: worker-state [PORT]\n"
             "Counts lines per worker, and over all workers for who sends \"total\", until SIGINT or SIGTERM.");
        return 0;
    }
    const tram_runtime_options options = {
        .handle_signals = true, .start = start_worker, .stop = stop_worker, .loop = {.log = tram_log_to_stderr}};
    if (tram_runtime_new(&options, &runtime))
        return 1;
    int status = serve(argc > 1 ? argv[1] : "0");
    tram_runtime_stop(runtime); /* where serving failed, the workers run still */
    tram_runtime_join(runtime);
    free_states();
    tram_runtime_free(runtime);
    return status < 0;
}
