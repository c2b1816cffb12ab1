#include "core/tasks/stack.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/compiler.h"
#include "core/base/invalid.h"
#include "core/base/limits.h"
#include <tram/error.h>

#if defined(TRAM_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif
#if defined(__has_include) && !defined(TRAM_ASAN) && !defined(TRAM_TSAN)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum guard_method tram__stack_guard_method = GUARD_BEST;

static unsigned guard_of(struct stack_pool *pool) {
    if (unlikely(!pool->guard))
        pool->guard = (unsigned)sysconf(_SC_PAGESIZE);
    return pool->guard;
}

static int protect(char *base, size_t size) {
    if (tram__stack_guard_method == GUARD_BEST && madvise(base, size, MADV_GUARD_INSTALL) == 0)
        return 0;
    return mprotect(base, size, PROT_NONE) ? -errno : 0;
}

/* What watches memory learns that this is a stack. The note lies at its top, which is nobody's while it is free. */
struct note {
    void *next;
    unsigned valgrind_id;
};

_Static_assert(sizeof(struct note) == STACK_NOTE, "the note has room");

static struct note *note_of(struct stack stack) {
    return (struct note *)(void *)(stack.base + ((size_t)1 << stack.class_) - sizeof(struct note));
}

static void announce(struct stack stack) {
    char *bottom = stack_bottom(&stack);
    size_t size = stack_size(&stack);
#if defined(TRAM_ASAN)
    __lsan_register_root_region(bottom, size);
#elif defined(VALGRIND_STACK_REGISTER)
    note_of(stack)->valgrind_id = VALGRIND_STACK_REGISTER(bottom, bottom + size);
#endif
    (void)bottom;
    (void)size;
}

static void unmap(struct stack stack) {
#if defined(TRAM_ASAN)
    __lsan_unregister_root_region(stack_bottom(&stack), stack_size(&stack));
#elif defined(VALGRIND_STACK_REGISTER)
    VALGRIND_STACK_DEREGISTER(note_of(stack)->valgrind_id);
#endif
    munmap(stack.base, (size_t)1 << stack.class_);
}

static int map(struct stack *stack) {
    size_t size = (size_t)1 << stack->class_;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return -ENOMEM;
    stack->base = base;
    /* Neighbours are one mapping to the kernel: a huge page of it would be memory for stacks that use none. */
    madvise(base, size, MADV_NOHUGEPAGE);
    int status = protect(base, stack->guard);
    if (status) {
        munmap(base, size);
        return status;
    }
    announce(*stack);
    return 0;
}

static unsigned class_of(size_t size) {
    unsigned class_ = 64u - (unsigned)__builtin_clzll(size - 1);
    return MAX(class_, STACK_CLASS_LEAST);
}

int tram__stack_get(struct stack_pool *pool, size_t size, struct stack *ret_stack) {
    /* The default is a power of two that includes the guard; a size that somebody asks for is there in full. */
    unsigned guard = guard_of(pool);
    size_t more = guard + STACK_NOTE + STACK_OFFSETS * 64;
    if (unlikely(size > SIZE_MAX / 2))
        return tram__invalid("stack_size");
    unsigned class_ = size ? class_of(size + more) : class_of(TRAM_TASK_STACK);
    if (unlikely(class_ > STACK_CLASS_MOST))
        return tram__invalid("stack_size");
    *ret_stack = (struct stack){.class_ = class_, .guard = guard};
    void **free = &pool->free[class_ - STACK_CLASS_LEAST];
    if (likely(*free != NULL)) {
        struct note *note = *free;
        *free = note->next;
        pool->free_count--;
        ret_stack->base = (char *)(note + 1) - ((size_t)1 << class_);
    } else {
        int status = map(ret_stack);
        if (status)
            return status;
    }
    pool->live++;
    return 0;
}

void tram__stack_put(struct stack_pool *pool, struct stack stack) {
    pool->live--;
#if defined(TRAM_ASAN)
    /* Calls that never returned have left marks. */
    ASAN_UNPOISON_MEMORY_REGION(stack_bottom(&stack), stack_size(&stack));
#endif
    if (pool->free_count >= TRAM_TASK_STACKS_KEPT) {
        unmap(stack);
        return;
    }
    struct note *note = note_of(stack);
    void **free = &pool->free[stack.class_ - STACK_CLASS_LEAST];
    note->next = *free;
    *free = note;
    pool->free_count++;
}

void tram__stack_pool_fini(struct stack_pool *pool) {
    for (unsigned class_ = STACK_CLASS_LEAST; class_ <= STACK_CLASS_MOST; class_++) {
        struct note *note = pool->free[class_ - STACK_CLASS_LEAST];
        while (note) {
            struct note *next = note->next;
            unmap((struct stack){
                .base = (char *)(note + 1) - ((size_t)1 << class_), .class_ = class_, .guard = pool->guard});
            note = next;
        }
    }
    *pool = (struct stack_pool){.live = pool->live, .guard = pool->guard};
}
