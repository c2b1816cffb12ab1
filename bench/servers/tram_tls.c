/*
 * tram: the echo of tram.c behind TLS, on a runtime of one worker.
 *
 *     tram_tls CHAIN KEY
 */
#include <tram/tls.h>

#include "tram_echo.h"

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: tram_tls CHAIN KEY\n");
        return 2;
    }
    tram_tls_certificate certificate = {.chain.file = argv[1], .key.file = argv[2]};
    tram_tls_options tls = {.certificates = &certificate, .certificate_count = 1};
    tram_tls_config *config;
    check(tram_tls_config_new(&tls, &config, NULL), "certificate");
    serve_by_workers((tram_runtime_options){.workers = 1}, "0", &(tram_server_options){.tls = config}, NULL);
    tram_tls_config_release(config);
    return 0;
}
