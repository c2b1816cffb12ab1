/*
 * The close(2) of all tests, and of the library in them: a descriptor that is closed twice ends the program, before its
 * number may be somebody else's.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "support/support.h"

bool may_close_twice;

int close(int fd) {
    static int (*next)(int);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "close");
    int status = next(fd);
    if (status < 0 && errno == EBADF && !may_close_twice) {
        fprintf(stderr, "descriptor %d was closed twice\n", fd);
        abort();
    }
    return status;
}
