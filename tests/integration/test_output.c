/* Outputs: what is formatted, that it is not copied or allocated, and how it is sent. */
#include "support/layers.h"
#include "support/stream.h"
#include "support/support.h"

#include <wchar.h>

#define assert_sent(stream, text)                                                                                      \
    do {                                                                                                               \
        char received[sizeof(text)];                                                                                   \
        receive_exactly((stream)->world, (stream)->peer, received, sizeof(text) - 1);                                  \
        assert_memory_equal(received, text, sizeof(text) - 1);                                                         \
        assert_int_equal(drain_peer(stream), 0);                                                                       \
    } while (0)

static tram_output output_of(struct stream *stream) {
    tram_output output;
    tram_output_begin(&output, stream->transport);
    return output;
}

static void test_text_and_numbers_are_formatted(void **state) {
    struct stream stream = stream_open(*state);
    tram_output output = output_of(&stream);
    tram_output_text(&output, "a ");
    tram_output_bytes(&output, "b\0c", 3);
    tram_output_byte(&output, ' ');
    tram_output_decimal(&output, 0);
    tram_output_byte(&output, ' ');
    tram_output_decimal(&output, UINT64_MAX);
    tram_output_byte(&output, ' ');
    tram_output_signed(&output, INT64_MIN);
    tram_output_byte(&output, ' ');
    tram_output_signed(&output, 17);
    static const int64_t around_zero[] = {-10, -1, 0, 1, INT64_MIN + 1, INT64_MAX};
    for (size_t i = 0; i < sizeof around_zero / sizeof *around_zero; i++) {
        tram_output_byte(&output, ' ');
        tram_output_signed(&output, around_zero[i]);
    }
    tram_output_printf(&output, " %s-%05d ", "x", 42);
    tram_output_hex(&output, 0xbeef, 0);
    tram_output_byte(&output, ' ');
    tram_output_hex(&output, 0xa, 4);
    tram_output_byte(&output, ' ');
    tram_output_hex(&output, UINT64_MAX, 99);
    tram_output_crlf(&output);
    static const char expected[] = "a b\0c 0 18446744073709551615 -9223372036854775808 17 -10 -1 0 1 "
                                   "-9223372036854775807 9223372036854775807 x-00042 beef 000a "
                                   "ffffffffffffffff\r\n";
    assert_int_equal(tram_output_size(&output), sizeof expected - 1);
    assert_int_equal(tram_output_send(&output), 0);
    assert_int_equal(tram_output_size(&output), 0);
    assert_sent(&stream, expected);
    stream_close(&stream);
}

static void test_numbers_are_binary(void **state) {
    struct stream stream = stream_open(*state);
    tram_output output = output_of(&stream);
    unsigned char *length = tram_output_reserve(&output, 2);
    tram_output_be(&output, 0x0102030405060708, 8);
    tram_output_be(&output, 0x010203, 3);
    tram_output_le(&output, 0x0102030405060708, 8);
    tram_output_le(&output, 0xaabb, 1);
    tram_output_varint(&output, 0);
    tram_output_varint(&output, 300);
    tram_output_varint(&output, UINT64_MAX);
    length[0] = 0;
    length[1] = (unsigned char)(tram_output_size(&output) - 2);
    assert_int_equal(tram_output_send(&output), 0);
    static const char expected[] = "\x00\x21"
                                   "\x01\x02\x03\x04\x05\x06\x07\x08"
                                   "\x01\x02\x03"
                                   "\x08\x07\x06\x05\x04\x03\x02\x01"
                                   "\xbb"
                                   "\x00\xac\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_sent(&stream, expected);
    stream_close(&stream);
}

/* Many pieces of all sizes, with shared buffers between them. */
static void test_long_outputs_are_whole_and_in_order(void **state) {
    struct stream stream = stream_open(*state);
    static char bytes[3000], expected[400000];
    size_t size = 0;
    tram_output output = output_of(&stream);
    for (unsigned i = 0; size + 3 * sizeof bytes < sizeof expected; i++) {
        size_t part = i * 37 % sizeof bytes;
        pattern(bytes, part, size);
        pattern(expected + size, part, size);
        size += part;
        tram_buffer *buffer = i % 3 ? NULL : tram_buffer_copy(bytes, part);
        if (!buffer)
            tram_output_bytes(&output, bytes, part);
        else
            tram_output_buffer(&output, buffer);
        tram_buffer_release(buffer);
        int length = snprintf(expected + size, 64, "%u:%*u|", i, (int)(i % 50), i);
        tram_output_printf(&output, "%u:%*u|", i, (int)(i % 50), i);
        size += (size_t)length;
    }
    assert_int_equal(tram_output_size(&output), size);
    assert_int_equal(tram_output_send(&output), 0);
    char *received = malloc(size);
    receive_exactly(stream.world, stream.peer, received, size);
    assert_memory_equal(received, expected, size);
    free(received);
    stream_close(&stream);
}

