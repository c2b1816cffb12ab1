#include "transports/tls/source.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/compiler.h"
#include "core/base/memory.h"

/* ---- Bytes ---- */

void tram__tls_bytes_free(struct tls_bytes *bytes) {
    if (bytes->data)
        OPENSSL_cleanse(bytes->data, bytes->size);
    memory_put(&tram__memory_default, bytes->data, bytes->size);
    *bytes = (struct tls_bytes){0};
}

static int bytes_new(struct tls_bytes *bytes, size_t size, const char *option, struct tls_failure *failure) {
    bytes->data = memory_get(&tram__memory_default, size);
    bytes->size = bytes->data ? size : 0;
    return bytes->data ? 0 : tram__tls_fail(failure, -ENOMEM, option, "%s: out of memory", option);
}

void tram__tls_objects_free(struct tls_objects *objects) {
    for (size_t i = 0; i < objects->count; i++)
        tram__tls_bytes_free(&objects->items[i]);
    memory_put(&tram__memory_default, objects->items, objects->count * sizeof *objects->items);
    *objects = (struct tls_objects){0};
}

/* Takes the bytes. */
static bool objects_add(struct tls_objects *objects, struct tls_bytes *bytes) {
    size_t size = objects->count * sizeof *objects->items;
    struct tls_bytes *items = memory_get(&tram__memory_default, size + sizeof *items);
    if (!items)
        return false;
    if (size)
        memcpy(items, objects->items, size);
    memory_put(&tram__memory_default, objects->items, size);
    items[objects->count++] = *bytes;
    objects->items = items;
    *bytes = (struct tls_bytes){0};
    return true;
}

/* ---- Sources ---- */

bool tram__tls_source_given(const tram_tls_source *source) {
    return source->file || source->data;
}

static int read_all(int fd, struct tls_bytes *bytes) {
    size_t have = 0;
    while (have < bytes->size) {
        ssize_t got = read(fd, bytes->data + have, bytes->size - have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return -EIO; /* it became shorter meanwhile: half a key is none */
        have += (size_t)got;
    }
    return 0;
}

static int read_file(const char *file, const char *option, struct tls_bytes *ret_bytes, struct tls_failure *failure) {
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a pipe that nobody writes to must not block */
    struct stat about;
    if (fd < 0 || fstat(fd, &about) != 0) {
        int code = -errno;
        if (fd >= 0)
            close(fd);
        return tram__tls_fail(failure, code, option, "%s: %s: %s", option, file, tram_error_text(code));
    }
    int code;
    if (!S_ISREG(about.st_mode))
        code = tram__tls_fail(failure, TRAM_EVALUE, option, "%s: %s is no regular file", option, file);
    else if (about.st_size <= 0 || about.st_size > TRAM_TLS_FILE_MAX)
        code = tram__tls_fail(failure, TRAM_EVALUE, option, "%s: %s is %s", option, file,
                              about.st_size > 0 ? "too large" : "empty");
    else if ((code = bytes_new(ret_bytes, (size_t)about.st_size, option, failure)) == 0 &&
             (code = read_all(fd, ret_bytes)) != 0) {
        tram__tls_bytes_free(ret_bytes);
        tram__tls_fail(failure, code, option, "%s: %s: %s", option, file, tram_error_text(code));
    }
    close(fd);
    return code;
}

int tram__tls_source_read(const tram_tls_source *source, const char *option, struct tls_bytes *ret_bytes,
                          struct tls_failure *failure) {
    *ret_bytes = (struct tls_bytes){0};
    if (source->file && source->data)
        return tram__tls_fail(failure, TRAM_EVALUE, option, "%s: both a file and memory", option);
    if (source->file)
        return read_file(source->file, option, ret_bytes, failure);
    if (source->size == 0 || source->size > TRAM_TLS_FILE_MAX)
        return tram__tls_fail(failure, TRAM_EVALUE, option, "%s: %s", option, source->size ? "too large" : "empty");
    int code = bytes_new(ret_bytes, source->size, option, failure);
    if (code == 0)
        memcpy(ret_bytes->data, source->data, source->size);
    return code;
}

/* ---- Objects ---- */

/* What a kind of object is called and how it is read and written. */
struct object_kind {
    const char *what;
    void *(*read_pem)(BIO *bio);
    void *(*read_der)(BIO *bio);
    int (*write_der)(void *object, unsigned char **out);
    void (*free)(void *object);
};

static void *certificate_pem(BIO *bio) {
    return PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
}
static void *certificate_der(BIO *bio) {
    return d2i_X509_bio(bio, NULL);
}
static int certificate_write(void *object, unsigned char **out) {
    return i2d_X509(object, out);
}
static void certificate_free(void *object) {
    X509_free(object);
}
static void *crl_pem(BIO *bio) {
    return PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL);
}
static void *crl_der(BIO *bio) {
    return d2i_X509_CRL_bio(bio, NULL);
}
static int crl_write(void *object, unsigned char **out) {
    return i2d_X509_CRL(object, out);
}
static void crl_free(void *object) {
    X509_CRL_free(object);
}

