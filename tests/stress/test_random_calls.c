/*
 * Random calls: any public function inside any callback, factory, release function, discard and handler, on every kind
 * of transport, while system calls and allocations fail (tram/fault.h). Best under the sanitizers.
 *
 *     test_random_calls [--seed N] [--count K] [--verbose]
 *
 * Runs K seeds from N on; without arguments 300 of them. What a seed does is the same each time as far as the kernel
 * and other threads allow. A failure prints the seed and the last calls, nested as they were made.
 *
 * To add a kind of object or a call, add a function and a line in `kinds` or `calls` at the end. The functions choose
 * their objects by some_…() and never misuse one: a pointer is not used when it is not valid any more. All else is
 * allowed at any time, and that it is judged well is the library's part.
 *
 * tram-test: with TLS, where there is one
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/loop/types.h"
#include "support/layers.h"
#include "support/support.h"
#ifdef TRAM_TEST_TLS
#include "support/tls/ends.h"
#include "support/tls/overlay.h"
#else
static tram_tls_config *const servers = NULL, *const clients = NULL;
#endif

#define MOST_LINKS     48
#define MOST_FUTURES   32
#define MOST_SERVERS   4
#define MOST_CREATIONS 12
#define MOST_HANDLES   16
#define MOST_FDS       16
#define NESTING        5
#define CALLS_OF_SEED  280
#define LOG_LINES      4096

/* ---- What is there ---- */

enum life { LIFE_NEW, LIFE_MADE, LIFE_LOST, LIFE_RELEASED };

struct link;
struct record;

/* A protocol: in no order but the right one, and freed when it is released. */
struct fuzz_protocol {
    tram_protocol base;
    enum life life;
    bool paused;
    bool eof;
    bool unsure; /* of the last two: it followed a bridge's protocol */
    unsigned number;
    struct link *link; /* of the transport that it has, or NULL */
    struct fuzz_protocol *next;
    char memory[512];
};

/* A transport that calls may be made on: from connection_made until connection_lost has returned, or while held. */
struct link {
    tram_transport *transport;
    struct fuzz_protocol *protocol; /* the one that it has; NULL: ended, or a bridge's */
    unsigned holds;
    unsigned number;
};

/* The user's half of a custom transport. */
struct half {
    tram_transport *transport;
    size_t queued;
    struct half *next;
    bool over;
};

static struct {
    uint64_t seed, random;
    tram_loop *loop;
    tram_faults *faults;
    struct link links[MOST_LINKS];
    size_t link_count;
    tram_future *futures[MOST_FUTURES];
    size_t future_count;
    tram_server *servers[MOST_SERVERS];
    size_t server_count;
    tram_future *creations[MOST_CREATIONS]; /* of servers; NULL: what it had was taken */
    size_t creation_count;
    tram_handle handles[MOST_HANDLES];
    struct record *records[MOST_HANDLES]; /* of these; whoever cancels gives it back */
    size_t handle_count;
    int fds[MOST_FDS]; /* descriptors of our own */
    size_t fd_count;
    struct half *halves;
    struct fuzz_protocol *protocols;
    unsigned numbers;
    unsigned live_protocols, live_buffers, live_jobs, live_records, live_layers;
    unsigned calls_left;
    unsigned depth;    /* of callbacks and calls */
    unsigned in_calls; /* public calls of ours on the stack, which must not call what comes from the loop */
    bool ending;       /* nothing new is made */
    int file;
} g;

/* Shared with the process that waits for the one that plays, and prints it whatever that died of. */
static struct {
    uint64_t seed;
    uint64_t calls;
    unsigned log_count;
    char log[LOG_LINES][96];
} * shared;

static bool verbose;

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...) {
    char *line = shared->log[shared->log_count++ % LOG_LINES];
    int indent = (int)(g.depth * 2 < 20 ? g.depth * 2 : 20);
    memset(line, ' ', (size_t)indent);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + indent, sizeof shared->log[0] - (size_t)indent, format, arguments);
    va_end(arguments);
    if (verbose)
        fprintf(stderr, "%s\n", line);
}

static void print_log(void) {
    unsigned count = shared->log_count;
    for (unsigned i = count > LOG_LINES ? count - LOG_LINES : 0; i < count; i++)
        fprintf(stderr, "%s\n", shared->log[i % LOG_LINES]);
    fprintf(stderr, "again: test_random_calls --seed %llu --count 1\n", (unsigned long long)shared->seed);
}

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                    \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint32_t below(uint32_t limit) {
    g.random = g.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((g.random >> 33) % limit);
}

static bool one_in(uint32_t limit) {
    return below(limit) == 0;
}

/* ---- Callbacks: each is checked, and makes some calls ---- */

static void some_calls(unsigned most);

/* Around everything that the library calls. `from_loop`: never inside a public call. */
static void begin_callback(const char *name, unsigned number, bool from_loop) {
    note("< %s %u", name, number);
    g.depth++;
    CHECK(!from_loop || !g.in_calls);
}

static void end_callback(void) {
    g.depth--;
}

static int callback_result(void) {
    static const int codes[] = {TRAM_EUSER, -EIO, -ENOMEM, TRAM_ESTATE};
    if (!one_in(25))
        return 0;
    int code = codes[below(4)];
    return one_in(2) ? tram_loop_raise(g.loop, code, &g, "on purpose") : code;
}

static void forget_link(struct link *link) {
    struct link *last = &g.links[--g.link_count];
    if (link == last)
        return;
    *link = *last;
    if (link->protocol)
        link->protocol->link = link;
}

static struct link *remember(tram_transport *transport, struct fuzz_protocol *protocol) {
    if (protocol && protocol->link)
        return protocol->link;
    if (g.link_count == MOST_LINKS)
        return NULL;
    struct link *link = &g.links[g.link_count++];
    *link = (struct link){.transport = transport, .protocol = protocol, .number = ++g.numbers};
    if (protocol)
        protocol->link = link;
    return link;
}

/* The transport has ended for us: its pointer is good only while it is held. */
static void part(struct link *link) {
    if (link->protocol)
        link->protocol->link = NULL;
    link->protocol = NULL;
    if (!link->holds)
        forget_link(link);
}

static struct fuzz_protocol *of(tram_protocol *base) {
    return (struct fuzz_protocol *)base;
}

/* Whatever came, the protocol must be between made and lost. */
static struct fuzz_protocol *enter(tram_protocol *base, const char *name, bool from_loop) {
    struct fuzz_protocol *protocol = of(base);
    begin_callback(name, protocol->number, from_loop);
    CHECK(protocol->life == LIFE_MADE);
    CHECK(protocol->base.transport != NULL);
    return protocol;
}

static int leave(unsigned most) {
    some_calls(most);
    end_callback();
    return callback_result();
}

static int on_made(tram_protocol *base, tram_transport *transport) {
    struct fuzz_protocol *protocol = of(base);
    begin_callback("connection_made", protocol->number, true);
    CHECK(protocol->life == LIFE_NEW && base->transport == transport);
    protocol->life = LIFE_MADE;
    remember(transport, protocol);
    return leave(3);
}

static int on_data(tram_protocol *base, const void *data, size_t size) {
    struct fuzz_protocol *protocol = enter(base, "data_received", true);
    CHECK(size > 0 && (!protocol->eof || protocol->unsure));
    volatile char last = ((const char *)data)[size - 1]; /* it can be read */
    (void)last;
    return leave(2);
}

