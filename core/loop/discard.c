#include "core/loop/discard.h"

#include <errno.h>

int tram__discard_new(tram_loop *loop, tram_discard function, void *arg, struct discard **ret_discard) {
    *ret_discard = NULL;
    if (!function)
        return 0;
    struct discard *discard = memory_get(&loop->allocator, sizeof *discard);
    if (!discard)
        return -ENOMEM;
    discard->function = function;
    discard->arg = arg;
    *ret_discard = discard;
    return 0;
}

void tram__discard_forget(tram_loop *loop, struct discard *discard) {
    memory_put(&loop->allocator, discard, sizeof *discard);
}

static void run(tram_loop *loop, struct discard *discard) {
    tram_discard function = discard->function;
    void *arg = discard->arg;
    tram__discard_forget(loop, discard);
    function(arg);
}

static void run_deferred(tram_loop *loop, struct deferred_free *deferred) {
    run(loop, container_of(deferred, struct discard, deferred));
}

void tram__discard_soon(tram_loop *loop, struct discard *discard) {
    if (!discard)
        return;
    if (loop->in_tick || loop->in_exception_handler)
        tram__loop_free_later(loop, &discard->deferred, run_deferred);
    else
        run(loop, discard);
}
