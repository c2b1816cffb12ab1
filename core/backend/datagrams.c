#include "core/backend/datagrams.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>

/* ---- The area ---- */

void tram__datagrams_free(tram_loop *loop) {
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
        area->in_slot = 0;
        area->knows_narrow = false; /* the rest is written before it is read, and most of it never touched */
        loop->datagrams = area;
    }
    int value = 0;
    socklen_t size = sizeof value;
    /* A kernel that does not know the option would send the joined datagrams as one. */
    if (sys->getsockopt(io->fd, SOL_UDP, UDP_SEGMENT, &value, &size) == 0)
        io->flags |= IO_JOINS;
    else if (sys->getsockopt(io->fd, SOL_SOCKET, SO_PROTOCOL, &value, &size) < 0 || value != IPPROTO_UDP)
        io->flags |= IO_LARGE;
    int on = 1;
    if (ours && !(io->flags & IO_LARGE))
        sys->setsockopt(io->fd, SOL_UDP, UDP_GRO, &on, sizeof on); /* where there is none it does without */
    return 0;
}

/* A socket of IPv6 may get datagrams of IPv4, too; where it cannot, the kernel does not mind being asked. */
int tram__datagrams_ask(struct io *io, int family, unsigned details) {
    static const struct {
        unsigned detail;
        int ipv4, ipv6;
    } options[] = {
        {DATAGRAM_LOCAL, IP_PKTINFO, IPV6_RECVPKTINFO},
        {DATAGRAM_TTL, IP_RECVTTL, IPV6_RECVHOPLIMIT},
        {DATAGRAM_TOS, IP_RECVTOS, IPV6_RECVTCLASS},
    };
    const struct sys *sys = io->loop->sys;
    int on = 1;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (!(details & options[i].detail))
            continue;
        if (sys->setsockopt(io->fd, IPPROTO_IP, options[i].ipv4, &on, sizeof on) < 0)
            return -errno;
        if (family == AF_INET6 && sys->setsockopt(io->fd, IPPROTO_IPV6, options[i].ipv6, &on, sizeof on) < 0)
            return -errno;
    }
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

static int16_t number_of(const struct cmsghdr *control) {
    int value = 0;
    /* The type of service is one byte, the others are an int. */
    if (control->cmsg_len == CMSG_LEN(1))
        return *CMSG_DATA(control);
    memcpy(&value, CMSG_DATA(control), sizeof value);
    return value >= 0 && value <= UINT8_MAX ? (int16_t)value : -1;
}

static void read_ipv4(const struct cmsghdr *control, struct io_ancillary *told) {
    struct in_pktinfo info;
    switch (control->cmsg_type) {
    case IP_PKTINFO: /* of a broadcast it names an address of this machine */
        memcpy(&info, CMSG_DATA(control), sizeof info);
        told->local = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
        memcpy(&told->local.s6_addr[12], &info.ipi_spec_dst, sizeof info.ipi_spec_dst);
        told->interface = (uint32_t)info.ipi_ifindex;
        told->has_local = true;
        break;
    case IP_TTL:
        told->ttl = number_of(control);
        break;
    case IP_TOS:
        told->tos = number_of(control);
        break;
    default:
        break;
    }
}

static void read_ipv6(const struct cmsghdr *control, struct io_ancillary *told) {
    struct in6_pktinfo info;
    switch (control->cmsg_type) {
    case IPV6_PKTINFO:
        memcpy(&info, CMSG_DATA(control), sizeof info);
        told->local = info.ipi6_addr;
        told->interface = info.ipi6_ifindex;
        told->has_local = true;
        break;
    case IPV6_HOPLIMIT:
        told->ttl = number_of(control);
        break;
    case IPV6_TCLASS:
        told->tos = number_of(control);
        break;
    default:
        break;
    }
}

/* What the kernel said was cut, maybe even the size of joined datagrams: then nobody knows where each of them ends. */
static bool boundaries_cut(const struct io *io, const struct msghdr *message, const struct io_datagram *datagram) {
    int joins = 0;
    socklen_t size = sizeof joins;
    if (!(message->msg_flags & MSG_CTRUNC) || datagram->ancillary) /* which comes behind that size */
        return false;
    return io->loop->sys->getsockopt(io->fd, SOL_UDP, UDP_GRO, &joins, &size) == 0 && joins;
}

/*
 * What the kernel said beside a message: the size of the datagrams that it joined to it, 0: it is one, -1: nobody
 * knows. A socket of IPv6 that gets datagrams of IPv4 says both where it came in, the one that says more last.
 */
