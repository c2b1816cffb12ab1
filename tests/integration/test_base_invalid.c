/* Every call that takes options says which of them makes no sense. rules: X-1 */
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/limits.h"
#include "core/system/sys.h"
#include "public_calls.h"
#include "support/support.h"

union options {
    tram_loop_options loop;
    tram_runtime_options runtime;
    tram_server_options server;
    tram_unix_server_options unix_server;
    tram_connection_options connection;
    tram_unix_connection_options unix_connection;
    tram_adopt_options adopt;
    tram_datagram_options datagram;
    tram_subprocess_options subprocess;
    tram_pipe_options pipe;
    tram_sendfile_options sendfile;
    tram_bridge_options bridge;
    tram_inherit_options inherit;
    tram_offer_options offer;
    tram_offered offered;
    tram_job job;
    tram_custom_ops custom;
    tram_metrics_source metrics;
    tram_task_options task;
    tram_queue_options queue;
    tram_input_options input;
    tram_server_limits limits;
};

/* What the calls are made with, beside the options; `error` is filled by those that can. */
struct site {
    tram_loop *loop;
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_transport *ends[2];
    int sock;
    int file;
    int listener, own; /* of one call; -1: none */
    tram_error error;
};

static int no_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop, (void)arg, (void)ret_protocol;
    return -EIO;
}

static int do_nothing(void *arg, void **ret_result) {
    (void)arg, (void)ret_result;
    return 0;
}

static int swallow(void *arg, const char *text, size_t size) {
    (void)arg, (void)text, (void)size;
    return 0;
}

/* What a call that fills a tram_error says there, too. */
static int told(const struct site *site, int status) {
    assert_int_equal(site->error.code, status);
    assert_string_equal(site->error.option, tram_wrong_option());
    return status;
}

#define CALL(name) static int name(struct site *site, const union options *options)

CALL(new_loop) {
    tram_loop *loop;
    (void)site;
    return tram_loop_new(&options->loop, &loop);
}

CALL(new_runtime) {
    tram_runtime *runtime;
    (void)site;
    return tram_runtime_new(&options->runtime, &runtime);
}

CALL(server) {
    return tram_loop_create_server(site->loop, no_protocol, NULL, "127.0.0.1", "0", &options->server, NULL);
}

CALL(limited_server) {
    const tram_server_options with = {.limits = &options->limits};
    return tram_loop_create_server(site->loop, no_protocol, NULL, "127.0.0.1", "0", &with, NULL);
}

CALL(runtime_server) {
    return told(site, tram_runtime_create_server(site->runtime, no_protocol, NULL, "127.0.0.1", "0", &options->server,
                                                 NULL, &site->error));
}

CALL(unix_server) {
    return tram_loop_create_unix_server(site->loop, no_protocol, NULL, "\0invalid", 8, &options->unix_server, NULL);
}

CALL(limited_unix_server) {
    const tram_unix_server_options with = {.limits = &options->limits};
    return tram_loop_create_unix_server(site->loop, no_protocol, NULL, "\0invalid", 8, &with, NULL);
}

CALL(runtime_unix_server) {
    return told(site, tram_runtime_create_unix_server(site->runtime, no_protocol, NULL, "\0invalid", 8,
                                                      &options->unix_server, NULL, &site->error));
}

CALL(connection) {
    return tram_loop_create_connection(site->loop, no_protocol, NULL, "127.0.0.1", "1", &options->connection, NULL);
}

CALL(connection_of_socket) {
    union options with = *options;
    with.connection.sock = &site->sock;
    return tram_loop_create_connection(site->loop, no_protocol, NULL, NULL, NULL, &with.connection, NULL);
}

CALL(unix_connection) {
    return tram_loop_create_unix_connection(site->loop, no_protocol, NULL, "\0invalid", 8, &options->unix_connection,
                                            NULL);
}

CALL(adopted_socket) {
    return tram_loop_adopt_socket(site->loop, no_protocol, NULL, site->sock, &options->adopt, NULL);
}

CALL(datagram) {
    return tram_loop_create_datagram_endpoint(site->loop, no_protocol, NULL, &options->datagram, NULL);
}

CALL(runtime_datagram) {
    return told(site, tram_runtime_create_datagram_endpoint(site->runtime, no_protocol, NULL, &options->datagram, NULL,
                                                            &site->error));
}

CALL(read_pipe) {
    return tram_loop_connect_read_pipe_with_options(site->loop, no_protocol, NULL, site->sock, &options->pipe, NULL);
}

CALL(subprocess) {
    static const char *const argv[] = {"true", NULL};
    return tram_loop_subprocess_exec(site->loop, no_protocol, NULL, argv, &options->subprocess, NULL);
}

CALL(shell) {
    return tram_loop_subprocess_shell(site->loop, no_protocol, NULL, "true", &options->subprocess, NULL);
}

CALL(file) {
    return tram_loop_sendfile(site->loop, site->ends[0], site->file, 0, 1, &options->sendfile, NULL);
}

CALL(sock_file) {
    return tram_loop_sock_sendfile(site->loop, site->sock, site->file, 0, 1, &options->sendfile, NULL);
}

