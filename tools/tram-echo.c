/* tram-echo: sends back what it gets, on all cores. The smallest real server, and the target of tram-load. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tram/tram.h>

#include "support/arguments.h"
#include "support/descriptors.h"
#include "support/metrics_server.h"
#include "support/tls_setup.h"

/* ---- The protocol ---- */

static int echo_data_received(tram_protocol *self, const void *data, size_t size) {
    return tram_transport_write(self->transport, data, size);
}

/* A peer that does not read is not read from either: what waits for it stays at the water marks. */
static int echo_pause_writing(tram_protocol *self) {
    return tram_transport_pause_reading(self->transport);
}

static int echo_resume_writing(tram_protocol *self) {
    return tram_transport_resume_reading(self->transport);
}

static void echo_released(tram_protocol *self) {
    free(self);
}

/* How long connections may go on that are asked to end. */
static _Atomic uint64_t linger_ns;

static int close_held(tram_loop *loop, void *arg) {
    (void)loop;
    tram_transport_close(arg);
    tram_transport_release(arg);
    return 0;
}

static void release_held(void *arg) {
    tram_transport_release(arg);
}

/* For half of the grace at most: what is queued then has to be sent. */
static int echo_closing(tram_protocol *self, uint64_t deadline_ns) {
    tram_transport *transport = self->transport;
    tram_loop *loop = tram_transport_get_loop(transport);
    uint64_t now = tram_loop_time(loop), most = deadline_ns > now ? (deadline_ns - now) / 2 : 0;
    uint64_t linger = atomic_load(&linger_ns);
    if (linger == 0 || most == 0) {
        return tram_transport_close(transport);
    }
    tram_transport_hold(transport);
    int code = tram_loop_call_later(loop, linger < most ? linger : most, close_held, transport, release_held, NULL);
    if (code < 0) {
        tram_transport_release(transport);
    }
    return code;
}

static const tram_protocol_ops echo_ops = {
    .data_received = echo_data_received,
    .closing = echo_closing,
    .pause_writing = echo_pause_writing,
    .resume_writing = echo_resume_writing,
    .released = echo_released,
};

static int echo_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    tram_protocol *protocol = calloc(1, sizeof(*protocol));
    if (protocol == NULL) {
        return -ENOMEM;
    }
    protocol->ops = &echo_ops;
    *ret_protocol = protocol;
    return 0;
}

/* ---- What it is told ---- */

enum { LISTENERS_MAX = 1024 };

typedef struct echo_server {
    const char *host;
    uint64_t port;
    uint64_t workers;
    unsigned backend;
    unsigned shard;
    uint64_t shard_worker;
    unsigned steer;
    bool keep;
    uint64_t accept_budget;
    uint64_t max_connections;
    uint64_t max_per_worker;
    uint64_t max_per_source;
    uint64_t max_handshakes;
    uint64_t idle_ms;
    uint64_t first_byte_ms;
    uint64_t total_ms;
    bool pin;
    bool proxy_protocol;
    uint64_t grace_ms;
    uint64_t stats_ms;
    const char *inherit;
    uint64_t drain_ms;
    const char *metrics_host;
    uint64_t metrics_port; /* NO_METRICS: none */
    tls_server_setup tls;
    tram_tls_config *tls_config; /* NULL: no TLS */
    tram_metrics_source sources[2];
    metrics_server metrics;
    tram_runtime *runtime;
    tram_runtime_server *listener;
    tram_runtime_server *metrics_listener;
    int sockets[LISTENERS_MAX]; /* that were passed to this process */
    size_t socket_count;
    int metrics_sockets[LISTENERS_MAX];
    size_t metrics_socket_count;
    const char *backend_name; /* what AUTO chose, as worker 0 saw it */
    tram_stats last;          /* the totals of the last line of statistics; of worker 0 */
    uint64_t last_ns;
} echo_server;

static const char *const backend_choices[] = {"auto", "epoll", NULL};
static const tram_backend backends[] = {TRAM_BACKEND_AUTO, TRAM_BACKEND_EPOLL};
static const char *const shard_choices[] = {"reuseport", "handoff", "shared", "fixed", NULL};
static const tram_shard shards[] = {TRAM_SHARD_REUSEPORT, TRAM_SHARD_HANDOFF, TRAM_SHARD_SHARED, TRAM_SHARD_FIXED};
static const char *const steer_choices[] = {"kernel", "cpu", "hash", NULL};
static const tram_steer steers[] = {TRAM_STEER_KERNEL, TRAM_STEER_CPU, TRAM_STEER_HASH};

