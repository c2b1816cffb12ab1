#include "support/tls/visit.h"

#include <poll.h>

#include "support/tls/ends.h"
#include "transports/limits/sources.h"
#include "transports/server/types.h"

#define PATIENCE_MS 20000

static void drive(struct visit *visit, bool (*condition)(struct visit *visit, void *arg), void *arg) {
    int idle_ms = 0;
    while (!condition(visit, arg)) {
        uint64_t timeout_ns;
        struct pollfd poll_fd = {.fd = tram_loop_backend_fd(visit->loop), .events = POLLIN};
        assert_int_equal(tram_loop_prepare(visit->loop, &timeout_ns), 0);
        idle_ms = timeout_ns == 0 || poll(&poll_fd, 1, 5) > 0 ? 0 : idle_ms + 5;
        if (idle_ms > PATIENCE_MS)
            fail_msg("%s: something waits for ever: %u made, %u lost, %u protocols, %u released", visit->where,
                     visit->tally.made, visit->tally.lost, visit->tally.protocols, visit->tally.released);
        assert_true(tram_loop_dispatch(visit->loop) >= 0);
    }
}

static bool future_done(struct visit *visit, void *arg) {
    (void)visit;
    return tram_future_done(arg);
}

static int finish(struct visit *visit, int status, tram_future *future, void **ret_value) {
    if (status)
        return status;
    drive(visit, future_done, future);
    status = tram_future_result(future, ret_value);
    tram_future_release(future);
    return status;
}

static bool client_served(struct visit *visit, void *arg) {
    (void)arg;
    return !visit->tally.client || visit->tally.echoed;
}

static bool all_gone(struct visit *visit, void *arg) {
    (void)arg;
    return !visit->tally.client && tram_server_connection_count(visit->server) == 0;
}

static void connect_and_echo(struct visit *visit, uint16_t port) {
    char text[8];
    tram_future *future;
    snprintf(text, sizeof text, "%u", port);
    /* What fails may be the peer's goodbye. */
    const tram_connection_options options = {
        .tls = clients, .server_hostname = "localhost", .tls_shutdown_timeout_ns = 50000000};
    int status =
        tram_loop_create_connection(visit->loop, witness_client, &visit->tally, "127.0.0.1", text, &options, &future);
    if (finish(visit, status, future, NULL) == 0)
        drive(visit, client_served, NULL);
}

static void end_server(struct visit *visit) {
    if (visit->tally.end == WITNESS_STAYS)
        assert_int_equal(tram_server_close_clients(visit->server), 0);
    if (!all_gone(visit, NULL) && visit->tally.wrong == 0)
        drive(visit, all_gone, NULL);
    if (all_gone(visit, NULL)) { /* however a handshake ended, it takes no place any more */
        assert_int_equal(tram__sources_count(visit->server->limits->handshakes), 0);
        assert_int_equal(tram__sources_count(visit->server->limits->sources), 0);
    }
    assert_int_equal(tram_server_close(visit->server), 0);
    tram_server_release(visit->server);
}

void visit_open(struct visit *visit, const tram_loop_options *options) {
    tram_future *future;
    void *server = NULL;
    const tram_server_limits limits = {.max_per_source = 100, .max_handshakes_per_source = 50};
    const tram_server_options serving = {.tls = servers, .tls_shutdown_timeout_ns = 50000000, .limits = &limits};
    assert_int_equal(tram_loop_new(options, &visit->loop), 0);
    int status =
        tram_loop_create_server(visit->loop, witness_server, &visit->tally, "127.0.0.1", "0", &serving, &future);
    assert_int_equal(finish(visit, status, future, &server), 0);
    visit->server = server;
}

void visit_play(struct visit *visit) {
    connect_and_echo(visit, server_port(visit->server));
    end_server(visit);
}

void visit_close(struct visit *visit) {
    assert_int_equal(tram_loop_free(visit->loop), 0);
}
