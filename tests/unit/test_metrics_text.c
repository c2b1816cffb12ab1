/* Statistics as text for Prometheus: the format, letter by letter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <gnu/libc-version.h>

#include "core/loop/lag.h"
#include "core/loop/loop.h"
#include "support/support.h"
#include "transports/metrics/text.h"

#define ROOM (256u * 1024u)

static char text[ROOM];

static const char *render(const tram_metrics_source *sources, size_t count) {
    ptrdiff_t size = tram_metrics_render(sources, count, text, sizeof text);
    assert_true(size > 0 && (size_t)size < sizeof text);
    assert_int_equal(strlen(text), size);
    return text;
}

static const char *render_loop(const struct world *world, const char *name) {
    tram_metrics_source source = {.loop = world->loop, .name = name};
    return render(&source, 1);
}

/* The text has exactly this line. */
static void assert_line(const char *line) {
    char wanted[1024];
    snprintf(wanted, sizeof wanted, "\n%s\n", line);
    const char *found = strstr(text, wanted);
    if (!found)
        fail_msg("no line \"%s\" in\n%s", line, text);
    assert_null(strstr(found + 1, wanted));
}

static size_t occurrences(const char *of) {
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, of)); at += strlen(of))
        count++;
    return count;
}

/* ---- Values ---- */

/* Each word of tram_stats has a metric: whoever adds one adds it to transports/metrics/metrics.c. */
static void test_every_counter_is_told(void **state) {
    struct world *world = *state;
    size_t words = offsetof(tram_stats, reserved) / sizeof(uint64_t);
    tram_stats kept = world->loop->stats;
    uint64_t *stats = (uint64_t *)&world->loop->stats;
    for (size_t i = 0; i < words; i++)
        stats[i] = 18000000000000000000u + i;
    render_loop(world, NULL);
    for (size_t i = 0; i < words; i++) {
        char value[32], seconds[32];
        snprintf(value, sizeof value, " %llu\n", 18000000000000000000u + (unsigned long long)i);
        snprintf(seconds, sizeof seconds, " 18000000000.%09zu\n", i);
        if (!strstr(text, value) && !strstr(text, seconds))
            fail_msg("word %zu of tram_stats has no metric", i);
    }
    assert_line("tram_open_connections 18000000000000000000");
    assert_line("tram_connections_total 18000000000000000001");
    world->loop->stats = kept;
}

static void test_a_family_has_one_head_and_its_samples_stand_together(void **state) {
    struct world *world = *state;
    tram_metrics_source sources[] = {{.loop = world->loop, .name = "a"}, {.loop = world->loop, .name = "b"}};
    render(sources, 2);
    const char *expected = "# HELP tram_ticks_total Turns of the loop.\n"
                           "# TYPE tram_ticks_total counter\n"
                           "tram_ticks_total{loop=\"a\"} 0\n"
                           "tram_ticks_total{loop=\"b\"} 0\n"
                           "# HELP ";
    assert_non_null(strstr(text, expected));
    assert_int_equal(occurrences("# TYPE tram_ticks_total "), 1);
    assert_int_equal(strncmp(text, "# HELP tram_build_info ", 23), 0);
    char build[256];
    snprintf(build, sizeof build, "tram_build_info{version=\"%s\",compiler=\"", tram_version());
    assert_non_null(strstr(text, build));
}

static void test_the_lag_is_a_histogram(void **state) {
    struct world *world = *state;
    render_loop(world, NULL);
    assert_int_equal(occurrences("lag_seconds"), 0);
    world->options.measure_lag = true;
    world_reopen(world);
    static const uint64_t lags[] = {1, 4000, 4001, 9000, 1500000000, UINT32_MAX * 100ull};
    for (size_t i = 0; i < sizeof lags / sizeof *lags; i++)
        tram__lag_add(&world->loop->lag, lags[i]);
    render_loop(world, NULL);
    assert_line("# TYPE tram_loop_lag_seconds histogram");
    assert_line("tram_loop_lag_seconds_bucket{le=\"0.000004\"} 2");
    assert_line("tram_loop_lag_seconds_bucket{le=\"0.000008\"} 3");
    assert_line("tram_loop_lag_seconds_bucket{le=\"0.000016\"} 4");
    assert_line("tram_loop_lag_seconds_bucket{le=\"1.048576\"} 4");
    assert_line("tram_loop_lag_seconds_bucket{le=\"2.097152\"} 5");
    assert_line("tram_loop_lag_seconds_bucket{le=\"16.777216\"} 5");
    assert_line("tram_loop_lag_seconds_bucket{le=\"+Inf\"} 6");
    assert_line("tram_loop_lag_seconds_sum 430.996746502");
    assert_line("tram_loop_lag_seconds_count 6");
    assert_line("tram_loop_longest_lag_seconds 429.4967295");
    assert_int_equal(occurrences("_bucket{"), TRAM_LAG_BUCKETS);
}

