/* Connections with TLS, both ends of which are in one loop. */
#ifndef TRAM_TESTS_SUPPORT_TLS_ENDS_H
#define TRAM_TESTS_SUPPORT_TLS_ENDS_H

#include "support/support.h"
#include "support/tls/certificates.h"

/* Of the group, between tls_setup and tls_teardown: a CA, a server's config and that of a client who trusts it. */
extern struct authority authority;
extern tram_tls_config *servers, *clients;
int tls_setup(void **state);
int tls_teardown(void **state);

struct ends {
    struct world *world;
    tram_server *server;
    struct recorder *client, *peer; /* the client's and the server's */
    tram_future *connecting;
    int code; /* of the connecting */
    bool done;
};

/* The protocols of the next connection, and who gives them. */
extern struct recorder *next_client, *next_peer;
int client_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol);
int peer_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol);

tram_server *serve_with(struct world *world, const tram_server_options *options);
tram_server *serve(struct world *world, tram_tls_config *config);
uint16_t server_port(const tram_server *server);

/* Recorders "c" and "s", and a server. */
void ends_prepare(struct world *world, struct ends *ends, tram_tls_config *server);

/* Begins to connect, whose end is traced; `options` may leave out what is usual here. */
void ends_begin(struct world *world, struct ends *ends, const tram_connection_options *options);

/* All of it, until both are connected; the trace is empty. */
void ends_open_with(struct world *world, struct ends *ends, tram_tls_config *server,
                    const tram_connection_options *options);
void ends_open(struct world *world, struct ends *ends);

/* Both connections are over, the server closed; nothing is left in OpenSSL's queue. */
void ends_close(struct ends *ends);

void run_until_received(struct recorder *recorder, size_t size);

/* A bool of the extra info. */
bool flag_of(tram_transport *transport, const char *name);

/* ---- start_tls ---- */

/* A TCP connection without TLS, the client's end first. */
struct upgrade {
    struct world *world;
    struct recorder *client, *server;
    tram_transport *ends[2]; /* held */
    tram_future *starting[2];
};

void upgrade_open(struct world *world, struct upgrade *upgrade);
void hold_ends(struct upgrade *upgrade);

/* start_tls of one end; `ahead` may be NULL. */
int upgrade_start(struct upgrade *upgrade, int end, tram_protocol *protocol, const char *ahead);

/* Aborts what is open. */
void upgrade_close(struct upgrade *upgrade);

#endif
