/*
 * tram: the echo of tram.c behind TLS, on a runtime of one worker (or N, each on a CPU of its own; with a port: one
 * that other processes listen to as well).
 *
 *     tram_tls [--workers N] [--own-library-context] CHAIN KEY [PORT]
 */
#include <string.h>
#include <tram/tls.h>

#include "tram_echo.h"

int main(int argc, char **argv) {
    tram_runtime_options options = {.workers = 1};
    tram_tls_options tls = {.certificate_count = 1};
    char **word = argv + 1;
    if (argc > 2 && strcmp(*word, "--workers") == 0) {
        options.workers = (unsigned)atoi(word[1]);
        options.pin = true;
        word += 2;
    }
    if (*word != NULL && strcmp(*word, "--own-library-context") == 0) {
        tls.own_library_context = true;
        word++;
    }
    ptrdiff_t left = argv + argc - word;
    if (options.workers == 0 || left < 2 || left > 3) {
        fprintf(stderr, "usage: tram_tls [--workers N] [--own-library-context] CHAIN KEY [PORT]\n");
        return 2;
    }
    tram_tls_certificate certificate = {.chain.file = word[0], .key.file = word[1]};
    tls.certificates = &certificate;
    tram_tls_config *config;
    check(tram_tls_config_new(&tls, &config, NULL), "certificate");
    serve_by_workers(options, left == 3 ? word[2] : "0", &(tram_server_options){.tls = config, .reuse_port = left == 3},
                     NULL);
    tram_tls_config_release(config);
    return 0;
}
