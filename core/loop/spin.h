/*
 * A loop that spins before it sleeps: because the user pays CPU time for latency (`spin_ns`), or within a budget that
 * mail earns. Where another processor works with this one, mail follows mail, and each sleep in between costs who posts
 * a system call and an interrupt, and this loop two system calls. A mail that comes to a sleeper costs some
 * microseconds, so what it earns adds little to where nothing follows, and is enough where much does.
 */
#ifndef TRAM_CORE_LOOP_SPIN_H
#define TRAM_CORE_LOOP_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/compiler.h"
#include "core/base/limits.h"

struct spin {
    uint64_t always_ns; /* before each sleep; 0: within the budget */
    uint64_t budget_ns; /* or what is always spun */
    uint32_t per_mail_ns;
};

/* `on_credit`: false for a host that lets others run only where the loop sleeps. */
static inline void spin_init(struct spin *spin, uint64_t always_ns, bool on_credit) {
    *spin = (struct spin){.always_ns = always_ns,
                          .budget_ns = always_ns,
                          .per_mail_ns = !always_ns && on_credit ? TRAM_SPIN_PER_MAIL_NS : 0};
}

/* How long to spin before a sleep. */
static inline uint64_t spin_limit(struct spin *spin) {
    if (spin->always_ns)
        return spin->always_ns;
    spin->budget_ns = MIN(spin->budget_ns, TRAM_SPIN_BUDGET_NS);
    return spin->budget_ns < TRAM_SPIN_LEAST_NS ? 0 : spin->budget_ns;
}

static inline void spin_spend(struct spin *spin, uint64_t spent_ns) {
    if (!spin->always_ns)
        spin->budget_ns -= MIN(spin->budget_ns, spent_ns);
}

#endif
