/*
 * The switch of aarch64 (AAPCS64). What a call keeps: x19 to x30, the low halves of v8 to v15, and FPCR.
 *
 * A context that does not run has on its stack, from `saved` up: d8 to d15, x19 to x28, x29, x30 (where to go on), FPCR.
 */
#if defined(__aarch64__) && defined(__AARCH64EL__) && !defined(TRAM_UCONTEXT)

    .text

    .globl tram__context_swap
    .hidden tram__context_swap
    .type tram__context_swap, %function
    .p2align 4
tram__context_swap:
    .cfi_startproc
    hint 34 /* bti c */
    sub sp, sp, #176
    .cfi_adjust_cfa_offset 176
    stp d8, d9, [sp, #0]
    stp d10, d11, [sp, #16]
    stp d12, d13, [sp, #32]
    stp d14, d15, [sp, #48]
    stp x19, x20, [sp, #64]
    .cfi_rel_offset x19, 64
    .cfi_rel_offset x20, 72
    stp x21, x22, [sp, #80]
    .cfi_rel_offset x21, 80
    .cfi_rel_offset x22, 88
    stp x23, x24, [sp, #96]
    .cfi_rel_offset x23, 96
    .cfi_rel_offset x24, 104
    stp x25, x26, [sp, #112]
    .cfi_rel_offset x25, 112
    .cfi_rel_offset x26, 120
    stp x27, x28, [sp, #128]
    .cfi_rel_offset x27, 128
    .cfi_rel_offset x28, 136
    stp x29, x30, [sp, #144]
    .cfi_rel_offset x29, 144
    .cfi_rel_offset x30, 152
    mrs x9, fpcr
    str x9, [sp, #160]
    mov x10, sp
    str x10, [x0]

    mov sp, x1
    ldr x10, [sp, #160]
    cmp x9, x10
    b.eq 1f
    msr fpcr, x10 /* slow, and seldom another value */
1:
    ldp d8, d9, [sp, #0]
    ldp d10, d11, [sp, #16]
    ldp d12, d13, [sp, #32]
    ldp d14, d15, [sp, #48]
    ldp x19, x20, [sp, #64]
    ldp x21, x22, [sp, #80]
    ldp x23, x24, [sp, #96]
    ldp x25, x26, [sp, #112]
    ldp x27, x28, [sp, #128]
    ldp x29, x30, [sp, #144]
    add sp, sp, #176
    .cfi_adjust_cfa_offset -176
    .cfi_restore x19
    .cfi_restore x20
    .cfi_restore x21
    .cfi_restore x22
    .cfi_restore x23
    .cfi_restore x24
    .cfi_restore x25
    .cfi_restore x26
    .cfi_restore x27
    .cfi_restore x28
    .cfi_restore x29
    .cfi_restore x30
    ret
    .cfi_endproc
    .size tram__context_swap, . - tram__context_swap

/* The bottom of every stack: calls what x19 points to. Nobody called it, which is where unwinders stop. */
    .globl tram__context_start
    .hidden tram__context_start
    .type tram__context_start, %function
    .p2align 4
tram__context_start:
    .cfi_startproc
    .cfi_undefined x30
    hint 34 /* bti c */
    blr x19
    brk #1
    .cfi_endproc
    .size tram__context_start, . - tram__context_start

    .section .note.GNU-stack, "", %progbits

    .section .note.gnu.property, "a", %note
    .p2align 3
    .long 4              /* size of the name */
    .long 16             /* … of the description */
    .long 5              /* NT_GNU_PROPERTY_TYPE_0 */
    .asciz "GNU"
    .long 0xc0000000     /* GNU_PROPERTY_AARCH64_FEATURE_1_AND */
    .long 4
    .long 1              /* BTI */
    .long 0

#else
    .section .note.GNU-stack, "", %progbits
#endif
