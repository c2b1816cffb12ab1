/* What a config accepts and refuses, and that a refusal says why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/memory.h"
#include "support/support.h"
#include "support/tls/certificates.h"
#include "transports/tls/config.h"
#include "transports/tls/description.h"
#include "transports/tls/failure.h"

static struct authority authority;

static int setup(void **state) {
    (void)state;
    authority_make(&authority);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    authority_free(&authority);
    return 0;
}

/* The options are refused with this code, for this option, by a text that has this in it; the queue is left empty. */
static void assert_refused(const tram_tls_options *options, int code, const char *option, const char *text) {
    tram_tls_config *config = NULL;
    tram_error error = {0};
    assert_int_equal(tram_tls_config_new(options, &config, &error), code);
    assert_null(config);
    assert_int_equal(error.code, code);
    assert_string_equal(error.operation, "tls_config");
    assert_string_equal(error.option, option);
    if (!strstr(error.detail, text))
        fail_msg("\"%s\" is not in \"%s\"", text, error.detail);
    assert_int_equal(ERR_peek_error(), 0);
}

static void test_no_options_are_those_of_a_client(void **state) {
    (void)state;
    tram_tls_config *config = config_make(NULL);
    assert_false(tls_config_abandoned(config));
    assert_ptr_equal(tram_tls_config_hold(config), config);
    tram_tls_config_release(config);
    tram_tls_config_release(config);
    tram_tls_config_release(NULL);
}

