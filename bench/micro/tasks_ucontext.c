/* The figures of bench/tasks over ucontext: the switch, and beginning and ending a context on a stack that is there. */
#include <ucontext.h>

#include "micro.h"

#define SWITCHES 200000

static ucontext_t outside, inside;
static char stack[65536] __attribute__((aligned(64)));

static void ping(void) {
    for (;;)
        swapcontext(&inside, &outside);
}

static void nothing(void) {}

static void make(void (*entry)(void)) {
    getcontext(&inside);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = sizeof stack;
    inside.uc_link = &outside;
    makecontext(&inside, entry, 0);
}

int main(void) {
    micro_pin(0);
    make(ping);
    uint64_t start = micro_cpu_now();
    for (int i = 0; i < SWITCHES / 2; i++)
        swapcontext(&outside, &inside);
    printf("switch %.3f\n", (double)(micro_cpu_now() - start) / SWITCHES);
    start = micro_cpu_now();
    for (int i = 0; i < SWITCHES / 2; i++) {
        make(nothing);
        swapcontext(&outside, &inside);
    }
    printf("spawn %.3f\n", (double)(micro_cpu_now() - start) / (SWITCHES / 2.0));
    return 0;
}