static int on_eof(tram_protocol *base) {
    struct fuzz_protocol *protocol = enter(base, "eof_received", true);
    CHECK(!protocol->eof || protocol->unsure);
    protocol->eof = true;
    int result = leave(2);
    return result ? result : (int)below(2);
}

static int on_lost(tram_protocol *base, const tram_error *error) {
    struct fuzz_protocol *protocol = enter(base, "connection_lost", true);
    CHECK(!error || error->code < 0);
    checked_error(error, "connection_lost");
    protocol->life = LIFE_LOST;
    int result = leave(3);
    if (protocol->link)
        part(protocol->link);
    return result;
}

static int on_pause(tram_protocol *base) {
    struct fuzz_protocol *protocol = enter(base, "pause_writing", false);
    CHECK(!protocol->paused || protocol->unsure);
    protocol->paused = true;
    return leave(2);
}

static unsigned in_custom_sent; /* which may resume at once */

static int on_resume(tram_protocol *base) {
    struct fuzz_protocol *protocol = enter(base, "resume_writing", !in_custom_sent);
    CHECK(protocol->paused || protocol->unsure);
    protocol->paused = false;
    return leave(2);
}

static int on_get_buffer(tram_protocol *base, ptrdiff_t hint, void **ret_memory, size_t *ret_size) {
    struct fuzz_protocol *protocol = enter(base, "get_buffer", true);
    (void)hint;
    *ret_memory = protocol->memory;
    *ret_size = one_in(40) ? 0 : 1 + below(sizeof protocol->memory);
    return leave(1);
}

static int on_updated(tram_protocol *base, size_t size) {
    struct fuzz_protocol *protocol = enter(base, "buffer_updated", true);
    CHECK(size > 0 && size <= sizeof protocol->memory && (!protocol->eof || protocol->unsure));
    return leave(2);
}

static int on_datagram(tram_protocol *base, const void *data, size_t size, const tram_socket_address *address) {
    enter(base, "datagram_received", true);
    (void)data;
    (void)size;
    (void)address;
    return leave(2);
}

static int on_error(tram_protocol *base, const tram_error *error) {
    enter(base, "error_received", false);
    CHECK(error && error->code < 0);
    checked_error(error, "error_received");
    return leave(2);
}

static int on_pipe_data(tram_protocol *base, int fd, const void *data, size_t size) {
    enter(base, "pipe_data_received", true);
    CHECK(data && size && (fd == 1 || fd == 2));
    return leave(2);
}

static int on_pipe_lost(tram_protocol *base, int fd, const tram_error *error) {
    enter(base, "pipe_connection_lost", true);
    CHECK(fd >= 0 && fd <= 2 && (!error || error->code < 0));
    checked_error(error, "pipe_connection_lost");
    return leave(2);
}

static int on_exited(tram_protocol *base) {
    enter(base, "process_exited", true);
    return leave(2);
}

static void on_released(tram_protocol *base) {
    struct fuzz_protocol *protocol = of(base);
    begin_callback("released", protocol->number, true);
    CHECK(protocol->life != LIFE_RELEASED && !base->transport);
    CHECK(!protocol->link || protocol->link->protocol != protocol || protocol->life == LIFE_NEW);
    if (protocol->link)
        part(protocol->link);
    protocol->life = LIFE_RELEASED;
    some_calls(2);
    struct fuzz_protocol **place = &g.protocols;
    while (*place != protocol)
        place = &(*place)->next;
    *place = protocol->next;
    g.live_protocols--;
    free(protocol);
    end_callback();
}

static int on_message(tram_protocol *base, tram_message *message);

#define COMMON_OPS                                                                                                     \
    .connection_made = on_made, .eof_received = on_eof, .connection_lost = on_lost, .pause_writing = on_pause,         \
    .resume_writing = on_resume, .released = on_released, .datagram_received = on_datagram,                            \
    .error_received = on_error, .pipe_data_received = on_pipe_data, .pipe_connection_lost = on_pipe_lost,              \
    .process_exited = on_exited, .message_received = on_message
static const tram_protocol_ops plain_ops = {COMMON_OPS, .data_received = on_data};
static const tram_protocol_ops buffered_ops = {COMMON_OPS, .get_buffer = on_get_buffer, .buffer_updated = on_updated};

static struct fuzz_protocol *protocol_new(void) {
    struct fuzz_protocol *protocol = calloc(1, sizeof *protocol);
    protocol->base.ops = one_in(3) ? &buffered_ops : &plain_ops;
    protocol->number = ++g.numbers;
    protocol->next = g.protocols;
    g.protocols = protocol;
    g.live_protocols++;
    return protocol;
}

/* One that no transport took. */
static void protocol_undo(struct fuzz_protocol *protocol) {
    CHECK(protocol->life == LIFE_NEW && !protocol->link);
    struct fuzz_protocol **place = &g.protocols;
    while (*place != protocol)
        place = &(*place)->next;
    *place = protocol->next;
    g.live_protocols--;
    free(protocol);
}

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    CHECK(loop == g.loop && arg == &g);
    begin_callback("factory", 0, false);
    some_calls(2);
    end_callback();
    if (one_in(20))
        return callback_result() ? TRAM_EUSER : tram_loop_raise(loop, TRAM_EUSER, NULL, "no protocol");
    *ret_protocol = &protocol_new()->base;
    return 0;
}

/* ---- Records: what a callback gets, and gives back when it runs or is discarded ---- */

struct record {
    unsigned number;
    bool used;
};

static struct record *record_new(void) {
    struct record *record = calloc(1, sizeof *record);
    record->number = ++g.numbers;
    g.live_records++;
    return record;
}

static void record_free(struct record *record) {
    CHECK(!record->used);
    record->used = true;
    g.live_records--;
    free(record);
}

static int on_call(tram_loop *loop, void *arg) {
    struct record *record = arg;
    CHECK(loop == g.loop);
    begin_callback("callback", record->number, true);
    record_free(record);
    return leave(3);
}

static void on_discard(void *arg) {
    struct record *record = arg;
    begin_callback("discard", record->number, false);
    record_free(record);
    some_calls(1);
    end_callback();
}

static int on_ready(tram_loop *loop, void *arg) {
    CHECK(loop == g.loop && arg == &g);
    begin_callback("reader or writer", 0, true);
    return leave(2);
}

static int on_done(tram_future *future, void *arg) {
    CHECK(arg == &g);
    begin_callback("done", 0, true);
    CHECK(tram_future_done(future));
    some_calls(2);
    end_callback();
    return 0;
}

static int on_signal(tram_loop *loop, void *arg) {
    CHECK(loop == g.loop && arg == &g);
    begin_callback("signal", 0, true);
    return leave(2);
}

static int on_exception(tram_loop *loop, const tram_exception *exception, void *arg) {
    CHECK(loop == g.loop && arg == &g && exception->message);
    checked_error(exception->error, exception->message);
    begin_callback("exception handler", 0, false);
    some_calls(2);
    end_callback();
    return callback_result();
}

static void on_log(void *arg, tram_log_level level, const char *line) {
    CHECK(arg == &g && line);
    begin_callback("log", level, false);
    if (one_in(4))
        some_calls(1);
    end_callback();
}

static void on_buffer_released(const void *data, size_t size, void *arg) {
    CHECK(data == arg && size);
    begin_callback("buffer release", (unsigned)size, false);
    memset(arg, 0xee, size);
    free(arg);
    g.live_buffers--;
    some_calls(3);
    end_callback();
}

