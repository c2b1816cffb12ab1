/* TLS between two engines in memory: a client and a server, with bytes that come in pieces of any size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <malloc.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "support/memory.h"
#include "support/support.h"
#include "support/tls/certificates.h"
#include "transports/base/state.h"
#include "transports/tls/engine.h"
#include "transports/tls/idle.h"
#include "transports/tls/info.h"
#include "transports/tls/name.h"

/* One end: what it has not read yet, and what is read of that at once. */
struct side {
    struct tls_engine engine;
    struct side *peer;
    unsigned char *bytes;
    size_t size, begin, room;
    size_t piece;   /* a read gives at most so much */
    bool ended;     /* … and the end behind it */
    int ended_code; /* … or this */
    unsigned writes;
    bool started;
    struct tls_failure failure;
};

static struct authority authority;
static tram_tls_config *servers, *clients;

static ssize_t read_bytes(struct tls_engine *engine, void *memory, size_t size) {
    struct side *side = container_of(engine, struct side, engine);
    size_t have = side->size - side->begin;
    if (have == 0)
        return side->ended ? side->ended_code : -EAGAIN;
    size_t count = have < size ? have : size;
    if (count > side->piece)
        count = side->piece;
    memcpy(memory, side->bytes + side->begin, count);
    side->begin += count;
    return (ssize_t)count;
}

static void append(struct side *side, const void *data, size_t size) {
    if (side->size + size > side->room) {
        side->room = 2 * (side->size + size);
        side->bytes = realloc(side->bytes, side->room);
        assert_non_null(side->bytes);
    }
    memcpy(side->bytes + side->size, data, size);
    side->size += size;
}

static void write_bytes(struct tls_engine *engine, const void *data, size_t size) {
    struct side *side = container_of(engine, struct side, engine);
    assert_true(size > 0);
    side->writes++;
    append(side->peer, data, size);
}

static const struct tls_below below = {.read = read_bytes, .write = write_bytes};

struct link {
    struct side client, server;
};

static void side_start(struct world *world, struct side *side, struct side *peer,
                       const struct tls_engine_options *options) {
    *side = (struct side){.peer = peer, .piece = SIZE_MAX};
    int code = tram__tls_engine_start(&side->engine, world->loop, &below, options, &side->failure);
    if (code != 0)
        fail_msg("%s", side->failure.text);
    side->started = true;
}

static void side_free(struct side *side) {
    if (side->started)
        tram__tls_engine_free(&side->engine);
    free(side->bytes);
    assert_int_equal(ERR_peek_error(), 0);
}

static void link_free(struct link *link) {
    side_free(&link->client);
    side_free(&link->server);
}

static void link_start(struct world *world, struct link *link, tram_tls_config *client, tram_tls_config *server,
                       const char *name, tram_buffer *session) {
    side_start(world, &link->client, &link->server,
               &(struct tls_engine_options){.config = client, .server_hostname = name, .session = session});
    side_start(world, &link->server, &link->client, &(struct tls_engine_options){.config = server, .server = true});
}

/* Until both are done or one has failed; 0 or the code of whoever failed first. */
static int shake_hands(struct link *link) {
    for (int i = 0; i < 100000; i++) {
        int client = tram__tls_engine_handshake(&link->client.engine, &link->client.failure);
        assert_int_equal(ERR_peek_error(), 0);
        if (client < 0)
            return client;
        int server = tram__tls_engine_handshake(&link->server.engine, &link->server.failure);
        assert_int_equal(ERR_peek_error(), 0);
        if (server < 0)
            return server;
        if (client == 1 && server == 1)
            return 0;
    }
    fail_msg("the handshake does not end");
    return -1;
}

static void connect_ends(struct world *world, struct link *link) {
    link_start(world, link, clients, servers, "localhost", NULL);
    if (shake_hands(link) != 0)
        fail_msg("%s%s", link->client.failure.text, link->server.failure.text);
}

/* Reads all that there is; how many bytes, or what ended it if there were none. */
static ssize_t read_all(struct side *side, void *memory, size_t size) {
    size_t have = 0;
    for (;;) {
        ssize_t got = tram__tls_engine_read(&side->engine, (char *)memory + have, size - have, &side->failure);
        assert_int_equal(ERR_peek_error(), 0);
        if (got <= 0)
            return have > 0 ? (ssize_t)have : got;
        have += (size_t)got;
    }
}

static void assert_sent(struct side *from, struct side *to, const char *text) {
    char received[256] = {0};
    assert_int_equal(tram__tls_engine_write(&from->engine, text, strlen(text), &from->failure), 0);
    assert_int_equal(read_all(to, received, sizeof received - 1), (ssize_t)strlen(text));
    assert_string_equal(received, text);
}

static void assert_failure(const struct side *side, int code, const char *text) {
    assert_int_equal(side->failure.code, code);
    if (!strstr(side->failure.text, text))
        fail_msg("\"%s\" is not in \"%s\"", text, side->failure.text);
    assert_int_equal(ERR_peek_error(), 0);
}

static int setup(void **state) {
    (void)state;
    authority_make(&authority);
    servers = server_config(authority.server);
    clients = client_config(authority.ca);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tram_tls_config_release(servers);
    tram_tls_config_release(clients);
    authority_free(&authority);
    return 0;
}

/* ---- Handshakes ---- */

static void test_bytes_go_both_ways_after_a_handshake(void **state) {
    struct link link;
    connect_ends(*state, &link);
    assert_sent(&link.client, &link.server, "question");
    assert_sent(&link.server, &link.client, "answer");
    assert_string_equal(SSL_get_version(link.client.engine.ssl), "TLSv1.3");
    link_free(&link);
}

static void test_a_handshake_goes_by_single_bytes(void **state) {
    struct link link;
    link_start(*state, &link, clients, servers, "localhost", NULL);
    link.client.piece = link.server.piece = 1;
    assert_int_equal(shake_hands(&link), 0);
    assert_sent(&link.client, &link.server, "question");
    assert_sent(&link.server, &link.client, "answer");
    link_free(&link);
}

static void test_one_record_is_one_write_below(void **state) {
    struct link link;
    connect_ends(*state, &link);
    static char block[16384];
    unsigned before = link.client.writes;
    assert_int_equal(tram__tls_engine_write(&link.client.engine, block, sizeof block, &link.client.failure), 0);
    assert_int_equal(link.client.writes, before + 1);
    assert_int_equal(tram__tls_engine_write(&link.client.engine, block, 0, &link.client.failure), 0);
    assert_int_equal(link.client.writes, before + 1);
    link_free(&link);
}

static void test_versions_are_those_of_both(void **state) {
    tram_tls_config *old =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .max_version = TRAM_TLS_1_2});
    struct link link;
    link_start(*state, &link, old, servers, "localhost", NULL);
    assert_int_equal(shake_hands(&link), 0);
    assert_string_equal(SSL_get_version(link.server.engine.ssl), "TLSv1.2");
    assert_sent(&link.client, &link.server, "question");
    link_free(&link);

    tram_tls_certificate identity = identity_of(authority.server);
    tram_tls_config *recent = config_make(
        &(tram_tls_options){.certificates = &identity, .certificate_count = 1, .min_version = TRAM_TLS_1_3});
    link_start(*state, &link, old, recent, "localhost", NULL);
    assert_true(shake_hands(&link) < 0);
    assert_failure(&link.server, TRAM_ETLS, "unsupported protocol");
    assert_int_equal(tram__tls_engine_handshake(&link.client.engine, &link.client.failure), TRAM_ETLS);
    assert_failure(&link.client, TRAM_ETLS, "the peer sent the alert \"protocol version\" (70)");
    link_free(&link);
    tram_tls_config_release(old);
    tram_tls_config_release(recent);
}

