/* What is known of a TLS connection, by the names of get_extra_info. */
#ifndef TRAM_TRANSPORTS_TLS_INFO_H
#define TRAM_TRANSPORTS_TLS_INFO_H

#include "transports/tls/engine.h"
#include <tram/tls.h>

/* What values are kept in, from the first that is asked for until the connection is freed. */
struct tls_info {
    tram_tls_peer_certificate *certificate; /* made when it is asked for */
    size_t certificate_size;
    tram_tls_cipher cipher;
    tram_tls_bytes exporter;
    unsigned char exported[32];
    char alpn[256];
    bool resumed;
};

/* NULL: there is no such thing, or no memory to keep it in. */
const void *tram__tls_info_get(struct tls_info **info, struct tls_engine *engine, const char *name);
void tram__tls_info_free(struct tls_info *info);

/* A certificate as text and bytes, in one block of memory of `*ret_size` bytes. NULL: out of memory, or unreadable. */
tram_tls_peer_certificate *tram__tls_certificate_parse(X509 *x509, bool verified, size_t *ret_size);

#endif
