/*
 * The life of a transport: its states are sets of bits in `flags`, so that hot paths ask for several at once, and
 * life_move() is the only one that changes these bits. Which moves there are is the table in life.c;
 * docs/architecture.md has a drawing of it. `closing` (T_ASKED) is a mark beside the life.
 */
#ifndef TRAM_TRANSPORTS_BASE_LIFE_H
#define TRAM_TRANSPORTS_BASE_LIFE_H

#include "core/base/assert.h"
#include "transports/base/types.h"

enum life {
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

enum move {
    MOVE_MADE,   /* connection_made is next */
    MOVE_CLOSE,  /* close */
    MOVE_LINGER, /* what was to be sent is, and the close is to linger */
    MOVE_END,    /* nothing is left to wait for, or an abort, or a fatal error */
    MOVE_LOSE,   /* connection_lost is next; withdrawn before connection_made, or detached: nothing is */
    MOVE_COUNT,
};

#define LIFE_FLAGS  ((uint32_t)(T_MADE_PENDING | T_MADE | T_CLOSING | T_LINGERING | T_LOST_PENDING | T_LOST))
#define LIFE_BEGINS ((uint32_t)T_MADE_PENDING)

/* What a move makes of these bits, whatever they were. */
static inline uint32_t life_after(uint32_t flags, enum move move) {
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

/* The state that the bits stand for; LIFE_NONE: none. */
enum life tram__life_of(uint32_t flags);

/* Where a move leads; LIFE_NONE: it is forbidden. */
enum life tram__life_next(enum life life, enum move move);

static inline void life_move(tram_transport *transport, enum move move) {
    uint32_t flags = life_after(transport->flags, move);
    TRAM_DCHECK(tram__life_next(tram__life_of(transport->flags), move) != LIFE_NONE);
    TRAM_DCHECK(tram__life_next(tram__life_of(transport->flags), move) == tram__life_of(flags));
    transport->flags = flags;
}

#endif
