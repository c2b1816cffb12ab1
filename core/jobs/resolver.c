#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/invalid.h"
#include "core/jobs/executor.h"
#include "core/jobs/resolver.h"
#include <tram/resolver.h>

/* What both kinds of lookup keep of a failure. */
struct failure {
    int code; /* 0: none */
    int gai;  /* the resolver's own */
    char detail[TRAM_ERROR_TEXT];
};

/* `gai` is a code of <netdb.h>, with errno as it was left. `subject`: what was asked. */
static void failure_set(struct failure *failure, int gai, const char *subject) {
    int saved = errno;
    failure->gai = gai;
    failure->code = gai == EAI_MEMORY ? -ENOMEM : TRAM_ERESOLVE;
    const char *reason = gai == EAI_SYSTEM ? tram_error_text(-saved) : gai_strerror(gai);
    snprintf(failure->detail, sizeof failure->detail, "%s%s%s", subject, *subject ? ": " : "", reason);
}

static void failure_report(const struct failure *failure, const char *operation, tram_future *future) {
    tram_error error = {.code = failure->code,
                        .operation = operation,
                        .detail = failure->detail,
                        .resolver_code = failure->code == TRAM_ERESOLVE ? failure->gai : 0};
    tram__future_fail(future, &error);
}

/* An interrupted lookup is asked again (L-38). */
static bool interrupted(int gai) {
    return gai == EAI_SYSTEM && errno == EINTR;
}

/* ---- getaddrinfo ---- */

/* The C library cuts a number that is too large for a port down to 16 bits, and so means another port. */
int tram__getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret_result) {
    char *end;
    if (port && strtoul(port, &end, 10) > UINT16_MAX && !*end)
        return EAI_SERVICE;
    return getaddrinfo(host, port, hints, ret_result);
}

struct address_lookup {
    struct job job;
    struct addrinfo hints;
    bool hinted;
    struct addrinfo *result;
    struct failure failure;
    const char *host; /* NULL or in `texts` */
    const char *port;
    char texts[];
};

static void address_run(struct job *job) {
    struct address_lookup *lookup = (struct address_lookup *)job;
    int gai;
    do {
        errno = 0;
        gai = tram__getaddrinfo(lookup->host, lookup->port, lookup->hinted ? &lookup->hints : NULL, &lookup->result);
    } while (interrupted(gai));
    const char *subject = lookup->host ? lookup->host : lookup->port ? lookup->port : "";
    if (gai) {
        lookup->result = NULL;
        failure_set(&lookup->failure, gai, subject);
    } else if (!lookup->result) {
        lookup->failure.code = TRAM_ERESOLVE;
        snprintf(lookup->failure.detail, sizeof lookup->failure.detail, "%s: the resolver found no address", subject);
    }
}

static void address_complete(struct job *job, tram_future *future) {
    struct address_lookup *lookup = (struct address_lookup *)job;
    if (lookup->failure.code)
        failure_report(&lookup->failure, job->kind->name, future);
    else
        tram__future_finish(future, lookup->result);
}

static void address_destroy(struct job *job) {
    struct address_lookup *lookup = (struct address_lookup *)job;
    if (lookup->result)
        freeaddrinfo(lookup->result);
}

static const struct job_kind address_kind = {
    .name = "getaddrinfo",
    .lookup = true,
    .run = address_run,
    .complete = address_complete,
    .destroy = address_destroy,
};

int tram_loop_getaddrinfo(tram_loop *loop, const char *host, const char *port, const struct addrinfo *hints,
                          tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    size_t host_size = host ? strlen(host) + 1 : 0;
    size_t port_size = port ? strlen(port) + 1 : 0;
    struct address_lookup *lookup;
    status = tram__job_new(loop, &address_kind, sizeof *lookup + host_size + port_size, &lookup);
    if (status)
        return status;
    if (host)
        lookup->host = memcpy(lookup->texts, host, host_size);
    if (port)
        lookup->port = memcpy(lookup->texts + host_size, port, port_size);
    if (hints) {
        /* The other members must be 0. */
        lookup->hinted = true;
        lookup->hints.ai_flags = hints->ai_flags;
        lookup->hints.ai_family = hints->ai_family;
        lookup->hints.ai_socktype = hints->ai_socktype;
        lookup->hints.ai_protocol = hints->ai_protocol;
    }
    status = tram__job_submit(loop, NULL, &lookup->job, ret_future);
    if (status)
        tram__job_free(&lookup->job);
    return status;
}

/* ---- getnameinfo ---- */

struct name_lookup {
    struct job job;
    struct sockaddr_storage address;
    socklen_t size;
    int flags;
    tram_name_info result;
    struct failure failure;
};

_Static_assert(sizeof((tram_name_info *)0)->host >= NI_MAXHOST, "room for any host");
_Static_assert(sizeof((tram_name_info *)0)->service >= NI_MAXSERV, "room for any service");

static void name_run(struct job *job) {
    struct name_lookup *lookup = (struct name_lookup *)job;
    int gai;
    do {
        errno = 0;
        gai = getnameinfo((const struct sockaddr *)&lookup->address, lookup->size, lookup->result.host,
                          sizeof lookup->result.host, lookup->result.service, sizeof lookup->result.service,
                          lookup->flags);
    } while (interrupted(gai));
    if (gai)
        failure_set(&lookup->failure, gai, "");
}

static void name_complete(struct job *job, tram_future *future) {
    struct name_lookup *lookup = (struct name_lookup *)job;
    if (lookup->failure.code)
        failure_report(&lookup->failure, job->kind->name, future);
    else
        tram__future_finish(future, &lookup->result);
}

static const struct job_kind name_kind = {
    .name = "getnameinfo",
    .lookup = true,
    .run = name_run,
    .complete = name_complete,
};

int tram_loop_getnameinfo(tram_loop *loop, const struct sockaddr *address, socklen_t size, int flags,
                          tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!address || size > sizeof(struct sockaddr_storage))
        return tram__invalid(address ? "size" : "address");
    struct name_lookup *lookup;
    status = tram__job_new(loop, &name_kind, sizeof *lookup, &lookup);
    if (status)
        return status;
    memcpy(&lookup->address, address, size);
    lookup->size = size;
    lookup->flags = flags;
    status = tram__job_submit(loop, NULL, &lookup->job, ret_future);
    if (status)
        tram__job_free(&lookup->job);
    return status;
}
