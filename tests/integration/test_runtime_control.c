/* What a runtime's control may not wait for: locks that workers want, posts, and signals that come in pairs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "support/memory.h"
#include "support/support.h"

/* ---- Helpers ---- */

static int keep_quiet(tram_protocol *self, const void *data, size_t size) {
    (void)self;
    (void)data;
    (void)size;
    return 0;
}

static void free_protocol(tram_protocol *self) {
    free(self);
}

static const tram_protocol_ops quiet_ops = {.data_received = keep_quiet, .released = free_protocol};

static int quiet_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = calloc(1, sizeof **ret_protocol);
    (*ret_protocol)->ops = &quiet_ops;
    return 0;
}

static tram_runtime *runtime_new(const tram_runtime_options *options) {
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(options, &runtime), 0);
    return runtime;
}

static tram_runtime_server *serve(tram_runtime *runtime) {
    tram_runtime_server *server;
    assert_int_equal(tram_runtime_create_server(runtime, quiet_factory, NULL, "127.0.0.1", "0", NULL, &server, NULL),
                     0);
    return server;
}

static void pause_ms(long ms) {
    const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* A deadlock ends the program, and so fails it. */
static int with_deadline(void **state) {
    (void)state;
    alarm(120);
    return 0;
}

static int without_deadline(void **state) {
    (void)state;
    alarm(0);
    return 0;
}

/* ---- Locks ---- */

struct offering {
    tram_runtime_server *server;
    tram_runtime *runtime;
    char path[64];
    _Atomic unsigned offers;
    _Atomic bool ends;
};

static int offer_listeners(struct offering *offering, tram_offer **ret_offer) {
    const tram_offered offered = {.name = "echo", .server = offering->server};
    return tram_runtime_offer_listeners(offering->runtime, offering->path, strlen(offering->path), &offered, 1, NULL,
                                        ret_offer, NULL);
}

static int offer_at_start(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)loop;
    (void)state;
    struct offering *offering = arg;
    if (worker != 1)
        return 0;
    int status = offer_listeners(offering, NULL);
    offering->offers += status == 0;
    return status;
}

static void test_V_51_a_start_function_offers_listeners(void **state) {
    (void)state;
    struct offering offering = {0};
    snprintf(offering.path, sizeof offering.path, "/tmp/tram-offer-%d", (int)getpid());
    tram_runtime_options options = {.workers = 2, .start = offer_at_start, .arg = &offering};
    offering.runtime = runtime_new(&options);
    offering.server = serve(offering.runtime);
    assert_int_equal(tram_runtime_start(offering.runtime), 0);
    assert_int_equal(offering.offers, 1);
    /* It is there, and served: the path speaks the protocol of offers. */
    tram_listener found[4];
    int link = -1;
    assert_int_equal(tram_listeners_inherit(offering.path, strlen(offering.path), NULL, found, 4, &link), 2);
    tram_listeners_close(found, 2);
    close(link);
    tram_runtime_free(offering.runtime);
    assert_int_not_equal(access(offering.path, F_OK), 0);
}

static int offer_again(tram_loop *loop, void *arg) {
    struct offering *offering = arg;
    tram_offer *offer;
    if (offering->ends)
        return 0;
    if (offer_listeners(offering, &offer) == 0) {
        offering->offers++;
        tram_offer_release(offer);
    }
    return tram_loop_call_soon(loop, offer_again, offering, NULL, NULL);
}

