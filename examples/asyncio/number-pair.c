/*
 * The protocols of number-server and number-client, unchanged, with memory between them instead of a socket.
 *
 *     number-pair NUMBER
 */
#include <stdio.h>
#include <string.h>

#include "numbers.h"

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: number-pair NUMBER\n"
             "Asks for the next integer through memory instead of a socket.");
        return 0;
    }
    if (argc < 2) {
        fprintf(stderr, "usage: number-pair NUMBER\n");
        return 2;
    }
    struct number_client client = {0};
    if (number_read(argv[1], &client.number) < 0) {
        fprintf(stderr, "number-pair: no integer of 64 bits: %s\n", argv[1]);
        return 2;
    }
    tram_protocol *asking, *answering;
    tram_loop *loop;
    if (tram_loop_new(NULL, &loop) < 0)
        return 1;
    int status = make_number_client(loop, &client, &asking);
    if (status == 0)
        status = make_number_server(loop, NULL, &answering);
    if (status == 0)
        status = tram_loop_create_pair(loop, asking, answering, NULL, NULL);
    if (status == 0)
        status = tram_loop_run_forever(loop); /* until the client's connection is lost */
    tram_loop_free(loop);                     /* the server's end sees the end of it here at the latest */
    if (status == 0 && !client.answered)
        status = TRAM_EINCOMPLETE;
    if (status < 0)
        fprintf(stderr, "number-pair: %s\n", tram_error_text(status));
    else
        printf("%" PRId64 "\n", client.number);
    return status < 0;
}
