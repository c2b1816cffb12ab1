/* TLS connections as users see them: the rules of group S in docs/rules.md, over TCP, Unix sockets and pairs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/stream.h"
#include "support/support.h"
#include "support/tls/ends.h"
#include <tram/pair.h>
#include <tram/tls.h>

/* ---- Beginning ---- */

static void test_S_1_S_2_made_comes_after_the_handshake_then_the_creator_then_data(void **state) {
    struct ends ends;
    ends_prepare(*state, &ends, servers);
    ends_begin(*state, &ends, &(tram_connection_options){0});
    ends.peer->on = NULL;
    run_until(*state, &ends.done);
    run_until(*state, &ends.peer->made);
    assert_int_equal(tram_transport_write(ends.peer->base.transport, "data", 4), 0);
    run_until_received(ends.client, 4);
    struct world *world = *state;
    const char *made = strstr(world->trace, "c.made"), *connected = strstr(world->trace, "connected"),
               *data = strstr(world->trace, "c.data:4");
    assert_true(made && connected && data && made < connected && connected < data);
    ends_close(&ends);
}

static int write_at_once(struct recorder *recorder, const char *event) {
    return strcmp(event, "made") == 0 ? tram_transport_write(recorder->base.transport, "first", 5) : 0;
}

static void test_S_10_data_behind_the_handshake_is_delivered(void **state) {
    struct ends ends;
    ends_prepare(*state, &ends, servers);
    ends.client->on = ends.peer->on = write_at_once;
    ends_begin(*state, &ends, &(tram_connection_options){0});
    run_until_received(ends.client, 5);
    run_until_received(ends.peer, 5);
    assert_memory_equal(ends.client->bytes, "first", 5);
    assert_memory_equal(ends.peer->bytes, "first", 5);
    ends_close(&ends);
}

static void test_S_3_a_handshake_that_takes_too_long_is_aborted(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_stats before, after;
    ends_prepare(world, &ends, servers);
    int silent_port_fd;
    uint16_t port;
    silent_port_fd = tcp_listener(1, &port);
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    const tram_connection_options options = {
        .tls = clients, .server_hostname = "localhost", .tls_handshake_timeout_ns = 20000000};
    assert_int_equal(
        tram_loop_create_connection(world->loop, client_factory, NULL, "127.0.0.1", text, &options, &ends.connecting),
        0);
    tram_loop_stats(world->loop, &before);
    assert_int_equal(tram_loop_run_until_complete(world->loop, ends.connecting), -ECONNABORTED);
    run_until_traced(world, "c.released");
    assert_trace(world, "c.released");
    tram_loop_stats(world->loop, &after);
    assert_int_equal(after.tls_expired - before.tls_expired, 1);
    assert_int_equal(after.tls_failed - before.tls_failed, 0);
    close(silent_port_fd);
    ends_close(&ends);
}

static void test_S_4_an_end_within_the_handshake_is_a_reset(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_prepare(world, &ends, servers);
    uint16_t port;
    int listener = tcp_listener(1, &port);
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    const tram_connection_options options = {.tls = clients, .server_hostname = "localhost"};
    assert_int_equal(
        tram_loop_create_connection(world->loop, client_factory, NULL, "127.0.0.1", text, &options, &ends.connecting),
        0);
    run_to_rest(world);
    int accepted = accept(listener, NULL, NULL);
    assert_true(accepted >= 0);
    char hello[4096];
    receive_exactly(world, accepted, hello, 5);
    close_with_reset(accepted);
    int code = tram_loop_run_until_complete(world->loop, ends.connecting);
    assert_int_equal(code, -ECONNRESET);
    run_until_traced(world, "c.released");
    assert_trace(world, "c.released");
    close(listener);
    ends_close(&ends);
}

static void test_S_4_S_5_a_refused_certificate_is_told_and_the_server_is_quiet(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_stats before, after;
    tram_loop_stats(world->loop, &before);
    ends_prepare(world, &ends, servers);
    ends_begin(world, &ends, &(tram_connection_options){.server_hostname = "elsewhere"});
    run_until(world, &ends.done);
    assert_int_equal(ends.code, TRAM_ETLS_CERTIFICATE);
    const tram_error *error = tram_future_error(ends.connecting);
    assert_string_equal(error->operation, "tls_handshake");
    assert_non_null(strstr(error->detail, "is not for \"elsewhere\""));
    run_until_traced(world, "s.released");
    assert_null(strstr(world->trace, "made"));
    assert_null(strstr(world->trace, "lost"));
    assert_int_equal(world->exceptions, 0);
    assert_int_equal(tram_server_connection_count(ends.server), 0);
    tram_loop_stats(world->loop, &after);
    assert_int_equal(after.tls_failed - before.tls_failed, 2); /* at either end */
    assert_int_equal(after.tls_handshakes - before.tls_handshakes, 0);
    ends_close(&ends);
}

static void test_S_5_a_client_that_speaks_http_is_closed_quietly(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_prepare(world, &ends, servers);
    int fd = tcp_connect(server_port(ends.server));
    assert_true(fd >= 0);
    send_exactly(world, fd, "GET / HTTP/1.0\r\n\r\n", 18);
    run_until_traced(world, "s.released");
    assert_trace(world, "s.released");
    assert_int_equal(world->exceptions, 0);
    assert_int_equal(world->warnings + world->errors, 0);
    receive_eof(world, fd);
    close(fd);
    ends_close(&ends);
}

