/* Datagram endpoints over all workers of a runtime: rules D-1, D-19 and D-22 there. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/datagram.h"

#define SENDERS 64

/* ---- An echo that says which worker it is of ---- */

struct echo {
    tram_protocol base;
    char name; /* one letter per protocol */
};

static _Atomic int made_count, lost_count, released_count, factory_calls;
static sem_t lost_signal;
static int factory_fails_at; /* this call of it fails; 0: none */

static int echo_made(tram_protocol *protocol, tram_transport *transport) {
    (void)protocol;
    (void)transport;
    made_count++;
    return 0;
}

static int echo_received(tram_protocol *protocol, const void *data, size_t size, const tram_socket_address *peer) {
    struct echo *echo = (struct echo *)protocol;
    char answer[2] = {*(const char *)data, echo->name};
    return size == 1 ? tram_transport_sendto(protocol->transport, answer, 2, peer) : 0;
}

static int echo_lost(tram_protocol *protocol, const tram_error *error) {
    (void)protocol;
    lost_count += error == NULL;
    return sem_post(&lost_signal);
}

static void echo_released(tram_protocol *protocol) {
    released_count++;
    free(protocol);
}

static const tram_protocol_ops echo_ops = {
    .connection_made = echo_made,
    .datagram_received = echo_received,
    .connection_lost = echo_lost,
    .released = echo_released,
};

static int make_echo(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)arg;
    int call = ++factory_calls;
    if (call == factory_fails_at)
        return tram_loop_raise(loop, TRAM_EUSER, NULL, "no more of them");
    struct echo *echo = calloc(1, sizeof *echo);
    echo->base.ops = &echo_ops;
    echo->name = (char)('a' + call - 1);
    *ret_protocol = &echo->base;
    return 0;
}

/* ---- Helpers ---- */

static tram_runtime *runtime_new(struct world *world, unsigned workers) {
    made_count = lost_count = released_count = factory_calls = 0;
    factory_fails_at = 0;
    sem_init(&lost_signal, 0, 0);
    tram_runtime_options options = {.workers = workers, .loop = world->options};
    options.loop.log = NULL; /* the world's is for one thread */
    tram_runtime *runtime;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    return runtime;
}

static tram_runtime_datagram_endpoint *serve(tram_runtime *runtime) {
    tram_datagram_options options = {.local_host = "127.0.0.1"};
    tram_runtime_datagram_endpoint *endpoint = NULL;
    tram_error error = {0};
    int status = tram_runtime_create_datagram_endpoint(runtime, make_echo, NULL, &options, &endpoint, &error);
    if (status)
        fail_msg("no endpoint: %s: %s", tram_error_name(status), error.detail ? error.detail : "");
    return endpoint;
}

static int client_of(const tram_runtime_datagram_endpoint *endpoint) {
    tram_socket_address address, own;
    assert_int_equal(tram_runtime_datagram_endpoint_sockname(endpoint, &address), 0);
    int fd = udp_socket(&own);
    assert_int_equal(connect(fd, (struct sockaddr *)&address.address, address.size), 0);
    return fd;
}

/* The letter of the protocol that answers this client; it asks twice, and must meet the same one. */
static char who_answers(int fd) {
    char answers[2][2] = {{0}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(send(fd, "?", 1, 0), 1);
        await_events(fd, POLLIN);
        assert_int_equal(recv(fd, answers[i], 2, 0), 2);
        assert_int_equal(answers[i][0], '?');
    }
    assert_int_equal(answers[0][1], answers[1][1]);
    return answers[0][1];
}

/* How many workers answered, of many clients. */
static int answering_workers(const tram_runtime_datagram_endpoint *endpoint) {
    bool seen[26] = {false};
    int count = 0;
    for (int i = 0; i < SENDERS; i++) {
        int fd = client_of(endpoint);
        int letter = who_answers(fd) - 'a';
        assert_in_range(letter, 0, 25);
        count += !seen[letter];
        seen[letter] = true;
        close(fd);
    }
    return count;
}

static void stop(tram_runtime *runtime) {
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0); /* nothing had to be aborted */
    tram_runtime_free(runtime);
}

/* ---- Tests ---- */

/* rules: D-1, D-22 */
static void test_every_worker_has_a_share_of_the_senders(void **state) {
    for (int before_start = 0; before_start < 2; before_start++) {
        tram_runtime *runtime = runtime_new(*state, 3);
        tram_runtime_datagram_endpoint *endpoint = NULL;
        if (before_start)
            endpoint = serve(runtime);
        assert_int_equal(made_count, 0);
        assert_int_equal(tram_runtime_start(runtime), 0);
        if (!before_start)
            endpoint = serve(runtime);
        assert_int_equal(factory_calls, 3);
        assert_int_equal(answering_workers(endpoint), 3);
        stop(runtime);
        assert_int_equal(made_count, 3);
        assert_int_equal(lost_count, 3);
        assert_int_equal(released_count, 3);
    }
}

