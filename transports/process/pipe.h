/* Pipe transports as the library makes them, for a caller who has the protocol already. */
#ifndef TRAM_TRANSPORTS_PROCESS_PIPE_H
#define TRAM_TRANSPORTS_PROCESS_PIPE_H

#include "transports/base/transport.h"

enum pipe_side { PIPE_READ, PIPE_WRITE };

/*
 * Makes a transport and queues connection_made, the start of reading and the wake-up of `creator` (P-3; may be NULL).
 * On success the descriptor and the protocol are the transport's. On failure both stay the caller's: TRAM_EVALUE (I-1),
 * TRAM_ESTATE (T-18), -EBADF, -ENOMEM.
 */
int tram__pipe_new(tram_loop *loop, enum pipe_side side, int fd, tram_protocol *protocol, tram_future *creator,
                   tram_transport **ret_transport);

#endif
