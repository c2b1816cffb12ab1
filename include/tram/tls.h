/*
 * TLS 1.2 and 1.3 by OpenSSL 3, in a library of its own: link libtram-tls (pkg-config tram-tls, CMake's tram::tls)
 * beside libtram. What asyncio takes as ssl.SSLContext is a tram_tls_config here.
 *
 * A config is made once, by any thread, and used by connections and servers of any loop. It never changes under a
 * connection that uses it; tram_tls_config_reload() gives new connections new certificates. Each loop makes an SSL_CTX
 * of its own from it at first use, so that cores share nothing.
 *
 * Defaults are safe ones: TLS 1.2 and 1.3 with forward secrecy and AEAD ciphers only, a client verifies the server's
 * certificate and its name or address. There is no renegotiation, no 0-RTT, no authentication after the handshake and
 * no compression, and a peer that asks for new keys too often is refused.
 */
#ifndef TRAM_TLS_H
#define TRAM_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tram/buffer.h>
#include <tram/error.h>
#include <tram/transport.h>

TRAM_BEGIN_DECLS

/* Bytes from a file or from memory: one of both, or none. Both are read within the call that gets them. */
typedef struct tram_tls_source {
    const char *file;
    const void *data;
    size_t size;
} tram_tls_source;

/*
 * Writes the password of an encrypted key to `buffer` and returns its length, or a negative code. Called within
 * tram_tls_config_new() and tram_tls_config_reload() only.
 */
typedef int (*tram_tls_password_function)(void *arg, char *buffer, size_t size);

/* Who we are: a certificate and its key. PEM, or DER with one object. */
typedef struct tram_tls_certificate {
    tram_tls_source chain; /* our own certificate first, then those that lead to a root, in any order */
    tram_tls_source key;   /* none: it is in the chain's source, as PEM */
    const char *password;  /* of an encrypted key */
    tram_tls_password_function get_password; /* or who knows it */
    void *password_arg;
    tram_tls_source ocsp_response; /* DER; a server staples it for clients that ask */
    uintptr_t reserved[4];         /* must be 0 */
} tram_tls_certificate;

/* Versions by their number in the protocol. */
typedef enum tram_tls_version {
    TRAM_TLS_VERSION_DEFAULT = 0,
    TRAM_TLS_1_2 = 0x0303,
    TRAM_TLS_1_3 = 0x0304,
} tram_tls_version;

/* Whose certificate is asked for and verified (SSLContext.verify_mode). */
typedef enum tram_tls_verify {
    /* A client requires the server's. A server requires the client's if it was given a CA, else it asks for none. */
    TRAM_TLS_VERIFY_DEFAULT = 0,
    TRAM_TLS_VERIFY_NONE,     /* any, or none: whoever is in between can read and change all */
    TRAM_TLS_VERIFY_OPTIONAL, /* a client may have none; one that it has must be good. For a client as REQUIRED */
    TRAM_TLS_VERIFY_REQUIRED,
} tram_tls_verify;

/* What a client does with the stapled answer of its CA that a certificate is not revoked (OCSP). */
typedef enum tram_tls_ocsp {
    TRAM_TLS_OCSP_IGNORE = 0,
    TRAM_TLS_OCSP_VERIFY,  /* asks for one, which must be good if it comes */
    TRAM_TLS_OCSP_REQUIRE, /* … and it must come */
} tram_tls_ocsp;

/* For options.tickets. */
#define TRAM_TLS_NO_TICKETS (-1)

/*
 * Chooses for a server by the name that the client asked for (SNI), NULL where it asked for none. 0 with *ret_config as
 * it was (NULL): go on with the config of the server. 0 with a config: its certificates, verification, versions and
 * ALPN are used instead; it is borrowed, and must live until the call has returned. Negative: the handshake ends with
 * that code, and the client hears unrecognized_name. Called in the midst of a handshake, on the loop's thread: it must
 * not call anything of that connection or free the config that it was given to.
 */
typedef int (*tram_tls_server_name_function)(void *arg, const char *name, tram_tls_config **ret_config);

