/* How a context begins: the frame that the switch finds on its stack. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/tasks/context.h"

#if defined(TRAM_UCONTEXT)

#include <ucontext.h>

/* `saved` points to a ucontext_t on the stack that it is about. */
void *tram__context_make(void *stack, size_t size, void (*entry)(void)) {
    uintptr_t top = ((uintptr_t)stack + size - sizeof(ucontext_t)) & ~(uintptr_t)63;
    ucontext_t *context = (void *)top;
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = top - (uintptr_t)stack;
    context->uc_link = NULL;
    makecontext(context, entry, 0);
    return context;
}

void tram__context_swap(void **save, void *to) {
    ucontext_t here;
    *save = &here;
    swapcontext(&here, to);
}

#else

void tram__context_start(void);

#if defined(__x86_64__)

struct frame {
    uint32_t mxcsr;
    uint16_t x87_control;
    uint16_t unused;
    void *r15, *r14, *r13, *r12;
    void (*entry)(void); /* rbx */
    void *rbp;
    void (*start)(void);
    void *end[2]; /* keeps the stack aligned for `start` */
};

#define SAVED r15 /* where `saved` points to */

static void set_control(struct frame *frame) {
    __asm__("stmxcsr %0\n\tfnstcw %1" : "=m"(frame->mxcsr), "=m"(frame->x87_control));
}

#else

struct frame {
    double d8_to_d15[8];
    void (*entry)(void); /* x19 */
    void *x20_to_x28[9];
    void *x29;
    void (*start)(void); /* x30 */
    uint64_t fpcr;
    uint64_t unused;
};

#define SAVED d8_to_d15

static void set_control(struct frame *frame) {
    __asm__("mrs %0, fpcr" : "=r"(frame->fpcr));
}

#endif

void *tram__context_make(void *stack, size_t size, void (*entry)(void)) {
    struct frame *frame = (struct frame *)(void *)((char *)stack + size - sizeof *frame);
    _Static_assert(sizeof *frame % 16 == 0, "the stack stays aligned");
    memset(frame, 0, sizeof *frame);
    set_control(frame); /* as whoever makes it has them */
    frame->entry = entry;
    frame->start = tram__context_start;
    return &frame->SAVED;
}

#endif
