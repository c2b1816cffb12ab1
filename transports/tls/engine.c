/*
 * How to read this file: each call enters the engine (the loop's BIO then reads and writes what is below this one),
 * asks OpenSSL, and leaves. The end below is no error for OpenSSL, which is told to come again; what it means here is
 * decided by what was asked: in a handshake the connection is lost, else the stream is cut off.
 *
 * OpenSSL has one queue of errors for each thread, and SSL_get_error() takes those that somebody else left there for
 * this connection's. A handshake begins with an empty queue. To see that it is empty costs as much as the rest of this
 * file, so reading and writing do without: they ask what OpenSSL waits for, and look at the queue where it has failed.
 */
#include "transports/tls/engine.h"

#include <openssl/err.h>
#include <string.h>

#include "core/base/text.h"
#include "transports/tls/callbacks.h"
#include "transports/tls/idle.h"
#include "transports/tls/name.h"
#include "transports/tls/session.h"

/* ---- At work ---- */

/* Returns who was at work, for leave(): TLS may lie over TLS. */
static struct tls_engine *enter(struct tls_engine *engine) {
    struct tls_engine *outer = engine->loop->current;
    engine->loop->current = engine;
    return outer;
}

static void forget_errors(void) {
    if (unlikely(ERR_peek_error() != 0)) /* to clear an empty queue costs much more */
        ERR_clear_error();
}

/* What somebody else on this thread left in the queue stands in front of what OpenSSL has just said. */
static void forget_errors_of_others(void) {
    while (ERR_peek_error() != ERR_peek_last_error())
        (void)ERR_get_error();
}

static void leave(struct tls_engine *engine, struct tls_engine *outer) {
    engine->loop->current = outer;
}

/* ---- Why not ---- */

static int fail_certificate(struct tls_engine *engine, long result, struct tls_failure *failure) {
    const struct tls_loop *loop = engine->loop;
    const X509_VERIFY_PARAM *param = SSL_get0_param(engine->ssl);
    const char *whose = engine->server ? "client" : "server";
    const char *reason = X509_verify_cert_error_string(result);
    ERR_clear_error();
    if (result == X509_V_ERR_HOSTNAME_MISMATCH || result == X509_V_ERR_IP_ADDRESS_MISMATCH) {
        char *address = X509_VERIFY_PARAM_get1_ip_asc((X509_VERIFY_PARAM *)param);
        const char *host = X509_VERIFY_PARAM_get0_host((X509_VERIFY_PARAM *)param, 0);
        tram__tls_fail(failure, TRAM_ETLS_CERTIFICATE, NULL, "the %s's certificate is not for \"%s\" (%s): %s", whose,
                       address ? address
                       : host  ? host
                               : "",
                       loop->verify_subject, reason);
        OPENSSL_free(address);
        ERR_clear_error(); /* there may have been no address */
        return failure->code;
    }
    return tram__tls_fail(failure, TRAM_ETLS_CERTIFICATE, NULL, "the %s's certificate is refused: %s (%s, depth %d)",
                          whose, reason, loop->verify_subject, loop->verify_depth);
}

