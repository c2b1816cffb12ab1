/* What tram-echo --metrics speaks: a little HTTP, and what it does with those who speak it badly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/metrics_server.h"
#include "support/support.h"

static tram_runtime *runtime;
static metrics_server server;
static tram_metrics_source source;
static uint16_t port;
static char answer[1 << 20];

static void start(uint64_t deadline_ns) {
    tram_runtime_options options = {.workers = 1, .loop = {.measure_lag = true}};
    tram_runtime_server *listener;
    tram_socket_address address;
    struct sockaddr_in inet;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    source = (tram_metrics_source){.runtime = runtime};
    server = (metrics_server){.sources = &source, .source_count = 1, .deadline_ns = deadline_ns};
    assert_int_equal(metrics_server_start(&server, runtime, "127.0.0.1", "0", &listener, NULL), 0);
    assert_int_equal(tram_runtime_server_sockname(listener, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    port = ntohs(inet.sin_port);
    assert_int_equal(tram_runtime_start(runtime), 0);
}

static int start_patient(void **state) {
    (void)state;
    start(0);
    return 0;
}

static int start_hasty(void **state) {
    (void)state;
    start(50000000);
    return 0;
}

static int stop(void **state) {
    (void)state;
    tram_runtime_free(runtime);
    assert_int_equal(server.clients, 0);
    return 0;
}

static int connect_to_it(void) {
    int fd = tcp_connect(port);
    assert_true(fd >= 0);
    return fd;
}

/* Everything until the other end closes, and whether it did so in order. */
static bool read_answer(int fd) {
    size_t used = 0;
    ssize_t size;
    while ((size = recv(fd, answer + used, sizeof answer - 1 - used, 0)) > 0)
        used += (size_t)size;
    answer[used] = '\0';
    close(fd);
    return size == 0;
}

static const char *ask_bytes(const char *request, size_t size) {
    int fd = connect_to_it();
    send_exactly(NULL, fd, request, size);
    assert_true(read_answer(fd));
    return answer;
}

static const char *ask(const char *request) {
    return ask_bytes(request, strlen(request));
}

static void assert_code(const char *request, int code) {
    char expected[32];
    snprintf(expected, sizeof expected, "HTTP/1.1 %d ", code);
    ask(request);
    if (strncmp(answer, expected, strlen(expected)) != 0)
        fail_msg("%s: expected %d, got %s", request, code, answer);
    assert_non_null(strstr(answer, "\r\nConnection: close\r\n"));
}

static const char *body_of(void) {
    const char *body = strstr(answer, "\r\n\r\n");
    assert_non_null(body);
    return body + 4;
}

static size_t content_length(void) {
    const char *field = strstr(answer, "\r\nContent-Length: ");
    assert_non_null(field);
    return strtoul(field + 18, NULL, 10);
}

#define GOOD "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

/* ---- Those who speak it well ---- */

