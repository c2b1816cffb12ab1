/*
 * What two processes say to each other when listeners change hands, over a SOCK_SEQPACKET Unix socket:
 *
 *     new   HELLO
 *     old   SOCKETS with a name and up to TRAM_INHERIT_BATCH descriptors, as often as it takes; END with how many in
 * all new   READY, once it serves them old   DONE
 *
 * or, instead of any message of the old one, REFUSED with a code. Either side may break off at any time, and nothing
 * has happened before READY. Numbers are in host order: both ends are on one machine.
 */
#ifndef TRAM_TRANSPORTS_RESTART_WIRE_H
#define TRAM_TRANSPORTS_RESTART_WIRE_H

#include <stdint.h>
#include <sys/socket.h>

#include "core/system/sys.h"
#include <tram/inherit.h>

#define TRAM_INHERIT_BATCH 32 /* descriptors in one message; the kernel takes 253 */

enum inherit_kind { INHERIT_HELLO = 1, INHERIT_SOCKETS, INHERIT_END, INHERIT_READY, INHERIT_DONE, INHERIT_REFUSED };

struct inherit_message {
    uint64_t magic; /* of this version of all this */
    uint32_t kind;  /* enum inherit_kind */
    int32_t value;
    char name[TRAM_LISTENER_NAME_SIZE]; /* with a NUL at its end */
};

/* One message, with descriptors that stay the caller's. 0 or -errno. */
int tram__inherit_send(const struct sys *sys, int link, enum inherit_kind kind, int value, const char *name,
                       const int *fds, size_t count);

/* Has it the form of a message? `size` is what came. */
bool tram__inherit_good(const struct inherit_message *message, size_t size);

/* Is the process at the other end one of this user, or root? 0, -EPERM or -errno. */
int tram__inherit_check_peer(const struct sys *sys, int link);

#endif
