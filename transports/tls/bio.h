/* The BIO of a loop: OpenSSL reads and writes through it what is below the engine that is at work. */
#ifndef TRAM_TRANSPORTS_TLS_BIO_H
#define TRAM_TRANSPORTS_TLS_BIO_H

#include "transports/tls/context.h"

/* False: out of memory. */
bool tram__tls_bio_open(struct tls_loop *loop);
void tram__tls_bio_close(struct tls_loop *loop);

/* Whose BIO that is of this SSL. */
struct tls_loop *tram__tls_bio_loop(const SSL *ssl);

#endif
