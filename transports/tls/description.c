#include "transports/tls/description.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <unistd.h>

#include "core/base/memory.h"

#define DAY_NS (UINT64_C(24) * 3600 * 1000000000)

/* ---- Copies ---- */

static void text_free(char *text) {
    if (text)
        memory_put(&tram__memory_default, text, strlen(text) + 1);
}

static int copy_text(const char *text, const char *option, char **ret_copy, struct tls_failure *failure) {
    if (!text)
        return 0;
    size_t size = strlen(text) + 1;
    *ret_copy = memory_get(&tram__memory_default, size);
    if (!*ret_copy)
        return tram__tls_fail(failure, -ENOMEM, option, "%s: out of memory", option);
    memcpy(*ret_copy, text, size);
    return 0;
}

static void identity_free(struct tls_identity *identity) {
    tram__tls_objects_free(&identity->chain);
    tram__tls_bytes_free(&identity->key);
    tram__tls_bytes_free(&identity->ocsp_response);
}

static void description_free(struct tls_description *description) {
    for (size_t i = 0; i < description->identity_count; i++)
        identity_free(&description->identities[i]);
    memory_put(&tram__memory_default, description->identities,
               description->identity_count * sizeof *description->identities);
    tram__tls_objects_free(&description->ca);
    tram__tls_objects_free(&description->crls);
    tram__tls_bytes_free(&description->alpn);
    text_free(description->ca_directory);
    text_free(description->ciphers);
    text_free(description->ciphersuites);
    text_free(description->groups);
    if (description->keylog_fd >= 0)
        close(description->keylog_fd);
    memory_put(&tram__memory_default, description, sizeof *description);
}

struct tls_description *tram__tls_description_hold(struct tls_description *description) {
    atomic_fetch_add_explicit(&description->references, 1, memory_order_relaxed);
    return description;
}

void tram__tls_description_release(struct tls_description *description) {
    if (description && atomic_fetch_sub_explicit(&description->references, 1, memory_order_acq_rel) == 1)
        description_free(description);
}

/* ---- Who we are ---- */

static int read_identity(const tram_tls_certificate *given, struct tls_identity *identity,
                         struct tls_failure *failure) {
    struct tls_bytes chain, key = {0};
    if (!tram__tls_source_given(&given->chain))
        return tram__tls_fail(failure, TRAM_EVALUE, "chain", "chain: a certificate has none");
    int code = tram__tls_source_read(&given->chain, "chain", &chain, failure);
    if (code == 0)
        code = tram__tls_read_certificates(&chain, "chain", &identity->chain, failure);
    bool apart = tram__tls_source_given(&given->key);
    if (code == 0 && apart)
        code = tram__tls_source_read(&given->key, "key", &key, failure);
    if (code == 0)
        code = tram__tls_read_key(apart ? &key : &chain, given, "key", &identity->key, failure);
    if (code == 0 && tram__tls_source_given(&given->ocsp_response))
        code = tram__tls_source_read(&given->ocsp_response, "ocsp_response", &identity->ocsp_response, failure);
    tram__tls_bytes_free(&chain);
    tram__tls_bytes_free(&key);
    return code;
}

static int read_identities(const tram_tls_options *options, struct tls_description *description,
                           struct tls_failure *failure) {
    size_t count = options->certificate_count;
    if (count == 0)
        return 0;
    if (!options->certificates || count > TRAM_TLS_CERTIFICATES_MAX)
        return tram__tls_fail(failure, TRAM_EVALUE, "certificates", "certificates: %s",
                              options->certificates ? "too many" : "a count without any");
    description->identities = tram__memory_get_zero(&tram__memory_default, count * sizeof *description->identities);
    if (!description->identities)
        return tram__tls_fail(failure, -ENOMEM, "certificates", "certificates: out of memory");
    description->identity_count = count;
    for (size_t i = 0; i < count; i++) {
        int code = read_identity(&options->certificates[i], &description->identities[i], failure);
        if (code != 0)
            return code;
    }
    return 0;
}

/* ---- Whom we trust ---- */

/* Everything that decides whom a resumed session may belong to. */
static int digest_trust(struct tls_description *description, struct tls_failure *failure) {
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool good = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL);
    const struct tls_objects *lists[] = {&description->ca, &description->crls};
    for (size_t list = 0; good && list < sizeof lists / sizeof *lists; list++) {
        good = EVP_DigestUpdate(digest, &lists[list]->count, sizeof lists[list]->count);
        for (size_t i = 0; good && i < lists[list]->count; i++)
            good = EVP_DigestUpdate(digest, lists[list]->items[i].data, lists[list]->items[i].size);
    }
    const char *directory = description->ca_directory ? description->ca_directory : "";
    const unsigned char rest[] = {(unsigned char)description->verify, description->system_ca,
                                  description->crl_check_chain};
    good = good && EVP_DigestUpdate(digest, directory, strlen(directory)) &&
           EVP_DigestUpdate(digest, rest, sizeof rest) && EVP_DigestFinal_ex(digest, description->trust, NULL);
    EVP_MD_CTX_free(digest);
    return good ? 0 : tram__tls_fail_openssl(failure, TRAM_ETLS, NULL, "digest");
}

