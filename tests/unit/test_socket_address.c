/* Addresses from text and to text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

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
}

static void test_what_is_no_scope_is_no_address(void **state) {
    (void)state;
    static const char *const hosts[] = {
        "fe80::1%",           "fe80::1%0", "fe80::1%nosuch0",
        "127.0.0.1%lo",       "%lo",       "fe80::1%-1",
        "fe80::1%4294967296", "host%lo",   "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000%1"};
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_of_a_path_with_and_without_a_NUL),
        cmocka_unit_test(test_text_of_an_abstract_name_has_all_of_its_bytes),
        cmocka_unit_test(test_text_of_a_name_that_its_owner_chose_to_hurt),
        cmocka_unit_test(test_a_scope_is_an_interface_by_name_or_number),
        cmocka_unit_test(test_what_is_no_scope_is_no_address),
        cmocka_unit_test(test_all_interfaces_are_no_place),
    };
    return cmocka_run_group_tests_name("addresses", tests, NULL, NULL);
}
