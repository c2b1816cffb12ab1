/*
 * Connections as a stream: the server puts each into a queue, and three tasks take them from there, one after the
 * other. So no more than three are served at a time; who comes when 100 wait is refused.
 *
 *     connection-queue [PORT]        (any free one if none is given); SIGINT ends it
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <tram/tram.h>

#define TASKS 3

static int enqueue(tram_stream_reader *reader, tram_stream_writer *writer, void *queue) {
    (void)reader;
    return tram_queue_put_nowait((tram_queue *)queue, writer); /* -EAGAIN: full, which ends the connection */
}

/* Sends one line back. */
static void answer(tram_stream_writer *writer) {
    tram_bytes line;
    int status = tram_stream_reader_readline(tram_stream_writer_reader(writer), &line);
    if (!status)
        status = tram_stream_writer_write(writer, line.data, line.size);
    if (status)
        fprintf(stderr, "connection-queue: %s\n", tram_error_text(status));
    tram_stream_writer_close(writer);
}

static int answer_all(void *arg) {
    void *writer;
    int status;
    while ((status = tram_queue_get((tram_queue *)arg, &writer)) == 0) {
        answer((tram_stream_writer *)writer);
        tram_stream_writer_release((tram_stream_writer *)writer);
    }
    return status;
}

/* Until SIGINT cancels this task, and the group with it the tasks of the group. */
static int run_tasks(tram_queue *queue) {
    tram_group *group;
    int status = tram_group_begin(&group);
    if (status)
        return status;
    for (int i = 0; i < TASKS && !status; i++)
        status = tram_group_spawn(group, answer_all, queue, NULL, NULL);
    return tram_group_end(group, status);
}

static int serve_queue(tram_queue *queue, const char *port) {
    const tram_stream_service service = {.handler = enqueue, .arg = queue, .plain = true};
    tram_socket_address address;
    tram_server *server;
    int status = tram_start_server(&service, "127.0.0.1", port, NULL, &server);
    if (status)
        return status;
    tram_server_sockname(server, 0, &address);
    printf("listening on 127.0.0.1:%d\n", tram_socket_address_port(&address));
    fflush(stdout);
    status = run_tasks(queue);
    tram_server_close(server);
    tram_server_release(server);
    return status;
}

static int serve(void *port) {
    const tram_queue_options options = {.max_size = 100};
    tram_queue *queue;
    int status = tram_queue_new(tram_loop_running(), &options, &queue);
    if (status)
        return status;
    status = serve_queue(queue, (const char *)port);
    void *writer;
    while (tram_queue_get_nowait(queue, &writer) == 0)
        tram_stream_writer_release((tram_stream_writer *)writer); /* which closes it */
    tram_queue_free(queue);
    return status;
}

int main(int argc, char **argv) {
    if (argc > 2 || (argc == 2 && strcmp(argv[1], "--help") == 0)) {
        puts("usage: connection-queue [PORT]\nSends one line back to each connection, three at a time.");
        return argc > 2 ? 2 : 0;
    }
    int status = tram_run(serve, argc == 2 ? argv[1] : (char *)"0", NULL);
    if (status < 0 && status != -EINTR)
        fprintf(stderr, "connection-queue: %s\n", tram_error_describe(tram_run_error(), status));
    return status < 0 && status != -EINTR;
}
