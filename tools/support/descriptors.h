/* The limit of open descriptors: a program with many connections asks for what it may have. */
#ifndef TRAM_TOOLS_DESCRIPTORS_H
#define TRAM_TOOLS_DESCRIPTORS_H

#include <stdint.h>

/*
 * Raises the soft limit to the hard one if it is below `wanted`. Returns how many descriptors this process
 * may have now, which can still be fewer than wanted.
 */
uint64_t descriptors_allow(uint64_t wanted);

#endif
