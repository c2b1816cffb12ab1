#include "transports/base/address.h"

#include "transports/base/entering.h"
#include "transports/base/protocol_adapter.h"
#include "transports/base/transport.h"

static enum delivery deliver(tram_loop *loop, void *target, tram_message *message) {
    (void)loop;
    tram_transport *transport = target;
    const tram_protocol *protocol = transport->protocol;
    if (unlikely(!protocol || !(transport->flags & T_MADE) || transport->flags & T_LOST ||
                 !protocol->ops->message_received))
        return MESSAGE_UNWANTED;
    tram__protocol_message_received(transport, message);
    return MESSAGE_RECEIVED;
}

static int open_address(tram_transport *transport) {
    int status = tram__transport_need_more(transport);
    return status ? status : tram__address_open(loop_of(transport), deliver, transport, &transport->more->address);
}

int tram_transport_address(tram_transport *transport, tram_address *ret_address) {
    int status = loop_enter_open(loop_of(transport), __func__);
    if (status)
        return status;
    if (!transport->protocol || transport->flags & T_LOST)
        return TRAM_ESTATE;
    if (!transport->more || !transport->more->address)
        status = open_address(transport);
    if (!status)
        *ret_address = address_here(actors_present(loop_of(transport)), transport->more->address);
    return status;
}

int tram_protocol_address(const tram_protocol *protocol, tram_address *ret_address) {
    return protocol->transport ? tram_transport_address(protocol->transport, ret_address) : TRAM_ESTATE;
}