static void test_S_6_an_end_within_the_handshake_is_an_error_to_the_creator(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_prepare(world, &ends, servers);
    uint16_t port;
    int listener = tcp_listener(1, &port);
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    const tram_connection_options options = {.tls = clients, .server_hostname = "localhost"};
    assert_int_equal(
        tram_loop_create_connection(world->loop, client_factory, NULL, "127.0.0.1", text, &options, &ends.connecting),
        0);
    run_to_rest(world);
    int accepted = accept(listener, NULL, NULL);
    char hello[5];
    receive_exactly(world, accepted, hello, sizeof hello); /* so it is in the handshake */
    tram_future_cancel(ends.connecting);
    assert_int_equal(tram_loop_run_until_complete(world->loop, ends.connecting), TRAM_ECANCELLED);
    run_until_traced(world, "c.released");
    assert_trace(world, "c.released");
    close(accepted);
    close(listener);
    ends_close(&ends);
}

static void test_C_3_C_4_options_without_sense_are_refused(void **state) {
    struct world *world = *state;
    const struct {
        const char *host;
        tram_connection_options options;
        const char *wrong;
    } list[] = {
        {"127.0.0.1", {.server_hostname = ""}, "server_hostname"},
        {"127.0.0.1", {.tls_handshake_timeout_ns = 1}, "tls_handshake_timeout_ns"},
        {"127.0.0.1", {.tls_shutdown_timeout_ns = 1}, "tls_shutdown_timeout_ns"},
        {NULL, {.tls = clients}, "server_hostname"},
        {"127.0.0.1", {.tls = clients, .server_hostname = "a b"}, "server_hostname"},
        {"127.0.0.1", {.tls = clients, .server_hostname = "b\xc3\xbc"}, "server_hostname, which is not ASCII"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        tram_future *future = NULL;
        assert_int_equal(tram_loop_create_connection(world->loop, client_factory, NULL, list[i].host, "1",
                                                     &list[i].options, &future),
                         TRAM_EVALUE);
        assert_null(future);
        assert_int_equal(strncmp(tram_wrong_option(), list[i].wrong, strlen(list[i].wrong)), 0);
    }
    const tram_server_options no_certificate = {.tls = clients};
    assert_int_equal(tram_loop_create_server(world->loop, peer_factory, NULL, "127.0.0.1", "0", &no_certificate, NULL),
                     TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "certificates");
}

/* ---- Bytes ---- */

static int (*recorder_received)(tram_protocol *protocol, const void *data, size_t size);

static int received_pattern(tram_protocol *protocol, const void *data, size_t size) {
    assert_pattern(data, size, ((struct recorder *)protocol)->received);
    return recorder_received(protocol, data, size);
}

/* From now on it must be the pattern that comes. */
static void expect_pattern(struct recorder *recorder, tram_protocol_ops *ops) {
    *ops = *recorder->base.ops;
    recorder_received = ops->data_received;
    ops->data_received = received_pattern;
    recorder->base.ops = ops;
}

static void test_S_11_bytes_of_any_size_go_both_ways(void **state) {
    static tram_protocol_ops ops[2];
    struct ends ends;
    ends_open(*state, &ends);
    expect_pattern(ends.client, &ops[0]);
    expect_pattern(ends.peer, &ops[1]);
    ends.client->keep = ends.peer->keep = false;
    static char block[3000000];
    pattern(block, sizeof block, 0);
    ends.client->quiet_data = ends.peer->quiet_data = true;
    size_t sent = 0;
    static const size_t sizes[] = {1, 2, 5, 16383, 16384, 16385, 100000, 1000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(tram_transport_write(ends.client->base.transport, block + sent, sizes[i]), 0);
        assert_int_equal(tram_transport_write(ends.peer->base.transport, block + sent, sizes[i]), 0);
        sent += sizes[i];
    }
    run_until_received(ends.peer, sent);
    run_until_received(ends.client, sent);
    assert_int_equal(ends.peer->received, sent);
    assert_int_equal(ends.client->received, sent);
    ends_close(&ends);
}

static void test_S_11_pieces_and_shared_buffers_are_joined_to_records(void **state) {
    struct ends ends;
    ends_open(*state, &ends);
    char text[2000];
    pattern(text, sizeof text, 0);
    struct iovec pieces[200];
    for (size_t i = 0; i < 200; i++)
        pieces[i] = (struct iovec){.iov_base = text + 10 * i, .iov_len = 10};
    assert_int_equal(tram_transport_writelines(ends.client->base.transport, pieces, 200), 0);
    tram_buffer *buffer = tram_buffer_copy(text, sizeof text);
    assert_int_equal(tram_transport_write_buffer(ends.client->base.transport, buffer), 0);
    tram_buffer_release(buffer);
    assert_int_equal(tram_transport_write(ends.client->base.transport, text, 0), 0);
    run_until_received(ends.peer, 4000);
    assert_pattern(ends.peer->bytes, sizeof text, 0);
    assert_pattern(ends.peer->bytes + sizeof text, sizeof text, 0);
    ends_close(&ends);
}

static void test_S_19_a_paused_transport_hears_neither_data_nor_the_end(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    assert_int_equal(tram_transport_pause_reading(ends.peer->base.transport), 0);
    assert_int_equal(tram_transport_write(ends.client->base.transport, "data", 4), 0);
    assert_int_equal(tram_transport_close(ends.client->base.transport), 0);
    run_to_rest(world);
    assert_null(strstr(world->trace, "s"));
    assert_int_equal(tram_transport_resume_reading(ends.peer->base.transport), 0);
    run_until_traced(world, "s.lost:0");
    const char *data = strstr(world->trace, "s.data:4"), *eof = strstr(world->trace, "s.eof");
    assert_true(data && eof && data < eof);
    ends_close(&ends);
}

/* rules: S-21, S-22 */
static void test_S_20_W_13_water_marks_hold_a_writer_back(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    size_t high, low;
    assert_int_equal(tram_transport_get_write_buffer_limits(ends.client->base.transport, &high, &low), 0);
    assert_int_equal(high, 524288);
    assert_int_equal(low, 131072);
    assert_int_equal(tram_transport_pause_reading(ends.peer->base.transport), 0);
    static char block[65536];
    ends.peer->quiet_data = true;
    ends.peer->keep = false;
    size_t sent = 0;
    while (!strstr(world->trace, "c.pause") && sent < 100000000) {
        assert_int_equal(tram_transport_write(ends.client->base.transport, block, sizeof block), 0);
        sent += sizeof block;
        run_ticks(world, 1);
    }
    assert_true(tram_transport_get_write_buffer_size(ends.client->base.transport) > high);
    assert_int_equal(tram_transport_resume_reading(ends.peer->base.transport), 0);
    run_until_traced(world, "c.resume");
    run_until_received(ends.peer, sent);
    ends_close(&ends);
}

/* It is told how much of a record it has not got yet. */
static int look_at_hint(struct recorder *recorder, const char *event) {
    size_t left = 10000 - recorder->received;
    if (strcmp(event, "get_buffer") == 0)
        assert_int_equal(recorder->size_hint, left == 10000 || left == 0 ? -1 : (ptrdiff_t)left);
    return 0;
}

static size_t count_words(const char *text, const char *word) {
    size_t count = 0;
    for (; (text = strstr(text, word)); text += strlen(word))
        count++;
    return count;
}

static void test_B_2_B_6_B_7_a_buffered_protocol_receives_from_the_record(void **state) {
    struct world *world = *state;
    struct ends ends = {.world = world};
    ends.client = next_client = recorder_new(world, "c");
    ends.peer = next_peer = recorder_new_buffered(world, "s");
    ends.peer->keep = ends.peer->takes_hints = true;
    ends.peer->buffer_size = 999;
    ends.peer->on = look_at_hint;
    ends.server = serve(world, servers);
    ends_begin(world, &ends, &(tram_connection_options){0});
    run_until(world, &ends.done);
    run_until(world, &ends.peer->made);
    char text[10000];
    pattern(text, sizeof text, 0);
    assert_int_equal(tram_transport_write(ends.client->base.transport, text, sizeof text), 0);
    run_until_received(ends.peer, sizeof text);
    assert_pattern(ends.peer->bytes, sizeof text, 0);
    assert_non_null(strstr(world->trace, "s.get_buffer s.updated:999 s.get_buffer s.updated:999"));
    /* Where there is nothing to read no memory is asked for. */
    assert_int_equal(count_words(world->trace, "s.get_buffer"), count_words(world->trace, "s.updated:"));
    assert_int_equal(tram_transport_close(ends.client->base.transport), 0);
    run_until_traced(world, "s.lost:0");
    const char *end = strstr(world->trace, "s.eof");
    assert_non_null(end);
    assert_null(strstr(end, "s.get_buffer"));
    ends_close(&ends);
}

/* ---- Ends ---- */

static void test_S_12_S_15_S_17_close_says_goodbye_and_waits_for_the_peers(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    tram_transport *client = tram_transport_hold(ends.client->base.transport);
    tram_transport *peer = tram_transport_hold(ends.peer->base.transport);
    assert_int_equal(tram_transport_write(client, "last", 4), 0);
    assert_int_equal(tram_transport_close(client), 0);
    assert_true(tram_transport_is_closing(client));
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, "s.lost:0");
    const char *data = strstr(world->trace, "s.data:4"), *eof = strstr(world->trace, "s.eof"),
               *lost = strstr(world->trace, "s.lost:0");
    assert_true(data && eof && data < eof && eof < lost);
    assert_null(strstr(eof + 1, "s.eof")); /* once */
    assert_null(strstr(world->trace, "c.eof"));
    assert_false(flag_of(client, "tls_unclean"));
    assert_false(flag_of(peer, "tls_unclean"));
    tram_transport_release(client);
    tram_transport_release(peer);
    ends_close(&ends);
}

