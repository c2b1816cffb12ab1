/*
 * Sessions that a server remembers, for clients that come back without a ticket (options.session_cache). Shared by the
 * loops of a config, so that a session resumes on any of them, under a lock that only such handshakes take.
 *
 * A table of fixed size: a session's id, which is random, says in which group of places it stands, and the oldest of a
 * group gives way. So nothing is searched, and nobody can make it grow. When a session is too old, and whether it is
 * for this client, is OpenSSL's to say.
 */
#ifndef TRAM_TRANSPORTS_TLS_CACHE_H
#define TRAM_TRANSPORTS_TLS_CACHE_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <tram/buffer.h>

struct tls_cached {
    unsigned char id[SSL_MAX_SSL_SESSION_ID_LENGTH];
    unsigned id_size;
    uint64_t number;      /* the higher, the newer */
    tram_buffer *session; /* held; NULL: nothing is here */
};

struct tls_cache {
    pthread_mutex_t lock;
    _Atomic unsigned size; /* places; 0: nothing is remembered */
    uint64_t number;       /* of the newest */
    struct tls_cached *places;
};

void tram__tls_cache_init(struct tls_cache *cache);
void tram__tls_cache_fini(struct tls_cache *cache);

/* For so many sessions; what it has is forgotten where that is another number. False: out of memory, nothing happened.
 */
bool tram__tls_cache_resize(struct tls_cache *cache, unsigned size);

/* Where there is no memory for it, it is not remembered. */
void tram__tls_cache_put(struct tls_cache *cache, const SSL_SESSION *session);

/* The caller's; NULL: unknown. */
SSL_SESSION *tram__tls_cache_get(struct tls_cache *cache, const unsigned char *id, size_t id_size);

/* Its connection has failed: it is not to be resumed (RFC 5246, 7.2.2). */
void tram__tls_cache_remove(struct tls_cache *cache, const SSL_SESSION *session);

#endif
