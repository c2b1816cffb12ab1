/* tram_tcp_options, from the wish to the socket. */
#ifndef TRAM_TRANSPORTS_SOCKET_TCP_H
#define TRAM_TRANSPORTS_SOCKET_TCP_H

#include <stdbool.h>

#include "core/system/sys.h"
#include <tram/tcp.h>

/* The option that no system could have, or NULL. */
const char *tram__tcp_wrong_option(const tram_tcp_options *options, bool is_server);

/* 0 or -errno. */
int tram__tcp_set(const struct sys *sys, int fd, const tram_tcp_options *options);

#endif