static void test_no_shared_cipher_is_said(void **state) {
    tram_tls_certificate identity = identity_of(authority.server);
    tram_tls_config *aes = config_make(&(tram_tls_options){.certificates = &identity,
                                                           .certificate_count = 1,
                                                           .max_version = TRAM_TLS_1_2,
                                                           .ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256"});
    tram_tls_config *chacha = config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem),
                                                              .max_version = TRAM_TLS_1_2,
                                                              .ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305"});
    struct link link;
    link_start(*state, &link, chacha, aes, "localhost", NULL);
    assert_int_equal(shake_hands(&link), TRAM_ETLS);
    assert_failure(&link.server, TRAM_ETLS, "no shared cipher");
    link_free(&link);
    tram_tls_config_release(aes);
    tram_tls_config_release(chacha);
}

static void test_a_peer_that_speaks_no_tls_is_told_apart(void **state) {
    struct link link;
    link_start(*state, &link, clients, servers, "localhost", NULL);
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    append(&link.server, http, sizeof http - 1);
    assert_int_equal(tram__tls_engine_handshake(&link.server.engine, &link.server.failure), TRAM_ETLS);
    assert_failure(&link.server, TRAM_ETLS, "http request");
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    link.client.begin = link.client.size;
    append(&link.client, answer, sizeof answer - 1);
    assert_int_equal(tram__tls_engine_handshake(&link.client.engine, &link.client.failure), TRAM_ETLS);
    assert_failure(&link.client, TRAM_ETLS, "wrong version number");
    assert_int_equal(tram__tls_engine_read(&link.client.engine, &link, 1, &link.client.failure), TRAM_ETLS);
    assert_int_equal(tram__tls_engine_write(&link.client.engine, "x", 1, &link.client.failure), TRAM_ESTATE);
    link_free(&link);
}

/* rules: S-4 */
static void test_an_end_within_the_handshake_is_a_reset(void **state) {
    struct link link;
    link_start(*state, &link, clients, servers, "localhost", NULL);
    assert_int_equal(tram__tls_engine_handshake(&link.client.engine, &link.client.failure), 0);
    link.client.ended = true;
    assert_int_equal(tram__tls_engine_handshake(&link.client.engine, &link.client.failure), -ECONNRESET);
    assert_failure(&link.client, -ECONNRESET, "during the TLS handshake");
    link.server.begin = link.server.size;
    link.server.ended = true;
    link.server.ended_code = -EPIPE;
    assert_int_equal(tram__tls_engine_handshake(&link.server.engine, &link.server.failure), -EPIPE);
    link_free(&link);
}

/* ---- Certificates and names ---- */

static void assert_refused(struct world *world, tram_tls_config *client, const struct certificate *certificate,
                           const char *name, const char *text) {
    tram_tls_config *server = server_config(certificate);
    struct link link;
    link_start(world, &link, client, server, name, NULL);
    assert_int_equal(shake_hands(&link), TRAM_ETLS_CERTIFICATE);
    assert_failure(&link.client, TRAM_ETLS_CERTIFICATE, text);
    assert_int_equal(tram__tls_engine_handshake(&link.server.engine, &link.server.failure), TRAM_ETLS);
    assert_failure(&link.server, TRAM_ETLS, "the peer sent the alert");
    link_free(&link);
    tram_tls_config_release(server);
}

static void test_certificates_are_refused_with_the_reason(void **state) {
    struct certificate *expired = certificate_make(&(struct certificate_options){
        .issuer = authority.ca, .alternative = "DNS:localhost", .valid_from_hours = -48, .valid_to_hours = -1});
    struct certificate *early = certificate_make(&(struct certificate_options){
        .issuer = authority.ca, .alternative = "DNS:localhost", .valid_from_hours = 1, .valid_to_hours = 48});
    struct certificate *own = certificate_make(&(struct certificate_options){.alternative = "DNS:localhost"});
    struct authority same_name;
    authority_make(&same_name);
    struct certificate *other_ca = certificate_make(&(struct certificate_options){.name = "other", .is_ca = true});
    struct certificate *other =
        certificate_make(&(struct certificate_options){.issuer = other_ca, .alternative = "DNS:localhost"});
    assert_refused(*state, clients, expired, "localhost", "certificate has expired");
    assert_refused(*state, clients, early, "localhost", "certificate is not yet valid");
    assert_refused(*state, clients, own, "localhost", "self-signed certificate (/CN=test, depth 0)");
    assert_refused(*state, clients, other, "localhost", "unable to get local issuer certificate");
    assert_refused(*state, clients, same_name.server, "localhost", "certificate signature failure");
    assert_refused(*state, clients, authority.server, "elsewhere",
                   "the server's certificate is not for \"elsewhere\" (/CN=server): hostname mismatch");
    assert_refused(*state, clients, authority.server, "127.0.0.2", "not for \"127.0.0.2\" (/CN=server): IP address");
    authority_free(&same_name);
    certificate_free(other_ca);
    certificate_free(other);
    certificate_free(expired);
    certificate_free(early);
    certificate_free(own);
}

/* rules: S-7, S-8 */
static void test_names_and_addresses_are_those_of_the_certificate(void **state) {
    static const char *const good[] = {"localhost", "LOCALHOST", "localhost.", "a.example.com", "127.0.0.1", "::1",
                                       "::1%lo",    "",          NULL};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct link link;
        link_start(*state, &link, clients, servers, good[i], NULL);
        if (shake_hands(&link) != 0)
            fail_msg("\"%s\": %s", good[i], link.client.failure.text);
        const char *sent = SSL_get_servername(link.server.engine.ssl, TLSEXT_NAMETYPE_host_name);
        bool is_name = good[i] && (good[i][0] == 'l' || good[i][0] == 'L' || good[i][0] == 'a');
        assert_int_equal(sent != NULL, is_name);
        assert_false(sent && sent[strlen(sent) - 1] == '.');
        link_free(&link);
    }
    static const char *const wrong[] = {"example.com", "a.b.example.com", "server"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_refused(*state, clients, authority.server, wrong[i], "hostname mismatch");
}

/* A subject names no host, and a part of a label is no wildcard. rules: S-7 */
static void test_only_whole_labels_of_alternative_names_count(void **state) {
    struct certificate *subject =
        certificate_make(&(struct certificate_options){.issuer = authority.ca, .name = "localhost"});
    struct certificate *partial =
        certificate_make(&(struct certificate_options){.issuer = authority.ca, .alternative = "DNS:f*.example.com"});
    assert_refused(*state, clients, subject, "localhost", "hostname mismatch");
    assert_refused(*state, clients, partial, "foo.example.com", "hostname mismatch");
    static const struct {
        const char *name;
        bool fits;
    } list[] = {{NULL, true},         {"localhost", true},        {"foo.example.com", true}, {"127.0.0.1", true},
                {"127.0.0.2", false}, {"foo.example.org", false}, {"server", false}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct tls_name name;
        struct tls_failure failure;
        assert_int_equal(tram__tls_name_parse(list[i].name, &name, &failure), 0);
        assert_int_equal(tram__tls_name_fits(&name, authority.server->x509), list[i].fits);
        assert_int_equal(tram__tls_name_fits(&name, partial->x509), list[i].name == NULL);
    }
    certificate_free(subject);
    certificate_free(partial);
}

static void test_a_name_that_is_none_is_refused_at_once(void **state) {
    struct world *world = *state;
    static char long_name[257];
    memset(long_name, 'a', sizeof long_name - 1);
    static const struct {
        const char *name, *text;
    } list[] = {
        {"b\xc3\xbc"
         "cher.example",
         "is not ASCII: give its A-labels"},
        {"two words", "is no host name"},
        {"a\x7f", "is no host name"}, /* the last one of ASCII */
        {long_name, "is too long"},
        {"..", "is no host name"},
        {".", "is no host name"},
        {"host%eth0", "is no host name"},
        {"a/b", "is no host name"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct tls_engine engine;
        struct tls_failure failure;
        const struct tls_engine_options options = {.config = clients, .server_hostname = list[i].name};
        assert_int_equal(tram__tls_engine_start(&engine, world->loop, &below, &options, &failure), TRAM_EVALUE);
        assert_string_equal(failure.option, "server_hostname");
        assert_non_null(strstr(failure.text, list[i].text));
    }
}

static void test_verification_can_be_left_out(void **state) {
    struct authority other;
    authority_make(&other);
    tram_tls_config *careless = config_make(&(tram_tls_options){.verify = TRAM_TLS_VERIFY_NONE});
    tram_tls_config *nameless =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .no_hostname_check = true});
    tram_tls_config *strange = server_config(other.server);
    struct link link;
    link_start(*state, &link, careless, strange, "elsewhere", NULL);
    assert_int_equal(shake_hands(&link), 0);
    link_free(&link);
    link_start(*state, &link, nameless, servers, "elsewhere", NULL);
    assert_int_equal(shake_hands(&link), 0);
    link_free(&link);
    link_start(*state, &link, nameless, strange, "elsewhere", NULL);
    assert_int_equal(shake_hands(&link), TRAM_ETLS_CERTIFICATE);
    link_free(&link);
    tram_tls_config_release(careless);
    tram_tls_config_release(nameless);
    tram_tls_config_release(strange);
    authority_free(&other);
}

static void test_revoked_certificates_are_refused(void **state) {
    char *revoking = crl_make(authority.ca, authority.server), *empty = crl_make(authority.ca, NULL);
    const tram_tls_source ca = source_of(authority.ca->chain_pem);
    tram_tls_config *strict = config_make(&(tram_tls_options){.ca = ca, .crl = source_of(revoking)});
    tram_tls_config *content = config_make(&(tram_tls_options){.ca = ca, .crl = source_of(empty)});
    assert_refused(*state, strict, authority.server, "localhost", "certificate revoked");
    struct link link;
    link_start(*state, &link, content, servers, "localhost", NULL);
    assert_int_equal(shake_hands(&link), 0);
    link_free(&link);
    tram_tls_config_release(strict);
    tram_tls_config_release(content);
    free(revoking);
    free(empty);
}

static void test_a_client_can_be_asked_for_its_certificate(void **state) {
    tram_tls_certificate server_identity = identity_of(authority.server);
    tram_tls_certificate client_identity = identity_of(authority.client);
    const tram_tls_source ca = source_of(authority.ca->chain_pem);
    tram_tls_config *asking =
        config_make(&(tram_tls_options){.certificates = &server_identity, .certificate_count = 1, .ca = ca});
    tram_tls_config *optional = config_make(&(tram_tls_options){
        .certificates = &server_identity, .certificate_count = 1, .ca = ca, .verify = TRAM_TLS_VERIFY_OPTIONAL});
    tram_tls_config *known =
        config_make(&(tram_tls_options){.certificates = &client_identity, .certificate_count = 1, .ca = ca});
    struct link link;
    link_start(*state, &link, known, asking, "localhost", NULL);
    assert_int_equal(shake_hands(&link), 0);
    X509 *shown = SSL_get0_peer_certificate(link.server.engine.ssl);
    assert_non_null(shown);
    assert_int_equal(X509_cmp(shown, authority.client->x509), 0);
    link_free(&link);
    link_start(*state, &link, clients, asking, "localhost", NULL);
    assert_int_equal(shake_hands(&link), TRAM_ETLS_CERTIFICATE);
    assert_failure(&link.server, TRAM_ETLS_CERTIFICATE, "the client has no certificate");
    char byte; /* the client was done before the server looked (TLS 1.3) */
    assert_int_equal(read_all(&link.client, &byte, 1), TRAM_ETLS);
    assert_failure(&link.client, TRAM_ETLS, "the peer sent the alert \"certificate required\" (116)");
    link_free(&link);
    link_start(*state, &link, clients, optional, "localhost", NULL);
    assert_int_equal(shake_hands(&link), 0);
    link_free(&link);
    tram_tls_config_release(asking);
    tram_tls_config_release(optional);
    tram_tls_config_release(known);
}

