/*
 * tram's side of interop_pipe.py, which compiles it.
 *
 *     interop_pipe IN OUT
 *
 * What comes out of the pipe IN goes into the pipe OUT, with regard to who reads there; "-" is standard input, or
 * output. Ends well when IN has ended and OUT has everything.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <tram/tram.h>

static tram_transport *in, *out; /* NULL: gone */
static int failure;

static int received(tram_protocol *self, const void *data, size_t size) {
    (void)self;
    return out ? tram_transport_write(out, data, size) : 0;
}

static int in_lost(tram_protocol *self, const tram_error *error) {
    (void)self;
    if (error)
        failure = error->code;
    in = NULL;
    return out ? tram_transport_close(out) : 0;
}

static int pause_in(tram_protocol *self) {
    (void)self;
    return in ? tram_transport_pause_reading(in) : 0;
}

static int resume_in(tram_protocol *self) {
    (void)self;
    return in ? tram_transport_resume_reading(in) : 0;
}

static int out_lost(tram_protocol *self, const tram_error *error) {
    tram_loop *loop = tram_transport_get_loop(self->transport);
    if (error)
        failure = error->code;
    out = NULL;
    return tram_loop_stop(loop);
}

static const tram_protocol_ops in_ops = {.data_received = received, .connection_lost = in_lost};
static const tram_protocol_ops out_ops = {
    .pause_writing = pause_in, .resume_writing = resume_in, .connection_lost = out_lost};

static int give(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

static int open_end(const char *path, bool writing) {
    if (strcmp(path, "-") == 0)
        return writing;
    return open(path, (writing ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
}

static int connect_end(tram_loop *loop, tram_protocol *protocol, int fd, bool writing, tram_transport **ret_transport) {
    tram_future *future;
    void *transport = NULL;
    int status = writing ? tram_loop_connect_write_pipe(loop, give, protocol, fd, &future)
                         : tram_loop_connect_read_pipe(loop, give, protocol, fd, &future);
    if (status < 0)
        return status;
    tram_loop_run_until_complete(loop, future);
    status = tram_future_result(future, &transport);
    tram_future_release(future);
    *ret_transport = transport;
    return status;
}

int main(int argc, char **argv) {
    tram_protocol reader = {.ops = &in_ops}, writer = {.ops = &out_ops};
    tram_loop *loop;
    if (argc != 3 || tram_loop_new(NULL, &loop) < 0)
        return 2;
    int from = open_end(argv[1], false), to = open_end(argv[2], true);
    int status = from < 0 || to < 0 ? -errno : connect_end(loop, &writer, to, true, &out);
    if (status == 0)
        status = connect_end(loop, &reader, from, false, &in);
    if (status == 0)
        status = tram_loop_run_forever(loop);
    tram_loop_free(loop);
    if (status == 0)
        status = failure;
    if (status < 0)
        fprintf(stderr, "interop_pipe: %s\n", tram_error_text(status));
    return status < 0;
}
