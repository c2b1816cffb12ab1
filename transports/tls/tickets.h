/*
 * The keys of session tickets: one that makes them and two that came before, so that a ticket of one worker is good at
 * every other, and old ones end. Shared by the loops under a lock, which is taken only when the keys have changed or
 * are due to: each loop keeps a copy.
 */
#ifndef TRAM_TRANSPORTS_TLS_TICKETS_H
#define TRAM_TRANSPORTS_TLS_TICKETS_H

#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>

#include "transports/tls/failure.h"
#include <tram/tls.h>

struct tls_ticket_key {
    unsigned char name[16];
    unsigned char cipher[32];
    unsigned char mac[32];
};
_Static_assert(sizeof(struct tls_ticket_key) == TRAM_TLS_TICKET_KEY_SIZE, "as users give them");

struct tls_ticket_table {
    unsigned generation; /* 0: no key yet */
    unsigned count;
    bool fixed; /* the user's: time does not change them */
    uint64_t made_ns;
    struct tls_ticket_key keys[TRAM_TLS_TICKET_KEYS]; /* the first makes tickets */
};

struct tls_tickets {
    _Atomic unsigned generation; /* the table's, to be read without the lock */
    pthread_mutex_t lock;
    struct tls_ticket_table table;
};

void tram__tls_tickets_init(struct tls_tickets *tickets);
void tram__tls_tickets_fini(struct tls_tickets *tickets);

/* A new first key. False: no random bytes, and nothing changed. */
bool tram__tls_tickets_rotate(struct tls_tickets *tickets);
void tram__tls_tickets_set(struct tls_tickets *tickets, const void *keys, unsigned count);

/* Makes the copy what the table is now, with a new key if the first is older than this. False as above. */
bool tram__tls_tickets_refresh(struct tls_tickets *tickets, struct tls_ticket_table *copy, uint64_t lifetime_ns);

/* For SSL_CTX_set_tlsext_ticket_key_evp_cb(), whose terms it speaks. */
int tram__tls_ticket_crypt(const struct tls_ticket_table *table, const EVP_CIPHER *cipher, unsigned char *name,
                           unsigned char *iv, EVP_CIPHER_CTX *cipher_context, EVP_MAC_CTX *mac_context, int encrypt);

#endif
