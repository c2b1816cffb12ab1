/* Inputs against a model that sees the whole stream at once, and what they remember, keep and copy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/memory.h"
#include "public_calls.h"
#include <tram/input.h>

#define assert_bytes(view, text)                                                                                       \
    do {                                                                                                               \
        assert_int_equal((view).size, sizeof(text) - 1);                                                               \
        assert_memory_equal((view).data, text, sizeof(text) - 1);                                                      \
    } while (0)

static tram_input new_input(size_t limit) {
    tram_input input;
    assert_int_equal(tram_input_init(&input, &(tram_input_options){.limit = limit}), 0);
    return input;
}

static void feed(tram_input *input, const char *text) {
    assert_int_equal(tram_input_feed(input, text, strlen(text)), 0);
}

/* ---- The model: what a call gives that sees all of the stream, and its end ---- */

enum op_kind {
    OP_LINE,
    OP_UNTIL,
    OP_UNTIL_ANY,
    OP_TAKE,
    OP_FRAME,
    OP_SOME,
    OP_PEEK,
    OP_CONSUME,
    OP_TWO_PARTS,
    OP_KINDS
};

struct op {
    enum op_kind kind;
    size_t size;
    tram_length_prefix prefix;
};

struct result {
    int status;
    size_t at; /* of the message */
    size_t size;
    size_t consumed;
    size_t which;
    size_t second; /* of a message of two parts */
};

struct model {
    const unsigned char *bytes;
    size_t size;
    size_t at;
    size_t limit;
};

static const tram_bytes separators[] = {{"a\r\nb", 4}, {"\r\n", 2}, {"bb", 2}, {"\n", 1}, {"aab", 3}};
#define SEPARATORS (sizeof separators / sizeof *separators)

static struct result ended(const struct model *model, size_t from) {
    return (struct result){.status = model->size == from ? -EAGAIN : TRAM_EINCOMPLETE};
}

static struct result model_until(const struct model *model, size_t from, size_t limit, size_t count) {
    size_t most = 0;
    for (size_t i = 0; i < count; i++)
        most = separators[i].size > most ? separators[i].size : most;
    for (size_t end = from + 1; end <= model->size; end++) {
        size_t best = SIZE_MAX;
        for (size_t i = 0; i < count; i++) {
            size_t size = separators[i].size;
            if (end - from >= size && !memcmp(model->bytes + end - size, separators[i].data, size) &&
                (best == SIZE_MAX || size < separators[best].size))
                best = i;
        }
        if (best == SIZE_MAX)
            continue;
        size_t size = end - separators[best].size - from;
        if (size > limit)
            return (struct result){.status = TRAM_ELIMIT};
        return (struct result){.at = from, .size = size, .consumed = end - from, .which = best};
    }
    size_t left = model->size - from, known = left < most ? 0 : left + 1 - most;
    return known > limit ? (struct result){.status = TRAM_ELIMIT} : ended(model, from);
}

static struct result model_line(const struct model *model, size_t from, size_t limit) {
    const unsigned char *start = model->bytes + from, *found = memchr(start, '\n', model->size - from);
    const unsigned char *end = found ? found : model->bytes + model->size;
    size_t size = (size_t)(end - start);
    if (size && start[size - 1] == '\r')
        size--;
    if (size > limit)
        return (struct result){.status = TRAM_ELIMIT};
    if (!found)
        return ended(model, from);
    return (struct result){.at = from, .size = size, .consumed = (size_t)(found + 1 - start)};
}

static struct result model_take(const struct model *model, size_t from, size_t size, size_t limit) {
    if (size > limit)
        return (struct result){.status = TRAM_ELIMIT};
    if (model->size - from < size)
        return ended(model, from);
    return (struct result){.at = from, .size = size, .consumed = size};
}

static size_t width(tram_length_prefix prefix) {
    static const size_t widths[] = {0, 1, 2, 2, 4, 4, 8, 8};
    return widths[prefix];
}

static struct result model_frame(const struct model *model, tram_length_prefix prefix) {
    const unsigned char *start = model->bytes + model->at;
    size_t left = model->size - model->at, header = 0;
    uint64_t length = 0;
    if (prefix == TRAM_LENGTH_VARINT) {
        for (;; header++) {
            if (header == left)
                return ended(model, model->at);
            length |= (uint64_t)(start[header] & 0x7f) << (7 * header);
            if (start[header++] < 0x80)
                break;
            header--;
        }
    } else {
        header = width(prefix);
        if (left < header)
            return ended(model, model->at);
        bool little = prefix == TRAM_LENGTH_U16_LE || prefix == TRAM_LENGTH_U32_LE || prefix == TRAM_LENGTH_U64_LE;
        for (size_t i = 0; i < header; i++)
            length |= (uint64_t)start[i] << 8 * (little ? i : header - 1 - i);
    }
    if (length > model->limit)
        return (struct result){.status = TRAM_ELIMIT};
    if (left - header < length)
        return (struct result){.status = TRAM_EINCOMPLETE};
    return (struct result){.at = model->at + header, .size = (size_t)length, .consumed = header + (size_t)length};
}