static void test_V_51_callbacks_offer_while_others_create(void **state) {
    (void)state;
    struct offering offering = {0};
    snprintf(offering.path, sizeof offering.path, "/tmp/tram-offer-%d", (int)getpid());
    tram_runtime_options options = {.workers = 2};
    offering.runtime = runtime_new(&options);
    offering.server = serve(offering.runtime);
    assert_int_equal(tram_runtime_start(offering.runtime), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(
            tram_loop_call_soon_threadsafe(tram_runtime_loop(offering.runtime, i), offer_again, &offering, NULL), 0);
    while (offering.offers < 100)
        assert_int_equal(tram_runtime_server_release(serve(offering.runtime)), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(tram_runtime_server_release(serve(offering.runtime)), 0);
    offering.ends = true;
    tram_runtime_free(offering.runtime);
}

/* What the runtime calls on a worker's thread as it ends may call the runtime. */
static void call_the_runtime(void *arg, tram_log_level level, const char *line) {
    (void)level;
    (void)line;
    struct offering *offering = arg;
    offering->offers++;
    offer_listeners(offering, NULL); /* refused: it ends */
    tram_runtime_server_release(NULL);
    tram_runtime_stop(offering->runtime);
}

static int lose_directory(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime;
    (void)loop;
    (void)state;
    struct offering *offering = arg;
    char directory[64], elsewhere[72];
    if (worker != 0)
        return 0;
    snprintf(directory, sizeof directory, "/tmp/tram-offers-%d", (int)getpid());
    snprintf(elsewhere, sizeof elsewhere, "%s.moved", directory);
    (void)offering;
    return rename(directory, elsewhere);
}

static void test_V_51_a_log_function_calls_the_runtime_that_ends(void **state) {
    (void)state;
    struct offering offering = {0};
    char directory[48], elsewhere[64], file[96];
    snprintf(directory, sizeof directory, "/tmp/tram-offers-%d", (int)getpid());
    snprintf(elsewhere, sizeof elsewhere, "%s.moved", directory);
    snprintf(offering.path, sizeof offering.path, "%s/x", directory);
    snprintf(file, sizeof file, "%s/x", elsewhere);
    assert_int_equal(mkdir(directory, 0700), 0);
    tram_runtime_options options = {.workers = 2, .stop = lose_directory, .arg = &offering, .handle_signals = false};
    options.loop.log = call_the_runtime;
    options.loop.log_arg = &offering;
    offering.runtime = runtime_new(&options);
    offering.server = serve(offering.runtime);
    assert_int_equal(offer_listeners(&offering, NULL), 0);
    assert_int_equal(tram_runtime_start(offering.runtime), 0);
    tram_runtime_stop(offering.runtime);
    assert_int_equal(tram_runtime_join(offering.runtime), 0);
    tram_runtime_free(offering.runtime);
    unlink(file);
    rmdir(elsewhere);
}

/* ---- Posts ---- */

struct flood {
    sem_t gate;
    sem_t inside;
    _Atomic unsigned ran;
    _Atomic unsigned discarded;
};

static int wait_at_gate(tram_loop *loop, void *arg) {
    (void)loop;
    struct flood *flood = arg;
    sem_post(&flood->inside);
    while (sem_wait(&flood->gate))
        continue;
    return 0;
}

static int work(tram_loop *loop, void *arg) {
    (void)loop;
    ((struct flood *)arg)->ran++;
    return 0;
}

static void discard_work(void *arg) {
    ((struct flood *)arg)->discarded++;
}

#define POSTS 5000

static void check_posts_after_stops(unsigned workers, unsigned stops, bool connected) {
    struct flood flood = {.ran = 0};
    sem_init(&flood.gate, 0, 0);
    sem_init(&flood.inside, 0, 0);
    tram_runtime_options options = {.workers = workers, .grace_ns = 100000000};
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server = serve(runtime);
    assert_int_equal(tram_runtime_start(runtime), 0);
    int fd = -1;
    if (connected) {
        tram_socket_address address;
        struct sockaddr_in inet;
        assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
        memcpy(&inet, &address.address, sizeof inet);
        fd = tcp_connect(ntohs(inet.sin_port));
        while (!tram_runtime_server_connection_count(server, 0))
            pause_ms(1);
    }
    tram_loop *loop = tram_runtime_loop(runtime, 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(loop, wait_at_gate, &flood, NULL), 0);
    sem_wait(&flood.inside);
    for (int i = 0; i < POSTS; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(loop, work, &flood, discard_work), 0);
    for (unsigned i = 0; i < stops; i++)
        assert_int_equal(tram_runtime_stop(runtime), 0);
    sem_post(&flood.gate);
    assert_true(tram_runtime_join(runtime) >= 0);
    tram_runtime_free(runtime);
    if (flood.ran > 256)
        fail_msg("%u posts ran after the stop", flood.ran);
    assert_int_equal(flood.ran + flood.discarded, POSTS);
    sem_destroy(&flood.gate);
    sem_destroy(&flood.inside);
    if (fd >= 0)
        close(fd);
}

static void test_V_51_a_stop_does_not_wait_behind_posts(void **state) {
    (void)state;
    check_posts_after_stops(1, 1, false);
    check_posts_after_stops(2, 1, false);
    check_posts_after_stops(1, 1, true);
}

static void test_V_51_a_second_stop_does_not_wait_behind_posts(void **state) {
    (void)state;
    check_posts_after_stops(1, 2, false);
    check_posts_after_stops(1, 2, true);
}

static int slow_work(tram_loop *loop, void *arg) {
    pause_ms(1);
    return work(loop, arg);
}

static int flood_made(tram_protocol *protocol, tram_transport *transport) {
    static const char bytes[65536];
    (void)protocol;
    for (size_t sent = 0; sent < (32u << 20); sent += sizeof bytes)
        if (tram_transport_write(transport, bytes, sizeof bytes))
            return TRAM_EUSER;
    return 0;
}

static const tram_protocol_ops flood_ops = {.connection_made = flood_made, .released = free_protocol};

static int flood_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    int status = quiet_factory(loop, arg, ret_protocol);
    (*ret_protocol)->ops = &flood_ops;
    return status;
}

/* The grace ends by the clock, too: with a peer that never reads, and posts of a millisecond each. */
static void test_V_51_the_end_of_the_grace_does_not_wait_behind_posts(void **state) {
    (void)state;
    struct flood flood = {.ran = 0};
    tram_runtime_options options = {.workers = 1, .grace_ns = 100000000};
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server;
    assert_int_equal(tram_runtime_create_server(runtime, flood_factory, NULL, "127.0.0.1", "0", NULL, &server, NULL),
                     0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    tram_socket_address address;
    struct sockaddr_in inet;
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    int fd = tcp_connect(ntohs(inet.sin_port));
    while (!tram_runtime_server_connection_count(server, 0))
        pause_ms(1);
    tram_loop *loop = tram_runtime_loop(runtime, 0);
    for (int i = 0; i < POSTS; i++)
        assert_int_equal(tram_loop_call_soon_threadsafe(loop, slow_work, &flood, discard_work), 0);
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 1);
    tram_runtime_free(runtime);
    assert_in_range(flood.ran, 0, 1000); /* some hundred, and not all */
    close(fd);
}

/* ---- Signals ---- */

/* As timeout(1) does: the child, and then its group. */
static void test_V_51_two_signals_at_once_are_one(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 1, .grace_ns = 3600000000000, .handle_signals = true};
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *server;
    assert_int_equal(tram_runtime_create_server(runtime, flood_factory, NULL, "127.0.0.1", "0", NULL, &server, NULL),
                     0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    tram_socket_address address;
    struct sockaddr_in inet;
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    int fd = tcp_connect(ntohs(inet.sin_port));
    while (!tram_runtime_server_connection_count(server, 0))
        pause_ms(1);
    /* The loop is busy when the first one comes, and looks at the second one much later. */
    struct flood flood = {.ran = 0};
    sem_init(&flood.gate, 0, 0);
    sem_init(&flood.inside, 0, 0);
    tram_loop *loop = tram_runtime_loop(runtime, 0);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    assert_int_equal(kill(getpid(), SIGINT), 0);
    clock_gettime(CLOCK_MONOTONIC, &to);
    bool together = (to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec < 50000000;
    assert_int_equal(tram_loop_call_soon_threadsafe(loop, wait_at_gate, &flood, NULL), 0);
    sem_wait(&flood.inside);
    sem_post(&flood.gate);
    /* What is queued is still sent, to the last byte: the grace goes on. */
    size_t received = 0;
    static char bytes[65536];
    pause_ms(20);
    for (ssize_t size; (size = read(fd, bytes, sizeof bytes)) > 0;)
        received += (size_t)size;
    close(fd);
    int aborted = tram_runtime_join(runtime);
    if (together) {
        assert_int_equal(received, 32u << 20);
        assert_int_equal(aborted, 0);
    }
    tram_runtime_free(runtime);
    sem_destroy(&flood.gate);
    sem_destroy(&flood.inside);
}

/* ---- Letting go ---- */

static _Atomic size_t live_blocks;

static void *count_allocate(void *arg, size_t size) {
    (void)arg;
    void *memory = malloc(size);
    live_blocks += memory != NULL;
    return memory;
}

static void count_free(void *arg, void *memory, size_t size) {
    (void)arg;
    (void)size;
    live_blocks -= memory != NULL;
    free(memory);
}

static const tram_allocator counting = {.allocate = count_allocate, .release = count_free};

/* But for some nodes of mail, as many as were on their way at once. */
static void await_blocks(size_t expected) {
    for (int i = 0; i < 10000 && live_blocks > expected + 8; i++)
        pause_ms(1);
    assert_in_range(live_blocks, 0, expected + 8);
}

static int connect_to(const tram_runtime_server *server) {
    tram_socket_address address;
    struct sockaddr_in inet;
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    int fd = tcp_connect(ntohs(inet.sin_port));
    assert_true(fd >= 0);
    return fd;
}

static const tram_server_limits every_limit = {
    .max_connections = 100, .max_per_source = 50, .idle_timeout_ns = 3600000000000};

/* A proxy that reloads: servers come and go, and nothing of them stays. */
static void test_V_52_released_servers_leave_nothing(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 2, .loop = {.allocator = &counting}};
    tram_runtime *runtime = runtime_new(&options);
    tram_runtime_server *early = serve(runtime);
    assert_int_equal(tram_runtime_server_release(early), 0); /* nobody has begun */
    assert_int_equal(tram_runtime_start(runtime), 0);
    tram_server_options limited = {.limits = &every_limit};
    size_t before = 0;
    for (int i = 0; i < 20; i++) {
        tram_runtime_server *server;
        assert_int_equal(tram_runtime_create_server(runtime, quiet_factory, NULL, "127.0.0.1", "0",
                                                    i % 2 ? &limited : NULL, &server, NULL),
                         0);
        int fds[8];
        for (int j = 0; j < 8; j++)
            fds[j] = connect_to(server);
        while (tram_runtime_server_connection_count(server, 0) + tram_runtime_server_connection_count(server, 1) < 8)
            pause_ms(1);
        assert_int_equal(tram_runtime_server_release(server), 0);
        pause_ms(2); /* the connections go on, and the server with them */
        for (int j = 0; j < 8; j++)
            assert_int_equal(send(fds[j], "x", 1, MSG_NOSIGNAL), 1);
        for (int j = 0; j < 8; j++)
            close(fds[j]);
        if (i == 3) { /* the caches of the loops are filled */
            pause_ms(100);
            before = live_blocks;
        }
        if (i > 3)
            await_blocks(before);
    }
    tram_runtime_free(runtime);
    assert_int_equal(live_blocks, 0);
}

static void test_V_52_released_endpoints_and_offers_leave_nothing(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 2, .loop = {.allocator = &counting}};
    struct offering offering = {.runtime = runtime_new(&options)};
    snprintf(offering.path, sizeof offering.path, "/tmp/tram-offer-%d", (int)getpid());
    assert_int_equal(tram_runtime_start(offering.runtime), 0);
    size_t before = 0;
    for (int i = 0; i < 20; i++) {
        tram_runtime_datagram_endpoint *endpoint;
        tram_datagram_options where = {.local_host = "127.0.0.1", .local_port = "0"};
        tram_offer *offer;
        assert_int_equal(
            tram_runtime_create_datagram_endpoint(offering.runtime, quiet_factory, NULL, &where, &endpoint, NULL), 0);
        assert_int_equal(tram_runtime_datagram_endpoint_release(endpoint), 0);
        offering.server = serve(offering.runtime);
        assert_int_equal(offer_listeners(&offering, &offer), 0);
        assert_int_equal(tram_runtime_server_release(offering.server), 0); /* the offer goes on without it */
        assert_int_equal(tram_offer_release(offer), 0);
        if (i == 3) {
            pause_ms(100);
            before = live_blocks;
        }
        if (i > 3)
            await_blocks(before);
    }
    tram_runtime_free(offering.runtime);
    assert_int_equal(live_blocks, 0);
}