static void note_release(const void *data, size_t size, void *arg) {
    (void)data, (void)size;
    ++*(int *)arg;
}

static void test_shared_buffers_up_to_1_KiB_are_copied(void **state) {
    struct stream stream = stream_open(*state);
    static char bytes[1025], received[1024 + 1025];
    for (size_t size = 1024; size <= 1025; size++) {
        int released = 0;
        tram_buffer *buffer = tram_buffer_wrap(bytes, size, note_release, &released);
        tram_output output = output_of(&stream);
        tram_output_buffer(&output, buffer);
        tram_buffer_release(buffer);
        assert_int_equal(released, size == 1024);
        assert_int_equal(tram_output_send(&output), 0);
        receive_exactly(stream.world, stream.peer, received, size);
        run_ticks(stream.world, 1);
        assert_int_equal(released, 1);
    }
    stream_close(&stream);
}

static void test_a_long_printf_is_one_piece(void **state) {
    struct stream stream = stream_open(*state);
    static char received[50002];
    tram_output output = output_of(&stream);
    tram_output_byte(&output, '<');
    tram_output_printf(&output, "%50000d", 7);
    tram_output_byte(&output, '>');
    assert_int_equal(tram_output_send(&output), 0);
    receive_exactly(stream.world, stream.peer, received, sizeof received);
    assert_int_equal(received[0], '<');
    assert_memory_equal(received + 49998, "  7>", 4);
    stream_close(&stream);
}

static void answer(struct stream *stream) {
    tram_output output = output_of(stream);
    tram_output_text(&output, "VALUE ");
    tram_output_decimal(&output, 12345);
    tram_output_crlf(&output);
    assert_int_equal(tram_output_send(&output), 0);
}

static void test_an_answer_is_one_system_call_and_no_allocation(void **state) {
    calls_uninterrupted();
    struct stream stream = stream_open(*state);
    answer(&stream); /* the loop's chunk is there from now on */
    size_t allocations = stream.world->allocations;
    unsigned calls = faults.send.calls;
    answer(&stream);
    assert_int_equal(stream.world->allocations, allocations);
    assert_int_equal(faults.send.calls, calls + 1);
    assert_sent(&stream, "VALUE 12345\r\nVALUE 12345\r\n");
    stream_close(&stream);
}

static void test_what_the_kernel_does_not_take_waits_in_order(void **state) {
    struct stream stream = stream_open(*state);
    faults.send_budget = 7;
    answer(&stream);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 6);
    answer(&stream);
    assert_int_equal(tram_transport_get_write_buffer_size(stream.transport), 19);
    assert_int_equal(tram_transport_write(stream.transport, "!", 1), 0);
    faults.send_budget = SIZE_MAX;
    assert_sent(&stream, "VALUE 12345\r\nVALUE 12345\r\n!");
    stream_close(&stream);
}

static void test_what_others_write_meanwhile_comes_first(void **state) {
    struct stream stream = stream_open(*state);
    tram_output output = output_of(&stream);
    tram_output_text(&output, "second");
    assert_int_equal(tram_transport_write(stream.transport, "first ", 6), 0);
    assert_int_equal(tram_output_send(&output), 0);
    assert_sent(&stream, "first second");
    stream_close(&stream);
}

static void test_a_corked_output_waits(void **state) {
    struct stream stream = stream_open(*state);
    unsigned calls = faults.send.calls;
    tram_transport_cork(stream.transport);
    answer(&stream);
    answer(&stream);
    assert_int_equal(faults.send.calls, calls);
    tram_transport_uncork(stream.transport);
    assert_int_equal(faults.send.calls, calls + 1);
    assert_sent(&stream, "VALUE 12345\r\nVALUE 12345\r\n");
    stream_close(&stream);
}

