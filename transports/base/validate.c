/* What must hold for every open transport, and how its state reads in a log. */
#include "transports/base/lifecycle.h"
#include "transports/base/transport.h"

#include <stdio.h>
#include <string.h>

static const char *const flag_names[] = {
    "made-pending", "made",         "paused",         "eof",       "closing",       "lost-pending",
    "lost",         "write-eof",    "writing-paused", "overrides", "creator",       "exclusive",
    "writer",       "yields",       "server-close",   "held",      "writing-ended", "not-ours",
    "fd-known",     "metered",      "bridged",        "layered",   "reset",         "asked",
    "told",         "write-failed", "send-later",     "linger",    "lingering",
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
