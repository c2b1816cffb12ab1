/*
 * tram: a protocol whose data_received writes what it gets, on a runtime of one worker (--workers N: of N, each on a
 * CPU of its own; with a port after it: one that other processes listen to as well), or with --loop on a loop alone;
 * with --streams a task that reads, writes and drains. A peer that does not read is not read from either.
 *
 * TCP_NODELAY: on, as tram sets it by itself.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

static int data_received(tram_protocol *self, const void *data, size_t size) {
    return tram_transport_write(self->transport, data, size);
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

static const tram_protocol_ops echo = {
    .data_received = data_received,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .released = released,
};

static int make_echo(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    tram_protocol *protocol = malloc(sizeof(*protocol));
    if (protocol == NULL) {
        return -ENOMEM;
    }
    *protocol = (tram_protocol){.ops = &echo};
    *ret_protocol = protocol;
    return 0;
}

/* With --streams. */
static int echo_stream(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    char bytes[4096];
    ptrdiff_t size;
    int status = 0;
    (void)arg;
    while (status == 0 && (size = tram_stream_reader_read(reader, bytes, sizeof(bytes))) > 0) {
        tram_stream_writer_write(writer, bytes, (size_t)size);
        status = tram_stream_writer_drain(writer);
    }
    tram_stream_writer_close(writer);
    return status;
}

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "tram: %s: %s\n", what, tram_error_text(status));
        exit(1);
    }
}

static void announce(const tram_socket_address *address) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    printf("listening on %s\n", tram_socket_address_text(address, text, sizeof(text)));
    fflush(stdout);
}

static void serve_by_workers(unsigned workers, bool pin, const char *shared_port, bool streams) {
    tram_stream_service service = {.handler = echo_stream};
    tram_runtime_options options = {
        .workers = workers,
        .pin = pin,
        .handle_signals = true,
        .grace_ns = TRAM_NOW,
        .loop = {.log = tram_log_to_stderr},
    };
    tram_server_options how = {.reuse_port = shared_port != NULL};
    const char *port = shared_port != NULL ? shared_port : "0";
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    check(tram_runtime_new(&options, &runtime), "making the runtime");
    check(tram_runtime_start(runtime), "starting the workers");
    if (streams) {
        check(tram_runtime_start_server(runtime, &service, "127.0.0.1", port, &how, &server, NULL), "listening");
    } else {
        check(tram_runtime_create_server(runtime, make_echo, NULL, "127.0.0.1", port, &how, &server, NULL),
              "listening");
    }
    check(tram_runtime_server_sockname(server, 0, &address), "asking for the address");
    announce(&address);
    tram_runtime_join(runtime);
    tram_runtime_free(runtime);
}

static int terminated(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

static void serve_by_loop(void) {
    tram_loop_options options = {.log = tram_log_to_stderr};
    tram_server_options how = {.backlog = 4096};
    tram_loop *loop;
    tram_future *future;
    tram_socket_address address;
    check(tram_loop_new(&options, &loop), "making the loop");
    check(tram_loop_add_signal_handler(loop, SIGTERM, terminated, NULL), "watching for SIGTERM");
    check(tram_loop_create_server(loop, make_echo, NULL, "127.0.0.1", "0", &how, &future), "listening");
    check(tram_loop_run_until_complete(loop, future), "listening");
    void *server = NULL;
    check(tram_future_result(future, &server), "listening");
    check(tram_server_sockname(server, 0, &address), "asking for the address");
    tram_future_release(future);
    tram_server_release(server);
    announce(&address);
    check(tram_loop_run_forever(loop), "running");
    tram_loop_free(loop);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--loop") == 0) {
        serve_by_loop();
    } else if (argc == 1) {
        serve_by_workers(1, false, NULL, false);
    } else if (argc == 2 && strcmp(argv[1], "--streams") == 0) {
        serve_by_workers(1, false, NULL, true);
    } else if ((argc == 3 || argc == 4) && strcmp(argv[1], "--workers") == 0 && atoi(argv[2]) > 0) {
        serve_by_workers((unsigned)atoi(argv[2]), true, argv[3], false);
    } else {
        fprintf(stderr, "usage: tram [--workers N [PORT] | --loop | --streams]\n");
        return 2;
    }
    return 0;
}