static void test_outputs_pause_writing_above_the_mark(void **state) {
    struct stream stream = stream_open(*state);
    assert_int_equal(tram_transport_set_write_buffer_limits(stream.transport, 10, 5), 0);
    faults.send_budget = 0;
    answer(&stream);
    assert_trace(stream.world, "pause");
    faults.send_budget = SIZE_MAX;
    run_until_traced(stream.world, "resume");
    stream.world->trace[0] = '\0';
    stream_close(&stream);
}

static void test_a_dropped_or_late_output_sends_nothing(void **state) {
    struct stream stream = stream_open(*state);
    tram_output output = output_of(&stream);
    tram_output_text(&output, "never");
    tram_output_drop(&output);
    assert_int_equal(tram_output_send(&output), 0);
    assert_non_null(tram_output_reserve(&output, 10));
    tram_output_drop(&output);
    assert_int_equal(tram_transport_write_eof(stream.transport), 0);
    tram_output_text(&output, "late");
    assert_int_equal(tram_output_send(&output), TRAM_ESTATE);
    tram_transport_abort(stream.transport);
    tram_output_text(&output, "later");
    assert_int_equal(tram_output_send(&output), TRAM_ESTATE);
    stream_close(&stream);
}

static void test_a_lack_of_memory_sends_nothing_and_ends_the_connection(void **state) {
    struct stream stream = stream_open(*state);
    stream.world->fail_after = 0;
    tram_output output = output_of(&stream);
    tram_output_text(&output, "a");
    tram_output_printf(&output, "%d", 1);
    tram_output_decimal(&output, 1);
    assert_null(tram_output_reserve(&output, 1));
    assert_int_equal(tram_output_size(&output), 0);
    assert_int_equal(tram_output_send(&output), -ENOMEM);
    stream.world->fail_after = SIZE_MAX;
    run_until(stream.world, &stream.recorder->lost);
    assert_int_equal(stream.recorder->lost_code, -ENOMEM);
    stream_close(&stream);
}

static void write_byte(tram_output *output) {
    tram_output_byte(output, 'a');
}

static void write_text(tram_output *output) {
    tram_output_text(output, "abc");
}

static void write_decimal(tram_output *output) {
    tram_output_decimal(output, 12345);
}

static void write_be(tram_output *output) {
    tram_output_be(output, 1, 4);
}

static void write_printf(tram_output *output) {
    tram_output_printf(output, "%d", 1);
}

static void reserve(tram_output *output) {
    (void)tram_output_reserve(output, 8);
}

static void write_buffer(tram_output *output) {
    static char bytes[5000];
    int released = 0;
    tram_buffer *buffer = tram_buffer_wrap(bytes, sizeof bytes, note_release, &released);
    assert_non_null(buffer);
    tram_output_buffer(output, buffer);
    assert_int_equal(released, 0);
    tram_buffer_release(buffer);
    assert_int_equal(released, 1); /* nothing that failed keeps it */
}

/* Whichever call it is that finds no memory, the output has failed then, and takes nothing more. */
/* Whatever of it there is to be found, an output without bytes leaves nothing behind. */
static void test_room_that_nothing_came_to_is_given_back(void **state) {
    struct stream stream = stream_open(*state);
    for (int sent = 0; sent < 2; sent++) {
        tram_output output = output_of(&stream);
        assert_non_null(tram_output_reserve(&output, 0));
        assert_int_equal(tram_output_size(&output), 0);
        if (sent)
            assert_int_equal(tram_output_send(&output), 0);
        else
            tram_output_drop(&output);
    }
    stream_close(&stream);
}

static void test_no_piece_is_larger_than_can_be_counted(void **state) {
    static const size_t sizes[] = {UINT32_MAX - 16, UINT32_MAX, SIZE_MAX};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct stream stream = stream_open(world);
        tram_output output = output_of(&stream);
        tram_output_text(&output, "some");
        assert_null(tram_output_reserve(&output, sizes[i]));
        assert_int_equal(tram_output_send(&output), -ENOMEM);
        run_until(world, &stream.recorder->was_released);
        assert_int_equal(stream.recorder->lost_code, -ENOMEM);
        stream_close(&stream);
    }
}