/* A line, and then as many bytes as it has and some. */
static struct result model_two_parts(const struct model *model, size_t more) {
    struct result line = model_line(model, model->at, model->limit);
    if (line.status)
        return line;
    size_t from = model->at + line.consumed, size = line.size + more;
    struct result rest = {.status = TRAM_ELIMIT};
    if (line.consumed <= model->limit && size <= model->limit - line.consumed)
        rest = model->size - from < size ? (struct result){.status = TRAM_EINCOMPLETE}
                                         : model_take(model, from, size, size);
    if (rest.status)
        return rest;
    return (struct result){.at = model->at, .size = line.size, .consumed = line.consumed + size, .second = size};
}

static struct result expected(const struct model *model, const struct op *op) {
    switch (op->kind) {
    case OP_LINE:
        return model_line(model, model->at, model->limit);
    case OP_UNTIL:
        return model_until(model, model->at, model->limit, 1);
    case OP_UNTIL_ANY:
        return model_until(model, model->at, model->limit, SEPARATORS);
    case OP_FRAME:
        return model_frame(model, op->prefix);
    case OP_TWO_PARTS:
        return model_two_parts(model, op->size);
    default:
        return model_take(model, model->at, op->size, model->limit);
    }
}

/* ---- The same calls of an input, whose stream comes in pieces ---- */

struct walk {
    struct model model;
    tram_input input;
    struct op ops[512];
    size_t op;
    bool pauses;
    bool marks; /* each message; else there are none of two parts */
    bool ended;
    unsigned seed;
};