#define NO_METRICS UINT64_MAX

static echo_server server = {
    .host = "127.0.0.1",
    .port = 7000,
    .grace_ms = 10000,
    .drain_ms = 2000,
    .metrics_host = "127.0.0.1",
    .metrics_port = NO_METRICS,
};

#define MILLISECONDS_MAX 86400000 /* a day */

static const argument_spec arguments[] = {
    {"--host", "H", "address or name to listen on (127.0.0.1); \"\" is all interfaces", ARGUMENT_TEXT, &server.host, 0,
     0, NULL},
    {"--port", "P", "port (7000); 0 lets the kernel choose", ARGUMENT_COUNT, &server.port, 0, 65535, NULL},
    {"--workers", "N", "worker threads; 0: the CPUs this process may use (0)", ARGUMENT_COUNT, &server.workers, 0, 1024,
     NULL},
    {"--backend", "auto|epoll", "how to talk to the kernel (auto)", ARGUMENT_CHOICE, &server.backend, 0, 0,
     backend_choices},
    {"--shard", "reuseport|handoff|shared|fixed", "how connections get to the workers (reuseport)", ARGUMENT_CHOICE,
     &server.shard, 0, 0, shard_choices},
    {"--shard-worker", "N", "the worker that accepts, with handoff and fixed (0)", ARGUMENT_COUNT, &server.shard_worker,
     0, 1023, NULL},
    {"--steer", "kernel|cpu|hash", "how the kernel chooses, with reuseport (kernel)", ARGUMENT_CHOICE, &server.steer, 0,
     0, steer_choices},
    {"--keep", NULL, "with reuseport and shared: hand no connection to a worker with fewer", ARGUMENT_FLAG,
     &server.keep, 0, 0, NULL},
    {"--accept-budget", "N", "connections accepted in one turn; 0: backlog + 1 (0)", ARGUMENT_COUNT,
     &server.accept_budget, 0, UINT32_MAX, NULL},
    {"--max-connections", "N", "connections at a time; those above are reset; 0: any number (0)", ARGUMENT_COUNT,
     &server.max_connections, 0, UINT32_MAX, NULL},
    {"--max-per-worker", "N", "the same of each worker (0)", ARGUMENT_COUNT, &server.max_per_worker, 0, UINT32_MAX,
     NULL},
    {"--max-per-source", "N", "the same of each address, of IPv6 each network of 64 bits (0)", ARGUMENT_COUNT,
     &server.max_per_source, 0, UINT32_MAX, NULL},
    {"--max-handshakes-per-source", "N", "the same of those whose TLS handshake is not over (0)", ARGUMENT_COUNT,
     &server.max_handshakes, 0, UINT32_MAX, NULL},
    {"--idle-timeout-ms", "N", "end connections on which nothing moved for so long; 0: never (0)", ARGUMENT_COUNT,
     &server.idle_ms, 0, MILLISECONDS_MAX, NULL},
    {"--first-byte-timeout-ms", "N", "end those whose first byte takes longer (0)", ARGUMENT_COUNT,
     &server.first_byte_ms, 0, MILLISECONDS_MAX, NULL},
    {"--total-timeout-ms", "N", "end those that are older (0)", ARGUMENT_COUNT, &server.total_ms, 0, MILLISECONDS_MAX,
     NULL},
    {"--pin", NULL, "keep every worker on a CPU of its own", ARGUMENT_FLAG, &server.pin, 0, 0, NULL},
    {"--grace-ms", "N", "how long connections may flush at the end (10000)", ARGUMENT_COUNT, &server.grace_ms, 0,
     86400000, NULL},
    {"--inherit", "PATH", "take the listeners from whoever serves PATH; offer them there (@NAME: abstract)",
     ARGUMENT_TEXT, &server.inherit, 0, 0, NULL},
    {"--drain-ms", "N", "how long connections may go on once the listeners were taken over (2000)", ARGUMENT_COUNT,
     &server.drain_ms, 0, 86400000, NULL},
    {"--stats-ms", "N", "a line of statistics on standard error this often; 0: none (0)", ARGUMENT_COUNT,
     &server.stats_ms, 0, 86400000, NULL},
    {"--metrics", "PORT", "serve statistics for Prometheus on this port, at /metrics; 0 lets the kernel choose",
     ARGUMENT_COUNT, &server.metrics_port, 0, 65535, NULL},
    {"--proxy-protocol", NULL, "connections begin with a header of the PROXY protocol, version 1 or 2", ARGUMENT_FLAG,
     &server.proxy_protocol, 0, 0, NULL},
    {"--tls-cert", "FILE", "speak TLS, with this certificate and those that lead to its CA (PEM); SIGHUP reads it anew",
     ARGUMENT_TEXT, &server.tls.certificate, 0, 0, NULL},
    {"--tls-key", "FILE", "its key (in the same file)", ARGUMENT_TEXT, &server.tls.key, 0, 0, NULL},
    {"--tls-client-ca", "FILE", "clients need a certificate of this CA", ARGUMENT_TEXT, &server.tls.client_ca, 0, 0,
     NULL},
    {"--tls-min", "1.2|1.3", "the lowest version of TLS (1.2)", ARGUMENT_CHOICE, &server.tls.min_version, 0, 0,
     tls_version_choices},
    {"--alpn", "NAME", "the protocol to agree on; clients that offer others only are refused", ARGUMENT_TEXT,
     &server.tls.alpn, 0, 0, NULL},
    {"--metrics-host", "H", "address or name to do that on (127.0.0.1, whatever --host is)", ARGUMENT_TEXT,
     &server.metrics_host, 0, 0, NULL},
};

