/* Addresses from text and to text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "core/base/memory.h"
#include "transports/socket/address.h"

/* A Unix address with so many bytes of name, as the kernel might give it. */
static tram_socket_address unix_name(const void *name, size_t size) {
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    tram_socket_address address = {.size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)};
    memcpy(local.sun_path, name, size);
    memcpy(&address.address, &local, sizeof local);
    return address;
}

static void assert_text(const tram_socket_address *address, const char *expected) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    assert_string_equal(tram_socket_address_text(address, text, sizeof text), expected);
}

static void test_text_of_a_path_with_and_without_a_NUL(void **state) {
    (void)state;
    tram_socket_address address = unix_name("/run/x", 7);
    assert_text(&address, "unix:/run/x");
    /* What stands behind the size does not belong to it. */
    address = unix_name("/run/xyz", 8);
    address.size -= 2;
    assert_text(&address, "unix:/run/x");
    /* Nor does a NUL have to stand at the end. */
    char longest[108], expected[5 + sizeof longest + 1] = "unix:";
    memset(longest, 'p', sizeof longest);
    longest[0] = '/';
    address = unix_name(longest, sizeof longest);
    memset((char *)&address.address + address.size, 'q', 8);
    memcpy(expected + 5, longest, sizeof longest);
    assert_text(&address, expected);
    address = unix_name("", 0);
    assert_text(&address, "unix:");
}

static void test_text_of_an_abstract_name_has_all_of_its_bytes(void **state) {
    (void)state;
    tram_socket_address address = unix_name("\0tram", 5);
    assert_text(&address, "unix:@tram");
    address = unix_name("\0a\0b", 5);
    assert_text(&address, "unix:@a\\x00b\\x00");
    char longest[108], expected[6 + 4 * 107 + 1] = "unix:@";
    memset(longest, 1, sizeof longest);
    longest[0] = 0;
    for (size_t i = 0; i < 107; i++)
        memcpy(expected + 6 + 4 * i, "\\x01", 5);
    address = unix_name(longest, sizeof longest);
    assert_text(&address, expected);
}

static void test_text_of_a_name_that_its_owner_chose_to_hurt(void **state) {
    (void)state;
    tram_socket_address address = unix_name("/x\n\x1b[2J\x9b\\", 10);
    assert_text(&address, "unix:/x\\x0a\\x1b[2J\\x9b\\\\");
    address = unix_name("\0\r\nERROR", 8);
    assert_text(&address, "unix:@\\x0d\\x0aERROR");
}

static struct sockaddr_in6 inet6(const char *host, const char *port) {
    tram_socket_address address;
    struct sockaddr_in6 inet6 = {.sin6_family = AF_UNSPEC};
    if (tram_socket_address_inet(host, port, &address) == 0) {
        assert_int_equal(address.size, sizeof inet6);
        memcpy(&inet6, &address.address, sizeof inet6);
    }
    return inet6;
}

static void test_a_scope_is_an_interface_by_name_or_number(void **state) {
    (void)state;
    char name[IF_NAMESIZE], host[64];
    assert_non_null(if_indextoname(1, name));
    snprintf(host, sizeof host, "fe80::1%%%s", name);
    struct sockaddr_in6 named = inet6(host, "80"), numbered = inet6("fe80::1%1", "80");
    assert_int_equal(named.sin6_family, AF_INET6);
    assert_int_equal(named.sin6_scope_id, 1);
    assert_int_equal(ntohs(named.sin6_port), 80);
    assert_int_equal(named.sin6_addr.s6_addr[0], 0xfe);
    assert_memory_equal(&named, &numbered, sizeof named);
    /* As text it can be read again. */
    tram_socket_address address;
    assert_int_equal(tram_socket_address_inet(host, "80", &address), 0);
    assert_text(&address, "[fe80::1%1]:80");
    assert_int_equal(inet6("fe80::1%4294967295", NULL).sin6_scope_id, UINT32_MAX);
    assert_int_equal(inet6("fe80:0000:0000:0000:0000:0000:255.255.255.255%9", NULL).sin6_scope_id, 9); /* the longest */
}

static void test_what_is_no_scope_is_no_address(void **state) {
    (void)state;
    static const char *const hosts[] = {"fe80::1%",
                                        "fe80::1%0",
                                        "fe80::1%nosuch0",
                                        "127.0.0.1%lo",
                                        "%lo",
                                        "fe80::1%-1",
                                        "fe80::1%4294967296",
                                        "host%lo",
                                        "00000:000:0000:0000:0000:ffff:255.255.255.255%1",
                                        "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000%1"};
    tram_socket_address address, before;
    memset(&address, 0x55, sizeof address);
    before = address;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        assert_int_equal(tram_socket_address_inet(hosts[i], "80", &address), TRAM_EVALUE);
    assert_memory_equal(&address, &before, sizeof address);
}

static bool concrete(const char *host) {
    tram_socket_address address;
    assert_int_equal(tram_socket_address_inet(host, "1", &address), 0);
    return tram__address_concrete(&address);
}

static void test_all_interfaces_are_no_place(void **state) {
    (void)state;
    assert_false(concrete("0.0.0.0"));
    assert_false(concrete("::"));
    assert_false(concrete("::ffff:0.0.0.0"));
    assert_true(concrete("::ffff:0.0.0.1"));
    assert_true(concrete("::1"));
    assert_true(concrete("127.0.0.1"));
}

