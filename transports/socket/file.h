/* The files of Unix sockets, which outlive them unless someone removes them. */
#ifndef TRAM_TRANSPORTS_SOCKET_FILE_H
#define TRAM_TRANSPORTS_SOCKET_FILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/loop/loop.h"
#include <tram/transport.h>

/* Which file it is; all zero: none. */
struct socket_file {
    bool known;
    dev_t device;
    ino_t inode;
};

/* Removes what a former socket left at this path. 0, also where there is nothing to do; or -errno. */
int tram__socket_file_clear(const struct sys *sys, const tram_socket_address *address);

/* The same; trouble is logged, and shows when it comes to binding (U-2, U-3). */
void tram__socket_file_remove_stale(tram_loop *loop, const tram_socket_address *address);

/* The file that stands at this path; none for names without one, and where it is gone already. */
struct socket_file tram__socket_file_at(const struct sys *sys, const tram_socket_address *address);

/*
 * Removes the file, if it still is the one at the path (U-5): 0, also if it is not, or -errno. As long as its socket is
 * open, no other file has its inode.
 */
int tram__socket_file_unlink(const struct sys *sys, const tram_socket_address *address, const struct socket_file *file);

/* The same; trouble is logged. */
void tram__socket_file_remove(tram_loop *loop, const tram_socket_address *address, const struct socket_file *file);

#endif