static const program_info this_program = {
    .name = "tram-echo",
    .summary = "A TCP server that sends back what it gets, with one event loop per core.",
    .notes = "When it accepts connections it prints \"listening on HOST:PORT workers=N backend=B shard=S\",\n"
             "with --metrics also \"metrics on http://HOST:PORT/metrics\".\n"
             "SIGTERM and SIGINT stop it: it sends what is queued, closes, and prints what every worker did;\n"
             "a second signal ends it without waiting for slow peers. Sockets that systemd passes\n"
             "(LISTEN_FDS) are served instead of HOST and PORT. A second one with the same --inherit takes the\n"
             "listeners over, and the first one ends.\n\n"
             "exit codes: 0 stopped by a signal, 1 runtime trouble, 2 bad usage",
    .arguments = arguments,
    .argument_count = sizeof(arguments) / sizeof(arguments[0]),
};

/* ---- Statistics ---- */

static void add_stats(tram_stats *total, const tram_stats *stats) {
    total->connections_now += stats->connections_now;
    total->connections += stats->connections;
    total->accepted += stats->accepted;
    total->handed_over += stats->handed_over;
    total->taken_over += stats->taken_over;
    total->bytes_received += stats->bytes_received;
    total->bytes_sent += stats->bytes_sent;
    total->reads += stats->reads;
    total->writes += stats->writes;
    total->ticks += stats->ticks;
    total->wakeups += stats->wakeups;
    total->refused_connections += stats->refused_connections;
    total->refused_worker += stats->refused_worker;
    total->refused_source += stats->refused_source;
    total->refused_handshakes += stats->refused_handshakes;
    total->expired_idle += stats->expired_idle;
    total->expired_first_byte += stats->expired_first_byte;
    total->expired_total += stats->expired_total;
}

static tram_stats total_stats(const tram_runtime *runtime) {
    tram_stats total = {0};
    for (unsigned i = 0; i < tram_runtime_worker_count(runtime); i++) {
        tram_stats stats = {0};
        if (tram_runtime_stats(runtime, i, &stats) == 0) {
            add_stats(&total, &stats);
        }
    }
    return total;
}

/* A timer of worker 0, for all of them: counters may be read from any thread. */
static int print_periodic_stats(tram_loop *loop, void *arg) {
    echo_server *echo = arg;
    uint64_t now = tram_loop_time(loop);
    tram_stats total = total_stats(echo->runtime);
    if (echo->last_ns != 0) {
        double seconds = (double)(now - echo->last_ns) / 1e9;
        fprintf(stderr,
                "stats: open=%" PRIu64 " connections=%" PRIu64 " bytes_in=%" PRIu64 " bytes_out=%" PRIu64
                " connections_per_s=%.0f bytes_in_per_s=%.0f bytes_out_per_s=%.0f\n",
                total.connections_now, total.connections, total.bytes_received, total.bytes_sent,
                (double)(total.connections - echo->last.connections) / seconds,
                (double)(total.bytes_received - echo->last.bytes_received) / seconds,
                (double)(total.bytes_sent - echo->last.bytes_sent) / seconds);
    }
    echo->last = total;
    echo->last_ns = now;
    return tram_loop_call_later(loop, echo->stats_ms * 1000000, print_periodic_stats, echo, NULL, NULL);
}