CALL(bridge) {
    return tram_bridge(site->ends[0], site->ends[1], &options->bridge, NULL);
}

CALL(inherit) {
    tram_listener listener;
    int link;
    (void)site;
    return tram_listeners_inherit("\0invalid", 8, &options->inherit, &listener, 1, &link);
}

CALL(offer) {
    const tram_offered offered = {.name = "a", .server = site->server};
    return told(site, tram_runtime_offer_listeners(site->runtime, "\0invalid", 8, &offered, 1, &options->offer, NULL,
                                                   &site->error));
}

CALL(offered) {
    union options with = *options;
    with.offered.server = options->offered.name ? site->server : NULL;
    return told(
        site, tram_runtime_offer_listeners(site->runtime, "\0invalid", 8, &with.offered, 1, NULL, NULL, &site->error));
}

CALL(job) {
    return tram_loop_run_job(site->loop, NULL, &options->job, NULL);
}

CALL(custom) {
    static tram_protocol protocol;
    static const tram_protocol_ops ops;
    protocol.ops = &ops;
    return tram_loop_create_custom(site->loop, &options->custom, NULL, &protocol, NULL);
}

CALL(metrics) {
    union options with = *options;
    with.metrics.runtime = options->metrics.name ? site->runtime : NULL;
    return tram_metrics_write(&with.metrics, 1, swallow, NULL);
}

static int return_at_once(void *arg) {
    (void)arg;
    return 0;
}

CALL(task) {
    return tram_task_spawn(site->loop, return_at_once, NULL, &options->task, NULL);
}

CALL(queue) {
    tram_queue *queue;
    return tram_queue_new(site->loop, &options->queue, &queue);
}

CALL(input) {
    tram_input input;
    (void)site;
    return tram_input_init(&input, &options->input);
}

static void *allocate(void *context, size_t size) {
    (void)context;
    return malloc(size);
}

static int no_order(const void *a, const void *b) {
    (void)a, (void)b;
    return 0;
}

static const tram_allocator half_allocator = {.allocate = allocate};
static const char *const no_hosts[] = {NULL};
static const int pass_fds[] = {0, -1}, a_socket = 0, twice[] = {0, 0};
static const tram_server_limits by_source = {.max_per_source = 1}, upside_down = {.write_high = 1, .write_low = 2};

/* The kernel's largest, in its units. */
#define SECONDS_MAX (32767 * UINT64_C(1000000000))
#define TIMEOUT_MAX (INT32_MAX * UINT64_C(1000000))

