/* How libtram, which knows no OpenSSL, comes to layers of TLS: by the table that is first in every config. */
#include <string.h>

#include "core/base/memory.h"
#include "transports/base/entering.h"
#include "transports/tls/layer.h"
#include "transports/tls/name.h"

static void provider_hold(tram_tls_config *config) {
    tram_tls_config_hold(config);
}

static bool is_ascii(const char *text) {
    for (; text && *text; text++)
        if ((unsigned char)*text > 127)
            return false;
    return true;
}

static const char *wrong_option(const struct tls_use *use) {
    struct tls_failure failure;
    struct tls_name name;
    unsigned generation;
    if (!use->server && !is_ascii(use->server_hostname))
        return "server_hostname, which is not ASCII: give its A-labels (xn--...)";
    if (!use->server && tram__tls_name_parse(use->server_hostname, &name, &failure) != 0)
        return failure.option;
    struct tls_description *description = tram__tls_config_describe(use->config, &generation);
    int code = tram__tls_description_serve(description, use->server, &failure);
    tram__tls_description_release(description);
    return code != 0 ? failure.option : NULL;
}

static int make(const struct tls_use *use, tram_loop *loop, struct tls_watcher *watcher, struct layer **ret_layer,
                struct tls_problem *problem) {
    struct tls_failure failure = {.code = -ENOMEM};
    struct tls_layer *tls = tram__memory_get_zero(&tram__memory_default, sizeof *tls);
    const struct tls_engine_options options = {
        .config = use->config,
        .server = use->server,
        .server_hostname = use->server_hostname,
        .session = use->session,
    };
    if (!tls || tram__tls_engine_start(&tls->engine, loop, &tram__tls_layer_below, &options, &failure) != 0) {
        memory_put(&tram__memory_default, tls, sizeof *tls);
        memcpy(problem->text, failure.text, sizeof problem->text);
        problem->option = failure.option;
        return failure.code;
    }
    const struct tls_description *description = tls->engine.context->description;
    tls->layer.kind = &tram__tls_layer_kind;
    tls->layer.start_timeout_ns =
        use->handshake_timeout_ns ? use->handshake_timeout_ns : description->handshake_timeout_ns;
    tls->layer.shutdown_timeout_ns =
        use->shutdown_timeout_ns ? use->shutdown_timeout_ns : description->shutdown_timeout_ns;
    tls->watcher = watcher;
    *ret_layer = &tls->layer;
    return 0;
}

static const struct tls_provider provider = {
    .hold = provider_hold,
    .release = tram_tls_config_release,
    .wrong_option = wrong_option,
    .make = make,
};

int tram_tls_config_new(const tram_tls_options *options, tram_tls_config **ret_config, tram_error *ret_error) {
    return tram__tls_config_create(options, &provider, ret_config, ret_error);
}

int tram_tls_session(tram_transport *transport, tram_buffer **ret_session) {
    int status = enter(transport, __func__);
    if (status)
        return status;
    struct tls_layer *tls = tram__tls_layer_of(transport);
    *ret_session = NULL;
    if (!tls)
        return -ENOTSUP;
    return tls->engine.established && !tls->engine.server ? tram__tls_engine_session(&tls->engine, ret_session) : 0;
}
