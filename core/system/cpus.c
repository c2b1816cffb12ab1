/*
 * Where the quota stands: /proc/self/cgroup names the cgroup of the process in each hierarchy;
 * /proc/self/mountinfo tells where the hierarchy is mounted and which cgroup is the root of that mount. Each
 * cgroup from ours up to that root may have a quota of its own.
 */
#include "core/system/cpus.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/compiler.h"

/* Small, since this may run on a small stack. A cgroup with a longer path counts as not found. */
#define PATH_SIZE 1024

/* ---- Files, without allocating ---- */

struct reader {
    int fd;
    size_t start;
    size_t end;
    char data[4096];
};

static bool reader_open(struct reader *reader, const char *root, const char *path) {
    char full[PATH_SIZE];
    if ((size_t)snprintf(full, sizeof full, "%s%s", root, path) >= sizeof full)
        return false;
    reader->fd = open(full, O_RDONLY | O_CLOEXEC);
    reader->start = reader->end = 0;
    return reader->fd >= 0;
}

static void reader_close(struct reader *reader) {
    close(reader->fd);
}

/* The next line, without its end; NULL after the last. One too long for the buffer comes in pieces. */
static char *reader_line(struct reader *reader) {
    for (;;) {
        char *line = reader->data + reader->start;
        char *newline = memchr(line, '\n', reader->end - reader->start);
        if (newline) {
            *newline = '\0';
            reader->start = (size_t)(newline - reader->data) + 1;
            return line;
        }
        memmove(reader->data, line, reader->end - reader->start);
        reader->end -= reader->start;
        reader->start = 0;
        size_t room = sizeof reader->data - 1 - reader->end;
        ssize_t count = room ? read(reader->fd, reader->data + reader->end, room) : 0;
        if (count > 0) {
            reader->end += (size_t)count;
            continue;
        }
        if (!reader->end)
            return NULL;
        reader->data[reader->end] = '\0';
        reader->end = 0;
        return reader->data;
    }
}

static bool first_line(const char *root, const char *path, char *text, size_t size) {
    struct reader reader;
    if (!reader_open(&reader, root, path))
        return false;
    const char *line = reader_line(&reader);
    if (line)
        snprintf(text, size, "%s", line);
    reader_close(&reader);
    return line;
}

/* Is `name` one of the words that commas separate in `list`? */
static bool has_word(const char *list, const char *name) {
    size_t length = strlen(name);
    for (; *list; list += strcspn(list, ","), list += *list == ',')
        if (strcspn(list, ",") == length && memcmp(list, name, length) == 0)
            return true;
    return false;
}

/* ---- One cgroup ---- */

/* The parts of a quota: "max", as no number, is none. Kept in 64 bits and checked, whatever the file says. */
static unsigned cpus_of(const char *quota_text, const char *period_text) {
    long long quota = strtoll(quota_text, NULL, 10);
    long long period = strtoll(period_text, NULL, 10);
    if (quota <= 0 || period <= 0)
        return 0;
    long long cpus = quota / period + (quota % period != 0);
    return cpus < INT_MAX ? (unsigned)cpus : INT_MAX;
}

static unsigned quota_v2(const char *root, const char *directory) {
    char path[PATH_SIZE], text[64], quota[32] = "", period[32] = "";
    if ((size_t)snprintf(path, sizeof path, "%s/cpu.max", directory) >= sizeof path ||
        !first_line(root, path, text, sizeof text) || sscanf(text, "%31s %31s", quota, period) != 2)
        return 0;
    return cpus_of(quota, period);
}

static unsigned quota_v1(const char *root, const char *directory) {
    char path[PATH_SIZE], quota[32], period[32];
    if ((size_t)snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", directory) >= sizeof path ||
        !first_line(root, path, quota, sizeof quota))
        return 0;
    if ((size_t)snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory) >= sizeof path ||
        !first_line(root, path, period, sizeof period))
        return 0;
    return cpus_of(quota, period);
}

/* ---- The hierarchy ---- */

