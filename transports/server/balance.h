/*
 * How the shards of a server share its connections. Each has a load, which tells anyone how many connections the
 * shard has; a connection that a shard has just accepted, and read nothing of, may go to one that has fewer.
 *
 * Counting. The load of a worker is kept + received, modulo 2^32. `kept` has one writer, the worker itself: one more
 * for each connection it accepts and keeps, one less for each that ends, whoever accepted it. `received` is counted up
 * by whoever hands a connection over, before it travels. So a connection counts where it will run from the moment that
 * is decided, its arrival changes nothing, and keeping count costs a worker one relaxed store.
 *
 * Leaving. A load is closed before its worker looks whether anything is on the way (tram__balance_has_inbound()); who
 * hands over counts first and then looks whether the load is open. Whichever comes second sees the other, so nothing
 * is sent to a worker that has gone.
 *
 * Limits. Where there are some, whoever takes a connection counts it first, as above, and then looks at all counts; if
 * they are too many now, he takes his own back. Of any two who do so, one sees the other, since both steps are
 * sequentially consistent: never are there more than allowed, and no worker writes what another one counts in. Two who
 * want the last slot at the same time may both go away without it.
 */
#ifndef TRAM_TRANSPORTS_SERVER_BALANCE_H
#define TRAM_TRANSPORTS_SERVER_BALANCE_H

#include <stdatomic.h>

#include "core/loop/types.h"
#include "transports/limits/limits.h"
#include <tram/server.h>

/* A connection that no transport has yet. */
struct accepted_socket {
    int fd;
    const struct sockaddr_storage *peer;
    socklen_t peer_size;
};

struct worker_load;

/* Of the shard; on its worker's thread. */
struct balance_ops {
    /* A connection that is counted here already. */
    void (*arrived)(struct worker_load *load, const struct accepted_socket *accepted);
    /* Something may wait in the accept queues that the poller was not told of. */
    void (*poll_accept_queue)(struct worker_load *load);
};

struct worker_load {
    _Atomic uint32_t kept;
    _Atomic uint32_t received;
    _Atomic uint32_t cut; /* connections that drains reset: written by the worker, before they count no more */
    _Atomic bool open;    /* takes what is handed to it */
    _Atomic bool closed;  /* accepts nothing any more: its load only shrinks, but for what is on the way */
    /* constant */
    struct balance *balance;
    tram_loop *loop;
    struct mailbox *mailbox;
    /* of the worker's thread */
    uint32_t arrived; /* of those given */
    uint32_t seen;    /* of those arrived: by tram__balance_has_inbound() */
    unsigned next;    /* whom to look at next */
    const struct balance_ops *ops;
    tram_server *server;
    unsigned char padding[64]; /* no two loads share a cache line, wherever they lie */
};

/* Of whoever made the balance. */
struct balance_watch {
    /* On the worker's thread: its listeners are about to close. True: somebody else has taken them over. */
    bool (*closing)(struct worker_load *load);
    /* On any worker's: it is closed, and may have no connection now. */
    void (*on_drained)(struct worker_load *load);
};

struct balance {
    tram_allocator allocator;
    const struct balance_watch *watch; /* may be NULL */
    tram_shard shard;
    bool hands_over;       /* at all */
    bool migrates;         /* the kernel gives what waits at a closing listener to the others with its port */
    struct limits *limits; /* or NULL */
    unsigned count;
    struct worker_load *workers; /* one per worker */
};

/* 0 or -ENOMEM. Loads are closed and without a loop yet. Limits come later, if there are any. */
int tram__balance_init(struct balance *balance, const tram_allocator *allocator, unsigned count,
                       const tram_server_options *options);

/* The loop, and so its mailbox, must outlive the balance. */
void tram__balance_bind(struct worker_load *load, tram_loop *loop);
void tram__balance_fini(struct balance *balance);

/* Connections that run there or are on their way. Any thread. */
static inline uint32_t balance_load(const struct worker_load *load) {
    return atomic_load_explicit(&load->kept, memory_order_acquire) +
           atomic_load_explicit(&load->received, memory_order_relaxed);
}

/* ---- For the worker itself ---- */

static inline void balance_count(struct worker_load *load, int change) {
    uint32_t kept = atomic_load_explicit(&load->kept, memory_order_relaxed);
    /* Who sees the end of one that was given sees that it was given; and of one that was cut, that it was cut. */
    atomic_store_explicit(&load->kept, kept + (uint32_t)change, memory_order_release);
}

/* So many are about to be reset: they count as present still. */
static inline void balance_cut(struct worker_load *load, size_t count) {
    uint32_t cut = atomic_load_explicit(&load->cut, memory_order_relaxed);
    atomic_store_explicit(&load->cut, cut + (uint32_t)count, memory_order_relaxed);
}

/* The shard serves from now on. */
void tram__balance_open(struct worker_load *load, tram_server *server, const struct balance_ops *ops);

/* Nothing is handed to it any more; what is on its way still arrives. */
static inline void balance_close(struct worker_load *load) {
    atomic_store_explicit(&load->open, false, memory_order_seq_cst);
}

/* Asks and tells the balance's watch, if there is one. */
bool tram__balance_closing(struct worker_load *load);
void tram__balance_drained(struct worker_load *load);

/* All that waited at its listeners is served, and counted. */
static inline void balance_closed(struct worker_load *load) {
    atomic_store_explicit(&load->closed, true, memory_order_release);
}

/* The listeners of the worker are gone: others may have got what waited there. */
void tram__balance_notify_peers(struct worker_load *load);

/* The shard is about to go. */
void tram__balance_leave(struct worker_load *load);

/* Is anything on its way to this closed worker, or came since the last question? */
bool tram__balance_has_inbound(struct worker_load *load);

bool tram__balance_try(struct worker_load *load, const struct accepted_socket *accepted);

/*
 * One that was accepted here: true if it is another worker's from now on. False: it is to be served here (and counted),
 * also where that would be better elsewhere but there is no memory.
 */
static inline bool balance_hand_over(struct worker_load *load, const struct accepted_socket *accepted) {
    return load->balance->hands_over && tram__balance_try(load, accepted);
}

/*
 * The same where there are limits: one that was accepted here is counted where it goes on, which is here if `*ret_here`
 * says so; or the limit that rejects it. `hand_over`: it may go to another worker.
 */
enum limit tram__balance_place(struct worker_load *load, const struct accepted_socket *accepted, bool hand_over,
                               bool *ret_here);

#endif
