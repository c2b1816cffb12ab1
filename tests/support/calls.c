#include "support/calls.h"

#include <stdio.h>
#include <string.h>

#include <tram/error.h>

static bool is_in(const char *names, const char *name) {
    size_t length = strlen(name);
    for (const char *at = names; (at = strstr(at, name)); at++)
        if (at > names && at[-1] == ' ' && (at[length] == ' ' || !at[length]))
            return true;
    return false;
}

int answer_of(const struct public_call *calls, const char *name, void *object) {
    while (strcmp(calls->name, name) != 0)
        calls++;
    return calls->call(object);
}

bool all_answer(const struct public_call *calls, void *object, int code, const char *but) {
    bool all = true;
    for (; calls->name; calls++) {
        if (is_in(but, calls->name))
            continue;
        int answer = calls->call(object);
        if (answer == code)
            continue;
        fprintf(stderr, "%s: %d (%s) instead of %s\n", calls->name, answer, tram_error_name(answer),
                tram_error_name(code));
        all = false;
    }
    return all;
}
