/* Batches of datagrams by themselves: what is joined for the kernel, and what is made of what it gives. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#include "core/backend/backend.h"
#include "core/backend/datagrams.h"
#include "support/support.h"

static struct world *world;
static struct io io;
static struct io_datagram datagrams[TRAM_DATAGRAMS_OUT];
static char bytes[65536];

/* ---- What came ---- */

static bool no_more; /* who receives stops at the next one */

static void on_received(struct io *of, const struct io_datagram *datagram) {
    trace(world, "%zu/%zu@%td", datagram->size, datagram->full_size,
          (char *)datagram->data - of->loop->datagrams->bytes);
    const struct io_ancillary *told = datagram->ancillary;
    if (told)
        trace(world, "ttl:%d tos:%d", told->ttl, told->tos);
    if (told && told->has_local) {
        char text[INET6_ADDRSTRLEN];
        inet_ntop(AF_INET6, &told->local, text, sizeof text);
        trace(world, "%s%%%u", text, (unsigned)told->interface);
    }
    if (no_more)
        tram__io_receive_stop(of);
}

static void on_received_all(struct io *of) {
    (void)of;
    trace(world, "all");
}

static void on_failure(struct io *of, int code) {
    (void)of;
    trace(world, "%s", tram_error_name(code));
}

static const struct io_datagram_kind datagram_kind = {
    .received = on_received, .received_all = on_received_all, .receive_failed = on_failure};
static const struct io_kind kind = {.name = "datagrams", .datagrams = &datagram_kind};

/* ---- The kernel ---- */

static bool joins; /* what it says of UDP_GRO */

static int own_getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
    (void)fd;
    assert_true(*size == sizeof(int));
    if (level == SOL_UDP && name == UDP_GRO)
        return *(int *)value = joins, 0;
    return *(int *)value = 0, 0; /* it knows UDP_SEGMENT */
}

static int own_setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
    (void)fd;
    assert_true(level == SOL_UDP && name == UDP_GRO && size == sizeof(int) && *(const int *)value == 1);
    trace(world, "gro");
    return 0;
}

static int setup(void **state) {
    static struct sys sys;
    int status = world_setup(state);
    world = *state;
    sys = tram__sys;
    sys.getsockopt = own_getsockopt;
    sys.setsockopt = own_setsockopt;
    world_use_sys(world, &sys);
    no_more = joins = false;
    assert_int_equal(tram__io_add(&io, world->loop, &kind, -1), 0);
    assert_int_equal(tram__datagrams_prepare(&io, true), 0);
    assert_int_equal(io.flags & (IO_JOINS | IO_LARGE), IO_JOINS);
    assert_trace(world, "gro");
    return status;
}

static int teardown(void **state) {
    tram__io_remove(&io);
    return world_teardown(state);
}

/* ---- Sending ---- */

static const struct sockaddr *address(const char *text, tram_socket_address *ret_address) {
    assert_int_equal(tram_socket_address_inet(text, "9", ret_address), 0);
    return (const struct sockaddr *)&ret_address->address;
}

static void of_size(size_t index, size_t size) {
    datagrams[index] = (struct io_datagram){.data = bytes + index, .size = size};
}

