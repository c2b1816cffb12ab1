#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <netdb.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/compiler.h"
#include "core/base/limits.h"
#include "core/tasks/context.h"
#include "core/tasks/stack.h"
#include "support/support.h"

/* ---- Stacks ---- */

static void test_a_stack_is_reused_last_in_first_out(void **state) {
    (void)state;
    struct stack_pool pool = {.live = 0};
    struct stack a, b, c;
    assert_int_equal(tram__stack_get(&pool, 0, &a), 0);
    assert_int_equal(tram__stack_get(&pool, 0, &b), 0);
    assert_ptr_not_equal(a.base, b.base);
    assert_int_equal(pool.live, 2);
    tram__stack_put(&pool, a);
    tram__stack_put(&pool, b);
    assert_int_equal(pool.free_count, 2);
    assert_int_equal(tram__stack_get(&pool, 0, &c), 0);
    assert_ptr_equal(c.base, b.base);
    tram__stack_put(&pool, c);
    tram__stack_pool_fini(&pool);
    assert_int_equal(pool.free_count, 0);
}

static void test_a_stack_is_as_large_as_asked(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 4096, 16384, 65536, 1000000, 64u << 20, (size_t)1 << 29};
    struct stack_pool pool = {.live = 0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct stack stack;
        assert_int_equal(tram__stack_get(&pool, sizes[i], &stack), 0);
        assert_true(stack_usable(&stack) >= sizes[i]);
        memset(stack_bottom(&stack), 1, MIN(stack_usable(&stack), 64u << 20)); /* all of it is there */
        tram__stack_put(&pool, stack);
    }
    struct stack stack;
    assert_int_equal(tram__stack_get(&pool, ((size_t)1 << 30) + 1, &stack), TRAM_EVALUE);
    assert_int_equal(tram__stack_get(&pool, SIZE_MAX, &stack), TRAM_EVALUE);
    assert_int_equal(pool.live, 0);
    tram__stack_pool_fini(&pool);
}

static void test_more_stacks_than_are_kept_are_unmapped(void **state) {
    (void)state;
    struct stack_pool pool = {.live = 0};
    static struct stack stacks[TRAM_TASK_STACKS_KEPT + 10];
    for (size_t i = 0; i < TRAM_TASK_STACKS_KEPT + 10; i++)
        assert_int_equal(tram__stack_get(&pool, 0, &stacks[i]), 0);
    for (size_t i = 0; i < TRAM_TASK_STACKS_KEPT + 10; i++)
        tram__stack_put(&pool, stacks[i]);
    assert_int_equal(pool.free_count, TRAM_TASK_STACKS_KEPT);
    assert_int_equal(pool.live, 0);
    tram__stack_pool_fini(&pool);
}

/* The signal that ends a child which writes to the byte. */
static int signal_of_writing(char *address) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        *(volatile char *)address = 1;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void check_guard(void) {
    struct stack_pool pool = {.live = 0};
    struct stack stack;
    assert_int_equal(tram__stack_get(&pool, 0, &stack), 0);
    char *bottom = stack_bottom(&stack);
    assert_int_equal(signal_of_writing(bottom), 0);
    assert_int_equal(signal_of_writing(bottom - 1), SIGSEGV);
    assert_int_equal(signal_of_writing(stack.base), SIGSEGV);
    tram__stack_put(&pool, stack);
    tram__stack_pool_fini(&pool);
}

static void test_below_a_stack_is_a_guard(void **state) {
    (void)state;
    check_guard();
}

static void test_below_a_stack_is_a_guard_by_mprotect_too(void **state) {
    (void)state;
    tram__stack_guard_method = GUARD_MPROTECT;
    check_guard();
    tram__stack_guard_method = GUARD_BEST;
}

/* Whether the kernel's flags of the mapping with this address have this one. */
static bool has_flag(const char *address, const char *flag) {
    char line[512], wanted[8];
    bool there = false, found = false;
    FILE *file = fopen("/proc/self/smaps", "re");
    assert_non_null(file);
    snprintf(wanted, sizeof wanted, " %s ", flag);
    while (fgets(line, sizeof line, file)) {
        uintptr_t begin, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &begin, &end) == 2)
            there = (uintptr_t)address >= begin && (uintptr_t)address < end;
        else if (there && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, wanted) != NULL;
    }
    fclose(file);
    return found;
}

static char first_byte_of(const char *path) {
    char byte = '\0';
    FILE *file = fopen(path, "re");
    if (file && fread(&byte, 1, 1, file) != 1)
        byte = '\0';
    if (file)
        fclose(file);
    return byte;
}

/* Many stacks are mostly untouched: nothing is set aside for what they might use, and no huge page stands for some. */
static void test_A_16_an_untouched_stack_costs_nothing(void **state) {
    (void)state;
    struct stack_pool pool = {.live = 0};
    struct stack stack;
    skip_where_emulated("valgrind maps in its own way");
    assert_int_equal(tram__stack_get(&pool, 0, &stack), 0);
    if (first_byte_of("/proc/sys/vm/overcommit_memory") != '2') /* which counts everything */
        assert_true(has_flag(stack_bottom(&stack), "nr"));
    if (first_byte_of("/sys/kernel/mm/transparent_hugepage/enabled"))
        assert_true(has_flag(stack_bottom(&stack), "nh"));
    tram__stack_put(&pool, stack);
    tram__stack_pool_fini(&pool);
}

