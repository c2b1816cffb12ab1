/*
 * What there is to tell of loops, runtimes and servers; how it is written is in metrics/text.h. One table has the plain
 * counters, a function each the rest. A family is written as a whole: for each of them all sources are gone through.
 */
#include "core/base/invalid.h"
#include "transports/metrics/text.h"

#include <string.h>

#include "core/loop/types.h"
#include <tram/version.h>

/* A loop among the sources. */
struct loop_cursor {
    const tram_loop *loop;
    const tram_metrics_source *source;
    unsigned worker; /* of the source's runtime */
};

/* Goes through the loops of all sources: the one after `cursor`, the first if that has no source. False: no more. */
static bool next_loop(const tram_metrics_source *sources, size_t count, struct loop_cursor *cursor) {
    size_t i = cursor->source ? (size_t)(cursor->source - sources) : 0;
    unsigned worker = cursor->source ? cursor->worker + 1 : 0;
    for (; i < count; i++, worker = 0) {
        const tram_loop *loop = worker == 0 ? sources[i].loop : NULL;
        if (sources[i].runtime)
            loop = tram_runtime_loop(sources[i].runtime, worker);
        if (loop) {
            *cursor = (struct loop_cursor){.loop = loop, .source = &sources[i], .worker = worker};
            return true;
        }
    }
    return false;
}

static void label_loop(struct metrics_text *text, const struct loop_cursor *cursor) {
    const tram_metrics_source *source = cursor->source;
    if (source->name)
        tram__metrics_label(text, source->runtime ? "runtime" : "loop", source->name);
    if (source->runtime)
        tram__metrics_label_number(text, "worker", cursor->worker);
}

/* ---- The counters of tram_stats ---- */

struct counter {
    const char *name;
    const char *help;
    size_t offset; /* in tram_stats */
    bool gauge;
};

#define COUNTER(member, name, help)                                                                                    \
    { "tram_" name, help, offsetof(tram_stats, member), false }

static const struct counter counters[] = {
    {"tram_open_connections", "Transports that are open now.", offsetof(tram_stats, connections_now), true},
    COUNTER(connections, "connections_total", "Transports made, accepted ones included."),
    COUNTER(accepted, "accepted_connections_total", "Connections accepted."),
    COUNTER(handed_over, "handed_over_connections_total",
            "Connections accepted here and given to another worker, which serves them."),
    COUNTER(taken_over, "taken_over_connections_total", "Connections accepted by another worker and served here."),
    COUNTER(accept_pauses, "accept_pauses_total",
            "Incidents in which accepting stopped for want of descriptors or memory."),
    COUNTER(refused_connections, "refused_connections_over_all_total",
            "Connections accepted and reset: more than their server may have."),
    COUNTER(refused_worker, "refused_connections_over_worker_total", "The same: more than its worker may have."),
    COUNTER(refused_source, "refused_connections_over_source_total", "The same: more than their source may have."),
    COUNTER(refused_handshakes, "refused_connections_over_handshakes_total",
            "The same: more than their source may have in TLS handshakes."),
    COUNTER(expired_idle, "expired_connections_idle_total", "Connections of servers ended since nothing moved."),
    COUNTER(expired_first_byte, "expired_connections_first_byte_total", "The same: the first byte did not come."),
    COUNTER(expired_total, "expired_connections_age_total", "The same: they had lasted long enough."),
    COUNTER(expired_grace, "expired_connections_grace_total",
            "Connections that were reset since the grace of a stop, or the time of a drain, was over."),
    COUNTER(over_write_limit, "connections_over_write_limit_total", "Transports ended by the hard limit of writing."),
    COUNTER(messages, "messages_total", "Messages delivered to protocols and actors."),
    COUNTER(dropped_messages, "dropped_messages_total", "Messages whose addressee had ended when they came."),
    COUNTER(tls_handshakes, "tls_handshakes_total", "TLS handshakes done, as a client and as a server."),
    COUNTER(tls_resumed, "tls_resumed_handshakes_total", "TLS handshakes that went on with a former session."),
    COUNTER(tls_failed, "tls_failed_handshakes_total", "TLS handshakes that TLS or the peer refused."),
    COUNTER(tls_expired, "tls_expired_handshakes_total", "TLS handshakes whose time was over."),
    COUNTER(tls_steps, "tls_handshake_steps_total", "Turns of TLS handshakes."),
    COUNTER(tls_postponed, "tls_postponed_steps_total", "Turns of TLS handshakes put off to a later tick."),
    COUNTER(bytes_received, "received_bytes_total", "Bytes received."),
    COUNTER(bytes_sent, "sent_bytes_total", "Bytes sent."),
    COUNTER(reads, "reads_total", "Receive calls that brought bytes, datagrams or the end of a stream."),
    COUNTER(writes, "writes_total", "Send calls that took bytes."),
    COUNTER(dropped_writes, "dropped_writes_total", "Writes after the connection was gone."),
    COUNTER(ticks, "ticks_total", "Turns of the loop."),
    COUNTER(slow_ticks, "slow_ticks_total",
            "Turns of the loop with a lag of the slow-callback duration or more, where the lag is measured."),
    COUNTER(wakeups, "wakeups_total", "Times that another thread had to wake the loop."),
    COUNTER(mails, "mails_total", "Calls that came from other threads."),
    COUNTER(callbacks, "callbacks_total", "Callbacks of call_soon that ran."),
    COUNTER(timers, "timers_total", "Timers that fired."),
    COUNTER(exceptions, "exceptions_total", "Records given to the exception handler."),
    COUNTER(slow_callbacks, "slow_callbacks_total", "Callbacks that were slow, where callbacks are timed."),
};