static void test_the_metrics_are_served(void **state) {
    (void)state;
    assert_code(GOOD, 200);
    assert_int_equal(content_length(), strlen(body_of()));
    assert_non_null(strstr(answer, "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert_non_null(strstr(answer, "\r\nDate: "));
    assert_non_null(strstr(body_of(), "\ntram_accepted_connections_total{worker=\"0\"} 1\n"));
    assert_non_null(strstr(body_of(), "\ntram_loop_lag_seconds_bucket{worker=\"0\",le=\"+Inf\"} "));
    assert_code("GET /metrics?name[]=up HTTP/1.1\r\nhOST:x\r\nAccept: */*\r\n\r\n", 200);
    assert_code("GET http://there:9/metrics HTTP/1.1\r\nHost: there:9\r\n\r\n", 200);
    assert_code("GET /metrics HTTP/1.0\r\n\r\n", 200);
    assert_non_null(strstr(body_of(), "\ntram_accepted_connections_total{worker=\"0\"} 4\n"));
}

static void test_HEAD_has_no_body(void **state) {
    (void)state;
    assert_code("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200);
    assert_true(content_length() > 1000);
    assert_string_equal(body_of(), "");
    assert_code("HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    assert_string_equal(body_of(), "");
}

static void test_other_places_and_methods_are_refused(void **state) {
    (void)state;
    assert_code("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    assert_int_equal(content_length(), strlen(body_of()));
    assert_code("GET /metricsx HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    assert_code("GET /Metrics HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    assert_code("GET http://metrics HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    assert_code("GET ? HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    assert_code("POST / HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    assert_code("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405);
    assert_non_null(strstr(answer, "\r\nAllow: GET, HEAD\r\n"));
    assert_code("get /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 405);
}

static void test_a_request_may_come_in_pieces(void **state) {
    (void)state;
    int fd = connect_to_it();
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (const char *at = GOOD; *at; at++)
        send_exactly(NULL, fd, at, 1);
    assert_true(read_answer(fd));
    assert_int_equal(strncmp(answer, "HTTP/1.1 200 ", 13), 0);
}

static void test_who_has_said_all_may_shut_its_side(void **state) {
    (void)state;
    int fd = connect_to_it();
    send_exactly(NULL, fd, GOOD, strlen(GOOD));
    shutdown(fd, SHUT_WR);
    assert_true(read_answer(fd));
    assert_int_equal(content_length(), strlen(body_of()));
}

static void test_what_follows_a_request_does_no_harm(void **state) {
    (void)state;
    static char request[100000] = GOOD GOOD;
    memset(request + strlen(request), 'x', sizeof request - 1 - strlen(request));
    assert_int_equal(strncmp(ask_bytes(request, sizeof request), "HTTP/1.1 200 ", 13), 0);
    assert_int_equal(content_length(), strlen(body_of()));
}

/* ---- Those who do not ---- */

static void test_what_is_no_request_is_told_so(void **state) {
    (void)state;
    static const char *const bad[] = {
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET /metrics\r\n\r\n",
        "GET  HTTP/1.1\r\nHost: x\r\n\r\n",
        " /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /metrics HTTP/1.1 \r\nHost: x\r\n\r\n",
        "GET /metrics HTTP/11\r\nHost: x\r\n\r\n",
        "GET /metrics HTTP/a.1\r\nHost: x\r\n\r\n",
        "GET /metrics http/1.1\r\nHost: x\r\n\r\n",
        "GET /met rics HTTP/1.1\r\nHost: x\r\n\r\n",
        "G(T /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /metrics HTTP/1.1\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nSpace : y\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\nLine: y\r\n\r\n",
        "GET /metrics HTTP/1.1\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02 \x01 \r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_code(bad[i], 400);
    static const char zero[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n";
    assert_int_equal(strncmp(ask_bytes(zero, sizeof zero - 1), "HTTP/1.1 400 ", 13), 0);
    assert_code("PRI * HTTP/2.0\r\n\r\n", 505);
    assert_code(GOOD, 200);
}

/* A head of this size in all. */
static const char *head_of(size_t size) {
    static char head[3 * METRICS_HEAD_LIMIT];
    static const char begin[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nLong: ", end[] = "\r\n\r\n";
    memset(head, 'l', size);
    memcpy(head, begin, sizeof begin - 1);
    memcpy(head + size - (sizeof end - 1), end, sizeof end);
    return head;
}

static void test_a_head_has_8_KiB(void **state) {
    (void)state;
    assert_code(head_of(METRICS_HEAD_LIMIT), 200);
    assert_code(head_of(METRICS_HEAD_LIMIT + 1), 431);
    assert_code(head_of(2 * METRICS_HEAD_LIMIT), 431);
}

static void test_half_a_request_is_cut_off(void **state) {
    (void)state;
    int silent = connect_to_it(), half = connect_to_it();
    send_exactly(NULL, half, GOOD, strlen(GOOD) - 1);
    read_answer(silent);
    assert_string_equal(answer, "");
    read_answer(half);
    assert_string_equal(answer, "");
}

static void test_who_leaves_in_the_middle_is_forgotten(void **state) {
    (void)state;
    int fd = connect_to_it();
    send_exactly(NULL, fd, "GET /", 5);
    shutdown(fd, SHUT_WR);
    assert_true(read_answer(fd));
    assert_string_equal(answer, "");
    fd = connect_to_it();
    send_exactly(NULL, fd, "GET /", 5);
    close_with_reset(fd);
    assert_code(GOOD, 200);
}

/* It has its answer, does not close, and so is closed. */
static void test_who_stays_is_cut_off(void **state) {
    (void)state;
    int fd = connect_to_it();
    send_exactly(NULL, fd, GOOD, strlen(GOOD));
    while (recv(fd, answer, sizeof answer, 0) > 0)
        continue;
    tram_stats stats = {.connections_now = 1};
    for (int i = 0; stats.connections_now; i++) {
        assert_true(i < 20000);
        poll(NULL, 0, 1);
        assert_int_equal(tram_runtime_stats(runtime, 0, &stats), 0);
    }
    close(fd);
}

static void test_who_never_ends_is_cut_off(void **state) {
    (void)state;
    static const char bytes[65536];
    int fd = connect_to_it();
    send_exactly(NULL, fd, GOOD, strlen(GOOD));
    ssize_t sent;
    do
        sent = send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);
    while (sent >= 0);
    assert_true(errno == ECONNRESET || errno == EPIPE);
    close(fd);
}

static void test_more_clients_than_are_allowed_are_turned_away(void **state) {
    (void)state;
    int fds[METRICS_CLIENTS];
    for (unsigned i = 0; i < METRICS_CLIENTS; i++)
        fds[i] = connect_to_it();
    int one_more = connect_to_it();
    read_answer(one_more);
    assert_string_equal(answer, "");
    for (unsigned i = 0; i < METRICS_CLIENTS; i++) {
        send_exactly(NULL, fds[i], GOOD, strlen(GOOD));
        assert_true(read_answer(fds[i]));
        assert_int_equal(strncmp(answer, "HTTP/1.1 200 ", 13), 0);
    }
    assert_code(GOOD, 200);
}

#define TEST(name)  cmocka_unit_test_setup_teardown(name, start_patient, stop)
#define HASTY(name) cmocka_unit_test_setup_teardown(name, start_hasty, stop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_the_metrics_are_served),
        TEST(test_HEAD_has_no_body),
        TEST(test_other_places_and_methods_are_refused),
        TEST(test_a_request_may_come_in_pieces),
        TEST(test_who_has_said_all_may_shut_its_side),
        TEST(test_what_follows_a_request_does_no_harm),
        TEST(test_what_is_no_request_is_told_so),
        TEST(test_a_head_has_8_KiB),
        HASTY(test_half_a_request_is_cut_off),
        TEST(test_who_leaves_in_the_middle_is_forgotten),
        HASTY(test_who_stays_is_cut_off),
        TEST(test_who_never_ends_is_cut_off),
        TEST(test_more_clients_than_are_allowed_are_turned_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