static int refuse_protocol(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)arg;
    (void)ret_protocol;
    return tram_loop_raise(loop, TRAM_EUSER, NULL, "no protocol today");
}

/* What failed is freed at once, and its error outlives the runtime. */
static void test_V_52_failed_endpoints_leave_nothing(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 2, .loop = {.allocator = &counting}};
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_start(runtime), 0);
    size_t before = 0;
    tram_error error = {0};
    tram_datagram_options where = {.local_host = "127.0.0.1", .local_port = "0"};
    for (int i = 0; i < 20; i++) {
        assert_int_equal(tram_runtime_create_datagram_endpoint(runtime, refuse_protocol, NULL, &where, NULL, &error),
                         TRAM_EUSER);
        if (i == 3) {
            pause_ms(100);
            before = live_blocks;
        }
        if (i > 3)
            await_blocks(before);
    }
    tram_runtime_free(runtime);
    assert_int_equal(live_blocks, 0);
    assert_string_equal(error.detail, "no protocol today");
}

/* ---- What the workers and others see ---- */

static sem_t state_is_half, state_was_read;
static int half, whole;

static int state_in_two_steps(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime, (void)worker, (void)loop, (void)arg;
    *state = &half;
    sem_post(&state_is_half);
    sem_wait(&state_was_read);
    *state = &whole;
    return 0;
}

