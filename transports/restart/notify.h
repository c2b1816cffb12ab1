/*
 * What systemd is told of a server (sd_notify): a datagram to the socket that $NOTIFY_SOCKET names. By hand, since the
 * protocol is a line of text, and libsystemd would be a dependency of everybody.
 */
#ifndef TRAM_TRANSPORTS_RESTART_NOTIFY_H
#define TRAM_TRANSPORTS_RESTART_NOTIFY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/loop/loop.h"
#include <tram/runtime.h>

struct notifier {
    tram_runtime *runtime;
    struct sockaddr_un address;
    socklen_t address_size;
    int fd; /* -1: nobody wants to know */
    struct close_hook hook;
    bool handed_on;       /* another process serves: the end of this one is not that of the service */
    bool stopping;        /* the end has been told */
    uint64_t watchdog_ns; /* how often the workers are asked; 0: never */
    struct deadline watchdog;
    atomic_uint silent; /* workers that have not answered yet */
};

/* For a runtime that is freed before the notifier is closed. */
void tram__notifier_open(struct notifier *notifier, tram_runtime *runtime);
void tram__notifier_close(struct notifier *notifier);

/* Another process served so far, and this one is about to. */
void tram__notifier_reloading(struct notifier *notifier);

/*
 * It serves. From now on the beginning of a stop is told, and that all workers are alive, where there is a watchdog.
 * `main_pid`: this process instead of another.
 */
void tram__notifier_ready(struct notifier *notifier, bool main_pid);

#endif
