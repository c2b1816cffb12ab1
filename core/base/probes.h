/*
 * Static probes for tracers (bpftrace, perf, SystemTap, gdb): a nop each, and a note in the library that tells where it
 * is and where its arguments are. docs/probes.md is their manual; names and arguments are an interface.
 *
 * Without <sys/sdt.h>, or with TRAM_USDT=OFF, they are nothing; their arguments are not evaluated. So arguments are
 * what is at hand, never something computed for them.
 */
#ifndef TRAM_CORE_BASE_PROBES_H
#define TRAM_CORE_BASE_PROBES_H

#ifdef TRAM_USDT
#include <sys/sdt.h>
#define PROBE1(name, a)          DTRACE_PROBE1(tram, name, a)
#define PROBE2(name, a, b)       DTRACE_PROBE2(tram, name, a, b)
#define PROBE3(name, a, b, c)    DTRACE_PROBE3(tram, name, a, b, c)
#define PROBE4(name, a, b, c, d) DTRACE_PROBE4(tram, name, a, b, c, d)
#else
#define PROBE1(name, a)          ((void)sizeof(a))
#define PROBE2(name, a, b)       (PROBE1(name, a), PROBE1(name, b))
#define PROBE3(name, a, b, c)    (PROBE1(name, a), PROBE2(name, b, c))
#define PROBE4(name, a, b, c, d) (PROBE1(name, a), PROBE3(name, b, c, d))
#endif

#endif
