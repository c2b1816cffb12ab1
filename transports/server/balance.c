#include "transports/server/balance.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "core/base/probes.h"

/* What crosses over: as much of the address as transports keep. */
struct accepted_mail {
    int fd;
    union {
        sa_family_t family;
        struct sockaddr_in inet;
        struct sockaddr_in6 inet6;
    } peer;
    struct worker_load *load;
};

/* ---- Arriving ---- */

static struct accepted_mail *accepted_mail_of(struct mail *mail) {
    _Static_assert(sizeof(struct accepted_mail) <= MAIL_PAYLOAD, "fits a node");
    return (struct accepted_mail *)(void *)mail->payload;
}

static void accepted_run(tram_loop *loop, struct mail *mail) {
    const struct accepted_mail *content = accepted_mail_of(mail);
    struct worker_load *load = content->load;
    struct sockaddr_storage peer = {0};
    memcpy(&peer, &content->peer, sizeof content->peer);
    struct accepted_socket accepted = {
        .fd = content->fd,
        .peer = &peer,
        .peer_size = peer.ss_family == AF_INET    ? sizeof(struct sockaddr_in)
                     : peer.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                  : sizeof peer.ss_family,
    };
    load->arrived++;
    stats_add(&loop->stats.taken_over, 1);
    load->ops->arrived(load, &accepted);
}

/* Only where a worker's loop was ended by other means than stopping the runtime. */
static void accepted_discard(struct mail *mail) {
    const struct accepted_mail *content = accepted_mail_of(mail);
    struct worker_load *load = content->load;
    load->loop->sys->close(content->fd);
    if (load->balance->limits)
        limits_leave(load->balance->limits, &content->peer);
    atomic_fetch_sub_explicit(&load->received, 1, memory_order_relaxed);
}

static const struct mail_kind accepted_kind = {.run = accepted_run, .discard = accepted_discard};

static void poll_queue_run(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct worker_load *load;
    memcpy(&load, mail->payload, sizeof load);
    if (load->server)
        load->ops->poll_accept_queue(load);
}

static void poll_queue_discard(struct mail *mail) {
    (void)mail;
}

static const struct mail_kind poll_queue_kind = {.run = poll_queue_run, .discard = poll_queue_discard};

void tram__balance_notify_peers(struct worker_load *load) {
    const struct balance *balance = load->balance;
    for (unsigned i = 0; balance->migrates && i < balance->count; i++) {
        struct worker_load *other = &balance->workers[i];
        if (other == load || !atomic_load_explicit(&other->open, memory_order_relaxed))
            continue;
        struct mail *mail = tram__mail_new(other->mailbox, &poll_queue_kind);
        if (mail) /* else the next connection makes it look too */
            memcpy(mail->payload, &other, sizeof other);
        if (mail && tram__mailbox_post(other->mailbox, mail))
            tram__mail_free(other->mailbox, mail);
    }
}

/* ---- Choosing ---- */

/* The load, and never less than all those that were counted before this call and last until it returns. */
static uint32_t load_at_least(const struct worker_load *load) {
    uint32_t kept = atomic_load_explicit(&load->kept, memory_order_seq_cst);
    return kept + atomic_load_explicit(&load->received, memory_order_seq_cst);
}

/* How many more connections than another a worker must have to give one away: little, and less than chance makes of
 * many. */
static uint32_t imbalance_threshold(uint32_t load) {
    return 2 + load / 16;
}

static uint32_t index_after(const struct balance *balance, uint32_t index) {
    return index + 1 == balance->count ? 0 : index + 1;
}

/* Another worker, each in its turn: reading its load costs one cache miss. NULL: it has not clearly fewer. */
static struct worker_load *less_loaded(struct worker_load *load) {
    const struct balance *balance = load->balance;
    struct worker_load *other = &balance->workers[load->next];
    load->next = index_after(balance, load->next);
    if (other == load) {
        other = &balance->workers[load->next];
        load->next = index_after(balance, load->next);
    }
    uint32_t mine = balance_load(load);
    if (likely(mine < balance_load(other) + imbalance_threshold(mine)))
        return NULL;
    return atomic_load_explicit(&other->open, memory_order_relaxed) ? other : NULL;
}

/* The worker with the fewest; of equals the next in turn. NULL: this one. */
static struct worker_load *least_loaded(struct worker_load *load) {
    const struct balance *balance = load->balance;
    struct worker_load *best = NULL;
    uint32_t fewest = UINT32_MAX;
    for (unsigned i = 0; i < balance->count; i++) {
        struct worker_load *other = &balance->workers[(load->next + i) % balance->count];
        uint32_t count = balance_load(other);
        if (count < fewest && atomic_load_explicit(&other->open, memory_order_relaxed)) {
            best = other;
            fewest = count;
        }
    }
    if (best)
        load->next = (unsigned)(best - balance->workers + 1) % balance->count;
    return best != load ? best : NULL;
}

/* Which limit is exceeded, counting the newest connection of this worker. */
static enum limit overfull(const struct worker_load *load) {
    const struct balance *balance = load->balance;
    const tram_server_limits *bounds = &balance->limits->bounds;
    uint64_t all = 0;
    for (unsigned i = 0; bounds->max_connections && i < balance->count; i++)
        all += load_at_least(&balance->workers[i]);
    if (all > bounds->max_connections)
        return LIMIT_CONNECTIONS;
    return bounds->max_per_worker && load_at_least(load) > bounds->max_per_worker ? LIMIT_WORKER : LIMIT_NONE;
}