__attribute__((noinline)) static ssize_t read_control(const struct io *io, struct msghdr *message,
                                                      struct io_ancillary *told, struct io_datagram *datagram) {
    int joined = 0;
    for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
        if (control->cmsg_level == SOL_UDP && control->cmsg_type == UDP_GRO) {
            memcpy(&joined, CMSG_DATA(control), sizeof joined);
        } else if (control->cmsg_level == IPPROTO_IP || control->cmsg_level == IPPROTO_IPV6) {
            if (!datagram->ancillary)
                *told = (struct io_ancillary){.ttl = -1, .tos = -1};
            datagram->ancillary = told;
            (control->cmsg_level == IPPROTO_IP ? read_ipv4 : read_ipv6)(control, told);
        }
    }
    if (joined > 0)
        return joined;
    return boundaries_cut(io, message, datagram) ? -1 : 0;
}

static bool still_receives(const struct io *io, const union io_slot *there, uint32_t generation) {
    return likely(io_still_there(there, generation)) && likely(io->wanted & IO_READ);
}

/* One message, whole or cut. False: the owner does not receive any more. */
static bool deliver(struct io *io, struct mmsghdr *message, size_t slot, const union io_slot *there,
                    uint32_t generation) {
    struct msghdr *header = &message->msg_hdr;
    size_t left = MIN(message->msg_len, slot);
    struct io_ancillary told;
    struct io_datagram datagram = {
        .data = header->msg_iov->iov_base,
        .address = header->msg_namelen ? header->msg_name : NULL,
        .address_size = header->msg_namelen,
    };
    size_t joined = 0;
    if (header->msg_controllen || unlikely(header->msg_flags & MSG_CTRUNC)) {
        ssize_t result = read_control(io, header, &told, &datagram);
        if (unlikely(result < 0)) {
            io->kind->datagrams->receive_failed(io, -ENOBUFS);
            return still_receives(io, there, generation);
        }
        joined = (size_t)result;
    }
    do {
        datagram.size = joined ? MIN(joined, left) : left;
        datagram.full_size = joined ? datagram.size : message->msg_len;
        io->kind->datagrams->received(io, &datagram);
        if (!still_receives(io, there, generation))
            return false;
        datagram.data = (char *)datagram.data + datagram.size;
        left -= datagram.size;
    } while (left);
    return true;
}

void tram__datagrams_deliver(struct io *io, unsigned count) {
    tram_loop *loop = io->loop;
    struct datagram_area *area = loop->datagrams;
    const union io_slot *there = io_slot_of(io);
    uint32_t generation = io->generation;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += area->in[i].msg_len;
    stats_add(&loop->stats.reads, 1);
    stats_add(&loop->stats.bytes_received, bytes);
    for (unsigned i = 0; i < count; i++)
        if (!deliver(io, &area->in[i], area->in_slot, there, generation))
            break;
    for (unsigned i = 0; i < count; i++)
        reset(area, i);
    if (likely(io_still_there(there, generation)))
        io->kind->datagrams->received_all(io);
}

/* ---- Sending ---- */

static bool same_local(const struct io_ancillary *a, const struct io_ancillary *b) {
    return a == b || (a && b && a->interface == b->interface && IN6_ARE_ADDR_EQUAL(&a->local, &b->local));
}

static bool same_ends(const struct io_datagram *a, const struct io_datagram *b) {
    return a->address_size == b->address_size &&
           (!a->address_size || memcmp(a->address, b->address, a->address_size) == 0) &&
           same_local(a->ancillary, b->ancillary);
}

/*
 * Of the host: its ports share a path. A socket that is connected has one path, its own. Different paths of one key
 * cost nothing but some joining.
 */
static uint64_t path_key(const struct io *io, const struct io_datagram *datagram) {
    if (!datagram->address_size)
        return (uint64_t)io->generation << 32 | io->slot;
    union {
        unsigned char address[16];
        uint64_t halves[2];
    } to = {{0}};
    if (datagram->address->sa_family == AF_INET6)
        memcpy(to.address, &((const struct sockaddr_in6 *)(const void *)datagram->address)->sin6_addr, 16);
    else
        memcpy(to.address, &((const struct sockaddr_in *)(const void *)datagram->address)->sin_addr, 4);
    uint64_t key = (to.halves[0] ^ to.halves[1] * 0x9e3779b97f4a7c15u) * 0xd6e8feb86659fd93u;
    return key ^ key >> 32;
}

