/* TLS of a program by its options. In a build without TLS each of these says so, and fails. */
#ifndef TRAM_TOOLS_TLS_SETUP_H
#define TRAM_TOOLS_TLS_SETUP_H

#include <tram/tram.h>

#include "support/arguments.h"

/* The choices of --tls-min. */
extern const char *const tls_version_choices[];

typedef struct tls_server_setup {
    const char *certificate; /* a file; NULL: no TLS */
    const char *key;         /* NULL: in the same file */
    const char *client_ca;   /* clients need a certificate of it; NULL: none */
    unsigned min_version;    /* index into tls_version_choices */
    const char *alpn;        /* NULL: none */
} tls_server_setup;

/* Makes *config, or, where there is one, gives it new certificates. What is wrong is printed. */
int tls_server_configure(const program_info *program, const tls_server_setup *setup, tram_tls_config **config);

typedef struct tls_client_setup {
    const char *ca;          /* a file; NULL: the system's */
    bool insecure;           /* any certificate will do */
    const char *certificate; /* of the client, a file; NULL: none */
    const char *key;         /* NULL: in the same file */
    const char *alpn;
} tls_client_setup;

int tls_client_configure(const program_info *program, const tls_client_setup *setup, tram_tls_config **config);

void tls_config_release(tram_tls_config *config);

/* A session to resume, or NULL. */
tram_buffer *tls_session_of(tram_transport *transport);

#endif