static int on_job(void *arg, void **ret_result) {
    (void)arg;
    *ret_result = NULL;
    return 0;
}

static void on_client(const tram_client *client, void *arg) {
    CHECK(arg == &g && client->transport);
    begin_callback("each client", 0, false);
    end_callback();
}

/* ---- Choosing ---- */

static struct link *some_link(void) {
    return g.link_count ? &g.links[below((uint32_t)g.link_count)] : NULL;
}

static tram_transport *some_transport(void) {
    struct link *link = some_link();
    if (link)
        note("  on %u", link->number);
    return link ? link->transport : NULL;
}

static tram_future *some_future(void) {
    return g.future_count ? g.futures[below((uint32_t)g.future_count)] : NULL;
}

static tram_server *some_server(void) {
    return g.server_count ? g.servers[below((uint32_t)g.server_count)] : NULL;
}

static int some_fd(void) {
    return g.fd_count ? g.fds[below((uint32_t)g.fd_count)] : -1;
}

static void keep_fd(int fd) {
    if (g.fd_count == MOST_FDS || fd < 0) {
        if (fd >= 0)
            close(fd);
        return;
    }
    g.fds[g.fd_count++] = fd;
}

/* The descriptor is not ours any more. */
static int give_fd(void) {
    if (!g.fd_count)
        return -1;
    size_t index = below((uint32_t)g.fd_count);
    int fd = g.fds[index];
    g.fds[index] = g.fds[--g.fd_count];
    tram_loop_remove_reader(g.loop, fd);
    tram_loop_remove_writer(g.loop, fd);
    return fd;
}

/* Takes a future that a call returned; with luck somebody wants to know. */
static void keep_future(int status, tram_future **ret_future) {
    tram_future *future = *ret_future;
    note("  = %s", status < 0 ? tram_error_name(status) : "0");
    if (status < 0 || !future)
        return;
    if (one_in(3))
        tram_future_add_done_callback(future, on_done, &g);
    if (g.future_count < MOST_FUTURES)
        g.futures[g.future_count++] = future;
    else
        tram_future_release(future);
}

/* Sometimes nobody wants the future. */
static tram_future **maybe(tram_future **future) {
    *future = NULL;
    return one_in(5) ? NULL : future;
}

static size_t some_size(void) {
    static const uint32_t most[] = {1, 10, 300, 5000, 70000, 300000};
    return 1 + below(most[below(6)]);
}

static const char bytes[300001];

/* ---- Kinds of objects ---- */

static void connect_pair(int family) {
    int fds[2];
    if (family == AF_UNIX) {
        unix_pair(fds);
    } else {
        tcp_pair(fds);
    }
    if (one_in(2)) {
        shrink_buffers(fds[0]);
        shrink_buffers(fds[1]);
    }
    for (int i = 0; i < 2; i++) {
        if (i && one_in(2)) {
            keep_fd(fds[i]);
            continue;
        }
        tram_future *future;
        int status = one_in(4) ? tram_loop_adopt(g.loop, factory, &g, fds[i], bytes, some_size(), maybe(&future))
                               : tram_loop_connect_accepted_socket(g.loop, factory, &g, fds[i], maybe(&future));
        keep_future(status, &future);
        if (status)
            close(fds[i]);
    }
}

static void make_unix_stream(void) {
    connect_pair(AF_UNIX);
}

static void make_tcp(void) {
    connect_pair(AF_INET);
}

/* The result of a creation is a server, and a hold that is ours: it must be taken. */
static void take_server(tram_future *creation) {
    void *server = NULL;
    if (tram_future_result(creation, &server))
        return;
    if (g.server_count < MOST_SERVERS)
        g.servers[g.server_count++] = server;
    else
        tram_server_release(server);
}

static int server_made(tram_future *future, void *arg) {
    CHECK(arg == &g);
    begin_callback("server made", 0, true);
    for (size_t i = 0; i < g.creation_count; i++)
        if (g.creations[i] == future) {
            g.creations[i] = NULL;
            take_server(future);
            tram_future_release(future);
        }
    some_calls(2);
    end_callback();
    return 0;
}

static void keep_creation(int status, tram_future **ret_creation) {
    tram_future *creation = *ret_creation;
    note("  = %s", status < 0 ? tram_error_name(status) : "0");
    if (status)
        return;
    g.creations[g.creation_count++] = creation;
    tram_future_add_done_callback(creation, server_made, &g);
    if (one_in(8))
        tram_future_cancel(creation);
}

static bool trusts_some(const tram_socket_address *peer) {
    (void)peer;
    return one_in(2);
}

/* Clients tell a header where they like (make_connection()). */
static void make_server(void) {
    tram_server_limits limits = {.max_connections = 5, .idle_timeout_ns = 3000000, .write_hard_limit = 100000};
    tram_server_options options = {
        .limits = one_in(2) ? &limits : NULL, .defer_serving = one_in(4), .tls = one_in(3) ? servers : NULL};
    if (options.tls && one_in(3))
        options.tls_handshake_timeout_ns = options.tls_shutdown_timeout_ns = 1 + below(3000000);
    options.proxy_protocol = one_in(3);
    if (options.proxy_protocol && one_in(2)) {
        options.proxy_timeout_ns = 1 + below(3000000);
        options.proxy_trusts = trusts_some;
    }
    tram_future *creation;
    if (g.creation_count == MOST_CREATIONS)
        return;
    if (one_in(5))
        tram_loop_create_server(g.loop, factory, &g, "127.0.0.1", "0", &options, NULL);
    else
        keep_creation(tram_loop_create_server(g.loop, factory, &g, "127.0.0.1", "0", &options, &creation), &creation);
}

static void make_unix_server(void) {
    char name[64];
    int size = snprintf(name, sizeof name, "%ctram-random-%d-%u", 0, (int)getpid(), below(4));
    tram_future *future;
    if (g.creation_count < MOST_CREATIONS)
        keep_creation(tram_loop_create_unix_server(g.loop, factory, &g, name, (size_t)size, NULL, &future), &future);
    keep_future(tram_loop_create_unix_connection(g.loop, factory, &g, name, (size_t)size, NULL, maybe(&future)),
                &future);
}

static void make_connection(void) {
    tram_server *server = some_server();
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram_connection_options options = {.happy_eyeballs_delay_ns = one_in(2) ? 1000000 : 0,
                                       .timeout_ns = one_in(3) ? 1 + below(3000000) : 0,
                                       .all_errors = one_in(2),
                                       .tls = one_in(3) ? clients : NULL};
    if (options.tls) {
        options.server_hostname = one_in(8) ? "elsewhere" : "localhost";
        options.tls_shutdown_timeout_ns = one_in(2) ? 1 + below(3000000) : 0;
    }
    tram_proxy_header header = {.version = 1 + (int)below(2), .source = &address, .destination = &address};
    if (one_in(3))
        options.proxy_header = &header;
    if (!server || tram_server_sockname(server, 0, &address) || address.address.ss_family != AF_INET)
        return;
    tram_socket_address_text(&address, text, sizeof text);
    const char *port = strrchr(text, ':') + 1;
    tram_future *future;
    keep_future(tram_loop_create_connection(g.loop, factory, &g, "127.0.0.1", port, &options, maybe(&future)), &future);
}

static void make_udp(void) {
    tram_datagram_options options = {.local_host = "127.0.0.1"};
    tram_future *future;
    keep_future(tram_loop_create_datagram_endpoint(g.loop, factory, &g, &options, maybe(&future)), &future);
}

