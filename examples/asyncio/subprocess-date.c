/*
 * The date, as the program `date` tells it: the subprocess example of asyncio's manual.
 *
 * process_exited may come before the output is in, and the output may end before the process does: the loop is stopped
 * when both have happened.
 */
#include <stdio.h>
#include <string.h>

#include <tram/tram.h>

struct date {
    tram_protocol base; /* first */
    tram_loop *loop;
    char output[256];
    size_t size;
    bool output_ended;
    bool exited;
    int returncode;
};

static void stop_when_all_is_in(struct date *date) {
    if (date->output_ended && date->exited)
        tram_loop_stop(date->loop);
}

static int pipe_data_received(tram_protocol *self, int fd, const void *data, size_t size) {
    struct date *date = (struct date *)self;
    (void)fd;
    for (size_t i = 0; i < size && date->size < sizeof date->output; i++)
        date->output[date->size++] = ((const char *)data)[i];
    return 0;
}

static int pipe_connection_lost(tram_protocol *self, int fd, const tram_error *error) {
    struct date *date = (struct date *)self;
    (void)error;
    if (fd == 1)
        date->output_ended = true;
    stop_when_all_is_in(date);
    return 0;
}

static int process_exited(tram_protocol *self) {
    struct date *date = (struct date *)self;
    date->exited = true;
    tram_transport_get_returncode(self->transport, &date->returncode);
    stop_when_all_is_in(date);
    return 0;
}

static const tram_protocol_ops date_ops = {
    .pipe_data_received = pipe_data_received,
    .pipe_connection_lost = pipe_connection_lost,
    .process_exited = process_exited,
};

static int make_date(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct date *date = (struct date *)arg;
    date->loop = loop;
    *ret_protocol = &date->base;
    return 0;
}

/* A child that was not to be had: nothing else would end the loop. */
static int started(tram_future *future, void *arg) {
    int *status = (int *)arg;
    *status = tram_future_result(future, NULL);
    if (*status)
        tram_loop_stop(tram_future_get_loop(future));
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: subprocess-date\n"
             "Prints what the program date says.");
        return 0;
    }
    const char *const command[] = {"date", NULL};
    const tram_subprocess_options options = {.input = {.kind = TRAM_STDIO_NULL}, .error = {.kind = TRAM_STDIO_INHERIT}};
    struct date date = {.base = {.ops = &date_ops}};
    tram_loop *loop;
    tram_future *future;
    int status = tram_loop_new(NULL, &loop);
    if (!status)
        status = tram_loop_subprocess_exec(loop, make_date, &date, command, &options, &future);
    if (!status) {
        tram_future_add_done_callback(future, started, &status);
        tram_loop_run_forever(loop);
        tram_future_release(future);
        tram_loop_free(loop);
    }
    if (status) {
        fprintf(stderr, "date: %s\n", tram_error_text(status));
        return 1;
    }
    printf("Current date: %.*s", (int)date.size, date.output);
    return date.returncode;
}