static unsigned next(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static int call_two_parts(tram_input *input, size_t more, tram_bytes *ret_first, tram_bytes *ret_second) {
    int status = tram_input_line(input, ret_first);
    if (!status)
        status = tram_input_take(input, ret_first->size + more, ret_second);
    if (status)
        tram_input_rewind(input);
    return status;
}

static int call(struct walk *walk, const struct op *op, tram_bytes *view, tram_bytes *second, size_t *which) {
    tram_input *input = &walk->input;
    if (walk->marks)
        tram_input_mark(input);
    switch (op->kind) {
    case OP_LINE:
        return tram_input_line(input, view);
    case OP_UNTIL:
        return tram_input_until(input, separators[0].data, separators[0].size, view);
    case OP_UNTIL_ANY:
        return tram_input_until_any(input, separators, SEPARATORS, view, which);
    case OP_TAKE:
        return tram_input_take(input, op->size, view);
    case OP_FRAME:
        return tram_input_frame(input, op->prefix, view);
    case OP_SOME:
        return tram_input_some(input, op->size + 1, view);
    case OP_PEEK:
        return tram_input_peek(input, op->size, view);
    case OP_TWO_PARTS:
        return call_two_parts(input, op->size, view, second);
    default:
        *view = (tram_bytes){(const char *)walk->model.bytes + walk->model.at, op->size};
        return tram_input_consume(input, op->size);
    }
}

/* Compares a call with the model; false: no more of them now. */
static bool step(struct walk *walk) {
    struct op *op = &walk->ops[walk->op % (sizeof walk->ops / sizeof *walk->ops)];
    tram_bytes view = {0}, second = {0};
    size_t which = 0, before = tram_input_size(&walk->input);
    int status = call(walk, op, &view, &second, &which);
    if (status == -EAGAIN && !walk->ended) {
        assert_int_equal(tram_input_size(&walk->input), before);
        return false;
    }
    struct model *model = &walk->model;
    struct result wanted = expected(model, op);
    if (op->kind == OP_SOME && !status) /* how much there is depends on the pieces */
        wanted = (struct result){.at = model->at, .size = view.size, .consumed = view.size};
    else if (op->kind == OP_SOME)
        wanted = ended(model, model->size);
    assert_int_equal(status, wanted.status);
    walk->op++;
    if (status == TRAM_ELIMIT && tram_input_size(&walk->input)) { /* go on behind the next byte */
        assert_int_equal(tram_input_some(&walk->input, 1, &view), 0);
        model->at++;
        return true;
    }
    if (status)
        return false;
    assert_int_equal(view.size, wanted.size);
    assert_memory_equal(view.data, model->bytes + wanted.at, wanted.size);
    assert_int_equal(which, wanted.which);
    assert_int_equal(second.size, wanted.second);
    if (second.size)
        assert_memory_equal(second.data, model->bytes + model->at + wanted.consumed - second.size, second.size);
    model->at += op->kind == OP_PEEK ? 0 : wanted.consumed;
    return true;
}

static int walk_parser(tram_protocol *protocol, tram_input *input) {
    struct walk *walk = (struct walk *)(void *)((char *)input - offsetof(struct walk, input));
    assert_null(protocol);
    while (step(walk))
        if (walk->pauses && !(next(&walk->seed) % 8)) {
            tram_input_pause(input);
            return 0;
        }
    return -EAGAIN;
}

static void fill_stream(unsigned char *bytes, size_t size, unsigned *seed) {
    static const unsigned char alphabet[] = {'a', 'a', 'b', '\r', '\n', 0, 1, 3, 0, 0x83};
    for (size_t i = 0; i < size; i++)
        bytes[i] = alphabet[next(seed) % sizeof alphabet];
}

/* The bytes of a piece live as long as the feed: a view into them afterwards is seen by the address sanitizer. */
static void feed_copy(struct walk *walk, const unsigned char *bytes, size_t size) {
    void *piece = malloc(size);
    memcpy(piece, bytes, size);
    assert_int_equal(tram_input_feed(&walk->input, piece, size), 0);
    free(piece);
}

static void after_feed(struct walk *walk, bool parses) {
    if (!parses)
        while (step(walk))
            ;
    while (tram_input_is_paused(&walk->input))
        assert_int_equal(tram_input_resume(&walk->input), 0);
}

static void random_walk(unsigned seed, bool parses) {
    unsigned char bytes[2048];
    struct walk *walk = calloc(1, sizeof *walk);
    walk->seed = seed;
    walk->pauses = parses && seed % 2;
    walk->marks = seed % 3;
    fill_stream(bytes, sizeof bytes, &walk->seed);
    for (size_t i = 0; i < sizeof walk->ops / sizeof *walk->ops; i++)
        walk->ops[i] = (struct op){(enum op_kind)(next(&walk->seed) % (walk->marks ? OP_KINDS : OP_TWO_PARTS)),
                                   next(&walk->seed) % 12, (tram_length_prefix)(1 + next(&walk->seed) % 8)};
    walk->model = (struct model){bytes, sizeof bytes, 0, 3 + next(&walk->seed) % 40};
    tram_input_options options = {.limit = walk->model.limit, .parse = parses ? walk_parser : NULL};
    assert_int_equal(tram_input_init(&walk->input, &options), 0);
    for (size_t at = 0, size; at < sizeof bytes; at += size) {
        size = 1 + next(&walk->seed) % (next(&walk->seed) % 2 ? 4 : 200);
        if (size > sizeof bytes - at)
            size = sizeof bytes - at;
        feed_copy(walk, bytes + at, size);
        after_feed(walk, parses);
    }
    walk->ended = true;
    assert_true(tram_input_feed_eof(&walk->input) >= 0);
    after_feed(walk, parses);
    assert_int_equal(tram_input_size(&walk->input), sizeof bytes - walk->model.at);
    tram_input_fini(&walk->input);
    free(walk);
}

static void test_messages_are_the_same_however_the_stream_is_cut(void **state) {
    (void)state;
    for (unsigned seed = 1; seed <= 1000; seed++)
        random_walk(seed, true);
}

static void test_messages_are_the_same_without_a_parser(void **state) {
    (void)state;
    for (unsigned seed = 1; seed <= 1000; seed++)
        random_walk(seed, false);
}

/* ---- Single rules ---- */

static void test_lines_end_with_lf_or_crlf(void **state) {
    (void)state;
    tram_input input = new_input(0);
    tram_bytes line;
    feed(&input, "one\r\ntwo\n\n\r\n\rx\r\r\nno");
    assert_int_equal(tram_input_line(&input, &line), 0);
    assert_bytes(line, "one");
    assert_memory_equal(line.data + line.size, "\r\n", 2);
    assert_int_equal(tram_input_line(&input, &line), 0);
    assert_bytes(line, "two");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tram_input_line(&input, &line), 0);
        assert_bytes(line, "");
    }
    assert_int_equal(tram_input_line(&input, &line), 0);
    assert_bytes(line, "\rx\r");
    assert_int_equal(tram_input_line(&input, &line), -EAGAIN);
    assert_int_equal(tram_input_size(&input), 2);
    tram_input_fini(&input);
}

