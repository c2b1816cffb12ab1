/* Rules D-23 and D-24: at which address of this machine a datagram came in, from which it leaves, and how it came. */
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/datagram.h"

/* ---- Helpers ---- */

static uint16_t port_of(const tram_socket_address *address) {
    struct sockaddr_in6 inet; /* the port is where IPv4 has it */
    memcpy(&inet, &address->address, sizeof inet);
    return ntohs(inet.sin6_port);
}

static tram_socket_address inet(const char *host, uint16_t port) {
    char text[8];
    tram_socket_address address;
    snprintf(text, sizeof text, "%d", port);
    assert_int_equal(tram_socket_address_inet(host, text, &address), 0);
    return address;
}

static int bound_socket(const char *host) {
    tram_socket_address address = inet(host, 0);
    int fd = socket(address.address.ss_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    if (bind(fd, (struct sockaddr *)&address.address, address.size) == 0)
        return fd;
    close(fd);
    skip();
    return -1;
}

/* An endpoint on all interfaces, and a peer bound to `peer`, which is skipped where there is no such address. */
static struct endpoint everywhere(struct world *world, const char *host, const char *peer) {
    tram_datagram_options options = {.local_host = host, .local_port = "0"};
    return endpoint_open_with(world, &options, bound_socket(peer));
}

static void ask_at(struct endpoint *endpoint, const char *host, const char *question) {
    tram_socket_address to = inet(host, port_of(&endpoint->address));
    assert_int_equal(
        sendto(endpoint->peer, question, strlen(question), 0, (const struct sockaddr *)&to.address, to.size),
        strlen(question));
}

static bool peer_has_some(void *arg) {
    char byte;
    return recv(((struct endpoint *)arg)->peer, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

/* The peer's next datagram comes from there. */
static void expect_from(struct endpoint *endpoint, const char *host) {
    char bytes[64], text[TRAM_ADDRESS_TEXT_SIZE], expected[TRAM_ADDRESS_TEXT_SIZE];
    tram_socket_address from = {.size = sizeof from.address}, should = inet(host, port_of(&endpoint->address));
    run_until_true(endpoint->world, peer_has_some, endpoint);
    assert_true(recvfrom(endpoint->peer, bytes, sizeof bytes, 0, (struct sockaddr *)&from.address, &from.size) >= 0);
    tram_socket_address_text(&should, expected, sizeof expected);
    assert_string_equal(tram_socket_address_text(&from, text, sizeof text), expected);
}

static bool option(tram_transport *transport, int level, int name) {
    const tram_socket *view = tram_transport_get_extra_info(transport, "socket", NULL);
    int value = -1;
    socklen_t size = sizeof value;
    assert_int_equal(getsockopt(view->fd, level, name, &value, &size), 0);
    return value != 0;
}

static tram_socket_address heard_at; /* of the latest datagram */
static int ttl, tos;

static int note(struct recorder *recorder, const char *event) {
    tram_transport *transport = recorder->base.transport;
    if (strcmp(event, "datagram") != 0)
        return 0;
    assert_int_equal(tram_transport_datagram_local(transport, &heard_at), 0);
    ttl = tram_transport_datagram_ttl(transport);
    tos = tram_transport_datagram_tos(transport);
    return 0;
}

static int answer(struct recorder *recorder, const char *event) {
    if (strcmp(event, "datagram") != 0)
        return 0;
    note(recorder, event);
    return tram_transport_sendto(recorder->base.transport, "answer", 6, &recorder->peer);
}

static void assert_heard_at(struct endpoint *endpoint, const char *host) {
    char text[TRAM_ADDRESS_TEXT_SIZE], expected[TRAM_ADDRESS_TEXT_SIZE];
    tram_socket_address should = inet(host, port_of(&endpoint->address));
    tram_socket_address_text(&should, expected, sizeof expected);
    assert_string_equal(tram_socket_address_text(&heard_at, text, sizeof text), expected);
}

/* ---- Answers ---- */

static void test_D_23_an_answer_leaves_where_the_question_came_in(void **state) {
    calls_uninterrupted();
    struct endpoint endpoint = everywhere(*state, NULL, "127.0.0.1");
    endpoint.recorder->on = answer;
    ask_at(&endpoint, "127.0.0.2", "who?");
    expect_from(&endpoint, "127.0.0.2");
    assert_heard_at(&endpoint, "127.0.0.2");
    /* The answers of a batch still go with one call, whatever they leave from; what is alike is joined. */
    faults.send.calls = faults.messages = 0;
    ask_at(&endpoint, "127.0.0.2", "who?");
    ask_at(&endpoint, "127.0.0.2", "who?");
    ask_at(&endpoint, "127.0.0.3", "who?");
    ask_at(&endpoint, "127.0.0.1", "who?");
    run_ticks(endpoint.world, 1);
    assert_int_equal(faults.send.calls, 1);
    assert_int_equal(faults.messages, 4 - faults.joined);
    expect_from(&endpoint, "127.0.0.2");
    expect_from(&endpoint, "127.0.0.2");
    expect_from(&endpoint, "127.0.0.3");
    expect_from(&endpoint, "127.0.0.1");
    endpoint_close(&endpoint);
}

static void test_D_23_an_answer_that_waits_leaves_from_there_too(void **state) {
    struct endpoint endpoint = everywhere(*state, NULL, "127.0.0.1");
    endpoint.recorder->on = answer;
    faults.datagram_budget = 0;
    ask_at(&endpoint, "127.0.0.2", "who?");
    ask_at(&endpoint, "127.0.0.3", "who?");
    run_until_traced(endpoint.world, "datagram:4 datagram:4");
    run_ticks(endpoint.world, 2);
    assert_int_equal(tram_transport_get_write_buffer_size(endpoint.transport), 28);
    faults.datagram_budget = SIZE_MAX;
    expect_from(&endpoint, "127.0.0.2");
    expect_from(&endpoint, "127.0.0.3");
    endpoint_close(&endpoint);
}

static int tell_another(struct recorder *recorder, const char *event) {
    tram_socket_address *other = recorder->arg;
    return strcmp(event, "datagram") ? 0 : tram_transport_sendto(recorder->base.transport, "news", 4, other);
}

/* Only who has asked there knows that address. */
static void test_D_23_others_hear_from_where_the_route_says(void **state) {
    struct endpoint endpoint = everywhere(*state, NULL, "127.0.0.1");
    int asking = endpoint.peer, other = bound_socket("127.0.0.1");
    tram_socket_address address = address_of(other);
    endpoint.recorder->on = tell_another;
    endpoint.recorder->arg = &address;
    ask_at(&endpoint, "127.0.0.2", "tell");
    endpoint.peer = other;
    expect_from(&endpoint, "127.0.0.1");
    /* Nor does it matter who asked once the callback has returned. */
    assert_int_equal(tram_transport_sendto(endpoint.transport, "late", 4, &endpoint.recorder->peer), 0);
    endpoint.peer = asking;
    expect_from(&endpoint, "127.0.0.1");
    close(other);
    endpoint_close(&endpoint);
}

static void test_D_23_over_IPv6(void **state) {
    struct endpoint endpoint = everywhere(*state, "::", "::1");
    endpoint.recorder->on = answer;
    ask_at(&endpoint, "::1", "who?");
    expect_from(&endpoint, "::1");
    assert_heard_at(&endpoint, "::1");
    endpoint_close(&endpoint);
}

/* A socket of IPv6 on all interfaces hears IPv4, too. */
static void test_D_23_over_both(void **state) {
    int other = bound_socket("::1");
    close(other);
    struct endpoint endpoint = everywhere(*state, "::", "127.0.0.1");
    endpoint.recorder->on = answer;
    ask_at(&endpoint, "127.0.0.2", "who?");
    expect_from(&endpoint, "127.0.0.2");
    assert_heard_at(&endpoint, "::ffff:127.0.0.2");
    endpoint_close(&endpoint);
}

/* Such an address is nothing without its interface, and two of one machine may be the same. */
static void test_D_23_over_a_link(void **state) {
    FILE *list = fopen("/proc/net/if_inet6", "r");
    char digits[33], name[32], host[64] = "";
    unsigned index, prefix, scope, flags;
    while (list && fscanf(list, "%32s %x %x %x %x %31s", digits, &index, &prefix, &scope, &flags, name) == 6)
        if (scope == 0x20)
            snprintf(host, sizeof host, "%.4s:%.4s:%.4s:%.4s:%.4s:%.4s:%.4s:%.4s%%%u", digits, digits + 4, digits + 8,
                     digits + 12, digits + 16, digits + 20, digits + 24, digits + 28, index);
    if (list)
        fclose(list);
    if (!host[0])
        skip();
    struct endpoint endpoint = everywhere(*state, "::", host);
    endpoint.recorder->on = answer;
    ask_at(&endpoint, host, "who?");
    expect_from(&endpoint, host);
    assert_heard_at(&endpoint, host);
    endpoint_close(&endpoint);
}

/* ---- Naming the source ---- */

static void test_D_23_sendto_from_names_the_source(void **state) {
    struct endpoint endpoint = everywhere(*state, NULL, "127.0.0.1");
    struct world *world = endpoint.world;
    tram_transport *transport = endpoint.transport;
    tram_socket_address source = inet("127.0.0.5", 1), foreign = inet("192.0.2.250", 0), ipv6 = inet("::1", 0), local;
    const tram_socket_address *peer = &endpoint.peer_address;
    assert_int_equal(tram_transport_sendto_from(transport, "a", 1, peer, &source), 0);
    expect_from(&endpoint, "127.0.0.5");
    assert_int_equal(tram_transport_sendto_from(transport, "a", 1, peer, NULL), 0);
    expect_from(&endpoint, "127.0.0.1");
    assert_int_equal(tram_transport_cork(transport), 0);
    assert_int_equal(tram_transport_sendto_from(transport, "a", 1, peer, &source), 0);
    assert_int_equal(tram_transport_sendto_from(transport, "b", 1, peer, NULL), 0);
    assert_int_equal(tram_transport_uncork(transport), 0);
    expect_from(&endpoint, "127.0.0.5");
    expect_from(&endpoint, "127.0.0.1");
    assert_trace(world, "");
    /* One that is not ours is the kernel's to refuse. */
    assert_int_equal(tram_transport_sendto_from(transport, "a", 1, peer, &foreign), 0);
    assert_memory_equal(world->trace, "error:E", 7); /* EINVAL, ENETUNREACH … as the routes have it */
    world->trace[0] = '\0';
    assert_int_equal(tram_transport_sendto_from(transport, "a", 1, peer, &ipv6), TRAM_EVALUE);
    assert_int_equal(tram_transport_sendto_from(transport, "a", 1, NULL, &source), TRAM_EVALUE);
    assert_int_equal(tram_transport_sendto_from(transport, NULL, 1, peer, &source), TRAM_EVALUE);
    assert_int_equal(tram_socket_address_unix("/tmp/x", 6, &local), 0);
    assert_int_equal(tram_transport_sendto_from(transport, "a", 1, peer, &local), TRAM_EVALUE);
    /* Outside of datagram_received there is nothing to tell. */
    assert_int_equal(tram_transport_datagram_local(transport, &local), TRAM_ESTATE);
    assert_int_equal(tram_transport_datagram_ttl(transport), -1);
    assert_int_equal(tram_transport_datagram_tos(transport), -1);
    assert_trace(world, "");
    endpoint_close(&endpoint);

    struct stream stream = stream_open(world);
    assert_int_equal(tram_transport_sendto_from(stream.transport, "a", 1, peer, &source), -ENOTSUP);
    assert_int_equal(tram_transport_datagram_local(stream.transport, &local), -ENOTSUP);
    assert_int_equal(tram_transport_datagram_tos(stream.transport), -1);
    stream_close(&stream);
}

/* ---- What is asked of the kernel ---- */

static void test_D_23_only_sockets_on_all_interfaces_pay_for_it(void **state) {
    struct world *world = *state;
    struct endpoint bound = endpoint_open(world), connected = endpoint_open_connected(world);
    struct endpoint any = everywhere(world, NULL, "127.0.0.1");
    assert_false(option(bound.transport, IPPROTO_IP, IP_PKTINFO));
    assert_false(option(connected.transport, IPPROTO_IP, IP_PKTINFO));
    assert_true(option(any.transport, IPPROTO_IP, IP_PKTINFO));
    /* All the same it can be said where they hear. */
    bound.recorder->on = note;
    peer_sends(&bound, 1, 0);
    run_until_traced(world, "datagram:1");
    assert_memory_equal(&heard_at, &bound.address, sizeof(socklen_t) + sizeof(struct sockaddr_in));
    struct endpoint pair = endpoint_open_unix(world);
    pair.recorder->on = note;
    peer_sends(&pair, 2, 0);
    run_until_traced(world, "datagram:2");
    assert_int_equal(heard_at.address.ss_family, AF_UNIX);
    endpoint_close(&pair);
    endpoint_close(&any);
    endpoint_close(&connected);
    endpoint_close(&bound);
}

static void test_D_24_ttl_and_tos_are_told_on_request(void **state) {
    static const struct {
        const char *host, *local;
        int level, ttl_name, tos_name;
    } list[] = {{"127.0.0.1", "127.0.0.1", IPPROTO_IP, IP_TTL, IP_TOS},
                {NULL, "127.0.0.1", IPPROTO_IP, IP_TTL, IP_TOS},
                {"::1", "::1", IPPROTO_IPV6, IPV6_UNICAST_HOPS, IPV6_TCLASS},
                {"::", "127.0.0.1", IPPROTO_IP, IP_TTL, IP_TOS}};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        for (int asked = 0; asked < 4; asked++) {
            tram_datagram_options options = {
                .local_host = list[i].host, .local_port = "0", .receive_ttl = asked & 1, .receive_tos = asked & 2};
            struct endpoint endpoint = endpoint_open_with(world, &options, bound_socket(list[i].local));
            int hops = 42, congested = 0x2b;
            setsockopt(endpoint.peer, list[i].level, list[i].ttl_name, &hops, sizeof hops);
            setsockopt(endpoint.peer, list[i].level, list[i].tos_name, &congested, sizeof congested);
            endpoint.recorder->on = note;
            ask_at(&endpoint, list[i].local, "how?");
            run_until_traced(world, "datagram:4");
            assert_int_equal(ttl, asked & 1 ? 42 : -1);
            assert_int_equal(tos, asked & 2 ? 0x2b : -1);
            endpoint_close(&endpoint);
            world->trace[0] = '\0';
        }
}

static void test_D_24_also_of_a_given_socket_but_of_UDP_only(void **state) {
    struct world *world = *state;
    int fd = bound_socket("127.0.0.1"), pair[2];
    tram_datagram_options options = {.sock = &fd, .receive_ttl = true, .receive_tos = true};
    struct endpoint endpoint = endpoint_open_with(world, &options, bound_socket("127.0.0.1"));
    endpoint.recorder->on = note;
    peer_sends(&endpoint, 4, 0);
    run_until_traced(world, "datagram:4");
    assert_true(ttl > 0);
    assert_int_equal(tos, 0);
    endpoint_close(&endpoint);
    world->trace[0] = '\0';

    unix_datagram_pair(pair);
    options.sock = &pair[0];
    tram_future *future;
    assert_int_equal(tram_loop_create_datagram_endpoint(world->loop, recorder_factory, world, &options, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), -ENOTSUP);
    tram_future_release(future);
    close(pair[1]);
    world->trace[0] = '\0';
}

static void test_D_24_a_refusal_is_told(void **state) {
    struct world *world = *state;
    tram_datagram_options options = {.local_host = "127.0.0.1", .receive_ttl = true};
    fail_next(&faults.setsockopt, ENOPROTOOPT, FAULT_ALWAYS);
    assert_int_equal(endpoint_error(world, &options), -ENOPROTOOPT);
    fail_next(&faults.setsockopt, 0, 0);
    fail_next(&faults.getsockname, ENOBUFS, FAULT_ALWAYS);
    assert_int_equal(endpoint_error(world, &options), -ENOBUFS);
    fail_next(&faults.getsockname, 0, 0);
}

static int refused_level;

static int refuse_level(int fd, int level, int name, const void *value, socklen_t size) {
    static const int names[] = {IP_RECVTTL, IPV6_RECVHOPLIMIT};
    if (level != refused_level || name != names[level == IPPROTO_IPV6])
        return tram__sys.setsockopt(fd, level, name, value, size);
    errno = ENOPROTOOPT;
    return -1;
}

/* Over IPv6 both kinds of details are asked for: either may be refused. */
static void test_D_24_a_refusal_of_either_family_is_told(void **state) {
    struct world *world = *state;
    static const int levels[] = {IPPROTO_IP, IPPROTO_IPV6};
    static struct sys sys;
    close(bound_socket("::1"));
    sys = tram__sys;
    sys.setsockopt = refuse_level;
    world_use_sys(world, &sys);
    for (size_t i = 0; i < 2; i++) {
        tram_datagram_options options = {.local_host = "::1", .receive_ttl = true};
        refused_level = levels[i];
        assert_int_equal(endpoint_error(world, &options), -ENOPROTOOPT);
    }
}

#define TEST_FAULTS(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST_FAULTS(test_D_23_an_answer_leaves_where_the_question_came_in),
        TEST_FAULTS(test_D_23_an_answer_that_waits_leaves_from_there_too),
        TEST_FAULTS(test_D_23_others_hear_from_where_the_route_says),
        TEST_FAULTS(test_D_23_over_IPv6),
        TEST_FAULTS(test_D_23_over_both),
        TEST_FAULTS(test_D_23_over_a_link),
        TEST_FAULTS(test_D_23_sendto_from_names_the_source),
        TEST_FAULTS(test_D_23_only_sockets_on_all_interfaces_pay_for_it),
        TEST_FAULTS(test_D_24_ttl_and_tos_are_told_on_request),
        TEST_FAULTS(test_D_24_also_of_a_given_socket_but_of_UDP_only),
        TEST_FAULTS(test_D_24_a_refusal_is_told),
        TEST_FAULTS(test_D_24_a_refusal_of_either_family_is_told),
    };
    return cmocka_run_group_tests_name("local addresses of datagrams", tests, NULL, NULL);
}
