/*
 * TLS as a layer of a transport: an engine between what is below and above it (transports/base/layer.h), and what is
 * known of the connection for get_extra_info.
 */
#ifndef TRAM_TRANSPORTS_TLS_LAYER_H
#define TRAM_TRANSPORTS_TLS_LAYER_H

#include "transports/base/secured.h"
#include "transports/tls/engine.h"
#include "transports/tls/info.h"

struct tls_layer {
    struct layer layer; /* first */
    struct tls_engine engine;
    union {
        struct tls_watcher *watcher; /* until it was told; NULL: nobody */
        struct tls_info *info;       /* after that; NULL: nothing was asked for */
    };
};

extern const struct layer_kind tram__tls_layer_kind;
extern const struct tls_below tram__tls_layer_below; /* of its engine */

/* The topmost TLS layer of a transport, or NULL. */
struct tls_layer *tram__tls_layer_of(const tram_transport *transport);

#endif
