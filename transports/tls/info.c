#include "transports/tls/info.h"

#include <openssl/err.h>
#include <string.h>

#include "core/base/memory.h"

static const void *peer_certificate(struct tls_info *info, const struct tls_engine *engine) {
    if (info->certificate)
        return info->certificate;
    X509 *x509 = SSL_get0_peer_certificate(engine->ssl);
    if (!x509)
        return NULL;
    bool verified =
        SSL_get_verify_mode(engine->ssl) != SSL_VERIFY_NONE && SSL_get_verify_result(engine->ssl) == X509_V_OK;
    info->certificate = tram__tls_certificate_parse(x509, verified, &info->certificate_size);
    return info->certificate;
}

static const void *cipher(struct tls_info *info, const struct tls_engine *engine) {
    const SSL_CIPHER *current = SSL_get_current_cipher(engine->ssl);
    if (!current)
        return NULL;
    info->cipher = (tram_tls_cipher){
        .name = SSL_CIPHER_get_name(current),
        .version = SSL_CIPHER_get_version(current),
        .bits = SSL_CIPHER_get_bits(current, NULL),
    };
    return &info->cipher;
}

/* RFC 9266; of TLS 1.2 only with an extended master secret, else two connections could have the same. */
static const void *exporter(struct tls_info *info, const struct tls_engine *engine) {
    static const char label[] = "EXPORTER-Channel-Binding";
    SSL *ssl = engine->ssl;
    if (SSL_version(ssl) < TLS1_3_VERSION && SSL_get_extms_support(ssl) != 1)
        return NULL;
    if (SSL_export_keying_material(ssl, info->exported, sizeof info->exported, label, sizeof label - 1,
                                   (const unsigned char *)"", 0, 1) != 1) {
        ERR_clear_error();
        return NULL;
    }
    info->exporter = (tram_tls_bytes){.data = info->exported, .size = sizeof info->exported};
    return &info->exporter;
}

static const void *alpn(struct tls_info *info, const struct tls_engine *engine) {
    const unsigned char *name;
    unsigned length;
    SSL_get0_alpn_selected(engine->ssl, &name, &length);
    if (length == 0 || length >= sizeof info->alpn)
        return NULL;
    memcpy(info->alpn, name, length);
    info->alpn[length] = '\0';
    return info->alpn;
}

static const void *resumed(struct tls_info *info, const struct tls_engine *engine) {
    info->resumed = SSL_session_reused(engine->ssl);
    return &info->resumed;
}

static const struct {
    const char *name;
    const void *(*get)(struct tls_info *info, const struct tls_engine *engine);
} kept[] = {
    {"peercert", peer_certificate}, {"cipher", cipher},         {"alpn", alpn},
    {"session_reused", resumed},    {"tls_exporter", exporter},
};

const void *tram__tls_info_get(struct tls_info **info, struct tls_engine *engine, const char *name) {
    if (strcmp(name, "sslcontext") == 0)
        return engine->context->config;
    if (strcmp(name, "server_hostname") == 0)
        return SSL_get_servername(engine->ssl, TLSEXT_NAMETYPE_host_name);
    if (!engine->established || !info)
        return NULL;
    if (strcmp(name, "ssl_object") == 0)
        return engine->ssl;
    if (strcmp(name, "tls_version") == 0)
        return SSL_get_version(engine->ssl);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        if (strcmp(name, kept[i].name) != 0)
            continue;
        if (!*info)
            *info = tram__memory_get_zero(&tram__memory_default, sizeof **info);
        return *info ? kept[i].get(*info, engine) : NULL;
    }
    return NULL; /* "compression", too: there is none */
}

void tram__tls_info_free(struct tls_info *info) {
    if (!info)
        return;
    memory_put(&tram__memory_default, info->certificate, info->certificate_size);
    OPENSSL_cleanse(info->exported, sizeof info->exported);
    memory_put(&tram__memory_default, info, sizeof *info);
}