static void test_D_19_closing_closes_all_shares(void **state) {
    tram_runtime *runtime = runtime_new(*state, 2);
    assert_int_equal(tram_runtime_start(runtime), 0);
    tram_runtime_datagram_endpoint *endpoint = serve(runtime);
    tram_socket_address address;
    assert_int_equal(tram_runtime_datagram_endpoint_sockname(endpoint, &address), 0);
    assert_int_equal(tram_runtime_datagram_endpoint_close(endpoint), 0);
    for (int i = 0; i < 2; i++)
        sem_wait(&lost_signal);
    assert_int_equal(tram_runtime_datagram_endpoint_close(endpoint), 0);
    /* The port is free again. */
    stop(runtime);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address.address, address.size), 0);
    close(fd);
}

/* rules: D-19 */
static void test_closed_before_the_workers_start_it_never_is(void **state) {
    tram_runtime *runtime = runtime_new(*state, 2);
    tram_runtime_datagram_endpoint *endpoint = serve(runtime);
    assert_int_equal(tram_runtime_datagram_endpoint_close(endpoint), 0);
    assert_int_equal(tram_runtime_start(runtime), 0);
    stop(runtime);
    assert_int_equal(factory_calls, 0);
    /* And one that is never started leaves nothing. */
    runtime = runtime_new(*state, 2);
    serve(runtime);
    tram_runtime_free(runtime);
    assert_int_equal(factory_calls, 0);
}

static int try_with(tram_runtime *runtime, const tram_datagram_options *options, tram_error *ret_error) {
    tram_runtime_datagram_endpoint *endpoint;
    return tram_runtime_create_datagram_endpoint(runtime, make_echo, NULL, options, &endpoint, ret_error);
}

static int try_on_worker(tram_loop *loop, void *arg) {
    (void)loop;
    tram_datagram_options options = {.local_host = "127.0.0.1"};
    tram_runtime *runtime = *(tram_runtime **)arg;
    factory_fails_at = try_with(runtime, &options, NULL); /* told by way of this */
    return tram_runtime_stop(runtime);
}

/* rules: D-1, D-2 */
static void test_bad_options_are_refused(void **state) {
    tram_runtime *runtime = runtime_new(*state, 2);
    tram_error error;
    int fd = -1;
    const tram_datagram_options bad[] = {
        {0},
        {.family = AF_INET},
        {.sock = &fd},
        {.local_host = "127.0.0.1", .remote_host = "127.0.0.1", .remote_port = "9"},
        {.local_path = "/tmp/x"},
        {.local_host = "127.0.0.1", .reserved = {0, 1}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(try_with(runtime, &bad[i], &error), TRAM_EVALUE);
        assert_int_equal(error.code, TRAM_EVALUE);
    }
    assert_int_equal(try_with(runtime, NULL, NULL), TRAM_EVALUE);
    tram_datagram_options nowhere = {.local_host = "192.0.2.1"};
    assert_int_equal(try_with(runtime, &nowhere, &error), -EADDRNOTAVAIL);
    assert_non_null(strstr(error.detail, "192.0.2.1"));

    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 0), try_on_worker, &runtime, NULL), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    assert_int_equal(factory_fails_at, TRAM_ESTATE);
    tram_datagram_options good = {.local_host = "127.0.0.1"};
    assert_int_equal(try_with(runtime, &good, &error), TRAM_ESTATE);
    tram_runtime_free(runtime);
}

static void test_D_22_without_reuse_port_the_port_must_be_free(void **state) {
    tram_runtime *runtime = runtime_new(*state, 2);
    tram_socket_address address;
    struct sockaddr_in inet;
    tram_error error;
    char port[8];
    int fd = udp_socket(&address), on = 1;
    memcpy(&inet, &address.address, sizeof inet);
    snprintf(port, sizeof port, "%d", ntohs(inet.sin_port));
    tram_datagram_options options = {.local_host = "127.0.0.1", .local_port = port};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
    assert_int_equal(try_with(runtime, &options, &error), -EADDRINUSE);
    assert_non_null(strstr(error.detail, port));
    options.reuse_port = true;
    assert_int_equal(try_with(runtime, &options, &error), 0);
    close(fd);
    assert_int_equal(tram_runtime_start(runtime), 0);
    stop(runtime);
    assert_int_equal(released_count, 2);
}

static void test_D_1_a_factory_that_fails_on_one_worker_ends_all(void **state) {
    tram_runtime *runtime = runtime_new(*state, 2);
    tram_datagram_options options = {.local_host = "127.0.0.1"};
    tram_error error;
    assert_int_equal(tram_runtime_start(runtime), 0);
    factory_fails_at = 2;
    assert_int_equal(try_with(runtime, &options, &error), TRAM_EUSER);
    assert_string_equal(error.detail, "no more of them");
    stop(runtime);
    assert_int_equal(made_count, 1);
    assert_int_equal(released_count, 1);
    /* Before the start it fails the start. */
    runtime = runtime_new(*state, 2);
    factory_fails_at = 1;
    assert_int_equal(try_with(runtime, &options, &error), 0);
    assert_int_equal(tram_runtime_start(runtime), TRAM_EUSER);
    tram_runtime_free(runtime);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_every_worker_has_a_share_of_the_senders),
        TEST(test_D_19_closing_closes_all_shares),
        TEST(test_closed_before_the_workers_start_it_never_is),
        TEST(test_bad_options_are_refused),
        TEST(test_D_22_without_reuse_port_the_port_must_be_free),
        TEST(test_D_1_a_factory_that_fails_on_one_worker_ends_all),
    };
    return cmocka_run_group_tests_name("datagram endpoints of a runtime", tests, NULL, NULL);
}
