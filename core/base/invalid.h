/* Arguments and options without sense: TRAM_EVALUE, and the thread remembers which it was. */
#ifndef TRAM_CORE_BASE_INVALID_H
#define TRAM_CORE_BASE_INVALID_H

#include <stdbool.h>
#include <stddef.h>

#include <tram/error.h>

#include "core/base/compiler.h"
#include "core/base/private.h"

/* TRAM_EVALUE; `name`, a constant, is what tram_wrong_option() says from now on. */
TRAM_PRIVATE_API __attribute__((cold)) int tram__invalid(const char *name);

/* The same where something is wrong; NULL: nothing is, and 0 is returned. */
static inline int check_option(const char *wrong) {
    return unlikely(wrong != NULL) ? tram__invalid(wrong) : 0;
}

/* Is a word used that is reserved for a later version? Of any public struct. */
bool tram__reserved_used(const uintptr_t *reserved, size_t count);
#define reserved_used(options)                                                                                         \
    tram__reserved_used((options)->reserved, sizeof(options)->reserved / sizeof *(options)->reserved)

/* For a tram_error of this code. */
static inline const char *option_of(int code) {
    return code == TRAM_EVALUE ? tram_wrong_option() : NULL;
}

#endif