static void test_S_13_S_18_an_abort_is_an_end_that_was_cut_off(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    tram_transport *peer = tram_transport_hold(ends.peer->base.transport);
    assert_int_equal(tram_transport_abort(ends.client->base.transport), 0);
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, "s.lost:0");
    assert_non_null(strstr(world->trace, "s.eof"));
    assert_true(flag_of(peer, "tls_unclean"));
    tram_transport_release(peer);
    ends_close(&ends);
}

static void test_S_14_P_11_true_from_eof_received_warns_and_has_no_effect(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    ends.peer->eof_returns = 1;
    assert_int_equal(tram_transport_close(ends.client->base.transport), 0);
    run_until_traced(world, "s.lost:0");
    run_until_traced(world, "c.lost:0");
    assert_int_equal(world->warnings, 1);
    ends_close(&ends);
}

static void test_W_25_W_27_there_is_no_write_eof_without_half_close(void **state) {
    struct ends ends;
    ends_open(*state, &ends);
    assert_false(tram_transport_can_write_eof(ends.client->base.transport));
    assert_int_equal(tram_transport_write_eof(ends.client->base.transport), -ENOTSUP);
    ends_close(&ends);
}

static void test_S_14_half_close_ends_one_direction(void **state) {
    struct world *world = *state;
    tram_tls_certificate identity = identity_of(authority.server);
    tram_tls_config *half_server =
        config_make(&(tram_tls_options){.certificates = &identity, .certificate_count = 1, .half_close = true});
    tram_tls_config *half_client =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .half_close = true});
    struct ends ends;
    ends_open_with(world, &ends, half_server, &(tram_connection_options){.tls = half_client});
    ends.peer->eof_returns = 1;
    assert_true(tram_transport_can_write_eof(ends.client->base.transport));
    assert_int_equal(tram_transport_write(ends.client->base.transport, "question", 8), 0);
    assert_int_equal(tram_transport_write_eof(ends.client->base.transport), 0);
    run_until_traced(world, "s.eof");
    assert_int_equal(tram_transport_write(ends.peer->base.transport, "answer", 6), 0);
    run_until_received(ends.client, 6);
    assert_int_equal(tram_transport_close(ends.peer->base.transport), 0);
    run_until_traced(world, "c.eof");
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, "s.lost:0");
    ends_close(&ends);
    tram_tls_config_release(half_server);
    tram_tls_config_release(half_client);
}

