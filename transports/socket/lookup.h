/*
 * A lookup: from what the user wrote (host and port) to the list of addresses that it means. Numbers are
 * answered at once, names by the resolver.
 */
#ifndef TRAM_TRANSPORTS_SOCKET_LOOKUP_H
#define TRAM_TRANSPORTS_SOCKET_LOOKUP_H

#include "transports/socket/address.h"

struct lookup_query {
    const char *host;
    const char *port;
    int family; /* 0: any */
    int protocol;
    int flags;
    int type; /* 0: SOCK_STREAM */
    bool any; /* no host: all interfaces, not the loopback */
};

struct lookup {
    struct address_list list;
    void *owner; /* free for whoever asks */
    tram_loop *loop;
    tram_future *answer; /* of the resolver, while it is asked */
    void (*done)(struct lookup *lookup, const tram_error *error);
};

/* Fills the list without asking anyone: 1, or 0 if only the resolver can tell, or -ENOMEM. */
int tram__lookup_numeric(const struct lookup_query *query, struct address_list *list);

/* Fills the list in this thread, asking the resolver if need be: 0, or a code with `ret_error` filled. */
int tram__lookup_wait(const struct lookup_query *query, struct address_list *list, const char *operation,
                      struct kept_error *ret_error);

/*
 * 1: the list is filled already; 0: `done` is called from the loop, with NULL and the list filled, or with an
 * error; else a negative code. Until then the lookup must stay. The texts of `query` are borrowed for this
 * call.
 */
int tram__lookup_start(struct lookup *lookup, tram_loop *loop, const struct lookup_query *query,
                       void (*done)(struct lookup *lookup, const tram_error *error));

/* Copies the texts of two queries, which name the copies then, into one block. 0 or -ENOMEM. */
int tram__lookup_keep(struct lookup_query *query, struct lookup_query *other, const tram_allocator *allocator,
                      char **ret_block, size_t *ret_size);

/* Afterwards `done` is not called, and the list is empty. Idempotent, also on a lookup that is all zero. */
void tram__lookup_end(struct lookup *lookup);

#endif