static void make_unix_datagram(void) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
        return;
    tram_datagram_options options = {.sock = &fds[0]};
    tram_future *future;
    int status = tram_loop_create_datagram_endpoint(g.loop, factory, &g, &options, maybe(&future));
    keep_future(status, &future);
    if (status)
        close(fds[0]);
    keep_fd(fds[1]);
}

static void make_pipe(void) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
        return;
    bool reads = one_in(2);
    tram_future *future;
    int status = reads ? tram_loop_connect_read_pipe(g.loop, factory, &g, fds[0], maybe(&future))
                       : tram_loop_connect_write_pipe(g.loop, factory, &g, fds[1], maybe(&future));
    keep_future(status, &future);
    if (status)
        close(fds[!reads]);
    keep_fd(fds[reads]);
}

static void make_subprocess(void) {
    static const char *const argv[] = {"cat", NULL};
    if (!one_in(4))
        return; /* it takes time */
    tram_future *future;
    keep_future(tram_loop_subprocess_exec(g.loop, factory, &g, argv, NULL, maybe(&future)), &future);
}

static void make_memory_pair(void) {
    struct fuzz_protocol *first = protocol_new(), *second = protocol_new();
    tram_transport *ends[2];
    if (tram_loop_create_pair(g.loop, &first->base, &second->base, &ends[0], &ends[1])) {
        protocol_undo(first);
        protocol_undo(second);
        return;
    }
    remember(ends[0], first);
    remember(ends[1], second);
}

/* The layer of support/layers.h, with some of its whims. */
static void push_layer(tram_transport *transport, bool may_leave) {
    struct codec *codec = codec_new(NULL, one_in(4) ? &codec_whole_kind : &codec_kind, &g.live_layers);
    codec->layer.start_timeout_ns = one_in(3) ? 1 + below(3000000) : 1000000000;
    codec->layer.shutdown_timeout_ns = 1 + below(3000000);
    codec->never_asks = one_in(2);
    codec->ignores_goodbyes = one_in(8);
    codec->leaves = may_leave && one_in(3);
    codec->fail_start = one_in(12) ? 1 + below(3) : 0;
    if (tram__transport_push_layer(transport, &codec->layer, bytes, one_in(4) ? below(20) : 0))
        codec->layer.kind->free(&codec->layer);
}

/* TLS, which may find a peer that speaks something else. */
static void push_secured(tram_transport *transport, bool server) {
#ifdef TRAM_TEST_TLS
    (void)tls_push(transport, server);
#else
    (void)transport, (void)server;
#endif
}

/* Both ends have layers, so that they understand each other. */
static void make_layered(void) {
    if (g.loop->closing)
        return; /* a loop that closes refuses public calls, but one below them makes these */
    struct fuzz_protocol *protocols[2] = {protocol_new(), protocol_new()};
    tram_transport *ends[2] = {NULL, NULL};
    if (one_in(3)) {
        if (tram_loop_create_pair(g.loop, &protocols[0]->base, &protocols[1]->base, &ends[0], &ends[1]))
            ends[0] = ends[1] = NULL;
    } else {
        int fds[2];
        (one_in(2) ? unix_pair : tcp_pair)(fds);
        if (one_in(2))
            shrink_buffers(fds[0]);
        for (int i = 0; i < 2; i++)
            if (transport_try_new(&(struct world){.loop = g.loop}, fds[i], &protocols[i]->base, NULL, &ends[i])) {
                ends[i] = NULL;
                close(fds[i]);
            }
    }
    unsigned depth = 1 + below(2), secured = one_in(2) ? below(1u << depth) : 0; /* a bit for each that is TLS */
    for (int i = 0; i < 2; i++) {
        if (!ends[i]) {
            protocol_undo(protocols[i]);
            continue;
        }
        remember(ends[i], protocols[i]);
        for (unsigned pushed = 0; pushed < depth; pushed++)
            if (secured & 1u << pushed)
                push_secured(ends[i], i == 0);
            else
                push_layer(ends[i], pushed == depth - 1);
    }
}

static void half_entry(const char *name) {
    begin_callback(name, 0, false);
    some_calls(2);
    end_callback();
}

static int half_writelines(tram_transport *transport, void *state, const struct iovec *pieces, size_t count) {
    struct half *half = state;
    CHECK(!half->over);
    (void)transport;
    for (size_t i = 0; i < count; i++)
        half->queued += pieces[i].iov_len;
    half_entry("custom writelines");
    return one_in(20) ? (one_in(2) ? -ENOMEM : -EPIPE) : 0;
}

static int half_entry_of(struct half *half, const char *name) {
    CHECK(!half->over);
    half_entry(name);
    return one_in(20) ? -EIO : 0;
}

static int half_write_eof(tram_transport *transport, void *state) {
    (void)transport;
    return half_entry_of(state, "custom write_eof");
}

static int half_pause(tram_transport *transport, void *state) {
    (void)transport;
    return half_entry_of(state, "custom pause_reading");
}

static int half_resume(tram_transport *transport, void *state) {
    (void)transport;
    return half_entry_of(state, "custom resume_reading");
}

static int half_close(tram_transport *transport, void *state) {
    (void)transport;
    int status = half_entry_of(state, "custom close");
    return status ? status : (int)below(2);
}

static void half_abort(tram_transport *transport, void *state) {
    struct half *half = state;
    (void)transport;
    half_entry("custom abort");
    half->queued = 0;
}

static void half_ended(tram_transport *transport, void *state) {
    struct half *half = state, **place = &g.halves;
    (void)transport;
    CHECK(!half->over);
    half->over = true;
    half_entry("custom ended");
    while (*place != half)
        place = &(*place)->next;
    *place = half->next;
    free(half);
}

static const tram_custom_ops half_ops = {.writelines = half_writelines,
                                         .write_eof = half_write_eof,
                                         .pause_reading = half_pause,
                                         .resume_reading = half_resume,
                                         .close = half_close,
                                         .abort = half_abort,
                                         .ended = half_ended};

static void make_custom(void) {
    struct half *half = calloc(1, sizeof *half);
    struct fuzz_protocol *protocol = protocol_new();
    if (tram_loop_create_custom(g.loop, &half_ops, half, &protocol->base, &half->transport)) {
        protocol_undo(protocol);
        free(half);
        return;
    }
    half->next = g.halves;
    g.halves = half;
    remember(half->transport, protocol);
}

static void make_descriptors(void) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
        return;
    keep_fd(fds[0]);
    keep_fd(fds[1]);
}

static void make_future(void) {
    tram_future *future = NULL;
    keep_future(tram_loop_create_future(g.loop, &future), &future);
}

/* ---- Calls on transports ---- */

#define ON_TRANSPORT(name, ...)                                                                                        \
    static void call_##name(void) {                                                                                    \
        tram_transport *transport = some_transport();                                                                  \
        if (transport)                                                                                                 \
            tram_transport_##name(transport, ##__VA_ARGS__);                                                           \
    }

ON_TRANSPORT(close)
ON_TRANSPORT(abort)
ON_TRANSPORT(close_lingering, below(3) * 1000000)
ON_TRANSPORT(reset)
ON_TRANSPORT(pause_reading)
ON_TRANSPORT(resume_reading)
ON_TRANSPORT(cork)
ON_TRANSPORT(uncork)
ON_TRANSPORT(write_eof)
ON_TRANSPORT(write, bytes, some_size())
ON_TRANSPORT(set_write_buffer_limits, below(3) * 1000, below(3) * 500)
ON_TRANSPORT(set_write_hard_limit, one_in(4) ? 1 + below(200000) : 0)
ON_TRANSPORT(terminate)
ON_TRANSPORT(kill)
ON_TRANSPORT(receive_fds, below(5))

