/*
 * One try to connect to any of several addresses: in turn, or as a staggered race. Every attempt that fails leaves a
 * record.
 */
#ifndef TRAM_TRANSPORTS_CONNECT_ATTEMPTS_H
#define TRAM_TRANSPORTS_CONNECT_ATTEMPTS_H

#include "core/jobs/future.h"
#include "core/loop/types.h"
#include "transports/base/held.h"
#include "transports/connect/failures.h"
#include "transports/socket/address.h"
#include <tram/connection.h>

struct attempts {
    tram_future *operation; /* this is part of it; it stays as long as an event may name an attempt */
    /* From the loop or from tram__attempts_begin(). A socket of the callee's has reached that address. */
    void (*connected)(struct attempts *attempts, int fd, const tram_socket_address *peer);
    /* The same: nothing is under way any more, and `failures` tells why. */
    void (*failed)(struct attempts *attempts);

    /* What the sockets are to be like. */
    struct address_list *remote;
    struct address_list *local; /* which they are bound to; NULL: none */
    tram_tcp_options tcp;
    bool keep_alive;
    bool transparent;
    bool fast_open;     /* `first` may go with the packet that connects */
    struct held *first; /* what is sent before all else; `taken`: so much of it went, of the one that connected */

    bool race;
    int interleave;
    uint64_t stagger_ns;
    struct deadline stagger; /* of the next attempt in a race */

    struct attempt_list *list; /* of this try; NULL: not yet */
    size_t started;
    size_t active;
    struct failures failures; /* of this try, or the last one */
};

/* The rest is zero, or will be put there. */
void tram__attempts_init(struct attempts *attempts, tram_future *operation);

/* Begins with the first one. -ENOMEM: nothing has begun. */
int tram__attempts_begin(struct attempts *attempts);

/* Ends those under way; nothing is called. */
void tram__attempts_end(struct attempts *attempts);

/* All of them have failed, and there may be another try. */
void tram__attempts_clear(struct attempts *attempts);

void tram__attempts_fini(struct attempts *attempts);

#endif