static void test_a_line_may_have_the_limit_whatever_ends_it(void **state) {
    (void)state;
    tram_bytes line;
    tram_input input = new_input(4);
    feed(&input, "1234\r");
    assert_int_equal(tram_input_line(&input, &line), -EAGAIN);
    feed(&input, "\n12345");
    assert_int_equal(tram_input_line(&input, &line), 0);
    assert_bytes(line, "1234");
    assert_int_equal(tram_input_line(&input, &line), TRAM_ELIMIT);
    assert_int_equal(tram_input_size(&input), 5); /* all is there still */
    tram_input_fini(&input);
}

static void test_the_first_end_wins_and_then_the_shortest_separator(void **state) {
    (void)state;
    static const tram_bytes ends[] = {{"xyz", 3}, {"z", 1}, {"yz", 2}, {"abc", 3}};
    tram_input input = new_input(0);
    tram_bytes message;
    size_t which;
    feed(&input, "1xyz2abcz");
    assert_int_equal(tram_input_until_any(&input, ends, 4, &message, &which), 0);
    assert_bytes(message, "1xy");
    assert_int_equal(which, 1);
    assert_int_equal(tram_input_until_any(&input, ends, 4, &message, NULL), 0);
    assert_bytes(message, "2");
    assert_int_equal(tram_input_until_any(&input, ends, 0, &message, NULL), TRAM_EVALUE);
    assert_int_equal(tram_input_until(&input, "", 0, &message), TRAM_EVALUE);
    tram_input_fini(&input);
}

static void test_an_overlong_varint_is_malformed(void **state) {
    (void)state;
    static const char most[] = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    static const char more[] = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02";
    tram_bytes frame;
    tram_input input = new_input(SIZE_MAX);
    feed(&input, most);
    assert_int_equal(tram_input_frame(&input, TRAM_LENGTH_VARINT, &frame), TRAM_ELIMIT); /* 2^64 - 1 bytes */
    tram_input_fini(&input);
    input = new_input(SIZE_MAX);
    feed(&input, more);
    assert_int_equal(tram_input_frame(&input, TRAM_LENGTH_VARINT, &frame), -EBADMSG);
    assert_int_equal(tram_input_frame(&input, (tram_length_prefix)0, &frame), TRAM_EVALUE);
    tram_input_fini(&input);
}

static void test_the_end_within_a_message_is_told_from_one_between_two(void **state) {
    (void)state;
    tram_bytes line;
    tram_input input = new_input(0);
    feed(&input, "a\nb");
    assert_int_equal(tram_input_feed_eof(&input), 0);
    assert_int_equal(tram_input_line(&input, &line), 0);
    assert_false(tram_input_at_eof(&input));
    assert_int_equal(tram_input_line(&input, &line), TRAM_EINCOMPLETE);
    assert_int_equal(tram_input_some(&input, 10, &line), 0);
    assert_bytes(line, "b");
    assert_true(tram_input_at_eof(&input));
    assert_int_equal(tram_input_line(&input, &line), -EAGAIN);
    assert_int_equal(tram_input_feed(&input, "x", 1), TRAM_ESTATE);
    assert_int_equal(tram_input_feed_eof(&input), TRAM_ESTATE);
    tram_input_fini(&input);
    tram_input_fini(&input);
}

/* ---- Memory ---- */

struct meter {
    size_t live;
    size_t allocations;
    bool fails;
};

static void *meter_allocate(void *context, size_t size) {
    struct meter *meter = context;
    if (meter->fails)
        return NULL;
    meter->live += size;
    meter->allocations++;
    return malloc(size);
}

static void meter_release(void *context, void *memory, size_t size) {
    ((struct meter *)context)->live -= size;
    free(memory);
}

static tram_input metered_input(struct meter *meter, size_t limit, tram_input_parser parse) {
    tram_input input;
    assert_int_equal(tram_input_init(&input, &(tram_input_options){.limit = limit, .parse = parse}), 0);
    input.allocator = (tram_allocator){meter_allocate, meter_release, meter};
    return input;
}

static const char *seen_at[16];
static size_t seen;

static int line_parser(tram_protocol *protocol, tram_input *input) {
    (void)protocol;
    tram_bytes line;
    int status;
    while (!(status = tram_input_line(input, &line)))
        seen_at[seen++ % 16] = line.data;
    return status;
}

