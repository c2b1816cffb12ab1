/* Listening sockets: how they are opened and bound, for servers of a loop and of a runtime alike. */
#ifndef TRAM_TRANSPORTS_SOCKET_LISTENER_H
#define TRAM_TRANSPORTS_SOCKET_LISTENER_H

#include "transports/socket/address.h"
#include <tram/server.h>

/* May others have the same port (SO_REUSEPORT)? */
enum port_sharing {
    PORT_ALONE,
    PORT_SHARED,
    PORT_SHARED_LATER, /* the port must be free now; afterwards those of this process join */
};

/*
 * Opens and binds a socket for every address, in order (V-3 to V-5): `fds` has room for all of them, `ret_count` says
 * how many there are; the rest is -1. Of the options no_reuse_address, transparent,
 * same_port and tcp are looked at. On failure a code
 * with everything closed again, and `ret_error` filled.
 */
int tram__listeners_open(const struct sys *sys, const struct address_list *list, const tram_server_options *options,
                         enum port_sharing sharing, int *fds, size_t *ret_count, struct kept_error *ret_error);

/* Begins to listen. 0, or a code with `ret_error` filled. */
int tram__listener_listen(const struct sys *sys, int fd, int backlog, struct kept_error *ret_error);

/* Fills `ret_error` with the code, and a text that says what could not be done with which address. Returns the code. */
int tram__address_error(struct kept_error *ret_error, int code, const char *operation,
                        const tram_socket_address *address);

#endif
