/*
 * A client on a raw socket, one step after the other: sends each line that it reads, and prints the answer. "quit"
 * ends it.
 *
 *     sock-client HOST PORT
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tram/tram.h>

/* Runs the loop until the operation is done, of which `status` says how it began. */
static int finish(tram_loop *loop, const char *what, int status, tram_future *future) {
    if (status == 0)
        status = tram_loop_run_until_complete(loop, future);
    if (status < 0)
        fprintf(stderr, "sock-client: %s: %s\n", what, tram_error_text(status));
    return status;
}

static int ask(tram_loop *loop, int fd, const char *line) {
    tram_future *future = NULL;
    int status = tram_loop_sock_sendall(loop, fd, line, strlen(line), &future);
    status = finish(loop, "send", status, future);
    tram_future_release(future);
    if (status < 0 || strcmp(line, "quit\n") == 0)
        return status < 0 ? status : 1;

    future = NULL;
    status = tram_loop_sock_recv(loop, fd, 256, &future);
    status = finish(loop, "receive", status, future);
    void *value = NULL;
    if (status == 0 && tram_future_result(future, &value) == 0) {
        const tram_sock_data *answer = (const tram_sock_data *)value;
        if (answer->size == 0)
            status = 1; /* the server ended */
        fwrite(answer->data, 1, answer->size, stdout);
        fflush(stdout);
    }
    tram_future_release(future);
    return status;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: sock-client HOST PORT\n"
             "Sends each line of the input and prints the answer; \"quit\" ends it.");
        return 0;
    }
    if (argc != 3) {
        fprintf(stderr, "usage: sock-client HOST PORT\n");
        return 2;
    }
    tram_loop *loop;
    tram_future *future = NULL;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || tram_loop_new(NULL, &loop) < 0)
        return 1;
    int status = tram_loop_sock_connect(loop, fd, argv[1], argv[2], &future);
    status = finish(loop, "connect", status, future);
    tram_future_release(future);
    char line[256];
    while (status == 0 && fgets(line, sizeof line, stdin))
        status = ask(loop, fd, line);
    tram_loop_free(loop);
    close(fd);
    return status < 0;
}
