#!/usr/bin/env bash
# tram-check: release-only
# A program that loads the library, closes it and still has a job running goes on: its thread has where to return to.
set -euo pipefail
build=$(cd "${TRAM_BUILD_DIR:-build/release}" && pwd)
source=$(cd "${TRAM_SOURCE_DIR:-.}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/plugin.c" <<'C'
#include <dirent.h>
#include <dlfcn.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include <tram/tram.h>

static int in[2], out[2];

static int wait_for_byte(void *arg, void **ret_result) {
    char byte;
    (void)arg;
    (void)ret_result;
    return write(out[1], "x", 1) == 1 && read(in[0], &byte, 1) == 1 ? 0 : -1;
}

static int threads(void) {
    DIR *directory = opendir("/proc/self/task");
    int count = -2; /* . and .. */
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

int main(int argc, char **argv) {
    (void)argc;
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library || pipe(in) || pipe(out))
        return fprintf(stderr, "%s\n", dlerror()), 2;
    __typeof__(&tram_loop_new) loop_new = (__typeof__(loop_new))dlsym(library, "tram_loop_new");
    __typeof__(&tram_loop_free) loop_free = (__typeof__(loop_free))dlsym(library, "tram_loop_free");
    __typeof__(&tram_loop_run_in_executor) run = (__typeof__(run))dlsym(library, "tram_loop_run_in_executor");
    tram_loop *loop;
    char byte;
    if (loop_new(NULL, &loop) || run(loop, NULL, wait_for_byte, NULL, NULL, NULL) || read(out[0], &byte, 1) != 1)
        return 3;
    if (loop_free(loop) || dlclose(library))
        return 4;
    if (write(in[1], "x", 1) != 1)
        return 5;
    for (int i = 0; threads() > 1; i++) {
        if (i == 10000)
            return 6;
        poll(NULL, 0, 1);
    }
    return 0;
}
C
"${CC:-cc}" -std=gnu11 -w -I"$source/include" -o "$work/plugin" "$work/plugin.c" -ldl -pthread
"$work/plugin" "$build/libtram.so"
