/*
 * Name resolution without blocking: loop.getaddrinfo and loop.getnameinfo. Calls of the loop's thread.
 *
 * Lookups run on the loop's default executor, on threads of their own, so that a name server that does not answer holds
 * up no other work, and no other work holds them up.
 */
#ifndef TRAM_RESOLVER_H
#define TRAM_RESOLVER_H

#include <sys/socket.h>

#include <tram/future.h>

TRAM_BEGIN_DECLS

struct addrinfo; /* <netdb.h> */

/*
 * getaddrinfo(3) on the executor. Completes with a const struct addrinfo *, in the resolver's order, which
 * lives as long as the future. TRAM_ERESOLVE, with the resolver's text in the detail, also for a port above 65535,
 * which the C library would cut to 16 bits. `hints` may be NULL.
 */
TRAM_API int tram_loop_getaddrinfo(tram_loop *loop, const char *host, const char *port, const struct addrinfo *hints,
                                   tram_future **ret_future);

/* What getnameinfo completes with; lives as long as the future. */
typedef struct tram_name_info {
    char host[1025];  /* NI_MAXHOST */
    char service[32]; /* NI_MAXSERV */
    uintptr_t reserved[4];
} tram_name_info;

/* getnameinfo(3) on the executor; `flags` are NI_…. Completes with a const tram_name_info *. */
TRAM_API int tram_loop_getnameinfo(tram_loop *loop, const struct sockaddr *address, socklen_t size, int flags,
                                   tram_future **ret_future);

TRAM_END_DECLS

#endif
