/* Sockets that the user brings along, and checks that all calls which make sockets share. */
#ifndef TRAM_TRANSPORTS_SOCKET_SOCKET_H
#define TRAM_TRANSPORTS_SOCKET_SOCKET_H

#include "core/loop/loop.h"

/*
 * Is it a socket of this type (SOCK_…) that nothing on this loop has (T-18)? Then it is made non-blocking (T-15).
 * TRAM_EVALUE: none; TRAM_ESTATE: in use; -errno.
 */
int tram__socket_take(tram_loop *loop, int fd, int type);

/*
 * Closes a socket on which somebody may have set SO_LINGER. With a time, close(2) would wait for the peer, blocking or
 * not; the kernel sends what is left without us.
 */
void tram__socket_close(const struct sys *sys, int fd);

/* No time of SO_LINGER on it, nor on what a listener accepts. */
void tram__socket_forbid_linger(const struct sys *sys, int fd);

/* TRAM_EVALUE: not a Unix socket. */
int tram__socket_check_unix(const struct sys *sys, int fd);

/* May the user ask for it? 0: any. */
bool tram__family_known(int family);

/* Lets it bind to addresses that are not this machine's. -1 and errno. */
int tram__socket_set_transparent(const struct sys *sys, int fd, int family);

#endif
