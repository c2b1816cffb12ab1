/*
 * What a task that waits says of where it waits is behind a call of its user's: for all tests. Looked at whenever a
 * loop polls (support/sys.c).
 */
#include "support/waits.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/tasks/task.h"

/* A direct call, as those of tests are: the code of library and tests is one program. */
static bool is_behind_a_call(const unsigned char *where) {
#if defined(__x86_64__)
    extern const unsigned char __executable_start[], etext[];
    return where > __executable_start + 5 && where < etext && where[-5] == 0xe8;
#elif defined(__aarch64__)
    return (where[-1] & 0xfc) == 0x94;
#else
    return where != NULL;
#endif
}

/* Of some tasks: there may be many, and a loop polls often. */
void waits_check(void) {
    enum { MOST = 4 };
    const tram_loop *loop = tram_loop_running();
    struct task_loop *tasks = loop ? task_loop_present(loop) : NULL;
    if (!tasks)
        return;
    int count = 0;
    for (const struct list *link = tasks->all.previous; link != &tasks->all && count < MOST; link = link->previous) {
        const struct task_wait *wait = container_of(link, tram_task, link)->wait;
        count++;
        if (!wait || !wait->where || is_behind_a_call(wait->where))
            continue;
        fprintf(stderr, "a task waits in %s at %p, which is behind no call\n", wait->kind->name, wait->where);
        abort();
    }
}
