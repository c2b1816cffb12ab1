/*
 * tram as a guest: two runtimes and a loop of their own in a host process that has its own epoll loop, allocator,
 * signal handlers and threads.
 */
#include "support/support.h"

#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- A host's echo server, the same on every loop ---- */

static int echo_data(tram_protocol *protocol, const void *data, size_t size) {
    return tram_transport_write(protocol->transport, data, size);
}

static void echo_released(tram_protocol *protocol) {
    free(protocol);
}

static const tram_protocol_ops echo_ops = {.data_received = echo_data, .released = echo_released};

static int make_echo(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop, (void)arg;
    *ret_protocol = calloc(1, sizeof **ret_protocol);
    (*ret_protocol)->ops = &echo_ops;
    return 0;
}

static uint16_t port_of(const tram_socket_address *address) {
    return ntohs(((const struct sockaddr_in *)(const void *)&address->address)->sin_port);
}

static void echo_once(uint16_t port) {
    char bytes[6];
    int fd = tcp_connect(port);
    assert_true(fd >= 0);
    send_exactly(NULL, fd, "hello", 6);
    receive_exactly(NULL, fd, bytes, 6);
    assert_string_equal(bytes, "hello");
    close(fd);
}

/* ---- The host ---- */

static volatile sig_atomic_t host_signals;

static void host_handler(int number) {
    (void)number;
    host_signals++;
}

struct host {
    int epoll;
    int timers_fired;
    tram_loop *loop;
    bool stop;
};

/* The host's own loop: its descriptors and tram's in one epoll. */
static void host_turn(struct host *host) {
    uint64_t timeout_ns;
    assert_int_equal(tram_loop_prepare(host->loop, &timeout_ns), 0);
    int timeout_ms = timeout_ns > 20000000000 ? 20000 : (int)((timeout_ns + 999999) / 1000000);
    struct epoll_event event;
    int count = epoll_wait(host->epoll, &event, 1, timeout_ms);
    assert_true(count >= 0 || errno == EINTR);
    if (tram_loop_dispatch(host->loop) == 1)
        host->stop = true;
}

static int count_timer(tram_loop *loop, void *arg) {
    struct host *host = arg;
    host->timers_fired++;
    return tram_loop_call_later(loop, 100000, count_timer, host, NULL, NULL);
}

