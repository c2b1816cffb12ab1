/* loop.create_connection: what may be asked of it, and which operation does it. */
#include "core/base/invalid.h"
#include "core/loop/report.h"
#include "transports/connect/connector.h"
#include "transports/connect/retry.h"
#include "transports/proxy/header_layer.h"
#include "transports/socket/socket.h"
#include "transports/socket/tcp.h"
#include <tram/connection.h>

/* The name to check is the host's unless another is given (C-4). */
static struct tls_wishes tls_wishes_of(const char *host, const tram_connection_options *options) {
    return (struct tls_wishes){
        .config = options->tls,
        .server_hostname = options->server_hostname || !options->tls ? options->server_hostname : host,
        .session = options->tls_session,
        .handshake_timeout_ns = options->tls_handshake_timeout_ns,
        .shutdown_timeout_ns = options->tls_shutdown_timeout_ns,
        .needs_hostname = true,
    };
}

/* The option or argument that makes no sense, or NULL (C-2, C-3). */
static const char *wrong_option(tram_protocol_factory factory, const char *host, const char *port,
                                const tram_connection_options *options) {
    if (!factory)
        return "factory";
    if ((host || port) == (options->sock != NULL))
        return options->sock ? "sock" : "host";
    const struct tls_wishes tls = tls_wishes_of(host, options);
    const char *wrong = tram__tls_wrong_option(&tls);
    if (wrong)
        return wrong;
    if (!tram__family_known(options->family))
        return "family";
    if (options->interleave < 0)
        return "interleave";
    if (options->sock && (options->local_host || options->local_port))
        return "local_host";
    if (options->not_ours && !options->sock)
        return "not_ours";
    if (options->proxy_header && !tram__proxy_possible(options->proxy_header))
        return "proxy_header";
    if (options->early_size && (!options->early_data || options->tls))
        return "early_data";
    if (options->sock && options->retry.limit)
        return "retry.limit";
    wrong = tram__retry_wrong_option(&options->retry);
    if (wrong)
        return wrong;
    wrong = tram__tcp_wrong_option(&options->tcp, false);
    if (wrong)
        return wrong;
    return reserved_used(options) ? "reserved" : NULL;
}

int tram_loop_create_connection(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *host,
                                const char *port, const tram_connection_options *options, tram_future **ret_future) {
    static const tram_connection_options defaults;
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    status = check_option(wrong_option(factory, host, port, options));
    if (status)
        return status;
    const struct socket_wishes wishes = {
        .discard = options->discard,
        .keep_alive = options->keep_alive,
        .not_ours = options->not_ours,
        .tcp = &options->tcp,
        .tls = tls_wishes_of(host, options),
        .proxy_header = options->proxy_header,
        .early_data = options->early_data,
        .early_size = options->early_size,
    };
    if (options->sock)
        return tram__connect_socket(loop, factory, arg, *options->sock, &wishes, ret_future);
    return tram__connect_names(loop, factory, arg, host, port, options, &wishes, ret_future);
}
