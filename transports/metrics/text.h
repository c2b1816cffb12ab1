/*
 * The text format of Prometheus, 0.0.4: lines of samples, escaped. What the samples say is told by metrics.c.
 */
#ifndef TRAM_TRANSPORTS_METRICS_TEXT_H
#define TRAM_TRANSPORTS_METRICS_TEXT_H

#include <stdbool.h>

#include <tram/metrics.h>

struct metrics_text {
    tram_metrics_append append;
    void *arg;
    int status;         /* the first failure of `append`; nothing is appended after it */
    const char *family; /* the name of the last one */
    bool labelled;
    size_t used;
    char piece[1024];
};

/* Before each sample; writes "# HELP" and "# TYPE" once for all samples of a family, which follow each other. */
void tram__metrics_family(struct metrics_text *text, const char *name, const char *type, const char *help);

/* A sample: its name (suffix may be ""), its labels, its value. */
void tram__metrics_name(struct metrics_text *text, const char *name, const char *suffix);
void tram__metrics_label(struct metrics_text *text, const char *label, const char *value);
void tram__metrics_label_number(struct metrics_text *text, const char *label, uint64_t value);
void tram__metrics_count(struct metrics_text *text, uint64_t value);
void tram__metrics_seconds(struct metrics_text *text, uint64_t ns);

/* "0.000004": seconds, exact, in any locale. */
#define METRICS_SECONDS_SIZE 32
const char *tram__metrics_seconds_text(uint64_t ns, char text[METRICS_SECONDS_SIZE]);

/* Appends what is left. Returns text->status. */
int tram__metrics_flush(struct metrics_text *text);

#endif
