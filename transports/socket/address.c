#include "transports/socket/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "core/base/invalid.h"
#include "core/base/text.h"

static const struct sockaddr_in *inet_of(const tram_socket_address *address) {
    return (const struct sockaddr_in *)(const void *)&address->address;
}

static const struct sockaddr_in6 *inet6_of(const tram_socket_address *address) {
    return (const struct sockaddr_in6 *)(const void *)&address->address;
}

static void set_inet(tram_socket_address *address, struct in_addr host, in_port_t port) {
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_port = port, .sin_addr = host};
    memset(address, 0, sizeof *address);
    memcpy(&address->address, &inet, sizeof inet);
    address->size = sizeof inet;
}

static void set_inet6(tram_socket_address *address, const struct in6_addr *host, in_port_t port) {
    struct sockaddr_in6 inet6 = {.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = *host};
    memset(address, 0, sizeof *address);
    memcpy(&address->address, &inet6, sizeof inet6);
    address->size = sizeof inet6;
}

/* ---- Numbers ---- */

/* NULL and "" are 0; false for anything that is no port number. */
static bool numeric_port(const char *text, in_port_t *ret_port) {
    unsigned value = 0;
    for (const char *digit = text ? text : ""; *digit; digit++) {
        if (*digit < '0' || *digit > '9')
            return false;
        value = value * 10 + (unsigned)(*digit - '0');
        if (value > UINT16_MAX)
            return false;
    }
    *ret_port = htons((uint16_t)value);
    return true;
}

bool tram__address_numeric(const char *host, const char *port, int family, tram_socket_address *ret_address) {
    in_port_t number;
    struct in_addr inet;
    struct in6_addr inet6;
    if (!host || strchr(host, '%') || !numeric_port(port, &number))
        return false;
    if (family != AF_INET6 && inet_pton(AF_INET, host, &inet) == 1)
        set_inet(ret_address, inet, number);
    else if (family != AF_INET && inet_pton(AF_INET6, host, &inet6) == 1)
        set_inet6(ret_address, &inet6, number);
    else
        return false;
    return true;
}

/* An interface by its name or number; 0: there is none. */
static uint32_t scope_of(const char *text) {
    if (!*text || text[strspn(text, "0123456789")])
        return if_nametoindex(text);
    errno = 0;
    unsigned long number = strtoul(text, NULL, 10);
    return errno || number > UINT32_MAX ? 0 : (uint32_t)number;
}

/* "fe80::1%eth0": an address that is one of IPv6 without its scope. */
static bool scoped(const char *host, const char *port, tram_socket_address *ret_address) {
    char plain[INET6_ADDRSTRLEN];
    const char *scope = host ? strchr(host, '%') : NULL;
    if (!scope || (size_t)(scope - host) >= sizeof plain)
        return false;
    memcpy(plain, host, (size_t)(scope - host));
    plain[scope - host] = '\0';
    struct sockaddr_in6 inet6;
    if (!tram__address_numeric(plain, port, AF_INET6, ret_address))
        return false;
    memcpy(&inet6, &ret_address->address, sizeof inet6);
    inet6.sin6_scope_id = scope_of(scope + 1);
    memcpy(&ret_address->address, &inet6, sizeof inet6);
    return inet6.sin6_scope_id;
}

int tram_socket_address_inet(const char *host, const char *port, tram_socket_address *ret_address) {
    tram_socket_address address;
    if (!tram__address_numeric(host, port, AF_UNSPEC, &address) && !scoped(host, port, &address))
        return tram__invalid("host");
    *ret_address = address;
    return 0;
}

int tram_socket_address_unix(const char *path, size_t size, tram_socket_address *ret_address) {
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    bool abstract = path && size && !path[0];
    if (!path || !size || size + !abstract > sizeof local.sun_path)
        return tram__invalid("path");
    if (!abstract && memchr(path, '\0', size))
        return tram__invalid("path");
    memcpy(local.sun_path, path, size);
    memset(ret_address, 0, sizeof *ret_address);
    memcpy(&ret_address->address, &local, sizeof local);
    /* With the NUL at the end, as the kernel gives it. */
    ret_address->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + !abstract);
    return 0;
}

/* ---- Questions about one address ---- */

unsigned tram__address_port(const tram_socket_address *address) {
    switch (address_family(address)) {
    case AF_INET:
        return ntohs(inet_of(address)->sin_port);
    case AF_INET6:
        return ntohs(inet6_of(address)->sin6_port);
    default:
        return 0;
    }
}

bool tram__address_equal(const tram_socket_address *a, const tram_socket_address *b) {
    if (address_family(a) != address_family(b) || tram__address_port(a) != tram__address_port(b))
        return false;
    switch (address_family(a)) {
    case AF_INET:
        return inet_of(a)->sin_addr.s_addr == inet_of(b)->sin_addr.s_addr;
    case AF_INET6:
        return memcmp(&inet6_of(a)->sin6_addr, &inet6_of(b)->sin6_addr, sizeof(struct in6_addr)) == 0 &&
               inet6_of(a)->sin6_scope_id == inet6_of(b)->sin6_scope_id;
    default:
        return a->size == b->size && memcmp(&a->address, &b->address, a->size) == 0;
    }
}

static const struct in6_addr mapped_any = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

bool tram__address_concrete(const tram_socket_address *address) {
    switch (address_family(address)) {
    case AF_INET:
        return inet_of(address)->sin_addr.s_addr != htonl(INADDR_ANY);
    case AF_INET6:
        return !IN6_IS_ADDR_UNSPECIFIED(&inet6_of(address)->sin6_addr) &&
               memcmp(&inet6_of(address)->sin6_addr, &mapped_any, sizeof mapped_any) != 0;
    default:
        return true;
    }
}

