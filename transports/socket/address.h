/* Addresses: numeric parsing without a resolver (L-36), lists of candidates, texts. */
#ifndef TRAM_TRANSPORTS_SOCKET_ADDRESS_H
#define TRAM_TRANSPORTS_SOCKET_ADDRESS_H

#include <netdb.h>
#include <stdbool.h>

#include "core/loop/loop.h"
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

/* The port in host order, 0 where the family has none. */
unsigned tram__address_port(const tram_socket_address *address);

static inline int address_family(const tram_socket_address *address) {
    return address->address.ss_family;
}

/* ---- Lists of candidates: what a name stands for, in the order in which to try ---- */

struct candidate {
    tram_socket_address address;
    int protocol;
};

/* All zero but for the allocator: empty. */
struct address_list {
    const tram_allocator *allocator;
    struct candidate *items;
    size_t count;
    size_t capacity;
};

/* 0 or -ENOMEM. */
int tram__addresses_add(struct address_list *list, const tram_socket_address *address, int protocol);

/* Adds what a resolver answered, leaving out what is no internet address. */
int tram__addresses_add_answer(struct address_list *list, const struct addrinfo *answer);

/*
 * Adds the wildcards of the wanted family (0: both, IPv4 first as the resolver has it): 1 if it did, 0 if the
 * port is a name, for the resolver to tell.
 */
int tram__addresses_add_any(struct address_list *list, const char *port, int family, int protocol);

/* Drops every address that stands further in front as well (V-1). */
void tram__addresses_unique(struct address_list *list);

/* Alternates the families, in order of their first address; the first gets `first_count - 1` places more at
 * the front (C-8). 0 or -ENOMEM. */
int tram__addresses_interleave(struct address_list *list, size_t first_count);

void tram__addresses_free(struct address_list *list);

#endif