static int read_trust(const tram_tls_options *options, struct tls_description *description,
                      struct tls_failure *failure) {
    struct tls_bytes bytes = {0};
    int code = 0;
    if (tram__tls_source_given(&options->ca)) {
        code = tram__tls_source_read(&options->ca, "ca", &bytes, failure);
        if (code == 0)
            code = tram__tls_read_certificates(&bytes, "ca", &description->ca, failure);
        tram__tls_bytes_free(&bytes);
    }
    if (code == 0 && tram__tls_source_given(&options->crl)) {
        code = tram__tls_source_read(&options->crl, "crl", &bytes, failure);
        if (code == 0)
            code = tram__tls_read_crls(&bytes, "crl", &description->crls, failure);
        tram__tls_bytes_free(&bytes);
    }
    if (code == 0)
        code = copy_text(options->ca_directory, "ca_directory", &description->ca_directory, failure);
    if (code == 0 && options->ca_directory && access(options->ca_directory, R_OK | X_OK) != 0) {
        code = -errno;
        tram__tls_fail(failure, code, "ca_directory", "ca_directory: %s: %s", options->ca_directory,
                       tram_error_text(code));
    }
    description->has_ca = description->ca.count > 0 || options->ca_directory;
    description->system_ca = options->system_ca;
    return code != 0 ? code : digest_trust(description, failure);
}

/* ---- What is spoken ---- */

/* Each name with its length before it. */
static int pack_alpn(const char *const *names, struct tls_bytes *packed, struct tls_failure *failure) {
    size_t size = 0;
    for (size_t i = 0; names && names[i]; i++) {
        size_t length = strlen(names[i]);
        if (length == 0 || length > UINT8_MAX)
            return tram__tls_fail(failure, TRAM_EVALUE, "alpn", "alpn: a name of %zu bytes", length);
        size += 1 + length;
    }
    if (size == 0)
        return 0;
    if (size > UINT16_MAX)
        return tram__tls_fail(failure, TRAM_EVALUE, "alpn", "alpn: too many names");
    packed->data = memory_get(&tram__memory_default, size);
    if (!packed->data)
        return tram__tls_fail(failure, -ENOMEM, "alpn", "alpn: out of memory");
    for (size_t i = 0; names[i]; i++) {
        size_t length = strlen(names[i]);
        packed->data[packed->size++] = (unsigned char)length;
        memcpy(packed->data + packed->size, names[i], length);
        packed->size += length;
    }
    return 0;
}

static int check_version(tram_tls_version version, const char *option, struct tls_failure *failure) {
    if (version == TRAM_TLS_VERSION_DEFAULT || version == TRAM_TLS_1_2 || version == TRAM_TLS_1_3)
        return 0;
    return tram__tls_fail(failure, TRAM_EVALUE, option, "%s: 0x%04x is neither TLS 1.2 nor 1.3", option,
                          (unsigned)version);
}

static int read_protocol(const tram_tls_options *options, struct tls_description *description,
                         struct tls_failure *failure) {
    int code = check_version(options->min_version, "min_version", failure);
    if (code == 0)
        code = check_version(options->max_version, "max_version", failure);
    if (code != 0)
        return code;
    description->min_version = options->min_version ? (int)options->min_version : TRAM_TLS_1_2;
    description->max_version = options->max_version ? (int)options->max_version : TRAM_TLS_1_3;
    if (description->min_version > description->max_version)
        return tram__tls_fail(failure, TRAM_EVALUE, "min_version", "min_version: above max_version");
    code = copy_text(options->ciphers, "ciphers", &description->ciphers, failure);
    if (code == 0)
        code = copy_text(options->ciphersuites, "ciphersuites", &description->ciphersuites, failure);
    if (code == 0)
        code = copy_text(options->groups, "groups", &description->groups, failure);
    if (code == 0)
        code = pack_alpn(options->alpn, &description->alpn, failure);
    return code;
}

/* ---- The rest ---- */

