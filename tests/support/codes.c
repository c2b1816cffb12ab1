#include "support/codes.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

static _Thread_local uint64_t refused, refused_before;

void calls_lack_memory(void) {
    refused++;
}

void calls_enter(void) {
    refused_before = refused;
}

/* Of tram.h, and what Linux answers to the calls that tram makes. */
static bool is_known(int code, bool may_be_users) {
    static const short known[] = {
        E2BIG,       EACCES,      EADDRINUSE, EADDRNOTAVAIL,   EAFNOSUPPORT, EAGAIN,       EALREADY,    EBADF,
        EBADMSG,     EBUSY,       ECANCELED,  ECHILD,          ECONNABORTED, ECONNREFUSED, ECONNRESET,  EDESTADDRREQ,
        EDOM,        EEXIST,      EXDEV,      EFBIG,           EHOSTUNREACH, EILSEQ,       EINPROGRESS, EINTR,
        EINVAL,      EIO,         EISCONN,    EISDIR,          ELOOP,        EMFILE,       EMSGSIZE,    ENAMETOOLONG,
        ENETDOWN,    ENETUNREACH, ENFILE,     ENOBUFS,         ENODEV,       ENOENT,       ENOEXEC,     ENOMEM,
        ENOPROTOOPT, ENOSPC,      ENOSYS,     ENOTCONN,        ENOTDIR,      ENOTSOCK,     ENOTSUP,     ENXIO,
        EPERM,       EPIPE,       EPROTO,     EPROTONOSUPPORT, EPROTOTYPE,   ERANGE,       EROFS,       ESHUTDOWN,
        ESPIPE,      ESRCH,       ETIMEDOUT,  ETOOMANYREFS,    ETXTBSY,
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (-code == known[i])
            return true;
    const char *name = tram_error_name(code);
    return strncmp(name, "TRAM_E", 6) == 0 || (may_be_users && strcmp(name, "UNKNOWN") == 0);
}

static _Noreturn void complain(const char *call, int code, const char *what) {
    fprintf(stderr, "%s: %d (%s) %s\n", call, code, tram_error_name(code), what);
    abort();
}

/* What runs other calls, or tells of them, fails for their reasons; a user may have made up a code. */
static bool tells_of_others(const char *call) {
    static const char *const parts[] = {"_run",   "_start", "_dispatch", "_serve",          "_raise", "_end",
                                        "_await", "_join",  "_result",   "connection_lost", "_error"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(call, parts[i]))
            return true;
    return false;
}

int checked_status(int status, const char *call) {
    if (status >= 0)
        return status;
    if (!is_known(status, tells_of_others(call)))
        complain(call, status, "is no code that anybody documents");
    if (refused != refused_before && status != -ENOMEM && !tells_of_others(call))
        complain(call, status, "where memory was refused");
    return status;
}

const tram_error *checked_error(const tram_error *error, const char *call) {
    if (error && !is_known(error->code, true))
        complain(call, error->code, "is no code that anybody documents");
    if (error && !error->operation)
        complain(call, error->code, "of no operation");
    return error;
}
