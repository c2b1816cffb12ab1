#include "transports/base/secured.h"

#include <string.h>

#include "core/base/memory.h"
#include "transports/base/types.h"

static const struct tls_provider *provider_of(tram_tls_config *config) {
    return *(const struct tls_provider *const *)(const void *)config;
}

static struct tls_use use_of(const struct tls_wishes *wishes) {
    return (struct tls_use){
        .config = wishes->config,
        .server = wishes->server,
        .server_hostname = (char *)(uintptr_t)wishes->server_hostname,
        .session = wishes->session,
        .handshake_timeout_ns = wishes->handshake_timeout_ns,
        .shutdown_timeout_ns = wishes->shutdown_timeout_ns,
    };
}

const char *tram__tls_wrong_option(const struct tls_wishes *wishes) {
    if (wishes->config) {
        struct tls_use use = use_of(wishes);
        if (wishes->needs_hostname && !wishes->server_hostname)
            return "server_hostname";
        return provider_of(wishes->config)->wrong_option(&use);
    }
    if (wishes->server_hostname)
        return "server_hostname";
    if (wishes->handshake_timeout_ns)
        return "tls_handshake_timeout_ns";
    if (wishes->shutdown_timeout_ns)
        return "tls_shutdown_timeout_ns";
    return wishes->session ? "tls_session" : NULL;
}

int tram__tls_use_open(const struct tls_wishes *wishes, struct tls_use *ret_use) {
    *ret_use = (struct tls_use){0};
    if (!wishes->config)
        return 0;
    struct tls_use use = use_of(wishes);
    if (use.server_hostname) {
        size_t size = strlen(use.server_hostname) + 1;
        char *copy = memory_get(&tram__memory_default, size);
        if (!copy)
            return -ENOMEM;
        use.server_hostname = memcpy(copy, use.server_hostname, size);
    }
    provider_of(use.config)->hold(use.config);
    if (use.session)
        tram_buffer_hold(use.session);
    *ret_use = use;
    return 0;
}

void tram__tls_use_close(struct tls_use *use) {
    if (!use->config)
        return;
    provider_of(use->config)->release(use->config);
    tram_buffer_release(use->session);
    if (use->server_hostname)
        memory_put(&tram__memory_default, use->server_hostname, strlen(use->server_hostname) + 1);
    *use = (struct tls_use){0};
}

/* A record is up to 16 KiB: marks that a few of them would fill make writers stumble (S-20). */
static const struct write_limits secured_limits = {.high = TRAM_TLS_WRITE_HIGH, .low = TRAM_TLS_WRITE_LOW};

int tram__tls_use_push(const struct tls_use *use, tram_transport *transport, struct tls_watcher *watcher,
                       const void *ahead, size_t ahead_size, struct tls_problem *problem) {
    struct layer *layer;
    tram_loop *loop = tram_transport_get_loop(transport);
    int code = provider_of(use->config)->make(use, loop, watcher, &layer, problem);
    if (code != 0)
        return code;
    code = tram__transport_push_layer(transport, layer, ahead, ahead_size);
    if (code == 0) {
        if (transport->limits == &tram__write_limits)
            transport->limits = &secured_limits;
        return 0;
    }
    problem->option = NULL;
    problem->text[0] = '\0';
    layer->transport = NULL;
    layer->kind->free(layer);
    return code;
}
