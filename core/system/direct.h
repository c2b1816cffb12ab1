/*
 * System calls without the C library's cancellation points. In a process with threads glibc surrounds recv, send,
 * accept4, close and epoll_wait with two locked instructions each, so that pthread_cancel() may end the thread inside
 * them. tram's threads are never cancelled; a loop pays four locked instructions and some 90 others per echoed message
 * for nothing (bench/counts shows it).
 *
 * Sanitizers learn of these calls through the C library, so they get its versions; so do other processors.
 */
#ifndef TRAM_CORE_SYSTEM_DIRECT_H
#define TRAM_CORE_SYSTEM_DIRECT_H

#include "core/base/compiler.h"

#if !defined(TRAM_TSAN) && !defined(TRAM_ASAN) && (defined(__x86_64__) || defined(__aarch64__)) && defined(__LP64__)
#define TRAM_DIRECT 1

#include <errno.h>
#include <sys/syscall.h>

/* The kernel's answer: a result, or -errno. */
static inline long direct_call(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
    return x0;
#endif
}

/* As the C library answers: -1 and errno. */
static inline long direct_result(long result) {
    if (likely((unsigned long)result < -4095ul))
        return result;
    errno = (int)-result;
    return -1;
}

#endif

#endif
