#include "transports/proxy/header.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "core/base/invalid.h"

#define V1_MAX 107 /* "\r\n" included */

static const char v1_begin[] = "PROXY ";
static const unsigned char v2_begin[12] = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};

#define V2_FIXED      16
#define V2_IN_SIZE    12
#define V2_IN6_SIZE   36
#define V2_PATH       108
#define V2_LOCAL      0x20
#define V2_PROXY      0x21
#define V2_TLV_CRC32C 0x03

enum v2_family { V2_UNSPECIFIED = 0, V2_IN = 1, V2_IN6 = 2, V2_UNIX = 3 };

/* ---- Addresses ---- */

static void set_in(tram_socket_address *address, const void *host, uint16_t port) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    memcpy(&in.sin_addr, host, 4);
    memset(address, 0, sizeof *address);
    memcpy(&address->address, &in, sizeof in);
    address->size = sizeof in;
}

static void set_in6(tram_socket_address *address, const void *host, uint16_t port) {
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    memcpy(&in6.sin6_addr, host, 16);
    memset(address, 0, sizeof *address);
    memcpy(&address->address, &in6, sizeof in6);
    address->size = sizeof in6;
}

static void set_unix(tram_socket_address *address, const void *path) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    memcpy(un.sun_path, path, V2_PATH);
    memset(address, 0, sizeof *address);
    memcpy(&address->address, &un, sizeof un);
    size_t length = un.sun_path[0] ? strnlen(un.sun_path, V2_PATH) + 1 : 0;
    address->size = (socklen_t)(sizeof un.sun_family + MIN(length, V2_PATH));
}

/* ---- Version 1: a line of text ---- */

/* The next word up to `ends`, cut off; NULL: there is none. */
static char *take_word(char **at, char ends) {
    char *word = *at, *end = strchr(word, ends);
    if (!end || end == word)
        return NULL;
    *end = '\0';
    *at = end + 1;
    return word;
}

/* Whether it is one; so the two below. */
static bool parse_port(const char *text, uint16_t *ret_port) {
    unsigned port = 0;
    size_t length = strlen(text), digits = strspn(text, "0123456789");
    if (digits < length || length > 5 || (text[0] == '0' && length > 1))
        return false;
    for (; *text; text++)
        port = port * 10 + (unsigned)(*text - '0');
    *ret_port = (uint16_t)port;
    return port <= UINT16_MAX;
}

static bool parse_text_address(int family, const char *host, const char *port_text, tram_socket_address *ret_address) {
    unsigned char bytes[16];
    uint16_t port;
    if (inet_pton(family, host, bytes) != 1 || !parse_port(port_text, &port))
        return false;
    if (family == AF_INET)
        set_in(ret_address, bytes, port);
    else
        set_in6(ret_address, bytes, port);
    return true;
}

/* What comes behind "PROXY ", without the end of the line. */
static bool parse_words(char *line, struct proxy_header *header) {
    header->local = strcmp(line, "UNKNOWN") == 0 || strncmp(line, "UNKNOWN ", 8) == 0;
    if (header->local)
        return true;
    const char *family_name = take_word(&line, ' '), *source = family_name ? take_word(&line, ' ') : NULL;
    const char *destination = source ? take_word(&line, ' ') : NULL;
    const char *source_port = destination ? take_word(&line, ' ') : NULL;
    if (!source_port || !*line)
        return false;
    int family = strcmp(family_name, "TCP4") == 0 ? AF_INET : strcmp(family_name, "TCP6") == 0 ? AF_INET6 : 0;
    return family && parse_text_address(family, source, source_port, &header->source) &&
           parse_text_address(family, destination, line, &header->destination);
}