static void write_counters(struct metrics_text *text, const tram_metrics_source *sources, size_t count) {
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
        const struct counter *counter = &counters[i];
        struct loop_cursor cursor = {0};
        while (next_loop(sources, count, &cursor)) {
            tram__metrics_family(text, counter->name, counter->gauge ? "gauge" : "counter", counter->help);
            tram__metrics_name(text, counter->name, "");
            label_loop(text, &cursor);
            const char *stats = (const char *)&cursor.loop->stats;
            tram__metrics_count(text, stats_read((const uint64_t *)(const void *)(stats + counter->offset)));
        }
    }
}

/* ---- The lag ---- */

#define LAG "tram_loop_lag_seconds"

static void write_lag_of(struct metrics_text *text, const struct loop_cursor *cursor, const tram_lag *lag) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < TRAM_LAG_BUCKETS; i++) {
        char bound[METRICS_SECONDS_SIZE];
        sum += lag->buckets[i];
        tram__metrics_name(text, LAG, "_bucket");
        label_loop(text, cursor);
        tram__metrics_label(text, "le",
                            i + 1 < TRAM_LAG_BUCKETS ? tram__metrics_seconds_text(tram_lag_bound(i), bound) : "+Inf");
        tram__metrics_count(text, sum);
    }
    tram__metrics_name(text, LAG, "_sum");
    label_loop(text, cursor);
    tram__metrics_seconds(text, lag->sum_ns);
    tram__metrics_name(text, LAG, "_count");
    label_loop(text, cursor);
    tram__metrics_count(text, sum);
}

static void write_lag(struct metrics_text *text, const tram_metrics_source *sources, size_t count) {
    tram_lag lag;
    struct loop_cursor cursor = {0};
    while (next_loop(sources, count, &cursor)) {
        if (!tram_loop_lag(cursor.loop, &lag))
            continue;
        tram__metrics_family(text, LAG, "histogram",
                             "Time from the end of a wait until all that the turn ran has returned.");
        write_lag_of(text, &cursor, &lag);
    }
    cursor = (struct loop_cursor){0};
    while (next_loop(sources, count, &cursor)) {
        if (!tram_loop_lag(cursor.loop, &lag))
            continue;
        tram__metrics_family(text, "tram_loop_longest_lag_seconds", "gauge", "The longest of these, ever.");
        tram__metrics_name(text, "tram_loop_longest_lag_seconds", "");
        label_loop(text, &cursor);
        tram__metrics_seconds(text, lag.longest_ns);
    }
}

/* ---- Messages ---- */

#define WAIT "tram_message_wait_seconds"

static void write_waits(struct metrics_text *text, const tram_metrics_source *sources, size_t count) {
    struct loop_cursor cursor = {0};
    while (next_loop(sources, count, &cursor)) {
        const tram_stats *stats = &cursor.loop->stats;
        tram__metrics_family(text, WAIT, "summary",
                             "Time of messages in the queue, measured of about one in 64: sum / count is the mean.");
        tram__metrics_name(text, WAIT, "_sum");
        label_loop(text, &cursor);
        tram__metrics_seconds(text, stats_read(&stats->message_wait_ns));
        tram__metrics_name(text, WAIT, "_count");
        label_loop(text, &cursor);
        tram__metrics_count(text, stats_read(&stats->measured_messages));
    }
}

/* ---- Slow callbacks ---- */

#define SLOW       "tram_slow_callback_seconds"
#define SLOW_WORST "tram_slow_callback_worst_seconds"

static void label_site(struct metrics_text *text, const struct loop_cursor *cursor, const tram_slow_site *site) {
    char function[128];
    label_loop(text, cursor);
    tram__metrics_label(text, "kind", site->kind);
    tram__metrics_label(text, "function",
                        site->function ? tram_function_name(site->function, function, sizeof function) : "");
}

static void write_site(struct metrics_text *text, const struct loop_cursor *cursor, const tram_slow_site *site) {
    tram__metrics_family(text, SLOW, "summary", "Which callbacks were slow, and how long in all.");
    tram__metrics_name(text, SLOW, "_sum");
    label_site(text, cursor, site);
    tram__metrics_seconds(text, site->sum_ns);
    tram__metrics_name(text, SLOW, "_count");
    label_site(text, cursor, site);
    tram__metrics_count(text, site->count);
}

