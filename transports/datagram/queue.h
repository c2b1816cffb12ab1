/*
 * The datagrams that a transport has accepted and the kernel has not taken yet, with their addresses, packed into
 * chunks. Owned by one transport.
 */
#ifndef TRAM_TRANSPORTS_DATAGRAM_QUEUE_H
#define TRAM_TRANSPORTS_DATAGRAM_QUEUE_H

#include "transports/base/chunks.h"

struct datagram_block;

struct datagram_queue {
    struct datagram_block *first;
    struct datagram_block *last;
    size_t count;
};

/* Appends a copy; -ENOMEM: nothing was appended. */
int tram__datagram_queue_add(tram_loop *loop, struct datagram_queue *queue, const struct io_datagram *datagram);

/* The oldest datagrams, at most `count`; how many. They stay until dropped. */
size_t tram__datagram_queue_gather(const struct datagram_queue *queue, struct io_datagram *datagrams, size_t count);

/* Takes the oldest `count` off; how many bytes of data they had. */
size_t tram__datagram_queue_drop(tram_loop *loop, struct datagram_queue *queue, size_t count);

#endif