static int parse_v1(const char *data, size_t size, struct proxy_header *header) {
    char line[V1_MAX + 1];
    size_t most = MIN(size, V1_MAX);
    const char *end = memchr(data, '\n', most);
    if (!end)
        return size >= V1_MAX ? -EPROTO : 0;
    size_t length = (size_t)(end - data);
    if (length < sizeof v1_begin || data[length - 1] != '\r' || memchr(data, '\0', length))
        return -EPROTO;
    memcpy(line, data, length - 1);
    line[length - 1] = '\0';
    header->size = header->tlvs_at = length + 1;
    return parse_words(line + sizeof v1_begin - 1, header) ? 1 : -EPROTO;
}

/* ---- Version 2: binary ---- */

static size_t big16(const unsigned char *at) {
    return (size_t)at[0] << 8 | at[1];
}

/* Of the header with the bytes of the checksum itself taken for zeros. */
static uint32_t crc32c(const unsigned char *data, size_t size, size_t skip) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= i >= skip && i < skip + 4 ? 0 : data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    return ~crc;
}

static bool checksum_is_right(const unsigned char *data, size_t size, size_t at) {
    uint32_t sum = (uint32_t)big16(data + at) << 16 | (uint32_t)big16(data + at + 2);
    return crc32c(data, size, at) == sum;
}

static int check_tlvs(const unsigned char *data, const struct proxy_header *header) {
    size_t at = header->tlvs_at;
    while (at < header->size) {
        if (header->size - at < 3 || header->size - at - 3 < big16(data + at + 1))
            return -EPROTO;
        size_t length = big16(data + at + 1);
        if (data[at] == V2_TLV_CRC32C && (length != 4 || !checksum_is_right(data, header->size, at + 3)))
            return -EPROTO;
        at += 3 + length;
    }
    return 0;
}

static int parse_addresses(const unsigned char *data, struct proxy_header *header) {
    const unsigned char *at = data + V2_FIXED;
    size_t there = header->size - V2_FIXED, needed = 0;
    switch (data[13] >> 4) {
    case V2_IN:
        if (there >= (needed = V2_IN_SIZE)) {
            set_in(&header->source, at, (uint16_t)big16(at + 8));
            set_in(&header->destination, at + 4, (uint16_t)big16(at + 10));
        }
        break;
    case V2_IN6:
        if (there >= (needed = V2_IN6_SIZE)) {
            set_in6(&header->source, at, (uint16_t)big16(at + 32));
            set_in6(&header->destination, at + 16, (uint16_t)big16(at + 34));
        }
        break;
    case V2_UNIX:
        if (there >= (needed = 2 * V2_PATH)) {
            set_unix(&header->source, at);
            set_unix(&header->destination, at + V2_PATH);
        }
    }
    header->tlvs_at = V2_FIXED + needed;
    return there < needed ? -EPROTO : 0;
}

static int parse_v2(const unsigned char *data, size_t size, struct proxy_header *header) {
    if (size < V2_FIXED)
        return 0;
    if ((data[12] != V2_LOCAL && data[12] != V2_PROXY) || data[13] >> 4 > V2_UNIX || (data[13] & 15) > 2)
        return -EPROTO;
    header->size = header->tlvs_at = V2_FIXED + big16(data + 14);
    if (header->size > TRAM_PROXY_HEADER_MAX)
        return -EPROTO;
    if (size < header->size)
        return 0;
    if (data[12] == V2_LOCAL || data[13] >> 4 == V2_UNSPECIFIED) { /* what follows is to be skipped */
        header->local = true;
        header->tlvs_at = header->size;
        return 1;
    }
    int status = parse_addresses(data, header);
    if (!status)
        status = check_tlvs(data, header);
    return status ? status : 1;
}

int tram__proxy_parse(const void *data, size_t size, struct proxy_header *ret_header) {
    size_t v1 = MIN(size, sizeof v1_begin - 1);
    size_t v2 = MIN(size, sizeof v2_begin);
    *ret_header = (struct proxy_header){0};
    if (!size)
        return 0;
    if (memcmp(data, v1_begin, v1) == 0)
        return parse_v1(data, size, ret_header);
    return memcmp(data, v2_begin, v2) == 0 ? parse_v2(data, size, ret_header) : -EPROTO;
}

