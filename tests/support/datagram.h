/* One datagram endpoint under test: a transport with a recorder at this end, a plain socket at the other. */
#ifndef TRAM_TESTS_DATAGRAM_H
#define TRAM_TESTS_DATAGRAM_H

#include "support/stream.h"

struct endpoint {
    struct world *world;
    struct recorder *recorder;
    tram_transport *transport;
    int peer;                         /* non-blocking; closed by endpoint_close */
    tram_socket_address address;      /* of the transport */
    tram_socket_address peer_address; /* of the peer */
};

/* A bound loopback UDP socket, non-blocking, and where it is. */
int udp_socket(tram_socket_address *ret_address);

/* A pair of connected Unix datagram sockets, non-blocking. They have no names, and take few datagrams each. */
void unix_datagram_pair(int ret_fds[2]);

/* Begins to make an endpoint with this recorder; the status of the call. */
int endpoint_try(struct world *world, struct recorder *recorder, const tram_datagram_options *options,
                 tram_future **ret_future);

/* Makes one, and runs until the creator has it. */
tram_transport *endpoint_new(struct world *world, struct recorder *recorder, const tram_datagram_options *options);

/* Tries and runs to the end: the error that the future tells. */
int endpoint_error(struct world *world, const tram_datagram_options *options);

/* Over loopback UDP, without or with a remote address (the peer's); over a Unix pair. The trace is empty. */
struct endpoint endpoint_open(struct world *world);
struct endpoint endpoint_open_connected(struct world *world);
struct endpoint endpoint_open_unix(struct world *world);

/* With these options, and whatever peer. */
struct endpoint endpoint_open_with(struct world *world, const tram_datagram_options *options, int peer);

/* Closes the peer, aborts the transport if it still lives, and runs to connection_lost. */
void endpoint_close(struct endpoint *endpoint);

/* Sends `size` bytes of the pattern from `offset` on, to the peer: by its address, or NULL where that is not needed. */
int send_pattern(struct endpoint *endpoint, size_t size, size_t offset);

/* The peer's next datagram has `size` bytes of the pattern from `offset` on; the loop runs until it comes. */
void expect_pattern(struct endpoint *endpoint, size_t size, size_t offset);

/* The peer sends `size` bytes of the pattern. */
void peer_sends(struct endpoint *endpoint, size_t size, size_t offset);

/* The peer's next datagram, without running the loop: its size, or -1. */
ssize_t peer_takes(struct endpoint *endpoint, void *bytes, size_t size);

/* Where `fd` is bound. */
tram_socket_address address_of(int fd);

#endif
