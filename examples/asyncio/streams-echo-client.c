/*
 * A client that reads the terminal and the connection at the same time, a task for each: sends each line that is typed
 * and prints each that comes. "q" or the end of the input ends it when all is answered; so does the server's end.
 *
 *     streams-echo-client HOST PORT
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <tram/tram.h>

struct client {
    const char *host, *port;
    tram_stream_reader *reader, *terminal;
    tram_stream_writer *writer, *terminal_end;
};

static int send_lines(void *arg) {
    const struct client *client = (const struct client *)arg;
    tram_bytes line;
    int status;
    while ((status = tram_stream_reader_readline(client->terminal, &line)) == 0 && line.size) {
        if (line.size == 2 && line.data[0] == 'q')
            break;
        tram_stream_writer_write(client->writer, line.data, line.size);
        status = tram_stream_writer_drain(client->writer);
        if (status < 0)
            return status;
    }
    return status < 0 ? status : tram_stream_writer_write_eof(client->writer);
}

static int print_lines(void *arg) {
    const struct client *client = (const struct client *)arg;
    tram_bytes line;
    int status;
    while ((status = tram_stream_reader_readline(client->reader, &line)) == 0 && line.size) {
        fwrite(line.data, 1, line.size, stdout);
        fflush(stdout);
    }
    return status;
}

static int give_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = (tram_protocol *)arg;
    return 0;
}

/* Standard input as a stream; its descriptor is only lent. */
static int open_terminal(struct client *client) {
    const tram_pipe_options options = {.not_ours = true};
    tram_loop *loop = tram_loop_running();
    tram_protocol *protocol;
    tram_future *opening;
    int status = tram_stream_new(loop, 0, &protocol, &client->terminal, &client->terminal_end);
    if (status < 0)
        return status;
    status = tram_loop_connect_read_pipe_with_options(loop, give_protocol, protocol, STDIN_FILENO, &options, &opening);
    if (status < 0) {
        protocol->ops->released(protocol); /* nobody took it */
        return status;
    }
    status = tram_await(opening, NULL);
    tram_future_release(opening);
    return status;
}

/* Whichever ends first: after the last line there may be answers, after the server's end nobody needs more lines. */
static int talk(struct client *client) {
    tram_task *sending, *printing;
    int status = tram_task_spawn(NULL, send_lines, client, NULL, &sending);
    if (status < 0)
        return status;
    status = tram_task_spawn(NULL, print_lines, client, NULL, &printing);
    if (status == 0) {
        tram_future *both[] = {tram_task_future(sending), tram_task_future(printing)};
        status = tram_wait(both, 2, TRAM_FOREVER, TRAM_FIRST_COMPLETED);
        if (status < 0) /* Ctrl-C */
            tram_task_cancel(printing);
        if (status < 0 || tram_task_done(printing))
            tram_task_cancel(sending);
        tram_task_join(sending); /* which releases it */
        return tram_task_join(printing);
    }
    tram_task_cancel(sending);
    tram_task_release(sending);
    return status;
}

static int run(void *arg) {
    struct client *client = (struct client *)arg;
    int status = tram_open_connection(client->host, client->port, 0, NULL, &client->reader, &client->writer);
    if (status < 0)
        return status;
    status = open_terminal(client);
    if (status == 0)
        status = talk(client);
    if (client->terminal_end)
        tram_stream_writer_close(client->terminal_end);
    tram_stream_writer_release(client->terminal_end);
    tram_stream_writer_close(client->writer);
    tram_stream_writer_release(client->writer);
    return status;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        puts("usage: streams-echo-client HOST PORT\n"
             "Sends each line of the input to an echo server and prints what comes back; \"q\" ends it.");
        return 0;
    }
    if (argc != 3) {
        fprintf(stderr, "usage: streams-echo-client HOST PORT\n");
        return 2;
    }
    struct client client = {.host = argv[1], .port = argv[2]};
    int status = tram_run(run, &client, NULL);
    if (status < 0)
        fprintf(stderr, "streams-echo-client: %s\n", tram_error_text(status));
    return status < 0;
}
