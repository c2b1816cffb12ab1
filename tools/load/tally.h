/* What happened: the counts and times of one worker, or of all added up. */
#ifndef TRAM_LOAD_TALLY_H
#define TRAM_LOAD_TALLY_H

#include "load/histogram.h"

/* Why a connection, or a request, came to nothing. */
typedef enum load_error_kind {
    LOAD_CONNECT_REFUSED,
    LOAD_CONNECT_TIMEOUT,
    LOAD_CONNECT_FAILED, /* for any other reason */
    LOAD_RESOLVE_FAILED,
    LOAD_RESET,
    LOAD_EARLY_EOF,
    LOAD_WRONG_DATA,
    LOAD_UNANSWERED, /* requests, not connections: sent, and no whole answer came */
    LOAD_OTHER,
    LOAD_ERROR_KINDS,
} load_error_kind;

const char *load_error_kind_name(load_error_kind kind);

/* What ended a connection, by the code it ended with. */
load_error_kind load_error_kind_of_connect(int code);
load_error_kind load_error_kind_of_loss(int code);

#define LOAD_TEXT_SIZE 256

typedef struct load_tally {
    uint64_t requests;    /* begun while it was measured, and answered rightly */
    uint64_t in_time;     /* those of them whose answer came before the end */
    uint64_t unmeasured;  /* first requests of connections, and those of the warm-up */
    uint64_t scheduled;   /* open loop: due while it was measured */
    uint64_t missed;      /* due, but not sent by the end */
    uint64_t late;        /* sent too late because this program was slow, not the target */
    uint64_t connected;   /* connections that were made */
    uint64_t connections; /* that also gave a first answer */
    uint64_t reconnects;  /* connections that the target ended in good order, and another went on */
    uint64_t repeated;    /* requests that were sent on them, had no answer, and were sent again */
    uint64_t errors[LOAD_ERROR_KINDS];
    double cpu_s;
    double duration_s; /* that was measured */
    char first_error[LOAD_TEXT_SIZE];
    char first_wrong[LOAD_TEXT_SIZE];
    histogram latency; /* open loop: from the intended time of sending */
    histogram service; /* open loop: from the real time of sending */
} load_tally;

/* Sums; of durations the longest, of texts the first. */
void load_tally_add(load_tally *self, const load_tally *other);

uint64_t load_tally_error_count(const load_tally *self);

#endif