/* How many go with each message, as "3 1". */
static const char *packed(size_t count) {
    static char text[256];
    struct datagram_area *area = world->loop->datagrams;
    text[0] = '\0';
    unsigned messages = tram__datagrams_pack(area, &io, datagrams, count);
    size_t first = 0;
    for (unsigned i = 0; i < messages; i++) {
        const struct msghdr *message = &area->out[i].msg_hdr;
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%zu", i ? " " : "", message->msg_iovlen);
        assert_int_equal(tram__datagrams_packed(area, i), first);
        assert_ptr_equal(message->msg_name, datagrams[first].address);
        assert_int_equal(message->msg_namelen, datagrams[first].address_size);
        bool joined = message->msg_iovlen > 1;
        const struct io_ancillary *from = datagrams[first].ancillary;
        assert_int_equal(message->msg_control != NULL, joined || from);
        size_t size = 0;
        for (size_t k = 0; k < message->msg_iovlen; k++, first++) {
            assert_ptr_equal(message->msg_iov[k].iov_base, datagrams[first].data);
            assert_int_equal(message->msg_iov[k].iov_len, datagrams[first].size);
        }
        struct cmsghdr *control = CMSG_FIRSTHDR(message);
        if (joined) {
            uint16_t segment;
            assert_true(control->cmsg_level == SOL_UDP && control->cmsg_type == UDP_SEGMENT);
            memcpy(&segment, CMSG_DATA(control), sizeof segment);
            assert_int_equal(segment, message->msg_iov[0].iov_len);
            size += CMSG_SPACE(sizeof segment);
            control = (struct cmsghdr *)(void *)((char *)control + CMSG_SPACE(sizeof segment));
        }
        if (from && IN6_IS_ADDR_V4MAPPED(&from->local)) {
            struct in_pktinfo info;
            assert_true(control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO);
            memcpy(&info, CMSG_DATA(control), sizeof info);
            assert_memory_equal(&info.ipi_spec_dst, &from->local.s6_addr[12], 4);
            assert_int_equal(info.ipi_ifindex, from->interface);
            assert_int_equal(info.ipi_addr.s_addr, 0);
            size += CMSG_SPACE(sizeof info);
        } else if (from) {
            struct in6_pktinfo info;
            assert_true(control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO);
            memcpy(&info, CMSG_DATA(control), sizeof info);
            assert_memory_equal(&info.ipi6_addr, &from->local, sizeof from->local);
            assert_int_equal(info.ipi6_ifindex, from->interface);
            size += CMSG_SPACE(sizeof info);
        }
        assert_int_equal(message->msg_controllen, size);
    }
    assert_int_equal(first, count);
    assert_int_equal(tram__datagrams_packed(area, messages), count);
    return text;
}

