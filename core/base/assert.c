#include "core/base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void tram__assert_failed(const char *condition, const char *function, const char *file, unsigned line) {
    char text[512];
    int size = snprintf(text, sizeof text, "tram: assertion failed: %s (%s, %s:%u)\n", condition, function, file, line);
    if (size > 0 && write(STDERR_FILENO, text, (size_t)size < sizeof text ? (size_t)size : sizeof text - 1) < 0)
        abort(); /* nobody reads it */
    abort();
}
