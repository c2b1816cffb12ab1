#include "transports/tls/config.h"

#include <openssl/ssl.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/base/memory.h"
#include "transports/tls/build.h"

/* For what is given to users, whose texts live until the thread's next call. */
static int show(const struct tls_failure *failure, tram_error *ret_error) {
    static _Thread_local struct tls_failure shown;
    if (failure->code == TRAM_EVALUE && failure->option)
        (void)tram__invalid(failure->option);
    if (!ret_error)
        return failure->code;
    shown = *failure;
    *ret_error =
        (tram_error){.code = shown.code, .operation = "tls_config", .detail = shown.text, .option = shown.option};
    return failure->code;
}

/* What OpenSSL would do when the process ends is left to the host. */
static bool start_openssl(void) {
    return OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL) == 1;
}

/* A description of which an SSL_CTX can be made. */
static int describe(const tram_tls_options *options, struct tls_description **ret_description,
                    struct tls_failure *failure) {
    if (!start_openssl())
        return tram__tls_fail_openssl(failure, TRAM_ETLS, NULL, "OpenSSL does not start");
    int code = tram__tls_description_new(options, ret_description, failure);
    if (code != 0)
        return code;
    SSL_CTX *trial = tram__tls_build(*ret_description, NULL, failure);
    if (!trial) {
        tram__tls_description_release(*ret_description);
        return failure->code;
    }
    SSL_CTX_free(trial);
    return 0;
}

int tram__tls_config_create(const tram_tls_options *options, const struct tls_provider *provider,
                            tram_tls_config **ret_config, tram_error *ret_error) {
    struct tls_failure failure;
    struct tls_description *description;
    if (describe(options, &description, &failure) != 0)
        return show(&failure, ret_error);
    tram_tls_config *config = tram__memory_get_zero(&tram__memory_default, sizeof *config);
    if (!config) {
        tram__tls_description_release(description);
        tram__tls_fail(&failure, -ENOMEM, NULL, "out of memory");
        return show(&failure, ret_error);
    }
    config->provider = provider;
    atomic_init(&config->users, 1);
    atomic_init(&config->references, 1);
    atomic_init(&config->generation, 1);
    pthread_mutex_init(&config->lock, NULL);
    config->description = description;
    tram__tls_tickets_init(&config->tickets);
    tram__tls_cache_init(&config->cache);
    if (!tram__tls_cache_resize(&config->cache, description->session_cache)) {
        tram__tls_config_drop(config);
        tram__tls_fail(&failure, -ENOMEM, NULL, "out of memory");
        return show(&failure, ret_error);
    }
    *ret_config = config;
    return 0;
}

int tram_tls_config_reload(tram_tls_config *config, const tram_tls_options *options, tram_error *ret_error) {
    struct tls_failure failure;
    struct tls_description *description;
    if (describe(options, &description, &failure) != 0)
        return show(&failure, ret_error);
    if (!tram__tls_cache_resize(&config->cache, description->session_cache)) {
        tram__tls_description_release(description);
        tram__tls_fail(&failure, -ENOMEM, NULL, "out of memory");
        return show(&failure, ret_error);
    }
    pthread_mutex_lock(&config->lock);
    struct tls_description *old = config->description;
    config->description = description;
    atomic_fetch_add_explicit(&config->generation, 1, memory_order_release);
    pthread_mutex_unlock(&config->lock);
    tram__tls_description_release(old);
    return 0;
}

struct tls_description *tram__tls_config_describe(tram_tls_config *config, unsigned *ret_generation) {
    pthread_mutex_lock(&config->lock);
    struct tls_description *description = tram__tls_description_hold(config->description);
    *ret_generation = tls_config_generation(config);
    pthread_mutex_unlock(&config->lock);
    return description;
}

/* ---- Counts ---- */

void tram__tls_config_keep(tram_tls_config *config) {
    atomic_fetch_add_explicit(&config->references, 1, memory_order_relaxed);
}

void tram__tls_config_drop(tram_tls_config *config) {
    if (atomic_fetch_sub_explicit(&config->references, 1, memory_order_acq_rel) != 1)
        return;
    tram__tls_description_release(config->description);
    tram__tls_tickets_fini(&config->tickets);
    tram__tls_cache_fini(&config->cache);
    pthread_mutex_destroy(&config->lock);
    memory_put(&tram__memory_default, config, sizeof *config);
}

tram_tls_config *tram_tls_config_hold(tram_tls_config *config) {
    atomic_fetch_add_explicit(&config->users, 1, memory_order_relaxed);
    return config;
}

void tram_tls_config_release(tram_tls_config *config) {
    if (config && atomic_fetch_sub_explicit(&config->users, 1, memory_order_acq_rel) == 1)
        tram__tls_config_drop(config);
}

/* ---- Keys of tickets ---- */

int tram_tls_config_set_ticket_keys(tram_tls_config *config, const void *keys, size_t count) {
    if (!keys || count == 0 || count > TRAM_TLS_TICKET_KEYS)
        return tram__invalid(keys ? "count" : "keys");
    tram__tls_tickets_set(&config->tickets, keys, (unsigned)count);
    return 0;
}

int tram_tls_config_rotate_ticket_keys(tram_tls_config *config) {
    return tram__tls_tickets_rotate(&config->tickets) ? 0 : TRAM_ETLS;
}
