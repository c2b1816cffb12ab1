/*
 * Headers of the PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt): the bytes alone. Who reads them from
 * a connection is header_layer.c.
 */
#ifndef TRAM_TRANSPORTS_PROXY_HEADER_H
#define TRAM_TRANSPORTS_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <tram/proxy.h>

/* The longest that is read: TLVs are few and short. */
#define TRAM_PROXY_HEADER_MAX 4096

struct proxy_header {
    bool local; /* the proxy speaks for itself, or does not know for whom: the addresses are those of the connection */
    tram_socket_address source;      /* of size 0 where it is local */
    tram_socket_address destination; /* … */
    size_t tlvs_at;                  /* where in the header they begin */
    size_t size;                     /* of the header */
};

/* What the first bytes of a connection say. 1: a whole header; 0: more bytes are needed; -EPROTO: it is none. */
int tram__proxy_parse(const void *data, size_t size, struct proxy_header *ret_header);

/* The value of a TLV of a header that was parsed, or NULL. */
const void *tram__proxy_tlv(const void *tlvs, size_t size, uint8_t type, size_t *ret_size);

/* Writes a header to memory of TRAM_PROXY_HEADER_MAX bytes; its size, or TRAM_EVALUE. */
ssize_t tram__proxy_format(const tram_proxy_header *header, char *memory);

#endif
