#include "transports/tls/bio.h"

#include <openssl/err.h>

#include "transports/tls/engine.h"

static int read_below(BIO *bio, char *memory, size_t size, size_t *ret_size) {
    struct tls_loop *loop = BIO_get_data(bio);
    struct tls_engine *engine = loop->current;
    BIO_clear_retry_flags(bio);
    *ret_size = 0;
    if (engine->flooded)
        return 0; /* no retry: that ends it */
    if (!engine->below_ended) {
        ssize_t got = engine->below->read(engine, memory, size);
        loop->current = engine; /* what is below may be TLS as well */
        if (got > 0) {
            *ret_size = (size_t)got;
            return 1;
        }
        engine->below_ended = got != -EAGAIN;
        if (engine->below_ended)
            engine->below_code = (int16_t)got;
    }
    /* The end, too: OpenSSL would call it fatal and refuse to write, but only the engine knows what it means. */
    BIO_set_retry_read(bio);
    return 0;
}

static int write_below(BIO *bio, const char *data, size_t size, size_t *ret_size) {
    struct tls_loop *loop = BIO_get_data(bio);
    struct tls_engine *engine = loop->current;
    BIO_clear_retry_flags(bio);
    engine->below->write(engine, data, size);
    loop->current = engine;
    *ret_size = size;
    return 1;
}

static long control(BIO *bio, int command, long number, void *pointer) {
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH; /* what is written is on its way already */
}

static int create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

bool tram__tls_bio_open(struct tls_loop *loop) {
    loop->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "tram");
    if (loop->method && BIO_meth_set_read_ex(loop->method, read_below) &&
        BIO_meth_set_write_ex(loop->method, write_below) && BIO_meth_set_ctrl(loop->method, control) &&
        BIO_meth_set_create(loop->method, create))
        loop->bio = BIO_new(loop->method);
    if (!loop->bio) {
        BIO_meth_free(loop->method);
        loop->method = NULL;
        ERR_clear_error();
        return false;
    }
    BIO_set_data(loop->bio, loop);
    return true;
}

void tram__tls_bio_close(struct tls_loop *loop) {
    BIO_free(loop->bio);
    BIO_meth_free(loop->method);
}

struct tls_loop *tram__tls_bio_loop(const SSL *ssl) {
    return BIO_get_data(SSL_get_rbio(ssl));
}
