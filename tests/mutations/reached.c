/*
 * Stands between a test program and cmocka, for sample.py: TRAM_ONLY=a,b,c runs only these functions, in this order.
 * With TRAM_REACHED=folder it writes a file for each function: how many nanoseconds it took, and where it has been, in
 * a program that was compiled with -fsanitize-coverage=trace-pc. What was reached outside of functions stays in the
 * file `map`, a byte for each address, into which children and what they execute write as well.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

typedef int run_group_fn(const char *, const struct CMUnitTest *, size_t, CMFixtureFunction, CMFixtureFunction);

static unsigned char *map;
static uintptr_t base;
static size_t size;

static const struct CMUnitTest *originals;
static size_t current, before_first = 1;
static struct timespec began;

/* ---- Where a program has been ---- */

void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void) {
    uintptr_t at = (uintptr_t)__builtin_return_address(0) - base;
    if (at < size && !map[at])
        map[at] = 1;
}

static int see_program(struct dl_phdr_info *info, size_t length, void *arg) {
    (void)length;
    base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X) && part->p_vaddr + part->p_memsz > *(size_t *)arg)
            *(size_t *)arg = part->p_vaddr + part->p_memsz;
    }
    return 1; /* the first one is the program */
}

static int open_in(const char *folder, const char *name, int flags) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return open(path, flags | O_CREAT | O_CLOEXEC, 0666);
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("TRAM_REACHED");
    size_t there = 0;
    if (!folder)
        return;
    dl_iterate_phdr(see_program, &there);
    int file = open_in(folder, "map", O_RDWR);
    if (file < 0 || ftruncate(file, (off_t)there))
        abort();
    map = mmap(NULL, there, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (map == MAP_FAILED)
        abort();
    close(file);
    size = there;
}

static void tell(const char *name) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t took =
        (uint64_t)(now.tv_sec - began.tv_sec) * 1000000000u + (uint64_t)now.tv_nsec - (uint64_t)began.tv_nsec;
    int file = open_in(getenv("TRAM_REACHED"), name, O_WRONLY | O_TRUNC);
    FILE *out = fdopen(file, "w");
    if (!out)
        abort();
    fwrite(&took, sizeof took, 1, out);
    for (size_t at = 0; at < size; at++) {
        uint32_t offset = (uint32_t)at;
        if (map[at])
            fwrite(&offset, sizeof offset, 1, out);
    }
    fclose(out);
}

/* ---- Functions ---- */

static int before(void **state) {
    current += !before_first;
    if (before_first)
        tell("main");
    before_first = 0;
    memset(map, 0, size);
    clock_gettime(CLOCK_MONOTONIC, &began);
    return originals[current].setup_func ? originals[current].setup_func(state) : 0;
}

static int after(void **state) {
    int status = originals[current].teardown_func ? originals[current].teardown_func(state) : 0;
    tell(originals[current].name);
    memset(map, 0, size);
    return status;
}

static size_t choose(struct CMUnitTest *chosen, const struct CMUnitTest *tests, size_t count) {
    const char *only = getenv("TRAM_ONLY");
    size_t found = 0;
    if (!only) {
        memcpy(chosen, tests, count * sizeof *tests);
        return count;
    }
    for (const char *name = only, *end; *name; name = *end ? end + 1 : end) {
        end = strchrnul(name, ',');
        for (size_t i = 0; i < count; i++)
            if (strlen(tests[i].name) == (size_t)(end - name) && !strncmp(tests[i].name, name, (size_t)(end - name)) &&
                found < count)
                chosen[found++] = tests[i];
    }
    return found;
}

int _cmocka_run_group_tests(const char *group, const struct CMUnitTest *const tests, const size_t count,
                            CMFixtureFunction setup, CMFixtureFunction teardown) {
    run_group_fn *run;
    *(void **)&run = dlsym(RTLD_NEXT, "_cmocka_run_group_tests");
    struct CMUnitTest *chosen = calloc(count, sizeof *chosen);
    size_t wanted = chosen ? choose(chosen, tests, count) : 0;
    if (map) {
        originals = tests;
        clock_gettime(CLOCK_MONOTONIC, &began);
        for (size_t i = 0; i < wanted; i++) {
            chosen[i].setup_func = before;
            chosen[i].teardown_func = after;
        }
    }
    int failed = run(group, chosen, wanted, setup, teardown);
    free(chosen);
    return failed;
}
