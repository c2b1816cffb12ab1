#include "transports/server/balance.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "core/base/probes.h"

/* What crosses over: as much of the address as transports keep. */
struct guest_mail {
    unsigned fd : 31;
    unsigned no_delay : 1;
    union {
        sa_family_t family;
        struct sockaddr_in inet;
        struct sockaddr_in6 inet6;
    } peer;
    struct balance_place *place;
};

/* ---- Arriving ---- */

static struct guest_mail *guest_mail_of(struct mail *mail) {
    _Static_assert(sizeof(struct guest_mail) <= MAIL_PAYLOAD, "fits a cell");
    return (struct guest_mail *)(void *)mail->payload;
}

static void guest_run(tram_loop *loop, struct mail *mail) {
    const struct guest_mail *content = guest_mail_of(mail);
    struct balance_place *place = content->place;
    struct sockaddr_storage peer = {0};
    memcpy(&peer, &content->peer, sizeof content->peer);
    struct guest guest = {
        .fd = (int)content->fd,
        .no_delay = content->no_delay,
        .peer = &peer,
        .peer_size = peer.ss_family == AF_INET    ? sizeof(struct sockaddr_in)
                     : peer.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                  : sizeof peer.ss_family,
    };
    place->arrived++;
    stats_add(&loop->stats.taken_over, 1);
    place->ops->arrived(place, &guest);
}

/* Only where a worker's loop was ended by other means than stopping the runtime. */
static void guest_discard(struct mail *mail) {
    const struct guest_mail *content = guest_mail_of(mail);
    struct balance_place *place = content->place;
    place->loop->sys->close((int)content->fd);
    if (place->balance->limits)
        limits_leave_source(place->balance->limits, &content->peer);
    atomic_fetch_sub_explicit(&place->given, 1, memory_order_relaxed);
}

static const struct mail_kind guest_kind = {.run = guest_run, .discard = guest_discard};

static void look_run(tram_loop *loop, struct mail *mail) {
    (void)loop;
    struct balance_place *place;
    memcpy(&place, mail->payload, sizeof place);
    if (place->server)
        place->ops->look(place);
}

static void look_discard(struct mail *mail) {
    (void)mail;
}

static const struct mail_kind look_kind = {.run = look_run, .discard = look_discard};

void tram__balance_call_others(struct balance_place *place) {
    const struct balance *balance = place->balance;
    for (unsigned i = 0; balance->migrates && i < balance->count; i++) {
        struct balance_place *other = &balance->places[i];
        if (other == place || !atomic_load_explicit(&other->open, memory_order_relaxed))
            continue;
        struct mail *mail = tram__mail_new(other->mailbox, &look_kind);
        if (!mail)
            continue; /* the next connection makes it look too */
        memcpy(mail->payload, &other, sizeof other);
        if (tram__mailbox_post(other->mailbox, mail))
            tram__mail_free(other->mailbox, mail);
    }
}

/* ---- Choosing ---- */

/* The load, and never less than all those that were counted before this call and last until it returns. */
static uint32_t load_at_least(const struct balance_place *place) {
    uint32_t own = atomic_load_explicit(&place->own, memory_order_seq_cst);
    return own + atomic_load_explicit(&place->given, memory_order_seq_cst);
}

/* How many more connections than another a place must have to give one away: little, and less than chance makes of
 * many. */
static uint32_t margin(uint32_t load) {
    return 2 + load / 16;
}

/* One other place, each in its turn: a look costs a cache line. NULL: it has not clearly fewer. */
static struct balance_place *lighter(struct balance_place *place) {
    const struct balance *balance = place->balance;
    struct balance_place *other = &balance->places[place->next];
    place->next = place->next + 1 < balance->count ? place->next + 1 : 0;
    if (other == place) {
        other = &balance->places[place->next];
        place->next = place->next + 1 < balance->count ? place->next + 1 : 0;
    }
    uint32_t mine = balance_load(place);
    if (likely(mine < balance_load(other) + margin(mine)))
        return NULL;
    return atomic_load_explicit(&other->open, memory_order_relaxed) ? other : NULL;
}

/* The place with the fewest; of equals the next in turn. NULL: the own one. */
static struct balance_place *lightest(struct balance_place *place) {
    const struct balance *balance = place->balance;
    struct balance_place *best = NULL;
    uint32_t fewest = UINT32_MAX;
    for (unsigned i = 0; i < balance->count; i++) {
        struct balance_place *other = &balance->places[(place->next + i) % balance->count];
        uint32_t load = balance_load(other);
        if (load < fewest && atomic_load_explicit(&other->open, memory_order_relaxed)) {
            best = other;
            fewest = load;
        }
    }
    if (!best)
        return NULL;
    place->next = (unsigned)(best - balance->places + 1) % balance->count;
    return best != place ? best : NULL;
}

/* What is too much, now that the last one was counted at this place. */
static enum limit overfull(const struct balance_place *place) {
    const struct balance *balance = place->balance;
    const tram_server_limits *most = &balance->limits->most;
    uint64_t all = 0;
    for (unsigned i = 0; most->max_connections && i < balance->count; i++)
        all += load_at_least(&balance->places[i]);
    if (all > most->max_connections)
        return LIMIT_CONNECTIONS;
    return most->max_per_worker && load_at_least(place) > most->max_per_worker ? LIMIT_WORKER : LIMIT_NONE;
}

