/*
 * What a loop needs to receive and send datagrams in batches, whatever its backend: one area of memory for all of its
 * ios, which messages point into, and the two tricks of UDP. Many datagrams of one size to one peer go as one large
 * message that the kernel cuts (UDP_SEGMENT), and what the kernel joined on its way in (UDP_GRO) is cut here.
 */
#ifndef TRAM_CORE_BACKEND_DATAGRAMS_H
#define TRAM_CORE_BACKEND_DATAGRAMS_H

#include "core/loop/loop.h"

#define DATAGRAM_CONTROL_SIZE 128 /* for what the kernel says beside a message that came */

/* Large enough for the largest datagram; consecutive ones must not meet in the same lines of the cache. */
#define DATAGRAM_STRIDE (TRAM_DATAGRAM_SLOT + 256u)

union segment_control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
};

struct datagram_area {
    struct mmsghdr in[TRAM_DATAGRAMS_IN];
    struct iovec in_pieces[TRAM_DATAGRAMS_IN];
    struct sockaddr_storage in_peers[TRAM_DATAGRAMS_IN];
    char in_control[TRAM_DATAGRAMS_IN][DATAGRAM_CONTROL_SIZE] __attribute__((aligned(16)));
    size_t in_slot; /* what `in` is laid out for; 0: not yet */

    struct mmsghdr out[TRAM_DATAGRAMS_OUT];
    struct iovec out_pieces[TRAM_DATAGRAMS_OUT];
    union segment_control out_control[TRAM_DATAGRAMS_OUT];
    struct io_datagram gathered[TRAM_DATAGRAMS_OUT];

    char bytes[TRAM_DATAGRAMS_IN * DATAGRAM_STRIDE];
};

/*
 * Makes an io ready for datagrams, after tram__io_add(): area, and what its kernel can do. `ours`: the socket was made
 * by us, so nobody else reads it who does not expect joined datagrams. 0 or -ENOMEM.
 */
int tram__datagrams_prepare(struct io *io, bool ours);

/* Lays out area->in for a receive; how many messages there is room for. */
unsigned tram__datagrams_room(struct datagram_area *area, const struct io *io);

/* Gives `count` messages of area->in to the owner, one datagram at a time, as long as it receives. */
void tram__datagrams_deliver(struct io *io, unsigned count);

/* Lays out area->out for these datagrams; how many messages they make. Each message's msg_iovlen datagrams are in it.
 */
unsigned tram__datagrams_pack(struct datagram_area *area, const struct io *io, const struct io_datagram *datagrams,
                              size_t count);

/* How many datagrams the first `count` messages of area->out hold. */
size_t tram__datagrams_packed(const struct datagram_area *area, unsigned count);

/*
 * The first message of area->out failed. True: because its datagrams were joined, which will not happen to such any
 * more; pack again.
 */
bool tram__datagrams_unjoin(const struct datagram_area *area, struct io *io, int error);

#endif
