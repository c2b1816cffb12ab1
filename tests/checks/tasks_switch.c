/* Two contexts that keep values in all registers which a call keeps, and change the rounding of floating point. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>

#include "core/tasks/context.h"

static void *outside, *inside;
static uint64_t sum;

/* More values than there are registers, all alive across the switch. */
static uint64_t mix(uint64_t seed, void **from, void **to, int rounds) {
    volatile uint64_t opaque = seed;
    uint64_t a = opaque, b = opaque * 3, c = opaque * 5, d = opaque * 7, e = opaque * 11, f = opaque * 13;
    uint64_t g = opaque * 17, h = opaque * 19, i = opaque * 23, j = opaque * 29;
    double x = (double)opaque, y = x * 2, z = x * 3;
    for (int round = 0; round < rounds; round++) {
        tram__context_swap(from, *to);
        a += b, b += c, c += d, d += e, e += f, f += g, g += h, h += i, i += j, j += a;
        x += y, y += z, z += 1;
    }
    return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h ^ i ^ j ^ (uint64_t)(x + y + z);
}

static void run_inside(void) {
    fesetround(FE_DOWNWARD);
    sum = mix(12345, &inside, &outside, 50);
    for (;;) {
        if (fegetround() != FE_DOWNWARD)
            sum = 0;
        tram__context_swap(&inside, outside);
    }
}

/* Where mix() is to find no other side: a context that comes straight back. */
static void *echo_outside, *echo_inside;
static void echo(void) {
    for (;;)
        tram__context_swap(&echo_inside, echo_outside);
}

int main(void) {
    static char stack[131072] __attribute__((aligned(64))), echo_stack[131072] __attribute__((aligned(64)));
    echo_inside = tram__context_make(echo_stack, sizeof echo_stack, echo);
    uint64_t expected_inside = mix(12345, &echo_outside, &echo_inside, 50);
    uint64_t expected = mix(999, &echo_outside, &echo_inside, 60);
    inside = tram__context_make(stack, sizeof stack, run_inside);
    uint64_t found = mix(999, &outside, &inside, 60);
    if (found != expected || sum != expected_inside || fegetround() != FE_TONEAREST) {
        printf("%llx %llx, %llx %llx, rounding %d\n", (unsigned long long)found, (unsigned long long)expected,
               (unsigned long long)sum, (unsigned long long)expected_inside, fegetround());
        return 1;
    }
    return 0;
}
