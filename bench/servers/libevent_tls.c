/*
 * libevent's bufferevent_openssl: the echo of libevent_bufferevent.c behind TLS.
 *
 *     libevent_tls CHAIN KEY
 */
#include <event2/bufferevent_ssl.h>
#include <openssl/ssl.h>

#include "libevent_echo.h"

static SSL_CTX *context;

static struct bufferevent *make(struct event_base *base, evutil_socket_t fd) {
    SSL *ssl = SSL_new(context);
    return ssl == NULL
               ? NULL
               : bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
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
    return serve(make);
}
