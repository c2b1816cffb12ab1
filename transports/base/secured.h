/*
 * What libtram knows of TLS: that an object of libtram-tls, a tram_tls_config, can check what it is asked for and make
 * a layer of it. So libtram needs no OpenSSL; whoever gives it a config has linked libtram-tls.
 */
#ifndef TRAM_TRANSPORTS_BASE_SECURED_H
#define TRAM_TRANSPORTS_BASE_SECURED_H

#include "core/loop/loop.h"
#include "transports/base/layer.h"
#include <tram/buffer.h>

/* Who wants to hear when the handshake is over, once for each transport; see layer_kind.started. */
struct tls_watcher {
    void (*started)(struct tls_watcher *watcher, tram_transport *transport, const tram_error *error);
};

/* What TLS of a connection, or of all connections of a server, is made by. */
struct tls_use {
    tram_tls_config *config; /* held; NULL: no TLS */
    bool server;
    char *server_hostname;         /* our own copy; NULL: none */
    tram_buffer *session;          /* held; NULL: none */
    uint64_t handshake_timeout_ns; /* 0: as the config says */
    uint64_t shutdown_timeout_ns;
};

/* Of a failure, whose text must live until the call that made it is over. */
struct tls_problem {
    const char *option;
    char text[TRAM_ERROR_TEXT];
};

/* First in every tram_tls_config. */
struct tls_provider {
    void (*hold)(tram_tls_config *config);
    void (*release)(tram_tls_config *config);
    /* Could connections be made so? The option that makes no sense, or NULL. */
    const char *(*wrong_option)(const struct tls_use *use);
    /* A layer that is not pushed yet; the watcher may be NULL. A code with the problem otherwise. */
    int (*make)(const struct tls_use *use, tram_loop *loop, struct tls_watcher *watcher, struct layer **ret_layer,
                struct tls_problem *problem);
};

/* The options of calls that can have TLS, as users gave them. */
struct tls_wishes {
    tram_tls_config *config;
    const char *server_hostname;
    tram_buffer *session;
    uint64_t handshake_timeout_ns;
    uint64_t shutdown_timeout_ns;
    bool server;
    bool needs_hostname; /* a client that has no host whose name it could be (C-4) */
};

/* Without a config everything else is wrong (C-3). */
const char *tram__tls_wrong_option(const struct tls_wishes *wishes);

/* Copies them, which were checked. -ENOMEM. */
int tram__tls_use_open(const struct tls_wishes *wishes, struct tls_use *ret_use);
void tram__tls_use_close(struct tls_use *use);

/*
 * Puts TLS on top of the transport: see tram__transport_push_layer(). The transport's memory is the caller's concern
 * where it fails.
 */
int tram__tls_use_push(const struct tls_use *use, tram_transport *transport, struct tls_watcher *watcher,
                       const void *ahead, size_t ahead_size, struct tls_problem *problem);

#endif