static void call_writelines(void) {
    tram_transport *transport = some_transport();
    struct iovec pieces[4];
    for (size_t i = 0; i < 4; i++)
        pieces[i] = (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = below(3000)};
    if (one_in(10))
        pieces[0].iov_len = SIZE_MAX - 9; /* with any other no size */
    pieces[1].iov_len += 10;
    if (transport)
        tram_transport_writelines(transport, pieces, 4);
}

static void call_write_buffer(void) {
    tram_transport *transport = some_transport();
    if (!transport)
        return;
    size_t size = some_size();
    void *memory = malloc(size);
    memset(memory, 'b', size);
    g.live_buffers++;
    tram_buffer *buffer = tram_buffer_wrap(memory, size, on_buffer_released, memory);
    tram_transport_write_buffer(transport, buffer);
    tram_buffer_release(buffer);
}

static void call_look(void) {
    static const char *const names[] = {"socket",   "peername",   "sockname", "peercred", "pipe",
                                        "peercert", "sslcontext", "cipher",   "alpn",     "x"};
    tram_transport *transport = some_transport();
    int status;
    size_t low, high;
    if (!transport)
        return;
    tram_transport_get_extra_info(transport, names[below(10)], NULL);
    tram_transport_is_closing(transport);
    tram_transport_is_reading(transport);
    tram_transport_can_write_eof(transport);
    tram_transport_get_write_buffer_size(transport);
    tram_transport_get_write_buffer_limits(transport, &low, &high);
    tram_transport_get_protocol(transport);
    CHECK(tram_transport_get_loop(transport) == g.loop);
    tram_transport_datagram_size(transport);
    tram_transport_get_pid(transport);
    tram_transport_get_returncode(transport, &status);
}

/* Writes to a pipe of a subprocess, which lives as long as its process is not lost. */
static void call_pipe_of_process(void) {
    tram_transport *transport = some_transport();
    tram_transport *pipe = transport ? tram_transport_get_pipe_transport(transport, (int)below(3)) : NULL;
    if (!pipe)
        return;
    if (one_in(3))
        tram_transport_close(pipe);
    else
        tram_transport_write(pipe, bytes, some_size());
}

static void call_hold(void) {
    struct link *link = some_link();
    if (!link)
        return;
    link->holds++;
    tram_transport_hold(link->transport);
}

static void call_release(void) {
    struct link *link = some_link();
    if (!link || !link->holds || (link->protocol && link->protocol->life == LIFE_NEW))
        return;
    tram_transport *transport = link->transport;
    if (--link->holds == 0 && !link->protocol)
        forget_link(link);
    tram_transport_release(transport);
}

/* Calls may call back, and links move: where one with this number is now. */
static struct link *find_link(unsigned number) {
    for (size_t i = 0; i < g.link_count; i++)
        if (g.links[i].number == number)
            return &g.links[i];
    return NULL;
}

/* A transport has another protocol: where the call that gave it was refused, nobody has. */
static void follow(int status, unsigned number, struct fuzz_protocol *next) {
    note("  %u = %s", number, status < 0 ? tram_error_name(status) : "0");
    if (status) {
        protocol_undo(next);
        return;
    }
    struct link *link = find_link(number);
    CHECK(link);
    struct fuzz_protocol *old = link->protocol;
    CHECK(!old || old->life < LIFE_LOST);
    next->life = old ? old->life : LIFE_MADE;
    next->paused = old && old->paused;
    next->eof = old && old->eof;
    next->unsure = !old || old->unsure;
    if (old)
        old->link = NULL;
    link->protocol = next;
    next->link = link;
}

static void call_set_protocol(void) {
    struct link *link = some_link();
    if (!link)
        return;
    unsigned number = link->number;
    struct fuzz_protocol *next = protocol_new();
    follow(tram_transport_set_protocol(link->transport, &next->base), number, next);
}

static void call_start_tls(void) {
    struct link *link = some_link();
    if (!link)
        return;
    unsigned number = link->number;
    struct fuzz_protocol *next = one_in(2) ? protocol_new() : NULL;
    bool server = one_in(2);
    const tram_start_tls_options options = {.tls = server ? servers : clients,
                                            .server_side = server,
                                            .server_hostname = one_in(4)   ? NULL
                                                               : one_in(2) ? "localhost"
                                                                           : "",
                                            .handshake_timeout_ns = one_in(2) ? 1 + below(3000000) : 0,
                                            .ahead = bytes,
                                            .ahead_size = one_in(4) ? below(20) : 0};
    tram_future *future;
    int status = tram_loop_start_tls(g.loop, link->transport, next ? &next->base : NULL, &options, maybe(&future));
    if (next)
        follow(status, number, next);
    keep_future(status, &future);
}

static void call_detach(void) {
    struct link *link = some_link();
    tram_detached *detached;
    unsigned number = link ? link->number : 0;
    if (!link || tram_transport_detach(link->transport, &detached))
        return;
    note("  detached %u", number);
    link = find_link(number);
    CHECK(link);
    part(link);
    tram_future *future;
    int fd = one_in(3) ? -ENOTSUP : tram_detached_take_fd(detached);
    if (fd < 0) { /* so also with layers: it goes on whole, or ends */
        int status = one_in(8) || g.ending ? TRAM_ESTATE
                                           : tram_loop_adopt_detached(g.loop, factory, &g, detached, maybe(&future));
        if (status != TRAM_ESTATE)
            keep_future(status, &future);
        tram_detached_free(detached);
        return;
    }
    tram_detached_free(detached);
    if (one_in(2) && !g.ending) {
        int status = tram_loop_adopt(g.loop, factory, &g, fd, NULL, 0, maybe(&future));
        keep_future(status, &future);
        if (!status)
            return;
    }
    keep_fd(fd);
}

/* Two transports of which we hear no more: they stay on the list because they are held. */
static void call_bridge(void) {
    struct link *a = some_link(), *b = some_link();
    if (!a || a == b || !a->protocol || !b->protocol || a->protocol->life != LIFE_MADE ||
        b->protocol->life != LIFE_MADE)
        return;
    tram_bridge_options options = {.idle_timeout_ns = one_in(3) ? 1 + below(2000000) : 0};
    unsigned numbers[2] = {a->number, b->number};
    tram_transport *transports[2] = {a->transport, b->transport};
    tram_future *future;
    a->holds++;
    b->holds++;
    tram_transport_hold(transports[0]);
    tram_transport_hold(transports[1]);
    struct fuzz_protocol *protocols[2] = {a->protocol, b->protocol};
    bool unsure[2] = {a->protocol->unsure, b->protocol->unsure};
    protocols[0]->unsure = protocols[1]->unsure = true; /* for one that a callback in the call sets behind it */
    int status = tram_bridge(transports[0], transports[1], &options, maybe(&future));
    for (int i = 0; i < 2; i++) {
        struct link *link = find_link(numbers[i]);
        if (status)
            protocols[i]->unsure = unsure[i];
        else if (link)
            part(link); /* its hold may have been given back in a callback */
    }
    keep_future(status, &future);
}

