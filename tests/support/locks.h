/* What is made of locks and conditions is destroyed, by whatever thread ends last. */
#ifndef TRAM_TESTS_SUPPORT_LOCKS_H
#define TRAM_TESTS_SUPPORT_LOCKS_H

#include <stdbool.h>

void locks_begin(void);

/* As many as were made since then; waits a little for other threads. Says what is left. */
bool locks_are_destroyed(void);

#endif
