#include "transports/base/state.h"

#include <errno.h>

#include "transports/base/chunks.h"
#include "transports/base/released.h"
#include "transports/base/transport.h"

static void state_free(tram_loop *loop, struct loop_state *state) {
    struct transport_state *transports = (struct transport_state *)(void *)state;
    memory_put(&loop->allocator, transports->scratch, TRAM_LAYER_READ);
    tram__pool_fini(&transports->pool);
}

static void state_validate(const struct loop_state *base) {
    const struct transport_state *state = (const struct transport_state *)(const void *)base;
    tram__pool_validate(&state->pool);
    tram__chunks_validate(&state->chunk_cache[0]);
    tram__chunks_validate(&state->chunk_cache[1]);
    tram__released_validate(state);
    for (uint32_t slot = 1; slot < state->loop->io_slot_count; slot++) {
        const struct io *io = state->loop->io_slots[slot].io;
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
    tram__pool_init(&state->pool, &loop->allocator, sizeof(tram_transport));
    return 0;
}
