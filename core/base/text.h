/* Bytes that somebody else has chosen, for a log or an error: on one line, and without a word to the terminal. */
#ifndef TRAM_CORE_BASE_TEXT_H
#define TRAM_CORE_BASE_TEXT_H

#include <stddef.h>

#include "core/base/private.h"

/*
 * Writes `length` bytes as text: printable characters of UTF-8 as they are, "\\" for a backslash, "\x1b" for all else
 * (control characters, also C1; line separators, marks of direction, broken UTF-8). Always terminated; cut between two
 * characters if `size`, which is not 0, is too small. Returns `text`.
 */
TRAM_PRIVATE_API char *tram__text_escape(char *text, size_t size, const void *bytes, size_t length);

/* The size of text that fits so many bytes. */
#define TEXT_ESCAPED_SIZE(length) ((length)*4 + 1)

#endif
