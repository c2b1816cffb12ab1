#include "transports/tls/build.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

/* Forward secrecy and authenticated encryption: all that is left of TLS 1.2's which nobody warns of. */
#define DEFAULT_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"

/* ---- Objects from DER ---- */

static X509 *certificate_from(const struct tls_bytes *bytes, OSSL_LIB_CTX *library) {
    const unsigned char *data = bytes->data;
    X509 *certificate = X509_new_ex(library, NULL);
    if (certificate && !d2i_X509(&certificate, &data, (long)bytes->size)) {
        X509_free(certificate);
        return NULL;
    }
    return certificate;
}

static X509_CRL *crl_from(const struct tls_bytes *bytes, OSSL_LIB_CTX *library) {
    const unsigned char *data = bytes->data;
    X509_CRL *crl = X509_CRL_new_ex(library, NULL);
    if (crl && !d2i_X509_CRL(&crl, &data, (long)bytes->size)) {
        X509_CRL_free(crl);
        return NULL;
    }
    return crl;
}

static EVP_PKEY *key_from(const struct tls_bytes *bytes, OSSL_LIB_CTX *library) {
    const unsigned char *data = bytes->data;
    return d2i_AutoPrivateKey_ex(NULL, &data, (long)bytes->size, library, NULL);
}

static STACK_OF(X509) * chain_from(const struct tls_objects *objects, OSSL_LIB_CTX *library) {
    STACK_OF(X509) *chain = sk_X509_new_null();
    for (size_t i = 1; chain && i < objects->count; i++) {
        X509 *certificate = certificate_from(&objects->items[i], library);
        if (certificate && sk_X509_push(chain, certificate) > 0)
            continue;
        X509_free(certificate);
        sk_X509_pop_free(chain, X509_free);
        return NULL;
    }
    return chain;
}

/* ---- Parts of an SSL_CTX: each fills `failure` where it is refused ---- */

/*
 * What is sent behind a certificate. A chain of its own is looked at, and every connection would have a copy of the
 * list: that of the only certificate is the context's instead.
 */
static bool use_chain(SSL_CTX *context, STACK_OF(X509) * chain, bool only) {
    for (int i = 0; i < sk_X509_num(chain); i++)
        if (!SSL_CTX_add1_chain_cert(context, sk_X509_value(chain, i)))
            return false;
    if (!only)
        return true;
    SSL_CTX_clear_chain_certs(context);
    X509 *certificate;
    while ((certificate = sk_X509_shift(chain))) {
        if (!SSL_CTX_add_extra_chain_cert(context, certificate)) {
            X509_free(certificate);
            return false;
        }
    }
    return true;
}

static int use_identity(SSL_CTX *context, const struct tls_identity *identity, bool only, OSSL_LIB_CTX *library,
                        struct tls_failure *failure) {
    X509 *certificate = certificate_from(&identity->chain.items[0], library);
    EVP_PKEY *key = key_from(&identity->key, library);
    STACK_OF(X509) *chain = chain_from(&identity->chain, library);
    int code = 0;
    if (!certificate || !key || !chain)
        code = tram__tls_fail_openssl(failure, TRAM_ETLS, "certificates", "certificates");
    else if (!X509_check_private_key(certificate, key))
        code = tram__tls_fail_openssl(failure, TRAM_ETLS, "key", "key: it does not fit the certificate");
    else if (!SSL_CTX_use_cert_and_key(context, certificate, key, NULL, 0) || !use_chain(context, chain, only))
        code = tram__tls_fail_openssl(failure, TRAM_ETLS, "certificates", "certificates: refused");
    X509_free(certificate);
    EVP_PKEY_free(key);
    sk_X509_pop_free(chain, X509_free);
    return code;
}

static int use_identities(SSL_CTX *context, const struct tls_description *description, OSSL_LIB_CTX *library,
                          struct tls_failure *failure) {
    for (size_t i = 0; i < description->identity_count; i++) {
        int code =
            use_identity(context, &description->identities[i], description->identity_count == 1, library, failure);
        if (code != 0)
            return code;
    }
    return 0;
}

static int add_ca(SSL_CTX *context, X509_STORE *store, const struct tls_bytes *bytes, OSSL_LIB_CTX *library) {
    X509 *certificate = certificate_from(bytes, library);
    /* A client's certificate is asked for by the names of those who may have issued it. */
    int good = certificate && X509_STORE_add_cert(store, certificate) && SSL_CTX_add_client_CA(context, certificate);
    X509_free(certificate);
    return good;
}

static int add_crl(X509_STORE *store, const struct tls_bytes *bytes, OSSL_LIB_CTX *library) {
    X509_CRL *crl = crl_from(bytes, library);
    int good = crl && X509_STORE_add_crl(store, crl);
    X509_CRL_free(crl);
    return good;
}

