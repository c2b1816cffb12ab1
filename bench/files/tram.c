/* tram_loop_sendfile through a transport. */
#include "sender.h"

#include <string.h>

#include <tram/tram.h>

struct sender {
    tram_protocol base;
    tram_loop *loop;
    int file;
    unsigned long long sent;
};

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "tram: %s: %s\n", what, tram_error_text(status));
        exit(1);
    }
}

static int all_sent(tram_future *future, void *arg) {
    struct sender *sender = arg;
    void *value = NULL;
    check(tram_future_result(future, &value), "sendfile");
    sender->sent = (uintptr_t)value;
    tram_transport_close(sender->base.transport);
    tram_future_release(future);
    return 0;
}

static int connection_made(tram_protocol *self, tram_transport *transport) {
    struct sender *sender = (struct sender *)self;
    tram_future *future;
    check(tram_loop_sendfile(sender->loop, transport, sender->file, 0, TRAM_SENDFILE_ALL, NULL, &future), "sendfile");
    return tram_future_add_done_callback(future, all_sent, sender);
}

static int connection_lost(tram_protocol *self, const tram_error *error) {
    (void)error;
    return tram_loop_stop(((struct sender *)self)->loop);
}

static const tram_protocol_ops ops = {.connection_made = connection_made, .connection_lost = connection_lost};

static int make(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

int main(int argc, char **argv) {
    struct sender sender = {.base.ops = &ops, .file = open_file(argc, argv)};
    check(tram_loop_new(NULL, &sender.loop), "making the loop");
    int fd = accept_one();
    double before = cpu_seconds();
    check(tram_loop_connect_accepted_socket(sender.loop, make, &sender, fd, NULL), "connecting");
    check(tram_loop_run_forever(sender.loop), "running");
    tell(sender.sent, cpu_seconds() - before);
    tram_loop_free(sender.loop);
    return 0;
}