static int here(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return 0;
}

static void test_slow_callbacks_have_names(void **state) {
    struct world *world = *state;
    char line[512], name[128];
    tram__slow_sites_add(&world->loop->slow_sites, "callback", (void *)(uintptr_t)here, 250000000);
    tram__slow_sites_add(&world->loop->slow_sites, "callback", (void *)(uintptr_t)here, 1000000000);
    tram__slow_sites_add(&world->loop->slow_sites, "timer", (void *)(uintptr_t)gnu_get_libc_version, 100000001);
    render_loop(world, "main");
    const char *function = tram_function_name((void *)(uintptr_t)here, name, sizeof name);
    snprintf(line, sizeof line, "tram_slow_callback_seconds_sum{loop=\"main\",kind=\"callback\",function=\"%s\"} 1.25",
             function);
    assert_line(line);
    snprintf(line, sizeof line, "tram_slow_callback_seconds_count{loop=\"main\",kind=\"callback\",function=\"%s\"} 2",
             function);
    assert_line(line);
    snprintf(line, sizeof line, "tram_slow_callback_worst_seconds{loop=\"main\",kind=\"callback\",function=\"%s\"} 1",
             function);
    assert_line(line);
    assert_non_null(strstr(text, "kind=\"timer\",function=\"gnu_get_libc_version\"} 0.100000001\n"));
    assert_line("# TYPE tram_slow_callback_seconds summary");
}

static void test_seconds_are_exact(void **state) {
    (void)state;
    static const struct {
        uint64_t ns;
        const char *text;
    } cases[] = {
        {0, "0"},          {1, "0.000000001"},  {4000, "0.000004"},         {100000000, "0.1"},
        {1000000000, "1"}, {10000000000, "10"}, {1234567890, "1.23456789"}, {UINT64_MAX, "18446744073.709551615"},
    };
    char seconds[METRICS_SECONDS_SIZE];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(tram__metrics_seconds_text(cases[i].ns, seconds), cases[i].text);
}

/* ---- Labels ---- */

static void test_labels_are_escaped(void **state) {
    static const struct {
        const char *name;
        const char *label;
    } cases[] = {
        {"", ""},
        {"plain", "plain"},
        {"a\\b", "a\\\\b"},
        {"a\"b", "a\\\"b"},
        {"a\nb", "a\\nb"},
        {"\\n", "\\\\n"},
        {"\"\\\n", "\\\"\\\\\\n"},
        {"{},=#", "{},=#"},
        {"tab\tand\rreturn", "tab\tand\rreturn"},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x9a\x8b", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x9a\x8b"},
        /* what is no UTF-8: a lone byte, a cut character, an overlong form, a surrogate, beyond U+10FFFF */
        {"a\xff\"", "a\xef\xbf\xbd\\\""},
        {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82\n", "\xef\xbf\xbd\xef\xbf\xbd\\n"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    char line[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        render_loop(*state, cases[i].name);
        snprintf(line, sizeof line, "tram_ticks_total{loop=\"%s\"} 0", cases[i].label);
        assert_line(line);
    }
}

static int append_nothing(void *arg, const char *piece, size_t size) {
    (void)arg, (void)piece, (void)size;
    return 0;
}

static void test_help_is_escaped_without_quotes(void **state) {
    (void)state;
    struct metrics_text out = {.append = append_nothing, .family = ""};
    tram__metrics_family(&out, "a", "gauge", "one \\ \"two\"\nthree");
    assert_int_equal(out.used, strlen("# HELP a one \\\\ \"two\"\\nthree\n# TYPE a gauge\n"));
    assert_memory_equal(out.piece, "# HELP a one \\\\ \"two\"\\nthree\n# TYPE a gauge\n", out.used);
}