/* False: it is to go on here, or, if `ret_limit` tells of one, nowhere so far. */
__attribute__((noinline)) static bool send_to(struct worker_load *target, const struct accepted_socket *accepted,
                                              tram_stats *stats, enum limit *ret_limit) {
    struct mail *mail = tram__mail_new(target->mailbox, &accepted_kind);
    if (!mail)
        return false;
    struct accepted_mail *content = accepted_mail_of(mail);
    *content = (struct accepted_mail){.fd = accepted->fd, .load = target};
    sa_family_t family = accepted->peer->ss_family;
    if (family == AF_INET || family == AF_INET6)
        memcpy(&content->peer, accepted->peer, sizeof content->peer);
    else if (accepted->peer_size == sizeof family)
        content->peer.family = family; /* of Unix, without a name; one with a name asks for it there */
    atomic_fetch_add_explicit(&target->received, 1, memory_order_seq_cst);
    *ret_limit = unlikely(target->balance->limits != NULL) ? overfull(target) : LIMIT_NONE;
    if (likely(*ret_limit == LIMIT_NONE && atomic_load_explicit(&target->open, memory_order_seq_cst))) {
        /*
         * Counted first: it must not be seen to arrive before. And never withdrawn: counters only rise. The post fails
         * only where a worker's loop was closed by other means than stopping the runtime.
         */
        stats_add(&stats->handed_over, 1);
        PROBE2(handed_over, target->loop, accepted->fd);
        if (likely(tram__mailbox_post(target->mailbox, mail) == 0))
            return true;
    }
    atomic_fetch_sub_explicit(&target->received, 1, memory_order_relaxed);
    if (atomic_load_explicit(&target->closed, memory_order_relaxed))
        tram__balance_drained(target); /* somebody may have seen it count, and wait */
    tram__mail_free(target->mailbox, mail);
    return false;
}

static inline struct worker_load *better(struct worker_load *load) {
    return load->balance->shard == TRAM_SHARD_HANDOFF ? least_loaded(load) : less_loaded(load);
}

bool tram__balance_try(struct worker_load *load, const struct accepted_socket *accepted) {
    struct worker_load *target = better(load);
    enum limit limit;
    return unlikely(target != NULL) && send_to(target, accepted, &load->loop->stats, &limit);
}

static enum limit count_here(struct worker_load *load) {
    uint32_t kept = atomic_load_explicit(&load->kept, memory_order_relaxed);
    atomic_store_explicit(&load->kept, kept + 1, memory_order_seq_cst);
    enum limit limit = overfull(load);
    if (limit != LIMIT_NONE)
        balance_count(load, -1);
    return limit;
}

enum limit tram__balance_place(struct worker_load *load, const struct accepted_socket *accepted, bool hand_over,
                               bool *ret_here) {
    hand_over = hand_over && load->balance->hands_over;
    struct worker_load *target = hand_over ? better(load) : NULL;
    enum limit limit = LIMIT_NONE;
    *ret_here = false;
    if (target && send_to(target, accepted, &load->loop->stats, &limit))
        return LIMIT_NONE;
    if (limit == LIMIT_CONNECTIONS)
        return limit;
    limit = count_here(load);
    *ret_here = limit == LIMIT_NONE;
    if (limit != LIMIT_WORKER || !hand_over)
        return limit;
    target = least_loaded(load); /* it may have room, though not clearly fewer */
    if (target && send_to(target, accepted, &load->loop->stats, &limit))
        return LIMIT_NONE;
    return limit == LIMIT_CONNECTIONS ? limit : LIMIT_WORKER;
}

/* ---- Life ---- */

void tram__balance_open(struct worker_load *load, tram_server *server, const struct balance_ops *ops) {
    load->server = server;
    load->ops = ops;
    atomic_store_explicit(&load->open, true, memory_order_release);
}

void tram__balance_leave(struct worker_load *load) {
    balance_close(load);
    load->server = NULL;
}

bool tram__balance_closing(struct worker_load *load) {
    const struct balance_watch *watch = load->balance->watch;
    return watch && watch->closing(load);
}

void tram__balance_drained(struct worker_load *load) {
    const struct balance_watch *watch = load->balance->watch;
    if (watch)
        watch->on_drained(load);
}

bool tram__balance_has_inbound(struct worker_load *load) {
    bool news = load->seen != load->arrived;
    load->seen = load->arrived;
    return news || atomic_load_explicit(&load->received, memory_order_seq_cst) != load->arrived;
}

int tram__balance_init(struct balance *balance, const tram_allocator *allocator, unsigned count,
                       const tram_server_options *options) {
    balance->allocator = *allocator;
    balance->shard = options->shard;
    balance->hands_over = count > 1 && options->shard != TRAM_SHARD_FIXED &&
                          (options->shard == TRAM_SHARD_HANDOFF || !options->keep_where_accepted);
    balance->count = count;
    balance->workers = tram__memory_get_zero(allocator, count * sizeof *balance->workers);
    if (!balance->workers)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        balance->workers[i].balance = balance;
        balance->workers[i].next = (i + 1) % count;
    }
    return 0;
}

void tram__balance_bind(struct worker_load *load, tram_loop *loop) {
    load->loop = loop;
    load->mailbox = loop->mailbox;
}

void tram__balance_fini(struct balance *balance) {
    memory_put(&balance->allocator, balance->workers, balance->count * sizeof *balance->workers);
}
