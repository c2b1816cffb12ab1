/* An SSL_CTX from a description: who we are, whom we trust, what is spoken. */
#ifndef TRAM_TRANSPORTS_TLS_BUILD_H
#define TRAM_TRANSPORTS_TLS_BUILD_H

#include <openssl/ssl.h>

#include "transports/tls/description.h"

/* All but the callbacks, which context.c adds. NULL with `failure` filled, which names the option. */
SSL_CTX *tram__tls_build(const struct tls_description *description, OSSL_LIB_CTX *library, struct tls_failure *failure);

#endif
