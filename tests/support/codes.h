/*
 * What every test's calls of the library answer is looked at, whatever the test is about: support/codes.py makes a
 * macro of each public call that gives a code. A code is one that a header of tram's or a system call's page knows; if
 * memory was refused within the call, and it failed, then it says -ENOMEM; and an error has a code and an operation.
 */
#ifndef TRAM_TESTS_SUPPORT_CODES_H
#define TRAM_TESTS_SUPPORT_CODES_H

#include <tram/error.h>

/* In front of a call. */
void calls_enter(void);

/* Behind it: gives what it is given. */
int checked_status(int status, const char *call);
const tram_error *checked_error(const tram_error *error, const char *call);

/* An allocation was refused, on this thread. */
void calls_lack_memory(void);

#endif
