/* The layer that takes the header of the PROXY protocol off a connection, and goes. */
#ifndef TRAM_TRANSPORTS_PROXY_HEADER_LAYER_H
#define TRAM_TRANSPORTS_PROXY_HEADER_LAYER_H

#include "transports/base/held.h"
#include "transports/base/layer.h"
#include <tram/proxy.h>

#define TRAM_PROXY_TIMEOUT_NS 3000000000u

/* Before all others that connection_made waits for. 0, or why not: then there is no layer. */
int tram__proxy_push(tram_transport *transport, uint64_t timeout_ns);

/* Whether one like this can be written. */
bool tram__proxy_possible(const tram_proxy_header *header);

/* The bytes of one that can, or NULL: out of memory. */
struct held *tram__proxy_bytes(tram_loop *loop, const tram_proxy_header *header);

#endif
