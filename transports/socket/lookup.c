#include "transports/socket/lookup.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "core/jobs/future.h"
#include "core/jobs/resolver.h"
#include <tram/resolver.h>

int tram__lookup_numeric(const struct lookup_query *query, struct address_list *list) {
    int usual = query->type == SOCK_DGRAM ? IPPROTO_UDP : IPPROTO_TCP;
    int protocol = query->protocol ? query->protocol : usual;
    tram_socket_address address;
    bool empty = !query->host || !*query->host;
    if (empty && query->any)
        return tram__addresses_add_any(list, query->port, query->family, protocol);
    /* Whether another protocol has such a port is for the resolver to say. */
    if (protocol != usual || !tram__address_numeric(query->host, query->port, query->family, &address))
        return 0;
    int status = tram__addresses_add(list, &address, protocol);
    return status ? status : 1;
}

static struct addrinfo hints_of(const struct lookup_query *query) {
    return (struct addrinfo){
        .ai_family = query->family ? query->family : AF_UNSPEC,
        .ai_socktype = query->type ? query->type : SOCK_STREAM,
        .ai_protocol = query->protocol,
        .ai_flags = query->flags | (query->any ? AI_PASSIVE : 0),
    };
}

int tram__lookup_wait(const struct lookup_query *query, struct address_list *list, const char *operation,
                      struct kept_error *ret_error) {
    int status = tram__lookup_numeric(query, list);
    if (!status) {
        struct addrinfo hints = hints_of(query), *found = NULL;
        const char *host = query->host && *query->host ? query->host : NULL;
        int gai;
        do
            gai = tram__getaddrinfo(host, query->port, &hints, &found);
        while (gai == EAI_SYSTEM && errno == EINTR);
        if (gai) {
            snprintf(ret_error->detail, sizeof ret_error->detail, "%s: %s", host ? host : query->port,
                     gai == EAI_SYSTEM ? tram_error_text(-errno) : gai_strerror(gai));
            ret_error->error = (tram_error){
                .code = TRAM_ERESOLVE, .operation = "getaddrinfo", .detail = ret_error->detail, .resolver_code = gai};
            return TRAM_ERESOLVE;
        }
        status = tram__addresses_add_answer(list, found);
        freeaddrinfo(found);
    }
    if (status >= 0)
        return 0;
    ret_error->error = (tram_error){.code = status, .operation = operation};
    return status;
}

static int answered(tram_future *answer, void *arg) {
    struct lookup *lookup = arg;
    void *found = NULL;
    static const tram_error cancelled = {.code = TRAM_ECANCELLED, .operation = "getaddrinfo"};
    static const tram_error nothing = {
        .code = TRAM_ERESOLVE, .operation = "getaddrinfo", .detail = "the name stands for no address"};
    static const tram_error memory = {.code = -ENOMEM, .operation = "getaddrinfo"};
    const tram_error *error = NULL;
    lookup->answer = NULL;
    if (tram_future_result(answer, &found) < 0) {
        error = tram_future_error(answer);
        if (!error)
            error = &cancelled;
    } else if (tram__addresses_add_answer(&lookup->list, found)) {
        error = &memory;
    } else if (!lookup->list.count) {
        error = &nothing;
    }
    lookup->done(lookup, error);
    tram_future_release(answer); /* the error lives as long as this */
    return 0;
}

int tram__lookup_start(struct lookup *lookup, tram_loop *loop, const struct lookup_query *query,
                       void (*done)(struct lookup *lookup, const tram_error *error)) {
    void *owner = lookup->owner;
    *lookup = (struct lookup){.list = {.allocator = &loop->allocator}, .owner = owner, .loop = loop, .done = done};
    int status = tram__lookup_numeric(query, &lookup->list);
    if (status)
        return status;
    struct addrinfo hints = hints_of(query);
    const char *host = query->host && *query->host ? query->host : NULL;
    status = tram_loop_getaddrinfo(loop, host, query->port, &hints, &lookup->answer);
    if (status < 0)
        return status;
    status = tram_future_add_done_callback(lookup->answer, answered, lookup);
    if (status < 0)
        tram__lookup_end(lookup);
    return status;
}

void tram__lookup_end(struct lookup *lookup) {
    tram_future *answer = lookup->answer;
    lookup->answer = NULL;
    if (answer) {
        tram__future_unhook(answer, answered, lookup);
        tram_future_cancel(answer);
        tram_future_release(answer);
    }
    if (lookup->list.allocator)
        tram__addresses_free(&lookup->list);
}

int tram__lookup_keep(struct lookup_query *query, struct lookup_query *other, const tram_allocator *allocator,
                      char **ret_block, size_t *ret_size) {
    const char **texts[] = {&query->host, &query->port, &other->host, &other->port};
    size_t size = 0;
    for (size_t i = 0; i < 4; i++)
        size += *texts[i] ? strlen(*texts[i]) + 1 : 0;
    char *end = *ret_block = memory_get(allocator, size);
    if (!end)
        return -ENOMEM;
    *ret_size = size;
    for (size_t i = 0; i < 4; i++) {
        if (!*texts[i])
            continue;
        char *copy = end;
        end = stpcpy(copy, *texts[i]) + 1;
        *texts[i] = copy;
    }
    return 0;
}