static void test_whole_messages_are_not_copied_and_need_no_memory(void **state) {
    (void)state;
    static const char bytes[] = "one\ntwo\r\n";
    struct meter meter = {0};
    tram_input input = metered_input(&meter, 0, line_parser);
    seen = 0;
    assert_int_equal(tram_input_feed(&input, bytes, sizeof bytes - 1), 0);
    assert_int_equal(seen, 2);
    assert_ptr_equal(seen_at[0], bytes);
    assert_ptr_equal(seen_at[1], bytes + 4);
    assert_int_equal(meter.allocations, 0);
    tram_input_fini(&input);
}

static void test_only_the_message_that_came_in_pieces_is_copied(void **state) {
    (void)state;
    static char bytes[100000];
    struct meter meter = {0};
    tram_input input = metered_input(&meter, 200000, line_parser);
    seen = 0;
    feed(&input, "be");
    memset(bytes, 'x', sizeof bytes);
    memcpy(bytes, "gun\n", 4);
    bytes[sizeof bytes - 1] = '\n';
    assert_int_equal(tram_input_feed(&input, bytes, sizeof bytes), 0);
    assert_int_equal(seen, 2);
    assert_ptr_equal(seen_at[1], bytes + 4);
    assert_int_equal(meter.allocations, 1);
    assert_int_equal(meter.live, 0); /* an input that has nothing to keep has no memory */
    tram_input_fini(&input);
}

static void test_what_is_kept_grows_by_doubling_and_is_searched_once(void **state) {
    (void)state;
    enum { SIZE = 1 << 20 };
    struct meter meter = {0};
    tram_input input = metered_input(&meter, 2 * SIZE, line_parser);
    seen = 0;
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(tram_input_feed(&input, "x", 1), 0);
        assert_int_equal(input.search_to, i + 1);
    }
    assert_in_range(meter.allocations, 5, 16);
    assert_in_range(meter.live, SIZE, 2 * SIZE + 512);
    assert_int_equal(tram_input_feed(&input, "\n", 1), 0);
    assert_int_equal(seen, 1);
    assert_int_equal(meter.live, 0);
    tram_input_fini(&input);
}

static void test_a_rest_that_is_consumed_byte_by_byte_is_moved_seldom(void **state) {
    (void)state;
    struct meter meter = {0};
    tram_input input = metered_input(&meter, 0, NULL);
    char bytes[1000] = {0};
    tram_bytes byte;
    assert_int_equal(tram_input_feed(&input, bytes, sizeof bytes), 0);
    for (int i = 0; i < 100000; i++) {
        assert_int_equal(tram_input_take(&input, 1, &byte), 0);
        assert_int_equal(tram_input_feed(&input, bytes, 1), 0);
    }
    assert_in_range(meter.allocations, 1, 2);
    tram_input_fini(&input);
}

/* As many bytes are dead as there are to be moved, and what comes just fits then; with one less it does not. */
static void test_a_rest_is_moved_in_place_where_that_is_paid_for(void **state) {
    (void)state;
    static const char bytes[1000];
    for (size_t missing = 0; missing < 2; missing++) {
        struct meter meter = {0};
        tram_input input = metered_input(&meter, 0, NULL);
        for (int i = 0; i < 2; i++) /* room for twice the first */
            assert_int_equal(tram_input_feed(&input, bytes, sizeof bytes), 0);
        assert_int_equal(meter.allocations, 1);
        assert_int_equal(tram_input_consume(&input, sizeof bytes - missing), 0);
        assert_int_equal(tram_input_feed(&input, bytes, sizeof bytes - missing), 0);
        assert_int_equal(meter.allocations, 1 + missing);
        tram_input_fini(&input);
        assert_int_equal(meter.live, 0);
    }
}

static void test_a_length_takes_no_memory_before_its_bytes_come(void **state) {
    (void)state;
    struct meter meter = {0};
    tram_bytes frame;
    tram_input input = metered_input(&meter, 1 << 20, NULL);
    assert_int_equal(tram_input_feed(&input, "\0\xff\xff\xff", 4), 0);
    assert_int_equal(tram_input_frame(&input, TRAM_LENGTH_U32_BE, &frame), TRAM_ELIMIT);
    tram_input_fini(&input);
    input = metered_input(&meter, 1 << 20, NULL);
    assert_int_equal(tram_input_feed(&input, "\0\x0f\xff\xff", 4), 0);
    assert_int_equal(tram_input_frame(&input, TRAM_LENGTH_U32_BE, &frame), -EAGAIN);
    assert_in_range(meter.live, 1, 512);
    tram_input_fini(&input);
    assert_int_equal(meter.live, 0);
}

