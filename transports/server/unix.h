/* Unix stream servers, whatever serves: a loop or a runtime. */
#ifndef TRAM_TRANSPORTS_SERVER_UNIX_H
#define TRAM_TRANSPORTS_SERVER_UNIX_H

#include "core/loop/loop.h"
#include <tram/unix.h>

/* What all servers understand of the options; TRAM_EVALUE for what makes no sense. */
int tram__unix_server_check(const tram_unix_server_options *options, tram_server_options *ret_common);

/* A socket that is bound to the address. A code with `ret_error` filled otherwise. */
int tram__unix_bind(const struct sys *sys, const tram_socket_address *address, int *ret_fd,
                    struct kept_error *ret_error);

#endif
