#include "core/base/invalid.h"

#include <string.h>

struct error_entry {
    int code;
    const char *name;
    const char *text;
};

#define ENTRY(code, text)                                                                                              \
    { code, #code, text }

static const struct error_entry entries[] = {
    {0, "OK", "Success"},
    ENTRY(TRAM_ESTATE, "Not possible in this state"),
    ENTRY(TRAM_EVALUE, "Invalid value"),
    ENTRY(TRAM_ETYPE, "Object of the wrong kind"),
    ENTRY(TRAM_EUSER, "A callback failed"),
    ENTRY(TRAM_ECANCELLED, "Cancelled"),
    ENTRY(TRAM_ETIMEOUT, "Deadline passed"),
    ENTRY(TRAM_EINCOMPLETE, "The stream ended too early"),
    ENTRY(TRAM_ELIMIT, "Limit exceeded"),
    ENTRY(TRAM_ENOSENDFILE, "No native sendfile here"),
    ENTRY(TRAM_ETLS, "TLS failed"),
    ENTRY(TRAM_ETLS_CERTIFICATE, "The peer's certificate is not accepted"),
    ENTRY(TRAM_ERESOLVE, "Name not resolved"),
    ENTRY(TRAM_EMULTIPLE, "Several attempts failed"),
};

static const struct error_entry *find(int code) {
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++)
        if (entries[i].code == code)
            return &entries[i];
    return NULL;
}

/* INT_MIN has no opposite, and stays what it is. */
static int errno_of(int code) {
    return (int)-(unsigned)code;
}

const char *tram_error_name(int code) {
    const struct error_entry *entry = find(code);
    if (entry)
        return entry->name;
    const char *name = strerrorname_np(errno_of(code));
    return name ? name : "UNKNOWN";
}

const char *tram_error_text(int code) {
    const struct error_entry *entry = find(code);
    if (entry)
        return entry->text;
    /* Unlike strerror() this is the same in every locale and safe in every thread. */
    const char *text = strerrordesc_np(errno_of(code));
    return text ? text : "Unknown error";
}

const char *tram_error_describe(const tram_error *error, int status) {
    if (error && error->detail)
        return error->detail;
    return tram_error_text(error ? error->code : status);
}

/* ---- TRAM_EVALUE ---- */

static _Thread_local const char *wrong_option;

int tram__invalid(const char *name) {
    wrong_option = name;
    return TRAM_EVALUE;
}

const char *tram_wrong_option(void) {
    return wrong_option;
}

bool tram__reserved_used(const uintptr_t *reserved, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (reserved[i])
            return true;
    return false;
}
