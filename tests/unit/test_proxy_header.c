/* Headers of the PROXY protocol as bytes: what is one, and what is none. What else may come: stress/test_proxy_fuzz.c.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "support/support.h"
#include "transports/proxy/header.h"

#define V2 "\r\n\r\n\0\r\nQUIT\n"

/* In memory of exactly this size, so that a look behind it is seen. */
static int parse(const void *data, size_t size, struct proxy_header *ret_header) {
    char *exact = malloc(size ? size : 1);
    memcpy(exact, data, size);
    int status = tram__proxy_parse(exact, size, ret_header);
    if (status == 1) {
        assert_true(ret_header->size <= size && ret_header->tlvs_at <= ret_header->size);
        for (unsigned type = 0; type < 256; type++) {
            size_t length = 0;
            const char *value = tram__proxy_tlv(exact + ret_header->tlvs_at, ret_header->size - ret_header->tlvs_at,
                                                (uint8_t)type, &length);
            assert_true(!value || (value >= exact && value + length <= exact + ret_header->size));
        }
    }
    free(exact);
    return status;
}

static void assert_address(const tram_socket_address *address, const char *expected) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    assert_string_equal(tram_socket_address_text(address, text, sizeof text), expected);
}

/* Whole, and by every beginning of it, which is no header yet. */
static struct proxy_header whole(const void *data, size_t size) {
    struct proxy_header header;
    for (size_t part = 0; part < size; part++)
        assert_int_equal(parse(data, part, &header), 0);
    assert_int_equal(parse(data, size, &header), 1);
    assert_int_equal(header.size, size);
    return header;
}

static void test_version_1(void **state) {
    (void)state;
    static const char in[] = "PROXY TCP4 192.0.2.1 198.51.100.7 65535 443\r\n";
    static const char in6[] = "PROXY TCP6 2001:db8::1 ::1 1 0\r\n";
    static const char unknown[] = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
    struct proxy_header header = whole(in, sizeof in - 1);
    assert_address(&header.source, "192.0.2.1:65535");
    assert_address(&header.destination, "198.51.100.7:443");
    header = whole(in6, sizeof in6 - 1);
    assert_address(&header.source, "[2001:db8::1]:1");
    assert_address(&header.destination, "[::1]:0");
    assert_true(whole(unknown, sizeof unknown - 1).local);
    assert_true(whole("PROXY UNKNOWN\r\n", 15).local);
}

static void test_version_1_takes_nothing_else(void **state) {
    (void)state;
    static const char *const bad[] = {"GET / HTTP/1.1\r\n\r\n",
                                      "PROXY\r\n",
                                      "PROXY \r\n",
                                      "PROXY TCP4\r\n",
                                      "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
                                      "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
                                      "PROXY TCP4 1.2.3.4 5.6.7.8 1  2\r\n",
                                      "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
                                      "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
                                      "PROXY TCP4 1.2.3.4 5.6.7.8 1 -2\r\n",
                                      "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
                                      "PROXY TCP4 ::1 ::1 1 2\r\n",
                                      "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
                                      "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
                                      "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
                                      "PROXY UNKNOWNS\r\n"};
    struct proxy_header header;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(parse(bad[i], strlen(bad[i]), &header), -EPROTO);
    char endless[200];
    memset(endless, 'x', sizeof endless);
    memcpy(endless, "PROXY UNKNOWN ", 14);
    assert_int_equal(parse(endless, 106, &header), 0);
    assert_int_equal(parse(endless, 107, &header), -EPROTO);
}

static void test_version_2(void **state) {
    (void)state;
    static const char in[] = V2 "\x21\x11\0\x14"
                                "\xc0\0\2\1"
                                "\xc6\x33\x64\7"
                                "\xff\xff"
                                "\1\xbb"
                                "\2\0\5"
                                "a.org";
    static const char local[] = V2 "\x20\0\0\3"
                                   "any";
    static const char unspecified[] = V2 "\x21\0\0\0";
    struct proxy_header header = whole(in, sizeof in - 1);
    size_t size;
    assert_address(&header.source, "192.0.2.1:65535");
    assert_address(&header.destination, "198.51.100.7:443");
    assert_memory_equal(tram__proxy_tlv(in + header.tlvs_at, header.size - header.tlvs_at, TRAM_PROXY_AUTHORITY, &size),
                        "a.org", 5);
    assert_int_equal(size, 5);
    assert_null(tram__proxy_tlv(in + header.tlvs_at, header.size - header.tlvs_at, TRAM_PROXY_ALPN, &size));
    assert_true(whole(local, sizeof local - 1).local);
    assert_true(whole(unspecified, sizeof unspecified - 1).local);
}

