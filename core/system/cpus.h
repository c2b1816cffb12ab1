/* How many CPUs the cgroups of this process grant. */
#ifndef TRAM_CORE_SYSTEM_CPUS_H
#define TRAM_CORE_SYSTEM_CPUS_H

#include <tram/runtime.h>

/*
 * The CPU quota of the process, rounded up to whole CPUs: the least of its cgroup's and those above, in
 * versions 1 and 2 of cgroups; 0 if there is none, or none can be read. `root` stands before every path that
 * is read: "" but for tests.
 */
unsigned tram__cpus_quota(const char *root);

/* tram_available_cpus(), with the quota that is found there. */
tram_cpu_count tram__cpus_available(const char *root);

#endif
