#include "transports/base/state.h"

#include <errno.h>

#include "transports/base/chunks.h"
#include "transports/base/held.h"
#include "transports/base/released.h"
#include "transports/base/transport.h"

/* Work whose end the closed loop did not call any more: its hold is not given back. */
static void free_working(tram_loop *loop, struct transport_state *state) {
    while (!list_empty(&state->working)) {
        tram_transport *transport = container_of(state->working.next, struct transport_work, link)->transport;
        list_remove(&transport->more->work->link);
        tram__transport_free_more(loop, transport);
        if (transport_kind_of(transport)->dispose)
            transport_kind_of(transport)->dispose(transport);
    }
}

static void state_free(tram_loop *loop, struct loop_state *base) {
    struct transport_state *state = (struct transport_state *)(void *)base;
    free_working(loop, state);
    tram__chunks_free(loop, state);
    tram__pool_fini(&state->pool);
}

static void state_validate(const struct loop_state *base) {
    const struct transport_state *state = (const struct transport_state *)(const void *)base;
    tram__pool_validate(&state->pool);
    tram__chunks_validate(&state->chunk_cache[0]);
    tram__chunks_validate(&state->chunk_cache[1]);
    tram__released_validate(state);
    list_validate(&state->working);
    for (uint32_t slot = 1; slot < slots_count(&state->loop->io_slots); slot++) {
        const struct io *io = io_of_slot(state->loop, slot);
        if (io && io->kind->transport)
            tram__transport_validate((const tram_transport *)(const void *)io);
    }
}

int tram__transport_state_make(tram_loop *loop) {
    struct transport_state *state = tram__loop_slot_open(loop, TRANSPORT_SLOT, sizeof *state, state_free);
    if (!state)
        return -ENOMEM;
    state->loop = loop;
    state->state.validate = state_validate;
    list_init(&state->working);
    tram__pool_init(&state->pool, &loop->allocator, sizeof(tram_transport));
    return 0;
}
