/* Opening datagram sockets: which pairs of addresses to try, for endpoints of a loop and of a runtime alike. */
#ifndef TRAM_TRANSPORTS_DATAGRAM_OPEN_H
#define TRAM_TRANSPORTS_DATAGRAM_OPEN_H

#include "transports/socket/listener.h"
#include "transports/socket/lookup.h"
#include <tram/datagram.h>

/* What the user wants; the lists are NULL where there is no such address. */
struct datagram_plan {
    int family; /* without addresses */
    int protocol;
    enum port_sharing sharing;
    bool allow_broadcast;
    const struct address_list *local;
    const struct address_list *remote;
};

/* What to ask for the local address; without a host all interfaces. */
static inline struct lookup_query datagram_local_query(const tram_datagram_options *options) {
    return (struct lookup_query){
        .host = options->local_host,
        .port = options->local_port,
        .family = options->family,
        .protocol = options->protocol,
        .flags = options->flags,
        .type = SOCK_DGRAM,
        .any = true,
    };
}

/*
 * Opens, binds and connects the first pair that can be had (D-3 to D-5): the descriptor, or a negative code with
 * `ret_error` filled. `ret_remote` is the remote address, size 0 if there is none.
 */
int tram__datagram_open(const struct sys *sys, const struct datagram_plan *plan, tram_socket_address *ret_remote,
                        struct kept_error *ret_error);

/* The option that makes no sense, before anything is tried, or NULL. */
const char *tram__datagram_wrong_option(const tram_datagram_options *options);

/* Adds the address of a Unix path, the option `name`, if there is one. 0, TRAM_EVALUE or -ENOMEM. */
int tram__datagram_add_path(struct address_list *list, const char *name, const char *path, size_t size, int protocol);

#endif