static int check_reserved(const tram_tls_options *options, struct tls_failure *failure) {
    uintptr_t sum = 0;
    for (size_t i = 0; i < sizeof options->reserved / sizeof *options->reserved; i++)
        sum |= options->reserved[i];
    for (size_t i = 0; options->certificates && i < options->certificate_count; i++)
        for (size_t word = 0; word < sizeof options->certificates->reserved / sizeof(uintptr_t); word++)
            sum |= options->certificates[i].reserved[word];
    return sum ? tram__tls_fail(failure, TRAM_EVALUE, "reserved", "reserved: not 0") : 0;
}

static int check_choices(const tram_tls_options *options, struct tls_failure *failure) {
    if ((unsigned)options->verify > TRAM_TLS_VERIFY_REQUIRED)
        return tram__tls_fail(failure, TRAM_EVALUE, "verify", "verify: %d is no mode", (int)options->verify);
    if ((unsigned)options->ocsp > TRAM_TLS_OCSP_REQUIRE)
        return tram__tls_fail(failure, TRAM_EVALUE, "ocsp", "ocsp: %d is no mode", (int)options->ocsp);
    if (options->tickets < TRAM_TLS_NO_TICKETS || options->tickets > TRAM_TLS_TICKETS_MAX)
        return tram__tls_fail(failure, TRAM_EVALUE, "tickets", "tickets: %d is not within %d and %d", options->tickets,
                              TRAM_TLS_NO_TICKETS, TRAM_TLS_TICKETS_MAX);
    if (options->session_cache > TRAM_TLS_SESSIONS_MAX)
        return tram__tls_fail(failure, TRAM_EVALUE, "session_cache", "session_cache: %u is more than %u",
                              options->session_cache, TRAM_TLS_SESSIONS_MAX);
    if (options->ticket_lifetime_ns > 7 * DAY_NS)
        return tram__tls_fail(failure, TRAM_EVALUE, "ticket_lifetime_ns", "ticket_lifetime_ns: more than 7 days");
    return check_reserved(options, failure);
}

static int open_keylog(const char *file, int *ret_fd, struct tls_failure *failure) {
    if (!file)
        return 0;
    *ret_fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    if (*ret_fd >= 0)
        return 0;
    int code = -errno;
    return tram__tls_fail(failure, code, "keylog_file", "keylog_file: %s: %s", file, tram_error_text(code));
}

static void copy_choices(const tram_tls_options *options, struct tls_description *description) {
    description->tickets = options->tickets ? options->tickets : 2;
    description->session_cache = options->session_cache;
    description->verify = options->verify;
    description->ocsp = options->ocsp;
    description->crl_check_chain = options->crl_check_chain;
    description->no_hostname_check = options->no_hostname_check;
    description->alpn_optional = options->alpn_optional;
    description->half_close = options->half_close;
    description->own_library_context = options->own_library_context;
    description->server_name = options->server_name;
    description->server_name_arg = options->server_name_arg;
    description->ticket_lifetime_ns = options->ticket_lifetime_ns ? options->ticket_lifetime_ns : DAY_NS / 12;
    description->handshake_timeout_ns =
        options->handshake_timeout_ns ? options->handshake_timeout_ns : TRAM_TLS_HANDSHAKE_NS;
    description->shutdown_timeout_ns =
        options->shutdown_timeout_ns ? options->shutdown_timeout_ns : TRAM_TLS_SHUTDOWN_NS;
}

int tram__tls_description_new(const tram_tls_options *options, struct tls_description **ret_description,
                              struct tls_failure *failure) {
    static const tram_tls_options defaults;
    if (!options)
        options = &defaults;
    int code = check_choices(options, failure);
    if (code != 0)
        return code;
    struct tls_description *description = tram__memory_get_zero(&tram__memory_default, sizeof *description);
    if (!description)
        return tram__tls_fail(failure, -ENOMEM, NULL, "out of memory");
    atomic_init(&description->references, 1);
    description->keylog_fd = -1;
    copy_choices(options, description);
    code = read_identities(options, description, failure);
    if (code == 0)
        code = read_trust(options, description, failure);
    if (code == 0)
        code = read_protocol(options, description, failure);
    if (code == 0)
        code = open_keylog(options->keylog_file, &description->keylog_fd, failure);
    if (code != 0) {
        tram__tls_description_release(description);
        return code;
    }
    *ret_description = description;
    return 0;
}

int tram__tls_description_serve(const struct tls_description *description, bool server, struct tls_failure *failure) {
    if (server && description->identity_count == 0 && !description->server_name)
        return tram__tls_fail(failure, TRAM_EVALUE, "certificates", "certificates: a server needs one");
    if (server && description->verify > TRAM_TLS_VERIFY_NONE && !description->has_ca && !description->system_ca)
        return tram__tls_fail(failure, TRAM_EVALUE, "ca", "ca: no client could be verified without one");
    return 0;
}