static void write_worst(struct metrics_text *text, const struct loop_cursor *cursor, const tram_slow_site *site) {
    tram__metrics_family(text, SLOW_WORST, "gauge", "The slowest run of each callback that was slow.");
    tram__metrics_name(text, SLOW_WORST, "");
    label_site(text, cursor, site);
    tram__metrics_seconds(text, site->worst_ns);
}

static void write_sites(struct metrics_text *text, const tram_metrics_source *sources, size_t count, bool worst) {
    struct loop_cursor cursor = {0};
    while (next_loop(sources, count, &cursor)) {
        tram_slow_site sites[TRAM_SLOW_SITES + 1];
        size_t known = tram_loop_slow_sites(cursor.loop, sites, TRAM_SLOW_SITES + 1);
        for (size_t i = 0; i < known; i++) {
            if (worst)
                write_worst(text, &cursor, &sites[i]);
            else
                write_site(text, &cursor, &sites[i]);
        }
    }
}

/* ---- Servers ---- */

static void label_server(struct metrics_text *text, const tram_metrics_source *source) {
    char name[TRAM_ADDRESS_TEXT_SIZE] = "";
    tram_socket_address address;
    if (!source->name && tram_runtime_server_sockname(source->server, 0, &address) == 0)
        tram_socket_address_text(&address, name, sizeof name);
    tram__metrics_label(text, "server", source->name ? source->name : name);
}

static void write_server_info(struct metrics_text *text, const tram_metrics_source *source) {
    static const char *const shards[] = {"reuseport", "handoff", "shared", "fixed"};
    tram_sharding info;
    tram_runtime_server_sharding(source->server, &info);
    tram__metrics_name(text, "tram_server_info", "");
    label_server(text, source);
    tram__metrics_label(text, "shard", shards[info.shard]);
    tram__metrics_count(text, 1);
}

static void write_server_connections(struct metrics_text *text, const tram_metrics_source *source) {
    tram_sharding info;
    tram_runtime_server_sharding(source->server, &info);
    for (unsigned worker = 0; worker < info.workers; worker++) {
        tram__metrics_name(text, "tram_server_connections", "");
        label_server(text, source);
        tram__metrics_label_number(text, "worker", worker);
        tram__metrics_count(text, tram_runtime_server_connection_count(source->server, worker));
    }
}

static void write_servers(struct metrics_text *text, const tram_metrics_source *sources, size_t count, const char *name,
                          const char *help,
                          void (*write)(struct metrics_text *text, const tram_metrics_source *source)) {
    for (size_t i = 0; i < count; i++) {
        if (!sources[i].server)
            continue;
        tram__metrics_family(text, name, "gauge", help);
        write(text, &sources[i]);
    }
}

/* ---- All of it ---- */

static bool valid(const tram_metrics_source *source) {
    int things = (source->loop != NULL) + (source->runtime != NULL) + (source->server != NULL);
    return things == 1;
}

static void write_build(struct metrics_text *text) {
    tram__metrics_family(text, "tram_build_info", "gauge", "The library; the value is always 1.");
    tram__metrics_name(text, "tram_build_info", "");
    tram__metrics_label(text, "version", tram_version());
    tram__metrics_label(text, "compiler", __VERSION__);
    tram__metrics_count(text, 1);
}

int tram_metrics_write(const tram_metrics_source *sources, size_t count, tram_metrics_append append, void *arg) {
    if (!append || (!sources && count))
        return tram__invalid(append ? "sources" : "append");
    for (size_t i = 0; i < count; i++)
        if (!valid(&sources[i]))
            return tram__invalid("sources");
        else if (reserved_used(&sources[i]))
            return tram__invalid("reserved");
    struct metrics_text text;
    text.append = append;
    text.arg = arg;
    text.family = "";
    text.status = 0;
    text.used = 0;
    write_build(&text);
    write_counters(&text, sources, count);
    write_lag(&text, sources, count);
    write_waits(&text, sources, count);
    write_sites(&text, sources, count, false);
    write_sites(&text, sources, count, true);
    write_servers(&text, sources, count, "tram_server_info", "Servers; the value is always 1.", write_server_info);
    write_servers(&text, sources, count, "tram_server_connections",
                  "Connections that a worker has of a server, those on their way to it included.",
                  write_server_connections);
    return tram__metrics_flush(&text);
}

struct memory {
    char *text;
    size_t size;
    size_t needed;
};

static int append_to_memory(void *arg, const char *text, size_t size) {
    struct memory *memory = arg;
    if (memory->needed < memory->size) {
        size_t room = memory->size - memory->needed;
        memcpy(memory->text + memory->needed, text, MIN(size, room));
    }
    memory->needed += size;
    return 0;
}

ptrdiff_t tram_metrics_render(const tram_metrics_source *sources, size_t count, char *text, size_t size) {
    if (!text && size)
        return tram__invalid("text");
    struct memory memory = {.text = text, .size = size};
    int status = tram_metrics_write(sources, count, append_to_memory, &memory);
    if (status)
        return status;
    if (size)
        text[MIN(memory.needed, size - 1)] = '\0';
    return (ptrdiff_t)memory.needed;
}
