/*
 * tram: a protocol whose data_received writes what it gets, on a runtime of one worker (--workers N: of N, each on a
 * CPU of its own; with a port after it: one that other processes listen to as well), or with --loop on a loop alone;
 * with --streams a task that reads, writes and drains.
 *
 * TCP_NODELAY: on, as tram sets it by itself.
 */
#include <signal.h>
#include <string.h>

#include "tram_echo.h"

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
    tram_runtime_options options = {.workers = 1};
    tram_server_options how = {.reuse_port = argc == 4};
    if (argc == 2 && strcmp(argv[1], "--loop") == 0) {
        serve_by_loop();
    } else if (argc == 1) {
        serve_by_workers(options, "0", &how, NULL);
    } else if (argc == 2 && strcmp(argv[1], "--streams") == 0) {
        serve_by_workers(options, "0", &how, &(tram_stream_service){.handler = echo_stream});
    } else if ((argc == 3 || argc == 4) && strcmp(argv[1], "--workers") == 0 && atoi(argv[2]) > 0) {
        options.workers = (unsigned)atoi(argv[2]);
        options.pin = true;
        serve_by_workers(options, argc == 4 ? argv[3] : "0", &how, NULL);
    } else {
        fprintf(stderr, "usage: tram [--workers N [PORT] | --loop | --streams]\n");
        return 2;
    }
    return 0;
}
