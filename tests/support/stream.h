/* One connection under test: a transport with a recorder at this end, a plain descriptor at the other. */
#ifndef TRAM_TESTS_STREAM_H
#define TRAM_TESTS_STREAM_H

#include "support/faults.h"
#include "support/support.h"

struct stream {
    struct world *world;
    struct recorder *recorder;
    tram_transport *transport;
    int peer; /* non-blocking; closed by stream_close */
};

/* cmocka setups: a world whose loop makes its system calls through faults_sys(). */
int world_setup_faults(void **state);
int world_setup_faults_debug(void **state);

/* A Unix socket pair; connection_made has run and the trace is empty. */
struct stream stream_open(struct world *world);
struct stream stream_open_tcp(struct world *world);
struct stream stream_open_with(struct world *world, struct recorder *recorder, bool tcp);

/* Closes the peer, aborts the transport if it still lives, and runs to connection_lost. */
void stream_close(struct stream *stream);

/* Bytes whose value tells their place in the stream, so that any loss, repeat or swap shows. */
void pattern(void *bytes, size_t size, size_t offset);
void assert_pattern(const void *bytes, size_t size, size_t offset);

/* Writes `size` bytes of the pattern from `offset` on. */
int write_pattern(tram_transport *transport, size_t size, size_t offset);

/* The peer reads `size` bytes while the loop runs, and finds the pattern from `offset` on. */
void read_pattern(struct stream *stream, size_t size, size_t offset);

/* What the peer has right now, without running the loop; at most `size`. */
size_t peek_peer(struct stream *stream, void *bytes, size_t size);

/* The peer takes all that waits in the kernel, without running the loop; how much. */
size_t drain_peer(struct stream *stream);

#endif