static const struct object_kind certificates = {"certificate", certificate_pem, certificate_der, certificate_write,
                                                certificate_free};
static const struct object_kind crls = {"certificate revocation list", crl_pem, crl_der, crl_write, crl_free};

static bool is_pem(const struct tls_bytes *bytes) {
    static const char begin[] = "-----BEGIN ";
    return memmem(bytes->data, bytes->size, begin, sizeof begin - 1) != NULL;
}

/* Copies what OpenSSL allocated, so that it is freed as all else is, and wipes the original. */
static int take_der(unsigned char *der, int size, const char *option, struct tls_bytes *ret_bytes,
                    struct tls_failure *failure) {
    if (size <= 0)
        return tram__tls_fail_openssl(failure, TRAM_ETLS, option, "%s", option);
    int code = bytes_new(ret_bytes, (size_t)size, option, failure);
    if (code == 0)
        memcpy(ret_bytes->data, der, (size_t)size);
    OPENSSL_clear_free(der, (size_t)size);
    return code;
}

static int add_object(struct tls_objects *objects, const struct object_kind *kind, void *object, const char *option,
                      struct tls_failure *failure) {
    unsigned char *der = NULL;
    int size = kind->write_der(object, &der);
    struct tls_bytes bytes = {0};
    int code = take_der(der, size, option, &bytes, failure);
    if (code == 0 && !objects_add(objects, &bytes))
        code = tram__tls_fail(failure, -ENOMEM, option, "%s: out of memory", option);
    tram__tls_bytes_free(&bytes);
    return code;
}

