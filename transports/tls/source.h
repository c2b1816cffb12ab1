/*
 * Where certificates, keys and lists come from: files or memory, read once, and kept as DER, which each loop makes
 * objects of its own from. What was a secret is wiped before it is freed.
 */
#ifndef TRAM_TRANSPORTS_TLS_SOURCE_H
#define TRAM_TRANSPORTS_TLS_SOURCE_H

#include <stdbool.h>

#include "transports/tls/failure.h"
#include <tram/tls.h>

struct tls_bytes {
    unsigned char *data; /* NULL: none */
    size_t size;
};

/* A list of objects in DER. */
struct tls_objects {
    struct tls_bytes *items;
    size_t count;
};

/* Wipes and frees; harmless for none. */
void tram__tls_bytes_free(struct tls_bytes *bytes);
void tram__tls_objects_free(struct tls_objects *objects);

bool tram__tls_source_given(const tram_tls_source *source);

/* All of a source. `option` is its name for a failure. */
int tram__tls_source_read(const tram_tls_source *source, const char *option, struct tls_bytes *ret_bytes,
                          struct tls_failure *failure);

/* The certificates in these bytes, at least one: PEM, or one of DER. */
int tram__tls_read_certificates(const struct tls_bytes *bytes, const char *option, struct tls_objects *ret_objects,
                                struct tls_failure *failure);

/* The same for lists of revoked certificates. */
int tram__tls_read_crls(const struct tls_bytes *bytes, const char *option, struct tls_objects *ret_objects,
                        struct tls_failure *failure);

/* The key in these bytes, decrypted, as PKCS #8. */
int tram__tls_read_key(const struct tls_bytes *bytes, const tram_tls_certificate *certificate, const char *option,
                       struct tls_bytes *ret_key, struct tls_failure *failure);

#endif
