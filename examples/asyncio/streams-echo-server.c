/*
 * An echo server with streams: each connection is a function that reads and writes, in a task of its own.
 *
 *     streams-echo-server [PORT]
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <tram/tram.h>

static int echo(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    char bytes[4096];
    ptrdiff_t size;
    (void)arg;
    while ((size = tram_stream_reader_read(reader, bytes, sizeof bytes)) > 0) {
        tram_stream_writer_write(writer, bytes, (size_t)size);
        int status = tram_stream_writer_drain(writer); /* who does not read is not written to for ever */
        if (status < 0)
            return status;
    }
    tram_stream_writer_close(writer);
    return (int)size; /* 0: the end of the stream */
}

static int serve(void *arg) {
    const tram_stream_service service = {.handler = echo};
    tram_server *server;
    tram_socket_address address;
    int status = tram_start_server(&service, "127.0.0.1", (const char *)arg, NULL, &server);
    if (status < 0)
        return status;
    tram_server_sockname(server, 0, &address);
    printf("listening on 127.0.0.1:%d\n", tram_socket_address_port(&address));
    fflush(stdout);
    status = tram_sleep(TRAM_FOREVER); /* until Ctrl-C cancels it, and then the handlers */
    tram_server_close(server);
    tram_server_release(server);
    return status;
}

int main(int argc, char **argv) {
    if (argc > 2 || (argc == 2 && strcmp(argv[1], "--help") == 0)) {
        puts("usage: streams-echo-server [PORT]\nSends back whatever a connection sends, until it ends or Ctrl-C.");
        return argc > 2 ? 2 : 0;
    }
    int status = tram_run(serve, argc == 2 ? argv[1] : (char *)"8888", NULL);
    if (status < 0 && status != -EINTR)
        fprintf(stderr, "streams-echo-server: %s\n", tram_error_text(status));
    return status < 0 && status != -EINTR;
}