static int change_state_at_end(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime, (void)worker, (void)loop, (void)arg;
    assert_ptr_equal(*state, &whole);
    *state = NULL;
    return 0;
}

static void *start_and_join(void *arg) {
    assert_int_equal(tram_runtime_start(arg), 0);
    assert_int_equal(tram_runtime_join(arg), 0);
    return NULL;
}

static void test_V_51_a_state_is_seen_when_start_has_returned(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 1, .start = state_in_two_steps, .stop = change_state_at_end};
    tram_runtime *runtime = runtime_new(&options);
    sem_init(&state_is_half, 0, 0);
    sem_init(&state_was_read, 0, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, start_and_join, runtime), 0);
    sem_wait(&state_is_half);
    assert_null(tram_runtime_state(runtime, 0));
    sem_post(&state_was_read);
    while (!tram_runtime_state(runtime, 0))
        pause_ms(1);
    assert_ptr_equal(tram_runtime_state(runtime, 0), &whole);
    tram_runtime_stop(runtime);
    pthread_join(thread, NULL);
    assert_null(tram_runtime_state(runtime, 0));
    tram_runtime_free(runtime);
    sem_destroy(&state_is_half);
    sem_destroy(&state_was_read);
}

/* One that has been accepted by the kernel when the stop comes is served: its client gets an orderly end, no reset. */
struct late_client {
    tram_runtime *runtime;
    uint16_t port;
    int fd;
};

