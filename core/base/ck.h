/*
 * Concurrency Kit. Its ck_md.h is made for one architecture: which memory order the machine has, and so which fences
 * are instructions. A cross build that finds the one of its host would have the fences of x86, which are nearly none.
 */
#ifndef TRAM_CORE_BASE_CK_H
#define TRAM_CORE_BASE_CK_H

#include <ck_md.h>

#if defined(__x86_64__) || defined(__i386__)
#ifndef CK_MD_TSO
#error "ck_md.h is another architecture's: this one has total store order. Install libck-dev for the target."
#endif
#elif defined(CK_MD_TSO) && !defined(__s390x__) && !defined(__sparc__)
#error "ck_md.h is another architecture's: this one has no total store order. Install libck-dev for the target."
#endif

#include <ck_stack.h>

#endif
