#include "transports/tls/failure.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int tram__tls_fail(struct tls_failure *failure, int code, const char *option, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure->text, sizeof failure->text, format, arguments);
    va_end(arguments);
    failure->option = option;
    return failure->code = code;
}

static const char *reason_of(unsigned long error) {
    const char *reason = ERR_reason_error_string(error);
    if (reason)
        return reason;
    return ERR_SYSTEM_ERROR(error) ? tram_error_text(-(int)ERR_GET_REASON(error)) : NULL;
}

/* Those of RFC 8446 that OpenSSL 3.0 has no words for. */
static const char *name_of_alert(int alert) {
    switch (alert) {
    case TLS1_AD_INAPPROPRIATE_FALLBACK:
        return "inappropriate fallback";
    case SSL_AD_MISSING_EXTENSION:
        return "missing extension";
    case SSL_AD_CERTIFICATE_REQUIRED:
        return "certificate required";
    default:
        return SSL_alert_desc_string_long(alert);
    }
}

void tram__tls_reason(char *text, size_t size, int *ret_alert, unsigned long *ret_error) {
    /* The first in the queue is where it began; what follows is each caller's word about the same. */
    const char *data = NULL;
    int flags = 0;
    unsigned long error = ERR_get_error_all(NULL, NULL, NULL, &data, &flags);
    const char *reason = error ? reason_of(error) : NULL;
    int alert = -1;
    if (error && ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) > SSL_AD_REASON_OFFSET)
        alert = ERR_GET_REASON(error) - SSL_AD_REASON_OFFSET;
    if (alert >= 0)
        snprintf(text, size, "the peer sent the alert \"%s\" (%d)", name_of_alert(alert), alert);
    else if (data && *data && (flags & ERR_TXT_STRING))
        snprintf(text, size, "%s (%s)", reason ? reason : "unknown reason", data);
    else
        snprintf(text, size, "%s", reason ? reason : "unknown reason");
    ERR_clear_error();
    if (ret_alert)
        *ret_alert = alert;
    if (ret_error)
        *ret_error = error;
}

int tram__tls_fail_openssl(struct tls_failure *failure, int code, const char *option, const char *format, ...) {
    char reason[TRAM_ERROR_TEXT / 2];
    unsigned long error;
    tram__tls_reason(reason, sizeof reason, NULL, &error);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(failure->text, sizeof failure->text, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof failure->text)
        snprintf(failure->text + length, sizeof failure->text - (size_t)length, ": %s", reason);
    failure->option = option;
    return failure->code = error && ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE ? -ENOMEM : code;
}