static void test_S_16_a_peer_that_never_answers_is_not_waited_for_longer(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open_with(world, &ends, servers, &(tram_connection_options){.tls_shutdown_timeout_ns = 20000000});
    assert_int_equal(tram_transport_pause_reading(ends.peer->base.transport), 0);
    assert_int_equal(tram_transport_close(ends.client->base.transport), 0);
    run_until(world, &ends.client->lost);
    assert_int_equal(ends.client->lost_code, TRAM_ETIMEOUT);
    ends_close(&ends);
}

static void test_S_23_writes_after_close_are_dropped(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    assert_int_equal(tram_transport_close(ends.client->base.transport), 0);
    assert_int_equal(tram_transport_write(ends.client->base.transport, "late", 4), 0);
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, "s.lost:0");
    assert_int_equal(ends.peer->received, 0);
    ends_close(&ends);
}

static int fail_on_data(struct recorder *recorder, const char *event) {
    return strcmp(event, "data") == 0 ? tram_loop_raise(recorder->world->loop, TRAM_EUSER, recorder, "no") : 0;
}

static void test_S_26_a_failing_protocol_ends_the_connection(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    ends.peer->on = fail_on_data;
    assert_int_equal(tram_transport_write(ends.client->base.transport, "data", 4), 0);
    run_until(world, &ends.peer->lost);
    assert_int_equal(ends.peer->lost_code, TRAM_EUSER);
    assert_int_equal(world->exceptions, 1);
    run_until(world, &ends.client->lost);
    ends_close(&ends);
}

/* ---- What is known ---- */

static void test_S_24_T_10_extra_info_tells_about_the_connection(void **state) {
    struct world *world = *state;
    static const char *const alpn[] = {"echo/1", NULL};
    tram_tls_certificate identity = identity_of(authority.server);
    tram_tls_config *server =
        config_make(&(tram_tls_options){.certificates = &identity, .certificate_count = 1, .alpn = alpn});
    tram_tls_config *client = config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .alpn = alpn});
    struct ends ends;
    ends_open_with(world, &ends, server, &(tram_connection_options){.tls = client});
    tram_transport *transport = ends.client->base.transport, *peer = ends.peer->base.transport;
    assert_ptr_equal(tram_transport_get_extra_info(transport, "sslcontext", NULL), client);
    assert_non_null(tram_transport_get_extra_info(transport, "ssl_object", NULL));
    assert_non_null(tram_transport_get_extra_info(transport, "peername", NULL));
    assert_null(tram_transport_get_extra_info(transport, "compression", NULL));
    assert_string_equal(tram_transport_get_extra_info(transport, "tls_version", NULL), "TLSv1.3");
    assert_string_equal(tram_transport_get_extra_info(peer, "alpn", NULL), "echo/1");
    assert_string_equal(tram_transport_get_extra_info(peer, "server_hostname", NULL), "localhost");
    assert_false(flag_of(transport, "session_reused"));
    const tram_tls_cipher *cipher = tram_transport_get_extra_info(transport, "cipher", NULL);
    assert_non_null(strstr(cipher->name, "TLS_"));
    assert_true(cipher->bits >= 128);
    const tram_tls_peer_certificate *certificate = tram_transport_get_extra_info(transport, "peercert", NULL);
    assert_non_null(certificate);
    assert_ptr_equal(tram_transport_get_extra_info(transport, "peercert", NULL), certificate); /* taken apart once */
    assert_true(certificate->verified);
    assert_string_equal(certificate->subject, "CN=server");
    assert_string_equal(certificate->issuer, "CN=test CA");
    assert_true(certificate->not_before < certificate->not_after);
    static const struct {
        tram_tls_name_kind kind;
        const char *value;
    } names[] = {
        {TRAM_TLS_NAME_DNS, "localhost"},
        {TRAM_TLS_NAME_DNS, "*.example.com"},
        {TRAM_TLS_NAME_ADDRESS, "127.0.0.1"},
        {TRAM_TLS_NAME_ADDRESS, "::1"},
        {TRAM_TLS_NAME_EMAIL, "who@example.com"},
        {TRAM_TLS_NAME_URI, "https://example.com/"}, /* other kinds are left out */
    };
    assert_int_equal(certificate->alternative_count, sizeof names / sizeof *names);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(certificate->alternative_names[i].kind, names[i].kind);
        assert_string_equal(certificate->alternative_names[i].value, names[i].value);
    }
    unsigned char *der = NULL;
    int size = i2d_X509(authority.server->x509, &der);
    assert_int_equal(certificate->der.size, (size_t)size);
    assert_memory_equal(certificate->der.data, der, (size_t)size);
    OPENSSL_free(der);
    assert_null(tram_transport_get_extra_info(peer, "peercert", NULL)); /* the client has shown none */
    const tram_tls_bytes *ours = tram_transport_get_extra_info(transport, "tls_exporter", NULL);
    char exported[32];
    assert_int_equal(ours->size, sizeof exported);
    memcpy(exported, ours->data, sizeof exported);
    const tram_tls_bytes *theirs = tram_transport_get_extra_info(peer, "tls_exporter", NULL);
    assert_memory_equal(theirs->data, exported, sizeof exported);
    tram_transport_hold(transport);
    ends_close(&ends);
    assert_string_equal(tram_transport_get_extra_info(transport, "tls_version", NULL), "TLSv1.3");
    tram_transport_release(transport);
    run_to_rest(world);
    tram_tls_config_release(server);
    tram_tls_config_release(client);
}

