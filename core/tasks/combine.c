#include "core/tasks/combine.h"

#include <errno.h>

#include "core/base/invalid.h"

static void watched_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    struct watched *watched = container_of(ready, struct watched, watch.ready);
    watched->done(watched);
}

void tram__watch_begin(struct watched *watched, tram_future *future, void (*done)(struct watched *)) {
    watched->done = done;
    tram__future_hold(future);
    tram__future_watch(future, &watched->watch, watched_run);
}

void tram__watch_end(struct watched *watched) {
    future_unwatch(&watched->watch);
    tram__future_drop(watched->watch.future);
}

int tram__futures_check(const tram_loop *loop, tram_future *const *futures, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!futures[i])
            return tram__invalid("futures");
        if (futures[i]->loop != loop)
            return TRAM_ESTATE;
    }
    return 0;
}
