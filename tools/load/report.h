/* What the user reads at the end. */
#ifndef TRAM_LOAD_REPORT_H
#define TRAM_LOAD_REPORT_H

#include <stdio.h>

#include "load/run.h"

/*
 * Why the figures tell more about this program than about the target; NULL if they do not. Written to `text`.
 */
const char *load_generator_limit(const load_plan *plan, const load_run *run, char *text, size_t size);

/* For people. */
void load_report_text(FILE *out, const load_plan *plan, const load_run *run);

/* One JSON object on one line. */
void load_report_json(FILE *out, const load_plan *plan, const load_run *run);

#endif
