/*
 * Options of TCP sockets, for tram_connection_options and tram_server_options.
 *
 * A server sets them on its listening sockets, and every connection inherits them without a call of its own. Each is
 * set before the socket connects or listens. What the system refuses fails the operation, with "setsockopt" in the
 * error; a socket of another kind, which only the caller can have brought, refuses all of them.
 */
#ifndef TRAM_TCP_H
#define TRAM_TCP_H

#include <stdint.h>

#include <tram/export.h>

TRAM_BEGIN_DECLS

/* Zero means the system's default, of each. Times are rounded up to what the system counts in. */
typedef struct tram_tcp_options {
    /* SO_KEEPALIVE with times of its own, in seconds, at most 32,767: when after the last byte the peer is asked
     * whether it is still there (TCP_KEEPIDLE), how long later again (TCP_KEEPINTVL), and how many questions without an
     * answer, at most 127, end the connection with -ETIMEDOUT (TCP_KEEPCNT). One of them is enough to switch it on. */
    uint64_t keep_alive_idle_ns;
    uint64_t keep_alive_interval_ns;
    unsigned keep_alive_probes;
    unsigned traffic_class; /* 1 to 255: DSCP in the upper six bits (IP_TOS, IPV6_TCLASS) */
    /* What was sent and is not acknowledged for so long ends the connection with -ETIMEDOUT, in milliseconds
     * (TCP_USER_TIMEOUT). The system's way takes a quarter of an hour. */
    uint64_t user_timeout_ns;
    /* Servers: so many connections whose first packet has data may wait (TCP_FASTOPEN). Needs 2 in
     * net.ipv4.tcp_fastopen. A client has early_data in tram_connection_options instead. */
    unsigned fast_open;
    uintptr_t reserved[4]; /* must be 0 */
} tram_tcp_options;

TRAM_END_DECLS

#endif