/* By the definition: so many bytes, as few as can be, no surrogate, at most U+10FFFF; 0: none. */
static size_t character_size(const unsigned char *at) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = at[0] < 0xc0 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf8 ? 4 : 0;
    uint32_t value = at[0] & (0x7fu >> size);
    if (at[0] < 0x80)
        return 1;
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (at[i] & 0x3f);
    }
    return value < least[size] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000) ? 0 : size;
}

static void assert_escaped(const char *help) {
    struct metrics_text out = {.append = append_nothing, .family = ""};
    char expected[64] = "# HELP a ";
    for (const char *at = help; *at;) {
        size_t size = character_size((const unsigned char *)at);
        if (*at == '\n' || *at == '\\')
            strcat(expected, *at == '\n' ? "\\n" : "\\\\");
        else if (size)
            strncat(expected, at, size);
        else
            strcat(expected, "\xef\xbf\xbd");
        at += size ? size : 1;
    }
    strcat(expected, "\n# TYPE a gauge\n");
    tram__metrics_family(&out, "a", "gauge", help);
    assert_int_equal(out.used, strlen(expected));
    assert_memory_equal(out.piece, expected, out.used);
}

static void test_every_character_is_known(void **state) {
    (void)state;
    for (int first = 1; first < 256; first++)
        for (int other = 1; other < 256; other++) {
            assert_escaped((const char[]){(char)first, (char)other, '\x80', '\x80', 'x', 0});
            assert_escaped((const char[]){(char)first, '\x90', (char)other, '\x80', 'x', 0});
            assert_escaped((const char[]){(char)first, '\x90', '\x80', (char)other, 'x', 0});
        }
}

static void test_workers_and_servers_are_labelled(void **state) {
    struct world *world = *state;
    tram_runtime_options options = {.workers = 2, .loop = world->options};
    tram_runtime *runtime;
    tram_runtime_server *server;
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    tram_server_options fixed = {.shard = TRAM_SHARD_FIXED};
    assert_int_equal(
        tram_runtime_create_server(runtime, recorder_factory, world, "127.0.0.1", "0", &fixed, &server, NULL), 0);
    tram_socket_address address;
    char line[TRAM_ADDRESS_TEXT_SIZE + 64], name[TRAM_ADDRESS_TEXT_SIZE];
    assert_int_equal(tram_runtime_server_sockname(server, 0, &address), 0);
    tram_socket_address_text(&address, name, sizeof name);
    tram_metrics_source sources[] = {{.runtime = runtime},
                                     {.server = server},
                                     {.server = server, .name = "a \"web\""},
                                     {.runtime = runtime, .name = "second"},
                                     {.loop = world->loop}};
    render(sources, 5);
    assert_line("tram_ticks_total{worker=\"0\"} 0");
    assert_line("tram_ticks_total{worker=\"1\"} 0");
    assert_line("tram_ticks_total{runtime=\"second\",worker=\"1\"} 0");
    assert_line("tram_ticks_total 0");
    assert_int_equal(occurrences("\ntram_ticks_total"), 5);
    assert_line("tram_server_connections{server=\"a \\\"web\\\"\",worker=\"1\"} 0");
    snprintf(line, sizeof line, "tram_server_connections{server=\"%s\",worker=\"0\"} 0", name);
    assert_line(line);
    snprintf(line, sizeof line, "tram_server_info{server=\"%s\",shard=\"fixed\"} 1", name);
    assert_line(line);
    assert_int_equal(occurrences("\ntram_server_connections{"), 4);
    tram_runtime_free(runtime);
}

/* ---- Memory and errors ---- */

static void test_a_text_that_does_not_fit_is_cut_and_its_size_told(void **state) {
    struct world *world = *state;
    tram_metrics_source source = {.loop = world->loop, .name = "x"};
    ptrdiff_t whole = tram_metrics_render(&source, 1, text, sizeof text);
    assert_true(whole > 1000);
    assert_int_equal(tram_metrics_render(&source, 1, NULL, 0), whole);
    char *room = malloc((size_t)whole + 2);
    for (size_t size = 1; size <= (size_t)whole + 1; size++) {
        memset(room, '!', (size_t)whole + 2);
        assert_int_equal(tram_metrics_render(&source, 1, room, size), whole);
        assert_memory_equal(room, text, size - 1);
        assert_int_equal(room[size - 1], '\0');
        assert_int_equal(room[size], '!');
    }
    free(room);
}