static void call_sendfile(void) {
    tram_transport *transport = some_transport();
    tram_future *future;
    if (transport)
        keep_future(tram_loop_sendfile(g.loop, transport, g.file, below(100), one_in(2) ? TRAM_SENDFILE_ALL : 5000,
                                       NULL, maybe(&future)),
                    &future);
}

static void call_sendto(void) {
    tram_transport *transport = some_transport();
    tram_transport *other = some_transport();
    if (!transport || !other)
        return;
    tram_socket_address to;
    const tram_socket_address *address = tram_transport_get_extra_info(other, "sockname", NULL);
    if (address)
        to = *address;
    tram_transport_sendto(transport, bytes, below(2000), address ? &to : NULL);
}

static void call_send_descriptors(void) {
    tram_transport *transport = some_transport();
    int fds[2] = {some_fd(), some_fd()};
    if (transport && fds[0] >= 0)
        tram_transport_send_fds(transport, bytes, some_size(), fds, 1 + below(2));
}

static void call_take_descriptors(void) {
    tram_transport *transport = some_transport();
    int fds[4];
    size_t count = transport ? tram_transport_take_fds(transport, fds, 4) : 0;
    for (size_t i = 0; i < count && i < 4; i++)
        keep_fd(fds[i]);
}

/* ---- The user's half of custom transports ---- */

/* On whatever there is, whose other end may know nothing of layers. */
static void call_push_layer(void) {
    struct link *link = some_link();
    if (!link)
        return;
    note("  on %u", link->number);
    push_layer(link->transport, true);
}

static struct half *some_half(void) {
    struct half *half = g.halves;
    for (uint32_t skip = below(4); half && half->next && skip; skip--)
        half = half->next;
    return half && !half->over ? half : NULL;
}

static void call_custom_sent(void) {
    struct half *half = some_half();
    size_t size = half ? below((uint32_t)half->queued + 1) : 0;
    if (!half)
        return;
    half->queued -= size;
    in_custom_sent++;
    tram_custom_sent(half->transport, size);
    in_custom_sent--;
}

static void call_custom_lost(void) {
    struct half *half = some_half();
    tram_error error = {.code = -ECONNRESET, .operation = "test"};
    if (half)
        tram_custom_lost(half->transport, one_in(2) ? &error : NULL);
}

/* These two call the protocol: from the loop only. */
static int custom_input(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    struct half *half = some_half();
    if (half && one_in(3))
        tram_custom_eof(half->transport);
    else if (half)
        tram_custom_received(half->transport, bytes, some_size());
    return 0;
}

static void call_custom_input(void) {
    tram_loop_call_soon(g.loop, custom_input, NULL, NULL, NULL);
}

/* ---- Calls on the loop ---- */

static void keep_handle(int status, tram_handle handle, struct record *record) {
    if (status)
        record_free(record);
    else {
        g.handles[g.handle_count % MOST_HANDLES] = handle;
        g.records[g.handle_count++ % MOST_HANDLES] = record;
    }
}

static void call_soon(void) {
    struct record *record = record_new();
    tram_handle handle = {0, 0};
    keep_handle(tram_loop_call_soon(g.loop, on_call, record, on_discard, &handle), handle, record);
}

static void call_later(void) {
    struct record *record = record_new();
    tram_handle handle = {0, 0};
    keep_handle(tram_loop_call_later(g.loop, (int64_t)below(2000000) - 1000, on_call, record, on_discard, &handle),
                handle, record);
}

static void call_threadsafe(void) {
    struct record *record = record_new();
    int status = one_in(2) ? tram_loop_call_soon_threadsafe(g.loop, on_call, record, on_discard)
                           : tram_loop_try_call_soon_threadsafe(g.loop, on_call, record, on_discard);
    if (status)
        record_free(record);
}

static void call_cancel_handle(void) {
    uint32_t index = below(MOST_HANDLES);
    tram_handle handle = g.handles[index];
    uint64_t when;
    tram_handle_when(g.loop, handle, &when);
    if (tram_handle_cancel(g.loop, handle) == 1)
        record_free(g.records[index]);
    tram_handle_cancelled(g.loop, handle);
}

static void call_watch(void) {
    int fd = some_fd();
    switch (fd < 0 ? 4 : below(4)) {
    case 0:
        tram_loop_add_reader(g.loop, fd, on_ready, &g);
        break;
    case 1:
        tram_loop_add_writer(g.loop, fd, on_ready, &g);
        break;
    case 2:
        tram_loop_remove_reader(g.loop, fd);
        break;
    case 3:
        tram_loop_remove_writer(g.loop, fd);
        break;
    default:
        break;
    }
}

static void call_signal(void) {
    if (one_in(3))
        tram_loop_remove_signal_handler(g.loop, SIGUSR1);
    else if (!tram_loop_add_signal_handler(g.loop, SIGUSR1, on_signal, &g))
        raise(SIGUSR1);
}

static void call_settings(void) {
    switch (below(5)) {
    case 0:
        tram_loop_set_debug(g.loop, one_in(3));
        break;
    case 1:
        tram_loop_set_slow_callback_duration(g.loop, 1 + below(100000));
        break;
    case 2:
        tram_loop_set_exception_handler(g.loop, on_exception, &g);
        break;
    case 3: {
        tram_error error = {.code = TRAM_EUSER, .operation = "test"};
        tram_exception exception = {.message = "a test", .error = &error, .fd = -1};
        tram_loop_call_exception_handler(g.loop, &exception);
        break;
    }
    default:
        tram_loop_stop(g.loop);
    }
}

/* What only one can do at a time, and not while a tick is on. */
static void call_run_again(void) {
    if (!tram_loop_is_running(g.loop))
        return;
    CHECK(tram_loop_run_forever(g.loop) == TRAM_ESTATE);
    CHECK(tram_loop_dispatch(g.loop) == TRAM_ESTATE);
    CHECK(tram_loop_close(g.loop) == TRAM_ESTATE);
    CHECK(tram_loop_free(g.loop) == TRAM_ESTATE);
}

static void call_job(void) {
    tram_future *future;
    if (one_in(4)) /* threads take time */
        keep_future(tram_loop_run_in_executor(g.loop, NULL, on_job, &g, NULL, maybe(&future)), &future);
}

/* ---- Calls on futures ---- */

static void call_cancel(void) {
    tram_future *future = some_future();
    if (future)
        tram_future_cancel(future);
}

static void call_release_future(void) {
    if (!g.future_count)
        return;
    size_t index = below((uint32_t)g.future_count);
    tram_future *future = g.futures[index];
    g.futures[index] = g.futures[--g.future_count];
    tram_future_release(future);
}

static void call_future(void) {
    tram_future *future = some_future();
    tram_error error = {.code = -EIO, .operation = "test", .detail = "detail"};
    void *value;
    switch (future ? below(6) : 6) {
    case 0:
        tram_future_add_done_callback(future, on_done, &g);
        break;
    case 1:
        tram_future_remove_done_callback(future, on_done, &g);
        break;
    case 2:
        tram_future_set_result(future, NULL);
        break;
    case 3:
        tram_future_set_error(future, &error);
        break;
    case 4:
        tram_future_result(future, &value);
        tram_future_error(future);
        break;
    case 5:
        tram_future_release(tram_future_hold(future));
        break;
    default:
        break;
    }
}

/* ---- Calls on servers ---- */

