#include "core/loop/loop.h"

int tram__deadline_start(tram_loop *loop, struct deadline *deadline, uint64_t when_ns) {
    return tram__timers_start(&loop->timers, &deadline->timer, when_ns);
}

int tram__deadline_start_after(tram_loop *loop, struct deadline *deadline, uint64_t duration_ns) {
    return tram__deadline_start(loop, deadline, time_after(tram__clock(loop), duration_ns));
}
