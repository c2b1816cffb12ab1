/*
 * The close(2) of all tests, and of the library in them: a descriptor that is closed twice ends the program, before its
 * number may be somebody else's.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/compiler.h"
#include "support/support.h"

bool may_close_twice;

/* The thread sanitizer has a close of its own, by which it knows when a number changes hands. */
#ifndef TRAM_TSAN
static int (*next)(int);

__attribute__((constructor)) static void find_next(void) {
    *(void **)&next = dlsym(RTLD_NEXT, "close");
}

int close(int fd) {
    if (!next)
        find_next();
    int status = next(fd);
    if (status < 0 && errno == EBADF && !may_close_twice) {
        fprintf(stderr, "descriptor %d was closed twice\n", fd);
        abort();
    }
    return status;
}
#endif
