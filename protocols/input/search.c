/*
 * Messages that end with a separator. What was searched once is not searched again: an input remembers what it looked
 * for last, and that it begins nowhere in a range.
 */
#include "protocols/input/input.h"

#include <errno.h>
#include <string.h>

#include "core/base/hash.h"
#include "core/base/invalid.h"

#define NOWHERE  UINT64_MAX
#define KEY_LINE 1u

static uint64_t search_begin(const tram_input *input, uint64_t key) {
    bool known = input->search_key == key && input->at >= input->search_from && input->at <= input->search_to;
    return known ? input->search_to : input->at;
}

/* There is none from the first byte to `to`. */
static void search_failed(tram_input *input, uint64_t key, uint64_t to) {
    if (search_begin(input, key) == input->at)
        input->search_from = input->at;
    input->search_key = key;
    input->search_to = to;
}

/* The place of a byte in [from, to). */
static uint64_t find_byte(const tram_input *input, uint64_t from, uint64_t to, char byte) {
    while (from < to) {
        tram_bytes piece = tram__input_piece(input, from);
        size_t size = piece.size < to - from ? piece.size : (size_t)(to - from);
        const char *found = memchr(piece.data, byte, size);
        if (found)
            return from + (uint64_t)(found - piece.data);
        from += size;
    }
    return NOWHERE;
}

/* All of the separator is there; it may lie in two pieces. */
static bool matches(const tram_input *input, uint64_t at, const tram_bytes *separator) {
    tram_bytes piece = tram__input_piece(input, at);
    if (likely(piece.size >= separator->size))
        return !memcmp(piece.data, separator->data, separator->size);
    return !memcmp(piece.data, separator->data, piece.size) &&
           !memcmp(input->borrowed, separator->data + piece.size, separator->size - piece.size);
}

/* Where the separator begins that ends first in [from, end). */
static uint64_t find_separator(const tram_input *input, uint64_t from, uint64_t end, const tram_bytes *separator) {
    if (end - from < separator->size)
        return NOWHERE;
    uint64_t begins_before = end - separator->size + 1;
    while ((from = find_byte(input, from, begins_before, separator->data[0])) != NOWHERE) {
        if (matches(input, from, separator))
            return from;
        from++;
    }
    return NOWHERE;
}

/* The first `size` bytes are a message, and `end` more behind it belong to it. */
static int take_message(tram_input *input, uint64_t size, size_t end, tram_bytes *ret_message) {
    if (unlikely(tram__input_over_limit(input, size)))
        return TRAM_ELIMIT;
    const char *bytes;
    int status = tram__input_view(input, input->at, (size_t)size + end, &bytes);
    if (unlikely(status))
        return status;
    *ret_message = (tram_bytes){bytes, (size_t)size};
    tram__input_advance(input, (size_t)size + end);
    return 0;
}

/* Nothing that ends a message is there, which has `known` bytes at least. */
static int lacks_end(tram_input *input, uint64_t known) {
    return tram__input_over_limit(input, known) ? TRAM_ELIMIT : tram__input_lacks(input, tram_input_size(input) + 1);
}

static bool is_cr(const tram_input *input, uint64_t at) {
    return *tram__input_piece(input, at).data == '\r';
}

int tram_input_line(tram_input *input, tram_bytes *ret_line) {
    int status = tram__input_enter(input);
    if (unlikely(status))
        return status;
    uint64_t at = input->at, end = input_end(input);
    uint64_t found = find_byte(input, search_begin(input, KEY_LINE), end, '\n');
    uint64_t line_end = found == NOWHERE ? end : found;
    if (line_end > at && is_cr(input, line_end - 1))
        line_end--;
    if (found == NOWHERE) {
        search_failed(input, KEY_LINE, end);
        return lacks_end(input, line_end - at);
    }
    return take_message(input, line_end - at, (size_t)(found + 1 - line_end), ret_line);
}

/* Tells searches apart; no peer chooses separators. */
static uint64_t key_of(const tram_bytes *separators, size_t count) {
    uint64_t key = HASH_BEGIN;
    for (size_t i = 0; i < count; i++) {
        key = hash_add(key, separators[i].size);
        for (size_t k = 0; k < separators[i].size; k++)
            key = hash_add(key, (unsigned char)separators[i].data[k]);
    }
    return key;
}

size_t tram__input_longest(const tram_bytes *separators, size_t count) {
    size_t most = 0;
    for (size_t i = 0; i < count; i++) {
        if (!separators[i].size)
            return 0;
        most = MAX(most, separators[i].size);
    }
    return most;
}

/* Where the first one ends; NOWHERE. */
static uint64_t find_any(const tram_input *input, uint64_t from, const tram_bytes *separators, size_t count,
                         size_t *ret_which) {
    uint64_t best = NOWHERE, end = input_end(input);
    for (size_t i = 0; i < count; i++) {
        uint64_t found = find_separator(input, from, end, &separators[i]);
        if (found == NOWHERE)
            continue;
        found += separators[i].size;
        if (found < best || separators[i].size < separators[*ret_which].size)
            *ret_which = i;
        best = end = found; /* others must end there or before */
    }
    return best;
}

bool tram__input_find(tram_input *input, const tram_bytes *separators, size_t count, size_t longest, size_t *ret_size,
                      size_t *ret_which) {
    uint64_t key = key_of(separators, count), from = search_begin(input, key), end = input_end(input);
    uint64_t found = find_any(input, from, separators, count, ret_which);
    if (found != NOWHERE) {
        *ret_size = (size_t)(found - separators[*ret_which].size - input->at);
        return true;
    }
    uint64_t to = end - from < longest ? from : end + 1 - longest; /* a beginning may be there already */
    search_failed(input, key, to);
    *ret_size = (size_t)(to - input->at);
    return false;
}

int tram_input_until_any(tram_input *input, const tram_bytes *separators, size_t count, tram_bytes *ret_message,
                         size_t *ret_which) {
    size_t longest = tram__input_longest(separators, count), size, which;
    if (!longest)
        return tram__invalid("separators");
    int status = tram__input_enter(input);
    if (unlikely(status))
        return status;
    if (!tram__input_find(input, separators, count, longest, &size, &which))
        return lacks_end(input, size);
    status = take_message(input, size, separators[which].size, ret_message);
    if (!status && ret_which)
        *ret_which = which;
    return status;
}

int tram_input_until(tram_input *input, const void *separator, size_t size, tram_bytes *ret_message) {
    tram_bytes only = {separator, size};
    return tram_input_until_any(input, &only, 1, ret_message, NULL);
}
