/* tram_loop_sock_sendfile on a plain socket. */
#include "sender.h"

#include <tram/tram.h>

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "tram_sock: %s: %s\n", what, tram_error_text(status));
        exit(1);
    }
}

int main(int argc, char **argv) {
    int file = open_file(argc, argv);
    tram_loop *loop;
    tram_future *future;
    check(tram_loop_new(NULL, &loop), "making the loop");
    int fd = accept_one();
    double before = cpu_seconds();
    check(tram_loop_sock_sendfile(loop, fd, file, 0, TRAM_SENDFILE_ALL, NULL, &future), "sendfile");
    check(tram_loop_run_until_complete(loop, future), "sendfile");
    void *value = NULL;
    check(tram_future_result(future, &value), "sendfile");
    close(fd);
    tell((uintptr_t)value, cpu_seconds() - before);
    tram_future_release(future);
    tram_loop_free(loop);
    return 0;
}
