/*
 * What a loop makes of a config: an SSL_CTX of its own, so that cores share no reference count, at the first connection
 * that needs it and again after a reload. The slot of a loop has them all, and the one BIO through which every SSL of
 * the loop reads and writes.
 */
#ifndef TRAM_TRANSPORTS_TLS_CONTEXT_H
#define TRAM_TRANSPORTS_TLS_CONTEXT_H

#include <openssl/ssl.h>

#include "core/base/list.h"
#include "core/loop/loop.h"
#include "transports/tls/config.h"

struct tls_engine;

/* What one record carries at most. */
#define TLS_RECORD_SIZE SSL3_RT_MAX_PLAIN_LENGTH

/* OpenSSL's algorithms: the process's, or a loop's own (options.own_library_context). Counted. */
struct tls_library {
    _Atomic unsigned references;
    OSSL_LIB_CTX *openssl;     /* NULL: the process's */
    EVP_CIPHER *ticket_cipher; /* fetched once */
};

/* Counted: a connection holds its own, on whatever loop it is. */
struct tls_context {
    _Atomic unsigned references;
    struct list link; /* in tls_loop.contexts */
    SSL_CTX *openssl;
    tram_tls_config *config;
    unsigned generation; /* of the config, when it was made */
    struct tls_description *description;
    struct tls_library *library;
    struct tls_ticket_table tickets; /* a copy for this loop */
    bool has_system_ca;
};

struct tls_loop {
    struct loop_state state;
    tram_loop *loop;
    struct list contexts;
    struct tls_library *libraries[2]; /* the process's, its own */
    BIO_METHOD *method;
    BIO *bio;
    struct tls_engine *current; /* whose SSL is at work */
    struct list used, resting;  /* engines, by when they were used: idle.h */
    uint16_t idle_round;
    struct deadline idle_timer;
    uint64_t steps_tick; /* the tick in which `steps` of handshakes were made */
    unsigned steps;
    char *record; /* of TLS_RECORD_SIZE: where many pieces become one; NULL: not needed yet */
    /* What the verification that failed was about. */
    int verify_depth;
    char verify_subject[128];
    const char *ocsp_reason; /* NULL: it is not the reason */
    /* Of the handshake that is at work: */
    char hello_name[256]; /* that the client asks for; "": none */
    int refusal;          /* what the user's function said against it */
};

/* What a loop has; NULL: out of memory. */
struct tls_loop *tram__tls_loop_open(tram_loop *loop);

/*
 * The SSL_CTX of a config for a loop, held for the caller, with the algorithms of `library` or, if NULL, those that the
 * config wants.
 */
int tram__tls_context_open(struct tls_loop *loop, tram_tls_config *config, struct tls_library *library,
                           struct tls_context **ret_context, struct tls_failure *failure);
struct tls_context *tram__tls_context_hold(struct tls_context *context);
void tram__tls_context_release(struct tls_context *context);

/* Is it fit for this role? The CAs of the system are looked for here, where they are needed. */
int tram__tls_context_serve(struct tls_context *context, bool server, struct tls_failure *failure);

#endif
