#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <tram/error.h>
#include <tram/version.h>

static void test_X_1_every_code_has_a_name_and_a_text(void **state) {
    (void)state;
    static const int codes[] = {TRAM_ESTATE,      TRAM_EVALUE,   TRAM_ETYPE,    TRAM_EUSER,
                                TRAM_ECANCELLED,  TRAM_ETIMEOUT, TRAM_ELIMIT,   TRAM_EINCOMPLETE,
                                TRAM_ENOSENDFILE, TRAM_ETLS,     TRAM_ERESOLVE, TRAM_EMULTIPLE};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        assert_memory_equal(tram_error_name(codes[i]), "TRAM_E", 6);
        assert_string_not_equal(tram_error_text(codes[i]), "Unknown error");
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(tram_error_name(codes[i]), tram_error_name(codes[j]));
    }
    assert_string_equal(tram_error_name(TRAM_ESTATE), "TRAM_ESTATE");
    assert_string_equal(tram_error_name(TRAM_EMULTIPLE), "TRAM_EMULTIPLE");
}

static void test_X_1_errno_values_keep_their_names(void **state) {
    (void)state;
    assert_string_equal(tram_error_name(-ECONNRESET), "ECONNRESET");
    assert_string_equal(tram_error_text(-ECONNRESET), "Connection reset by peer");
    assert_string_equal(tram_error_name(-ENOMEM), "ENOMEM");
}

static void test_other_codes_are_unknown(void **state) {
    (void)state;
    static const int codes[] = {0, 1, INT_MAX, INT_MIN, -4095, -4096, -5000, -5999};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        assert_string_equal(tram_error_name(codes[i]), "UNKNOWN");
        assert_string_equal(tram_error_text(codes[i]), "Unknown error");
    }
}

static void test_the_version_is_that_of_the_headers(void **state) {
    (void)state;
    assert_string_equal(tram_version(), TRAM_VERSION_STRING);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_X_1_every_code_has_a_name_and_a_text),
        cmocka_unit_test(test_X_1_errno_values_keep_their_names),
        cmocka_unit_test(test_other_codes_are_unknown),
        cmocka_unit_test(test_the_version_is_that_of_the_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