static int fail_openssl(struct tls_engine *engine, const char *what, struct tls_failure *failure) {
    unsigned long error = ERR_peek_last_error(); /* what was tried before it came to that stands in front */
    bool by_ssl = ERR_GET_LIB(error) == ERR_LIB_SSL;
    if (by_ssl && ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        return fail_certificate(engine, SSL_get_verify_result(engine->ssl), failure);
    const char *ocsp_reason = engine->loop->ocsp_reason;
    engine->loop->ocsp_reason = NULL;
    if (ocsp_reason) {
        ERR_clear_error();
        return tram__tls_fail(failure, TRAM_ETLS_CERTIFICATE, NULL, "the server's certificate is refused: %s",
                              ocsp_reason);
    }
    if (by_ssl && ERR_GET_REASON(error) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        ERR_clear_error();
        return tram__tls_fail(failure, TRAM_ETLS_CERTIFICATE, NULL, "the client has no certificate, and must");
    }
    return tram__tls_fail_openssl(failure, TRAM_ETLS, NULL, "%s", what);
}

/* OpenSSL has failed: for ever. */
static int fail(struct tls_engine *engine, const char *what, struct tls_failure *failure) {
    engine->failed = true;
    /* Not where a handshake fails: anybody could ask for the session of somebody else. */
    if (engine->server && engine->established)
        tram__tls_cache_remove(&engine->context->config->cache, SSL_get0_session(engine->ssl));
    if (engine->flooded) {
        ERR_clear_error();
        return tram__tls_fail(failure, TRAM_ELIMIT, NULL, "the peer asks for new keys too often");
    }
    if (engine->refused) {
        char shown[TEXT_ESCAPED_SIZE(32)];
        const char *name = engine->loop->hello_name;
        ERR_clear_error();
        return tram__tls_fail(failure, engine->loop->refusal, NULL, "the server name \"%s\" is refused",
                              tram__text_escape(shown, sizeof shown, name, strnlen(name, 32)));
    }
    return fail_openssl(engine, what, failure);
}

static int fail_below(struct tls_engine *engine, struct tls_failure *failure) {
    engine->failed = true;
    if (engine->below_code != 0)
        return tram__tls_fail(failure, engine->below_code, NULL, "TLS handshake: %s",
                              tram_error_text(engine->below_code));
    return tram__tls_fail(failure, -ECONNRESET, NULL, "the peer closed the connection during the TLS handshake");
}

/* ---- Start and end ---- */

static int verify_mode(const struct tls_description *description, bool server) {
    if (description->verify == TRAM_TLS_VERIFY_NONE)
        return SSL_VERIFY_NONE;
    if (!server)
        return SSL_VERIFY_PEER;
    if (description->verify == TRAM_TLS_VERIFY_DEFAULT && !description->has_ca)
        return SSL_VERIFY_NONE;
    return description->verify == TRAM_TLS_VERIFY_OPTIONAL ? SSL_VERIFY_PEER
                                                           : SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
}

static int start_client(struct tls_engine *engine, const struct tls_engine_options *options,
                        struct tls_failure *failure) {
    const struct tls_description *description = engine->context->description;
    bool verify = description->verify != TRAM_TLS_VERIFY_NONE;
    bool check = verify && !description->no_hostname_check;
    struct tls_name name;
    int code = tram__tls_name_parse(options->server_hostname, &name, failure);
    if (code == 0)
        code = tram__tls_name_use(engine->ssl, &name, check, failure);
    if (code == 0 && options->session)
        code = tram__tls_session_offer(engine->ssl, options->session, description->trust, sizeof description->trust,
                                       &name, check, failure);
    if (code == 0 && description->ocsp != TRAM_TLS_OCSP_IGNORE)
        SSL_set_tlsext_status_type(engine->ssl, TLSEXT_STATUSTYPE_ocsp);
    SSL_set_connect_state(engine->ssl);
    return code;
}

static int start_ssl(struct tls_engine *engine, const struct tls_engine_options *options, struct tls_failure *failure) {
    int code = tram__tls_context_serve(engine->context, options->server, failure);
    if (code != 0)
        return code;
    engine->ssl = SSL_new(engine->context->openssl);
    if (!engine->ssl)
        return tram__tls_fail_openssl(failure, -ENOMEM, NULL, "SSL_new");
    BIO_up_ref(engine->loop->bio);
    SSL_set_bio(engine->ssl, engine->loop->bio, engine->loop->bio);
    SSL_set_read_ahead(engine->ssl,
                       1); /* header and record by one call of the BIO: what is below costs no system call */
    SSL_set_mode(engine->ssl, SSL_MODE_RELEASE_BUFFERS); /* idle.h */
    SSL_set_verify(engine->ssl, verify_mode(engine->context->description, options->server), tram__tls_on_verify);
    if (!options->server)
        return start_client(engine, options, failure);
    SSL_set_accept_state(engine->ssl);
    engine->hello_seen = !engine->context->description->server_name;
    return 0;
}

int tram__tls_engine_start(struct tls_engine *engine, tram_loop *loop, const struct tls_below *below,
                           const struct tls_engine_options *options, struct tls_failure *failure) {
    memset(engine, 0, sizeof *engine);
    list_init(&engine->idle_link);
    engine->below = below;
    engine->server = options->server;
    engine->loop = tram__tls_loop_open(loop);
    if (!engine->loop)
        return tram__tls_fail(failure, -ENOMEM, NULL, "out of memory");
    ERR_clear_error();
    int code = tram__tls_context_open(engine->loop, options->config, NULL, &engine->context, failure);
    if (code == 0)
        code = start_ssl(engine, options, failure);
    if (code != 0)
        tram__tls_engine_free(engine);
    return code;
}

void tram__tls_engine_free(struct tls_engine *engine) {
    tls_idle_forget(engine);
    SSL_free(engine->ssl);
    tram__tls_context_release(engine->context);
    ERR_clear_error();
}

/* ---- Handshake ---- */

/* Another config for the rest of the handshake. Tickets are looked at after this. */
static int switch_config(struct tls_engine *engine, tram_tls_config *config, struct tls_failure *failure) {
    struct tls_context *context;
    int code = tram__tls_context_open(engine->loop, config, engine->context->library, &context, failure);
    if (code != 0)
        return code;
    code = tram__tls_context_serve(context, true, failure);
    const struct tls_description *description = context->description;
    if (code == 0 && (!SSL_set_SSL_CTX(engine->ssl, context->openssl) ||
                      !SSL_set_min_proto_version(engine->ssl, description->min_version) ||
                      !SSL_set_max_proto_version(engine->ssl, description->max_version) ||
                      !SSL_set_num_tickets(engine->ssl, SSL_CTX_get_num_tickets(context->openssl)) ||
                      (description->groups && !SSL_set1_groups_list(engine->ssl, description->groups))))
        code = tram__tls_fail_openssl(failure, TRAM_ETLS, NULL, "another config by server name");
    if (code != 0) {
        tram__tls_context_release(context);
        return code;
    }
    SSL_clear_options(engine->ssl, SSL_OP_NO_TICKET);
    SSL_set_options(engine->ssl, SSL_CTX_get_options(context->openssl));
    SSL_set_verify(engine->ssl, verify_mode(description, true), tram__tls_on_verify);
    tram__tls_context_release(engine->context);
    engine->context = context;
    return 0;
}

static int choose_by_name(struct tls_engine *engine, struct tls_failure *failure) {
    const struct tls_description *description = engine->context->description;
    const char *name = engine->loop->hello_name;
    tram_tls_config *chosen = NULL;
    engine->hello_seen = true;
    int code = description->server_name(description->server_name_arg, *name ? name : NULL, &chosen);
    engine->refused = code < 0;
    engine->loop->refusal = code;
    return code >= 0 && chosen && chosen != engine->context->config ? switch_config(engine, chosen, failure) : 0;
}

int tram__tls_engine_handshake(struct tls_engine *engine, struct tls_failure *failure) {
    if (engine->established)
        return 1;
    for (;;) {
        forget_errors();
        struct tls_engine *outer = enter(engine);
        engine->loop->ocsp_reason = NULL;
        int result = SSL_do_handshake(engine->ssl);
        int error = result == 1 ? SSL_ERROR_NONE : SSL_get_error(engine->ssl, result);
        leave(engine, outer);
        if (error == SSL_ERROR_NONE) {
            engine->established = true;
            tls_idle_used(engine);
            return 1;
        }
        if (error == SSL_ERROR_WANT_READ)
            return engine->below_ended ? fail_below(engine, failure) : 0;
        if (error != SSL_ERROR_WANT_CLIENT_HELLO_CB)
            return fail(engine, "TLS handshake", failure);
        int code = choose_by_name(engine, failure);
        if (code != 0) {
            engine->failed = true;
            return code;
        }
    }
}

/* ---- Reading and writing ---- */

bool tram__tls_engine_may_read(const struct tls_engine *engine) {
    return engine->below_ended || engine->close_received || engine->failed || engine->below->may_read(engine) ||
           SSL_has_pending(engine->ssl);
}

/* A peer's fatal alert also ends what comes, but leaves OpenSSL as it is after every failure: in a handshake for ever.
 */
static bool was_closed(const struct tls_engine *engine) {
    return SSL_get_shutdown(engine->ssl) & SSL_RECEIVED_SHUTDOWN && !SSL_in_init(engine->ssl) && !engine->flooded;
}

static int fail_established(struct tls_engine *engine, struct tls_failure *failure) {
    forget_errors_of_others();
    return fail(engine, "TLS", failure);
}

ssize_t tram__tls_engine_read(struct tls_engine *engine, void *memory, size_t size, struct tls_failure *failure) {
    if (engine->close_received)
        return 0;
    if (engine->failed)
        return tram__tls_fail(failure, TRAM_ETLS, NULL, "TLS has failed before");
    tls_idle_used(engine);
    struct tls_engine *outer = enter(engine);
    size_t got = 0;
    int result = SSL_read_ex(engine->ssl, memory, size, &got);
    leave(engine, outer);
    if (likely(result == 1))
        return (ssize_t)got;
    engine->close_received = was_closed(engine);
    if (engine->close_received)
        return 0;
    if (!SSL_want_read(engine->ssl) || !BIO_should_read(engine->loop->bio))
        return fail_established(engine, failure);
    if (!engine->below_ended)
        return -EAGAIN;
    if (engine->below_code == 0)
        return 0;
    return tram__tls_fail(failure, engine->below_code, NULL, "%s", tram_error_text(engine->below_code));
}

int tram__tls_engine_write(struct tls_engine *engine, const void *data, size_t size, struct tls_failure *failure) {
    if (size == 0)
        return 0; /* OpenSSL would not know what that is */
    if (engine->failed || engine->close_sent)
        return tram__tls_fail(failure, TRAM_ESTATE, NULL, "TLS is over");
    tls_idle_used(engine);
    struct tls_engine *outer = enter(engine);
    size_t written;
    int result = SSL_write_ex(engine->ssl, data, size, &written);
    leave(engine, outer);
    return likely(result == 1) ? 0 : fail_established(engine, failure);
}

void tram__tls_engine_close(struct tls_engine *engine) {
    if (!engine->established || engine->failed || engine->close_sent)
        return;
    struct tls_engine *outer = enter(engine);
    engine->close_sent = true;
    int result = SSL_shutdown(engine->ssl);
    engine->failed = result < 0;
    ERR_clear_error();
    leave(engine, outer);
}

int tram__tls_engine_update_keys(struct tls_engine *engine, struct tls_failure *failure) {
    forget_errors();
    struct tls_engine *outer = enter(engine);
    int result = SSL_key_update(engine->ssl, SSL_KEY_UPDATE_REQUESTED);
    if (result == 1)
        result = SSL_do_handshake(engine->ssl);
    int code = result == 1 ? 0 : tram__tls_fail_openssl(failure, TRAM_ESTATE, NULL, "key update");
    leave(engine, outer);
    return code;
}

size_t tram__tls_engine_pending(const struct tls_engine *engine) {
    int pending = SSL_pending(engine->ssl);
    return (size_t)MAX(pending, 0);
}

/* ---- Another loop ---- */

void tram__tls_engine_leave(struct tls_engine *engine) {
    tls_idle_forget(engine);
    SSL_set_bio(engine->ssl, NULL, NULL);
    engine->loop = NULL;
}

int tram__tls_engine_arrive(struct tls_engine *engine, tram_loop *loop) {
    struct tls_loop *tls = tram__tls_loop_open(loop);
    if (!tls)
        return -ENOMEM;
    engine->loop = tls;
    BIO_up_ref(tls->bio);
    SSL_set_bio(engine->ssl, tls->bio, tls->bio);
    tls_idle_used(engine);
    return 0;
}

int tram__tls_engine_session(const struct tls_engine *engine, tram_buffer **ret_session) {
    return tram__tls_session_save(engine->ssl, ret_session);
}