/* Of memory that this process has mapped. */
static long mapped_pages(void) {
    char text[64] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    return strtol(text, NULL, 10);
}

/* Where every guard is a mapping of its own, the kernel's limit of mappings is one of stacks. */
static void test_A_16_at_the_limit_of_mappings_there_is_no_further_stack(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* their own mappings want room too */
#endif
    enum { MOST = 40000 };
    static struct stack stacks[MOST];
    struct stack_pool pool = {.live = 0};
    size_t count = 0;
    int status = 0;
    skip_where_emulated("valgrind does not count mappings as the kernel does");
    tram__stack_guard_method = GUARD_MPROTECT;
    long pages = mapped_pages();
    while (count < MOST && !(status = tram__stack_get(&pool, 1, &stacks[count])))
        count++;
    tram__stack_guard_method = GUARD_BEST;
    for (size_t i = 0; i < count; i++)
        tram__stack_put(&pool, stacks[i]);
    tram__stack_pool_fini(&pool);
    assert_int_equal(pool.live, 0);
    if (count == MOST)
        skip(); /* vm.max_map_count is larger here */
    assert_int_equal(status, -ENOMEM);
    assert_true(count > 1000);
    assert_int_equal(mapped_pages(), pages); /* the one that could not be guarded is gone, too */
}

/* ---- Contexts ---- */

static struct context outside, inside;
static int steps;
static double kept;

static void run_inside(void) {
    context_entered(&outside);
    double value = kept;
    for (int i = 0; i < 3; i++) {
        steps++;
        value = sqrt(value);
        kept = value;
        context_switch(&inside, &outside, false);
    }
    steps++;
    context_switch(&inside, &outside, true);
    abort();
}

static void test_a_context_goes_on_where_it_left(void **state) {
    (void)state;
    struct stack_pool pool = {.live = 0};
    struct stack stack;
    assert_int_equal(tram__stack_get(&pool, 0, &stack), 0);
    assert_true(context_init(&inside, stack_bottom(&stack), stack_usable(&stack), run_inside));
    steps = 0;
    kept = 256;
    static const double expected[] = {16, 4, 2};
    for (int i = 0; i < 3; i++) {
        context_self(&outside);
        context_switch(&outside, &inside, false);
        assert_int_equal(steps, i + 1);
        assert_true(kept == expected[i]);
    }
    context_switch(&outside, &inside, false);
    assert_int_equal(steps, 4);
    context_end(&inside);
    tram__stack_put(&pool, stack);
    tram__stack_pool_fini(&pool);
}

/* ---- The default size ---- */

static const size_t default_usable = TRAM_TASK_STACK - 4096 - STACK_NOTE - STACK_OFFSETS * 64;

static void call_deep(void) {
    char text[8192];
    snprintf(text, sizeof text, "%.400f %.50Lf %a", 1.7976931348623157e308, 1.18973e4932L, 0.1);
    struct addrinfo *found = NULL;
    if (getaddrinfo("no-such-host.invalid", "http", NULL, &found) == 0)
        freeaddrinfo(found);
    if (getaddrinfo("localhost", "http", NULL, &found) == 0)
        freeaddrinfo(found);
}

static void run_deep(void) {
    context_entered(&outside);
    call_deep();
    context_switch(&inside, &outside, true);
    abort();
}

static size_t used_by_deep_calls(void) {
    struct stack_pool pool = {.live = 0};
    struct stack stack;
    assert_int_equal(tram__stack_get(&pool, 1 << 20, &stack), 0);
    unsigned char *bottom = stack_bottom(&stack);
    size_t size = stack_usable(&stack);
    memset(bottom, 0xa5, size);
    assert_true(context_init(&inside, bottom, size, run_deep));
    context_self(&outside);
    context_switch(&outside, &inside, false);
    size_t untouched = 0;
    while (untouched < size && bottom[untouched] == 0xa5)
        untouched++;
    context_end(&inside);
    tram__stack_put(&pool, stack);
    tram__stack_pool_fini(&pool);
    return size - untouched;
}

static void test_A_16_the_default_stack_has_room_for_the_deepest_calls_of_libc(void **state) {
    (void)state;
    skip_where_emulated("it reads what a stack leaves behind, which nobody may read there");
    size_t used = used_by_deep_calls();
    print_message("deepest: %zu of %zu bytes\n", used, default_usable);
    assert_true(used > 4096);
#if !defined(TRAM_ASAN) && !defined(TRAM_TSAN)
    assert_true(used < default_usable * 3 / 4); /* some is for the caller */
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stack_is_reused_last_in_first_out),
        cmocka_unit_test(test_a_stack_is_as_large_as_asked),
        cmocka_unit_test(test_more_stacks_than_are_kept_are_unmapped),
        cmocka_unit_test(test_below_a_stack_is_a_guard),
        cmocka_unit_test(test_below_a_stack_is_a_guard_by_mprotect_too),
        cmocka_unit_test(test_A_16_an_untouched_stack_costs_nothing),
        cmocka_unit_test(test_A_16_at_the_limit_of_mappings_there_is_no_further_stack),
        cmocka_unit_test(test_a_context_goes_on_where_it_left),
        cmocka_unit_test(test_A_16_the_default_stack_has_room_for_the_deepest_calls_of_libc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
