/* Sessions as bytes: taken from one connection, given to a later one. They hold secrets. */
#ifndef TRAM_TRANSPORTS_TLS_SESSION_H
#define TRAM_TRANSPORTS_TLS_SESSION_H

#include "transports/tls/name.h"
#include <tram/buffer.h>

/* In DER, wiped when it is released. 0 or -ENOMEM. */
int tram__tls_session_to_buffer(const SSL_SESSION *session, tram_buffer **ret_session);

/* Of a client: the newest session that can be resumed: NULL with code 0 where there is none (yet). -ENOMEM. */
int tram__tls_session_save(SSL *ssl, tram_buffer **ret_session);

/*
 * Offers it to the server, where it was made for the same trust (a digest) and, with `check`, for a certificate that
 * fits the name. Else nothing happens: a full handshake is always good. TRAM_EVALUE: it is no session.
 */
int tram__tls_session_offer(SSL *ssl, tram_buffer *session, const unsigned char *trust, size_t trust_size,
                            const struct tls_name *name, bool check, struct tls_failure *failure);

#endif