/* Zero-initialise; zero means the default. Texts and bytes are copied. */
typedef struct tram_tls_options {
    /* Who we are. A server needs one; several of different kinds of keys (RSA, ECDSA) are chosen among by the peer. */
    const tram_tls_certificate *certificates;
    size_t certificate_count;

    /* Whom we trust. Without any of the first two, the system's CAs for clients, nobody for servers. */
    tram_tls_source ca;       /* PEM, any number of certificates */
    const char *ca_directory; /* with hashed names (openssl rehash), read when a certificate is verified */
    bool system_ca;           /* the system's as well */
    tram_tls_source crl;      /* PEM: revoked certificates; there must be one of each CA that issues what is verified */
    bool crl_check_chain;     /* look for the CAs in it, too, not only for the peer's own certificate */
    tram_tls_verify verify;
    bool no_hostname_check; /* a client does not compare the server's name (SSLContext.check_hostname = False) */
    tram_tls_ocsp ocsp;

    /* What is spoken. */
    tram_tls_version min_version; /* 0: TLS 1.2 */
    tram_tls_version max_version; /* 0: TLS 1.3 */
    const char *ciphers;          /* of TLS 1.2, as openssl-ciphers(1); NULL: ECDHE with AES-GCM or ChaCha20 */
    const char *ciphersuites;     /* of TLS 1.3; NULL: OpenSSL's */
    const char *groups;           /* "X25519:P-256"; NULL: OpenSSL's */
    const char *const *alpn;      /* protocols, preferred first, ended by NULL; NULL: none */
    bool alpn_optional;           /* a server goes on where a client offers others only; else it refuses (RFC 7301) */
    tram_tls_server_name_function server_name;
    void *server_name_arg;

    /* Resumption. */
    int tickets; /* that a server sends: 0: 2, as OpenSSL; 1, 2, … 8, or TRAM_TLS_NO_TICKETS */
    /*
     * Sessions that a server remembers, for clients that come back without a ticket: those of TLS 1.2 that know of
     * none, and with TRAM_TLS_NO_TICKETS all. 0: none; at most 2^20. All loops that use the config know them, other
     * processes do not; a new one, of each handshake, takes the place of an old one. One costs 56 bytes, and some 200
     * more when it is there, or 1.5 KiB with a client's certificate.
     */
    unsigned session_cache;
    uint64_t ticket_lifetime_ns; /* of sessions, too. 0: 2 h; at most 7 days. A key makes tickets for as long, and lives
                                    three times that */

    /* How connections begin and end, where these say nothing else. */
    uint64_t handshake_timeout_ns; /* 0: 60 s */
    uint64_t shutdown_timeout_ns;  /* 0: 30 s */
    bool half_close;               /* close_notify ends one direction only, as FIN does with TCP; else both */

    const char *keylog_file; /* append the secrets, for wireshark: whoever can read it can read all. As SSLKEYLOGFILE */
    bool own_library_context; /* an OSSL_LIB_CTX per loop: some 350 KiB each, and no locks that cores share */
    uintptr_t reserved[12];   /* must be 0 */
} tram_tls_options;

/*
 * Reads and checks all that it is given; `options` NULL: as all zero. The caller then has one hold. On failure
 * `ret_error` (may be NULL) says which option and why, with texts that are valid until the thread's next call of this
 * or of tram_tls_config_reload(): TRAM_EVALUE for what makes no sense, TRAM_ETLS for what OpenSSL refuses (a key that
 * does not fit, a wrong password, no such cipher), -errno where a file cannot be read, -ENOMEM. Any thread.
 */
TRAM_API int tram_tls_config_new(const tram_tls_options *options, tram_tls_config **ret_config, tram_error *ret_error);

/* Any thread. Connections and servers hold what they use; releasing NULL does nothing. */
TRAM_API tram_tls_config *tram_tls_config_hold(tram_tls_config *config);
TRAM_API void tram_tls_config_release(tram_tls_config *config);

/*
 * New connections are made by these options, those that are open go on as they are. On failure nothing changes. Tickets
 * stay good unless whom we trust changed. Any thread.
 */