static void test_version_2_takes_nothing_else(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {
        {V2 "\x11\x11\0\0", 16},
        {V2 "\x22\x11\0\0", 16},
        {V2 "\x21\x41\0\0", 16},
        {V2 "\x21\x13\0\0", 16},
        {V2 "\x21\x11\0\1"
            "x",
         17}, /* no room for the addresses */
        {V2 "\x21\x11\0\xd"
            "123412341212"
            "\1",
         29}, /* half of a TLV */
        {V2 "\x21\x11\0\x10"
            "123412341212"
            "\1\0\2x",
         32}, /* one that is longer than the rest */
        {V2 "\x21\x11\0\x13"
            "123412341212"
            "\3\0\4"
            "abcd",
         35},                      /* a wrong checksum */
        {V2 "\x21\x11\x10\0", 16}, /* longer than any is */
    };
    struct proxy_header header;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(parse(bad[i].bytes, bad[i].size, &header), -EPROTO);
}

/* Computed by another program. One TLV stands before the checksum and one behind it. */
static void test_version_2_with_a_checksum(void **state) {
    (void)state;
    char summed[] = V2 "\x21\x11\0\x1d"
                       "\1\2\3\4\5\6\7\x8"
                       "\0\x50\1\xbb"
                       "\4\0\2\x9\x9"
                       "\3\0\4\x54\x52\x2d\xa2"
                       "\1\0\2h2";
    const size_t size = sizeof summed - 1, sum_at = 36;
    struct proxy_header header = whole(summed, size);
    assert_address(&header.source, "1.2.3.4:80");
    assert_address(&header.destination, "5.6.7.8:443");
    for (size_t i = 16; i < size; i++) { /* no bit may turn */
        if ((i >= 28 && i < 31) || (i >= 33 && i < sum_at) || (i >= 40 && i < 43))
            continue; /* what says which TLV it is, and how long */
        for (int bit = 0; bit < 8; bit++) {
            summed[i] ^= (char)(1 << bit);
            assert_int_equal(parse(summed, size, &header), -EPROTO);
            summed[i] ^= (char)(1 << bit);
        }
    }
    assert_int_equal(parse(summed, size, &header), 1);
    summed[35] = 3; /* a checksum of three bytes is none */
    assert_int_equal(parse(summed, size, &header), -EPROTO);
}