static const struct {
    int (*call)(struct site *site, const union options *options);
    const char *wrong;
    union options options;
} cases[] = {
    {new_loop, "backend", {.loop = {.backend = (tram_backend)77}}},
    {new_loop, "allocator", {.loop = {.allocator = &half_allocator}}},
    {new_loop, "mailbox_limit", {.loop = {.mailbox_limit = (size_t)INT32_MAX + 1}}},
    {new_runtime, "workers", {.runtime = {.workers = TRAM_WORKERS_MAX + 1}}},
    {new_runtime, "workers", {.runtime = {.workers = UINT_MAX}}},
    {new_runtime, "stack_size", {.runtime = {.stack_size = 1}}},
    {new_runtime, "mailbox_limit", {.runtime = {.workers = 1, .loop = {.mailbox_limit = SIZE_MAX}}}},
    {server, "hosts", {.server = {.hosts = no_hosts}}},
    {server, "host", {.server = {.sock = &a_socket}}},
    {server, "sockets", {.server = {.sockets = twice}}},
    {server, "sockets", {.server = {.sockets = twice, .socket_count = 2}}},
    {server, "family", {.server = {.family = 12345}}},
    {server, "backlog", {.server = {.backlog = -1}}},
    {server, "shard", {.server = {.shard = TRAM_SHARD_FIXED}}},
    {server, "shard_worker", {.server = {.shard_worker = 1}}},
    {server, "steer", {.server = {.steer = TRAM_STEER_CPU}}},
    {server, "keep_where_accepted", {.server = {.keep_where_accepted = true}}},
    {server, "write_low", {.server = {.limits = &upside_down}}},
    {server, "keep_alive_idle_ns", {.server = {.tcp = {.keep_alive_idle_ns = SECONDS_MAX + 1}}}},
    {server, "keep_alive_interval_ns", {.server = {.tcp = {.keep_alive_interval_ns = SECONDS_MAX + 1}}}},
    {server, "keep_alive_probes", {.server = {.tcp = {.keep_alive_probes = 128}}}},
    {server, "traffic_class", {.server = {.tcp = {.traffic_class = 256}}}},
    {server, "user_timeout_ns", {.server = {.tcp = {.user_timeout_ns = TIMEOUT_MAX + 1}}}},
    {server, "fast_open", {.server = {.tcp = {.fast_open = 65536}}}},
    {connection, "fast_open", {.connection = {.tcp = {.fast_open = 1}}}},
    {connection, "retry.limit", {.connection = {.retry = {.delay_ns = 1}}}},
    {connection, "retry.limit", {.connection = {.retry = {.delay_max_ns = 1}}}},
    {connection, "retry.delay_max_ns", {.connection = {.retry = {.limit = 1, .delay_ns = 2, .delay_max_ns = 1}}}},
    {limited_server, "source_bits_ipv4", {.limits = {.source_bits_ipv4 = 33}}},
    {limited_server, "source_bits_ipv6", {.limits = {.source_bits_ipv6 = 65}}},
    {limited_server, "source_bits_ipv6", {.limits = {.source_bits_ipv4 = 32, .source_bits_ipv6 = 65}}},
    {runtime_server, "sock", {.server = {.sock = &a_socket}}},
    {runtime_server, "defer_serving", {.server = {.defer_serving = true}}},
    {runtime_server, "shard_worker", {.server = {.shard_worker = 1}}},
    {runtime_server, "shard", {.server = {.shard = TRAM_SHARD_FIXED + 1}}},
    {runtime_server, "steer", {.server = {.steer = TRAM_STEER_HASH + 1}}},
    {runtime_server, "steer", {.server = {.steer = TRAM_STEER_CPU, .shard = TRAM_SHARD_FIXED}}},
    {runtime_server, "write_low", {.server = {.limits = &upside_down}}},
    {unix_server, "path", {.unix_server = {.sock = &a_socket}}},
    {unix_server, "backlog", {.unix_server = {.backlog = INT_MAX}}},
    {unix_server, "max_per_source", {.unix_server = {.limits = &by_source}}},
    {limited_unix_server, "write_low", {.limits = {.write_high = 1, .write_low = 2}}},
    {runtime_unix_server, "path", {.unix_server = {.sock = &a_socket}}},
    {runtime_unix_server, "defer_serving", {.unix_server = {.defer_serving = true}}},
    {runtime_unix_server, "max_per_source", {.unix_server = {.limits = &by_source}}},
    {connection, "sock", {.connection = {.sock = &a_socket}}},
    {connection_of_socket, "local_host", {.connection = {.local_host = "127.0.0.1"}}},
    {connection_of_socket, "local_host", {.connection = {.local_port = "1"}}},
    {connection, "family", {.connection = {.family = 12345}}},
    {connection, "interleave", {.connection = {.interleave = -1}}},
    {connection, "not_ours", {.connection = {.not_ours = true}}},
    {unix_connection, "path", {.unix_connection = {.sock = &a_socket}}},
    {unix_connection, "not_ours", {.unix_connection = {.not_ours = true}}},
    {unix_server, "not_ours", {.unix_server = {.not_ours = true}}},
    {runtime_server, "not_ours", {.server = {.not_ours = true}}},
    {datagram, "not_ours", {.datagram = {.family = AF_INET, .not_ours = true}}},
    {adopted_socket, "unread", {.adopt = {.unread_size = 1}}},
    {datagram, "sock", {.datagram = {.sock = &a_socket, .local_port = "0"}}},
    {datagram, "family", {.datagram = {.family = 12345}}},
    {datagram, "family", {.datagram = {.family = 0}}},
    {datagram, "local_path", {.datagram = {.local_path = "/x", .local_port = "0"}}},
    {datagram, "local_path", {.datagram = {.local_path = ""}}},
    {datagram, "remote_path", {.datagram = {.remote_path = ""}}},
    {runtime_datagram, "sock", {.datagram = {.sock = &a_socket}}},
    {runtime_datagram, "local_port", {.datagram = {.family = AF_INET}}},
    {runtime_datagram, "remote_port", {.datagram = {.local_port = "0", .remote_port = "1"}}},
    {runtime_datagram, "local_path", {.datagram = {.local_path = "/x"}}},
    {subprocess, "input", {.subprocess = {.input = {.kind = TRAM_STDIO_OUTPUT}}}},
    {subprocess, "output", {.subprocess = {.output = {.kind = TRAM_STDIO_FD, .fd = -1}}}},
    {subprocess, "error", {.subprocess = {.error = {.reserved = {0, 1}}}}},
    {subprocess, "pass_fds", {.subprocess = {.pass_fds = pass_fds, .pass_fd_count = 2}}},
    {shell, "pass_fds", {.subprocess = {.pass_fd_count = 1}}},
    {offered, "servers", {.offered = {.name = NULL}}},
    {offered, "name", {.offered = {.name = ""}}},
    {job, "function", {.job = {.arg = NULL}}},
    {custom, "sendfile_mode", {.custom = {.sendfile_mode = TRAM_SENDFILE_TRY_NATIVE}}},
    {metrics, "sources", {.metrics = {.name = NULL}}},
    {task, "stack_size", {.task = {.stack_size = SIZE_MAX}}},
    {queue, "order", {.queue = {.order = (tram_queue_order)(TRAM_QUEUE_PRIORITY + 1)}}},
    {queue, "compare", {.queue = {.order = TRAM_QUEUE_PRIORITY}}},
};

