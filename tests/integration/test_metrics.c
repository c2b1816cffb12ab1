/* Statistics are read while loops run: by several threads, under load, through a scrape. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "support/support.h"

#define WORKERS 2
#define READERS 2
#define ROUNDS  300
#define CLIENTS 8

static int echo_received(tram_protocol *protocol, const void *data, size_t size) {
    return tram_transport_write(protocol->transport, data, size);
}

static void echo_released(tram_protocol *protocol) {
    free(protocol);
}

static const tram_protocol_ops echo_ops = {.data_received = echo_received, .released = echo_released};

static int echo_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    (void)arg;
    *ret_protocol = calloc(1, sizeof **ret_protocol);
    (*ret_protocol)->ops = &echo_ops;
    return 0;
}

/* The value of the first sample whose line begins so. */
static uint64_t value_of(const char *text, const char *sample) {
    const char *line = strstr(text, sample);
    if (!line)
        fail_msg("no %s in %s", sample, text);
    return strtoull(line + strlen(sample), NULL, 10);
}

struct scraper {
    const tram_metrics_source *sources;
    size_t count;
    _Atomic bool end;
    unsigned times;
    const char *complaint;
};

/* Counters never fall, and a histogram is whole. */
static const char *scrape(const struct scraper *scraper, uint64_t *last, size_t last_count) {
    static const char *const watched[] = {
        "\ntram_received_bytes_total{worker=\"0\"} ", "\ntram_ticks_total{worker=\"1\"} ",
        "\ntram_loop_lag_seconds_count{worker=\"0\"} ", "\ntram_slow_callbacks_total{worker=\"0\"} ",
        "\ntram_handed_over_connections_total{worker=\"0\"} "};
    static _Thread_local char text[128 * 1024];
    ptrdiff_t size = tram_metrics_render(scraper->sources, scraper->count, text, sizeof text);
    if (size <= 0 || (size_t)size >= sizeof text)
        return "it does not fit";
    for (size_t i = 0; i < sizeof watched / sizeof *watched && i < last_count; i++) {
        const char *line = strstr(text, watched[i]);
        if (!line)
            return watched[i];
        uint64_t value = strtoull(line + strlen(watched[i]), NULL, 10);
        if (value < last[i])
            return "a counter fell";
        last[i] = value;
    }
    if (value_of(text, "\ntram_loop_lag_seconds_bucket{worker=\"1\",le=\"+Inf\"} ") !=
        value_of(text, "\ntram_loop_lag_seconds_count{worker=\"1\"} "))
        return "the histogram is not whole";
    return NULL;
}

static void *scrape_always(void *arg) {
    struct scraper *scraper = arg;
    uint64_t last[5] = {0};
    bool end;
    do {
        end = atomic_load(&scraper->end);
        scraper->complaint = scrape(scraper, last, 5);
        scraper->times++;
    } while (!end && !scraper->complaint);
    return NULL;
}

static void echo_a_lot(uint16_t port) {
    int fds[CLIENTS];
    char bytes[100] = {1};
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = tcp_connect(port);
        assert_true(fds[i] >= 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CLIENTS; i++)
            send_exactly(NULL, fds[i], bytes, sizeof bytes);
        for (int i = 0; i < CLIENTS; i++)
            receive_exactly(NULL, fds[i], bytes, sizeof bytes);
    }
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
}

static void test_threads_scrape_while_workers_serve(void **state) {
    (void)state;
    tram_runtime_options options = {.workers = WORKERS,
                                    .loop = {.measure_lag = true, .time_callbacks = true, .slow_callback_ns = 1}};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    struct sockaddr_in inet;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    tram_server_options handoff = {.shard = TRAM_SHARD_HANDOFF};
    assert_int_equal(tram_runtime_create_server(runtime, echo_factory, NULL, "127.0.0.1", "0", &handoff, &server, NULL),
                     0);
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    assert_int_equal(tram_runtime_start(runtime), 0);

    tram_metrics_source sources[] = {{.runtime = runtime}, {.server = server, .name = "echo"}};
    struct scraper scrapers[READERS];
    pthread_t threads[READERS];
    for (int i = 0; i < READERS; i++) {
        scrapers[i] = (struct scraper){.sources = sources, .count = 2};
        assert_int_equal(pthread_create(&threads[i], NULL, scrape_always, &scrapers[i]), 0);
    }
    echo_a_lot(ntohs(inet.sin_port));
    for (int i = 0; i < READERS; i++) {
        atomic_store(&scrapers[i].end, true);
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (scrapers[i].complaint)
            fail_msg("%s", scrapers[i].complaint);
        assert_true(scrapers[i].times > 0);
    }
    tram_runtime_stop(runtime);
    assert_int_equal(tram_runtime_join(runtime), 0);

    /* When all is over it tells exactly what was. */
    static char text[128 * 1024];
    assert_true(tram_metrics_render(sources, 2, text, sizeof text) > 0);
    uint64_t bytes = value_of(text, "\ntram_received_bytes_total{worker=\"0\"} ") +
                     value_of(text, "\ntram_received_bytes_total{worker=\"1\"} ");
    assert_int_equal(bytes, ROUNDS * CLIENTS * 100);
    assert_int_equal(value_of(text, "\ntram_accepted_connections_total{worker=\"0\"} "), CLIENTS);
    assert_int_equal(value_of(text, "\ntram_handed_over_connections_total{worker=\"0\"} "), CLIENTS / WORKERS);
    assert_int_equal(value_of(text, "\ntram_taken_over_connections_total{worker=\"1\"} "), CLIENTS / WORKERS);
    assert_int_equal(value_of(text, "\ntram_loop_lag_seconds_count{worker=\"0\"} "),
                     value_of(text, "\ntram_ticks_total{worker=\"0\"} "));
    assert_int_equal(value_of(text, "\ntram_server_connections{server=\"echo\",worker=\"0\"} "), 0);
    assert_non_null(strstr(text, "\ntram_slow_callback_seconds_count{worker=\"1\",kind=\"data_received\",function="));
    assert_non_null(
        strstr(text, "\ntram_slow_callback_seconds_count{worker=\"1\",kind=\"protocol factory\",function="));
    tram_runtime_free(runtime);
}

