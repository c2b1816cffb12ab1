/*
 * Memory that fork() wipes: a child finds zeros where its parent had something. So a child knows that it is one, and
 * inherits no lock that a thread held that is not there. Before Linux 4.14 nothing is wiped, and forks go unnoticed.
 */
#ifndef TRAM_CORE_SYSTEM_WIPED_H
#define TRAM_CORE_SYSTEM_WIPED_H

#include <stddef.h>

/* Zeroed pages, enough for `size` bytes, or NULL and errno. */
void *tram__wiped_new(size_t size);
void tram__wiped_free(void *memory, size_t size);

#endif
