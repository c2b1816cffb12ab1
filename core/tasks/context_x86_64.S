/*
 * The switch of x86-64 (System V). What a call keeps: rbx, rbp, r12 to r15, the control words of SSE and x87.
 *
 * A context that does not run has on its stack, from `saved` up: r15, r14, r13, r12, rbx, rbp, and where to go on; and
 * below `saved`, where no signal handler writes (the red zone), mxcsr and the x87 control word.
 *
 * The note at the end says that indirect branches may be tracked (IBT), and says nothing of shadow stacks (SHSTK): a
 * process with such a library in it gets none, since this switch would not survive them.
 */
#if defined(__x86_64__) && !defined(TRAM_UCONTEXT)

    .text

    .globl tram__context_swap
    .hidden tram__context_swap
    .type tram__context_swap, @function
    .p2align 4
tram__context_swap:
    .cfi_startproc
    endbr64
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    stmxcsr -8(%rsp)
    fnstcw -4(%rsp)
    movq %rsp, (%rdi)

    movq %rsi, %rsp
    ldmxcsr -8(%rsp)
    fldcw -4(%rsp)
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    /* No ret: the processor predicts that one would go back to who called this, on the other stack. */
    popq %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rcx
    notrack jmp *%rcx
    .cfi_endproc
    .size tram__context_swap, . - tram__context_swap

/* The bottom of every stack: calls what rbx points to. Nobody called it, which is where unwinders stop. */
    .globl tram__context_start
    .hidden tram__context_start
    .type tram__context_start, @function
    .p2align 4
tram__context_start:
    .cfi_startproc
    .cfi_undefined %rip
    endbr64
    call *%rbx
    ud2
    .cfi_endproc
    .size tram__context_start, . - tram__context_start

    .section .note.GNU-stack, "", @progbits

    .section .note.gnu.property, "a", @note
    .p2align 3
    .long 4              /* size of the name */
    .long 16             /* … of the description */
    .long 5              /* NT_GNU_PROPERTY_TYPE_0 */
    .asciz "GNU"
    .long 0xc0000002     /* GNU_PROPERTY_X86_FEATURE_1_AND */
    .long 4
    .long 1              /* IBT */
    .long 0

#else
    .section .note.GNU-stack, "", %progbits
#endif
