/* The exception handler of a loop: who it is, and what becomes of its argument. report.c calls it. */
#include <errno.h>

#include "core/loop/discard.h"

#define HANDLER_SLOT LOOP_SLOT_LOOP

/* Of a handler that was set with a discard. */
struct handler_state {
    struct loop_state base;
    struct discard *discard; /* of loop->exception_arg; NULL: none */
};

/* The loop is freed, and what is reported from now on is logged. A forked child has no claim on the argument. */
static void handler_free(tram_loop *loop, struct loop_state *state) {
    struct discard *discard = container_of(state, struct handler_state, base)->discard;
    loop->exception_handler = NULL;
    if (loop_guard(loop) == GUARD_FORKED)
        tram__discard_forget(loop, discard);
    else
        tram__discard_soon(loop, discard);
}

static int set_handler(tram_loop *loop, tram_exception_handler handler, void *arg, tram_discard function) {
    struct handler_state *state = loop_slot(loop, HANDLER_SLOT);
    struct discard *discard = NULL;
    if (function) {
        state = tram__loop_slot_open(loop, HANDLER_SLOT, sizeof *state, handler_free);
        int status = state ? tram__discard_new(loop, function, arg, &discard) : -ENOMEM;
        if (status)
            return status;
    }
    struct discard *replaced = state ? state->discard : NULL;
    if (state)
        state->discard = discard;
    loop->exception_handler = handler;
    loop->exception_arg = arg;
    tram__discard_soon(loop, replaced);
    return 0;
}

int tram_loop_set_exception_handler(tram_loop *loop, tram_exception_handler handler, void *arg) {
    int status = loop_enter(loop, __func__);
    return status ? status : set_handler(loop, handler, arg, NULL);
}

int tram_loop_set_exception_handler_with_discard(tram_loop *loop, tram_exception_handler handler, void *arg,
                                                 tram_discard discard) {
    int status = loop_enter(loop, __func__);
    return status ? status : set_handler(loop, handler, arg, discard);
}
