/*
 * Asks number-server for the next integer.
 *
 *     number-client NUMBER [NAME]
 */
#include <stdio.h>
#include <string.h>

#include "numbers.h"

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: number-client NUMBER [NAME]\n"
             "Asks number-server at the abstract Unix socket NAME (tram-numbers) for the next integer.");
        return 0;
    }
    if (argc < 2) {
        fprintf(stderr, "usage: number-client NUMBER [NAME]\n");
        return 2;
    }
    struct number_client client = {0};
    if (number_read(argv[1], &client.number) < 0) {
        fprintf(stderr, "number-client: no integer of 64 bits: %s\n", argv[1]);
        return 2;
    }
    char name[100];
    int size = snprintf(name, sizeof name, "%c%s", 0, argc > 2 ? argv[2] : "tram-numbers");
    tram_loop *loop;
    tram_future *future;
    if (tram_loop_new(NULL, &loop) < 0)
        return 1;
    int status = tram_loop_create_unix_connection(loop, make_number_client, &client, name, (size_t)size, NULL, &future);
    if (status == 0) {
        status = tram_loop_run_until_complete(loop, future);
        tram_future_release(future);
    }
    if (status == 0)
        tram_loop_run_forever(loop); /* until the connection is lost */
    tram_loop_free(loop);
    if (status == 0 && !client.answered)
        status = TRAM_EINCOMPLETE;
    if (status < 0)
        fprintf(stderr, "number-client: %s\n", tram_error_text(status));
    else
        printf("%" PRId64 "\n", client.number);
    return status < 0;
}
