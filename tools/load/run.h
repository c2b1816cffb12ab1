/* A whole run: the workers on their runtime, and what must happen on all of them together. */
#ifndef TRAM_LOAD_RUN_H
#define TRAM_LOAD_RUN_H

#include "load/worker.h"

typedef struct load_run load_run;

/*
 * `watched`: someone looks at standard error. Workers that would have no connection are left out. -ENOMEM and
 * what tram_runtime_new() returns.
 */
int load_run_new(const load_plan *plan, bool watched, load_run **ret_run);
void load_run_free(load_run *self);

/* Runs to the end, or to the first SIGINT or SIGTERM. Blocks. */
int load_run_execute(load_run *self);

unsigned load_run_workers(const load_run *self);

/* After execute: what one worker did, and what all did together. */
const load_tally *load_run_tally(const load_run *self, unsigned worker);
const load_tally *load_run_total(const load_run *self);

bool load_run_interrupted(const load_run *self);

#endif