static void test_D_15_what_is_of_one_size_is_joined(void **state) {
    (void)state;
    static const struct {
        size_t sizes[5], count;
        const char *expected;
    } cases[] = {
        {{100, 100, 100}, 3, "3"},           {{100, 100, 50}, 3, "3"}, {{100, 50, 100}, 3, "2 1"},
        {{100, 50, 50}, 3, "2 1"},           {{100, 101}, 2, "1 1"},   {{0, 100, 100}, 3, "1 2"},
        {{100, 0, 100}, 3, "1 1 1"},         {{100}, 1, "1"},          {{0, 0}, 2, "1 1"},
        {{100, 100, 1, 100, 100}, 5, "3 2"}, {{1, 1, 2, 2}, 4, "2 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t k = 0; k < cases[i].count; k++)
            of_size(k, cases[i].sizes[k]);
        assert_string_equal(packed(cases[i].count), cases[i].expected);
    }
    io.flags &= (uint8_t)~IO_JOINS;
    of_size(0, 9);
    of_size(1, 9);
    assert_string_equal(packed(2), "1 1");
}

static void test_D_15_so_many_and_so_much_at_most(void **state) {
    (void)state;
    char expected[32];
    for (size_t i = 0; i < TRAM_SEGMENTS + 1; i++)
        of_size(i, 10);
    snprintf(expected, sizeof expected, "%d", (int)TRAM_SEGMENTS);
    assert_string_equal(packed(TRAM_SEGMENTS), expected);
    strcat(expected, " 1");
    assert_string_equal(packed(TRAM_SEGMENTS + 1), expected);
    size_t size = TRAM_SEGMENTS_SIZE / 2 - 1;
    for (size_t last = 2; last <= 3; last++) {
        of_size(0, size);
        of_size(1, size);
        of_size(2, TRAM_SEGMENTS_SIZE - 2 * size + last - 2);
        assert_string_equal(packed(3), last == 2 ? "3" : "2 1");
    }
}

static void test_D_15_only_what_has_the_same_ends_is_joined(void **state) {
    (void)state;
    tram_socket_address addresses[5];
    static const char *const texts[] = {"127.0.0.1", "127.0.0.1", "127.0.0.2", "::1", "::2"};
    for (size_t a = 0; a < 5; a++)
        address(texts[a], &addresses[a]);
    for (size_t a = 0; a < 5; a++)
        for (size_t b = 0; b < 5; b++) {
            of_size(0, 10);
            of_size(1, 10);
            datagrams[0].address = (struct sockaddr *)&addresses[a].address;
            datagrams[0].address_size = addresses[a].size;
            datagrams[1].address = (struct sockaddr *)&addresses[b].address;
            datagrams[1].address_size = addresses[b].size;
            assert_string_equal(packed(2), a == b || a + b == 1 ? "2" : "1 1");
        }
    const struct io_ancillary froms[] = {
        {.local = {.s6_addr = {[10] = 0xff, 0xff, 127, 0, 0, 1}}, .interface = 1},
        {.local = {.s6_addr = {[10] = 0xff, 0xff, 127, 0, 0, 1}}, .interface = 1, .ttl = 7},
        {.local = {.s6_addr = {[10] = 0xff, 0xff, 127, 0, 0, 1}}, .interface = 2},
        {.local = {.s6_addr = {[10] = 0xff, 0xff, 127, 0, 0, 2}}, .interface = 1},
        {.local = {.s6_addr = {[0] = 0xfe, 0x80, [15] = 1}}, .interface = 3},
    };
    for (size_t a = 0; a < 6; a++)
        for (size_t b = 0; b < 6; b++) {
            of_size(0, 10);
            of_size(1, 10);
            datagrams[0].ancillary = a < 5 ? &froms[a] : NULL;
            datagrams[1].ancillary = b < 5 ? &froms[b] : NULL;
            assert_string_equal(packed(2), a == b || a + b == 1 ? "2" : "1 1");
        }
}

/* Two of this size to an address, NULL: of a socket that is connected. */
static const char *two(size_t size, const char *to) {
    static tram_socket_address there;
    for (size_t i = 0; i < 2; i++) {
        of_size(i, size);
        if (to) {
            datagrams[i].address = address(to, &there);
            datagrams[i].address_size = there.size;
        }
    }
    return packed(2);
}

static void test_D_15_a_narrow_path_is_known_by_its_host(void **state) {
    (void)state;
    static const char *const hosts[] = {"127.0.0.1", "127.0.0.2", "fd00::1", "fd00::2", "fd00:0:0:1::1", NULL};
    size_t count = sizeof hosts / sizeof *hosts;
    memset(world->loop->datagrams->narrow, 0xff, sizeof world->loop->datagrams->narrow);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(two(500, hosts[i]), "2");
    for (size_t narrow = 0; narrow < count; narrow++) {
        world->loop->datagrams->knows_narrow = false;
        (void)two(500, hosts[narrow]);
        tram__datagrams_unjoin(&io, datagrams, narrow % 2 ? EMSGSIZE : EINVAL);
        for (size_t i = 0; i < count; i++) {
            assert_string_equal(two(499, hosts[i]), "2");
            assert_string_equal(two(500, hosts[i]), i == narrow ? "1 1" : "2");
            assert_string_equal(two(501, hosts[i]), i == narrow ? "1 1" : "2");
        }
    }
    io.generation++; /* another socket that is connected */
    assert_string_equal(two(500, NULL), "2");
    io.generation--;
    assert_true(io.flags & IO_JOINS);
    io.flags |= IO_NO_QUIET;
    tram__datagrams_unjoin(&io, datagrams, EIO); /* no device does it */
    assert_string_equal(two(10, "127.0.0.9"), "1 1");
    assert_int_equal(io.flags, IO_NO_QUIET);
}

static void test_D_15_what_may_be_the_fault_of_joining(void **state) {
    (void)state;
    static const int errors[] = {EMSGSIZE, EINVAL, EIO, EOPNOTSUPP, ENOBUFS, EAGAIN, EPERM, ECONNREFUSED, 0};
    const struct datagram_area *area = world->loop->datagrams;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        assert_string_equal(two(10, NULL), "2");
        assert_int_equal(tram__datagrams_joined_badly(area, errors[i]), i < 4);
        of_size(0, 10);
        assert_string_equal(packed(1), "1");
        assert_false(tram__datagrams_joined_badly(area, errors[i]));
    }
}

