/* What streams keep per loop: their memory, and that of what they have not read. The loop's thread. */
#ifndef TRAM_PROTOCOLS_STREAMS_POOL_H
#define TRAM_PROTOCOLS_STREAMS_POOL_H

#include "core/base/pool.h"
#include "core/loop/loop.h"

#define STREAMS_SLOT LOOP_SLOT_PROTOCOLS

/* Of an input's block, its head included: what most requests fit in twice. Larger ones are the allocator's. */
#define STREAM_BLOCK 1024u

/* What a loop keeps that is made of streams, while it lives: streams, processes. */
struct stream_owned {
    struct list link;
    const struct stream_owned_kind *kind;
};

struct stream_owned_kind {
    void (*closing)(struct stream_owned *owned); /* the loop closes, after which no transport is let go of */
    void (*abandon)(struct stream_owned *owned); /* the loop is freed: it frees itself */
};

struct stream_loop {
    struct loop_state state;
    tram_loop *loop;
    struct pool streams;
    struct pool blocks;
    struct list all; /* struct stream_owned */
    struct close_hook hook;
};

/* Made when it is first needed; NULL: out of memory. */
struct stream_loop *tram__streams_loop(tram_loop *loop);

/* Where inputs get blocks; tram__streams_loop() came before. */
tram_allocator tram__streams_blocks(tram_loop *loop);

#endif
