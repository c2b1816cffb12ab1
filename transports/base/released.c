#include "transports/base/released.h"

#include "transports/base/state.h"

void tram__protocol_release(tram_protocol *protocol) {
    protocol->transport = NULL;
    if (protocol->ops->released)
        protocol->ops->released(protocol);
}

/* `reserved` of the last protocol that waits for its `released`; 0 in those that do not wait. */
#define LAST_RELEASED ((uintptr_t)1)

static inline tram_protocol *next_released(const tram_protocol *protocol) {
    return protocol->reserved == LAST_RELEASED ? NULL : (tram_protocol *)protocol->reserved;
}

static void queue_release(tram_loop *loop);

static void release_run(tram_loop *loop, struct ready *ready) {
    struct transport_state *state = container_of(ready, struct transport_state, release_ready);
    size_t count = 0;
    for (const tram_protocol *protocol = state->released; protocol; protocol = next_released(protocol))
        count++;
    /* One at a time: a `released` may give a transport one of those that still wait, or let go of another. */
    while (count-- && state->released) {
        tram_protocol *protocol = state->released;
        state->released = next_released(protocol);
        protocol->reserved = 0;
        tram__protocol_release(protocol);
    }
    if (state->released) /* let go of meanwhile */
        queue_release(loop);
}

/* It may be queued still, with nothing to do, where all were set again. */
static void queue_release(tram_loop *loop) {
    struct ready *ready = &transport_state(loop)->release_ready;
    if (ready->run && !list_empty(&ready->link))
        return;
    ready->run = release_run;
    loop_ready(loop, ready);
}

void tram__protocol_reclaim(tram_loop *loop, tram_protocol *protocol) {
    if (likely(!protocol->reserved))
        return;
    struct transport_state *state = transport_state(loop);
    tram_protocol *previous = NULL;
    tram_protocol *found = state->released;
    while (found && found != protocol) {
        previous = found;
        found = next_released(found);
    }
    if (!found)
        return;
    if (previous)
        previous->reserved = protocol->reserved;
    else
        state->released = next_released(protocol);
    if (state->released_last == protocol)
        state->released_last = previous;
    protocol->reserved = 0;
}

void tram__protocol_release_soon(tram_loop *loop, tram_protocol *protocol) {
    struct transport_state *state = transport_state(loop);
    protocol->transport = NULL;
    protocol->reserved = LAST_RELEASED;
    if (state->released)
        state->released_last->reserved = (uintptr_t)protocol;
    else
        state->released = protocol;
    state->released_last = protocol;
    queue_release(loop);
}

void tram__released_validate(const struct transport_state *state) {
    const tram_protocol *last = NULL;
    for (const tram_protocol *protocol = state->released; protocol; protocol = next_released(protocol)) {
        TRAM_ASSERT(protocol->reserved && !protocol->transport);
        last = protocol;
    }
    TRAM_ASSERT(!last || last == state->released_last);
    TRAM_ASSERT(!last || !list_empty(&state->release_ready.link));
}