static void test_bytes_that_cannot_be_kept_end_the_input(void **state) {
    (void)state;
    struct meter meter = {.fails = true};
    tram_bytes line;
    tram_input input = metered_input(&meter, 0, line_parser);
    seen = 0;
    assert_int_equal(tram_input_feed(&input, "a\nb", 3), -ENOMEM);
    assert_int_equal(seen, 1);
    meter.fails = false;
    assert_int_equal(tram_input_feed(&input, "c\n", 2), -ENOMEM); /* never "c" for "bc" */
    assert_int_equal(tram_input_line(&input, &line), -ENOMEM);
    assert_int_equal(tram_input_feed_eof(&input), -ENOMEM);
    assert_int_equal(seen, 1);
    tram_input_fini(&input);
}

static int take_frame(tram_input *input, tram_bytes *ret_bytes) {
    return tram_input_frame(input, TRAM_LENGTH_U16_BE, ret_bytes);
}

static int take_bytes(tram_input *input, tram_bytes *ret_bytes) {
    return tram_input_take(input, 5000, ret_bytes);
}

static int peek_bytes(tram_input *input, tram_bytes *ret_bytes) {
    return tram_input_peek(input, 5000, ret_bytes);
}

static int take_line(tram_input *input, tram_bytes *ret_bytes) {
    return tram_input_line(input, ret_bytes);
}

static int take_until(tram_input *input, tram_bytes *ret_bytes) {
    return tram_input_until(input, "\n", 1, ret_bytes);
}

static int take_until_any(tram_input *input, tram_bytes *ret_bytes) {
    const tram_bytes end = {"\n", 1};
    return tram_input_until_any(input, &end, 1, ret_bytes, NULL);
}

static int (*taking)(tram_input *input, tram_bytes *ret_bytes);
static int taken;

static int taking_parser(tram_protocol *protocol, tram_input *input) {
    (void)protocol;
    tram_bytes bytes = {NULL, 17};
    struct meter *meter = input->allocator.context;
    taken = taking(input, &bytes);
    if (taken == -EAGAIN)
        return taken;
    assert_true(taken || bytes.size > 4000);
    if (taken)
        assert_null(bytes.data); /* and nothing is given */
    meter->fails = false;
    return taken;
}

/* A message that came in two pieces is joined in memory; where there is none, no byte of it is lost or taken. */
static void test_a_message_in_pieces_that_finds_no_memory_stays(void **state) {
    (void)state;
    static int (*const all[])(tram_input *, tram_bytes *) = {take_frame, take_bytes, peek_bytes,
                                                             take_line,  take_until, take_until_any};
    static char text[6000];
    memset(text, 16, sizeof text); /* a frame of 0x1010 bytes */
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct meter meter = {.fails = false};
        tram_input input = metered_input(&meter, 0, taking_parser);
        taking = all[i];
        text[5000] = '\n';
        assert_int_equal(tram_input_feed(&input, text, 10), 0);
        assert_int_equal(taken, -EAGAIN);
        meter.fails = true;
        assert_int_equal(tram_input_feed(&input, text + 10, sizeof text - 10), -ENOMEM);
        assert_int_equal(taken, -ENOMEM);
        tram_input_fini(&input);
        assert_int_equal(meter.live, 0);
    }
}

/* ---- The parser ---- */

static unsigned calls;

static int frame_parser(tram_protocol *protocol, tram_input *input) {
    (void)protocol;
    tram_bytes frame;
    int status;
    calls++;
    while (!(status = tram_input_frame(input, TRAM_LENGTH_U16_BE, &frame)))
        seen++;
    return status;
}

static void test_the_parser_is_not_called_before_there_can_be_a_message(void **state) {
    (void)state;
    tram_input input;
    assert_int_equal(tram_input_init(&input, &(tram_input_options){.parse = frame_parser}), 0);
    calls = 0;
    seen = 0;
    for (int i = 0; i < 2 + 0x300; i++)
        assert_int_equal(tram_input_feed(&input, i ? "\0" : "\3", 1), 0);
    assert_int_equal(seen, 1);
    assert_in_range(calls, 3, 3); /* for the length, for its other half, for the frame */
    tram_input_fini(&input);
}

static int marking_parser(tram_protocol *protocol, tram_input *input) {
    (void)protocol;
    tram_bytes line;
    if (calls++ % 2)
        tram_input_rewind(input); /* to what an earlier call marked */
    else
        tram_input_mark(input);
    int status;
    while (!(status = tram_input_line(input, &line)))
        seen++;
    return status;
}

