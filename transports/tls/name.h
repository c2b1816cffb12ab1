/* The name or address of the server that a client wants: what it sends of it (SNI) and what the certificate must have.
 */
#ifndef TRAM_TRANSPORTS_TLS_NAME_H
#define TRAM_TRANSPORTS_TLS_NAME_H

#include <openssl/ssl.h>
#include <stdbool.h>

#include "transports/tls/failure.h"

struct tls_name {
    char text[256]; /* "": none */
    bool address;   /* it is an IP address: not sent */
};

/* TRAM_EVALUE: it is neither; a byte above 127 is none of an A-label. NULL and "" are none. */
int tram__tls_name_parse(const char *given, struct tls_name *ret_name, struct tls_failure *failure);

/* Sends it and, with `check`, requires it. */
int tram__tls_name_use(SSL *ssl, const struct tls_name *name, bool check, struct tls_failure *failure);

/* Is the certificate, which was verified before, one for it? */
bool tram__tls_name_fits(const struct tls_name *name, X509 *certificate);

#endif
