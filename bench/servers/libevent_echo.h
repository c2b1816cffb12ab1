/*
 * What the servers over libevent's bufferevents have in common, its own way to do connections: what came into the input
 * buffer is moved, not copied, to the output buffer.
 *
 * TCP_NODELAY: on, set once on the listening socket, from which accepted sockets inherit it; libevent by itself
 * leaves it off, and a message of 16 KiB, which it sends in pieces of 4 KiB, then waits for delayed ACKs.
 */
#ifndef BENCH_LIBEVENT_ECHO_H
#define BENCH_LIBEVENT_ECHO_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

enum { BACKLOG = 4096, MOST_QUEUED = 64 * 1024 };

/* A bufferevent for the accepted socket; NULL: it failed. */
typedef struct bufferevent *(*make_client)(struct event_base *base, evutil_socket_t fd);

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "libevent: %s failed\n", what);
    exit(1);
}

static void readable(struct bufferevent *client, void *arg);

static void ended(struct bufferevent *client, short what, void *arg) {
    (void)arg;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
        bufferevent_free(client);
    }
}

/* A client that did not read does so again: all that was queued is sent. */
static void drained(struct bufferevent *client, void *arg) {
    bufferevent_setcb(client, readable, NULL, ended, arg);
    bufferevent_enable(client, EV_READ);
}

static void readable(struct bufferevent *client, void *arg) {
    struct evbuffer *output = bufferevent_get_output(client);
    bufferevent_read_buffer(client, output);
    if (evbuffer_get_length(output) > MOST_QUEUED) {
        bufferevent_disable(client, EV_READ);
        bufferevent_setcb(client, readable, drained, ended, arg);
    }
}

static void incoming(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *peer, int size, void *arg) {
    (void)peer;
    (void)size;
    struct bufferevent *client = (*(make_client *)arg)(evconnlistener_get_base(listener), fd);
    if (client == NULL) {
        fail("making a bufferevent");
    }
    bufferevent_setcb(client, readable, NULL, ended, NULL);
    bufferevent_enable(client, EV_READ | EV_WRITE);
}

static void terminated(evutil_socket_t number, short what, void *base) {
    (void)number;
    (void)what;
    event_base_loopbreak(base);
}

static int serve(make_client make) {
    signal(SIGPIPE, SIG_IGN); /* libevent leaves that to the program */
    struct event_base *base = event_base_new();
    if (base == NULL) {
        fail("event_base_new");
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ev_socklen_t size = sizeof(address);
    struct evconnlistener *listener =
        evconnlistener_new_bind(base, incoming, &make, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, BACKLOG,
                                (struct sockaddr *)&address, sizeof(address));
    int on = 1;
    if (listener == NULL ||
        setsockopt(evconnlistener_get_fd(listener), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
        getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&address, &size) < 0) {
        fail("listening");
    }
    struct event *term = evsignal_new(base, SIGTERM, terminated, base);
    evsignal_add(term, NULL);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    event_base_dispatch(base);
    event_free(term);
    evconnlistener_free(listener);
    event_base_free(base);
    return 0;
}

#endif