static void test_the_first_lack_of_memory_is_what_counts(void **state) {
    static void (*const writes[])(tram_output *) = {write_byte,   write_text, write_decimal, write_be,
                                                    write_printf, reserve,    write_buffer};
    for (size_t i = 0; i < sizeof writes / sizeof *writes; i++) {
        struct stream stream = stream_open(*state);
        tram_output output = output_of(&stream);
        stream.world->fail_after = 0;
        writes[i](&output);
        stream.world->fail_after = SIZE_MAX;
        for (size_t k = 0; k < sizeof writes / sizeof *writes; k++)
            writes[k](&output);
        assert_int_equal(tram_output_size(&output), 0);
        assert_int_equal(tram_output_send(&output), -ENOMEM);
        run_until(stream.world, &stream.recorder->lost);
        assert_int_equal(stream.recorder->lost_code, -ENOMEM);
        stream_close(&stream);
    }
}

static void test_a_format_that_fails_is_told(void **state) {
    struct stream stream = stream_open(*state);
    tram_output output = output_of(&stream);
    tram_output_text(&output, "a");
    tram_output_printf(&output, "%lc", (wint_t)0x110000 + 5);
    assert_int_equal(tram_output_send(&output), -EILSEQ);
    tram_output_text(&output, "b");
    assert_int_equal(tram_output_send(&output), 0);
    assert_sent(&stream, "b");
    stream_close(&stream);
}

static void test_pairs_take_outputs_too(void **state) {
    struct world *world = *state;
    struct recorder *here = recorder_new(world, "here"), *there = recorder_new(world, "there");
    there->keep = true;
    there->quiet_data = true;
    assert_int_equal(tram_loop_create_pair(world->loop, &here->base, &there->base, NULL, NULL), 0);
    run_ticks(world, 3);
    tram_output output;
    tram_output_begin(&output, here->base.transport);
    for (int i = 0; i < 10000; i++) {
        tram_output_printf(&output, "%05d", i);
        if (i % 100 == 0) {
            tram_buffer *buffer = tram_buffer_copy("!", 1);
            tram_output_buffer(&output, buffer);
            tram_buffer_release(buffer);
        }
    }
    assert_int_equal(tram_output_send(&output), 0);
    run_to_rest(world);
    assert_int_equal(there->received, 50100);
    assert_memory_equal(there->bytes, "00000!0000100002", 16);
    tram_transport_abort(here->base.transport);
    run_until(world, &there->was_released);
}

/* What layers make of bytes, they make of an output's, too; long ones are many pieces. */
static void test_layers_take_outputs_too(void **state) {
    struct channel channel;
    channel_open_made(&channel, *state, CARRIER_UNIX, 1);
    enum { SIZE = 50000, PART = 2000 };
    static char bytes[SIZE];
    pattern(bytes, SIZE, 0);
    tram_output output;
    tram_output_begin(&output, channel.first);
    for (size_t at = 0; at < SIZE; at += PART) {
        tram_buffer *buffer = tram_buffer_copy(bytes + at, PART);
        tram_output_buffer(&output, buffer);
        tram_buffer_release(buffer);
    }
    assert_int_equal(tram_output_send(&output), 0);
    await_pattern(&channel, channel.b, SIZE);
    channel_close(&channel);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup_faults, world_teardown)
        TEST(test_text_and_numbers_are_formatted),
        TEST(test_numbers_are_binary),
        TEST(test_long_outputs_are_whole_and_in_order),
        TEST(test_shared_buffers_up_to_1_KiB_are_copied),
        TEST(test_a_long_printf_is_one_piece),
        TEST(test_an_answer_is_one_system_call_and_no_allocation),
        TEST(test_what_the_kernel_does_not_take_waits_in_order),
        TEST(test_what_others_write_meanwhile_comes_first),
        TEST(test_a_corked_output_waits),
        TEST(test_outputs_pause_writing_above_the_mark),
        TEST(test_a_dropped_or_late_output_sends_nothing),
        TEST(test_a_lack_of_memory_sends_nothing_and_ends_the_connection),
        TEST(test_room_that_nothing_came_to_is_given_back),
        TEST(test_no_piece_is_larger_than_can_be_counted),
        TEST(test_the_first_lack_of_memory_is_what_counts),
        TEST(test_a_format_that_fails_is_told),
        TEST(test_pairs_take_outputs_too),
        TEST(test_layers_take_outputs_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
