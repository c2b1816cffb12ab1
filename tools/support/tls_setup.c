#include "support/tls_setup.h"

#include <errno.h>

#ifdef TRAM_HAS_TLS
#include <tram/tls.h>

const char *const tls_version_choices[] = {"1.2", "1.3", NULL};
static const tram_tls_version versions[] = {TRAM_TLS_1_2, TRAM_TLS_1_3};

static int complain_of(const program_info *program, int code, const tram_error *error) {
    if (code < 0) {
        complain(program, "TLS: %s", tram_error_describe(error, code));
    }
    return code;
}

int tls_server_configure(const program_info *program, const tls_server_setup *setup, tram_tls_config **config) {
    const char *const names[] = {setup->alpn, NULL};
    const tram_tls_certificate certificate = {.chain.file = setup->certificate, .key.file = setup->key};
    const tram_tls_options options = {
        .certificates = &certificate,
        .certificate_count = 1,
        .ca.file = setup->client_ca,
        .min_version = versions[setup->min_version],
        .alpn = setup->alpn != NULL ? names : NULL,
    };
    tram_error error = {0};
    int code = *config != NULL ? tram_tls_config_reload(*config, &options, &error)
                               : tram_tls_config_new(&options, config, &error);
    return complain_of(program, code, &error);
}

int tls_client_configure(const program_info *program, const tls_client_setup *setup, tram_tls_config **config) {
    const char *const names[] = {setup->alpn, NULL};
    const tram_tls_certificate certificate = {.chain.file = setup->certificate, .key.file = setup->key};
    const tram_tls_options options = {
        .certificates = &certificate,
        .certificate_count = setup->certificate != NULL,
        .ca.file = setup->ca,
        .verify = setup->insecure ? TRAM_TLS_VERIFY_NONE : TRAM_TLS_VERIFY_DEFAULT,
        .alpn = setup->alpn != NULL ? names : NULL,
    };
    tram_error error = {0};
    return complain_of(program, tram_tls_config_new(&options, config, &error), &error);
}

void tls_config_release(tram_tls_config *config) {
    tram_tls_config_release(config);
}

tram_buffer *tls_session_of(tram_transport *transport) {
    tram_buffer *session = NULL;
    return tram_tls_session(transport, &session) == 0 ? session : NULL;
}

#else

const char *const tls_version_choices[] = {"1.2", "1.3", NULL};

static int complain_of_none(const program_info *program) {
    complain(program, "this build has no TLS (libtram-tls)");
    return -ENOTSUP;
}

int tls_server_configure(const program_info *program, const tls_server_setup *setup, tram_tls_config **config) {
    (void)setup;
    (void)config;
    return complain_of_none(program);
}

int tls_client_configure(const program_info *program, const tls_client_setup *setup, tram_tls_config **config) {
    (void)setup;
    (void)config;
    return complain_of_none(program);
}

void tls_config_release(tram_tls_config *config) {
    (void)config;
}

tram_buffer *tls_session_of(tram_transport *transport) {
    (void)transport;
    return NULL;
}

#endif