static int use_trust(SSL_CTX *context, const struct tls_description *description, OSSL_LIB_CTX *library,
                     struct tls_failure *failure) {
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    for (size_t i = 0; i < description->ca.count; i++)
        if (!add_ca(context, store, &description->ca.items[i], library))
            return tram__tls_fail_openssl(failure, TRAM_ETLS, "ca", "ca");
    for (size_t i = 0; i < description->crls.count; i++)
        if (!add_crl(store, &description->crls.items[i], library))
            return tram__tls_fail_openssl(failure, TRAM_ETLS, "crl", "crl");
    if (description->ca_directory && !X509_STORE_load_path(store, description->ca_directory))
        return tram__tls_fail_openssl(failure, TRAM_ETLS, "ca_directory", "ca_directory");
    unsigned long flags = X509_V_FLAG_PARTIAL_CHAIN; /* what is trusted need not be a root */
    if (description->crls.count > 0)
        flags |= X509_V_FLAG_CRL_CHECK;
    if (description->crl_check_chain)
        flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
    if (!X509_STORE_set_flags(store, flags))
        return tram__tls_fail_openssl(failure, TRAM_ETLS, "crl", "crl");
    return 0;
}

static int use_protocol(SSL_CTX *context, const struct tls_description *description, struct tls_failure *failure) {
    if (!SSL_CTX_set_min_proto_version(context, description->min_version) ||
        !SSL_CTX_set_max_proto_version(context, description->max_version))
        return tram__tls_fail_openssl(failure, TRAM_ETLS, "min_version", "min_version");
    const char *ciphers = description->ciphers ? description->ciphers : DEFAULT_CIPHERS;
    if (!SSL_CTX_set_cipher_list(context, ciphers))
        return tram__tls_fail_openssl(failure, TRAM_ETLS, "ciphers", "ciphers: \"%s\"", ciphers);
    if (description->ciphersuites && !SSL_CTX_set_ciphersuites(context, description->ciphersuites))
        return tram__tls_fail_openssl(failure, TRAM_ETLS, "ciphersuites", "ciphersuites: \"%s\"",
                                      description->ciphersuites);
    if (description->groups && !SSL_CTX_set1_groups_list(context, description->groups))
        return tram__tls_fail_openssl(failure, TRAM_ETLS, "groups", "groups: \"%s\"", description->groups);
    /* 0 is success here. */
    if (description->alpn.size > 0 &&
        SSL_CTX_set_alpn_protos(context, description->alpn.data, (unsigned)description->alpn.size) != 0)
        return tram__tls_fail_openssl(failure, TRAM_ETLS, "alpn", "alpn");
    return 0;
}

static int use_sessions(SSL_CTX *context, const struct tls_description *description, struct tls_failure *failure) {
    bool remembers = description->session_cache > 0;
    SSL_CTX_set_session_cache_mode(context,
                                   remembers ? SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL : SSL_SESS_CACHE_OFF);
    /* A reload that changes whom we trust must not be passed by with a ticket from before. */
    if (!SSL_CTX_set_session_id_context(context, description->trust, sizeof description->trust))
        return tram__tls_fail_openssl(failure, TRAM_ETLS, "tickets", "tickets");
    uint64_t seconds = (description->ticket_lifetime_ns + 999999999) / 1000000000;
    SSL_CTX_set_timeout(context, (long)seconds);
    if (description->tickets == TRAM_TLS_NO_TICKETS)
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    /* Without tickets TLS 1.3 sends all the same what it calls one: the name of a session that is remembered. */
    size_t count = description->tickets == TRAM_TLS_NO_TICKETS ? remembers : (size_t)description->tickets;
    if (!SSL_CTX_set_num_tickets(context, count))
        return tram__tls_fail_openssl(failure, TRAM_ETLS, "tickets", "tickets");
    return 0;
}

SSL_CTX *tram__tls_build(const struct tls_description *description, OSSL_LIB_CTX *library,
                         struct tls_failure *failure) {
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new_ex(library, NULL, TLS_method());
    if (!context) {
        tram__tls_fail_openssl(failure, -ENOMEM, NULL, "SSL_CTX_new");
        return NULL;
    }
    SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN); /* what is sent is what we were given */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA);
    int code = use_protocol(context, description, failure);
    if (code == 0)
        code = use_identities(context, description, library, failure);
    if (code == 0)
        code = use_trust(context, description, library, failure);
    if (code == 0)
        code = use_sessions(context, description, failure);
    if (code != 0) {
        SSL_CTX_free(context); /* without memory it complains, too */
        context = NULL;
    }
    ERR_clear_error();
    return context;
}