struct pieces {
    size_t size;
    unsigned count;
    unsigned fail_at; /* the n-th piece fails */
};

static int collect(void *arg, const char *piece, size_t size) {
    struct pieces *pieces = arg;
    assert_true(size > 0);
    if (++pieces->count == pieces->fail_at)
        return -EPIPE;
    assert_memory_equal(piece, text + pieces->size, size);
    pieces->size += size;
    return 1; /* what is not negative is no failure */
}

static void test_pieces_are_the_same_text(void **state) {
    struct world *world = *state;
    tram_metrics_source source = {.loop = world->loop, .name = "x"};
    render(&source, 1);
    struct pieces pieces = {0};
    assert_int_equal(tram_metrics_write(&source, 1, collect, &pieces), 0);
    assert_int_equal(pieces.size, strlen(text));
    assert_true(pieces.count > 1);
    for (unsigned i = 1; i <= pieces.count; i++) {
        struct pieces failing = {.fail_at = i};
        assert_int_equal(tram_metrics_write(&source, 1, collect, &failing), -EPIPE);
        assert_int_equal(failing.count, i);
    }
}

static void test_a_long_name_is_no_trouble(void **state) {
    struct world *world = *state;
    static char name[5000];
    memset(name, 'n', sizeof name - 1);
    render_loop(world, name);
    assert_true(occurrences(name) > 10);
}

static void test_no_source_is_the_build_alone(void **state) {
    (void)state;
    render(NULL, 0);
    assert_int_equal(occurrences("# TYPE "), 1);
    assert_non_null(strstr(text, "tram_build_info{"));
}

static void test_what_is_no_source_is_refused(void **state) {
    struct world *world = *state;
    struct pieces pieces = {0};
    tram_runtime *runtime;
    tram_runtime_options options = {.workers = 1};
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    tram_metrics_source none = {.name = "x"}, two = {.loop = world->loop, .runtime = runtime},
                        odd = {.loop = world->loop, .reserved = {0, 1}}, good = {.loop = world->loop};
    tram_metrics_source second[] = {good, none};
    assert_int_equal(tram_metrics_write(&none, 1, collect, &pieces), TRAM_EVALUE);
    assert_int_equal(tram_metrics_write(&two, 1, collect, &pieces), TRAM_EVALUE);
    assert_int_equal(tram_metrics_write(&odd, 1, collect, &pieces), TRAM_EVALUE);
    assert_int_equal(tram_metrics_write(second, 2, collect, &pieces), TRAM_EVALUE);
    assert_int_equal(tram_metrics_write(NULL, 1, collect, &pieces), TRAM_EVALUE);
    assert_int_equal(tram_metrics_write(&good, 1, NULL, NULL), TRAM_EVALUE);
    assert_int_equal(tram_metrics_render(&none, 1, text, sizeof text), TRAM_EVALUE);
    assert_int_equal(tram_metrics_render(&good, 1, NULL, 1), TRAM_EVALUE);
    assert_int_equal(pieces.count, 0);
    tram_runtime_free(runtime);
}

static void test_rendering_allocates_nothing_of_the_loop(void **state) {
    struct world *world = *state;
    size_t before = world->allocations;
    render_loop(world, "x");
    assert_int_equal(world->allocations, before);
}

static void test_a_closed_loop_can_be_told_of(void **state) {
    struct world *world = *state;
    assert_int_equal(tram_loop_close(world->loop), 0);
    render_loop(world, NULL);
    assert_line("tram_ticks_total 0");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_every_counter_is_told),
        TEST(test_a_family_has_one_head_and_its_samples_stand_together),
        TEST(test_the_lag_is_a_histogram),
        TEST(test_slow_callbacks_have_names),
        cmocka_unit_test(test_seconds_are_exact),
        TEST(test_labels_are_escaped),
        cmocka_unit_test(test_help_is_escaped_without_quotes),
        cmocka_unit_test(test_every_character_is_known),
        TEST(test_workers_and_servers_are_labelled),
        TEST(test_a_text_that_does_not_fit_is_cut_and_its_size_told),
        TEST(test_pieces_are_the_same_text),
        TEST(test_a_long_name_is_no_trouble),
        TEST(test_no_source_is_the_build_alone),
        TEST(test_what_is_no_source_is_refused),
        TEST(test_rendering_allocates_nothing_of_the_loop),
        TEST(test_a_closed_loop_can_be_told_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
