/*
 * Every public call that gives a code and begins with an object, in a table for each kind of objects:
 * calls_of_tram_loop, calls_of_tram_transport, … in "public_calls.h", which support/codes.py makes. All other arguments
 * are 0 and NULL: who is to be refused is refused before anybody looks at them.
 */
#ifndef TRAM_TESTS_SUPPORT_CALLS_H
#define TRAM_TESTS_SUPPORT_CALLS_H

#include <stdbool.h>

struct public_call {
    const char *name; /* NULL: behind the last */
    int (*call)(void *object);
};

/* What the call of that name answers. */
int answer_of(const struct public_call *calls, const char *name, void *object);

/* Whether all answer `code`, but those whose names stand in `but`, each behind a space. Tells which do not. */
bool all_answer(const struct public_call *calls, void *object, int code, const char *but);

#endif
