/*
 * libevent's bufferevent_openssl: the echo of libevent_bufferevent.c behind TLS.
 *
 *     libevent_tls CHAIN KEY
 *
 * TCP_NODELAY: on, set once on the listening socket, from which accepted sockets inherit it; libevent by itself
 * leaves it off, and a message of 16 KiB, which it sends in pieces of 4 KiB, then waits for delayed ACKs.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <openssl/ssl.h>

enum { BACKLOG = 4096, MOST_QUEUED = 64 * 1024 };

static void fail(const char *what) {
    fprintf(stderr, "libevent: %s failed\n", what);
    exit(1);
}

static SSL_CTX *context;

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
    (void)listener;
    (void)peer;
    (void)size;
    SSL *ssl = SSL_new(context);
    struct bufferevent *client =
        ssl == NULL ? NULL
                    : bufferevent_openssl_socket_new(arg, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    if (client == NULL) {
        fail("bufferevent_openssl_socket_new");
    }
    bufferevent_setcb(client, readable, NULL, ended, NULL);
    bufferevent_enable(client, EV_READ | EV_WRITE);
}

static void terminated(evutil_socket_t number, short what, void *base) {
    (void)number;
    (void)what;
    event_base_loopbreak(base);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: libevent_tls CHAIN KEY\n");
        return 2;
    }
    context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, argv[2], SSL_FILETYPE_PEM) != 1) {
        fail("certificate");
    }
    signal(SIGPIPE, SIG_IGN); /* libevent leaves that to the program */
    struct event_base *base = event_base_new();
    if (base == NULL) {
        fail("event_base_new");
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ev_socklen_t size = sizeof(address);
    struct evconnlistener *listener =
        evconnlistener_new_bind(base, incoming, base, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, BACKLOG,
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