static void test_certificate_and_key_come_from_files_memory_and_one_pem(void **state) {
    (void)state;
    char folder[] = "/tmp/tram-tls-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *chain = write_file(folder, "chain.pem", authority.server->chain_pem);
    char *key = write_file(folder, "key.pem", authority.server->key_pem);
    char *both;
    assert_true(asprintf(&both, "%s%s", authority.server->key_pem, authority.server->chain_pem) > 0);
    tram_tls_certificate ways[] = {
        identity_of(authority.server),
        {.chain = {.file = chain}, .key = {.file = key}},
        {.chain = source_of(both)},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        tram_tls_config_release(config_make(&(tram_tls_options){.certificates = &ways[i], .certificate_count = 1}));
    unlink(chain);
    unlink(key);
    rmdir(folder);
    free(chain);
    free(key);
    free(both);
}

static void test_der_is_read_as_well(void **state) {
    (void)state;
    unsigned char *chain = NULL, *key = NULL;
    int chain_size = i2d_X509(authority.server->x509, &chain);
    int key_size = i2d_PrivateKey(authority.server->key, &key);
    tram_tls_certificate identity = {.chain = {.data = chain, .size = (size_t)chain_size},
                                     .key = {.data = key, .size = (size_t)key_size}};
    tram_tls_config_release(config_make(&(tram_tls_options){.certificates = &identity, .certificate_count = 1}));
    OPENSSL_free(chain);
    OPENSSL_free(key);
}

static void test_keys_of_two_kinds_are_one_config(void **state) {
    (void)state;
    struct certificate *rsa =
        certificate_make(&(struct certificate_options){.issuer = authority.ca, .rsa = true, .alternative = "DNS:a"});
    tram_tls_certificate two[] = {identity_of(authority.server), identity_of(rsa)};
    tram_tls_config_release(config_make(&(tram_tls_options){.certificates = two, .certificate_count = 2}));
    tram_tls_certificate same[] = {identity_of(authority.server), identity_of(authority.client)};
    assert_refused(&(tram_tls_options){.certificates = same, .certificate_count = 2}, TRAM_ETLS, "certificates",
                   "not replacing certificate");
    certificate_free(rsa);
}

static int password_of_arg(void *arg, char *buffer, size_t size) {
    size_t length = strlen(arg);
    assert_true(length <= size);
    memcpy(buffer, arg, length);
    return (int)length;
}

static int no_password(void *arg, char *buffer, size_t size) {
    (void)arg;
    (void)buffer;
    (void)size;
    return -EACCES;
}

static void test_encrypted_keys_want_their_password(void **state) {
    (void)state;
    char secret[] = "secret", wrong[] = "wrong";
    char *encrypted = key_encrypt(authority.server, secret);
    tram_tls_certificate identity = {.chain = source_of(authority.server->chain_pem), .key = source_of(encrypted)};
    const tram_tls_options options = {.certificates = &identity, .certificate_count = 1};
    assert_refused(&options, TRAM_ETLS, "key", "the key is encrypted, and there is no password");
    identity.password = wrong;
    assert_refused(&options, TRAM_ETLS, "key", "wrong password");
    identity.password = secret;
    tram_tls_config_release(config_make(&options));
    identity.password = NULL;
    identity.get_password = password_of_arg;
    identity.password_arg = secret;
    tram_tls_config_release(config_make(&options));
    identity.password_arg = wrong;
    assert_refused(&options, TRAM_ETLS, "key", "wrong password");
    identity.get_password = no_password;
    assert_refused(&options, -EACCES, "key", "get_password failed: Permission denied");
    free(encrypted);
}

/* A password of the length that `arg` points to, though it may be longer than there is room for. */
static int letters(void *arg, char *buffer, size_t size) {
    size_t length = *(const size_t *)arg;
    memset(buffer, 'a', length < size ? length : size);
    return (int)length;
}

/* None at all, as long as OpenSSL lets them be, and longer; the last one is not taken for none. */
static void test_a_password_may_be_empty_and_as_long_as_there_is_room(void **state) {
    (void)state;
    enum { ROOM = 1024 }; /* PEM_BUFSIZE */
    char password[ROOM + 2];
    for (size_t length = 0; length <= ROOM + 1; length += length ? 1 : ROOM) {
        memset(password, 'a', length);
        password[length] = '\0';
        char *encrypted = key_encrypt(authority.server, length > ROOM ? "" : password);
        tram_tls_certificate identity = {.chain = source_of(authority.server->chain_pem), .key = source_of(encrypted)};
        const tram_tls_options options = {.certificates = &identity, .certificate_count = 1};
        for (int asked = 0; asked < 2; asked++) {
            identity.password = asked ? NULL : password;
            identity.get_password = asked ? letters : NULL;
            identity.password_arg = &length;
            if (length > ROOM)
                assert_refused(&options, TRAM_ETLS, "key", "wrong password");
            else
                tram_tls_config_release(config_make(&options));
        }
        free(encrypted);
    }
}

/* Stands in front of the C library's: a read of certificates that comes in pieces, or not. */
static enum { READ_PLAIN, READ_IN_PIECES, READ_ENDS, READ_FAILS } reading;

ssize_t read(int fd, void *data, size_t size) {
    static unsigned calls;
    if (reading == READ_ENDS)
        return 0;
    if (reading == READ_FAILS || (reading == READ_IN_PIECES && calls++ % 2 == 0)) {
        errno = reading == READ_FAILS ? EIO : EINTR;
        return -1;
    }
    return syscall(SYS_read, fd, data, reading == READ_IN_PIECES && size > 100 ? 100 : size);
}

static void test_a_file_is_read_whole_or_not_at_all(void **state) {
    (void)state;
    char folder[] = "/tmp/tram-tls-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *file = write_file(folder, "ca.pem", authority.ca->chain_pem);
    const tram_tls_options options = {.ca = {.file = file}};
    reading = READ_IN_PIECES;
    tram_tls_config_release(config_make(&options));
    reading = READ_ENDS; /* it became shorter meanwhile */
    assert_refused(&options, -EIO, "ca", "ca.pem: ");
    reading = READ_FAILS;
    assert_refused(&options, -EIO, "ca", "ca.pem: ");
    reading = READ_PLAIN;
    assert_int_equal(truncate(file, 0), 0);
    assert_refused(&options, TRAM_EVALUE, "ca", "ca.pem is empty");
    assert_int_equal(truncate(file, TRAM_TLS_FILE_MAX + 1), 0);
    assert_refused(&options, TRAM_EVALUE, "ca", "ca.pem is too large");
    assert_int_equal(truncate(file, TRAM_TLS_FILE_MAX), 0); /* it is read, and has nothing but zeros */
    assert_refused(&options, TRAM_ETLS, "ca", "ca");
    unlink(file);
    rmdir(folder);
    free(file);
    char *zeros = calloc(1, TRAM_TLS_FILE_MAX + 1); /* memory is no different */
    tram_tls_options in_memory = {.ca = {.data = zeros, .size = TRAM_TLS_FILE_MAX}};
    assert_refused(&in_memory, TRAM_ETLS, "ca", "ca");
    in_memory.ca.size++;
    assert_refused(&in_memory, TRAM_EVALUE, "ca", "too large");
    free(zeros);
}

static void test_files_that_are_none_are_refused_by_name(void **state) {
    (void)state;
    tram_tls_certificate identity = {.chain = {.file = "/nonexistent/chain.pem"}};
    const tram_tls_options options = {.certificates = &identity, .certificate_count = 1};
    assert_refused(&options, -ENOENT, "chain", "/nonexistent/chain.pem: No such file");
    identity.chain.file = "/tmp";
    assert_refused(&options, TRAM_EVALUE, "chain", "/tmp is no regular file");
    identity.chain = (tram_tls_source){.data = "", .size = 0};
    assert_refused(&options, TRAM_EVALUE, "chain", "empty");
    identity.chain = (tram_tls_source){.data = "x", .size = 1, .file = "/tmp/x"};
    assert_refused(&options, TRAM_EVALUE, "chain", "both a file and memory");
    identity.chain = (tram_tls_source){0};
    assert_refused(&options, TRAM_EVALUE, "chain", "none");
    assert_refused(&(tram_tls_options){.ca_directory = "/nonexistent"}, -ENOENT, "ca_directory", "No such file");
    assert_refused(&(tram_tls_options){.keylog_file = "/nonexistent/log"}, -ENOENT, "keylog_file", "No such file");
}

/* Read as a certificate and opened for keys, it must not become the terminal that this process is signalled from. */
static int take_terminal_by_accident(const char *terminal) {
    tram_tls_config *config = NULL;
    if (setsid() < 0)
        return 2;
    tram_tls_config_new(&(tram_tls_options){.ca.file = terminal}, &config, NULL);
    tram_tls_config_release(config);
    config = NULL;
    tram_tls_config_new(&(tram_tls_options){.keylog_file = terminal}, &config, NULL);
    tram_tls_config_release(config);
    return open("/dev/tty", O_RDWR | O_CLOEXEC) >= 0;
}

static void test_a_terminal_that_is_opened_as_a_file_signals_nobody(void **state) {
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), status;
    if (master < 0 || grantpt(master) || unlockpt(master))
        skip();
    pid_t child = fork();
    if (child == 0)
        _exit(take_terminal_by_accident(ptsname(master)));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(master);
}

