/*
 * An io is the loop's view of a descriptor: an object with a slot, which a poller serves. Transports,
 * listeners, connectors and watched descriptors embed one as their first member.
 *
 * The interface is completion-style: the owner says what it wants done (receive, send, accept, tell me when
 * ready), the backend does the system call when the time has come and reports the outcome to the owner's
 * table. The owner never learns which backend runs it.
 *
 * An event names its io by slot and generation (slots.h), so that one that was collected before can never reach a later
 * owner of the slot or of the descriptor's number. The memory of an io must stay until the end of the tick in which it
 * was removed: tram__loop_free_later().
 */
#ifndef TRAM_CORE_LOOP_IO_H
#define TRAM_CORE_LOOP_IO_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <tram/loop.h>

struct io;

/* What is known of a datagram that came, or is to be said of one that goes, beside its sender or destination. */
struct io_ancillary {
    struct in6_addr local; /* here it came in, or leaves; an IPv4 address is a mapped one; zero: as the kernel likes */
    uint32_t interface;    /* there; 0: any */
    /* Only of one that came: */
    bool has_local;
    int16_t ttl; /* time to live, or hop limit; -1: not known */
    int16_t tos; /* type of service, or traffic class, with its two bits of ECN; -1: not known */
};

/* One datagram, that came or that is to go. */
struct io_datagram {
    void *data;
    size_t size;
    size_t full_size;               /* of one that came: what was sent, more than `size` where it was cut */
    const struct sockaddr *address; /* sender, or destination; NULL: none, or the socket is connected */
    socklen_t address_size;
    const struct io_ancillary *ancillary; /* NULL: nothing */
};

/* Most are of IPv4: two moves instead of a call. */
static inline void io_copy_address(void *to, const struct sockaddr *from, size_t size) {
    if (size == sizeof(struct sockaddr_in))
        memcpy(to, from, sizeof(struct sockaddr_in));
    else
        memcpy(to, from, size);
}

/* What an owner of datagrams is told, in place of `received` … `sent` below. */
struct io_datagram_kind {
    /* A datagram. They come in batches, of which the rest is dropped once receiving was stopped. */
    void (*received)(struct io *io, const struct io_datagram *datagram);
    /* After the last one of a batch; also where receiving was stopped. */
    void (*received_all)(struct io *io);
    /* Receiving failed with this -errno, and goes on. */
    void (*receive_failed)(struct io *io, int code);

    /* The next datagrams of the queue, oldest first; how many. They stay in place until `sent`. */
    size_t (*gather)(struct io *io, struct io_datagram *datagrams, size_t count);
    /*
     * So many were taken, or the first one failed with -errno; -EAGAIN: none was taken although the kernel had said
     * that it would. 0: there were none to gather.
     */
    void (*sent)(struct io *io, ssize_t result);
};

/* What an owner is asked and told whose bytes may have descriptors with them: a Unix socket, with IO_DESCRIPTORS set.
 */
struct io_descriptor_kind {
    /* How many may come with one receive; 0: those that come are lost. */
    size_t (*room)(struct io *io);
    /* In place of `received`, also where none came. They are the owner's now. `cut`: there were more. */
    void (*received)(struct io *io, void *data, ssize_t result, const int *fds, size_t count, bool cut);
    /* Those that go with the first byte that `gather` gave; how many. They stay in place until `sent`. */
    size_t (*gather)(struct io *io, const int **ret_fds);
};

enum io_event {
    IO_READ = 1,
    IO_WRITE = 2,
    IO_HANGUP = 4, /* the other end is gone; told of without reading or writing */
    /*
     * With tram__io_watch(): each readiness is told once, until tram__io_renew(). For descriptors that somebody else
     * may close at any time: where a copy of one lives on, the kernel would report it for ever, and take no orders.
     */
    IO_ONCE = 8,
    /* The backend's, in `armed`. */
    IO_EDGE = 16,  /* only what is new is told */
    IO_IDLED = 32, /* trouble was reported once, and there was nothing to do */
};

/* Part of a file that is to be sent. */
struct io_range {
    int file;
    off_t offset; /* -1: the file is a pipe, of which the next bytes are meant */
    size_t size;
};

/* How a loop or runtime that ends asks an object to end. */
enum shutdown_mode {
    IO_SHUTDOWN_STOP,  /* a server: stop accepting; others ignore it */
    IO_SHUTDOWN_DRAIN, /* a connection that is served: end when your work is done; what it may need ignores it */
    IO_SHUTDOWN_CLOSE, /* nobody needs you any more: flush, then end */
    IO_SHUTDOWN_ABORT, /* end soon, by the usual callbacks */
    IO_SHUTDOWN_NOW,   /* the loop closes: end within this call */
};

/*
 * Who takes the bytes that an io receives: a constant table, which the owner may exchange at any time. Behind the io
 * stands a pointer in the owner: what it points to is brought near while the kernel receives.
 */
struct io_receiver {
    /* Where the next bytes go. NULL member: the loop's own buffer. A negative return skips this read. */
    int (*buffer)(struct io *io, void **ret_memory, size_t *ret_size);
    /* Bytes, 0 for EOF, or -errno. */
    void (*received)(struct io *io, void *data, ssize_t result);
    /*
     * Receiving into a pipe, which is empty and does not block: its writing end, or -1 for a receive as usual; then
     * bytes, 0 for EOF, or -errno, also -EAGAIN. NULL members: never; with `pipe` there is a `buffer`, too.
     */
    int (*pipe)(struct io *io);
    void (*spliced)(struct io *io, ssize_t result);
};

