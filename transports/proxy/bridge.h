/* Which transports are coupled, and what the kernel moves past the protocol: tram/bridge.h has the rest. */
#ifndef TRAM_TRANSPORTS_PROXY_BRIDGE_H
#define TRAM_TRANSPORTS_PROXY_BRIDGE_H

#include "transports/base/types.h"

bool tram__bridged(const tram_transport *transport);

/* io_kind.pipe and .spliced of streams. */
int tram__bridge_pipe(struct io *io);
void tram__bridge_spliced(struct io *io, ssize_t result);

#endif
