#include "transports/tls/tickets.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <string.h>

#include "core/base/time.h"

void tram__tls_tickets_init(struct tls_tickets *tickets) {
    atomic_init(&tickets->generation, 0);
    pthread_mutex_init(&tickets->lock, NULL);
    memset(&tickets->table, 0, sizeof tickets->table);
}

void tram__tls_tickets_fini(struct tls_tickets *tickets) {
    pthread_mutex_destroy(&tickets->lock);
    OPENSSL_cleanse(&tickets->table, sizeof tickets->table);
}

/* With the lock: the table is another one now. 0 stands for none. */
static void publish(struct tls_tickets *tickets) {
    struct tls_ticket_table *table = &tickets->table;
    table->made_ns = time_now();
    if (++table->generation == 0)
        table->generation = 1;
    atomic_store_explicit(&tickets->generation, table->generation, memory_order_release);
}

/* With the lock. */
static bool rotate(struct tls_tickets *tickets) {
    struct tls_ticket_table *table = &tickets->table;
    struct tls_ticket_key key;
    if (RAND_priv_bytes((unsigned char *)&key, sizeof key) != 1)
        return false;
    memmove(table->keys + 1, table->keys, sizeof table->keys - sizeof *table->keys);
    table->keys[0] = key;
    OPENSSL_cleanse(&key, sizeof key);
    if (table->count < TRAM_TLS_TICKET_KEYS)
        table->count++;
    table->fixed = false;
    publish(tickets);
    return true;
}

bool tram__tls_tickets_rotate(struct tls_tickets *tickets) {
    pthread_mutex_lock(&tickets->lock);
    bool good = rotate(tickets);
    pthread_mutex_unlock(&tickets->lock);
    return good;
}

void tram__tls_tickets_set(struct tls_tickets *tickets, const void *keys, unsigned count) {
    pthread_mutex_lock(&tickets->lock);
    struct tls_ticket_table *table = &tickets->table;
    OPENSSL_cleanse(table->keys, sizeof table->keys);
    memcpy(table->keys, keys, count * sizeof *table->keys);
    table->count = count;
    table->fixed = true;
    publish(tickets);
    pthread_mutex_unlock(&tickets->lock);
}

bool tram__tls_tickets_refresh(struct tls_tickets *tickets, struct tls_ticket_table *copy, uint64_t lifetime_ns) {
    bool old = copy->generation == 0 || (!copy->fixed && time_now() - copy->made_ns >= lifetime_ns);
    if (!old && copy->generation == atomic_load_explicit(&tickets->generation, memory_order_acquire))
        return true;
    pthread_mutex_lock(&tickets->lock);
    struct tls_ticket_table *table = &tickets->table;
    /* Another loop may have made a new key meanwhile. Without random bytes the old one goes on. */
    if (table->count == 0 || (!table->fixed && time_now() - table->made_ns >= lifetime_ns))
        (void)rotate(tickets);
    *copy = *table;
    pthread_mutex_unlock(&tickets->lock);
    return copy->count > 0;
}

static bool set_mac_key(EVP_MAC_CTX *context, const struct tls_ticket_key *key) {
    static char digest[] = "SHA256";
    unsigned char copy[sizeof key->mac];
    memcpy(copy, key->mac, sizeof copy);
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, copy, sizeof copy),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    bool good = EVP_MAC_CTX_set_params(context, parameters);
    OPENSSL_cleanse(copy, sizeof copy);
    return good;
}

static int encrypt_with(const struct tls_ticket_key *key, const EVP_CIPHER *cipher, unsigned char *name,
                        unsigned char *iv, EVP_CIPHER_CTX *cipher_context, EVP_MAC_CTX *mac_context) {
    memcpy(name, key->name, sizeof key->name);
    if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(cipher)) != 1 ||
        !EVP_EncryptInit_ex(cipher_context, cipher, NULL, key->cipher, iv) || !set_mac_key(mac_context, key))
        return -1;
    return 1;
}

int tram__tls_ticket_crypt(const struct tls_ticket_table *table, const EVP_CIPHER *cipher, unsigned char *name,
                           unsigned char *iv, EVP_CIPHER_CTX *cipher_context, EVP_MAC_CTX *mac_context, int encrypt) {
    if (encrypt)
        return encrypt_with(&table->keys[0], cipher, name, iv, cipher_context, mac_context);
    for (unsigned i = 0; i < table->count; i++) {
        const struct tls_ticket_key *key = &table->keys[i];
        if (memcmp(name, key->name, sizeof key->name) != 0)
            continue;
        if (!set_mac_key(mac_context, key) || !EVP_DecryptInit_ex(cipher_context, cipher, NULL, key->cipher, iv))
            return -1;
        return i == 0 ? 1 : 2; /* 2: the client gets one of the new key */
    }
    return 0; /* not ours: a full handshake */
}
