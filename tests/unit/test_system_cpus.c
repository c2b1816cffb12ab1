#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/system/cpus.h"
#include <tram/runtime.h>

/* ---- A file system of our own ---- */

static int setup(void **state) {
    static char root[200];
    const char *temporary = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/tram-cpus-XXXXXX", temporary ? temporary : "/tmp");
    *state = mkdtemp(root);
    return *state ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

static int teardown(void **state) {
    return nftw(*state, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *root, const char *path, const char *text) {
    char full[1024];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = full + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *file = fopen(full, "we");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

#define OTHER_MOUNTS                                                                                                   \
    "22 1 0:20 / / rw,relatime - ext4 /dev/root rw\n"                                                                  \
    "23 22 0:21 / /proc rw shared:5 master:1 - proc proc rw\n"
#define MOUNT_V2 "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define MOUNT_V1 "31 22 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct\n"

/* ---- Version 2 ---- */

static void test_no_cgroups_mean_no_quota(void **state) {
    assert_int_equal(tram__cpus_quota(*state), 0);
    put(*state, "/proc/self/cgroup", "");
    put(*state, "/proc/self/mountinfo", OTHER_MOUNTS);
    assert_int_equal(tram__cpus_quota(*state), 0);
}

static void test_without_a_cgroup_a_mount_is_no_quota(void **state) {
    put(*state, "/proc/self/mountinfo", MOUNT_V2);
    put(*state, "/sys/fs/cgroup/cpu.max", "200000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 0);
}

static void test_a_quota_is_rounded_up(void **state) {
    put(*state, "/proc/self/cgroup", "0::/a\n");
    put(*state, "/proc/self/mountinfo", OTHER_MOUNTS MOUNT_V2);
    put(*state, "/sys/fs/cgroup/a/cpu.max", "150000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 2);
    put(*state, "/sys/fs/cgroup/a/cpu.max", "1000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 1);
    put(*state, "/sys/fs/cgroup/a/cpu.max", "400000 100000");
    assert_int_equal(tram__cpus_quota(*state), 4);
}

static void test_max_is_no_quota(void **state) {
    put(*state, "/proc/self/cgroup", "0::/a\n");
    put(*state, "/proc/self/mountinfo", MOUNT_V2);
    put(*state, "/sys/fs/cgroup/a/cpu.max", "max 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 0);
}

static void test_the_least_of_all_ancestors_counts(void **state) {
    put(*state, "/proc/self/cgroup", "0::/a/b/c\n");
    put(*state, "/proc/self/mountinfo", MOUNT_V2);
    put(*state, "/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
    put(*state, "/sys/fs/cgroup/a/b/cpu.max", "700000 100000\n");
    put(*state, "/sys/fs/cgroup/a/cpu.max", "250000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 3);
    /* In a container the root that we see may be a cgroup with a quota. */
    put(*state, "/sys/fs/cgroup/cpu.max", "50000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 1);
}

static void test_a_container_sees_its_own_root(void **state) {
    put(*state, "/proc/self/cgroup", "0::/\n");
    put(*state, "/proc/self/mountinfo", MOUNT_V2);
    put(*state, "/sys/fs/cgroup/cpu.max", "300000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 3);
    /* A cgroup beyond the namespace's root cannot be seen from here. */
    put(*state, "/proc/self/cgroup", "0::/../other\n");
    assert_int_equal(tram__cpus_quota(*state), 3);
}

static void test_the_mount_may_begin_below_the_root(void **state) {
    put(*state, "/proc/self/cgroup", "0::/docker/123/job\n");
    put(*state, "/proc/self/mountinfo", "30 22 0:26 /docker/123 /sys/fs/cgroup rw - cgroup2 none rw\n");
    put(*state, "/sys/fs/cgroup/job/cpu.max", "600000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 6);
    put(*state, "/sys/fs/cgroup/cpu.max", "500000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 5);
}

/* What is not below the root of the mount cannot be seen from here, however alike the names are. */
static void test_a_cgroup_beside_the_mount_is_its_root(void **state) {
    static const char *const cgroups[] = {"0::/docker/456/job\n", "0::/docker/1234/job\n", "0::/docker/123\n"};
    put(*state, "/proc/self/mountinfo", "30 22 0:26 /docker/123 /sys/fs/cgroup rw - cgroup2 none rw\n");
    put(*state, "/sys/fs/cgroup/cpu.max", "500000 100000\n");
    put(*state, "/sys/fs/cgroup/job/cpu.max", "200000 100000\n");
    put(*state, "/sys/fs/cgroup/4/job/cpu.max", "200000 100000\n");
    for (size_t i = 0; i < sizeof cgroups / sizeof *cgroups; i++) {
        put(*state, "/proc/self/cgroup", cgroups[i]);
        assert_int_equal(tram__cpus_quota(*state), 5);
    }
}

/* As containers of a busy machine see them: the lines come in several reads. */
static void test_many_mounts_are_no_hindrance(void **state) {
    static char mounts[60000];
    for (int i = 0; i < 500; i++)
        sprintf(mounts + strlen(mounts), "%d 22 0:%d / /run/containers/%d rw,nosuid shared:9 - tmpfs tmpfs rw\n", i, i,
                i);
    strcat(mounts, MOUNT_V2);
    put(*state, "/proc/self/cgroup", "0::/a\n");
    put(*state, "/proc/self/mountinfo", mounts);
    put(*state, "/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 2);
}

static void test_names_may_be_escaped(void **state) {
    put(*state, "/proc/self/cgroup", "0::/a\n");
    put(*state, "/proc/self/mountinfo", "30 22 0:26 / /sys/my\\040groups rw - cgroup2 none rw\n");
    put(*state, "/sys/my groups/a/cpu.max", "200000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 2);
    put(*state, "/proc/self/cgroup", "0::/our top/b\n");
    put(*state, "/proc/self/mountinfo", "30 22 0:26 /our\\040top /sys/b rw - cgroup2 none rw\n");
    put(*state, "/sys/b/b/cpu.max", "300000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 3);
}

/* Of the bytes that an escape may name, those at the edges; and what only looks like one. */
static void test_only_octal_numbers_of_a_byte_are_escapes(void **state) {
    put(*state, "/proc/self/cgroup", "0::/a\n");
    put(*state, "/proc/self/mountinfo",
        "30 22 0:26 / /x\\072\\047\\100\\377\\303\\251\\400\\080\\048\\04\\,\\0:0 rw - cgroup2 none rw\n");
    put(*state, "/x:'@\xff\xc3\xa9\\400\\080\\048\\04\\,\\0:0/a/cpu.max", "200000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 2);
}

static void test_the_type_of_a_mount_is_enough(void **state) {
    put(*state, "/proc/self/cgroup", "0::/a\n");
    put(*state, "/proc/self/mountinfo", "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 none\n");
    put(*state, "/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 2);
}

/* A path of so many bytes finds its place, and one that is longer counts as none. */
static void test_a_long_path_is_no_cgroup(void **state) {
    char line[2000] = "0::/";
    put(*state, "/proc/self/mountinfo", MOUNT_V2);
    put(*state, "/sys/fs/cgroup/cpu.max", "200000 100000\n");
    for (size_t length = 1023; length <= 1024; length++) {
        memset(line + 4, 'c', length - 1);
        strcpy(line + 3 + length, "\n");
        put(*state, "/proc/self/cgroup", line);
        assert_int_equal(tram__cpus_quota(*state), length == 1023 ? 2 : 0);
    }
}

static void test_without_a_mount_a_cgroup_is_no_quota(void **state) {
    put(*state, "/proc/self/cgroup", "0::/\n");
    put(*state, "/cpu.max", "200000 100000\n"); /* where a mount without a name would have it */
    assert_int_equal(tram__cpus_quota(*state), 0);
}

/* Nor is another file read, whose name is the beginning of one that is too long. */
static void test_a_file_with_too_long_a_path_is_none(void **state) {
    static const char cut[] = "/proc/self/cgro"; /* of "/proc/self/cgroup": the most that has room */
    char root[1024];
    size_t length = strlen(*state), end = 1023 - strlen(cut);
    strcpy(root, *state);
    while (length < end) {
        size_t part = end - length <= 200 ? end - length : end - length < 210 ? 100 : 200;
        memset(root + length, 'r', part);
        root[length] = '/';
        length += part;
    }
    root[length] = '\0';
    put(root, cut, "0::/\n");
    put(root, "/proc/self/moun", "30 22 0:26 / /q rw - cgroup2 cgroup2 rw\n");
    put(root, "/q/cpu.max", "200000 100000\n");
    assert_int_equal(tram__cpus_quota(root), 0);
}

static void test_the_lesser_of_affinity_and_quota_counts(void **state) {
    unsigned cpus = tram__cpus_available(*state).count; /* without any cgroup */
    put(*state, "/proc/self/cgroup", "0::/a\n");
    put(*state, "/proc/self/mountinfo", MOUNT_V2);
    for (unsigned quota = cpus > 1 ? cpus - 1 : 1; quota <= cpus + 1; quota++) {
        char text[64];
        snprintf(text, sizeof text, "%u00000 100000\n", quota);
        put(*state, "/sys/fs/cgroup/a/cpu.max", text);
        tram_cpu_count found = tram__cpus_available(*state);
        assert_int_equal(found.count, quota < cpus ? quota : cpus);
        assert_string_equal(found.reason, quota < cpus ? "cgroup quota" : "affinity");
    }
}

static void test_nonsense_is_no_quota(void **state) {
    static const char *const texts[] = {"", "\n", "-1 100000", "100000 0", "100000", "x y", "100000 -5"};
    put(*state, "/proc/self/cgroup", "nonsense\n0::/a\n");
    put(*state, "/proc/self/mountinfo", "\nnonsense\n - \n - cgroup2\n" MOUNT_V2);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        put(*state, "/sys/fs/cgroup/a/cpu.max", texts[i]);
        assert_int_equal(tram__cpus_quota(*state), 0);
    }
    put(*state, "/sys/fs/cgroup/a/cpu.max", "99999999999999999999999 1");
    assert_true(tram__cpus_quota(*state) > 1000);
}

static void test_long_mount_lines_are_no_hindrance(void **state) {
    static char mounts[20000];
    strcpy(mounts, "40 22 0:30 / /merged rw - overlay overlay lowerdir=");
    size_t length = strlen(mounts);
    memset(mounts + length, 'l', 15000);
    strcpy(mounts + length + 15000, "\n" MOUNT_V2);
    put(*state, "/proc/self/cgroup", "0::/a\n");
    put(*state, "/proc/self/mountinfo", mounts);
    put(*state, "/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 2);
}

/* ---- Version 1, and both ---- */

static void test_version_1_has_its_own_files(void **state) {
    put(*state, "/proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/a/b\n3:cpuset:/s\n");
    put(*state, "/proc/self/mountinfo",
        OTHER_MOUNTS "33 22 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n" MOUNT_V1);
    put(*state, "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n");
    put(*state, "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
    assert_int_equal(tram__cpus_quota(*state), 0);
    put(*state, "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "350000\n");
    put(*state, "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(tram__cpus_quota(*state), 4);
}

static void test_with_both_versions_the_least_counts(void **state) {
    put(*state, "/proc/self/cgroup", "4:cpu,cpuacct:/a\n0::/b\n");
    put(*state, "/proc/self/mountinfo", MOUNT_V1 "30 22 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    put(*state, "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "300000\n");
    put(*state, "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(tram__cpus_quota(*state), 3);
    put(*state, "/sys/fs/cgroup/unified/b/cpu.max", "200000 100000\n");
    assert_int_equal(tram__cpus_quota(*state), 2);
}

/* ---- This machine ---- */

/* Each of the two files is asked, and both are needed. */
static void test_version_1_needs_a_quota_and_a_period(void **state) {
    put(*state, "/proc/self/cgroup", "4:cpu:/a\n");
    put(*state, "/proc/self/mountinfo", "31 22 0:27 / /cpu rw - cgroup cgroup rw,cpu\n");
    assert_int_equal(tram__cpus_quota(*state), 0);
    put(*state, "/cpu/a/cpu.cfs_quota_us", "200000\n");
    assert_int_equal(tram__cpus_quota(*state), 0);
    put(*state, "/cpu/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(tram__cpus_quota(*state), 2);
}

static void test_the_affinity_mask_counts(void **state) {
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    tram_cpu_count all = tram_available_cpus();
    assert_in_range(all.count, 1, CPU_COUNT(&before));
    assert_true(strcmp(all.reason, "affinity") == 0 || strcmp(all.reason, "cgroup quota") == 0);
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    tram_cpu_count single = tram_available_cpus();
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(single.count, 1);
    assert_string_equal(single.reason, "affinity");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_no_cgroups_mean_no_quota),
        TEST(test_a_quota_is_rounded_up),
        TEST(test_max_is_no_quota),
        TEST(test_the_least_of_all_ancestors_counts),
        TEST(test_a_container_sees_its_own_root),
        TEST(test_the_mount_may_begin_below_the_root),
        TEST(test_without_a_cgroup_a_mount_is_no_quota),
        TEST(test_a_cgroup_beside_the_mount_is_its_root),
        TEST(test_many_mounts_are_no_hindrance),
        TEST(test_names_may_be_escaped),
        TEST(test_only_octal_numbers_of_a_byte_are_escapes),
        TEST(test_the_type_of_a_mount_is_enough),
        TEST(test_a_long_path_is_no_cgroup),
        TEST(test_without_a_mount_a_cgroup_is_no_quota),
        TEST(test_a_file_with_too_long_a_path_is_none),
        TEST(test_the_lesser_of_affinity_and_quota_counts),
        TEST(test_nonsense_is_no_quota),
        TEST(test_long_mount_lines_are_no_hindrance),
        TEST(test_version_1_has_its_own_files),
        TEST(test_with_both_versions_the_least_counts),
        TEST(test_version_1_needs_a_quota_and_a_period),
        cmocka_unit_test(test_the_affinity_mask_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