static bool contains(const char *text, const char *host) {
    tram_socket_address address;
    tram_socket_network network;
    assert_int_equal(tram_socket_address_inet(host, "1", &address), 0);
    assert_int_equal(tram_socket_network_parse(text, &network), 0);
    return tram_socket_network_contains(&network, &address);
}

/* As Python's ipaddress has it, but that an IPv4 address may come as one of IPv6. */
static void test_a_network_contains_its_addresses(void **state) {
    (void)state;
    static const struct {
        const char *network, *inside, *outside;
    } cases[] = {
        {"10.0.0.0/8", "10.255.255.255", "11.0.0.0"},
        {"10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"},
        {"192.0.2.128/25", "192.0.2.128", "192.0.2.127"},
        {"192.0.2.0/31", "192.0.2.1", "192.0.2.2"},
        {"192.0.2.7", "192.0.2.7", "192.0.2.6"},
        {"192.0.2.7/32", "::ffff:192.0.2.7", "::ffff:192.0.2.6"},
        {"0.0.0.0/0", "255.1.2.3", "::1"},
        {"::/0", "2001:db8::1", "127.0.0.1"},
        {"::/0", "::1", "::ffff:127.0.0.1"},
        {"2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"},
        {"2001:db8:8000::/33", "2001:db8:8000::", "2001:db8:7fff::"},
        {"fe80::/10", "fe80::1%1", "fec0::1"},
        {"::1", "::1", "::2"},
        {"::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"},
        {"::ffff:0.0.0.0/96", "10.9.9.9", "::1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(contains(cases[i].network, cases[i].inside));
        assert_false(contains(cases[i].network, cases[i].outside));
    }
    tram_socket_address address = unix_name("/run/x", 7), nobody = {0};
    tram_socket_network none = {0}, all;
    assert_int_equal(tram_socket_network_parse("::/0", &all), 0);
    assert_false(tram_socket_network_contains(&all, &address));
    assert_false(tram_socket_network_contains(&all, &nobody));
    assert_int_equal(tram_socket_address_inet("::", "1", &address), 0);
    assert_false(tram_socket_network_contains(&none, &address));
}

static void test_what_is_no_network(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "/8",
                                        "10.0.0.0/",
                                        "10.0.0.0/33",
                                        "10.0.0.0/-1",
                                        "10.0.0.0/8 ",
                                        "10.0.0/8",
                                        "10.0.0.1/8",
                                        "10.0.0.0/+8",
                                        "10.0.0.0/8/8",
                                        "10.0.0.0/0x8",
                                        "10.0.0.0/4294967304",
                                        "::1/64",
                                        "::/129",
                                        "fe80::1%1/64",
                                        "localhost/8",
                                        "::ffff:0:0/95",
                                        "::ffff:10.0.0.1/104",
                                        "1.0.0.0/7",
                                        "128.0.0.0/0",
                                        "0000:0000:0000:0000:0000:00000:255.255.255.255/8",
                                        "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000/8"};
    tram_socket_network network = {.bits = 77};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_int_equal(tram_socket_network_parse(texts[i], &network), TRAM_EVALUE);
    assert_int_equal(tram_socket_network_parse(NULL, &network), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "text");
    assert_int_equal(network.bits, 77);
}

/* Of a resolver that knows more than the internet. */
static void test_an_answer_of_another_family_is_left_out(void **state) {
    (void)state;
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_port = htons(7)};
    struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "x"};
    struct addrinfo last = {.ai_family = AF_INET, .ai_addr = (struct sockaddr *)&inet, .ai_addrlen = sizeof inet};
    struct addrinfo other = {
        .ai_family = AF_UNIX, .ai_addr = (struct sockaddr *)&local, .ai_addrlen = sizeof local, .ai_next = &last};
    struct addrinfo first = last;
    first.ai_next = &other;
    struct address_list list = {.allocator = &tram__memory_default};
    assert_int_equal(tram__addresses_add_answer(&list, &first), 0);
    assert_int_equal(list.count, 2);
    for (size_t i = 0; i < list.count; i++)
        assert_int_equal(list.items[i].address.address.ss_family, AF_INET);
    tram__addresses_free(&list);
}

static void test_text_without_room_or_of_nothing(void **state) {
    (void)state;
    tram_socket_address address = unix_name("/run/x", 6), nothing = {.size = 0};
    char text[8] = "before";
    assert_ptr_equal(tram_socket_address_text(&address, text, 0), text);
    assert_string_equal(text, "before");
    assert_string_equal(tram_socket_address_text(&address, text, sizeof text), "unix:/r");
    assert_string_equal(tram_socket_address_text(&address, text, 1), "");
    assert_text(NULL, "");
    nothing.address.ss_family = AF_UNIX;
    assert_text(&nothing, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_without_room_or_of_nothing),
        cmocka_unit_test(test_text_of_a_path_with_and_without_a_NUL),
        cmocka_unit_test(test_text_of_an_abstract_name_has_all_of_its_bytes),
        cmocka_unit_test(test_text_of_a_name_that_its_owner_chose_to_hurt),
        cmocka_unit_test(test_a_scope_is_an_interface_by_name_or_number),
        cmocka_unit_test(test_what_is_no_scope_is_no_address),
        cmocka_unit_test(test_all_interfaces_are_no_place),
        cmocka_unit_test(test_a_network_contains_its_addresses),
        cmocka_unit_test(test_what_is_no_network),
        cmocka_unit_test(test_an_answer_of_another_family_is_left_out),
    };
    return cmocka_run_group_tests_name("addresses", tests, NULL, NULL);
}
