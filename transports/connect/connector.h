/* Making connections of other kinds by the operation of loop.create_connection. */
#ifndef TRAM_TRANSPORTS_CONNECT_CONNECTOR_H
#define TRAM_TRANSPORTS_CONNECT_CONNECTOR_H

#include "core/loop/loop.h"
#include "transports/base/secured.h"
#include <tram/connection.h>

/* What may be asked of a connection besides; `held`, `keep_alive` and `not_ours` of one that is made already. */
struct socket_wishes {
    struct held *held;    /* taken, whatever becomes of it; NULL: none */
    tram_discard discard; /* of the factory's argument, if the call succeeds */
    bool keep_alive;
    bool not_ours;
    const tram_tcp_options *tcp;                  /* checked already; NULL: none */
    struct tls_wishes tls;                        /* checked already */
    const struct tram_proxy_header *proxy_header; /* the same; NULL: none */
    const void *early_data;                       /* the same; copied */
    size_t early_size;
    tram_detached *detached; /* whose descriptor it is: the rest of it goes along; NULL: nobody's */
};

/* Makes a transport of a connected stream socket, which stays the caller's where this fails at once. */
int tram__connect_socket(tram_loop *loop, tram_protocol_factory factory, void *arg, int fd,
                         const struct socket_wishes *wishes, tram_future **ret_future);

/* Looks the names up, and connects to what they mean. `options` are checked; what `wishes` has of them is taken there.
 */
int tram__connect_names(tram_loop *loop, tram_protocol_factory factory, void *arg, const char *host, const char *port,
                        const tram_connection_options *options, const struct socket_wishes *wishes,
                        tram_future **ret_future);

/* Connects to one address, without asking anyone; `timeout_ns` 0: no deadline. `retry` was checked. */
int tram__connect_address(tram_loop *loop, tram_protocol_factory factory, void *arg, const tram_socket_address *address,
                          uint64_t timeout_ns, const tram_retry_options *retry, const struct socket_wishes *wishes,
                          tram_future **ret_future);

#endif