static void print_totals_line(const char *who, const tram_stats *stats) {
    printf("%s: connections=%" PRIu64 " bytes_in=%" PRIu64 " bytes_out=%" PRIu64 " reads=%" PRIu64 " writes=%" PRIu64
           " ticks=%" PRIu64 " wakeups=%" PRIu64 " accepted=%" PRIu64 " handed_over=%" PRIu64 " taken_over=%" PRIu64
           "\n",
           who, stats->connections, stats->bytes_received, stats->bytes_sent, stats->reads, stats->writes, stats->ticks,
           stats->wakeups, stats->accepted, stats->handed_over, stats->taken_over);
}

static void print_limits_line(const tram_stats *stats) {
    printf("limits: refused_connections=%" PRIu64 " refused_worker=%" PRIu64 " refused_source=%" PRIu64
           " refused_handshakes=%" PRIu64 " expired_idle=%" PRIu64 " expired_first_byte=%" PRIu64
           " expired_total=%" PRIu64 "\n",
           stats->refused_connections, stats->refused_worker, stats->refused_source, stats->refused_handshakes,
           stats->expired_idle, stats->expired_first_byte, stats->expired_total);
}

static bool has_limits(const echo_server *echo) {
    return echo->max_connections || echo->max_per_worker || echo->max_per_source || echo->max_handshakes ||
           echo->idle_ms || echo->first_byte_ms || echo->total_ms;
}

static void print_totals(const tram_runtime *runtime) {
    for (unsigned i = 0; i < tram_runtime_worker_count(runtime); i++) {
        char who[32];
        tram_stats stats = {0};
        tram_runtime_stats(runtime, i, &stats);
        snprintf(who, sizeof(who), "worker %u", i);
        print_totals_line(who, &stats);
    }
    tram_stats total = total_stats(runtime);
    print_totals_line("total", &total);
    if (has_limits(&server)) {
        print_limits_line(&total);
    }
}

/* ---- Life ---- */

static int start_worker(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)state;
    echo_server *echo = arg;
    if (worker == 0) {
        echo->backend_name = tram_loop_backend_name(loop);
    }
    return 0;
}

static int make_runtime(echo_server *echo) {
    tram_runtime_options options = {
        .workers = (unsigned)echo->workers,
        .pin = echo->pin,
        .name = "tram-echo",
        .grace_ns = echo->grace_ms == 0 ? TRAM_NOW : echo->grace_ms * 1000000,
        .handle_signals = true,
        .start = start_worker,
        .arg = echo,
        .loop = {.backend = backends[echo->backend],
                 .log = tram_log_to_stderr,
                 .measure_lag = echo->metrics_port != NO_METRICS},
    };
    int code = tram_runtime_new(&options, &echo->runtime);
    if (code == 0) {
        code = tram_runtime_start(echo->runtime);
    }
    if (code < 0) {
        complain(&this_program, "cannot start the workers: %s", tram_error_text(code));
    }
    return code;
}

/* ---- Its listeners, and those of the one before ---- */

/* A path as the library has it, which does not tell names from paths by an '@'. */
static size_t inherit_path(const echo_server *echo, char *path, size_t room) {
    size_t size = strnlen(echo->inherit, room);
    memcpy(path, echo->inherit, size);
    if (size > 0 && path[0] == '@') {
        path[0] = '\0';
    }
    return size;
}

/* The sockets that were passed to this process, and the link to who passed them; none is no trouble. */
static int find_sockets(echo_server *echo, int *ret_link) {
    static tram_listener found[LISTENERS_MAX];
    int count = tram_listeners_activated(found, LISTENERS_MAX, true);
    if (count == 0 && echo->inherit != NULL) {
        char path[256];
        size_t size = inherit_path(echo, path, sizeof(path));
        count = tram_listeners_inherit(path, size, NULL, found, LISTENERS_MAX, ret_link);
        if (count == -ENOENT || count == -ECONNREFUSED) {
            count = 0;
        }
    }
    if (count < 0) {
        complain(&this_program, "cannot take listeners over: %s", tram_error_text(count));
        return count;
    }
    echo->metrics_socket_count = tram_listeners_take(found, (size_t)count, "metrics", echo->metrics_sockets);
    echo->socket_count = tram_listeners_take(found, (size_t)count, NULL, echo->sockets);
    for (size_t i = 0; i < echo->metrics_socket_count && echo->metrics_port == NO_METRICS; i++) {
        close(echo->metrics_sockets[i]); /* nobody here serves it */
    }
    return 0;
}