static void test_a_session_is_resumed(void **state) {
    struct world *world = *state;
    struct ends ends;
    tram_stats before, after;
    tram_buffer *session = NULL;
    ends_open(world, &ends);
    assert_int_equal(tram_tls_session(ends.client->base.transport, &session), 0);
    assert_non_null(session);
    ends_close(&ends);
    tram_loop_stats(world->loop, &before);
    ends_open_with(world, &ends, servers, &(tram_connection_options){.tls_session = session});
    assert_true(flag_of(ends.client->base.transport, "session_reused"));
    assert_true(flag_of(ends.peer->base.transport, "session_reused"));
    tram_loop_stats(world->loop, &after);
    assert_int_equal(after.tls_handshakes - before.tls_handshakes, 2);
    assert_int_equal(after.tls_resumed - before.tls_resumed, 2);
    ends_close(&ends);
    tram_buffer_release(session);
}

static void test_S_32_a_file_goes_by_blocks(void **state) {
    struct ends ends;
    ends_open(*state, &ends);
    assert_int_equal(tram_transport_sendfile_mode(ends.client->base.transport), TRAM_SENDFILE_FALLBACK);
    ends_close(&ends);
}

/* ---- start_tls ---- */

static void test_S_27_S_30_B_7_start_tls_on_both_sides_of_an_open_connection(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    upgrade_open(world, &upgrade);
    struct recorder *client = recorder_new(world, "C"), *server = recorder_new_buffered(world, "S.");
    client->keep = server->keep = true;
    void *value = NULL;
    assert_int_equal(upgrade_start(&upgrade, 0, &client->base, NULL), 0);
    assert_int_equal(upgrade_start(&upgrade, 1, &server->base, NULL), 0);
    assert_int_equal(tram_transport_write(upgrade.ends[0], "x", 1), TRAM_ESTATE);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[0]), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[1]), 0);
    assert_int_equal(tram_future_result(upgrade.starting[0], &value), 0);
    assert_ptr_equal(value, upgrade.ends[0]);
    assert_int_equal(tram_transport_write(upgrade.ends[0], "question", 8), 0);
    run_until_received(server, 8);
    assert_int_equal(tram_transport_write(upgrade.ends[1], "answer", 6), 0);
    run_until_received(client, 6);
    assert_null(strstr(world->trace, "made"));
    assert_non_null(strstr(world->trace, "c.released"));
    assert_non_null(strstr(world->trace, "s.released"));
    assert_null(strstr(world->trace, "lost"));
    upgrade_close(&upgrade);
}

static void test_N_1_an_address_survives_start_tls(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    tram_address before, after;
    tram_message_counts counts;
    upgrade_open(world, &upgrade);
    struct recorder *server = recorder_new(world, "S");
    assert_int_equal(tram_transport_address(upgrade.ends[1], &before), 0);
    assert_int_equal(upgrade_start(&upgrade, 0, NULL, NULL), 0);
    assert_int_equal(upgrade_start(&upgrade, 1, &server->base, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[0]), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[1]), 0);
    assert_int_equal(tram_transport_address(upgrade.ends[1], &after), 0);
    assert_true(tram_address_equal(before, after));
    assert_int_equal(tram_post(before, &(tram_message){.tag = 1}), 0);
    run_to_rest(world);
    assert_int_equal(tram_address_message_counts(world->loop, before, &counts), 0);
    assert_int_equal(counts.dropped, 1); /* it came: a recorder receives no messages */
    upgrade_close(&upgrade);
}

