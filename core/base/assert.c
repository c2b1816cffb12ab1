#include "core/base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void tram__assert_failed(const char *condition, const char *function, const char *file, unsigned line) {
    char text[512];
    snprintf(text, sizeof text, "tram: assertion failed: %s (%s, %s:%u)\n", condition, function, file, line);
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written; /* there is nobody else to tell */
    abort();
}