/* The largest, or smallest, that have sense: of these only what is reserved has none. */
static const struct {
    int (*call)(struct site *site, const union options *options);
    union options options;
} edges[] = {
    {new_runtime, {.runtime = {.workers = TRAM_WORKERS_MAX, .reserved = {1}}}},
    {server, {.server = {.backlog = INT_MAX - 1, .reserved = {1}}}},
    {server,
     {.server = {.tcp = {.keep_alive_idle_ns = SECONDS_MAX,
                         .keep_alive_interval_ns = SECONDS_MAX,
                         .keep_alive_probes = 127,
                         .traffic_class = 255,
                         .user_timeout_ns = TIMEOUT_MAX,
                         .fast_open = 65535},
                 .reserved = {1}}}},
    {limited_server,
     {.limits = {.write_high = 1, .write_low = 1, .source_bits_ipv4 = 32, .source_bits_ipv6 = 64, .reserved = {1}}}},
    {runtime_server, {.server = {.shard = TRAM_SHARD_FIXED, .reserved = {1}}}},
    {runtime_server, {.server = {.steer = TRAM_STEER_HASH, .reserved = {1}}}},
    {unix_server, {.unix_server = {.backlog = INT_MAX - 1, .reserved = {1}}}},
    {connection, {.connection = {.retry = {.limit = 1, .delay_ns = 2, .delay_max_ns = 2}, .reserved = {1}}}},
    {subprocess,
     {.subprocess = {.input = {.kind = TRAM_STDIO_FD},
                     .output = {.kind = TRAM_STDIO_FD},
                     .error = {.kind = TRAM_STDIO_OUTPUT},
                     .pass_fds = &a_socket,
                     .pass_fd_count = 1,
                     .reserved = {1}}}},
    {custom, {.custom = {.sendfile_mode = TRAM_SENDFILE_FALLBACK, .reserved = {1}}}},
    {queue, {.queue = {.order = TRAM_QUEUE_PRIORITY, .compare = no_order, .reserved = {1}}}},
};

#define RESERVED(call, member, ...)                                                                                    \
    {                                                                                                                  \
        call, #call, offsetof(union options, member.reserved), sizeof(((union options *)0)->member.reserved),          \
            __VA_ARGS__                                                                                                \
    }

/* All structs of options, with what they need to make sense. */
static const struct {
    int (*call)(struct site *site, const union options *options);
    const char *name;
    size_t at, size;
    union options options;
} reserved[] = {
    RESERVED(new_loop, loop, {.loop = {.debug = true}}),
    RESERVED(new_runtime, runtime, {.runtime = {.workers = 1}}),
    RESERVED(server, server, {.server = {.backlog = 1}}),
    RESERVED(limited_server, limits, {.limits = {.max_connections = 1}}),
    RESERVED(runtime_server, server, {.server = {.backlog = 1}}),
    RESERVED(unix_server, unix_server, {.unix_server = {.backlog = 1}}),
    RESERVED(limited_unix_server, limits, {.limits = {.max_connections = 1}}),
    RESERVED(runtime_unix_server, unix_server, {.unix_server = {.backlog = 1}}),
    RESERVED(connection, connection, {.connection = {.family = AF_INET}}),
    RESERVED(unix_connection, unix_connection, {.unix_connection = {.timeout_ns = 1}}),
    RESERVED(adopted_socket, adopt, {.adopt = {.unread_size = 0}}),
    RESERVED(datagram, datagram, {.datagram = {.family = AF_INET}}),
    RESERVED(runtime_datagram, datagram, {.datagram = {.local_port = "0"}}),
    RESERVED(read_pipe, pipe, {.pipe = {.not_ours = true}}),
    RESERVED(subprocess, subprocess, {.subprocess = {.new_session = true}}),
    RESERVED(shell, subprocess, {.subprocess = {.new_session = true}}),
    RESERVED(file, sendfile, {.sendfile = {.no_fallback = true}}),
    RESERVED(sock_file, sendfile, {.sendfile = {.no_fallback = true}}),
    RESERVED(bridge, bridge, {.bridge = {.idle_timeout_ns = 1}}),
    RESERVED(inherit, inherit, {.inherit = {.any_user = true}}),
    RESERVED(offer, offer, {.offer = {.any_user = true}}),
    RESERVED(offered, offered, {.offered = {.name = "a"}}),
    RESERVED(job, job, {.job = {.function = do_nothing}}),
    RESERVED(custom, custom, {.custom = {.start_tls_compatible = true}}),
    RESERVED(metrics, metrics, {.metrics = {.name = "a"}}),
    RESERVED(task, task, {.task = {.name = "a"}}),
    RESERVED(queue, queue, {.queue = {.max_size = 1}}),
    RESERVED(input, input, {.input = {.limit = 1}}),
};

static void site_open(struct world *world, struct site *ret_site) {
    const tram_runtime_options options = {.workers = 1, .loop = world->options};
    struct recorder *first = recorder_new(world, NULL), *second = recorder_new(world, NULL);
    int pair[2];
    *ret_site = (struct site){.loop = world->loop, .listener = -1, .own = -1};
    assert_int_equal(tram_runtime_new(&options, &ret_site->runtime), 0);
    assert_int_equal(tram_runtime_create_server(ret_site->runtime, no_protocol, NULL, "127.0.0.1", "0", NULL,
                                                &ret_site->server, NULL),
                     0);
    assert_int_equal(
        tram_loop_create_pair(world->loop, &first->base, &second->base, &ret_site->ends[0], &ret_site->ends[1]), 0);
    run_until(world, &second->made);
    tcp_pair(pair);
    ret_site->sock = pair[0];
    ret_site->file = pair[1]; /* nobody gets as far as to look at it */
}