static void test_a_role_must_be_possible(void **state) {
    struct world *world = *state;
    struct tls_engine engine;
    struct tls_failure failure;
    tram_tls_certificate identity = identity_of(authority.server);
    tram_tls_config *trusting_nobody = config_make(
        &(tram_tls_options){.certificates = &identity, .certificate_count = 1, .verify = TRAM_TLS_VERIFY_REQUIRED});
    const struct tls_engine_options nobody = {.config = clients, .server = true};
    assert_int_equal(tram__tls_engine_start(&engine, world->loop, &below, &nobody, &failure), TRAM_EVALUE);
    assert_string_equal(failure.option, "certificates");
    const struct tls_engine_options blind = {.config = trusting_nobody, .server = true};
    assert_int_equal(tram__tls_engine_start(&engine, world->loop, &below, &blind, &failure), TRAM_EVALUE);
    assert_string_equal(failure.option, "ca");
    tram_tls_config_release(trusting_nobody);
}

static void test_a_stapled_answer_is_judged(void **state) {
    size_t good_size, bad_size;
    unsigned char *good = ocsp_make(authority.ca, authority.server, false, &good_size);
    unsigned char *bad = ocsp_make(authority.ca, authority.server, true, &bad_size);
    const tram_tls_source ca = source_of(authority.ca->chain_pem);
    tram_tls_config *requiring = config_make(&(tram_tls_options){.ca = ca, .ocsp = TRAM_TLS_OCSP_REQUIRE});
    tram_tls_config *verifying = config_make(&(tram_tls_options){.ca = ca, .ocsp = TRAM_TLS_OCSP_VERIFY});
    tram_tls_certificate identity = identity_of(authority.server);
    identity.ocsp_response = (tram_tls_source){.data = good, .size = good_size};
    tram_tls_config *valid = config_make(&(tram_tls_options){.certificates = &identity, .certificate_count = 1});
    identity.ocsp_response = (tram_tls_source){.data = bad, .size = bad_size};
    tram_tls_config *revoked = config_make(&(tram_tls_options){.certificates = &identity, .certificate_count = 1});
    const struct {
        tram_tls_config *client, *server;
        const char *text; /* NULL: good */
    } list[] = {
        {requiring, valid, NULL},
        {verifying, servers, NULL},
        {requiring, servers, "the server staples no OCSP answer"},
        {requiring, revoked, "the certificate is revoked (OCSP)"},
        {verifying, revoked, "the certificate is revoked (OCSP)"},
        {clients, revoked, NULL},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct link link;
        link_start(*state, &link, list[i].client, list[i].server, "localhost", NULL);
        assert_int_equal(shake_hands(&link), list[i].text ? TRAM_ETLS_CERTIFICATE : 0);
        if (list[i].text)
            assert_failure(&link.client, TRAM_ETLS_CERTIFICATE, list[i].text);
        link_free(&link);
    }
    tram_tls_config_release(requiring);
    tram_tls_config_release(verifying);
    tram_tls_config_release(valid);
    tram_tls_config_release(revoked);
    OPENSSL_free(good);
    OPENSSL_free(bad);
}

/* What a server staples that is no good answer. */
static void test_a_stapled_answer_of_another_kind(void **state) {
    static const unsigned char try_later[] = {0x30, 3, 0x0a, 1, 3}, empty[] = {0x30, 3, 0x0a, 1, 0};
    size_t size;
    unsigned char *others = ocsp_make(authority.ca, authority.ca, false, &size);
    const struct {
        tram_tls_source answer;
        const char *text;
    } list[] = {
        {{.data = try_later, .size = sizeof try_later}, "the OCSP answer is an error"},
        {{.data = empty, .size = sizeof empty}, "the OCSP answer cannot be read"},
        {{.data = "text", .size = 4}, "the OCSP answer cannot be read"},
        {{.data = others, .size = size}, "the OCSP answer is about another certificate"},
    };
    tram_tls_config *verifying =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .ocsp = TRAM_TLS_OCSP_VERIFY});
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        tram_tls_certificate identity = identity_of(authority.server);
        identity.ocsp_response = list[i].answer;
        tram_tls_config *server = config_make(&(tram_tls_options){.certificates = &identity, .certificate_count = 1});
        struct link link;
        link_start(*state, &link, verifying, server, "localhost", NULL);
        assert_int_equal(shake_hands(&link), TRAM_ETLS_CERTIFICATE);
        assert_failure(&link.client, TRAM_ETLS_CERTIFICATE, list[i].text);
        link_free(&link);
        tram_tls_config_release(server);
    }
    tram_tls_config_release(verifying);
    OPENSSL_free(others);
}

/* What is no name: an address of neither kind, a text with a NUL in it, and kinds that nobody asks for. rules: S-24 */
static void test_names_that_are_none_are_left_out(void **state) {
    (void)state;
    static const struct {
        const char *der; /* of one GeneralName */
        tram_tls_name_kind kind;
        const char *value; /* NULL: it is left out */
    } cases[] = {
        {"82:03:61:2e:62", TRAM_TLS_NAME_DNS, "a.b"},
        {"82:00", TRAM_TLS_NAME_DNS, ""},
        {"82:03:61:00:62", 0, NULL},
        {"82:02:61:00", 0, NULL},
        {"81:03:61:40:62", TRAM_TLS_NAME_EMAIL, "a@b"},
        {"81:03:00:40:62", 0, NULL},
        {"86:03:61:3a:62", TRAM_TLS_NAME_URI, "a:b"},
        {"86:01:00", 0, NULL},
        {"87:00", 0, NULL},
        {"87:03:01:02:03", 0, NULL},
        {"87:04:01:02:03:04", TRAM_TLS_NAME_ADDRESS, "1.2.3.4"},
        {"87:05:01:02:03:04:05", 0, NULL},
        {"87:0f:20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00", 0, NULL},
        {"87:10:20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00:01", TRAM_TLS_NAME_ADDRESS, "2001:db8::1"},
        {"87:11:20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00:01:00", 0, NULL},
        {"88:03:2a:03:04", 0, NULL}, /* a registered identifier */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char alternative[128];
        size_t size;
        /* With another one behind it, which is there in any case. */
        snprintf(alternative, sizeof alternative, "DER:30:%02zx:%s:82:01:7a", (strlen(cases[i].der) + 1) / 3 + 3,
                 cases[i].der);
        struct certificate *certificate = certificate_make(&(struct certificate_options){.alternative = alternative});
        tram_tls_peer_certificate *parsed = tram__tls_certificate_parse(certificate->x509, false, &size);
        assert_non_null(parsed);
        size_t found = cases[i].value ? 1 : 0;
        if (parsed->alternative_count != found + 1)
            fail_msg("%s: %zu names", cases[i].der, parsed->alternative_count);
        if (found) {
            assert_int_equal(parsed->alternative_names[0].kind, cases[i].kind);
            assert_string_equal(parsed->alternative_names[0].value, cases[i].value);
        }
        assert_int_equal(parsed->alternative_names[found].kind, TRAM_TLS_NAME_DNS);
        assert_string_equal(parsed->alternative_names[found].value, "z");
        assert_false(parsed->verified);
        memory_put(&tram__memory_default, parsed, size);
        certificate_free(certificate);
    }
}

/* However many a certificate has. */
static void test_so_many_names_are_told(void **state) {
    (void)state;
    enum { MOST = 256 };
    for (unsigned count = MOST - 1; count <= MOST + 1; count++) {
        char alternative[32 + 6 * (MOST + 1)];
        size_t size, used = (size_t)snprintf(alternative, sizeof alternative, "DER:30:82:%02x:%02x", 2 * count >> 8,
                                             2 * count & 0xff);
        for (unsigned i = 0; i < count; i++)
            used += (size_t)snprintf(alternative + used, sizeof alternative - used, ":82:00");
        struct certificate *certificate = certificate_make(&(struct certificate_options){.alternative = alternative});
        tram_tls_peer_certificate *parsed = tram__tls_certificate_parse(certificate->x509, true, &size);
        assert_non_null(parsed);
        assert_int_equal(parsed->alternative_count, count < MOST ? count : MOST);
        memory_put(&tram__memory_default, parsed, size);
        certificate_free(certificate);
    }
}

/* ---- Server name, ALPN ---- */

struct names {
    tram_tls_config *a, *b;
    char asked[64];
};

static int choose(void *arg, const char *name, tram_tls_config **ret_config) {
    struct names *names = arg;
    snprintf(names->asked, sizeof names->asked, "%s", name ? name : "(none)");
    if (name && strcmp(name, "b.example.com") == 0)
        *ret_config = names->b;
    return name && strcmp(name, "no.example.com") == 0 ? TRAM_ELIMIT : 0;
}

