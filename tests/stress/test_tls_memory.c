/*
 * OpenSSL without memory: each allocation of its own fails in turn during a handshake, an echo and an end, alone or
 * with all that follow. A program of its own, since OpenSSL takes other functions for memory only before its first use.
 *
 * Nothing of ours may suffer: see test_tls_faults.c. OpenSSL itself loses blocks in some places then. Where a visit has
 * lost some, that is printed, and the same place is made to fail where nobody but OpenSSL is at work: what is not lost
 * there was lost by us.
 *
 * TRAM_TEST_FULL: every allocation, instead of some.
 */
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "support/tls/ends.h"
#include "support/tls/visit.h"
#include "transports/tls/build.h"

/* ---- OpenSSL's memory ---- */

/* Where OpenSSL asks for memory, in its own words. */
struct place {
    const char *file; /* NULL: anywhere */
    int line;
};

static struct {
    struct place place; /* only calls there are counted */
    uint64_t calls, first, last;
    uint64_t failed;
    struct place failed_at; /* the first */
    int64_t live;           /* blocks */
} memory;

static bool is_there(const struct place *place, const char *file, int line) {
    return !place->file || (place->line == line && strcmp(place->file, file) == 0);
}

/* All places, while somebody looks. */
enum { PLACES = 1000 };
static struct {
    bool looks;
    unsigned count;
    uint64_t calls;
    struct place places[PLACES];
    uint64_t times[PLACES]; /* that it was asked for there */
    uint64_t first[PLACES]; /* … the first of all calls */
} seen;

static void see(const char *file, int line) {
    unsigned i = 0;
    seen.calls++;
    while (i < seen.count && !is_there(&seen.places[i], file, line))
        i++;
    if (i == PLACES)
        return;
    if (i == seen.count) {
        seen.places[seen.count++] = (struct place){file, line};
        seen.times[i] = 0;
        seen.first[i] = seen.calls;
    }
    seen.times[i]++;
}

static bool fails(const char *file, int line) {
    if (seen.looks)
        see(file, line);
    if (memory.first == 0 || !is_there(&memory.place, file, line))
        return false;
    memory.calls++;
    if (memory.calls < memory.first || memory.calls > memory.last)
        return false;
    if (memory.failed++ == 0)
        memory.failed_at = (struct place){file, line};
    return true;
}

static void *get(size_t size, const char *file, int line) {
    void *block = fails(file, line) ? NULL : malloc(size);
    memory.live += block != NULL;
    return block;
}

static void put(void *block, const char *file, int line) {
    (void)file, (void)line;
    memory.live -= block != NULL;
    free(block);
}

static void *resize(void *block, size_t size, const char *file, int line) {
    if (!block)
        return get(size, file, line);
    if (size > 0)
        return fails(file, line) ? NULL : realloc(block, size);
    put(block, file, line);
    return NULL;
}

/* The `nth` call there from now on and the `count` - 1 after it; 0: none. */
static void fail_at(struct place place, uint64_t nth, uint64_t count) {
    memory.place = place;
    memory.calls = memory.failed = 0;
    memory.first = nth;
    memory.last = nth + count - 1;
}

static void fail_no_more(void) {
    memory.first = 0;
}

/* Without what OpenSSL keeps of each thread, which is made again when it is needed. */
static int64_t live_blocks(void) {
    OPENSSL_thread_stop();
    return memory.live;
}

/* ---- OpenSSL alone ---- */

struct der {
    unsigned char *bytes;
    int size;
};

static struct der server_x509, server_key, ca_x509;

static SSL_CTX *alone_context(bool server) {
    SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    const struct der *der = server ? &server_x509 : &ca_x509;
    const unsigned char *at = der->bytes, *key_at = server_key.bytes;
    X509 *x509 = d2i_X509(NULL, &at, der->size);
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &key_at, server_key.size);
    if (context && server && x509 && key) {
        SSL_CTX_use_certificate(context, x509);
        SSL_CTX_use_PrivateKey(context, key);
    } else if (context && x509) {
        X509_STORE_add_cert(SSL_CTX_get_cert_store(context), x509);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    }
    X509_free(x509);
    EVP_PKEY_free(key);
    return context;
}

static SSL *alone_new(SSL_CTX *context, bool server, BIO *in, BIO *out) {
    SSL *ssl = context ? SSL_new(context) : NULL;
    if (!ssl)
        return NULL;
    BIO_up_ref(in);
    BIO_up_ref(out);
    SSL_set_bio(ssl, in, out);
    if (server) {
        SSL_set_accept_state(ssl);
    } else {
        SSL_set1_host(ssl, "localhost");
        SSL_set_tlsext_host_name(ssl, "localhost");
        SSL_set_connect_state(ssl);
    }
    return ssl;
}