static void site_close(struct site *site) {
    tram_runtime_free(site->runtime);
    close(site->sock);
    close(site->file);
}

static void test_X_1_every_wrong_option_is_named(void **state) {
    struct world *world = *state;
    struct site site;
    site_open(world, &site);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tram_queue_options another = {.order = (tram_queue_order)77};
        tram_queue *queue;
        tram_queue_new(world->loop, &another, &queue); /* so that nothing is left from the case before */
        int status = cases[i].call(&site, &cases[i].options);
        if (status != TRAM_EVALUE || strcmp(tram_wrong_option(), cases[i].wrong) != 0)
            fail_msg("case %zu: %s and %s instead of %s", i, tram_error_name(status), tram_wrong_option(),
                     cases[i].wrong);
    }
    site_close(&site);
}

static void test_X_1_the_largest_value_is_allowed(void **state) {
    struct world *world = *state;
    struct site site;
    site_open(world, &site);
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        int status = edges[i].call(&site, &edges[i].options);
        if (status != TRAM_EVALUE || strcmp(tram_wrong_option(), "reserved") != 0)
            fail_msg("case %zu: %s and %s", i, tram_error_name(status), tram_wrong_option());
    }
    site_close(&site);
}

/* A size that no memory has is one all the same, up to where sums of it are none. */
static void test_X_1_sizes_beyond_all_memory(void **state) {
    struct world *world = *state;
    const tram_loop_options most = {.mailbox_limit = INT32_MAX};
    const size_t items = SIZE_MAX / 2 / sizeof(void *);
    tram_channel *channel;
    tram_future *future;
    tram_loop *loop;
    int pair[2];
    assert_int_equal(tram_loop_new(&most, &loop), 0);
    assert_int_equal(tram_loop_free(loop), 0);
    assert_int_equal(tram_channel_new(world->loop, items, NULL, &channel), -ENOMEM);
    assert_wrong(tram_channel_new(world->loop, items + 1, NULL, &channel), "capacity");
    tcp_pair(pair);
    assert_int_equal(tram_loop_peek(world->loop, pair[0], SIZE_MAX / 2, 1, &future), -ENOMEM);
    assert_wrong(tram_loop_peek(world->loop, pair[0], SIZE_MAX / 2 + 1, 1, &future), "size");
    close(pair[0]);
    close(pair[1]);
    /* Behind a byte that waits: nobody looks at what cannot be counted. */
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    assert_int_equal(tram_transport_cork(wire.transport), 0);
    assert_int_equal(tram_transport_write(wire.transport, "x", 1), 0);
    assert_int_equal(tram_transport_write(wire.transport, "y", SIZE_MAX), -ENOMEM);
    run_until(world, &wire.recorder->was_released);
    assert_int_equal(wire.recorder->lost_code, -ENOMEM);
    close(wire.peer);
    world->trace[0] = '\0';
}

static void test_X_1_every_reserved_word_must_be_0(void **state) {
    struct world *world = *state;
    struct site site;
    site_open(world, &site);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        for (size_t at = 0; at < reserved[i].size; at += sizeof(uintptr_t)) {
            union options options = reserved[i].options;
            *(uintptr_t *)(void *)((char *)&options + reserved[i].at + at) = 1;
            int status = reserved[i].call(&site, &options);
            if (status != TRAM_EVALUE || strcmp(tram_wrong_option(), "reserved") != 0)
                fail_msg("%s, word %zu: %s and %s", reserved[i].name, at / sizeof(uintptr_t), tram_error_name(status),
                         tram_wrong_option());
        }
    site_close(&site);
}

struct missing {
    const char *call;
    const char *wrong;
};