TRAM_API int tram_tls_config_reload(tram_tls_config *config, const tram_tls_options *options, tram_error *ret_error);

/*
 * The keys that tickets are encrypted with are random, and new ones come with time. A client can come back to any loop
 * that uses the config. For several processes or machines, set the same keys in each, at most 3: the first makes
 * tickets, the others are still understood. `keys` are `count` times 80 random bytes. Time does not change them: set
 * new ones at least daily. Any thread; TRAM_EVALUE for another count.
 */
#define TRAM_TLS_TICKET_KEY_SIZE 80
TRAM_API int tram_tls_config_set_ticket_keys(tram_tls_config *config, const void *keys, size_t count);

/* A new key for tickets now; the two before are still understood. Any thread. TRAM_ETLS: no random bytes. */
TRAM_API int tram_tls_config_rotate_ticket_keys(tram_tls_config *config);

/*
 * ---- What is known of a connection ----
 *
 * tram_transport_get_extra_info() has, from the beginning, also after the end:
 *
 *     "sslcontext"       tram_tls_config *
 *     "server_hostname"  const char *: what the client asked for; absent: nothing
 *     "tls_unclean"      const bool *: the peer's stream ended without its close_notify, so it may have been cut off
 *
 * and after the handshake:
 *
 *     "peercert"         const tram_tls_peer_certificate *; absent: the peer has shown none, as with a resumed session
 *                        whose ticket was given away by another process
 *     "cipher"           const tram_tls_cipher *
 *     "tls_version"      const char *: "TLSv1.3"
 *     "alpn"             const char *: what both agreed on; absent: nothing
 *     "session_reused"   const bool *
 *     "tls_exporter"     const tram_tls_bytes *: 32 bytes that only the two ends know, for binding what a user says to
 *                        this connection (RFC 9266)
 *     "ssl_object"       OpenSSL's SSL *, to look at
 *
 * There is no "compression": TLS has none any more.
 */
typedef struct tram_tls_bytes {
    const void *data;
    size_t size;
} tram_tls_bytes;

typedef struct tram_tls_cipher {
    const char *name;    /* "TLS_AES_256_GCM_SHA384" */
    const char *version; /* in which it was defined */
    int bits;            /* of its key */
    uintptr_t reserved[2];
} tram_tls_cipher;

typedef enum tram_tls_name_kind {
    TRAM_TLS_NAME_DNS = 1,
    TRAM_TLS_NAME_ADDRESS,
    TRAM_TLS_NAME_EMAIL,
    TRAM_TLS_NAME_URI,
} tram_tls_name_kind;

/* One of the names that a certificate is for. Whoever asked for the certificate may have chosen the bytes. */
typedef struct tram_tls_alternative_name {
    tram_tls_name_kind kind;
    const char *value;
} tram_tls_alternative_name;

/* Valid until the transport is freed (SSLSocket.getpeercert, both forms). */
typedef struct tram_tls_peer_certificate {
    bool verified; /* else it may be anybody's: nobody has looked */
    tram_tls_bytes der;
    const char *subject; /* as RFC 2253 writes them: "CN=server,O=Example" */
    const char *issuer;
    const char *serial_number; /* hexadecimal */
    int64_t not_before;        /* seconds since 1970 */
    int64_t not_after;
    const tram_tls_alternative_name *alternative_names;
    size_t alternative_count;
    uintptr_t reserved[4];
} tram_tls_peer_certificate;

/*
 * The newest session of a client's connection, for `tls_session` of a later one to the same server: that saves the
 * exchange of certificates. NULL with 0 where there is none, or none yet: with TLS 1.3 it comes with or after the first
 * bytes. The buffer is the caller's; it holds secrets, which are wiped when it is released. It may be used on any loop,
 * and its bytes in another process. Use each once: whoever listens on the way could tell that it is the same client.
 *
 * -ENOTSUP: no TLS; -ENOMEM.
 */
TRAM_API int tram_tls_session(tram_transport *transport, tram_buffer **ret_session);

TRAM_END_DECLS

#endif