static void test_a_mark_ends_with_the_call_of_the_parser(void **state) {
    (void)state;
    tram_input input;
    assert_int_equal(tram_input_init(&input, &(tram_input_options){.parse = marking_parser}), 0);
    calls = seen = 0;
    feed(&input, "a\nb\nrest");
    assert_int_equal(tram_input_size(&input), 4);
    tram_input_rewind(&input); /* outside */
    assert_int_equal(tram_input_size(&input), 4);
    tram_input_mark(&input); /* outside, too: the parser does not see it */
    feed(&input, "\nc\n");
    assert_int_equal(seen, 4);
    assert_int_equal(calls, 2);
    assert_int_equal(tram_input_size(&input), 0);
    tram_input_fini(&input);
}

static int pausing_parser(tram_protocol *protocol, tram_input *input) {
    (void)protocol;
    tram_bytes line;
    int status;
    while (!(status = tram_input_line(input, &line))) {
        seen++;
        tram_input_pause(input);
    }
    return status;
}

static void test_a_paused_input_keeps_what_comes_and_says_not_now(void **state) {
    (void)state;
    tram_input input;
    assert_int_equal(tram_input_init(&input, &(tram_input_options){.parse = pausing_parser}), 0);
    seen = 0;
    feed(&input, "a\nb\nc");
    feed(&input, "c\n");
    assert_int_equal(seen, 1);
    assert_true(tram_input_is_paused(&input));
    assert_int_equal(tram_input_feed_eof(&input), 1);
    assert_int_equal(tram_input_resume(&input), 0);
    assert_int_equal(seen, 2);
    assert_int_equal(tram_input_resume(&input), 0);
    assert_int_equal(seen, 3);
    assert_true(tram_input_at_eof(&input));
    tram_input_fini(&input);
}

static void test_pauses_count(void **state) {
    (void)state;
    tram_input input;
    assert_int_equal(tram_input_init(&input, &(tram_input_options){.parse = pausing_parser}), 0);
    seen = 0;
    assert_int_equal(tram_input_resume(&input), 0); /* none: that changes nothing */
    tram_input_pause(&input);
    tram_input_pause(&input);
    feed(&input, "a\n");
    assert_int_equal(tram_input_resume(&input), 0);
    assert_true(tram_input_is_paused(&input));
    assert_int_equal(seen, 0);
    assert_int_equal(tram_input_resume(&input), 0);
    assert_int_equal(seen, 1);
    tram_input_fini(&input);
}

static int resuming_parser(tram_protocol *protocol, tram_input *input) {
    tram_bytes line;
    int status = pausing_parser(protocol, input);
    assert_int_equal(tram_input_line(input, &line), -EAGAIN);
    assert_int_equal(tram_input_resume(input), 0);
    return status;
}

static void test_a_parser_that_resumes_itself_loses_nothing(void **state) {
    (void)state;
    tram_input input;
    assert_int_equal(tram_input_init(&input, &(tram_input_options){.parse = resuming_parser}), 0);
    seen = 0;
    feed(&input, "a\nb\nc\nd");
    assert_int_equal(seen, 3);
    assert_int_equal(tram_input_size(&input), 1);
    tram_input_fini(&input);
}

static unsigned parses;

static int counting_parser(tram_protocol *protocol, tram_input *input) {
    parses++;
    return line_parser(protocol, input);
}

static void test_a_parser_is_called_for_what_is_new(void **state) {
    (void)state;
    static const struct {
        const char *text;
        unsigned parses;
    } feeds[] = {{"ab", 1}, {"", 1}, {"c", 2}, {"", 2}, {"\nd", 3}, {"", 3}, {"\n", 4}, {"", 4}};
    tram_input input;
    assert_int_equal(tram_input_init(&input, &(tram_input_options){.parse = counting_parser}), 0);
    seen = parses = 0;
    for (size_t i = 0; i < sizeof feeds / sizeof *feeds; i++) {
        feed(&input, feeds[i].text);
        assert_int_equal(parses, feeds[i].parses);
    }
    assert_int_equal(seen, 2);
    assert_int_equal(tram_input_feed(&input, NULL, 1), TRAM_EVALUE);
    assert_int_equal(tram_input_feed(&input, NULL, 0), 0);
    assert_int_equal(parses, 4);
    tram_input_fini(&input);
}

