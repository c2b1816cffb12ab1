/* Certificates for tests, made when they are needed: none is stored, so none runs out. */
#ifndef TRAM_TESTS_SUPPORT_TLS_CERTIFICATES_H
#define TRAM_TESTS_SUPPORT_TLS_CERTIFICATES_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <tram/tls.h>

struct certificate {
    X509 *x509;
    EVP_PKEY *key;
    /* PEM, ended by NUL. */
    char *chain_pem; /* with `issuer_in_chain` more than itself */
    char *key_pem;
};

struct certificate_options {
    const struct certificate *issuer; /* NULL: it signs itself */
    const char *name;                 /* its common name; NULL: "test" */
    const char *alternative;          /* "DNS:localhost,IP:127.0.0.1"; NULL: none */
    bool is_ca;
    bool issuer_in_chain;
    bool rsa;              /* else P-256 */
    long valid_from_hours; /* from now; 0: an hour ago */
    long valid_to_hours;   /* from now; 0: a day */
};

/* Fails the test if anything goes wrong. */
struct certificate *certificate_make(const struct certificate_options *options);
void certificate_free(struct certificate *certificate);

/* A CA, and a certificate of it for "localhost", "*.example.com", 127.0.0.1 and ::1. */
struct authority {
    struct certificate *ca;
    struct certificate *server;
    struct certificate *client; /* for "client" */
};
void authority_make(struct authority *authority);
void authority_free(struct authority *authority);

/* A PEM text as a source. */
tram_tls_source source_of(const char *pem);

/* Who it is, for a config. */
tram_tls_certificate identity_of(const struct certificate *certificate);

/* A list of the CA's that revokes it, or NULL: nothing, in PEM; free() it. */
char *crl_make(const struct certificate *ca, const struct certificate *revoked);

/* The CA's answer about it in DER; OPENSSL_free() it. */
unsigned char *ocsp_make(const struct certificate *ca, const struct certificate *about, bool revoked, size_t *ret_size);

/* The key in PEM, encrypted; free() it. */
char *key_encrypt(const struct certificate *certificate, const char *password);

/* Writes a text to a file of a new name in `folder`; free() the path. */
char *write_file(const char *folder, const char *name, const char *text);

/* A config, or the test fails with the reason. */
tram_tls_config *config_make(const tram_tls_options *options);

/* A server's with this certificate, a client's that trusts this CA. */
tram_tls_config *server_config(const struct certificate *certificate);
tram_tls_config *client_config(const struct certificate *ca);

#endif