static const struct missing missing_of_loop[] = {
    {"tram_channel_new", "capacity"},
    {"tram_loop_create_connection", "factory"},
    {"tram_loop_connect_accepted_socket", "factory"},
    {"tram_loop_adopt", "factory"},
    {"tram_loop_adopt_socket", "factory"},
    {"tram_loop_peek", "ret_future"},
    {"tram_loop_create_custom", "ops"},
    {"tram_loop_create_datagram_endpoint", "factory"},
    {"tram_loop_set_default_executor", "executor"},
    {"tram_loop_call_soon", "callback"},
    {"tram_loop_call_later", "callback"},
    {"tram_loop_call_at", "callback"},
    {"tram_loop_call_soon_threadsafe", "callback"},
    {"tram_loop_try_call_soon_threadsafe", "callback"},
    {"tram_loop_call_soon_threadsafe_handle", "callback"},
    {"tram_loop_add_reader", "callback"},
    {"tram_loop_add_writer", "callback"},
    {"tram_loop_add_reader_with_discard", "callback"},
    {"tram_loop_add_writer_with_discard", "callback"},
    {"tram_loop_call_exception_handler", "exception"},
    {"tram_loop_submit", "function"},
    {"tram_loop_create_pair_across", "other"},
    {"tram_loop_create_pair_across_with_discard", "other"},
    {"tram_loop_connect_read_pipe", "factory"},
    {"tram_loop_connect_write_pipe", "factory"},
    {"tram_loop_connect_read_pipe_with_options", "factory"},
    {"tram_loop_connect_write_pipe_with_options", "factory"},
    {"tram_loop_getnameinfo", "address"},
    {"tram_loop_sendfile", "count"},
    {"tram_loop_create_server", "factory"},
    {"tram_loop_add_signal_handler", "callback"},
    {"tram_loop_add_signal_handler_with_discard", "callback"},
    {"tram_loop_remove_signal_handler", "signal_number"},
    {"tram_stream_factory", "handler"},
    {"tram_loop_subprocess_exec", "argv"},
    {"tram_loop_subprocess_shell", "command"},
    {"tram_task_spawn", "function"},
    {"tram_loop_each_task", "visit"},
    {"tram_loop_dump_tasks", "print"},
    {"tram_loop_create_unix_server", "factory"},
    {"tram_loop_create_unix_connection", "factory"},
};

static const struct missing missing_of_transport[] = {
    {"tram_transport_write_buffer", "buffer"},
    {"tram_transport_send_fds", "data"},
};

static const struct missing missing_of_future[] = {
    {"tram_future_add_done_callback", "callback"},
    {"tram_future_add_done_callback_with_discard", "callback"},
};

static const struct missing missing_of_runtime[] = {
    {"tram_runtime_create_datagram_endpoint", "factory"},
    {"tram_runtime_offer_listeners", "servers"},
    {"tram_runtime_create_server", "factory"},
    {"tram_runtime_start_server", "handler"},
    {"tram_runtime_start_unix_server", "handler"},
    {"tram_runtime_create_unix_server", "path"},
};

static void assert_named(const struct public_call *calls, void *object, const struct missing *missing, size_t count) {
    for (size_t i = 0; i < count; i++) {
        int status = answer_of(calls, missing[i].call, object);
        if (status != TRAM_EVALUE || strcmp(tram_wrong_option(), missing[i].wrong) != 0)
            fail_msg("%s: %s and %s", missing[i].call, tram_error_name(status), tram_wrong_option());
    }
}

#define ASSERT_NAMED(kind, object)                                                                                     \
    assert_named(calls_of_tram_##kind, object, missing_of_##kind, sizeof missing_of_##kind / sizeof *missing_of_##kind)

/* All arguments but the object are 0. */
static void test_X_1_what_is_missing_is_named(void **state) {
    struct world *world = *state;
    struct wire wire = wire_new_made(world, recorder_new(world, NULL));
    tram_future *future;
    tram_runtime *runtime;
    assert_int_equal(tram_loop_create_future(world->loop, &future), 0);
    assert_int_equal(tram_runtime_new(NULL, &runtime), 0);
    ASSERT_NAMED(loop, world->loop);
    ASSERT_NAMED(transport, wire.transport);
    ASSERT_NAMED(future, future);
    ASSERT_NAMED(runtime, runtime);
    assert_wrong(tram_loop_create_runtime_server(world->loop, runtime, NULL, NULL, "127.0.0.1", "0", NULL, &future),
                 "factory");
    tram_runtime_free(runtime);
    tram_future_release(future);
    tram_transport_abort(wire.transport);
    run_to_rest(world);
    close(wire.peer);
    world->trace[0] = '\0';
}

static void *look(void *arg) {
    *(const char **)arg = tram_wrong_option();
    return NULL;
}

static void test_X_1_each_thread_has_its_own_wrong_option(void **state) {
    struct world *world = *state;
    const char *elsewhere = "something";
    pthread_t thread;
    assert_int_equal(tram_loop_call_soon(world->loop, NULL, NULL, NULL, NULL), TRAM_EVALUE);
    assert_int_equal(pthread_create(&thread, NULL, look, &elsewhere), 0);
    pthread_join(thread, NULL);
    assert_null(elsewhere);
    assert_string_equal(tram_wrong_option(), "callback");
}

/* ---- What the kernel refuses of what a call looks at, or asks for ---- */

enum refused {
    NOTHING,
    FCNTL,
    GETSOCKOPT,
    SETSOCKOPT,
    SOCKET,
    BIND,
    FSTAT,
    LISTEN,
    GETPEERNAME,
    ONCE = 16,
    SECOND = 32
};
static enum refused refused;
static bool once, second; /* only one is refused; it is the second of them */

static bool is_refused(enum refused call) {
    errno = ENOBUFS;
    if (refused != call)
        return false;
    bool allowed = second;
    second = false;
    if (once && !allowed)
        refused = NOTHING;
    return !allowed;
}

static int some_fcntl(int fd, int command, int value) {
    return is_refused(FCNTL) ? -1 : tram__sys.fcntl(fd, command, value);
}

static int some_getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
    return is_refused(GETSOCKOPT) ? -1 : tram__sys.getsockopt(fd, level, name, value, size);
}

