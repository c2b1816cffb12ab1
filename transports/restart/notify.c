#include "transports/restart/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/runtime/runtime.h"

/* Who cannot be told is not there: nothing else depends on it. Waits for systemd to read, as sd_notify does. */
static void tell(const struct notifier *notifier, const char *text) {
    if (notifier->fd >= 0)
        (void)sendto(notifier->fd, text, strlen(text), 0, (const struct sockaddr *)&notifier->address,
                     notifier->address_size);
}

/* What is told again and again waits for nobody. */
static void tell_alive(const struct notifier *notifier) {
    static const char text[] = "WATCHDOG=1";
    (void)sendto(notifier->fd, text, sizeof text - 1, MSG_DONTWAIT, (const struct sockaddr *)&notifier->address,
                 notifier->address_size);
}

/* ---- What the environment says ---- */

/* A path, or "@NAME" in the abstract space; systemd has other kinds for virtual machines. */
static bool find_socket(struct notifier *notifier) {
    const char *path = getenv("NOTIFY_SOCKET");
    size_t size = path ? strlen(path) : 0;
    if (size < 2 || (path[0] != '/' && path[0] != '@') || size >= sizeof notifier->address.sun_path)
        return false;
    notifier->address.sun_family = AF_UNIX;
    memcpy(notifier->address.sun_path, path, size);
    if (path[0] == '@')
        notifier->address.sun_path[0] = '\0';
    notifier->address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    return true;
}

/* A number of the environment; 0: it is not there, or is none. */
static uint64_t number_of(const char *name) {
    const char *text = getenv(name);
    char *end;
    if (!text || *text < '0' || *text > '9')
        return 0;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    return *end || errno ? 0 : number;
}

/* A quarter of the time that systemd waits: a question, its answers, and what is late. */
static uint64_t watchdog_period(void) {
    uint64_t microseconds = number_of("WATCHDOG_USEC"), pid = number_of("WATCHDOG_PID");
    if ((pid && pid != (uint64_t)getpid()) || microseconds > UINT64_MAX / 1000)
        return 0;
    return microseconds * 1000 / 4;
}

void tram__notifier_open(struct notifier *notifier, tram_runtime *runtime) {
    *notifier = (struct notifier){.runtime = runtime, .fd = -1};
    atomic_init(&notifier->silent, 0);
    if (!find_socket(notifier))
        return;
    notifier->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    notifier->watchdog_ns = watchdog_period();
}

void tram__notifier_close(struct notifier *notifier) {
    if (notifier->fd >= 0)
        close(notifier->fd);
}

/* ---- The watchdog: a worker asks all of them, and tells when they have answered ---- */

static void answered(void *arg) {
    struct notifier *notifier = arg;
    atomic_fetch_sub(&notifier->silent, 1);
}

static int answer(tram_loop *loop, void *arg) {
    (void)loop;
    answered(arg);
    return 0;
}

/* One whose loop has ended owes nothing any more. */
static void ask_workers(struct notifier *notifier) {
    unsigned count = tram_runtime_worker_count(notifier->runtime);
    atomic_store(&notifier->silent, count);
    for (unsigned i = 0; i < count; i++)
        if (tram_loop_call_soon_threadsafe(tram_runtime_loop(notifier->runtime, i), answer, notifier, answered))
            answered(notifier);
}

/* The deadline comes first: one that has just expired finds its room again, so that only the very first may fail. */
static int watch(tram_loop *loop, struct notifier *notifier) {
    int status = tram__deadline_start_after(loop, &notifier->watchdog, notifier->watchdog_ns);
    if (!status && atomic_load(&notifier->silent) == 0) {
        tell_alive(notifier);
        ask_workers(notifier);
    }
    return status;
}

static void watchdog_expired(tram_loop *loop, struct deadline *deadline) {
    watch(loop, container_of(deadline, struct notifier, watchdog));
}

/* ---- What is told ---- */

/* Once, whoever hears of it first. */
static void tell_stopping(struct notifier *notifier) {
    if (!notifier->handed_on && !notifier->stopping)
        tell(notifier, "STOPPING=1");
    notifier->stopping = true;
}

/* On the first worker, as what follows: before it stops accepting or just after. */
static void worker_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending == IO_SHUTDOWN_STOP)
        tell_stopping(container_of(hook, struct notifier, hook));
}

/* It stopped before it came to `begin`. */
static void never_begun(void *arg) {
    tell_stopping(arg);
}

static int begin(tram_loop *loop, void *arg) {
    struct notifier *notifier = arg;
    notifier->watchdog.expire = watchdog_expired;
    loop_add_close_hook(loop, &notifier->hook, worker_ending);
    if (tram__runtime_ends(notifier->runtime))
        tell_stopping(notifier); /* it did not hear */
    return notifier->watchdog_ns ? watch(loop, notifier) : 0;
}

void tram__notifier_reloading(struct notifier *notifier) {
    char text[80];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
    tell(notifier, text);
}

void tram__notifier_ready(struct notifier *notifier, bool main_pid) {
    char text[80];
    if (notifier->fd < 0)
        return;
    snprintf(text, sizeof text, "READY=1\nMAINPID=%ld", (long)getpid());
    tell(notifier, main_pid ? text : "READY=1");
    if (tram_loop_call_soon_threadsafe(tram_runtime_loop(notifier->runtime, 0), begin, notifier, never_begun))
        tell_stopping(notifier); /* it stops already */
}
