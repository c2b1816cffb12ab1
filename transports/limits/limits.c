#include "transports/limits/limits.h"

#include <errno.h>

#include "core/base/invalid.h"
#include "core/loop/stats.h"
#include "transports/base/transport.h"
#include "transports/socket/socket.h"

/* ---- What was asked ---- */

static size_t mark_of(size_t given) {
    return given ? given : TRAM_LIMIT_DEFAULT;
}

static uint64_t span_of(uint64_t given) {
    return given ? given : TRAM_FOREVER;
}

static unsigned bits_of(unsigned given, unsigned fallback) {
    return given ? given : fallback;
}

int tram__limits_check(const tram_server_limits *limits) {
    if (!limits)
        return 0;
    size_t high = mark_of(limits->write_high), low = mark_of(limits->write_low);
    if (tram__transport_water_marks(&high, &low))
        return tram__invalid("write_low");
    if (limits->source_bits_ipv4 > 32 || limits->source_bits_ipv6 > 64)
        return tram__invalid(limits->source_bits_ipv4 > 32 ? "source_bits_ipv4" : "source_bits_ipv6");
    return reserved_used(limits) ? tram__invalid("reserved") : 0;
}

const char *tram__limits_by_source(const tram_server_limits *limits) {
    if (!limits)
        return NULL;
    if (limits->max_handshakes_per_source)
        return "max_handshakes_per_source";
    return limits->max_per_source ? "max_per_source" : NULL;
}

/* ---- Life ---- */

static void handshake_over(struct tls_watcher *watcher, tram_transport *transport, const tram_error *error) {
    (void)error;
    limits_leave_handshake(container_of(watcher, struct limits, on_handshake), &transport->peer);
}

static size_t limits_size(unsigned shards) {
    return sizeof(struct limits) + shards * sizeof(struct limit_tally);
}

/* A table for `most` of each; 0: none is needed. */
static int add_sources(const struct limits *limits, unsigned most, struct sources **ret_sources) {
    struct sources_options options = {
        .most = most,
        .bits_ipv4 = bits_of(limits->bounds.source_bits_ipv4, 32),
        .bits_ipv6 = bits_of(limits->bounds.source_bits_ipv6, 64),
        .shared = limits->shards > 1,
    };
    return most ? tram__sources_new(&limits->allocator, &options, ret_sources) : 0;
}

int tram__limits_new(const tram_allocator *allocator, const tram_server_limits *wanted, unsigned shards,
                     struct limits **ret_limits) {
    struct limits *limits = tram__memory_get_zero(allocator, limits_size(shards));
    if (!limits)
        return -ENOMEM;
    limits->allocator = *allocator;
    limits->shards = shards;
    limits->bounds = *wanted;
    tram_server_limits *bounds = &limits->bounds;
    bounds->write_high = mark_of(wanted->write_high);
    bounds->write_low = mark_of(wanted->write_low);
    tram__transport_water_marks(&bounds->write_high, &bounds->write_low);
    limits->write =
        (struct write_limits){.high = bounds->write_high, .low = bounds->write_low, .hard = bounds->write_hard_limit};
    limits->expires = bounds->idle_timeout_ns || bounds->first_byte_timeout_ns || bounds->total_timeout_ns;
    bounds->idle_timeout_ns = span_of(wanted->idle_timeout_ns);
    bounds->first_byte_timeout_ns = span_of(wanted->first_byte_timeout_ns);
    bounds->total_timeout_ns = span_of(wanted->total_timeout_ns);
    limits->on_handshake.started = handshake_over;
    if (add_sources(limits, bounds->max_per_source, &limits->sources) ||
        add_sources(limits, bounds->max_handshakes_per_source, &limits->handshakes)) {
        tram__limits_free(limits);
        return -ENOMEM;
    }
    *ret_limits = limits;
    return 0;
}

void tram__limits_free(struct limits *limits) {
    if (!limits)
        return;
    tram_allocator allocator = limits->allocator;
    tram__sources_free(limits->sources);
    tram__sources_free(limits->handshakes);
    memory_put(&allocator, limits, limits_size(limits->shards));
}

/* ---- Who comes ---- */

static int rejecting(int entered, enum limit limit) {
    return entered == SOURCE_FULL ? (int)limit : entered;
}

int tram__limits_enter(const struct limits *limits, const void *peer) {
    int entered = limits->sources ? tram__sources_enter(limits->sources, peer) : SOURCE_ENTERED;
    if (entered != SOURCE_ENTERED)
        return rejecting(entered, LIMIT_SOURCE);
    entered = limits->handshakes ? tram__sources_enter(limits->handshakes, peer) : SOURCE_ENTERED;
    if (entered == SOURCE_ENTERED)
        return LIMIT_NONE;
    limits_leave_source(limits, peer);
    return rejecting(entered, LIMIT_HANDSHAKES);
}

/* ---- Counting what was done ---- */

void tram__limits_count(struct limit_tally *tally, tram_loop *loop, enum limit limit) {
    stats_add(&tally->of[limit], 1);
    if (limit != LIMIT_WRITE) /* which the transport has counted */
        stats_add(&(&loop->stats.refused_connections)[limit], 1);
}

void tram__limits_read(const struct limit_tally *tally, tram_limit_counts *ret_counts) {
    *ret_counts = (tram_limit_counts){0};
    uint64_t *to = &ret_counts->refused_connections;
    for (int i = 0; tally && i < LIMIT_COUNT; i++)
        to[i] = __atomic_load_n(&tally->of[i], __ATOMIC_RELAXED);
}
