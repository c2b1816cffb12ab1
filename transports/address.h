/* Addresses: numeric parsing without a resolver (L-36), lists of candidates, texts. */
#ifndef TRAM_TRANSPORTS_ADDRESS_H
#define TRAM_TRANSPORTS_ADDRESS_H

#include <netdb.h>
#include <stdbool.h>

#include "core/loop.h"
#include <tram/future.h>
#include <tram/transport.h>

/*
 * What `host` and `port` mean without asking anyone: true and the one address, if the host is a numeric
 * address of the wanted family (0: any) and the port is numeric, empty or NULL. Scopes (%) and names go to
 * the resolver.
 */
bool tram__address_numeric(const char *host, const char *port, int family, tram_socket_address *ret_address);

bool tram__address_equal(const tram_socket_address *a, const tram_socket_address *b);

/* False for 0.0.0.0 and ::, which say nothing about where a connection arrived. */
bool tram__address_concrete(const tram_socket_address *address);

#endif
