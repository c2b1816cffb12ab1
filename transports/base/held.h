/*
 * Held bytes: the prefix of a reader, which it gets before anything else (Y-3). What adopt was given, what a peek did
 * not use, what a layer left that is gone. A copy, in memory of its loop.
 */
#ifndef TRAM_TRANSPORTS_BASE_HELD_H
#define TRAM_TRANSPORTS_BASE_HELD_H

#include "transports/base/transport.h"

struct held {
    struct deferred_free deferred;
    size_t taken; /* by the reader */
    size_t size;
    char bytes[];
};

/* NULL: out of memory. */
struct held *tram__held_new(tram_loop *loop, const void *data, size_t size);

/* At once; NULL is allowed. */
void tram__held_free(tram_loop *loop, struct held *held);

/* At the end of the tick: a reader may look at the bytes still. */
void tram__held_free_later(tram_loop *loop, struct held *held);

/* Puts bytes behind those of *held, which may be NULL. 0 or -ENOMEM: it is as before. */
int tram__held_append(tram_loop *loop, struct held **held, const void *data, size_t size);

/* Moves at most `size` bytes from the front; how many. Frees it when it is empty. */
size_t tram__held_take(tram_loop *loop, struct held **held, void *memory, size_t size);

static inline size_t held_left(const struct held *held) {
    return held ? held->size - held->taken : 0;
}

/*
 * The transport, which has its `more` part, is to deliver them first; they are its from now on. `end`: and behind them
 * the end of the stream; then they may be NULL.
 */
void tram__transport_give_held(tram_transport *transport, struct held *held, bool end);

#endif