/* What stands in a file with nothing of its kind left is no error. */
static bool is_end_of_pem(void) {
    unsigned long error = ERR_peek_last_error();
    return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

/* NULL: there is none, and OpenSSL knows why. */
static void *next_object(BIO *bio, const struct object_kind *kind, bool pem) {
    ERR_clear_error();
    return pem ? kind->read_pem(bio) : kind->read_der(bio);
}

static int read_from(BIO *bio, const struct object_kind *kind, bool pem, const char *option,
                     struct tls_objects *objects, struct tls_failure *failure) {
    void *object;
    while ((object = next_object(bio, kind, pem))) {
        int code = add_object(objects, kind, object, option, failure);
        kind->free(object);
        if (code != 0)
            return code;
        if (!pem)
            return 0;
    }
    if (!pem || !is_end_of_pem())
        return tram__tls_fail_openssl(failure, TRAM_ETLS, option, "%s: no %s can be read", option, kind->what);
    ERR_clear_error();
    if (objects->count == 0)
        return tram__tls_fail(failure, TRAM_ETLS, option, "%s: there is no %s in it", option, kind->what);
    return 0;
}

static BIO *bio_over(const struct tls_bytes *bytes) {
    return bytes->size <= INT_MAX ? BIO_new_mem_buf(bytes->data, (int)bytes->size) : NULL;
}

static int read_objects(const struct tls_bytes *bytes, const struct object_kind *kind, const char *option,
                        struct tls_objects *ret_objects, struct tls_failure *failure) {
    *ret_objects = (struct tls_objects){0};
    BIO *bio = bio_over(bytes);
    if (!bio)
        return tram__tls_fail_openssl(failure, -ENOMEM, option, "%s", option);
    int code = read_from(bio, kind, is_pem(bytes), option, ret_objects, failure);
    BIO_free(bio);
    if (code != 0)
        tram__tls_objects_free(ret_objects);
    return code;
}

int tram__tls_read_certificates(const struct tls_bytes *bytes, const char *option, struct tls_objects *ret_objects,
                                struct tls_failure *failure) {
    return read_objects(bytes, &certificates, option, ret_objects, failure);
}

int tram__tls_read_crls(const struct tls_bytes *bytes, const char *option, struct tls_objects *ret_objects,
                        struct tls_failure *failure) {
    return read_objects(bytes, &crls, option, ret_objects, failure);
}

/* ---- Keys ---- */

struct password {
    const tram_tls_certificate *certificate;
    bool asked;
    int code; /* of the user's function, if it failed */
};

/* For OpenSSL: what is negative is a failure. Without this it would ask on the terminal. */
static int give_password(char *buffer, int size, int writing, void *arg) {
    (void)writing;
    struct password *password = arg;
    const tram_tls_certificate *certificate = password->certificate;
    password->asked = true;
    if (certificate->get_password) {
        int length = certificate->get_password(certificate->password_arg, buffer, (size_t)size);
        password->code = MIN(length, 0);
        return length > size ? -1 : length;
    }
    size_t length = certificate->password ? strlen(certificate->password) : 0;
    if (!certificate->password || length > (size_t)size)
        return -1;
    memcpy(buffer, certificate->password, length);
    return (int)length;
}

static int refuse_key(const struct password *password, const char *option, struct tls_failure *failure) {
    if (password->code != 0) {
        ERR_clear_error();
        return tram__tls_fail(failure, password->code, option, "%s: get_password failed: %s", option,
                              tram_error_text(password->code));
    }
    if (password->asked && !password->certificate->password && !password->certificate->get_password) {
        ERR_clear_error();
        return tram__tls_fail(failure, TRAM_ETLS, option, "%s: the key is encrypted, and there is no password", option);
    }
    if (password->asked)
        return tram__tls_fail_openssl(failure, TRAM_ETLS, option, "%s: wrong password, or a damaged key", option);
    return tram__tls_fail_openssl(failure, TRAM_ETLS, option, "%s: no private key can be read", option);
}

int tram__tls_read_key(const struct tls_bytes *bytes, const tram_tls_certificate *certificate, const char *option,
                       struct tls_bytes *ret_key, struct tls_failure *failure) {
    *ret_key = (struct tls_bytes){0};
    BIO *bio = bio_over(bytes);
    if (!bio)
        return tram__tls_fail_openssl(failure, -ENOMEM, option, "%s", option);
    ERR_clear_error();
    struct password password = {.certificate = certificate};
    EVP_PKEY *key =
        is_pem(bytes) ? PEM_read_bio_PrivateKey(bio, NULL, give_password, &password) : d2i_PrivateKey_bio(bio, NULL);
    BIO_free(bio);
    if (!key)
        return refuse_key(&password, option, failure);
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    unsigned char *der = NULL;
    int size = info ? i2d_PKCS8_PRIV_KEY_INFO(info, &der) : -1;
    PKCS8_PRIV_KEY_INFO_free(info);
    EVP_PKEY_free(key);
    return take_der(der, size, option, ret_key, failure);
}