/* rules: S-8 */
static void test_a_server_chooses_by_the_name(void **state) {
    struct names names = {0};
    struct certificate *b = certificate_make(
        &(struct certificate_options){.issuer = authority.ca, .name = "b", .alternative = "DNS:b.example.com"});
    static const char *const alpn_b[] = {"b/1", NULL};
    tram_tls_certificate identity = identity_of(authority.server), identity_b = identity_of(b);
    names.a = config_make(&(tram_tls_options){
        .certificates = &identity, .certificate_count = 1, .server_name = choose, .server_name_arg = &names});
    names.b = config_make(&(tram_tls_options){
        .certificates = &identity_b, .certificate_count = 1, .alpn = alpn_b, .max_version = TRAM_TLS_1_2});
    tram_tls_config *client =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .alpn = alpn_b});
    struct link link;
    link_start(*state, &link, client, names.a, "b.example.com", NULL);
    assert_int_equal(shake_hands(&link), 0);
    assert_string_equal(names.asked, "b.example.com");
    assert_int_equal(X509_cmp(SSL_get0_peer_certificate(link.client.engine.ssl), b->x509), 0);
    assert_string_equal(SSL_get_version(link.client.engine.ssl), "TLSv1.2");
    const unsigned char *chosen;
    unsigned length;
    SSL_get0_alpn_selected(link.client.engine.ssl, &chosen, &length);
    assert_int_equal(length, 3);
    assert_memory_equal(chosen, "b/1", 3);
    link_free(&link);
    link_start(*state, &link, client, names.a, "a.example.com", NULL);
    assert_int_equal(shake_hands(&link), 0);
    assert_int_equal(X509_cmp(SSL_get0_peer_certificate(link.client.engine.ssl), authority.server->x509), 0);
    link_free(&link);
    link_start(*state, &link, client, names.a, "127.0.0.1", NULL);
    assert_int_equal(shake_hands(&link), 0);
    assert_string_equal(names.asked, "(none)");
    link_free(&link);
    link_start(*state, &link, client, names.a, "no.example.com", NULL);
    assert_int_equal(shake_hands(&link), TRAM_ELIMIT);
    assert_failure(&link.server, TRAM_ELIMIT, "the server name \"no.example.com\" is refused");
    assert_int_equal(tram__tls_engine_handshake(&link.client.engine, &link.client.failure), TRAM_ETLS);
    assert_failure(&link.client, TRAM_ETLS, "unrecognized name");
    link_free(&link);
    tram_tls_config_release(names.a);
    tram_tls_config_release(names.b);
    tram_tls_config_release(client);
    certificate_free(b);
}

/* What the config by name asks of clients is asked, and the first one's no more. rules: S-8 */
static void test_the_config_by_name_says_who_is_verified(void **state) {
    struct names names = {0};
    struct certificate *b = certificate_make(
        &(struct certificate_options){.issuer = authority.ca, .name = "b", .alternative = "DNS:b.example.com"});
    tram_tls_certificate identities[] = {identity_of(authority.server), identity_of(b)};
    tram_tls_config *client = config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem)});
    for (int second = 0; second < 2; second++) {
        for (int which = 0; which < 2; which++) { /* of the two asks for certificates */
            tram_tls_options options[2];
            for (int i = 0; i < 2; i++)
                options[i] = (tram_tls_options){.certificates = &identities[i],
                                                .certificate_count = 1,
                                                .ca = source_of(authority.ca->chain_pem),
                                                .verify = i == which ? TRAM_TLS_VERIFY_REQUIRED : TRAM_TLS_VERIFY_NONE,
                                                .server_name = i ? NULL : choose,
                                                .server_name_arg = &names};
            names.b = config_make(&options[1]);
            names.a = config_make(&options[0]);
            struct link link;
            link_start(*state, &link, client, names.a, second ? "b.example.com" : "a.example.com", NULL);
            assert_int_equal(shake_hands(&link), second == which ? TRAM_ETLS_CERTIFICATE : 0);
            link_free(&link);
            tram_tls_config_release(names.a);
            tram_tls_config_release(names.b);
        }
    }
    tram_tls_config_release(client);
    certificate_free(b);
}

/* Of what both know the server's order decides, but for who puts ChaCha first, having no AES in hardware. */
static void test_the_servers_order_of_ciphers_decides(void **state) {
#define AES_128 "ECDHE-ECDSA-AES128-GCM-SHA256"
#define AES_256 "ECDHE-ECDSA-AES256-GCM-SHA384"
#define CHACHA  "ECDHE-ECDSA-CHACHA20-POLY1305"
    static const struct {
        const char *client, *server, *chosen;
    } list[] = {
        {AES_128 ":" AES_256, AES_256 ":" AES_128, AES_256},
        {AES_256 ":" AES_128, AES_128 ":" AES_256, AES_128},
        {CHACHA ":" AES_256, AES_256 ":" CHACHA, CHACHA},
        {AES_128 ":" CHACHA, AES_256 ":" CHACHA ":" AES_128, CHACHA},
        {AES_128 ":" CHACHA ":" AES_256, AES_256 ":" CHACHA ":" AES_128, AES_256},
    };
    const tram_tls_certificate identity = identity_of(authority.server);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        tram_tls_config *client = config_make(&(tram_tls_options){
            .ca = source_of(authority.ca->chain_pem), .max_version = TRAM_TLS_1_2, .ciphers = list[i].client});
        tram_tls_config *server = config_make(
            &(tram_tls_options){.certificates = &identity, .certificate_count = 1, .ciphers = list[i].server});
        struct link link;
        link_start(*state, &link, client, server, "localhost", NULL);
        assert_int_equal(shake_hands(&link), 0);
        assert_string_equal(SSL_get_cipher_name(link.client.engine.ssl), list[i].chosen);
        link_free(&link);
        tram_tls_config_release(client);
        tram_tls_config_release(server);
    }
}

/* What the library needs itself for a config that is new to a loop; with OpenSSL's own: stress/tls_memory. rules: X-1
 */
static void test_without_memory_no_engine_starts(void **state) {
    struct world *world = *state;
    const tram_tls_certificate identity = identity_of(authority.server);
    uint64_t failed = 1;
    for (uint64_t n = 1; failed; n++) {
        assert_true(n < 100);
        world_reopen(world);
        tram_tls_config *config = config_make(&(tram_tls_options){.certificates = &identity, .certificate_count = 1});
        struct side side = {.piece = SIZE_MAX};
        memory_fail_others(n, 1);
        int code =
            tram__tls_engine_start(&side.engine, world->loop, &below,
                                   &(struct tls_engine_options){.config = config, .server = true}, &side.failure);
        failed = memory_failed();
        memory_fail_others(0, 0);
        assert_int_equal(code, failed ? -ENOMEM : 0);
        if (failed)
            assert_failure(&side, -ENOMEM, "out of memory");
        side.started = !code;
        side_free(&side);
        tram_tls_config_release(config);
    }
}

/* rules: S-9 */
static void test_protocols_are_negotiated_or_refused(void **state) {
    static const char *const ours[] = {"h2", "http/1.1", NULL}, *const theirs[] = {"http/1.1", "h2", NULL},
                             *const other[] = {"smtp", NULL};
    tram_tls_certificate identity = identity_of(authority.server);
    const tram_tls_source ca = source_of(authority.ca->chain_pem);
    tram_tls_options options = {.certificates = &identity, .certificate_count = 1, .alpn = ours};
    tram_tls_config *strict = config_make(&options);
    options.alpn_optional = true;
    tram_tls_config *lenient = config_make(&options);
    tram_tls_config *client = config_make(&(tram_tls_options){.ca = ca, .alpn = theirs});
    tram_tls_config *stranger = config_make(&(tram_tls_options){.ca = ca, .alpn = other});
    const struct {
        tram_tls_config *client, *server;
        const char *chosen; /* NULL: refused */
    } list[] = {
        {client, strict, "h2"},   {clients, strict, ""},   {client, servers, ""},
        {stranger, strict, NULL}, {stranger, lenient, ""},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        struct link link;
        link_start(*state, &link, list[i].client, list[i].server, "localhost", NULL);
        assert_int_equal(shake_hands(&link), list[i].chosen ? 0 : TRAM_ETLS);
        const unsigned char *chosen;
        unsigned length;
        SSL_get0_alpn_selected(link.server.engine.ssl, &chosen, &length);
        if (list[i].chosen) {
            assert_int_equal(length, strlen(list[i].chosen));
            assert_memory_equal(chosen, list[i].chosen, length);
        } else {
            assert_failure(&link.server, TRAM_ETLS, "no application protocol");
            assert_int_equal(tram__tls_engine_handshake(&link.client.engine, &link.client.failure), TRAM_ETLS);
            assert_failure(&link.client, TRAM_ETLS, "no application protocol");
        }
        link_free(&link);
    }
    tram_tls_config_release(strict);
    tram_tls_config_release(lenient);
    tram_tls_config_release(client);
    tram_tls_config_release(stranger);
}

/* ---- Ends ---- */

/* rules: S-12, S-15 */
static void test_close_notify_ends_both_ways(void **state) {
    struct link link;
    char byte;
    connect_ends(*state, &link);
    assert_int_equal(tram__tls_engine_write(&link.client.engine, "last", 4, &link.client.failure), 0);
    tram__tls_engine_close(&link.client.engine);
    tram__tls_engine_close(&link.client.engine);
    assert_int_equal(tram__tls_engine_write(&link.client.engine, "x", 1, &link.client.failure), TRAM_ESTATE);
    char last[8];
    assert_int_equal(read_all(&link.server, last, sizeof last), 4);
    assert_int_equal(read_all(&link.server, &byte, 1), 0);
    assert_true(link.server.engine.close_received);
    assert_int_equal(read_all(&link.client, &byte, 1), -EAGAIN);
    assert_sent(&link.server, &link.client, "one more"); /* TLS 1.3 ends one direction */
    tram__tls_engine_close(&link.server.engine);
    assert_int_equal(read_all(&link.client, &byte, 1), 0);
    assert_true(link.client.engine.close_received);
    link_free(&link);
}