/* What a visit is for OpenSSL. */
static void alone_talk(SSL *client, SSL *server) {
    char bytes[100] = "";
    for (int i = 0; i < 10; i++) {
        if (SSL_do_handshake(client) == 1)
            SSL_write(client, bytes, sizeof bytes);
        if (SSL_do_handshake(server) == 1 && SSL_read(server, bytes, sizeof bytes) > 0)
            SSL_write(server, bytes, sizeof bytes);
        SSL_read(client, bytes, sizeof bytes);
    }
}

/* How many blocks it loses where the `nth` allocation at this place fails. */
static int64_t alone_play(struct place place, uint64_t nth) {
    int64_t before = live_blocks();
    BIO *up = BIO_new(BIO_s_mem()), *down = BIO_new(BIO_s_mem());
    fail_at(place, nth, 1);
    SSL_CTX *contexts[] = {alone_context(false), alone_context(true)};
    SSL *client = alone_new(contexts[0], false, down, up), *server = alone_new(contexts[1], true, up, down);
    if (client && server)
        alone_talk(client, server);
    SSL_free(client);
    SSL_free(server);
    SSL_CTX_free(contexts[0]);
    SSL_CTX_free(contexts[1]);
    fail_no_more();
    BIO_free(up);
    BIO_free(down);
    return live_blocks() - before;
}

static bool loses_alone(struct place place) {
    for (uint64_t nth = 1;; nth++) {
        int64_t lost = alone_play(place, nth);
        if (memory.failed == 0)
            return false;
        if (lost > 0) {
            print_message("  OpenSSL alone: number %llu there, %lld blocks\n", (unsigned long long)nth,
                          (long long)lost);
            return true;
        }
    }
}

/* ---- With us ---- */

/* How many blocks are gone after it. */
static int64_t visit_without(uint64_t nth, uint64_t count) {
    struct visit visit = {.tally = {.end = WITNESS_CLOSES, .size = 100}};
    int descriptors = open_descriptors();
    int64_t before = live_blocks();
    snprintf(visit.where, sizeof visit.where, "OpenSSL's allocation %llu%s", (unsigned long long)nth,
             count > 1 ? " and all behind it" : "");
    visit_open(&visit, NULL);
    fail_at((struct place){0}, nth, count);
    visit_play(&visit);
    fail_no_more();
    visit_close(&visit);
    if (!witness_paired(&visit.tally) || ERR_peek_error() || open_descriptors() != descriptors ||
        (memory.failed == 0 && !visit.tally.echoed))
        fail_msg("%s: %u protocols, %u released, %u made, %u lost, %u out of order, %u echoed", visit.where,
                 visit.tally.protocols, visit.tally.released, visit.tally.made, visit.tally.lost, visit.tally.wrong,
                 visit.tally.echoed);
    return live_blocks() - before;
}

/* What OpenSSL keeps for later it keeps once: what is gone each time is lost. */
static void explain(uint64_t nth, uint64_t count, struct place place) {
    int64_t lost = visit_without(nth, count);
    if (lost <= 0)
        return;
    print_message("OpenSSL's allocation %llu, %s:%d: %lld blocks lost\n", (unsigned long long)nth, place.file,
                  place.line, (long long)lost);
    assert_true(loses_alone(place));
}

static void sweep(uint64_t count, unsigned step) {
    uint64_t runs = 0;
    for (uint64_t nth = 1;; nth += step, runs++) {
        int64_t lost = visit_without(nth, count);
        if (memory.failed == 0)
            break;
        if (lost > 0)
            explain(nth, count, memory.failed_at);
    }
    print_message("%llu allocations of OpenSSL's failed\n", (unsigned long long)runs);
    assert_true(runs > 20);
}

static unsigned step_of(unsigned daily) {
    return getenv("TRAM_TEST_FULL") ? 1 : daily;
}

static void test_X_1_S_4_an_allocation_of_openssls_fails(void **state) {
    (void)state;
    sweep(1, step_of(97));
}

static void test_X_1_S_4_no_allocation_of_openssls_succeeds_any_more(void **state) {
    (void)state;
    sweep(UINT32_MAX, step_of(97));
}

/* ---- Configs ---- */

/* What is in an SSL_CTX. */
struct parts {
    int chain, trusted, asked_for, oldest;
};

