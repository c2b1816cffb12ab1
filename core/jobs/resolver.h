/* What lookups in a worker's thread and on the executor share. */
#ifndef TRAM_CORE_JOBS_RESOLVER_H
#define TRAM_CORE_JOBS_RESOLVER_H

#include <netdb.h>

/* getaddrinfo(3), but a number above 65535 is no port: EAI_SERVICE. Any thread; blocks. */
int tram__getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret_result);

#endif
