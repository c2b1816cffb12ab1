/*
 * Execution contexts: a stack and the registers that the C calling convention keeps across a call.
 *
 * x86-64 and aarch64 have a switch of their own (context_x86_64.S, context_aarch64.S): it saves on the stack that it
 * leaves and makes no system call. Elsewhere, and with TRAM_UCONTEXT, ucontext does the same (context_ucontext.c). The
 * signal mask is nobody's part: it stays the thread's.
 *
 * A context is resumed on the thread that started it only: compilers keep addresses of thread-local variables.
 */
#ifndef TRAM_CORE_TASKS_CONTEXT_H
#define TRAM_CORE_TASKS_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/compiler.h"

#if !defined(__x86_64__) && !(defined(__aarch64__) && defined(__AARCH64EL__))
#ifndef TRAM_UCONTEXT
#define TRAM_UCONTEXT 1
#endif
#endif

#if defined(TRAM_ASAN)
#include <sanitizer/common_interface_defs.h>
#elif defined(TRAM_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

struct context {
    void *saved; /* where on its stack a context that does not run has its registers */
#if defined(TRAM_ASAN)
    void *fake_stack;
    const void *bottom; /* of the stack */
    size_t size;
#elif defined(TRAM_TSAN)
    void *fiber;
#endif
};

/* A context that calls `entry` on this stack when it is switched to; `entry` never returns. Returns its `saved`. */
void *tram__context_make(void *stack, size_t size, void (*entry)(void));

/* Leaves the running context, whose registers *save then has, for another. Returns when somebody comes back. */
void tram__context_swap(void **save, void *to);

/*
 * What follows tells sanitizers about the switch. `to` runs on; `last`: the running context never comes back. Inlined,
 * for a function that is left on one stack and returns on another would confuse who watches calls.
 */
static ALWAYS_INLINE void context_switch(struct context *from, struct context *to, bool last) {
#if defined(TRAM_ASAN)
    __sanitizer_start_switch_fiber(last ? NULL : &from->fake_stack, to->bottom, to->size);
    tram__context_swap(&from->saved, to->saved);
    __sanitizer_finish_switch_fiber(from->fake_stack, &to->bottom, &to->size);
#elif defined(TRAM_TSAN)
    (void)last;
    __tsan_switch_to_fiber(to->fiber, 0);
    tram__context_swap(&from->saved, to->saved);
#else
    (void)last;
    tram__context_swap(&from->saved, to->saved);
#endif
}

/* The first thing that a context does, entered from `from`. */
static ALWAYS_INLINE void context_entered(struct context *from) {
#if defined(TRAM_ASAN)
    __sanitizer_finish_switch_fiber(NULL, &from->bottom, &from->size);
#else
    (void)from;
#endif
}

/* A context that is about to be switched to for the first time. False: out of memory. */
static inline bool context_init(struct context *context, void *stack, size_t size, void (*entry)(void)) {
    *context = (struct context){.saved = tram__context_make(stack, size, entry)};
#if defined(TRAM_ASAN)
    context->bottom = stack;
    context->size = size;
#elif defined(TRAM_TSAN)
    context->fiber = __tsan_create_fiber(0);
    return context->fiber != NULL;
#endif
    return true;
}

/* The context of the caller, before it leaves itself. */
static inline void context_self(struct context *context) {
#if defined(TRAM_TSAN)
    context->fiber = __tsan_get_current_fiber();
#else
    (void)context;
#endif
}

/* A context that will not be switched to any more. */
static inline void context_end(struct context *context) {
#if defined(TRAM_TSAN)
    __tsan_destroy_fiber(context->fiber);
#else
    (void)context;
#endif
}

#endif
