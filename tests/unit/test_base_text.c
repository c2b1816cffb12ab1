/* What somebody else has chosen, made fit for one line of a log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/base/hash.h"
#include "core/base/text.h"

static void assert_escaped(const char *bytes, size_t length, const char *expected) {
    char text[256];
    assert_ptr_equal(tram__text_escape(text, sizeof text, bytes, length), text);
    assert_string_equal(text, expected);
}

#define ESCAPED(bytes, expected) assert_escaped(bytes, sizeof(bytes) - 1, expected)

static void test_what_is_printable_stays(void **state) {
    (void)state;
    ESCAPED("", "");
    ESCAPED("/run/a b~.sock", "/run/a b~.sock");
    ESCAPED("/tmp/\xc3\xbc\xe2\x82\xac\xf0\x9f\x90\x9f", "/tmp/\xc3\xbc\xe2\x82\xac\xf0\x9f\x90\x9f");
    ESCAPED("\xc2\xa0", "\xc2\xa0"); /* the first one behind C1 */
}

static void test_what_a_terminal_or_a_log_would_take_for_more_does_not(void **state) {
    (void)state;
    ESCAPED("a\nb\r\t", "a\\x0ab\\x0d\\x09");
    ESCAPED("\x1b[2J\x7f", "\\x1b[2J\\x7f");
    ESCAPED("\0\x01", "\\x00\\x01");
    ESCAPED("\xc2\x9b"
            "31m\xc2\x80",
            "\\xc2\\x9b31m\\xc2\\x80");                                    /* C1 in UTF-8 … */
    ESCAPED("\x9b\x80", "\\x9b\\x80");                                     /* … and as a byte */
    ESCAPED("\xe2\x80\xae\xe2\x80\xa8", "\\xe2\\x80\\xae\\xe2\\x80\\xa8"); /* right to left, a line separator */
    ESCAPED("\\x0a", "\\\\x0a");                                           /* an escape of one's own is none */
}

static void test_what_is_no_UTF_8_does_not_stay(void **state) {
    (void)state;
    ESCAPED("\xc3", "\\xc3");
    ESCAPED("\xe2\x82", "\\xe2\\x82");
    ESCAPED("\xc3(", "\\xc3(");
    ESCAPED("\xc0\x8a", "\\xc0\\x8a"); /* a newline, written too long */
    ESCAPED("\xe0\x80\x8a", "\\xe0\\x80\\x8a");
    ESCAPED("\xed\xa0\x80", "\\xed\\xa0\\x80");          /* a surrogate */
    ESCAPED("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"); /* behind the last */
    ESCAPED("\xff\xfe", "\\xff\\xfe");
}

static void test_every_byte_is_one_line_of_what_may_be_shown(void **state) {
    (void)state;
    for (unsigned first = 0; first < 256; first++)
        for (unsigned second = 0; second < 256; second++) {
            char bytes[2] = {(char)first, (char)second}, text[16];
            tram__text_escape(text, sizeof text, bytes, 2);
            for (const char *at = text; *at; at++)
                assert_true((unsigned char)*at >= 0x20 && *at != 0x7f);
            assert_true(strlen(text) >= 2 && strlen(text) < TEXT_ESCAPED_SIZE(2));
        }
}

static size_t encode(uint32_t character, char *bytes) {
    if (character < 0x80)
        return bytes[0] = (char)character, 1;
    size_t size = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (size_t i = size; i-- > 1; character >>= 6)
        bytes[i] = (char)(0x80 | (character & 0x3f));
    bytes[0] = (char)((0xf00u >> size) | character);
    return size;
}

static bool stays(uint32_t character) {
    char bytes[4], text[32];
    size_t size = encode(character, bytes);
    tram__text_escape(text, sizeof text, bytes, size);
    return strlen(text) == size && memcmp(text, bytes, size) == 0;
}

/* What is hidden, from where to where, and that its neighbours are not. */
static void test_what_is_shown_ends_where_it_should(void **state) {
    (void)state;
    static const uint32_t hidden[][2] = {{0x01, 0x1f},     {0x7f, 0x9f},     {0x200b, 0x200f},
                                         {0x2028, 0x202e}, {0x2060, 0x206f}, {0xd800, 0xdfff},
                                         {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f}};
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        uint32_t first = hidden[i][0], last = hidden[i][1];
        assert_false(stays(first) || stays(last) || stays(first + (last - first) / 2));
        assert_true(stays(last + 1) && (first == 1 || stays(first - 1)));
    }
    static const uint32_t at_a_length[] = {0x7e, 0xa0, 0x7ff, 0x800, 0xffff, 0x10000, 0x10ffff};
    for (size_t i = 0; i < sizeof at_a_length / sizeof *at_a_length; i++)
        assert_true(stays(at_a_length[i]));
    ESCAPED("\xe0\x9f\xbf", "\\xe0\\x9f\\xbf");                         /* 0x7ff in three bytes */
    ESCAPED("\xf0\x8f\xbf\xbf", "\\xf0\\x8f\\xbf\\xbf");                /* 0xffff in four */
    ESCAPED("\xe2\x82\xac\xf0\x9f\x90", "\xe2\x82\xac\\xf0\\x9f\\x90"); /* cut at the end */
    ESCAPED("\xf8\x90\x80\x80", "\\xf8\\x90\\x80\\x80");
    ESCAPED("\xe2\x82(", "\\xe2\\x82(");
}

static void test_a_cut_is_between_two_characters(void **state) {
    (void)state;
    char text[8];
    assert_string_equal(tram__text_escape(text, 1, "abc", 3), "");
    assert_string_equal(tram__text_escape(text, 3, "abc", 3), "ab");
    assert_string_equal(tram__text_escape(text, 4, "abc", 3), "abc");
    assert_string_equal(tram__text_escape(text, 5, "a\n", 2), "a");
    assert_string_equal(tram__text_escape(text, 6, "a\n", 2), "a\\x0a");
    assert_string_equal(tram__text_escape(text, 3, "a\xc3\xbc", 3), "a");
    assert_string_equal(tram__text_escape(text, 4, "a\xc3\xbc", 3), "a\xc3\xbc");
}

/* Known answers of FNV-1a. */
static void test_texts_have_the_hashes_of_others(void **state) {
    (void)state;
    assert_true(hash_text("") == UINT64_C(0xcbf29ce484222325));
    assert_true(hash_text("a") == UINT64_C(0xaf63dc4c8601ec8c));
    assert_true(hash_text("foobar") == UINT64_C(0x85944171f73967e8));
    assert_true(hash_text("\xff") == hash_add(HASH_BEGIN, 255));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_printable_stays),
        cmocka_unit_test(test_what_a_terminal_or_a_log_would_take_for_more_does_not),
        cmocka_unit_test(test_what_is_no_UTF_8_does_not_stay),
        cmocka_unit_test(test_every_byte_is_one_line_of_what_may_be_shown),
        cmocka_unit_test(test_what_is_shown_ends_where_it_should),
        cmocka_unit_test(test_a_cut_is_between_two_characters),
        cmocka_unit_test(test_texts_have_the_hashes_of_others),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
