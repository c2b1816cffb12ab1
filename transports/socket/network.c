/* Networks of internet addresses: who belongs to one. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "core/base/invalid.h"
#include "transports/socket/address.h"

#define MAPPED_BITS 96 /* in front of an IPv4 address in one of IPv6 */

static bool is_mapped(const unsigned char *bytes) {
    static const unsigned char before[MAPPED_BITS / 8] = {[10] = 0xff, [11] = 0xff};
    return memcmp(bytes, before, sizeof before) == 0;
}

/* Up to three digits; false for anything else. */
static bool parse_bits(const char *text, unsigned most, unsigned *ret_bits) {
    size_t length = strspn(text, "0123456789");
    unsigned bits = 0;
    if (length == 0 || length > 3 || text[length])
        return false;
    for (; *text; text++)
        bits = bits * 10 + (unsigned)(*text - '0');
    *ret_bits = bits;
    return bits <= most;
}

/* Are the bits from `begin` on all 0? */
static bool zero_from(const unsigned char *bytes, unsigned begin, unsigned end) {
    for (unsigned bit = begin; bit < end; bit++)
        if (bytes[bit / 8] & 0x80u >> bit % 8)
            return false;
    return true;
}

/* An address with bits behind a slash, or none. */
static bool parse(const char *text, tram_socket_network *network) {
    char host[INET6_ADDRSTRLEN];
    size_t length = strcspn(text, "/");
    if (length >= sizeof host)
        return false;
    memcpy(host, text, length);
    host[length] = '\0';
    network->family = strchr(host, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(network->family, host, network->prefix) != 1)
        return false;
    unsigned size = network->family == AF_INET ? 32 : 128;
    network->bits = size;
    if (text[length] && !parse_bits(text + length + 1, size, &network->bits))
        return false;
    return zero_from(network->prefix, network->bits, size);
}

int tram_socket_network_parse(const char *text, tram_socket_network *ret_network) {
    tram_socket_network network = {0};
    if (!text || !parse(text, &network))
        return tram__invalid("text");
    if (network.family == AF_INET6 && network.bits >= MAPPED_BITS && is_mapped(network.prefix)) {
        network.family = AF_INET;
        network.bits -= MAPPED_BITS;
        memmove(network.prefix, network.prefix + MAPPED_BITS / 8, 4);
        memset(network.prefix + 4, 0, sizeof network.prefix - 4);
    }
    *ret_network = network;
    return 0;
}

static bool begins_with(const unsigned char *bytes, const tram_socket_network *network) {
    unsigned whole = network->bits / 8, rest = network->bits % 8;
    if (memcmp(bytes, network->prefix, whole) != 0)
        return false;
    return rest == 0 || (bytes[whole] ^ network->prefix[whole]) >> (8 - rest) == 0;
}

bool tram_socket_network_contains(const tram_socket_network *network, const tram_socket_address *address) {
    int family = address_family(address);
    if (family == AF_INET) {
        struct sockaddr_in inet;
        memcpy(&inet, &address->address, sizeof inet);
        return network->family == AF_INET && begins_with((const unsigned char *)&inet.sin_addr, network);
    }
    if (family != AF_INET6)
        return false;
    struct sockaddr_in6 inet6;
    memcpy(&inet6, &address->address, sizeof inet6);
    const unsigned char *bytes = inet6.sin6_addr.s6_addr;
    if (is_mapped(bytes))
        return network->family == AF_INET && begins_with(bytes + MAPPED_BITS / 8, network);
    return network->family == AF_INET6 && begins_with(bytes, network);
}
