#include "support/tls/ends.h"

#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#include "support/stream.h"

struct authority authority;
tram_tls_config *servers, *clients;

int tls_setup(void **state) {
    (void)state;
    authority_make(&authority);
    servers = server_config(authority.server);
    clients = client_config(authority.ca);
    return 0;
}

int tls_teardown(void **state) {
    (void)state;
    tram_tls_config_release(servers);
    tram_tls_config_release(clients);
    authority_free(&authority);
    return 0;
}

/* ---- Both ends in one loop ---- */

struct recorder *next_client, *next_peer;

int client_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = &next_client->base;
    return 0;
}

int peer_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = &next_peer->base;
    return 0;
}

uint16_t server_port(const tram_server *server) {
    tram_socket_address address;
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    return (uint16_t)tram_socket_address_port(&address);
}

tram_server *serve_with(struct world *world, const tram_server_options *options) {
    tram_future *future;
    void *server = NULL;
    assert_int_equal(tram_loop_create_server(world->loop, peer_factory, NULL, "127.0.0.1", "0", options, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    return server;
}

tram_server *serve(struct world *world, tram_tls_config *config) {
    return serve_with(world, &(tram_server_options){.tls = config});
}

static int note_done(tram_future *future, void *arg) {
    struct ends *ends = arg;
    ends->code = tram_future_result(future, NULL);
    ends->done = true;
    trace(ends->world, "%s", ends->code == 0 ? "connected" : tram_error_name(ends->code));
    return 0;
}

/* Begins to connect; `options` may leave out what is usual here. */
void ends_begin(struct world *world, struct ends *ends, const tram_connection_options *given) {
    char port[8];
    tram_connection_options options = *given;
    if (!options.tls)
        options.tls = clients;
    if (!options.server_hostname)
        options.server_hostname = "localhost";
    snprintf(port, sizeof port, "%u", server_port(ends->server));
    assert_int_equal(
        tram_loop_create_connection(world->loop, client_factory, NULL, "127.0.0.1", port, &options, &ends->connecting),
        0);
    assert_int_equal(tram_future_add_done_callback(ends->connecting, note_done, ends), 0);
}

void ends_prepare(struct world *world, struct ends *ends, tram_tls_config *server) {
    *ends = (struct ends){.world = world};
    ends->client = next_client = recorder_new(world, "c");
    ends->peer = next_peer = recorder_new(world, "s");
    ends->client->keep = ends->peer->keep = true;
    ends->server = serve(world, server);
}

void ends_open_with(struct world *world, struct ends *ends, tram_tls_config *server,
                    const tram_connection_options *options) {
    ends_prepare(world, ends, server);
    ends_begin(world, ends, options);
    run_until(world, &ends->done);
    if (ends->code != 0)
        fail_msg("%s", tram_error_describe(tram_future_error(ends->connecting), ends->code));
    run_until(world, &ends->peer->made);
    run_to_rest(world);
    world->trace[0] = '\0';
}

void ends_open(struct world *world, struct ends *ends) {
    ends_open_with(world, ends, servers, &(tram_connection_options){0});
}

/* Both connections are over, the server closed; nothing is left in OpenSSL's queue. */
void ends_close(struct ends *ends) {
    if (ends->client->base.transport)
        tram_transport_abort(ends->client->base.transport);
    if (ends->peer->base.transport)
        tram_transport_abort(ends->peer->base.transport);
    tram_future_release(ends->connecting);
    tram_server_close(ends->server);
    tram_server_release(ends->server);
    run_to_rest(ends->world);
    assert_int_equal(ERR_peek_error(), 0);
}

static bool has_received(void *arg) {
    const struct recorder *recorder = arg;
    return recorder->received >= (size_t)(uintptr_t)recorder->arg;
}

void run_until_received(struct recorder *recorder, size_t size) {
    recorder->arg = (void *)(uintptr_t)size;
    run_until_true(recorder->world, has_received, recorder);
}

bool flag_of(tram_transport *transport, const char *name) {
    const bool *flag = tram_transport_get_extra_info(transport, name, NULL);
    assert_non_null(flag);
    return *flag;
}

/* ---- start_tls ---- */

/* Both may end within the test. */
void hold_ends(struct upgrade *upgrade) {
    for (int end = 0; end < 2; end++)
        tram_transport_hold(upgrade->ends[end]);
    run_to_rest(upgrade->world);
}

void upgrade_open(struct world *world, struct upgrade *upgrade) {
    upgrade->world = world;
    upgrade->client = recorder_new(world, "c");
    upgrade->server = recorder_new(world, "s");
    upgrade->client->keep = upgrade->server->keep = true;
    int fds[2];
    tcp_pair(fds);
    upgrade->ends[0] = transport_new(world, fds[0], upgrade->client);
    upgrade->ends[1] = transport_new(world, fds[1], upgrade->server);
    hold_ends(upgrade);
    world->trace[0] = '\0';
}

int upgrade_start(struct upgrade *upgrade, int end, tram_protocol *protocol, const char *ahead) {
    const tram_start_tls_options options = {
        .tls = end == 0 ? clients : servers,
        .server_side = end == 1,
        .server_hostname = end == 0 ? "localhost" : NULL,
        .ahead = ahead,
        .ahead_size = ahead ? strlen(ahead) : 0,
    };
    return tram_loop_start_tls(upgrade->world->loop, upgrade->ends[end], protocol, &options, &upgrade->starting[end]);
}

void upgrade_close(struct upgrade *upgrade) {
    for (int end = 0; end < 2; end++) {
        tram_transport_abort(upgrade->ends[end]);
        tram_transport_release(upgrade->ends[end]);
        tram_future_release(upgrade->starting[end]);
    }
    run_to_rest(upgrade->world);
    assert_int_equal(ERR_peek_error(), 0);
}