/* False: it is to go on here, or, if `ret_limit` tells of one, nowhere so far. */
__attribute__((noinline)) static bool send_to(struct balance_place *target, const struct guest *guest,
                                              tram_stats *stats, enum limit *ret_limit) {
    struct mail *mail = tram__mail_new(target->mailbox, &guest_kind);
    if (!mail)
        return false;
    struct guest_mail *content = guest_mail_of(mail);
    *content =
        (struct guest_mail){.fd = (unsigned)guest->fd & 0x7fffffff, .no_delay = guest->no_delay, .place = target};
    sa_family_t family = guest->peer->ss_family;
    if (family == AF_INET || family == AF_INET6)
        memcpy(&content->peer, guest->peer, sizeof content->peer);
    else if (guest->peer_size == sizeof family)
        content->peer.family = family; /* of Unix, without a name; one with a name asks for it there */
    atomic_fetch_add_explicit(&target->given, 1, memory_order_seq_cst);
    *ret_limit = unlikely(target->balance->limits != NULL) ? overfull(target) : LIMIT_NONE;
    if (likely(*ret_limit == LIMIT_NONE && atomic_load_explicit(&target->open, memory_order_seq_cst))) {
        /*
         * Counted first: it must not be seen to arrive before. And not taken back: counters only rise. The post fails
         * only where a worker's loop was closed by other means than stopping the runtime.
         */
        stats_add(&stats->handed_over, 1);
        PROBE2(handed_over, target->loop, guest->fd);
        if (likely(tram__mailbox_post(target->mailbox, mail) == 0))
            return true;
    }
    atomic_fetch_sub_explicit(&target->given, 1, memory_order_relaxed);
    if (atomic_load_explicit(&target->closed, memory_order_relaxed))
        tram__balance_rested(target); /* somebody may have seen it count, and wait */
    tram__mail_free(target->mailbox, mail);
    return false;
}

static inline struct balance_place *better(struct balance_place *place) {
    return place->balance->shard == TRAM_SHARD_HANDOFF ? lightest(place) : lighter(place);
}

bool tram__balance_try(struct balance_place *place, const struct guest *guest) {
    struct balance_place *target = better(place);
    enum limit limit;
    return unlikely(target != NULL) && send_to(target, guest, &place->loop->stats, &limit);
}

static enum limit count_here(struct balance_place *place) {
    uint32_t own = atomic_load_explicit(&place->own, memory_order_relaxed);
    atomic_store_explicit(&place->own, own + 1, memory_order_seq_cst);
    enum limit limit = overfull(place);
    if (limit != LIMIT_NONE)
        balance_count(place, -1);
    return limit;
}

enum limit tram__balance_settle(struct balance_place *place, const struct guest *guest, bool hand_over,
                                bool *ret_here) {
    hand_over = hand_over && place->balance->hands_over;
    struct balance_place *target = hand_over ? better(place) : NULL;
    enum limit limit = LIMIT_NONE;
    *ret_here = false;
    if (target && send_to(target, guest, &place->loop->stats, &limit))
        return LIMIT_NONE;
    if (limit == LIMIT_CONNECTIONS)
        return limit;
    limit = count_here(place);
    *ret_here = limit == LIMIT_NONE;
    if (limit != LIMIT_WORKER || !hand_over)
        return limit;
    target = lightest(place); /* it may have room, though not be clearly lighter */
    if (target && send_to(target, guest, &place->loop->stats, &limit))
        return LIMIT_NONE;
    return limit == LIMIT_CONNECTIONS ? limit : LIMIT_WORKER;
}

/* ---- Life ---- */

void tram__balance_open(struct balance_place *place, tram_server *server, const struct balance_ops *ops) {
    place->server = server;
    place->ops = ops;
    atomic_store_explicit(&place->open, true, memory_order_release);
}

void tram__balance_leave(struct balance_place *place) {
    balance_close(place);
    place->server = NULL;
}

bool tram__balance_closing(struct balance_place *place) {
    const struct balance_watch *watch = place->balance->watch;
    return watch && watch->closing(place);
}

void tram__balance_rested(struct balance_place *place) {
    const struct balance_watch *watch = place->balance->watch;
    if (watch)
        watch->rested(place);
}

bool tram__balance_expects(struct balance_place *place) {
    bool news = place->noticed != place->arrived;
    place->noticed = place->arrived;
    return news || atomic_load_explicit(&place->given, memory_order_seq_cst) != place->arrived;
}

int tram__balance_init(struct balance *balance, const tram_allocator *allocator, unsigned count,
                       const tram_server_options *options) {
    balance->allocator = *allocator;
    balance->shard = options->shard;
    balance->hands_over = count > 1 && options->shard != TRAM_SHARD_FIXED &&
                          (options->shard == TRAM_SHARD_HANDOFF || !options->keep_where_accepted);
    balance->count = count;
    balance->places = tram__memory_get_zero(allocator, count * sizeof *balance->places);
    if (!balance->places)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        balance->places[i].balance = balance;
        balance->places[i].next = (i + 1) % count;
    }
    return 0;
}

void tram__balance_seat(struct balance_place *place, tram_loop *loop) {
    place->loop = loop;
    place->mailbox = loop->mailbox;
}

void tram__balance_fini(struct balance *balance) {
    memory_put(&balance->allocator, balance->places, balance->count * sizeof *balance->places);
}