const void *tram__proxy_tlv(const void *tlvs, size_t size, uint8_t type, size_t *ret_size) {
    const unsigned char *at = tlvs, *end = at + size;
    while (end - at >= 3) {
        size_t length = big16(at + 1);
        if (at[0] == type) {
            *ret_size = length;
            return at + 3;
        }
        at += 3 + length;
    }
    return NULL;
}

/* ---- Writing ---- */

static ssize_t format_v1(const tram_proxy_header *header, int family, char *memory) {
    if (family != AF_INET && family != AF_INET6)
        return snprintf(memory, TRAM_PROXY_HEADER_MAX, "PROXY UNKNOWN\r\n");
    char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];
    const struct sockaddr_in *in[] = {(const void *)&header->source->address,
                                      (const void *)&header->destination->address};
    const struct sockaddr_in6 *in6[] = {(const void *)in[0], (const void *)in[1]};
    bool is_in = family == AF_INET;
    inet_ntop(family, is_in ? (const void *)&in[0]->sin_addr : &in6[0]->sin6_addr, source, sizeof source);
    inet_ntop(family, is_in ? (const void *)&in[1]->sin_addr : &in6[1]->sin6_addr, destination, sizeof destination);
    return snprintf(memory, TRAM_PROXY_HEADER_MAX, "PROXY TCP%d %s %s %u %u\r\n", is_in ? 4 : 6, source, destination,
                    ntohs(in[0]->sin_port), ntohs(in[1]->sin_port)); /* the port is at the same place in both */
}

static size_t put_address(char *at, const tram_socket_address *address, int family, size_t half) {
    const struct sockaddr_in *in = (const void *)&address->address;
    const struct sockaddr_in6 *in6 = (const void *)&address->address;
    const struct sockaddr_un *un = (const void *)&address->address;
    if (family == AF_UNIX) {
        size_t length = MAX(address->size, sizeof un->sun_family) - sizeof un->sun_family;
        memcpy(at + half * V2_PATH, un->sun_path, MIN(length, V2_PATH));
        return 2 * V2_PATH;
    }
    size_t size = family == AF_INET ? 4 : 16;
    memcpy(at + half * size, family == AF_INET ? (const void *)&in->sin_addr : &in6->sin6_addr, size);
    memcpy(at + 2 * size + 2 * half, &in->sin_port, 2);
    return 2 * size + 4;
}

static ssize_t format_v2(const tram_proxy_header *header, int family, char *memory) {
    size_t size = 0;
    memset(memory, 0, V2_FIXED + 2 * V2_PATH);
    memcpy(memory, v2_begin, sizeof v2_begin);
    memory[12] = family ? V2_PROXY : V2_LOCAL;
    if (family) {
        memory[13] = (char)((family == AF_INET ? V2_IN : family == AF_INET6 ? V2_IN6 : V2_UNIX) << 4 | 1);
        put_address(memory + V2_FIXED, header->source, family, 0);
        size = put_address(memory + V2_FIXED, header->destination, family, 1);
    }
    memory[14] = (char)(size >> 8);
    memory[15] = (char)size;
    return (ssize_t)(V2_FIXED + size);
}

ssize_t tram__proxy_format(const tram_proxy_header *header, char *memory) {
    int family = 0;
    if ((header->version != 1 && header->version != 2) || !header->source != !header->destination)
        return tram__invalid("proxy_header");
    if (header->source) {
        family = header->source->address.ss_family;
        if (family != header->destination->address.ss_family ||
            (family != AF_INET && family != AF_INET6 && family != AF_UNIX))
            return tram__invalid("proxy_header");
    }
    return header->version == 1 ? format_v1(header, family, memory) : format_v2(header, family, memory);
}
