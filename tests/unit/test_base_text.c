/* What somebody else has chosen, made fit for one line of a log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_printable_stays),
        cmocka_unit_test(test_what_a_terminal_or_a_log_would_take_for_more_does_not),
        cmocka_unit_test(test_what_is_no_UTF_8_does_not_stay),
        cmocka_unit_test(test_every_byte_is_one_line_of_what_may_be_shown),
        cmocka_unit_test(test_a_cut_is_between_two_characters),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
