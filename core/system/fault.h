/* A fault plan as its loops see it: a system-call table and an allocator. */
#ifndef TRAM_CORE_SYSTEM_FAULT_H
#define TRAM_CORE_SYSTEM_FAULT_H

#include "core/system/sys.h"
#include <tram/fault.h>

/* The table of the plan, or the real one where `faults` is NULL. */
const struct sys *tram__faults_sys(const tram_faults *faults);

/*
 * The allocator of a loop with these options: the plan's, else the one given, else the default. TRAM_EVALUE: both a
 * plan, which has an allocator of its own, and another one.
 */
int tram__faults_allocator(const tram_loop_options *options, tram_allocator *ret_allocator);

#endif