static int connect_and_stop(tram_loop *loop, void *arg) {
    (void)loop;
    struct late_client *client = arg;
    client->fd = tcp_connect(client->port);
    return tram_runtime_stop(client->runtime);
}

static void test_V_51_V_42_who_waits_to_be_accepted_at_a_stop_is_served(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 1};
    struct late_client client = {.runtime = runtime_new(&options), .fd = -1};
    tram_runtime_server *server = serve(client.runtime);
    tram_socket_address address;
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    client.port = ntohs(((struct sockaddr_in *)&address.address)->sin_port);
    assert_int_equal(tram_runtime_start(client.runtime), 0);
    assert_int_equal(
        tram_loop_call_soon_threadsafe(tram_runtime_loop(client.runtime, 0), connect_and_stop, &client, NULL), 0);
    assert_int_equal(tram_runtime_join(client.runtime), 0);
    char byte;
    assert_int_equal(read(client.fd, &byte, 1), 0);
    close(client.fd);
    tram_runtime_free(client.runtime);
}

/* ---- Servers that a worker makes ---- */

struct maker {
    tram_runtime *runtime;
    const char *host;
    unsigned rounds; /* left */
    bool stops;      /* the runtime, while the server is being made */
    bool cancels;
    bool by_options; /* two hosts and limits, which are options */
    tram_server_options options;
    _Atomic unsigned made, failed, discarded;
};

static void count_discarded(void *arg) {
    struct maker *maker = arg;
    maker->discarded++;
}

static int make_server(tram_loop *loop, void *arg);

