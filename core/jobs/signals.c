/*
 * Signals. The registry below is the one thing in the library that belongs to the process: for each signal,
 * the mailbox of the loop that registered last. The handler does two things only, which any thread may do at
 * any moment: it sets the signal's bit in that mailbox and wakes the loop. The tick then queues the loop's
 * record of the signal like any other callback.
 *
 * `lock` guards the registry against loops on other threads; the handler never takes it. A mailbox that left
 * the registry is let go only when no handler can still be using it: `handlers` counts those.
 *
 * A child of fork() inherits the actions, and nothing else: its registry is wiped, with a lock and with counts that
 * threads of its parent had. A signal that its parent handles takes its default action in the child.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "core/base/invalid.h"
#include "core/base/time.h"
#include "core/jobs/signals.h"
#include "core/loop/discard.h"
#include "core/system/wiped.h"
#include <tram/signal.h>

#define SIGNALS 64

/* A signal of one loop; used on its thread only. */
struct signal_record {
    struct ready ready;
    struct signal_record *next;
    tram_callback callback;
    void *arg;
    struct discard *discard; /* of `arg`; NULL: none */
    int number;
    bool queued;
};

struct registry {
    pthread_mutex_t lock; /* zeros are an unlocked mutex, on Linux */
    _Atomic pid_t process;
    struct {
        struct mailbox *_Atomic mailbox; /* counted; NULL: not ours */
        _Atomic unsigned handlers;
        _Atomic bool set_here;    /* by this process, once */
        _Atomic uint64_t came_ns; /* the last time */
    } signals[SIGNALS + 1];
};

static struct registry *_Atomic registry; /* wiped.h; made when the first handler is added, and never freed */

static int registry_open(void) {
    if (atomic_load(&registry))
        return 0;
    struct registry *made = tram__wiped_new(sizeof *made), *none = NULL;
    if (!made)
        return -ENOMEM;
    if (!atomic_compare_exchange_strong(&registry, &none, made))
        tram__wiped_free(made, sizeof *made); /* another thread's is the one */
    return 0;
}

static uint64_t bit_of(int number) {
    return UINT64_C(1) << (number - 1);
}

/* ---- The handler ---- */

static int set_action(int number, void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = handler == SIG_DFL ? 0 : SA_RESTART | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    return sigaction(number, &action, NULL) ? -errno : 0;
}

static void tell_owner(int number) {
    atomic_store(&registry->signals[number].came_ns, time_now());
    /* Sequential consistency: either we see the mailbox gone, or who took it away sees us. */
    atomic_fetch_add(&registry->signals[number].handlers, 1);
    struct mailbox *mailbox = atomic_load(&registry->signals[number].mailbox);
    if (mailbox) {
        atomic_fetch_or(&mailbox->signals, bit_of(number));
        tram__mailbox_wake(mailbox);
    }
    atomic_fetch_sub(&registry->signals[number].handlers, 1);
}

/* In a child that has not set it: as if the parent had not either. The signal is blocked until the handler returns. */
static void take_default(int number) {
    set_action(number, SIG_DFL);
    raise(number);
}

static void handle(int number) {
    int saved = errno;
    if (getpid() == registry->process && atomic_load(&registry->signals[number].set_here))
        tell_owner(number);
    else
        take_default(number);
    errno = saved;
}

uint64_t tram__signal_came_ns(int number) {
    return registry ? atomic_load(&registry->signals[number].came_ns) : 0;
}

/* ---- The registry: with the lock held ---- */

static bool owns(const tram_loop *loop, int number) {
    return atomic_load(&registry->signals[number].mailbox) == loop->mailbox;
}

/* Puts another mailbox, or none, in the place; returns the old one once no handler uses it. */
static struct mailbox *replace(int number, struct mailbox *mailbox) {
    struct mailbox *old = atomic_exchange(&registry->signals[number].mailbox, mailbox);
    /* Handlers are a few instructions long, and never on this thread now. */
    while (old && atomic_load(&registry->signals[number].handlers))
        sched_yield();
    return old;
}

/* A signal that came for a loop which has been replaced since goes to the one that has it now. */
static void forward(int number) {
    struct mailbox *mailbox = atomic_load(&registry->signals[number].mailbox);
    if (mailbox) {
        atomic_fetch_or(&mailbox->signals, bit_of(number));
        tram__mailbox_wake(mailbox);
    }
}

/* Makes the loop the signal's owner. */
static int take_over(tram_loop *loop, int number) {
    struct mailbox *mailbox = tram__mailbox_hold(loop->mailbox);
    struct mailbox *old = replace(number, mailbox);
    registry->process = getpid();
    atomic_store(&registry->signals[number].set_here, true);
    int status = set_action(number, handle);
    if (status) {
        /* Not a signal that can be caught, so nobody had it before either. */
        replace(number, old);
        tram__mailbox_release(mailbox);
        return status;
    }
    if (old) {
        if (old != mailbox && (atomic_fetch_and(&old->signals, ~bit_of(number)) & bit_of(number)))
            forward(number);
        tram__mailbox_release(old);
    }
    return 0;
}

/* True if the signal was the loop's. */
static bool give_up(tram_loop *loop, int number) {
    if (!owns(loop, number))
        return false;
    set_action(number, SIG_DFL);
    struct mailbox *old = replace(number, NULL);
    atomic_fetch_and(&old->signals, ~bit_of(number));
    tram__mailbox_release(old);
    return true;
}

