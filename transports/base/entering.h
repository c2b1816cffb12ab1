/* How the public calls of a transport begin. */
#ifndef TRAM_TRANSPORTS_BASE_ENTERING_H
#define TRAM_TRANSPORTS_BASE_ENTERING_H

#include <errno.h>

#include "core/loop/report.h"
#include "transports/base/types.h"

static inline tram_loop *loop_of(const tram_transport *transport) {
    return transport->io.loop;
}

/* Getters call it for its report alone. */
static inline int enter(const tram_transport *transport, const char *function) {
    return loop_enter(transport->io.loop, function);
}

/* The kind's own function if the kind is a special one, -ENOTSUP if it has none, else the common one above. */
#define DISPATCH(transport, call, ...)                                                                                 \
    do {                                                                                                               \
        int entered = enter(transport, __func__);                                                                      \
        if (unlikely(entered))                                                                                         \
            return entered;                                                                                            \
        if (likely(!((transport)->flags & T_HAS_OVERRIDES)))                                                           \
            return tram__transport_##call(__VA_ARGS__);                                                                \
        const struct transport_overrides *calls = transport_kind_of(transport)->calls;                                 \
        return calls->call ? calls->call(__VA_ARGS__) : -ENOTSUP;                                                      \
    } while (0)

#endif