static int server_made(tram_future *future, void *arg) {
    struct maker *maker = arg;
    void *value = NULL;
    if (tram_future_result(future, &value) == 0) {
        tram_socket_address address;
        for (size_t i = maker->by_options ? 2 : 1; i-- > 0;)
            assert_int_equal(tram_runtime_server_sockname(value, i, &address), 0);
        int fd = tcp_connect(ntohs(((struct sockaddr_in *)&address.address)->sin_port));
        assert_true(fd >= 0); /* it listens by now */
        close(fd);
        assert_int_equal(tram_runtime_server_release(value), 0);
        maker->made++;
    } else {
        maker->failed++;
    }
    tram_loop *loop = tram_loop_running();
    tram_future_release(future);
    if (maker->rounds)
        return make_server(loop, maker);
    return tram_runtime_stop(maker->runtime);
}

static int make_server(tram_loop *loop, void *arg) {
    struct maker *maker = arg;
    tram_future *future;
    char host[16], other_host[] = "127.0.0.2", port[2] = "0";
    const char *hosts[] = {host, other_host, NULL};
    tram_server_limits limits = {.max_connections = 10};
    maker->rounds--;
    snprintf(host, sizeof host, "%s", maker->host);
    if (maker->by_options) {
        maker->options.hosts = hosts;
        maker->options.limits = &limits;
    }
    assert_int_equal(tram_runtime_create_server(maker->runtime, quiet_factory, NULL, host, port, NULL, NULL, NULL),
                     TRAM_ESTATE); /* it would wait for itself */
    assert_int_equal(tram_loop_create_runtime_server(loop, maker->runtime, quiet_factory, maker,
                                                     maker->by_options ? NULL : host, port, &maker->options, &future),
                     0);
    memset(host, 'x', sizeof host); /* it was copied */
    memset(other_host, 'x', sizeof other_host);
    memset(port, 'x', sizeof port);
    memset(hosts, 0, sizeof hosts);
    memset(&limits, 0xff, sizeof limits);
    if (maker->stops)
        tram_runtime_stop(maker->runtime);
    if (maker->cancels)
        tram_future_cancel(future);
    if (!maker->stops)
        return tram_future_add_done_callback(future, server_made, maker);
    tram_future_release(future);
    return 0;
}

/* A worker makes them: all of it in callbacks, while the other worker has to take part. */
static void run_maker(struct maker *maker) {
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0); /* it counts memory */
    tram_runtime_options options = {.workers = 2, .loop.faults = faults};
    maker->runtime = runtime_new(&options);
    maker->options.discard = count_discarded;
    assert_int_equal(tram_runtime_start(maker->runtime), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(maker->runtime, 1), make_server, maker, NULL), 0);
    assert_int_equal(tram_runtime_join(maker->runtime), 0);
    tram_runtime_free(maker->runtime);
    size_t blocks;
    tram_faults_memory(faults, &blocks, NULL);
    assert_int_equal(blocks, 0);
    tram_faults_free(faults);
}

static void test_V_52_a_worker_makes_and_releases_servers(void **state) {
    (void)state;
    struct maker maker = {.host = "127.0.0.1", .rounds = 20};
    run_maker(&maker);
    assert_int_equal(maker.made, 20);
    assert_int_equal(maker.discarded, 20);
}

static void test_V_52_there_need_be_nothing_to_release(void **state) {
    (void)state;
    assert_int_equal(tram_runtime_server_release(NULL), 0);
    assert_int_equal(tram_offer_release(NULL), 0);
}

static void release_server(tram_future *future) {
    void *server;
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    assert_int_equal(tram_runtime_server_release(server), 0);
}

/* Memory of the loop, or what is nobody's. Nothing is left, and the runtime does not wait for what never began. */
static void test_V_52_X_1_without_memory_none_is_begun(void **state) {
    struct world *world = *state;
    tram_runtime_options options = {.workers = 2};
    for (int own = 0; own < 2; own++) {
        tram_runtime *runtime = runtime_new(&options);
        tram_future *future = NULL;
        unsigned refused = 0;
        for (unsigned n = 1; !future; n++) {
            assert_true(n < 100);
            size_t failures = world->failures;
            world->fail_once = own;
            world->fail_after = own ? n - 1 : SIZE_MAX;
            memory_fail_others(own ? 0 : n, !own);
            int status = tram_loop_create_runtime_server(world->loop, runtime, quiet_factory, NULL, "127.0.0.1", "0",
                                                         NULL, &future);
            bool untouched = memory_failed() == 0 && world->failures == failures;
            memory_fail_others(0, 0);
            world->fail_after = SIZE_MAX;
            assert_int_equal(status, untouched ? 0 : -ENOMEM);
            assert_int_equal(status == 0, future != NULL);
            refused += status != 0;
        }
        assert_true(refused > 0);
        assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
        release_server(future);
        tram_runtime_free(runtime);
    }
}

