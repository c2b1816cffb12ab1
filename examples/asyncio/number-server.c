/*
 * Answers each integer with the next one (numbers.h), over a Unix socket in the abstract space: no file is made.
 *
 *     number-server [NAME]        ends on SIGINT or SIGTERM
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "numbers.h"

static int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: number-server [NAME]\n"
             "Answers integers with the next one, at the abstract Unix socket NAME (tram-numbers).");
        return 0;
    }
    char name[100];
    int size = snprintf(name, sizeof name, "%c%s", 0, argc > 1 ? argv[1] : "tram-numbers");
    tram_loop *loop;
    tram_future *future;
    if (tram_loop_new(NULL, &loop) < 0)
        return 1;
    tram_loop_add_signal_handler(loop, SIGINT, stop, NULL);
    tram_loop_add_signal_handler(loop, SIGTERM, stop, NULL);
    int status = tram_loop_create_unix_server(loop, make_number_server, NULL, name, (size_t)size, NULL, &future);
    if (status == 0) {
        status = tram_loop_run_until_complete(loop, future);
        tram_server_release(tram_future_server(future)); /* the loop closes it; NULL: there is none */
        tram_future_release(future);
    }
    if (status == 0) {
        printf("listening on @%s\n", name + 1);
        fflush(stdout);
        status = tram_loop_run_forever(loop);
    }
    tram_loop_free(loop);
    if (status < 0)
        fprintf(stderr, "number-server: %s\n", tram_error_text(status));
    return status < 0;
}