/* Nothing is taken, looked at or judged of an input that is paused. */
static void test_every_call_on_a_paused_input_is_to_wait(void **state) {
    (void)state;
    static const char but[] = " tram_input_init tram_input_feed tram_input_feed_eof tram_input_resume tram_input_end"
                              " tram_input_until tram_input_until_any";
    tram_input input = new_input(4);
    feed(&input, "ab\n");
    tram_input_pause(&input);
    assert_true(all_answer(calls_of_tram_input, &input, -EAGAIN, but));
    tram_bytes bytes, end = {"\n", 1};
    assert_int_equal(tram_input_until(&input, "\n", 1, &bytes), -EAGAIN);
    assert_int_equal(tram_input_until_any(&input, &end, 1, &bytes, NULL), -EAGAIN);
    assert_int_equal(tram_input_consume(&input, 5), -EAGAIN); /* more than there ever is */
    assert_int_equal(tram_input_size(&input), 3);
    assert_int_equal(tram_input_resume(&input), 0);
    assert_int_equal(tram_input_consume(&input, 5), TRAM_ELIMIT);
    assert_int_equal(tram_input_some(&input, 0, &bytes), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "most");
    assert_int_equal(tram_input_take(&input, 3, &bytes), 0);
    assert_bytes(bytes, "ab\n");
    tram_input_fini(&input);
}

static int rewinding_parser(tram_protocol *protocol, tram_input *input) {
    (void)protocol;
    int status = tram_input_consume(input, 1);
    tram_input_rewind(input); /* to nowhere: nothing was marked in this call */
    parses++;
    return status;
}

/* A mark is one of the call that set it. */
static void test_a_mark_does_not_outlive_its_parse(void **state) {
    (void)state;
    tram_input input;
    assert_int_equal(tram_input_init(&input, &(tram_input_options){.parse = rewinding_parser}), 0);
    parses = 0;
    tram_input_pause(&input);
    feed(&input, "abc");
    tram_input_mark(&input);
    assert_int_equal(tram_input_resume(&input), 0);
    assert_int_equal(parses, 1);
    assert_int_equal(tram_input_size(&input), 2);
    tram_input_mark(&input);
    feed(&input, "d");
    assert_int_equal(parses, 2);
    assert_int_equal(tram_input_size(&input), 2);
    tram_input_fini(&input);
}

static int failing_parser(tram_protocol *protocol, tram_input *input) {
    (void)protocol;
    assert_int_equal(tram_input_feed(input, "x", 1), TRAM_ESTATE);
    return -EPROTO;
}

static void test_the_failure_of_a_parser_is_that_of_the_feed(void **state) {
    (void)state;
    tram_input input;
    assert_int_equal(tram_input_init(&input, &(tram_input_options){.parse = failing_parser}), 0);
    assert_int_equal(tram_input_feed(&input, "x", 1), -EPROTO);
    tram_input_fini(&input);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_are_the_same_however_the_stream_is_cut),
        cmocka_unit_test(test_messages_are_the_same_without_a_parser),
        cmocka_unit_test(test_lines_end_with_lf_or_crlf),
        cmocka_unit_test(test_a_line_may_have_the_limit_whatever_ends_it),
        cmocka_unit_test(test_the_first_end_wins_and_then_the_shortest_separator),
        cmocka_unit_test(test_an_overlong_varint_is_malformed),
        cmocka_unit_test(test_the_end_within_a_message_is_told_from_one_between_two),
        cmocka_unit_test(test_whole_messages_are_not_copied_and_need_no_memory),
        cmocka_unit_test(test_only_the_message_that_came_in_pieces_is_copied),
        cmocka_unit_test(test_what_is_kept_grows_by_doubling_and_is_searched_once),
        cmocka_unit_test(test_a_rest_that_is_consumed_byte_by_byte_is_moved_seldom),
        cmocka_unit_test(test_a_rest_is_moved_in_place_where_that_is_paid_for),
        cmocka_unit_test(test_a_length_takes_no_memory_before_its_bytes_come),
        cmocka_unit_test(test_bytes_that_cannot_be_kept_end_the_input),
        cmocka_unit_test(test_a_message_in_pieces_that_finds_no_memory_stays),
        cmocka_unit_test(test_the_parser_is_not_called_before_there_can_be_a_message),
        cmocka_unit_test(test_a_mark_ends_with_the_call_of_the_parser),
        cmocka_unit_test(test_a_paused_input_keeps_what_comes_and_says_not_now),
        cmocka_unit_test(test_pauses_count),
        cmocka_unit_test(test_a_parser_that_resumes_itself_loses_nothing),
        cmocka_unit_test(test_a_parser_is_called_for_what_is_new),
        cmocka_unit_test(test_every_call_on_a_paused_input_is_to_wait),
        cmocka_unit_test(test_a_mark_does_not_outlive_its_parse),
        cmocka_unit_test(test_the_failure_of_a_parser_is_that_of_the_feed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
