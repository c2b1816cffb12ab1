/* Sockets that are connected already: loop.connect_accepted_socket, and what another loop or library has begun. */
#include <errno.h>

#include "core/base/invalid.h"
#include "core/loop/report.h"
#include "transports/base/handover.h"
#include "transports/base/held.h"
#include "transports/connect/connector.h"
#include <tram/buffer.h>

int tram_loop_connect_accepted_socket(tram_loop *loop, tram_protocol_factory factory, void *arg, int sock,
                                      tram_future **ret_future) {
    return tram_loop_adopt_socket(loop, factory, arg, sock, NULL, ret_future);
}

int tram_loop_adopt(tram_loop *loop, tram_protocol_factory factory, void *arg, int sock, const void *unread,
                    size_t unread_size, tram_future **ret_future) {
    const tram_adopt_options options = {.unread = unread, .unread_size = unread_size};
    return tram_loop_adopt_socket(loop, factory, arg, sock, &options, ret_future);
}

int tram_loop_adopt_socket(tram_loop *loop, tram_protocol_factory factory, void *arg, int sock,
                           const tram_adopt_options *options, tram_future **ret_future) {
    static const tram_adopt_options defaults;
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!options)
        options = &defaults;
    struct socket_wishes wishes = {
        .discard = options->discard,
        .not_ours = options->not_ours,
        .tls = {.config = options->tls,
                .server = true,
                .handshake_timeout_ns = options->tls_handshake_timeout_ns,
                .shutdown_timeout_ns = options->tls_shutdown_timeout_ns},
    };
    status = check_option(!factory                                   ? "factory"
                          : !options->unread && options->unread_size ? "unread"
                          : reserved_used(options)                   ? "reserved"
                                                                     : tram__tls_wrong_option(&wishes.tls));
    if (status)
        return status;
    if (options->unread_size) {
        wishes.held = tram__held_new(loop, options->unread, options->unread_size);
        if (!wishes.held)
            return -ENOMEM;
    }
    return tram__connect_socket(loop, factory, arg, sock, &wishes, ret_future);
}

int tram_loop_adopt_detached(tram_loop *loop, tram_protocol_factory factory, void *arg, tram_detached *detached,
                             tram_future **ret_future) {
    struct socket_wishes wishes = {.detached = detached};
    int status = loop_enter_open(loop, __func__);
    if (!status)
        status = check_option(!factory ? "factory" : !detached ? "detached" : NULL);
    if (status)
        return status;
    int fd = tram__detached_fd(detached);
    if (fd < 0)
        return TRAM_ESTATE;
    tram_buffer *unread = tram_detached_unread(detached);
    if (unread) {
        wishes.held = tram__held_new(loop, tram_buffer_data(unread), tram_buffer_size(unread));
        if (!wishes.held)
            return -ENOMEM;
    }
    status = tram__connect_socket(loop, factory, arg, fd, &wishes, ret_future);
    if (!status)
        tram__detached_empty(detached);
    return status;
}
