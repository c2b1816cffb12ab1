/* Listening sockets that share a port: what the kernel does among them, and how it is told. */
#ifndef TRAM_TRANSPORTS_SOCKET_REUSEPORT_H
#define TRAM_TRANSPORTS_SOCKET_REUSEPORT_H

#include <stdbool.h>

#include "core/system/sys.h"
#include <tram/server.h>

/* Tells the kernel how to choose among `count` sockets, of which `fd` is any. 0, or -errno. */
int tram__reuseport_steer(const struct sys *sys, int fd, tram_steer steer, unsigned count);

/* Does what waits at a listener that closes go to the others (net.ipv4.tcp_migrate_req)? Linux 5.14. */
bool tram__reuseport_migrates(void);

#endif