static int stop_host(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

static void *visit_all(void *arg) {
    const uint16_t *ports = arg;
    for (int i = 0; i < 30; i++)
        echo_once(ports[i % 3]);
    return NULL;
}

struct visit {
    const uint16_t *ports;
    tram_loop *loop;
};

static void *visit_and_stop(void *arg) {
    struct visit *visit = arg;
    visit_all((void *)(uintptr_t)visit->ports);
    assert_int_equal(tram_loop_call_soon_threadsafe(visit->loop, stop_host, NULL, NULL), 0);
    return NULL;
}

static uint16_t serve_on_runtime(struct world *world, tram_runtime **ret_runtime, const char *name) {
    tram_runtime_options options = {.workers = 2, .name = name, .loop = {.allocator = &world->allocator}};
    tram_runtime_server *server;
    tram_socket_address address;
    assert_int_equal(tram_runtime_new(&options, ret_runtime), 0);
    assert_int_equal(tram_runtime_create_server(*ret_runtime, make_echo, NULL, "127.0.0.1", "0", NULL, &server, NULL),
                     0);
    assert_int_equal(tram_runtime_start(*ret_runtime), 0);
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    return port_of(&address);
}

static uint16_t serve_on_loop(struct world *world) {
    tram_future *future;
    tram_socket_address address;
    void *server;
    assert_int_equal(tram_loop_create_server(world->loop, make_echo, NULL, "127.0.0.1", "0", NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    tram_server_release(server);
    return port_of(&address);
}

static void test_two_runtimes_and_a_driven_loop_live_in_one_host(void **state) {
    struct world *world = *state;
    struct sigaction action = {.sa_handler = host_handler}, before[NSIG], after;
    sigset_t mask_before = {0}, mask_after = {0};
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    assert_int_equal(sigaction(SIGTERM, &action, NULL), 0);
    for (int number = 1; number < NSIG; number++)
        sigaction(number, NULL, &before[number]);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_before);

    tram_runtime *first, *second;
    uint16_t ports[3];
    ports[0] = serve_on_runtime(world, &first, "first");
    ports[1] = serve_on_runtime(world, &second, "second");
    ports[2] = serve_on_loop(world);

    struct host host = {.epoll = epoll_create1(EPOLL_CLOEXEC), .loop = world->loop};
    struct epoll_event event = {.events = EPOLLIN};
    assert_int_equal(epoll_ctl(host.epoll, EPOLL_CTL_ADD, tram_loop_backend_fd(world->loop), &event), 0);
    assert_int_equal(tram_loop_call_later(world->loop, 100000, count_timer, &host, NULL, NULL), 0);

    struct visit visit = {ports, world->loop};
    pthread_t visitor;
    assert_int_equal(pthread_create(&visitor, NULL, visit_and_stop, &visit), 0);
    kill(getpid(), SIGUSR1);
    while (!host.stop)
        host_turn(&host);
    pthread_join(visitor, NULL);
    assert_true(host.timers_fired > 0);
    assert_int_equal(host_signals, 1);

    /* Nothing of the host's was touched. */
    for (int number = 1; number < NSIG; number++) {
        if (sigaction(number, NULL, &after) == 0) /* two are the C library's own */
            assert_ptr_equal(after.sa_handler, before[number].sa_handler);
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    assert_memory_equal(&mask_after, &mask_before, sizeof mask_before);

    /* One ends, the other goes on. */
    assert_int_equal(tram_runtime_stop(first), 0);
    assert_int_equal(tram_runtime_join(first), 0);
    tram_runtime_free(first);
    echo_once(ports[1]);
    tram_runtime_free(second);
    close(host.epoll);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

/* All memory of loops and runtimes comes from the host: world_teardown checks that it went back. */
static void test_all_memory_is_the_host_allocators(void **state) {
    struct world *world = *state;
    tram_runtime *runtime;
    size_t before = world->allocations;
    uint16_t port = serve_on_runtime(world, &runtime, NULL);
    echo_once(port);
    assert_true(world->allocations > before);
    tram_runtime_free(runtime);
}

/* A descriptor that polls readable only when there is something to do: a host that waits for ever is woken by a post.
 */
static void test_a_waiting_host_is_woken_by_a_post_of_another_thread(void **state) {
    struct world *world = *state;
    struct host host = {.epoll = epoll_create1(EPOLL_CLOEXEC), .loop = world->loop};
    struct epoll_event event = {.events = EPOLLIN};
    assert_int_equal(epoll_ctl(host.epoll, EPOLL_CTL_ADD, tram_loop_backend_fd(world->loop), &event), 0);
    uint16_t ports[3];
    ports[0] = ports[1] = ports[2] = serve_on_loop(world);
    struct visit visit = {ports, world->loop};
    for (int i = 0; i < 20; i++) {
        pthread_t visitor;
        host.stop = false;
        assert_int_equal(pthread_create(&visitor, NULL, visit_and_stop, &visit), 0);
        while (!host.stop)
            host_turn(&host);
        pthread_join(visitor, NULL);
    }
    close(host.epoll);
}

static void *post_word(void *arg) {
    const struct world *world = arg;
    assert_int_equal(tram_loop_call_soon_threadsafe(world->loop, trace_callback, "posted", NULL), 0);
    return NULL;
}

static void test_a_host_does_not_wait_for_what_came_before(void **state) {
    struct world *world = *state;
    uint64_t timeout_ns;
    assert_int_equal(tram_loop_call_later(world->loop, HOUR_NS, trace_callback, "late", NULL, NULL), 0);
    on_another_thread(post_word, world);
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_int_equal(timeout_ns, 0);
    assert_int_equal(tram_loop_dispatch(world->loop), 0);
    assert_trace(world, "posted");
    assert_int_equal(tram_loop_add_signal_handler(world->loop, SIGUSR1, trace_callback, "signal"), 0);
    raise(SIGUSR1);
    assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
    assert_int_equal(timeout_ns, 0);
    run_ticks(world, 2);
    assert_trace(world, "signal");
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)
        CASE(test_two_runtimes_and_a_driven_loop_live_in_one_host),
        CASE(test_all_memory_is_the_host_allocators),
        CASE(test_a_waiting_host_is_woken_by_a_post_of_another_thread),
        CASE(test_a_host_does_not_wait_for_what_came_before),
    };
    return cmocka_run_group_tests_name("embedding", tests, NULL, NULL);
}