/* The largest of each, which just fits, and what is one byte too large. */
static void test_headers_that_just_fit(void **state) {
    (void)state;
    static char bytes[TRAM_PROXY_HEADER_MAX + 1];
    static const struct {
        unsigned char family;
        unsigned short size;
        sa_family_t of;
    } only_addresses[] = {{0x11, 12, AF_INET},
                          {0x12, 12, AF_INET},
                          {0x21, 36, AF_INET6},
                          {0x22, 36, AF_INET6},
                          {0x31, 216, AF_UNIX},
                          {0x32, 216, AF_UNIX},
                          {0, 0, 0}};
    struct proxy_header header;
    memcpy(bytes, V2 "\x21", 13);
    for (size_t i = 0; i < sizeof only_addresses / sizeof *only_addresses; i++) {
        unsigned short size = only_addresses[i].size;
        bytes[13] = (char)only_addresses[i].family;
        bytes[14] = 0;
        bytes[15] = (char)size;
        header = whole(bytes, 16 + size);
        assert_int_equal(header.tlvs_at, 16 + size);
        assert_int_equal(header.source.address.ss_family, only_addresses[i].of);
        assert_int_equal(header.destination.address.ss_family, only_addresses[i].of);
        bytes[15] = (char)(size - 1);
        if (size)
            assert_int_equal(parse(bytes, 15 + size, &header), -EPROTO);
        if (only_addresses[i].family != 0) {
            bytes[15] = (char)(size + 3); /* a TLV of 0 bytes */
            assert_int_equal(whole(bytes, 16 + size + 3).tlvs_at, 16 + size);
        }
    }
    bytes[13] = 0; /* whatever follows is skipped */
    bytes[14] = (char)((TRAM_PROXY_HEADER_MAX - 16) >> 8);
    bytes[15] = (char)(TRAM_PROXY_HEADER_MAX - 16);
    assert_int_equal(parse(bytes, TRAM_PROXY_HEADER_MAX, &header), 1);
    bytes[14] = (char)((TRAM_PROXY_HEADER_MAX - 15) >> 8);
    bytes[15] = (char)(TRAM_PROXY_HEADER_MAX - 15);
    assert_int_equal(parse(bytes, TRAM_PROXY_HEADER_MAX + 1, &header), -EPROTO);
    memset(bytes, 'x', 108);
    memcpy(bytes, "PROXY UNKNOWN ", 14);
    memcpy(bytes + 105, "\r\n", 2);
    assert_int_equal(whole(bytes, 107).local, true);
    memcpy(bytes + 105, "x\r\n", 3);
    assert_int_equal(parse(bytes, 108, &header), -EPROTO);
}

static tram_socket_address address_of(int family, int number) {
    tram_socket_address address = {0};
    char path[20];
    snprintf(path, sizeof path, "/run/s%d", number);
    if (family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number)};
        in.sin_addr.s_addr = htonl(0x7f000000u + (uint32_t)number);
        memcpy(&address.address, &in, address.size = sizeof in);
    } else if (family == AF_INET6) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)number)};
        in6.sin6_addr.s6_addr[15] = (uint8_t)number;
        memcpy(&address.address, &in6, address.size = sizeof in6);
    } else {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        strcpy(un.sun_path, path);
        memcpy(&address.address, &un, sizeof un);
        address.size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
    }
    return address;
}

static void test_what_is_written_is_read(void **state) {
    (void)state;
    static const int families[] = {AF_INET, AF_INET6, AF_UNIX, 0};
    for (int version = 1; version <= 2; version++) {
        for (size_t i = 0; i < 4; i++) {
            char bytes[TRAM_PROXY_HEADER_MAX];
            tram_socket_address source = address_of(families[i], 17), destination = address_of(families[i], 200);
            tram_proxy_header header = {.version = version};
            if (families[i]) {
                header.source = &source;
                header.destination = &destination;
            }
            ssize_t size = tram__proxy_format(&header, bytes);
            assert_true(size > 0);
            struct proxy_header read = whole(bytes, (size_t)size);
            bool local = !families[i] || (version == 1 && families[i] == AF_UNIX);
            assert_int_equal(read.local, local);
            if (local)
                continue;
            assert_int_equal(read.source.size, source.size);
            assert_memory_equal(&read.source.address, &source.address, source.size);
            assert_memory_equal(&read.destination.address, &destination.address, destination.size);
        }
    }
    char bytes[TRAM_PROXY_HEADER_MAX];
    tram_socket_address a = address_of(AF_INET, 1), b = address_of(AF_INET6, 1);
    assert_int_equal(tram__proxy_format(&(tram_proxy_header){.version = 3}, bytes), TRAM_EVALUE);
    assert_int_equal(tram__proxy_format(&(tram_proxy_header){.version = 2, .source = &a}, bytes), TRAM_EVALUE);
    assert_int_equal(tram__proxy_format(&(tram_proxy_header){.version = 2, .source = &a, .destination = &b}, bytes),
                     TRAM_EVALUE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_1),
        cmocka_unit_test(test_version_1_takes_nothing_else),
        cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_version_2_takes_nothing_else),
        cmocka_unit_test(test_version_2_with_a_checksum),
        cmocka_unit_test(test_headers_that_just_fit),
        cmocka_unit_test(test_what_is_written_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