/* Who comes after us has the listeners. */
static void taken(tram_runtime *runtime, void *arg) {
    echo_server *echo = arg;
    fprintf(stderr, "tram-echo: the listeners were taken over\n");
    atomic_store(&linger_ns, echo->drain_ms * 1000000);
    tram_runtime_drain(runtime);
}

/* The next one may come. */
static int offer(echo_server *echo) {
    char path[256];
    size_t size = inherit_path(echo, path, sizeof(path));
    tram_offered offered[] = {{.name = "echo", .server = echo->listener},
                              {.name = "metrics", .server = echo->metrics_listener}};
    tram_offer_options options = {.taken = taken, .arg = echo};
    tram_error error = {0};
    int code = tram_runtime_offer_listeners(echo->runtime, path, size, offered, echo->metrics_listener != NULL ? 2 : 1,
                                            &options, NULL, &error);
    if (code == TRAM_ESTATE) {
        return 0; /* stopped already */
    }
    if (code < 0) {
        complain(&this_program, "cannot serve %s: %s", echo->inherit,
                 error.detail != NULL ? error.detail : tram_error_text(code));
    }
    return code;
}

static int listen_on(echo_server *echo) {
    char port[8];
    bool given = echo->socket_count > 0;
    snprintf(port, sizeof(port), "%" PRIu64, echo->port);
    tram_server_limits limits = {
        .max_connections = (unsigned)echo->max_connections,
        .max_per_worker = (unsigned)echo->max_per_worker,
        .max_per_source = (unsigned)echo->max_per_source,
        .max_handshakes_per_source = (unsigned)echo->max_handshakes,
        .idle_timeout_ns = echo->idle_ms * 1000000,
        .first_byte_timeout_ns = echo->first_byte_ms * 1000000,
        .total_timeout_ns = echo->total_ms * 1000000,
    };
    tram_server_options options = {
        .sockets = given ? echo->sockets : NULL,
        .socket_count = echo->socket_count,
        .limits = has_limits(echo) ? &limits : NULL,
        .accept_budget = (unsigned)echo->accept_budget,
        .shard = shards[echo->shard],
        .shard_worker = (unsigned)echo->shard_worker,
        .steer = steers[echo->steer],
        .keep_where_accepted = echo->keep,
        .tls = echo->tls_config,
        .proxy_protocol = echo->proxy_protocol,
    };
    tram_error error = {0};
    int code = tram_runtime_create_server(echo->runtime, echo_factory, NULL, given ? NULL : echo->host,
                                          given ? NULL : port, &options, &echo->listener, &error);
    if (code == error.code && code < 0 && error.detail != NULL) {
        complain(&this_program, "cannot listen: %s", error.detail); /* it names the address and the reason */
    } else if (code < 0 && given) {
        complain(&this_program, "cannot serve the sockets that were passed: %s", tram_error_text(code));
    } else if (code < 0) {
        complain(&this_program, "cannot listen on %s port %s: %s", echo->host, port, tram_error_text(code));
    }
    return code;
}

/* On worker 0, which also serves connections: asking costs less than a millisecond. */
static int serve_metrics(echo_server *echo) {
    char port[24];
    tram_error error = {0};
    snprintf(port, sizeof(port), "%" PRIu64, echo->metrics_port);
    echo->sources[0].runtime = echo->runtime;
    echo->sources[1].server = echo->listener;
    echo->metrics = (metrics_server){
        .sources = echo->sources,
        .source_count = 2,
        .sockets = echo->metrics_sockets,
        .socket_count = echo->metrics_socket_count,
    };
    int code =
        metrics_server_start(&echo->metrics, echo->runtime, echo->metrics_host, port, &echo->metrics_listener, &error);
    if (code < 0) {
        complain(&this_program, "cannot serve metrics on %s port %s: %s", echo->metrics_host, port,
                 code == error.code && error.detail != NULL ? error.detail : tram_error_text(code));
    }
    return code;
}

