/*
 * Limits of a server: how many connections it may have, and how long each may take (tram_server_options.limits,
 * tram_unix_server_options.limits). All are off unless set; a server without limits pays nothing for them. No
 * counterpart in asyncio.
 *
 * A connection above a limit of number is accepted and reset at once: nothing is made for it, and its client knows
 * where it stands. Accepting goes on, so that a client that may come in never waits behind those that may not.
 *
 * A connection whose time is over ends as from an error of the system: connection_lost with -ETIMEDOUT and the name of
 * the deadline as operation. What is still queued is dropped, and then the peer sees a reset, since the end of a stream
 * would be a lie. Deadlines stay with the transport whatever happens to it: a new protocol, a bridge, a paused reader,
 * a close that cannot flush. They end, as the connection's count does, when it is lost or detached.
 */
#ifndef TRAM_LIMITS_H
#define TRAM_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#include <tram/export.h>
#include <tram/time.h>

TRAM_BEGIN_DECLS

/* Zero-initialise; zero means none, or the default. The words are copied. */
typedef struct tram_server_limits {
    /* Connections at the same time; never more, however many workers accept. */
    unsigned max_connections; /* of the server, over all its workers */
    unsigned max_per_worker;  /* a full worker gives to others that have room, where its server hands over at all */
    unsigned max_per_source;  /* of one source, over all workers; TRAM_EVALUE on Unix sockets, which have none */
    /* The same of connections whose TLS handshake is not over; TRAM_EVALUE also on servers without TLS. */
    unsigned max_handshakes_per_source;
    /* What one source is: an address, or rather a network, since a host may have all of 2^64 addresses of IPv6. */
    unsigned source_bits_ipv4; /* leading bits of the address; 0: 32 */
    unsigned source_bits_ipv6; /* 0: 64; at most 64 */
    /* How long; 0: as TRAM_FOREVER. Precise to a millisecond or so; never early. */
    uint64_t idle_timeout_ns;       /* without a byte in either direction: "idle" */
    uint64_t first_byte_timeout_ns; /* from the begin to the first byte received: "first byte" */
    uint64_t total_timeout_ns;      /* from the begin to the end: "total" */
    /* What every connection begins with; see tram_transport_set_write_buffer_limits() and …_set_write_hard_limit(). */
    size_t write_high; /* 0: 4 * write_low, or the default */
    size_t write_low;  /* 0: write_high / 4, or the default */
    size_t write_hard_limit;
    uintptr_t reserved[8]; /* must be 0 */
} tram_server_limits;

/* How often each limit had its effect. The loops count the same (tram/stats.h). */
typedef struct tram_limit_counts {
    uint64_t refused_connections; /* reset: max_connections */
    uint64_t refused_worker;      /* reset: max_per_worker */
    uint64_t refused_source;      /* reset: max_per_source */
    uint64_t refused_handshakes;  /* reset: max_handshakes_per_source */
    uint64_t expired_idle;
    uint64_t expired_first_byte;
    uint64_t expired_total;
    uint64_t over_write_limit; /* ended by the hard limit of writing, whoever set it */
    uint64_t reserved[7];
} tram_limit_counts;

TRAM_END_DECLS

#endif