/* ---- Records ---- */

static struct signal_record **find(tram_loop *loop, int number) {
    struct signal_record **link = &loop->signal_records;
    while (*link && (*link)->number != number)
        link = &(*link)->next;
    return link;
}

static void free_record(tram_loop *loop, struct signal_record **link) {
    struct signal_record *record = *link;
    *link = record->next;
    if (record->queued)
        list_remove(&record->ready.link);
    struct discard *discard = record->discard;
    memory_put(&loop->allocator, record, sizeof *record);
    tram__discard_soon(loop, discard);
}

static void run_record(tram_loop *loop, struct ready *ready) {
    struct signal_record *record = container_of(ready, struct signal_record, ready);
    record->queued = false;
    pthread_mutex_lock(&registry->lock);
    bool ours = owns(loop, record->number);
    if (!ours)
        forward(record->number);
    pthread_mutex_unlock(&registry->lock);
    if (!ours || loop->closing)
        return;
    /* The callback may replace or remove itself. */
    tram_callback callback = record->callback;
    const void *function = (const void *)(uintptr_t)callback;
    uint64_t start = slow_begin(loop);
    int status = callback(loop, record->arg);
    slow_end(loop, start, function, "signal handler");
    if (status < 0)
        tram__report_callback(loop, status, function, "Error in a signal handler", (tram_handle){0, 0});
}

/* ---- For the loop ---- */

static void dispatch(tram_loop *loop, uint64_t came) {
    while (came) {
        int number = __builtin_ctzll(came) + 1;
        came &= came - 1;
        struct signal_record *record = *find(loop, number);
        if (record && !record->queued) {
            record->queued = true;
            loop_ready(loop, &record->ready);
        }
    }
}

static void signals_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending != IO_SHUTDOWN_NOW)
        return;
    tram_loop *loop = container_of(hook, tram_loop, signal_hook);
    list_remove(&hook->link);
    pthread_mutex_lock(&registry->lock);
    while (loop->signal_records) {
        int number = loop->signal_records->number;
        if (!give_up(loop, number) && loop->signal_records->queued)
            forward(number); /* it came before another loop took the signal over */
        free_record(loop, &loop->signal_records);
    }
    pthread_mutex_unlock(&registry->lock);
}

/* ---- The public face ---- */

static int add(tram_loop *loop, int signal_number, tram_callback callback, void *arg, struct discard *discard) {
    if (signal_number < 1 || signal_number > SIGNALS || !callback)
        return tram__invalid(callback ? "signal_number" : "callback");
    if (signal_number == SIGKILL || signal_number == SIGSTOP)
        return TRAM_ESTATE;
    struct signal_record *record = *find(loop, signal_number);
    struct signal_record *made = NULL;
    if (!record) {
        made = record = tram__memory_get_zero(&loop->allocator, sizeof *record);
        if (!record)
            return -ENOMEM;
        record->number = signal_number;
        record->ready.run = run_record;
        list_init(&record->ready.link);
    }
    int status = registry_open();
    if (status) {
        memory_put(&loop->allocator, made, sizeof *made);
        return status;
    }
    if (!loop->on_signals) {
        loop->on_signals = dispatch;
        loop_add_close_hook(loop, &loop->signal_hook, signals_ending);
    }
    pthread_mutex_lock(&registry->lock);
    status = take_over(loop, signal_number);
    pthread_mutex_unlock(&registry->lock);
    if (status) {
        /* The C library keeps some signals to itself: for us there is no such signal. */
        memory_put(&loop->allocator, made, sizeof *record);
        return status == -EINVAL ? tram__invalid("signal_number") : status;
    }
    struct discard *replaced = record->discard;
    record->callback = callback;
    record->arg = arg;
    record->discard = discard;
    if (made) {
        record->next = loop->signal_records;
        loop->signal_records = record;
    }
    tram__discard_soon(loop, replaced);
    return 0;
}

int tram_loop_add_signal_handler(tram_loop *loop, int signal_number, tram_callback callback, void *arg) {
    int status = loop_enter_open(loop, __func__);
    return status ? status : add(loop, signal_number, callback, arg, NULL);
}

int tram_loop_add_signal_handler_with_discard(tram_loop *loop, int signal_number, tram_callback callback, void *arg,
                                              tram_discard discard) {
    struct discard *kept;
    int status = loop_enter_open(loop, __func__);
    if (!status)
        status = tram__discard_new(loop, discard, arg, &kept);
    if (status)
        return status;
    status = add(loop, signal_number, callback, arg, kept);
    if (status)
        tram__discard_forget(loop, kept);
    return status;
}

int tram_loop_remove_signal_handler(tram_loop *loop, int signal_number) {
    int status = loop_enter(loop, __func__);
    if (status)
        return status;
    if (signal_number < 1 || signal_number > SIGNALS)
        return tram__invalid("signal_number");
    struct signal_record **link = find(loop, signal_number);
    if (!*link)
        return 0;
    pthread_mutex_lock(&registry->lock);
    bool had = give_up(loop, signal_number);
    if (!had && (*link)->queued)
        forward(signal_number); /* it came before another loop took the signal over */
    pthread_mutex_unlock(&registry->lock);
    free_record(loop, link);
    return had;
}