static void test_S_31_plain_bytes_before_it_stay_plain_and_bytes_read_ahead_are_tls(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    upgrade_open(world, &upgrade);
    assert_int_equal(tram_transport_write(upgrade.ends[0], "STARTTLS\n", 9), 0);
    run_until_received(upgrade.server, 9);
    assert_int_equal(upgrade_start(&upgrade, 0, NULL, NULL), 0);
    /* The hello comes in before the server turns to TLS, as when it follows in the same packet. */
    run_until_received(upgrade.server, 10);
    assert_memory_equal(upgrade.server->bytes, "STARTTLS\n\x16\x03", 11);
    char ahead[65536];
    size_t size = upgrade.server->kept - 9;
    memcpy(ahead, upgrade.server->bytes + 9, size);
    const tram_start_tls_options options = {.tls = servers, .server_side = true, .ahead = ahead, .ahead_size = size};
    assert_int_equal(tram_loop_start_tls(world->loop, upgrade.ends[1], NULL, &options, &upgrade.starting[1]), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[1]), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[0]), 0);
    upgrade_close(&upgrade);
}

static void test_S_29_a_failed_start_tls_ends_the_connection(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    upgrade_open(world, &upgrade);
    struct recorder *server = recorder_new(world, "S");
    assert_int_equal(upgrade_start(&upgrade, 1, &server->base, "this is no TLS\r\n"), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[1]), TRAM_ETLS);
    run_until(world, &server->lost);
    assert_int_equal(server->lost_code, TRAM_ETLS);
    assert_null(strstr(world->trace, "S.made"));
    upgrade_close(&upgrade);

    upgrade = (struct upgrade){0};
    upgrade_open(world, &upgrade);
    assert_int_equal(upgrade_start(&upgrade, 0, NULL, NULL), 0);
    tram_future_cancel(upgrade.starting[0]);
    run_until(world, &upgrade.client->lost);
    assert_int_equal(tram_future_result(upgrade.starting[0], NULL), TRAM_ECANCELLED);
    upgrade_close(&upgrade);
}

static void test_S_28_start_tls_wants_a_stream_and_a_config(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    upgrade_open(world, &upgrade);
    const tram_start_tls_options none = {0};
    assert_int_equal(tram_loop_start_tls(world->loop, upgrade.ends[0], NULL, &none, NULL), TRAM_ETYPE);
    assert_int_equal(tram_loop_start_tls(world->loop, upgrade.ends[0], NULL, NULL, NULL), TRAM_ETYPE);
    assert_int_equal(tram_transport_write(upgrade.ends[0], "plain", 5), 0);
    run_until_received(upgrade.server, 5);
    upgrade_close(&upgrade);
}

/* Forgotten, it would let anybody in between answer. */
static void test_S_27_C_4_a_client_says_whose_certificate_it_must_be(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    tram_start_tls_options options = {.tls = clients};
    upgrade_open(world, &upgrade);
    assert_wrong(tram_loop_start_tls(world->loop, upgrade.ends[0], NULL, &options, NULL), "server_hostname");
    assert_int_equal(tram_transport_write(upgrade.ends[0], "plain", 5), 0);
    run_until_received(upgrade.server, 5);
    options.server_hostname = "";
    options.ahead_size = 1;
    assert_wrong(tram_loop_start_tls(world->loop, upgrade.ends[0], NULL, &options, NULL), "ahead");
    options.ahead_size = 0;
    assert_int_equal(tram_loop_start_tls(world->loop, upgrade.ends[0], NULL, &options, &upgrade.starting[0]), 0);
    assert_int_equal(upgrade_start(&upgrade, 1, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[0]), 0);
    upgrade_close(&upgrade);
}

static void test_S_28_tls_goes_over_tls(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {0};
    upgrade_open(world, &upgrade);
    for (int depth = 0; depth < 3; depth++) {
        assert_int_equal(upgrade_start(&upgrade, 0, NULL, NULL), 0);
        assert_int_equal(upgrade_start(&upgrade, 1, NULL, NULL), 0);
        for (int end = 0; end < 2; end++) {
            assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[end]), 0);
            tram_future_release(upgrade.starting[end]);
            upgrade.starting[end] = NULL;
        }
    }
    static char block[50000];
    pattern(block, sizeof block, 0);
    assert_int_equal(tram_transport_write(upgrade.ends[0], block, sizeof block), 0);
    run_until_received(upgrade.server, sizeof block);
    assert_pattern(upgrade.server->bytes, sizeof block, 0);
    assert_int_equal(tram_transport_close(upgrade.ends[0]), 0);
    run_until(world, &upgrade.client->lost);
    run_until(world, &upgrade.server->lost);
    assert_int_equal(upgrade.client->lost_code, 0);
    assert_int_equal(upgrade.server->lost_code, 0);
    upgrade_close(&upgrade);
}