static int some_setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    return is_refused(SETSOCKOPT) ? -1 : tram__sys.setsockopt(fd, level, name, value, size);
}

static int some_socket(int family, int type, int protocol) {
    return is_refused(SOCKET) ? -1 : tram__sys.socket(family, type, protocol);
}

static int some_bind(int fd, const struct sockaddr *address, socklen_t size) {
    return is_refused(BIND) ? -1 : tram__sys.bind(fd, address, size);
}

static int some_listen(int fd, int backlog) {
    return is_refused(LISTEN) ? -1 : tram__sys.listen(fd, backlog);
}

static int some_getpeername(int fd, struct sockaddr *address, socklen_t *size) {
    return is_refused(GETPEERNAME) ? -1 : tram__sys.getpeername(fd, address, size);
}

/* Where it is refused to listen, the address cannot be told either. */
static int some_getsockname(int fd, struct sockaddr *address, socklen_t *size) {
    return is_refused(LISTEN) ? -1 : tram__sys.getsockname(fd, address, size);
}

static int some_fstat(int fd, struct stat *ret_status) {
    return is_refused(FSTAT) ? -1 : tram__sys.fstat(fd, ret_status);
}

static const struct sys *some_sys(void) {
    static struct sys sys;
    sys = tram__sys;
    sys.fcntl = some_fcntl;
    sys.getsockopt = some_getsockopt;
    sys.setsockopt = some_setsockopt;
    sys.socket = some_socket;
    sys.bind = some_bind;
    sys.fstat = some_fstat;
    sys.listen = some_listen;
    sys.getsockname = some_getsockname;
    sys.getpeername = some_getpeername;
    return &sys;
}

#define ASK(name) static int name(struct site *site, tram_future **ret_future)

ASK(ask_read_pipe) {
    return tram_loop_connect_read_pipe(site->loop, recorder_factory, world_of(site->loop), site->sock, ret_future);
}

ASK(ask_write_pipe) {
    return tram_loop_connect_write_pipe(site->loop, recorder_factory, world_of(site->loop), site->sock, ret_future);
}

ASK(ask_adopt) {
    return tram_loop_adopt_socket(site->loop, recorder_factory, world_of(site->loop), site->sock, NULL, ret_future);
}

ASK(ask_peek) {
    return tram_loop_peek(site->loop, site->sock, 1, TRAM_FOREVER, ret_future);
}

ASK(ask_connection) {
    const tram_connection_options options = {.sock = &site->sock};
    return tram_loop_create_connection(site->loop, recorder_factory, world_of(site->loop), NULL, NULL, &options,
                                       ret_future);
}

ASK(ask_server) {
    const tram_server_options options = {.sock = &site->sock};
    return tram_loop_create_server(site->loop, recorder_factory, world_of(site->loop), NULL, NULL, &options,
                                   ret_future);
}

ASK(ask_class) {
    const tram_server_options options = {.tcp = {.traffic_class = 1}};
    return tram_loop_create_server(site->loop, recorder_factory, world_of(site->loop), "127.0.0.1", "0", &options,
                                   ret_future);
}

ASK(ask_IPv6_server) {
    return tram_loop_create_server(site->loop, recorder_factory, world_of(site->loop), "::1", "0", NULL, ret_future);
}

/* To a listener of its own. */
static int ask_at(struct site *site, const char *host, tram_future **ret_future) {
    uint16_t port;
    char text[8];
    site->listener = tcp_listener(1, &port);
    snprintf(text, sizeof text, "%u", port);
    return tram_loop_create_connection(site->loop, recorder_factory, world_of(site->loop), host, text, NULL,
                                       ret_future);
}

ASK(ask_host) {
    return ask_at(site, "127.0.0.1", ret_future);
}

/* The kernel knows which address of this machine it takes. */
ASK(ask_any_host) {
    return ask_at(site, "0.0.0.0", ret_future);
}

ASK(ask_sock_host) {
    uint16_t port;
    char text[8];
    site->listener = tcp_listener(1, &port);
    site->own = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    snprintf(text, sizeof text, "%u", port);
    return tram_loop_sock_connect(site->loop, site->own, "127.0.0.1", text, ret_future);
}

ASK(ask_unix_server) {
    const tram_unix_server_options options = {.sock = &site->sock};
    return tram_loop_create_unix_server(site->loop, recorder_factory, world_of(site->loop), NULL, 0, &options,
                                        ret_future);
}

ASK(ask_unix_name) {
    char name[64] = "";
    int length = snprintf(name + 1, sizeof name - 1, "tram-test-refused-%d", (int)getpid());
    return tram_loop_create_unix_server(site->loop, recorder_factory, world_of(site->loop), name, (size_t)length + 1,
                                        NULL, ret_future);
}

ASK(ask_sock_connect) {
    return tram_loop_sock_connect(site->loop, site->sock, "127.0.0.1", "1", ret_future);
}

ASK(ask_sock_sendfile) {
    return tram_loop_sock_sendfile(site->loop, site->sock, site->file, 0, 1, NULL, ret_future);
}

