/*
 * A TCP client with a terminal: sends each line that is typed and prints what comes back, at the same time. "q" ends
 * it, and so do the end of the input and the end of the connection.
 *
 *     echo-console HOST PORT
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <tram/tram.h>

struct console {
    tram_protocol base; /* first */
    tram_loop *loop;
    int status;
    char line[1024]; /* what was typed of the next one */
    size_t size;
};

/* Sends whole lines. Returns false where "q" was typed. */
static bool send_lines(struct console *console) {
    char *end;
    while ((end = (char *)memchr(console->line, '\n', console->size)) != NULL) {
        size_t length = (size_t)(end - console->line) + 1;
        if (length == 2 && console->line[0] == 'q')
            return false;
        tram_transport_write(console->base.transport, console->line, length);
        console->size -= length;
        memmove(console->line, end + 1, console->size);
    }
    return true;
}

static int typed(tram_loop *loop, void *arg) {
    struct console *console = (struct console *)arg;
    ssize_t count = read(STDIN_FILENO, console->line + console->size, sizeof console->line - console->size);
    if (count < 0 && errno == EINTR)
        return 0;
    console->size += count > 0 ? (size_t)count : 0;
    if (count > 0 && send_lines(console) && console->size < sizeof console->line)
        return 0;
    tram_loop_remove_reader(loop, STDIN_FILENO);
    return tram_transport_close(console->base.transport);
}

static int connection_made(tram_protocol *self, tram_transport *transport) {
    struct console *console = (struct console *)self;
    console->status = tram_loop_add_reader(console->loop, STDIN_FILENO, typed, console);
    return console->status < 0 ? tram_transport_close(transport) : 0; /* a file cannot be waited for */
}

static int data_received(tram_protocol *self, const void *data, size_t size) {
    (void)self;
    fwrite(data, 1, size, stdout);
    fflush(stdout);
    return 0;
}

static int connection_lost(tram_protocol *self, const tram_error *error) {
    struct console *console = (struct console *)self;
    tram_loop_remove_reader(console->loop, STDIN_FILENO);
    if (error)
        console->status = error->code;
    return tram_loop_stop(console->loop);
}

static const tram_protocol_ops console_ops = {
    .connection_made = connection_made,
    .data_received = data_received,
    .connection_lost = connection_lost,
};

static int make_console(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct console *console = (struct console *)arg;
    (void)loop;
    *ret_protocol = &console->base;
    return 0;
}

/* Without a connection nothing else would end the loop. */
static int connected(tram_future *future, void *arg) {
    struct console *console = (struct console *)arg;
    int status = tram_future_result(future, NULL);
    if (status < 0) {
        console->status = status;
        tram_loop_stop(console->loop);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: echo-console HOST PORT\n"
             "Sends each line of the input to an echo server and prints what comes back; \"q\" ends it.");
        return 0;
    }
    struct console console = {.base = {.ops = &console_ops}};
    tram_future *future;
    if (argc != 3) {
        fprintf(stderr, "usage: echo-console HOST PORT\n");
        return 2;
    }
    if (tram_loop_new(NULL, &console.loop) < 0)
        return 1;
    int status = tram_loop_create_connection(console.loop, make_console, &console, argv[1], argv[2], NULL, &future);
    if (status == 0) {
        tram_future_add_done_callback(future, connected, &console);
        tram_loop_run_forever(console.loop);
        tram_future_release(future);
        status = console.status;
    }
    tram_loop_free(console.loop);
    if (status < 0)
        fprintf(stderr, "echo-console: %s\n", tram_error_text(status));
    return status < 0;
}
