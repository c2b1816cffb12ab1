/* `released`, the last callback of a protocol, and the protocols that wait for it. */
#ifndef TRAM_TRANSPORTS_BASE_RELEASED_H
#define TRAM_TRANSPORTS_BASE_RELEASED_H

#include "core/loop/loop.h"
#include <tram/protocol.h>

struct transport_state;

/* Calls it here and now. */
void tram__protocol_release(tram_protocol *protocol);

/* Queues it for a protocol that no transport has any more (X-4, S-5). Never fails. */
void tram__protocol_release_soon(tram_loop *loop, tram_protocol *protocol);

/* Takes that back, for a protocol that a transport has again. Harmless for any other. */
void tram__protocol_reclaim(tram_loop *loop, tram_protocol *protocol);

/* Those that wait form a list whose last is known. */
void tram__released_validate(const struct transport_state *state);

#endif