/* rules: S-13 */
static void test_an_end_without_close_notify_is_told_apart(void **state) {
    struct link link;
    char byte;
    connect_ends(*state, &link);
    link.server.ended = true;
    assert_int_equal(read_all(&link.server, &byte, 1), 0);
    assert_false(link.server.engine.close_received);
    assert_sent(&link.server, &link.client, "still possible");
    tram__tls_engine_close(&link.server.engine);
    assert_int_equal(read_all(&link.client, &byte, 1), 0);
    assert_true(link.client.engine.close_received);
    link.client.ended = true;
    link.client.ended_code = -ECONNRESET;
    assert_int_equal(read_all(&link.client, &byte, 1), 0); /* the end stays what it was */
    link_free(&link);
    connect_ends(*state, &link);
    assert_int_equal(read_all(&link.client, &byte, 1), -EAGAIN); /* the tickets */
    link.client.ended = true;
    link.client.ended_code = -ECONNRESET;
    assert_int_equal(read_all(&link.client, &byte, 1), -ECONNRESET);
    link_free(&link);
}

/* What others of this thread have left in OpenSSL's queue: an error, or one that looks like a fatal alert. */
static void leave_error(bool alert) {
    if (alert)
        ERR_raise(ERR_LIB_SSL, SSL_R_SSLV3_ALERT_BAD_CERTIFICATE);
    else
        ERR_raise(ERR_LIB_PEM, PEM_R_NO_START_LINE);
}

static void test_errors_of_others_are_not_the_connections(void **state) {
    tram_tls_config *older =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .max_version = TRAM_TLS_1_2});
    for (int i = 0; i < 4; i++) {
        struct link link;
        char byte;
        bool alert = i & 1;
        link_start(*state, &link, i & 2 ? older : clients, servers, "localhost", NULL);
        leave_error(alert);
        assert_int_equal(shake_hands(&link), 0);
        leave_error(alert);
        assert_int_equal(tram__tls_engine_read(&link.client.engine, &byte, 1, &link.client.failure), -EAGAIN);
        assert_int_equal(tram__tls_engine_write(&link.client.engine, "x", 1, &link.client.failure), 0);
        assert_int_equal(tram__tls_engine_read(&link.server.engine, &byte, 1, &link.server.failure), 1);
        tram__tls_engine_close(&link.client.engine);
        leave_error(alert);
        assert_int_equal(tram__tls_engine_read(&link.server.engine, &byte, 1, &link.server.failure), 0);
        assert_true(link.server.engine.close_received && !link.server.engine.failed);
        assert_int_equal(tram__tls_engine_write(&link.server.engine, "y", 1, &link.server.failure), 0);
        leave_error(alert);
        link.client.bytes[link.client.size - 1] ^= 1;
        assert_int_equal(tram__tls_engine_read(&link.client.engine, &byte, 1, &link.client.failure), TRAM_ETLS);
        assert_failure(&link.client, TRAM_ETLS, "bad record mac");
        link_free(&link);
    }
    tram_tls_config_release(older);
}

static void test_changed_bytes_end_the_connection(void **state) {
    struct link link;
    char byte;
    connect_ends(*state, &link);
    assert_int_equal(tram__tls_engine_write(&link.client.engine, "text", 4, &link.client.failure), 0);
    link.server.bytes[link.server.size - 1] ^= 1;
    assert_int_equal(read_all(&link.server, &byte, 1), TRAM_ETLS);
    assert_failure(&link.server, TRAM_ETLS, "bad record mac");
    assert_int_equal(read_all(&link.client, &byte, 1), TRAM_ETLS);
    assert_failure(&link.client, TRAM_ETLS, "the peer sent the alert \"bad record mac\" (20)");
    tram__tls_engine_close(&link.server.engine); /* harmless */
    link_free(&link);
}

/* ---- Sessions ---- */

static tram_buffer *connect_and_save(struct world *world, tram_tls_config *client, tram_tls_config *server,
                                     tram_buffer *session, bool *ret_resumed) {
    struct link link;
    char byte;
    link_start(world, &link, client, server, "localhost", session);
    if (shake_hands(&link) != 0)
        fail_msg("%s%s", link.client.failure.text, link.server.failure.text);
    assert_int_equal(read_all(&link.client, &byte, 1), -EAGAIN);
    *ret_resumed = SSL_session_reused(link.client.engine.ssl);
    assert_int_equal(SSL_session_reused(link.server.engine.ssl), *ret_resumed);
    tram_buffer *saved;
    assert_int_equal(tram__tls_engine_session(&link.client.engine, &saved), 0);
    link_free(&link);
    return saved;
}

static SSL_SESSION *session_of(const tram_buffer *saved) {
    const unsigned char *data = tram_buffer_data(saved);
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &data, (long)tram_buffer_size(saved));
    assert_non_null(session);
    return session;
}

static bool same_ticket(const tram_buffer *one, const tram_buffer *other) {
    SSL_SESSION *sessions[] = {session_of(one), session_of(other)};
    const unsigned char *tickets[2];
    size_t sizes[2];
    for (int i = 0; i < 2; i++)
        SSL_SESSION_get0_ticket(sessions[i], &tickets[i], &sizes[i]);
    assert_true(sizes[0] > 0 && sizes[1] > 0);
    bool same = sizes[0] == sizes[1] && memcmp(tickets[0], tickets[1], sizes[0]) == 0;
    SSL_SESSION_free(sessions[0]);
    SSL_SESSION_free(sessions[1]);
    return same;
}

static void resume_with(struct world *world, tram_tls_version version) {
    tram_tls_config *client =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .max_version = version});
    tram_tls_config *server = server_config(authority.server);
    bool resumed;
    tram_buffer *first = connect_and_save(world, client, server, NULL, &resumed);
    assert_false(resumed);
    assert_non_null(first);
    tram_buffer *second = connect_and_save(world, client, server, first, &resumed);
    assert_true(resumed);
    /* A client of TLS 1.3 uses a ticket once (RFC 8446, C.4), and so gets another one for the next time. */
    assert_int_equal(same_ticket(first, second), version != TRAM_TLS_1_3);
    /* Another loop of the same config understands it: that is, after a new SSL_CTX. */
    assert_int_equal(tram_tls_config_rotate_ticket_keys(server), 0);
    tram_buffer *third = connect_and_save(world, client, server, second, &resumed);
    assert_true(resumed);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_tls_config_rotate_ticket_keys(server), 0);
    tram_buffer_release(connect_and_save(world, client, server, second, &resumed));
    assert_false(resumed); /* its key is gone */
    tram_buffer_release(first);
    tram_buffer_release(second);
    tram_buffer_release(third);
    tram_tls_config_release(client);
    tram_tls_config_release(server);
}

static void test_sessions_are_resumed_by_tickets(void **state) {
    resume_with(*state, TRAM_TLS_1_3);
    resume_with(*state, TRAM_TLS_1_2);
}

/* As several machines behind one address have them. */
static void test_sessions_are_resumed_by_whoever_has_the_same_ticket_keys(void **state) {
    struct world *world = *state;
    unsigned char keys[2 * TRAM_TLS_TICKET_KEY_SIZE];
    tram_tls_config *server = server_config(authority.server), *other = server_config(authority.server);
    bool resumed;
    for (size_t i = 0; i < sizeof keys; i++)
        keys[i] = (unsigned char)(i * 7);
    assert_int_equal(tram_tls_config_set_ticket_keys(server, keys, 2), 0);
    tram_buffer *saved = connect_and_save(world, clients, server, NULL, &resumed);
    tram_buffer_release(connect_and_save(world, clients, other, saved, &resumed));
    assert_false(resumed); /* it has keys of its own */
    assert_int_equal(tram_tls_config_set_ticket_keys(other, keys + TRAM_TLS_TICKET_KEY_SIZE, 1), 0);
    tram_buffer_release(connect_and_save(world, clients, other, saved, &resumed));
    assert_false(resumed); /* the first one is for what is new */
    assert_int_equal(tram_tls_config_set_ticket_keys(other, keys, 2), 0);
    tram_buffer_release(connect_and_save(world, clients, other, saved, &resumed));
    assert_true(resumed);
    tram_buffer_release(saved);
    tram_tls_config_release(server);
    tram_tls_config_release(other);
}

static void test_sessions_are_resumed_on_another_loop_and_after_a_reload(void **state) {
    struct world *world = *state, other;
    void *other_state = &other;
    bool resumed;
    assert_int_equal(world_setup(&other_state), 0);
    tram_tls_certificate identity = identity_of(authority.server);
    const tram_tls_options options = {.certificates = &identity, .certificate_count = 1};
    tram_tls_config *server = config_make(&options);
    tram_buffer *first = connect_and_save(world, clients, server, NULL, &resumed);
    tram_buffer_release(connect_and_save(other_state, clients, server, first, &resumed));
    assert_true(resumed);
    assert_int_equal(tram_tls_config_reload(server, &options, NULL), 0);
    tram_buffer_release(connect_and_save(world, clients, server, first, &resumed));
    assert_true(resumed);
    /* Whom it trusts is another question now. */
    tram_tls_options asking = options;
    asking.ca = source_of(authority.ca->chain_pem);
    asking.verify = TRAM_TLS_VERIFY_OPTIONAL;
    assert_int_equal(tram_tls_config_reload(server, &asking, NULL), 0);
    tram_buffer_release(connect_and_save(world, clients, server, first, &resumed));
    assert_false(resumed);
    tram_buffer_release(first);
    tram_tls_config_release(server);
    assert_int_equal(world_teardown(&other_state), 0);
}