/* ---- Receiving ---- */

struct said {
    int level, type;
    size_t size;
    const void *value;
};

/* A message of the kernel's, with what it says beside it. */
static void came(unsigned index, size_t size, int flags, const struct said *said) {
    struct datagram_area *area = world->loop->datagrams;
    struct msghdr *message = &area->in[index].msg_hdr;
    area->in[index].msg_len = (unsigned)size;
    message->msg_namelen = 0;
    message->msg_flags = flags;
    size_t used = 0;
    for (; said && said->value; said++) {
        struct cmsghdr *control = (struct cmsghdr *)(void *)(area->in_control[index] + used);
        *control = (struct cmsghdr){CMSG_LEN(said->size), said->level, said->type};
        memcpy(CMSG_DATA(control), said->value, said->size);
        used += CMSG_SPACE(said->size);
    }
    message->msg_controllen = used;
}

static void deliver(unsigned count, const char *expected) {
    io.wanted |= IO_READ;
    tram__datagrams_deliver(&io, count);
    assert_trace(world, expected);
    const struct datagram_area *area = world->loop->datagrams;
    for (unsigned i = 0; i < count; i++) { /* ready for the next receive */
        assert_int_equal(area->in[i].msg_hdr.msg_namelen, sizeof area->in_peers[i]);
        assert_int_equal(area->in[i].msg_hdr.msg_controllen, DATAGRAM_CONTROL_SIZE);
    }
}

static void test_D_7_what_was_joined_is_cut_again(void **state) {
    (void)state;
    static const struct {
        size_t size;
        int joined;
        const char *expected;
    } cases[] = {{100, 0, "100/100@0 all"},         {100, 100, "100/100@0 all"},
                 {100, 50, "50/50@0 50/50@50 all"}, {101, 50, "50/50@0 50/50@50 1/1@100 all"},
                 {100, 200, "100/100@0 all"},       {0, 0, "0/0@0 all"}};
    assert_true(tram__datagrams_room(world->loop->datagrams, &io) > 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct said said[] = {{SOL_UDP, UDP_GRO, sizeof(int), &cases[i].joined}, {0}};
        tram_stats before, now;
        tram_loop_stats(world->loop, &before);
        came(0, cases[i].size, 0, cases[i].joined ? said : NULL);
        deliver(1, cases[i].expected);
        tram_loop_stats(world->loop, &now);
        assert_int_equal(now.reads - before.reads, 1);
        assert_int_equal(now.bytes_received - before.bytes_received, cases[i].size);
    }
    came(0, 70000, 0, NULL); /* larger than its place: cut */
    char expected[64];
    snprintf(expected, sizeof expected, "%d/70000@0 all", (int)TRAM_DATAGRAM_SLOT);
    deliver(1, expected);
}

static void test_D_7_nothing_comes_after_the_stop(void **state) {
    (void)state;
    const int joined = 10;
    const struct said said[] = {{SOL_UDP, UDP_GRO, sizeof joined, &joined}, {0}};
    assert_true(tram__datagrams_room(world->loop->datagrams, &io) > 1);
    no_more = true;
    came(0, 30, 0, said);
    came(1, 5, 0, NULL);
    deliver(2, "10/10@0 all");
    came(0, 0, 0, NULL);
    came(1, 5, 0, NULL);
    deliver(2, "0/0@0 all");
}

