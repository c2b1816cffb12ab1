#include <arpa/inet.h>
#include <openssl/asn1.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "core/base/memory.h"
#include "transports/tls/info.h"

/* Texts are collected one after the other, each ended by NUL, and known by where they begin: the block may move. */
struct collected {
    BIO *texts;
    size_t size;
    bool failed;
};

static size_t end_text(struct collected *collected) {
    size_t begin = collected->size;
    collected->failed |= BIO_write(collected->texts, "", 1) != 1;
    collected->size = (size_t)BIO_pending(collected->texts);
    return begin;
}

static size_t add_name(struct collected *collected, const X509_NAME *name) {
    X509_NAME_print_ex(collected->texts, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB);
    return end_text(collected);
}

static size_t add_serial(struct collected *collected, const X509 *x509) {
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x509), NULL);
    collected->failed |= !number || !BN_print(collected->texts, number);
    BN_free(number);
    return end_text(collected);
}

/* False: a kind that is not shown, or a text with a NUL in it, which no name has. */
static bool add_alternative(struct collected *collected, const GENERAL_NAME *name, tram_tls_name_kind *ret_kind,
                            size_t *ret_begin) {
    const ASN1_STRING *text = NULL;
    char address[INET6_ADDRSTRLEN];
    switch (name->type) {
    case GEN_DNS:
        *ret_kind = TRAM_TLS_NAME_DNS;
        text = name->d.dNSName;
        break;
    case GEN_EMAIL:
        *ret_kind = TRAM_TLS_NAME_EMAIL;
        text = name->d.rfc822Name;
        break;
    case GEN_URI:
        *ret_kind = TRAM_TLS_NAME_URI;
        text = name->d.uniformResourceIdentifier;
        break;
    case GEN_IPADD: {
        int size = ASN1_STRING_length(name->d.iPAddress);
        *ret_kind = TRAM_TLS_NAME_ADDRESS;
        if ((size != 4 && size != 16) || !inet_ntop(size == 4 ? AF_INET : AF_INET6,
                                                    ASN1_STRING_get0_data(name->d.iPAddress), address, sizeof address))
            return false;
        collected->failed |= BIO_puts(collected->texts, address) <= 0;
        *ret_begin = end_text(collected);
        return true;
    }
    default:
        return false;
    }
    int length = ASN1_STRING_length(text);
    if (memchr(ASN1_STRING_get0_data(text), 0, (size_t)length))
        return false;
    collected->failed |= BIO_write(collected->texts, ASN1_STRING_get0_data(text), length) != length;
    *ret_begin = end_text(collected);
    return true;
}

static int64_t seconds_of(const ASN1_TIME *time) {
    struct tm parts;
    return ASN1_TIME_to_tm(time, &parts) ? (int64_t)timegm(&parts) : 0;
}

/* The block: the struct, the alternative names, the texts, the DER. */
static tram_tls_peer_certificate *assemble(const struct collected *collected, const size_t begins[3],
                                           const tram_tls_alternative_name *names, const size_t *name_begins,
                                           size_t name_count, X509 *x509, size_t *ret_size) {
    int der_size = i2d_X509(x509, NULL);
    size_t names_size = name_count * sizeof *names;
    if (der_size <= 0)
        return NULL;
    *ret_size = sizeof(tram_tls_peer_certificate) + names_size + collected->size + (size_t)der_size;
    tram_tls_peer_certificate *made = tram__memory_get_zero(&tram__memory_default, *ret_size);
    if (!made)
        return NULL;
    tram_tls_alternative_name *alternatives = (tram_tls_alternative_name *)(void *)(made + 1);
    char *texts = (char *)alternatives + names_size;
    unsigned char *der = (unsigned char *)texts + collected->size;
    char *source;
    BIO_get_mem_data(collected->texts, &source);
    memcpy(texts, source, collected->size);
    for (size_t i = 0; i < name_count; i++) {
        alternatives[i] = names[i];
        alternatives[i].value = texts + name_begins[i];
    }
    made->subject = texts + begins[0];
    made->issuer = texts + begins[1];
    made->serial_number = texts + begins[2];
    made->alternative_names = alternatives;
    made->alternative_count = name_count;
    made->der = (tram_tls_bytes){.data = der, .size = (size_t)der_size};
    made->not_before = seconds_of(X509_get0_notBefore(x509));
    made->not_after = seconds_of(X509_get0_notAfter(x509));
    i2d_X509(x509, &der);
    return made;
}

#define NAMES_MAX 256

static tram_tls_peer_certificate *parse(struct collected *collected, X509 *x509, size_t *ret_size) {
    tram_tls_alternative_name names[NAMES_MAX];
    size_t name_begins[NAMES_MAX], name_count = 0;
    const size_t begins[3] = {
        add_name(collected, X509_get_subject_name(x509)),
        add_name(collected, X509_get_issuer_name(x509)),
        add_serial(collected, x509),
    };
    GENERAL_NAMES *all = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; all && i < sk_GENERAL_NAME_num(all) && name_count < NAMES_MAX; i++) {
        names[name_count] = (tram_tls_alternative_name){0};
        name_count += add_alternative(collected, sk_GENERAL_NAME_value(all, i), &names[name_count].kind,
                                      &name_begins[name_count]);
    }
    GENERAL_NAMES_free(all);
    return collected->failed ? NULL : assemble(collected, begins, names, name_begins, name_count, x509, ret_size);
}

tram_tls_peer_certificate *tram__tls_certificate_parse(X509 *x509, bool verified, size_t *ret_size) {
    struct collected collected = {.texts = BIO_new(BIO_s_mem())};
    tram_tls_peer_certificate *made = collected.texts ? parse(&collected, x509, ret_size) : NULL;
    BIO_free(collected.texts);
    ERR_clear_error();
    if (made)
        made->verified = verified;
    return made;
}