static void test_a_session_is_only_for_whom_it_was_made(void **state) {
    bool resumed;
    tram_tls_config *careless = config_make(&(tram_tls_options){.verify = TRAM_TLS_VERIFY_NONE});
    tram_buffer *unverified = connect_and_save(*state, careless, servers, NULL, &resumed);
    tram_buffer_release(connect_and_save(*state, clients, servers, unverified, &resumed));
    assert_false(resumed); /* or nobody would ever have looked at the certificate */
    tram_buffer *verified = connect_and_save(*state, clients, servers, NULL, &resumed);
    struct link link;
    link_start(*state, &link, clients, servers, "elsewhere", verified);
    assert_int_equal(shake_hands(&link), TRAM_ETLS_CERTIFICATE);
    link_free(&link);
    tram_buffer *garbage = tram_buffer_copy("garbage", 7);
    struct tls_engine engine;
    struct tls_failure failure;
    struct world *world = *state;
    const struct tls_engine_options options = {.config = clients, .session = garbage};
    assert_int_equal(tram__tls_engine_start(&engine, world->loop, &below, &options, &failure), TRAM_EVALUE);
    tram_buffer_release(garbage);
    tram_buffer_release(unverified);
    tram_buffer_release(verified);
    tram_tls_config_release(careless);
}

/* ---- Sessions that the server remembers ---- */

struct memory {
    tram_tls_config *client, *server;
    tram_tls_options serving;
    tram_tls_certificate identity;
};

/* Clients of TLS 1.2 without tickets, or a server of TLS 1.3 without. */
static void memory_open(struct memory *memory, tram_tls_version version, unsigned places) {
    const int none = TRAM_TLS_NO_TICKETS;
    const tram_tls_options client = {.ca = source_of(authority.ca->chain_pem),
                                     .max_version = version,
                                     .tickets = version == TRAM_TLS_1_2 ? none : 0};
    memory->identity = identity_of(authority.server);
    memory->serving = (tram_tls_options){.certificates = &memory->identity,
                                         .certificate_count = 1,
                                         .tickets = version == TRAM_TLS_1_3 ? none : 0,
                                         .session_cache = places};
    memory->client = config_make(&client);
    memory->server = config_make(&memory->serving);
}

static void memory_close(struct memory *memory) {
    tram_tls_config_release(memory->client);
    tram_tls_config_release(memory->server);
}

static tram_buffer *new_session(struct world *world, struct memory *memory) {
    bool resumed;
    tram_buffer *session = connect_and_save(world, memory->client, memory->server, NULL, &resumed);
    assert_false(resumed);
    return session;
}

static bool resumes(struct world *world, struct memory *memory, tram_buffer *session) {
    bool resumed;
    tram_buffer_release(connect_and_save(world, memory->client, memory->server, session, &resumed));
    return resumed;
}

static void remember(struct world *world, tram_tls_version version) {
    struct world other;
    void *other_state = &other;
    struct memory memory;
    assert_int_equal(world_setup(&other_state), 0);
    memory_open(&memory, version, 256); /* each handshake of TLS 1.3 brings a new one, which shall find a free place */
    tram_buffer *session = new_session(world, &memory);
    assert_non_null(session);
    assert_true(resumes(world, &memory, session));
    assert_true(resumes(other_state, &memory, session)); /* another loop */
    assert_int_equal(tram_tls_config_reload(memory.server, &memory.serving, NULL), 0);
    assert_true(resumes(world, &memory, session));
    /* Whom it trusts is another question then; and another number of places begins anew. */
    tram_tls_options asking = memory.serving;
    asking.ca = source_of(authority.ca->chain_pem);
    asking.verify = TRAM_TLS_VERIFY_OPTIONAL;
    assert_int_equal(tram_tls_config_reload(memory.server, &asking, NULL), 0);
    assert_false(resumes(world, &memory, session));
    assert_int_equal(tram_tls_config_reload(memory.server, &memory.serving, NULL), 0);
    assert_true(resumes(world, &memory, session));
    memory.serving.session_cache = 128;
    assert_int_equal(tram_tls_config_reload(memory.server, &memory.serving, NULL), 0);
    assert_false(resumes(world, &memory, session));
    tram_buffer_release(session);
    memory_close(&memory);
    assert_int_equal(world_teardown(&other_state), 0);
}

static void test_sessions_are_remembered_for_who_has_no_ticket(void **state) {
    remember(*state, TRAM_TLS_1_2);
    remember(*state, TRAM_TLS_1_3);
}

static void test_nothing_is_remembered_without_being_asked_for(void **state) {
    struct memory memory;
    memory_open(&memory, TRAM_TLS_1_2, 0);
    tram_buffer *session = new_session(*state, &memory);
    assert_false(session && resumes(*state, &memory, session));
    tram_buffer_release(session);
    memory_close(&memory);
}

/* Without a handshake, which would bring a new one. */
static bool is_remembered(struct memory *memory, tram_buffer *buffer) {
    const unsigned char *data = tram_buffer_data(buffer);
    unsigned size;
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &data, (long)tram_buffer_size(buffer));
    const unsigned char *id = SSL_SESSION_get_id(session, &size);
    SSL_SESSION *known = tram__tls_cache_get(&memory->server->cache, id, size);
    bool found = known != NULL;
    SSL_SESSION_free(known);
    SSL_SESSION_free(session);
    return found;
}

static void test_a_new_session_takes_the_place_of_an_old_one(void **state) {
    enum { SESSIONS = 30, PLACES = 8 };
    struct memory memory;
    tram_buffer *sessions[SESSIONS];
    memory_open(&memory, TRAM_TLS_1_2, PLACES);
    for (int i = 0; i < SESSIONS; i++)
        sessions[i] = new_session(*state, &memory);
    assert_true(is_remembered(&memory, sessions[SESSIONS - 1]));
    unsigned known = 0;
    for (int i = 0; i < SESSIONS; i++)
        known += is_remembered(&memory, sessions[i]);
    /* A group that nobody came to for so long is as good as impossible, one that is not full quite possible. */
    assert_true(known > PLACES / 2 && known <= PLACES);
    assert_true(resumes(*state, &memory, sessions[SESSIONS - 1]));
    for (int i = 0; i < SESSIONS; i++)
        tram_buffer_release(sessions[i]);
    memory_close(&memory);
}

static void test_the_session_of_a_failed_connection_is_forgotten(void **state) {
    static const char nonsense[] = "\x17\x03\x03\x00\x13xxxxxxxxxxxxxxxxxxx";
    struct memory memory;
    struct link link;
    char byte;
    memory_open(&memory, TRAM_TLS_1_2, 8);
    tram_buffer *session = new_session(*state, &memory);
    link_start(*state, &link, memory.client, memory.server, "localhost", session);
    assert_int_equal(shake_hands(&link), 0);
    append(&link.server, nonsense, sizeof nonsense - 1);
    assert_int_equal(read_all(&link.server, &byte, 1), TRAM_ETLS);
    link_free(&link);
    assert_false(resumes(*state, &memory, session));
    tram_buffer_release(session);
    memory_close(&memory);
}

static void test_tickets_are_as_many_as_asked_for(void **state) {
    tram_tls_certificate identity = identity_of(authority.server);
    for (int tickets = TRAM_TLS_NO_TICKETS; tickets <= 2; tickets++) {
        tram_tls_config *server =
            config_make(&(tram_tls_options){.certificates = &identity, .certificate_count = 1, .tickets = tickets});
        bool resumed;
        tram_buffer *session = connect_and_save(*state, clients, server, NULL, &resumed);
        assert_int_equal(session != NULL, tickets != TRAM_TLS_NO_TICKETS);
        tram_buffer_release(session);
        tram_tls_config_release(server);
    }
}

/* ---- Keys ---- */

static void test_S_25_key_updates_are_followed_up_to_a_limit(void **state) {
    struct link link;
    char byte;
    connect_ends(*state, &link);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(tram__tls_engine_update_keys(&link.client.engine, &link.client.failure), 0);
        assert_sent(&link.client, &link.server, "with new keys");
        assert_sent(&link.server, &link.client, "with new keys");
    }
    for (int i = 0; i < 64; i++)
        assert_int_equal(tram__tls_engine_update_keys(&link.client.engine, &link.client.failure), 0);
    assert_int_equal(read_all(&link.server, &byte, 1), TRAM_ELIMIT);
    assert_failure(&link.server, TRAM_ELIMIT, "new keys too often");
    link_free(&link);
}

static void test_S_25_renegotiation_is_refused(void **state) {
    tram_tls_config *old =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .max_version = TRAM_TLS_1_2});
    struct link link;
    char byte;
    link_start(*state, &link, old, servers, "localhost", NULL);
    assert_int_equal(shake_hands(&link), 0);
    struct tls_engine *engine = &link.client.engine;
    SSL_clear_options(engine->ssl, SSL_OP_NO_RENEGOTIATION);
    engine->loop->current = engine;
    assert_int_equal(SSL_renegotiate(engine->ssl), 1);
    assert_int_equal(SSL_do_handshake(engine->ssl), -1);
    ERR_clear_error();
    engine->loop->current = NULL;
    assert_int_equal(read_all(&link.server, &byte, 1), -EAGAIN); /* a warning, and nothing else happens */
    assert_int_equal(tram__tls_engine_write(&link.server.engine, "x", 1, &link.server.failure), 0);
    assert_int_equal(read_all(&link.client, &byte, 1), TRAM_ETLS); /* for this client that is the end */
    assert_failure(&link.client, TRAM_ETLS, "no renegotiation");
    link_free(&link);
    tram_tls_config_release(old);
}

