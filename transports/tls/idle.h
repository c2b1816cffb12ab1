/*
 * OpenSSL's buffers, some 34 KiB of a connection. It gives them back after each read and write of a connection that is
 * new or says little: 10,000 that wait have none. A busy one keeps them until it is idle. Time goes in rounds: who is
 * used in a round is on the list `used` of its loop, who was used in the one before on `resting`; one timer a loop ends
 * the round, and those that still rest are busy no more.
 */
#ifndef TRAM_TRANSPORTS_TLS_IDLE_H
#define TRAM_TRANSPORTS_TLS_IDLE_H

#include "core/base/compiler.h"
#include "transports/tls/engine.h"

void tram__tls_idle_note(struct tls_engine *engine);

/* It reads or writes. */
static inline void tls_idle_used(struct tls_engine *engine) {
    if (unlikely(engine->idle_round != engine->loop->idle_round))
        tram__tls_idle_note(engine);
}

/* It ends, or leaves its loop. */
static inline void tls_idle_forget(struct tls_engine *engine) {
    list_remove(&engine->idle_link);
    engine->idle_round = 0;
}

/* Ends the round, or a part of that: many are given back in several ticks. True: there is more to do. */
bool tram__tls_idle_end_round(struct tls_loop *loop);

#endif
