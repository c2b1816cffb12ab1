/* How many CPUs the cgroups of this process grant. */
#ifndef TRAM_CORE_SYSTEM_CPUS_H
#define TRAM_CORE_SYSTEM_CPUS_H

/*
 * The CPU quota of the process, rounded up to whole CPUs: the least of its cgroup's and those above, in
 * versions 1 and 2 of cgroups; 0 if there is none, or none can be read. `root` stands before every path that
 * is read: "" but for tests.
 */
unsigned tram__cpus_quota(const char *root);

#endif
