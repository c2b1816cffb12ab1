/*
 * A config: the description that new connections get, which may be replaced, and the keys of tickets. Users hold it;
 * loops that keep an SSL_CTX of it do not count as users, so that they can tell when nobody wants it any more.
 */
#ifndef TRAM_TRANSPORTS_TLS_CONFIG_H
#define TRAM_TRANSPORTS_TLS_CONFIG_H

#include "transports/tls/description.h"
#include "transports/tls/tickets.h"

struct tram_tls_config {
    _Atomic unsigned users;      /* together they hold one reference */
    _Atomic unsigned references; /* of the memory */
    _Atomic unsigned generation; /* of the description, to be read without the lock */
    pthread_mutex_t lock;
    struct tls_description *description;
    struct tls_tickets tickets;
};

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
