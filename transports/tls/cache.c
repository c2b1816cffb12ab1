#include "transports/tls/cache.h"

#include <openssl/err.h>
#include <string.h>

#include "core/base/memory.h"
#include "transports/tls/session.h"

#define GROUP 4u /* places that a session can stand in */

void tram__tls_cache_init(struct tls_cache *cache) {
    memset(cache, 0, sizeof *cache);
    pthread_mutex_init(&cache->lock, NULL);
    atomic_init(&cache->size, 0);
}

static void empty(struct tls_cached *place) {
    tram_buffer_release(place->session);
    *place = (struct tls_cached){0};
}

static void free_places(struct tls_cached *places, unsigned size) {
    for (unsigned i = 0; i < size; i++)
        empty(&places[i]);
    memory_put(&tram__memory_default, places, size * sizeof *places);
}

void tram__tls_cache_fini(struct tls_cache *cache) {
    free_places(cache->places, cache->size);
    pthread_mutex_destroy(&cache->lock);
}

bool tram__tls_cache_resize(struct tls_cache *cache, unsigned size) {
    struct tls_cached *places = NULL, *old;
    size = (size + GROUP - 1) / GROUP * GROUP;
    if (size == atomic_load_explicit(&cache->size, memory_order_relaxed))
        return true;
    if (size > 0 && !(places = tram__memory_get_zero(&tram__memory_default, size * sizeof *places)))
        return false;
    pthread_mutex_lock(&cache->lock);
    unsigned old_size = cache->size;
    old = cache->places;
    cache->places = places;
    atomic_store_explicit(&cache->size, size, memory_order_relaxed);
    pthread_mutex_unlock(&cache->lock);
    free_places(old, old_size);
    return true;
}

static bool remembers(const struct tls_cache *cache) {
    return atomic_load_explicit(&cache->size, memory_order_relaxed) != 0;
}

/* With the lock. */
static bool is_at(const struct tls_cached *place, const unsigned char *id, size_t id_size) {
    return place && place->session && place->id_size == id_size && memcmp(place->id, id, id_size) == 0;
}

/* With the lock: where a session with this id stands or, if there is none, is to. NULL: nowhere. */
static struct tls_cached *find_place(struct tls_cache *cache, const unsigned char *id, size_t id_size) {
    uint64_t hash = 0;
    unsigned groups = cache->size / GROUP;
    if (groups == 0 || id_size < sizeof hash || id_size > sizeof cache->places->id)
        return NULL;
    memcpy(&hash, id, sizeof hash); /* it is ours, and random; who makes up another finds nothing */
    struct tls_cached *group = &cache->places[hash % groups * GROUP], *oldest = group;
    for (struct tls_cached *place = group; place < group + GROUP; place++) {
        if (is_at(place, id, id_size))
            return place;
        if (place->number < oldest->number)
            oldest = place;
    }
    return oldest;
}

void tram__tls_cache_put(struct tls_cache *cache, const SSL_SESSION *session) {
    unsigned size;
    const unsigned char *id = SSL_SESSION_get_id(session, &size);
    tram_buffer *bytes, *left;
    if (!remembers(cache) || tram__tls_session_to_buffer(session, &bytes) != 0)
        return;
    left = bytes;
    pthread_mutex_lock(&cache->lock);
    struct tls_cached *place = find_place(cache, id, size);
    if (place) {
        left = place->session;
        *place = (struct tls_cached){.id_size = size, .number = ++cache->number, .session = bytes};
        memcpy(place->id, id, size);
    }
    pthread_mutex_unlock(&cache->lock);
    tram_buffer_release(left);
}

SSL_SESSION *tram__tls_cache_get(struct tls_cache *cache, const unsigned char *id, size_t id_size) {
    tram_buffer *bytes = NULL;
    if (!remembers(cache))
        return NULL;
    pthread_mutex_lock(&cache->lock);
    const struct tls_cached *place = find_place(cache, id, id_size);
    if (is_at(place, id, id_size))
        bytes = tram_buffer_hold(place->session);
    pthread_mutex_unlock(&cache->lock);
    if (!bytes)
        return NULL;
    const unsigned char *data = tram_buffer_data(bytes);
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &data, (long)tram_buffer_size(bytes));
    tram_buffer_release(bytes);
    if (!session)
        ERR_clear_error(); /* out of memory: a full handshake */
    return session;
}

void tram__tls_cache_remove(struct tls_cache *cache, const SSL_SESSION *session) {
    unsigned size;
    const unsigned char *id = SSL_SESSION_get_id(session, &size);
    tram_buffer *gone = NULL;
    pthread_mutex_lock(&cache->lock);
    struct tls_cached *place = find_place(cache, id, size);
    if (is_at(place, id, size)) {
        gone = place->session;
        *place = (struct tls_cached){0};
    }
    pthread_mutex_unlock(&cache->lock);
    tram_buffer_release(gone);
}
