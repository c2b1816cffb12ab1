/*
 * Stacks of tasks: mapped memory with a guard below, kept for reuse by the loop that used them.
 *
 * A guard is made by MADV_GUARD_INSTALL (Linux 6.13), which splits no mapping, so that there may be any number. On an
 * older kernel it is a page without access, and a stack needs two mappings: vm.max_map_count ends at some 32,000
 * stacks, and the next is -ENOMEM.
 *
 * Sizes are powers of two, guard included. Memory of a stack is the kernel's to give when it is touched.
 */
#ifndef TRAM_CORE_TASKS_STACK_H
#define TRAM_CORE_TASKS_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From 2^14 to 2^30 bytes. */
#define STACK_CLASS_LEAST 14
#define STACK_CLASS_MOST  30

struct stack {
    char *base;      /* the guard begins here */
    unsigned class_; /* its size is 2^class_ */
    unsigned guard;  /* the guard's bytes */
};

/* Free stacks of a loop, by class, linked through their topmost word. */
struct stack_pool {
    void *free[STACK_CLASS_MOST + 1 - STACK_CLASS_LEAST];
    unsigned free_count;
    unsigned live;  /* given out */
    unsigned guard; /* bytes of every guard: a page; 0: not asked yet */
};

/* A stack of at least `size` usable bytes. 0, TRAM_EVALUE (beyond 2^30), -ENOMEM. */
int tram__stack_get(struct stack_pool *pool, size_t size, struct stack *ret_stack);
void tram__stack_put(struct stack_pool *pool, struct stack stack);

/* Unmaps what is free. */
void tram__stack_pool_fini(struct stack_pool *pool);

/* Above the guard. */
static inline void *stack_bottom(const struct stack *stack) {
    return stack->base + stack->guard;
}

static inline size_t stack_size(const struct stack *stack) {
    return ((size_t)1 << stack->class_) - stack->guard;
}

/*
 * Without the topmost bytes: a note of the pool's, and an offset that differs from stack to stack. Without that the
 * tops of all stacks, whose addresses differ by powers of two, would share the same few lines of every cache.
 */
#define STACK_NOTE    16
#define STACK_OFFSETS 32
static inline size_t stack_usable(const struct stack *stack) {
    size_t offset = ((uintptr_t)stack->base >> stack->class_) % STACK_OFFSETS * 64;
    return stack_size(stack) - STACK_NOTE - offset;
}

/* How guards are made; for tests. */
enum guard_method { GUARD_BEST, GUARD_MPROTECT };
extern enum guard_method tram__stack_guard_method;

#endif
