/* Stapled answers of a CA that a certificate is not revoked: a server sends one that it was given, a client judges it.
 */
#ifndef TRAM_TRANSPORTS_TLS_OCSP_H
#define TRAM_TRANSPORTS_TLS_OCSP_H

#include "transports/tls/description.h"

#include <openssl/ssl.h>

/* For the callback of a server: what belongs to the certificate that was chosen. In OpenSSL's terms. */
int tram__tls_ocsp_staple(SSL *ssl, const struct tls_description *description);

/* NULL: good. Else why the answer, which may be missing, is not accepted. */
const char *tram__tls_ocsp_judge(SSL *ssl, bool required);

#endif
