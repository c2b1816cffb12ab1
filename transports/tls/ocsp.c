#include "transports/tls/ocsp.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <string.h>

#define CLOCK_SKEW_SECONDS 300

static bool is_same(const X509 *certificate, const struct tls_bytes *der) {
    unsigned char *own = NULL;
    int size = certificate ? i2d_X509(certificate, &own) : -1;
    bool same = size > 0 && (size_t)size == der->size && memcmp(own, der->data, der->size) == 0;
    OPENSSL_free(own);
    return same;
}

int tram__tls_ocsp_staple(SSL *ssl, const struct tls_description *description) {
    const X509 *chosen = SSL_get_certificate(ssl);
    for (size_t i = 0; i < description->identity_count; i++) {
        const struct tls_identity *identity = &description->identities[i];
        if (!identity->ocsp_response.data || !is_same(chosen, &identity->chain.items[0]))
            continue;
        unsigned char *copy = OPENSSL_memdup(identity->ocsp_response.data, identity->ocsp_response.size);
        if (!copy)
            return SSL_TLSEXT_ERR_ALERT_FATAL;
        SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)identity->ocsp_response.size);
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

/* What the CA says of the certificate, in an answer whose signature is good. */
static const char *judge_status(OCSP_BASICRESP *basic, X509 *certificate, X509 *issuer) {
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, certificate, issuer);
    int status, reason;
    ASN1_GENERALIZEDTIME *revoked, *this_update, *next_update;
    int found = id && OCSP_resp_find_status(basic, id, &status, &reason, &revoked, &this_update, &next_update);
    OCSP_CERTID_free(id);
    if (!found)
        return "the OCSP answer is about another certificate";
    if (!OCSP_check_validity(this_update, next_update, CLOCK_SKEW_SECONDS, -1))
        return "the OCSP answer is out of date";
    if (status == V_OCSP_CERTSTATUS_REVOKED)
        return "the certificate is revoked (OCSP)";
    return status == V_OCSP_CERTSTATUS_GOOD ? NULL : "the CA does not know the certificate (OCSP)";
}

static const char *judge_response(OCSP_RESPONSE *response, STACK_OF(X509) * chain, X509_STORE *store) {
    if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        return "the OCSP answer is an error";
    OCSP_BASICRESP *basic = OCSP_response_get1_basic(response);
    if (!basic)
        return "the OCSP answer cannot be read";
    int last = sk_X509_num(chain) - 1;
    const char *reason = "the OCSP answer is not signed by who may";
    if (OCSP_basic_verify(basic, chain, store, 0) > 0)
        reason = judge_status(basic, sk_X509_value(chain, 0), sk_X509_value(chain, last > 0 ? 1 : 0));
    OCSP_BASICRESP_free(basic);
    return reason;
}

const char *tram__tls_ocsp_judge(SSL *ssl, bool required) {
    const unsigned char *data = NULL;
    long size = SSL_get_tlsext_status_ocsp_resp(ssl, &data);
    if (!data || size <= 0)
        return required ? "the server staples no OCSP answer" : NULL;
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    if (!chain || sk_X509_num(chain) == 0)
        return "there is no verified certificate that an OCSP answer could be about";
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &data, size);
    const char *reason = "the OCSP answer cannot be read";
    if (response)
        reason = judge_response(response, chain, SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl)));
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return reason;
}
