/*
 * The PROXY protocol (haproxy's, versions 1 and 2): a header in front of a connection, by which a proxy or load
 * balancer tells for whom it speaks.
 *
 * In: `proxy_protocol` in tram_server_options and tram_unix_server_options. Each connection then begins with a header;
 * connection_made comes when it is there, and from then on the extra information "peername" and "sockname" is the
 * header's, but for headers of the proxy's own (LOCAL, UNKNOWN), which leave the addresses of the connection. What is
 * no header, is longer than 4096 bytes, or is not complete in time ends the connection, of which the protocol hears
 * nothing but `released`. Limits per source count the proxy's address, since they are kept before a byte was read.
 *
 * Out: `proxy_header` in tram_connection_options and tram_unix_connection_options, which is written before the first
 * byte, in front of TLS too.
 */
#ifndef TRAM_PROXY_H
#define TRAM_PROXY_H

#include <tram/transport.h>

TRAM_BEGIN_DECLS

/* A header to be written. Zero-initialise. */
typedef struct tram_proxy_header {
    int version; /* 1 or 2 */
    /* Who connected to you, and to which address: both, of one family (AF_INET, AF_INET6; AF_UNIX, which version 1 does
     * not know), else TRAM_EVALUE. NULL: you speak for yourself (LOCAL, UNKNOWN). Copied. */
    const tram_socket_address *source;
    const tram_socket_address *destination;
    uintptr_t reserved[4]; /* must be 0 */
} tram_proxy_header;

/* Types of what version 2 may tell besides: its "TLV"s. Types of your own: 0xE0 to 0xEF. */
enum {
    TRAM_PROXY_ALPN = 0x01,
    TRAM_PROXY_AUTHORITY = 0x02, /* the name that the client asked for (SNI) */
    TRAM_PROXY_UNIQUE_ID = 0x05,
    TRAM_PROXY_SSL = 0x20,
    TRAM_PROXY_NETNS = 0x30,
};

/*
 * What the header of an accepted connection told under this type, or NULL. *ret_size bytes, which belong to the
 * transport and stay as long as it does. The checksum of a header was verified, where it had one. On the loop's thread.
 */
TRAM_API const void *tram_proxy_value(const tram_transport *transport, uint8_t type, size_t *ret_size);

TRAM_END_DECLS

#endif
