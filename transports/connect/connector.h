/* Making connections of other kinds by the operation of loop.create_connection. */
#ifndef TRAM_TRANSPORTS_CONNECT_CONNECTOR_H
#define TRAM_TRANSPORTS_CONNECT_CONNECTOR_H

#include "core/loop/loop.h"
#include <tram/connection.h>

/* Connects to one address, without asking anyone; `timeout_ns` 0: no deadline. `discard` may be NULL. */
int tram__connect_address(tram_loop *loop, tram_protocol_factory factory, void *arg, tram_discard discard,
                          const tram_socket_address *address, uint64_t timeout_ns, tram_future **ret_future);

#endif