/* ---- Records of a client that does what OpenSSL's would not ---- */

/* What a client of TLS 1.2 with ECDHE-ECDSA-AES128-GCM-SHA256 protects its records with (RFC 5246, 6.3). */
struct forger {
    unsigned char key[16], iv[4];
    uint64_t sequence; /* of the next record */
};

static void forger_init(struct forger *forger, const SSL *ssl) {
    unsigned char master[48], seed[13 + 64] = "key expansion", block[40];
    SSL_get_server_random(ssl, seed + 13, 32);
    SSL_get_client_random(ssl, seed + 45, 32);
    size_t size = SSL_SESSION_get_master_key(SSL_get_session(ssl), master, sizeof master);
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "TLS1-PRF", NULL);
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(kdf);
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_utf8_string("digest", digest, 6),
                                 OSSL_PARAM_octet_string("secret", master, size),
                                 OSSL_PARAM_octet_string("seed", seed, sizeof seed), OSSL_PARAM_END};
    assert_int_equal(EVP_KDF_derive(context, block, sizeof block, params), 1);
    memcpy(forger->key, block, 16);
    memcpy(forger->iv, block + 32, 4);
    forger->sequence = 1; /* its Finished was the first */
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
}

/* One record (RFC 5288) for the other end. */
static void forge(struct forger *forger, struct side *to, unsigned char type, const void *data, size_t size) {
    unsigned char record[5 + 8 + 256 + 16] = {type, 3, 3, 0, (unsigned char)(8 + size + 16)};
    unsigned char nonce[12], about[13] = {0};
    int length;
    assert_true(size <= 200);
    for (int i = 0; i < 8; i++)
        about[i] = record[5 + i] = (unsigned char)(forger->sequence >> (56 - 8 * i));
    forger->sequence++;
    memcpy(nonce, forger->iv, 4);
    memcpy(nonce + 4, record + 5, 8);
    memcpy(about + 8, (unsigned char[]){type, 3, 3, 0, (unsigned char)size}, 5);
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex(cipher, EVP_aes_128_gcm(), NULL, forger->key, nonce), 1);
    assert_int_equal(EVP_EncryptUpdate(cipher, NULL, &length, about, sizeof about), 1);
    assert_int_equal(EVP_EncryptUpdate(cipher, record + 13, &length, data, (int)size), 1);
    assert_int_equal(EVP_EncryptFinal_ex(cipher, record + 13 + size, &length), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, 16, record + 13 + size), 1);
    EVP_CIPHER_CTX_free(cipher);
    append(to, record, 13 + size + 16);
}

/* Each time costs an answer of ours, which whoever does not read it makes us keep. */
static void test_S_25_renegotiation_is_asked_for_up_to_a_limit(void **state) {
    tram_tls_config *old = config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem),
                                                           .ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256",
                                                           .max_version = TRAM_TLS_1_2});
    const unsigned char hello[] = {SSL3_MT_CLIENT_HELLO, 0, 0, 0};
    struct link link;
    struct forger forger;
    char byte;
    link_start(*state, &link, old, servers, "localhost", NULL);
    assert_int_equal(shake_hands(&link), 0);
    forger_init(&forger, link.client.engine.ssl);
    forge(&forger, &link.server, SSL3_RT_APPLICATION_DATA, "x", 1);
    assert_int_equal(read_all(&link.server, &byte, 1), 1);
    for (int i = 0; i < 20; i++)
        forge(&forger, &link.server, SSL3_RT_HANDSHAKE, hello, sizeof hello);
    assert_int_equal(read_all(&link.server, &byte, 1), -EAGAIN);
    assert_int_equal(link.client.size - link.client.begin, 20 * 31); /* warnings */
    for (int i = 0; i < 5000; i++)
        forge(&forger, &link.server, SSL3_RT_HANDSHAKE, hello, sizeof hello);
    assert_int_equal(read_all(&link.server, &byte, 1), TRAM_ELIMIT);
    assert_failure(&link.server, TRAM_ELIMIT, "new keys too often");
    assert_true(link.client.size - link.client.begin < 40000); /* of what OpenSSL had read by then */
    link_free(&link);
    tram_tls_config_release(old);
}

/* The same of a server. */
static void test_S_25_a_client_is_asked_to_renegotiate_up_to_a_limit(void **state) {
    tram_tls_config *old =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .max_version = TRAM_TLS_1_2});
    struct link link;
    char byte;
    link_start(*state, &link, old, servers, "localhost", NULL);
    assert_int_equal(shake_hands(&link), 0);
    struct tls_engine *engine = &link.server.engine;
    SSL_clear_options(engine->ssl, SSL_OP_NO_RENEGOTIATION);
    for (int i = 0; i < 1000; i++) {
        engine->loop->current = engine;
        assert_int_equal(SSL_renegotiate(engine->ssl), 1);
        assert_int_equal(SSL_do_handshake(engine->ssl), 1);
        engine->loop->current = NULL;
    }
    assert_int_equal(read_all(&link.client, &byte, 1), TRAM_ELIMIT);
    assert_failure(&link.client, TRAM_ELIMIT, "new keys too often");
    link_free(&link);
    tram_tls_config_release(old);
}

/* Descriptor 0 is as good as any, and closed as any. */
static void test_secrets_are_logged_where_asked_for(void **state) {
    char path[] = "/tmp/tram-keylog-XXXXXX";
    int made = mkstemp(path), fd = fcntl(made, F_DUPFD_CLOEXEC, 3);
    assert_true(fd >= 0);
    close(made);
    tram_tls_config *logging =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .keylog_file = path});
    assert_true(fcntl(0, F_GETFD) >= 0); /* the world had left it free */
    struct link link;
    link_start(*state, &link, logging, servers, "localhost", NULL);
    assert_int_equal(shake_hands(&link), 0);
    char text[4096] = {0};
    assert_true(read(fd, text, sizeof text - 1) > 0);
    assert_non_null(strstr(text, "CLIENT_TRAFFIC_SECRET_0 "));
    assert_int_equal(text[strlen(text) - 1], '\n');
    link_free(&link);
    tram_tls_config_release(logging);
    close(fd);
    unlink(path);
}

/* ---- Loops ---- */

/* A slot that two had in common was an SSL_CTX to the one and pipes to the other. */
static void test_what_a_loop_has_for_tls_is_nobody_elses(void **state) {
    struct world *world = *state;
    const struct tls_loop *tls = tram__tls_loop_open(world->loop);
    for (unsigned slot = 0; slot < LOOP_SLOT_COUNT; slot++)
        assert_true((world->loop->slots[slot] == &tls->state) == (slot == TRANSPORT_SLOT_TLS));
    for (unsigned slot = TRANSPORT_SLOT; slot < TRANSPORT_SLOT_TLS; slot++)
        assert_ptr_not_equal(world->loop->slots[slot], &tls->state);
}

static void test_a_loop_forgets_what_nobody_uses(void **state) {
    struct world *world = *state;
    struct link link;
    for (int i = 0; i < 3; i++) {
        tram_tls_config *server = server_config(authority.server);
        link_start(world, &link, clients, server, "localhost", NULL);
        tram_tls_config_release(server); /* the connection goes on with it */
        assert_int_equal(shake_hands(&link), 0);
        link_free(&link);
    }
    /* The one for clients and the last, which is swept when another is made. */
    assert_int_equal(list_validate(&tram__tls_loop_open(world->loop)->contexts), 2);
}

static void test_a_reload_serves_new_connections_only(void **state) {
    struct world *world = *state;
    struct certificate *renewed = certificate_make(
        &(struct certificate_options){.issuer = authority.ca, .name = "renewed", .alternative = "DNS:localhost"});
    tram_tls_certificate identity = identity_of(renewed);
    tram_tls_config *server = server_config(authority.server);
    struct link old, new;
    link_start(world, &old, clients, server, "localhost", NULL);
    const tram_tls_options options = {.certificates = &identity, .certificate_count = 1};
    assert_int_equal(tram_tls_config_reload(server, &options, NULL), 0);
    link_start(world, &new, clients, server, "localhost", NULL);
    assert_int_equal(shake_hands(&old), 0);
    assert_int_equal(shake_hands(&new), 0);
    assert_int_equal(X509_cmp(SSL_get0_peer_certificate(old.client.engine.ssl), authority.server->x509), 0);
    assert_int_equal(X509_cmp(SSL_get0_peer_certificate(new.client.engine.ssl), renewed->x509), 0);
    link_free(&old);
    link_free(&new);
    tram_tls_config_release(server);
    certificate_free(renewed);
}

static void test_algorithms_of_a_loop_of_its_own(void **state) {
    tram_tls_certificate identity = identity_of(authority.server);
    tram_tls_config *server = config_make(
        &(tram_tls_options){.certificates = &identity, .certificate_count = 1, .own_library_context = true});
    tram_tls_config *client =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .own_library_context = true});
    bool resumed;
    tram_buffer *session = connect_and_save(*state, client, server, NULL, &resumed);
    tram_buffer_release(connect_and_save(*state, client, server, session, &resumed));
    assert_true(resumed);
    tram_buffer_release(session);
    tram_tls_config_release(server);
    tram_tls_config_release(client);
}

