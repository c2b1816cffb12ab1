/* loop.start_tls: TLS on top of a transport that is open. The operation ends when the layer says that it has started.
 */
#include <string.h>

#include "core/base/invalid.h"
#include "core/jobs/future.h"
#include "transports/base/secured.h"
#include "transports/base/transport.h"
#include <tram/connection.h>

struct starting {
    tram_future future;
    struct tls_watcher watcher;
    tram_transport *transport;
};

/* S-29: nobody could go on with a connection that is neither plain nor TLS. */
static void starting_cancel(tram_future *future) {
    struct starting *starting = (struct starting *)(void *)future;
    tram__future_finish_cancelled(future);
    tram_transport_abort(starting->transport);
}

static const struct future_kind starting_kind = {
    .name = "start_tls",
    .value = FUTURE_VALUE_TRANSPORT,
    .cancel = starting_cancel,
};

static void started(struct tls_watcher *watcher, tram_transport *transport, const tram_error *error) {
    struct starting *starting = container_of(watcher, struct starting, watcher);
    if (starting->future.state == FUTURE_PENDING && error)
        tram__future_fail(&starting->future, error);
    else if (starting->future.state == FUTURE_PENDING)
        tram__future_finish(&starting->future, transport);
    tram__future_drop(&starting->future);
}

static const char *wrong_option(const struct tls_wishes *tls, const tram_start_tls_options *options) {
    if (options->ahead_size && !options->ahead)
        return "ahead";
    return reserved_used(options) ? "reserved" : tram__tls_wrong_option(tls);
}

static int start(struct starting *starting, const struct tls_wishes *wishes, const tram_start_tls_options *options) {
    struct tls_use use;
    struct tls_problem problem;
    int status = tram__tls_use_open(wishes, &use);
    if (status)
        return status;
    status = tram__tls_use_push(&use, starting->transport, &starting->watcher, options->ahead, options->ahead_size,
                                &problem);
    tram__tls_use_close(&use);
    return status == -ENOTSUP ? TRAM_ETYPE : status;
}

int tram_loop_start_tls(tram_loop *loop, tram_transport *transport, tram_protocol *protocol,
                        const tram_start_tls_options *options, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!transport || !options || !options->tls || (protocol && !protocol->ops))
        return TRAM_ETYPE;
    const struct tls_wishes wishes = {
        .config = options->tls,
        .server = options->server_side,
        .server_hostname = options->server_hostname,
        .session = options->session,
        .handshake_timeout_ns = options->handshake_timeout_ns,
        .shutdown_timeout_ns = options->shutdown_timeout_ns,
        .needs_hostname = !options->server_side,
    };
    status = check_option(transport->io.loop != loop ? "transport" : wrong_option(&wishes, options));
    struct starting *starting;
    if (!status)
        status = tram__future_new(loop, &starting_kind, sizeof *starting, &starting);
    if (status)
        return status;
    starting->watcher.started = started;
    starting->transport = transport;
    status = start(starting, &wishes, options);
    if (status) {
        tram__future_drop(&starting->future);
        return status;
    }
    if (protocol && protocol != transport->protocol)
        (void)tram__transport_set_protocol(transport, protocol);
    if (ret_future)
        *ret_future = tram_future_hold(&starting->future);
    else
        starting->future.retrieved = true; /* connection_lost tells of a failure */
    return 0;
}
