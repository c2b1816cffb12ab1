#include "transports/tls/callbacks.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/time.h"
#include "transports/tls/bio.h"
#include "transports/tls/engine.h"
#include "transports/tls/ocsp.h"

static struct tls_engine *engine_of(const SSL *ssl) {
    return tram__tls_bio_loop(ssl)->current;
}

/* ---- Certificates ---- */

int tram__tls_on_verify(int good, X509_STORE_CTX *store) {
    if (good)
        return 1;
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_loop *loop = tram__tls_bio_loop(ssl);
    loop->verify_depth = X509_STORE_CTX_get_error_depth(store);
    loop->verify_subject[0] = '\0';
    X509 *certificate = X509_STORE_CTX_get_current_cert(store);
    char name[sizeof loop->verify_subject];
    if (certificate && X509_NAME_oneline(X509_get_subject_name(certificate), name, sizeof name))
        tram__text_escape(loop->verify_subject, sizeof loop->verify_subject, name, strlen(name));
    return 0;
}

static int on_status(SSL *ssl, void *arg) {
    (void)arg;
    struct tls_engine *engine = engine_of(ssl);
    const struct tls_description *description = engine->context->description;
    if (engine->server)
        return tram__tls_ocsp_staple(ssl, description);
    engine->loop->ocsp_reason = tram__tls_ocsp_judge(ssl, description->ocsp == TRAM_TLS_OCSP_REQUIRE);
    return !engine->loop->ocsp_reason;
}

/* ---- Server name and protocol ---- */

/* The name in the extension: a list with one entry of the type 0, each length in two bytes (RFC 6066, 3). */
static void copy_server_name(SSL *ssl, char *name, size_t size) {
    const unsigned char *data;
    size_t length;
    name[0] = '\0';
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &data, &length) || length < 5 || data[2] != 0)
        return;
    size_t name_length = (size_t)data[3] << 8 | data[4];
    if (name_length > length - 5 || name_length >= size || memchr(data + 5, 0, name_length))
        return;
    memcpy(name, data + 5, name_length);
    name[name_length] = '\0';
}

/*
 * The choice by name is made outside of OpenSSL, before it looks at tickets: a session is resumed where it belongs, or
 * a client could come in by one name and be served by another that asks for certificates.
 */
static int on_client_hello(SSL *ssl, int *alert, void *arg) {
    (void)arg;
    struct tls_engine *engine = engine_of(ssl);
    if (engine->refused) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (engine->hello_seen)
        return SSL_CLIENT_HELLO_SUCCESS;
    copy_server_name(ssl, engine->loop->hello_name, sizeof engine->loop->hello_name);
    return SSL_CLIENT_HELLO_RETRY;
}

static int on_alpn(SSL *ssl, const unsigned char **ret_name, unsigned char *ret_length, const unsigned char *offered,
                   unsigned size, void *arg) {
    (void)arg;
    const struct tls_description *description = engine_of(ssl)->context->description;
    unsigned char *chosen;
    if (description->alpn.size == 0)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_select_next_proto(&chosen, ret_length, description->alpn.data, (unsigned)description->alpn.size, offered,
                              size) != OPENSSL_NPN_NEGOTIATED)
        return description->alpn_optional ? SSL_TLSEXT_ERR_NOACK : SSL_TLSEXT_ERR_ALERT_FATAL;
    *ret_name = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* ---- Tickets, secrets, key updates ---- */

/*
 * Answers 1 where the ticket of a client is good, and 2 where it gets a new one as well: of TLS 1.3 always, since who
 * uses one twice can be recognised by it (RFC 8446, C.4), so that clients do not.
 */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int encrypt) {
    struct tls_context *context = engine_of(ssl)->context;
    if (!tram__tls_tickets_refresh(&context->config->tickets, &context->tickets,
                                   context->description->ticket_lifetime_ns))
        return encrypt ? -1 : 0;
    int result =
        tram__tls_ticket_crypt(&context->tickets, context->library->ticket_cipher, name, iv, cipher, mac, encrypt);
    return result == 1 && !encrypt && SSL_version(ssl) >= TLS1_3_VERSION ? 2 : result;
}

/* Who has a ticket remembers the session itself. */
static int on_new_session(SSL *ssl, SSL_SESSION *session) {
    if (SSL_version(ssl) < TLS1_3_VERSION || SSL_get_options(ssl) & SSL_OP_NO_TICKET)
        tram__tls_cache_put(&engine_of(ssl)->context->config->cache, session);
    return 0; /* it is not kept */
}

static SSL_SESSION *on_known_session(SSL *ssl, const unsigned char *id, int size, int *ret_keep) {
    *ret_keep = 0;
    return size > 0 ? tram__tls_cache_get(&engine_of(ssl)->context->config->cache, id, (size_t)size) : NULL;
}

/* One system call a line, so that lines of several loops and processes do not mix. */
static void on_secret(const SSL *ssl, const char *line) {
    struct iovec pieces[] = {{(void *)line, strlen(line)}, {"\n", 1}};
    ssize_t written = writev(engine_of(ssl)->context->description->keylog_fd, pieces, 2);
    (void)written; /* a full disk is no reason to refuse connections */
}

/*
 * New keys cost us more than the peer, and an answer that it need not read. Each time that it asks for some moves the
 * time when it will have used up what it may by a step, as a bucket that leaks: so many at once, and then one a step.
 */
static void count_key_update(struct tls_engine *engine) {
    uint64_t now_ns = time_now();
    uint64_t from = MAX(engine->key_update_ns, now_ns);
    engine->key_update_ns = time_after(from, TRAM_TLS_KEY_UPDATE_NS);
    engine->flooded |= engine->key_update_ns - now_ns > TRAM_TLS_KEY_UPDATES * TRAM_TLS_KEY_UPDATE_NS;
}

/* TLS 1.3 updates keys; a peer of TLS 1.2 that asks to renegotiate gets a warning, each time. */
static bool asks_for_keys(const SSL *ssl, int where, int value) {
    if (where == SSL_CB_WRITE_ALERT)
        return value == (SSL3_AL_WARNING << 8 | SSL_AD_NO_RENEGOTIATION);
    if (!(where & SSL_CB_LOOP) || !(where & (SSL_ST_ACCEPT | SSL_ST_CONNECT)))
        return false;
    OSSL_HANDSHAKE_STATE state = SSL_get_state(ssl);
    return state == TLS_ST_SR_KEY_UPDATE || state == TLS_ST_CR_KEY_UPDATE;
}

static void on_info(const SSL *ssl, int where, int value) {
    if (asks_for_keys(ssl, where, value))
        count_key_update(engine_of(ssl));
}

void tram__tls_callbacks_install(SSL_CTX *context, const struct tls_description *description) {
    SSL_CTX_set_tlsext_status_cb(context, on_status);
    SSL_CTX_set_alpn_select_cb(context, on_alpn, NULL);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket);
    SSL_CTX_sess_set_new_cb(context, on_new_session);
    SSL_CTX_sess_set_get_cb(context, on_known_session);
    SSL_CTX_set_info_callback(context, on_info);
    if (description->server_name)
        SSL_CTX_set_client_hello_cb(context, on_client_hello, NULL);
    if (description->keylog_fd >= 0)
        SSL_CTX_set_keylog_callback(context, on_secret);
}
