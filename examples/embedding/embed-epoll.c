/*
 * A tram loop inside a host's own epoll loop, on one thread: the host reads its terminal, tram serves an echo.
 *
 *     embed-epoll [PORT]        (any free one if none is given); ends on "q" or the end of the input
 *
 * A line "count" is answered with the number of connections.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <tram/tram.h>

/* ---- The host ---- */

struct host {
    int epoll;
    tram_loop *loop;
    tram_server *server;
    bool stop;
};

static void read_terminal(struct host *host) {
    char line[64];
    ssize_t size = read(STDIN_FILENO, line, sizeof line);
    if (size <= 0 || line[0] == 'q')
        host->stop = true;
    else
        printf("%zu connections\n", tram_server_connection_count(host->server));
    fflush(stdout);
}

/* The host's wait takes milliseconds: rounded up, since a timer of tram never fires early. */
static int wait_ms(uint64_t timeout_ns) {
    const uint64_t longest_ms = 1000000;
    if (timeout_ns == TRAM_FOREVER)
        return -1;
    uint64_t ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
    return (int)(ms < longest_ms ? ms : longest_ms);
}

static int host_run(struct host *host) {
    while (!host->stop) {
        struct epoll_event events[8];
        uint64_t timeout_ns;
        /* Immediately before the wait: from here on a post of another thread wakes the descriptor. */
        int status = tram_loop_prepare(host->loop, &timeout_ns);
        if (status)
            return status;
        int count = epoll_wait(host->epoll, events, 8, wait_ms(timeout_ns));
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == STDIN_FILENO)
                read_terminal(host);
        }
        status = tram_loop_dispatch(host->loop); /* one tick; 1: somebody called tram_loop_stop() */
        if (status)
            return status;
    }
    return 0;
}

static int host_watch(struct host *host, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    return epoll_ctl(host->epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

/* ---- The server ---- */

static int data_received(tram_protocol *self, const void *data, size_t size) {
    return tram_transport_write(self->transport, data, size);
}

static int pause_writing(tram_protocol *self) {
    return tram_transport_pause_reading(self->transport);
}

static int resume_writing(tram_protocol *self) {
    return tram_transport_resume_reading(self->transport);
}

static void released(tram_protocol *self) {
    free(self);
}

static int make_echo(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.data_received = data_received,
                                          .pause_writing = pause_writing,
                                          .resume_writing = resume_writing,
                                          .released = released};
    (void)loop, (void)arg;
    *ret_protocol = (tram_protocol *)calloc(1, sizeof **ret_protocol);
    if (!*ret_protocol)
        return -ENOMEM;
    (*ret_protocol)->ops = &ops;
    return 0;
}

/* Runs in a tick of the host's loop, like everything else. */
static int listening(tram_future *future, void *arg) {
    struct host *host = (struct host *)arg;
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    int status = tram_future_result(future, NULL);
    if (status) {
        fprintf(stderr, "embed-epoll: %s\n", tram_error_describe(tram_future_error(future), status));
        return tram_loop_stop(host->loop);
    }
    host->server = tram_future_server(future);
    tram_server_sockname(host->server, 0, &address);
    printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
    fflush(stdout);
    return host_watch(host, STDIN_FILENO);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("usage: embed-epoll [PORT]\n"
             "An echo server inside another event loop; \"count\" tells how many connections, \"q\" ends it.");
        return 0;
    }
    struct host host = {.epoll = epoll_create1(EPOLL_CLOEXEC)};
    tram_future *future;
    if (host.epoll < 0 || tram_loop_new(NULL, &host.loop))
        return 1;
    int status = host_watch(&host, tram_loop_backend_fd(host.loop));
    if (!status)
        status =
            tram_loop_create_server(host.loop, make_echo, NULL, "127.0.0.1", argc > 1 ? argv[1] : "0", NULL, &future);
    if (!status) {
        tram_future_add_done_callback(future, listening, &host);
        status = host_run(&host);
        tram_server_release(host.server);
        tram_future_release(future);
    }
    tram_loop_free(host.loop); /* closes the server and its connections */
    close(host.epoll);
    return status != 0;
}
