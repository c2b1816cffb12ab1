/*
 * Assertions: what must hold whatever users and peers do. Bad input is a code, never an assertion.
 *
 * TRAM_ASSERT stays on in release builds: for O(1) checks on slow paths. TRAM_DCHECK is for hot paths and is on in
 * builds with TRAM_CHECKED (Debug, sanitizers, fuzzers); there the x_validate() functions, which look at every link
 * of a structure, are called too. A failure writes one line to the standard error and aborts: the process has a
 * corrupt memory, and going on would hide where that began.
 */
#ifndef TRAM_CORE_BASE_ASSERT_H
#define TRAM_CORE_BASE_ASSERT_H

#include "core/base/private.h"

#ifndef TRAM_CHECKED
#define TRAM_CHECKED 0
#endif

TRAM_PRIVATE_API _Noreturn void tram__assert_failed(const char *condition, const char *function, const char *file,
                                                    unsigned line);

#define TRAM_ASSERT(condition)                                                                                         \
    (__builtin_expect(!!(condition), 1) ? (void)0 : tram__assert_failed(#condition, __func__, __FILE__, __LINE__))

#if TRAM_CHECKED
#define TRAM_DCHECK(condition) TRAM_ASSERT(condition)
#else
#define TRAM_DCHECK(condition) ((void)sizeof(!(condition)))
#endif

#endif