static struct narrow_path *narrow_path(struct datagram_area *area, uint64_t key) {
    return &area->narrow[key % DATAGRAM_NARROW_PATHS];
}

static bool too_large_for_path(struct datagram_area *area, const struct io *io, const struct io_datagram *datagram) {
    if (likely(!area->knows_narrow))
        return false;
    uint64_t key = path_key(io, datagram);
    const struct narrow_path *path = narrow_path(area, key);
    return path->key == key && datagram->size >= path->limit;
}

/* How many datagrams from the first on may be joined: all of one size, but for a smaller last one, to one peer. */
static size_t joinable(struct datagram_area *area, const struct io *io, const struct io_datagram *datagrams,
                       size_t count) {
    size_t size = datagrams->size, total = size, joined = 1;
    if (!size || !(io->flags & IO_JOINS) || too_large_for_path(area, io, datagrams))
        return 1;
    count = MIN(count, TRAM_SEGMENTS);
    for (; joined < count; joined++) {
        const struct io_datagram *next = &datagrams[joined];
        if (next->size > size || !next->size || total + next->size > TRAM_SEGMENTS_SIZE || !same_ends(datagrams, next))
            break;
        total += next->size;
        if (next->size < size)
            return joined + 1;
    }
    return joined;
}

/* Adds to what goes with a message, whose control is all zero: the kernel copies the padding, too. */
static void add_control(struct msghdr *message, union send_control *control, int level, int type, const void *value,
                        size_t size) {
    struct cmsghdr *header = (struct cmsghdr *)(void *)(control->bytes + message->msg_controllen);
    *header = (struct cmsghdr){.cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(size)};
    memcpy(CMSG_DATA(header), value, size);
    message->msg_control = control->bytes;
    message->msg_controllen += CMSG_SPACE(size);
}

static void add_local(struct msghdr *message, union send_control *control, const struct io_ancillary *from) {
    if (IN6_IS_ADDR_V4MAPPED(&from->local)) {
        struct in_pktinfo info = {.ipi_ifindex = (int)from->interface};
        memcpy(&info.ipi_spec_dst, &from->local.s6_addr[12], sizeof info.ipi_spec_dst);
        add_control(message, control, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
        return;
    }
    struct in6_pktinfo info = {.ipi6_addr = from->local, .ipi6_ifindex = from->interface};
    add_control(message, control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
}

/* What the kernel is told of a message that begins with this datagram. */
static void fill_control(struct msghdr *message, union send_control *control, const struct io_datagram *first) {
    uint16_t segment = (uint16_t)first->size;
    memset(control, 0, sizeof *control);
    if (message->msg_iovlen > 1)
        add_control(message, control, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
    if (first->ancillary)
        add_local(message, control, first->ancillary);
}

unsigned tram__datagrams_pack(struct datagram_area *area, const struct io *io, const struct io_datagram *datagrams,
                              size_t count) {
    unsigned messages = 0;
    for (size_t i = 0; i < count; messages++) {
        size_t joined = joinable(area, io, &datagrams[i], count - i);
        struct msghdr *message = &area->out[messages].msg_hdr;
        *message = (struct msghdr){
            .msg_name = (void *)(uintptr_t)datagrams[i].address,
            .msg_namelen = datagrams[i].address_size,
            .msg_iov = &area->out_pieces[i],
            .msg_iovlen = joined,
        };
        if (joined > 1 || unlikely(datagrams[i].ancillary != NULL))
            fill_control(message, &area->out_control[messages], &datagrams[i]);
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

bool tram__datagrams_joined_badly(const struct datagram_area *area, int error) {
    if (area->out[0].msg_hdr.msg_iovlen < 2)
        return false;
    return error == EMSGSIZE || error == EINVAL || error == EIO || error == EOPNOTSUPP;
}

void tram__datagrams_unjoin(struct io *io, const struct io_datagram *datagram, int error) {
    struct datagram_area *area = io->loop->datagrams;
    /* Larger than a packet on this path, which the kernel does not cut further: EINVAL before Linux 6.12. */
    bool too_large = error == EMSGSIZE || error == EINVAL;
    if (!too_large) {
        io->flags &= (uint8_t)~IO_JOINS; /* no checksums by this device, or none at all */
    } else {
        if (!area->knows_narrow)
            memset(area->narrow, 0, sizeof area->narrow);
        area->knows_narrow = true;
        uint64_t key = path_key(io, datagram);
        *narrow_path(area, key) = (struct narrow_path){.key = key, .limit = (uint32_t)datagram->size};
    }
}