/* With the sockets of the one before, who is told to stop when all serve, or with our own. */
static int begin(echo_server *echo) {
    int link = -1;
    int code = find_sockets(echo, &link);
    if (code == 0) {
        code = listen_on(echo);
    }
    if (code == 0 && echo->metrics_port != NO_METRICS) {
        code = serve_metrics(echo);
    }
    if (code == 0 && link >= 0 && (code = tram_listeners_ready(link, 0)) < 0) {
        complain(&this_program, "the process before may still accept: %s", tram_error_text(code));
        code = 0;
    }
    return code == 0 && echo->inherit != NULL ? offer(echo) : code;
}

/* The reader of our output may have gone after the first line, which is no trouble of ours. */
static int flush_output(void) {
    if (fflush(stdout) == 0 || errno == EPIPE) {
        return 0;
    }
    complain(&this_program, "cannot write to standard output: %s", strerror(errno));
    return -EIO;
}

static int announce(echo_server *echo) {
    tram_socket_address address;
    tram_sharding info = {0};
    int code = tram_runtime_server_sockname(echo->listener, 0, &address);
    if (code < 0) {
        complain(&this_program, "cannot tell the address: %s", tram_error_text(code));
        return code;
    }
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_socket_address_text(&address, text, sizeof(text));
    tram_runtime_server_sharding(echo->listener, &info);
    printf("listening on %s workers=%u backend=%s shard=%s\n", text, tram_runtime_worker_count(echo->runtime),
           echo->backend_name, shard_choices[info.shard]);
    if (echo->metrics_listener != NULL && tram_runtime_server_sockname(echo->metrics_listener, 0, &address) == 0) {
        printf("metrics on http://%s/metrics\n", tram_socket_address_text(&address, text, sizeof(text)));
    }
    return flush_output();
}

/* SIGHUP: new connections get what the files say now; if that is no good, what they said before. */
static int reload_tls(tram_loop *loop, void *arg) {
    (void)loop;
    echo_server *echo = arg;
    if (tls_server_configure(&this_program, &echo->tls, &echo->tls_config) == 0) {
        fprintf(stderr, "tram-echo: the certificates were read anew\n");
    }
    return 0;
}

static int watch_hangup(tram_loop *loop, void *arg) {
    return tram_loop_add_signal_handler(loop, SIGHUP, reload_tls, arg);
}

static int begin_tls(echo_server *echo) {
    int code = tls_server_configure(&this_program, &echo->tls, &echo->tls_config);
    if (code == 0) {
        code = tram_loop_call_soon_threadsafe(tram_runtime_loop(echo->runtime, 0), watch_hangup, echo, NULL);
    }
    return code == TRAM_ESTATE ? 0 : code; /* stopped already */
}

static int serve(echo_server *echo) {
    int code = make_runtime(echo);
    if (code == 0 && echo->tls.certificate != NULL) {
        code = begin_tls(echo);
    }
    if (code == 0) {
        code = begin(echo);
    }
    if (code == 0) {
        code = announce(echo);
    }
    if (code == 0 && echo->stats_ms > 0) {
        code = tram_loop_call_soon_threadsafe(tram_runtime_loop(echo->runtime, 0), print_periodic_stats, echo, NULL);
        if (code == TRAM_ESTATE) {
            code = 0; /* stopped already */
        }
    }
    if (code < 0) {
        return code;
    }
    tram_runtime_join(echo->runtime); /* logs how many connections it had to abort */
    print_totals(echo->runtime);
    return flush_output();
}

int main(int argc, char **argv) {
    switch (arguments_parse(&this_program, argc, argv)) {
    case ARGUMENTS_SHOWN:
        return EXIT_SUCCESS;
    case ARGUMENTS_WRONG:
        return EXIT_BAD_USAGE;
    case ARGUMENTS_RUN:
        break;
    }
    if (server.tls.certificate == NULL &&
        (server.tls.key != NULL || server.tls.client_ca != NULL || server.tls.alpn != NULL)) {
        complain(&this_program, "--tls-key, --tls-client-ca and --alpn go with --tls-cert");
        return EXIT_BAD_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    descriptors_allow(UINT64_MAX);
    int code = serve(&server);
    tram_runtime_free(server.runtime);
    tls_config_release(server.tls_config);
    return code < 0 ? EXIT_RUNTIME_TROUBLE : EXIT_SUCCESS;
}