static void test_tls_goes_over_a_pair(void **state) {
    struct world *world = *state;
    struct upgrade upgrade = {.world = world};
    upgrade.client = recorder_new(world, "c");
    upgrade.server = recorder_new(world, "s");
    upgrade.client->keep = upgrade.server->keep = true;
    assert_int_equal(tram_loop_create_pair(world->loop, &upgrade.client->base, &upgrade.server->base, &upgrade.ends[0],
                                           &upgrade.ends[1]),
                     0);
    hold_ends(&upgrade);
    assert_int_equal(upgrade_start(&upgrade, 0, NULL, NULL), 0);
    assert_int_equal(upgrade_start(&upgrade, 1, NULL, NULL), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[0]), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, upgrade.starting[1]), 0);
    assert_int_equal(tram_transport_write(upgrade.ends[0], "question", 8), 0);
    run_until_received(upgrade.server, 8);
    assert_int_equal(tram_transport_close(upgrade.ends[0]), 0);
    run_until(world, &upgrade.client->lost);
    run_until(world, &upgrade.server->lost);
    upgrade_close(&upgrade);
}

/* ---- Servers ---- */

static void test_server_closes_its_clients_with_close_notify(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_open(world, &ends);
    tram_transport *client = tram_transport_hold(ends.client->base.transport);
    assert_int_equal(tram_server_connection_count(ends.server), 1);
    assert_int_equal(tram_server_close_clients(ends.server), 0);
    run_until_traced(world, "c.lost:0");
    run_until_traced(world, "s.lost:0");
    assert_false(flag_of(client, "tls_unclean"));
    tram_transport_release(client);
    assert_int_equal(tram_server_connection_count(ends.server), 0);
    ends_close(&ends);
}

static void test_tls_goes_over_unix_sockets(void **state) {
    struct world *world = *state;
    struct ends ends = {.world = world};
    ends.client = next_client = recorder_new(world, "c");
    ends.peer = next_peer = recorder_new(world, "s");
    ends.client->keep = ends.peer->keep = true;
    char name[64];
    size_t size = 1 + (size_t)snprintf(name + 1, sizeof name - 1, "tram-tls-%d", (int)getpid());
    name[0] = '\0';
    tram_future *future;
    const tram_unix_server_options serving = {.tls = servers};
    assert_int_equal(tram_loop_create_unix_server(world->loop, peer_factory, NULL, name, size, &serving, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    void *server;
    assert_int_equal(tram_future_result(future, &server), 0);
    ends.server = server;
    tram_future_release(future);
    const tram_unix_connection_options nameless = {.tls = clients};
    assert_int_equal(tram_loop_create_unix_connection(world->loop, client_factory, NULL, name, size, &nameless, NULL),
                     TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "server_hostname");
    const tram_unix_connection_options options = {.tls = clients, .server_hostname = "localhost"};
    assert_int_equal(
        tram_loop_create_unix_connection(world->loop, client_factory, NULL, name, size, &options, &ends.connecting), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, ends.connecting), 0);
    assert_int_equal(tram_transport_write(ends.client->base.transport, "question", 8), 0);
    run_until_received(ends.peer, 8);
    ends_close(&ends);
}

static void test_C_14_an_adopted_socket_is_the_servers_side(void **state) {
    struct world *world = *state;
    struct ends ends;
    ends_prepare(world, &ends, servers);
    int fds[2];
    tcp_pair(fds);
    tram_future *adopting;
    const tram_adopt_options adopt = {.tls = servers};
    const tram_connection_options connect = {.tls = clients, .server_hostname = "localhost", .sock = &fds[0]};
    assert_int_equal(tram_loop_adopt_socket(world->loop, peer_factory, NULL, fds[1], &adopt, &adopting), 0);
    assert_int_equal(
        tram_loop_create_connection(world->loop, client_factory, NULL, NULL, NULL, &connect, &ends.connecting), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, ends.connecting), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, adopting), 0);
    assert_int_equal(tram_transport_write(ends.client->base.transport, "question", 8), 0);
    run_until_received(ends.peer, 8);
    tram_future_release(adopting);
    ends_close(&ends);
}

/* ---- Another loop, of another thread ---- */

struct echo {
    tram_protocol base;
    tram_detached *detached;
    bool made_with_tls, lost;
    int lost_code;
};

static int echo_made(tram_protocol *protocol, tram_transport *transport) {
    size_t high = 0, low = 0;
    tram_transport_get_write_buffer_limits(transport, &high, &low);
    ((struct echo *)protocol)->made_with_tls = tram_transport_get_extra_info(transport, "cipher", NULL) && high == 7777;
    return 0;
}

static int echo_data(tram_protocol *protocol, const void *data, size_t size) {
    return tram_transport_write(protocol->transport, data, size);
}

static int echo_lost(tram_protocol *protocol, const tram_error *error) {
    struct echo *echo = (struct echo *)protocol;
    echo->lost = true;
    echo->lost_code = error ? error->code : 0;
    return tram_loop_stop(tram_transport_get_loop(protocol->transport));
}

static int echo_message(tram_protocol *protocol, tram_message *message) {
    tram_request *request = tram_message_take_request(message);
    const tram_message reply = {.words = {((struct echo *)protocol)->made_with_tls}};
    tram_reply(request, &reply);
    return 0;
}

static const tram_protocol_ops echo_ops = {.connection_made = echo_made,
                                           .data_received = echo_data,
                                           .message_received = echo_message,
                                           .connection_lost = echo_lost};

static int echo_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

static void *run_echo(void *arg) {
    struct echo *echo = arg;
    tram_loop *loop;
    assert_int_equal(tram_loop_new(NULL, &loop), 0);
    assert_int_equal(tram_loop_adopt_detached(loop, echo_factory, echo, echo->detached, NULL), 0);
    tram_detached_free(echo->detached);
    assert_int_equal(tram_loop_run_forever(loop), 0);
    assert_int_equal(tram_loop_free(loop), 0);
    return NULL;
}

