#include "core/backend/datagrams.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>

/* ---- The area ---- */

static void area_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending != IO_SHUTDOWN_NOW)
        return;
    tram_loop *loop = container_of(hook, tram_loop, datagram_hook);
    list_remove(&hook->link);
    memory_put(&loop->allocator, loop->datagrams, sizeof *loop->datagrams);
    loop->datagrams = NULL;
}

int tram__datagrams_prepare(struct io *io, bool ours) {
    tram_loop *loop = io->loop;
    const struct sys *sys = loop->sys;
    if (!loop->datagrams) {
        struct datagram_area *area = memory_get(&loop->allocator, sizeof *area);
        if (!area)
            return -ENOMEM;
        area->in_slot = 0; /* the rest is written before it is read, and most of it never touched */
        loop->datagrams = area;
        loop_add_close_hook(loop, &loop->datagram_hook, area_ending);
    }
    int value = 0;
    socklen_t size = sizeof value;
    io->segment_limit = 0;
    /* A kernel that does not know the option would send the joined datagrams as one. */
    if (sys->getsockopt(io->fd, SOL_UDP, UDP_SEGMENT, &value, &size) == 0)
        io->segment_limit = TRAM_SEGMENTS_SIZE;
    else if (sys->getsockopt(io->fd, SOL_SOCKET, SO_PROTOCOL, &value, &size) < 0 || value != IPPROTO_UDP)
        io->flags |= IO_LARGE;
    int on = 1;
    if (ours && !(io->flags & IO_LARGE))
        sys->setsockopt(io->fd, SOL_UDP, UDP_GRO, &on, sizeof on); /* where there is none it does without */
    return 0;
}

/* ---- Receiving ---- */

static unsigned messages_of(size_t slot) {
    return (unsigned)(sizeof((struct datagram_area *)0)->bytes / (slot + DATAGRAM_STRIDE - TRAM_DATAGRAM_SLOT));
}

/* What the kernel changed in a message is set again. */
static void reset(struct datagram_area *area, unsigned i) {
    struct msghdr *message = &area->in[i].msg_hdr;
    message->msg_namelen = sizeof area->in_peers[i];
    message->msg_controllen = area->in_slot == TRAM_DATAGRAM_SLOT ? DATAGRAM_CONTROL_SIZE : 0;
}

unsigned tram__datagrams_room(struct datagram_area *area, const struct io *io) {
    size_t slot = io->flags & IO_LARGE ? TRAM_DATAGRAM_SLOT_LARGE : TRAM_DATAGRAM_SLOT;
    unsigned count = messages_of(slot);
    if (likely(area->in_slot == slot))
        return count;
    area->in_slot = slot;
    for (unsigned i = 0; i < count; i++) {
        area->in_pieces[i] = (struct iovec){
            .iov_base = area->bytes + i * (slot + DATAGRAM_STRIDE - TRAM_DATAGRAM_SLOT),
            .iov_len = slot,
        };
        area->in[i].msg_hdr = (struct msghdr){
            .msg_name = &area->in_peers[i],
            .msg_iov = &area->in_pieces[i],
            .msg_iovlen = 1,
            .msg_control = area->in_control[i],
        };
        reset(area, i);
    }
    return count;
}

/* The size of the datagrams that the kernel joined to this message; 0: it is one. */
static size_t joined_size(struct msghdr *message) {
    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
        if (control->cmsg_level != SOL_UDP || control->cmsg_type != UDP_GRO)
            continue;
        int size;
        memcpy(&size, CMSG_DATA(control), sizeof size);
        return size > 0 ? (size_t)size : 0;
    }
    return 0;
}

/* One message, whole or cut. False: the owner does not receive any more. */
static bool deliver(struct io *io, struct mmsghdr *message, size_t slot, uint32_t index, uint32_t generation) {
    struct msghdr *header = &message->msg_hdr;
    size_t left = message->msg_len < slot ? message->msg_len : slot;
    size_t joined = header->msg_controllen ? joined_size(header) : 0;
    struct io_datagram datagram = {
        .data = header->msg_iov->iov_base,
        .address = header->msg_namelen ? header->msg_name : NULL,
        .address_size = header->msg_namelen,
    };
    do {
        datagram.size = joined && joined < left ? joined : left;
        datagram.full_size = joined ? datagram.size : message->msg_len;
        io->kind->datagrams->received(io, &datagram);
        if (unlikely(!io_still_there(io->loop, index, generation) || !(io->wanted & IO_READ)))
            return false;
        datagram.data = (char *)datagram.data + datagram.size;
        left -= datagram.size;
    } while (left);
    return true;
}

