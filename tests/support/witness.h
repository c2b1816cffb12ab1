/*
 * A protocol that watches the order of its callbacks and pairs them off: for tests in which much goes wrong at the same
 * time, on any number of loops. It serves as an echo server or as a client that sends something and wants it back.
 */
#ifndef TRAM_TESTS_WITNESS_H
#define TRAM_TESTS_WITNESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include <tram/tram.h>

/* What a client does once its echo is there, or with the connection. */
enum witness_end {
    WITNESS_CLOSES,
    WITNESS_ABORTS,
    WITNESS_HALF_CLOSES, /* ends its side behind the last byte sent, and reads on until EOF */
    WITNESS_STAYS,       /* the other end has to end it */
    WITNESS_RESETS,      /* closes so that the kernel sends a reset: no TIME_WAIT is left */
};

/* Shared by the protocols of a run. `wrong` counts callbacks that came in no good order. */
struct witness_tally {
    atomic_uint protocols;
    atomic_uint made;
    atomic_uint lost;
    atomic_uint released;
    atomic_uint echoed; /* clients that got back all they sent */
    atomic_uint wrong;
    size_t size;        /* what a client sends */
    size_t send_buffer; /* SO_SNDBUF of every connection; 0: as it is */
    enum witness_end end;
    bool buffered;
    tram_transport *client; /* the latest client, while it is connected */
};

/* tram_protocol_factory, whose arg is the tally. */
int witness_server(tram_loop *loop, void *arg, tram_protocol **ret_protocol);
int witness_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol);

/* Everyone that was made was lost, everyone was released, and nothing came out of order. */
bool witness_paired(const struct witness_tally *tally);

#endif
