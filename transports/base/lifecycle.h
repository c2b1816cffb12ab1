/*
 * The life of a transport, by core/base/life.h: its states are sets of bits in `flags`, so that hot paths ask for
 * several at once, and transport_move() is the only one that changes these bits. Which moves there are is the table in
 * validate.c; docs/architecture.md has a drawing of it. `closing` (T_ASKED) is a mark beside the life.
 */
#ifndef TRAM_TRANSPORTS_BASE_LIFECYCLE_H
#define TRAM_TRANSPORTS_BASE_LIFECYCLE_H

#include "core/base/life.h"
#include "transports/base/types.h"

enum transport_life {
    LIFE_NONE,
    LIFE_MAKING,         /* connection_made is due, or waits for layers */
    LIFE_MAKING_CLOSING, /* … and it was closed meanwhile */
    LIFE_MAKING_ENDED,   /* … and its end is certain: connection_made, if it comes, and connection_lost */
    LIFE_OPEN,           /* connection_made was called */
    LIFE_CLOSING,        /* waits in turn for a file and the queue, each layer's shutdown, the carrier's own end */
    LIFE_LINGERING,      /* … and for the peer's end: all was sent */
    LIFE_ENDED,          /* connection_lost is certain, and nothing goes in or out any more */
    LIFE_LOST,           /* it was called, or will never be; for those who hold the transport still */
    LIFE_COUNT,
};

enum transport_move {
    MOVE_MADE,   /* connection_made is next */
    MOVE_CLOSE,  /* close */
    MOVE_LINGER, /* what was to be sent is, and the close is to linger */
    MOVE_END,    /* nothing is left to wait for, or an abort, or a fatal error */
    MOVE_LOSE,   /* connection_lost is next; withdrawn before connection_made, or detached: nothing is */
    MOVE_COUNT,
};

#define LIFE_FLAGS  ((uint32_t)(T_MADE_PENDING | T_MADE | T_CLOSING | T_LINGERING | T_LOST_PENDING | T_LOST))
#define LIFE_BEGINS ((uint32_t)T_MADE_PENDING)

extern const struct life_table tram__transport_life;

/* The state that the bits stand for; LIFE_NONE: none. */
enum transport_life tram__transport_life_of(uint32_t flags);

/* What a move makes of these bits, whatever they were. */
static inline uint32_t transport_flags_after(uint32_t flags, enum transport_move move) {
    switch (move) {
    case MOVE_MADE:
        return (flags & ~(uint32_t)T_MADE_PENDING) | T_MADE;
    case MOVE_CLOSE:
        return flags | T_CLOSING;
    case MOVE_LINGER:
        return flags | T_LINGERING;
    case MOVE_END:
        return flags | T_CLOSING | T_LOST_PENDING;
    case MOVE_LOSE:
        return (flags & ~(uint32_t)T_MADE_PENDING) | T_LOST;
    case MOVE_COUNT:
        break;
    }
    return flags;
}

/* Release builds do not ask the table: a connection makes a move in each of its ticks. */
static inline void transport_move(tram_transport *transport, enum transport_move move) {
    uint32_t before = transport->flags;
    transport->flags = transport_flags_after(before, move);
    if (TRAM_CHECKED) {
        uint8_t life = (uint8_t)tram__transport_life_of(before);
        tram__life_move(&tram__transport_life, &life, move, transport);
        TRAM_ASSERT(life == tram__transport_life_of(transport->flags));
    }
}

#endif
