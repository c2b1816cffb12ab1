/*
 * What a loop needs to receive and send datagrams in batches, whatever its backend: one area of memory for all of its
 * ios, which messages point into, and the two tricks of UDP. Many datagrams of one size to one peer go as one large
 * message that the kernel cuts (UDP_SEGMENT), and what the kernel joined on its way in (UDP_GRO) is cut here.
 */
#ifndef TRAM_CORE_BACKEND_DATAGRAMS_H
#define TRAM_CORE_BACKEND_DATAGRAMS_H

#include <netinet/in.h>

#include "core/loop/loop.h"

/*
 * For what the kernel says beside a message that came: the marks of time and count that a socket may be told to give
 * stand before what is needed here. An odd number of cache lines: consecutive ones do not meet in the same lines.
 */
#define DATAGRAM_CONTROL_SIZE 320

/* Large enough for the largest datagram; consecutive ones must not meet in the same lines of the cache. */
#define DATAGRAM_STRIDE (TRAM_DATAGRAM_SLOT + 256u)

/* What is said to the kernel beside a message: where to cut it, and from where it leaves. */
union send_control {
    struct cmsghdr header; /* for its alignment */
    char bytes[CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* So many narrow paths a loop knows at a time; one more forgets another, and is found again by a send that fails. */
#define DATAGRAM_NARROW_PATHS 64

struct narrow_path {
    uint64_t key; /* of the destination's address, or of a socket that is connected */
    uint32_t limit;
};

struct datagram_area {
    struct mmsghdr in[TRAM_DATAGRAMS_IN];
    struct iovec in_pieces[TRAM_DATAGRAMS_IN];
    struct sockaddr_storage in_peers[TRAM_DATAGRAMS_IN];
    char in_control[TRAM_DATAGRAMS_IN][DATAGRAM_CONTROL_SIZE] __attribute__((aligned(16)));
    size_t in_slot; /* what `in` is laid out for; 0: not yet */

    struct mmsghdr out[TRAM_DATAGRAMS_OUT];
    struct iovec out_pieces[TRAM_DATAGRAMS_OUT];
    union send_control out_control[TRAM_DATAGRAMS_OUT];
    struct io_datagram gathered[TRAM_DATAGRAMS_OUT];
    bool knows_narrow; /* there is one in: */
    struct narrow_path narrow[DATAGRAM_NARROW_PATHS];

    char bytes[TRAM_DATAGRAMS_IN * DATAGRAM_STRIDE];
};

/*
 * Makes an io ready for datagrams, after tram__io_add(): area, and what its kernel can do. `ours`: the socket was made
 * by us, so nobody else reads it who does not expect joined datagrams. 0 or -ENOMEM.
 */
int tram__datagrams_prepare(struct io *io, bool ours);

/* At the end of the loop: frees the area, if there is one. */
void tram__datagrams_free(tram_loop *loop);

/* What the kernel may be asked to say of each datagram that comes. */
enum datagram_detail { DATAGRAM_LOCAL = 1, DATAGRAM_TTL = 2, DATAGRAM_TOS = 4 };

/* Has these told from now on, by a socket of this family. 0 or -errno. */
int tram__datagrams_ask(struct io *io, int family, unsigned details);

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
 * The first message of area->out failed with this errno. True: that may be because its datagrams were joined, or it
 * may be what the first one would meet alone (EINVAL: a destination with port 0). So send that one alone.
 */
bool tram__datagrams_joined_badly(const struct datagram_area *area, int error);

/*
 * … and alone it was sent. Where it is too large for its path, datagrams of its size and above are not joined any more
 * on that path; where the device cannot do it, none of the socket's are.
 */
void tram__datagrams_unjoin(struct io *io, const struct io_datagram *datagram, int error);

#endif