bool tram__address_mapped(const tram_socket_address *address) {
    return address_family(address) == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&inet6_of(address)->sin6_addr);
}

/* ---- Text ---- */

static void inet6_text(const struct sockaddr_in6 *inet6, char *text, size_t size) {
    char host[INET6_ADDRSTRLEN], scope[2 + IF_NAMESIZE] = "";
    inet_ntop(AF_INET6, &inet6->sin6_addr, host, sizeof host);
    if (inet6->sin6_scope_id)
        snprintf(scope, sizeof scope, "%%%u", inet6->sin6_scope_id);
    snprintf(text, size, "[%s%s]:%u", host, scope, ntohs(inet6->sin6_port));
}

static void unix_text(const tram_socket_address *address, char *text, size_t size) {
    const struct sockaddr_un *local = (const struct sockaddr_un *)(const void *)&address->address;
    size_t begin = offsetof(struct sockaddr_un, sun_path);
    size_t length = MAX(address->size, begin) - begin;
    char name[TEXT_ESCAPED_SIZE(sizeof local->sun_path)];
    length = MIN(length, sizeof local->sun_path);
    /* The name space without files: its names begin with a NUL, and are shown with a @. */
    bool abstract = length && !local->sun_path[0];
    if (abstract)
        tram__text_escape(name, sizeof name, local->sun_path + 1, length - 1);
    else
        tram__text_escape(name, sizeof name, local->sun_path, strnlen(local->sun_path, length));
    snprintf(text, size, "unix:%s%s", abstract ? "@" : "", name);
}

const char *tram_socket_address_text(const tram_socket_address *address, char *text, size_t size) {
    if (!size)
        return text;
    text[0] = '\0';
    if (!address || !address->size)
        return text;
    char host[INET_ADDRSTRLEN];
    switch (address_family(address)) {
    case AF_INET:
        inet_ntop(AF_INET, &inet_of(address)->sin_addr, host, sizeof host);
        snprintf(text, size, "%s:%u", host, ntohs(inet_of(address)->sin_port));
        break;
    case AF_INET6:
        inet6_text(inet6_of(address), text, size);
        break;
    case AF_UNIX:
        unix_text(address, text, size);
        break;
    default:
        snprintf(text, size, "family %d", address_family(address));
    }
    return text;
}

/* ---- Lists ---- */

int tram__addresses_add(struct address_list *list, const tram_socket_address *address, int protocol) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        struct candidate *items = memory_get(list->allocator, capacity * sizeof *items);
        if (!items)
            return -ENOMEM;
        if (list->count)
            memcpy(items, list->items, list->count * sizeof *items);
        memory_put(list->allocator, list->items, list->capacity * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = (struct candidate){.address = *address, .protocol = protocol};
    return 0;
}

int tram__addresses_add_answer(struct address_list *list, const struct addrinfo *answer) {
    for (; answer; answer = answer->ai_next) {
        if (answer->ai_family != AF_INET && answer->ai_family != AF_INET6)
            continue;
        tram_socket_address address = {.size = answer->ai_addrlen};
        memcpy(&address.address, answer->ai_addr, answer->ai_addrlen);
        int status = tram__addresses_add(list, &address, answer->ai_protocol);
        if (status)
            return status;
    }
    return 0;
}

int tram__addresses_add_any(struct address_list *list, const char *port, int family, int protocol) {
    in_port_t number;
    if (!numeric_port(port, &number))
        return 0;
    tram_socket_address address;
    int status = 0;
    if (family != AF_INET6) {
        set_inet(&address, (struct in_addr){htonl(INADDR_ANY)}, number);
        status = tram__addresses_add(list, &address, protocol);
    }
    if (!status && family != AF_INET) {
        set_inet6(&address, &in6addr_any, number);
        status = tram__addresses_add(list, &address, protocol);
    }
    return status ? status : 1;
}

void tram__addresses_unique(struct address_list *list) {
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        size_t j = 0;
        while (j < kept && !tram__address_equal(&list->items[j].address, &list->items[i].address))
            j++;
        if (j == kept)
            list->items[kept++] = list->items[i];
    }
    list->count = kept;
}

/* Where the next address of a family is, from `begin` on; list->count if there is none. */
static size_t next_of_family(const struct address_list *list, size_t begin, int family) {
    while (begin < list->count && address_family(&list->items[begin].address) != family)
        begin++;
    return begin;
}

int tram__addresses_interleave(struct address_list *list, size_t first_count) {
    if (list->count < 2)
        return 0;
    size_t bytes = list->capacity * sizeof *list->items;
    struct candidate *ordered = memory_get(list->allocator, bytes);
    if (!ordered)
        return -ENOMEM;
    int first = address_family(&list->items[0].address);
    int second = first == AF_INET ? AF_INET6 : AF_INET;
    size_t next[2] = {0, next_of_family(list, 0, second)}, extra = first_count ? first_count - 1 : 0;
    for (size_t count = 0, turn = 0; count < list->count;) {
        size_t from = next[turn];
        if (from < list->count) {
            ordered[count++] = list->items[from];
            next[turn] = next_of_family(list, from + 1, turn ? second : first);
        }
        if (extra && next[0] < list->count)
            extra--;
        else
            turn = 1 - turn;
    }
    memory_put(list->allocator, list->items, bytes);
    list->items = ordered;
    return 0;
}

void tram__addresses_free(struct address_list *list) {
    memory_put(list->allocator, list->items, list->capacity * sizeof *list->items);
    list->items = NULL;
    list->count = list->capacity = 0;
}

int tram_socket_address_port(const tram_socket_address *address) {
    bool inet = address->address.ss_family == AF_INET || address->address.ss_family == AF_INET6;
    return address->size && inet ? (int)tram__address_port(address) : -EAFNOSUPPORT;
}