static void test_an_engine_moves_to_another_loop(void **state) {
    struct world *world = *state, other;
    void *other_state = &other;
    assert_int_equal(world_setup(&other_state), 0);
    struct world *destination = other_state;
    struct link link;
    connect_ends(world, &link);
    assert_int_equal(tram__tls_engine_write(&link.client.engine, "before", 6, &link.client.failure), 0);
    tram__tls_engine_leave(&link.server.engine);
    assert_int_equal(tram__tls_engine_arrive(&link.server.engine, destination->loop), 0);
    char text[16];
    assert_int_equal(read_all(&link.server, text, sizeof text), 6);
    assert_sent(&link.server, &link.client, "from there");
    link_free(&link);
    assert_int_equal(world_teardown(&other_state), 0);
}

static void assert_gives_back(struct tls_loop *loop, bool gives) {
    size_t before = mallinfo2().uordblks;
    assert_false(tram__tls_idle_end_round(loop));
    size_t after = mallinfo2().uordblks;
    if (before > 0) /* a sanitizer counts nothing */
        assert_int_equal(after + 30000 < before, gives);
}

/* Says so much that its buffers are kept. */
static void make_busy(struct link *link) {
    for (int i = 0; i < TRAM_TLS_BUSY_USES; i++) {
        assert_sent(&link->client, &link->server, "a word");
        assert_sent(&link->server, &link->client, "and another");
    }
}

/* Bytes that are allocated, of which a sanitizer knows nothing: 0. */
static size_t allocated(void) {
    return mallinfo2().uordblks;
}

static void test_who_says_little_has_no_buffers(void **state) {
    struct link link;
    connect_ends(*state, &link);
    char byte;
    assert_int_equal(read_all(&link.client, &byte, 1), -EAGAIN);
    assert_sent(&link.client, &link.server, "a word");
    struct tls_loop *loop = link.client.engine.loop;
    assert_true(list_empty(&loop->used) && list_empty(&loop->resting));
    size_t quiet = allocated();
    SSL_free_buffers(link.client.engine.ssl);
    SSL_free_buffers(link.server.engine.ssl);
    assert_int_equal(allocated(), quiet); /* there were none */
    make_busy(&link);
    assert_false(list_empty(&loop->used));
    if (quiet > 0)
        assert_true(allocated() > quiet + 2 * 30000);
    link_free(&link);
}

/* Of two, one is used in each round. */
static void test_idle_buffers_are_given_back(void **state) {
    struct link busy, idle;
    char byte;
    connect_ends(*state, &busy);
    connect_ends(*state, &idle);
    make_busy(&busy);
    make_busy(&idle);
    assert_int_equal(read_all(&idle.client, &byte, 1), -EAGAIN);
    struct tls_loop *loop = idle.client.engine.loop;
    assert_gives_back(loop, false); /* they were used in this round */
    assert_sent(&busy.client, &busy.server, "still here");
    assert_gives_back(loop, true);
    assert_false(list_empty(&loop->resting));
    assert_sent(&busy.server, &busy.client, "still here");
    assert_gives_back(loop, false);
    make_busy(&idle);
    assert_gives_back(loop, true); /* the busy one's, which rests now */
    assert_gives_back(loop, true);
    assert_true(list_empty(&loop->resting) && list_empty(&loop->used));
    assert_sent(&busy.server, &busy.client, "all the same");
    link_free(&busy);
    link_free(&idle);
    assert_true(list_empty(&loop->used));
}

/* Many at once are no long pause for others. */
static void test_buffers_are_given_back_in_several_ticks(void **state) {
    enum { COUNT = TRAM_TLS_TRIMS_PER_TICK / 2 + 2 };
    struct link *links = calloc(COUNT, sizeof *links);
    for (size_t i = 0; i < COUNT; i++) {
        connect_ends(*state, &links[i]);
        make_busy(&links[i]);
    }
    struct tls_loop *loop = links[0].client.engine.loop;
    assert_false(tram__tls_idle_end_round(loop));
    assert_true(tram__tls_idle_end_round(loop));
    assert_false(list_empty(&loop->resting));
    assert_false(tram__tls_idle_end_round(loop));
    assert_true(list_empty(&loop->resting));
    for (size_t i = 0; i < COUNT; i++)
        link_free(&links[i]);
    free(links);
}

/* An engine that is in none has the round 0. */
static void test_rounds_of_idle_buffers_pass_by_0(void **state) {
    struct link link;
    connect_ends(*state, &link);
    struct tls_loop *loop = link.client.engine.loop;
    loop->idle_round = UINT16_MAX;
    assert_false(tram__tls_idle_end_round(loop));
    assert_int_equal(loop->idle_round, 1);
    link_free(&link);
}

/* An id comes from the peer, who may make it as short as it likes; ours are longer than what is hashed of them. */
static void test_ids_of_another_length_are_nowhere(void **state) {
    static const unsigned char id[SSL_MAX_SSL_SESSION_ID_LENGTH + 1];
    struct tls_cache cache;
    tram__tls_cache_init(&cache);
    assert_true(tram__tls_cache_resize(&cache, 4));
    for (size_t size = 0; size <= sizeof id; size++)
        assert_null(tram__tls_cache_get(&cache, id, size));
    struct link link;
    connect_ends(*state, &link);
    SSL_SESSION *session = SSL_SESSION_dup(SSL_get0_session(link.server.engine.ssl)), *known;
    link_free(&link);
    for (unsigned size = 4; size <= 32; size += 4) {
        assert_int_equal(SSL_SESSION_set1_id(session, id, size), 1);
        tram__tls_cache_put(&cache, session);
        known = tram__tls_cache_get(&cache, id, size);
        assert_int_equal(known != NULL, size >= sizeof(uint64_t));
        SSL_SESSION_free(known);
    }
    SSL_SESSION_free(session);
    tram__tls_cache_fini(&cache);
}

int main(void) {
#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_setup, world_teardown)
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_bytes_go_both_ways_after_a_handshake),
        IN_WORLD(test_a_handshake_goes_by_single_bytes),
        IN_WORLD(test_one_record_is_one_write_below),
        IN_WORLD(test_versions_are_those_of_both),
        IN_WORLD(test_no_shared_cipher_is_said),
        IN_WORLD(test_a_peer_that_speaks_no_tls_is_told_apart),
        IN_WORLD(test_an_end_within_the_handshake_is_a_reset),
        IN_WORLD(test_certificates_are_refused_with_the_reason),
        IN_WORLD(test_names_and_addresses_are_those_of_the_certificate),
        IN_WORLD(test_a_name_that_is_none_is_refused_at_once),
        IN_WORLD(test_verification_can_be_left_out),
        IN_WORLD(test_revoked_certificates_are_refused),
        IN_WORLD(test_a_client_can_be_asked_for_its_certificate),
        IN_WORLD(test_a_role_must_be_possible),
        IN_WORLD(test_only_whole_labels_of_alternative_names_count),
        IN_WORLD(test_a_stapled_answer_is_judged),
        IN_WORLD(test_a_stapled_answer_of_another_kind),
        IN_WORLD(test_names_that_are_none_are_left_out),
        IN_WORLD(test_so_many_names_are_told),
        IN_WORLD(test_a_server_chooses_by_the_name),
        IN_WORLD(test_the_config_by_name_says_who_is_verified),
        IN_WORLD(test_the_servers_order_of_ciphers_decides),
        IN_WORLD(test_without_memory_no_engine_starts),
        IN_WORLD(test_protocols_are_negotiated_or_refused),
        IN_WORLD(test_close_notify_ends_both_ways),
        IN_WORLD(test_an_end_without_close_notify_is_told_apart),
        IN_WORLD(test_errors_of_others_are_not_the_connections),
        IN_WORLD(test_changed_bytes_end_the_connection),
        IN_WORLD(test_sessions_are_resumed_by_tickets),
        IN_WORLD(test_sessions_are_resumed_by_whoever_has_the_same_ticket_keys),
        IN_WORLD(test_sessions_are_resumed_on_another_loop_and_after_a_reload),
        IN_WORLD(test_a_session_is_only_for_whom_it_was_made),
        IN_WORLD(test_sessions_are_remembered_for_who_has_no_ticket),
        IN_WORLD(test_nothing_is_remembered_without_being_asked_for),
        IN_WORLD(test_a_new_session_takes_the_place_of_an_old_one),
        IN_WORLD(test_the_session_of_a_failed_connection_is_forgotten),
        IN_WORLD(test_tickets_are_as_many_as_asked_for),
        IN_WORLD(test_S_25_key_updates_are_followed_up_to_a_limit),
        IN_WORLD(test_S_25_renegotiation_is_refused),
        IN_WORLD(test_S_25_renegotiation_is_asked_for_up_to_a_limit),
        IN_WORLD(test_S_25_a_client_is_asked_to_renegotiate_up_to_a_limit),
        IN_WORLD(test_secrets_are_logged_where_asked_for),
        IN_WORLD(test_what_a_loop_has_for_tls_is_nobody_elses),
        IN_WORLD(test_a_loop_forgets_what_nobody_uses),
        IN_WORLD(test_a_reload_serves_new_connections_only),
        IN_WORLD(test_algorithms_of_a_loop_of_its_own),
        IN_WORLD(test_an_engine_moves_to_another_loop),
        IN_WORLD(test_who_says_little_has_no_buffers),
        IN_WORLD(test_idle_buffers_are_given_back),
        IN_WORLD(test_buffers_are_given_back_in_several_ticks),
        IN_WORLD(test_rounds_of_idle_buffers_pass_by_0),
        IN_WORLD(test_ids_of_another_length_are_nowhere),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
