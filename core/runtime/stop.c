/* How a runtime is asked to stop. */
#include "core/runtime/stop.h"

#include <signal.h>

#include "core/jobs/signals.h"
#include "core/runtime/runtime.h"

#include <tram/signal.h>

/* Signal handlers call this: nothing but atomics and the write that wakes. */
static int ask(tram_runtime *runtime, bool stop) {
    int status = runtime_enter(runtime);
    if (status)
        return status;
    unsigned before = atomic_load_explicit(&runtime->asked, memory_order_relaxed), after;
    do {
        after = !stop ? ASKED_DRAIN : before < ASKED_STOP ? ASKED_STOP : ASKED_AGAIN;
        if (after <= before)
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(&runtime->asked, &before, after, memory_order_relaxed,
                                                    memory_order_relaxed));
    for (unsigned i = 0; i < runtime->count; i++)
        mailbox_control(runtime->workers[i].mailbox);
    return 0;
}

int tram_runtime_stop(tram_runtime *runtime) {
    return ask(runtime, true);
}

int tram_runtime_drain(tram_runtime *runtime) {
    return ask(runtime, false);
}

/*
 * Who signals a process and then its group, as timeout(1) does, means to stop it once. What counts is when the signals
 * came, not when the loop got to them.
 */
static int stop_on_signal(tram_loop *loop, void *arg) {
    (void)loop;
    tram_runtime *runtime = arg;
    uint64_t term_ns = tram__signal_came_ns(SIGTERM), int_ns = tram__signal_came_ns(SIGINT);
    uint64_t came_ns = MAX(term_ns, int_ns);
    uint64_t before_ns = atomic_load_explicit(&runtime->signalled_ns, memory_order_relaxed);
    if (before_ns && came_ns - before_ns < TRAM_SIGNALS_MERGE_NS)
        return 0;
    atomic_store_explicit(&runtime->signalled_ns, came_ns, memory_order_relaxed);
    return tram_runtime_stop(runtime);
}

int tram__runtime_handle_signals(tram_runtime *runtime) {
    tram_loop *loop = runtime->workers[0].loop;
    if (!runtime->options.handle_signals)
        return 0;
    int status = tram_loop_add_signal_handler(loop, SIGTERM, stop_on_signal, runtime);
    return status < 0 ? status : tram_loop_add_signal_handler(loop, SIGINT, stop_on_signal, runtime);
}