static void test_bytes_that_are_something_else_are_refused(void **state) {
    (void)state;
    tram_tls_certificate identity = {.chain = source_of("garbage")};
    const tram_tls_options options = {.certificates = &identity, .certificate_count = 1};
    assert_refused(&options, TRAM_ETLS, "chain", "no certificate can be read");
    identity.chain = source_of(authority.server->key_pem);
    assert_refused(&options, TRAM_ETLS, "chain", "there is no certificate in it");
    identity.chain = source_of("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    assert_refused(&options, TRAM_ETLS, "chain", "bad base64 decode");
    identity.chain = source_of(authority.server->chain_pem);
    assert_refused(&options, TRAM_ETLS, "key", "no private key can be read");
    identity.key = source_of(authority.client->key_pem);
    assert_refused(&options, TRAM_ETLS, "key", "it does not fit the certificate: key values mismatch");
    assert_refused(&(tram_tls_options){.ca = source_of("x")}, TRAM_ETLS, "ca", "no certificate can be read");
    assert_refused(&(tram_tls_options){.crl = source_of(authority.ca->chain_pem)}, TRAM_ETLS, "crl",
                   "there is no certificate revocation list in it");
}

/* Each option that takes memory, and a chain of two. */
static void test_X_1_without_memory_every_allocation_is_told(void **state) {
    (void)state;
    const struct certificate_options issuer = {.issuer = authority.ca, .name = "middle", .is_ca = true};
    struct certificate *middle = certificate_make(&issuer);
    const struct certificate_options leaf = {.issuer = middle, .name = "leaf", .issuer_in_chain = true};
    struct certificate *end = certificate_make(&leaf);
    char *crl = crl_make(authority.ca, NULL);
    tram_tls_certificate identity = identity_of(end);
    const char *const alpn[] = {"h2", "http/1.1", NULL};
    const tram_tls_options options = {
        .certificates = &identity,
        .certificate_count = 1,
        .ca = source_of(authority.ca->chain_pem),
        .crl = source_of(crl),
        .crl_check_chain = true,
        .ciphers = "ECDHE+AESGCM",
        .ciphersuites = "TLS_AES_128_GCM_SHA256",
        .groups = "P-256",
        .alpn = alpn,
        .session_cache = 100,
    };
    tram_tls_config_release(config_make(&options)); /* what OpenSSL makes once is there now */
    bool untouched = false;
    for (uint64_t n = 1; !untouched; n++) {
        tram_tls_config *config = NULL;
        tram_error error = {0};
        memory_fail(n, 1);
        int status = tram_tls_config_new(&options, &config, &error);
        untouched = !memory_failed();
        memory_fail(0, 0);
        assert_true(status == 0 || status == -ENOMEM);
        assert_true(status == 0 || (!config && error.code == -ENOMEM && error.detail));
        assert_true(n < 1000);
        tram_tls_config_release(config);
        assert_int_equal(ERR_peek_error(), 0);
    }
    free(crl);
    certificate_free(end);
    certificate_free(middle);
}

static void test_what_is_spoken_must_exist(void **state) {
    (void)state;
    static const char *const empty_name[] = {"", NULL};
    assert_refused(&(tram_tls_options){.ciphers = "NOTHING"}, TRAM_ETLS, "ciphers", "\"NOTHING\": no cipher match");
    assert_refused(&(tram_tls_options){.ciphersuites = "NOTHING"}, TRAM_ETLS, "ciphersuites", "\"NOTHING\"");
    assert_refused(&(tram_tls_options){.groups = "P-1"}, TRAM_ETLS, "groups", "\"P-1\"");
    assert_refused(&(tram_tls_options){.alpn = empty_name}, TRAM_EVALUE, "alpn", "a name of 0 bytes");
    assert_refused(&(tram_tls_options){.min_version = (tram_tls_version)0x0301}, TRAM_EVALUE, "min_version",
                   "0x0301 is neither TLS 1.2 nor 1.3");
    assert_refused(&(tram_tls_options){.min_version = TRAM_TLS_1_3, .max_version = TRAM_TLS_1_2}, TRAM_EVALUE,
                   "min_version", "above max_version");
}

/* An extension has two bytes for their size: 256 names of 255 bytes with the byte before each are one too many. */
static void test_protocols_that_no_hello_has_room_for_are_refused(void **state) {
    (void)state;
    char name[256];
    const char *names[257] = {0};
    memset(name, 'a', 255);
    name[255] = '\0';
    for (size_t i = 0; i < 256; i++)
        names[i] = name;
    assert_refused(&(tram_tls_options){.alpn = names}, TRAM_EVALUE, "alpn", "too many names");
    names[255] = name + 1; /* the last is one byte shorter: all of the room, to the last */
    tram_tls_config_release(config_make(&(tram_tls_options){.alpn = names}));
    names[1] = NULL;
    tram_tls_config_release(config_make(&(tram_tls_options){.alpn = names}));
    const char too_long[] = {[0 ... 255] = 'a', '\0'};
    names[0] = too_long;
    assert_refused(&(tram_tls_options){.alpn = names}, TRAM_EVALUE, "alpn", "a name of 256 bytes");
}

static void test_choices_out_of_range_are_refused(void **state) {
    (void)state;
    assert_refused(&(tram_tls_options){.verify = (tram_tls_verify)9}, TRAM_EVALUE, "verify", "9");
    assert_refused(&(tram_tls_options){.ocsp = (tram_tls_ocsp)9}, TRAM_EVALUE, "ocsp", "9");
    assert_refused(&(tram_tls_options){.tickets = 9}, TRAM_EVALUE, "tickets", "9");
    assert_refused(&(tram_tls_options){.tickets = -2}, TRAM_EVALUE, "tickets", "-2");
    assert_refused(&(tram_tls_options){.session_cache = (1 << 20) + 1}, TRAM_EVALUE, "session_cache", "1048577");
    assert_refused(&(tram_tls_options){.ticket_lifetime_ns = UINT64_C(8) * 24 * 3600 * 1000000000}, TRAM_EVALUE,
                   "ticket_lifetime_ns", "7 days");
    assert_refused(&(tram_tls_options){.certificate_count = 1}, TRAM_EVALUE, "certificates", "a count without any");
    assert_refused(&(tram_tls_options){.reserved = {1}}, TRAM_EVALUE, "reserved", "not 0");
}

/* The last of each is taken, and the next is not. */
static void test_choices_end_behind_their_last(void **state) {
    (void)state;
    const uint64_t week_ns = UINT64_C(7) * 24 * 3600 * 1000000000;
    const tram_tls_options last[] = {
        {.verify = TRAM_TLS_VERIFY_REQUIRED},
        {.ocsp = TRAM_TLS_OCSP_REQUIRE},
        {.tickets = TRAM_TLS_NO_TICKETS},
        {.tickets = 8},
        {.session_cache = 1 << 20},
        {.ticket_lifetime_ns = week_ns},
        {.min_version = TRAM_TLS_1_3, .max_version = TRAM_TLS_1_3},
    };
    for (size_t i = 0; i < sizeof last / sizeof *last; i++)
        tram_tls_config_release(config_make(&last[i]));
    assert_refused(&(tram_tls_options){.verify = (tram_tls_verify)(TRAM_TLS_VERIFY_REQUIRED + 1)}, TRAM_EVALUE,
                   "verify", "4 is no mode");
    assert_refused(&(tram_tls_options){.ocsp = (tram_tls_ocsp)(TRAM_TLS_OCSP_REQUIRE + 1)}, TRAM_EVALUE, "ocsp",
                   "is no mode");
    assert_refused(&(tram_tls_options){.ticket_lifetime_ns = week_ns + 1}, TRAM_EVALUE, "ticket_lifetime_ns", "7 days");
}

/* There is one of a kind of keys, but that is said behind their number. */
static void test_sixteen_certificates_are_not_too_many(void **state) {
    (void)state;
    tram_tls_certificate identities[TRAM_TLS_CERTIFICATES_MAX + 1];
    for (size_t i = 0; i <= TRAM_TLS_CERTIFICATES_MAX; i++)
        identities[i] = identity_of(authority.server);
    tram_tls_options options = {.certificates = identities, .certificate_count = TRAM_TLS_CERTIFICATES_MAX};
    assert_refused(&options, TRAM_ETLS, "certificates", "not replacing certificate");
    options.certificate_count++;
    assert_refused(&options, TRAM_EVALUE, "certificates", "too many");
}

/* Who is to be verified by nobody known can only be refused; a client may have the system's. */
static void test_who_verifies_clients_needs_to_know_a_ca(void **state) {
    (void)state;
    tram_tls_certificate identity = identity_of(authority.server);
    for (unsigned verify = TRAM_TLS_VERIFY_DEFAULT; verify <= TRAM_TLS_VERIFY_REQUIRED; verify++)
        for (unsigned ca = 0; ca < 3; ca++) {
            tram_tls_options options = {
                .certificates = &identity, .certificate_count = 1, .verify = verify, .system_ca = ca == 1};
            if (ca == 2)
                options.ca = source_of(authority.ca->chain_pem);
            struct tls_failure failure = {0};
            unsigned generation;
            tram_tls_config *config = config_make(&options);
            struct tls_description *description = tram__tls_config_describe(config, &generation);
            bool lacks_one = verify >= TRAM_TLS_VERIFY_OPTIONAL && !ca;
            assert_int_equal(tram__tls_description_serve(description, true, &failure), lacks_one ? TRAM_EVALUE : 0);
            if (lacks_one)
                assert_string_equal(failure.option, "ca");
            assert_int_equal(tram__tls_description_serve(description, false, &failure), 0);
            tram__tls_description_release(description);
            tram_tls_config_release(config);
        }
}

static void test_a_reload_that_is_refused_changes_nothing(void **state) {
    (void)state;
    tram_tls_config *config = server_config(authority.server);
    unsigned generation = tls_config_generation(config);
    tram_error error;
    assert_int_equal(tram_tls_config_reload(config, &(tram_tls_options){.ciphers = "NOTHING"}, &error), TRAM_ETLS);
    assert_string_equal(error.option, "ciphers");
    assert_int_equal(tls_config_generation(config), generation);
    assert_int_equal(tram_tls_config_reload(config, &(tram_tls_options){.ciphers = "NOTHING"}, NULL), TRAM_ETLS);
    assert_int_equal(tram_tls_config_reload(config, NULL, NULL), 0);
    assert_int_not_equal(tls_config_generation(config), generation);
    tram_tls_config_release(config);
}

static void test_X_1_a_reload_without_memory_changes_nothing(void **state) {
    (void)state;
    tram_tls_config *config = server_config(authority.server);
    unsigned generation = tls_config_generation(config);
    const tram_tls_options options = {.session_cache = 100};
    uint64_t n = 1;
    for (;; n++) {
        tram_error error = {0};
        memory_fail(n, 1);
        int status = tram_tls_config_reload(config, &options, &error);
        bool untouched = !memory_failed();
        memory_fail(0, 0);
        if (untouched)
            break;
        assert_int_equal(status, -ENOMEM);
        assert_int_equal(error.code, -ENOMEM);
        assert_string_equal(error.operation, "tls_config");
        assert_string_equal(error.detail, "out of memory");
        assert_int_equal(tls_config_generation(config), generation);
    }
    assert_int_equal(n, 3); /* the description and the places for sessions */
    assert_int_equal(tls_config_generation(config), generation + 1);
    tram_tls_config_release(config);
}

static void test_ticket_keys_are_one_to_three(void **state) {
    (void)state;
    unsigned char keys[4 * TRAM_TLS_TICKET_KEY_SIZE] = {1};
    tram_tls_config *config = server_config(authority.server);
    assert_int_equal(tram_tls_config_set_ticket_keys(config, keys, 0), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "count");
    assert_int_equal(tram_tls_config_set_ticket_keys(config, keys, 4), TRAM_EVALUE);
    assert_int_equal(tram_tls_config_set_ticket_keys(config, NULL, 1), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "keys");
    assert_int_equal(tram_tls_config_set_ticket_keys(config, keys, 3), 0);
    assert_int_equal(tram_tls_config_rotate_ticket_keys(config), 0);
    tram_tls_config_release(config);
}

static void test_a_new_ticket_key_leaves_two_old_ones(void **state) {
    (void)state;
    struct tls_tickets tickets;
    struct tls_ticket_table copy = {0};
    struct tls_ticket_key made[5];
    tram__tls_tickets_init(&tickets);
    for (size_t i = 0; i < 5; i++) {
        assert_true(tram__tls_tickets_rotate(&tickets));
        assert_true(tram__tls_tickets_refresh(&tickets, &copy, UINT64_MAX));
        made[i] = copy.keys[0];
    }
    assert_int_equal(copy.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(&copy.keys[i], &made[4 - i], sizeof made[0]);
    assert_true(tram__tls_tickets_refresh(&tickets, &copy, UINT64_MAX)); /* nothing is due */
    assert_memory_equal(&copy.keys[0], &made[4], sizeof made[0]);
    assert_true(tram__tls_tickets_refresh(&tickets, &copy, 0)); /* the first is old */
    assert_memory_equal(&copy.keys[1], &made[4], sizeof made[0]);
    tram__tls_tickets_set(&tickets, made, 2); /* time does not change the user's */
    assert_true(tram__tls_tickets_refresh(&tickets, &copy, 0));
    assert_true(tram__tls_tickets_refresh(&tickets, &copy, 0));
    assert_memory_equal(&copy.keys[0], &made[0], sizeof made[0]);
    assert_int_equal(copy.count, 2);
    tram__tls_tickets_fini(&tickets);
}

/* A loop without keys has the generation 0, and must see that there are some. */
static void test_generations_of_ticket_keys_pass_by_0(void **state) {
    (void)state;
    struct tls_tickets tickets;
    struct tls_ticket_table copy = {0};
    tram__tls_tickets_init(&tickets);
    assert_true(tram__tls_tickets_rotate(&tickets));
    tickets.table.generation = UINT_MAX;
    assert_true(tram__tls_tickets_rotate(&tickets));
    assert_true(tram__tls_tickets_refresh(&tickets, &copy, UINT64_MAX));
    assert_int_equal(copy.generation, 1);
    assert_int_equal(atomic_load(&tickets.generation), 1);
    tram__tls_tickets_fini(&tickets);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_options_are_those_of_a_client),
        cmocka_unit_test(test_certificate_and_key_come_from_files_memory_and_one_pem),
        cmocka_unit_test(test_der_is_read_as_well),
        cmocka_unit_test(test_keys_of_two_kinds_are_one_config),
        cmocka_unit_test(test_encrypted_keys_want_their_password),
        cmocka_unit_test(test_a_password_may_be_empty_and_as_long_as_there_is_room),
        cmocka_unit_test(test_a_file_is_read_whole_or_not_at_all),
        cmocka_unit_test(test_files_that_are_none_are_refused_by_name),
        cmocka_unit_test(test_a_terminal_that_is_opened_as_a_file_signals_nobody),
        cmocka_unit_test(test_bytes_that_are_something_else_are_refused),
        cmocka_unit_test(test_X_1_without_memory_every_allocation_is_told),
        cmocka_unit_test(test_what_is_spoken_must_exist),
        cmocka_unit_test(test_protocols_that_no_hello_has_room_for_are_refused),
        cmocka_unit_test(test_choices_out_of_range_are_refused),
        cmocka_unit_test(test_choices_end_behind_their_last),
        cmocka_unit_test(test_sixteen_certificates_are_not_too_many),
        cmocka_unit_test(test_who_verifies_clients_needs_to_know_a_ca),
        cmocka_unit_test(test_a_reload_that_is_refused_changes_nothing),
        cmocka_unit_test(test_X_1_a_reload_without_memory_changes_nothing),
        cmocka_unit_test(test_ticket_keys_are_one_to_three),
        cmocka_unit_test(test_a_new_ticket_key_leaves_two_old_ones),
        cmocka_unit_test(test_generations_of_ticket_keys_pass_by_0),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