static void test_Y_1_Y_7_N_17_tls_moves_to_another_thread(void **state) {
    struct world *world = *state;
    struct ends ends;
    struct echo echo = {.base.ops = &echo_ops};
    tram_address address;
    tram_future *asked;
    pthread_t thread;
    ends_open(world, &ends);
    assert_int_equal(tram_transport_set_write_buffer_limits(ends.peer->base.transport, 7777, 100), 0);
    tram_transport_pause_reading(ends.peer->base.transport);
    write_pattern(ends.client->base.transport, 20000, 0);
    run_to_rest(world);
    assert_int_equal(tram_transport_address(ends.peer->base.transport, &address), 0);
    assert_int_equal(tram_transport_detach(ends.peer->base.transport, &echo.detached), 0);
    assert_int_equal(tram_detached_take_fd(echo.detached), -ENOTSUP);
    assert_int_equal(tram_ask(world->loop, address, &(tram_message){0}, TRAM_FOREVER, &asked), 0);
    run_until_traced(world, "s.released");
    ends.peer->base.transport = NULL;
    assert_int_equal(tram_server_connection_count(ends.server), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_echo, &echo), 0);
    ends.client->quiet_data = true;
    run_until_received(ends.client, 20000);
    assert_pattern(ends.client->bytes, 20000, 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, asked), 0);
    assert_int_equal(tram_future_message(asked)->words[0], true);
    tram_future_release(asked);
    tram_transport_hold(ends.client->base.transport);
    tram_transport *client = ends.client->base.transport;
    tram_transport_close(client);
    run_until(world, &ends.client->was_released);
    pthread_join(thread, NULL);
    assert_true(echo.made_with_tls && echo.lost);
    assert_int_equal(echo.lost_code, 0);
    assert_false(flag_of(client, "tls_unclean")); /* it was told the end from there */
    tram_transport_release(client);
    ends.client->base.transport = NULL;
    ends_close(&ends);
}

int main(void) {
#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_S_1_S_2_made_comes_after_the_handshake_then_the_creator_then_data),
        IN_WORLD(test_S_10_data_behind_the_handshake_is_delivered),
        IN_WORLD(test_S_3_a_handshake_that_takes_too_long_is_aborted),
        IN_WORLD(test_S_4_an_end_within_the_handshake_is_a_reset),
        IN_WORLD(test_S_4_S_5_a_refused_certificate_is_told_and_the_server_is_quiet),
        IN_WORLD(test_S_5_a_client_that_speaks_http_is_closed_quietly),
        IN_WORLD(test_S_6_an_end_within_the_handshake_is_an_error_to_the_creator),
        IN_WORLD(test_C_3_C_4_options_without_sense_are_refused),
        IN_WORLD(test_S_11_bytes_of_any_size_go_both_ways),
        IN_WORLD(test_S_11_pieces_and_shared_buffers_are_joined_to_records),
        IN_WORLD(test_S_19_a_paused_transport_hears_neither_data_nor_the_end),
        IN_WORLD(test_S_20_W_13_water_marks_hold_a_writer_back),
        IN_WORLD(test_B_2_B_6_B_7_a_buffered_protocol_receives_from_the_record),
        IN_WORLD(test_S_12_S_15_S_17_close_says_goodbye_and_waits_for_the_peers),
        IN_WORLD(test_S_13_S_18_an_abort_is_an_end_that_was_cut_off),
        IN_WORLD(test_S_14_P_11_true_from_eof_received_warns_and_has_no_effect),
        IN_WORLD(test_W_25_W_27_there_is_no_write_eof_without_half_close),
        IN_WORLD(test_S_14_half_close_ends_one_direction),
        IN_WORLD(test_S_16_a_peer_that_never_answers_is_not_waited_for_longer),
        IN_WORLD(test_S_23_writes_after_close_are_dropped),
        IN_WORLD(test_S_26_a_failing_protocol_ends_the_connection),
        IN_WORLD(test_S_24_T_10_extra_info_tells_about_the_connection),
        IN_WORLD(test_a_session_is_resumed),
        IN_WORLD(test_S_32_a_file_goes_by_blocks),
        IN_WORLD(test_S_27_S_30_B_7_start_tls_on_both_sides_of_an_open_connection),
        IN_WORLD(test_N_1_an_address_survives_start_tls),
        IN_WORLD(test_S_31_plain_bytes_before_it_stay_plain_and_bytes_read_ahead_are_tls),
        IN_WORLD(test_S_29_a_failed_start_tls_ends_the_connection),
        IN_WORLD(test_S_28_start_tls_wants_a_stream_and_a_config),
        IN_WORLD(test_S_27_C_4_a_client_says_whose_certificate_it_must_be),
        IN_WORLD(test_S_28_tls_goes_over_tls),
        IN_WORLD(test_tls_goes_over_a_pair),
        IN_WORLD(test_server_closes_its_clients_with_close_notify),
        IN_WORLD(test_tls_goes_over_unix_sockets),
        IN_WORLD(test_C_14_an_adopted_socket_is_the_servers_side),
        IN_WORLD(test_Y_1_Y_7_N_17_tls_moves_to_another_thread),
    };
    return cmocka_run_group_tests(tests, tls_setup, tls_teardown);
}
