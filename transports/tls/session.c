#include "transports/tls/session.h"

#include <openssl/err.h>
#include <string.h>

#include "core/base/memory.h"

static void wipe(const void *data, size_t size, void *arg) {
    OPENSSL_cleanse(arg, size);
    memory_put(&tram__memory_default, arg, size);
    (void)data;
}

int tram__tls_session_to_buffer(const SSL_SESSION *session, tram_buffer **ret_session) {
    int size = i2d_SSL_SESSION(session, NULL);
    unsigned char *memory = size > 0 ? memory_get(&tram__memory_default, (size_t)size) : NULL;
    if (!memory)
        return -ENOMEM;
    unsigned char *end = memory;
    i2d_SSL_SESSION(session, &end);
    *ret_session = tram_buffer_wrap(memory, (size_t)size, wipe, memory);
    if (*ret_session)
        return 0;
    wipe(memory, (size_t)size, memory);
    return -ENOMEM;
}

int tram__tls_session_save(SSL *ssl, tram_buffer **ret_session) {
    *ret_session = NULL;
    SSL_SESSION *session = SSL_get1_session(ssl);
    int code = 0;
    if (session && SSL_SESSION_is_resumable(session))
        code = tram__tls_session_to_buffer(session, ret_session);
    SSL_SESSION_free(session);
    ERR_clear_error();
    return code;
}

static bool fits(const SSL_SESSION *session, const unsigned char *trust, size_t trust_size, const struct tls_name *name,
                 bool check) {
    unsigned size;
    const unsigned char *made_for = SSL_SESSION_get0_id_context(session, &size);
    if (size != trust_size || memcmp(made_for, trust, size) != 0)
        return false;
    X509 *certificate = SSL_SESSION_get0_peer((SSL_SESSION *)session);
    return !check || (certificate && tram__tls_name_fits(name, certificate));
}

int tram__tls_session_offer(SSL *ssl, tram_buffer *buffer, const unsigned char *trust, size_t trust_size,
                            const struct tls_name *name, bool check, struct tls_failure *failure) {
    const unsigned char *data = tram_buffer_data(buffer);
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &data, (long)tram_buffer_size(buffer));
    if (!session)
        return tram__tls_fail_openssl(failure, TRAM_EVALUE, "tls_session", "tls_session");
    int code = 0;
    if (fits(session, trust, trust_size, name, check) && !SSL_set_session(ssl, session))
        code = tram__tls_fail_openssl(failure, TRAM_EVALUE, "tls_session", "tls_session");
    SSL_SESSION_free(session);
    return code;
}
