/* What programs ask of a transport beside moving bytes: a pointer of their own, its addresses, what it can do. */

#include "core/base/invalid.h"
#include "core/loop/raised.h"
#include "transports/base/entering.h"
#include "transports/base/transport.h"

int tram_transport_set_user(tram_transport *transport, void *user) {
    int status = enter(transport, __func__);
    if (!status && (user || transport->more))
        status = tram__transport_need_more(transport);
    if (!status && transport->more)
        transport->more->user = user;
    return status;
}

void *tram_transport_user(const tram_transport *transport) {
    return transport->more ? transport->more->user : NULL;
}

static int copy_address(tram_transport *transport, const char *name, const char *function,
                        tram_socket_address *ret_address) {
    int status = enter(transport, function);
    if (status)
        return status;
    const tram_socket_address *address = tram_transport_get_extra_info(transport, name, NULL);
    if (!address)
        return -ENOTSUP;
    *ret_address = *address;
    return 0;
}

int tram_transport_peername(tram_transport *transport, tram_socket_address *ret_address) {
    return copy_address(transport, "peername", __func__, ret_address);
}

int tram_transport_sockname(tram_transport *transport, tram_socket_address *ret_address) {
    return copy_address(transport, "sockname", __func__, ret_address);
}

tram_sendfile_mode tram_transport_sendfile_mode(const tram_transport *transport) {
    switch (transport_kind_of(transport)->sendfile) {
    case SENDFILE_NONE:
        break;
    case SENDFILE_BLOCKS:
        return TRAM_SENDFILE_FALLBACK;
    case SENDFILE_NATIVE:
        return transport->flags & T_LAYERED ? TRAM_SENDFILE_FALLBACK : TRAM_SENDFILE_TRY_NATIVE;
    }
    return TRAM_SENDFILE_UNSUPPORTED;
}

bool tram_transport_start_tls_compatible(const tram_transport *transport) {
    const struct transport_kind *kind = transport_kind_of(transport);
    return kind->start_tls_compatible && kind->start_tls_compatible(transport);
}

int tram_transport_abort_with_error(tram_transport *transport, const tram_error *error) {
    int status = enter(transport, __func__);
    if (unlikely(status))
        return status;
    if (!error || error->code >= 0)
        return tram__invalid("error");
    /* The abort of the kind follows, and finds the reason of the end there already. */
    if (!(transport->flags & T_LOST_PENDING)) {
        transport->end = (struct transport_end){
            .code = error->code, .operation = error->operation ? error->operation : "abort", .user = error->user};
        raised_claim(loop_of(transport), error->user);
    }
    return tram_transport_abort(transport);
}
