/* The figures of bench/tasks over tram, each in ns. The switch alone has no public name: the build gives it. */
#include <string.h>
#include <unistd.h>

#include <tram/tram.h>

#include "micro.h"

#define MANY     100 /* tasks at a time, so that a tick's poll is shared by many */
#define BATCH    250 /* … of those that are spawned and joined: fewer than the stacks that are kept */
#define ROUNDS   20000
#define SWITCHES 20000000

static void say(const char *name, uint64_t ns, uint64_t count) {
    printf("%s %.3f\n", name, (double)ns / (double)count);
}

/* ---- The switch ---- */

void *CONTEXT_MAKE(void *stack, size_t size, void (*entry)(void));
void CONTEXT_SWAP(void **save, void *to);

static void *outside, *inside;

static void ping(void) {
    for (;;)
        CONTEXT_SWAP(&inside, outside);
}

static void measure_switch(void) {
    static char stack[65536] __attribute__((aligned(64)));
    inside = CONTEXT_MAKE(stack, sizeof stack, ping);
    uint64_t start = micro_cpu_now();
    for (int i = 0; i < SWITCHES / 2; i++)
        CONTEXT_SWAP(&outside, inside);
    say("switch", micro_cpu_now() - start, SWITCHES);
}

/* ---- Tasks ---- */

static int nothing(void *arg) {
    (void)arg;
    return 0;
}

static void spawn_and_join(int count) {
    tram_task *tasks[BATCH];
    for (int i = 0; i < count; i++)
        MICRO_CHECK(tram_task_spawn(NULL, nothing, NULL, NULL, &tasks[i]) == 0);
    for (int i = 0; i < count; i++)
        MICRO_CHECK(tram_task_join(tasks[i]) == 0);
}

/* With stacks of the pool: the kernel gives them, and their first pages, before the time begins. */
static void measure_spawn(const char *name, int at_a_time) {
    spawn_and_join(at_a_time);
    uint64_t start = micro_cpu_now();
    int rounds = ROUNDS / at_a_time * 10;
    for (int round = 0; round < rounds; round++)
        spawn_and_join(at_a_time);
    say(name, micro_cpu_now() - start, (uint64_t)rounds * (uint64_t)at_a_time);
}

static int yield_often(void *arg) {
    for (int i = 0; i < *(int *)arg; i++)
        MICRO_CHECK(tram_yield() == 0);
    return 0;
}

static void join_all(tram_task **tasks, int count) {
    for (int i = 0; i < count; i++)
        MICRO_CHECK(tram_task_join(tasks[i]) == 0);
}

static void measure_yield(void) {
    tram_task *tasks[MANY];
    int times = ROUNDS;
    uint64_t start = micro_cpu_now();
    for (int i = 0; i < MANY; i++)
        MICRO_CHECK(tram_task_spawn(NULL, yield_often, &times, NULL, &tasks[i]) == 0);
    join_all(tasks, MANY);
    say("yield", micro_cpu_now() - start, (uint64_t)MANY * ROUNDS);
}

static void measure_ready(void) {
    tram_future *future;
    MICRO_CHECK(tram_loop_create_future(tram_loop_running(), &future) == 0);
    MICRO_CHECK(tram_future_set_result(future, NULL) == 0);
    uint64_t start = micro_cpu_now();
    for (int i = 0; i < SWITCHES; i++)
        MICRO_CHECK(tram_await(future, NULL) == 0);
    say("ready", micro_cpu_now() - start, SWITCHES);
    tram_future_release(future);
}

/* Pairs hand over to each other. */
struct pair {
    tram_semaphore there, back;
    tram_queue *queue, *answers;
};

static int give_semaphore(void *arg) {
    struct pair *pair = arg;
    for (int i = 0; i < ROUNDS; i++) {
        tram_semaphore_release(&pair->there);
        MICRO_CHECK(tram_semaphore_acquire(&pair->back) == 0);
    }
    return 0;
}

static int take_semaphore(void *arg) {
    struct pair *pair = arg;
    for (int i = 0; i < ROUNDS; i++) {
        MICRO_CHECK(tram_semaphore_acquire(&pair->there) == 0);
        tram_semaphore_release(&pair->back);
    }
    return 0;
}

static int give_item(void *arg) {
    struct pair *pair = arg;
    void *item = pair;
    for (int i = 0; i < ROUNDS; i++) {
        MICRO_CHECK(tram_queue_put(pair->queue, item) == 0);
        MICRO_CHECK(tram_queue_get(pair->answers, &item) == 0);
    }
    return 0;
}

static int take_item(void *arg) {
    struct pair *pair = arg;
    void *item;
    for (int i = 0; i < ROUNDS; i++) {
        MICRO_CHECK(tram_queue_get(pair->queue, &item) == 0);
        MICRO_CHECK(tram_queue_put(pair->answers, item) == 0);
    }
    return 0;
}

static void measure_pairs(const char *name, tram_task_function give, tram_task_function take) {
    static struct pair pairs[MANY / 2];
    tram_task *tasks[MANY];
    for (int i = 0; i < MANY / 2; i++) {
        tram_semaphore_init(&pairs[i].there, 0, false);
        tram_semaphore_init(&pairs[i].back, 0, false);
        MICRO_CHECK(tram_queue_new(tram_loop_running(), NULL, &pairs[i].queue) == 0);
        MICRO_CHECK(tram_queue_new(tram_loop_running(), NULL, &pairs[i].answers) == 0);
    }
    uint64_t start = micro_cpu_now();
    for (int i = 0; i < MANY / 2; i++) {
        MICRO_CHECK(tram_task_spawn(NULL, take, &pairs[i], NULL, &tasks[2 * i]) == 0);
        MICRO_CHECK(tram_task_spawn(NULL, give, &pairs[i], NULL, &tasks[2 * i + 1]) == 0);
    }
    join_all(tasks, MANY);
    say(name, micro_cpu_now() - start, (uint64_t)MANY * ROUNDS);
    for (int i = 0; i < MANY / 2; i++) {
        tram_queue_free(pairs[i].queue);
        tram_queue_free(pairs[i].answers);
    }
}

static int measure_all(void *arg) {
    (void)arg;
    measure_spawn("spawn", BATCH);
    measure_spawn("spawn1", 1);
    measure_yield();
    measure_ready();
    measure_pairs("semaphore", give_semaphore, take_semaphore);
    measure_pairs("queue", give_item, take_item);
    return 0;
}

/* ---- 100,000 that sleep ---- */

static int sleep_long(void *arg) {
    (void)arg;
    return tram_sleep(TRAM_FOREVER);
}

static double resident_mib(void) {
    char line[256];
    double kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    MICRO_CHECK(file);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, "VmRSS:", 6))
            kib = atof(line + 6);
    fclose(file);
    return kib / 1024;
}

static int sleep_all(void *arg) {
    int count = *(int *)arg;
    double before = resident_mib();
    for (int i = 0; i < count; i++)
        MICRO_CHECK(tram_task_spawn(NULL, sleep_long, NULL, NULL, NULL) == 0);
    MICRO_CHECK(tram_yield() == 0);
    MICRO_CHECK(tram_yield() == 0);
    printf("resident_mib %.1f\n", resident_mib() - before);
    fflush(stdout);
    _exit(0); /* nobody waits for them */
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && atoi(argv[1]) > 0) {
        int count = atoi(argv[1]);
        return tram_run(sleep_all, &count, NULL) ? 1 : 0;
    }
    micro_pin(0);
    measure_switch();
    return tram_run(measure_all, NULL, NULL) ? 1 : 0;
}