/* The caller's array may be gone when the work begins; the sockets are the server's then. */
static void test_V_52_V_45_the_sockets_are_copied(void **state) {
    struct world *world = *state;
    tram_runtime_options options = {.workers = 2};
    tram_runtime *runtime = runtime_new(&options);
    uint16_t port;
    int sockets[] = {tcp_listener(5, &port)};
    tram_future *future;
    const tram_server_options given = {.sockets = sockets, .socket_count = 1, .shard = TRAM_SHARD_SHARED};
    assert_int_equal(
        tram_loop_create_runtime_server(world->loop, runtime, quiet_factory, NULL, NULL, NULL, &given, &future), 0);
    sockets[0] = -1;
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    void *server;
    tram_socket_address address;
    assert_int_equal(tram_future_result(future, &server), 0);
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    assert_int_equal(((struct sockaddr_in *)&address.address)->sin_port, htons(port));
    tram_future_release(future);
    int fd = tcp_connect(port); /* a server whose result was taken is not the future's */
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(tram_runtime_server_release(server), 0);
    tram_runtime_free(runtime);
}

/* A server that nobody asked its future for ends with that. */
static void test_V_52_a_server_that_nobody_took_is_released(void **state) {
    struct world *world = *state;
    tram_runtime_options options = {.workers = 2};
    tram_runtime *runtime = runtime_new(&options);
    uint16_t port;
    int sockets[] = {tcp_listener(5, &port)}, fd;
    tram_future *future;
    const tram_server_options given = {.sockets = sockets, .socket_count = 1, .shard = TRAM_SHARD_SHARED};
    assert_int_equal(
        tram_loop_create_runtime_server(world->loop, runtime, quiet_factory, NULL, NULL, NULL, &given, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    fd = tcp_connect(port);
    assert_true(fd >= 0);
    close(fd);
    tram_future_release(future);
    assert_true(tcp_connect(port) < 0);
    tram_runtime_free(runtime);
}

static void test_V_52_what_options_refer_to_is_copied(void **state) {
    (void)state;
    struct maker maker = {.host = "127.0.0.1", .rounds = 1, .by_options = true};
    run_maker(&maker);
    assert_int_equal(maker.made, 1);
}

static void test_V_52_a_server_that_cannot_be_made_fails_the_future(void **state) {
    (void)state;
    struct maker maker = {.host = "192.0.2.1", .rounds = 2}; /* nobody's address */
    run_maker(&maker);
    assert_int_equal(maker.failed, 2);
    assert_int_equal(maker.discarded, 0);
}

static void test_V_52_a_cancelled_creation_leaves_nothing(void **state) {
    (void)state;
    struct maker maker = {.host = "127.0.0.1", .rounds = 5, .cancels = true};
    run_maker(&maker);
    assert_int_equal(maker.made, 0);
    assert_int_equal(maker.failed, 5);
}

static void test_V_52_a_runtime_that_ends_while_a_server_is_made(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct maker maker = {.host = "127.0.0.1", .rounds = 1, .stops = true};
        run_maker(&maker);
    }
}

/* ---- Names ---- */

static void take_time(const tram_client *client, void *arg) {
    (void)client, (void)arg;
    pause_ms(2);
}

/* The function that ran on the worker is ours, and nobody's who reads of it. */
static void test_L_42_posts_of_the_library_bear_the_name_of_what_was_called(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = 1, .loop = {.time_callbacks = true, .slow_callback_ns = 1}};
    tram_runtime *runtime = runtime_new(&options);
    assert_int_equal(tram_runtime_start(runtime), 0);
    tram_runtime_server *server = serve(runtime);
    assert_int_equal(tram_runtime_server_each_client(server, take_time, NULL), 0);
    assert_int_equal(tram_runtime_server_abort_clients(server), 0);
    assert_int_equal(tram_runtime_server_close_clients(server), 0);
    assert_int_equal(tram_runtime_server_close(server), 0);
    assert_int_equal(tram_runtime_server_drain(server, TRAM_FOREVER), 0);
    assert_int_equal(tram_runtime_server_release(server), 0);
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 0);
#define FUNCTION(pointer) ((const void *)(uintptr_t)(pointer))
    const void *called[] = {FUNCTION(tram_runtime_create_server),        FUNCTION(tram_runtime_server_each_client),
                            FUNCTION(tram_runtime_server_abort_clients), FUNCTION(tram_runtime_server_close_clients),
                            FUNCTION(tram_runtime_server_close),         FUNCTION(tram_runtime_server_drain),
                            FUNCTION(tram_runtime_server_release)};
    size_t count = sizeof called / sizeof *called;
    tram_slow_site sites[TRAM_SLOW_SITES + 1];
    size_t found = tram_loop_slow_sites(tram_runtime_loop(runtime, 0), sites, TRAM_SLOW_SITES + 1), callbacks = 0;
    for (size_t i = 0; i < found; i++) {
        if (strcmp(sites[i].kind, "callback") != 0)
            continue;
        bool known = false;
        for (size_t j = 0; j < count; j++)
            known |= sites[i].function == called[j];
        assert_true(known);
        callbacks++;
    }
    assert_in_range(callbacks, count - 1, count); /* what was released may be freed before the worker hears of it */
    tram_runtime_free(runtime);
}

