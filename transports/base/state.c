#include "transports/base/state.h"

#include <errno.h>

#include "transports/base/types.h"

static void state_free(tram_loop *loop, struct loop_state *state) {
    (void)loop;
    tram__pool_fini(&((struct transport_state *)(void *)state)->pool);
}

int tram__transport_state_make(tram_loop *loop) {
    struct transport_state *state = tram__loop_slot_open(loop, TRANSPORT_SLOT, sizeof *state, state_free);
    if (!state)
        return -ENOMEM;
    state->loop = loop;
    tram__pool_init(&state->pool, &loop->allocator, sizeof(tram_transport));
    return 0;
}
