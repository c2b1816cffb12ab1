/*
 * Errors are values.
 *
 * A call returns 0 or a count on success and a negative code on failure: -errno where errno has the meaning
 * (-ENOMEM, -EADDRINUSE …), else one of the TRAM_E… codes below. What ends a connection or an operation is a
 * tram_error: the code, and what else is known about it. A clean end is the absence of an error (NULL).
 */
#ifndef TRAM_ERROR_H
#define TRAM_ERROR_H

#include <errno.h>
#include <stdint.h>

#include <tram/export.h>

TRAM_BEGIN_DECLS

enum {
    /* The object is in no state for this call: closed, running, not done, another thread's …
     * (InvalidStateError, most RuntimeErrors). */
    TRAM_ESTATE = -5001,
    TRAM_EVALUE = -5002,      /* An argument has no sense here (ValueError). */
    TRAM_ETYPE = -5003,       /* An object of the wrong kind (TypeError). */
    TRAM_EUSER = -5004,       /* A callback of the user failed and gave no better code. */
    TRAM_ECANCELLED = -5101,  /* The operation was cancelled (CancelledError). */
    TRAM_ETIMEOUT = -5102,    /* A deadline passed (TimeoutError). */
    TRAM_EINCOMPLETE = -5201, /* The stream ended in the middle of what was asked (IncompleteReadError). */
    TRAM_ELIMIT = -5202,      /* A limit was hit: stream limit, hard limit of a write buffer (LimitOverrunError). */
    TRAM_ENOSENDFILE = -5203, /* No native sendfile here, and the fallback was refused (SendfileNotAvailableError). */
    TRAM_ETLS = -5301,        /* TLS failed (SSLError). */
    TRAM_ETLS_CERTIFICATE = -5302, /* The peer's certificate is not accepted (SSLCertVerificationError). */
    TRAM_ERESOLVE = -5401,         /* A name could not be resolved, or to nothing (socket.gaierror). */
    TRAM_EMULTIPLE = -5501 /* Several attempts failed, each for its own reason (OSError("Multiple exceptions")). */
};

/*
 * What went wrong. Lives as long as the callback or the future that shows it; copy what must live longer.
 */
typedef struct tram_error {
    int code;              /* negative, never 0 */
    const char *operation; /* what was being done: "recv", "connect", "data_received" …; never NULL */
    const char *detail;    /* what the code cannot tell: addresses, reasons; NULL if there is nothing to add */
    void *user;            /* the pointer given to tram_loop_raise() by the callback that failed, or NULL */
    /* The single errors behind TRAM_EMULTIPLE, in order of attempt, where they were asked for. */
    const struct tram_error *const *causes;
    unsigned cause_count;
    int resolver_code;  /* with TRAM_ERESOLVE: the resolver's own, EAI_NONAME … of <netdb.h>; 0: it gave none */
    const char *option; /* with TRAM_EVALUE: the option or argument that made no sense, a constant; NULL: not known */
    uintptr_t reserved[6];
} tram_error;

/* The stable name of a code: "ECONNRESET", "TRAM_ESTATE"; of 0, "OK". "UNKNOWN" for anything else. Any thread. */
TRAM_API const char *tram_error_name(int code);

/* The code in words: "Connection reset by peer"; of 0, "Success". Never NULL. Any thread. */
TRAM_API const char *tram_error_text(int code);

/*
 * What is known of a failure, in words for a message: the error's detail, or else the text of its code. Without an
 * error (NULL) the text of `status`, so that both may be passed on as they came. Never NULL; valid as long as the
 * error.
 *
 *     fprintf(stderr, "no server: %s\n", tram_error_describe(tram_future_error(future), status));
 */
TRAM_API const char *tram_error_describe(const tram_error *error, int status);

/*
 * Which option or argument made no sense, after a call of this thread that returned TRAM_EVALUE: its name, as in its
 * struct or declaration ("host", "backlog", "reserved"), of a struct in a struct the inner one ("max_per_source"); a
 * constant. NULL: no call has returned TRAM_EVALUE yet. The next one says something else. Any thread.
 */
TRAM_API const char *tram_wrong_option(void);

TRAM_END_DECLS

#endif
