/*
 * The floor of TLS: OpenSSL on the sockets themselves (SSL_set_fd) over level-triggered epoll, as its manual has it.
 * One SSL_read and one SSL_write per readiness; no read-ahead, partial writes. A connection is its SSL and what a peer
 * left unread.
 *
 *     openssl_tls [--release-buffers] [--read-ahead] CHAIN KEY
 *
 * --release-buffers is SSL_MODE_RELEASE_BUFFERS. --read-ahead reads header and body of a record by one system call
 * where the manual's way needs two: the least that a server costs whose records OpenSSL makes.
 *
 * TCP_NODELAY: on, set once on the listening socket, from which accepted sockets inherit it.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "../lib/listen.h"

enum { EVENTS = 256 };

struct connection {
    SSL *ssl;
    int fd;
    uint32_t events;
    char *rest; /* what the peer did not take yet */
    size_t rest_size;
};

static char buffer[64 * 1024];
static int epoll;
static SSL_CTX *context;

static _Noreturn void fail_tls(const char *what) {
    ERR_print_errors_fp(stderr);
    fail(what);
}

static void watch(struct connection *connection, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    connection->events = events;
    if (epoll_ctl(epoll, operation, connection->fd, &event) < 0) {
        fail("epoll_ctl");
    }
}

static void end(struct connection *connection) {
    ERR_clear_error();
    SSL_free(connection->ssl);
    close(connection->fd);
    free(connection->rest);
    free(connection);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN) {
                return;
            }
            if (errno != ECONNABORTED && errno != EINTR) {
                fail("accept4");
            }
            continue;
        }
        struct connection *connection = calloc(1, sizeof(*connection));
        if (connection == NULL || (connection->ssl = SSL_new(context)) == NULL || !SSL_set_fd(connection->ssl, fd)) {
            fail_tls("SSL_new");
        }
        SSL_set_accept_state(connection->ssl);
        connection->fd = fd;
        watch(connection, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* False: the connection has ended. */
static bool is_open(struct connection *connection, int result) {
    int error = SSL_get_error(connection->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        return true;
    }
    if (error == SSL_ERROR_ZERO_RETURN) {
        SSL_shutdown(connection->ssl);
    }
    end(connection);
    return false;
}

static void keep(struct connection *connection, const char *bytes, size_t size) {
    connection->rest = malloc(size);
    if (connection->rest == NULL) {
        fail("malloc");
    }
    memcpy(connection->rest, bytes, size);
    connection->rest_size = size;
    watch(connection, EPOLL_CTL_MOD, EPOLLOUT);
}

static void echo(struct connection *connection) {
    size_t size, sent = 0;
    int result = SSL_read_ex(connection->ssl, buffer, sizeof(buffer), &size);
    if (result <= 0) {
        if (is_open(connection, result) && SSL_want_write(connection->ssl)) {
            watch(connection, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
        }
        return;
    }
    while (sent < size) {
        size_t part;
        result = SSL_write_ex(connection->ssl, buffer + sent, size - sent, &part);
        if (result <= 0) {
            if (is_open(connection, result)) {
                keep(connection, buffer + sent, size - sent);
            }
            return;
        }
        sent += part;
    }
}

static void send_rest(struct connection *connection) {
    size_t part;
    int result = SSL_write_ex(connection->ssl, connection->rest, connection->rest_size, &part);
    if (result <= 0) {
        is_open(connection, result);
        return;
    }
    connection->rest_size -= part;
    memmove(connection->rest, connection->rest + part, connection->rest_size);
    if (connection->rest_size == 0) {
        free(connection->rest);
        connection->rest = NULL;
        watch(connection, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void serve(struct connection *connection) {
    if (connection->rest != NULL) {
        send_rest(connection);
        return;
    }
    if (connection->events & EPOLLOUT) { /* of a handshake that did not fit */
        watch(connection, EPOLL_CTL_MOD, EPOLLIN);
    }
    echo(connection);
}

static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

struct options {
    const char *files[2]; /* chain and key */
    bool release_buffers;
    bool read_ahead;
};

static bool parse(char **argv, struct options *options) {
    size_t files = 0;
    for (char **word = argv + 1; *word; word++) {
        if (strcmp(*word, "--release-buffers") == 0) {
            options->release_buffers = true;
        } else if (strcmp(*word, "--read-ahead") == 0) {
            options->read_ahead = true;
        } else if (files < 2) {
            options->files[files++] = *word;
        } else {
            return false;
        }
    }
    return files == 2;
}

int main(int argc, char **argv) {
    (void)argc;
    struct options options = {0};
    if (!parse(argv, &options)) {
        fprintf(stderr, "usage: openssl_tls [--release-buffers] [--read-ahead] CHAIN KEY\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    sigset_t term, none; /* it comes while nothing is done */
    sigemptyset(&none);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, options.files[0]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, options.files[1], SSL_FILETYPE_PEM) != 1) {
        fail_tls("certificate");
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (options.release_buffers) {
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    }
    SSL_CTX_set_read_ahead(context, options.read_ahead);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        fail("epoll_create1");
    }
    struct connection listening = {.fd = listen_on(0)};
    watch(&listening, EPOLL_CTL_ADD, EPOLLIN);
    while (!stopped) {
        struct epoll_event events[EVENTS];
        int count = epoll_pwait(epoll, events, EVENTS, -1, &none);
        if (count < 0 && errno != EINTR) {
            fail("epoll_pwait");
        }
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection == &listening) {
                accept_all(listening.fd);
            } else {
                serve(connection);
            }
        }
    }
    return 0;
}
