/* Timeouts from the inside: tram_timeout, which may lie on the task's stack where the library itself ends it. */
#ifndef TRAM_CORE_TASKS_TIMEOUT_H
#define TRAM_CORE_TASKS_TIMEOUT_H

#include "core/tasks/task.h"
#include <tram/wait.h>

enum timeout_state { TIMEOUT_ENTERED, TIMEOUT_EXPIRING, TIMEOUT_EXPIRED, TIMEOUT_EXITED };

struct tram_timeout {
    struct task_scope scope;
    tram_task *task;
    struct deadline deadline;
    struct ready ready; /* instead of the deadline where that has passed */
    uint64_t when_ns;
    unsigned cancelling; /* requests that the task had before */
    enum timeout_state state;
    bool allocated;
};

/* Begins one in the caller's memory. 0, or -ENOMEM: nothing was begun. */
int tram__timeout_enter(struct tram_timeout *timeout, tram_task *task, uint64_t delay_ns);

/* Ends it: `status`, or TRAM_ETIMEOUT. */
int tram__timeout_leave(struct tram_timeout *timeout, int status);

#endif
