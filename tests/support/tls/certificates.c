#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/tls/certificates.h"

static EVP_PKEY *make_key(bool rsa) {
    EVP_PKEY *key = rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    assert_non_null(key);
    return key;
}

static void add_extension(X509 *certificate, const X509 *issuer, int kind, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, (X509 *)issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static char *to_text(BIO *bio) {
    char *data;
    long size = BIO_get_mem_data(bio, &data);
    char *text = malloc((size_t)size + 1);
    assert_non_null(text);
    memcpy(text, data, (size_t)size);
    text[size] = '\0';
    BIO_free(bio);
    return text;
}

static X509 *make_x509(const struct certificate_options *options, EVP_PKEY *key) {
    X509 *x509 = X509_new();
    assert_non_null(x509);
    assert_int_equal(X509_set_version(x509, 2), 1);
    uint64_t serial;
    assert_int_equal(RAND_bytes((unsigned char *)&serial, sizeof serial), 1);
    assert_int_equal(ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509), serial >> 1), 1);
    long from = options->valid_from_hours ? options->valid_from_hours : -1;
    long to = options->valid_to_hours ? options->valid_to_hours : 24;
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x509), from * 3600));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x509), to * 3600));
    assert_int_equal(X509_set_pubkey(x509, key), 1);
    X509_NAME *subject = X509_get_subject_name(x509);
    const char *name = options->name ? options->name : "test";
    assert_int_equal(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0),
                     1);
    const X509 *issuer = options->issuer ? options->issuer->x509 : x509;
    assert_int_equal(X509_set_issuer_name(x509, X509_get_subject_name(issuer)), 1);
    add_extension(x509, issuer, NID_basic_constraints, options->is_ca ? "critical,CA:TRUE" : "CA:FALSE");
    add_extension(x509, issuer, NID_subject_key_identifier, "hash");
    if (options->is_ca)
        add_extension(x509, issuer, NID_key_usage, "critical,keyCertSign,cRLSign,digitalSignature");
    if (options->alternative)
        add_extension(x509, issuer, NID_subject_alt_name, options->alternative);
    return x509;
}

struct certificate *certificate_make(const struct certificate_options *options) {
    struct certificate *made = calloc(1, sizeof *made);
    assert_non_null(made);
    made->key = make_key(options->rsa);
    made->x509 = make_x509(options, made->key);
    EVP_PKEY *signer = options->issuer ? options->issuer->key : made->key;
    assert_true(X509_sign(made->x509, signer, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509(bio, made->x509), 1);
    if (options->issuer_in_chain)
        assert_int_equal(PEM_write_bio_X509(bio, options->issuer->x509), 1);
    made->chain_pem = to_text(bio);
    bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PrivateKey(bio, made->key, NULL, NULL, 0, NULL, NULL), 1);
    made->key_pem = to_text(bio);
    return made;
}

void certificate_free(struct certificate *certificate) {
    if (!certificate)
        return;
    X509_free(certificate->x509);
    EVP_PKEY_free(certificate->key);
    free(certificate->chain_pem);
    free(certificate->key_pem);
    free(certificate);
}

void authority_make(struct authority *authority) {
    authority->ca = certificate_make(&(struct certificate_options){.name = "test CA", .is_ca = true});
    authority->server = certificate_make(&(struct certificate_options){
        .issuer = authority->ca,
        .name = "server",
        .alternative = "DNS:localhost,DNS:*.example.com,IP:127.0.0.1,IP:::1,email:who@example.com,"
                       "URI:https://example.com/,RID:1.2.3.4",
    });
    authority->client = certificate_make(&(struct certificate_options){.issuer = authority->ca, .name = "client"});
}

void authority_free(struct authority *authority) {
    certificate_free(authority->ca);
    certificate_free(authority->server);
    certificate_free(authority->client);
}

tram_tls_source source_of(const char *pem) {
    return (tram_tls_source){.data = pem, .size = strlen(pem)};
}

tram_tls_certificate identity_of(const struct certificate *certificate) {
    return (tram_tls_certificate){.chain = source_of(certificate->chain_pem), .key = source_of(certificate->key_pem)};
}

char *crl_make(const struct certificate *ca, const struct certificate *revoked) {
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -60), *later = X509_gmtime_adj(NULL, 3600);
    assert_int_equal(X509_CRL_set_version(crl, 1), 1);
    assert_int_equal(X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->x509)), 1);
    assert_int_equal(X509_CRL_set1_lastUpdate(crl, now), 1);
    assert_int_equal(X509_CRL_set1_nextUpdate(crl, later), 1);
    if (revoked) {
        X509_REVOKED *entry = X509_REVOKED_new();
        assert_int_equal(X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked->x509)), 1);
        assert_int_equal(X509_REVOKED_set_revocationDate(entry, now), 1);
        assert_int_equal(X509_CRL_add0_revoked(crl, entry), 1);
    }
    assert_true(X509_CRL_sign(crl, ca->key, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_X509_CRL(bio, crl), 1);
    X509_CRL_free(crl);
    ASN1_TIME_free(now);
    ASN1_TIME_free(later);
    return to_text(bio);
}

unsigned char *ocsp_make(const struct certificate *ca, const struct certificate *about, bool revoked,
                         size_t *ret_size) {
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, about->x509, ca->x509);
    ASN1_TIME *now = X509_gmtime_adj(NULL, -60), *later = X509_gmtime_adj(NULL, 3600);
    assert_non_null(OCSP_basic_add1_status(basic, id, revoked ? V_OCSP_CERTSTATUS_REVOKED : V_OCSP_CERTSTATUS_GOOD, 0,
                                           revoked ? now : NULL, now, later));
    assert_int_equal(OCSP_basic_sign(basic, ca->x509, ca->key, EVP_sha256(), NULL, 0), 1);
    OCSP_RESPONSE *response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    assert_non_null(response);
    unsigned char *der = NULL;
    int size = i2d_OCSP_RESPONSE(response, &der);
    assert_true(size > 0);
    *ret_size = (size_t)size;
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    ASN1_TIME_free(now);
    ASN1_TIME_free(later);
    return der;
}

char *key_encrypt(const struct certificate *certificate, const char *password) {
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, certificate->key, EVP_aes_128_cbc(), password,
                                                   (int)strlen(password), NULL, NULL),
                     1);
    return to_text(bio);
}

char *write_file(const char *folder, const char *name, const char *text) {
    char *path;
    assert_true(asprintf(&path, "%s/%s", folder, name) > 0);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    return path;
}

tram_tls_config *config_make(const tram_tls_options *options) {
    tram_tls_config *config = NULL;
    tram_error error;
    int code = tram_tls_config_new(options, &config, &error);
    if (code != 0)
        fail_msg("%s", tram_error_describe(&error, code));
    return config;
}

tram_tls_config *server_config(const struct certificate *certificate) {
    tram_tls_certificate identity = identity_of(certificate);
    return config_make(&(tram_tls_options){.certificates = &identity, .certificate_count = 1});
}

tram_tls_config *client_config(const struct certificate *ca) {
    return config_make(&(tram_tls_options){.ca = source_of(ca->chain_pem)});
}
