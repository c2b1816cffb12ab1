#include "load/tally.h"

#include <errno.h>
#include <string.h>

#include <tram/error.h>

const char *load_error_kind_name(load_error_kind kind) {
    static const char *const names[LOAD_ERROR_KINDS] = {
        [LOAD_CONNECT_REFUSED] = "connect_refused",
        [LOAD_CONNECT_TIMEOUT] = "connect_timeout",
        [LOAD_CONNECT_FAILED] = "connect_failed",
        [LOAD_RESOLVE_FAILED] = "resolve_failed",
        [LOAD_RESET] = "reset",
        [LOAD_EARLY_EOF] = "early_eof",
        [LOAD_WRONG_DATA] = "wrong_data",
        [LOAD_UNANSWERED] = "unanswered",
        [LOAD_OTHER] = "other",
    };
    return names[kind];
}

load_error_kind load_error_kind_of_connect(int code) {
    switch (code) {
    case -ECONNREFUSED:
        return LOAD_CONNECT_REFUSED;
    case TRAM_ETIMEOUT:
    case -ETIMEDOUT:
        return LOAD_CONNECT_TIMEOUT;
    case TRAM_ERESOLVE:
        return LOAD_RESOLVE_FAILED;
    default:
        return LOAD_CONNECT_FAILED;
    }
}

load_error_kind load_error_kind_of_loss(int code) {
    switch (code) {
    case 0:
        return LOAD_EARLY_EOF;
    case -ECONNRESET:
    case -EPIPE:
        return LOAD_RESET;
    default:
        return LOAD_OTHER;
    }
}

static void keep_first(char *text, const char *other) {
    if (text[0] == '\0') {
        memcpy(text, other, LOAD_TEXT_SIZE);
    }
}

void load_tally_add(load_tally *self, const load_tally *other) {
    self->requests += other->requests;
    self->in_time += other->in_time;
    self->unmeasured += other->unmeasured;
    self->scheduled += other->scheduled;
    self->missed += other->missed;
    self->late += other->late;
    self->connected += other->connected;
    self->connections += other->connections;
    self->reconnects += other->reconnects;
    self->repeated += other->repeated;
    for (unsigned kind = 0; kind < LOAD_ERROR_KINDS; kind++) {
        self->errors[kind] += other->errors[kind];
    }
    self->cpu_s += other->cpu_s;
    if (other->duration_s > self->duration_s) {
        self->duration_s = other->duration_s;
    }
    keep_first(self->first_error, other->first_error);
    keep_first(self->first_wrong, other->first_wrong);
    histogram_add(&self->latency, &other->latency);
    histogram_add(&self->service, &other->service);
}

uint64_t load_tally_error_count(const load_tally *self) {
    uint64_t count = 0;
    for (unsigned kind = 0; kind < LOAD_ERROR_KINDS; kind++) {
        count += self->errors[kind];
    }
    return count;
}