static void call_server(void) {
    tram_server *server = some_server();
    tram_future *future = NULL;
    if (!server)
        return;
    switch (below(9)) {
    case 0:
        tram_server_close(server);
        break;
    case 1:
        tram_server_close_clients(server);
        break;
    case 2:
        tram_server_abort_clients(server);
        break;
    case 3:
        keep_future(tram_server_wait_closed(server, &future), &future);
        break;
    case 4:
        keep_future(tram_server_drain(server, below(1000000), &future), &future);
        break;
    case 5:
        tram_server_each_client(server, on_client, &g);
        break;
    case 6:
        keep_future(tram_server_start_serving(server, &future), &future);
        break;
    case 7:
        keep_future(tram_server_serve_forever(server, &future), &future);
        break;
    default:
        tram_server_is_serving(server);
        tram_server_connection_count(server);
    }
}

/* ---- Calls on descriptors ---- */

static void call_on_fd(void) {
    int fd = some_fd();
    static char memory[4096];
    tram_future *future;
    if (fd < 0)
        return;
    switch (below(6)) {
    case 0:
        keep_future(tram_loop_sock_recv(g.loop, fd, some_size(), maybe(&future)), &future);
        break;
    case 1:
        keep_future(tram_loop_sock_recv_into(g.loop, fd, memory, sizeof memory, maybe(&future)), &future);
        break;
    case 2:
        keep_future(tram_loop_sock_sendall(g.loop, fd, bytes, some_size(), maybe(&future)), &future);
        break;
    case 3:
        keep_future(tram_loop_sock_sendfile(g.loop, fd, g.file, 0, 3000, NULL, maybe(&future)), &future);
        break;
    case 4: /* the other end does something by itself */
        (void)!send(fd, bytes, some_size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    default: {
        static char sink[65536];
        (void)!recv(fd, sink, sizeof sink, MSG_DONTWAIT);
    }
    }
}

static void call_peek(void) {
    int fd = give_fd();
    tram_future *future = NULL;
    if (fd < 0)
        return;
    int status = tram_loop_peek(g.loop, fd, 1 + below(100), below(1000000), maybe(&future));
    keep_future(status, &future);
    keep_fd(fd); /* it stays ours; what peeks gives way */
}

static void call_close_fd(void) {
    int fd = give_fd();
    if (fd >= 0)
        close(fd);
}

/* ---- Messages and actors ---- */

#include "stress/random_actors.h"

/* ---- Faults ---- */

static const struct {
    tram_fault_kind kind;
    int errors[3];
} failures[] = {
    {TRAM_FAULT_ALLOCATE, {ENOMEM, ENOMEM, ENOMEM}},
    {TRAM_FAULT_ALLOCATE, {ENOMEM, ENOMEM, ENOMEM}},
    {TRAM_FAULT_SOCKET, {EMFILE, ENOBUFS, EAFNOSUPPORT}},
    {TRAM_FAULT_BIND, {EADDRINUSE, EACCES, EADDRNOTAVAIL}},
    {TRAM_FAULT_LISTEN, {EADDRINUSE, EADDRINUSE, EADDRINUSE}},
    {TRAM_FAULT_CONNECT, {ECONNREFUSED, EINTR, ENETUNREACH}},
    {TRAM_FAULT_ACCEPT4, {EMFILE, ECONNABORTED, EAGAIN}},
    {TRAM_FAULT_RECV, {ECONNRESET, EINTR, EAGAIN}},
    {TRAM_FAULT_RECVMSG, {ECONNRESET, EINTR, EAGAIN}},
    {TRAM_FAULT_RECVMMSG, {ECONNREFUSED, EINTR, EAGAIN}},
    {TRAM_FAULT_SEND, {EPIPE, EINTR, EAGAIN}},
    {TRAM_FAULT_SENDTO, {ENOBUFS, EPERM, EAGAIN}},
    {TRAM_FAULT_SENDMSG, {ECONNRESET, EINTR, EAGAIN}},
    {TRAM_FAULT_SENDMMSG, {ENOBUFS, EPERM, EAGAIN}},
    {TRAM_FAULT_SENDFILE, {EINVAL, EIO, EAGAIN}},
    {TRAM_FAULT_SPLICE, {EINVAL, ENOMEM, EAGAIN}},
    {TRAM_FAULT_SHUTDOWN, {ENOTCONN, ENOTCONN, ENOTCONN}},
    {TRAM_FAULT_GETSOCKOPT, {ENOBUFS, ENOBUFS, ENOBUFS}},
    {TRAM_FAULT_SETSOCKOPT, {ENOBUFS, EINVAL, EPERM}},
    {TRAM_FAULT_GETSOCKNAME, {ENOBUFS, ENOBUFS, ENOBUFS}},
    {TRAM_FAULT_GETPEERNAME, {ENOTCONN, ENOTCONN, ENOTCONN}},
    {TRAM_FAULT_FCNTL, {EMFILE, EMFILE, EMFILE}},
    {TRAM_FAULT_CLOSE, {EIO, EINTR, EIO}},
    {TRAM_FAULT_READ, {EIO, EINTR, EAGAIN}},
    {TRAM_FAULT_WRITE, {EPIPE, EINTR, EAGAIN}},
    {TRAM_FAULT_WRITEV, {EPIPE, EINTR, EAGAIN}},
    {TRAM_FAULT_PWRITEV2, {EOPNOTSUPP, ENOSYS, EAGAIN}},
    {TRAM_FAULT_FSTAT, {EIO, EIO, EIO}},
    {TRAM_FAULT_PIPE2, {EMFILE, ENFILE, EMFILE}},
    {TRAM_FAULT_POSIX_SPAWN, {ENOMEM, EAGAIN, ENOENT}},
    {TRAM_FAULT_PIDFD_OPEN, {EMFILE, ENODEV, ENOMEM}},
    {TRAM_FAULT_EPOLL_CTL, {ENOMEM, ENOSPC, ENOMEM}},
    {TRAM_FAULT_EPOLL_WAIT, {EINTR, EINTR, EINTR}},
};

static void call_fault(void) {
    size_t index = below(sizeof failures / sizeof failures[0]);
    tram_fault_kind kind = failures[index].kind;
    if (g.ending)
        return;
    note("  %s", tram_fault_kind_name(kind));
    if (one_in(3) && tram_faults_shorten(g.faults, kind, 1 + below(6), 1 + below(4), 1 + below(50)) == 0)
        return;
    tram_faults_fail(g.faults, kind, 1 + below(6), 1 + below(3), failures[index].errors[below(3)]);
}

/* ---- The tables ---- */

struct choice {
    const char *name;
    void (*function)(void);
    unsigned weight;
};

#define CHOICE(name, weight)                                                                                           \
    { #name, name, weight }

static const struct choice kinds[] = {
    CHOICE(make_unix_stream, 6),   CHOICE(make_tcp, 4),        CHOICE(make_server, 4),
    CHOICE(make_unix_server, 2),   CHOICE(make_connection, 6), CHOICE(make_udp, 3),
    CHOICE(make_unix_datagram, 3), CHOICE(make_pipe, 4),       CHOICE(make_subprocess, 2),
    CHOICE(make_memory_pair, 5),   CHOICE(make_custom, 5),     CHOICE(make_descriptors, 3),
    CHOICE(make_future, 2),        CHOICE(make_layered, 5),    CHOICE(make_actor, 4),
};

static const struct choice calls[] = {
    CHOICE(call_close, 3),
    CHOICE(call_abort, 3),
    CHOICE(call_close_lingering, 1),
    CHOICE(call_reset, 1),
    CHOICE(call_pause_reading, 3),
    CHOICE(call_resume_reading, 5),
    CHOICE(call_cork, 4),
    CHOICE(call_uncork, 5),
    CHOICE(call_write_eof, 2),
    CHOICE(call_write, 12),
    CHOICE(call_writelines, 4),
    CHOICE(call_write_buffer, 8),
    CHOICE(call_set_write_buffer_limits, 4),
    CHOICE(call_set_write_hard_limit, 1),
    CHOICE(call_terminate, 1),
    CHOICE(call_kill, 1),
    CHOICE(call_receive_fds, 1),
    CHOICE(call_look, 2),
    CHOICE(call_pipe_of_process, 2),
    CHOICE(call_hold, 2),
    CHOICE(call_release, 4),
    CHOICE(call_set_protocol, 4),
    CHOICE(call_start_tls, 2),
    CHOICE(call_detach, 2),
    CHOICE(call_bridge, 3),
    CHOICE(call_sendfile, 3),
    CHOICE(call_sendto, 5),
    CHOICE(call_send_descriptors, 2),
    CHOICE(call_take_descriptors, 1),
    CHOICE(call_custom_sent, 5),
    CHOICE(call_custom_lost, 1),
    CHOICE(call_custom_input, 5),
    CHOICE(call_soon, 3),
    CHOICE(call_later, 3),
    CHOICE(call_threadsafe, 2),
    CHOICE(call_cancel_handle, 2),
    CHOICE(call_watch, 3),
    CHOICE(call_signal, 1),
    CHOICE(call_settings, 2),
    CHOICE(call_run_again, 1),
    CHOICE(call_job, 1),
    CHOICE(call_cancel, 4),
    CHOICE(call_release_future, 4),
    CHOICE(call_future, 4),
    CHOICE(call_server, 4),
    CHOICE(call_on_fd, 5),
    CHOICE(call_peek, 1),
    CHOICE(call_push_layer, 2),
    CHOICE(call_close_fd, 1),
    CHOICE(call_transport_address, 6),
    CHOICE(call_post, 8),
    CHOICE(call_post_batch, 2),
    CHOICE(call_broadcast, 2),
    CHOICE(call_ask, 6),
    CHOICE(call_credit, 1),
    CHOICE(call_reply, 5),
    CHOICE(call_take_reply, 2),
    CHOICE(call_submit, 1),
    CHOICE(call_address_settings, 1),
    CHOICE(call_actor, 6),
    CHOICE(call_fault, 4),
};

static void choose(const struct choice *choices, size_t count) {
    unsigned total = 0;
    for (size_t i = 0; i < count; i++)
        total += choices[i].weight;
    uint32_t at = below(total);
    const struct choice *choice = choices;
    while (at >= choice->weight)
        at -= (choice++)->weight;
    note("%s", choice->name);
    shared->calls++;
    g.depth++;
    g.in_calls++;
    choice->function();
    g.in_calls--;
    g.depth--;
}

static void some_calls(unsigned most) {
    if (g.depth > 2 * NESTING || g.ending)
        return;
    for (uint32_t count = below(most + 1); count && g.calls_left; count--) {
        g.calls_left--;
        if (one_in(6))
            choose(kinds, sizeof kinds / sizeof *kinds);
        else
            choose(calls, sizeof calls / sizeof *calls);
    }
}

/* ---- A seed ---- */

static int descriptors_now(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static void ticks(unsigned count) {
    while (count--) {
        tram_loop_stop(g.loop);
        CHECK(tram_loop_run_forever(g.loop) == 0);
    }
}

/* Gives everything back, in no special order. */
static void give_back(void) {
    while (g.future_count)
        tram_future_release(g.futures[--g.future_count]);
    while (g.creation_count) {
        tram_future *creation = g.creations[--g.creation_count];
        if (creation)
            take_server(creation);
        tram_future_release(creation);
    }
    while (g.server_count) {
        tram_server_close(g.servers[--g.server_count]);
        tram_server_release(g.servers[g.server_count]);
    }
    for (size_t i = g.link_count; i-- > 0;) {
        struct link *link = &g.links[i];
        tram_transport *transport = link->transport;
        unsigned holds = link->holds;
        link->holds = 0;
        if (!link->protocol)
            forget_link(link);
        while (holds--)
            tram_transport_release(transport);
    }
}

static void play(uint64_t seed) {
    int descriptors = descriptors_now();
    memset(&g, 0, sizeof g);
    memset(&a, 0, sizeof a);
    g.seed = shared->seed = seed;
    g.random = seed * 2654435761u + 12345;
    g.calls_left = CALLS_OF_SEED;
    g.file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    shared->log_count = 0;
    below(1);
    CHECK(tram_faults_new(NULL, &g.faults) == 0);
    tram_loop_options options = {.faults = g.faults, .log = on_log, .log_arg = &g, .debug = one_in(6)};
    CHECK(tram_loop_new(&options, &g.loop) == 0);
    for (unsigned round = 0; round < 40; round++) {
        some_calls(6);
        ticks(1);
        if (round % 8 == 7) {
            struct timespec pause = {.tv_nsec = 300000};
            nanosleep(&pause, NULL);
        }
    }
    bool gently = one_in(2), holding = one_in(2);
    note("ending, gently %d, holding %d", gently, holding);
    if (one_in(2)) {
        tram_faults_reset(g.faults);
        g.ending = true;
    }
    if (!holding) {
        give_back();
        answer_all();
    }
    if (gently) {
        for (size_t i = 0; i < g.link_count; i++)
            tram_transport_abort(g.links[i].transport);
        ticks(10);
    }
    CHECK(tram_loop_close(g.loop) == 0);
    g.ending = true;
    CHECK(g.live_protocols == 0);
    give_back();
    if (one_in(2))
        answer_all();
    CHECK(tram_loop_free(g.loop) == 0);
    answer_all();
    CHECK(a.live_parcels == 0);
    CHECK(a.live_actors == 0);
    CHECK(a.live_work == 0);
    CHECK(g.link_count == 0);
    CHECK(g.live_buffers == 0);
    CHECK(g.live_layers == 0);
    CHECK(g.live_records == 0);
    CHECK(!g.halves);
    size_t blocks;
    tram_faults_memory(g.faults, &blocks, NULL);
    CHECK(blocks == 0);
    tram_faults_free(g.faults);
    while (g.fd_count)
        close(g.fds[--g.fd_count]);
    close(g.file);
    CHECK(descriptors_now() == descriptors);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

int main(int argc, char **argv) {
    uint64_t seed = 1, count = getenv("TRAM_TEST_FULL") ? 20000 : 300;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--count") == 0 && i + 1 < argc)
            count = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--verbose") == 0)
            verbose = true;
        else
            return fprintf(stderr, "usage: %s [--seed N] [--count K] [--verbose]\n", argv[0]), 2;
    }
    signal(SIGUSR1, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t player = fork();
    if (player == 0) {
#ifdef TRAM_TEST_TLS
        tls_setup(NULL);
#endif
        for (uint64_t i = 0; i < count; i++) {
            alarm(60); /* for all of a seed */
            play(seed + i);
        }
#ifdef TRAM_TEST_TLS
        tls_teardown(NULL);
#endif
        exit(0);
    }
    int status = 0;
    waitpid(player, &status, 0);
    if (status) {
        print_log();
        return 1;
    }
    printf("%llu seeds, %llu calls\n", (unsigned long long)count, (unsigned long long)shared->calls);
    return 0;
}
