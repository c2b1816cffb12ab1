/* For gdb: stops in a function that a task calls. */
#include <tram/tram.h>

__attribute__((noinline)) static int deepest(int depth) {
    __asm__ volatile("" ::: "memory");
    return depth;
}

__attribute__((noinline)) static int middle(void) {
    int depth = deepest(7);
    __asm__ volatile("" : "+r"(depth));
    return depth;
}

static int run(void *arg) {
    (void)arg;
    int status = middle();
    __asm__ volatile("" : "+r"(status));
    return status;
}

int main(void) {
    return tram_run(run, 0, 0) == 7 ? 0 : 1;
}
