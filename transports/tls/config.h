/*
 * A config: the description that new connections get, which may be replaced, the keys of tickets, and the sessions that
 * are remembered. Users hold it;
 * loops that keep an SSL_CTX of it do not count as users, so that they can tell when nobody wants it any more.
 */
#ifndef TRAM_TRANSPORTS_TLS_CONFIG_H
#define TRAM_TRANSPORTS_TLS_CONFIG_H

#include "transports/base/secured.h"
#include "transports/tls/cache.h"
#include "transports/tls/description.h"
#include "transports/tls/tickets.h"

struct tram_tls_config {
    const struct tls_provider *provider; /* first: libtram reads it */
    _Atomic unsigned users;              /* together they hold one reference */
    _Atomic unsigned references;         /* of the memory */
    _Atomic unsigned generation;         /* of the description, to be read without the lock */
    pthread_mutex_t lock;
    struct tls_description *description;
    struct tls_tickets tickets;
    struct tls_cache cache;
};

int tram__tls_config_create(const tram_tls_options *options, const struct tls_provider *provider,
                            tram_tls_config **ret_config, tram_error *ret_error);

/* A reference for a loop. */
void tram__tls_config_keep(tram_tls_config *config);
void tram__tls_config_drop(tram_tls_config *config);

static inline bool tls_config_abandoned(const tram_tls_config *config) {
    return atomic_load_explicit(&config->users, memory_order_acquire) == 0;
}

static inline unsigned tls_config_generation(const tram_tls_config *config) {
    return atomic_load_explicit(&config->generation, memory_order_acquire);
}

/* The description of now, held for the caller, and its generation. */
struct tls_description *tram__tls_config_describe(tram_tls_config *config, unsigned *ret_generation);

#endif