static void test_D_7_boundaries_that_are_not_known_are_an_error(void **state) {
    (void)state;
    const int ttl = 3;
    const struct said said[] = {{IPPROTO_IP, IP_TTL, sizeof ttl, &ttl}, {0}};
    assert_true(tram__datagrams_room(world->loop->datagrams, &io) > 1);
    came(0, 30, MSG_CTRUNC, NULL);
    deliver(1, "30/30@0 all"); /* the socket joins none */
    joins = true;
    came(0, 30, MSG_CTRUNC, NULL);
    deliver(1, "ENOBUFS all");
    came(0, 30, MSG_CTRUNC, said); /* it stands behind the size, which was there */
    deliver(1, "30/30@0 ttl:3 tos:-1 all");
    came(0, 30, 0, NULL);
    deliver(1, "30/30@0 all");
}

static void test_D_24_what_is_said_of_a_datagram(void **state) {
    (void)state;
    assert_true(tram__datagrams_room(world->loop->datagrams, &io) > 1);
    static const struct { int value, told; } numbers[] = {{0, 0}, {1, 1}, {255, 255}, {256, -1}, {-1, -1}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        for (int ipv6 = 0; ipv6 < 2; ipv6++) {
            const struct said ttl[] = {
                {ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, ipv6 ? IPV6_HOPLIMIT : IP_TTL, sizeof(int), &numbers[i].value}, {0}};
            const struct said tos[] = {
                {ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, ipv6 ? IPV6_TCLASS : IP_TOS, sizeof(int), &numbers[i].value}, {0}};
            char expected[64];
            came(0, 1, 0, ttl);
            snprintf(expected, sizeof expected, "1/1@0 ttl:%d tos:-1 all", numbers[i].told);
            deliver(1, expected);
            came(0, 1, 0, tos);
            snprintf(expected, sizeof expected, "1/1@0 ttl:-1 tos:%d all", numbers[i].told);
            deliver(1, expected);
        }
    const unsigned char byte = 0xfd;
    const int ttl = 64, other = 9;
    const struct in_pktinfo info = {
        .ipi_ifindex = 7, .ipi_spec_dst.s_addr = htonl(0x7f000001), .ipi_addr.s_addr = htonl(0x7fffffff)};
    const struct in6_pktinfo info6 = {.ipi6_addr = {.s6_addr = {[0] = 0xfe, 0x80, [15] = 1}}, .ipi6_ifindex = 8};
    const struct said all4[] = {{IPPROTO_IP, IP_TOS, 1, &byte},
                                {IPPROTO_IP, IP_PKTINFO, sizeof info, &info},
                                {IPPROTO_IP, IP_OPTIONS, sizeof other, &other},
                                {IPPROTO_IP, IP_TTL, sizeof ttl, &ttl},
                                {0}};
    came(0, 4, 0, all4);
    deliver(1, "4/4@0 ttl:64 tos:253 ::ffff:127.0.0.1%7 all");
    const struct said all6[] = {{IPPROTO_IPV6, IPV6_HOPLIMIT, sizeof ttl, &ttl},
                                {IPPROTO_IPV6, IPV6_PKTINFO, sizeof info6, &info6},
                                {IPPROTO_IPV6, IPV6_TCLASS, sizeof other, &other},
                                {IPPROTO_IPV6, IPV6_HOPOPTS, sizeof other, &other},
                                {0}};
    came(0, 4, 0, all6);
    deliver(1, "4/4@0 ttl:64 tos:9 fe80::1%8 all");
    const struct said none[] = {{SOL_SOCKET, SCM_TIMESTAMP, sizeof other, &other}, {0}};
    came(0, 4, 0, none);
    deliver(1, "4/4@0 all");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_D_15_what_is_of_one_size_is_joined),
        TEST(test_D_15_so_many_and_so_much_at_most),
        TEST(test_D_15_only_what_has_the_same_ends_is_joined),
        TEST(test_D_15_a_narrow_path_is_known_by_its_host),
        TEST(test_D_15_what_may_be_the_fault_of_joining),
        TEST(test_D_7_what_was_joined_is_cut_again),
        TEST(test_D_7_nothing_comes_after_the_stop),
        TEST(test_D_7_boundaries_that_are_not_known_are_an_error),
        TEST(test_D_24_what_is_said_of_a_datagram),
    };
    return cmocka_run_group_tests_name("datagrams", tests, NULL, NULL);
}