void tram__datagrams_deliver(struct io *io, unsigned count) {
    tram_loop *loop = io->loop;
    struct datagram_area *area = loop->datagrams;
    uint32_t index = io->slot, generation = loop->io_slots[index].generation;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += area->in[i].msg_len;
    stats_add(&loop->stats.reads, 1);
    stats_add(&loop->stats.bytes_received, bytes);
    for (unsigned i = 0; i < count; i++)
        if (!deliver(io, &area->in[i], area->in_slot, index, generation))
            break;
    for (unsigned i = 0; i < count; i++)
        reset(area, i);
    if (likely(io_still_there(loop, index, generation)))
        io->kind->datagrams->received_all(io);
}

/* ---- Sending ---- */

static bool same_peer(const struct io_datagram *a, const struct io_datagram *b) {
    return a->address_size == b->address_size &&
           (!a->address_size || memcmp(a->address, b->address, a->address_size) == 0);
}

/* How many datagrams from the first on may be joined: all of one size, but for a smaller last one, to one peer. */
static size_t joinable(const struct io *io, const struct io_datagram *datagrams, size_t count) {
    size_t size = datagrams->size, total = size, joined = 1;
    if (!size || size >= io->segment_limit)
        return 1;
    if (count > TRAM_SEGMENTS)
        count = TRAM_SEGMENTS;
    for (; joined < count; joined++) {
        const struct io_datagram *next = &datagrams[joined];
        if (next->size > size || !next->size || total + next->size > TRAM_SEGMENTS_SIZE || !same_peer(datagrams, next))
            break;
        total += next->size;
        if (next->size < size)
            return joined + 1;
    }
    return joined;
}

static void notify_segment_size(struct msghdr *message, union segment_control *control, size_t size) {
    uint16_t segment = (uint16_t)size;
    memset(control, 0, sizeof *control); /* with its padding, which the kernel copies */
    control->header = (struct cmsghdr){
        .cmsg_level = SOL_UDP,
        .cmsg_type = UDP_SEGMENT,
        .cmsg_len = CMSG_LEN(sizeof segment),
    };
    memcpy(CMSG_DATA(&control->header), &segment, sizeof segment);
    message->msg_control = control->bytes;
    message->msg_controllen = sizeof control->bytes;
}

unsigned tram__datagrams_pack(struct datagram_area *area, const struct io *io, const struct io_datagram *datagrams,
                              size_t count) {
    unsigned messages = 0;
    for (size_t i = 0; i < count; messages++) {
        size_t joined = joinable(io, &datagrams[i], count - i);
        struct msghdr *message = &area->out[messages].msg_hdr;
        *message = (struct msghdr){
            .msg_name = (void *)(uintptr_t)datagrams[i].address,
            .msg_namelen = datagrams[i].address_size,
            .msg_iov = &area->out_pieces[i],
            .msg_iovlen = joined,
        };
        if (joined > 1)
            notify_segment_size(message, &area->out_control[messages], datagrams[i].size);
        for (size_t end = i + joined; i < end; i++)
            area->out_pieces[i] = (struct iovec){.iov_base = datagrams[i].data, .iov_len = datagrams[i].size};
    }
    return messages;
}

size_t tram__datagrams_packed(const struct datagram_area *area, unsigned count) {
    size_t datagrams = 0;
    for (unsigned i = 0; i < count; i++)
        datagrams += area->out[i].msg_hdr.msg_iovlen;
    return datagrams;
}

bool tram__datagrams_unjoin(const struct datagram_area *area, struct io *io, int error) {
    const struct msghdr *first = &area->out[0].msg_hdr;
    if (first->msg_iovlen < 2)
        return false;
    switch (error) {
    case EMSGSIZE: /* larger than a packet on this path, which the kernel does not cut further */
    case EINVAL:   /* the same, before Linux 6.12 */
        io->segment_limit = (uint32_t)first->msg_iov->iov_len;
        return true;
    case EIO: /* no checksums by this device, or none at all */
    case EOPNOTSUPP:
        io->segment_limit = 0;
        return true;
    default:
        return false;
    }
}