/* ---- What one loop counts ---- */

static int do_nothing(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    return 0;
}

static int fail_at_once(tram_loop *loop, void *arg) {
    (void)loop, (void)arg;
    return -EIO;
}

#define COUNTED(before, now, counter) ((now).counter - (before).counter)

static void test_callbacks_and_timers_are_counted_each_as_what_it_is(void **state) {
    struct world *world = *state;
    tram_stats before, now;
    tram_loop_stats(world->loop, &before);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tram_loop_call_soon(world->loop, do_nothing, NULL, NULL, NULL), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tram_loop_call_later(world->loop, 0, do_nothing, NULL, NULL, NULL), 0);
    assert_int_equal(tram_loop_call_soon(world->loop, fail_at_once, NULL, NULL, NULL), 0);
    run_to_rest(world);
    tram_loop_stats(world->loop, &now);
    assert_int_equal(COUNTED(before, now, callbacks), 4);
    assert_int_equal(COUNTED(before, now, timers), 2);
    assert_int_equal(COUNTED(before, now, exceptions), 1);
    assert_true(COUNTED(before, now, ticks) >= 1);
    assert_int_equal(COUNTED(before, now, mails), 0);
}

static void test_what_a_connection_does_is_counted_once(void **state) {
    struct world *world = *state;
    tram_stats before, now;
    tram_loop_stats(world->loop, &before);
    struct recorder *recorder = recorder_new(world, NULL);
    struct wire wire = wire_new_made(world, recorder);
    tram_loop_stats(world->loop, &now);
    assert_int_equal(COUNTED(before, now, connections), 1);
    assert_int_equal(COUNTED(before, now, connections_now), 1);
    assert_int_equal(COUNTED(before, now, accepted), 0);

    assert_int_equal(send(wire.peer, "12345", 5, 0), 5);
    run_until_traced(world, "data:5");
    assert_int_equal(tram_transport_write(wire.transport, "1234567", 7), 0);
    tram_loop_stats(world->loop, &now);
    assert_int_equal(COUNTED(before, now, bytes_received), 5);
    assert_int_equal(COUNTED(before, now, bytes_sent), 7);
    assert_int_equal(COUNTED(before, now, reads), 1);
    assert_int_equal(COUNTED(before, now, writes), 1);
    assert_int_equal(COUNTED(before, now, dropped_writes), 0);

    recorder->eof_returns = 1;
    assert_int_equal(shutdown(wire.peer, SHUT_WR), 0);
    run_until_traced(world, "eof");
    tram_loop_stats(world->loop, &now);
    assert_int_equal(COUNTED(before, now, reads), 2);
    assert_int_equal(COUNTED(before, now, bytes_received), 5);

    tram_transport *transport = tram_transport_hold(wire.transport);
    tram_transport_abort(transport);
    run_until(world, &recorder->was_released);
    tram_transport_write(transport, "1", 1);
    tram_transport_release(transport);
    tram_loop_stats(world->loop, &now);
    assert_int_equal(COUNTED(before, now, connections), 1);
    assert_int_equal(COUNTED(before, now, connections_now), 0);
    assert_int_equal(COUNTED(before, now, dropped_writes), 1);
    assert_int_equal(COUNTED(before, now, writes), 1);
    close(wire.peer);
}

/* Into memory of the protocol's. */
static void test_an_end_is_a_read_without_bytes(void **state) {
    struct world *world = *state;
    tram_stats before, now;
    struct recorder *recorder = recorder_new_buffered(world, NULL);
    recorder->eof_returns = 1;
    struct wire wire = wire_new_made(world, recorder);
    tram_loop_stats(world->loop, &before);
    assert_int_equal(send(wire.peer, "12345", 5, 0), 5);
    run_until_traced(world, "updated:5");
    assert_int_equal(shutdown(wire.peer, SHUT_WR), 0);
    run_until_traced(world, "eof");
    tram_loop_stats(world->loop, &now);
    assert_int_equal(COUNTED(before, now, reads), 2);
    assert_int_equal(COUNTED(before, now, bytes_received), 5);
    tram_transport_abort(wire.transport);
    run_to_rest(world);
    close(wire.peer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_callbacks_and_timers_are_counted_each_as_what_it_is, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_what_a_connection_does_is_counted_once, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_an_end_is_a_read_without_bytes, world_setup, world_teardown),
        cmocka_unit_test(test_threads_scrape_while_workers_serve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
