/* What futures that stand for other futures share: gather, shield, wait, as_completed. */
#ifndef TRAM_CORE_TASKS_COMBINE_H
#define TRAM_CORE_TASKS_COMBINE_H

#include "core/tasks/task.h"
#include <tram/wait.h>

/* One of the futures, watched and held. `done` is called from the loop, as a done callback. */
struct watched {
    struct future_watch watch;
    void (*done)(struct watched *watched);
};

void tram__watch_begin(struct watched *watched, tram_future *future, void (*done)(struct watched *));

/* Unless it is done; gives back the hold in any case. */
void tram__watch_end(struct watched *watched);

/* 0, TRAM_EVALUE if one is missing, TRAM_ESTATE if one is of another loop. */
int tram__futures_check(const tram_loop *loop, tram_future *const *futures, size_t count);

#endif
