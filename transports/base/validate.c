/* The states of a transport: the table of its life, what must hold for every open one, and how it reads in a log. */
#include "transports/base/lifecycle.h"
#include "transports/base/transport.h"

#include <stdio.h>
#include <string.h>

/* ---- Its life ---- */

/*
 * The moves that there are; every other one is a fault of the library, which checked builds catch. After a change:
 * tests/checks/life.py --update.
 */
static const struct life_state states[] = {
    [LIFE_MAKING] = {"making",
                     {[MOVE_MADE] = LIFE_OPEN, [MOVE_CLOSE] = LIFE_MAKING_CLOSING, [MOVE_END] = LIFE_MAKING_ENDED}},
    [LIFE_MAKING_CLOSING] = {"making closing", {[MOVE_MADE] = LIFE_CLOSING, [MOVE_END] = LIFE_MAKING_ENDED}},
    [LIFE_MAKING_ENDED] = {"making ended", {[MOVE_MADE] = LIFE_ENDED, [MOVE_LOSE] = LIFE_LOST}},
    [LIFE_OPEN] = {"open", {[MOVE_CLOSE] = LIFE_CLOSING, [MOVE_END] = LIFE_ENDED}},
    [LIFE_CLOSING] = {"closing", {[MOVE_LINGER] = LIFE_LINGERING, [MOVE_END] = LIFE_ENDED}},
    [LIFE_LINGERING] = {"lingering", {[MOVE_END] = LIFE_ENDED}},
    [LIFE_ENDED] = {"ended", {[MOVE_LOSE] = LIFE_LOST}},
    [LIFE_LOST] = {.name = "lost"},
};

enum transport_life tram__transport_life_of(uint32_t flags) {
    switch (flags & LIFE_FLAGS) {
    case T_MADE_PENDING:
        return LIFE_MAKING;
    case T_MADE_PENDING | T_CLOSING:
        return LIFE_MAKING_CLOSING;
    case T_MADE_PENDING | T_CLOSING | T_LOST_PENDING:
        return LIFE_MAKING_ENDED;
    case T_MADE:
        return LIFE_OPEN;
    case T_MADE | T_CLOSING:
        return LIFE_CLOSING;
    case T_MADE | T_CLOSING | T_LINGERING:
        return LIFE_LINGERING;
    case T_MADE | T_CLOSING | T_LOST_PENDING:
    case T_MADE | T_CLOSING | T_LOST_PENDING | T_LINGERING:
        return LIFE_ENDED;
    case T_CLOSING | T_LOST_PENDING | T_LOST: /* connection_made never came */
    case T_MADE | T_CLOSING | T_LOST_PENDING | T_LOST:
    case T_MADE | T_CLOSING | T_LOST_PENDING | T_LINGERING | T_LOST:
        return LIFE_LOST;
    default:
        return LIFE_NONE;
    }
}

static void validate_life(const void *object) {
    const tram_transport *transport = object;
    if (transport->flags & T_LOST)
        TRAM_ASSERT(!(transport->io.wanted & (IO_READ | IO_WRITE)) && !(transport->flags & T_HAS_WRITER));
}

const struct life_table tram__transport_life = {.name = "transport", .states = states, .validate = validate_life};

/* ---- All its flags ---- */

static const char *const flag_names[] = {
    "made-pending", "made",         "paused",         "eof",       "closing",       "lost-pending",
    "lost",         "write-eof",    "writing-paused", "overrides", "creator",       "exclusive",
    "writer",       "yields",       "server-close",   "held",      "writing-ended", "not-ours",
    "fd-known",     "metered",      "bridged",        "layered",   "reset",         "asked",
    "told",         "write-failed", "send-later",     "linger",    "lingering",     "own-limits",
};
_Static_assert(T_FLAGS_END - 1 == 1u << (sizeof flag_names / sizeof flag_names[0] - 1), "each flag has a name");

void tram__transport_describe(const tram_transport *transport, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (unsigned bit = 0; bit < sizeof flag_names / sizeof flag_names[0]; bit++) {
        if (!(transport->flags & 1u << bit))
            continue;
        int length = snprintf(text + used, size - used, "%s%s", used ? " " : "", flag_names[bit]);
        if (length < 0 || (size_t)length >= size - used)
            return;
        used += (size_t)length;
    }
}

static void flags_validate(uint32_t flags) {
    TRAM_ASSERT(flags < 1u << (sizeof flag_names / sizeof flag_names[0]));
    TRAM_ASSERT(tram__transport_life_of(flags) != LIFE_NONE);
    TRAM_ASSERT(!(flags & T_LOST)); /* it would have left the loop's slots */
    TRAM_ASSERT(!(flags & T_EXCLUSIVE) || flags & (T_HAS_WRITER | T_LAYERED));
    TRAM_ASSERT(!(flags & T_WRITER_YIELDS) || flags & T_HAS_WRITER);
    TRAM_ASSERT((flags & (T_EXCLUSIVE | T_WRITER_YIELDS)) != (T_EXCLUSIVE | T_WRITER_YIELDS));
}

void tram__transport_validate(const tram_transport *transport) {
    flags_validate(transport->flags);
    TRAM_ASSERT(transport->protocol && transport->protocol->ops && transport->holds > 0);
    TRAM_ASSERT(transport->limits->low <= transport->limits->high);
    TRAM_ASSERT(!(transport->flags & T_HAS_WRITER) || transport->on.writer);
    TRAM_ASSERT(!(transport->flags & T_HELD) ||
                (transport->more && (transport->more->held || transport->more->held_end)));
    /* A custom transport counts what its other half has, and queues nothing here. */
    if (transport->queue.last || !(transport->flags & T_HAS_OVERRIDES))
        tram__write_queue_validate(&transport->queue);
}
