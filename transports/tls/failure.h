/* Why OpenSSL or we refused: a code, and a text that names the reason. Empties OpenSSL's queue of errors. */
#ifndef TRAM_TRANSPORTS_TLS_FAILURE_H
#define TRAM_TRANSPORTS_TLS_FAILURE_H

#include <stddef.h>

#include "core/base/limits.h"
#include <tram/error.h>
#include <tram/export.h>

struct tls_failure {
    int code;
    const char *option; /* of a config, a constant; NULL: none */
    char text[TRAM_ERROR_TEXT];
};

/* Fills it; returns the code. */
int tram__tls_fail(struct tls_failure *failure, int code, const char *option, const char *format, ...)
    TRAM_PRINTF(4, 5);

/*
 * The same with the reason from OpenSSL's queue behind the text: "key: bad decrypt". -ENOMEM where the queue says that
 * memory was short. The queue is empty afterwards.
 */
int tram__tls_fail_openssl(struct tls_failure *failure, int code, const char *option, const char *format, ...)
    TRAM_PRINTF(4, 5);

/* The reason from the queue, which is empty afterwards: "bad decrypt"; of an empty queue "unknown reason". */
void tram__tls_reason(char *text, size_t size, int *ret_alert, unsigned long *ret_error);

#endif