static int ask_datagram(struct site *site, tram_datagram_options options, tram_future **ret_future) {
    options.local_host = "127.0.0.1";
    options.local_port = "0";
    return tram_loop_create_datagram_endpoint(site->loop, recorder_factory, world_of(site->loop), &options, ret_future);
}

ASK(ask_plain_datagram) {
    return ask_datagram(site, (tram_datagram_options){.family = AF_INET}, ret_future);
}

ASK(ask_broadcast) {
    return ask_datagram(site, (tram_datagram_options){.allow_broadcast = true}, ret_future);
}

ASK(ask_reuse_port) {
    return ask_datagram(site, (tram_datagram_options){.reuse_port = true}, ret_future);
}

static const struct {
    unsigned refused; /* which calls; | ONCE, SECOND: not all of them */
    int (*call)(struct site *site, tram_future **ret_future);
    const char *name;
    int answer; /* of the call, or of its future */
} refusals[] = {
    {FSTAT, ask_read_pipe, "read pipe", -ENOBUFS},
    {FSTAT, ask_write_pipe, "write pipe", -ENOBUFS},
    {FCNTL, ask_read_pipe, "read pipe", -ENOBUFS},
    {FCNTL, ask_write_pipe, "write pipe", -ENOBUFS},
    {FCNTL, ask_adopt, "adopt", -ENOBUFS},
    {FCNTL, ask_peek, "peek", -ENOBUFS},
    {FCNTL, ask_connection, "connection", -ENOBUFS},
    {FCNTL, ask_server, "server", -ENOBUFS},
    {GETSOCKOPT, ask_adopt, "adopt", -ENOBUFS},
    {GETSOCKOPT, ask_peek, "peek", -ENOBUFS},
    {GETSOCKOPT, ask_connection, "connection", -ENOBUFS},
    {GETSOCKOPT, ask_server, "server", -ENOBUFS},
    {GETSOCKOPT, ask_unix_server, "Unix server", -ENOBUFS},
    {GETSOCKOPT, ask_sock_connect, "sock_connect", -ENOBUFS},
    {GETSOCKOPT, ask_sock_sendfile, "sock_sendfile", -ENOBUFS},
    {GETSOCKOPT | SECOND, ask_sock_host, "sock_connect that has begun", -ENOBUFS},
    {GETSOCKOPT | ONCE, ask_host, "connection that has begun", -ENOBUFS},
    {GETPEERNAME | ONCE, ask_any_host, "connection to this machine", -ENOBUFS},
    {GETSOCKOPT, ask_class, "traffic class", -ENOBUFS},
    {SETSOCKOPT | SECOND, ask_IPv6_server, "IPv6 server", -ENOBUFS},
    {LISTEN, ask_class, "listen", -ENOBUFS},
    {SETSOCKOPT, ask_class, "traffic class", -ENOBUFS},
    {SETSOCKOPT, ask_broadcast, "broadcast", -ENOBUFS},
    {SETSOCKOPT, ask_reuse_port, "reuse_port", TRAM_EVALUE},
    {SOCKET, ask_unix_name, "Unix name", -ENOBUFS},
    {SOCKET, ask_plain_datagram, "datagram", -ENOBUFS},
    {BIND, ask_unix_name, "Unix name", -ENOBUFS},
    {BIND, ask_plain_datagram, "datagram", -ENOBUFS},
};

static bool is_done(void *future) {
    return tram_future_done(future);
}

static void site_close_own(struct site *site) {
    if (site->listener >= 0)
        close(site->listener);
    if (site->own >= 0)
        close(site->own);
    site->listener = site->own = -1;
}

static void test_X_1_what_the_kernel_refuses_is_told(void **state) {
    struct world *world = *state;
    struct site site;
    calls_uninterrupted();
    world_use_sys(world, some_sys());
    site_open(world, &site);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        tram_future *future = NULL;
        refused = refusals[i].refused & ~(unsigned)(ONCE | SECOND);
        once = refusals[i].refused & ONCE;
        second = refusals[i].refused & SECOND;
        int status = refusals[i].call(&site, &future);
        if (future) {
            run_until_true(world, is_done, future);
            status = tram_future_result(future, NULL);
            if (refused == LISTEN)
                assert_string_equal(tram_future_error(future)->detail, "listen : No buffer space available");
            tram_future_release(future);
        }
        refused = NOTHING;
        site_close_own(&site);
        if (status != refusals[i].answer)
            fail_msg("case %zu, %s: %s", i, refusals[i].name, tram_error_name(status));
    }
    run_to_rest(world);
    site_close(&site); /* its descriptors are its own still */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_X_1_every_wrong_option_is_named),
        TEST(test_X_1_the_largest_value_is_allowed),
        TEST(test_X_1_sizes_beyond_all_memory),
        TEST(test_X_1_every_reserved_word_must_be_0),
        TEST(test_X_1_what_is_missing_is_named),
        TEST(test_X_1_what_the_kernel_refuses_is_told),
        TEST(test_X_1_each_thread_has_its_own_wrong_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