static bool same_parts(SSL_CTX *context, const struct parts *expected) {
    STACK_OF(X509) *chain = NULL;
    SSL_CTX_get_extra_chain_certs_only(context, &chain);
    const struct parts parts = {
        .chain = sk_X509_num(chain),
        .trusted = sk_X509_OBJECT_num(X509_STORE_get0_objects(SSL_CTX_get_cert_store(context))),
        .asked_for = sk_X509_NAME_num(SSL_CTX_get_client_CA_list(context)),
        .oldest = (int)SSL_CTX_get_min_proto_version(context),
    };
    return memcmp(&parts, expected, sizeof parts) == 0;
}

/* What an allocation is lacking for is refused by name, and what is not refused is whole. Whether one failed. */
static bool build_without(const struct tls_description *description, struct place place, uint64_t nth, uint64_t count) {
    const struct parts whole = {.chain = 1, .trusted = 2, .asked_for = 1, .oldest = TLS1_3_VERSION};
    struct tls_failure failure = {0};
    fail_at(place, nth, count);
    SSL_CTX *context = tram__tls_build(description, NULL, &failure);
    fail_no_more();
    if (context ? !same_parts(context, &whole) : !failure.code || !failure.text[0])
        fail_msg("without OpenSSL's allocation %llu at %s:%d a config is %s", (unsigned long long)nth,
                 memory.failed_at.file, memory.failed_at.line, context ? "made in part" : "refused without a reason");
    assert_int_equal(ERR_peek_error(), 0);
    assert_true(context || memory.failed);
    SSL_CTX_free(context);
    return memory.failed;
}

/* Wherever OpenSSL asks for memory, the first times and the last time, and from then on. */
static void build_without_each(const struct tls_description *description) {
    seen.count = 0;
    seen.calls = 0;
    seen.looks = true;
    assert_false(build_without(description, (struct place){0}, UINT64_MAX, 1));
    seen.looks = false;
    assert_true(seen.count > 20 && seen.count < PLACES);
    for (unsigned i = 0; i < seen.count; i++) {
        bool is_list = strstr(seen.places[i].file, "stack.c"); /* everybody's, also the chain's */
        for (uint64_t nth = 4; is_list && nth < seen.times[i]; nth++)
            build_without(description, seen.places[i], nth, 1);
        const uint64_t times[] = {1, 2, 3, seen.times[i]};
        for (unsigned j = 0; j < 4; j++) {
            build_without(description, seen.places[i], times[j], 1);
            build_without(description, seen.places[i], times[j], UINT32_MAX);
        }
        assert_true(build_without(description, (struct place){0}, seen.first[i], UINT32_MAX));
    }
}

static void test_X_1_S_7_a_config_is_whole_or_refused(void **state) {
    (void)state;
    static const char *const names[] = {"a/1", "b/1", NULL};
    struct certificate *server = certificate_make(
        &(struct certificate_options){.issuer = authority.ca, .name = "server", .issuer_in_chain = true});
    char *crl = crl_make(authority.ca, server);
    tram_tls_certificate identity = identity_of(server);
    const tram_tls_options options = {
        .certificates = &identity,
        .certificate_count = 1,
        .ca = source_of(authority.ca->chain_pem),
        .crl = source_of(crl),
        .alpn = names,
        .min_version = TRAM_TLS_1_3,
        .verify = TRAM_TLS_VERIFY_REQUIRED,
    };
    struct tls_description *description;
    struct tls_failure failure;
    assert_int_equal(tram__tls_description_new(&options, &description, &failure), 0);
    build_without_each(description);
    tram__tls_description_release(description);
    certificate_free(server);
    free(crl);
}

static int setup(void **state) {
    tls_setup(state);
    server_x509.size = i2d_X509(authority.server->x509, &server_x509.bytes);
    server_key.size = i2d_PrivateKey(authority.server->key, &server_key.bytes);
    ca_x509.size = i2d_X509(authority.ca->x509, &ca_x509.bytes);
    alone_play((struct place){0}, UINT64_MAX); /* what OpenSSL makes once is made */
    visit_without(UINT64_MAX, 1);
    return 0;
}

static int teardown(void **state) {
    OPENSSL_free(server_x509.bytes);
    OPENSSL_free(ca_x509.bytes);
    OPENSSL_free(server_key.bytes);
    return tls_teardown(state);
}

int main(void) {
    if (CRYPTO_set_mem_functions(get, resize, put) != 1)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_X_1_S_4_an_allocation_of_openssls_fails),
        cmocka_unit_test(test_X_1_S_4_no_allocation_of_openssls_succeeds_any_more),
        cmocka_unit_test(test_X_1_S_7_a_config_is_whole_or_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
