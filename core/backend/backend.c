/* Making a loop: the one place that knows all backends. */
#include "core/backend/backend.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/loop/loop.h"
#include "core/system/fault.h"

static int choose_backend(tram_backend wanted, const struct poller_ops **ret_ops) {
    *ret_ops = &tram__poller_epoll;
    if (wanted == TRAM_BACKEND_AUTO) {
        const char *name = getenv("TRAM_BACKEND");
        return !name || !*name || strcmp(name, "epoll") == 0 ? 0 : tram__invalid("TRAM_BACKEND");
    }
    return wanted == TRAM_BACKEND_EPOLL ? 0 : tram__invalid("backend");
}

int tram__loop_new(const tram_loop_options *options, const struct sys *sys, tram_loop **ret_loop) {
    static const tram_loop_options defaults;
    if (!options)
        options = &defaults;
    const struct poller_ops *poller_ops;
    int status = reserved_used(options) ? tram__invalid("reserved") : choose_backend(options->backend, &poller_ops);
    return status ? status : tram__loop_create(options, sys, poller_ops, ret_loop);
}

int tram_loop_new(const tram_loop_options *options, tram_loop **ret_loop) {
    return tram__loop_new(options, tram__faults_sys(options ? options->faults : NULL), ret_loop);
}
