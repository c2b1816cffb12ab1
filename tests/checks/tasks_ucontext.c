/* A little of everything, for a library whose switch was replaced. */
#include <tram/tram.h>

static int left = 500;

static int work(void *arg) {
    (void)arg;
    for (int i = 0; i < 10; i++)
        if (tram_yield())
            return -1;
    int status = tram_sleep(1000000);
    left--;
    return status;
}

static int sleep_long(void *arg) {
    (void)arg;
    return tram_sleep(TRAM_FOREVER);
}

static int run(void *arg) {
    (void)arg;
    tram_group *group;
    tram_task *sleeper;
    int status = tram_task_spawn(0, sleep_long, 0, 0, &sleeper);
    if (!status)
        status = tram_group_begin(&group);
    for (int i = 0; i < 500 && !status; i++)
        status = tram_group_spawn(group, work, 0, 0, 0);
    status = tram_group_end(group, status);
    tram_task_cancel(sleeper);
    return tram_task_join(sleeper) == TRAM_ECANCELLED ? status : -1;
}

int main(void) {
    return tram_run(run, 0, 0) == 0 && left == 0 ? 0 : 1;
}
