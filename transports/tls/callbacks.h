/* What OpenSSL asks and tells in the midst of its work. It finds the engine that is at work by the loop's BIO. */
#ifndef TRAM_TRANSPORTS_TLS_CALLBACKS_H
#define TRAM_TRANSPORTS_TLS_CALLBACKS_H

#include "transports/tls/context.h"

void tram__tls_callbacks_install(SSL_CTX *context, const struct tls_description *description);

/* For SSL_set_verify(). */
int tram__tls_on_verify(int good, X509_STORE_CTX *store);

#endif