/* What an owner is told; NULL where it never asks. Each may end the io within the call. */
struct io_kind {
    const char *name;
    /* Gives way when another io wants its descriptor: `ending` is called with IO_SHUTDOWN_NOW. */
    bool yields;
    /* It is a tram_transport: for walks over the transports of a loop. */
    bool transport;

    /* Who takes what it receives at first; NULL: it never receives. */
    const struct io_receiver *receiver;

    /* Sending: the next pieces of the queue, oldest first; how many. They stay in place until `sent`. */
    size_t (*gather)(struct io *io, struct iovec *pieces, size_t count);
    /*
     * Bytes taken, or -errno; 0: there were none to gather. Sending goes on until tram__io_send_stop(), which the owner
     * calls when the queue is empty.
     */
    void (*sent)(struct io *io, ssize_t result);

    /*
     * Sending a file, while the owner has IO_SENDS_FILE set: instead of `gather`, the range to send next, and instead
     * of `sent`, the bytes taken of it, 0 at the end of the file, or -errno. One range per readiness.
     */
    void (*next_range)(struct io *io, struct io_range *ret_range);
    void (*range_sent)(struct io *io, ssize_t result);

    /*
     * Does the owner of a socket want to hear of its error also where it neither receives nor sends? Then `received`
     * tells. NULL: no; it learns at the next receive or send.
     */
    bool (*hears_errors)(const struct io *io);

    /*
     * See tram__io_hangup_start(). `half`: the other end sends nothing more, but may still receive. The owner is
     * expected to end the io, or to stop listening.
     */
    void (*hangup)(struct io *io, bool half);

    /* Accepting: a descriptor (non-blocking, close-on-exec) and the peer's address, or -errno. */
    void (*accepted)(struct io *io, int result, const struct sockaddr_storage *peer, socklen_t peer_size);
    /* How many one readiness may accept. */
    uint32_t (*accept_limit)(const struct io *io);

    /* Datagrams; NULL: they have none. */
    const struct io_datagram_kind *datagrams;

    /* Descriptors with the bytes; NULL: there never are any. */
    const struct io_descriptor_kind *descriptors;

    /* Watching: IO_READ, IO_WRITE or both. An error or hang-up counts as what was asked for. */
    void (*ready)(struct io *io, unsigned events);

    /* See enum shutdown_mode. Called for every io of a loop that ends. NULL: nothing to do. */
    void (*ending)(struct io *io, enum shutdown_mode ending);
};

struct io {
    const struct io_kind *kind;
    const struct io_receiver *receiver; /* NULL: nothing is received, or it is datagrams, connections, readiness */
    tram_loop *loop;
    uint32_t slot;       /* with the next: the name of its events */
    uint32_t generation; /* even */
    int fd;
    uint8_t wanted; /* enum io_event: what the owner asked for */
    uint8_t armed;  /* what the kernel was asked for */
    uint8_t flags;  /* enum io_flag */
};

enum io_flag {
    IO_IN_KERNEL = 1,    /* the kernel knows the descriptor */
    IO_NO_SOCKET = 2,    /* read(2) and write(2) instead of recv and send; set by the owner after tram__io_add() */
    IO_NO_QUIET = 8,     /* see tram__io_write() */
    IO_LARGE = 16,       /* its datagrams may be larger than those of UDP */
    IO_SENDS_FILE = 4,   /* see io_kind.next_range; set by the owner */
    IO_DESCRIPTORS = 64, /* see io_descriptor_kind; set by the owner */
    IO_EXCLUSIVE = 32,   /* a readiness is for one of the loops that watch it; set like IO_NO_SOCKET */
    IO_JOINS = 128,      /* datagrams may be joined for the kernel to cut (datagrams.h) */
};

/*
 * Gives the io a slot on its loop; all fields are set here. With descriptor -1 that is all it ever has: an object
 * without a descriptor is still found by address and by tram__loop_end_all(). Nothing is asked of the kernel yet.
 * -ENOMEM; -EBADF; TRAM_ESTATE: another io of this loop has the descriptor (T-18).
 */
int tram__io_add(struct io *io, tram_loop *loop, const struct io_kind *kind, int fd);

/* Ends all interest, tells the kernel (before any close of the descriptor), frees the slot. Idempotent. */
void tram__io_remove(struct io *io);

/* The io that has the descriptor on this loop, or NULL. */
struct io *tram__io_of_descriptor(const tram_loop *loop, int fd);

/* At the end of the loop: the table of descriptors. */
void tram__loop_free_descriptors(tram_loop *loop);

static inline bool io_added(const struct io *io) {
    return io->slot != 0;
}

/*
 * Each returns 0 or -errno of arming. Starting what is started and stopping what is stopped is harmless.
 * Stopping takes effect at once, also for an event that was collected already.
 */
void tram__io_receive_stop(struct io *io);
int tram__io_send_start(struct io *io);
void tram__io_send_stop(struct io *io);
int tram__io_hangup_start(struct io *io); /* tell when the other end closes; beside sending, not beside receiving */
void tram__io_hangup_stop(struct io *io);
int tram__io_accept_start(struct io *io); /* see io_kind.accept_limit */
void tram__io_accept_stop(struct io *io);
int tram__io_watch(struct io *io, unsigned events); /* exactly these from now on; 0: none */

/*
 * Asks the kernel again for what is wanted already, of the same open file: -EBADF if the descriptor was closed, even if
 * its number is in use again.
 */
int tram__io_renew(struct io *io);

/* For backends: writev(2) that gives -1 and EPIPE but never the signal SIGPIPE (W-12), whatever its disposition. */
ssize_t tram__io_write(struct io *io, const struct iovec *pieces, size_t count);

#endif