static void test_the_error_of_a_server_outlives_the_runtime(void **state) {
    (void)state;
    uint16_t number;
    int held = tcp_listener(5, &number);
    char port[8];
    snprintf(port, sizeof port, "%u", number);
    tram_runtime_options options = {.workers = 2};
    tram_runtime *runtime = runtime_new(&options);
    tram_error error = {0};
    assert_int_equal(tram_runtime_create_server(runtime, quiet_factory, NULL, "127.0.0.1", port, NULL, NULL, &error),
                     -EADDRINUSE);
    tram_runtime_free(runtime);
    assert_non_null(strstr(error.detail, port));
    close(held);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_V_51_a_start_function_offers_listeners),
        cmocka_unit_test(test_V_51_callbacks_offer_while_others_create),
        cmocka_unit_test(test_V_51_a_log_function_calls_the_runtime_that_ends),
        cmocka_unit_test(test_V_51_a_stop_does_not_wait_behind_posts),
        cmocka_unit_test(test_V_51_a_second_stop_does_not_wait_behind_posts),
        cmocka_unit_test(test_V_51_the_end_of_the_grace_does_not_wait_behind_posts),
        cmocka_unit_test(test_V_51_two_signals_at_once_are_one),
        cmocka_unit_test(test_V_52_released_servers_leave_nothing),
        cmocka_unit_test(test_V_52_released_endpoints_and_offers_leave_nothing),
        cmocka_unit_test(test_V_52_failed_endpoints_leave_nothing),
        cmocka_unit_test(test_V_51_a_state_is_seen_when_start_has_returned),
        cmocka_unit_test(test_V_51_V_42_who_waits_to_be_accepted_at_a_stop_is_served),
        cmocka_unit_test(test_V_52_a_worker_makes_and_releases_servers),
        cmocka_unit_test(test_V_52_there_need_be_nothing_to_release),
        cmocka_unit_test_setup_teardown(test_V_52_X_1_without_memory_none_is_begun, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_V_52_V_45_the_sockets_are_copied, world_setup, world_teardown),
        cmocka_unit_test(test_V_52_what_options_refer_to_is_copied),
        cmocka_unit_test_setup_teardown(test_V_52_a_server_that_nobody_took_is_released, world_setup, world_teardown),
        cmocka_unit_test(test_V_52_a_server_that_cannot_be_made_fails_the_future),
        cmocka_unit_test(test_V_52_a_cancelled_creation_leaves_nothing),
        cmocka_unit_test(test_V_52_a_runtime_that_ends_while_a_server_is_made),
        cmocka_unit_test(test_L_42_posts_of_the_library_bear_the_name_of_what_was_called),
        cmocka_unit_test(test_the_error_of_a_server_outlives_the_runtime),
    };
    return cmocka_run_group_tests(tests, with_deadline, without_deadline);
}
