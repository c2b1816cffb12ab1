/*
 * What a config says at one time: the options, checked and copied, and what was read from files. It never changes and
 * is counted; any thread may read it. A loop makes its SSL_CTX from it (context.h).
 */
#ifndef TRAM_TRANSPORTS_TLS_DESCRIPTION_H
#define TRAM_TRANSPORTS_TLS_DESCRIPTION_H

#include <stdatomic.h>

#include "transports/tls/source.h"

struct tls_identity {
    struct tls_objects chain; /* our own certificate is the first */
    struct tls_bytes key;
    struct tls_bytes ocsp_response;
};

struct tls_description {
    _Atomic unsigned references;
    struct tls_identity *identities;
    size_t identity_count;
    struct tls_objects ca;
    struct tls_objects crls;
    struct tls_bytes alpn; /* as it goes over the wire */
    /* Texts, NULL or our own. */
    char *ca_directory;
    char *ciphers;
    char *ciphersuites;
    char *groups;
    int min_version;
    int max_version;
    int tickets;
    unsigned session_cache;
    tram_tls_verify verify;
    tram_tls_ocsp ocsp;
    bool has_ca;    /* somebody in particular is trusted */
    bool system_ca; /* asked for: a client without any other has it too */
    bool crl_check_chain;
    bool no_hostname_check;
    bool alpn_optional;
    bool half_close;
    bool own_library_context;
    tram_tls_server_name_function server_name;
    void *server_name_arg;
    uint64_t ticket_lifetime_ns;
    uint64_t handshake_timeout_ns;
    uint64_t shutdown_timeout_ns;
    int keylog_fd; /* -1: none */
    /* A session is resumed only where the same are trusted: a digest of that. */
    unsigned char trust[32];
};

int tram__tls_description_new(const tram_tls_options *options, struct tls_description **ret_description,
                              struct tls_failure *failure);
/* Is it fit for a client or a server? TRAM_EVALUE with the option. */
int tram__tls_description_serve(const struct tls_description *description, bool server, struct tls_failure *failure);

struct tls_description *tram__tls_description_hold(struct tls_description *description);
void tram__tls_description_release(struct tls_description *description);

#endif