/* Finds our cgroup in the hierarchy of version 1 or 2. */
static bool find_cgroup(const char *root, int version, char *cgroup, size_t size) {
    struct reader reader;
    if (!reader_open(&reader, root, "/proc/self/cgroup"))
        return false;
    bool found = false;
    char *line;
    while (!found && (line = reader_line(&reader))) {
        /* number:controllers:path; version 2 has number 0 and no controllers */
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *controllers++ = '\0';
        *path++ = '\0';
        found = version == 2 ? strcmp(line, "0") == 0 && !*controllers : has_word(controllers, "cpu");
        if (found)
            found = (size_t)snprintf(cgroup, size, "%s", path) < size;
    }
    reader_close(&reader);
    return found;
}

/* mountinfo writes a space as \040 and so on. */
static void unescape(char *text) {
    char *out = text;
    while (*text) {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' && text[3] >= '0' &&
            text[3] <= '7') {
            *out++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 4;
        } else {
            *out++ = *text++;
        }
    }
    *out = '\0';
}

struct mount {
    char top[PATH_SIZE];   /* the cgroup that is the root of the mount */
    char point[PATH_SIZE]; /* where it is mounted */
};

/* 36 35 98:0 /top /point options [optional fields …] - type source superoptions */
static bool parse_mount(char *line, int version, struct mount *mount) {
    char *tail = strstr(line, " - ");
    char type[32], superoptions[1024] = "";
    if (!tail || sscanf(tail, " - %31s %*s %1023s", type, superoptions) < 1)
        return false;
    if (version == 2 ? strcmp(type, "cgroup2") != 0 : strcmp(type, "cgroup") != 0 || !has_word(superoptions, "cpu"))
        return false;
    *tail = '\0';
    _Static_assert(PATH_SIZE == 1024, "the widths below");
    if (sscanf(line, "%*s %*s %*s %1023s %1023s", mount->top, mount->point) != 2)
        return false;
    unescape(mount->top);
    unescape(mount->point);
    return true;
}

static bool find_mount(const char *root, int version, struct mount *mount) {
    struct reader reader;
    if (!reader_open(&reader, root, "/proc/self/mountinfo"))
        return false;
    bool found = false;
    char *line;
    while (!found && (line = reader_line(&reader)))
        found = parse_mount(line, version, mount);
    reader_close(&reader);
    return found;
}

/* The part of `cgroup` below the root of the mount; "" if it is that root, or not visible from here. */
static const char *below(const char *cgroup, const char *top) {
    size_t length = strcmp(top, "/") == 0 ? 0 : strlen(top);
    if (strncmp(cgroup, top, length) != 0 || cgroup[length] != '/' || strncmp(cgroup, "/..", 3) == 0)
        return "";
    return strcmp(cgroup + length, "/") == 0 ? "" : cgroup + length;
}

static unsigned lesser(unsigned a, unsigned b) {
    return a && (a < b || !b) ? a : b;
}

static unsigned quota_of(const char *root, int version) {
    char cgroup[PATH_SIZE], path[2 * PATH_SIZE];
    struct mount mount = {0};
    if (!find_cgroup(root, version, cgroup, sizeof cgroup) || !find_mount(root, version, &mount))
        return 0;
    snprintf(path, sizeof path, "%s%s", mount.point, below(cgroup, mount.top));
    unsigned least = 0;
    for (size_t point = strlen(mount.point);;) {
        least = lesser(least, version == 2 ? quota_v2(root, path) : quota_v1(root, path));
        char *slash = strrchr(path, '/');
        if (!slash || (size_t)(slash - path) < point)
            return least;
        *slash = '\0';
    }
}

unsigned tram__cpus_quota(const char *root) {
    return lesser(quota_of(root, 2), quota_of(root, 1));
}

/* ---- Affinity ---- */

static unsigned affinity_count(void) {
    /* The kernel refuses a set smaller than its own: room for 16384 CPUs. */
    cpu_set_t sets[16];
    int count = sched_getaffinity(0, sizeof sets, sets) ? 0 : CPU_COUNT_S(sizeof sets, sets);
    if (count > 0)
        return (unsigned)count;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return (unsigned)MAX(online, 1);
}

tram_cpu_count tram__cpus_available(const char *root) {
    unsigned affinity = affinity_count();
    unsigned quota = tram__cpus_quota(root);
    if (quota && quota < affinity)
        return (tram_cpu_count){.count = quota, .reason = "cgroup quota"};
    return (tram_cpu_count){.count = affinity, .reason = "affinity"};
}

tram_cpu_count tram_available_cpus(void) {
    return tram__cpus_available("");
}
